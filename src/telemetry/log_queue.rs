//! The queue between the service and its log: a thread writes the lines, so that a reader of the log that stalls blocks nothing
//! else. If the queue is full, lines are dropped and counted, and the log says how many once it goes on.
//!
//! Formats no line.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing_subscriber::fmt::MakeWriter;

/// How many bytes of lines wait at most.
const BYTES_MAX: usize = 1_024 * 1_024;

/// How many lines wait at most.
const LINES_MAX: usize = 8_192;

/// How long the end of the service waits for the lines that are not yet written.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// How long to wait before a full queue is tried again at the end of the service.
const PAUSE: Duration = Duration::from_millis(10);

/// How many lines this process has dropped.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many log lines this process has dropped because the log was not read.
pub(super) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// What the thread does next.
enum Task {
    /// Write a line.
    Write(Vec<u8>),
    /// Report that every earlier line is written.
    Report(SyncSender<()>),
}

/// The sending end. Clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct LogQueue {
    sender: SyncSender<Task>,
    /// The size of the lines that are not yet written.
    bytes: Arc<AtomicUsize>,
}

impl LogQueue {
    /// Starts a thread that writes lines to `log`. It ends with the process, or when the last clone of the queue is dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(log: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(LINES_MAX);
        let bytes = Arc::<AtomicUsize>::default();
        let waiting = Arc::clone(&bytes);
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(log, &receiver, &waiting))?;
        Ok(Self { sender, bytes })
    }

    /// Adds a line, or counts it as dropped if there is no room. Never waits.
    fn add(&self, line: &[u8]) {
        let waiting = self.bytes.fetch_add(line.len(), Ordering::Relaxed).saturating_add(line.len());
        if waiting > BYTES_MAX || self.sender.try_send(Task::Write(line.to_vec())).is_err() {
            self.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until every earlier line is written, for at most a second. Blocks.
    pub(super) fn flush(&self) {
        let end = Instant::now().checked_add(FLUSH_TIME);
        let left = || end.map_or(Duration::ZERO, |end| end.saturating_duration_since(Instant::now()));
        let (report, reported) = sync_channel(1);
        let mut task = Task::Report(report);
        while let Err(TrySendError::Full(unsent)) = self.sender.try_send(task) {
            if left().is_zero() {
                return;
            }
            task = unsent;
            thread::sleep(PAUSE);
        }
        let _written_or_given_up = reported.recv_timeout(left());
    }
}

/// Writes lines until the queue is gone.
fn write_all(mut log: impl Write, receiver: &Receiver<Task>, waiting: &AtomicUsize) {
    let mut reported = 0;
    while let Ok(task) = receiver.recv() {
        match task {
            Task::Write(line) => {
                // A closed log is no error: nobody is left to read.
                let _closed = log.write_all(&line);
                let left = waiting.fetch_sub(line.len(), Ordering::Relaxed).saturating_sub(line.len());
                let dropped = dropped();
                if left == 0 && dropped > reported {
                    // The line goes through the queue, too, which has room now.
                    tracing::warn!(lines = dropped - reported, "the log was not read, and lines were dropped");
                    reported = dropped;
                }
            }
            Task::Report(written) => {
                let _closed = log.flush();
                let _nobody_waits = written.try_send(());
            }
        }
    }
}

impl Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A log whose reader stalls until it receives something.
    struct Stalled(Receiver<()>, Sender<Vec<u8>>);

    impl Write for Stalled {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _goes_on = self.0.recv();
            let _nobody_reads = self.1.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_log_blocks_nobody_and_what_does_not_fit_is_counted() {
        let (go_on, stalled) = channel();
        let (written, lines) = channel();
        let queue = LogQueue::start(Stalled(stalled, written)).unwrap();
        let line = [b'x'; 1_024];
        let before = dropped();
        for _ in 0..2_000 {
            queue.add(&line);
        }
        let lost = dropped() - before;
        assert!(lost >= 2_000 - 1_024, "{lost}");
        assert!(queue.bytes.load(Ordering::Relaxed) <= BYTES_MAX);
        queue.flush();
        assert!(lines.try_recv().is_err(), "a flush gives up");
        drop(go_on);
        assert_eq!(lines.iter().take(1_000).count(), 1_000);
        queue.flush();
        assert_eq!(queue.bytes.load(Ordering::Relaxed), 0);
    }
}
