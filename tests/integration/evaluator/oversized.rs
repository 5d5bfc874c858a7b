//! Documents in memory of which some whole facts are over their limit, so that the facts that are filtered to the subject are read in
//! their place. The documents themselves are few.
//!
//! The source guesses which whole facts are large, right or wrong. Where it is wrong, some filtered facts cannot be read, and others
//! cannot be relied on.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{DefaultHasher, Hash, Hasher as _},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bson::{Bson, doc};
use permcached::{
    fact::{Fact, FactKey},
    freshness::Moment,
    question::LookupId,
    schema::Schema,
    source::{Deadline, Source, SourceError, documents::Documents},
};

use super::Seen;
use crate::support::wrapper::{Wrapped, Wrapper};

/// Documents with some whole facts over their limit.
pub struct Oversized {
    schema: Arc<Schema>,
    documents: Arc<Documents>,
    /// Random bytes. Something is true about a key if the byte at their hash is large, or if there are no bytes.
    chosen: Vec<u8>,
    guessed: Mutex<Guessed>,
}

/// The facts that were read because of guesses.
#[derive(Default)]
struct Guessed {
    /// The keys of filtered facts that were read.
    filtered: HashSet<FactKey>,
    /// Filtered facts that were asked for although the whole ones are not over their limit, and that could not be read or relied on.
    unfit: BTreeSet<FactKey>,
    /// The whole facts whose sizes were learned, and whether they are over their limit.
    learned: HashSet<(FactKey, bool)>,
}

/// Something about a key.
#[derive(Clone, Copy, Debug, Hash)]
enum About {
    IsOverLimit,
    IsExpected,
    CannotBeRead,
    CannotBeReliedOn,
    IsReadTogether,
}

impl Oversized {
    pub fn new(schema: &Arc<Schema>, documents: Arc<Documents>, chosen: &[u8]) -> Wrapped<Self> {
        let (schema, chosen) = (Arc::clone(schema), chosen.to_vec());
        Wrapped(Self { schema, documents, chosen, guessed: Mutex::default() })
    }

    /// Whether something is so for a key, by the bytes that are at least `least`.
    fn is(&self, about: About, of: impl Hash, least: u8) -> bool {
        let mut hasher = DefaultHasher::new();
        (about, of).hash(&mut hasher);
        let place = usize::try_from(hasher.finish() >> 1).expect("64 bits") % self.chosen.len().max(1);
        self.chosen.get(place).is_none_or(|byte| *byte >= least)
    }

    fn is_over_limit(&self, key: &FactKey) -> bool {
        key.subject.is_none() && self.is(About::IsOverLimit, key, 100)
    }

    /// The fact that was read, or what is chosen in its place.
    fn replaced(&self, key: FactKey, fact: Fact) -> (FactKey, Result<Fact, SourceError>) {
        let mut guessed = self.guessed.lock().expect("no panic before");
        let whole = FactKey::whole(key.lookup, key.id.clone());
        let is_large = self.is_over_limit(&whole);
        if key.subject.is_none() {
            let fact = if is_large { Fact::over_limit(key.clone(), fact.stamp()) } else { fact };
            return (key, Ok(fact));
        }
        guessed.filtered.insert(key.clone());
        if is_large {
            return (key, Ok(fact));
        }
        if self.is(About::CannotBeRead, &key, 170) {
            guessed.unfit.insert(key.clone());
            return (key, Err(SourceError::TooMuch));
        }
        let odd = self.odd(&key, fact.stamp());
        if odd.is_doubtful() && self.is(About::CannotBeReliedOn, &key, 128) {
            guessed.unfit.insert(key.clone());
            return (key, Ok(odd));
        }
        (key, Ok(fact))
    }

    /// A fact of a document in which every value is of a wrong type.
    fn odd(&self, key: &FactKey, stamp: Moment) -> Fact {
        let lookup = self.schema.lookup(key.lookup);
        let mut document = doc! { "_id": "odd" };
        for field in lookup.projection.iter().filter(|field| &***field != "_id" && lookup.by.top() != &***field) {
            document.insert(&**field, Bson::MaxKey);
        }
        Fact::read(&self.schema, key.clone(), stamp, &[&document])
    }

    /// Counts what was guessed. A request learns the size of one fact in each of its rounds.
    pub fn count(&self, seen: &mut Seen) {
        let guessed = self.guessed.lock().expect("no panic before");
        for (key, is_large) in &guessed.learned {
            assert!(key.subject.is_none() && *is_large == self.is_over_limit(key), "{key:?} is learned as {is_large}");
        }
        for key in &guessed.filtered {
            let whole = FactKey::whole(key.lookup, key.id.clone());
            if self.is_over_limit(&whole) {
                seen.presumed_rightly += u32::from(self.expects_large(&whole, false));
            } else if guessed.unfit.contains(key) {
                seen.presumed_unfit += 1;
            } else if self.may_stand_for_whole(key.lookup) {
                seen.presumed_wrongly += 1;
                seen.learned += u32::from(guessed.learned.contains(&(whole, false)));
            }
        }
    }
}

#[async_trait]
impl Wrapper for Oversized {
    fn inner(&self) -> &dyn Source {
        &*self.documents
    }

    async fn load(
        &self,
        keys: Vec<FactKey>,
        if_large: &[FactKey],
        at: Moment,
        deadline: Deadline,
    ) -> Vec<(FactKey, Result<Fact, SourceError>)> {
        let is_together = |filtered: &&FactKey| {
            let whole = FactKey::whole(filtered.lookup, filtered.id.clone());
            keys.contains(&whole) && self.is_over_limit(&whole) && self.is(About::IsReadTogether, *filtered, 128)
        };
        let all = keys.iter().chain(if_large.iter().filter(is_together)).cloned().collect();
        let loaded = self.documents.load(all, &[], at, deadline).await.into_iter();
        loaded.map(|(key, fact)| self.replaced(key, fact.expect("documents in memory are always there"))).collect()
    }

    fn expects_large(&self, key: &FactKey, _: bool) -> bool {
        self.is(About::IsExpected, key, 128)
    }

    fn may_stand_for_whole(&self, lookup: LookupId) -> bool {
        self.is(About::IsExpected, lookup, 100)
    }

    fn learn_size(&self, key: &FactKey, is_large: bool) {
        self.guessed.lock().expect("no panic before").learned.insert((key.clone(), is_large));
    }
}
