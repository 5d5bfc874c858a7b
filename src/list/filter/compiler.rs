//! What a compilation knows about its question, and what it asks for on the way: id sets and flags of the subject.
//!
//! Compiles nothing.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
};

use super::{
    IdSet, Known, Required,
    bound::{Bound, Cause},
};
use crate::{
    list::{ListQuestion, listings::NO_SECRET},
    question::{Id, Millis, PermissionId, RelationId, ResourceTypeId},
    schema::{Member, Schema},
};

/// Which documents a bound means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// Those on which the expression surely holds.
    Holds,
    /// Those on which it surely does not, where malformed documents count, as under a `!`.
    Fails,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Holds => Self::Fails,
            Self::Fails => Self::Holds,
        }
    }
}

impl Cause {
    pub(super) const VALUES: &'static str =
        "No query recognizes all values that are no ids: use ids of another form, or check each result.";
    pub(super) const CONDITION: &'static str = "No query recognizes all values of a wrong type in its condition: use a simpler condition, or check each result.";
    pub(super) const DATES: &'static str = "No query compares such dates: store them as dates, or check each result.";
    pub(super) const TYPES: &'static str =
        "No query reads names in nested arrays: store them in the document, or check each result.";
    pub(super) const NEGATED: &'static str =
        "No query finds the resources on which it does not hold: add a part that grants by the resource's own fields.";
    pub(super) const SECRET: &'static str = NO_SECRET;
    pub(super) const TOO_LONG: &'static str =
        "Its query would have too many parts: use fewer permissions inside each other.";
    pub(super) const UNKNOWN: &'static str = "Its resources were not listed.";
}

/// Compiles one question.
pub(super) struct Compiler<'a> {
    pub(super) schema: &'a Schema,
    pub(super) question: &'a ListQuestion,
    pub(super) known: &'a Known,
    pub(super) now: Millis,
    /// Whether a date was compared with the time.
    pub(super) compares_times: Cell<bool>,
    /// What was asked for and is not known.
    pub(super) asked: RefCell<Required>,
    /// The id sets that were used, with the number of their ids.
    pub(super) used: RefCell<Vec<(IdSet, usize)>>,
    /// The permissions that were compiled.
    pub(super) compiled: RefCell<HashMap<(PermissionId, Side), Compiled>>,
}

/// The bound of a permission, and what was asked for by it.
pub(super) struct Compiled {
    bound: Bound,
    asked: Required,
    used: Vec<(IdSet, usize)>,
}

/// How much was asked for at some point of a compilation.
pub(super) struct Mark {
    id_sets: usize,
    flags: usize,
    used: usize,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(schema: &'a Schema, question: &'a ListQuestion, known: &'a Known, now: Millis) -> Self {
        let (asked, used, compiled) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { schema, question, known, now, compares_times: Cell::new(false), asked, used, compiled }
    }

    /// What was asked for and is not known.
    pub(super) fn into_required(self) -> Required {
        let mut required = self.asked.into_inner();
        required.id_sets.sort_unstable();
        required.id_sets.dedup();
        required.flags.sort_unstable();
        required.flags.dedup();
        required
    }

    /// The ids of an id set that has to be known.
    pub(super) fn id_set(&self, kind: ResourceTypeId, edge: Option<RelationId>, member: Member) -> Option<&'a [Id]> {
        let set = IdSet { kind, edge, member };
        match self.known.id_sets.get(&set) {
            Some(ids) => {
                self.used.borrow_mut().push((set, ids.len()));
                Some(ids)
            }
            None => {
                self.asked.borrow_mut().id_sets.push(set);
                None
            }
        }
    }

    /// The ids of an id set, as far as they are known.
    pub(super) fn known_set(&self, kind: ResourceTypeId, edge: Option<RelationId>, member: Member) -> &'a [Id] {
        let set = IdSet { kind, edge, member };
        let ids = self.known.id_sets.get(&set).map_or(&[][..], Vec::as_slice);
        self.used.borrow_mut().push((set, ids.len()));
        ids
    }

    /// The name of a part of the permission, for messages.
    pub(super) fn part_name(&self, relation: RelationId, member: Option<Member>) -> String {
        let name = self.schema.relation_name(relation);
        member.map_or_else(|| name.clone(), |member| format!("{name}.{}", self.schema.member_name(member)))
    }

    /// How much was asked for so far.
    pub(super) fn mark(&self) -> Mark {
        let asked = self.asked.borrow();
        Mark { id_sets: asked.id_sets.len(), flags: asked.flags.len(), used: self.used.borrow().len() }
    }

    /// Keeps the bound of a permission, and what was asked for since the mark.
    pub(super) fn keep(&self, permission: PermissionId, side: Side, bound: &Bound, mark: &Mark) {
        let (asked, used) = (self.asked.borrow(), self.used.borrow());
        let asked = Required {
            id_sets: asked.id_sets.get(mark.id_sets..).unwrap_or_default().to_vec(),
            flags: asked.flags.get(mark.flags..).unwrap_or_default().to_vec(),
        };
        let used = used.get(mark.used..).unwrap_or_default().to_vec();
        self.compiled.borrow_mut().insert((permission, side), Compiled { bound: bound.clone(), asked, used });
    }

    /// The bound of a permission that was compiled before. It asks for the same again.
    pub(super) fn kept(&self, permission: PermissionId, side: Side) -> Option<Bound> {
        let compiled = self.compiled.borrow();
        let Compiled { bound, asked: again, used } = compiled.get(&(permission, side))?;
        let mut asked = self.asked.borrow_mut();
        asked.id_sets.extend(&again.id_sets);
        asked.flags.extend(&again.flags);
        self.used.borrow_mut().extend(used);
        Some(bound.clone())
    }

    /// Takes back what was asked for since.
    pub(super) fn forget(&self, mark: &Mark) {
        let mut asked = self.asked.borrow_mut();
        asked.id_sets.truncate(mark.id_sets);
        asked.flags.truncate(mark.flags);
        self.used.borrow_mut().truncate(mark.used);
    }
}
