//! A schema as plain data: the generator creates it, the naive evaluator reads it, and the crate receives it as TOML.
//!
//! Checks nothing: `Schema::parse` decides whether a model is valid.

use std::fmt::{self, Write};

use bson::Bson;
use permcached::{question::IdForm, schema::Condition};

/// A whole schema. The first subject type is the default one.
pub struct Model {
    pub subjects: Vec<SubjectType>,
    pub resources: Vec<ResourceType>,
}

pub struct SubjectType {
    pub name: &'static str,
    pub form: IdForm,
    pub is_secret: bool,
    pub collection: Option<&'static str>,
    pub condition: Option<Condition>,
    pub since: Option<String>,
    pub until: Option<String>,
    pub relations: Vec<Relation>,
}

pub struct ResourceType {
    pub name: &'static str,
    pub form: IdForm,
    pub collection: Option<&'static str>,
    pub condition: Option<Condition>,
    pub relations: Vec<Relation>,
    pub permissions: Vec<Permission>,
}

#[derive(Default)]
pub struct Relation {
    pub name: String,
    /// The relations of subjects that it stands for: their types and names. If there are any, nothing else is set.
    pub of: Vec<(&'static str, String)>,
    /// Another collection, and the field by which its documents are found.
    pub lookup: Option<(&'static str, String)>,
    /// The form of the ids in that field as text, such as `k:{id}`.
    pub by_format: Option<&'static str>,
    pub each: Option<String>,
    pub field: Option<String>,
    pub format: Option<&'static str>,
    /// What the field leads to; empty for a flag.
    pub targets: Vec<Target>,
    /// For each target, the value of `subject_type` that means it; empty if the names of the types mean them.
    pub type_values: Vec<&'static str>,
    pub subject_type: Option<String>,
    pub subject_relation: Option<String>,
    pub wildcard: bool,
    pub must_exist: bool,
    pub condition: Option<Condition>,
    pub document_condition: Option<Condition>,
    pub since: Option<String>,
    pub until: Option<String>,
    /// The unit of both dates, if they are not dates of BSON.
    pub unit: Option<&'static str>,
    pub required: bool,
}

#[derive(Clone, PartialEq)]
pub enum Target {
    Subject(&'static str),
    Set(&'static str, String),
    Resource(&'static str),
}

pub struct Permission {
    pub name: String,
    pub meaning: Expression,
    pub is_private: bool,
}

pub enum Expression {
    Member(String),
    Walk(String, String),
    SubjectFlag(String),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

impl Model {
    pub fn subject(&self, name: &str) -> Option<&SubjectType> {
        self.subjects.iter().find(|kind| kind.name == name)
    }

    pub fn resource(&self, name: &str) -> Option<&ResourceType> {
        self.resources.iter().find(|kind| kind.name == name)
    }

    /// Every collection that the schema reads, once each.
    pub fn collections(&self) -> Vec<&'static str> {
        let subjects = self.subjects.iter().filter_map(|kind| kind.collection);
        let resources = self.resources.iter().filter_map(|kind| kind.collection);
        let of_subjects = self.subjects.iter().flat_map(|kind| &kind.relations);
        let relations = self.resources.iter().flat_map(|kind| &kind.relations).chain(of_subjects);
        let relations = relations.filter_map(|relation| Some(relation.lookup.as_ref()?.0));
        let mut all: Vec<_> = subjects.chain(resources).chain(relations).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl SubjectType {
    pub fn relation(&self, name: &str) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.name == name)
    }
}

impl ResourceType {
    pub fn relation(&self, name: &str) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.name == name)
    }

    pub fn permission(&self, name: &str) -> Option<&Permission> {
        self.permissions.iter().find(|permission| permission.name == name)
    }
}

impl Relation {
    pub fn is_edge(&self) -> bool {
        matches!(self.targets.first(), Some(Target::Resource(_)))
    }
}

/// The schema as TOML.
impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "default_subject = {:?}", self.subjects.first().map_or("", |kind| kind.name))?;
        for kind in &self.subjects {
            writeln!(f, "\n[subject.{}]\nid = {:?}", kind.name, kind.form.as_str())?;
            let secret = kind.is_secret.then_some("true".to_owned());
            for (key, value) in [
                ("secret", secret),
                ("collection", kind.collection.map(quoted)),
                ("where", kind.condition.as_ref().map(json)),
                ("since", kind.since.as_deref().map(quoted)),
                ("until", kind.until.as_deref().map(quoted)),
            ] {
                value.map_or(Ok(()), |value| writeln!(f, "{key} = {value}"))?;
            }
            if !kind.relations.is_empty() {
                writeln!(f, "\n[subject.{}.relations]", kind.name)?;
            }
            for relation in &kind.relations {
                writeln!(f, "{} = {{ {} }}", relation.name, relation.keys())?;
            }
        }
        for kind in &self.resources {
            writeln!(f, "\n[resource.{}]\nid = {:?}", kind.name, kind.form.as_str())?;
            if let Some(collection) = kind.collection {
                writeln!(f, "collection = {collection:?}")?;
            }
            if let Some(condition) = &kind.condition {
                writeln!(f, "where = {}", json(condition))?;
            }
            writeln!(f, "\n[resource.{}.relations]", kind.name)?;
            for relation in &kind.relations {
                writeln!(f, "{} = {{ {} }}", relation.name, relation.keys())?;
            }
            writeln!(f, "\n[resource.{}.permissions]", kind.name)?;
            for permission in &kind.permissions {
                let is_private = permission.is_private;
                writeln!(f, "{} = {{ is = \"{}\", private = {is_private} }}", permission.name, permission.meaning)?;
            }
        }
        Ok(())
    }
}

impl Relation {
    fn keys(&self) -> String {
        if !self.of.is_empty() {
            let names: Vec<_> = self.of.iter().map(|(kind, name)| quoted(&format!("{kind}.{name}"))).collect();
            return format!("of = [{}]", names.join(", "));
        }
        let flag = |flag: bool| flag.then_some("true".to_owned());
        let path = |path: &Option<String>| path.as_deref().map(quoted);
        let mut subjects = Vec::new();
        let mut resource = None;
        for target in &self.targets {
            match target {
                Target::Subject(name) => subjects.push(quoted(name)),
                Target::Set(name, member) => subjects.push(quoted(&format!("{name}.{member}"))),
                Target::Resource(name) => resource = Some(quoted(name)),
            }
        }
        let pairs = self.type_values.iter().zip(&subjects).map(|(value, subject)| format!("{value:?} = {subject}"));
        let subject = match subjects.as_slice() {
            [] => None,
            _ if !self.type_values.is_empty() => Some(format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))),
            [only] => Some(only.clone()),
            _ => Some(format!("[{}]", subjects.join(", "))),
        };
        let keys = [
            ("collection", self.lookup.as_ref().map(|(collection, _)| quoted(collection))),
            ("by", self.lookup.as_ref().map(|(_, by)| with(by, "format", self.by_format))),
            ("each", path(&self.each)),
            ("field", path(&self.field)),
            ("format", self.format.map(quoted)),
            ("resource", resource),
            ("subject", subject),
            ("subject_type", path(&self.subject_type)),
            ("subject_relation", path(&self.subject_relation)),
            ("wildcard", flag(self.wildcard)),
            ("must_exist", flag(self.must_exist)),
            ("where", self.condition.as_ref().map(json)),
            ("document_where", self.document_condition.as_ref().map(json)),
            ("since", self.since.as_deref().map(|path| with(path, "unit", self.unit))),
            ("until", self.until.as_deref().map(|path| with(path, "unit", self.unit))),
            ("required", flag(self.required)),
        ];
        let keys = keys.into_iter().filter_map(|(key, value)| Some(format!("{key} = {}", value?)));
        keys.collect::<Vec<_>>().join(", ")
    }
}

/// A field, or a table with another key that says how its value is written.
fn with(field: &str, key: &str, value: Option<&str>) -> String {
    match value {
        None => quoted(field),
        Some(value) => format!("{{ field = {field:?}, {key} = {value:?} }}"),
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

fn json(condition: &Condition) -> String {
    format!("'{}'", Bson::Document(condition.to_query()).into_relaxed_extjson())
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut join = |sides: &[Self], by: &str| {
            f.write_char('(')?;
            for (at, side) in sides.iter().enumerate() {
                write!(f, "{}{side}", if at == 0 { "" } else { by })?;
            }
            f.write_char(')')
        };
        match self {
            Self::And(sides) => join(sides, " & "),
            Self::Or(sides) => join(sides, " | "),
            Self::Not(inner) => write!(f, "!{inner}"),
            Self::Member(name) => f.write_str(name),
            Self::Walk(edge, member) => write!(f, "{edge}.{member}"),
            Self::SubjectFlag(name) => write!(f, "subject.{name}"),
        }
    }
}
