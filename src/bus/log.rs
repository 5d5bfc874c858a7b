//! What was said last, for those who watch: from now on, or from a moment that is still in the log.
//!
//! What is not kept any more is told as a change of everything.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

use crate::freshness::{Change, ChangeBatch, Changed, Epoch, Moment};

/// How many changes are kept for those who come back.
const CHANGES_MAX: usize = 65_536;

/// How many pieces of news one who watches may be behind, before it is told again from where it was.
const BEHIND_MAX: usize = 1_024;

/// What those who watch are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// What changed. The same may be told more than once.
    pub changes: Vec<Change>,
    /// Everything up to here has been told; nothing where that is not known.
    pub to: Option<Moment>,
}

/// What was said, and who listens.
#[derive(Debug)]
pub(super) struct Log {
    /// Changes in the order in which they were told, each with up to where everything had been told before.
    kept: VecDeque<(Moment, Change)>,
    /// What was told to who had been told everything up to here, or later, is kept.
    from: Moment,
    /// Everything up to here has been told.
    to: Moment,
    /// What was told early, and will be said again.
    early: HashSet<Change>,
    /// Which history it is of.
    epoch: Option<Epoch>,
    listeners: broadcast::Sender<Arc<Update>>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            kept: VecDeque::new(),
            from: Moment::default(),
            to: Moment::default(),
            early: HashSet::new(),
            epoch: None,
            listeners: broadcast::Sender::new(BEHIND_MAX),
        }
    }
}

impl Log {
    /// Begins at a moment of which nothing is known before it. Who watched before has missed something.
    pub(super) fn begin_at(&mut self, moment: Moment, epoch: Epoch) {
        self.kept.clear();
        self.early.clear();
        (self.from, self.to, self.epoch) = (moment, moment, Some(epoch));
        let changes = vec![Change { at: moment, what: Changed::Everything }];
        self.notify(Update { changes, to: Some(moment) });
    }

    pub(super) fn append(&mut self, batch: ChangeBatch, epoch: Epoch) {
        let ChangeBatch { from, to, changes } = batch;
        if self.epoch != Some(epoch) || from > self.to {
            self.begin_at(from, epoch);
        }
        let fresh: Vec<Change> = changes.into_iter().filter(|change| !self.early.contains(change)).collect();
        self.early.extend(fresh.iter().filter(|change| change.at > to).cloned());
        self.early.retain(|change| change.at > to);
        self.keep(&fresh);
        self.to = self.to.max(to);
        self.notify(Update { changes: fresh, to: Some(self.to) });
    }

    pub(super) fn hint(&mut self, changes: Vec<Change>) {
        self.keep(&changes);
        self.notify(Update { changes, to: None });
    }

    fn keep(&mut self, changes: &[Change]) {
        self.kept.extend(changes.iter().map(|change| (self.to, change.clone())));
        while self.kept.len() > CHANGES_MAX
            && let Some((covered, dropped)) = self.kept.pop_front()
        {
            self.from = self.from.max(dropped.at).max(covered.next());
        }
    }

    fn notify(&self, update: Update) {
        let _nobody_watches = self.listeners.send(Arc::new(update));
    }

    fn watch(&self, since: Option<Moment>) -> (Arc<Update>, broadcast::Receiver<Arc<Update>>) {
        let since = since.unwrap_or(self.to);
        // What is kept may be later than what was told of all.
        let covered = self.to.max(self.from);
        let (mut changes, after) = if since < self.from {
            (vec![Change { at: covered, what: Changed::Everything }], covered)
        } else {
            (Vec::new(), since)
        };
        // A hint may be of a moment up to which everything had been told before.
        let is_after = |(covered, change): &&(Moment, Change)| change.at > after || *covered >= after;
        changes.extend(self.kept.iter().filter(is_after).map(|(_, change)| change.clone()));
        (Arc::new(Update { changes, to: Some(self.to) }), self.listeners.subscribe())
    }
}

/// What somebody watches.
#[derive(Debug)]
pub struct Subscription {
    log: Arc<Mutex<Log>>,
    /// What was told before.
    first: Option<Arc<Update>>,
    live: broadcast::Receiver<Arc<Update>>,
    /// Up to where everything was told.
    to: Moment,
}

impl Subscription {
    /// What changes after `since`, or from now on.
    pub(super) fn new(log: &Arc<Mutex<Log>>, since: Option<Moment>) -> Self {
        let (first, live) = lock(log).watch(since);
        let to = since.or(first.to).unwrap_or_default();
        Self { log: Arc::clone(log), first: Some(first), live, to }
    }

    /// What comes next, at first at once. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Arc<Update> {
        let update = match self.first.take() {
            Some(first) => first,
            None => match self.live.recv().await {
                Ok(update) => update,
                // It could not follow: it comes back, as it were. The log speaks for as long as it is there.
                Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => {
                    let (update, live) = lock(&self.log).watch(Some(self.to));
                    self.live = live;
                    update
                }
            },
        };
        // It may go back, in another history.
        self.to = update.to.unwrap_or(self.to);
        update
    }
}

/// The log, for one who writes or begins to read.
pub(super) fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{Id, Subject};

    fn at(count: u64) -> Moment {
        Moment::from_count(count)
    }

    fn change(count: u64) -> Change {
        let subject = Subject::Known { kind: crate::question::SubjectTypeId(0), id: Id::Integer(1) };
        Change { at: at(count), what: Changed::Subject(subject) }
    }

    fn everything(count: u64) -> Change {
        Change { at: at(count), what: Changed::Everything }
    }

    fn update(changes: Vec<Change>, to: u64) -> Arc<Update> {
        Arc::new(Update { changes, to: Some(at(to)) })
    }

    fn begun(moment: u64) -> (Arc<Mutex<Log>>, Epoch) {
        let (log, epoch) = (Arc::new(Mutex::new(Log::default())), Epoch::default());
        lock(&log).begin_at(at(moment), epoch);
        (log, epoch)
    }

    fn append(log: &Mutex<Log>, from: u64, to: u64, changes: &[u64], epoch: Epoch) {
        let changes = changes.iter().copied().map(change).collect();
        lock(log).append(ChangeBatch { from: at(from), to: at(to), changes }, epoch);
    }

    #[tokio::test]
    async fn what_changes_is_told_once_and_can_be_told_again_from_any_moment_that_is_kept() {
        let (log, epoch) = begun(10);
        let mut live = Subscription::new(&log, None);
        assert_eq!(live.next().await, update(vec![], 10));
        // 14 is told early, and said again.
        append(&log, 10, 12, &[11, 14], epoch);
        append(&log, 12, 15, &[14, 15], epoch);
        assert_eq!(live.next().await, update(vec![change(11), change(14)], 12));
        assert_eq!(live.next().await, update(vec![change(15)], 15));
        assert_eq!(
            Subscription::new(&log, Some(at(10))).next().await,
            update(vec![change(11), change(14), change(15)], 15)
        );
        assert_eq!(Subscription::new(&log, Some(at(12))).next().await, update(vec![change(14), change(15)], 15));
        assert_eq!(Subscription::new(&log, Some(at(15))).next().await, update(vec![], 15));
        assert_eq!(Subscription::new(&log, Some(at(9))).next().await, update(vec![everything(15)], 15), "not kept");
    }

    #[tokio::test]
    async fn who_begins_now_hears_what_was_told_early() {
        let (log, epoch) = begun(10);
        append(&log, 10, 12, &[14], epoch);
        assert_eq!(Subscription::new(&log, None).next().await, update(vec![change(14)], 12));
        assert_eq!(Subscription::new(&log, Some(at(9))).next().await, update(vec![everything(12), change(14)], 12));
    }

    #[tokio::test]
    async fn a_hint_of_a_moment_that_was_passed_already_is_told_again_to_who_comes_back() {
        let (log, epoch) = begun(10);
        let mut live = Subscription::new(&log, None);
        assert_eq!(live.next().await, update(vec![], 10));
        append(&log, 10, 20, &[], epoch);
        lock(&log).hint(vec![change(15)]);
        assert_eq!(live.next().await, update(vec![], 20));
        assert_eq!(live.next().await, Arc::new(Update { changes: vec![change(15)], to: None }));
        assert_eq!(Subscription::new(&log, Some(at(20))).next().await, update(vec![change(15)], 20));
        append(&log, 20, 21, &[], epoch);
        assert_eq!(
            Subscription::new(&log, Some(at(21))).next().await,
            update(vec![], 21),
            "told before that token was"
        );
    }

    #[tokio::test]
    async fn a_gap_and_another_history_change_everything() {
        let (log, epoch) = begun(10);
        let mut live = Subscription::new(&log, Some(at(10)));
        assert_eq!(live.next().await, update(vec![], 10));
        append(&log, 12, 13, &[13], epoch);
        assert_eq!(live.next().await, update(vec![everything(12)], 12));
        assert_eq!(live.next().await, update(vec![change(13)], 13));
        assert_eq!(Subscription::new(&log, Some(at(11))).next().await, update(vec![everything(13)], 13));
        append(&log, 5, 6, &[], Epoch(1));
        assert_eq!(live.next().await, update(vec![everything(5)], 5));
    }

    #[tokio::test]
    async fn who_cannot_follow_is_told_again_from_where_it_was() {
        let (log, epoch) = begun(0);
        let mut slow = Subscription::new(&log, None);
        assert_eq!(slow.next().await, update(vec![], 0));
        let last = 2 * u64::try_from(BEHIND_MAX).unwrap_or(u64::MAX);
        for moment in 1..=last {
            append(&log, moment - 1, moment, &[moment], epoch);
        }
        assert_eq!(slow.next().await, update((1..=last).map(change).collect(), last));
        append(&log, last, last + 1, &[last + 1], epoch);
        assert_eq!(slow.next().await, update(vec![change(last + 1)], last + 1));
    }

    #[tokio::test]
    async fn no_more_is_kept_than_there_is_room_for() {
        let (log, epoch) = begun(0);
        let last = u64::try_from(CHANGES_MAX).unwrap_or(u64::MAX) + 10;
        append(&log, 0, last, &(1..=last).collect::<Vec<_>>(), epoch);
        assert_eq!(lock(&log).kept.len(), CHANGES_MAX);
        assert_eq!(Subscription::new(&log, Some(at(9))).next().await, update(vec![everything(last)], last));
        let kept = Subscription::new(&log, Some(at(10))).next().await;
        assert_eq!(kept.changes.len(), CHANGES_MAX);
    }
}
