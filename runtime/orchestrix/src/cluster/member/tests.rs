use orchestrix_core::Seq;
use orchestrix_core::store::{Claim, Member, NodeRecord, ShardOwner};
use uuid::Uuid;

use super::*;
use crate::cluster::placement::Cause;

const LEASE: Duration = Duration::from_secs(6);
const LIMITS: Limits = Limits { wave_max: 8, tolerance_percent: 5 };

fn run(number: u128) -> Incarnation {
    Incarnation::from_uuid(Uuid::from_u128(number))
}

fn at(millis: u64) -> BootTime {
    BootTime::from_nanos(millis * 1_000_000)
}

fn shard(number: u32) -> ShardId {
    ShardId::new(number)
}

fn member(number: u128, lease_left: u64) -> Member {
    let node = NodeRecord {
        incarnation: run(number),
        name: String::new(),
        host: String::new(),
        boot_id: String::new(),
        pid_namespace: String::new(),
        pid: 0,
        pid_started: 0,
        application_version: String::new(),
        address: None,
    };
    let lease_left = Duration::from_millis(lease_left);
    Member { node, lease_left, draining: false, deposed: false, load: 0 }
}

fn row(number: u32, owner: Option<u128>, epoch: u64, target: Option<u128>) -> ShardOwner {
    let (owner, target) = (owner.map(run), target.map(run));
    ShardOwner { shard: shard(number), owner, epoch: Epoch::new(epoch), target }
}

/// A run that is driven by hand; its clock stands at the time of the last input.
struct Driven {
    membership: Membership,
    now: u64,
    version: u64,
}

impl Driven {
    /// Run 1, joined at 1 s.
    fn joined() -> Self {
        let membership = Membership::new(run(1), LEASE, LIMITS, at(1_000));
        let mut driven = Self { membership, now: 1_000, version: 0 };
        assert_eq!(driven.hear(Input::Tick), [Effect::Join { former: None }]);
        let effects = driven.answer(Answer::Joined(true));
        assert_eq!(effects[0], Effect::Extend(at(6_400)));
        driven
    }

    fn hear(&mut self, input: Input) -> Vec<Effect> {
        self.membership.on(input, at(self.now))
    }

    fn answer(&mut self, answer: Answer) -> Vec<Effect> {
        let (run, sent) = (self.membership.run(), at(self.now));
        self.hear(Input::Answer { run, sent, answer })
    }

    fn renewed(&mut self, holds: bool) -> Vec<Effect> {
        let view = self.version;
        self.answer(Answer::Renewed(Some(Renewed { holds, view })))
    }

    fn view(&mut self, members: &[Member], rows: &[ShardOwner]) -> Vec<Effect> {
        self.version += 1;
        let (members, shards) = (members.to_vec(), rows.to_vec());
        self.answer(Answer::View(Some(ClusterView { version: self.version, members, shards })))
    }

    /// Shard 0 is open under epoch 1.
    fn with_a_shard() -> Self {
        let mut driven = Self::joined();
        let effects = driven.view(&[member(1, 6_000)], &[row(0, None, 0, Some(1))]);
        assert!(effects.contains(&Effect::Claim(vec![(shard(0), Why::Free)])), "{effects:?}");
        let claim = Claim { shard: shard(0), epoch: Epoch::new(1), head: Seq::ZERO };
        let effects = driven.answer(Answer::Claimed(Some(vec![claim])));
        assert!(effects.contains(&Effect::Open(vec![claim])));
        driven
    }
}

fn seals(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Seal(_)))
}

fn claims(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Claim(_)))
}

#[test]
fn a_shard_is_handed_over_by_seal_release_and_hint() {
    let mut driven = Driven::with_a_shard();
    let epoch = Epoch::new(1);
    let members = [member(1, 6_000), member(2, 6_000)];
    let effects = driven.view(&members, &[row(0, Some(1), 1, Some(2))]);
    assert!(effects.contains(&Effect::Seal(vec![(shard(0), epoch, Why::Moves)])), "{effects:?}");
    assert!(!seals(&driven.view(&members, &[row(0, Some(1), 1, Some(2))])), "once is enough");
    let effects = driven.hear(Input::Sealed(vec![(shard(0), epoch)]));
    assert!(effects.contains(&Effect::Release(vec![(shard(0), epoch)])));
    let effects = driven.answer(Answer::Released(Some(vec![true])));
    assert!(effects.contains(&Effect::Hint(vec![run(2)])));
}

#[test]
fn a_shard_stays_while_its_target_does_not_live() {
    let mut driven = Driven::with_a_shard();
    let effects = driven.view(&[member(1, 6_000)], &[row(0, Some(1), 1, Some(2))]);
    assert!(!seals(&effects));
    let drains = Member { draining: true, ..member(2, 6_000) };
    assert!(!seals(&driven.view(&[member(1, 6_000), drains], &[row(0, Some(1), 1, Some(2))])));
}

#[test]
fn a_release_without_an_answer_is_repeated_or_found_done() {
    for (owner, is_done) in [(Some(1), false), (None, true)] {
        let mut driven = Driven::with_a_shard();
        let members = [member(1, 6_000), member(2, 6_000)];
        driven.view(&members, &[row(0, Some(1), 1, Some(2))]);
        driven.hear(Input::Sealed(vec![(shard(0), Epoch::new(1))]));
        driven.answer(Answer::Released(None));
        let effects = driven.view(&members, &[row(0, owner, 1, Some(2))]);
        let hints = effects.contains(&Effect::Hint(vec![run(2)]));
        assert_eq!(hints, is_done, "{effects:?}");
    }
}

/// The simulator found that a claim whose answer was slow opened a shard that had been released meanwhile.
#[test]
fn nothing_is_decided_about_a_shard_whose_claim_is_under_way() {
    let mut driven = Driven::joined();
    let members = [member(1, 6_000), member(2, 6_000)];
    assert!(claims(&driven.view(&members, &[row(0, None, 0, Some(1))])));
    let effects = driven.view(&members, &[row(0, Some(1), 1, Some(2))]);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Release(_) | Effect::Claim(_))));
}

#[test]
fn an_append_that_is_lost_fences_its_shard_which_is_claimed_anew() {
    for (loss, why) in [(Loss::Fenced, Why::AppendFenced), (Loss::InDoubt, Why::AppendInDoubt)] {
        let mut driven = Driven::with_a_shard();
        let epoch = Epoch::new(1);
        let effects = driven.hear(Input::Lost { shard: shard(0), epoch, loss });
        assert!(effects.contains(&Effect::Fence(vec![(shard(0), why)])));
        assert_eq!(driven.hear(Input::Lost { shard: shard(0), epoch, loss }), [], "that is no news");
        let effects = driven.view(&[member(1, 6_000)], &[row(0, Some(1), 1, None)]);
        assert!(effects.contains(&Effect::Claim(vec![(shard(0), Why::Anew)])));
    }
}

#[test]
fn a_run_that_was_deposed_drops_everything_and_goes_on_as_another_one() {
    let mut driven = Driven::with_a_shard();
    let effects = driven.renewed(false);
    assert_eq!(effects, [Effect::FenceAll(Why::Deposed)]);
    assert_eq!(driven.membership.wake(), None, "nothing happens before nobody is in memory");
    let effects = driven.hear(Input::Fenced { next: run(7) });
    assert_eq!(effects, [Effect::Join { former: Some(run(1)) }]);
    let (sent, answer) = (at(1_000), Answer::Renewed(Some(Renewed { holds: true, view: 9 })));
    assert_eq!(driven.hear(Input::Answer { run: run(1), sent, answer }), [], "the former run has no say");
}

#[test]
fn what_was_under_way_when_a_run_was_deposed_opens_nothing_and_is_forgotten() {
    let mut driven = Driven::with_a_shard();
    let members = [member(1, 6_000)];
    let effects = driven.view(&members, &[row(0, Some(1), 1, None), row(1, None, 3, Some(1))]);
    assert!(effects.contains(&Effect::Claim(vec![(shard(1), Why::Free)])), "{effects:?}");
    assert!(driven.renewed(false).contains(&Effect::FenceAll(Why::Deposed)));
    // Everybody is on the way out of memory when the claim is answered, and when a second word of the loss comes.
    let claim = Claim { shard: shard(1), epoch: Epoch::new(4), head: Seq::ZERO };
    assert_eq!(driven.answer(Answer::Claimed(Some(vec![claim]))), []);
    assert_eq!(driven.renewed(false), [], "one loss is carried out once");
    assert_eq!(driven.view(&members, &[row(0, Some(2), 2, None), row(1, Some(1), 4, None)]), []);
    let effects = driven.hear(Input::Fenced { next: run(9) });
    assert_eq!(effects, [Effect::Join { former: Some(run(1)) }]);
}

#[test]
fn past_its_lease_a_run_claims_nothing_until_it_is_renewed() {
    let mut driven = Driven::joined();
    driven.now = 6_400;
    let rows = [row(0, None, 0, Some(1))];
    assert!(!claims(&driven.view(&[member(1, 1)], &rows)));
    driven.now = 6_500;
    assert!(claims(&driven.renewed(true)));
}

#[test]
fn a_run_whose_lease_has_ended_is_gone_only_after_a_lease_of_a_healthy_database() {
    let mut driven = Driven::joined();
    let members = [member(1, 6_000), member(2, 0)];
    let rows = [row(0, Some(2), 4, Some(1))];
    assert!(!claims(&driven.view(&members, &rows)), "it has just begun to look");
    for _ in 0..6 {
        driven.now += 1_000;
        driven.renewed(true);
    }
    let effects = driven.view(&members, &rows);
    assert!(effects.contains(&Effect::Claim(vec![(shard(0), Why::OwnerGone)])), "{effects:?}");
    // After an outage it counts anew.
    driven.answer(Answer::Claimed(None));
    driven.now += 4_000;
    driven.renewed(true);
    assert!(!claims(&driven.view(&members, &rows)));
}

#[test]
fn a_run_that_left_or_is_proved_gone_is_succeeded_at_once() {
    let rows = [row(0, Some(2), 4, Some(1))];
    let mut driven = Driven::joined();
    assert!(claims(&driven.view(&[member(1, 6_000)], &rows)));
    let mut driven = Driven::joined();
    driven.hear(Input::Gone(run(2)));
    assert!(claims(&driven.view(&[member(1, 6_000), member(2, 6_000)], &rows)));
}

#[test]
fn a_run_that_drains_leaves_when_it_owns_nothing_or_is_alone() {
    let drains = Member { draining: true, ..member(1, 6_000) };
    let mut driven = Driven::with_a_shard();
    let effects = driven.hear(Input::Drain);
    assert!(effects.contains(&Effect::Renew { draining: true }));
    let effects = driven.view(&[drains.clone(), member(2, 6_000)], &[row(0, Some(1), 1, None)]);
    assert!(!effects.contains(&Effect::Leave));
    let effects = driven.view(std::slice::from_ref(&drains), &[row(0, Some(1), 1, None)]);
    assert!(
        effects.contains(&Effect::Seal(vec![(shard(0), Epoch::new(1), Why::LeavesAlone)])),
        "{effects:?}"
    );
    let effects = driven.hear(Input::Sealed(vec![(shard(0), Epoch::new(1))]));
    assert!(effects.contains(&Effect::Leave));
    driven.answer(Answer::Left(true));
    assert!(driven.membership.has_left());
}

#[test]
fn hints_bring_a_look_forward_and_no_more_than_so_many() {
    let mut driven = Driven::with_a_shard();
    driven.view(&[member(1, 6_000)], &[row(0, Some(1), 1, None)]);
    driven.now += 1_000;
    assert_eq!(driven.hear(Input::Look), [Effect::Look]);
    for _ in 0..100 {
        assert_eq!(driven.hear(Input::Look), [], "one is under way");
    }
    driven.view(&[member(1, 6_000)], &[row(0, Some(1), 1, None)]);
    assert_eq!(driven.hear(Input::Look), [], "it has just looked");
    driven.now += 50;
    assert_eq!(driven.hear(Input::Tick), [Effect::Look]);
}

#[test]
fn a_shard_whose_epoch_has_passed_is_fenced_and_an_older_row_is_ignored() {
    let members = [member(1, 6_000), member(2, 6_000)];
    let fence = Effect::Fence(vec![(shard(0), Why::Passed)]);
    let mut driven = Driven::with_a_shard();
    assert!(!driven.view(&members, &[row(0, Some(2), 0, None)]).contains(&fence));
    assert!(driven.view(&members, &[row(0, Some(2), 2, None)]).contains(&fence));
    // A claim of its own that came late counts as well: appends under the former epoch are refused.
    let mut driven = Driven::with_a_shard();
    let effects = driven.view(&members, &[row(0, Some(1), 2, None)]);
    assert!(effects.contains(&fence));
    assert!(effects.contains(&Effect::Claim(vec![(shard(0), Why::Anew)])));
}

#[test]
fn a_target_that_does_not_come_within_a_lease_is_replaced() {
    let mut driven = Driven::joined();
    let members = [member(1, 6_000), member(2, 6_000)];
    let rows = [row(0, None, 4, Some(2))];
    let replaces = |effects: &[Effect]| {
        effects.iter().any(|effect| match effect {
            Effect::SetTargets { moves, .. } => {
                moves.iter().any(|(target, cause)| (target.target, *cause) == (run(1), Cause::TargetLate))
            }
            _ => false,
        })
    };
    assert!(!replaces(&driven.view(&members, &rows)));
    for _ in 0..6 {
        driven.now += 1_000;
        driven.renewed(true);
    }
    assert!(replaces(&driven.view(&members, &rows)));
}

#[test]
fn a_broken_connection_makes_a_run_look_and_decides_nothing() {
    let mut driven = Driven::with_a_shard();
    let members = [member(1, 6_000), member(2, 6_000)];
    let rows = [row(0, Some(1), 1, None), row(1, Some(2), 1, None)];
    driven.now += 100;
    // It looks once after the claim.
    assert_eq!(driven.hear(Input::Tick), [Effect::Look]);
    driven.view(&members, &rows);
    driven.now += 100;
    assert_eq!(driven.hear(Input::PeerLost(run(9))), [], "nobody knows that one");
    assert_eq!(driven.hear(Input::PeerLost(run(2))), [Effect::Look]);
    assert_eq!(driven.view(&members, &rows), [Effect::Publish]);
    driven.now += 500;
    assert!(driven.hear(Input::Tick).contains(&Effect::Look), "it goes on looking for a while");
}
