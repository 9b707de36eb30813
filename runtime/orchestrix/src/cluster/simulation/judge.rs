//! What must hold after every step and at the end.
//!
//! A shard of the model has one stream, and a command appends its id. Versions are unique, so a history is linearizable
//! exactly when no call that had its answer before another one was invoked stands after it: one pass over the calls in
//! the order of time, O(n log n).

use std::collections::BTreeMap;

use orchestrix_core::{Epoch, Incarnation, ShardId};

/// Why a run of the simulator cannot have happened in a cluster that keeps its promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// G6: an append took effect after a later epoch had begun.
    LateEpoch { shard: ShardId, epoch: Epoch, now: Epoch },
    /// G6: an append of a run that did not own the shard took effect.
    NotTheOwner { shard: ShardId, epoch: Epoch },
    /// G2: a hole or a double in the versions.
    NotDense { shard: ShardId },
    /// G4: a command had two effects.
    StoredTwice { shard: ShardId, id: u64 },
    /// G3: somebody spoke for a shard that another run owned.
    SpokeForAnother { shard: ShardId, run: Incarnation },
    /// G3: two runs might have spoken for a shard.
    TwoSpeakers { shard: ShardId },
    /// G1, G4: a reply told another version than the log has.
    OtherPlace { shard: ShardId, id: u64 },
    /// G3: a version that the log does not have was seen.
    Vanished { shard: ShardId, version: usize },
    /// G3: a call stands before one that had been answered when it was invoked.
    BackInTime { shard: ShardId },
    /// G8: a shard does not answer although nothing is wrong any more.
    Silent { shard: ShardId },
    /// G5: a caller was never told, although nothing is wrong any more.
    NeverTold { client: usize },
    /// Targets do not come to rest, or not in balance.
    Unsettled,
}

/// A call that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) shard: ShardId,
    pub(super) invoked: u64,
    pub(super) returned: u64,
    pub(super) heard: Heard,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Heard {
    Done { id: u64, version: usize },
    Saw { version: usize },
}

/// Judges all calls against the logs.
pub(super) fn judge(calls: &[Call], logs: &[&[u64]]) -> Result<(), Violation> {
    let mut by_shard: BTreeMap<ShardId, Vec<Point>> = BTreeMap::new();
    for call in calls {
        let point = point(call, logs[call.shard.get() as usize])?;
        by_shard.entry(call.shard).or_default().push(point);
    }
    by_shard.into_iter().try_for_each(|(shard, points)| {
        if in_order(points) { Ok(()) } else { Err(Violation::BackInTime { shard }) }
    })
}

/// Where a call stands: a look at a version comes after its effect.
struct Point {
    invoked: u64,
    returned: u64,
    place: (usize, bool),
}

fn point(call: &Call, log: &[u64]) -> Result<Point, Violation> {
    let shard = call.shard;
    let place = match call.heard {
        Heard::Done { id, version } if version == 0 || log.get(version - 1) != Some(&id) => {
            return Err(Violation::OtherPlace { shard, id });
        }
        Heard::Saw { version } if version > log.len() => return Err(Violation::Vanished { shard, version }),
        Heard::Done { version, .. } => (version, false),
        Heard::Saw { version } => (version, true),
    };
    Ok(Point { invoked: call.invoked, returned: call.returned, place })
}

/// Goes through the calls by invocation, with the latest place that had been answered for by then.
fn in_order(points: Vec<Point>) -> bool {
    let mut answers: Vec<_> = points.iter().map(|point| (point.returned, point.place)).collect();
    answers.sort_unstable();
    let mut invocations = points;
    invocations.sort_unstable_by_key(|point| point.invoked);
    let mut answers = answers.into_iter().peekable();
    let mut latest = (0, false);
    invocations.into_iter().all(|point| {
        while let Some((_, place)) = answers.next_if(|(returned, _)| *returned < point.invoked) {
            latest = latest.max(place);
        }
        latest <= point.place
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(invoked: u64, returned: u64, heard: Heard) -> Call {
        Call { shard: ShardId::new(0), invoked, returned, heard }
    }

    #[test]
    fn the_judge_finds_what_cannot_have_happened() {
        let shard = ShardId::new(0);
        let done = |id, version| Heard::Done { id, version };
        let saw = |version| Heard::Saw { version };
        let right = [call(1, 9, done(7, 1)), call(2, 3, saw(0)), call(4, 5, saw(1)), call(10, 11, saw(2))];
        assert_eq!(judge(&right, &[&[7, 8]]), Ok(()));
        for (wrong, expected) in [
            ([call(1, 2, saw(1)), call(3, 4, saw(0))], Violation::BackInTime { shard }),
            ([call(1, 2, done(7, 1)), call(3, 4, saw(0))], Violation::BackInTime { shard }),
            ([call(1, 2, saw(1)), call(3, 4, done(7, 1))], Violation::BackInTime { shard }),
            ([call(1, 2, done(8, 2)), call(3, 4, done(7, 1))], Violation::BackInTime { shard }),
            ([call(1, 2, done(8, 1)), call(3, 4, saw(1))], Violation::OtherPlace { shard, id: 8 }),
            ([call(1, 2, saw(3)), call(3, 4, saw(1))], Violation::Vanished { shard, version: 3 }),
        ] {
            assert_eq!(judge(&wrong, &[&[7, 8]]), Err(expected));
        }
    }
}
