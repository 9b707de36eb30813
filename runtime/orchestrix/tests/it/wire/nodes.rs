//! Two nodes: what one of them is asked by the other is done as if it had been asked itself.

use std::sync::Arc;
use std::time::Duration;

use orchestrix::cluster::transport::{Peer, Serve, Transport};
use orchestrix::cluster::wire::typed::{self, Asked};
use orchestrix::cluster::wire::{Call, Hello, Outcome, ReadTask, Request, Task, Work};
use orchestrix::core::prelude::*;
use orchestrix::core::snapshot::schema_fingerprint;
use orchestrix::core::store::BoxFuture;
use orchestrix::core::{ShardId, StreamId};
use orchestrix::store::Memory;
use orchestrix::{Consistency, Node, NotAttempted, Orchestrix, SaveError, SendError, Settings, StartError};

use super::stage::options;
use crate::counter::{Add, AddRefusal, Counter, CounterEvent, Peek, counter};
use crate::harness::{self, empty_log, in_time};

/// A node that does what others ask.
struct Owner(Node);

impl Serve for Owner {
    fn serve(&self, _: &Arc<Hello>, call: Call) -> BoxFuture<'static, Outcome> {
        match call.request {
            Request::Work(work) => self.0.answer(call.within, work),
            Request::Notice(_) => Box::pin(std::future::ready(Outcome::unknown("nobody listens"))),
        }
    }
}

struct Pair {
    owner: Node,
    peer: Peer,
    _transports: [Transport; 2],
}

async fn pair() -> Pair {
    let owner = harness::start(Arc::new(empty_log()), Settings::default()).await;
    let theirs =
        orchestrix::cluster::transport::TransportOptions { registry: owner.registry(), ..options("a") };
    let incarnation = theirs.incarnation;
    let there = Transport::bind(theirs, Arc::new(Owner(owner.clone()))).await.expect("a port is free");
    let here = Transport::bind(options("a"), Arc::new(Owner(owner.clone()))).await.expect("a port is free");
    let peer = here.peer(incarnation, &there.address().to_string());
    Pair { owner, peer, _transports: [here, there] }
}

fn asked(name: &str, command_id: CommandId) -> Asked {
    Asked { stream: StreamId::new("counter", name), shard: ShardId::new(0), command_id }
}

impl Pair {
    async fn ask(&self, asked: &Asked, task: Task) -> Outcome {
        let (shard, stream) = (asked.shard, asked.stream.clone());
        let request = Request::Work(Work { shard, epoch: None, stream, task });
        in_time("the call", self.peer.call(Call { within: Duration::from_secs(50), hops: 0, request })).await
    }

    async fn send<C: Command>(&self, name: &str, command: &C, id: CommandId) -> typed::CommandAnswer<C> {
        let asked = asked(name, id);
        let task = typed::command_task(command, id, false, Metadata::default()).expect("it encodes");
        typed::command_answer::<C>(&asked, self.ask(&asked, Task::Command(task)).await)
    }

    async fn read(&self, name: &str, read: ReadTask) -> Result<typed::Seen<Counter>, NotAttempted> {
        let outcome = self.ask(&asked(name, CommandId::fresh()), Task::Read(read)).await;
        typed::state_answer(schema_fingerprint::<Counter>(), outcome)
    }
}

fn any_version() -> ReadTask {
    let fingerprint = schema_fingerprint::<Counter>();
    ReadTask { consistency: Consistency::Confirmed, min_version: Version::ZERO, fingerprint }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_done_once_and_its_retry_gets_the_first_reply() {
    let pair = pair().await;
    let id = CommandId::fresh();
    let first = pair.send("a", &Add::new(5), id).await.expect("it is done");
    assert_eq!(
        (first.reply, first.version, first.duplicate, first.command_id),
        (5, Version::new(1), false, id)
    );
    let again = pair.send("a", &Add::new(5), id).await.expect("it was done");
    assert_eq!((again.reply, again.version, again.duplicate), (5, Version::new(1), true));
    let error = pair.send("a", &Add::new(6), id).await.expect_err("another body");
    assert!(
        matches!(error, SendError::NotAttempted(NotAttempted::IdReused { command_id, .. }) if command_id == id)
    );
    let local =
        pair.owner.of::<Counter>(counter("a")).read(Consistency::Leased, |counter| counter.total).await;
    assert_eq!(local, Ok(5));
    assert!(first.epoch.get() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_the_aggregate_s_own() {
    let pair = pair().await;
    let error = pair.send("a", &Add { amount: 5, limit: 4 }, CommandId::fresh()).await.expect_err("refused");
    assert!(matches!(error, SendError::Refused(AddRefusal::OverLimit { total: 0, limit: 4 })));
    let peeked = pair.send("a", &Peek {}, CommandId::fresh()).await.expect("it replies");
    assert_eq!((peeked.reply, peeked.version), (0, Version::ZERO));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_travels_when_both_have_its_shape_and_its_version_always_does() {
    let pair = pair().await;
    pair.send("a", &Add::new(5), CommandId::fresh()).await.expect("it is done");
    let seen = pair.read("a", any_version()).await.expect("it is read");
    assert_eq!(seen.state, Some(Counter { total: 5, events: 1 }));
    assert_eq!(seen.version, Version::new(1));
    assert!(seen.epoch.get() > 0);
    let other = ReadTask { fingerprint: 1, ..any_version() };
    let seen = pair.read("a", other).await.expect("it is read");
    assert_eq!((seen.state, seen.version), (None, Version::new(1)));
    let later = ReadTask { min_version: Version::new(2), ..any_version() };
    let why = pair.read("a", later).await.expect_err("there is no such version");
    assert_eq!(why, NotAttempted::Behind { version: Version::new(1), wanted: Version::new(2) });
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_decided_elsewhere_are_saved_or_conflict() {
    let pair = pair().await;
    let id = CommandId::fresh();
    let save = async |expected, id| {
        let events = [CounterEvent::Added { amount: 2 }, CounterEvent::Added { amount: 3 }];
        let task = typed::save_task(expected, &events, id, false, Metadata::default()).expect("they encode");
        let asked = asked("a", id);
        typed::save_answer(&asked, pair.ask(&asked, Task::Save(task)).await)
    };
    let done = save(Version::ZERO, id).await.expect("it is saved");
    assert_eq!((done.version, done.duplicate), (Version::new(2), false));
    assert!(save(Version::ZERO, id).await.expect("it was saved").duplicate);
    let error = save(Version::ZERO, CommandId::fresh()).await.expect_err("it has moved on");
    let (stream, expected, actual) = (StreamId::new("counter", "a"), Version::ZERO, Version::new(2));
    assert_eq!(error, SaveError::Conflict { stream, expected, actual });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_does_not_know_it_names() {
    let pair = pair().await;
    let answer = async |stream, name: &'static str| {
        let mut task =
            typed::command_task(&Peek {}, CommandId::fresh(), true, Metadata::default()).expect("encodes");
        task.name = name.into();
        let work = Work { shard: ShardId::new(0), epoch: None, stream, task: Task::Command(task) };
        match pair.owner.answer(Duration::from_secs(50), work).await {
            Outcome::NotAttempted(why) => NotAttempted::from(why).kind(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(answer(StreamId::new("counter", "a"), "counter.halve").await, "unknown_command");
    assert_eq!(answer(StreamId::new("order", "a"), "counter.peek").await, "not_registered");
    // A body of another release, which this one cannot read.
    let mut task =
        typed::command_task(&Peek {}, CommandId::fresh(), true, Metadata::default()).expect("encodes");
    task.name = "counter.add".into();
    let stream = StreamId::new("counter", "a");
    let work = Work { shard: ShardId::new(0), epoch: None, stream, task: Task::Command(task) };
    let outcome = pair.owner.answer(Duration::from_secs(50), work).await;
    assert!(
        matches!(&outcome, Outcome::NotAttempted(why) if NotAttempted::from(why.clone()).kind() == "unencodable")
    );
}

#[derive(Command, Serialize, Deserialize)]
#[command("twin.act")]
struct Act;

#[derive(Command, Serialize, Deserialize)]
#[command("twin.act")]
struct ActToo;

#[derive(Default, Serialize, Deserialize)]
struct Twin;

impl Aggregate for Twin {
    const TYPE: AggregateType = aggregate_type!("twin");
    type Id = crate::counter::CounterId;
    type Event = CounterEvent;

    fn commands(list: &mut impl CommandList<Self>) {
        list.add::<Act>().add::<ActToo>();
    }

    fn apply(&mut self, _: &CounterEvent) {}
}

impl Handle<Act> for Twin {
    fn handle(&self, _: &Act, _: &Context) -> Decision<Self, Act> {
        nothing().done()
    }
}

impl Handle<ActToo> for Twin {
    fn handle(&self, _: &ActToo, _: &Context) -> Decision<Self, ActToo> {
        nothing().done()
    }
}

#[tokio::test]
async fn two_commands_of_one_name_stop_the_start_with_both_types() {
    let error =
        Orchestrix::builder().store(Memory::new()).aggregate::<Twin>().start().await.expect_err("two");
    let StartError::DuplicateCommand { name, first, second, .. } = &error else { panic!("{error}") };
    assert_eq!(*name, "twin.act");
    assert!(first.ends_with("::Act") && second.ends_with("::ActToo"), "{error}");
}
