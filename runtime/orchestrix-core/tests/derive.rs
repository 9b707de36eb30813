//! What the derives promise: names and payloads that hold, old schemas that are read, mistakes that are explained.

use orchestrix_core::codec::Codec;
use orchestrix_core::prelude::*;
use orchestrix_core::{DecodeError, Decoded, EventSchema, RawEvent};
use proptest::prelude::*;

/// Frozen schemas of older releases.
mod v1 {
    use super::{AccountEvent, Deserialize, Upcast};

    #[derive(Deserialize)]
    pub(super) struct Deposited {
        amount: u64,
    }

    impl Upcast<AccountEvent> for Deposited {
        fn upcast(self) -> Vec<AccountEvent> {
            super::v2::Deposited { amount: self.amount, fee: 0 }.upcast()
        }
    }

    #[derive(Deserialize)]
    pub(super) struct Renamed {}

    impl Upcast<AccountEvent> for Renamed {
        fn upcast(self) -> Vec<AccountEvent> {
            Vec::new()
        }
    }
}

mod v2 {
    use super::{AccountEvent, Deserialize, Upcast};

    #[derive(Deserialize)]
    pub(super) struct Deposited {
        pub(super) amount: u64,
        pub(super) fee: u64,
    }

    impl Upcast<AccountEvent> for Deposited {
        fn upcast(self) -> Vec<AccountEvent> {
            let deposited = AccountEvent::Deposited { amount: self.amount, note: None };
            if self.fee == 0 {
                return vec![deposited];
            }
            vec![deposited, AccountEvent::Withdrawn { amount: self.fee }]
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Receipt {
    number: u32,
}

// No serde derives here: only the fields' types need them.
#[derive(Clone, Debug, PartialEq, Event)]
#[events(retired("account.renamed", version = 1, from = v1::Renamed))]
enum AccountEvent {
    #[event("account.opened")]
    Opened {
        owner: String,
        #[serde(rename = "currencyCode", default)]
        currency: Option<String>,
    },
    #[event("account.deposited", version = 3, upcast_from = [v1::Deposited, v2::Deposited])]
    Deposited {
        amount: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    #[event("account.withdrawn", codec = "bincode")]
    Withdrawn { amount: u64 },
    #[event("account.printed")]
    Printed(Receipt),
    #[event("account.moved")]
    #[serde(rename_all = "camelCase")]
    Moved { new_branch: u16 },
    #[event("account.closed")]
    Closed,
}

// With serde derives, for an application that also sends its events elsewhere.
#[derive(Debug, PartialEq, Event, Serialize, Deserialize)]
#[serde(rename_all_fields = "camelCase")]
enum NoticeEvent {
    #[event("notice.sent")]
    Sent { to_whom: String, r#type: u8 },
}

#[derive(Serialize, Deserialize, Command)]
#[command("account.withdraw", reply = u64, refusal = TooMuch)]
struct Withdraw {
    amount: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("too much")]
struct TooMuch;

#[derive(Serialize, Deserialize, Command)]
#[command("account.close")]
struct Close;

fn read<E: Event>(event_type: &str, schema_version: u16, payload: &[u8]) -> Result<Vec<E>, DecodeError> {
    let mut events = Vec::new();
    E::decode(RawEvent { event_type, schema_version, codec: Codec::Json, payload })?
        .for_each(|event| events.push(event));
    Ok(events)
}

fn round_trip<E: Event>(event: &E) -> Decoded<E> {
    let payload = event.encode().expect("encodes");
    let raw = RawEvent {
        event_type: event.event_type(),
        schema_version: event.schema_version(),
        codec: payload.codec,
        payload: &payload.bytes,
    };
    E::decode(raw).expect("decodes")
}

fn json(event: &impl Event) -> String {
    let payload = event.encode().expect("encodes");
    assert_eq!(payload.codec, Codec::Json);
    String::from_utf8(payload.bytes).expect("JSON is text")
}

#[test]
fn payloads_hold_fields_and_nothing_of_rust() {
    let opened = AccountEvent::Opened { owner: "Ada".into(), currency: Some("EUR".into()) };
    assert_eq!(json(&opened), r#"{"owner":"Ada","currencyCode":"EUR"}"#);
    assert_eq!(json(&AccountEvent::Deposited { amount: 5, note: None }), r#"{"amount":5}"#);
    assert_eq!(json(&AccountEvent::Printed(Receipt { number: 7 })), r#"{"number":7}"#);
    assert_eq!(json(&AccountEvent::Moved { new_branch: 3 }), r#"{"newBranch":3}"#);
    assert_eq!(json(&AccountEvent::Closed), "{}");
    assert_eq!(json(&NoticeEvent::Sent { to_whom: "Bob".into(), r#type: 1 }), r#"{"toWhom":"Bob","type":1}"#);
}

#[test]
fn bincode_is_used_where_it_is_asked_for() {
    let payload = AccountEvent::Withdrawn { amount: 300 }.encode().expect("encodes");
    assert_eq!(payload.codec, Codec::Bincode);
    assert_eq!(
        payload.bytes,
        [251, 0x2c, 0x01],
        "bincode 2: a marker, then 300 in two bytes, little end first"
    );
}

#[test]
fn the_table_lists_every_schema_in_order() {
    let schema = |event_type, schema_version, current| EventSchema { event_type, schema_version, current };
    assert_eq!(
        AccountEvent::SCHEMAS,
        [
            schema("account.closed", 1, true),
            schema("account.deposited", 1, false),
            schema("account.deposited", 2, false),
            schema("account.deposited", 3, true),
            schema("account.moved", 1, true),
            schema("account.opened", 1, true),
            schema("account.printed", 1, true),
            schema("account.renamed", 1, false),
            schema("account.withdrawn", 1, true),
        ]
    );
}

#[test]
fn an_old_schema_becomes_one_event() {
    let events = read::<AccountEvent>("account.deposited", 1, br#"{"amount":40}"#).expect("upcasts");
    assert_eq!(events, [AccountEvent::Deposited { amount: 40, note: None }]);
}

#[test]
fn an_old_schema_becomes_several_events() {
    let events = read::<AccountEvent>("account.deposited", 2, br#"{"amount":40,"fee":2}"#).expect("upcasts");
    let deposited = AccountEvent::Deposited { amount: 40, note: None };
    assert_eq!(events, [deposited, AccountEvent::Withdrawn { amount: 2 }]);
}

#[test]
fn a_retired_event_becomes_none() {
    assert_eq!(read::<AccountEvent>("account.renamed", 1, br#"{"owner":"Bob"}"#), Ok(vec![]));
}

#[test]
fn a_field_with_a_default_may_be_missing_and_a_field_of_the_future_is_passed_over() {
    let events =
        read::<AccountEvent>("account.opened", 1, br#"{"owner":"Ada","branch":9}"#).expect("decodes");
    assert_eq!(events, [AccountEvent::Opened { owner: "Ada".into(), currency: None }]);
    assert_eq!(read("account.closed", 1, b"{}"), Ok(vec![AccountEvent::Closed]));
}

#[test]
fn an_event_written_in_json_is_read_after_the_codec_changed() {
    let events = read::<AccountEvent>("account.withdrawn", 1, br#"{"amount":300}"#).expect("decodes");
    assert_eq!(events, [AccountEvent::Withdrawn { amount: 300 }]);
}

#[test]
fn an_unknown_type_is_an_error_that_names_the_known_ones() {
    let error = read::<NoticeEvent>("account.opened", 1, b"{}").expect_err("unknown");
    assert_eq!(
        error,
        DecodeError::UnknownType { event_type: "account.opened".into(), known: vec!["notice.sent"] }
    );
}

#[test]
fn an_unknown_version_is_an_error_that_names_the_known_ones() {
    let error = read::<AccountEvent>("account.deposited", 4, b"{}").expect_err("unknown");
    let known = vec![1, 2, 3];
    let expected =
        DecodeError::UnknownVersion { event_type: "account.deposited".into(), schema_version: 4, known };
    assert_eq!(error, expected);
}

#[test]
fn damaged_bytes_are_an_error_that_names_the_event() {
    for (version, payload) in [(3, &b"{\"amount\":"[..]), (3, b"{}"), (1, b"{\"amount\":-1}"), (3, b"")] {
        let error = read::<AccountEvent>("account.deposited", version, payload).expect_err("malformed");
        assert!(
            matches!(&error, DecodeError::Malformed { what, .. } if what == "account.deposited"),
            "{error}"
        );
    }
}

#[test]
fn a_command_has_its_name_its_reply_and_its_refusal() {
    fn is<C: Command<Reply = R, Refusal = F>, R, F>() -> &'static str {
        C::NAME
    }
    assert_eq!(is::<Withdraw, u64, TooMuch>(), "account.withdraw");
    assert_eq!(is::<Close, (), Never>(), "account.close");
}

fn any_event() -> impl Strategy<Value = AccountEvent> {
    prop_oneof![
        (any::<String>(), any::<Option<String>>())
            .prop_map(|(owner, currency)| AccountEvent::Opened { owner, currency }),
        (any::<u64>(), any::<Option<String>>())
            .prop_map(|(amount, note)| AccountEvent::Deposited { amount, note }),
        any::<u64>().prop_map(|amount| AccountEvent::Withdrawn { amount }),
        any::<u32>().prop_map(|number| AccountEvent::Printed(Receipt { number })),
        any::<u16>().prop_map(|new_branch| AccountEvent::Moved { new_branch }),
        Just(AccountEvent::Closed),
    ]
}

proptest! {
    #[test]
    fn every_event_comes_back_as_it_went(event in any_event()) {
        prop_assert_eq!(round_trip(&event), Decoded::One(event));
    }

    #[test]
    fn any_bytes_are_read_or_refused_without_a_panic(
        at in 0..AccountEvent::SCHEMAS.len(),
        bincode in any::<bool>(),
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let EventSchema { event_type, schema_version, .. } = AccountEvent::SCHEMAS[at];
        let codec = if bincode { Codec::Bincode } else { Codec::Json };
        let _ = AccountEvent::decode(RawEvent { event_type, schema_version, codec, payload: &payload });
    }
}

#[test]
fn likely_mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
