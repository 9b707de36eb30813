//! The events that the index of streams does not have yet, in memory and in two generations.
//!
//! An event enters the *active* generation when it is stored. A full generation is *frozen*: from then on each append
//! also writes a slice of it into the index, in the order of the index's keys, so that one leaf takes many entries.
//! When all of it is written, the shards' `indexed` moves on in the same transaction, and the generation is forgotten.
//! Nothing is lost by a crash: the next start reads the events after `indexed` again, at most two generations.
//!
//! Readers combine the two in this order: the index first, then the tail, and again from the start if a generation
//! was forgotten in between ([`forgotten`](Tail::forgotten)). What was answered before a read began is then in the one
//! or in the other. A generation stays in the tail as a whole until all of it is in the index, so that no read sees a
//! part of a commit.

use std::collections::BTreeMap;
use std::mem;
use std::ops::RangeInclusive;

use orchestrix_core::{Seq, ShardId};

use super::place::shard_and_seq;
use super::rows::Malformed;

/// The events of a generation, unless told otherwise. Two of them take about a megabyte of memory, and some thirty
/// milliseconds of a start after a crash. Four times as many appended no faster with 10,000 streams.
pub(super) const GENERATION_EVENTS: usize = 16_384;

/// An event as the index of streams has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Late {
    pub(super) stream: i64,
    pub(super) version: i64,
    pub(super) position: i64,
}

/// What the next append writes into the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) rows: Vec<Late>,
    /// Up to where the shards are indexed with it, when it is the last one of its generation.
    pub(super) completes: Option<Vec<Seq>>,
}

/// What is stored and not yet in the index, and where the shards end.
#[derive(Debug)]
pub(super) struct Tail {
    active: BTreeMap<(i64, i64), i64>,
    /// In the order of the index.
    frozen: Vec<Late>,
    /// How many of the frozen ones are in the index.
    written: usize,
    /// Where the shards ended when the frozen ones were frozen.
    frozen_heads: Vec<Seq>,
    heads: Vec<Seq>,
    indexed: Vec<Seq>,
    generation_events: usize,
    forgotten: u64,
}

impl Tail {
    /// Makes the tail of an empty log. A generation has at least one event.
    pub(super) fn new(shards: usize, generation_events: usize) -> Self {
        Self {
            active: BTreeMap::new(),
            frozen: Vec::new(),
            written: 0,
            frozen_heads: Vec::new(),
            heads: vec![Seq::ZERO; shards],
            indexed: vec![Seq::ZERO; shards],
            generation_events: generation_events.max(1),
            forgotten: 0,
        }
    }

    /// Returns how often events have left the tail.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Returns where each shard ends.
    pub(super) fn heads(&self) -> &[Seq] {
        &self.heads
    }

    /// Tells whether this is the tail of a log whose shards end and are indexed there.
    pub(super) fn is_of(&self, heads: &[Seq], indexed: &[Seq]) -> bool {
        self.heads == heads && self.indexed == indexed
    }

    /// Starts anew with what was found in the log after `indexed`: one frozen generation.
    ///
    /// Some of it may be in the index already, from before a crash; it is written again all the same, which changes
    /// nothing. Fails when a version is there twice.
    pub(super) fn rebuild(
        &mut self,
        mut found: Vec<Late>,
        heads: Vec<Seq>,
        indexed: Vec<Seq>,
    ) -> Result<(), Malformed> {
        found.sort_unstable();
        if let Some(pair) = found.windows(2).find(|pair| pair[0].is_double_of(&pair[1])) {
            return Err(pair[0].stored_twice(pair[1].position));
        }
        self.active.clear();
        self.frozen = found;
        self.written = 0;
        self.frozen_heads.clone_from(&heads);
        self.heads = heads;
        self.indexed = indexed;
        self.forgotten += 1;
        Ok(())
    }

    /// Returns what an append of so many events writes into the index, at most `rows_usual` for a usual generation.
    ///
    /// One that grew too large is written in so much larger slices, and all of what is left when the active one is
    /// full: so there are never more than two.
    pub(super) fn slice(&self, events: usize, rows_usual: usize) -> Slice {
        let left = self.frozen.len() - self.written;
        let is_last_chance = self.active.len() + events >= self.generation_events;
        let larger = self.frozen.len().div_ceil(self.generation_events);
        let rows = if is_last_chance { left } else { left.min(rows_usual * larger) };
        let rows = self.frozen[self.written..self.written + rows].to_vec();
        let is_complete = !rows.is_empty() && rows.len() == left;
        Slice { completes: is_complete.then(|| self.frozen_heads.clone()), rows }
    }

    /// Takes in what an append has stored: its events, where the shards end now, and the slice that went with it.
    pub(super) fn take_in(&mut self, stored: impl Iterator<Item = Late>, heads: &[Seq], slice: Slice) {
        self.active.extend(stored.map(|late| ((late.stream, late.version), late.position)));
        self.heads.copy_from_slice(heads);
        self.advance(slice);
        if self.active.len() >= self.generation_events && self.frozen.is_empty() {
            self.freeze();
        }
    }

    /// Takes in a slice that was written.
    pub(super) fn advance(&mut self, slice: Slice) {
        self.written += slice.rows.len();
        if let Some(indexed) = slice.completes {
            self.frozen = Vec::new();
            self.written = 0;
            self.indexed = indexed;
            self.forgotten += 1;
        }
    }

    /// Freezes the active generation, full or not, if the frozen one is through.
    pub(super) fn freeze(&mut self) {
        if self.frozen.is_empty() {
            let active = mem::take(&mut self.active).into_iter();
            self.frozen =
                active.map(|((stream, version), position)| Late { stream, version, position }).collect();
            self.frozen_heads.clone_from(&self.heads);
        }
    }

    /// Takes in what another process has stored and indexed since: the tail of a store that only reads.
    pub(super) fn follow(&mut self, found: Vec<Late>, indexed: &[Seq]) {
        for late in found {
            let (shard, seq) = shard_and_seq(late.position);
            let head = &mut self.heads[shard.get() as usize];
            *head = seq.max(*head);
            self.active.insert((late.stream, late.version), late.position);
        }
        let moved = indexed.iter().zip(&self.indexed).any(|(new, old)| new > old);
        if moved {
            for ((head, old), new) in self.heads.iter_mut().zip(&mut self.indexed).zip(indexed) {
                *old = (*old).max(*new);
                *head = (*head).max(*new);
            }
            let indexed = &self.indexed;
            self.active.retain(|_, position| {
                let (shard, seq) = shard_and_seq(*position);
                seq > indexed[shard.get() as usize]
            });
            self.forgotten += 1;
        }
    }

    /// Returns the end of a shard.
    pub(super) fn head(&self, shard: ShardId) -> Seq {
        self.heads.get(shard.get() as usize).copied().unwrap_or_default()
    }

    /// Returns the events of a stream with these versions, in order.
    pub(super) fn of_stream(&self, stream: i64, versions: RangeInclusive<i64>) -> Vec<Late> {
        let (first, last) = (*versions.start(), *versions.end());
        if first > last {
            return Vec::new();
        }
        let from = self.frozen.partition_point(|late| (late.stream, late.version) < (stream, first));
        let frozen = self.frozen[from..].iter().copied();
        let frozen = frozen.take_while(|late| late.stream == stream && late.version <= last);
        let active = self.active.range((stream, first)..=(stream, last));
        let active = active.map(|((stream, version), position)| Late {
            stream: *stream,
            version: *version,
            position: *position,
        });
        frozen.chain(active).collect()
    }

    /// Returns the last version of a stream, if any of its events is here.
    pub(super) fn last_version(&self, stream: i64) -> Option<i64> {
        let active = self.active.range((stream, i64::MIN)..=(stream, i64::MAX)).next_back();
        let version = active.map(|((_, version), _)| *version);
        version.or_else(|| {
            let behind = self.frozen.partition_point(|late| late.stream <= stream);
            let last = self.frozen[..behind].last()?;
            (last.stream == stream).then_some(last.version)
        })
    }
}

impl Late {
    fn is_double_of(&self, other: &Self) -> bool {
        (self.stream, self.version) == (other.stream, other.version) && self.position != other.position
    }

    /// Says that the version lies at another place as well.
    pub(super) fn stored_twice(&self, also_at: i64) -> Malformed {
        let ((shard, seq), (_, also)) = (shard_and_seq(self.position), shard_and_seq(also_at));
        let Self { stream, version, .. } = self;
        Malformed(format!(
            "version {version} of stream number {stream} is stored twice: as seq {seq} and as seq {also} of shard {shard}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: usize = 2;

    fn late(stream: i64, version: i64, position: i64) -> Late {
        Late { stream, version, position }
    }

    /// Appends one event of a stream to a log of one shard and returns the slice that went with it.
    fn append(tail: &mut Tail, stream: i64) -> Slice {
        let position = tail.heads[0].get() as i64 + 1;
        let slice = tail.slice(1, USUAL);
        let version = tail.last_version(stream).unwrap_or(0) + 1;
        tail.take_in(
            std::iter::once(late(stream, version, position)),
            &[Seq::new(position as u64)],
            slice.clone(),
        );
        slice
    }

    #[test]
    fn a_full_generation_is_written_in_the_order_of_the_index_and_forgotten() {
        let mut tail = Tail::new(1, 4);
        let empty = (0..4).map(|at| append(&mut tail, 9 - at)).all(|slice| slice == Slice::default());
        assert!(empty, "nothing is frozen yet");
        let first = append(&mut tail, 5);
        assert_eq!(first.rows, [late(6, 1, 4), late(7, 1, 3)]);
        assert_eq!(first.completes, None);
        assert_eq!(tail.forgotten(), 0);
        let second = append(&mut tail, 5);
        assert_eq!(second.rows, [late(8, 1, 2), late(9, 1, 1)]);
        assert_eq!(second.completes, Some(vec![Seq::new(4)]));
        assert_eq!((tail.forgotten(), tail.last_version(9), tail.last_version(5)), (1, None, Some(2)));
        assert!(tail.is_of(&[Seq::new(6)], &[Seq::new(4)]));
    }

    #[test]
    fn there_are_never_more_than_two_generations() {
        let mut tail = Tail::new(1, 4);
        let found = (1..=9).map(|at| late(at, 1, at)).collect();
        tail.rebuild(found, vec![Seq::new(9)], vec![Seq::ZERO]).expect("each version is there once");
        for number in 0..40 {
            append(&mut tail, 100 + number % 3);
            let held = tail.active.len() + tail.frozen.len();
            assert!(tail.active.len() <= 4 && held <= 4 + 9, "{held} after {number}");
        }
        assert!(tail.forgotten() > 8, "generations were completed");
    }

    #[test]
    fn events_of_a_stream_come_from_both_generations_in_order() {
        let mut tail = Tail::new(1, 4);
        let stored = [late(1, 1, 1), late(2, 1, 2), late(1, 2, 3)];
        tail.take_in(stored.into_iter(), &[Seq::new(3)], Slice::default());
        tail.freeze();
        tail.take_in([late(1, 3, 4)].into_iter(), &[Seq::new(4)], Slice::default());
        assert_eq!(tail.of_stream(1, 1..=i64::MAX), [late(1, 1, 1), late(1, 2, 3), late(1, 3, 4)]);
        assert_eq!(tail.of_stream(1, 2..=2), [late(1, 2, 3)]);
        assert_eq!(tail.of_stream(1, RangeInclusive::new(3, 2)), []);
        assert_eq!([1, 2, 3].map(|stream| tail.last_version(stream)), [Some(3), Some(1), None]);
    }

    #[test]
    fn a_version_that_is_stored_twice_is_named() {
        let mut tail = Tail::new(1, 4);
        let found = vec![late(7, 1, 1), late(7, 2, 2), late(7, 1, 3)];
        let error = tail.rebuild(found, vec![Seq::new(3)], vec![Seq::ZERO]).expect_err("version 1 twice");
        assert_eq!(
            error.to_string(),
            "version 1 of stream number 7 is stored twice: as seq 1 and as seq 3 of shard 0"
        );
    }

    #[test]
    fn a_follower_forgets_what_was_indexed() {
        let mut tail = Tail::new(1, 4);
        tail.follow(vec![late(1, 1, 1), late(2, 1, 2)], &[Seq::ZERO]);
        assert_eq!((tail.forgotten(), tail.last_version(1)), (0, Some(1)));
        tail.follow(vec![late(1, 2, 3)], &[Seq::new(2)]);
        assert_eq!((tail.forgotten(), tail.last_version(2), tail.last_version(1)), (1, None, Some(2)));
        tail.follow(Vec::new(), &[Seq::new(9)]);
        assert_eq!((tail.head(ShardId::new(0)), tail.last_version(1)), (Seq::new(9), None));
    }
}
