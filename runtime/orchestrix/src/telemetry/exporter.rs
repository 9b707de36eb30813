//! The Prometheus exporter: one recorder in a process, rendered as a page of text.
//!
//! Counters and gauges go to `metrics-exporter-prometheus`; histograms are counted in fixed buckets (see
//! `histogram.rs`). An application that installs a recorder of its own keeps it: the runtime's metrics go there then.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::histogram::BucketHistogram;
use super::metrics::PROCESS_RESIDENT_BYTES;

static INSTALLED: OnceLock<Option<Recorder>> = OnceLock::new();

/// The process has a recorder that the runtime did not install; its owner exports the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the process has a metrics recorder of its own already, so the runtime has no page to render")]
pub struct ForeignRecorder;

/// Installs the recorder, or returns the one that is installed. Call it before the first node starts.
///
/// # Errors
/// [`ForeignRecorder`] when the application installed another recorder first; metrics are recorded there.
pub fn install() -> Result<&'static Recorder, ForeignRecorder> {
    let installed = INSTALLED.get_or_init(|| {
        let recorder = Recorder::new();
        metrics::set_global_recorder(recorder.clone()).ok().map(|()| recorder)
    });
    installed.as_ref().ok_or(ForeignRecorder)
}

/// Returns the page of the installed recorder; `None` when [`install`] was not called or did not succeed.
pub fn render() -> Option<String> {
    let recorder = INSTALLED.get()?.as_ref()?;
    if let Some(bytes) = process_resident_bytes() {
        metrics::gauge!(PROCESS_RESIDENT_BYTES).set(bytes as f64);
    }
    Some(recorder.render())
}

/// Returns the resident memory of the process in bytes, where the system tells (Linux).
pub fn process_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// Takes metrics and renders them in the Prometheus text format. Cheap to clone; clones share their numbers.
#[derive(Clone)]
pub struct Recorder {
    scalars: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    histograms: Arc<Mutex<Histograms>>,
}

#[derive(Default)]
struct Histograms {
    /// By name, so that the series of one metric stand together on the page, as the format demands.
    by_name: BTreeMap<String, Vec<(Key, Arc<BucketHistogram>)>>,
    help: BTreeMap<String, SharedString>,
}

impl Recorder {
    /// Makes a recorder that nobody writes to yet.
    pub fn new() -> Self {
        let scalars = PrometheusBuilder::new().build_recorder();
        let handle = scalars.handle();
        Self { scalars: Arc::new(scalars), handle, histograms: Arc::default() }
    }

    /// Renders everything that was recorded so far. Nothing needs upkeep: no sample is kept, only counts.
    pub fn render(&self) -> String {
        let mut page = self.handle.render();
        self.lock().render(&mut page);
        page
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Histograms> {
        // A panic under this lock leaves whole entries only, so the content is good.
        self.histograms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Histograms {
    fn get(&mut self, key: &Key) -> Arc<BucketHistogram> {
        let series = self.by_name.entry(key.name().to_owned()).or_default();
        if let Some((_, histogram)) = series.iter().find(|(known, _)| known == key) {
            return Arc::clone(histogram);
        }
        let histogram = Arc::new(BucketHistogram::for_name(key.name()));
        series.push((key.clone(), Arc::clone(&histogram)));
        histogram
    }

    fn render(&self, page: &mut String) {
        for (name, series) in &self.by_name {
            if let Some(help) = self.help.get(name) {
                let _ = writeln!(page, "# HELP {name} {help}");
            }
            let _ = writeln!(page, "# TYPE {name} histogram");
            for (key, histogram) in series {
                histogram.render(key, page);
            }
            page.push('\n');
        }
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.scalars.describe_counter(name, unit, help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.scalars.describe_gauge(name, unit, help);
    }

    fn describe_histogram(&self, name: KeyName, _unit: Option<Unit>, help: SharedString) {
        self.lock().help.insert(name.as_str().to_owned(), help);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.scalars.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.scalars.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.lock().get(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn install_gives_the_same_recorder_every_time() {
        let first = install().expect("no other recorder in this process");
        let second = install().expect("it is installed");
        assert!(Arc::ptr_eq(&first.histograms, &second.histograms));
        metrics::counter!("installed_total").increment(1);
        let page = render().expect("it is installed");
        assert!(page.contains("installed_total 1"), "{page}");
    }

    #[test]
    fn a_histogram_registered_twice_is_one() {
        let recorder = Recorder::new();
        let page = metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("twice_seconds").record(0.1);
            metrics::histogram!("twice_seconds").record(0.1);
            recorder.render()
        });
        assert_eq!(page.matches("# TYPE twice_seconds histogram").count(), 1);
        assert!(page.contains("twice_seconds_count 2"), "{page}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_memory_of_the_process_is_known() {
        let bytes = process_resident_bytes().expect("Linux tells");
        assert!(bytes > 100_000, "{bytes}");
    }
}
