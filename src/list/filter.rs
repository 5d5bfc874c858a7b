//! The query that finds the resources on which a permission holds, by what their own documents contain and by id sets.
//!
//! An expression is compiled to two queries, because a document on which it is indeterminate belongs to neither: one finds at least the
//! documents on which the expression surely holds, the other at least those on which it surely does not. The evaluator and `fact`
//! define what a document means; nothing here is allowed to find fewer documents than they allow.
//!
//! It is pure: it reads no document and no clock. Id sets and the flags of the subject come from the caller, who asks first which ones
//! the permission requires.

mod bound;
mod compiler;
mod condition;
mod dates;
mod expression;
mod ids;
mod relation;
mod simplify;
mod types;

use std::{collections::HashMap, fmt};

use bound::Bound;
use bson::spec::ElementType;
use compiler::Compiler;

use super::{ListError, ListQuestion, Note, PlanKind};
use crate::{
    question::{Id, IdForm, LookupId, Millis, PermissionId, RelationId, ResourceTypeId},
    schema::{Condition, Member, Path, Relation, Schema, Test, id_types},
};

/// From how many values on a branch of a filter is worth a note: MongoDB sorts slowly there.
pub(super) const MANY_VALUES: usize = 200;

/// The maximal size of a filter in bytes. The application combines it with a query of its own, and a command has at most 16 MiB.
pub(super) const FILTER_BYTES_MAX: usize = 4 * 1_024 * 1_024;

/// The maximal depth of a filter in documents and arrays. MongoDB accepts 100, also around the filter.
const FILTER_DEPTH_MAX: usize = 80;

/// The maximal number of tests in a filter, lists of values being one each.
const TESTS_MAX: usize = 2_000;

/// The resources of one type on which a member surely holds for the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdSet {
    /// The type.
    pub kind: ResourceTypeId,
    /// The edge that is followed from the resource first, if the member is one of the resources at its end.
    pub edge: Option<RelationId>,
    /// The member.
    pub member: Member,
}

impl IdSet {
    /// The resources that have a member.
    pub(super) fn of(kind: ResourceTypeId, member: Member) -> Self {
        Self { kind, edge: None, member }
    }

    /// The name in messages: `type#relation`, or `type#edge.permission`.
    pub(super) fn name(self, schema: &Schema) -> String {
        let member = schema.member_name(self.member);
        let kind = &schema.resource(self.kind).name;
        match self.edge {
            Some(edge) => format!("{}.{member}", schema.relation_name(edge)),
            None => format!("{kind}#{member}"),
        }
    }

    /// A permission that says nothing but this; none if no permission of the schema can require the set.
    #[must_use]
    pub fn permission(self, schema: &Schema) -> Option<PermissionId> {
        match self.edge {
            None => schema.permission_of(self.member),
            Some(edge) => schema.permission_of_walk(edge, self.member),
        }
    }
}

/// Whether the subject has a flag (`subject.NAME`), as if the flag stood under a `!`, where malformed documents count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagValue {
    /// It surely has the flag.
    Holds,
    /// It surely does not.
    Fails,
    /// Nobody knows.
    Indeterminate,
}

/// What is known about the subject.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Complete id sets: every id that belongs to the set is in it, and no other.
    pub id_sets: HashMap<IdSet, Vec<Id>>,
    /// Flags of the subject.
    pub flags: HashMap<RelationId, FlagValue>,
}

/// What a filter requires that is not known yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Required {
    /// Id sets. Once the flags are known, fewer may be required.
    pub id_sets: Vec<IdSet>,
    /// Flags of the subject.
    pub flags: Vec<RelationId>,
}

/// A query on the collection of a resource type.
#[derive(Clone, PartialEq)]
pub struct Filter {
    /// What the query finds.
    pub kind: PlanKind,
    /// The query. It finds everything only if the kind is [`PlanKind::All`].
    pub condition: Condition,
    /// Whether the query compares dates with the time for which it was compiled.
    pub compares_times: bool,
    /// How many ids of id sets it contains.
    pub ids: usize,
    /// What the caller should know.
    pub notes: Vec<Note>,
}

impl Filter {
    /// The query that finds nothing.
    #[must_use]
    pub fn nothing() -> Self {
        let condition = Condition::Field(Path::id(), Test::In(Vec::new()));
        Self { kind: PlanKind::None, condition, compares_times: false, ids: 0, notes: Vec::new() }
    }
}

/// Shows no query: it may contain a bearer secret.
impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, condition: _, compares_times, ids, notes } = self;
        let mut shown = f.debug_struct("Filter");
        shown.field("kind", kind).field("compares_times", compares_times).field("ids", ids).field("notes", notes);
        shown.finish_non_exhaustive()
    }
}

/// What the filter for a question requires, beyond what is known.
#[must_use]
pub fn required(schema: &Schema, question: &ListQuestion, known: &Known) -> Required {
    let compiler = Compiler::new(schema, question, known, 0);
    compiler.permission(question.permission);
    compiler.into_required()
}

/// Compiles the filter for a question. An id set or a flag that is required but not known is no error: the filter then finds all
/// documents for which it could matter.
///
/// # Errors
/// [`ListError::NoCollection`] if there are no documents to search, [`ListError::NotNarrowable`] if a query would find every document
/// but not everything is allowed, or is nested too deeply, and [`ListError::TooManyIds`] if it would be too large.
pub fn compile(schema: &Schema, question: &ListQuestion, known: &Known, now: Millis) -> Result<Filter, ListError> {
    let kind = schema.resource(question.kind);
    if kind.document.is_none() {
        return Err(ListError::NoCollection(question.kind));
    }
    let compiler = Compiler::new(schema, question, known, now);
    let permitted = compiler.permission(question.permission);
    if permitted.is_everything()
        && let Some(cause) = permitted.cause
    {
        return Err(ListError::NotNarrowable { part: cause.part, remedy: cause.remedy.to_owned() });
    }
    let gate = kind.gate.map_or_else(Bound::everything, |gate| compiler.gate(gate));
    let form = if shares_collection(schema, question.kind) { id_of_form(kind.id) } else { Bound::everything() };
    let bound = Bound::all([form, gate, permitted]);
    if bound.is_nothing() {
        return Ok(Filter::nothing());
    }
    let kind = match (bound.is_everything(), bound.cause.is_none()) {
        (true, true) => PlanKind::All,
        (_, true) => PlanKind::Exact,
        (_, false) => PlanKind::Superset,
    };
    compiler.filter(kind, bound.condition)
}

/// Whether another type of the schema with ids of another form has its documents in the same collection.
fn shares_collection(schema: &Schema, kind: ResourceTypeId) -> bool {
    let (own, form) = (schema.resource(kind).document, schema.resource(kind).id);
    let of_resources = schema.resources().map(|(_, other)| (other.document, other.id));
    let of_subjects = schema.subjects().map(|(_, other)| {
        let gate = other.gate.map(|gate| schema.relation(gate));
        (gate.and_then(Relation::lookup), other.id)
    });
    let collection = |lookup: Option<LookupId>| lookup.map(|lookup| &schema.lookup(lookup).collection);
    let mut others = of_resources.chain(of_subjects).filter(|(lookup, _)| collection(*lookup) == collection(own));
    others.any(|(_, other)| other != form)
}

/// The documents whose `_id` may be an id of the form. A text finds a symbol, too.
fn id_of_form(form: IdForm) -> Bound {
    let symbol = (form == IdForm::String).then_some(ElementType::Symbol);
    Bound::exactly(types::of_types(&Path::id(), id_types(form).iter().copied().chain(symbol).collect()))
}

#[cfg(test)]
mod tests;
