//! What is promised in every reachable world, and the situations that must occur so that the promises mean something.
//!
//! Contains no protocol: each promise is tested against the history.

use stateright::{Model, Property};

use super::{
    choices::Action,
    protocol::{Protocol, oldest_allowed},
    run::May,
    world::{BOUND, ChangeBatch, Fact, Instance, LoadResult, Marks, Request, World, count, moment},
};

/// No answer shows a document as it was before a write that was acknowledged longer before the request than its bound.
pub const BOUND_HOLDS: &str = "bound";
/// An answer that is as of a moment, or serves a token, shows everything up to that moment.
pub const TOKEN_HOLDS: &str = "token";
/// The request that starts a load is answered. A fact that was just read counts, unless a mark or the floor rose meanwhile.
pub const ANSWERED: &str = "answered";
/// From every reachable world, a probe, a change batch and a read make L1 serve again. With a neighbour, the change batch
/// comes from the instance's own stream.
pub const HEALS: &str = "heals";

/// A neighbour in Redis outdates no cached fact: no mark is later than the last change of what it marks.
pub const KEPT: &str = "kept";

/// A fact serves although its stamp is too old, because of the watermark.
pub const WATERMARK_SERVES: &str = "the watermark makes an old fact serve";
/// A cached fact no longer counts.
pub const REVOKED: &str = "a cached fact is revoked";
/// An instance missed a change batch.
pub const GAP: &str = "a gap raised the floor";
/// Two requests wait for one load that has its result.
pub const JOINED: &str = "a waiter is about to be answered";
/// A load has a result from L2.
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
        if self.may(May::MeetNeighbour) {
            properties.push(Property::always(KEPT, |protocol: &Self, world: &World| {
                !running(world).any(|instance| protocol.has_mark_without_change(world, &instance.marks))
            }));
        }
        let reached: [(&str, Condition); 5] = [
            (WATERMARK_SERVES, |protocol, world| {
                let old =
                    |i: &Instance| i.cached.is_some_and(|fact| !i.is_fresh(fact.stamp, Request::plain(world.now)));
                world.now > BOUND && running(world).any(|i| old(i) && protocol.is_hit(i, Request::plain(world.now)))
            }),
            (REVOKED, |protocol, world| running(world).any(|i| i.cached.is_some_and(|fact| !protocol.counts(i, fact)))),
            (GAP, |_, world| running(world).any(|i| i.progress.floor > moment(0) && i.cached.is_some())),
            (JOINED, |_, world| {
                running(world).any(|i| i.load.is_some_and(|f| f.waiter.is_some() && f.result.is_some()))
            }),
            (FROM_TIER, |_, world| {
                running(world).any(|i| i.load.is_some_and(|f| matches!(f.result, Some(LoadResult::Cached(_)))))
            }),
        ];
        for (name, condition) in reached.into_iter().filter(|(name, _)| self.run.reaches.contains(name)) {
            properties.push(Property::sometimes(name, condition));
        }
        properties
    }
}

/// Whether a situation occurs in a world.
type Condition = fn(&Protocol, &World) -> bool;

fn running(world: &World) -> impl Iterator<Item = &Instance> {
    world.instances.iter().filter(|instance| instance.runs)
}

impl Protocol {
    /// Whether what L1 would answer now is within the bound.
    fn hit_is_within_bound(&self, world: &World, instance: &Instance) -> bool {
        let least = if self.may(May::LimitAge) { 0 } else { BOUND };
        instance.cached.is_none_or(|fact| {
            (least..=BOUND).all(|bound| {
                let request = Request { bound, ..Request::plain(world.now) };
                !self.is_hit(instance, request) || self.is_true(world, fact.found, oldest_allowed(world, request))
            })
        })
    }

    /// Whether a cached fact that counts is true as of its own as-of. No fact serves before the first probe.
    fn as_of_is_true(&self, world: &World, instance: &Instance) -> bool {
        instance.cached.is_none_or(|fact| {
            let as_of = fact.stamp.max(instance.progress.watermark).min(world.database);
            instance.probes.newest().is_none() || !self.counts(instance, fact) || self.is_true(world, fact.found, as_of)
        })
    }

    /// Whether what L1 would answer now to a request with a token shows everything up to that token.
    fn hit_covers_token(&self, world: &World, instance: &Instance) -> bool {
        !self.may(May::PassTokens)
            || instance.cached.is_none_or(|fact| {
                (0..=count(world.database)).all(|token| {
                    let request = Request { token: moment(token), ..Request::plain(world.now) };
                    !self.is_hit(instance, request) || self.is_true(world, fact.found, request.token)
                })
            })
    }

    fn heals(&self, world: &World, instance: &Instance) -> bool {
        let mut instance = instance.clone();
        self.finish_applying(&mut instance);
        self.probe(&mut instance, world.now, world.database);
        let (applied, database) = (count(instance.progress.watermark), count(world.database));
        // The neighbour keeps every message away.
        let arrives = !self.may(May::MeetNeighbour) || self.follows_by_itself(instance.received, world.database);
        if database > applied && arrives {
            let mut marks = Marks::default();
            for (at, event) in self.run.history.events(applied, database - 1) {
                self.mark_event(&mut marks, at, event, None);
            }
            self.apply(&mut instance, &ChangeBatch { from: moment(applied), to: moment(database - 1), marks });
            self.finish_applying(&mut instance);
        }
        let request = Request::plain(world.now);
        let after = self.newest_for(&instance, request);
        // No node can answer as of a moment that has not come.
        if after > world.database {
            return false;
        }
        instance.cached = Some(Fact { stamp: after, found: self.found(after) });
        self.is_hit(&instance, request) && count(instance.progress.watermark) + 1 >= database
    }
}
