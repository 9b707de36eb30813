//! What a transfer accepts and refuses.

use domain_example::Transfer;
use domain_example::transfer::{
    CompleteTransfer, RefuseTransfer, RequestTransfer, ReturnMoney, TransferEvent, TransferRefusal,
    TransferStatus,
};
use orchestrix_core::Aggregate;
use orchestrix_testkit::given;

use super::{account_id, amount};

fn request(from: &str, to: &str) -> RequestTransfer {
    RequestTransfer { from: account_id(from), to: account_id(to), amount: amount(25) }
}

fn requested() -> TransferEvent {
    TransferEvent::Requested { from: account_id("ada"), to: account_id("bob"), amount: 25 }
}

fn refuse(reason: &str) -> RefuseTransfer {
    RefuseTransfer { reason: reason.to_owned() }
}

fn give_back(reason: &str) -> ReturnMoney {
    ReturnMoney { reason: reason.to_owned() }
}

fn returning(reason: &str) -> TransferEvent {
    TransferEvent::Returning { reason: reason.to_owned() }
}

fn refused(reason: &str) -> TransferEvent {
    TransferEvent::Refused { reason: reason.to_owned() }
}

#[test]
fn a_transfer_is_pending_until_it_is_completed() {
    given::<Transfer>([])
        .when(request("ada", "bob"))
        .then([requested()])
        .replies(TransferStatus::Pending)
        .when(CompleteTransfer {})
        .then([TransferEvent::Completed])
        .replies(TransferStatus::Completed);
}

#[test]
fn a_pending_transfer_can_be_refused() {
    given::<Transfer>([requested()])
        .when(refuse("no funds"))
        .then([refused("no funds")])
        .replies(TransferStatus::Refused);
}

#[test]
fn money_that_cannot_arrive_goes_back_before_the_transfer_is_refused() {
    given::<Transfer>([requested()])
        .when(give_back("bob has closed"))
        .then([returning("bob has closed")])
        .replies(TransferStatus::Returning)
        .when(refuse("bob has closed"))
        .then([refused("bob has closed")])
        .replies(TransferStatus::Refused);
}

#[test]
fn money_on_its_way_back_is_not_delivered_any_more() {
    given::<Transfer>([requested(), returning("bob has closed")])
        .when(CompleteTransfer {})
        .refused(TransferRefusal::Returning);
}

#[test]
fn an_account_does_not_pay_itself() {
    given::<Transfer>([])
        .when(request("ada", "ada"))
        .refused(TransferRefusal::SameAccount { account: account_id("ada") });
}

#[test]
fn an_id_is_used_once() {
    given::<Transfer>([requested()]).when(request("ada", "bob")).refused(TransferRefusal::AlreadyExists);
}

#[test]
fn the_outcome_is_recorded_once() {
    given::<Transfer>([requested(), TransferEvent::Completed])
        .when(CompleteTransfer {})
        .emits_nothing()
        .replies(TransferStatus::Completed);
    given::<Transfer>([requested(), returning("no funds")])
        .when(give_back("another reason"))
        .emits_nothing()
        .replies(TransferStatus::Returning);
    given::<Transfer>([requested(), refused("no funds")])
        .when(refuse("another reason"))
        .emits_nothing()
        .replies(TransferStatus::Refused);
}

#[test]
fn the_outcome_never_changes() {
    given::<Transfer>([requested(), TransferEvent::Completed])
        .when(refuse("too late"))
        .refused(TransferRefusal::AlreadyCompleted);
    given::<Transfer>([requested(), refused("no funds")])
        .when(CompleteTransfer {})
        .refused(TransferRefusal::AlreadyRefused);
    given::<Transfer>([requested(), TransferEvent::Completed])
        .when(give_back("too late"))
        .refused(TransferRefusal::AlreadyCompleted);
    given::<Transfer>([requested(), refused("no funds")])
        .when(give_back("too late"))
        .refused(TransferRefusal::AlreadyRefused);
}

#[test]
fn a_transfer_that_was_never_requested_has_no_outcome() {
    given::<Transfer>([]).when(CompleteTransfer {}).refused(TransferRefusal::NotFound);
    given::<Transfer>([]).when(refuse("no funds")).refused(TransferRefusal::NotFound);
    given::<Transfer>([]).when(give_back("no funds")).refused(TransferRefusal::NotFound);
}

#[test]
fn readers_see_the_order_its_outcome_and_the_reason() {
    let mut transfer = Transfer::default();
    assert_eq!(transfer.view(), None);
    for event in &[requested(), refused("no funds")] {
        transfer.apply(event);
    }
    let view = transfer.view().expect("it was requested");
    assert_eq!((view.from.as_str(), view.to.as_str(), view.amount), ("ada", "bob", 25));
    assert_eq!((view.status, view.reason.as_deref()), (TransferStatus::Refused, Some("no funds")));
}
