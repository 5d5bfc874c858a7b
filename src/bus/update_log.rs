//! The latest updates of this process, for Watch clients: from now on, or from a moment that the log still covers.
//!
//! Not the log in Redis. Changes that are no longer kept are replaced by a change of everything.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::broadcast;

use crate::freshness::{Change, ChangeBatch, Changed, Epoch, Moment};

/// How many changes are kept for subscriptions that begin in the past.
const CHANGES_MAX: usize = 65_536;

/// How many updates a subscription may be behind. Past that, changes are replayed from its last position.
const BEHIND_MAX: usize = 1_024;

/// What a subscription receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The changes. A change may be sent more than once.
    pub changes: Vec<Change>,
    /// The moment up to which every change has been sent; none in the update of a hint.
    pub to: Option<Moment>,
    /// The epoch of these moments.
    pub epoch: Epoch,
}

/// The latest changes, and the subscriptions to further ones.
#[derive(Debug)]
pub(super) struct UpdateLog {
    /// Changes in the order in which they were sent, each with what `to` was before it.
    kept: VecDeque<(Moment, Change)>,
    /// The earliest moment from which a subscription misses nothing, as all later changes are kept.
    from: Moment,
    /// Every change up to this moment has been sent.
    to: Moment,
    /// Changes later than `to`, which were sent early: a later batch repeats them.
    early: HashSet<Change>,
    /// The epoch of all this; none before the first.
    epoch: Option<Epoch>,
    /// The latest moment of the earlier epochs, which may be later than `to`; none in the first.
    undone: Option<Moment>,
    subscribers: broadcast::Sender<Arc<Update>>,
}

impl Default for UpdateLog {
    fn default() -> Self {
        Self {
            kept: VecDeque::new(),
            from: Moment::default(),
            to: Moment::default(),
            early: HashSet::new(),
            epoch: None,
            undone: None,
            subscribers: broadcast::Sender::new(BEHIND_MAX),
        }
    }
}

impl UpdateLog {
    /// Begins again at a moment before which nothing is known. Existing subscriptions may have missed changes, so they are
    /// sent a change of everything.
    pub(super) fn begin_at(&mut self, moment: Moment, epoch: Epoch) {
        if self.epoch.is_some_and(|earlier| earlier != epoch) {
            let early = self.early.iter().map(|change| change.at).max();
            self.undone = self.undone.max(Some(self.to)).max(early);
        }
        self.kept.clear();
        self.early.clear();
        (self.from, self.to, self.epoch) = (moment, moment, Some(epoch));
        let changes = vec![Change { at: moment, what: Changed::Everything }];
        self.notify(Update { changes, to: Some(moment), epoch });
    }

    /// Appends a change batch, and sends those of its changes that were not sent early. After a gap, or in a new epoch, the
    /// log begins again at the batch's `from`.
    pub(super) fn append(&mut self, batch: ChangeBatch, epoch: Epoch) {
        let ChangeBatch { from, to, changes } = batch;
        if self.epoch != Some(epoch) || from > self.to {
            self.begin_at(from, epoch);
        }
        let new: Vec<Change> = changes.into_iter().filter(|change| !self.early.contains(change)).collect();
        self.early.extend(new.iter().filter(|change| change.at > to).cloned());
        self.early.retain(|change| change.at > to);
        self.keep(&new);
        self.to = self.to.max(to);
        self.notify(Update { changes: new, to: Some(self.to), epoch });
    }

    /// Appends the changes of a hint, and sends them.
    pub(super) fn append_hint(&mut self, changes: Vec<Change>) {
        self.keep(&changes);
        self.notify(Update { changes, to: None, epoch: self.epoch.unwrap_or_default() });
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
        let _no_subscribers = self.subscribers.send(Arc::new(update));
    }

    /// The changes after `since`, or after `to`, and a receiver of the updates that follow. If it is not known that `since` is a moment of
    /// this epoch, it may be of one that was undone: then a change of everything.
    fn subscribe(
        &self,
        since: Option<Moment>,
        epoch: Option<Epoch>,
    ) -> (Arc<Update>, broadcast::Receiver<Arc<Update>>) {
        let may_be_undone = match epoch {
            Some(epoch) => self.epoch.is_some_and(|current| current != epoch),
            None => since.is_some_and(|since| self.undone.is_some_and(|undone| since <= undone)),
        };
        let since = since.unwrap_or(self.to);
        // `from` exceeds `to` once changes that were sent early have been dropped.
        let covered = self.to.max(self.from);
        let (mut changes, after) = if since < self.from || may_be_undone {
            (vec![Change { at: covered, what: Changed::Everything }], covered)
        } else {
            (Vec::new(), since)
        };
        // A hint's moment may be one that `to` had passed already. Then the second condition replays it.
        let is_after = |(covered, change): &&(Moment, Change)| change.at > after || *covered >= after;
        changes.extend(self.kept.iter().filter(is_after).map(|(_, change)| change.clone()));
        let update = Update { changes, to: Some(self.to), epoch: self.epoch.unwrap_or_default() };
        (Arc::new(update), self.subscribers.subscribe())
    }
}

/// The updates that one Watch client receives.
#[derive(Debug)]
pub struct Subscription {
    log: Arc<Mutex<UpdateLog>>,
    /// The update that the subscription begins with, until it is taken.
    first: Option<Arc<Update>>,
    live: broadcast::Receiver<Arc<Update>>,
    /// The moment up to which every change was received.
    to: Moment,
    /// The epoch of that moment.
    epoch: Epoch,
}

impl Subscription {
    /// A subscription to the changes after `since`, or to those from now on.
    pub(super) fn new(log: &Arc<Mutex<UpdateLog>>, since: Option<Moment>) -> Self {
        let (first, live) = lock(log).subscribe(since, None);
        let (to, epoch) = (since.or(first.to).unwrap_or_default(), first.epoch);
        Self { log: Arc::clone(log), first: Some(first), live, to, epoch }
    }

    /// The next update; the first one comes at once. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Arc<Update> {
        let update = match self.first.take() {
            Some(first) => first,
            None => match self.live.recv().await {
                Ok(update) => update,
                // It lagged: subscribe again from its last position. `Closed` does not occur, as the log is alive.
                Err(broadcast::error::RecvError::Lagged(_) | broadcast::error::RecvError::Closed) => {
                    let (update, live) = lock(&self.log).subscribe(Some(self.to), Some(self.epoch));
                    self.live = live;
                    update
                }
            },
        };
        // In a new epoch this may move back.
        self.to = update.to.unwrap_or(self.to);
        self.epoch = update.epoch;
        update
    }
}

/// Locks the log.
pub(super) fn lock(log: &Mutex<UpdateLog>) -> MutexGuard<'_, UpdateLog> {
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
        update_in(Epoch::default(), changes, to)
    }

    fn update_in(epoch: Epoch, changes: Vec<Change>, to: u64) -> Arc<Update> {
        Arc::new(Update { changes, to: Some(at(to)), epoch })
    }

    fn log_from(moment: u64) -> (Arc<Mutex<UpdateLog>>, Epoch) {
        let (log, epoch) = (Arc::new(Mutex::new(UpdateLog::default())), Epoch::default());
        lock(&log).begin_at(at(moment), epoch);
        (log, epoch)
    }

    fn append(log: &Mutex<UpdateLog>, from: u64, to: u64, changes: &[u64], epoch: Epoch) {
        let changes = changes.iter().copied().map(change).collect();
        lock(log).append(ChangeBatch { from: at(from), to: at(to), changes }, epoch);
    }

    #[tokio::test]
    async fn each_change_is_sent_once_and_replayed_from_any_moment_that_is_kept() {
        let (log, epoch) = log_from(10);
        let mut live = Subscription::new(&log, None);
        assert_eq!(live.next().await, update(vec![], 10));
        // 14 is sent early, and the next batch repeats it.
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
    async fn a_new_subscription_receives_the_changes_that_were_sent_early() {
        let (log, epoch) = log_from(10);
        append(&log, 10, 12, &[14], epoch);
        assert_eq!(Subscription::new(&log, None).next().await, update(vec![change(14)], 12));
        assert_eq!(Subscription::new(&log, Some(at(9))).next().await, update(vec![everything(12), change(14)], 12));
    }

    #[tokio::test]
    async fn a_hint_of_a_past_moment_is_replayed_to_a_subscription_that_begins_before_it_was_sent() {
        let (log, epoch) = log_from(10);
        let mut live = Subscription::new(&log, None);
        assert_eq!(live.next().await, update(vec![], 10));
        append(&log, 10, 20, &[], epoch);
        lock(&log).append_hint(vec![change(15)]);
        assert_eq!(live.next().await, update(vec![], 20));
        assert_eq!(live.next().await, Arc::new(Update { changes: vec![change(15)], to: None, epoch }));
        assert_eq!(Subscription::new(&log, Some(at(20))).next().await, update(vec![change(15)], 20));
        append(&log, 20, 21, &[], epoch);
        assert_eq!(
            Subscription::new(&log, Some(at(21))).next().await,
            update(vec![], 21),
            "the hint was sent before that token was"
        );
    }

    #[tokio::test]
    async fn a_gap_and_a_new_epoch_change_everything() {
        let (log, epoch) = log_from(10);
        let mut live = Subscription::new(&log, Some(at(10)));
        assert_eq!(live.next().await, update(vec![], 10));
        append(&log, 12, 13, &[13], epoch);
        assert_eq!(live.next().await, update(vec![everything(12)], 12));
        assert_eq!(live.next().await, update(vec![change(13)], 13));
        assert_eq!(Subscription::new(&log, Some(at(11))).next().await, update(vec![everything(13)], 13));
        append(&log, 5, 6, &[], Epoch(1));
        assert_eq!(live.next().await, update_in(Epoch(1), vec![everything(5)], 5));
    }

    #[tokio::test]
    async fn a_subscription_that_lags_is_replayed_from_its_last_position() {
        let (log, epoch) = log_from(0);
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
    async fn a_subscription_that_lags_across_epochs_receives_a_change_of_everything() {
        let (log, epoch) = log_from(100);
        let mut slow = Subscription::new(&log, None);
        assert_eq!(slow.next().await, update(vec![], 100));
        append(&log, 100, 110, &[], epoch);
        // The source's time goes back, and passes the last position of the subscription.
        let last = 50 + 2 * u64::try_from(BEHIND_MAX).unwrap_or(u64::MAX);
        for moment in 51..=last {
            append(&log, moment - 1, moment, &[moment], Epoch(1));
        }
        assert_eq!(slow.next().await, update_in(Epoch(1), vec![everything(last)], last));
        append(&log, last, last + 1, &[last + 1], Epoch(1));
        assert_eq!(slow.next().await, update_in(Epoch(1), vec![change(last + 1)], last + 1), "and then it goes on");
    }

    #[tokio::test]
    async fn a_moment_that_may_be_of_an_earlier_epoch_is_none_to_continue_from() {
        let (log, epoch) = log_from(100);
        append(&log, 100, 110, &[115], epoch);
        append(&log, 50, 60, &[55], Epoch(1));
        let sent_early = Subscription::new(&log, Some(at(112))).next().await;
        assert_eq!(sent_early, update_in(Epoch(1), vec![everything(60)], 60));
        // The time of the new epoch passes that of the old one.
        append(&log, 60, 120, &[105, 118], Epoch(1));
        for undone in [50, 105, 110, 115] {
            let first = Subscription::new(&log, Some(at(undone))).next().await;
            assert_eq!(first, update_in(Epoch(1), vec![everything(120)], 120), "since {undone}");
        }
        let later = Subscription::new(&log, Some(at(116))).next().await;
        assert_eq!(later, update_in(Epoch(1), vec![change(118)], 120), "never a moment of the old epoch");
        assert_eq!(Subscription::new(&log, None).next().await, update_in(Epoch(1), vec![], 120));
    }

    #[tokio::test]
    async fn only_the_latest_changes_are_kept() {
        let (log, epoch) = log_from(0);
        let last = u64::try_from(CHANGES_MAX).unwrap_or(u64::MAX) + 10;
        append(&log, 0, last, &(1..=last).collect::<Vec<_>>(), epoch);
        assert_eq!(lock(&log).kept.len(), CHANGES_MAX);
        assert_eq!(Subscription::new(&log, Some(at(9))).next().await, update(vec![everything(last)], last));
        let kept = Subscription::new(&log, Some(at(10))).next().await;
        assert_eq!(kept.changes.len(), CHANGES_MAX);
    }
}
