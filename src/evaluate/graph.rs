//! Questions that lead back to themselves: computes the values of all questions that depend on each other, together.
//!
//! The evaluator recurses as long as the data is a tree. If a question comes back to itself, or if the way to it is too long,
//! it starts anew here: it discovers all questions in breadth, each with its shortest distance, and then computes their
//! values by iteration. The values are the *well-founded model* (Van Gelder, Ross and Schlipf, 1991; here Przymusinski's
//! three-valued iteration): what is granted only by itself is false, and what depends on itself through a `!` is
//! indeterminate, with the reason `CYCLE`. That is what a recursion which cuts off each cycle would find at the question, but
//! without a search of all paths. No value outlives the evaluation.
//!
//! Reads no fact: the evaluator computes the value of each question from the values of the others.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::{
    AvailableFacts, DEPTH_MAX, Evaluation, Existence, Frame, NODES_MAX, Trace,
    truth::{All, Truth, Value},
};
use crate::{
    question::{Id, Reason, ResourceTypeId},
    schema::Member,
};

/// The maximal number of values that one evaluation looks up. Beyond it the answer is indeterminate.
const LOOKUPS_MAX: usize = 1_000_000;

/// A question about another resource than the one that is being evaluated, as the key of its value.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Asked<'i> {
    pub(super) kind: ResourceTypeId,
    pub(super) id: &'i Id,
    pub(super) member: Member,
    /// Whether it stands under a `!`, where malformed documents count.
    pub(super) negated: bool,
}

/// One question, and its value so far.
struct Node {
    kind: ResourceTypeId,
    id: Id,
    member: Member,
    negated: bool,
    /// The length of the shortest way to it. The question of the request has 1.
    depth: usize,
    value: Value,
    /// The value that a reference through a `!` uses.
    assumed: Value,
    /// Whether the value is computed from other values. If not, it is `LIMIT`, or missing because it is not discovered yet.
    is_open: bool,
    /// Whether a value that it depends on may have changed since it was computed.
    is_outdated: bool,
    /// The places of questions that have used its value.
    users: Vec<usize>,
}

impl Node {
    fn asked(&self) -> Asked<'_> {
        Asked { kind: self.kind, id: &self.id, member: self.member, negated: self.negated }
    }

    /// Gives the question a value that does not depend on others.
    fn fix(&mut self, value: Value) {
        (self.value, self.assumed, self.is_open) = (value, value, false);
    }

    /// Takes a new truth. Returns whether it is one. A missing fact counts as indeterminate.
    fn take_truth(&mut self, value: Value) -> bool {
        let value = value.or_indeterminate();
        let is_new = !self.value.is_alike(value);
        self.value = value;
        is_new
    }

    /// Takes another reason of the same truth. Returns whether it comes before the one so far. No reason comes before a
    /// missing one.
    fn take_reason(&mut self, value: Value) -> bool {
        let before = self.value;
        self.value = before.explained(value);
        self.value != before
    }
}

/// The meaning of a reference to a question at the moment.
#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    /// Every value is unknown, and new questions are added, one farther than this depth.
    #[default]
    Discover,
    /// Values are computed; references through a `!` use what is assumed.
    Compute,
    /// The truth of all values is known. Only reasons and times are computed.
    Explain,
}

/// The questions that depend on each other.
#[derive(Default)]
pub(super) struct Graph {
    nodes: Vec<Node>,
    index: HashTable<usize>,
    hasher: foldhash::fast::RandomState,
    phase: Phase,
    /// The place of the question that is being evaluated.
    evaluated: usize,
    /// The depth of the question that is being discovered.
    depth: usize,
    /// Whether some question is over a limit.
    is_limited: bool,
    lookups: usize,
}

impl Graph {
    /// The value of a question. `is_crossed` is whether a `!` stands between the question that is being evaluated and the
    /// reference to it.
    pub(super) fn value(&mut self, asked: Asked<'_>, is_crossed: bool) -> Value {
        self.lookups += 1;
        let place = self.place(asked);
        if self.phase != Phase::Discover
            && let Some(node) = place.and_then(|place| self.nodes.get_mut(place))
            && node.users.last() != Some(&self.evaluated)
        {
            node.users.push(self.evaluated);
        }
        let found = place.and_then(|place| self.nodes.get(place));
        match (self.phase, found) {
            (Phase::Discover, Some(_)) => Value::MISSING,
            (Phase::Discover, None) => {
                self.add(asked, self.depth + 1);
                Value::MISSING
            }
            (Phase::Compute | Phase::Explain, None) => Value::MISSING,
            (Phase::Compute, Some(node)) if is_crossed => node.assumed,
            // The truth is still the assumed one.
            (Phase::Explain, Some(node)) if is_crossed && !node.value.or_indeterminate().is_alike(node.assumed) => {
                node.assumed
            }
            (Phase::Compute | Phase::Explain, Some(node)) => node.value,
        }
    }

    fn place(&self, asked: Asked<'_>) -> Option<usize> {
        let hash = self.hash(asked);
        let is_same = |place: &usize| self.nodes.get(*place).is_some_and(|node| node.asked() == asked);
        self.index.find(hash, is_same).copied()
    }

    fn hash(&self, Asked { kind, id, member, negated }: Asked<'_>) -> u64 {
        self.hasher.hash_one((kind, id, member, negated))
    }

    fn add(&mut self, asked: Asked<'_>, depth: usize) {
        let is_limited = depth > DEPTH_MAX + 1;
        self.is_limited |= is_limited;
        let value = if is_limited { Value::LIMIT } else { Value::MISSING };
        let (place, hash) = (self.nodes.len(), self.hash(asked));
        let Asked { kind, id, member, negated } = asked;
        let (id, assumed) = (id.clone(), value);
        let (is_open, is_outdated, users) = (false, true, Vec::new());
        self.nodes.push(Node { kind, id, member, negated, depth, value, assumed, is_open, is_outdated, users });
        let Self { nodes, index, hasher, .. } = self;
        index.insert_unique(hash, place, |place| {
            let asked = nodes.get(*place).map(Node::asked);
            asked.map_or(0, |Asked { kind, id, member, negated }| hasher.hash_one((kind, id, member, negated)))
        });
    }

    fn is_over(&self) -> bool {
        self.lookups > LOOKUPS_MAX
    }

    /// Starts the computation: nothing is granted, and what stands under a `!` is unknown.
    fn start(&mut self) {
        self.phase = Phase::Compute;
        for node in self.nodes.iter_mut().filter(|node| node.is_open) {
            node.assumed = Value::CYCLE;
        }
    }

    /// Starts another round, in which nothing is granted except by what is assumed under a `!`.
    fn clear(&mut self) {
        self.phase = Phase::Compute;
        for node in self.nodes.iter_mut().filter(|node| node.is_open) {
            node.value = Value::FALSE;
            node.is_outdated = true;
        }
    }

    /// Takes note that what depends on a question has to be computed again.
    fn outdate_users(&mut self, place: usize) {
        let users = self.nodes.get_mut(place).map(|node| std::mem::take(&mut node.users));
        for user in users.unwrap_or_default() {
            if let Some(node) = self.nodes.get_mut(user) {
                node.is_outdated = true;
            }
        }
    }

    /// Keeps the truth of each value, and forgets why and until when.
    fn forget_reasons(&mut self) {
        self.phase = Phase::Explain;
        for node in self.nodes.iter_mut().filter(|node| node.is_open) {
            node.value = match node.value.truth {
                Truth::False(_) => Value::FALSE,
                Truth::Unsure(_) | Truth::Missing => Value::CYCLE,
                Truth::True(_) => node.value,
            };
            node.is_outdated = true;
        }
    }

    /// Assumes under a `!` what was computed. Returns whether that changes anything.
    fn assume(&mut self) -> bool {
        let mut is_changed = false;
        for node in self.nodes.iter_mut().filter(|node| node.is_open) {
            let value = node.value.or_indeterminate();
            is_changed |= !value.is_alike(node.assumed);
            node.assumed = value;
        }
        is_changed
    }
}

impl<F: AvailableFacts, T: Trace> Evaluation<'_, F, T> {
    /// The value of a question and of all questions that it depends on.
    pub(super) fn solve(&mut self, asked: Asked<'_>) -> Value {
        let mut graph = Graph::default();
        graph.add(asked, 1);
        self.graph = Some(graph);
        self.nodes = 0;
        let (mut next, mut checked) = (0, 0);
        loop {
            let (count, is_over) = self.graph.as_ref().map_or((0, true), |graph| (graph.nodes.len(), graph.is_over()));
            while next < count && !is_over {
                self.discover(next);
                next += 1;
            }
            let is_last = self.graph.as_ref().is_none_or(|graph| graph.nodes.len() == next);
            // The values of a part may decide. Checking whenever the part has doubled costs no more than checking at the end.
            if is_last || is_over || next >= 2 * checked {
                checked = next;
                let value = self.compute();
                if is_last || is_over || value.is_decided() {
                    self.is_limited = self.graph.take().is_none_or(|graph| graph.is_limited || graph.is_over());
                    return value;
                }
            }
        }
    }

    /// Adds the questions that a question depends on, and the facts that are missing for it.
    fn discover(&mut self, place: usize) {
        let Some(graph) = &mut self.graph else { return };
        let Some(node) = graph.nodes.get(place).filter(|node| node.depth <= DEPTH_MAX + 1) else { return };
        (graph.phase, graph.depth) = (Phase::Discover, node.depth);
        if self.nodes <= NODES_MAX {
            self.value_of(place);
        }
        let is_exhausted = self.nodes > NODES_MAX;
        let Some(graph) = &mut self.graph else { return };
        graph.is_limited |= is_exhausted;
        if let Some(node) = graph.nodes.get_mut(place) {
            node.is_open = true;
            if is_exhausted {
                node.fix(Value::LIMIT);
            }
        }
    }

    /// Evaluates one question from the values of the others.
    fn value_of(&mut self, place: usize) -> Value {
        let Some(node) = self.graph.as_ref().and_then(|graph| graph.nodes.get(place)) else { return Value::MISSING };
        let (kind, id, member, negated) = (node.kind, node.id.clone(), node.member, node.negated);
        let own = self.own(kind, &id);
        let frame = Frame::first(kind, &id, member, own.fact(), negated);
        let mut all = All::default();
        all.add(self.existence(kind, &id, own, Existence { reason: Reason::NoGrant, negated }));
        if !all.is_settled() {
            all.add(self.member(member, &frame, frame.under));
        }
        all.value()
    }

    /// Computes the values of all questions that are discovered, and returns the first one's.
    fn compute(&mut self) -> Value {
        let (missing, nodes) = (self.missing.len(), self.nodes);
        if let Some(graph) = &mut self.graph {
            graph.start();
        }
        loop {
            self.graph.iter_mut().for_each(Graph::clear);
            self.repeat(Node::take_truth);
            self.graph.iter_mut().for_each(Graph::forget_reasons);
            self.repeat(Node::take_reason);
            let is_changed = self.graph.as_mut().is_some_and(Graph::assume);
            if !is_changed || self.graph.as_ref().is_none_or(Graph::is_over) {
                break;
            }
        }
        self.missing.truncate(missing);
        self.nodes = nodes;
        let Some((graph, node)) = self.graph.as_ref().and_then(|graph| Some((graph, graph.nodes.first()?))) else {
            return Value::MISSING;
        };
        match node.value.truth {
            Truth::True(_) => node.value,
            Truth::False(_) | Truth::Unsure(_) | Truth::Missing if graph.is_over() => Value::LIMIT,
            Truth::False(_) | Truth::Unsure(_) | Truth::Missing => node.value,
        }
    }

    /// Evaluates all questions until none changes. Those that are true stay true. The farthest come first, because values
    /// flow towards the question of the request.
    fn repeat(&mut self, update: impl Fn(&mut Node, Value) -> bool) {
        let mut is_changed = true;
        while is_changed {
            is_changed = false;
            for place in (0..self.graph.as_ref().map_or(0, |graph| graph.nodes.len())).rev() {
                let Some(graph) = self.graph.as_mut() else { return };
                graph.lookups += 1;
                if graph.is_over() {
                    return;
                }
                let is_final = |node: &Node| !node.is_open || matches!(node.value.truth, Truth::True(_));
                let Some(node) = graph.nodes.get_mut(place).filter(|node| node.is_outdated && !is_final(node)) else {
                    continue;
                };
                node.is_outdated = false;
                graph.evaluated = place;
                self.nodes = 0;
                let value = self.value_of(place);
                let nodes = self.nodes;
                if let Some(graph) = self.graph.as_mut() {
                    graph.lookups += nodes;
                }
                let Some(graph) = self.graph.as_mut() else { return };
                if graph.nodes.get_mut(place).is_some_and(|node| update(node, value)) {
                    graph.outdate_users(place);
                    is_changed = true;
                }
            }
        }
    }
}
