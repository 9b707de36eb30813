//! Given/when/then on a sound aggregate: what passes, what fails, and at which line.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use orchestrix_core::prelude::*;
use orchestrix_testkit::given;

aggregate_id!(pub struct AccountId, "account id");

#[derive(Default, Serialize, Deserialize)]
struct Account {
    balance: u64,
    /// Maps and sets without an order must not make a test fail by chance.
    by_day: HashMap<String, u64>,
    seen: HashSet<(u8, u8)>,
}

#[derive(Clone, Debug, PartialEq, Event, Serialize, Deserialize)]
enum AccountEvent {
    #[event("account.deposited")]
    Deposited { amount: u64, at: Timestamp },
    #[event("account.withdrawn")]
    Withdrawn { amount: u64 },
}

impl Aggregate for Account {
    const TYPE: AggregateType = aggregate_type!("account");
    type Id = AccountId;
    type Event = AccountEvent;

    fn commands(list: &mut impl CommandList<Self>) {
        list.add::<Deposit>().add::<Withdraw>().add::<Describe>();
    }

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited { amount, at } => {
                self.balance += amount;
                *self.by_day.entry(at.to_string()).or_default() += amount;
                self.seen.insert((*amount as u8, 1));
            }
            AccountEvent::Withdrawn { amount } => self.balance -= amount,
        }
    }
}

#[derive(Command, Serialize, Deserialize)]
#[command("account.deposit", reply = u64, refusal = Never)]
struct Deposit {
    amount: u64,
}

impl Handle<Deposit> for Account {
    fn handle(&self, command: &Deposit, context: &Context) -> Decision<Self, Deposit> {
        let deposited = AccountEvent::Deposited { amount: command.amount, at: context.now };
        if command.amount == 0 { nothing() } else { emit(deposited) }.reply(self.balance + command.amount)
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum WithdrawRefusal {
    InsufficientFunds { balance: u64 },
}

impl std::fmt::Display for WithdrawRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("insufficient funds")
    }
}

impl std::error::Error for WithdrawRefusal {}

#[derive(Command, Serialize, Deserialize)]
#[command("account.withdraw", reply = u64, refusal = WithdrawRefusal)]
struct Withdraw {
    amount: u64,
}

impl Handle<Withdraw> for Account {
    fn handle(&self, command: &Withdraw, _: &Context) -> Decision<Self, Withdraw> {
        let left = self
            .balance
            .checked_sub(command.amount)
            .ok_or(WithdrawRefusal::InsufficientFunds { balance: self.balance })?;
        emit(AccountEvent::Withdrawn { amount: command.amount }).reply(left)
    }
}

/// Tells the context back.
#[derive(Command, Serialize, Deserialize)]
#[command("account.describe", reply = (String, CommandId, u64, Metadata), refusal = Never)]
struct Describe;

impl Handle<Describe> for Account {
    fn handle(&self, _: &Describe, context: &Context) -> Decision<Self, Describe> {
        let version = context.version.get();
        nothing().reply((context.stream.to_string(), context.command_id, version, context.metadata.clone()))
    }
}

const NOW: &str = "2026-01-01T00:00:00Z";

fn deposited(amount: u64) -> AccountEvent {
    AccountEvent::Deposited { amount, at: NOW.parse().expect("RFC 3339") }
}

fn withdrawn(amount: u64) -> AccountEvent {
    AccountEvent::Withdrawn { amount }
}

thread_local! {
    /// Whether this thread runs a test that must fail; its panic is not printed.
    static MUST_FAIL: Cell<bool> = const { Cell::new(false) };
    static PANICKED_AT: RefCell<Option<(String, u32)>> = const { RefCell::new(None) };
}

/// Runs a test that must fail and returns its message, with the file and line that it points at.
pub(crate) fn failure(test: impl FnOnce()) -> (String, String, u32) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !MUST_FAIL.get() {
                return print(info);
            }
            PANICKED_AT.set(info.location().map(|place| (place.file().to_owned(), place.line())));
        }));
    });
    MUST_FAIL.set(true);
    let result = catch_unwind(AssertUnwindSafe(test));
    MUST_FAIL.set(false);
    let panic = result.expect_err("the test must fail");
    let message = panic.downcast_ref::<String>().cloned();
    let message = message.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    let (file, line) = PANICKED_AT.take().expect("the hook saw the panic");
    (message.expect("a panic with a message"), file, line)
}

#[test]
fn a_test_reads_like_a_sentence() {
    given::<Account>([deposited(100)])
        .when(Withdraw { amount: 30 })
        .then([withdrawn(30)])
        .replies(70)
        .when(Withdraw { amount: 71 })
        .refused(WithdrawRefusal::InsufficientFunds { balance: 70 })
        .when(Deposit { amount: 0 })
        .emits_nothing()
        .with_reply(|balance| assert_eq!(*balance, 70))
        .with_state(|account| assert_eq!(account.balance, 70))
        .at("2026-03-01T08:00:00Z".parse().expect("RFC 3339"))
        .when(Deposit { amount: 5 })
        .then([AccountEvent::Deposited { amount: 5, at: "2026-03-01T08:00:00Z".parse().expect("RFC 3339") }])
        .with_state(|account| assert_eq!(account.by_day.len(), 2));
}

#[test]
fn a_long_history_is_checked_at_some_places() {
    let history = (0..2_000).map(|_| deposited(2)).chain((0..1_000).map(|_| withdrawn(1)));
    given::<Account>(history)
        .with_state(|account| assert_eq!(account.balance, 3_000))
        .when(Withdraw { amount: 3_000 })
        .replies(0);
}

#[test]
fn the_context_is_what_the_test_says() {
    let id: CommandId = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().expect("a UUID");
    let metadata = Metadata { traceparent: Some("00-1-2-03".into()), ..Metadata::default() };
    let described = |stream: &str, version| (stream.to_owned(), id, version, metadata.clone());
    given::<Account>([deposited(1), deposited(2)])
        .with_id("a-7")
        .as_command(id)
        .with_metadata(metadata.clone())
        .when(Describe)
        .replies(described("account/a-7", 2))
        .when(Deposit { amount: 1 })
        .as_command(id)
        .when(Describe)
        .replies(described("account/a-7", 3));
}

#[test]
fn command_ids_differ_by_step_and_not_by_run() {
    let ids = || {
        let (mut first, mut second) = (None, None);
        given::<Account>([])
            .when(Describe)
            .with_reply(|reply| first = Some(reply.1))
            .when(Describe)
            .with_reply(|reply| second = Some(reply.1));
        (first.expect("replied"), second.expect("replied"))
    };
    let (first, second) = ids();
    assert_ne!(first, second);
    assert_eq!(ids(), (first, second));
    assert_eq!(first.made_at(), NOW.parse().ok(), "the id tells the test's time as its age");
}

/// Where a failure must point, what fails, and the words that it must have.
type Case = (u32, Box<dyn FnOnce()>, &'static [&'static str]);

/// Each failure names the command, shows both sides, and points at the line of the test.
#[test]
fn a_failure_points_at_the_test_and_shows_both_sides() {
    let outcome = || given::<Account>([deposited(100)]).when(Withdraw { amount: 30 });
    let refused = || given::<Account>([]).when(Withdraw { amount: 1 });
    let cases: Vec<Case> = vec![
        (line!(), Box::new(move || drop(outcome().then([withdrawn(31)]))), &["other events", "31", "30"]),
        (line!(), Box::new(move || drop(outcome().emits_nothing())), &["other events", "[]", "Withdrawn"]),
        (
            line!(),
            Box::new(move || drop(outcome().replies(71))),
            &["another reply", "expected: 71", "actual: 70"],
        ),
        (
            line!(),
            Box::new(move || drop(outcome().refused(WithdrawRefusal::InsufficientFunds { balance: 1 }))),
            &["was accepted and should be refused", "Withdrawn", "70"],
        ),
        (
            line!(),
            Box::new(move || drop(outcome().with_refusal(|_| ()))),
            &["was accepted and should be refused"],
        ),
        (line!(), Box::new(move || drop(refused().then([]))), &["was refused", "InsufficientFunds"]),
        (line!(), Box::new(move || drop(refused().replies(0))), &["has no reply", "InsufficientFunds"]),
        (
            line!(),
            Box::new(move || drop(refused().refused(WithdrawRefusal::InsufficientFunds { balance: 7 }))),
            &["for another reason", "balance: 7", "balance: 0"],
        ),
        (
            line!(),
            Box::new(move || drop(refused().when(Describe))),
            &["the test goes on", "InsufficientFunds"],
        ),
    ];
    for (line, test, parts) in cases {
        let (message, file, found) = failure(test);
        // The call stands on the line of its case or, as rustfmt likes it, on one of the next two.
        assert!(
            file == file!() && (line..line + 3).contains(&found),
            "{file}:{found}, not {line}: {message}"
        );
        let command = "account.withdraw";
        assert!(message.contains(command) && parts.iter().all(|part| message.contains(part)), "{message}");
    }
}
