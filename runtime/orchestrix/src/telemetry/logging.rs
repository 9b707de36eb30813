//! Logs: set up once for the process, written to standard error, with a filter that can be changed while it runs.
//!
//! Standard output stays free for what a command prints. An application with a subscriber of its own keeps it.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::OnceLock;

use tracing::{Dispatch, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use super::traces::{self, Traces};

static INSTALLED: OnceLock<Option<Logging>> = OnceLock::new();

/// How a log line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Which log lines are written: a level, or a list such as `info,orchestrix=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// A text that is no filter. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{part:?} is no log filter; allowed are error, warn, info, debug, trace, off, and `target=level`, joined by commas"
)]
pub struct InvalidLogFilter {
    /// The part that is wrong.
    pub part: String,
}

impl FromStr for LogFilter {
    type Err = InvalidLogFilter;

    /// Reads a filter. Levels may be written in any case; `warning` and `critical` stand for `warn` and `error`.
    ///
    /// The filter's own grammar reads a misspelt level as the name of a module to trace, so that a typing error
    /// would silence everything: a word alone must be a level here.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Result<Vec<String>, _> = text.split(',').map(|part| directive(part.trim())).collect();
        let filter = parts?.join(",");
        match EnvFilter::try_new(&filter) {
            Ok(_) => Ok(Self(filter)),
            Err(_) => Err(InvalidLogFilter { part: text.to_owned() }),
        }
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl LogFilter {
    fn build(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }
}

fn directive(part: &str) -> Result<String, InvalidLogFilter> {
    let wrong = || InvalidLogFilter { part: part.to_owned() };
    match part.rsplit_once('=') {
        Some((target, word)) => Ok(format!("{target}={}", level(word).ok_or_else(wrong)?)),
        None => level(part).map(str::to_owned).ok_or_else(wrong),
    }
}

fn level(word: &str) -> Option<&'static str> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    match word.to_ascii_lowercase().as_str() {
        "warning" => Some("warn"),
        "critical" => Some("error"),
        word => LEVELS.into_iter().find(|level| *level == word),
    }
}

/// The log of the process could not be set up or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoggingError {
    /// The application installed a subscriber of its own first. Its lines go there. Handling: nothing, or remove it.
    #[error("the process has a log subscriber of its own already")]
    ForeignSubscriber,
    /// The subscriber is gone. The filter stays as it was.
    #[error("the log subscriber is gone, so its filter cannot be changed")]
    Gone,
}

/// The log that [`init`] set up.
#[derive(Clone, Debug)]
pub struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Logging {
    /// Changes which lines are written, from now on and for the whole process.
    ///
    /// # Errors
    /// [`LoggingError::Gone`] when the subscriber does not exist any more.
    pub fn set_filter(&self, filter: &LogFilter) -> Result<(), LoggingError> {
        self.filter.reload(filter.build()).map_err(|_| LoggingError::Gone)
    }
}

/// Sets up the log of the process, or returns the one that an earlier call set up (its settings stay then).
///
/// # Errors
/// [`LoggingError::ForeignSubscriber`] when the application has a subscriber of its own.
pub fn init(filter: &LogFilter, format: LogFormat) -> Result<&'static Logging, LoggingError> {
    install(filter, format, None)
}

/// As [`init`], and hands spans to an export of traces as well.
///
/// # Errors
/// See [`init`]; an application with a subscriber of its own exports no traces by this.
pub fn init_with_traces(
    filter: &LogFilter,
    format: LogFormat,
    traces: &Traces,
) -> Result<&'static Logging, LoggingError> {
    install(filter, format, Some(traces))
}

fn install(
    filter: &LogFilter,
    format: LogFormat,
    traces: Option<&Traces>,
) -> Result<&'static Logging, LoggingError> {
    let installed = INSTALLED.get_or_init(|| {
        let colours = std::io::stderr().is_terminal();
        let (dispatch, logging) = dispatch(filter, format, (std::io::stderr, colours), traces);
        tracing::dispatcher::set_global_default(dispatch).ok().map(|()| logging)
    });
    installed.as_ref().ok_or(LoggingError::ForeignSubscriber)
}

fn dispatch<W>(
    filter: &LogFilter,
    format: LogFormat,
    (writer, colours): (W, bool),
    traces: Option<&Traces>,
) -> (Dispatch, Logging)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter.build());
    let logging = Logging { filter: handle };
    let dispatch = match traces {
        // A filter for everything is the cheapest: what it refuses is not even made.
        None => {
            Dispatch::new(tracing_subscriber::registry().with(filter).with(lines(format, writer, colours)))
        }
        // With traces it is the log's alone, since traces want spans that the log does not.
        Some(traces) => {
            let lines = lines(format, writer, colours).with_filter(filter);
            Dispatch::new(tracing_subscriber::registry().with(lines).with(traces::spans(traces)))
        }
    };
    (dispatch, logging)
}

fn lines<S, W>(format: LogFormat, writer: W, colours: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Text => lines.with_ansi(colours).boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn filter(text: &str) -> LogFilter {
        text.parse().expect("a filter")
    }

    #[test]
    fn json_lines_carry_fields_and_the_filter_moves_while_it_runs() {
        let page = Page::default();
        let writer = page.clone();
        let (dispatch, logging) =
            dispatch(&filter("warn"), LogFormat::Json, (move || writer.clone(), false), None);
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::info!("not written");
            logging.set_filter(&filter("INFO")).expect("the subscriber lives");
            tracing::info!(aggregate_id = "a-1", version = 42, event_count = 15, "aggregate loaded");
        });
        let text = String::from_utf8(page.0.lock().unwrap().clone()).expect("UTF-8");
        let line: serde_json::Value = serde_json::from_str(text.trim()).expect("one JSON line");
        assert_eq!(line["message"], "aggregate loaded");
        assert_eq!((&line["aggregate_id"], &line["version"]), (&"a-1".into(), &42.into()));
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn text_lines_are_for_people() {
        let page = Page::default();
        let writer = page.clone();
        let (dispatch, _logging) =
            dispatch(&filter("info"), LogFormat::Text, (move || writer.clone(), false), None);
        tracing::dispatcher::with_default(&dispatch, || tracing::warn!(shard = 3, "lease is late"));
        let text = String::from_utf8(page.0.lock().unwrap().clone()).expect("UTF-8");
        assert!(text.contains("WARN") && text.contains("lease is late shard=3"), "{text}");
    }

    #[test]
    fn levels_are_read_in_any_case_and_by_their_other_names() {
        assert_eq!(filter("INFO").to_string(), "info");
        assert_eq!(filter("Warning, sqlx=CRITICAL").to_string(), "warn,sqlx=error");
    }

    #[test]
    fn a_misspelt_level_is_refused_instead_of_silencing_everything() {
        for (text, part) in [("inof", "inof"), ("info,orchestrix=loud", "orchestrix=loud"), ("", "")] {
            let error = text.parse::<LogFilter>().expect_err("no filter");
            assert_eq!(error.part, part);
            assert!(error.to_string().contains("allowed are error, warn, info"), "{error}");
        }
    }
}
