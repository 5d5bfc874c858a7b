//! Every field that relations of the subject and its gate read, with values of every BSON type. A value of a wrong type never
//! allows, not even through a `!`. The expected outcomes are computed by rules that share no code with the crate.

use bson::{Bson, Document, doc, oid::ObjectId};

use crate::{
    rules::rule::{NOW, missing},
    support::both::{Both, Collections, question, schema},
    wrong_types::expected::values,
};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
collection = "users"
since = "since"
until = "until"

[subject.user.relations]
admin  = { where = { role = "admin" } }
teams  = { field = "team_ids", resource = "team" }
places = { each = "places", field = "team", resource = "team" }
leads  = { each = "roles", field = "team", resource = "team", where = { role = "lead" } }
rosters  = { collection = "memberships", by = "user_id", field = "team_id", resource = "team" }
timed  = { collection = "timed", by = "user_id", field = "team_id", resource = "team", until = "until" }

[resource.team]

[resource.team.relations]
member = { of = "user.teams" }
placed = { of = "user.places" }
lead   = { of = "user.leads" }
listed = { of = "user.rosters" }
timely = { of = "user.timed" }

[resource.team.permissions]
admin      = "subject.admin"
not_admin  = "!subject.admin"
in_team    = "member"
not_in     = "!member"
in_place   = "placed"
not_placed = "!placed"
leading    = "lead"
not_lead   = "!lead"
on_list       = "listed"
off_list    = "!listed"
on_time    = "timely"
not_timely = "!timely"
"#;

/// The outcomes of a relation and of its `!`.
type Outcomes = [&'static str; 2];

const HOLDS: Outcomes = ["allowed", "denied EXCLUDED"];
const FAILS: Outcomes = ["denied NO_GRANT", "allowed"];
const UNKNOWN: Outcomes = ["denied MALFORMED", "denied MALFORMED"];
/// The document does not match, but a value has a wrong type.
const SUSPECT: Outcomes = ["denied NO_GRANT", "denied MALFORMED"];
const EXPIRED: Outcomes = ["denied EXPIRED", "allowed"];
const INACTIVE: Outcomes = ["denied SUBJECT_INACTIVE", "denied SUBJECT_INACTIVE"];

fn team() -> ObjectId {
    ObjectId::parse_str("c00000000000000000000001").unwrap()
}

fn parts(value: &Bson) -> &[Bson] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

fn is_nothing(value: &Bson) -> bool {
    *value == Bson::Null || *value == missing()
}

/// A condition that a field equals a text.
fn of_text(value: &Bson, wanted: &str) -> Outcomes {
    let is_text = |part: &Bson| is_nothing(part) || matches!(part, Bson::String(_) | Bson::Symbol(_));
    let is_it = parts(value).iter().any(|part| part.as_str() == Some(wanted));
    match (is_it, parts(value).iter().all(is_text)) {
        (true, true) => HOLDS,
        (true, false) => UNKNOWN,
        (false, true) => FAILS,
        (false, false) => SUSPECT,
    }
}

/// A field of ObjectIds.
fn of_ids(value: &Bson) -> Outcomes {
    let is_clear = |part: &Bson| is_nothing(part) || *part == "".into() || matches!(part, Bson::ObjectId(_));
    if parts(value).contains(&team().into()) {
        // Another value beside the right one takes nothing away.
        return HOLDS;
    }
    if parts(value).iter().all(is_clear) { FAILS } else { UNKNOWN }
}

/// The array of an `each`, whose elements are right.
fn of_array(value: &Bson) -> Outcomes {
    let Bson::Array(items) = value else {
        return if is_nothing(value) { FAILS } else { UNKNOWN };
    };
    let is_it = |item: &Bson| item.as_document().is_some_and(|item| item.get("team") == Some(&team().into()));
    if items.iter().any(is_it) {
        return HOLDS;
    }
    let is_clear = |item: &Bson| is_nothing(item) || matches!(item, Bson::Document(_));
    if items.iter().all(is_clear) { FAILS } else { UNKNOWN }
}

/// A date that ends something; `over` are the outcomes after it.
fn of_end(value: &Bson, over: Outcomes) -> Outcomes {
    match value {
        value if is_nothing(value) => HOLDS,
        Bson::DateTime(date) if date.timestamp_millis() > NOW => HOLDS,
        Bson::DateTime(_) => over,
        _ => UNKNOWN,
    }
}

/// One field: its name, its right value, the two permissions, the documents that have a value there, and the outcomes.
struct Field {
    name: &'static str,
    right: Bson,
    permissions: [&'static str; 2],
    documents: fn(ObjectId, Bson) -> Vec<(&'static str, Document)>,
    outcomes: fn(&Bson) -> Outcomes,
}

fn user(id: ObjectId, field: &str, value: Bson) -> Vec<(&'static str, Document)> {
    vec![("users", with(doc! { "_id": id }, field, value))]
}

fn with(mut document: Document, field: &str, value: Bson) -> Document {
    if value != missing() {
        document.insert(field, value);
    }
    document
}

fn fields() -> Vec<Field> {
    vec![
        Field {
            name: "users.role",
            right: "admin".into(),
            permissions: ["admin", "not_admin"],
            documents: |id, value| user(id, "role", value),
            outcomes: |value| of_text(value, "admin"),
        },
        Field {
            name: "users.team_ids",
            right: team().into(),
            permissions: ["in_team", "not_in"],
            documents: |id, value| user(id, "team_ids", value),
            outcomes: of_ids,
        },
        Field {
            name: "users.places",
            right: doc! { "team": team() }.into(),
            permissions: ["in_place", "not_placed"],
            documents: |id, value| user(id, "places", value),
            outcomes: of_array,
        },
        Field {
            name: "users.places.team",
            right: team().into(),
            permissions: ["in_place", "not_placed"],
            documents: |id, value| user(id, "places", vec![with(Document::new(), "team", value)].into()),
            outcomes: of_ids,
        },
        Field {
            name: "users.roles.role",
            right: "lead".into(),
            permissions: ["leading", "not_lead"],
            documents: |id, value| user(id, "roles", vec![with(doc! { "team": team() }, "role", value)].into()),
            outcomes: |value| of_text(value, "lead"),
        },
        Field {
            name: "memberships.team_id",
            right: team().into(),
            permissions: ["on_list", "off_list"],
            documents: |id, value| {
                let membership = with(doc! { "_id": id, "user_id": id }, "team_id", value);
                vec![("users", doc! { "_id": id }), ("memberships", membership)]
            },
            outcomes: of_ids,
        },
        Field {
            name: "timed.until",
            right: bson::DateTime::from_millis(NOW + 1).into(),
            permissions: ["on_time", "not_timely"],
            documents: |id, value| {
                let membership = with(doc! { "_id": id, "user_id": id, "team_id": team() }, "until", value);
                vec![("users", doc! { "_id": id }), ("timed", membership)]
            },
            outcomes: |value| of_end(value, EXPIRED),
        },
        Field {
            name: "users.until",
            right: bson::DateTime::from_millis(NOW + 1).into(),
            permissions: ["admin", "not_admin"],
            documents: |id, value| vec![("users", with(doc! { "_id": id, "role": "admin" }, "until", value))],
            outcomes: |value| match of_end(value, INACTIVE) {
                // The subject is known to be an administrator, so the `!` is known to fail.
                UNKNOWN => ["denied MALFORMED", "denied EXCLUDED"],
                known => known,
            },
        },
        Field {
            name: "users.since",
            right: bson::DateTime::from_millis(NOW).into(),
            permissions: ["admin", "not_admin"],
            documents: |id, value| vec![("users", with(doc! { "_id": id, "role": "admin" }, "since", value))],
            outcomes: |value| match value {
                Bson::DateTime(date) if date.timestamp_millis() <= NOW => HOLDS,
                Bson::DateTime(_) => INACTIVE,
                value if is_nothing(value) => HOLDS,
                _ => ["denied MALFORMED", "denied EXCLUDED"],
            },
        },
    ]
}

#[tokio::test]
async fn a_value_of_a_wrong_type_never_allows_a_subject_anything() {
    let mut collections = Collections::from([("memberships".to_owned(), Vec::new()), ("timed".to_owned(), Vec::new())]);
    let mut asked = Vec::new();
    for (of_field, field) in (0..).zip(fields()) {
        for (number, value) in (0..).zip(values(&field.right)) {
            let id = ObjectId::from_bytes([0xa, 0, 0, 0, 0, 0, 0, 0, 0, 0, of_field, number]);
            for (collection, document) in (field.documents)(id, value.clone()) {
                collections.entry(collection.to_owned()).or_default().push(document);
            }
            for (permission, outcome) in field.permissions.into_iter().zip((field.outcomes)(&value)) {
                asked.push((
                    format!("{} = {value}: {permission}", field.name),
                    format!("user:{id}"),
                    permission,
                    outcome,
                ));
            }
        }
    }
    let both = Both::new(schema("subjects.toml", SCHEMA), &collections).await;
    let team = format!("team:{}", team());
    let questions: Vec<_> =
        asked.iter().map(|(_, subject, permission, _)| question(&both.schema, subject, permission, &team)).collect();
    let answers = both.ask(&questions, NOW).await;
    let mut wrong = Vec::new();
    for ((name, _, _, outcome), answers) in asked.iter().zip(answers) {
        let meets = |text: &str| text.split(" by ").next() == Some(outcome);
        wrong.extend(both.objection(answers, meets).map(|got| format!("{name}: expected {outcome}, got {got}")));
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), asked.len(), wrong.join("\n"));
}
