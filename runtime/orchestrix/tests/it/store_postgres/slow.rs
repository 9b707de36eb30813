//! The log of slow queries.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orchestrix_core::EventStore;

use super::place::Place;

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("nobody panicked").clone()).expect("log lines are text")
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panicked").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Everything runs on this thread, which is the one that logs into the lines.
#[tokio::test]
async fn a_slow_statement_is_logged_with_its_name_duration_and_rows() {
    let place = Place::new();
    let quick = place.options().await.slow_query(Duration::from_hours(1)).connect().await.expect("opens");
    let slow = place.options().await.slow_query(Duration::ZERO).connect().await.expect("opens");
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    quick.checkpoint("c").await.expect("answers");
    assert_eq!(lines.text(), "", "an hour is not that long");
    slow.checkpoint("c").await.expect("answers");
    let text = lines.text();
    for part in ["WARN", "slow query", "statement=\"checkpoint\"", "duration_ms=", "rows=0"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
