//! Starts and ends logging and tracing. Logs go to standard error, traces to a collector.
//!
//! Reads no environment variable: the application passes the filter and the collector's URL.

use std::{
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anstream::{AutoStream, ColorChoice};
use tracing::{Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt as _, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use super::{
    log_queue::LogQueue,
    traces::{self, Spans},
};

/// What the targets of permcached's own lines and spans begin with.
const OWN: &str = "permcached";

/// Logging and tracing that have started.
#[derive(Debug)]
pub struct Recording {
    spans: Option<Spans>,
    log: LogQueue,
}

impl Recording {
    /// Sends the spans that are not yet sent, and writes the lines that are not yet written, for at most a second each.
    pub async fn end(self) {
        // Ending blocks, and the exporter needs the runtime to send.
        let ending = tokio::task::spawn_blocking(move || {
            if let Some(spans) = &self.spans {
                spans.end();
            }
            self.log.flush();
        });
        drop(ending.await);
    }
}

/// Whether a text is a filter in the syntax of `RUST_LOG`.
#[must_use]
pub fn is_filter(text: &str) -> bool {
    EnvFilter::try_new(text).is_ok()
}

/// Starts logging to standard error, pretty on a terminal and as JSON otherwise. `filter` has the syntax of `RUST_LOG`.
/// If `traces` is a URL, spans are sent there. Logging never blocks: a thread writes the lines. Panics are logged, too.
///
/// # Errors
/// What is wrong with the filter or the URL.
pub fn start(filter: &str, traces: Option<&str>) -> Result<Recording, String> {
    let spans = traces.map(Spans::begin).transpose()?;
    let log = LogQueue::start(std::io::stderr()).map_err(|error| error.to_string())?;
    let subscriber = subscriber(filter, log.clone(), spans.as_ref())?;
    subscriber.try_init().map_err(|error| error.to_string())?;
    log_panics();
    Ok(Recording { spans, log })
}

/// Starts logging warnings to standard error as [`start`] does, but each line is written at once. For commands that end soon.
///
/// # Errors
/// Logging has started already.
pub fn start_warnings() -> Result<(), String> {
    let layer = layer("warn", std::io::stderr)?;
    tracing_subscriber::registry().with(layer).try_init().map_err(|error| error.to_string())
}

/// Formats lines for a writer, and records spans if there is an exporter.
fn subscriber<W>(filter: &str, writer: W, spans: Option<&Spans>) -> Result<impl Subscriber + Send + Sync, String>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    Ok(tracing_subscriber::registry().with(layer(filter, writer)?).with(traces::layer(spans)))
}

/// Formats lines for a writer.
fn layer<W>(filter: &str, writer: W) -> Result<impl Layer<Registry>, String>
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    // At that level h2 shows whole headers, and so tokens.
    let libraries = filter_fn(|metadata| *metadata.level() != Level::TRACE || metadata.target().starts_with(OWN));
    // Without the hint, both filters together would be asked about every level.
    let filter = filter.and(libraries.with_max_level_hint(LevelFilter::TRACE));
    let log = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(if std::io::stderr().is_terminal() {
        // As for the command line: no colours with `NO_COLOR` or `TERM=dumb`.
        let has_colors = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
        log.with_ansi(has_colors).with_target(false).with_filter(filter).boxed()
    } else {
        log.json().flatten_event(true).with_filter(filter).boxed()
    })
}

/// Logs panics instead of writing them to standard error, where they would wait for the reader of the log. A message that
/// is not written in the code may quote anything, and is left out.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let message = panic.payload().downcast_ref::<&'static str>();
        tracing::error!(location, cause = message.copied(), "a thread panicked");
    }));
}

/// Limits how many log lines of one kind are written in a period, so that a flood of requests does not flood the log.
/// Counts the suppressed ones.
#[derive(Debug)]
pub struct RateLimitedLog {
    lines_max: u32,
    length: Duration,
    period: Mutex<Period>,
}

#[derive(Debug)]
struct Period {
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl RateLimitedLog {
    /// Allows this many lines a second.
    #[must_use]
    pub const fn per_second(lines_max: u32) -> Self {
        Self::per(Duration::from_secs(1), lines_max)
    }

    /// Allows this many lines a minute.
    #[must_use]
    pub const fn per_minute(lines_max: u32) -> Self {
        Self::per(Duration::from_mins(1), lines_max)
    }

    const fn per(length: Duration, lines_max: u32) -> Self {
        Self { lines_max, length, period: Mutex::new(Period { began: None, lines: 0, suppressed: 0 }) }
    }

    /// If a line may be written now, returns how many were suppressed since the last one.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut period = self.period.lock().unwrap_or_else(PoisonError::into_inner);
        if period.began.is_none_or(|began| now.duration_since(began) >= self.length) {
            period.began = Some(now);
            period.lines = 0;
        }
        if period.lines == self.lines_max {
            period.suppressed += 1;
            return None;
        }
        period.lines += 1;
        Some(std::mem::take(&mut period.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The finest level that any layer wants to see.
    fn finest_level(filter: &str) -> Option<LevelFilter> {
        subscriber(filter, std::io::sink, None).expect("a filter").max_level_hint()
    }

    #[test]
    fn what_is_finer_than_the_log_costs_a_comparison_of_levels_only() {
        assert_eq!(finest_level("info"), Some(LevelFilter::INFO));
        assert_eq!(finest_level("warn,permcached=debug"), Some(LevelFilter::DEBUG));
        assert_eq!(finest_level("trace"), Some(LevelFilter::TRACE));
    }

    #[test]
    fn lines_past_the_limit_are_suppressed_and_the_next_line_counts_them() {
        let log = RateLimitedLog::per_second(2);
        let start = Instant::now();
        let at = |millis| log.admit_at(start + Duration::from_millis(millis));
        assert_eq!([at(0), at(10), at(20), at(999)], [Some(0), Some(0), None, None]);
        assert_eq!([at(1_000), at(1_001), at(1_002)], [Some(2), Some(0), None]);
        assert_eq!(at(9_000), Some(1));
    }
}
