//! What given/when/then catches on the way: a defect for each check, and the words that tell it.

use std::sync::atomic::{AtomicU64, Ordering};

use orchestrix_core::codec::{DecodeError, EncodeError};
use orchestrix_core::prelude::*;
use orchestrix_core::{Decoded, EventSchema, Payload, RawEvent};
use orchestrix_testkit::given;

use crate::given::failure;

aggregate_id!(pub struct ThingId, "thing id");

/// What is broken is chosen by the event or the command.
#[derive(Default, Serialize, Deserialize)]
struct Thing {
    total: u64,
    /// Not in the snapshot: a defect as soon as anything depends on it.
    #[serde(skip)]
    hidden: u64,
}

#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
enum ThingEvent {
    #[event("thing.counted")]
    Counted,
    #[event("thing.forgetful")]
    Forgetful {
        #[serde(skip)]
        lost: u64,
    },
    #[event("thing.hid")]
    Hid,
    #[event("thing.revealed")]
    Revealed,
    #[event("thing.inexact")]
    Inexact(Inexact),
}

/// Equal to whatever it is compared with, so that only its effect tells the loss.
#[derive(Debug, Serialize, Deserialize)]
struct Inexact {
    #[serde(skip)]
    amount: u64,
}

impl PartialEq for Inexact {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Aggregate for Thing {
    const TYPE: AggregateType = aggregate_type!("thing");
    type Id = ThingId;
    type Event = ThingEvent;

    fn apply(&mut self, event: &ThingEvent) {
        match event {
            ThingEvent::Counted => self.total += 1,
            ThingEvent::Forgetful { lost } => self.total += lost,
            ThingEvent::Hid => self.hidden += 1,
            ThingEvent::Revealed => self.total += self.hidden,
            ThingEvent::Inexact(inexact) => self.total += inexact.amount,
        }
    }
}

macro_rules! command {
    ($name:ident, $wire:literal, $reply:ty, |$state:ident| $handle:expr) => {
        #[derive(Command, Serialize, Deserialize)]
        #[command($wire, reply = $reply, refusal = Never)]
        struct $name;

        impl Handle<$name> for Thing {
            fn handle(&self, _: &$name, _: &Context) -> Decision<Self, $name> {
                let $state = self;
                $handle
            }
        }
    };
}

/// A reply that loses what it says.
#[derive(Default, Serialize)]
struct Rounded(f32);

impl<'de> Deserialize<'de> for Rounded {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f32::deserialize(deserializer).map(|value| Self(value.round()))
    }
}

static CALLS: AtomicU64 = AtomicU64::new(0);

command!(TellHidden, "thing.tell-hidden", u64, |state| nothing().reply(state.hidden));
command!(TellChance, "thing.tell-chance", u64, |_state| nothing()
    .reply(CALLS.fetch_add(1, Ordering::SeqCst)));
command!(TellRounded, "thing.tell-rounded", Rounded, |_state| nothing().reply(Rounded(0.5)));
command!(EmitForgetful, "thing.emit-forgetful", (), |_state| emit(ThingEvent::Forgetful { lost: 7 }).done());
command!(EmitRevealed, "thing.emit-revealed", (), |_state| emit(ThingEvent::Revealed).done());

/// A command that bincode writes and cannot read.
#[derive(Command, Serialize, Deserialize)]
#[command("thing.optional", reply = (), refusal = Never)]
struct Optional {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    amount: u64,
}

impl Handle<Optional> for Thing {
    fn handle(&self, _: &Optional, _: &Context) -> Decision<Self, Optional> {
        nothing().done()
    }
}

#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "type")]
enum Tagged {
    TooMuch { most: u64 },
}

impl std::fmt::Display for Tagged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too much")
    }
}

impl std::error::Error for Tagged {}

#[derive(Command, Serialize, Deserialize)]
#[command("thing.refuse", reply = (), refusal = Tagged)]
struct Refuse;

impl Handle<Refuse> for Thing {
    fn handle(&self, _: &Refuse, _: &Context) -> Decision<Self, Refuse> {
        Err(Tagged::TooMuch { most: 3 })
    }
}

/// The test fails at the line of this file that it is called from, with all of these words.
#[track_caller]
fn fails(test: impl FnOnce(), parts: &[&str]) {
    let (message, file, _) = failure(test);
    assert_eq!(file, file!(), "it points at the test: {message}");
    assert!(parts.iter().all(|part| message.contains(part)), "{parts:?} should be in: {message}");
}

#[test]
fn an_event_that_loses_a_field_is_caught() {
    let parts = ["does not survive its stored form", "lost: 7", "lost: 0"];
    fails(|| drop(given::<Thing>([ThingEvent::Forgetful { lost: 7 }])), &parts);
    fails(|| drop(given::<Thing>([]).when(EmitForgetful)), &parts);
    drop(given::<Thing>([ThingEvent::Forgetful { lost: 0 }]));
}

#[test]
fn an_event_that_leads_to_another_state_is_caught() {
    let inexact = ThingEvent::Inexact(Inexact { amount: 3 });
    let parts = ["1 events lead to another state", "\"total\": 3", "\"total\": 0"];
    fails(|| drop(given::<Thing>([inexact])), &parts);
}

#[test]
fn an_apply_that_reads_what_no_snapshot_carries_is_caught() {
    let parts = ["a snapshot after event 1 of 2", "not the full replay", "\"total\": 1", "\"total\": 0"];
    fails(|| drop(given::<Thing>([ThingEvent::Hid, ThingEvent::Revealed])), &parts);
    fails(|| drop(given::<Thing>([ThingEvent::Hid]).when(EmitRevealed)), &parts);
    drop(given::<Thing>([ThingEvent::Hid, ThingEvent::Counted]));
}

#[test]
fn a_handler_that_reads_what_no_snapshot_carries_is_caught() {
    let parts =
        ["thing.tell-hidden", "asked on the state that its snapshot gives back", "reply 1", "reply 0"];
    fails(|| drop(given::<Thing>([ThingEvent::Hid]).when(TellHidden)), &parts);
    given::<Thing>([]).when(TellHidden).replies(0);
}

#[test]
fn a_handler_that_throws_dice_is_caught() {
    fails(
        || drop(given::<Thing>([]).when(TellChance)),
        &["thing.tell-chance", "asked again on the same state"],
    );
}

#[test]
fn a_command_that_does_not_survive_the_way_between_nodes_is_caught() {
    let optional = |note: Option<&str>| Optional { note: note.map(str::to_owned), amount: 300 };
    fails(|| drop(given::<Thing>([]).when(optional(None))), &["thing.optional", "skip_serializing_if"]);
    given::<Thing>([]).when(optional(Some("a note"))).emits_nothing();
}

#[test]
fn a_reply_that_does_not_survive_its_receipt_is_caught() {
    fails(|| drop(given::<Thing>([]).when(TellRounded)), &["the reply to thing.tell-rounded", "0.5", "1.0"]);
}

#[test]
fn a_refusal_that_does_not_survive_the_way_between_nodes_is_caught() {
    fails(|| drop(given::<Thing>([]).when(Refuse)), &["a refusal of thing.refuse", "`tag`"]);
}

/// Written by hand, with a schema that it does not list and a decode that gives two events for one.
#[derive(Debug, PartialEq)]
enum ByHand {
    Unlisted,
    Twins,
    Sound,
}

impl Event for ByHand {
    const SCHEMAS: &'static [EventSchema] = &[
        EventSchema { event_type: "hand.sound", schema_version: 1, current: true },
        EventSchema { event_type: "hand.twins", schema_version: 1, current: true },
        EventSchema { event_type: "hand.unlisted", schema_version: 1, current: false },
    ];

    fn event_type(&self) -> &'static str {
        match self {
            Self::Unlisted => "hand.unlisted",
            Self::Twins => "hand.twins",
            Self::Sound => "hand.sound",
        }
    }

    fn schema_version(&self) -> u16 {
        1
    }

    fn encode(&self) -> Result<Payload, EncodeError> {
        Payload::json(self.event_type(), &())
    }

    fn decode(raw: RawEvent<'_>) -> Result<Decoded<Self>, DecodeError> {
        match raw.event_type {
            "hand.twins" => Ok(Decoded::Many(vec![Self::Sound, Self::Sound])),
            _ => Ok(Decoded::Many(vec![Self::Sound])),
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Hand;

impl Aggregate for Hand {
    const TYPE: AggregateType = aggregate_type!("hand");
    type Id = ThingId;
    type Event = ByHand;

    fn commands(list: &mut impl CommandList<Self>) {
        list.add::<Wave>();
    }

    fn apply(&mut self, _: &ByHand) {}
}

#[test]
fn an_event_written_by_hand_is_held_to_its_schemas() {
    fails(|| drop(given::<Hand>([ByHand::Unlisted])), &["hand.unlisted", "not current in SCHEMAS"]);
    fails(|| drop(given::<Hand>([ByHand::Twins])), &["2 events instead of one"]);
    drop(given::<Hand>([ByHand::Sound]));
}

#[derive(Command, Serialize, Deserialize)]
#[command("hand.wave")]
struct Wave;

#[derive(Command, Serialize, Deserialize)]
#[command("hand.clap")]
struct Clap;

impl Handle<Wave> for Hand {
    fn handle(&self, _: &Wave, _: &Context) -> Decision<Self, Wave> {
        nothing().done()
    }
}

impl Handle<Clap> for Hand {
    fn handle(&self, _: &Clap, _: &Context) -> Decision<Self, Clap> {
        nothing().done()
    }
}

#[test]
fn a_command_that_a_list_misses_is_named_with_the_remedy() {
    given::<Hand>([]).when(Wave).emits_nothing();
    fails(|| drop(given::<Hand>([]).when(Clap)), &["hand.clap of hand is not listed", "list.add::<Clap>()"]);
}
