//! What an account accepts and refuses.

use domain_example::account::{
    Account, AccountEvent, AccountRefusal, AccountStatus, Balance, CloseAccount, Deposit, OpenAccount,
    Withdraw,
};
use domain_example::money::{AMOUNT_MAX, BALANCE_MAX};
use orchestrix_core::{Aggregate, AggregateId};
use orchestrix_testkit::given;

use super::{account_id, amount};

fn open(owner: &str) -> OpenAccount {
    let owner = owner.parse().expect("the test gives a name");
    OpenAccount { owner, currency: "EUR".parse().expect("a currency") }
}

fn deposit(minor_units: u64) -> Deposit {
    Deposit { amount: amount(minor_units) }
}

fn withdraw(minor_units: u64) -> Withdraw {
    Withdraw { amount: amount(minor_units) }
}

fn opened(owner: &str) -> AccountEvent {
    AccountEvent::Opened { owner: owner.to_owned(), currency: "EUR".to_owned() }
}

fn deposited(amount: u64) -> AccountEvent {
    AccountEvent::Deposited { amount }
}

fn withdrawn(amount: u64) -> AccountEvent {
    AccountEvent::Withdrawn { amount }
}

#[test]
fn a_new_account_is_empty() {
    given::<Account>([]).when(open("Ada")).then([opened("Ada")]).replies(Balance(0));
}

#[test]
fn an_id_is_used_once_even_after_the_account_is_closed() {
    given::<Account>([opened("Ada")]).when(open("Bob")).refused(AccountRefusal::AlreadyExists);
    given::<Account>([opened("Ada"), AccountEvent::Closed])
        .when(open("Bob"))
        .refused(AccountRefusal::AlreadyExists);
}

#[test]
fn money_comes_in_and_goes_out() {
    given::<Account>([opened("Ada"), deposited(100)])
        .when(withdraw(30))
        .then([withdrawn(30)])
        .replies(Balance(70))
        .when(deposit(5))
        .then([deposited(5)])
        .replies(Balance(75))
        .when(withdraw(75))
        .then([withdrawn(75)])
        .replies(Balance(0));
}

#[test]
fn an_account_never_owes() {
    given::<Account>([opened("Ada"), deposited(100), withdrawn(30)])
        .when(withdraw(71))
        .refused(AccountRefusal::InsufficientFunds { balance: 70, needed: 71 });
}

#[test]
fn a_balance_stays_a_number_that_json_keeps_exact() {
    let almost = BALANCE_MAX - 10;
    given::<Account>([opened("Ada"), deposited(almost)])
        .when(deposit(11))
        .refused(AccountRefusal::BalanceTooLarge { balance: almost, amount: 11, max: BALANCE_MAX });
    given::<Account>([opened("Ada"), deposited(almost)])
        .when(deposit(10))
        .then([deposited(10)])
        .replies(Balance(BALANCE_MAX));
    given::<Account>([opened("Ada")])
        .when(deposit(AMOUNT_MAX))
        .then([deposited(AMOUNT_MAX)])
        .replies(Balance(AMOUNT_MAX));
}

#[test]
fn only_an_empty_account_is_closed() {
    given::<Account>([opened("Ada"), deposited(1)])
        .when(CloseAccount {})
        .refused(AccountRefusal::NotEmpty { balance: 1 });
    given::<Account>([opened("Ada"), deposited(1), withdrawn(1)])
        .when(CloseAccount {})
        .then([AccountEvent::Closed])
        .replies(Balance(0));
}

#[test]
fn a_closed_account_does_nothing_more() {
    let closed = || given::<Account>([opened("Ada"), AccountEvent::Closed]);
    closed().when(deposit(1)).refused(AccountRefusal::Closed);
    closed().when(withdraw(1)).refused(AccountRefusal::Closed);
    closed().when(CloseAccount {}).refused(AccountRefusal::Closed);
}

#[test]
fn an_account_that_was_never_opened_does_nothing() {
    given::<Account>([]).when(deposit(1)).refused(AccountRefusal::NotFound);
    given::<Account>([]).when(withdraw(1)).refused(AccountRefusal::NotFound);
    given::<Account>([]).when(CloseAccount {}).refused(AccountRefusal::NotFound);
}

#[test]
fn readers_see_an_account_from_its_opening_on() {
    let mut account = Account::default();
    assert_eq!(account.view(), None);
    for event in &[opened("Ada"), deposited(40)] {
        account.apply(event);
    }
    let view = account.view().expect("it is open");
    assert_eq!((view.owner.as_str(), view.currency.as_str(), view.balance), ("Ada", "EUR", 40));
    assert_eq!(view.status, AccountStatus::Open);
    for event in &[withdrawn(40), AccountEvent::Closed] {
        account.apply(event);
    }
    let view = account.view().expect("a closed account is still shown");
    assert_eq!((view.balance, view.status), (0, AccountStatus::Closed));
}

#[test]
fn an_unknown_field_of_a_command_is_refused() {
    let error = serde_json::from_str::<Deposit>(r#"{"amount":1,"curency":"EUR"}"#).expect_err("misspelt");
    assert!(error.to_string().contains("unknown field `curency`"), "{error}");
}

#[test]
fn an_id_has_letters_digits_hyphens_and_underscores() {
    assert_eq!(account_id("A_b-9").as_str(), "A_b-9");
    assert_eq!(account_id(&"x".repeat(128)).as_str().len(), 128);
    for bad in ["", "a b", "a/b", "ä", "a.b", &"x".repeat(129)] {
        assert!(domain_example::AccountId::from_key(bad).is_err(), "{bad:?} is no account id");
    }
}
