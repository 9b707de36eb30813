//! Encoders and decoders of users that panic: one command fails, and nothing else.

use orchestrix::core::prelude::*;
use orchestrix::store::Memory;
use orchestrix::{Consistency, Node, NotAttempted, Orchestrix, SendError, Settings};
use serde::{Deserializer, Serializer};

aggregate_id!(struct TrapId, "trap id");

/// A number whose encoder panics on 13, and whose decoder panics on 14.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Trap(u64);

impl Serialize for Trap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert_ne!(self.0, 13, "thirteen cannot be written");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        assert_ne!(number, 14, "fourteen cannot be read");
        Ok(Self(number))
    }
}

#[derive(Event)]
enum TrapEvent {
    #[event("trap.added")]
    Added { amount: Trap },
}

#[derive(Default, Serialize, Deserialize)]
struct Sum {
    total: Trap,
}

impl Aggregate for Sum {
    const TYPE: AggregateType = aggregate_type!("sum");
    type Id = TrapId;
    type Event = TrapEvent;

    fn apply(&mut self, event: &TrapEvent) {
        match event {
            TrapEvent::Added { amount } => self.total.0 += amount.0,
        }
    }
}

/// Adds an amount; replies with another number, as told.
#[derive(Clone, Serialize, Deserialize, Command)]
#[command("sum.add", reply = Trap)]
struct Add {
    amount: u64,
    reply: u64,
}

impl Handle<Add> for Sum {
    fn handle(&self, command: &Add, _: &Context) -> Decision<Self, Add> {
        emit(TrapEvent::Added { amount: Trap(command.amount) }).reply(Trap(command.reply))
    }
}

async fn node() -> Node {
    let settings = Settings { arbiters: 1, snapshots: SnapshotPolicy::every(1), ..Settings::default() };
    let builder = Orchestrix::builder().store(Memory::new()).aggregate::<Sum>().settings(settings);
    builder.start().await.expect("the node starts")
}

fn sum(key: &str) -> TrapId {
    TrapId::from_key(key).expect("a good id")
}

async fn total(node: &Node, key: &str) -> u64 {
    node.of::<Sum>(sum(key)).read(Consistency::Leased, |sum| sum.total.0).await.expect("read")
}

#[tokio::test]
async fn an_event_or_a_reply_whose_encoder_panics_fails_its_command_alone() {
    let node = node().await;
    let one = node.of::<Sum>(sum("one"));
    for bad in [Add { amount: 13, reply: 0 }, Add { amount: 1, reply: 13 }] {
        let error = one.send(bad).await.expect_err("it cannot be encoded");
        assert!(matches!(error, SendError::NotAttempted(NotAttempted::Unencodable { .. })), "{error}");
        assert!(error.to_string().contains("thirteen"), "{error}");
    }
    one.send(Add { amount: 2, reply: 2 }).await.expect("done");
    assert_eq!(total(&node, "one").await, 2);
}

#[tokio::test]
async fn a_state_whose_encoder_panics_takes_no_snapshot_and_goes_on() {
    let node = node().await;
    let one = node.of::<Sum>(sum("one"));
    for amount in [6, 7, 8] {
        one.send(Add { amount, reply: 0 }).await.expect("done");
    }
    node.of::<Sum>(sum("neighbour")).send(Add { amount: 1, reply: 0 }).await.expect("done");
    assert_eq!((total(&node, "one").await, total(&node, "neighbour").await), (21, 1));
    node.shutdown().await;
}

#[tokio::test]
async fn a_remembered_reply_whose_decoder_panics_fails_the_retry_alone() {
    let node = node().await;
    let (one, id) = (node.of::<Sum>(sum("one")), CommandId::fresh());
    let command = Add { amount: 1, reply: 14 };
    one.send(command.clone()).id(id).await.expect("done");
    let retry = one.send(command).id(id).await.expect_err("the reply cannot be read");
    assert!(retry.to_string().contains("fourteen"), "{retry}");
    assert_eq!(total(&node, "one").await, 1);
}
