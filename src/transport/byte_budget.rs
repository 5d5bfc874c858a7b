//! How many bytes large requests and their responses may have at once, in all and of one caller.
//!
//! Waits for nothing: a request for which too few are left is refused.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A number of bytes in use, and the most that there may be.
#[derive(Debug)]
struct Space {
    used: AtomicUsize,
    max: usize,
}

/// The bytes that one caller may have, which are part of those of all. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct ByteBudget {
    own: Arc<Space>,
    all: Arc<Space>,
}

impl ByteBudget {
    /// The budget of all callers, for one who may use the whole of it.
    pub(super) fn new(bytes_max: usize) -> Self {
        let all = Arc::new(Space { used: AtomicUsize::new(0), max: bytes_max });
        Self { own: Arc::new(Space { used: AtomicUsize::new(0), max: bytes_max }), all }
    }

    /// The budget of another caller, who may use this much of the same whole.
    pub(super) fn part(&self, bytes_max: usize) -> Self {
        let own = Arc::new(Space { used: AtomicUsize::new(0), max: bytes_max });
        Self { own, all: Arc::clone(&self.all) }
    }

    /// Takes so many bytes, if as many are left.
    pub(super) fn take(&self, bytes: usize) -> Option<TakenBytes> {
        if !self.own.try_add(bytes) {
            return None;
        }
        if !self.all.try_add(bytes) {
            self.own.subtract(bytes);
            return None;
        }
        Some(TakenBytes { budget: self.clone(), bytes })
    }
}

impl Space {
    fn try_add(&self, bytes: usize) -> bool {
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }

    fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    fn subtract(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that are taken from a budget until this is dropped.
#[derive(Debug)]
pub(super) struct TakenBytes {
    budget: ByteBudget,
    bytes: usize,
}

impl TakenBytes {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_cannot_take_the_budget_of_all() {
        let all = ByteBudget::new(10);
        let (greedy, modest) = (all.part(6), all.part(6));
        let first = greedy.take(6).expect("it is free");
        assert!(greedy.take(1).is_none());
        let second = modest.take(4).expect("the greedy one has left it");
        assert!(modest.take(1).is_none(), "all together have no more");
        drop(first);
        assert!(modest.take(2).is_some());
        drop(second);
        assert!(all.take(10).is_some(), "everything was given back");
    }

    #[test]
    fn a_response_counts_even_if_it_exceeds_the_budget() {
        let all = ByteBudget::new(10);
        let caller = all.part(6);
        let mut taken = caller.take(5).expect("it is free");
        taken.replace(12);
        assert!(all.part(6).take(1).is_none());
        taken.replace(2);
        assert!(caller.take(4).is_some());
        drop(taken);
        assert!(all.take(10).is_some());
    }
}
