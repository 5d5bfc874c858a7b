//! What was said last, for those who watch: from now on, or from a moment that is still in the log.
//!
//! Who cannot follow is told that it missed something, which stands for everything.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use tokio::sync::broadcast;

use crate::freshness::{Change, Changed, Epoch, Moment, Statement};

/// How many changes are kept for those who come back.
const CHANGES_MAX: usize = 65_536;

/// How many pieces of news one who watches may be behind.
const BEHIND_MAX: usize = 1_024;

/// What those who watch are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// What changed. The same may be told more than once.
    pub changes: Vec<Change>,
    /// Everything up to here has been told; nothing where that is not known.
    pub to: Option<Moment>,
}

impl News {
    /// Something was missed: anything may have changed.
    fn missed(at: Moment) -> Self {
        Self { changes: vec![Change { at, what: Changed::Everything }], to: Some(at) }
    }
}

#[derive(Debug)]
pub(super) struct Log {
    /// Changes in the order in which they were told, none of them kept whose like may have been dropped.
    kept: VecDeque<Change>,
    /// Every change later than this is kept.
    from: Option<Moment>,
    /// Everything up to here has been told.
    to: Moment,
    /// What was told early, and will be said again.
    early: HashSet<Change>,
    /// Which history it is of.
    epoch: Option<Epoch>,
    listeners: broadcast::Sender<Arc<News>>,
}

/// What somebody who begins to watch has missed, and what comes.
pub(super) struct Subscription {
    pub(super) missed: Option<News>,
    pub(super) live: broadcast::Receiver<Arc<News>>,
}

impl Default for Log {
    fn default() -> Self {
        let listeners = broadcast::Sender::new(BEHIND_MAX);
        Self { kept: VecDeque::new(), from: None, to: Moment::default(), early: HashSet::new(), epoch: None, listeners }
    }
}

impl Log {
    pub(super) fn say(&mut self, statement: Statement, epoch: Epoch) {
        let Statement { from, to, changes } = statement;
        if self.epoch != Some(epoch) {
            self.epoch = Some(epoch);
            (self.from, self.to) = (None, from);
            self.tell(News::missed(from));
        }
        if self.from.is_none() || from > self.to {
            // Nothing is known of what was before.
            self.kept.clear();
            self.from = Some(from);
        }
        self.to = self.to.max(to);
        let early = std::mem::take(&mut self.early);
        self.early = changes.iter().filter(|change| change.at > to).cloned().collect();
        let fresh: Vec<Change> = changes.into_iter().filter(|change| !early.contains(change)).collect();
        self.keep(&fresh);
        self.tell(News { changes: fresh, to: Some(self.to) });
    }

    pub(super) fn hint(&mut self, changes: Vec<Change>) {
        self.keep(&changes);
        self.tell(News { changes, to: None });
    }

    fn keep(&mut self, changes: &[Change]) {
        self.kept.extend(changes.iter().cloned());
        while self.kept.len() > CHANGES_MAX
            && let Some(dropped) = self.kept.pop_front()
        {
            self.from = self.from.max(Some(dropped.at));
        }
    }

    fn tell(&self, news: News) {
        let _nobody_watches = self.listeners.send(Arc::new(news));
    }

    pub(super) fn subscribe(&self, since: Option<Moment>) -> Subscription {
        let live = self.listeners.subscribe();
        let missed = since.map(|since| match self.from {
            Some(from) if since >= from => {
                let changes = self.kept.iter().filter(|change| change.at > since).cloned().collect();
                News { changes, to: Some(self.to) }
            }
            _ => News::missed(self.to),
        });
        Subscription { missed, live }
    }
}

/// What somebody watches.
#[derive(Debug)]
pub struct Watched {
    missed: Option<News>,
    live: broadcast::Receiver<Arc<News>>,
    /// Up to where everything was told.
    to: Moment,
}

impl Watched {
    pub(super) fn new(missed: Option<News>, live: broadcast::Receiver<Arc<News>>) -> Self {
        Self { missed, live, to: Moment::default() }
    }

    /// What comes next; nothing when there will be no more. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<News> {
        if let Some(missed) = self.missed.take() {
            self.to = missed.to.unwrap_or(self.to);
            return Some(missed);
        }
        match self.live.recv().await {
            Ok(news) => {
                self.to = news.to.unwrap_or(self.to);
                Some(News::clone(&news))
            }
            Err(broadcast::error::RecvError::Lagged(_)) => Some(News::missed(self.to)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
