//! What each action does to the world.
//!
//! Does not decide which actions are possible; that is in `choices`.

use std::collections::BTreeSet;

use permcached::freshness::{Moment, Progress};

use super::{
    choices::Action,
    neighbour::Content,
    protocol::Protocol,
    run::{May, Tier},
    safeguards::Safeguard,
    world::{
        Applying, Broken, ChangeBatch, Fact, Instance, Load, LoadResult, MOMENTS_MAX, Marks, Probing, Reader, Request,
        Stream, Target, World, count, moment,
    },
};

/// The parts of applying a change batch.
#[derive(Clone, Copy)]
enum Part {
    Marks,
    Floor,
    Watermark,
}

impl Protocol {
    /// The first world: every instance has just probed, or will start later.
    pub fn beginning(&self) -> World {
        let mut instance = Instance { runs: true, ..Instance::default() };
        instance.learn(0, moment(0));
        let mut instances = vec![instance; self.run.instances];
        if self.may(May::StartLate) {
            *instances.last_mut().unwrap() = Instance::default();
        }
        if self.may(May::BeRestored) {
            // All its knowledge belongs to a history that was undone while the instance was cut off.
            let future = self.future();
            let undone = Fact { stamp: future, found: [3, 3] };
            instances[0] = Instance {
                runs: true,
                progress: Progress { watermark: future, floor: moment(0) },
                marks: [future; 4],
                newest: future,
                cached: Some(undone),
                load: Some(Load {
                    after: future,
                    loader: Request::plain(0),
                    waiter: None,
                    result: Some(LoadResult::Read(undone)),
                    changed_since: false,
                }),
                ..Instance::default()
            };
        }
        World {
            database: moment(0),
            now: 0,
            acknowledged: [0; MOMENTS_MAX],
            instances,
            published: BTreeSet::new(),
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
                self.record_received(instance, database);
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
            Action::Join(i, request) => world.instances[i].load.as_mut()?.waiter = Some(request),
            Action::ReadSource(i, at) => {
                let fact = Fact { stamp: at, found: self.found(at) };
                world.instances[i].load.as_mut()?.result = Some(LoadResult::Read(fact));
            }
            Action::ReadTier(i, fact) => {
                let loader = world.instances[i].load?.loader;
                if !self.serves(&world.instances[i], fact, loader) {
                    return None;
                }
                world.instances[i].load.as_mut()?.result = Some(LoadResult::Cached(fact));
            }
            Action::Return(i) => self.answer(&mut world, i)?,
            Action::KeepFromTier(i, fact) => self.keep_from_tier(&mut world, i, fact)?,
            Action::Receive(i, batch) => self.apply(&mut world.instances[i], &batch),
            Action::ApplyNextPart(i) => self.apply_next_part(&mut world.instances[i]),
            Action::OpenStream(i) => {
                let watermark = world.instances[i].progress.watermark;
                let shown = self.run.history.events(0, count(watermark)).count();
                world.instances[i].stream = Some(Stream { shown, resume: watermark, last_to: watermark });
            }
            Action::Batch(i, shown, resume) => self.publish(&mut world, i, shown, resume)?,
            Action::Hint(i, target, at) => self.hint(&mut world, i, target, at),
            Action::Believe(i, forged) => match forged.content {
                Content::ChangeBatch(batch) => self.apply(&mut world.instances[i], &batch),
                Content::Log(log) => self.start_from_log(&mut world, i, &log),
                Content::Hint(target, at) => self.hint(&mut world, i, target, at),
                Content::Fact(fact) => self.keep_from_tier(&mut world, i, fact)?,
            },
            Action::CountAsReceived(i, to) => self.record_received(&mut world.instances[i], to),
            Action::LoadWatermark(i) => {
                let instance = &mut world.instances[i];
                let fact = instance.cached?;
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
        let watermark = if self.keeps(Safeguard::WatermarkFromLog) { log.to } else { world.database };
        instance.progress = Progress { watermark, floor };
        self.record_received(instance, watermark);
    }

    /// Point 8: every change up to `to` was received over the bus. Only a run with a neighbour needs to know.
    fn record_received(&self, instance: &mut Instance, to: Moment) {
        if self.may(May::MeetNeighbour) {
            instance.received = instance.received.max(to);
        }
    }

    /// Point 10: L1 keeps a fact from L2, if the fact counts.
    fn keep_from_tier(&self, world: &mut World, i: usize, fact: Fact) -> Option<()> {
        let from_the_future = fact.stamp > world.database && self.keeps(Safeguard::FutureFactIsMiss);
        let instance = &mut world.instances[i];
        if from_the_future || instance.cached == Some(fact) || !self.counts(instance, fact) {
            return None;
        }
        instance.cached = Some(fact);
        Some(())
    }

    /// Points 1, 11 and 12: starts a load, which reads as of the newest moment or later. A token whose moment has not come
    /// is refused.
    fn ask(&self, world: &mut World, i: usize, loader: Request) {
        let instance = &mut world.instances[i];
        if loader.token > world.database && self.keeps(Safeguard::FutureTokenRefused) {
            self.probe(instance, world.now, world.database);
            return;
        }
        let after = self.newest_for(instance, loader);
        instance.newest = instance.newest.max(loader.token);
        instance.load = Some(Load { after, loader, waiter: None, result: None, changed_since: false });
        world.reads += 1;
    }

    /// A fact that was read answers every request that waits for it. A fact from L2 is tested again for each of them.
    fn answer(&self, world: &mut World, i: usize) -> Option<()> {
        let load = world.instances[i].load.take()?;
        let instance = world.instances[i].clone();
        let (fact, is_read) = match load.result? {
            LoadResult::Read(fact) if self.keeps(Safeguard::SnapshotStamp) => (fact, true),
            LoadResult::Read(fact) => (Fact { stamp: fact.stamp.max(instance.newest), ..fact }, true),
            LoadResult::Cached(fact) => (fact, false),
        };
        let counts = self.counts(&instance, fact);
        // The instance learned nothing new, and yet would read the same again and again.
        world.broken.answered |= is_read && !load.changed_since && !counts;
        if is_read && !self.keeps(Safeguard::LoaderUsesOwnRead) && !counts {
            world.broken.answered = true;
        } else {
            self.judge(world, fact, load.loader);
            let serves_waiter = |waiter: &Request| {
                is_read || !self.keeps(Safeguard::WaiterTests) || self.serves(&instance, fact, *waiter)
            };
            // A waiter that it does not serve tries again.
            if let Some(waiter) = load.waiter.filter(serves_waiter) {
                self.judge(world, fact, waiter);
            }
        }
        world.instances[i].cached = Some(fact);
        if is_read && self.run.tier == Tier::LastWritten {
            world.tier = Some(fact);
        }
        Some(())
    }

    /// Point 3. In a run with `May::ReadInSteps` only the first part happens now.
    pub fn apply(&self, instance: &mut Instance, batch: &ChangeBatch) {
        let progress = self.progress_after(instance, batch);
        if batch.from > instance.progress.watermark && !self.keeps(Safeguard::FloorNotJustEmptyL1) {
            instance.cached = None;
        }
        instance.applying = Some(Applying { marks: batch.marks, progress, done: 0 });
        self.apply_next_part(instance);
        if !self.may(May::ReadInSteps) {
            self.finish_applying(instance);
        }
    }

    /// Applies the remaining parts of a change batch.
    pub fn finish_applying(&self, instance: &mut Instance) {
        while instance.applying.is_some() {
            self.apply_next_part(instance);
        }
    }

    fn apply_next_part(&self, instance: &mut Instance) {
        let Some(applying) = instance.applying else { return };
        let order = if !self.keeps(Safeguard::MarksBeforeWatermark) {
            [Part::Floor, Part::Watermark, Part::Marks]
        } else if !self.keeps(Safeguard::FloorBeforeWatermark) {
            [Part::Marks, Part::Watermark, Part::Floor]
        } else {
            [Part::Marks, Part::Floor, Part::Watermark]
        };
        match order[applying.done] {
            Part::Marks => {
                instance.mark_all(&applying.marks);
                instance.newest = instance.newest.max(applying.progress.watermark);
            }
            Part::Floor => instance.raise_floor(applying.progress.floor),
            Part::Watermark => {
                instance.progress.watermark = applying.progress.watermark;
                self.record_received(instance, applying.progress.watermark);
            }
        }
        let done = applying.done + 1;
        instance.applying = (done < order.len()).then_some(Applying { done, ..applying });
    }

    /// Points 2 and 7: the instance publishes a batch of its change stream.
    fn publish(&self, world: &mut World, i: usize, shown: usize, resume: Moment) -> Option<()> {
        let stream = world.instances[i].stream?;
        let shown_until = if self.keeps(Safeguard::StrictTo) { moment(count(resume) - 1) } else { resume };
        let to = shown_until.max(stream.last_to);
        let mut marks = Marks::default();
        for (place, (at, event)) in self.run.history.events(0, count(resume)).enumerate().take(shown) {
            let is_new = place >= stream.shown;
            if moment(at) > stream.last_to && (is_new || self.keeps(Safeguard::EarlyChangesAgain)) {
                self.mark_event(&mut marks, at, event, None);
            }
        }
        world.published.insert(ChangeBatch { from: stream.last_to, to, marks });
        world.instances[i].stream = Some(Stream { shown, resume, last_to: to });
        Some(())
    }

    /// Point 11. A hint that seems to be of the future is tested against a probe.
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

    /// Points 4 and 5: a reader tests the fact that it found, and answers if the fact serves.
    fn test(&self, world: &mut World, i: usize) -> Option<()> {
        let reader = world.instances[i].reader.take()?;
        let instance = &world.instances[i];
        let (counts, watermark) = if self.keeps(Safeguard::WatermarkBeforeTest) {
            (self.counts(instance, reader.fact), reader.watermark)
        } else {
            (reader.counted, instance.progress.watermark)
        };
        let as_of = reader.fact.stamp.max(watermark);
        if counts && self.satisfies(instance, as_of, reader.request) {
            // The answer reports its as-of, which may become a token.
            let request = Request { token: as_of, ..reader.request };
            self.judge(world, reader.fact, request);
        }
        Some(())
    }
}
