//! Commands, reads, refusals and repeats on a few hot counters look as if they happened one at a time, while appends
//! fail by chance, counters leave memory and come back from snapshots, their shards are sealed or fenced and opened again,
//! and the node is stopped or killed and started again on the same log.
//!
//! The callers only write down what they heard; [`history`] judges it afterwards.

pub mod history;
mod play;
mod turns;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use orchestrix::core::{CommandId, EventStore, ShardId, Version};
use orchestrix::{AggregateRef, Consistency, NotAttempted, SendError};
use orchestrix_testkit::FaultCounts;
use tokio::task::JoinSet;

use crate::counter::{Add, AddRefusal, Counter, CounterId, Peek, counter};
use crate::harness::{AddAnswer, CounterLog, Dice, Lanes, fresh_seed, in_time, shard_of};
use history::{Call, Facts, Heard, judge};
use play::{Act, Play, Sent};

/// Few, so that callers meet.
const COUNTERS: u64 = 3;
const CALLERS: u64 = 12;
const CALLS_EACH: u64 = 400;
const CALLS: u64 = CALLERS * CALLS_EACH;
/// After this many calls the node is started again, killed and stopped in turns.
const RESTART_EVERY: u64 = CALLS / 8;

fn name(number: u64) -> CounterId {
    counter(&format!("hot-{number}"))
}

/// A call with what its caller heard, before the log is known.
struct Noted {
    counter: u64,
    invoked: u64,
    returned: u64,
    answer: Answer,
}

enum Answer {
    Add {
        id: CommandId,
        amount: u64,
        heard: Option<AddAnswer>,
    },
    Saw {
        total: u64,
        version: Option<Version>,
    },
    /// A look that saw nothing; it proves nothing.
    Unseen,
}

/// One caller: makes its calls one after the other and returns what it heard.
async fn caller(play: Arc<Play>, mut dice: Dice) -> Vec<Noted> {
    let mut noted = Vec::new();
    for _ in 0..CALLS_EACH {
        let act = play.act();
        let number = dice.roll(COUNTERS);
        if dice.roll(6) == 0 {
            act.node.passivate::<Counter>(&name(number)).await;
        }
        if dice.roll(40) == 0 {
            act.faults.release_late().await;
        }
        if dice.roll(60) == 0 {
            let shard = ShardId::new(shard_of(&name(number)));
            play.move_shard(&act, shard, dice.roll(2) == 0).await;
        }
        let one = one_call(&play, &act, number, &mut dice).await;
        let is_over = matches!(&one.answer, Answer::Add { heard: Some(Err(error)), .. } if is_end(error));
        noted.push(one);
        let calls = play.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if calls.is_multiple_of(RESTART_EVERY) && calls < CALLS {
            play.restart(calls.is_multiple_of(2 * RESTART_EVERY)).await;
        } else if is_over || *act.killed.borrow() {
            play.next_act(&act).await;
        }
    }
    noted
}

fn is_end(error: &SendError<AddRefusal>) -> bool {
    matches!(error, SendError::NotAttempted(NotAttempted::ShuttingDown))
}

async fn one_call(play: &Play, act: &Act, number: u64, dice: &mut Dice) -> Noted {
    let to = act.node.of::<Counter>(name(number));
    match dice.roll(10) {
        0..=3 => add_new(play, act, number, dice).await,
        4 | 5 => add_again(play, act, dice).await,
        6 => look(play, act, number, read(to, Consistency::Leased)).await,
        7 => look(play, act, number, read(to, Consistency::Confirmed)).await,
        8 => look(play, act, number, refusal(to)).await,
        _ => look(play, act, number, peek(to)).await,
    }
}

async fn add_new(play: &Play, act: &Act, number: u64, dice: &mut Dice) -> Noted {
    let (id, amount) = (CommandId::fresh(), 1 + dice.roll(9));
    play.sent().push((number, id, amount));
    add(play, act, (number, id, amount)).await
}

/// Sends a command that somebody has sent, most likely a moment ago and perhaps not answered yet.
async fn add_again(play: &Play, act: &Act, dice: &mut Dice) -> Noted {
    let back = dice.roll(12);
    let back = if back == 0 { dice.roll(500) } else { back };
    let earlier = {
        let sent = play.sent();
        sent.len().checked_sub(1 + back as usize).map(|place| sent[place])
    };
    match earlier {
        Some(earlier) => add(play, act, earlier).await,
        None => add_new(play, act, dice.roll(COUNTERS), dice).await,
    }
}

async fn add(play: &Play, act: &Act, (counter, id, amount): Sent) -> Noted {
    let to = act.node.of::<Counter>(name(counter));
    // `receipt` sends at once, so it must not be called before the moment of the invocation is noted.
    let send = async { to.send(Add::new(amount)).id(id).receipt().await };
    let (invoked, returned, heard) = play.call(act, send).await;
    Noted { counter, invoked, returned, answer: Answer::Add { id, amount, heard } }
}

/// What a look saw: a total, and its version where the answer tells it.
type Seen = Result<(u64, Option<Version>), NotAttempted>;

async fn look(play: &Play, act: &Act, counter: u64, seen: impl Future<Output = Seen>) -> Noted {
    let (invoked, returned, seen) = play.call(act, seen).await;
    let answer = match seen {
        Some(Ok((total, version))) => Answer::Saw { total, version },
        Some(Err(_)) | None => Answer::Unseen,
    };
    Noted { counter, invoked, returned, answer }
}

async fn read(of: AggregateRef<Counter>, consistency: Consistency) -> Seen {
    let (total, version) = of.read_versioned(consistency, |state| state.total).await?;
    Ok((total, Some(version)))
}

async fn refusal(of: AggregateRef<Counter>) -> Seen {
    match of.send(Add { amount: 1, limit: 0 }).await {
        Err(SendError::Refused(AddRefusal::OverLimit { total, .. })) => Ok((total, None)),
        Err(SendError::NotAttempted(why)) => Err(why),
        other => panic!("neither refused nor certainly not attempted: {other:?}"),
    }
}

async fn peek(of: AggregateRef<Counter>) -> Seen {
    match of.send(Peek {}).receipt().await {
        Ok(done) => Ok((done.reply, Some(done.version))),
        Err(SendError::NotAttempted(why)) => Err(why),
        other => panic!("neither done nor certainly not attempted: {other:?}"),
    }
}

/// What one caller heard, as the judge wants it. Totals and replies are compared with the log on the way.
fn heard(answer: &Answer, log: &CounterLog) -> Option<Heard> {
    match answer {
        Answer::Unseen => None,
        Answer::Saw { total, version } => {
            // Each addition adds something, so a total tells its version.
            let stored = log.totals.binary_search(total).map(|at| at as u64);
            let at =
                stored.unwrap_or_else(|_| panic!("a total of {total} was seen, which the log never had"));
            assert!(version.is_none_or(|version| version.get() == at), "{total} was seen at {version:?}");
            Some(Heard::Saw { version: at })
        }
        Answer::Add { id, amount, heard } => Some(match heard {
            Some(Ok(done)) => {
                log.check_done(done, *amount);
                Heard::Done { id: *id, version: done.version.get(), duplicate: done.duplicate }
            }
            Some(Err(SendError::Unknown(_))) | None => Heard::InDoubt { id: *id },
            Some(Err(_)) => Heard::NotDone { id: *id },
        }),
    }
}

async fn verdict(log: &dyn EventStore, noted: &[Noted]) -> Facts {
    let mut sum = Facts::default();
    for number in 0..COUNTERS {
        let log = CounterLog::read(log, &name(number)).await;
        let of_counter = noted.iter().filter(|one| one.counter == number);
        let calls: Vec<_> = of_counter
            .filter_map(|one| {
                let heard = heard(&one.answer, &log)?;
                Some(Call { invoked: one.invoked, returned: one.returned, heard })
            })
            .collect();
        let ids: Vec<_> = log.events.iter().map(|event| event.command_id).collect();
        match judge(&calls, &ids) {
            Ok(facts) => sum += facts,
            Err(violation) => panic!("{}: {violation:?} among {} calls", name(number), calls.len()),
        }
    }
    sum
}

/// Asks once more for every command, now that nothing fails any more: the answers must fit into the same history.
async fn ask_again(play: &Play) -> Vec<Noted> {
    let act = play.act();
    act.faults.release_late().await;
    act.faults.heal();
    let (mut noted, sent) = (Vec::new(), play.sent().clone());
    for command in sent {
        let one = add(play, &act, command).await;
        assert!(
            matches!(&one.answer, Answer::Add { heard: Some(Ok(_)), .. }),
            "a healthy node does not do it"
        );
        noted.push(one);
    }
    noted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_fails_calls_look_as_if_they_happened_one_at_a_time() {
    let seed = fresh_seed("linearizable");
    for lanes in Lanes::ALL {
        let play = Play::begin(seed, lanes).await;
        let mut callers = JoinSet::new();
        for number in 0..CALLERS {
            callers.spawn(caller(Arc::clone(&play), Dice(seed.wrapping_mul(31).wrapping_add(number))));
        }
        let mut noted: Vec<_> =
            in_time("the callers", callers.join_all()).await.into_iter().flatten().collect();
        noted.extend(ask_again(&play).await);
        let facts = verdict(&play.log, &noted).await;
        let hit = play.end().await;
        check_floors(&play, &facts, &noted, &hit);
    }
}

/// A run that met nothing proves nothing.
fn check_floors(play: &Play, facts: &Facts, noted: &[Noted], hit: &[FaultCounts]) {
    let count = |is: fn(&Answer) -> bool| noted.iter().filter(|one| is(&one.answer)).count() as u64;
    let lost = |answer: &Answer| {
        matches!(answer, Answer::Add { heard: Some(Err(SendError::NotAttempted(why))), .. }
            if matches!(why, NotAttempted::Unavailable { .. }))
    };
    let sum = |of: fn(&FaultCounts) -> u64| hit.iter().map(of).sum::<u64>();
    let (broken, lost) = (sum(FaultCounts::appends), count(lost));
    let restarts = play.act().number;
    let loads = play.loads.all.load(Ordering::SeqCst);
    // A counter whose command is lost loads again, and all of them do after a start; the others had left memory.
    let returned = loads.saturating_sub(lost + COUNTERS * (restarts + 1));
    println!(
        "{facts:?}, {broken} appends broken, {restarts} restarts, {loads} loads, {returned} returned, {lost} lost"
    );
    for (what, met, floor) in [
        ("calls that overlapped", facts.overlaps as u64, CALLS / 4),
        ("repeats answered", facts.repeats as u64, CALLS / 20),
        ("looks", facts.looks as u64, CALLS / 10),
        ("appends broken", broken, 40),
        ("acknowledgements lost", sum(|hit| hit.acks_lost), 3),
        ("commits put off", sum(|hit| hit.put_off), 3),
        ("other calls failed", sum(|hit| hit.calls_failed), 8),
        ("commands lost in flight", lost, 20),
        ("looks that were on top of what was lost", count(|answer| matches!(answer, Answer::Unseen)), 10),
        ("loads of counters that had left memory", returned, 15),
        ("loads from a snapshot", play.loads.from_snapshot.load(Ordering::SeqCst), 40),
        ("shards that moved", play.moves.load(Ordering::SeqCst), 20),
        ("restarts with calls under way", play.restarts_with_work.load(Ordering::SeqCst), 5),
        (
            "calls that a kill left unheard",
            count(|answer| matches!(answer, Answer::Add { heard: None, .. })),
            3,
        ),
    ] {
        assert!(met >= floor, "too little was met to prove anything: {met} {what}");
    }
}
