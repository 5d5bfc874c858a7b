//! The batches of a change stream turned into change batches (docs/freshness.md, point 2).
//!
//! Pure: publishes nothing, and does not judge whether the stream lags behind.

use crate::{
    freshness::{Change, ChangeBatch, Moment},
    source::StreamBatch,
};

/// Makes change batches without a gap between them: each begins at the moment up to which the last one was complete.
#[derive(Debug)]
pub(super) struct Batches {
    complete_to: Moment,
    /// The changes later than `complete_to`. They were published early, and are published again once a batch covers them.
    early: Vec<Change>,
}

impl Batches {
    /// The first change batch begins at `from`.
    pub(super) fn new(from: Moment) -> Self {
        Self { complete_to: from, early: Vec::new() }
    }

    /// The moment up to which every change is in a change batch.
    pub(super) fn complete_to(&self) -> Moment {
        self.complete_to
    }

    /// How many changes wait for a change batch that covers them.
    pub(super) fn early(&self) -> usize {
        self.early.len()
    }

    /// Whether the stream returned more events of a moment that is not complete yet, as of a large transaction.
    pub(super) fn is_within_a_moment(&self, batch: &StreamBatch) -> bool {
        batch.has_events && batch.token.previous() <= self.complete_to
    }

    /// The change batch for the stream's next batch. It ends strictly before the batch's token, as more changes may come at
    /// that moment, and no later than the newest probe.
    pub(super) fn next(&mut self, batch: StreamBatch, newest_probe: Moment) -> ChangeBatch {
        let from = self.complete_to;
        let to = batch.token.previous().min(newest_probe).max(from);
        let mut changes = batch.changes;
        self.early.extend(changes.iter().filter(|change| change.at > to).cloned());
        if to > from {
            changes.extend(self.early.extract_if(.., |change| change.at <= to));
        }
        self.complete_to = to;
        ChangeBatch { from, to, changes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::freshness::Changed;

    fn at(count: u64) -> Moment {
        Moment::from_count(count)
    }

    fn change(count: u64) -> Change {
        Change { at: at(count), what: Changed::Everything }
    }

    fn streamed(changes: &[u64], token: u64) -> StreamBatch {
        let changes: Vec<Change> = changes.iter().map(|count| change(*count)).collect();
        StreamBatch { has_events: !changes.is_empty(), changes, token: at(token), invalidated: None }
    }

    fn expected(from: u64, to: u64, changes: &[u64]) -> ChangeBatch {
        ChangeBatch { from: at(from), to: at(to), changes: changes.iter().map(|count| change(*count)).collect() }
    }

    #[test]
    fn a_change_batch_ends_before_the_token_and_not_after_the_newest_probe() {
        let mut batches = Batches::new(at(10));
        assert_eq!(batches.next(streamed(&[12], 15), at(90)), expected(10, 14, &[12]));
        assert_eq!(batches.next(streamed(&[], 30), at(20)), expected(14, 20, &[]));
        assert_eq!(
            batches.next(streamed(&[], 15), at(90)),
            expected(20, 20, &[]),
            "it never ends earlier than it begins"
        );
    }

    #[test]
    fn a_change_that_is_published_early_is_published_again_once_it_is_covered() {
        let mut batches = Batches::new(at(10));
        assert_eq!(batches.next(streamed(&[15, 15], 15), at(90)), expected(10, 14, &[15, 15]));
        assert_eq!(batches.early(), 2);
        assert_eq!(batches.next(streamed(&[], 16), at(14)), expected(14, 14, &[]));
        assert_eq!(batches.next(streamed(&[], 16), at(90)), expected(14, 15, &[15, 15]));
        assert_eq!(batches.early(), 0);
    }

    #[test]
    fn more_events_of_one_moment_are_within_it_until_it_is_complete() {
        let mut batches = Batches::new(at(14));
        assert!(batches.is_within_a_moment(&streamed(&[15], 15)));
        assert!(!batches.is_within_a_moment(&streamed(&[], 15)));
        assert!(!batches.is_within_a_moment(&streamed(&[15], 16)));
        batches.next(streamed(&[15], 16), at(90));
        assert!(batches.is_within_a_moment(&streamed(&[15], 16)));
    }
}
