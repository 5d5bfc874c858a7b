//! What an instance does when something happens.

use std::collections::BTreeSet;

use permcached::freshness::{Moment, Progress};

use super::{
    choices::Action,
    protocol::Protocol,
    run::{May, Tier},
    safeguards::Safeguard,
    world::{
        Answer, Broken, ChangeBatch, ChangeMetrics, Fact, Instance, Loader, MOMENTS_MAX, Marks, Probing, Reader,
        Request, Stream, Target, World, count, moment,
    },
};

/// The parts of applying a statement.
#[derive(Clone, Copy)]
enum Part {
    Marks,
    Floor,
    Applied,
}

impl Protocol {
    /// All instances have just probed, or will start later.
    pub fn beginning(&self) -> World {
        let mut instance = Instance { runs: true, ..Instance::default() };
        instance.learn(0, moment(0));
        let mut instances = vec![instance; self.run.instances];
        if self.may(May::StartLate) {
            *instances.last_mut().unwrap() = Instance::default();
        }
        if self.may(May::BeRestored) {
            // What it knows is of a history that was undone while it could reach nobody.
            let future = self.future();
            let undone = Fact { stamp: future, found: [3, 3] };
            instances[0] = Instance {
                runs: true,
                progress: Progress { watermark: future, floor: moment(0) },
                marks: [future; 4],
                newest: future,
                remembered: Some(undone),
                flight: Some(Loader {
                    after: future,
                    leader: Request::plain(0),
                    joiner: None,
                    result: Some(Answer::Read(undone)),
                    heard_since: false,
                }),
                ..Instance::default()
            };
        }
        World {
            database: moment(0),
            now: 0,
            acknowledged: [0; MOMENTS_MAX],
            instances,
            said: BTreeSet::new(),
            tier: None,
            reads: 0,
            hints: 0,
            broken: Broken::default(),
        }
    }

    /// The world after something has happened; none if that is refused.
    pub fn after(&self, world: &World, action: Action) -> Option<World> {
        let (now, database) = (world.now, world.database);
        let mut world = world.clone();
        match action {
            Action::Write => {
                world.database = moment(count(database) + 1);
                world.acknowledged[count(world.database)] = now;
            }
            Action::Pass => world.now += 1,
            Action::Start(i) => {
                let instance = &mut world.instances[i];
                instance.runs = true;
                instance.learn(now, database);
                instance.progress = Progress::starting_at(database);
                if !self.keeps(Safeguard::FloorAtStart) {
                    instance.progress.floor = moment(0);
                }
            }
            Action::StartFromLog(i, log) => self.start_from_log(&mut world, i, &log),
            Action::Probe(i) => self.probe(&mut world.instances[i], now, database),
            Action::ProbeBehind(i, at) => self.probe(&mut world.instances[i], now, at),
            Action::SendProbe(i) => {
                let watermark = world.instances[i].progress.watermark;
                world.instances[i].probing = Some(Probing { sent: now, watermark, database });
            }
            Action::ProbeAnswered(i, at) => {
                let probing = world.instances[i].probing.take()?;
                self.record_probe(&mut world.instances[i], probing.sent, probing.watermark, at);
            }
            Action::Ask(i, request) => self.ask(&mut world, i, request),
            Action::Join(i, request) => world.instances[i].flight.as_mut()?.joiner = Some(request),
            Action::ReadSource(i, at) => {
                let fact = Fact { stamp: at, found: self.found(at) };
                world.instances[i].flight.as_mut()?.result = Some(Answer::Read(fact));
            }
            Action::ReadTier(i, fact) => {
                let leader = world.instances[i].flight?.leader;
                if !self.serves(&world.instances[i], fact, leader) {
                    return None;
                }
                world.instances[i].flight.as_mut()?.result = Some(Answer::Remembered(fact));
            }
            Action::Return(i) => self.answer(&mut world, i)?,
            Action::KeepFromTier(i, fact) => {
                let from_the_future = fact.stamp > database && self.keeps(Safeguard::FutureFactIsMiss);
                let known = world.instances[i].remembered == Some(fact);
                if from_the_future || known || !self.counts(&world.instances[i], fact) {
                    return None;
                }
                world.instances[i].remembered = Some(fact);
            }
            Action::Hear(i, batch) => self.apply(&mut world.instances[i], &batch),
            Action::HearOn(i) => self.hear_on(&mut world.instances[i]),
            Action::OpenStream(i) => {
                let watermark = world.instances[i].progress.watermark;
                let shown = self.run.history.events(0, count(watermark)).count();
                world.instances[i].stream = Some(Stream { shown, resume: watermark, said: watermark });
            }
            Action::Batch(i, shown, resume) => self.say(&mut world, i, shown, resume)?,
            Action::Hint(i, target, at) => self.hint(&mut world, i, target, at),
            Action::LoadApplied(i) => {
                let instance = &mut world.instances[i];
                let fact = instance.remembered?;
                let watermark = instance.progress.watermark;
                let request = Request::plain(now);
                instance.reader = Some(Reader { request, fact, watermark, counted: self.counts(instance, fact) });
            }
            Action::Test(i) => self.test(&mut world, i)?,
        }
        Some(world)
    }

    /// Point 9.
    fn start_from_log(&self, world: &mut World, i: usize, log: &ChangeBatch) {
        let instance = &mut world.instances[i];
        instance.runs = true;
        instance.learn(world.now, world.database);
        instance.mark_all(&log.marks);
        let floor = if self.keeps(Safeguard::FloorFromLog) { log.from } else { moment(0) };
        let watermark = if self.keeps(Safeguard::WFromLog) { log.to } else { world.database };
        instance.progress = Progress { watermark, floor };
    }

    /// Points 1, 11 and 12: X is what this request's read must have seen. A token is known to have come, or refused.
    fn ask(&self, world: &mut World, i: usize, leader: Request) {
        let instance = &mut world.instances[i];
        if leader.token > world.database && self.keeps(Safeguard::FutureTokenRefused) {
            self.probe(instance, world.now, world.database);
            return;
        }
        let after = self.newest_for(instance, leader);
        instance.newest = instance.newest.max(leader.token);
        instance.flight = Some(Loader { after, leader, joiner: None, result: None, heard_since: false });
        world.reads += 1;
    }

    /// What was read answers all who wait for it; what L2 gave is tested again for each.
    fn answer(&self, world: &mut World, i: usize) -> Option<()> {
        let flight = world.instances[i].flight.take()?;
        let instance = world.instances[i].clone();
        let (fact, is_read) = match flight.result? {
            Answer::Read(fact) if self.keeps(Safeguard::SnapshotStamp) => (fact, true),
            Answer::Read(fact) => (Fact { stamp: fact.stamp.max(instance.newest), ..fact }, true),
            Answer::Remembered(fact) => (fact, false),
        };
        let counts = self.counts(&instance, fact);
        // Nothing new was heard, and yet what was just read would be read again, and again.
        world.broken.answered |= is_read && !flight.heard_since && !counts;
        if is_read && !self.keeps(Safeguard::AskerUsesOwnRead) && !counts {
            world.broken.answered = true;
        } else {
            self.judge(world, fact, flight.leader);
            let serves_joiner = |joiner: &Request| {
                is_read || !self.keeps(Safeguard::JoinerTests) || self.serves(&instance, fact, *joiner)
            };
            // Whom it does not serve asks again.
            if let Some(joiner) = flight.joiner.filter(serves_joiner) {
                self.judge(world, fact, joiner);
            }
        }
        world.instances[i].remembered = Some(fact);
        if is_read && self.run.tier == Tier::LastWritten {
            world.tier = Some(fact);
        }
        Some(())
    }

    /// Point 3. In a run with steps only the first part happens now.
    pub fn apply(&self, instance: &mut Instance, batch: &ChangeBatch) {
        let progress = self.horizon_after(instance, batch);
        if batch.from > instance.progress.watermark && !self.keeps(Safeguard::FloorNotJustEmptyL1) {
            instance.remembered = None;
        }
        instance.hearing = Some(ChangeMetrics { marks: batch.marks, progress, done: 0 });
        self.hear_on(instance);
        if !self.may(May::ReadInSteps) {
            self.finish_hearing(instance);
        }
    }

    /// The rest of a statement that is being applied.
    pub fn finish_hearing(&self, instance: &mut Instance) {
        while instance.hearing.is_some() {
            self.hear_on(instance);
        }
    }

    fn hear_on(&self, instance: &mut Instance) {
        let Some(hearing) = instance.hearing else { return };
        let order = if !self.keeps(Safeguard::MarksBeforeW) {
            [Part::Floor, Part::Applied, Part::Marks]
        } else if !self.keeps(Safeguard::FloorBeforeW) {
            [Part::Marks, Part::Applied, Part::Floor]
        } else {
            [Part::Marks, Part::Floor, Part::Applied]
        };
        match order[hearing.done] {
            Part::Marks => {
                instance.mark_all(&hearing.marks);
                instance.newest = instance.newest.max(hearing.progress.watermark);
            }
            Part::Floor => instance.raise_floor(hearing.progress.floor),
            Part::Applied => instance.progress.watermark = hearing.progress.watermark,
        }
        let done = hearing.done + 1;
        instance.hearing = (done < order.len()).then_some(ChangeMetrics { done, ..hearing });
    }

    /// Points 2 and 7: a batch of a change stream is said.
    fn say(&self, world: &mut World, i: usize, shown: usize, resume: Moment) -> Option<()> {
        let stream = world.instances[i].stream?;
        let said = if self.keeps(Safeguard::StrictTo) { moment(count(resume) - 1) } else { resume };
        let to = said.max(stream.said);
        let mut marks = Marks::default();
        for (place, (at, event)) in self.run.history.events(0, count(resume)).enumerate().take(shown) {
            let is_new = place >= stream.shown;
            if moment(at) > stream.said && (is_new || self.keeps(Safeguard::EarlyChangesAgain)) {
                self.mark_event(&mut marks, at, event, None);
            }
        }
        world.said.insert(ChangeBatch { from: stream.said, to, marks });
        world.instances[i].stream = Some(Stream { shown, resume, said: to });
        Some(())
    }

    /// Point 11. One that seems to be of the future is tried against a probe.
    fn hint(&self, world: &mut World, i: usize, target: Option<Target>, at: Moment) {
        world.hints += 1;
        let instance = &mut world.instances[i];
        if at > world.database && self.keeps(Safeguard::FutureHintDropped) {
            self.probe(instance, world.now, world.database);
            return;
        }
        match target {
            Some(target) => {
                let mut marks = Marks::default();
                self.mark(&mut marks, target, at);
                instance.mark_all(&marks);
            }
            None => instance.raise_floor(at),
        }
    }

    /// Points 4 and 5: what a reader makes of what it found.
    fn test(&self, world: &mut World, i: usize) -> Option<()> {
        let reader = world.instances[i].reader.take()?;
        let instance = &world.instances[i];
        let (counts, watermark) = if self.keeps(Safeguard::WBeforeTest) {
            (self.counts(instance, reader.fact), reader.watermark)
        } else {
            (reader.counted, instance.progress.watermark)
        };
        let as_of = reader.fact.stamp.max(watermark);
        if counts && self.satisfies(instance, as_of, reader.request) {
            // The answer says its as of, which is a token too.
            let request = Request { token: as_of, ..reader.request };
            self.judge(world, reader.fact, request);
        }
        Some(())
    }
}
