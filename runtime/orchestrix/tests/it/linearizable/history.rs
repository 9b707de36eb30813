//! The judge of a history: could what callers heard of one aggregate have happened one call at a time, each at some
//! moment between its invocation and its answer?
//!
//! Versions are unique, so the log itself says in which order the commands took effect, and every answer says where it
//! stands in that order. Then a history is linearizable exactly when no call that had its answer before another one was
//! invoked stands after it. One pass over the calls in the order of time finds that out: O(n log n).
//!
//! Time is a counter that every invocation and every answer increments, not a clock: its order is the order of events.

use std::collections::HashMap;

use orchestrix::core::CommandId;

/// One call as its caller saw it.
#[derive(Clone, Debug)]
pub struct Call {
    pub invoked: u64,
    pub returned: u64,
    pub heard: Heard,
}

/// What a caller heard.
#[derive(Clone, Copy, Debug)]
pub enum Heard {
    /// The command is stored at this version.
    Done { id: CommandId, version: u64, duplicate: bool },
    /// The command certainly had no effect by this call.
    NotDone { id: CommandId },
    /// Nobody knows, or nobody was there to hear.
    InDoubt { id: CommandId },
    /// A read, a refusal or a reply without events that was decided at this version.
    Saw { version: u64 },
}

/// How often the calls of a history met: a history without overlaps proves little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub commands: usize,
    pub looks: usize,
    pub repeats: usize,
    /// Commands that nobody got an answer for and that are stored all the same.
    pub unheard: usize,
    /// Calls that were invoked while another one was under way.
    pub overlaps: usize,
}

impl std::ops::AddAssign for Facts {
    fn add_assign(&mut self, more: Self) {
        self.commands += more.commands;
        self.looks += more.looks;
        self.repeats += more.repeats;
        self.unheard += more.unheard;
        self.overlaps += more.overlaps;
    }
}

/// Why a history cannot have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    StoredTwice(CommandId),
    NobodySent(CommandId),
    /// Answered with a version at which the log has something else.
    OtherPlace(CommandId),
    /// Refused or not attempted, and stored all the same.
    StoredAllTheSame(CommandId),
    /// Two callers heard that theirs was the one that took effect.
    TwoFirsts(CommandId),
    /// Every caller heard that another call took effect.
    NoFirst(CommandId),
    /// A look at a version that the log does not have.
    Vanished(u64),
    /// The first had its answer before the second was invoked, and stands after it.
    BackInTime(Point, Point),
}

/// Where a call stands: the effect of a version, or a look at it, which comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Effect(u64),
    Look(u64),
}

impl Place {
    fn key(self) -> (u64, bool) {
        match self {
            Self::Effect(version) => (version, false),
            Self::Look(version) => (version, true),
        }
    }
}

/// A call with its place and the time in which it must have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    pub invoked: u64,
    pub returned: u64,
    pub place: Place,
}

/// Judges the calls to one aggregate against its log: the command of version 1 first, one event each.
pub fn judge(calls: &[Call], log: &[CommandId]) -> Result<Facts, Violation> {
    let mut facts = Facts::default();
    let mut points = looks(calls, log.len() as u64)?;
    facts.looks = points.len();
    points.extend(effects(calls, log, &mut facts)?);
    facts.overlaps = overlaps(&points);
    in_order(&points).map(|()| facts)
}

fn looks(calls: &[Call], head: u64) -> Result<Vec<Point>, Violation> {
    let mut points = Vec::new();
    for call in calls {
        if let Heard::Saw { version } = call.heard {
            if version > head {
                return Err(Violation::Vanished(version));
            }
            let (invoked, returned) = (call.invoked, call.returned);
            points.push(Point { invoked, returned, place: Place::Look(version) });
        }
    }
    Ok(points)
}

/// Everything that was heard about one command.
#[derive(Default)]
struct Attempts {
    first: Option<u64>,
    answered: Option<u64>,
    doubtful: Option<u64>,
    is_done: bool,
}

/// Where each stored command must have taken effect: after the attempt that did it was invoked, and before anybody
/// heard of it.
fn effects(calls: &[Call], log: &[CommandId], facts: &mut Facts) -> Result<Vec<Point>, Violation> {
    let places = places(log)?;
    let mut sent: HashMap<CommandId, Attempts> = HashMap::new();
    for call in calls {
        attempt(call, &places, &mut sent, facts)?;
    }
    let mut points = Vec::with_capacity(log.len());
    for (id, version) in &places {
        let of = sent.get(id).ok_or(Violation::NobodySent(*id))?;
        let invoked = of.first.or(of.doubtful);
        let invoked = invoked.ok_or(if of.is_done {
            Violation::NoFirst(*id)
        } else {
            Violation::StoredAllTheSame(*id)
        })?;
        facts.commands += 1;
        facts.unheard += usize::from(!of.is_done);
        let returned = of.answered.unwrap_or(u64::MAX);
        points.push(Point { invoked, returned, place: Place::Effect(*version) });
    }
    Ok(points)
}

fn places(log: &[CommandId]) -> Result<HashMap<CommandId, u64>, Violation> {
    let mut places = HashMap::new();
    for (version, id) in (1..).zip(log) {
        if places.insert(*id, version).is_some() {
            return Err(Violation::StoredTwice(*id));
        }
    }
    Ok(places)
}

fn attempt(
    call: &Call,
    places: &HashMap<CommandId, u64>,
    sent: &mut HashMap<CommandId, Attempts>,
    facts: &mut Facts,
) -> Result<(), Violation> {
    match call.heard {
        Heard::Saw { .. } => {}
        Heard::NotDone { id } => drop(sent.entry(id).or_default()),
        Heard::InDoubt { id } => {
            let of = sent.entry(id).or_default();
            of.doubtful = Some(of.doubtful.map_or(call.invoked, |at| at.min(call.invoked)));
        }
        Heard::Done { id, version, duplicate } => {
            let of = sent.entry(id).or_default();
            if places.get(&id) != Some(&version) {
                return Err(Violation::OtherPlace(id));
            }
            of.is_done = true;
            of.answered = Some(of.answered.map_or(call.returned, |at| at.min(call.returned)));
            facts.repeats += usize::from(duplicate);
            if !duplicate && of.first.replace(call.invoked).is_some() {
                return Err(Violation::TwoFirsts(id));
            }
        }
    }
    Ok(())
}

/// Goes through the calls by invocation, with the latest place that had been answered for by then.
fn in_order(points: &[Point]) -> Result<(), Violation> {
    let (mut by_invocation, mut by_answer) = (points.to_vec(), points.to_vec());
    by_invocation.sort_unstable_by_key(|point| point.invoked);
    by_answer.sort_unstable_by_key(|point| point.returned);
    let mut answered = by_answer.into_iter().peekable();
    let mut latest: Option<Point> = None;
    for point in by_invocation {
        while let Some(earlier) = answered.next_if(|earlier| earlier.returned < point.invoked) {
            if latest.is_none_or(|latest| latest.place.key() < earlier.place.key()) {
                latest = Some(earlier);
            }
        }
        if let Some(latest) = latest.filter(|latest| latest.place.key() > point.place.key()) {
            return Err(Violation::BackInTime(latest, point));
        }
    }
    Ok(())
}

/// Counts the calls that were invoked while another one was under way that got an answer.
fn overlaps(points: &[Point]) -> usize {
    let mut moments = Vec::with_capacity(2 * points.len());
    for point in points.iter().filter(|point| point.returned < u64::MAX) {
        moments.push((point.invoked, true));
        moments.push((point.returned, false));
    }
    moments.sort_unstable();
    let (mut open, mut overlaps) = (0_usize, 0);
    for (_, is_invocation) in moments {
        if is_invocation {
            overlaps += usize::from(open > 0);
            open += 1;
        } else {
            open -= 1;
        }
    }
    overlaps
}

/// Histories that are right, histories that are broken on purpose, and the judge against trying every order.
#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn id(number: u128) -> CommandId {
        CommandId::from_uuid(Uuid::from_u128(number))
    }

    fn call(invoked: u64, returned: u64, heard: Heard) -> Call {
        Call { invoked, returned, heard }
    }

    fn done(number: u128, version: u64) -> Heard {
        Heard::Done { id: id(number), version, duplicate: false }
    }

    fn repeat(number: u128, version: u64) -> Heard {
        Heard::Done { id: id(number), version, duplicate: true }
    }

    fn saw(version: u64) -> Heard {
        Heard::Saw { version }
    }

    fn in_doubt(number: u128) -> Heard {
        Heard::InDoubt { id: id(number) }
    }

    fn verdict(log: &[u128], calls: &[(u64, u64, Heard)]) -> Result<Facts, Violation> {
        let calls: Vec<_> =
            calls.iter().map(|(invoked, returned, heard)| call(*invoked, *returned, *heard)).collect();
        judge(&calls, &log.iter().copied().map(id).collect::<Vec<_>>())
    }

    #[track_caller]
    fn goes_back(log: &[u128], calls: &[(u64, u64, Heard)], earlier: Place, later: Place) {
        match verdict(log, calls) {
            Err(Violation::BackInTime(first, second)) => {
                assert_eq!((first.place, second.place), (earlier, later));
            }
            other => panic!("{other:?}"),
        }
    }

    use Place::{Effect, Look};

    #[test]
    fn calls_that_overlap_may_stand_in_any_order() {
        let calls = [
            (1, 20, done(1, 2)),
            (2, 19, done(2, 1)),
            (3, 18, saw(2)),
            (4, 17, saw(0)),
            (5, 16, saw(1)),
            (21, 22, saw(2)),
            (23, 24, repeat(2, 1)),
        ];
        let facts = Facts { commands: 2, looks: 4, repeats: 1, unheard: 0, overlaps: 4 };
        assert_eq!(verdict(&[2, 1], &calls), Ok(facts));
    }

    #[test]
    fn a_command_in_doubt_may_take_effect_late_or_never() {
        let facts = Facts { commands: 1, looks: 2, repeats: 0, unheard: 1, overlaps: 0 };
        let calls = [(1, 2, in_doubt(1)), (3, 4, saw(0)), (5, 6, saw(1)), (7, 8, in_doubt(2))];
        assert_eq!(verdict(&[1], &calls), Ok(facts));
        let first_by_retry = [(1, 2, in_doubt(1)), (3, 4, saw(0)), (5, 6, done(1, 1)), (7, 8, repeat(1, 1))];
        assert!(verdict(&[1], &first_by_retry).is_ok());
    }

    #[test]
    fn a_look_that_misses_an_answered_command_is_found() {
        goes_back(&[1], &[(1, 2, done(1, 1)), (3, 4, saw(0))], Effect(1), Look(0));
        // Also when the command's own caller heard nothing, but a repeat was answered.
        let calls = [(1, 2, in_doubt(1)), (3, 4, repeat(1, 1)), (5, 6, saw(0))];
        goes_back(&[1], &calls, Effect(1), Look(0));
    }

    #[test]
    fn a_look_at_a_command_that_was_not_sent_yet_is_found() {
        goes_back(&[1], &[(1, 2, saw(1)), (3, 4, done(1, 1))], Look(1), Effect(1));
        goes_back(&[1], &[(1, 2, saw(1)), (3, 4, in_doubt(1))], Look(1), Effect(1));
        // The first attempt had no effect, so what was seen cannot be its.
        let not_done = Heard::NotDone { id: id(1) };
        let calls = [(1, 2, not_done), (3, 4, saw(1)), (5, 6, done(1, 1))];
        goes_back(&[1], &calls, Look(1), Effect(1));
    }

    #[test]
    fn looks_that_go_back_are_found() {
        let calls = [(1, 20, done(1, 1)), (2, 3, saw(1)), (4, 5, saw(0))];
        goes_back(&[1], &calls, Look(1), Look(0));
    }

    #[test]
    fn commands_stored_against_the_order_of_time_are_found() {
        goes_back(&[2, 1], &[(1, 2, done(1, 2)), (3, 4, done(2, 1))], Effect(2), Effect(1));
    }

    #[test]
    fn an_event_that_vanished_after_it_was_seen_is_found() {
        let calls = [(1, 2, done(1, 1)), (3, 4, in_doubt(2)), (5, 6, saw(2))];
        assert_eq!(verdict(&[1], &calls), Err(Violation::Vanished(2)));
        assert_eq!(verdict(&[], &[(1, 2, done(1, 1))]), Err(Violation::OtherPlace(id(1))));
    }

    #[test]
    fn a_repeat_that_tells_another_version_is_found() {
        let calls = [(1, 2, done(1, 1)), (3, 4, done(2, 2)), (5, 6, repeat(1, 2))];
        assert_eq!(verdict(&[1, 2], &calls), Err(Violation::OtherPlace(id(1))));
    }

    #[test]
    fn a_command_with_two_effects_or_two_firsts_is_found() {
        let calls = [(1, 2, done(1, 1)), (3, 4, done(1, 1))];
        assert_eq!(verdict(&[1], &calls), Err(Violation::TwoFirsts(id(1))));
        assert_eq!(verdict(&[1, 1], &calls), Err(Violation::StoredTwice(id(1))));
        assert_eq!(verdict(&[1], &[(1, 2, repeat(1, 1))]), Err(Violation::NoFirst(id(1))));
    }

    #[test]
    fn what_was_refused_or_never_sent_and_is_stored_all_the_same_is_found() {
        let not_done = Heard::NotDone { id: id(1) };
        assert_eq!(verdict(&[1], &[(1, 2, not_done)]), Err(Violation::StoredAllTheSame(id(1))));
        assert_eq!(verdict(&[1], &[]), Err(Violation::NobodySent(id(1))));
    }

    /// Tries every order: the definition itself, for histories small enough.
    fn some_order_exists(version: u64, left: &[Point]) -> bool {
        left.is_empty()
            || (0..left.len()).any(|next| {
                let point = left[next];
                let is_first = left.iter().all(|other| other.returned >= point.invoked);
                let after = match point.place {
                    Effect(effect) => (effect == version + 1).then_some(effect),
                    Look(look) => (look == version).then_some(look),
                };
                let others = [&left[..next], &left[next + 1..]].concat();
                is_first && after.is_some_and(|after| some_order_exists(after, &others))
            })
    }

    /// Up to three commands and four looks, at moments that are all different.
    fn any_points() -> impl Strategy<Value = Vec<Point>> {
        let sizes = (0..4_u64, proptest::collection::vec(0..4_u64, 0..5));
        sizes.prop_flat_map(|(commands, looks)| {
            let places: Vec<_> = (1..=commands)
                .map(Effect)
                .chain(looks.into_iter().map(move |at| Look(at.min(commands))))
                .collect();
            let moments: Vec<u64> = (0..2 * places.len() as u64).collect();
            Just(moments).prop_shuffle().prop_map(move |moments| {
                let pairs = moments.chunks(2).map(|pair| (pair[0].min(pair[1]), pair[0].max(pair[1])));
                let points = places.iter().zip(pairs);
                points
                    .map(|(place, (invoked, returned))| Point { invoked, returned, place: *place })
                    .collect()
            })
        })
    }

    proptest! {
        #[test]
        fn the_judge_agrees_with_trying_every_order(points in any_points()) {
            prop_assert_eq!(in_order(&points).is_ok(), some_order_exists(0, &points));
        }
    }
}
