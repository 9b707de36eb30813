//! Latencies: one recorder per caller, merged when the callers are done, so that recording takes no lock.
//!
//! Values are nanoseconds. A recorder of many callers keeps two significant digits (1 %) and takes 15 KiB, one of a few
//! callers keeps three (0.1 %): 512 recorders of three digits would take 60 MiB and push everything else out of the caches.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is told apart; longer ones count as this long.
const LONGEST: Duration = Duration::from_mins(2);

/// Up to this many callers get three significant digits.
const FINE_CALLERS_MAX: usize = 16;

/// Latencies of one caller, or of all of them after merging.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    histogram: Histogram<u32>,
}

/// What a report says about latencies, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    /// Half of the values are at most this.
    pub(crate) p50: f64,
    /// Nine of ten.
    pub(crate) p90: f64,
    /// 99 of a hundred.
    pub(crate) p99: f64,
    /// 999 of a thousand.
    pub(crate) p999: f64,
    /// The longest.
    pub(crate) max: f64,
}

impl Latencies {
    /// Makes an empty recorder for one of `callers` callers. Recorders of one run must be made for the same number.
    pub(crate) fn new(callers: usize) -> Self {
        let digits = if callers <= FINE_CALLERS_MAX { 3 } else { 2 };
        let histogram = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, digits)
            .expect("the bounds are constants that the histogram allows");
        Self { histogram }
    }

    /// Records one latency.
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(nanos);
    }

    /// Adds what another recorder of the same run has.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("recorders of one run have the same bounds");
    }

    /// Returns the latency that this share (0 to 1) of the values does not exceed, in microseconds; 0 when there are none.
    pub(crate) fn quantile_us(&self, share: f64) -> f64 {
        self.histogram.value_at_quantile(share) as f64 / 1_000.0
    }

    /// Returns the usual percentiles.
    pub(crate) fn percentiles(&self) -> Percentiles {
        Percentiles {
            p50: self.quantile_us(0.5),
            p90: self.quantile_us(0.9),
            p99: self.quantile_us(0.99),
            p999: self.quantile_us(0.999),
            max: self.histogram.max() as f64 / 1_000.0,
        }
    }
}

/// Returns the middle value; of an even number the lower one of the two. `None` when there are none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(value: u64) -> Duration {
        Duration::from_micros(value)
    }

    fn near(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() <= wanted * 0.01
    }

    #[test]
    fn merged_recorders_equal_one_recorder_of_everything() {
        let mut parts = vec![Latencies::new(512); 4];
        let mut whole = Latencies::new(512);
        for value in 1..=10_000_u64 {
            parts[(value % 4) as usize].record(micros(value));
            whole.record(micros(value));
        }
        let mut merged = Latencies::new(512);
        for part in &parts {
            merged.merge(part);
        }
        assert_eq!(merged.histogram.len(), 10_000);
        assert_eq!(merged.percentiles(), whole.percentiles());
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut latencies = Latencies::new(1);
        (1..=1_000).for_each(|value| latencies.record(micros(value)));
        let percentiles = latencies.percentiles();
        assert!(near(percentiles.p50, 500.0), "{percentiles:?}");
        assert!(near(percentiles.p90, 900.0), "{percentiles:?}");
        assert!(near(percentiles.p99, 990.0), "{percentiles:?}");
        assert!(near(percentiles.p999, 999.0), "{percentiles:?}");
        assert!(near(percentiles.max, 1_000.0), "{percentiles:?}");
    }

    #[test]
    fn nothing_recorded_is_zero_and_a_huge_value_is_cut() {
        let mut latencies = Latencies::new(1);
        assert_eq!(latencies.percentiles(), Percentiles::default());
        latencies.record(Duration::from_hours(5));
        assert!(near(latencies.percentiles().max, 120e6));
    }

    #[test]
    fn the_median_is_a_value_that_was_measured() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(1.0));
        assert_eq!(median([]), None);
    }
}
