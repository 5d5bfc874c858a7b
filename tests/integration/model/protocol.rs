//! The rules of the protocol, in the order of the points of docs/freshness.md, each with the safeguards that can be taken
//! out.
//!
//! Does not decide when a rule is applied; that is in `steps`. Rules without a safeguard are in `instance`. The gap rule is
//! the project's own code.

use permcached::freshness::{Moment, Progress};

use super::{
    change_batches,
    histories::Event,
    run::{May, Run},
    safeguards::Safeguard,
    world::{ChangeBatch, Fact, Found, Instance, Marks, Request, Target, Tick, World, count, moment},
};

/// A run, with what can be computed once for all its worlds.
#[derive(Clone, Debug)]
pub struct Protocol {
    pub run: Run,
    may: u32,
    without: u64,
    /// What key A finds at each moment.
    found: Vec<Found>,
    /// For each newest moment of the database, every change batch that a correct leader could publish then.
    change_batches: Vec<Vec<ChangeBatch>>,
}

impl Protocol {
    pub fn new(run: Run, without: &[Safeguard]) -> Self {
        let mut protocol = Self {
            may: run.may.iter().fold(0, |set, may| set | 1 << *may as u32),
            without: without.iter().fold(0, |set, safeguard| set | 1 << *safeguard as u64),
            found: (0..=run.history.len()).map(|at| run.history.found(at)).collect(),
            change_batches: Vec::new(),
            run,
        };
        protocol.change_batches =
            (0..=run.history.len()).map(|database| change_batches::all(&protocol, database)).collect();
        protocol
    }

    pub fn keeps(&self, safeguard: Safeguard) -> bool {
        self.without & 1 << safeguard as u64 == 0
    }

    pub fn keeps_all(&self) -> bool {
        self.without == 0
    }

    pub fn may(&self, may: May) -> bool {
        self.may & 1 << may as u32 != 0
    }

    pub fn found(&self, at: Moment) -> Found {
        self.found[count(at)]
    }

    pub fn change_batches(&self, database: Moment) -> &[ChangeBatch] {
        &self.change_batches[count(database)]
    }

    /// A moment that never comes in this run.
    pub fn future(&self) -> Moment {
        moment(self.run.history.len() + 1)
    }

    // Points 4 and 6: marks.

    /// The stripe of a marked item. In some runs two items share one.
    fn stripe(&self, target: Target) -> usize {
        self.run.stripes[match target {
            Target::KeyA => 0,
            Target::KeyB => 1,
            Target::Document(document) => 2 + document,
        }]
    }

    pub fn mark(&self, marks: &mut Marks, target: Target, at: Moment) {
        let mark = &mut marks[self.stripe(target)];
        *mark = at.max(*mark);
    }

    /// An event marks its document and the key that the document has afterwards: directly after the event, or at the later
    /// moment `looked_up`, because `updateLookup` reads the document later.
    pub fn mark_event(&self, marks: &mut Marks, at: usize, event: Event, looked_up: Option<usize>) {
        self.mark(marks, Target::Document(event.document), moment(at));
        let place = looked_up.map_or(event.place, |later| self.run.history.state(event.document, later).0);
        if let Some(key) = place.target() {
            self.mark(marks, key, moment(at));
        }
    }

    /// Whether a cached fact counts: its stamp is not older than the floor and the marks.
    pub fn counts(&self, instance: &Instance, fact: Fact) -> bool {
        let mark = |target| instance.marks[self.stripe(target)];
        let documents = || (0..fact.found.len()).filter(|document| fact.found[*document] != 0);
        (!self.keeps(Safeguard::FloorTested) || fact.stamp >= instance.progress.floor)
            && (!self.keeps(Safeguard::KeyTested) || fact.stamp >= mark(Target::KeyA))
            && (!self.keeps(Safeguard::DocumentsTested)
                || documents().all(|document| fact.stamp >= mark(Target::Document(document))))
    }

    // Point 5: as of.

    /// Whether a fact that counts, and is true as of `as_of`, may serve a request.
    pub fn satisfies(&self, instance: &Instance, as_of: Moment, request: Request) -> bool {
        (!self.keeps(Safeguard::TokenTested) || as_of >= request.token)
            && (!self.keeps(Safeguard::BoundTested) || instance.is_fresh(as_of, request))
    }

    /// Whether a fact may serve a request from memory.
    pub fn serves(&self, instance: &Instance, fact: Fact, request: Request) -> bool {
        self.counts(instance, fact) && self.satisfies(instance, fact.stamp.max(instance.progress.watermark), request)
    }

    /// Whether the fact in L1 may serve a request.
    pub fn is_hit(&self, instance: &Instance, request: Request) -> bool {
        instance.cached.is_some_and(|fact| self.serves(instance, fact, request))
    }

    // Points 1 and 12: the newest moment, and joining a load.

    /// The moment that a read for this request must have reached.
    pub fn newest_for(&self, instance: &Instance, request: Request) -> Moment {
        let newest_probe = || instance.probes.newest().map_or_else(Moment::default, |probe| probe.moment);
        let newest = if !self.keeps(Safeguard::NewestCoversMarks) {
            newest_probe()
        } else if !self.keeps(Safeguard::NewestCoversDocumentMarks) {
            newest_probe().max(instance.progress.floor).max(instance.marks[self.stripe(Target::KeyA)])
        } else {
            instance.newest
        };
        if self.keeps(Safeguard::NewestCoversToken) { newest.max(request.token) } else { newest }
    }

    /// Whether a request that arrives later may join a load that reads as of `after` or later.
    pub fn may_join(&self, instance: &Instance, after: Moment, request: Request) -> bool {
        !self.keeps(Safeguard::JoinIfSatisfied)
            || after >= request.token
                && after >= instance.progress.floor
                && after >= instance.marks[self.stripe(Target::KeyA)]
                && instance.is_fresh(after, request)
    }

    // Point 3: a source whose time has gone back, and applying a change batch.

    /// Records what a probe returned. `watermark` is the instance's watermark when the probe was sent. The source had
    /// reached it then, unless its time has gone back.
    pub fn record_probe(&self, instance: &mut Instance, sent: Tick, watermark: Moment, returned: Moment) {
        if returned < watermark && self.keeps(Safeguard::NewEpoch) {
            instance.begin_epoch(returned);
            if self.keeps(Safeguard::OldReadsDropped) {
                instance.load = None;
            }
        }
        instance.learn(sent, returned);
    }

    /// The same for a probe that returns at once.
    pub fn probe(&self, instance: &mut Instance, now: Tick, returned: Moment) {
        self.record_probe(instance, now, instance.progress.watermark, returned);
    }

    /// The watermark and the floor after a change batch.
    pub fn progress_after(&self, instance: &Instance, batch: &ChangeBatch) -> Progress {
        let applied = instance.progress.apply(batch.from, batch.to);
        if self.keeps(Safeguard::FloorAtGap) && self.keeps(Safeguard::FloorNotJustEmptyL1) {
            applied
        } else {
            Progress { floor: instance.progress.floor, ..applied }
        }
    }

    // The promises.

    /// Whether key A found exactly this at some moment from `oldest` on. If keys of events are looked up later, only
    /// whether each document by itself was so, which is what is promised.
    pub fn is_true(&self, world: &World, found: Found, oldest: Moment) -> bool {
        let moments = || &self.found[count(oldest)..=count(world.database)];
        if self.may(May::LookUpLate) {
            (0..found.len()).all(|document| moments().iter().any(|then| then[document] == found[document]))
        } else {
            moments().contains(&found)
        }
    }

    /// Records whether an answer breaks a promise.
    pub fn judge(&self, world: &mut World, fact: Fact, request: Request) {
        // A fact of an undone history was true when it was read.
        if fact.stamp > world.database {
            return;
        }
        let found = fact.found;
        let oldest = oldest_allowed(world, request);
        world.broken.bound |= !self.is_true(world, found, oldest);
        world.broken.token |= !self.is_true(world, found, request.token);
    }
}

/// The oldest moment that an answer to a request may show: everything that was acknowledged longer before the request than
/// its bound is included.
pub fn oldest_allowed(world: &World, request: Request) -> Moment {
    let old = |at: &usize| *at == 0 || world.acknowledged[*at] + request.bound < request.arrived;
    moment((0..=count(world.database)).rev().find(old).unwrap_or(0))
}
