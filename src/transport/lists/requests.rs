//! Reads the requests of lists. Every field is validated, and every violation is reported with its field.
//!
//! Knows the names of the schema only through `schema`, and lists nothing.

use super::page_token::Paged;
use crate::{
    list::{Asker, IDS_MAX_DEFAULT, ListQuestion, PlanOptions, ResourcePage, Secret, SubjectPage},
    question::{Id, PermissionId, Resource, Subject, SubjectTypeId},
    schema::{Condition, Path, Schema, SchemaError, SubjectText},
    transport::{
        convert::{self, subject_text},
        proto::{self, ListResourcesRequest, ListSubjectsRequest, PlanFilterRequest},
        question_fields::ResourceFields,
        status::{IDS_MAX, Violation, cut},
    },
};

/// The size of a page if the request does not say.
const PAGE_DEFAULT: usize = 100;

/// The largest page that a request may ask for.
const PAGE_MAX: usize = 1_000;

/// The longest condition of a caller, in bytes.
const WITHIN_BYTES_MAX: usize = 16 * 1_024;

/// The longest path of a field, in bytes.
const FIELD_BYTES_MAX: usize = 256;

/// The most violations of a caller's condition that are reported.
const WITHIN_ERRORS_MAX: usize = 4;

/// The most bytes that the message of such an error takes in a header, and its remedy: names in it may be long.
const WITHIN_ERROR_BYTES_MAX: usize = 300;

/// A list of subjects that is asked for.
pub(super) struct SubjectsQuestion {
    pub(super) permission: PermissionId,
    pub(super) resource: Resource,
    pub(super) subject_type: SubjectTypeId,
}

/// Reads a request for a filter.
pub(super) fn plan(
    schema: &Schema,
    request: &PlanFilterRequest,
) -> Result<(ListQuestion, PlanOptions), Vec<Violation>> {
    let mut violations = Vec::new();
    let PlanFilterRequest { subject, permission, resource_type, max_ids, reference_field, consistency: _ } = request;
    let question = question(schema, subject.as_ref(), permission, resource_type, &mut violations);
    let ids_max = bounded("max_ids", *max_ids, (IDS_MAX_DEFAULT, IDS_MAX), &mut violations);
    let reference = reference(reference_field, &mut violations);
    question
        .filter(|_| violations.is_empty())
        .map(|question| (question, PlanOptions { ids_max, reference }))
        .ok_or(violations)
}

/// Reads a request for resources. Returns what its pages have in common, too.
pub(super) fn resources(
    schema: &Schema,
    request: &ListResourcesRequest,
) -> Result<(ListQuestion, ResourcePage, Paged), Vec<Violation>> {
    let mut violations = Vec::new();
    let ListResourcesRequest { subject, permission, resource_type, page_size, page_token, within, consistency: _ } =
        request;
    let question = question(schema, subject.as_ref(), permission, resource_type, &mut violations);
    let size = bounded("page_size", *page_size, (PAGE_DEFAULT, PAGE_MAX), &mut violations);
    let condition = condition(within, &mut violations);
    let Some(question) = question else { return Err(violations) };
    let kind = schema.resource(question.kind);
    if condition.is_some() && kind.document.is_none() {
        let message = format!("`{}` has no documents of its own that a condition could be about", kind.name);
        violations.push(Violation::new("within", message));
    }
    let asker = schema.subject_name(&question.asker.subject);
    let paged = Paged::new(schema, &["ListResources", &asker, permission, resource_type, within], kind.id, false);
    let after = after(&paged, page_token, &mut violations);
    if violations.is_empty() {
        Ok((question, ResourcePage { size, after, within: condition }, paged))
    } else {
        Err(violations)
    }
}

/// Reads a request for subjects. Returns what its pages have in common, too.
pub(super) fn subjects(
    schema: &Schema,
    request: &ListSubjectsRequest,
) -> Result<(SubjectsQuestion, SubjectPage, Paged), Vec<Violation>> {
    let mut violations = Vec::new();
    let ListSubjectsRequest { permission, resource, subject_type, page_size, page_token, consistency: _ } = request;
    let size = bounded("page_size", *page_size, (PAGE_DEFAULT, PAGE_MAX), &mut violations);
    let fields: Option<ResourceFields<'_>> = resource.as_ref().map(Into::into);
    let ResourceFields { kind, id } = fields.unwrap_or_default();
    let read = schema.subjects_question(permission, (kind, id), subject_type);
    convert::add_errors(read.as_ref().err(), &mut violations, fields.is_some());
    if fields.is_none() {
        violations.push(Violation::new("resource", "is missing: name the resource whose subjects are to be listed"));
    }
    let Ok((permission_id, resource, subject_type)) = read else { return Err(violations) };
    let listed = schema.subject(subject_type);
    let object = resource.id.to_string();
    let paged =
        Paged::new(schema, &["ListSubjects", permission, kind, &object, &listed.name], listed.id, listed.secret);
    let after = after(&paged, page_token, &mut violations);
    let question = SubjectsQuestion { permission: permission_id, resource, subject_type };
    if violations.is_empty() { Ok((question, SubjectPage { size, after }, paged)) } else { Err(violations) }
}

/// Reads who asks for what. Adds what is wrong with it to the violations.
fn question(
    schema: &Schema,
    subject: Option<&proto::Subject>,
    permission: &str,
    resource_type: &str,
    violations: &mut Vec<Violation>,
) -> Option<ListQuestion> {
    let has_subject = subject.is_some();
    let text = subject_text(subject.map(Into::into), violations);
    let read = schema.resources_question(text, permission, resource_type);
    convert::add_errors(read.as_ref().err(), violations, true);
    let (subject, permission, kind) = read.ok()?;
    has_subject.then(|| ListQuestion { asker: asker(schema, subject, text), permission, kind })
}

/// The subject with its secret, if it has one. Only queries need the secret itself.
fn asker(schema: &Schema, subject: Subject, text: SubjectText<'_>) -> Asker {
    match (&subject, text) {
        (Subject::Known { kind, .. }, SubjectText::Known { id, .. }) if schema.subject(*kind).secret => {
            Asker { subject, secret: Some(Secret::new(id)) }
        }
        _ => Asker::new(subject),
    }
}

/// A number from 1 to a maximum. 0 stands for the default.
fn bounded(field: &str, value: u32, (default, max): (usize, usize), violations: &mut Vec<Violation>) -> usize {
    match usize::try_from(value).unwrap_or(usize::MAX) {
        0 => default,
        value if value > max => {
            violations
                .push(Violation::new(field, format!("is {value}: 1 to {max} are allowed, and 0 stands for {default}")));
            default
        }
        value => value,
    }
}

fn after(paged: &Paged, token: &str, violations: &mut Vec<Violation>) -> Option<Id> {
    paged.after(token).unwrap_or_else(|error| {
        violations.push(Violation::new("page_token", error.to_string()));
        None
    })
}

fn reference(field: &str, violations: &mut Vec<Violation>) -> Option<Path> {
    if field.is_empty() {
        return None;
    }
    if field.len() > FIELD_BYTES_MAX {
        violations.push(Violation::new("reference_field", format!("has more than {FIELD_BYTES_MAX} bytes")));
        return None;
    }
    let wrong = |why| {
        let message = format!("`{field}` {why}: name one field, such as `file_id`");
        violations.push(Violation::new("reference_field", message));
    };
    Path::parse(field).map_err(wrong).ok()
}

/// Reads a caller's condition.
fn condition(text: &str, violations: &mut Vec<Violation>) -> Option<Condition> {
    if text.is_empty() {
        return None;
    }
    if text.len() > WITHIN_BYTES_MAX {
        violations.push(Violation::new("within", "has more than 16 KiB"));
        return None;
    }
    let wrong = |error: SchemaError| {
        let (message, help) = (cut(&error.message, WITHIN_ERROR_BYTES_MAX), error.help.unwrap_or_default());
        let remedy = if help.is_empty() { help } else { format!(": {}", cut(&help, WITHIN_ERROR_BYTES_MAX)) };
        Violation::new("within", message + &remedy)
    };
    match Condition::from_extended_json(text) {
        Ok(condition) => Some(condition),
        Err(errors) => {
            violations.extend(errors.into_iter().take(WITHIN_ERRORS_MAX).map(wrong));
            None
        }
    }
}
