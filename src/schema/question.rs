//! Turns names and texts of a request into a question: validates every field against the schema, and reports every error
//! with its field.
//!
//! Does not know the protocol beyond the names of its fields.

use super::{Member, Schema, suggestion};
use crate::question::{Id, IdForm, PermissionId, Question, Resource, ResourceTypeId, Subject, SubjectTypeId};

/// An error in one field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The path of the field in the protocol's question message: `resource.id`.
    pub field: &'static str,
    /// What is wrong, and how to fix it.
    pub message: String,
}

impl FieldError {
    fn new(field: &'static str, message: String) -> Self {
        Self { field, message }
    }
}

/// A subject in the form in which a request names it.
#[derive(Clone, Copy, Debug)]
pub enum SubjectText<'a> {
    /// An anonymous subject.
    Anonymous,
    /// A type and an id.
    Known {
        /// The name of the type. Empty means the default type of the schema.
        kind: &'a str,
        /// The id.
        id: &'a str,
    },
}

impl Schema {
    /// Creates the question of a request.
    ///
    /// # Errors
    /// An error for each invalid field.
    pub fn question(
        &self,
        subject: SubjectText<'_>,
        permission: &str,
        resource_type: &str,
        resource_id: &str,
    ) -> Result<Question, Vec<FieldError>> {
        let mut errors = Vec::new();
        let subject = self.named_subject(subject, &mut errors);
        let resource = self.named_resource(resource_type, resource_id, &mut errors);
        let permission =
            self.resource_type(resource_type).and_then(|kind| self.named_permission(kind, permission, &mut errors));
        match (subject, permission, resource) {
            (Some(subject), Some(permission), Some(resource)) => Ok(Question { subject, permission, resource }),
            _ => Err(errors),
        }
    }

    /// Creates one question for each permission of the resource that requests can ask for, in the order of their names.
    ///
    /// # Errors
    /// An error for each invalid field.
    pub fn questions_for_all(
        &self,
        subject: SubjectText<'_>,
        resource_type: &str,
        resource_id: &str,
    ) -> Result<Vec<Question>, Vec<FieldError>> {
        let mut errors = Vec::new();
        let subject = self.named_subject(subject, &mut errors);
        let resource = self.named_resource(resource_type, resource_id, &mut errors);
        let (Some(subject), Some(resource)) = (subject, resource) else { return Err(errors) };
        let permissions = self.public_permissions(resource.kind);
        Ok(permissions
            .map(|permission| Question { subject: subject.clone(), permission, resource: resource.clone() })
            .collect())
    }

    /// Reads what a list of resources is about: the subject, the permission and the resource type.
    ///
    /// # Errors
    /// An error for each invalid field.
    pub fn resources_question(
        &self,
        subject: SubjectText<'_>,
        permission: &str,
        resource_type: &str,
    ) -> Result<(Subject, PermissionId, ResourceTypeId), Vec<FieldError>> {
        let mut errors = Vec::new();
        let subject = self.named_subject(subject, &mut errors);
        let kind = self.named_type("resource_type", resource_type, &mut errors);
        let permission = kind.and_then(|kind| self.named_permission(kind, permission, &mut errors));
        match (subject, permission, kind) {
            (Some(subject), Some(permission), Some(kind)) => Ok((subject, permission, kind)),
            _ => Err(errors),
        }
    }

    /// Reads what a list of subjects is about: the permission, the resource and the subject type.
    ///
    /// # Errors
    /// An error for each invalid field.
    pub fn subjects_question(
        &self,
        permission: &str,
        (resource_type, resource_id): (&str, &str),
        subject_type: &str,
    ) -> Result<(PermissionId, Resource, SubjectTypeId), Vec<FieldError>> {
        let mut errors = Vec::new();
        let permission =
            self.resource_type(resource_type).and_then(|kind| self.named_permission(kind, permission, &mut errors));
        let resource = self.named_resource(resource_type, resource_id, &mut errors);
        let subject = self.named_subject_type("subject_type", subject_type, &mut errors);
        match (permission, resource, subject) {
            (Some(permission), Some(resource), Some(subject)) => Ok((permission, resource, subject)),
            _ => Err(errors),
        }
    }

    /// Reads a subject from its type and id in the form in which requests name them.
    ///
    /// # Errors
    /// An error for each invalid field.
    pub fn read_subject(&self, kind: &str, id: &str) -> Result<Subject, Vec<FieldError>> {
        let mut errors = Vec::new();
        self.named_subject(SubjectText::Known { kind, id }, &mut errors).ok_or(errors)
    }

    /// Reads a resource from its type and id in the form in which requests name them.
    ///
    /// # Errors
    /// An error for each invalid field.
    pub fn read_resource(&self, kind: &str, id: &str) -> Result<Resource, Vec<FieldError>> {
        let mut errors = Vec::new();
        self.named_resource(kind, id, &mut errors).ok_or(errors)
    }

    fn resource_type(&self, name: &str) -> Option<ResourceTypeId> {
        self.resources().find(|(_, kind)| &*kind.name == name).map(|(id, _)| id)
    }

    fn named_subject(&self, subject: SubjectText<'_>, errors: &mut Vec<FieldError>) -> Option<Subject> {
        let SubjectText::Known { kind, id } = subject else { return Some(Subject::Anonymous) };
        let number = self.named_subject_type("subject.type", kind, errors)?;
        let kind = self.subject(number);
        let id = read_id("subject.id", id, kind.id, kind.secret, errors)?;
        Some(Subject::Known { kind: number, id })
    }

    /// The subject type of this name, or the default one if the name is empty.
    fn named_subject_type(
        &self,
        field: &'static str,
        name: &str,
        errors: &mut Vec<FieldError>,
    ) -> Option<SubjectTypeId> {
        let found = match name {
            "" => Some(self.default_subject()),
            name => self.subjects().find(|(_, kind)| &*kind.name == name).map(|(id, _)| id),
        };
        if found.is_none() {
            let names = self.subjects().map(|(_, kind)| &*kind.name);
            errors.push(FieldError::new(field, unknown("subject type", name, names)));
        }
        found
    }

    fn named_type(&self, field: &'static str, name: &str, errors: &mut Vec<FieldError>) -> Option<ResourceTypeId> {
        let found = self.resource_type(name);
        if found.is_none() {
            let names = self.resources().map(|(_, kind)| &*kind.name);
            errors.push(FieldError::new(field, unknown("resource type", name, names)));
        }
        found
    }

    fn named_resource(&self, name: &str, id: &str, errors: &mut Vec<FieldError>) -> Option<Resource> {
        let kind = self.named_type("resource.type", name, errors)?;
        let id = read_id("resource.id", id, self.resource(kind).id, false, errors)?;
        Some(Resource { kind, id })
    }

    fn named_permission(&self, kind: ResourceTypeId, name: &str, errors: &mut Vec<FieldError>) -> Option<PermissionId> {
        let resource = self.resource(kind);
        let message = match resource.members.get(name) {
            Some(Member::Permission(id)) if !self.permission(*id).private => return Some(*id),
            Some(Member::Permission(_)) => {
                format!("`{name}` is private to the schema: ask for a permission that uses it")
            }
            Some(Member::Relation(_)) => format!("`{name}` is a relation of `{}`, not a permission", resource.name),
            None => {
                let names = self.public_permissions(kind).map(|id| &*self.permission(id).name);
                unknown(&format!("permission of `{}`", resource.name), name, names)
            }
        };
        errors.push(FieldError::new("permission", message));
        None
    }

    /// The name of a subject: `type:id`, or `anonymous`. The id of a secret subject is its hash.
    #[must_use]
    pub fn subject_name(&self, subject: &Subject) -> String {
        match subject {
            Subject::Anonymous => "anonymous".to_owned(),
            Subject::Known { kind, id } => format!("{}:{id}", self.subject(*kind).name),
        }
    }
}

fn read_id(field: &'static str, text: &str, form: IdForm, secret: bool, errors: &mut Vec<FieldError>) -> Option<Id> {
    Id::parse(text, form, secret).map_err(|error| errors.push(FieldError::new(field, error.to_string()))).ok()
}

/// "unknown permission `raed`: did you mean `read`?"
fn unknown<'a>(what: &str, name: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    let shown: String = name.chars().take(100).collect();
    match suggestion(&shown, valid) {
        Some(help) => format!("unknown {what} `{shown}`: {help}"),
        None => format!("unknown {what} `{shown}`"),
    }
}
