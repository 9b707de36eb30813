//! An account beside a model of it: the sum of what was accepted, for any order of commands.

use domain_example::account::{Account, AccountStatus, CloseAccount, Deposit, OpenAccount, Withdraw};
use domain_example::money::{AMOUNT_MAX, BALANCE_MAX};
use orchestrix_core::{
    Aggregate, Command, CommandId, Context, Handle, Metadata, StreamId, Timestamp, Version,
};
use proptest::prelude::*;
use proptest::sample::select;

use super::amount;

#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    Deposit(u64),
    Withdraw(u64),
    Close,
}

fn any_step() -> impl Strategy<Value = Step> {
    // Small amounts meet an empty account, large ones the limit of the balance.
    let any_amount = || prop_oneof![1..100_u64, select(vec![AMOUNT_MAX - 1, AMOUNT_MAX])];
    prop_oneof![
        1 => Just(Step::Open),
        6 => any_amount().prop_map(Step::Deposit),
        4 => any_amount().prop_map(Step::Withdraw),
        1 => Just(Step::Close),
    ]
}

/// Decides about a command and applies what it led to; tells whether it was accepted.
fn send<C: Command>(account: &mut Account, command: &C) -> bool
where
    Account: Handle<C>,
{
    let context = Context {
        command_id: CommandId::fresh(),
        stream: StreamId::new("account", "model"),
        version: Version::ZERO,
        now: Timestamp::from_micros(0),
        metadata: Metadata::default(),
    };
    let Ok(accepted) = account.handle(command, &context) else { return false };
    let (events, _) = accepted.into_parts();
    for event in &events {
        account.apply(event);
    }
    true
}

/// What the rules say, in plain arithmetic: `None` is "not open".
#[derive(Default)]
struct Model {
    balance: Option<u64>,
    used: bool,
}

impl Model {
    fn take(&mut self, step: Step) -> bool {
        let after = match (step, self.balance) {
            (Step::Open, _) if !self.used => Some(0),
            (Step::Deposit(amount), Some(balance)) if balance + amount <= BALANCE_MAX => {
                Some(balance + amount)
            }
            (Step::Withdraw(amount), Some(balance)) if amount <= balance => Some(balance - amount),
            (Step::Close, Some(0)) => None,
            _ => return false,
        };
        self.balance = after;
        self.used = true;
        true
    }
}

proptest! {
    #[test]
    fn any_order_of_commands_leaves_what_the_model_says(steps in proptest::collection::vec(any_step(), 1..60)) {
        let (mut account, mut model) = (Account::default(), Model::default());
        for step in steps {
            let accepted = match step {
                Step::Open => {
                    let owner = "Ada".parse().expect("a name");
                    send(&mut account, &OpenAccount { owner, currency: "EUR".parse().expect("a currency") })
                }
                Step::Deposit(minor_units) => send(&mut account, &Deposit { amount: amount(minor_units) }),
                Step::Withdraw(minor_units) => send(&mut account, &Withdraw { amount: amount(minor_units) }),
                Step::Close => send(&mut account, &CloseAccount {}),
            };
            prop_assert_eq!(accepted, model.take(step), "{:?}", step);
            let view = account.view();
            let open = view.as_ref().is_some_and(|view| view.status == AccountStatus::Open);
            prop_assert_eq!(open.then(|| view.expect("it is open").balance), model.balance);
        }
    }
}
