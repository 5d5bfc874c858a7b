//! What may happen next: everything that reality may do to the instances, and when.

use permcached::freshness::Moment;

use super::{
    instance::local_time,
    protocol::Protocol,
    run::{Bus, May, Tier},
    safeguards::Safeguard,
    world::{BOUND, ChangeBatch, Fact, Instance, Request, Stream, Target, World, count, moment},
};

/// One thing that happens. The first field says to which instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The next change of the history is made, and acknowledged.
    Write,
    /// Time passes, for all alike.
    Pass,
    /// 9. Starts from a probe: there is no log.
    Start(usize),
    /// 9. Starts from a log whose last unbroken chain says this.
    StartFromLog(usize, ChangeBatch),
    /// 5. A probe goes and comes back at once.
    Probe(usize),
    /// 5. A node that is behind answers the probe. (It can, unless the probe is linearizable.)
    ProbeBehind(usize, Moment),
    /// 5. A probe is sent, to be answered later.
    SendProbe(usize),
    /// 5. It is answered.
    ProbeAnswered(usize, Moment),
    /// 1, 12. A request arrives, finds nothing in L1 that serves it, and asks.
    Ask(usize, Request),
    /// 12. Another one arrives, and waits for the same answer.
    Join(usize, Request),
    /// 1. The source reads at a snapshot.
    ReadSource(usize, Moment),
    /// 10. L2 has something that serves the one who asked.
    ReadTier(usize, Fact),
    /// 1, 10. What was asked for comes back: all who wait are answered, and L1 keeps it, however late.
    Return(usize),
    /// 10. L2 has something that counts, and L1 keeps it.
    KeepFromTier(usize, Fact),
    /// 2, 3, 8. A statement arrives and is applied, or begins to be.
    Hear(usize, ChangeBatch),
    /// 3. The next part of it is applied.
    HearOn(usize),
    /// 7. Opens a change stream at its W.
    OpenStream(usize),
    /// 7. The stream shows so many events in all, with a resume token of this moment; that is said.
    Batch(usize, usize, Moment),
    /// 11. A hint arrives: this has changed, or all of it, by this moment.
    Hint(usize, Option<Target>, Moment),
    /// 4. A request arrives, finds something in L1 and loads W.
    LoadApplied(usize),
    /// 4. It tests what it found, and answers.
    Test(usize),
}

impl Protocol {
    /// Everything that may happen in this world.
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
            if instance.runs {
                self.probes(world, i, instance, all);
                self.reads(world, i, instance, all);
                self.tiers(world, i, all);
                self.update(world, i, instance, all);
                self.stream(world, i, instance, all);
            } else {
                all.push(Action::Start(i));
                all.extend(
                    self.heard(world).filter(|said| said.to > said.from).map(|log| Action::StartFromLog(i, log)),
                );
            }
        }
    }

    fn heard<'a>(&'a self, world: &'a World) -> Box<dyn Iterator<Item = ChangeBatch> + 'a> {
        match self.run.bus {
            Bus::AnythingTrue => Box::new(self.change_batches(world.database).iter().copied()),
            Bus::Streams { .. } => Box::new(world.said.iter().copied()),
        }
    }

    fn probes(&self, world: &World, i: usize, instance: &Instance, all: &mut Vec<Action>) {
        if !self.keeps(Safeguard::LinearizableProbe) {
            all.extend(until(world.database).filter(|at| *at < world.database).map(|at| Action::ProbeBehind(i, at)));
        }
        match instance.probing {
            // Where one has just said so already, another says nothing new.
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
        let Some(flight) = instance.flight else {
            if world.reads < self.run.reads_max {
                let strangers = self.may(May::MeetStrangers).then(|| self.future());
                let strangers = strangers.map(|token| Request { token, ..Request::plain(world.now) });
                let asks = |request: &Request| {
                    let request = *request;
                    !self.is_hit(instance, request)
                        && (!self.keeps(Safeguard::ProbeFirst)
                            || instance.is_fresh(self.newest_for(instance, request), request))
                };
                all.extend(self.requests(world).chain(strangers).filter(asks).map(|request| Action::Ask(i, request)));
            }
            return;
        };
        if flight.result.is_some() {
            all.push(Action::Return(i));
        } else {
            // Any node that has seen X may answer, however far it is behind otherwise.
            let oldest = if self.keeps(Safeguard::AfterClusterTime) { flight.after } else { Moment::default() };
            all.extend(until(world.database).filter(|at| *at >= oldest).map(|at| Action::ReadSource(i, at)));
            match self.run.tier {
                Tier::None | Tier::AnythingTrue { in_flights: false } => {}
                Tier::AnythingTrue { in_flights: true } => {
                    all.extend(self.honest_facts(world).map(|fact| Action::ReadTier(i, fact)));
                }
                Tier::LastWritten => all.extend(world.tier.map(|fact| Action::ReadTier(i, fact))),
            }
        }
        if self.may(May::Join) && flight.joiner.is_none() {
            let joins =
                |request: &Request| !self.is_hit(instance, *request) && self.may_join(instance, flight.after, *request);
            all.extend(self.requests(world).filter(joins).map(|request| Action::Join(i, request)));
        }
    }

    fn tiers(&self, world: &World, i: usize, all: &mut Vec<Action>) {
        if matches!(self.run.tier, Tier::AnythingTrue { .. }) {
            all.extend(self.honest_facts(world).map(|fact| Action::KeepFromTier(i, fact)));
            if self.may(May::MeetStrangers) {
                let foreign = until(world.database).map(|at| Fact { stamp: self.future(), found: self.found(at) });
                all.extend(foreign.map(|fact| Action::KeepFromTier(i, fact)));
            }
        }
    }

    fn update(&self, world: &World, i: usize, instance: &Instance, all: &mut Vec<Action>) {
        // Whoever applies something does so alone.
        if instance.hearing.is_some() {
            all.push(Action::HearOn(i));
        } else {
            all.extend(self.heard(world).filter(|said| is_news(instance, said)).map(|said| Action::Hear(i, said)));
            if world.hints == 0 && self.may(May::Hint) {
                let targets = [Some(Target::KeyA), Some(Target::Document(0)), None];
                all.extend(until(world.database).flat_map(|at| targets.map(|target| Action::Hint(i, target, at))));
            }
            if world.hints == 0 && self.may(May::MeetStrangers) {
                all.push(Action::Hint(i, Some(Target::KeyA), self.future()));
            }
        }
        if self.may(May::ReadInSteps) {
            match instance.reader {
                Some(_) => all.push(Action::Test(i)),
                None if instance.remembered.is_some() => all.push(Action::LoadApplied(i)),
                None => {}
            }
        }
    }

    fn stream(&self, world: &World, i: usize, instance: &Instance, all: &mut Vec<Action>) {
        let Bus::Streams { batches_max } = self.run.bus else { return };
        let Some(Stream { shown, resume, .. }) = instance.stream else {
            all.push(Action::OpenStream(i));
            return;
        };
        if world.said.len() >= batches_max {
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

    /// What may be asked for now.
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

/// Whether a statement says anything that has not been applied.
fn is_news(instance: &Instance, batch: &ChangeBatch) -> bool {
    batch.to > instance.progress.watermark || batch.marks.iter().zip(&instance.marks).any(|(said, known)| said > known)
}

/// The moments up to this one.
fn until(last: Moment) -> impl Iterator<Item = Moment> {
    (0..=count(last)).map(moment)
}
