//! What an instance knows about freshness: one for each process, shared by all who remember, load, hear and answer.
//!
//! Readers take no lock but that of the probes. Writers go one by one.

use std::sync::{
    Mutex, MutexGuard, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use super::{
    Change, ChangeBatch, Changed, LocalTime, Moment, Probe, Probes, Progress,
    marks::{Marks, Target},
};
use crate::{
    fact::Fact,
    question::{CollectionId, Id, LookupId, Subject},
    schema::Schema,
};

/// 2^20 marks of keys and documents: 8 MiB when all of them are in use.
const MARK_BITS: u32 = 20;

/// 2^14 marks of subjects, which change only where somebody says so.
const SUBJECT_MARK_BITS: u32 = 14;

/// A fact of more documents than this is not tested against each of them, but against its collection.
const DOCUMENTS_TESTED_MAX: usize = 64;

/// Which history the moments belong to. Another one begins when the source's time turns out to have gone back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(pub(crate) u64);

/// W, X, the floor, the marks and the probes of an instance.
#[derive(Debug)]
pub struct Freshness {
    /// W.
    watermark: AtomicU64,
    floor: AtomicU64,
    /// X: the newest moment known.
    newest: AtomicU64,
    epoch: AtomicU64,
    marks: Marks,
    subjects: Marks,
    probes: RwLock<Probes>,
    /// By lookup: the collection, and whether it is looked up by `_id`.
    lookups: Box<[(CollectionId, bool)]>,
    writing: Mutex<()>,
}

impl Freshness {
    /// Knows nothing yet: no fact counts as fresh.
    #[must_use]
    pub fn new(schema: &Schema) -> Self {
        Self {
            watermark: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            marks: Marks::new(MARK_BITS),
            subjects: Marks::new(SUBJECT_MARK_BITS),
            probes: RwLock::new(Probes::default()),
            lookups: schema.lookups().map(|(_, lookup)| (lookup.collection_id, lookup.is_by_id())).collect(),
            writing: Mutex::new(()),
        }
    }

    /// W: the moment up to which everything has been applied.
    #[must_use]
    pub fn watermark(&self) -> Moment {
        Moment::from_count(self.watermark.load(Ordering::Acquire))
    }

    /// Facts of earlier moments count for nothing.
    #[must_use]
    pub fn floor(&self) -> Moment {
        Moment::from_count(self.floor.load(Ordering::Acquire))
    }

    /// X: the newest moment known. What is read as of it is newer than every mark.
    #[must_use]
    pub fn newest_moment(&self) -> Moment {
        Moment::from_count(self.newest.load(Ordering::Acquire))
    }

    /// Which history the moments belong to.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Takes notice of a moment that is known to have come. Only for who writes: a moment of a history that is over would
    /// never come.
    fn observe(&self, moment: Moment) {
        self.newest.fetch_max(moment.as_u64(), Ordering::AcqRel);
    }

    /// The moment that a remembered fact is true as of, if it still counts: no mark, and not the floor, is later than what
    /// it saw. `subjects` is what [`Freshness::subject_mark`] gave for who asks; `epoch` is what it was before the fact was
    /// found.
    #[must_use]
    pub fn as_of(&self, fact: &Fact, subjects: Moment, epoch: Epoch) -> Option<Moment> {
        let stamp = fact.stamp();
        // Before the test: what is marked after it is later than this. The subject's mark was read even earlier, at the
        // request's arrival: one that came later is later than what the request may expect.
        let watermark = self.watermark();
        let counts = stamp >= subjects && stamp >= self.floor() && stamp >= self.mark_of(fact);
        (counts && epoch == self.epoch()).then(|| stamp.max(watermark))
    }

    /// Whether a fact that was read as of an earlier moment than `known` has a later mark: that, or one that it covers, may
    /// have been there when `known` was the newest moment.
    #[must_use]
    pub fn is_outdated(&self, fact: &Fact, known: Moment) -> bool {
        fact.stamp() < known && fact.stamp() < self.mark_of(fact)
    }

    /// The last moment at which a fact may have changed, as far as marks say.
    fn mark_of(&self, fact: &Fact) -> Moment {
        let (lookup, id) = (fact.lookup(), fact.id());
        let Some((collection, is_by_id)) = self.lookups.get(lookup.index()).copied() else {
            return Moment::from_count(u64::MAX);
        };
        if is_by_id {
            return self.marks.get(Target::DocumentById(collection, id));
        }
        let key = self.marks.get(Target::Key(lookup, id));
        let documents = fact.documents_beside_key();
        if fact.is_over_limit() || documents.clone().nth(DOCUMENTS_TESTED_MAX).is_some() {
            return key.max(self.marks.get(Target::Collection(collection)));
        }
        documents.map(|id| self.marks.get(Target::Document(collection, id))).fold(key, Moment::max)
    }

    /// The last moment at which what a key finds changed, as far as is known without its documents.
    #[must_use]
    pub fn key_mark(&self, lookup: LookupId, id: &Id) -> Moment {
        match self.lookups.get(lookup.index()) {
            Some((collection, true)) => self.marks.get(Target::DocumentById(*collection, id)),
            Some((_, false)) => self.marks.get(Target::Key(lookup, id)),
            None => Moment::from_count(u64::MAX),
        }
    }

    /// The last moment at which a subject was invalidated, or later.
    #[must_use]
    pub fn subject_mark(&self, subject: &Subject) -> Moment {
        self.subjects.get(Target::Subject(subject))
    }

    /// Applies a statement: first what changed, then how far it reaches. One of another epoch is not applied.
    pub fn apply(&self, change_batch: &ChangeBatch, epoch: Epoch) -> bool {
        let _one_by_one = self.write();
        if epoch != self.epoch() {
            return false;
        }
        self.mark_all(&change_batch.changes);
        let progress = Progress { watermark: self.watermark(), floor: self.floor() };
        let heard = progress.apply(change_batch.from, change_batch.to);
        self.observe(heard.watermark);
        self.floor.store(heard.floor.as_u64(), Ordering::Release);
        // Last: whoever loads it finds all that came before it marked.
        self.watermark.store(heard.watermark.as_u64(), Ordering::Release);
        true
    }

    /// Marks changes, of which nothing says that they are all there were. Those of another epoch are not marked.
    pub fn mark(&self, changes: &[Change], epoch: Epoch) -> bool {
        let _one_by_one = self.write();
        let is_current = epoch == self.epoch();
        if is_current {
            self.mark_all(changes);
        }
        is_current
    }

    fn mark_all(&self, changes: &[Change]) {
        for Change { at, what } in changes {
            // A reader that misses the mark must not know the moment either.
            match what {
                Changed::Everything => {
                    self.floor.fetch_max(at.as_u64(), Ordering::AcqRel);
                }
                Changed::Document { collection, id } => {
                    self.marks.mark(Target::Document(*collection, id), *at);
                    self.marks.mark(Target::Collection(*collection), *at);
                }
                Changed::Key(key) => match self.lookups.get(key.lookup.index()) {
                    Some((collection, true)) => self.marks.mark(Target::DocumentById(*collection, &key.id), *at),
                    _ => self.marks.mark(Target::Key(key.lookup, &key.id), *at),
                },
                Changed::Subject(subject) => self.subjects.mark(Target::Subject(subject), *at),
            }
            self.observe(*at);
        }
    }

    /// Begins to hear at a moment of which nothing is known before it: W and the floor are raised to it.
    pub fn begin_at(&self, moment: Moment) {
        let _one_by_one = self.write();
        self.observe(moment);
        self.floor.fetch_max(moment.as_u64(), Ordering::AcqRel);
        self.watermark.fetch_max(moment.as_u64(), Ordering::AcqRel);
    }

    /// Takes in a probe that was answered. `watermark` is W as it was before the probe was sent, in `epoch`: the source's time
    /// cannot be earlier, unless it is another source or an older copy of it. Then `forget` is called while nothing counts,
    /// and a new epoch begins at the probe's moment. Says whether that happened.
    pub fn record_probe(&self, probe: Probe, watermark: Moment, epoch: Epoch, forget: impl FnOnce()) -> bool {
        let _one_by_one = self.write();
        if epoch != self.epoch() {
            return false;
        }
        let mut probes = self.probes.write().unwrap_or_else(PoisonError::into_inner);
        let has_gone_back = probe.moment < watermark;
        if has_gone_back {
            self.epoch.fetch_add(1, Ordering::AcqRel);
            self.floor.store(u64::MAX, Ordering::Release);
            *probes = Probes::default();
            forget();
            self.marks.clear();
            self.subjects.clear();
            self.watermark.store(probe.moment.as_u64(), Ordering::Release);
            self.newest.store(probe.moment.as_u64(), Ordering::Release);
            self.floor.store(probe.moment.as_u64(), Ordering::Release);
            // Again: who began to read in between may have seen W as it was.
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        self.observe(probe.moment);
        probes.record(probe);
        has_gone_back
    }

    /// The moment that a fact must be true as of to be no older than `since`; none if no probe was sent since then.
    #[must_use]
    pub fn required_moment(&self, since: LocalTime) -> Option<Moment> {
        self.probes().required_moment(since)
    }

    /// The local time that a fact as of this moment is no older than.
    #[must_use]
    pub fn fresh_since(&self, moment: Moment) -> Option<LocalTime> {
        self.probes().fresh_since(moment)
    }

    /// The last probe that was sent at this time or before, and answered.
    #[must_use]
    pub fn probe_sent_before(&self, time: LocalTime) -> Option<Probe> {
        self.probes().sent_before(time)
    }

    /// The last probe that was answered.
    #[must_use]
    pub fn newest_probe(&self) -> Option<Probe> {
        self.probes().newest()
    }

    fn probes(&self) -> std::sync::RwLockReadGuard<'_, Probes> {
        self.probes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
