//! A naive evaluator: recursive, and directly from the documents, which it reads again each time.
//!
//! It has no facts, no rounds and no memo, and shares no code with the crate: `matching` reads conditions as queries. It has no
//! limits either: it gives up a question that becomes too much work.
//!
//! A member that comes back to itself is cut off: it is false, or unclear if a `!` is in between. So a value depends on where
//! the evaluation started. The value of the question is right, but the reason of a denial is not: it follows from the values
//! that all members have by themselves, in a second evaluation.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use bson::{Binary, Bson, DateTime, Document, Uuid, oid::ObjectId, spec::BinarySubtype};
use permcached::{
    question::{IdForm, Reason},
    schema::Condition,
};

use super::{
    matching,
    model::{Expression, Model, Relation, Target},
    negation::{names_otherwise, negated, of_subject},
};

/// The maximal number of steps before it gives up a question. With that bound an explanation, which has no memo either,
/// stays below the crate's 10,000 nodes.
const STEPS_MAX: usize = 2_500;
/// The maximal depth in resources before it gives up a question. The crate's limit is 32.
const DEPTH_MAX: usize = 24;

/// The reasons of a false value. Of the reasons in an `|`, the first one here is taken.
const REASONS: [Reason; 3] = [Reason::Excluded, Reason::Expired, Reason::NoGrant];

/// One of Kleene's three truth values. An unclear or false value has a reason.
#[derive(Clone, Copy)]
enum Value {
    True,
    Unclear(Reason),
    False(Reason),
}

const MALFORMED: Value = Value::Unclear(Reason::Malformed);

const NOTHING: Value = Value::False(Reason::NoGrant);

/// One entry of a document for a relation.
struct Grant<'a> {
    is_sure: bool,
    whom: Whom<'a>,
    since: Option<i64>,
    until: Option<i64>,
}

enum Whom<'a> {
    /// A flag: it holds for every subject.
    All,
    /// A value that cannot be read.
    Unreadable,
    Subject(&'a str, Bson),
    EverySubject(&'a str),
    /// All subjects that have a member of the resource.
    Set(&'a str, &'a str, Bson),
    /// The end of an edge, and whether it must exist.
    Resource(&'a str, Bson, bool),
}

/// A member of a resource that is being evaluated.
#[derive(Clone, PartialEq)]
struct Asked {
    kind: String,
    id: Bson,
    member: String,
}

/// The evaluation of one question.
pub struct Naive<'a> {
    pub model: &'a Model,
    pub collections: &'a BTreeMap<String, Vec<Document>>,
    /// The type and id of the subject; none is the anonymous subject.
    pub subject: Option<(&'a str, Bson)>,
    pub now: i64,
    /// What is being evaluated, each with the number of `!` around it.
    open: RefCell<Vec<(Asked, usize)>>,
    /// The values of members that were asked for by themselves, each with whether it stands under a `!`. If there are none,
    /// the evaluation recurses and cuts off cycles.
    alone: Option<RefCell<Vec<(Asked, bool, Value)>>>,
    steps: Cell<usize>,
    /// The relations under a `!`.
    negated: BTreeSet<(String, String)>,
}

impl<'a> Naive<'a> {
    pub fn new(
        model: &'a Model,
        collections: &'a BTreeMap<String, Vec<Document>>,
        subject: Option<(&'a str, Bson)>,
        now: i64,
    ) -> Self {
        Self {
            model,
            collections,
            subject,
            now,
            open: RefCell::default(),
            alone: None,
            steps: Cell::new(0),
            negated: negated(model),
        }
    }

    /// Whether the permission is allowed, or the reason of the denial. None if it is too much work.
    pub fn answer(&self, permission: &str, kind: &str, id: &Bson) -> Option<Result<(), Reason>> {
        let value = self.question(permission, kind, id)?;
        if matches!(value, Value::True) {
            return Some(Ok(()));
        }
        // The value is known, and its reason follows from the values that the members have by themselves.
        let subject = self.subject.clone();
        let again =
            Self { alone: Some(RefCell::default()), ..Self::new(self.model, self.collections, subject, self.now) };
        match again.question(permission, kind, id)? {
            Value::True => panic!("denied, but allowed if every member is evaluated by itself"),
            Value::Unclear(reason) | Value::False(reason) => Some(Err(reason)),
        }
    }

    fn question(&self, permission: &str, kind: &str, id: &Bson) -> Option<Value> {
        let exists = match self.exists(kind, id, 0) {
            Value::False(_) => Value::False(Reason::NotFound),
            value => value,
        };
        let value = all(&[self.gate(), exists, self.ask(kind, id, permission, 0)]);
        (self.steps.get() <= STEPS_MAX).then_some(value)
    }

    /// The value of a member by itself, with no reason. Too much work counts as too many steps.
    fn value_alone(&self, asked: &Asked, is_under: bool) -> Option<Value> {
        let known = self.alone.as_ref()?;
        let found = known.borrow().iter().find(|(other, under, _)| (other, *under) == (asked, is_under)).map(|it| it.2);
        if let Some(value) = found {
            return Some(value);
        }
        let other = Self::new(self.model, self.collections, self.subject.clone(), self.now);
        let value = match other.ask(&asked.kind, &asked.id, &asked.member, is_under.into()) {
            Value::True => Value::True,
            Value::Unclear(_) => Value::Unclear(Reason::Cycle),
            Value::False(_) => NOTHING,
        };
        if other.steps.get() > STEPS_MAX {
            self.steps.set(STEPS_MAX + 1);
        }
        known.borrow_mut().push((asked.clone(), is_under, value));
        Some(value)
    }

    /// Whether the subject has a document that fulfils the condition of its type.
    fn gate(&self) -> Value {
        let Some((name, id)) = &self.subject else {
            return Value::True;
        };
        let kind = self.model.subject(name).expect("a subject type of the model");
        let Some(collection) = kind.collection else {
            return Value::True;
        };
        let Some(document) = self.by(collection, "_id", None, id).pop() else {
            return Value::False(Reason::SubjectInactive);
        };
        let gate = Relation {
            condition: kind.condition.clone(),
            since: kind.since.clone(),
            until: kind.until.clone(),
            ..Relation::default()
        };
        let mut grants = Vec::new();
        self.grants(&gate, document, 0, &mut grants);
        match any(&grants.iter().map(|grant| self.value(grant, None, 0)).collect::<Vec<_>>()) {
            Value::False(_) => Value::False(Reason::SubjectInactive),
            value => value,
        }
    }

    /// The grants of a relation of the subject.
    fn grants_of_subject<'b>(&self, relation: &'b Relation, under: usize) -> Vec<Grant<'b>> {
        let Some((name, id)) = &self.subject else {
            return Vec::new();
        };
        let kind = self.model.subject(name).expect("a subject type of the model");
        let documents = match (&relation.lookup, kind.collection) {
            (Some((collection, by)), _) => self.by(collection, by, relation.by_format, id),
            (None, Some(collection)) => self.by(collection, "_id", None, id),
            (None, None) => Vec::new(),
        };
        let mut grants = Vec::new();
        for document in documents {
            self.grants(relation, document, under, &mut grants);
        }
        let sure = grants.len();
        for document in self.by_other_forms(relation, of_subject(name), kind.collection, id) {
            self.grants(relation, document, under, &mut grants);
        }
        grants.iter_mut().skip(sure).for_each(|grant| grant.is_sure = false);
        grants
    }

    /// The values of the relations of the subject that `of` names, for a resource of the type `kind`.
    fn of_subject(&self, of: &[(&'static str, String)], id: &Bson, under: usize) -> Vec<Value> {
        let mut values = Vec::new();
        for (name, relation) in of.iter().filter(|(name, _)| self.subject.as_ref().is_some_and(|who| who.0 == *name)) {
            let kind = self.model.subject(name).expect("a subject type of the model");
            let relation = kind.relation(relation).expect("a relation of the subject");
            for grant in self.grants_of_subject(relation, under) {
                let value = match &grant.whom {
                    Whom::Resource(_, other, _) => {
                        if other == id {
                            Value::True
                        } else {
                            NOTHING
                        }
                    }
                    _ => MALFORMED,
                };
                values.push(self.within(&grant, value));
            }
        }
        values
    }

    /// The value of a flag of the subject. A subject of a type without it does not have it.
    fn flag_of_subject(&self, name: &str, under: usize) -> Value {
        let kind = self.subject.as_ref().and_then(|(kind, _)| self.model.subject(kind));
        let Some(flag) = kind.and_then(|kind| kind.relation(name)).filter(|relation| relation.field.is_none()) else {
            return NOTHING;
        };
        let grants = self.grants_of_subject(flag, under);
        any(&grants.iter().map(|grant| self.value(grant, None, under)).collect::<Vec<_>>())
    }

    /// Whether the resource exists: whether its document fulfils the condition of its type. A resource of a type without
    /// documents always does.
    fn exists(&self, kind: &str, id: &Bson, under: usize) -> Value {
        let kind = self.model.resource(kind).expect("a resource type of the model");
        let Some(collection) = kind.collection else {
            return Value::True;
        };
        let Some(document) = self.by(collection, "_id", None, id).pop() else {
            return NOTHING;
        };
        match certainty(kind.condition.as_ref(), document, under) {
            None => NOTHING,
            Some(true) => Value::True,
            Some(false) => MALFORMED,
        }
    }

    /// The documents of a collection whose field contains the id, as text if there is a format.
    fn by(&self, collection: &str, field: &str, format: Option<&str>, id: &Bson) -> Vec<&'a Document> {
        let is_it = |value: &Bson| match format {
            None => same_id(value, id),
            Some(format) => {
                let text = plain(id);
                let is_hex = !matches!(id, Bson::String(_));
                let upper = if is_hex { text.to_uppercase() } else { text.clone() };
                [text, upper].iter().any(|text| value.as_str() == Some(&format.replace("{id}", text)))
            }
        };
        let documents = self.collections.get(collection).into_iter().flatten();
        let found = documents.filter(|document| {
            ends(document, field).into_iter().any(|end| match end {
                End::Value(Bson::Array(items)) => items.iter().any(is_it),
                End::Value(value) => is_it(value),
                End::Missing | End::Blocked => false,
            })
        });
        found.collect()
    }

    /// The value of a relation or permission of a resource. `under` is the number of `!` around it.
    fn ask(&self, kind: &str, id: &Bson, member: &str, under: usize) -> Value {
        let asked = Asked { kind: kind.to_owned(), id: id.clone(), member: member.to_owned() };
        let is_elsewhere = |(other, _): &&(Asked, usize)| (&other.kind, &other.id) != (&asked.kind, id);
        let depth = self.open.borrow().iter().filter(is_elsewhere).count();
        self.steps.set(self.steps.get() + if depth > DEPTH_MAX { STEPS_MAX } else { 1 });
        if self.steps.get() > STEPS_MAX {
            return MALFORMED;
        }
        // By themselves, a member under a `!` and the same one elsewhere have values of their own.
        let is_same = |around: usize| self.alone.is_none() || (around > 0) == (under > 0);
        let open = self.open.borrow().iter().find(|(other, at)| *other == asked && is_same(*at)).map(|(_, at)| *at);
        match (self.value_alone(&asked, under > 0), open) {
            (Some(value), Some(_)) | (Some(value @ Value::True), None) => return value,
            (Some(_), None) | (None, _) => {}
        }
        match open.filter(|_| self.alone.is_none()) {
            Some(around) if around == under => return NOTHING,
            Some(_) => return Value::Unclear(Reason::Cycle),
            None => {}
        }
        self.open.borrow_mut().push((asked, under));
        let resource = self.model.resource(kind).expect("a resource type of the model");
        let value = match (resource.permission(member), resource.relation(member)) {
            (Some(permission), _) => self.expression(&permission.meaning, kind, id, under),
            (None, relation) => {
                let relation = relation.expect("a relation of the model");
                any(&self.values(relation, kind, id, None, under))
            }
        };
        self.open.borrow_mut().pop();
        value
    }

    fn expression(&self, expression: &Expression, kind: &str, id: &Bson, under: usize) -> Value {
        let each = |sides: &[Expression]| -> Vec<Value> {
            sides.iter().map(|side| self.expression(side, kind, id, under)).collect()
        };
        match expression {
            Expression::Member(name) => self.ask(kind, id, name, under),
            Expression::Walk(edge, member) => {
                let resource = self.model.resource(kind).expect("a resource type of the model");
                let edge = resource.relation(edge).expect("an edge of the model");
                any(&self.values(edge, kind, id, Some(member), under))
            }
            Expression::SubjectFlag(name) => self.flag_of_subject(name, under),
            Expression::Not(inner) => match self.expression(inner, kind, id, under + 1) {
                Value::True => Value::False(Reason::Excluded),
                unclear @ Value::Unclear(_) => unclear,
                Value::False(_) => Value::True,
            },
            Expression::And(sides) => all(&each(sides)),
            Expression::Or(sides) => any(&each(sides)),
        }
    }

    /// The value of each grant of a relation for the subject. For an edge, `member` is evaluated at its end.
    fn values(&self, relation: &Relation, kind: &str, id: &Bson, member: Option<&str>, under: usize) -> Vec<Value> {
        if !relation.of.is_empty() {
            return self.of_subject(&relation.of, id, under);
        }
        if !self.can_lead_to_subject(relation, under) {
            return Vec::new();
        }
        let resource = self.model.resource(kind).expect("a resource type of the model");
        let documents = match (&relation.lookup, resource.collection) {
            (Some((collection, by)), _) => self.by(collection, by, relation.by_format, id),
            (None, Some(collection)) => self.by(collection, "_id", None, id),
            (None, None) => Vec::new(),
        };
        let mut grants = Vec::new();
        for document in documents {
            self.grants(relation, document, under, &mut grants);
        }
        let sure = grants.len();
        for document in self.by_other_forms(relation, resource.name.to_owned(), resource.collection, id) {
            self.grants(relation, document, under, &mut grants);
        }
        grants.iter_mut().skip(sure).for_each(|grant| grant.is_sure = false);
        grants.iter().map(|grant| self.value(grant, member, under)).collect()
    }

    /// The documents of another collection that may name the resource, or the subject, in another form of its id. Only a relation under a `!`
    /// takes notice of them.
    fn by_other_forms(&self, relation: &Relation, kind: String, own: Option<&str>, id: &Bson) -> Vec<&'a Document> {
        let Some((collection, by)) = &relation.lookup else { return Vec::new() };
        let is_own = own == Some(collection) && by == "_id" && relation.by_format.is_none();
        if is_own || !self.negated.contains(&(kind, relation.name.clone())) {
            return Vec::new();
        }
        let documents = self.collections.get(*collection).into_iter().flatten();
        documents.filter(|document| names_otherwise(document, by, relation.by_format, id)).collect()
    }

    /// Whether the relation can lead to the type of the subject. If not, its documents do not matter. Under a `!` they do if they
    /// name types: that may be one that the relation does not list.
    fn can_lead_to_subject(&self, relation: &Relation, under: usize) -> bool {
        if under > 0 && relation.subject_type.is_some() {
            return true;
        }
        let is_other = |target: &Target| match target {
            Target::Subject(kind) => self.subject.as_ref().is_none_or(|(name, _)| name != kind),
            Target::Set(..) | Target::Resource(_) => false,
        };
        relation.targets.is_empty() || !relation.targets.iter().all(is_other)
    }

    fn value(&self, grant: &Grant<'_>, member: Option<&str>, under: usize) -> Value {
        let holds = |it: bool| if it { Value::True } else { NOTHING };
        let value = match &grant.whom {
            Whom::All => Value::True,
            Whom::Unreadable => MALFORMED,
            Whom::Subject(kind, id) => holds(self.subject.as_ref().is_some_and(|who| (who.0, &who.1) == (*kind, id))),
            Whom::EverySubject(kind) => holds(self.subject.as_ref().is_some_and(|(name, _)| name == kind)),
            Whom::Set(kind, member, id) => self.ask_elsewhere(kind, id, member, under),
            Whom::Resource(kind, id, must_exist) => match self.exists(kind, id, under) {
                Value::False(_) | Value::Unclear(_) if *must_exist => MALFORMED,
                _ => self.ask_elsewhere(kind, id, member.expect("an edge is followed"), under),
            },
        };
        self.within(grant, value)
    }

    /// The value of a grant, limited by its times and its certainty.
    fn within(&self, grant: &Grant<'_>, value: Value) -> Value {
        let is_on =
            grant.since.is_none_or(|since| since <= self.now) && grant.until.is_none_or(|until| self.now < until);
        match value {
            Value::False(reason) => Value::False(reason),
            _ if !is_on => Value::False(Reason::Expired),
            Value::True if grant.is_sure => Value::True,
            Value::True => MALFORMED,
            unclear @ Value::Unclear(_) => unclear,
        }
    }

    /// The value of a member of another resource, which grants nothing if it does not exist.
    fn ask_elsewhere(&self, kind: &str, id: &Bson, member: &str, under: usize) -> Value {
        match self.exists(kind, id, under) {
            Value::False(_) => NOTHING,
            exists => all(&[exists, self.ask(kind, id, member, under)]),
        }
    }

    /// Collects the grants of a relation in a document.
    fn grants<'b>(&self, relation: &'b Relation, document: &Document, under: usize, grants: &mut Vec<Grant<'b>>) {
        let certainty =
            |condition: &Option<Condition>, document: &Document| self::certainty(condition.as_ref(), document, under);
        let Some(each) = &relation.each else {
            if let Some(is_sure) = certainty(&relation.condition, document) {
                self.read(relation, document, is_sure, grants);
            }
            return;
        };
        let Some(is_sure) = certainty(&relation.document_condition, document) else {
            return;
        };
        let unreadable = || Grant { is_sure, whom: Whom::Unreadable, since: None, until: None };
        for end in ends(document, each) {
            let items = match end {
                End::Missing => continue,
                End::Value(Bson::Array(items)) => items,
                End::Value(_) | End::Blocked => {
                    grants.push(unreadable());
                    continue;
                }
            };
            for item in items {
                match item {
                    Bson::Null => {}
                    Bson::Document(element) => {
                        if let Some(is_element_sure) = certainty(&relation.condition, element) {
                            self.read(relation, element, is_sure && is_element_sure, grants);
                        }
                    }
                    _ => grants.push(unreadable()),
                }
            }
        }
    }

    /// Collects the grants in a document or an element that counts.
    fn read<'b>(&self, relation: &'b Relation, document: &Document, is_sure: bool, grants: &mut Vec<Grant<'b>>) {
        let date = |path: &Option<String>| match path.as_ref().map(|path| only(document, path)) {
            None => (None, true),
            Some(Only::Nothing) => (None, !relation.required),
            Some(Only::Value(value)) => {
                let date = moment(value, relation.unit);
                (date, date.is_some())
            }
            Some(Only::Wrong) => (None, false),
        };
        let ((since, is_since_sure), (until, is_until_sure)) = (date(&relation.since), date(&relation.until));
        let is_sure = is_sure && is_since_sure && is_until_sure;
        grants.extend(self.whom(relation, document).into_iter().map(|whom| Grant { is_sure, whom, since, until }));
    }

    fn whom<'b>(&self, relation: &'b Relation, document: &Document) -> Vec<Whom<'b>> {
        let Some(field) = &relation.field else {
            return vec![Whom::All];
        };
        let target = match target(relation, document) {
            Named::Nobody => return Vec::new(),
            Named::Unreadable => None,
            Named::Target(target) => Some(target),
        };
        let mut all = Vec::new();
        for end in ends(document, field) {
            match end {
                End::Missing => {}
                End::Blocked => all.push(Whom::Unreadable),
                End::Value(Bson::Array(items)) => {
                    all.extend(items.iter().filter_map(|item| self.id(relation, target, item)));
                }
                End::Value(value) => all.extend(self.id(relation, target, value)),
            }
        }
        all
    }

    /// The grantee that one value means; none if it means nobody.
    fn id<'b>(&self, relation: &Relation, target: Option<&'b Target>, value: &Bson) -> Option<Whom<'b>> {
        let text = if let Bson::String(text) = value { Some(text.as_str()) } else { None };
        if *value == Bson::Null || text == Some("") {
            return None;
        }
        if target.is_none() {
            return Some(Whom::Unreadable);
        }
        let (text, read_id): (_, ReadId) = match relation.format {
            None => (text, Box::new(read_id)),
            Some(format) => {
                let (before, after) = format.split_once("{id}").expect("a format of the generator");
                let rest = match text {
                    None => None,
                    Some(text) if text.len() < before.len() + after.len() => return None,
                    Some(text) if !text.starts_with(before) || !text.ends_with(after) => return None,
                    Some(text) => Some(text[before.len()..text.len() - after.len()].to_owned()),
                };
                let is_everybody = rest.as_deref() == Some("*");
                let parse = move |_: &Bson, form| rest.as_deref().and_then(|rest| parsed(rest, form));
                (is_everybody.then_some("*"), Box::new(parse))
            }
        };
        let of_resource = |name: &str| self.model.resource(name).and_then(|kind| read_id(value, kind.form));
        let whom = match target {
            Some(Target::Subject(name)) if text == Some("*") && relation.wildcard => Some(Whom::EverySubject(name)),
            _ if text == Some("*") => None,
            Some(Target::Subject(name)) => {
                let id = self.model.subject(name).and_then(|kind| read_id(value, kind.form));
                id.map(|id| Whom::Subject(name, id))
            }
            Some(Target::Set(name, member)) => of_resource(name).map(|id| Whom::Set(name, member, id)),
            Some(Target::Resource(name)) => of_resource(name).map(|id| Whom::Resource(name, id, relation.must_exist)),
            None => None,
        };
        Some(whom.unwrap_or(Whom::Unreadable))
    }
}

/// Whether a document can be relied on; none if it does not count.
fn certainty(condition: Option<&Condition>, document: &Document, under: usize) -> Option<bool> {
    let Some(condition) = condition else {
        return Some(true);
    };
    let query = condition.to_query();
    match (matching::matches(&query, document), matching::is_typed(&query, document)) {
        (true, is_typed) => Some(is_typed),
        (false, false) if under > 0 => Some(false),
        (false, _) => None,
    }
}

/// Reads a value as an id of a form.
type ReadId = Box<dyn Fn(&Bson, IdForm) -> Option<Bson>>;

enum Named<'a> {
    Nobody,
    Unreadable,
    Target(&'a Target),
}

/// The target that a document names.
fn target<'a>(relation: &'a Relation, document: &Document) -> Named<'a> {
    let named = |path: &Option<String>| match path.as_ref().map_or(Only::Nothing, |path| only(document, path)) {
        Only::Nothing => Some(String::new()),
        Only::Value(Bson::String(name)) => Some(name.clone()),
        Only::Value(_) | Only::Wrong => None,
    };
    let kind = match named(&relation.subject_type) {
        Some(name) if name.is_empty() && relation.subject_type.is_some() => return Named::Nobody,
        Some(name) => name,
        None => return Named::Unreadable,
    };
    let Some(member) = named(&relation.subject_relation) else {
        return Named::Unreadable;
    };
    let is_meant = |(place, target): &(usize, &Target)| {
        let (name, of) = match target {
            Target::Subject(name) | Target::Resource(name) => (*name, ""),
            Target::Set(name, of) => (*name, of.as_str()),
        };
        let name = relation.type_values.get(*place).copied().unwrap_or(name);
        (relation.subject_type.is_none() || kind == name) && (relation.subject_relation.is_none() || member == of)
    };
    let found = relation.targets.iter().enumerate().find(is_meant);
    found.map_or(Named::Unreadable, |(_, target)| Named::Target(target))
}

fn any(values: &[Value]) -> Value {
    if values.iter().any(|value| matches!(value, Value::True)) {
        return Value::True;
    }
    let is_there = |reason: &Reason| values.iter().any(|value| matches!(value, Value::False(it) if it == reason));
    unclear(values).unwrap_or(Value::False(REASONS.into_iter().find(is_there).unwrap_or(Reason::NoGrant)))
}

fn all(values: &[Value]) -> Value {
    let false_one = values.iter().find(|value| matches!(value, Value::False(_))).copied();
    false_one.or_else(|| unclear(values)).unwrap_or(Value::True)
}

/// The unclear value with the reason that comes first.
fn unclear(values: &[Value]) -> Option<Value> {
    let reason = |value: &Value| match value {
        Value::Unclear(reason) => Some(*reason),
        Value::True | Value::False(_) => None,
    };
    values.iter().filter_map(reason).min().map(Value::Unclear)
}

/// Whether two values are the same id in some form.
pub fn same_id(one: &Bson, other: &Bson) -> bool {
    one == other || FORMS.iter().any(|form| read_id(one, *form).is_some_and(|id| read_id(other, *form) == Some(id)))
}

/// The text of an id.
fn plain(id: &Bson) -> String {
    match id {
        Bson::ObjectId(id) => id.to_hex(),
        Bson::String(text) => text.clone(),
        Bson::Binary(binary) => binary.to_uuid().expect("a UUID").to_string(),
        number => number.to_string(),
    }
}

/// The id that a text means.
fn parsed(text: &str, form: IdForm) -> Option<Bson> {
    let id = match form {
        IdForm::ObjectId => ObjectId::parse_str(text).ok().map(Bson::ObjectId),
        IdForm::Uuid => Uuid::parse_str(text).ok().map(|uuid| Bson::Binary(uuid.into())),
        IdForm::Integer => text.parse().ok().map(Bson::Int64),
        IdForm::String => (!text.is_empty()).then(|| text.into()),
    };
    // Hex digits are in one case.
    id.filter(|id| [plain(id), plain(id).to_ascii_uppercase()].iter().any(|spelling| spelling == text))
}

/// The date that a value means, in milliseconds. The generator's numbers are whole.
fn moment(value: &Bson, unit: Option<&str>) -> Option<i64> {
    let number = match value {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) => Some((*number * 1_000.0) as i64 / 1_000),
        _ => None,
    };
    let millis = match (unit, value) {
        (None, Bson::DateTime(date)) => Some(date.timestamp_millis()),
        (Some("seconds"), Bson::Double(number)) => Some((*number * 1_000.0) as i64),
        (Some("seconds"), _) => number.map(|number| number * 1_000),
        (Some("milliseconds"), Bson::Double(number)) => Some(number.ceil() as i64),
        (Some("milliseconds"), _) => number,
        (Some("iso8601"), Bson::String(text)) => DateTime::parse_rfc3339_str(text).ok().map(DateTime::timestamp_millis),
        _ => None,
    };
    // The years 0 to 9999.
    let is_in_range = |millis: &i64| (-62_167_219_200_000..253_402_300_800_000).contains(millis);
    millis.filter(|millis| unit.is_none() || is_in_range(millis))
}

const FORMS: [IdForm; 4] = IdForm::ALL;

/// The value as an id of a form. Each form has one BSON type here.
fn read_id(value: &Bson, form: IdForm) -> Option<Bson> {
    match (form, value) {
        (IdForm::ObjectId, Bson::ObjectId(_)) | (IdForm::String, Bson::String(_)) => Some(value.clone()),
        (IdForm::Uuid, Bson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes })) if bytes.len() == 16 => {
            Some(value.clone())
        }
        (IdForm::Integer, Bson::Int32(number)) => Some(Bson::Int64(i64::from(*number))),
        (IdForm::Integer, Bson::Int64(_)) => Some(value.clone()),
        // The generator's doubles are small.
        (IdForm::Integer, Bson::Double(double)) if double.fract() == 0.0 => Some(Bson::Int64(*double as i64)),
        _ => None,
    }
}

pub enum End<'a> {
    Value(&'a Bson),
    Missing,
    Blocked,
}

/// All ends of a path. Arrays of documents on the way are followed into their elements.
pub fn ends<'a>(document: &'a Document, path: &str) -> Vec<End<'a>> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    match (document.get(first), rest) {
        (None | Some(Bson::Null), _) => vec![End::Missing],
        (Some(value), None) => vec![End::Value(value)],
        (Some(Bson::Document(inner)), Some(rest)) => ends(inner, rest),
        (Some(Bson::Array(items)), Some(rest)) => {
            let inside = items.iter().flat_map(|item| match item {
                Bson::Document(inner) => ends(inner, rest),
                Bson::Null => vec![End::Missing],
                _ => vec![End::Blocked],
            });
            inside.collect()
        }
        (Some(_), Some(_)) => vec![End::Blocked],
    }
}

enum Only<'a> {
    Nothing,
    Value(&'a Bson),
    Wrong,
}

/// The only value at a path; wrong if there are several.
fn only<'a>(document: &'a Document, path: &str) -> Only<'a> {
    match ends(document, path).as_slice() {
        [] | [End::Missing] => Only::Nothing,
        [End::Value(value)] => Only::Value(value),
        _ => Only::Wrong,
    }
}
