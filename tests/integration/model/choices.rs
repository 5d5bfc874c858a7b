//! What may happen next: every action that is possible in a world.
//!
//! Does not change the world; that is in `steps`.

use permcached::freshness::Moment;

use super::{
    instance::local_time,
    neighbour::{Content, Forged},
    protocol::Protocol,
    run::{Bus, May, Tier},
    safeguards::Safeguard,
    world::{BOUND, ChangeBatch, Fact, Instance, Request, Stream, Target, World, count, moment},
};

/// One thing that happens. The first field is the instance that it happens to. The numbers are the points of
/// docs/freshness.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// MongoDB makes the next change of the history, and acknowledges it.
    Write,
    /// A tick passes, for every instance.
    Pass,
    /// 9. The instance starts from a probe, because there is no log.
    Start(usize),
    /// 9. The instance starts from a log whose last run of change batches without a gap amounts to this one.
    StartFromLog(usize, ChangeBatch),
    /// 5. The instance sends a probe, which returns at once.
    Probe(usize),
    /// 5. A node that is behind answers the probe, which it can only if the probe is not linearizable.
    ProbeBehind(usize, Moment),
    /// 5. The instance sends a probe that is answered later.
    SendProbe(usize),
    /// 5. That probe is answered.
    ProbeAnswered(usize, Moment),
    /// 1, 12. A request arrives, finds no fact in L1 that serves it, and starts a load.
    Ask(usize, Request),
    /// 12. Another request arrives and joins the load.
    Join(usize, Request),
    /// 1. The source reads the fact at a snapshot.
    ReadSource(usize, Moment),
    /// 10. L2 has a fact that serves the request that started the load.
    ReadTier(usize, Fact),
    /// 1, 10. The load returns: both requests are answered, and L1 keeps the fact, however late.
    Return(usize),
    /// 10. L2 has a fact that counts, and L1 keeps it.
    KeepFromTier(usize, Fact),
    /// 2, 3, 8. The instance receives a change batch and applies it, or its first part.
    Receive(usize, ChangeBatch),
    /// 3. The instance applies the next part of it.
    ApplyNextPart(usize),
    /// 7. The instance opens a change stream at its watermark.
    OpenStream(usize),
    /// 7. The stream has shown this many events in total, with a resume token of this moment. The instance publishes them.
    Batch(usize, usize, Moment),
    /// 11. A hint arrives: this item, or everything, has changed no later than this moment.
    Hint(usize, Option<Target>, Moment),
    /// 8, 9, 10, 11. The instance reads what the neighbour has written to Redis.
    Believe(usize, Forged),
    /// 8. A change batch without a valid code arrives. It is not believed, but counts as received.
    CountAsReceived(usize, Moment),
    /// 4. A request arrives, finds a fact in L1 and loads the watermark.
    LoadWatermark(usize),
    /// 4. The request tests the fact that it found, and answers.
    Test(usize),
}

impl Protocol {
    /// Adds everything that may happen in this world to `all`.
    pub fn choices(&self, world: &World, all: &mut Vec<Action>) {
        if world.broken.any() {
            return;
        }
        if count(world.database) < self.run.history.len() {
            all.push(Action::Write);
        }
        if world.now < self.run.ticks {
            all.push(Action::Pass);
        }
        for (i, instance) in world.instances.iter().enumerate() {
            if self.may(May::MeetNeighbour) {
                self.neighbour(world, i, instance, all);
            }
            if instance.runs {
                self.probes(world, i, instance, all);
                self.reads(world, i, instance, all);
                self.tiers(world, i, all);
                self.update(world, i, instance, all);
                self.stream(world, i, instance, all);
            } else {
                all.push(Action::Start(i));
                all.extend(
                    self.receivable(world)
                        .filter(|batch| batch.to > batch.from)
                        .map(|log| Action::StartFromLog(i, log)),
                );
            }
        }
    }

    fn receivable<'a>(&'a self, world: &'a World) -> Box<dyn Iterator<Item = ChangeBatch> + 'a> {
        match self.run.bus {
            Bus::AnythingTrue => Box::new(self.change_batches(world.database).iter().copied()),
            Bus::Streams { .. } => Box::new(world.published.iter().copied()),
        }
    }

    fn probes(&self, world: &World, i: usize, instance: &Instance, all: &mut Vec<Action>) {
        if !self.keeps(Safeguard::LinearizableProbe) {
            all.extend(until(world.database).filter(|at| *at < world.database).map(|at| Action::ProbeBehind(i, at)));
        }
        match instance.probing {
            // A second probe in the same tick and at the same moment would return nothing new.
            _ if !self.may(May::ProbeSlowly) => {
                let newest = instance.probes.newest();
                if instance.newest < world.database || newest.is_none_or(|probe| probe.sent < local_time(world.now)) {
                    all.push(Action::Probe(i));
                }
            }
            None => all.push(Action::SendProbe(i)),
            Some(probing) => {
                let answers = until(world.database).filter(|at| *at >= probing.database);
                all.extend(answers.map(|at| Action::ProbeAnswered(i, at)));
            }
        }
    }

    fn reads(&self, world: &World, i: usize, instance: &Instance, all: &mut Vec<Action>) {
        let Some(load) = instance.load else {
            if world.reads < self.run.reads_max {
                let future_moments = self.may(May::MeetFutureMoments).then(|| self.future());
                let future_moments = future_moments.map(|token| Request { token, ..Request::plain(world.now) });
                let asks = |request: &Request| {
                    let request = *request;
                    !self.is_hit(instance, request)
                        && (!self.keeps(Safeguard::ProbeFirst)
                            || instance.is_fresh(self.newest_for(instance, request), request))
                };
                all.extend(
                    self.requests(world).chain(future_moments).filter(asks).map(|request| Action::Ask(i, request)),
                );
            }
            return;
        };
        if load.result.is_some() {
            all.push(Action::Return(i));
        } else {
            // Any node that has reached the newest moment may answer, even if it is behind the primary.
            let oldest = if self.keeps(Safeguard::AfterClusterTime) { load.after } else { Moment::default() };
            all.extend(until(world.database).filter(|at| *at >= oldest).map(|at| Action::ReadSource(i, at)));
            match self.run.tier {
                Tier::None | Tier::AnythingTrue { in_loads: false } => {}
                Tier::AnythingTrue { in_loads: true } => {
                    all.extend(self.honest_facts(world).map(|fact| Action::ReadTier(i, fact)));
                }
                Tier::LastWritten => all.extend(world.tier.map(|fact| Action::ReadTier(i, fact))),
            }
        }
        if self.may(May::Join) && load.waiter.is_none() {
            let joins =
                |request: &Request| !self.is_hit(instance, *request) && self.may_join(instance, load.after, *request);
            all.extend(self.requests(world).filter(joins).map(|request| Action::Join(i, request)));
        }
    }

    fn tiers(&self, world: &World, i: usize, all: &mut Vec<Action>) {
        if matches!(self.run.tier, Tier::AnythingTrue { .. }) {
            all.extend(self.honest_facts(world).map(|fact| Action::KeepFromTier(i, fact)));
            if self.may(May::MeetFutureMoments) {
                let foreign = until(world.database).map(|at| Fact { stamp: self.future(), found: self.found(at) });
                all.extend(foreign.map(|fact| Action::KeepFromTier(i, fact)));
            }
        }
    }

    fn update(&self, world: &World, i: usize, instance: &Instance, all: &mut Vec<Action>) {
        // An instance applies one thing at a time.
        if instance.applying.is_some() {
            all.push(Action::ApplyNextPart(i));
        } else {
            all.extend(
                self.receivable(world).filter(|batch| is_new(instance, batch)).map(|batch| Action::Receive(i, batch)),
            );
            if world.hints == 0 && self.may(May::Hint) {
                let targets = [Some(Target::KeyA), Some(Target::Document(0)), None];
                all.extend(until(world.database).flat_map(|at| targets.map(|target| Action::Hint(i, target, at))));
            }
            if world.hints == 0 && self.may(May::MeetFutureMoments) {
                all.push(Action::Hint(i, Some(Target::KeyA), self.future()));
            }
        }
        if self.may(May::ReadInSteps) {
            match instance.reader {
                Some(_) => all.push(Action::Test(i)),
                None if instance.cached.is_some() => all.push(Action::LoadWatermark(i)),
                None => {}
            }
        }
    }

    fn neighbour(&self, world: &World, i: usize, instance: &Instance, all: &mut Vec<Action>) {
        // Then nothing that the neighbour makes is believed.
        if self.keeps_all() {
            return;
        }
        let is_read = |forged: &Forged| matches!(forged.content, Content::Log(_)) != instance.runs;
        let forgeries = self.forgeries(world).into_iter();
        let believed = forgeries.filter(|forged| is_read(forged) && !self.keeps(forged.refused_by()));
        all.extend(believed.map(|forged| Action::Believe(i, forged)));
        if instance.runs && !self.keeps(Safeguard::SilenceOfAuthenticMessages) {
            all.extend(
                until(world.database).filter(|to| *to > instance.received).map(|to| Action::CountAsReceived(i, to)),
            );
        }
    }

    fn stream(&self, world: &World, i: usize, instance: &Instance, all: &mut Vec<Action>) {
        let Bus::Streams { batches_max } = self.run.bus else { return };
        let Some(Stream { shown, resume, .. }) = instance.stream else {
            all.push(Action::OpenStream(i));
            return;
        };
        if world.published.len() >= batches_max {
            return;
        }
        let events_until = |at: usize| self.run.history.events(0, at).count();
        for token in until(world.database).filter(|at| *at >= resume && count(*at) > 0) {
            let (before, full) = (events_until(count(token) - 1), events_until(count(token)));
            // A token at a moment with events comes with the first of them at least.
            let least = if before == full { full } else { before + 1 };
            let batches = (least.max(shown)..=full).filter(|now| (token, *now) != (resume, shown));
            all.extend(batches.map(|now| Action::Batch(i, now, token)));
        }
    }

    /// The requests that may arrive now.
    fn requests<'a>(&'a self, world: &'a World) -> impl Iterator<Item = Request> + 'a {
        let newest = if self.may(May::PassTokens) { world.database } else { Moment::default() };
        let least = if self.may(May::LimitAge) { 0 } else { BOUND };
        let request = move |token| (least..=BOUND).map(move |bound| Request { arrived: world.now, token, bound });
        until(newest).flat_map(request)
    }

    fn honest_facts<'a>(&'a self, world: &'a World) -> impl Iterator<Item = Fact> + 'a {
        until(world.database).map(|stamp| Fact { stamp, found: self.found(stamp) })
    }
}

/// Whether a change batch contains anything that the instance has not applied.
fn is_new(instance: &Instance, batch: &ChangeBatch) -> bool {
    batch.to > instance.progress.watermark || batch.marks.iter().zip(&instance.marks).any(|(new, known)| new > known)
}

/// The moments up to and including this one.
pub fn until(last: Moment) -> impl Iterator<Item = Moment> {
    (0..=count(last)).map(moment)
}
