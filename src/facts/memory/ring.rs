//! The facts of a shard in a ring, and CLOCK, which chooses those to evict: a hand goes round the ring and evicts the first
//! fact that was not used since the hand last passed it. That is nearly as good as evicting the least recently used fact,
//! and all that a hit does is to set a bit, which is mostly set already: there is no queue to reorder.

use crate::fact::Fact;

/// How many facts the hand passes at most before it evicts the next, used or not. So the time of an insertion is bounded,
/// even if every fact was used.
const PASSED_MAX: usize = 1_024;

/// The facts of a shard, the CLOCK hand, and the bytes that they take.
#[derive(Debug, Default)]
pub(super) struct Ring {
    facts: Vec<Fact>,
    /// The bytes of the facts, without the ring's own.
    facts_bytes: usize,
    /// The place that the hand has reached.
    hand: usize,
    evictions: usize,
}

impl Ring {
    /// The bytes of the facts and of the ring.
    pub(super) fn bytes(&self) -> usize {
        self.facts_bytes + self.slots_bytes()
    }

    /// The bytes of the ring alone.
    pub(super) fn slots_bytes(&self) -> usize {
        self.facts.capacity() * size_of::<Fact>()
    }

    /// The most bytes that one more fact adds to the ring: while a full ring is copied to a larger one, both exist.
    pub(super) fn growth(&self) -> usize {
        let (count, capacity) = (self.facts.len(), self.facts.capacity());
        if count < capacity { 0 } else { (count + Self::more(count)) * size_of::<Fact>() }
    }

    /// By how many places a full ring grows. An eighth keeps the unused places few.
    fn more(count: usize) -> usize {
        count / 8 + 4
    }

    /// The number of facts.
    pub(super) fn count(&self) -> usize {
        self.facts.len()
    }

    /// The number of facts evicted so far.
    pub(super) fn evictions(&self) -> usize {
        self.evictions
    }

    /// A random fact.
    pub(super) fn random(&self) -> Option<&Fact> {
        fastrand::choice(&self.facts)
    }

    /// Adds a fact.
    pub(super) fn push(&mut self, fact: Fact) {
        let count = self.facts.len();
        if count == self.facts.capacity() {
            self.facts.reserve_exact(Self::more(count));
        }
        fact.set_place(count);
        self.facts_bytes += fact.memory();
        self.facts.push(fact);
    }

    /// Puts a fact in the place of another, and regards it as used if the other was.
    pub(super) fn replace(&mut self, old: &Fact, new: Fact) {
        let Some(place) = self.place_of(old) else { return self.push(new) };
        new.set_place(place);
        if old.take_used() {
            new.set_used();
        }
        self.facts_bytes = self.facts_bytes - old.memory() + new.memory();
        if let Some(fact) = self.facts.get_mut(place) {
            *fact = new;
        }
    }

    /// Removes a fact.
    pub(super) fn remove(&mut self, fact: &Fact) {
        if let Some(place) = self.place_of(fact) {
            drop(self.remove_at(place));
        }
    }

    /// Removes the first fact from the hand on that was not used since the hand last passed it, and returns it. Returns
    /// none only if there is no fact.
    pub(super) fn evict(&mut self) -> Option<Fact> {
        for _ in 0..PASSED_MAX {
            let hand = self.hand();
            if !self.facts.get(hand)?.take_used() {
                break;
            }
            self.hand += 1;
        }
        let hand = self.hand();
        let evicted = self.remove_at(hand)?;
        // The newest fact is there now. The hand comes to it last.
        self.hand += 1;
        self.evictions += 1;
        Some(evicted)
    }

    /// Removes all facts and returns them.
    pub(super) fn clear(&mut self) -> Vec<Fact> {
        let evictions = self.evictions;
        std::mem::replace(self, Self { evictions, ..Self::default() }).facts
    }

    fn hand(&mut self) -> usize {
        if self.hand >= self.facts.len() {
            self.hand = 0;
        }
        self.hand
    }

    /// Where a fact is. A fact that is also in another cache may know its place there instead.
    fn place_of(&self, fact: &Fact) -> Option<usize> {
        let is_it = |other: &Fact| other.is_same(fact);
        let known = fact.place().filter(|place| self.facts.get(*place).is_some_and(is_it));
        known.or_else(|| self.facts.iter().position(is_it))
    }

    /// Removes the fact in a place. The last fact takes its place.
    fn remove_at(&mut self, place: usize) -> Option<Fact> {
        if place >= self.facts.len() {
            return None;
        }
        let removed = self.facts.swap_remove(place);
        if let Some(moved) = self.facts.get(place) {
            moved.set_place(place);
        }
        self.facts_bytes -= removed.memory();
        Some(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fact::FactKey,
        moment::Moment,
        question::{Id, LookupId},
    };

    fn fact(number: i64) -> Fact {
        Fact::absent(FactKey::whole(LookupId(0), Id::Integer(number)), Moment::default())
    }

    #[test]
    fn each_fact_knows_its_place() {
        let mut ring = Ring::default();
        for number in 0..200 {
            ring.push(fact(number));
            match number % 5 {
                0 => drop(ring.evict()),
                1 => ring.remove(&ring.random().cloned().unwrap()),
                2 => ring.replace(&ring.random().cloned().unwrap(), fact(-number)),
                _ => {}
            }
            for (place, fact) in ring.facts.iter().enumerate() {
                assert_eq!(fact.place(), Some(place));
            }
        }
        assert_eq!((ring.count(), ring.evictions()), (120, 40));
        assert_eq!(ring.bytes() - ring.slots_bytes(), ring.facts.iter().map(Fact::memory).sum::<usize>());
    }

    #[test]
    fn a_fact_that_replaces_one_in_use_counts_as_used() {
        let mut ring = Ring::default();
        let facts = [fact(0), fact(1), fact(2)];
        for fact in &facts {
            ring.push(fact.clone());
        }
        facts[0].set_used();
        let new = fact(0);
        ring.replace(&facts[0], new.clone());
        ring.replace(&facts[1], fact(1));
        // The hand comes to the new fact first, and passes it.
        assert_eq!(ring.evict().unwrap().id(), &Id::Integer(1));
        assert!(ring.evict().is_some() && ring.evict().is_some());
        assert!(ring.evict().is_none());
    }

    #[test]
    fn the_hand_passes_a_bounded_number_of_facts_in_use() {
        let mut ring = Ring::default();
        let facts: Vec<Fact> = (0..5_000).map(fact).collect();
        for fact in &facts {
            fact.set_used();
            ring.push(fact.clone());
        }
        assert!(ring.evict().is_some_and(|evicted| evicted.is_same(&facts[PASSED_MAX])));
    }
}
