//! The hooks of a node as one: each is called in turn, and none can harm the runtime or its neighbours by a panic.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::Counter;
use orchestrix_core::{Name, StreamId, Version};

use super::hooks::{AggregateFailure, Hooks, SnapshotEvent};
use super::metrics::Metrics;

/// The calls that a hook can get, to report the first panic of each and no more.
const CALLS: [&str; 6] = [
    "on_event_stored",
    "on_event_loaded",
    "on_event_replayed",
    "on_snapshot_saved",
    "on_snapshot_loaded",
    "on_aggregate_error",
];

/// Every hook of a node. Cheap to clone. A panic is caught, counted, and logged once per kind of call.
#[derive(Clone)]
pub struct HookSet {
    hooks: Arc<[Arc<dyn Hooks>]>,
    panics: Counter,
    reported: Arc<[AtomicBool; CALLS.len()]>,
}

impl HookSet {
    /// Joins hooks; they are called in this order.
    pub fn new(hooks: Vec<Arc<dyn Hooks>>, metrics: &Metrics) -> Self {
        Self { hooks: hooks.into(), panics: metrics.hook_panics.clone(), reported: Arc::default() }
    }

    /// Tells whether there is nobody to call, so that the caller need not prepare what a hook would see.
    pub fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    fn each(&self, call: usize, run: impl Fn(&dyn Hooks)) {
        for hook in self.hooks.iter() {
            // What a hook leaves half done is its own; the runtime's values are only lent to it, by shared reference.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(hook.as_ref()))) {
                self.on_panic(call, panic.as_ref());
            }
        }
    }

    fn on_panic(&self, call: usize, panic: &(dyn Any + Send)) {
        self.panics.increment(1);
        if !self.reported[call].swap(true, Ordering::Relaxed) {
            let hook = CALLS[call];
            tracing::error!(
                hook,
                message = panic_text(panic),
                "a hook panicked; later panics of it are only counted"
            );
        }
    }
}

/// Returns the words of a panic, as far as it has any.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text")
}

impl Hooks for HookSet {
    fn on_event_stored(&self, stream: &StreamId, version: Version, event_type: &Name) {
        self.each(0, |hook| hook.on_event_stored(stream, version, event_type));
    }

    fn on_event_loaded(&self, stream: &StreamId, events: u64, took: Duration) {
        self.each(1, |hook| hook.on_event_loaded(stream, events, took));
    }

    fn on_event_replayed(&self, stream: &StreamId, events: u64, took: Duration) {
        self.each(2, |hook| hook.on_event_replayed(stream, events, took));
    }

    fn on_snapshot_saved(&self, snapshot: &SnapshotEvent<'_>) {
        self.each(3, |hook| hook.on_snapshot_saved(snapshot));
    }

    fn on_snapshot_loaded(&self, snapshot: &SnapshotEvent<'_>) {
        self.each(4, |hook| hook.on_snapshot_loaded(snapshot));
    }

    fn on_aggregate_error(&self, failure: &AggregateFailure<'_>) {
        self.each(5, |hook| hook.on_aggregate_error(failure));
    }
}

/// Makes a hook from a closure that hears of an aggregate's id and what went wrong: the place for an alert.
///
/// ```
/// use orchestrix::telemetry::on_aggregate_error;
/// let alert = on_aggregate_error(|id, message| eprintln!("{id}: {message}"));
/// # let _: &dyn orchestrix::telemetry::Hooks = &alert;
/// ```
pub fn on_aggregate_error<F: Fn(&str, &str) + Send + Sync + 'static>(callback: F) -> impl Hooks {
    OnAggregateError(callback)
}

struct OnAggregateError<F>(F);

impl<F: Fn(&str, &str) + Send + Sync + 'static> Hooks for OnAggregateError<F> {
    fn on_aggregate_error(&self, failure: &AggregateFailure<'_>) {
        self.0(&failure.stream.id, failure.message);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::telemetry::exporter::Recorder;

    struct Panics;

    impl Hooks for Panics {
        fn on_event_stored(&self, _: &StreamId, _: Version, _: &Name) {
            panic!("a hook of the user's");
        }

        fn on_aggregate_error(&self, failure: &AggregateFailure<'_>) {
            panic!("cannot report {}", failure.message);
        }
    }

    fn failure(stream: &StreamId) -> AggregateFailure<'_> {
        AggregateFailure { stream, kind: "panicked", message: "it fell", command_id: None }
    }

    #[test]
    fn a_panicking_hook_is_counted_and_its_neighbour_still_called() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let recorder = Recorder::new();
        let page = metrics::with_local_recorder(&recorder, || {
            let list = Arc::clone(&heard);
            let note = move |id: &str, text: &str| list.lock().unwrap().push(format!("{id}: {text}"));
            let hooks: Vec<Arc<dyn Hooks>> = vec![Arc::new(Panics), Arc::new(on_aggregate_error(note))];
            let set = HookSet::new(hooks, &Metrics::new());
            let stream = StreamId::new("account", "a-1");
            set.on_event_stored(&stream, Version::new(1), &Name::Borrowed("account.opened"));
            set.on_aggregate_error(&failure(&stream));
            recorder.render()
        });
        assert_eq!(*heard.lock().unwrap(), ["a-1: it fell"]);
        assert!(page.contains("orchestrix_hook_panics_total 2"), "{page}");
    }

    #[test]
    fn only_the_first_panic_of_a_kind_is_reported() {
        let set = HookSet::new(vec![Arc::new(Panics)], &Metrics::disabled());
        let stream = StreamId::new("account", "a-1");
        set.on_aggregate_error(&failure(&stream));
        set.on_aggregate_error(&failure(&stream));
        let reported: Vec<bool> = set.reported.iter().map(|flag| flag.load(Ordering::Relaxed)).collect();
        assert_eq!(reported, [false, false, false, false, false, true]);
    }

    #[test]
    fn a_set_without_hooks_says_so() {
        assert!(HookSet::new(Vec::new(), &Metrics::disabled()).is_empty());
    }
}
