//! The node's own settings: each with its unit, range, default and relation to the others.

use std::time::Duration;

use orchestrix_core::SnapshotPolicy;

/// How a node runs. [`Settings::default`] suits a service with some hundreds of megabytes to spare.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Arbiter threads that carry actors, 1 to 256. Default: one per core.
    pub arbiters: usize,
    /// Commands and reads accepted and not yet answered, on the whole node, 1 to 1,000,000. Over it callers hear
    /// `Overloaded`. Default 16,384: at 50,000 commands a second that is a third of a second of work.
    pub commands_in_flight_max: usize,
    /// Commands and reads accepted and not yet answered by one aggregate, 1 to `commands_in_flight_max`.
    /// Default 8,192, so that one aggregate cannot take the whole node's room.
    pub mailbox_commands_max: usize,
    /// Activations that read from the store at once, 1 to 4,096. More wait. Default 64.
    pub loads_in_flight_max: usize,
    /// Events read in one step of an activation, 16 to 100,000. It bounds the memory of a long replay. Default 1,024.
    pub load_page_events: usize,
    /// How long a command may take when its sender gives no deadline, 1 ms to 1 h. Default 30 s.
    pub command_timeout: Duration,
    /// Command ids that an aggregate remembers with their replies, 1 to 100,000. Default 16,384: more than a second of
    /// the busiest aggregate, so that a command cannot be forgotten while its first retry is on its way. About 80
    /// bytes each, counted in the aggregate's weight.
    pub dedup_commands_max: usize,
    /// How long a command id is remembered, 1 s to 30 days. A version 7 id that is older is refused. Default 24 h.
    pub dedup_age_max: Duration,
    /// When aggregates take snapshots that have no policy of their own.
    pub snapshots: SnapshotPolicy,
    /// Memory for resident aggregates in bytes, at least 1 MiB. Over it the least recently used ones are passivated.
    /// Default 256 MiB.
    pub residency_bytes_max: u64,
    /// How long an aggregate stays resident without being used, 10 ms to 30 days. Default 10 min.
    pub residency_idle_max: Duration,
    /// Events that one append carries at most, 1 to 100,000; the store may set a lower limit. Default 1,024.
    pub batch_events_max: usize,
    /// Bytes that one append carries at most, 1 KiB to 1 GiB. A larger commit travels alone. Default 4 MiB.
    pub batch_bytes_max: usize,
    /// What people call this node; it is what a second one hears that finds the shards held. Default: host and process.
    pub node_name: Option<String>,
    /// The version of the application, told to other nodes and in `cluster`. Default: none.
    pub application_version: String,
    /// For how long the node holds its shards without hearing from a store that several may share, 1 s to 5 min. Default
    /// 6 s. Longer survives longer outages of the store without a pause; after a crash on another machine the shards
    /// are free only when it has ended.
    pub lease: Duration,
    /// How long a start waits for shards that another run holds, 0 to 1 h. Default 10 s: longer than a lease, so that
    /// what a crash has left behind is waited for, and a second node is refused. 0 refuses at once.
    pub claim_wait_max: Duration,
    /// How long a shutdown waits for work under way, 0 to 1 h. Default 30 s.
    pub shutdown_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            arbiters: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            commands_in_flight_max: 16_384,
            mailbox_commands_max: 8_192,
            loads_in_flight_max: 64,
            load_page_events: 1_024,
            command_timeout: Duration::from_secs(30),
            dedup_commands_max: 16_384,
            dedup_age_max: Duration::from_hours(24),
            snapshots: SnapshotPolicy::default(),
            residency_bytes_max: 256 << 20,
            residency_idle_max: Duration::from_mins(10),
            batch_events_max: 1_024,
            batch_bytes_max: 4 << 20,
            node_name: None,
            application_version: String::new(),
            lease: Duration::from_secs(6),
            claim_wait_max: Duration::from_secs(10),
            shutdown_timeout: Duration::from_secs(30),
        }
    }
}

/// A setting that is out of its range. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value}; allowed is {allowed}")]
pub struct InvalidSetting {
    /// The setting.
    pub name: &'static str,
    /// The value that it was given.
    pub value: String,
    /// The range.
    pub allowed: String,
}

impl Settings {
    /// Checks every range and relation that the fields' docs state.
    ///
    /// # Errors
    /// [`InvalidSetting`] for the first setting that is out of its range.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        let in_flight = self.commands_in_flight_max as u64;
        let hour = Duration::from_hours(1);
        let month = Duration::from_hours(30 * 24);
        number("arbiters", self.arbiters as u64, 1, 256)?;
        number("commands_in_flight_max", in_flight, 1, 1_000_000)?;
        number("mailbox_commands_max", self.mailbox_commands_max as u64, 1, in_flight)?;
        number("loads_in_flight_max", self.loads_in_flight_max as u64, 1, 4_096)?;
        number("load_page_events", self.load_page_events as u64, 16, 100_000)?;
        number("dedup_commands_max", self.dedup_commands_max as u64, 1, 100_000)?;
        number("residency_bytes_max", self.residency_bytes_max, 1 << 20, u64::MAX)?;
        number("batch_events_max", self.batch_events_max as u64, 1, 100_000)?;
        number("batch_bytes_max", self.batch_bytes_max as u64, 1 << 10, 1 << 30)?;
        duration("command_timeout", self.command_timeout, Duration::from_millis(1), hour)?;
        duration("dedup_age_max", self.dedup_age_max, Duration::from_secs(1), month)?;
        duration("residency_idle_max", self.residency_idle_max, Duration::from_millis(10), month)?;
        duration("lease", self.lease, Duration::from_secs(1), Duration::from_mins(5))?;
        duration("claim_wait_max", self.claim_wait_max, Duration::ZERO, hour)?;
        duration("shutdown_timeout", self.shutdown_timeout, Duration::ZERO, hour)
    }
}

fn number(name: &'static str, value: u64, min: u64, max: u64) -> Result<(), InvalidSetting> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(InvalidSetting { name, value: value.to_string(), allowed: format!("{min} to {max}") })
}

fn duration(name: &'static str, value: Duration, min: Duration, max: Duration) -> Result<(), InvalidSetting> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(InvalidSetting { name, value: format!("{value:?}"), allowed: format!("{min:?} to {max:?}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Settings::default().validate(), Ok(()));
    }

    #[test]
    fn a_bad_setting_is_named_with_its_range() {
        let settings = Settings { mailbox_commands_max: 0, ..Settings::default() };
        let error = settings.validate().expect_err("0 is out of range");
        assert_eq!(error.to_string(), "mailbox_commands_max is 0; allowed is 1 to 16384");
        let settings = Settings { command_timeout: Duration::ZERO, ..Settings::default() };
        assert!(settings.validate().expect_err("zero").to_string().starts_with("command_timeout is 0ns"));
    }
}
