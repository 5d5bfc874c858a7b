//! How many bytes large requests and their responses may have at once, in all and of one caller.
//!
//! A message takes bytes as they arrive, and waits for more when they are used up. So that messages that have arrived in part
//! cannot keep each other waiting for ever, the last part of each space is for one of them at a time: it keeps that turn until
//! its message is complete.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// A number of bytes in use, and the most that there may be.
#[derive(Debug)]
struct Space {
    used: AtomicUsize,
    max: usize,
    /// How many of them only the message that has the turn may take.
    last: usize,
    /// The turn to take them.
    turn: Arc<Semaphore>,
    /// Notifies the message that has the turn that there are fewer bytes in use.
    freed: Notify,
}

/// The bytes that one caller may have, which are part of those of all. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct ByteBudget {
    own: Arc<Space>,
    all: Arc<Space>,
}

impl ByteBudget {
    /// The budget of all callers, for one who may use the whole of it. Its last part has room for one message.
    pub(super) fn new(bytes_max: usize, message_bytes_max: usize) -> Self {
        Self { own: Space::new(bytes_max, message_bytes_max), all: Space::new(bytes_max, message_bytes_max) }
    }

    /// The budget of another caller, who may use this much of the same whole.
    pub(super) fn part(&self, bytes_max: usize) -> Self {
        Self { own: Space::new(bytes_max, self.all.last), all: Arc::clone(&self.all) }
    }

    /// Takes no bytes yet.
    pub(super) fn take(&self) -> TakenBytes {
        TakenBytes { budget: self.clone(), bytes: 0, turn: None }
    }
}

impl Space {
    fn new(max: usize, last: usize) -> Arc<Self> {
        let turn = Arc::new(Semaphore::new(1));
        Arc::new(Self { used: AtomicUsize::new(0), max, last: last.min(max), turn, freed: Notify::new() })
    }

    fn try_add(&self, bytes: usize, has_turn: bool) -> bool {
        let max = if has_turn { self.max } else { self.max - self.last };
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn subtract(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.freed.notify_one();
    }

    /// Adds bytes, for the message that has the turn, as soon as there is room for them.
    async fn add_last(&self, bytes: usize) {
        while !self.try_add(bytes, true) {
            self.freed.notified().await;
        }
    }
}

/// Bytes that are taken from a budget until this is dropped.
#[derive(Debug)]
pub(super) struct TakenBytes {
    budget: ByteBudget,
    bytes: usize,
    /// The turn to take the last part: of its own space, and of that of all.
    turn: Option<[OwnedSemaphorePermit; 2]>,
}

impl TakenBytes {
    /// Takes bytes until it has so many, if they are left.
    pub(super) fn try_grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let ByteBudget { own, all } = &self.budget;
        let has_turn = self.turn.is_some();
        if !own.try_add(more, has_turn) {
            return false;
        }
        if !all.try_add(more, has_turn) {
            own.subtract(more);
            return false;
        }
        self.bytes += more;
        true
    }

    /// Takes bytes until it has so many. Waits for its turn to take the last ones, and for others to give back theirs. If this
    /// is dropped meanwhile, it has taken none.
    pub(super) async fn grow(&mut self, bytes: usize) {
        if self.turn.is_none() {
            let turn = |space: &Space| Arc::clone(&space.turn).acquire_owned();
            // In this order, so that no two messages wait for each other. Nobody closes the semaphores.
            let Ok(own) = turn(&self.budget.own).await else { return };
            let Ok(all) = turn(&self.budget.all).await else { return };
            self.turn = Some([own, all]);
        }
        let more = bytes.saturating_sub(self.bytes);
        let ByteBudget { own, all } = &self.budget;
        own.add_last(more).await;
        let mut added = Added { space: own, bytes: more };
        all.add_last(more).await;
        added.bytes = 0;
        self.bytes += more;
    }

    /// Whether others wait until its message is complete.
    pub(super) fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// The message is complete: others have their turn.
    pub(super) fn complete(&mut self) {
        self.turn = None;
    }

    /// Takes so many bytes in place of those taken so far: those of a response in place of its request's. They may exceed the
    /// budget, as the response exists already; then none are left until there are fewer again.
    pub(super) fn replace(&mut self, bytes: usize) {
        for space in [&self.budget.own, &self.budget.all] {
            space.add(bytes);
            space.subtract(self.bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for TakenBytes {
    fn drop(&mut self) {
        self.budget.own.subtract(self.bytes);
        self.budget.all.subtract(self.bytes);
    }
}

/// Bytes that are added to a space and given back if this is dropped.
struct Added<'a> {
    space: &'a Space,
    bytes: usize,
}

impl Drop for Added<'_> {
    fn drop(&mut self) {
        self.space.subtract(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// Takes so many bytes, if they are left.
    fn taken(budget: &ByteBudget, bytes: usize) -> Option<TakenBytes> {
        let mut taken = budget.take();
        taken.try_grow(bytes).then_some(taken)
    }

    #[test]
    fn one_caller_cannot_take_the_budget_of_all() {
        let all = ByteBudget::new(10, 0);
        let (greedy, modest) = (all.part(6), all.part(6));
        let first = taken(&greedy, 6).expect("it is free");
        assert!(taken(&greedy, 1).is_none());
        let second = taken(&modest, 4).expect("the greedy one has left it");
        assert!(taken(&modest, 1).is_none(), "all together have no more");
        drop(first);
        assert!(taken(&modest, 2).is_some());
        drop(second);
        assert!(taken(&all, 10).is_some(), "everything was given back");
    }

    #[test]
    fn a_response_counts_even_if_it_exceeds_the_budget() {
        let all = ByteBudget::new(10, 0);
        let caller = all.part(6);
        let mut response = taken(&caller, 5).expect("it is free");
        response.replace(12);
        assert!(taken(&all.part(6), 1).is_none());
        response.replace(2);
        assert!(taken(&caller, 4).is_some());
        drop(response);
        assert!(taken(&all, 10).is_some());
    }

    /// Each has half of its message, and the rest of all four would exceed the budget.
    #[test]
    fn of_messages_that_wait_for_bytes_one_is_completed_after_the_other() {
        let all = ByteBudget::new(16, 4);
        let caller = all.part(12);
        let mut messages: Vec<_> = (0..4).map(|_| taken(&caller, 2).expect("it is free")).collect();
        assert!(messages.iter_mut().all(|message| !message.try_grow(3)), "the last part requires the turn");
        for (index, message) in messages.iter_mut().enumerate() {
            assert!(message.grow(4).now_or_never().is_some(), "{index}");
            assert!(message.has_turn());
            message.complete();
            message.replace(0);
        }
        drop(messages);
        assert!(taken(&all, 12).is_some() && taken(&caller, 8).is_some());
    }

    #[test]
    fn who_waits_goes_on_once_others_give_back_their_bytes_and_leaves_nothing_behind_if_it_does_not_wait() {
        let all = ByteBudget::new(8, 4);
        let caller = all.part(8);
        let mut first = taken(&caller, 4).expect("it is free");
        first.grow(8).now_or_never().expect("the last part is free");
        let mut second = caller.take();
        assert!(!second.try_grow(1));
        assert!(second.grow(1).now_or_never().is_none(), "the first has the turn");
        first.complete();
        assert!(second.grow(1).now_or_never().is_none(), "and all bytes");
        drop(first);
        assert!(second.grow(4).now_or_never().is_some());
        assert!(second.has_turn());
        drop(second);
        assert!(taken(&caller, 4).is_some());
    }
}
