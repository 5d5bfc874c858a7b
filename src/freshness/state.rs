//! The freshness of one instance: its watermark, newest moment, floor, marks and probes. There is one for each process,
//! shared by everything that caches, loads, applies changes or answers.
//!
//! Readers take no lock, except that of the probes. Writers take turns. [`Freshness`] does not decide what a request
//! requires: `check` does.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Change, ChangeBatch, Changed, LocalTime, Moment, Probe, Probes, Progress,
    marks::{Marks, Target},
};
use crate::{
    fact::{Fact, FactKey},
    question::{CollectionId, Id, LookupId, Subject},
    schema::{Lookup, Schema},
};

/// 2^20 marks of keys, documents and collections: 8 MiB when all of them are in use.
const MARK_BITS: u32 = 20;

/// 2^14 marks of subjects. Only invalidations set them.
const SUBJECT_MARK_BITS: u32 = 14;

/// A fact of more documents than this is tested against the mark of its collection, not against the marks of the documents.
pub(super) const DOCUMENTS_TESTED_MAX: usize = 64;

/// The period of the source's time that a moment belongs to. A new epoch begins when the source's time turns out to have
/// gone back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(pub(crate) u64);

/// How the facts of a lookup are marked.
#[derive(Clone, Copy, Debug)]
struct Marked {
    collection: CollectionId,
    /// Whether it looks documents up by `_id`.
    is_by_id: bool,
    /// Whether it is a reverse lookup. Then a mark may stand for all of its keys.
    is_reverse: bool,
}

/// The watermark, the newest moment, the floor, the marks and the probes of an instance.
#[derive(Debug)]
pub struct Freshness {
    watermark: AtomicU64,
    floor: AtomicU64,
    newest_moment: AtomicU64,
    epoch: AtomicU64,
    marks: Marks,
    /// By collection: facts of the collection with an earlier stamp do not count.
    collection_floors: Box<[AtomicU64]>,
    subject_marks: Marks,
    /// No earlier than any mark of a subject.
    newest_subject_mark: AtomicU64,
    probes: RwLock<Probes>,
    /// By lookup.
    lookups: Box<[Marked]>,
    /// Held while writing, so that writers take turns.
    writer: Mutex<()>,
}

impl Marked {
    fn of(lookup: &Lookup) -> Self {
        let Lookup { collection_id, is_reverse, .. } = lookup;
        Self { collection: *collection_id, is_by_id: lookup.is_by_id(), is_reverse: *is_reverse }
    }
}

impl Freshness {
    /// The freshness of an instance that knows nothing yet. No fact is fresh enough until a probe is recorded.
    #[must_use]
    pub fn new(schema: &Schema) -> Self {
        Self {
            watermark: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            newest_moment: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            marks: Marks::new(MARK_BITS),
            collection_floors: schema.collections().map(|_| AtomicU64::new(0)).collect(),
            subject_marks: Marks::new(SUBJECT_MARK_BITS),
            newest_subject_mark: AtomicU64::new(0),
            probes: RwLock::new(Probes::default()),
            lookups: schema.lookups().map(|(_, lookup)| Marked::of(lookup)).collect(),
            writer: Mutex::new(()),
        }
    }

    /// The moment up to which every change has been applied.
    #[must_use]
    pub fn watermark(&self) -> Moment {
        Moment::from_count(self.watermark.load(Ordering::Acquire))
    }

    /// The moment before which no fact counts: a fact with an earlier stamp must be read again.
    #[must_use]
    pub fn floor(&self) -> Moment {
        Moment::from_count(self.floor.load(Ordering::Acquire))
    }

    /// The newest moment this instance knows of. It is no earlier than any mark whose writing was complete: a writer sets a
    /// mark, then raises this moment. So none of these marks outdates a fact that is read as of it.
    #[must_use]
    pub fn newest_moment(&self) -> Moment {
        Moment::from_count(self.newest_moment.load(Ordering::Acquire))
    }

    /// The current epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// Raises the newest moment. Its callers hold the writers' lock and pass moments of the current epoch only: one of an
    /// earlier epoch might never come in this one. [`Freshness::begin_at`] relies on its own caller for that.
    fn observe(&self, moment: Moment) {
        self.newest_moment.fetch_max(moment.as_u64(), Ordering::AcqRel);
    }

    /// The moment that a cached fact is true as of, or none if the fact no longer counts: its stamp is earlier than the
    /// floor, one of its marks or `subject_mark`, or a new epoch has begun.
    ///
    /// `subject_mark` is what [`Freshness::subject_mark`] returned for the subject of the request. `epoch` is the epoch
    /// from before the fact was looked up.
    #[must_use]
    pub fn as_of(&self, fact: &Fact, subject_mark: Moment, epoch: Epoch) -> Option<Moment> {
        let stamp = fact.stamp();
        // The watermark is loaded before the marks are tested: every change up to it is marked by then, so a change that is
        // marked only after the test is later than it. The subject's mark was loaded even earlier, when the request arrived.
        // A mark that was set since then is of a later invalidation, which the request need not take into account.
        let watermark = self.watermark();
        let counts = stamp >= subject_mark && stamp >= self.floor() && stamp >= self.mark_of(fact);
        (counts && epoch == self.epoch()).then(|| stamp.max(watermark))
    }

    /// Whether a fact may lack a change that was already marked when `known` was the newest moment. That may be so if its stamp
    /// is earlier than `known` and earlier than its mark. A mark of a later change may hide that of an earlier one, so a fact
    /// with such a mark is treated as outdated too.
    #[must_use]
    pub fn is_outdated(&self, fact: &Fact, known: Moment) -> bool {
        fact.stamp() < known && fact.stamp() < self.mark_of(fact)
    }

    /// The last moment at which a fact may have changed, according to the marks of its key, documents and collection.
    fn mark_of(&self, fact: &Fact) -> Moment {
        let (lookup, id) = (fact.lookup(), fact.id());
        let key = self.key_mark(lookup, id);
        // A fact that is found by `_id` is of one document, whose mark is that of the key.
        let Some(Marked { collection, is_by_id: false, .. }) = self.lookups.get(lookup.index()).copied() else {
            return key;
        };
        // That a whole fact is over its limit only leads to the fact that is filtered to the subject. That one decides the same
        // if no more than a fact may contain is left.
        if fact.is_over_limit() && fact.subject().is_none() {
            return key;
        }
        let documents = fact.documents_beside_key();
        if fact.is_partial() || documents.clone().nth(DOCUMENTS_TESTED_MAX).is_some() {
            return key.max(self.marks.get(Target::Collection(collection)));
        }
        documents.map(|id| self.marks.get(Target::Document(collection, id))).fold(key, Moment::max)
    }

    /// The moment before which no fact of a collection counts.
    fn collection_floor(&self, collection: CollectionId) -> Moment {
        let floor = self.collection_floors.get(usize::from(collection.0));
        Moment::from_count(floor.map_or(u64::MAX, |floor| floor.load(Ordering::Acquire)))
    }

    /// The last moment at which what a lookup finds for `id` changed, according to the mark of its key and the floor of its
    /// collection.
    #[must_use]
    pub fn key_mark(&self, lookup: LookupId, id: &Id) -> Moment {
        let Some(Marked { collection, is_by_id, is_reverse }) = self.lookups.get(lookup.index()).copied() else {
            return Moment::from_count(u64::MAX);
        };
        let target = if is_by_id { Target::DocumentById(collection, id) } else { Target::Key(lookup, id) };
        let mark = self.marks.get(target).max(self.collection_floor(collection));
        if is_reverse { mark.max(self.marks.get(Target::Key(lookup, &FactKey::id_of_all_reverse()))) } else { mark }
    }

    /// Whether a change is one of a key that only lists look up. The change of its document comes with it.
    #[must_use]
    pub fn is_of_lists(&self, changed: &Changed) -> bool {
        match changed {
            Changed::Key(key) => self.lookups.get(key.lookup.index()).is_some_and(|marked| marked.is_reverse),
            Changed::Everything | Changed::Collection(_) | Changed::Document { .. } | Changed::Subject(_) => false,
        }
    }

    /// The last moment at which a subject was invalidated, or a later one.
    #[must_use]
    pub fn subject_mark(&self, subject: &Subject) -> Moment {
        self.subject_marks.get(Target::Subject(subject))
    }

    /// The last moment at which any subject was invalidated: for a request that may turn out to concern any of them.
    #[must_use]
    pub fn newest_subject_mark(&self) -> Moment {
        Moment::from_count(self.newest_subject_mark.load(Ordering::Acquire))
    }

    /// Applies a change batch of `epoch`: first its marks, then the newest moment, the floor and the watermark. Returns
    /// false, and applies nothing, if that is no longer the current epoch.
    pub fn apply(&self, change_batch: &ChangeBatch, epoch: Epoch) -> bool {
        let _one_by_one = self.lock_writer();
        if epoch != self.epoch() {
            return false;
        }
        self.mark_all(&change_batch.changes);
        let progress = Progress { watermark: self.watermark(), floor: self.floor() };
        let progress = progress.apply(change_batch.from, change_batch.to);
        self.observe(progress.watermark);
        self.floor.store(progress.floor.as_u64(), Ordering::Release);
        // Last: a reader that loads this watermark finds everything up to it marked.
        self.watermark.store(progress.watermark.as_u64(), Ordering::Release);
        true
    }

    /// Marks changes of `epoch` without a claim that they are complete: the watermark stays where it is. Returns false,
    /// and marks nothing, if that is no longer the current epoch.
    pub fn mark(&self, changes: &[Change], epoch: Epoch) -> bool {
        let _one_by_one = self.lock_writer();
        let is_current = epoch == self.epoch();
        if is_current {
            self.mark_all(changes);
        }
        is_current
    }

    fn mark_all(&self, changes: &[Change]) {
        for Change { at, what } in changes {
            match what {
                Changed::Everything => {
                    self.floor.fetch_max(at.as_u64(), Ordering::AcqRel);
                }
                Changed::Collection(collection) => {
                    // A collection that the schema does not have: then anything may have changed.
                    let floor = self.collection_floors.get(usize::from(collection.0)).unwrap_or(&self.floor);
                    floor.fetch_max(at.as_u64(), Ordering::AcqRel);
                }
                Changed::Document { collection, id } => {
                    self.marks.mark(Target::Document(*collection, id), *at);
                    self.marks.mark(Target::Collection(*collection), *at);
                }
                Changed::Key(key) => {
                    let marked = self.lookups.get(key.lookup.index());
                    let is_of_all =
                        marked.is_some_and(|marked| marked.is_reverse) && *key == FactKey::all_reverse(key.lookup);
                    let target = match marked {
                        Some(Marked { collection, is_by_id: true, .. }) if !is_of_all => {
                            Target::DocumentById(*collection, &key.id)
                        }
                        Some(_) | None => Target::Key(key.lookup, &key.id),
                    };
                    self.marks.mark(target, *at);
                }
                Changed::Subject(subject) => {
                    self.subject_marks.mark(Target::Subject(subject), *at);
                    self.newest_subject_mark.fetch_max(at.as_u64(), Ordering::AcqRel);
                }
            }
            // After the mark: a reader that knows this moment also finds the mark.
            self.observe(*at);
        }
    }

    /// Starts at a moment before which nothing is known: raises the newest moment, the floor and the watermark to it. It
    /// does not check the epoch.
    pub fn begin_at(&self, moment: Moment) {
        let _one_by_one = self.lock_writer();
        self.observe(moment);
        self.floor.fetch_max(moment.as_u64(), Ordering::AcqRel);
        self.watermark.fetch_max(moment.as_u64(), Ordering::AcqRel);
    }

    /// Records an answered probe. `watermark` and `epoch` are those from before the probe was sent; a probe of an earlier
    /// epoch is dropped.
    ///
    /// A source cannot return a moment before that watermark, unless it is another source or an older copy. If it does,
    /// its time has gone back: all marks and probes are cleared, `forget` is called while no fact counts, and a new epoch
    /// begins at the probe's moment. Returns whether that happened.
    pub fn record_probe(&self, probe: Probe, watermark: Moment, epoch: Epoch, forget: impl FnOnce()) -> bool {
        let _one_by_one = self.lock_writer();
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
            self.collection_floors.iter().for_each(|floor| floor.store(0, Ordering::Release));
            self.subject_marks.clear();
            self.newest_subject_mark.store(0, Ordering::Release);
            self.watermark.store(probe.moment.as_u64(), Ordering::Release);
            self.newest_moment.store(probe.moment.as_u64(), Ordering::Release);
            self.floor.store(probe.moment.as_u64(), Ordering::Release);
            // Begins a second new epoch: a reader that loaded the first one may have loaded the old watermark with it.
            self.epoch.fetch_add(1, Ordering::AcqRel);
        }
        self.observe(probe.moment);
        probes.record(probe);
        has_gone_back
    }

    /// Returns a moment: a fact that is true as of it shows every write acknowledged before `since`. None if no probe sent at
    /// `since` or later was answered.
    #[must_use]
    pub fn required_moment(&self, since: LocalTime) -> Option<Moment> {
        self.probes().required_moment(since)
    }

    /// The latest known local time such that a fact true as of `moment` shows every write acknowledged before it. None if
    /// `moment` is earlier than the moments of all recorded probes.
    #[must_use]
    pub fn fresh_since(&self, moment: Moment) -> Option<LocalTime> {
        self.probes().fresh_since(moment)
    }

    /// An upper bound on the age, at the local time `now`, of a fact that is true as of `moment`. If that is earlier than the
    /// moments of all recorded probes, it is the time since this machine booted.
    #[must_use]
    pub fn age(&self, moment: Moment, now: LocalTime) -> Duration {
        now.since(self.fresh_since(moment).unwrap_or_default())
    }

    /// The last answered probe that was sent at `time` or before.
    #[must_use]
    pub fn probe_sent_before(&self, time: LocalTime) -> Option<Probe> {
        self.probes().sent_before(time)
    }

    /// The answered probe that was sent last.
    #[must_use]
    pub fn newest_probe(&self) -> Option<Probe> {
        self.probes().newest()
    }

    fn probes(&self) -> std::sync::RwLockReadGuard<'_, Probes> {
        self.probes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
