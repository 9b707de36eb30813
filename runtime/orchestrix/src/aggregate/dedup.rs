//! The memory of commands: one effect per command id. A decision file: the time comes in as an argument.
//!
//! The window is rebuilt from the stream (each command's last event keeps its fingerprint and reply) and travels in
//! the snapshot, so it survives passivation, restart and failover. It is bounded by count and by age. What falls out
//! leaves a horizon: an id made before it can be neither repeated nor run again with certainty.

use std::time::Duration;

use orchestrix_core::{CommandId, Timestamp};
use serde::{Deserialize, Serialize};

use super::remembered::{Entries, Remembered};

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Commands.
    pub(crate) commands_max: usize,
    /// For how long.
    pub(crate) age_max: Duration,
}

/// What the memory says about a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict<'a> {
    /// It was not done before.
    New,
    /// It was done: this is what came of it.
    Repeat(&'a Remembered),
    /// Its id belongs to another command or body.
    Reused,
    /// Its id is older than the memory.
    Expired,
}

/// How far the clock that makes ids may be ahead of the node's. An id from further in the future is taken for one that
/// does not tell its age: as a horizon it would make everybody else's ids expire.
const CLOCK_AHEAD_MAX: Duration = Duration::from_mins(1);

/// What one aggregate remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    entries: Entries,
    /// How many were forgotten.
    forgotten: u64,
    /// When the youngest id that was forgotten was made, among those that tell their age.
    horizon: Option<Timestamp>,
    /// When the youngest id that ever was remembered was made, among those that tell their age. An id that was made
    /// after it cannot be one of them, which spares most commands the search.
    newest: Option<Timestamp>,
}

impl Memory {
    /// Decides about a command whose id may have been used before.
    pub(crate) fn check(
        &self,
        id: CommandId,
        fingerprint: u64,
        now: Timestamp,
        window: Window,
    ) -> Verdict<'_> {
        let is_younger = id.made_at() > self.newest;
        let known = if is_younger { None } else { self.entries.find(id) };
        match known {
            Some(entry) if entry.fingerprint == fingerprint => Verdict::Repeat(entry),
            Some(_) => Verdict::Reused,
            None if self.is_beyond(id, now, window) => Verdict::Expired,
            None => Verdict::New,
        }
    }

    /// Remembers a command and forgets what is out of the window.
    pub(crate) fn remember(&mut self, command: Remembered, window: Window) {
        let oldest = command.at.minus(window.age_max);
        while self.entries.front().is_some_and(|entry| entry.at < oldest) {
            self.forget();
        }
        while self.entries.len() >= window.commands_max {
            self.forget();
        }
        self.newest = self.newest.max(command.id.made_at());
        self.entries.push_back(command);
    }

    /// Returns a measure of the memory that it takes, in bytes.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.entries.weight_bytes()
    }

    fn is_beyond(&self, id: CommandId, now: Timestamp, window: Window) -> bool {
        id.made_at().is_some_and(|made| {
            made < now.minus(window.age_max) || self.horizon.is_some_and(|horizon| made <= horizon)
        })
    }

    /// Forgets the oldest command. The horizon is raised also for what was forgotten by age: a clock that steps back
    /// would make it young again.
    fn forget(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.forgotten += 1;
        self.horizon = self.horizon.max(entry.made_at());
    }
}

impl Remembered {
    /// Returns when the id was made, if it tells that and the clock that made it can be believed.
    fn made_at(&self) -> Option<Timestamp> {
        self.id.made_at().filter(|made| *made <= self.at.plus(CLOCK_AHEAD_MAX))
    }
}

#[cfg(test)]
mod tests {
    use orchestrix_core::Version;
    use uuid::Uuid;

    use super::*;
    use crate::aggregate::remembered::Reply;

    const WINDOW: Window = Window { commands_max: 100, age_max: Duration::from_secs(1_000) };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000)
    }

    /// A version 7 id made at a second.
    fn id(second: u64, number: u64) -> CommandId {
        let millis = u128::from(second * 1_000);
        CommandId::from_uuid(Uuid::from_u128((millis << 80) | (7 << 76) | (2 << 62) | u128::from(number)))
    }

    fn memory(commands: u64) -> Memory {
        let mut memory = Memory::default();
        for number in 1..=commands {
            remember(&mut memory, number);
        }
        memory
    }

    fn remember(memory: &mut Memory, number: u64) {
        let reply = number.to_string().into_bytes().into();
        let (id, version, at) = (id(number, number), Version::new(number), at(number as i64));
        memory.remember(Remembered { id, fingerprint: number, version, at, reply }, WINDOW);
    }

    fn check(memory: &Memory, number: u64, fingerprint: u64, now: i64) -> &'static str {
        match memory.check(id(number, number), fingerprint, at(now), WINDOW) {
            Verdict::New => "new",
            Verdict::Repeat(entry) if entry.version == Version::new(number) => "repeat",
            Verdict::Repeat(_) => "wrong repeat",
            Verdict::Reused => "reused",
            Verdict::Expired => "expired",
        }
    }

    #[test]
    fn a_repeated_command_is_found_among_few_and_many() {
        for commands in [1, 64, 65, 100, 150] {
            let memory = memory(commands);
            for number in commands.saturating_sub(99).max(1)..=commands {
                assert_eq!(check(&memory, number, number, 150), "repeat", "{number} of {commands}");
            }
            assert_eq!(check(&memory, commands, 0, 150), "reused");
            assert_eq!(check(&memory, 151, 151, 151), "new");
        }
    }

    #[test]
    fn what_was_forgotten_by_count_is_expired_and_not_run_again() {
        let memory = memory(101);
        assert_eq!(check(&memory, 1, 1, 150), "expired");
        assert_eq!(check(&memory, 2, 2, 150), "repeat");
    }

    #[test]
    fn what_is_older_than_the_window_is_expired() {
        let memory = memory(1);
        assert_eq!(check(&memory, 2, 2, 1_003), "expired");
        assert_eq!(check(&memory, 4, 4, 1_003), "new");
        assert_eq!(check(&memory, 1, 1, 1_003), "repeat", "still remembered, so still answered");
    }

    #[test]
    fn what_was_forgotten_by_age_stays_expired_when_the_clock_steps_back() {
        let mut memory = memory(1);
        remember(&mut memory, 2_000);
        assert_eq!(memory.entries.len(), 1);
        assert_eq!(check(&memory, 1, 1, 500), "expired");
    }

    #[test]
    fn an_id_from_the_far_future_leaves_no_horizon() {
        let mut memory = Memory::default();
        let far = Remembered {
            id: id(1_000_000, 1),
            fingerprint: 1,
            version: Version::new(1),
            at: at(1),
            reply: Reply::default(),
        };
        memory.remember(far, WINDOW);
        for number in 2..=101 {
            remember(&mut memory, number);
        }
        assert_eq!(memory.horizon, None, "the id was forgotten and moved nothing");
        assert_eq!(check(&memory, 102, 102, 102), "new");
    }

    #[test]
    fn an_id_of_another_version_is_new_once_forgotten() {
        let memory = memory(101);
        let id = CommandId::from_uuid(Uuid::from_u128(4 << 76));
        assert_eq!(memory.check(id, 0, at(150), WINDOW), Verdict::New);
    }

    #[test]
    fn an_id_that_is_as_old_as_the_youngest_is_looked_for() {
        let mut memory = memory(10);
        let other = CommandId::from_uuid(Uuid::from_u128(4 << 76));
        let reply = Reply::default();
        memory.remember(
            Remembered { id: other, fingerprint: 7, version: Version::new(11), at: at(11), reply },
            WINDOW,
        );
        assert!(matches!(memory.check(other, 7, at(11), WINDOW), Verdict::Repeat(_)), "it tells no age");
        assert_eq!(check(&memory, 10, 10, 11), "repeat");
        assert_eq!(memory.check(id(10, 77), 0, at(11), WINDOW), Verdict::New, "made in the same instant");
        assert_eq!(check(&memory, 11, 11, 11), "new");
    }

    #[test]
    fn the_memory_survives_its_codec() {
        let memory = memory(150);
        let bytes = orchestrix_core::codec::bincode::encode("memory", &memory).expect("encodes");
        let back: Memory = orchestrix_core::codec::bincode::decode("memory", &bytes).expect("decodes");
        assert_eq!(
            (check(&back, 150, 150, 150), check(&back, 51, 51, 150), check(&back, 50, 50, 150)),
            ("repeat", "repeat", "expired")
        );
    }
}
