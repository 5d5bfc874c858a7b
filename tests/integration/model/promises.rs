//! What is promised in every world that can come about, and what must come about so that the promises mean something.

use stateright::{Model, Property};

use super::{
    choices::Action,
    protocol::{Protocol, oldest_allowed},
    run::May,
    world::{Answer, BOUND, ChangeBatch, Fact, Instance, Marks, Request, World, count, moment},
};

/// No answer rests on a document as it was longer before its request than the bound.
pub const BOUND_HOLDS: &str = "bound";
/// What is true as of a moment, or serves a token, shows what had happened by then.
pub const TOKEN_HOLDS: &str = "token";
/// Who asks is answered; and what was just read counts, unless something was heard since.
pub const ANSWERED: &str = "answered";
/// Whatever has happened: after a probe, a statement and a read, L1 serves again.
pub const HEALS: &str = "heals";

/// W lets a fact serve that by its own stamp would be too old.
pub const W_VOUCHES: &str = "W vouches for an old fact";
/// A remembered fact no longer counts.
pub const REVOKED: &str = "a remembered fact is revoked";
/// A statement was missed.
pub const GAP: &str = "a gap raised the floor";
/// Two wait for one read that is back.
pub const JOINED: &str = "a joiner is about to be answered";
/// What L2 gave serves.
pub const FROM_TIER: &str = "L2 is about to answer";

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.beginning()]
    }

    fn actions(&self, world: &World, all: &mut Vec<Action>) {
        self.choices(world, all);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        self.after(world, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(BOUND_HOLDS, |protocol: &Self, world: &World| {
                !world.broken.bound && running(world).all(|instance| protocol.hit_is_within_bound(world, instance))
            }),
            Property::always(TOKEN_HOLDS, |protocol: &Self, world: &World| {
                !world.broken.token
                    && running(world).all(|instance| {
                        protocol.as_of_is_true(world, instance) && protocol.hit_covers_token(world, instance)
                    })
            }),
            Property::always(ANSWERED, |_, world: &World| !world.broken.answered),
            Property::always(HEALS, |protocol: &Self, world: &World| {
                world.broken.any() || running(world).all(|instance| protocol.heals(world, instance))
            }),
        ];
        let reached: [(&str, Condition); 5] = [
            (W_VOUCHES, |protocol, world| {
                let old =
                    |i: &Instance| i.remembered.is_some_and(|fact| !i.is_fresh(fact.stamp, Request::plain(world.now)));
                world.now > BOUND && running(world).any(|i| old(i) && protocol.is_hit(i, Request::plain(world.now)))
            }),
            (REVOKED, |protocol, world| {
                running(world).any(|i| i.remembered.is_some_and(|fact| !protocol.counts(i, fact)))
            }),
            (GAP, |_, world| running(world).any(|i| i.progress.floor > moment(0) && i.remembered.is_some())),
            (JOINED, |_, world| {
                running(world).any(|i| i.flight.is_some_and(|f| f.joiner.is_some() && f.result.is_some()))
            }),
            (FROM_TIER, |_, world| {
                running(world).any(|i| i.flight.is_some_and(|f| matches!(f.result, Some(Answer::Remembered(_)))))
            }),
        ];
        for (name, condition) in reached.into_iter().filter(|(name, _)| self.run.reaches.contains(name)) {
            properties.push(Property::sometimes(name, condition));
        }
        properties
    }
}

/// Whether something is so in a world.
type Condition = fn(&Protocol, &World) -> bool;

fn running(world: &World) -> impl Iterator<Item = &Instance> {
    world.instances.iter().filter(|instance| instance.runs)
}

impl Protocol {
    /// What L1 would answer now is within the bound.
    fn hit_is_within_bound(&self, world: &World, instance: &Instance) -> bool {
        let least = if self.may(May::LimitAge) { 0 } else { BOUND };
        instance.remembered.is_none_or(|fact| {
            (least..=BOUND).all(|bound| {
                let request = Request { bound, ..Request::plain(world.now) };
                !self.is_hit(instance, request) || self.is_true(world, fact.found, oldest_allowed(world, request))
            })
        })
    }

    /// What counts is true as of its as of. Nothing serves before the first probe.
    fn as_of_is_true(&self, world: &World, instance: &Instance) -> bool {
        instance.remembered.is_none_or(|fact| {
            let as_of = fact.stamp.max(instance.progress.watermark).min(world.database);
            instance.probes.newest().is_none() || !self.counts(instance, fact) || self.is_true(world, fact.found, as_of)
        })
    }

    /// What L1 would answer now to a request with a token shows everything up to that.
    fn hit_covers_token(&self, world: &World, instance: &Instance) -> bool {
        !self.may(May::PassTokens)
            || instance.remembered.is_none_or(|fact| {
                (0..=count(world.database)).all(|token| {
                    let request = Request { token: moment(token), ..Request::plain(world.now) };
                    !self.is_hit(instance, request) || self.is_true(world, fact.found, request.token)
                })
            })
    }

    fn heals(&self, world: &World, instance: &Instance) -> bool {
        let mut instance = instance.clone();
        self.finish_hearing(&mut instance);
        self.probe(&mut instance, world.now, world.database);
        let (heard, database) = (count(instance.progress.watermark), count(world.database));
        if database > heard {
            let mut marks = Marks::default();
            for (at, event) in self.run.history.events(heard, database - 1) {
                self.mark_event(&mut marks, at, event, None);
            }
            self.apply(&mut instance, &ChangeBatch { from: moment(heard), to: moment(database - 1), marks });
            self.finish_hearing(&mut instance);
        }
        let request = Request::plain(world.now);
        let after = self.newest_for(&instance, request);
        // No node answers from a moment that has not come.
        if after > world.database {
            return false;
        }
        instance.remembered = Some(Fact { stamp: after, found: self.found(after) });
        self.is_hit(&instance, request) && count(instance.progress.watermark) + 1 >= database
    }
}
