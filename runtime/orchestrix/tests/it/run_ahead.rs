//! Commands that ran ahead of the store when it failed: every caller hears the truth, and nobody sees an event that
//! vanished.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrix::core::{CommandId, Version};
use orchestrix::{AggregateRef, Consistency, NotAttempted, SendError, Settings};
use orchestrix_testkit::{Fault, FaultCounts, Operation};
use tokio::task::JoinSet;

use crate::counter::{Add, AddRefusal, Counter, CounterId, Peek, counter};
use crate::harness::{
    AddAnswer, CounterLog, Dice, Lanes, Stage, Told, eventually, fresh_seed, in_time, stage,
};

/// What a caller heard.
enum Heard {
    Command(CommandId, AddAnswer),
    Read(Result<(u64, Version), NotAttempted>),
    Total(Result<u64, NotAttempted>),
}

/// Calls under way.
struct Calls<'a> {
    stage: &'a Stage,
    tasks: JoinSet<(CounterId, Heard)>,
}

impl<'a> Calls<'a> {
    fn on(stage: &'a Stage) -> Self {
        Self { stage, tasks: JoinSet::new() }
    }

    fn of(&self, name: &CounterId) -> (AggregateRef<Counter>, CounterId) {
        (self.stage.node.of(name.clone()), name.clone())
    }

    fn add(&mut self, name: &CounterId, id: CommandId) {
        let (to, name) = self.of(name);
        self.tasks
            .spawn(async move { (name, Heard::Command(id, to.send(Add::new(1)).id(id).receipt().await)) });
    }

    fn add_within(&mut self, name: &CounterId, id: CommandId, limit: Duration) {
        let (to, name) = self.of(name);
        let send = to.send(Add::new(1)).id(id).within(limit);
        self.tasks.spawn(async move { (name, Heard::Command(id, send.receipt().await)) });
    }

    /// A read, a refusal and a reply without events: all of them show the state.
    fn look(&mut self, name: &CounterId) {
        let (to, name) = self.of(name);
        let (read, refused) = ((to.clone(), name.clone()), (to.clone(), name.clone()));
        self.tasks.spawn(async move {
            let seen = read.0.read_versioned(Consistency::Leased, |state| state.total).await;
            (read.1, Heard::Read(seen))
        });
        self.tasks.spawn(async move { (refused.1, Heard::Total(refused_at(refused.0).await)) });
        self.tasks.spawn(async move { (name, Heard::Total(to.send(Peek {}).await.map_err(not_attempted))) });
    }

    /// Returns when all calls have been sent and looked at. None may be answered meanwhile.
    async fn all_looked_at(&self) {
        let sent = async || self.stage.node.residency().in_flight == self.tasks.len() as u64;
        eventually("all calls are sent and none is answered", sent).await;
        self.stage.barrier().await;
    }

    async fn heard(self) -> Everything {
        let mut everything = Everything::default();
        everything.add(in_time("calls under way", self.tasks.join_all()).await);
        everything
    }
}

/// Asks for more than is allowed and returns the total that the refusal tells.
async fn refused_at(to: AggregateRef<Counter>) -> Result<u64, NotAttempted> {
    match to.send(Add { amount: 1, limit: 0 }).await {
        Ok(total) => panic!("an addition over the limit was done: {total}"),
        Err(SendError::Refused(AddRefusal::OverLimit { total, .. })) => Ok(total),
        Err(error) => Err(not_attempted(error)),
    }
}

fn not_attempted<R: std::fmt::Debug>(error: SendError<R>) -> NotAttempted {
    match error {
        SendError::NotAttempted(why) => why,
        other => panic!("only a failure of the store was expected, not {other:?}"),
    }
}

/// How much of what was heard was a success and how much a failure.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    done: usize,
    lost: usize,
    seen: usize,
    unseen: usize,
}

/// What was heard of one counter.
#[derive(Default)]
struct OfCounter {
    told: BTreeMap<CommandId, Told>,
    reads: Vec<(u64, Version)>,
    totals: Vec<u64>,
    unseen: usize,
}

/// Everything that was heard.
#[derive(Default)]
struct Everything(BTreeMap<CounterId, OfCounter>);

impl Everything {
    fn add(&mut self, heard: Vec<(CounterId, Heard)>) {
        for (name, heard) in heard {
            let of = self.0.entry(name).or_default();
            match heard {
                Heard::Command(id, answer) => {
                    let told =
                        of.told.entry(id).or_insert_with(|| Told { id, amount: 1, answers: Vec::new() });
                    told.answers.push(answer);
                }
                Heard::Read(Ok(seen)) => of.reads.push(seen),
                Heard::Total(Ok(total)) => of.totals.push(total),
                Heard::Read(Err(_)) | Heard::Total(Err(_)) => of.unseen += 1,
            }
        }
    }

    fn merge(&mut self, name: CounterId, more: OfCounter) {
        let of = self.0.entry(name).or_default();
        for (id, told) in more.told {
            let fresh = || Told { id, amount: 1, answers: Vec::new() };
            of.told.entry(id).or_insert_with(fresh).answers.extend(told.answers);
        }
        of.reads.extend(more.reads);
        of.totals.extend(more.totals);
        of.unseen += more.unseen;
    }

    /// Compares it with the log, and the log with what the node says now.
    async fn check(&self, stage: &Stage) -> Tally {
        let mut tally = Tally::default();
        for (name, of) in &self.0 {
            let log = CounterLog::read(&stage.log, name).await;
            log.check(of.told.values());
            of.reads.iter().for_each(|seen| log.check_seen(*seen));
            of.totals.iter().for_each(|total| log.check_total(*total));
            tally.done += of.told.values().filter(|one| one.is_done()).count();
            tally.lost += of.told.values().filter(|one| !one.is_done()).count();
            tally.seen += of.reads.len() + of.totals.len();
            tally.unseen += of.unseen;
            let now = stage.total(name.as_str()).await;
            assert_eq!(now, Ok((log.total(), log.version())), "{name}: the node and the log differ");
        }
        tally
    }
}

/// Ten events an append, so that a hundred commands are eleven appends: the first, which is held, carries one.
fn ten_at_once() -> Settings {
    Settings { batch_events_max: 10, ..Settings::default() }
}

/// Sends a hundred commands to one counter while its first append is held, breaks the sixth append, and returns what
/// the callers heard.
async fn break_the_sixth_append(lanes: Lanes, fault: Fault) -> (Tally, FaultCounts) {
    let stage = stage(lanes, ten_at_once()).await;
    stage.barrier().await;
    stage.faults.on_append(1, Fault::Hold);
    stage.faults.on_append(6, fault);
    let (name, mut calls) = (counter("one"), Calls::on(&stage));
    calls.add(&name, CommandId::fresh());
    in_time("the first append", stage.faults.wait_for_held(1)).await;
    for number in 2..=100 {
        let id = CommandId::fresh();
        calls.add(&name, id);
        if number % 10 == 0 {
            calls.add(&name, id);
            calls.look(&name);
        }
    }
    calls.all_looked_at().await;
    assert!(calls.tasks.try_join_next().is_none(), "an answer left before the store had said anything");
    stage.faults.release_held();
    let heard = calls.heard().await;
    let tally = heard.check(&stage).await;
    // What was put off comes now, after everybody has heard; it must find the door closed.
    stage.faults.release_late().await;
    assert_eq!(heard.check(&stage).await, tally);
    let served = stage.node.of::<Counter>(name).send(Add::new(1)).receipt().await.expect("it serves again");
    assert_eq!(served.version.get(), tally.done as u64 + 1);
    let hit = stage.faults.faults_hit();
    stage.node.shutdown().await;
    (tally, hit)
}

/// The five appends before the fault carried 41 commands; of the looks after every tenth, four saw only those.
const LOST_FROM_THE_SIXTH: Tally = Tally { done: 41, lost: 59, seen: 12, unseen: 18 };
const NOTHING_LOST: Tally = Tally { done: 100, lost: 0, seen: 30, unseen: 0 };

#[tokio::test]
async fn a_failed_append_fails_all_that_was_decided_on_top_of_it() {
    for lanes in Lanes::ALL {
        let (tally, hit) = break_the_sixth_append(lanes, Fault::FailBefore).await;
        assert_eq!((tally, hit.failed_before), (LOST_FROM_THE_SIXTH, 1), "{lanes:?}");
    }
}

#[tokio::test]
async fn a_conflict_fails_all_that_was_decided_on_top_of_it() {
    for lanes in Lanes::ALL {
        let (tally, hit) = break_the_sixth_append(lanes, Fault::Conflict).await;
        assert_eq!((tally, hit.conflicts), (LOST_FROM_THE_SIXTH, 1), "{lanes:?}");
    }
}

#[tokio::test]
async fn a_lost_acknowledgement_is_found_to_be_stored() {
    for lanes in Lanes::ALL {
        let (tally, hit) = break_the_sixth_append(lanes, Fault::LoseAck).await;
        assert_eq!((tally, hit.acks_lost), (NOTHING_LOST, 1), "{lanes:?}");
    }
}

#[tokio::test]
async fn an_append_without_an_answer_is_found_not_to_be_stored() {
    for lanes in Lanes::ALL {
        let (tally, hit) = break_the_sixth_append(lanes, Fault::Drop).await;
        assert_eq!((tally, hit.dropped), (LOST_FROM_THE_SIXTH, 1), "{lanes:?}");
    }
}

#[tokio::test]
async fn an_append_that_comes_late_takes_no_effect() {
    for lanes in Lanes::ALL {
        let (tally, hit) = break_the_sixth_append(lanes, Fault::CommitLate { after: None }).await;
        assert_eq!((tally, hit.put_off), (LOST_FROM_THE_SIXTH, 1), "{lanes:?}");
        assert_eq!((hit.late_commits_refused, hit.late_commits_stored), (10, 0), "{lanes:?}");
    }
}

/// Spreads a hundred commands over twenty counters of which each has one in the broken append.
async fn break_an_append_of_many(lanes: Lanes, fault: Fault) -> (Tally, FaultCounts) {
    let stage = stage(lanes, Settings { batch_events_max: 20, ..Settings::default() }).await;
    stage.barrier().await;
    let names: Vec<_> = (0..20).map(|number| counter(&format!("many-{number}"))).collect();
    let mut calls = Calls::on(&stage);
    // Lanes on arbiters: two of them, so the first two appends are held, one by each.
    let held = if lanes == Lanes::Apart { 1 } else { 2 };
    stage.faults.script(std::iter::repeat_n(Some(Fault::Hold), held));
    stage.faults.script([None, Some(fault)]);
    for name in &names {
        calls.add(name, CommandId::fresh());
    }
    in_time("the first appends", stage.faults.wait_for_held(held)).await;
    for _ in 0..4 {
        for name in &names {
            calls.add(name, CommandId::fresh());
            calls.look(name);
        }
    }
    calls.all_looked_at().await;
    stage.faults.release_held();
    let heard = calls.heard().await;
    let tally = heard.check(&stage).await;
    stage.faults.release_late().await;
    assert_eq!(heard.check(&stage).await, tally);
    let hit = stage.faults.faults_hit();
    stage.node.shutdown().await;
    (tally, hit)
}

#[tokio::test]
async fn an_append_of_many_counters_fails_each_of_them_alone() {
    let faults =
        [Fault::FailBefore, Fault::Conflict, Fault::Drop, Fault::CommitLate { after: None }, Fault::LoseAck];
    for (lanes, fault) in Lanes::ALL.into_iter().flat_map(|lanes| faults.map(|fault| (lanes, fault))) {
        let (tally, hit) = break_an_append_of_many(lanes, fault).await;
        assert!(hit.appends() > hit.held, "{lanes:?} {fault:?} hit nothing");
        assert_eq!(tally.done + tally.lost, 100);
        if fault == Fault::LoseAck {
            assert_eq!((tally.lost, tally.unseen), (0, 0), "{lanes:?}");
        } else {
            assert!(tally.lost >= 10, "{lanes:?} {fault:?} hit too few commands in flight: {tally:?}");
            assert!(tally.unseen >= 10, "{lanes:?} {fault:?} hit too few looks: {tally:?}");
            assert!(
                tally.done >= 20,
                "{lanes:?} {fault:?} took those with it that it did not hit: {tally:?}"
            );
        }
    }
}

const ALL_FAULTS: [Fault; 6] = [
    Fault::FailBefore,
    Fault::Conflict,
    Fault::Drop,
    Fault::LoseAck,
    Fault::CommitLate { after: None },
    Fault::Delay(Duration::from_micros(300)),
];

/// One round of chance: callers, retries and looks on a few counters while one append in three goes wrong.
async fn random_round(seed: u64) -> (Tally, FaultCounts) {
    let mut dice = Dice(seed);
    let lanes = Lanes::ALL[dice.roll(2) as usize];
    let batch_events_max = 1 + dice.roll(12) as usize;
    let stage = stage(lanes, Settings { batch_events_max, ..Settings::default() }).await;
    let names: Vec<_> = (0..=dice.roll(6)).map(|number| counter(&format!("chance-{number}"))).collect();
    stage.faults.randomly(seed, 0.3, &ALL_FAULTS);
    for operation in [Operation::Claim, Operation::Load, Operation::Read] {
        stage.faults.fail(operation, dice.roll(3));
    }
    let mut heard = Everything::default();
    let mut sent: Vec<(CounterId, CommandId)> = Vec::new();
    for _ in 0..3 {
        let mut calls = Calls::on(&stage);
        for _ in 0..40 {
            let name = &names[dice.roll(names.len() as u64) as usize];
            match dice.roll(8) {
                0 => calls.look(name),
                1 if !sent.is_empty() => {
                    let (name, id) = &sent[dice.roll(sent.len() as u64) as usize];
                    calls.add(name, *id);
                }
                kind => {
                    let id = CommandId::fresh();
                    sent.push((name.clone(), id));
                    if kind == 2 {
                        calls.add_within(name, id, Duration::from_micros(dice.roll(2_000)));
                    } else {
                        calls.add(name, id);
                    }
                }
            }
        }
        for (name, of) in calls.heard().await.0 {
            heard.merge(name, of);
        }
        // Callers with a deadline may have gone before the store was asked what became of theirs. What was put off
        // must find the door closed only after that, and a retry before that may truly be lost with what it saw.
        stage.all_settled().await;
        stage.faults.release_late().await;
    }
    stage.faults.heal();
    resolve(&stage, &mut heard).await;
    let tally = heard.check(&stage).await;
    let hit = stage.faults.faults_hit();
    stage.node.shutdown().await;
    (tally, hit)
}

/// Sends every command in doubt again, now that the store is well: the answer must be certain, and a success, since a
/// command that was not done is done now.
async fn resolve(stage: &Stage, heard: &mut Everything) {
    for (name, of) in &mut heard.0 {
        let to = stage.node.of::<Counter>(name.clone());
        for told in of.told.values_mut().filter(|told| told.is_in_doubt()) {
            told.answers.push(to.send(Add::new(1)).id(told.id).receipt().await);
            assert!(told.is_done(), "a retry did not tell: {told:?}");
        }
    }
}

#[tokio::test]
async fn whatever_fails_by_chance_every_caller_hears_the_truth() {
    const ROUNDS: u64 = 200;
    let seed = fresh_seed("run_ahead");
    let (mut tally, mut hit) = (Tally::default(), Vec::new());
    for round in 0..ROUNDS {
        println!("round {round} of seed {seed}");
        let (one, hits) = random_round(seed.wrapping_add(round)).await;
        tally.done += one.done;
        tally.lost += one.lost;
        tally.unseen += one.unseen;
        hit.push(hits);
    }
    let sum = |count: fn(&FaultCounts) -> u64| hit.iter().map(count).sum::<u64>();
    for (kind, hits) in [
        ("failed", sum(|hit| hit.failed_before)),
        ("conflicts", sum(|hit| hit.conflicts)),
        ("dropped", sum(|hit| hit.dropped)),
        ("acknowledgements lost", sum(|hit| hit.acks_lost)),
        ("commits that came late", sum(|hit| hit.late_commits_refused)),
        ("calls failed", sum(|hit| hit.calls_failed)),
    ] {
        assert!(hits >= ROUNDS / 4, "too few faults hit to prove anything: {hits} {kind}");
    }
    println!("{tally:?}");
    assert_eq!(sum(|hit| hit.late_commits_stored), 0, "a late commit slipped in");
    assert!(tally.lost >= 300 && tally.done >= 1_500, "the mix is off: {tally:?}");
    assert!(tally.unseen >= 20, "too few looks were on top of what was lost: {tally:?}");
}
