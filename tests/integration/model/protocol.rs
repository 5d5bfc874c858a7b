//! The protocol, point by point: what an instance does with what it has and hears. `steps` says when.
//!
//! The gap rule is the project's own code, and what needs no switch is in `instance`.

use permcached::freshness::{Moment, Progress};

use super::{
    change_batches,
    histories::Event,
    run::{May, Run},
    safeguards::Safeguard,
    world::{ChangeBatch, Fact, Found, Instance, Marks, Request, Target, Tick, World, count, moment},
};

/// A run with what can be computed once.
#[derive(Clone, Debug)]
pub struct Protocol {
    pub run: Run,
    may: u32,
    without: u32,
    /// What key A finds at each moment.
    found: Vec<Found>,
    /// For each newest moment of the database, all that a correct speaker could say then.
    change_batches: Vec<Vec<ChangeBatch>>,
}

impl Protocol {
    pub fn new(run: Run, without: &[Safeguard]) -> Self {
        let mut protocol = Self {
            may: run.may.iter().fold(0, |set, may| set | 1 << *may as u32),
            without: without.iter().fold(0, |set, safeguard| set | 1 << *safeguard as u32),
            found: (0..=run.history.len()).map(|at| run.history.found(at)).collect(),
            change_batches: Vec::new(),
            run,
        };
        protocol.change_batches =
            (0..=run.history.len()).map(|database| change_batches::all(&protocol, database)).collect();
        protocol
    }

    pub fn keeps(&self, safeguard: Safeguard) -> bool {
        self.without & 1 << safeguard as u32 == 0
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

    /// A moment that has not come, and never does here.
    pub fn future(&self) -> Moment {
        moment(self.run.history.len() + 1)
    }

    // Points 4 and 6: marks.

    /// The stripe of what is marked. Some runs let two share one.
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

    /// An event marks its document and the key that the document has afterwards: as of the event, or, as `updateLookup` reads
    /// it later, as of some later moment.
    pub fn mark_event(&self, marks: &mut Marks, at: usize, event: Event, looked_up: Option<usize>) {
        self.mark(marks, Target::Document(event.document), moment(at));
        let place = looked_up.map_or(event.place, |later| self.run.history.state(event.document, later).0);
        if let Some(key) = place.target() {
            self.mark(marks, key, moment(at));
        }
    }

    /// Whether a remembered fact counts: its stamp is not older than the floor and the marks.
    pub fn counts(&self, instance: &Instance, fact: Fact) -> bool {
        let mark = |target| instance.marks[self.stripe(target)];
        let documents = || (0..fact.found.len()).filter(|document| fact.found[*document] != 0);
        (!self.keeps(Safeguard::FloorTested) || fact.stamp >= instance.progress.floor)
            && (!self.keeps(Safeguard::KeyTested) || fact.stamp >= mark(Target::KeyA))
            && (!self.keeps(Safeguard::DocumentsTested)
                || documents().all(|document| fact.stamp >= mark(Target::Document(document))))
    }

    // Point 5: as of.

    /// Whether a fact that counts, and is true as of this, may serve a request.
    pub fn satisfies(&self, instance: &Instance, as_of: Moment, request: Request) -> bool {
        (!self.keeps(Safeguard::TokenTested) || as_of >= request.token)
            && (!self.keeps(Safeguard::BoundTested) || instance.is_fresh(as_of, request))
    }

    /// Whether a fact may serve a request from memory.
    pub fn serves(&self, instance: &Instance, fact: Fact, request: Request) -> bool {
        self.counts(instance, fact) && self.satisfies(instance, fact.stamp.max(instance.progress.watermark), request)
    }

    /// Whether what L1 holds does.
    pub fn is_hit(&self, instance: &Instance, request: Request) -> bool {
        instance.remembered.is_some_and(|fact| self.serves(instance, fact, request))
    }

    // Points 1 and 12: X, and who may join.

    /// X for a request.
    pub fn newest_for(&self, instance: &Instance, request: Request) -> Moment {
        let record_probe = || instance.probes.newest().map_or_else(Moment::default, |probe| probe.moment);
        let newest = if !self.keeps(Safeguard::XCoversMarks) {
            record_probe()
        } else if !self.keeps(Safeguard::XCoversDocumentMarks) {
            record_probe().max(instance.progress.floor).max(instance.marks[self.stripe(Target::KeyA)])
        } else {
            instance.newest
        };
        if self.keeps(Safeguard::XCoversToken) { newest.max(request.token) } else { newest }
    }

    /// Whether who comes later may wait for a read that has been sent with this X.
    pub fn may_join(&self, instance: &Instance, after: Moment, request: Request) -> bool {
        !self.keeps(Safeguard::JoinIfSatisfied)
            || after >= request.token
                && after >= instance.progress.floor
                && after >= instance.marks[self.stripe(Target::KeyA)]
                && instance.is_fresh(after, request)
    }

    // Point 3: the source that went back, and applying a statement.

    /// What a probe returned. `watermark` is W when it was sent: a moment that had come, unless the source's time has gone back.
    pub fn record_probe(&self, instance: &mut Instance, sent: Tick, watermark: Moment, returned: Moment) {
        if returned < watermark && self.keeps(Safeguard::BeginAgain) {
            instance.begin_again(returned);
            if self.keeps(Safeguard::OldReadsDropped) {
                instance.flight = None;
            }
        }
        instance.learn(sent, returned);
    }

    /// The same for a probe that comes back at once.
    pub fn probe(&self, instance: &mut Instance, now: Tick, returned: Moment) {
        self.record_probe(instance, now, instance.progress.watermark, returned);
    }

    /// What a statement makes of W and the floor.
    pub fn horizon_after(&self, instance: &Instance, batch: &ChangeBatch) -> Progress {
        let heard = instance.progress.apply(batch.from, batch.to);
        if self.keeps(Safeguard::FloorAtGap) && self.keeps(Safeguard::FloorNotJustEmptyL1) {
            heard
        } else {
            Progress { floor: instance.progress.floor, ..heard }
        }
    }

    // The promises.

    /// Whether this is what key A found at some moment from `oldest` on; or, where events name keys that were looked up
    /// later, whether each document was so: that is what is promised.
    pub fn is_true(&self, world: &World, found: Found, oldest: Moment) -> bool {
        let moments = || &self.found[count(oldest)..=count(world.database)];
        if self.may(May::LookUpLate) {
            (0..found.len()).all(|document| moments().iter().any(|then| then[document] == found[document]))
        } else {
            moments().contains(&found)
        }
    }

    /// Takes notice if an answer breaks a promise.
    pub fn judge(&self, world: &mut World, fact: Fact, request: Request) {
        // What was read before its history was undone was true then.
        if fact.stamp > world.database {
            return;
        }
        let found = fact.found;
        let oldest = oldest_allowed(world, request);
        world.broken.bound |= !self.is_true(world, found, oldest);
        world.broken.token |= !self.is_true(world, found, request.token);
    }
}

/// The oldest moment that an answer to a request may show: all that was acknowledged longer before it than its bound is in
/// it.
pub fn oldest_allowed(world: &World, request: Request) -> Moment {
    let old = |at: &usize| *at == 0 || world.acknowledged[*at] + request.bound < request.arrived;
    moment((0..=count(world.database)).rev().find(old).unwrap_or(0))
}
