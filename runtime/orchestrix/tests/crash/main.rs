//! Real faults: processes that are killed, a server that crashes, connections that are cut at every step, a disk that is
//! full. Each story compares the log with everything that callers were told.
//!
//! The stories run at a size that suits every change; `FAULTS=full` runs them at full size, and prints what it counted
//! with `--nocapture`. `docs/internals/faults.md` has the figures.
#![allow(unreachable_pub, missing_docs, reason = "nobody uses a test binary as a library")]

mod cuts;
mod database;
mod disk;
mod kills;
mod late;
mod ledger;
mod load;
mod restarts;
mod told;

/// How large the stories are.
pub fn size(usual: usize, full: usize) -> usize {
    match std::env::var("FAULTS").as_deref() {
        Ok("full") => full,
        Ok("usual") | Err(std::env::VarError::NotPresent) => usual,
        other => panic!("FAULTS is {other:?}; it may be `usual` or `full`"),
    }
}

/// Says what a story counted, also when nobody shows what tests print.
pub fn report(words: &str) {
    println!("{words}");
}

/// Returns the middle and the largest, in milliseconds.
pub fn spread(times: &[std::time::Duration]) -> String {
    let mut millis: Vec<u128> = times.iter().map(std::time::Duration::as_millis).collect();
    millis.sort_unstable();
    match millis.last() {
        Some(last) => format!("p50 {} ms, max {last} ms", millis[millis.len() / 2]),
        None => "nothing measured".to_owned(),
    }
}
