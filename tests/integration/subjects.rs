//! Relations of the subject: what its own documents say about a resource (`of`) and about itself (`subject.NAME`), and the
//! times of its gate. Each answer is the same over documents and over mongod.
//!
//! Errors in such schemas are tested in `broken_schemas`, and random ones in `evaluator`.

mod changes;
mod questions;
mod shapes;
mod wrong_types;

use bson::{Bson, DateTime, Document};
use permcached::question::Millis;

use crate::support::both::{Both, Collections, question, schema};

/// The time at which all questions are asked.
const NOW: &str = "2026-11-23T12:00:00Z";

fn now() -> Millis {
    date(NOW).timestamp_millis()
}

fn date(text: &str) -> DateTime {
    DateTime::parse_rfc3339_str(text).unwrap()
}

/// Documents by collection, each written as relaxed Extended JSON.
fn collections(all: &[(&str, &[&str])]) -> Collections {
    let document = |text: &&str| -> Document {
        let json: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let bson = Bson::try_from(json).unwrap_or_else(|error| panic!("{text}: {error}"));
        bson.as_document().expect("a document").clone()
    };
    all.iter().map(|(name, documents)| ((*name).to_owned(), documents.iter().map(document).collect())).collect()
}

/// Asks questions such as `user:ann read project:web`, and asserts the answers over documents and over mongod.
async fn assert_answers(text: &str, documents: &[(&str, &[&str])], expected: &[(&str, &str)]) {
    let both = Both::new(schema("subjects.toml", text), &collections(documents)).await;
    let questions: Vec<_> = expected
        .iter()
        .map(|(asked, _)| {
            let words: Vec<&str> = asked.split(' ').collect();
            let [subject, permission, resource] = words.as_slice() else { panic!("not a question: {asked}") };
            question(&both.schema, subject, permission, resource)
        })
        .collect();
    let answers = both.ask(&questions, now()).await;
    let wrong: Vec<String> = expected
        .iter()
        .zip(answers)
        .filter_map(|((asked, answer), answers)| {
            let got = both.objection(answers, |text| text == *answer)?;
            Some(format!("{asked}: expected {answer}, got {got}"))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_condition_that_seems_to_compare_with_who_asks_has_a_warning() {
    const SCHEMA: &str = r#"
        default_subject = "user"
        [subject.user]
        [resource.file]
        collection = "files"
        [resource.file.relations]
        ours   = { where = { "$expr" = { "$eq" = ["$org", "$subject.org"] } } }
        mine   = { where = { "$or" = [{ open = true }, { "$expr" = { "$ne" = ["$user.dept", "$dept"] } }] } }
        shared = { each = "shares", field = "to", document_where = { "$expr" = { "$gte" = ["$subject.level", "$level"] } } }
        used   = { where = { "$expr" = { "$lt" = ["$use.count", "$use.max"] } } }
        titled = { where = { "$expr" = { "$eq" = ["$subject", "$title"] }, "user.name" = "ann" } }
        [resource.file.permissions]
        read = "ours | mine | shared | used | titled"
    "#;
    let schema = schema("warned.toml", SCHEMA);
    let warnings: Vec<_> = schema.warnings().expect("there are some").iter().map(|one| one.message.clone()).collect();
    let of = |relation: &str, path: &str| {
        format!("relation `{relation}` compares with the field `{path}` of the document, not of the subject that asks")
    };
    assert_eq!(warnings, [of("ours", "subject.org"), of("mine", "user.dept"), of("shared", "subject.level")]);
}

#[test]
fn a_condition_that_seems_to_compare_with_the_clock_has_a_warning() {
    const SCHEMA: &str = r#"
        default_subject = "user"
        [subject.user]
        [resource.file]
        collection = "files"
        [resource.file.relations]
        ended  = { where = { until = { "$lt" = "now" } } }
        held   = { where = { "$or" = [{ open = true }, { until = { "$not" = { "$gte" = "NOW()" } } }] } }
        shared = { each = "shares", field = "to", document_where = { dates = { "$elemMatch" = { "$gt" = "new Date()" } } } }
        past   = { where = { until = { "$lte" = "Date.now()" } } }
        named  = { where = { when = "now", state = { "$in" = ["today"] } } }
        old    = { where = { until = { "$lt" = "2026-01-31T12:00:00Z" }, name = { "$gte" = "nowhere" } } }
        [resource.file.permissions]
        read = "ended | held | shared | past | named | old"
    "#;
    let schema = schema("warned.toml", SCHEMA);
    let warnings: Vec<_> = schema.warnings().expect("there are some").iter().map(|one| one.message.clone()).collect();
    let of =
        |(relation, text)| format!("relation `{relation}` compares with the text `{text}` itself, not with the clock");
    let expected = [("ended", "now"), ("held", "NOW()"), ("shared", "new Date()"), ("past", "Date.now()")];
    assert_eq!(warnings, expected.map(of));
}

#[test]
fn a_field_whose_name_seems_to_mean_something_else_has_a_warning() {
    const SCHEMA: &str = r#"
        default_subject = "user"
        [subject.user]
        collection = "users"
        until = "NOW()"
        [resource.file]
        collection = "files"
        [resource.file.relations]
        now     = { field = "owner", until = "now" }
        today   = { field = "owner", since = { field = "today", unit = "seconds" } }
        several = { field = "owner | editor" }
        list    = { field = "owner,editor" }
        every   = { field = "members.*.id" }
        arrow   = { where = { "meta->open" = true } }
        inner   = { each = "members", field = "id", where = { " role" = "editor" } }
        shared  = { collection = "shares", by = "file/id", field = "user" }
        plain   = { field = "dc:creator", since = "date", where = { "Open to all" = true, "@kind" = 1, "né" = 2 } }
        [resource.file.permissions]
        read = "now | today | several | list | every | arrow | inner | shared | plain"
    "#;
    let schema = schema("warned.toml", SCHEMA);
    let warnings = schema.warnings().expect("there are some");
    let messages: Vec<_> = warnings.iter().map(|one| one.message.as_str()).collect();
    let sign = |relation, path, what| {
        format!(
            "relation `{relation}` reads the field `{path}`, whose name {what}: nothing in a name has a meaning but dots"
        )
    };
    let clock = |of, path| format!("{of} compares the clock with a date in the field `{path}` of the document");
    let expected = [
        sign("x", "NOW()", "has `(` in it").replace("relation `x`", "subject `user`"),
        clock("subject `user`", "NOW()"),
        clock("relation `now`", "now"),
        clock("relation `today`", "today"),
        sign("several", "owner | editor", "has `|` in it"),
        sign("list", "owner,editor", "has `,` in it"),
        sign("every", "members.*.id", "has `*` in it"),
        sign("arrow", "meta->open", "has `>` in it"),
        sign("inner", " role", "begins or ends with white space"),
        sign("shared", "file/id", "has `/` in it"),
    ];
    assert_eq!(messages, expected.each_ref().map(String::as_str));
}

#[test]
fn the_conditions_of_types_have_the_same_warnings() {
    const SCHEMA: &str = r#"
        default_subject = "user"
        [subject.user]
        collection = "users"
        where = { "$or" = [{ suspended_until = { "$lt" = "now" } }, { "$expr" = { "$eq" = ["$org", "$subject.org"] } }] }
        [resource.file]
        collection = "files"
        where = { published_at = { "$lte" = "today" }, drafted_at = { "$lte" = "ISODate()" }, "$expr" = { "$eq" = ["$a", "$user.a"] } }
        [resource.file.relations]
        owner = { field = "owner" }
        [resource.file.permissions]
        read = "owner"
    "#;
    let schema = schema("warned.toml", SCHEMA);
    let warnings = schema.warnings().expect("there are some");
    let messages: Vec<_> = warnings.iter().map(|one| one.message.as_str()).collect();
    let fields = |of: &str, path: &str| {
        format!("{of} compares with the field `{path}` of the document, not of the subject that asks")
    };
    let clock = |of: &str, text: &str| format!("{of} compares with the text `{text}` itself, not with the clock");
    let (user, file) = ("subject `user`", "resource `file`");
    let expected = [
        fields(user, "subject.org"),
        clock(user, "now"),
        fields(file, "user.a"),
        clock(file, "ISODate()"),
        clock(file, "today"),
    ];
    assert_eq!(messages, expected.each_ref().map(String::as_str));
    // The conditions that they recommend are well formed.
    let followed = SCHEMA
        .replace("collection = \"users\"", "collection = \"users\"\nsince = \"suspended_until\"")
        .replace("owner = {", "published = { where = { published_at = { \"$exists\" = true } }, since = \"published_at\", required = true }\nowner = {")
        .replace("read = \"owner\"", "read = \"owner & published\"");
    self::schema("followed.toml", &followed);
}

#[test]
fn a_condition_that_seems_to_compare_with_null_has_a_warning_and_the_right_condition() {
    const SCHEMA: &str = r#"
        default_subject = "user"
        [subject.user]
        [resource.file]
        collection = "files"
        where = { deleted_at = "undefined" }
        [resource.file.relations]
        unpaid = { where = { paid_at = "null" } }
        kept   = { where = { "$or" = [{ a = { "$ne" = "NULL" } }, { b = { "$in" = ["x", "nil"] } }] } }
        shared = { each = "shares", field = "to", document_where = { state = { "$not" = { "$eq" = "null" } } } }
        named  = { where = { name = "nullable", state = "none", open = "Null", kind = { "$type" = ["null", "string"] } } }
        typed  = { where = { state = { "$not" = { "$type" = "undefined" } } } }
        [resource.file.permissions]
        read = "unpaid | kept | shared | named | typed"
    "#;
    let schema = schema("warned.toml", SCHEMA);
    let warnings: Vec<_> = schema.warnings().expect("there are some").iter().collect();
    let messages: Vec<_> = warnings.iter().map(|one| one.message.clone()).collect();
    let of = |(of, text)| format!("{of} compares with the text `{text}` itself, not with null");
    let expected = [
        ("resource `file`", "undefined"),
        ("relation `unpaid`", "null"),
        ("relation `kept`", "NULL"),
        ("relation `shared`", "null"),
    ];
    assert_eq!(messages, expected.map(of));
    for warning in warnings {
        let help = warning.help.as_deref().expect("a help");
        let (_, json) = help.split_once(": ").expect("it shows the condition");
        assert!(json.contains("null") && !json.contains("\"null\""), "{json}");
        let followed = SCHEMA.replace("{ where = { paid_at = \"null\" } }", &format!("{{ where = {json} }}"));
        self::schema("followed.toml", &followed);
    }
}
