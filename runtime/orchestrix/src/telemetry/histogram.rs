//! A histogram in fixed buckets: two atomic additions a record, no memory that grows, nothing to drain.
//!
//! The exporter's own histogram keeps every sample until the next upkeep; at tens of thousands of commands a second
//! that is megabytes of samples to carry, so the runtime counts into buckets at once instead.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{HistogramFn, Key};

/// Upper bounds for names that end in `_seconds`: three to a decade, from 50 microseconds to 50 seconds.
const SECONDS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
    10.0, 20.0, 50.0,
];

/// Upper bounds for every other name: powers of two, which suit sizes of batches.
const SIZES: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0, 8_192.0, 16_384.0,
    32_768.0, 65_536.0,
];

/// Counts values by bucket. Every method may be called from many threads at once.
#[derive(Debug)]
pub(super) struct BucketHistogram {
    bounds: &'static [f64],
    /// One more than `bounds`: the last one counts what is above all of them.
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl BucketHistogram {
    pub(super) fn for_name(name: &str) -> Self {
        let bounds = if name.ends_with("_seconds") { SECONDS } else { SIZES };
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0_f64.to_bits()) }
    }

    /// Writes the lines of one series. Sum and count are read one after the other, so they may differ by what is
    /// recorded meanwhile; each alone never goes back.
    pub(super) fn render(&self, key: &Key, out: &mut String) {
        let name = key.name();
        let mut below = 0;
        for (at, count) in self.counts.iter().enumerate() {
            below += count.load(Ordering::Relaxed);
            let bound = self.bounds.get(at).map_or_else(|| "+Inf".to_owned(), ToString::to_string);
            let labels = labels(key, Some(&bound));
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{name}_bucket{labels} {below}");
        }
        let labels = labels(key, None);
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed));
        let _ = writeln!(out, "{name}_sum{labels} {sum}\n{name}_count{labels} {below}");
    }

    fn add(&self, value: f64, times: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at].fetch_add(times, Ordering::Relaxed);
        let add = value * times as f64;
        let grow = |sum| Some((f64::from_bits(sum) + add).to_bits());
        // The closure always gives a value, so the update cannot fail.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow);
    }
}

impl HistogramFn for BucketHistogram {
    fn record(&self, value: f64) {
        self.add(value, 1);
    }

    fn record_many(&self, value: f64, count: usize) {
        self.add(value, count as u64);
    }
}

fn labels(key: &Key, bound: Option<&str>) -> String {
    let own = key.labels().map(|label| (label.key(), label.value()));
    let pairs: Vec<String> = own
        .chain(bound.map(|bound| ("le", bound)))
        .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
        .collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use metrics::Label;

    use super::*;

    #[test]
    fn a_value_counts_in_its_bucket_and_in_all_above() {
        let histogram = BucketHistogram::for_name("wait_seconds");
        histogram.record(0.001);
        histogram.record(0.0011);
        histogram.record_many(100.0, 2);
        let mut page = String::new();
        let key = Key::from_parts("wait_seconds", vec![Label::new("aggregate_type", "a\"b")]);
        histogram.render(&key, &mut page);
        let has = |line: &str| assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        has("wait_seconds_bucket{aggregate_type=\"a\\\"b\",le=\"0.0005\"} 0");
        has("wait_seconds_bucket{aggregate_type=\"a\\\"b\",le=\"0.001\"} 1");
        has("wait_seconds_bucket{aggregate_type=\"a\\\"b\",le=\"0.002\"} 2");
        has("wait_seconds_bucket{aggregate_type=\"a\\\"b\",le=\"50\"} 2");
        has("wait_seconds_bucket{aggregate_type=\"a\\\"b\",le=\"+Inf\"} 4");
        has("wait_seconds_count{aggregate_type=\"a\\\"b\"} 4");
        has("wait_seconds_sum{aggregate_type=\"a\\\"b\"} 200.0021");
    }

    #[test]
    fn nothing_is_lost_when_many_threads_record() {
        let histogram = BucketHistogram::for_name("batch_events");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| histogram.record(3.0)));
            }
        });
        let mut page = String::new();
        histogram.render(&Key::from_name("batch_events"), &mut page);
        assert!(page.contains("batch_events_sum 12000\nbatch_events_count 4000\n"), "{page}");
    }
}
