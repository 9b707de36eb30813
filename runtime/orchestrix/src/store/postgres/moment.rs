//! A moment as the server keeps it: microseconds since the year 2000, in the range of `timestamptz`.

use orchestrix_core::Timestamp;

/// Microseconds from 1970 to 2000.
const EPOCH_US: i64 = 946_684_800_000_000;

/// The first and the last moment that the server can keep: 4714-11-24 BC and the end of the year 294276.
const RANGE_US: std::ops::RangeInclusive<i64> = -211_813_488_000_000_000..=9_223_371_331_199_999_999;

/// A moment that the server can keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(pub(super) i64);

impl Moment {
    /// Turns a timestamp into what the server keeps; `None` when it is out of its range.
    pub(super) fn exact(time: Timestamp) -> Option<Self> {
        time.as_micros().checked_sub(EPOCH_US).filter(|micros| RANGE_US.contains(micros)).map(Self)
    }

    /// Turns a timestamp into the nearest moment that the server keeps.
    pub(super) fn nearest(time: Timestamp) -> Self {
        Self(time.as_micros().saturating_sub(EPOCH_US).clamp(*RANGE_US.start(), *RANGE_US.end()))
    }

    /// Turns it back.
    pub(super) fn timestamp(self) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_add(EPOCH_US))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_comes_back_and_the_range_has_ends() {
        for micros in [0, 1, -1, EPOCH_US, -62_135_596_800_000_000, 253_402_300_799_999_999] {
            let time = Timestamp::from_micros(micros);
            assert_eq!(Moment::exact(time).map(Moment::timestamp), Some(time));
        }
        assert_eq!(Moment::exact(Timestamp::from_micros(i64::MIN)), None);
        assert_eq!(Moment::nearest(Timestamp::from_micros(i64::MIN)).0, *RANGE_US.start());
        let latest = Timestamp::from_micros(i64::MAX);
        assert_eq!(
            Moment::exact(latest).map(Moment::timestamp),
            Some(latest),
            "it is before the server's last"
        );
    }
}
