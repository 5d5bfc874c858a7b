//! The bounds of a relation that is read from the resource's own document, also of an edge that is followed: its conditions, its times,
//! and what its ids lead to.
//!
//! `fact::read` defines what a document grants. Each function here has a counterpart there.

use bson::{Bson, spec::ElementType};

use super::{
    bound::{Bound, Cause},
    compiler::{Compiler, Side},
    condition::{Found, Place, failing, matching},
    dates::{in_time, no_single_value, out_of_time},
    ids::Writing,
    simplify::{EVERYTHING, NOTHING, all, any, not, one_of},
    types::{blocked, element, element_document, single_value},
};
use crate::{
    question::{Id, IdForm, RelationId, Subject},
    schema::{Comparison, Condition, Ids, Member, Path, Relation, Target, Test, value_types_except},
};

/// A relation of the own document, and the member that is asked for at its ends if it is an edge.
#[derive(Clone, Copy)]
pub(super) struct OwnRelation<'a> {
    pub(super) id: RelationId,
    pub(super) relation: &'a Relation,
    pub(super) member: Option<Member>,
}

impl Compiler<'_> {
    /// A bound of a relation that is read from the own document.
    pub(super) fn own(&self, own: OwnRelation<'_>, side: Side) -> Bound {
        match (&own.relation.each, side) {
            (None, side) => self.part(own, Place::Document, side),
            (Some(each), Side::Holds) => {
                let part = self.part(own, Place::Element, side);
                Bound::all([self.document(own, side), self.in_element(own, each, part)])
            }
            (Some(each), Side::Fails) => {
                let part = self.part(own, Place::Element, side);
                Bound::any([self.document(own, side), self.in_no_element(own, each, part)])
            }
        }
    }

    /// The documents with an element in which the relation grants.
    fn in_element(&self, own: OwnRelation<'_>, each: &Path, part: Bound) -> Bound {
        // MongoDB takes an array in an array for a document without fields.
        let is_exact = part.cause.is_none() && !part.condition.matches(&bson::Document::new());
        let cause = part.cause.clone();
        let found = element_document(each, part.condition);
        Bound::of(found, is_exact, || cause.unwrap_or_else(|| self.cause(own, Cause::VALUES)))
    }

    /// The documents in all of whose elements the relation surely does not grant.
    fn in_no_element(&self, own: OwnRelation<'_>, each: &Path, part: Bound) -> Bound {
        let others = element(each, Test::Type(value_types_except(&[ElementType::EmbeddedDocument]).collect()));
        let single = single_value(each);
        let is_exact = part.cause.is_none() && single.is_some();
        let wrong = [blocked(each), others, element_document(each, not(part.condition))];
        let found = not(any(wrong.into_iter().chain(single)));
        Bound::of(found, is_exact, || part.cause.unwrap_or_else(|| self.cause(own, Cause::VALUES)))
    }

    /// The condition on the whole document, beside the one on elements.
    fn document(&self, own: OwnRelation<'_>, side: Side) -> Bound {
        self.condition(own, own.relation.document_condition.as_ref(), Place::Document, side)
    }

    fn condition(&self, own: OwnRelation<'_>, condition: Option<&Condition>, place: Place, side: Side) -> Bound {
        let found = match (condition, side) {
            (None, side) => return Bound::constant(side == Side::Holds),
            (Some(condition), Side::Holds) => matching(condition, place),
            (Some(condition), Side::Fails) => failing(condition, place),
        };
        self.found(own, found, Cause::CONDITION)
    }

    /// What a document or an element grants.
    fn part(&self, own: OwnRelation<'_>, place: Place, side: Side) -> Bound {
        let relation = own.relation;
        if relation.since.is_some() || relation.until.is_some() {
            self.compares_times.set(true);
        }
        let condition = self.condition(own, relation.condition.as_ref(), place, side);
        match side {
            Side::Holds => {
                let times = self.found(own, in_time(relation, self.now), Cause::DATES);
                let ids = relation.ids.as_ref().map_or_else(Bound::everything, |ids| self.leading(own, ids, side));
                Bound::all([condition, times, ids])
            }
            Side::Fails => {
                let times = self.found(own, out_of_time(relation, self.now), Cause::DATES);
                let ids = relation.ids.as_ref().map_or_else(Bound::nothing, |ids| self.leading(own, ids, side));
                Bound::any([condition, times, ids])
            }
        }
    }

    /// The documents or elements with ids that lead to the subject, or with none that may.
    fn leading(&self, own: OwnRelation<'_>, ids: &Ids, side: Side) -> Bound {
        let Some(type_field) = &ids.subject_type else {
            let target = ids.targets.first();
            return target.map_or_else(Bound::nothing, |target| self.target(own, ids, *target, side));
        };
        let places = ids.targets.iter().enumerate();
        let of_targets = places.map(|(place, target)| {
            let named = self.found(own, self.naming(ids, type_field, place, *target), Cause::TYPES);
            Bound::all([named, self.target(own, ids, *target, side)])
        });
        match side {
            Side::Holds => Bound::any(of_targets),
            Side::Fails => {
                let no_type = self.found(own, without_name(type_field), Cause::TYPES);
                let no_value = self.found(own, (not(writing(ids, IdForm::String).any_value()), true), Cause::TYPES);
                Bound::any(of_targets.chain([no_type, no_value]).collect::<Vec<_>>())
            }
        }
    }

    /// The documents or elements that name a target.
    fn naming(&self, ids: &Ids, type_field: &Path, place: usize, target: Target) -> Found {
        let value = ids.type_values.as_ref().and_then(|values| values.get(place));
        let (name, member) = match target {
            Target::Subject(kind) => (&self.schema.subject(kind).name, None),
            Target::Set(kind, member) => (&self.schema.resource(kind).name, Some(member)),
            Target::Resource(_) => return (NOTHING, true),
        };
        let (kind, is_exact) = with_name(type_field, value.unwrap_or(name));
        let relation = match (&ids.subject_relation, member) {
            (None, _) => (EVERYTHING, true),
            (Some(field), None) => without_name(field),
            (Some(field), Some(member)) => with_name(field, self.schema.member_name(member)),
        };
        (all([kind, relation.0]), is_exact && relation.1)
    }

    /// The documents or elements with ids of one target that lead to the subject, or with none that may.
    fn target(&self, own: OwnRelation<'_>, ids: &Ids, target: Target, side: Side) -> Bound {
        let (form, set) = match target {
            Target::Subject(kind) => (self.schema.subject(kind).id, None),
            Target::Set(kind, member) => (self.schema.resource(kind).id, Some((kind, member))),
            Target::Resource(kind) => (self.schema.resource(kind).id, own.member.map(|member| (kind, member))),
        };
        let writing = writing(ids, form);
        match (target, set, side) {
            (Target::Subject(kind), _, side) => match (&self.question.asker.subject, side) {
                (Subject::Known { kind: asker, id }, side) if *asker == kind => {
                    self.subject(own, ids, writing, id, side)
                }
                (Subject::Known { .. } | Subject::Anonymous, Side::Holds) => Bound::nothing(),
                (Subject::Known { .. } | Subject::Anonymous, Side::Fails) => {
                    let (wrong, is_exact) = writing.wrong(ids.wildcard);
                    self.found(own, (not(wrong), is_exact), Cause::VALUES)
                }
            },
            (Target::Set(..) | Target::Resource(_), None, side) => Bound::constant(side == Side::Fails),
            (Target::Set(..) | Target::Resource(_), Some((kind, member)), Side::Holds) => {
                match self.id_set(kind, None, member) {
                    Some(set) => self.found(own, writing.having(&writing.values(set)), Cause::VALUES),
                    None => Bound::at_least(writing.may_be_id(), self.cause(own, Cause::UNKNOWN)),
                }
            }
            (Target::Set(..) | Target::Resource(_), Some((kind, member)), Side::Fails) => {
                let wrong = writing.wrong(false).0;
                let granting = one_of(writing.field.clone(), writing.values(self.known_set(kind, None, member)));
                // Of the other resources, some may be indeterminate.
                Bound::at_least(not(any([wrong, granting])), self.cause(own, Cause::NEGATED))
            }
        }
    }

    /// The documents or elements with the id of the asking subject, or with no value that may mean it.
    fn subject(&self, own: OwnRelation<'_>, ids: &Ids, writing: Writing<'_>, id: &Id, side: Side) -> Bound {
        let mut values = match (id, &self.question.asker.secret) {
            (Id::Digest(_), Some(secret)) => vec![writing.text(secret.text())],
            (Id::Digest(_), None) => {
                let found = match side {
                    Side::Holds => writing.may_be_id(),
                    Side::Fails => not(writing.wrong(false).0),
                };
                return Bound::at_least(found, self.cause(own, Cause::SECRET));
            }
            (Id::ObjectId(_) | Id::Integer(_) | Id::Uuid(_) | Id::String(_), _) => writing.values([id]),
        };
        match side {
            Side::Holds => {
                values.extend(ids.wildcard.then(|| writing.everybody()));
                self.found(own, writing.having(&values), Cause::VALUES)
            }
            Side::Fails => {
                let (wrong, are_all) = writing.wrong(false);
                let found = not(any([wrong, one_of(writing.field.clone(), values)]));
                self.found(own, (found, are_all), Cause::VALUES)
            }
        }
    }

    fn found(&self, own: OwnRelation<'_>, (condition, is_exact): Found, remedy: &'static str) -> Bound {
        Bound::of(condition, is_exact, || self.cause(own, remedy))
    }

    fn cause(&self, own: OwnRelation<'_>, remedy: &'static str) -> Cause {
        Cause { part: self.part_name(own.id, own.member), remedy }
    }
}

/// How a field writes ids of a form.
fn writing(ids: &Ids, form: IdForm) -> Writing<'_> {
    Writing { field: &ids.field, form, format: ids.format.as_ref() }
}

/// The documents or elements whose field has exactly this name, and whether no query could say more.
fn with_name(field: &Path, name: &str) -> Found {
    let (wrong, is_exact) = no_single_value(field, &[ElementType::String]);
    (all([not(wrong), Condition::Field(field.clone(), Test::Eq(name.into()))]), is_exact)
}

/// The documents or elements whose field has no name: it is missing, null or empty.
fn without_name(field: &Path) -> Found {
    let (wrong, is_exact) = no_single_value(field, &[ElementType::String]);
    let named = Condition::Field(field.clone(), Test::Compare(Comparison::Gt, Bson::String(String::new())));
    (not(any([wrong, named])), is_exact)
}
