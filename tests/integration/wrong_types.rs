//! Every field that the relations of `fylora-sharing.toml` read, with values of every type that BSON has: never an allow by
//! a value of the wrong type, nor through a `!`; the same answer over documents and over mongod; `MALFORMED` where it
//! mattered, counted; and no panic. A grant besides still counts.
//!
//! What is expected is said by a few rules written the obvious way (`expected`), not by the code under test. Strings that are
//! not UTF-8, and BSON's `undefined`, which servers read in two ways, are out of scope.

use mongodb::bson::{
    Binary, Bson, DateTime, DbPointer, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp, doc, oid::ObjectId,
    spec::BinarySubtype,
};
use permcached::{
    question::{Answer, Reason},
    schema::Schema,
};

use crate::{
    rules::{
        items::{FILE, FOLDER, user},
        rule::{NOW, Rule, future, missing, past},
    },
    support::both::{Asked, Both, Collections, question, shipped_schema},
};

/// How a relation reads a field, and so what becomes of a value of the wrong type.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reading {
    /// The id of a user or a folder: what is no ObjectId could be anybody's. Empty strings are nobody's.
    Id,
    /// A token: what is no string could be anybody's.
    Secret,
    /// What the document is found by: what is no ObjectId is not found.
    Key,
    /// It must be equal to the right value: what is not grants nothing.
    Equal,
    /// It must not be this: what has another type is neither it nor plainly not it.
    NotEqual(bool),
    /// It must be null or missing.
    Null,
    /// An end: what is no date is no end that can be relied on.
    Date,
    /// The flag under a `!`: this value excludes, and what has another type might.
    Excludes(bool),
    /// An array of documents.
    List,
    /// The limit of uses, of which two are used up; and the uses, of which three are allowed.
    Limit,
    Uses,
}

/// Makes the change that puts a value into a field.
type Put = fn(Bson) -> Document;

/// One field.
struct Field {
    name: &'static str,
    /// Documents that grant the permission, by this field's right value, and the question.
    grants: Rule,
    permission: &'static str,
    right: Bson,
    reading: Reading,
    /// The document that the field is in, and the change that puts a value into it.
    at: &'static str,
    put: Put,
    /// A document that grants besides.
    besides: Option<(&'static str, Document)>,
    /// The reason where the value has the right type but does not grant.
    plainly: &'static str,
}

impl Field {
    fn of(name: &'static str, grants: Rule, at: &'static str, put: Put, right: impl Into<Bson>, reading: Reading) -> Self {
        let plainly = if matches!(reading, Reading::Excludes(_)) { "EXCLUDED" } else { "NO_GRANT" };
        Self { name, grants, permission: "read", right: right.into(), reading, at, put, besides: None, plainly }
    }

    fn asks(self, permission: &'static str) -> Self {
        Self { permission, ..self }
    }

    fn besides(self, at: &'static str, document: Document) -> Self {
        Self { besides: Some((at, document)), ..self }
    }

    fn plainly(self, plainly: &'static str) -> Self {
        Self { plainly, ..self }
    }
}

/// Every field that the schema's relations read; `every_field_is_here` holds it to that.
fn fields() -> Vec<Field> {
    let mut fields = of_shares("file: an internal share", guest_of_file, "guest");
    fields.extend(of_shares("folder: an internal share seen from beneath", guest_beneath, "guest"));
    fields.extend(of_shares("file: a public share", link_of_file, "link"));
    fields.extend(of_shares("folder: a public share seen from beneath", link_beneath, "link"));
    fields.extend(of_shares("file: a checked password", verified_of_file, "verified_link"));
    fields.extend(of_codes());
    fields.extend(of_items());
    fields.extend(of_notes());
    fields.extend(of_teams());
    fields
}

fn guest_of_file() -> Rule {
    let mut share = FILE.share("@plan", "internal");
    share.insert("shared_with_user_id", "@alice");
    let rule = Rule::sharing("").with("users/alice", user()).with("files/plan", FILE.item("@bob"));
    rule.with("shares/1", share).asks("user:@alice", "file:@plan")
}

fn guest_beneath() -> Rule {
    let mut share = FOLDER.share("@work", "internal");
    share.insert("shared_with_user_id", "@alice");
    beneath(share).with("users/alice", user()).asks("user:@alice", "file:@plan")
}

fn link_of_file() -> Rule {
    let rule = Rule::sharing("").with("files/plan", FILE.item("@bob")).with("shares/1", FILE.public_share("@plan"));
    rule.asks("link:#token", "file:@plan")
}

fn link_beneath() -> Rule {
    beneath(FOLDER.public_share("@work")).asks("link:#token", "file:@plan")
}

fn verified_of_file() -> Rule {
    link_of_file().asks("verified_link:#token", "file:@plan")
}

/// A file two folders beneath a shared one.
fn beneath(share: Document) -> Rule {
    Rule::sharing("")
        .with("folders/work", doc! { "owner_id": "@bob", "parent_id": null, "is_deleted": false })
        .with("folders/low", doc! { "owner_id": "@bob", "parent_id": "@work", "is_deleted": false })
        .with("files/plan", doc! { "owner_id": "@bob", "folder_id": "@low", "is_deleted": false })
        .with("shares/1", share)
}

/// The fields of a share that grants; the same share again is what grants besides.
fn of_shares(name: &'static str, grants: fn() -> Rule, relation: &str) -> Vec<Field> {
    const AT: &str = "shares/1";
    let is_of_file = name.starts_with("file");
    let share = grants().document("shares/1");
    let share_type = share.get_str("share_type").unwrap().to_owned();
    let key: (Put, &str) =
        if is_of_file { (|value| doc! { "file_id": value }, "@plan") } else { (|value| doc! { "folder_id": value }, "@work") };
    let mut fields = vec![
        Field::of(name, grants(), AT, key.0, key.1, Reading::Key),
        Field::of(name, grants(), AT, |value| doc! { "share_type": value }, share_type, Reading::Equal),
        Field::of(name, grants(), AT, |value| doc! { "is_active": value }, true, Reading::NotEqual(false)),
        Field::of(name, grants(), AT, |value| doc! { "expires_at": value }, future(), Reading::Date),
    ];
    if relation == "guest" {
        fields.push(Field::of(name, grants(), AT, |value| doc! { "shared_with_user_id": value }, "@alice", Reading::Id));
    } else {
        fields.push(Field::of(name, grants(), AT, |value| doc! { "public_token": value }, "#token", Reading::Secret));
    }
    if relation == "link" {
        fields.push(Field::of(name, grants(), AT, |value| doc! { "requires_password": value }, false, Reading::NotEqual(true)));
        fields.push(Field::of(name, grants(), AT, |value| doc! { "password_hash": value }, Bson::Null, Reading::Null));
    }
    fields.into_iter().map(|field| field.besides("shares/2", share.clone())).collect()
}

fn of_codes() -> Vec<Field> {
    const AT: &str = "temporaryaccesses/1";
    const WORDS: [(&str, &str); 4] = [("view", "read"), ("download", "read"), ("edit", "write"), ("share", "share")];
    let mut fields = Vec::new();
    for (kind, plan, name) in [("file", "files/plan", "file: a code"), ("folder", "folders/plan", "folder: a code")] {
        for (word, permission) in WORDS {
            let code = doc! {
                "access_code": "#code", "resource_type": kind, "resource_id": "@plan", "permissions": [word],
                "expires_at": null, "max_uses": 3, "use_count": 2, "is_active": true, "password_hash": null,
            };
            let grants = || {
                let rule = Rule::sharing("").with(plan, doc! { "owner_id": "@bob" });
                rule.with(AT, code.clone()).asks("code:#code", format!("{kind}:@plan"))
            };
            let of_code = [
                Field::of(name, grants(), AT, |value| doc! { "resource_id": value }, "@plan", Reading::Key),
                Field::of(name, grants(), AT, |value| doc! { "access_code": value }, "#code", Reading::Secret),
                Field::of(name, grants(), AT, |value| doc! { "resource_type": value }, kind, Reading::Equal),
                Field::of(name, grants(), AT, |value| doc! { "permissions": value }, word, Reading::Equal),
                Field::of(name, grants(), AT, |value| doc! { "is_active": value }, true, Reading::NotEqual(false)),
                Field::of(name, grants(), AT, |value| doc! { "requires_password": value }, false, Reading::NotEqual(true)),
                Field::of(name, grants(), AT, |value| doc! { "password_hash": value }, Bson::Null, Reading::Null),
                Field::of(name, grants(), AT, |value| doc! { "expires_at": value }, future(), Reading::Date),
                Field::of(name, grants(), AT, |value| doc! { "max_uses": value }, 3, Reading::Limit),
                Field::of(name, grants(), AT, |value| doc! { "use_count": value }, 2, Reading::Uses),
            ];
            fields.extend(of_code.map(|field| field.asks(permission).besides("temporaryaccesses/2", code.clone())));
        }
    }
    fields
}

fn of_items() -> Vec<Field> {
    let owner: Put = |value| doc! { "owner_id": value };
    let deleted: Put = |value| doc! { "is_deleted": value };
    let active: Put = |value| doc! { "is_active": value };
    let mut share = FILE.share("@plan", "internal");
    share.insert("shared_with_user_id", "@alice");
    let owned_file = || {
        let rule = Rule::sharing("").with("users/alice", user()).with("files/plan", FILE.item("@alice"));
        rule.asks("user:@alice", "file:@plan")
    };
    let owned_folder = || {
        let rule = Rule::sharing("").with("users/alice", user()).with("folders/plan", FOLDER.item("@alice"));
        rule.asks("user:@alice", "folder:@plan")
    };
    let own = || doc! { "owner_id": "@alice" };
    let mut fields = vec![
        Field::of("file: its owner", owned_file(), "files/plan", owner, "@alice", Reading::Id).besides("shares/1", share),
        Field::of("folder: its owner", owned_folder(), "folders/plan", owner, "@alice", Reading::Id).asks("delete"),
        Field::of("the user", owned_file(), "users/alice", active, true, Reading::NotEqual(false)).plainly("SUBJECT_INACTIVE"),
        Field::of("file: its folder", guest_beneath(), "files/plan", |value| doc! { "folder_id": value }, "@low", Reading::Id)
            .besides("files/plan", own()),
        Field::of("folder: its parent", guest_beneath(), "folders/low", |value| doc! { "parent_id": value }, "@work", Reading::Id)
            .besides("files/plan", own()),
        Field::of("folder on the way", guest_beneath(), "folders/low", deleted, false, Reading::Excludes(true))
            .besides("files/plan", own()),
        Field::of("shared folder", link_beneath(), "folders/work", deleted, false, Reading::Excludes(true)),
        Field::of("file: a public share", link_of_file(), "files/plan", deleted, false, Reading::Excludes(true)),
        Field::of("file beneath", guest_beneath(), "files/plan", deleted, false, Reading::Excludes(true)),
    ];
    for permission in ["read", "write", "share", "delete"] {
        fields.push(Field::of("file", owned_file(), "files/plan", deleted, false, Reading::Excludes(true)).asks(permission));
        fields.push(Field::of("folder", owned_folder(), "folders/plan", deleted, false, Reading::Excludes(true)).asks(permission));
    }
    for permission in ["restore", "purge"] {
        for (name, owned, at) in [("file", owned_file(), "files/plan"), ("folder", owned_folder(), "folders/plan")] {
            let trashed = owned.with(at, deleted(true.into()));
            fields.push(Field::of(name, trashed, at, deleted, true, Reading::Equal).asks(permission));
        }
    }
    fields
}

fn of_notes() -> Vec<Field> {
    const AT: &str = "notes/plan";
    let grants = |change: Document| {
        let rule = Rule::sharing("").with("users/alice", user()).with(AT, doc! { "owner_id": "@bob", "is_deleted": false });
        rule.with(AT, change).asks("user:@alice", "note:@plan")
    };
    let public = || grants(doc! { "is_public": true, "public_token": "#token" }).asks("link:#token", "note:@plan");
    let owned = || grants(doc! { "owner_id": "@alice" });
    let own = || doc! { "owner_id": "@alice" };
    let mut fields = vec![
        Field::of("note: its owner", owned(), AT, |value| doc! { "owner_id": value }, "@alice", Reading::Id)
            .besides(AT, doc! { "shared_with": [{ "user_id": "@alice", "permission": "read" }] }),
        Field::of("note: its token", public(), AT, |value| doc! { "public_token": value }, "#token", Reading::Secret),
        Field::of("note: is it public", public(), AT, |value| doc! { "is_public": value }, true, Reading::Equal),
        Field::of("note: public", public(), AT, |value| doc! { "is_deleted": value }, false, Reading::Excludes(true)),
    ];
    let levels: [(&str, &str, Put); 3] = [
        ("read", "read", |user_id| doc! { "shared_with": [{ "user_id": user_id, "permission": "read" }] }),
        ("write", "write", |user_id| doc! { "shared_with": [{ "user_id": user_id, "permission": "write" }] }),
        ("admin", "share", |user_id| doc! { "shared_with": [{ "user_id": user_id, "permission": "admin" }] }),
    ];
    for (word, permission, put) in levels {
        let list = || grants(put("@alice".into()));
        let element = doc! { "user_id": "@alice", "permission": word };
        let of_list = [
            Field::of("note: whom it is shared with", list(), AT, put, "@alice", Reading::Id),
            Field::of("note: a level", list(), AT, |value| doc! { "shared_with": [{ "user_id": "@alice", "permission": value }] }, word, Reading::Equal),
            Field::of("note: the list", list(), AT, |value| doc! { "shared_with": value }, vec![Bson::Document(element)], Reading::List),
        ];
        fields.extend(of_list.map(|field| field.asks(permission).besides(AT, own())));
    }
    for permission in ["read", "write", "share", "delete", "publish"] {
        fields.push(Field::of("note", owned(), AT, |value| doc! { "is_deleted": value }, false, Reading::Excludes(true)).asks(permission));
    }
    for permission in ["restore", "purge"] {
        let trashed = owned().with(AT, doc! { "is_deleted": true });
        fields.push(Field::of("note", trashed, AT, |value| doc! { "is_deleted": value }, true, Reading::Equal).asks(permission));
    }
    fields
}

fn of_teams() -> Vec<Field> {
    const AT: &str = "teams/design";
    let grants = |change: Document| {
        let rule = Rule::sharing("").with("users/alice", user()).with(AT, doc! { "owner_id": "@bob", "members": [], "is_active": true });
        rule.with(AT, change).asks("user:@alice", "team:@design")
    };
    let member = || doc! { "members": [{ "user_id": "@alice", "role": "admin" }] };
    let list = || vec![Bson::Document(doc! { "user_id": "@alice", "role": "admin" })];
    let own = || doc! { "owner_id": "@alice" };
    let user_id: Put = |value| doc! { "members": [{ "user_id": value, "role": "admin" }] };
    let members: Put = |value| doc! { "members": value };
    let active: Put = |value| doc! { "is_active": value };
    let mut fields = vec![
        Field::of("team: its owner", grants(own()), AT, |value| doc! { "owner_id": value }, "@alice", Reading::Id).asks("manage"),
        Field::of("team: its owner", grants(own()), AT, |value| doc! { "owner_id": value }, "@alice", Reading::Id)
            .asks("invite")
            .besides(AT, member()),
        Field::of("team: a role", grants(member()), AT, |value| doc! { "members": [{ "user_id": "@alice", "role": value }] }, "admin", Reading::Equal)
            .asks("remove")
            .besides(AT, own()),
    ];
    for permission in ["view", "invite"] {
        fields.push(Field::of("team: a member", grants(member()), AT, user_id, "@alice", Reading::Id).asks(permission).besides(AT, own()));
        fields.push(Field::of("team: the list", grants(member()), AT, members, list(), Reading::List).asks(permission).besides(AT, own()));
    }
    for permission in ["view", "invite", "remove", "manage"] {
        fields.push(Field::of("team", grants(own()), AT, active, true, Reading::Excludes(false)).asks(permission));
    }
    fields
}

/// Values of every type, right and wrong.
fn values(right: &Bson) -> Vec<Bson> {
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().unwrap());
    let oid = ObjectId::from_bytes([9; 12]);
    let binary = |subtype| Bson::Binary(Binary { subtype, bytes: vec![7; 16] });
    let pointer: DbPointer = serde_pointer(oid);
    let plain = vec![
        missing(), Bson::Null, "text".into(), "".into(), "65f000000000000000000001".into(), "true".into(), "false".into(), "*".into(),
        1.into(), 0.into(), 2_i64.into(), (-1).into(), 2.5.into(), f64::NAN.into(), f64::INFINITY.into(), decimal("5"), decimal("NaN"),
        true.into(), false.into(), past(), future(), Bson::DateTime(DateTime::MAX), oid.into(), doc! {}.into(), doc! { "user_id": "@alice" }.into(),
        doc! { "_id": right.clone() }.into(), binary(BinarySubtype::Generic), binary(BinarySubtype::Uuid),
        Bson::RegularExpression(Regex { pattern: ".*".try_into().unwrap(), options: "i".try_into().unwrap() }),
        Bson::Timestamp(Timestamp { time: 4_000_000_000, increment: 1 }), Bson::MinKey, Bson::MaxKey, Bson::JavaScriptCode("true".into()),
        Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: "true".into(), scope: doc! {} }), Bson::Symbol("text".into()),
        Bson::DbPointer(pointer),
    ];
    let right = right.clone();
    let lists = [
        vec![], vec![right.clone()], vec![right.clone(), right.clone()], vec![Bson::Null], vec![right.clone(), Bson::Null], vec![1.into(), right.clone()],
        vec![right.clone(), "text".into()], vec!["text".into()], vec![oid.into()], vec![Bson::Array(vec![])], vec![Bson::Array(vec![right])],
        vec![true.into(), false.into()], vec![f64::NAN.into()],
    ];
    plain.into_iter().chain(lists.into_iter().map(Bson::Array)).collect()
}

/// The driver makes no such value but by reading one.
fn serde_pointer(id: ObjectId) -> DbPointer {
    let json = serde_json::json!({ "$dbPointer": { "$ref": "users", "$id": { "$oid": id.to_hex() } } });
    match Bson::try_from(json) {
        Ok(Bson::DbPointer(pointer)) => pointer,
        other => panic!("{other:?}"),
    }
}

/// What a value stands for: the right one is written with a name in place of an id.
fn kind(value: &Bson) -> &'static str {
    match value {
        Bson::Null => "null",
        Bson::String(text) if text.starts_with('@') => "objectid",
        Bson::String(text) if text == "(missing)" => "null",
        Bson::String(_) | Bson::Symbol(_) => "string",
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => "number",
        Bson::Boolean(_) => "bool",
        Bson::DateTime(_) => "date",
        Bson::ObjectId(_) => "objectid",
        Bson::Array(_) => "array",
        Bson::Document(_) => "document",
        _ => "other",
    }
}

/// What MongoDB tests: the value itself, and the elements of an array.
fn any(value: &Bson, test: impl Fn(&Bson) -> bool) -> bool {
    test(value) || value.as_array().is_some_and(|items| items.iter().any(test))
}

/// Whether a value is of a type, or nothing; an array is judged by its elements.
fn is_typed(value: &Bson, wanted: &str) -> bool {
    let is_right = |value: &Bson| [wanted, "null"].contains(&kind(value));
    value.as_array().map_or_else(|| is_right(value), |items| items.iter().all(is_right))
}

/// `allowed` or a reason.
fn expected(field: &Field, value: &Bson) -> &'static str {
    let right = &field.right;
    let of_condition = |matches: bool, wanted: &str| match (matches, is_typed(value, wanted)) {
        (true, true) => "allowed",
        (true, false) => "MALFORMED",
        (false, _) => field.plainly,
    };
    match field.reading {
        Reading::Id | Reading::Secret => {
            let wanted = if field.reading == Reading::Id { "objectid" } else { "string" };
            let one = |value: &Bson| match value {
                value if value == right => "allowed",
                Bson::Symbol(_) => "MALFORMED",
                Bson::String(text) if text == "*" => "MALFORMED",
                Bson::String(text) if text.is_empty() => "NO_GRANT",
                value if [wanted, "null"].contains(&kind(value)) => "NO_GRANT",
                _ => "MALFORMED",
            };
            let all: Vec<&str> = value.as_array().map_or_else(|| vec![one(value)], |items| items.iter().map(one).collect());
            ["allowed", "MALFORMED"].into_iter().find(|outcome| all.contains(outcome)).unwrap_or("NO_GRANT")
        }
        Reading::Key => if any(value, |value| value == right) { "allowed" } else { "NO_GRANT" },
        Reading::Equal => of_condition(any(value, |value| value == right), kind(right)),
        Reading::NotEqual(not) => of_condition(!any(value, |value| *value == Bson::Boolean(not)), "bool"),
        Reading::Null => if any(value, |value| kind(value) == "null") { "allowed" } else { "NO_GRANT" },
        Reading::Date => match value {
            Bson::DateTime(date) if date.timestamp_millis() > NOW => "allowed",
            Bson::DateTime(_) => "EXPIRED",
            value if kind(value) == "null" => "allowed",
            _ => "MALFORMED",
        },
        Reading::Excludes(excluding) => {
            let is_excluded = any(value, |value| *value == Bson::Boolean(excluding));
            match (is_excluded, is_typed(value, "bool")) {
                (true, true) => "EXCLUDED",
                (false, true) => "allowed",
                (_, false) => "MALFORMED",
            }
        }
        Reading::List => match value {
            value if value == right => "allowed",
            value if kind(value) == "null" => "NO_GRANT",
            Bson::Array(items) if items.iter().any(|item| right.as_array().unwrap().contains(item)) => "allowed",
            Bson::Array(items) if items.iter().all(|item| ["document", "null"].contains(&kind(item))) => "NO_GRANT",
            _ => "MALFORMED",
        },
        Reading::Limit => match value {
            value if kind(value) == "null" => "allowed",
            value if kind(value) == "number" && as_f64(value) > 2.0 => "allowed",
            value if kind(value) == "number" => "NO_GRANT",
            // Below all numbers, so nothing is below it.
            Bson::MinKey => "NO_GRANT",
            _ => "MALFORMED",
        },
        Reading::Uses => match value {
            value if kind(value) == "null" => "allowed",
            value if kind(value) == "number" && (0.0..3.0).contains(&as_f64(value)) => "allowed",
            // As good as missing, were it not an array.
            Bson::Array(items) if items.contains(&Bson::Null) => "MALFORMED",
            _ => "NO_GRANT",
        },
    }
}

fn as_f64(value: &Bson) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| match value {
        Bson::Decimal128(decimal) => decimal.to_string().parse().unwrap(),
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn a_value_of_the_wrong_type_never_allows() {
    let schema = shipped_schema("fylora-sharing.toml");
    let mut collections = Collections::new();
    let mut questions = Vec::new();
    let mut expectations = Vec::new();
    let mut number = 0;
    for field in fields() {
        let values = values(&field.right);
        let mut outcomes = vec!["allowed"];
        let mut rule = values.iter().fold(field.grants.clone(), |rule, value| {
            outcomes.push(expected(&field, value));
            rule.but(field.at, (field.put)(value.clone()))
        });
        if let Some((at, document)) = &field.besides {
            for value in &values {
                // Whatever the value is, the rest alone allows it.
                outcomes.push("allowed");
                rule = rule.but(field.at, (field.put)(value.clone())).and(at, document.clone());
            }
        }
        let cases = rule.cases(number, &mut collections);
        number += u32::try_from(cases.len()).unwrap();
        for (case, outcome) in cases.into_iter().zip(outcomes) {
            questions.push(question(&schema, &case.subject, field.permission, &case.resource));
            expectations.push((format!("{}: {}{}", field.name, field.permission, case.name), outcome));
        }
    }
    let both = Both::new(schema, &collections).await;
    let answers = both.ask(&questions, NOW).await;
    let mut wrong = Vec::new();
    for ((name, outcome), answers) in expectations.iter().zip(&answers) {
        let meets = |text: &str| text == format!("denied {outcome}") || *outcome == "allowed" && text.starts_with("allowed by ");
        wrong.extend(both.objection(*answers, meets).map(|got| format!("{name}\n    expected {outcome}\n    got      {got}")));
    }
    assert!(wrong.is_empty(), "{} of {} answers are wrong:\n{}", wrong.len(), questions.len(), wrong.join("\n"));

    // Each of them is counted, and nothing else is.
    let malformed = answers.iter().filter(|[answer, _]| *answer == Answer::Denied(Reason::Malformed)).count() as u64;
    assert!(malformed > 1_000, "{malformed}");
    let counted = |asked: &Asked| asked.metric("permcached_decisions_total{decision=\"denied\",reason=\"MALFORMED\"}");
    assert_eq!([counted(&both.documents), counted(&both.mongodb)], [malformed; 2]);
}

/// What the table leaves out is a field that no test has seen with a wrong value.
#[test]
fn every_field_is_here() {
    let schema = shipped_schema("fylora-sharing.toml");
    let put = |field: &Field| (field.put)(Bson::Null).into_iter().map(|(name, _)| format!("{}.{name}", collection(field.at))).collect::<Vec<_>>();
    let tried: Vec<String> = fields().iter().flat_map(put).collect();
    for name in read_by(&schema) {
        assert!(tried.contains(&name), "{name} is read and never has a wrong type here");
    }
}

fn collection(at: &str) -> &str {
    at.split('/').next().unwrap_or_default()
}

/// `collection.field`, of every field that is fetched for a relation. An `_id` has no wrong type: it is another document's.
fn read_by(schema: &Schema) -> Vec<String> {
    let fields = schema.lookups().flat_map(|(_, lookup)| {
        let fields = lookup.projection.iter().filter(|field| &***field != "_id");
        fields.map(|field| format!("{}.{field}", lookup.collection))
    });
    fields.collect()
}
