use uuid::Uuid;

use super::*;
use crate::cluster::chance::Chance;

const ALL_AT_ONCE: Limits = Limits { wave_max: usize::MAX, tolerance_percent: 5 };

fn run(number: u128) -> Incarnation {
    // Spread, so that the order of the runs is not that of their numbers.
    Incarnation::from_uuid(Uuid::from_u128(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)))
}

fn seat(number: u128) -> Seat {
    Seat { run: run(number), health: Health::Living, capacity: 1 }
}

fn seats(numbers: std::ops::Range<u128>) -> Vec<Seat> {
    numbers.map(seat).collect()
}

fn free(count: u32) -> Vec<Piece> {
    let piece =
        |number| Piece { shard: ShardId::new(number), owner: None, target: None, is_late: false, cost: 1 };
    (0..count).map(piece).collect()
}

/// Carries a plan out: every target owns what it should have.
fn carry_out(pieces: &mut [Piece], moves: &[Move]) {
    for made in moves {
        let piece = &mut pieces[made.shard.get() as usize];
        *piece = Piece { owner: Some(made.target), target: None, is_late: false, ..*piece };
    }
}

fn settled(seats: &[Seat], shards: u32) -> Vec<Piece> {
    let mut pieces = free(shards);
    let moves = plan(seats, &pieces, ALL_AT_ONCE);
    carry_out(&mut pieces, &moves);
    pieces
}

fn owned(pieces: &[Piece], run: Incarnation) -> usize {
    pieces.iter().filter(|piece| piece.owner == Some(run)).count()
}

/// The fewest moves after which everybody has the floor or the ceiling of an equal share.
fn fewest(seats: &[Seat], pieces: &[Piece]) -> usize {
    let (floor, ceiling) = (pieces.len() / seats.len(), pieces.len().div_ceil(seats.len()));
    let counts = || seats.iter().map(|seat| owned(pieces, seat.run));
    let housed: usize = counts().sum();
    let over: usize = counts().map(|count| count.saturating_sub(ceiling)).sum();
    let under: usize = counts().map(|count| floor.saturating_sub(count)).sum();
    let homeless = pieces.len() - housed;
    (homeless + over).max(under)
}

#[track_caller]
fn is_fair(seats: &[Seat], pieces: &[Piece]) {
    let (floor, ceiling) = (pieces.len() / seats.len(), pieces.len().div_ceil(seats.len()));
    for seat in seats {
        let count = owned(pieces, seat.run);
        assert!((floor..=ceiling).contains(&count), "{count} of {} to {}", pieces.len(), seats.len());
    }
}

#[test]
fn nobody_gets_more_than_the_ceiling_of_its_share() {
    for (nodes, shards) in [(1, 1), (3, 256), (7, 256), (100, 4_096), (5, 3), (64, 64)] {
        let seats = seats(0..nodes);
        let pieces = settled(&seats, shards);
        assert!(pieces.iter().all(|piece| piece.owner.is_some()));
        is_fair(&seats, &pieces);
        assert_eq!(plan(&seats, &pieces, ALL_AT_ONCE), [], "what is settled stays");
    }
}

#[test]
fn a_join_and_a_leave_move_as_little_as_possible_at_100_nodes_and_4096_shards() {
    let hundred = settled(&seats(0..100), 4_096);
    for after in [0..101, 0..99, 0..110, 0..90, 5..105, 0..200, 60..100, 0..1] {
        let seats = seats(after.clone());
        let mut pieces = hundred.clone();
        let moves = plan(&seats, &pieces, ALL_AT_ONCE);
        assert_eq!(moves.len(), fewest(&seats, &pieces), "{after:?}");
        carry_out(&mut pieces, &moves);
        is_fair(&seats, &pieces);
    }
}

#[test]
fn a_leave_and_a_join_again_move_as_little_as_possible_from_any_balance() {
    let mut chance = Chance::new(1);
    for _ in 0..300 {
        let shards = chance.between(1, 300) as u32;
        let mut nodes: Vec<u128> = (0..u128::from(chance.between(1, 12))).collect();
        let mut pieces = settled(&nodes.iter().copied().map(seat).collect::<Vec<_>>(), shards);
        for _ in 0..6 {
            let joins = nodes.len() == 1 || chance.happens(500);
            if joins {
                nodes.push(u128::from(chance.any()));
            } else {
                nodes.swap_remove(chance.below(nodes.len() as u64) as usize);
            }
            let seats: Vec<_> = nodes.iter().copied().map(seat).collect();
            let moves = plan(&seats, &pieces, Limits { tolerance_percent: 0, ..ALL_AT_ONCE });
            assert_eq!(moves.len(), fewest(&seats, &pieces));
            carry_out(&mut pieces, &moves);
            is_fair(&seats, &pieces);
        }
    }
}

/// Any view at all, also those that no cluster gets into.
fn any_view(chance: &mut Chance) -> (Vec<Seat>, Vec<Piece>) {
    let healths = [Health::Living, Health::Living, Health::Draining, Health::Silent, Health::Gone];
    let nodes = u128::from(chance.between(1, 8));
    let seats: Vec<_> = (0..nodes)
        .map(|number| Seat {
            health: chance.one(&healths),
            capacity: chance.between(1, 3) as u32,
            ..seat(number)
        })
        .collect();
    let someone =
        |chance: &mut Chance| chance.happens(700).then(|| run(u128::from(chance.below(nodes as u64 + 1))));
    let mut pieces = free(chance.between(1, 60) as u32);
    for piece in &mut pieces {
        (piece.owner, piece.target) = (someone(chance), someone(chance));
        piece.cost = chance.between(0, 20);
        piece.is_late = chance.happens(200);
    }
    (seats, pieces)
}

#[test]
fn a_plan_rests_on_the_view_and_not_on_its_order() {
    let mut chance = Chance::new(2);
    for _ in 0..500 {
        let (mut seats, mut pieces) = any_view(&mut chance);
        let limits = Limits { wave_max: chance.between(1, 10) as usize, ..ALL_AT_ONCE };
        let first = plan(&seats, &pieces, limits);
        chance.shuffle(&mut seats);
        chance.shuffle(&mut pieces);
        assert_eq!(plan(&seats, &pieces, limits), first);
    }
}

#[test]
fn targets_live_and_owners_that_may_come_back_keep_what_they_have() {
    let mut chance = Chance::new(3);
    for _ in 0..500 {
        let (seats, pieces) = any_view(&mut chance);
        let health: HealthOf = seats.iter().map(|seat| (seat.run, seat.health)).collect();
        let of = |run: Option<Incarnation>| run.map(|run| health_of(&health, run));
        let moves = plan(&seats, &pieces, ALL_AT_ONCE);
        for made in &moves {
            let piece = pieces[made.shard.get() as usize];
            assert_eq!(of(Some(made.target)), Some(Health::Living));
            assert_ne!(Some(made.target), piece.target.or(piece.owner), "that is no move");
            let is_pinned = of(piece.owner) == Some(Health::Silent);
            let was_going = of(piece.target) == Some(Health::Living) && piece.target != piece.owner;
            assert!(!is_pinned || was_going, "{made:?} of {piece:?}");
        }
        let can_serve = seats.iter().any(|seat| seat.health == Health::Living);
        for piece in pieces {
            let new = moves.iter().find(|made| made.shard == piece.shard).map(|made| made.target);
            let goes_to = new.or(piece.target).or(piece.owner);
            let is_dead = matches!(of(goes_to), None | Some(Health::Gone));
            let is_silent = of(piece.owner) == Some(Health::Silent);
            assert!(!can_serve || !is_dead || is_silent, "{piece:?} is left alone");
        }
    }
}

#[test]
fn plans_come_to_rest_and_what_is_at_rest_is_in_balance() {
    let mut chance = Chance::new(4);
    for _ in 0..300 {
        let (mut seats, mut pieces) = any_view(&mut chance);
        for seat in &mut seats {
            seat.health = Health::Living;
        }
        let limits = Limits { wave_max: chance.between(1, 5) as usize, ..ALL_AT_ONCE };
        let is_seated = |run| seats.iter().any(|seat| seat.run == run);
        let rounds = (0..200).take_while(|_| {
            // What is on its way arrives.
            for piece in &mut pieces {
                piece.owner = piece.target.take().filter(|target| is_seated(*target)).or(piece.owner);
            }
            let moves = plan(&seats, &pieces, limits);
            carry_out(&mut pieces, &moves);
            !moves.is_empty()
        });
        assert!(rounds.count() < 200, "it never ends");
        let total: u64 = pieces.iter().map(|piece| piece.cost.max(1)).sum();
        let capacity: u64 = seats.iter().map(|seat| u64::from(seat.capacity)).sum();
        let dearest = pieces.iter().map(|piece| piece.cost.max(1)).max().unwrap_or(0);
        for seat in &seats {
            let own = pieces.iter().filter(|piece| piece.target.or(piece.owner) == Some(seat.run));
            let load: u64 = own.map(|piece| piece.cost.max(1)).sum();
            let bound = total * u64::from(seat.capacity) * 105 / (100 * capacity) + 1 + dearest;
            assert!(load <= bound, "{load} over {bound}");
        }
    }
}

#[test]
fn small_differences_of_cost_move_nothing_and_large_ones_do() {
    let seats = seats(0..4);
    let mut pieces = settled(&seats, 256);
    let mut chance = Chance::new(5);
    for piece in &mut pieces {
        piece.cost = chance.between(1_000, 1_050);
    }
    assert_eq!(plan(&seats, &pieces, ALL_AT_ONCE), []);
    let busy = pieces[0].owner;
    for piece in pieces.iter_mut().filter(|piece| piece.owner == busy) {
        piece.cost *= 2;
    }
    let moves = plan(&seats, &pieces, ALL_AT_ONCE);
    assert!(moves.iter().all(|made| pieces[made.shard.get() as usize].owner == busy));
    assert!(moves.iter().all(|made| made.cause == Cause::Balance));
    assert!((10..30).contains(&moves.len()), "{}", moves.len());
}

#[test]
fn a_run_of_twice_the_capacity_gets_twice_the_shards() {
    let seats = [Seat { capacity: 2, ..seat(0) }, seat(1), seat(2)];
    let pieces = settled(&seats, 256);
    assert_eq!(seats.map(|seat| owned(&pieces, seat.run)), [128, 64, 64]);
}

#[test]
fn a_living_owner_gives_its_shards_in_waves_and_no_more_of_them_than_it_must() {
    let mut pieces = settled(&seats(0..3), 256);
    let (seats, fewest) = (seats(0..4), fewest(&seats(0..4), &pieces));
    let limits = Limits { wave_max: 5, tolerance_percent: 0 };
    let mut total = 0;
    loop {
        let moves = plan(&seats, &pieces, limits);
        for seat in &seats {
            let from = moves.iter().filter(|made| pieces[made.shard.get() as usize].owner == Some(seat.run));
            assert!(from.count() <= 5);
        }
        // While they are on the way there is no further wave.
        for made in &moves {
            pieces[made.shard.get() as usize].target = Some(made.target);
        }
        assert_eq!(moves.len().min(1), usize::from(total < fewest));
        assert!(plan(&seats, &pieces, limits).len() + moves.len() <= 15);
        carry_out(&mut pieces, &moves);
        total += moves.len();
        if moves.is_empty() {
            break;
        }
    }
    assert_eq!(total, fewest);
    is_fair(&seats, &pieces);
}

#[test]
fn the_shards_of_a_run_that_is_gone_move_at_once_and_those_of_one_that_drains_in_waves() {
    for (health, expected, cause) in
        [(Health::Gone, 64, Cause::OwnerGone), (Health::Draining, 5, Cause::OwnerDrains)]
    {
        let mut seats = seats(0..4);
        let pieces = settled(&seats, 256);
        seats[1].health = health;
        let moves = plan(&seats, &pieces, Limits { wave_max: 5, ..ALL_AT_ONCE });
        assert_eq!(moves.len(), expected);
        assert!(moves.iter().all(|made| made.cause == cause && made.target != seats[1].run));
    }
}

#[test]
fn nothing_moves_for_balance_while_somebody_may_come_back() {
    let mut seats = seats(0..4);
    let mut pieces = settled(&seats, 256);
    seats[1].health = Health::Silent;
    assert_eq!(plan(&seats, &pieces, ALL_AT_ONCE), []);
    // What nobody owns is housed all the same.
    pieces[7].owner = None;
    assert_eq!(plan(&seats, &pieces, ALL_AT_ONCE).len(), 1);
}

#[test]
fn a_target_that_cannot_or_does_not_come_is_replaced() {
    let cases = [
        (Health::Living, true, Some(Cause::TargetLate)),
        (Health::Draining, false, Some(Cause::TargetDrains)),
        (Health::Silent, false, Some(Cause::TargetSilent)),
        (Health::Gone, false, Some(Cause::TargetGone)),
        (Health::Living, false, None),
    ];
    for (health, is_late, cause) in cases {
        let mut seats = seats(0..3);
        let mut pieces = settled(&seats, 30);
        seats[1].health = health;
        let shard = pieces.iter().position(|piece| piece.owner == Some(run(0))).expect("it has some");
        for owner in [None, Some(run(0))] {
            pieces[shard] = Piece { owner, target: Some(run(1)), is_late, ..pieces[shard] };
            let moves = plan(&seats, &pieces, ALL_AT_ONCE);
            let made = moves.iter().find(|made| made.shard == pieces[shard].shard);
            assert_eq!(made.map(|made| made.cause), cause, "{health:?} {owner:?}");
            assert!(made.is_none_or(|made| made.target != run(1)));
            // A serving owner keeps it.
            assert!(owner.is_none() || made.is_none_or(|made| made.target == run(0)));
        }
    }
}

#[test]
fn a_late_target_is_better_than_none() {
    let pieces = [Piece { target: Some(run(0)), is_late: true, ..free(1)[0] }];
    assert_eq!(plan(&seats(0..1), &pieces, ALL_AT_ONCE), []);
    assert_eq!(plan(&[], &pieces, ALL_AT_ONCE), []);
}

/// The numbers are frozen: with a change here two versions of a node would plan against each other.
#[test]
fn the_rendezvous_order_never_changes() {
    let weights = [(1, 0), (1, 1), (2, 0)]
        .map(|(number, shard)| weight(Incarnation::from_uuid(Uuid::from_u128(number)), ShardId::new(shard)));
    assert_eq!(weights, [4_706_896_644_969_173_947, 16_242_338_582_047_566_770, 865_485_584_687_260_319]);
}

#[test]
fn causes_have_words_of_their_own() {
    use Cause::{
        Balance, OwnerDrains, OwnerGone, TargetDrains, TargetGone, TargetLate, TargetSilent, Unowned,
    };
    let all = [Unowned, OwnerGone, OwnerDrains, TargetGone, TargetSilent, TargetDrains, TargetLate, Balance];
    let words: std::collections::BTreeSet<_> = all.iter().map(Cause::to_string).collect();
    assert_eq!(words.len(), all.len());
}
