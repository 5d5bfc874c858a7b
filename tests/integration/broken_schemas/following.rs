//! Follows the help of schema errors mechanically, and asks a question that the author meant to be denied. No help may lead
//! to a well-formed schema that allows it.
//!
//! Follows more than a person would: every piece of code in a help is put in the place of the error, in the place of the
//! whole condition, and of the whole key.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bson::{Document, doc};
use permcached::{
    app::{Parts, assemble},
    check::Consistency,
    question::Answer,
    schema::{Schema, SchemaErrors, SubjectText},
    source::{Deadline, documents::Documents},
};

/// How many errors are repaired one after the other.
const STEPS_MAX: usize = 3;

/// A schema with an error, and a document that it is meant to deny to the user `u`.
struct Case {
    /// Relations, one a line. `owner`, `viewer`, `folder` and `active` exist as well.
    relations: &'static str,
    /// The permission `read`.
    read: &'static str,
    file: Document,
}

fn case(relations: &'static str, read: &'static str, file: Document) -> Case {
    Case { relations, read, file }
}

/// A file that `u` owns, with these fields, and that `flag` is meant to close.
fn closed(relations: &'static str, file: Document) -> Case {
    let mut owned = doc! { "owner": "u" };
    owned.extend(file);
    case(relations, "!flag & owner", owned)
}

fn cases() -> Vec<Case> {
    let mut all = nulls_and_other_bare_words();
    all.extend(comparisons());
    all.extend(arrays_bits_and_types());
    all.extend(paths_and_expressions());
    all
}

fn nulls_and_other_bare_words() -> Vec<Case> {
    vec![
        closed("flag = { where = { paid_at = null } }", doc! {}),
        closed("flag = { where = { paid_at = { \"$eq\" = None } } }", doc! { "paid_at": null }),
        closed("flag = { where = { paid_at = { \"$in\" = [nil, false] } } }", doc! {}),
        closed("flag = { where = { \"$or\" = [{ paid_at = undefined }, { due = 1 }] } }", doc! { "due": 2 }),
        closed("flag = { where = { kind = 'note', paid_at = NULL } }", doc! { "kind": "note" }),
        closed("flag = { where = '{\"paid_at\": None}' }", doc! {}),
        closed("flag = { where = '{\"paid_at\": {\"$in\": [undefined]}}' }", doc! {}),
        closed("flag = { where = { is_deleted = True } }", doc! { "is_deleted": true }),
        closed("flag = { where = { is_deleted = yes } }", doc! { "is_deleted": true }),
        closed("flag = { where = { is_active = { \"$ne\" = TRUE } } }", doc! { "is_active": false }),
        closed("flag = { where = '{\"is_active\": FALSE}' }", doc! { "is_active": false }),
        closed("flag = { where = { suspended = { \"$lte\" = NOW } } }", doc! { "suspended": bson::DateTime::MIN }),
        closed(
            "flag = { where = { suspended = { \"$lte\" = \"$$NOW\" } } }",
            doc! { "suspended": bson::DateTime::MIN },
        ),
        closed("flag = { where = { level = 007 } }", doc! { "level": 7 }),
        closed("flag = { where = { paid_by = none } }", doc! { "paid_by": "none" }),
        closed("flag = { where = { paid_by = Nothing, paid_at = null } }", doc! { "paid_by": "Nothing" }),
        closed("flag = { where = '{\"paid_by\": none}' }", doc! { "paid_by": "none" }),
        // Without the rest of the condition, null in `paid_at` would be enough.
        case("flag = { where = { paid_at = null, is_free = True } }", "flag & owner", doc! { "owner": "u" }),
        case(
            "flag = { where = { paid_at = null, size = 99999999999999999999 } }",
            "flag & owner",
            doc! { "owner": "u", "size": 1 },
        ),
        case("flag = { where = { opens_at = { \"$lt\" = \"$$NOW\" } } }", "flag & owner", doc! { "owner": "u" }),
    ]
}

fn comparisons() -> Vec<Case> {
    vec![
        closed(
            "flag = { where = { \"$expr\" = { \"$eq\" = [\"$status\", \"hidden\"] } } }",
            doc! { "status": "hidden" },
        ),
        closed("flag = { where = { \"$expr\" = { \"$lte\" = [\"$credits\", 0] } } }", doc! {}),
        closed("flag = { where = { \"$expr\" = { \"$gte\" = [0, \"$credits\"] } } }", doc! { "credits": null }),
        closed("flag = { where = '{\"$expr\": {\"$lt\": [\"$credits\", 1]}}' }", doc! { "credits": null }),
        closed("flag = { where = { status = \"$closed\" } }", doc! { "status": "$closed" }),
        closed("flag = { where = { \"$nor\" = [{ status = \"open\" }] } }", doc! { "status": "closed" }),
        closed("flag = { where = \"!is_open\" }", doc! { "is_open": false }),
        closed("flag = { where = \"status == 'closed'\" }", doc! { "status": "closed" }),
        closed("flag = { where = { status = { \"$noteq\" = \"open\" } } }", doc! { "status": "closed" }),
        closed("flag = { where = { status = { \"$notin\" = [\"open\"] } } }", doc! { "status": "closed" }),
        closed("flag = { where = { status = { \"$neq\" = \"open\" } } }", doc! { "status": "closed" }),
        closed("flag = { where = { released = { \"$notExists\" = true } } }", doc! {}),
        closed("flag = { where = { released = { \"$nexists\" = true } } }", doc! {}),
        closed("flag = { where = { level = { \"$ngt\" = 3 } } }", doc! { "level": 2 }),
        closed("flag = { where = { released = { exists = false } } }", doc! {}),
        closed("flag = { where = { \"$any\" = [{ banned = true }, { frozen = true }] } }", doc! { "frozen": true }),
        closed(
            "flag = { where = { \"$nand\" = [{ open = true }, { free = true }] } }",
            doc! { "open": true, "free": false },
        ),
        case(
            "flag = { where = { \"$xor\" = [{ open = true }, { free = true }] } }",
            "flag & owner",
            doc! { "owner": "u", "open": true, "free": true },
        ),
        case(
            "flag = { where = { status = { \"$ne\" = [\"deleted\", \"banned\"] } } }",
            "flag & owner",
            doc! { "owner": "u", "status": "deleted" },
        ),
        case(
            "flag = { where = { status = { \"$not\" = [\"deleted\", \"banned\"] } } }",
            "flag & owner",
            doc! { "owner": "u", "status": "deleted" },
        ),
        case(
            "flag = { where = { status = { \"$nn\" = [\"deleted\"] } } }",
            "flag & owner",
            doc! { "owner": "u", "status": "deleted" },
        ),
        case(
            "flag = { where = { level = { \"$and\" = [{ \"$gt\" = 3 }, { \"$lt\" = 5 }] } } }",
            "flag & owner",
            doc! { "owner": "u", "level": 2 },
        ),
        closed(
            "flag = { where = '{\"price\": {\"$numberDecimal\": \"0.1\"}}' }",
            doc! {
                "price": bson::Bson::Decimal128("0.1".parse().expect("a decimal")),
            },
        ),
    ]
}

fn arrays_bits_and_types() -> Vec<Case> {
    let tags = |tags: Vec<bson::Bson>| doc! { "tags": tags };
    vec![
        closed("flag = { where = { tags = { \"$elemMatch\" = \"secret\" } } }", tags(vec!["secret".into()])),
        closed("flag = { where = '{\"tags\": {\"$elemMatch\": null}}' }", tags(vec![bson::Bson::Null])),
        closed("flag = { where = { tags = { \"$elemMatch\" = [1, 2] } } }", tags(vec![1.into(), 2.into()])),
        closed("flag = { where = { tags = { \"$all\" = \"secret\" } } }", tags(vec!["secret".into()])),
        closed("flag = { where = { bits = { \"$bitsAnySet\" = \"4\" } } }", doc! { "bits": 4 }),
        closed("flag = { where = { bits = { \"$bitsSet\" = 4 } } }", doc! { "bits": 4 }),
        closed("flag = { where = { paid_at = { \"$type\" = \"missing\" } } }", doc! {}),
        case("flag = { where = '{\"tags\": {\"$elemMatch\": null}}' }", "flag & owner", doc! { "owner": "u" }),
        case(
            "flag = { where = { tags = { \"$elemMatch\" = { \"$ne\" = \"a\", kind = \"note\" } } } }",
            "flag & owner",
            doc! { "owner": "u", "tags": ["a"] },
        ),
        case(
            "flag = { where = { lessons = { kind = \"open\", level = 1 } } }",
            "flag & owner",
            doc! { "owner": "u", "lessons": [{ "kind": "open", "level": 9 }, { "kind": "shut", "level": 1 }] },
        ),
        closed(
            "flag = { where = { refs = { \"$elemMatch\" = { \"$id\" = \"u\" } } } }",
            doc! { "refs": [{ "$id": "u" }] },
        ),
        closed("flag = { where = { refs = { \"$ref\" = \"users\" } } }", doc! { "refs": { "$ref": "users" } }),
        case("flag = { where = { bits = { \"$bitsAllSet\" = 0 } } }", "flag & owner", doc! { "owner": "u", "bits": 0 }),
        case(
            "flag = { where = { bits = { \"$bitsAllSet\" = [] } } }",
            "flag & owner",
            doc! { "owner": "u", "bits": 2 },
        ),
    ]
}

fn paths_and_expressions() -> Vec<Case> {
    let viewed = || doc! { "owner": "u", "viewers": ["u"] };
    vec![
        closed("flag = { field = \"bans.$id\" }", doc! { "bans": [{ "$id": "u" }] }),
        closed("flag = { field = \"bans.$[].id\" }", doc! { "bans": [{ "id": "u" }] }),
        closed("flag = { where = { \"bans.$id\" = \"u\" } }", doc! { "bans": [{ "$id": "u" }] }),
        closed("flag = { field = \"bans[].id\" }", doc! { "bans": [{ "id": "u" }] }),
        closed("flag = { where = { \"bans[*].of.id\" = \"u\" } }", doc! { "bans": [{ "of": { "id": "u" } }] }),
        closed("flag = { each = \"bans[0]\", field = \"id\" }", doc! { "bans": [{ "id": "u" }] }),
        closed("flag = { field = \"$banned_id\" }", doc! { "banned_id": "u" }),
        closed("flag = { field = \"$$ROOT.banned_id\" }", doc! { "banned_id": "u" }),
        closed("flag = \"folder.banned\"", doc! { "folder_id": "f" }),
        case("first = { field = \"members.0\" }", "first", doc! { "members": ["a", "u"] }),
        case("first = { each = \"members\", field = \"ids.0\" }", "first", doc! { "members": [{ "ids": ["a", "u"] }] }),
        case(
            "first = { where = { \"members.0\" = \"u\" } }",
            "first & owner",
            doc! { "owner": "u", "members": ["a", "u"] },
        ),
        case("ended = { field = \"owner\", until = \"2020-01-01T00:00:00Z\" }", "ended", doc! { "owner": "u" }),
        case("ended = { field = \"owner\", until = \"1d\" }", "ended", doc! { "owner": "u" }),
        case("nobody = { field = \"viewers\", subject = [] }", "nobody", viewed()),
        case("", "owner - viewer", viewed()),
        case("", "owner | active - viewer", viewed()),
        case("", "owner + active & active", viewed()),
        case("", "folder.!banned", doc! { "owner": "u" }),
        case("", "folder.(viewer & owner)", doc! { "folder_id": ["g", "h"] }),
        case("", "inactive & owner", doc! { "owner": "u", "state": "on" }),
        case("", "!unactive & owner", doc! { "owner": "u" }),
        case("", "nonviewer & owner", viewed()),
        case("", "owner & folder", doc! { "owner": "u", "folder_id": "f" }),
        case("", "folder.read", doc! { "folder_id": "f" }),
    ]
}

impl Case {
    fn schema(&self) -> String {
        format!(
            "default_subject = \"user\"\n\n[subject.user]\nid = \"string\"\n\n[resource.file]\nid = \"string\"\n\
             collection = \"files\"\n\n[resource.file.relations]\nowner = {{ field = \"owner\" }}\n\
             viewer = {{ field = \"viewers\" }}\nfolder = {{ field = \"folder_id\", resource = \"file\" }}\n\
             banned = {{ field = \"banned\" }}\nactive = {{ where = {{ state = \"on\" }} }}\n{}\n\n\
             [resource.file.permissions]\nread = \"{}\"\n",
            self.relations, self.read
        )
    }

    /// Whether `u` may read the file. There are three folders: in one `u` is banned, in the other two `u` is either owner or
    /// viewer.
    async fn allows(&self, schema: Schema) -> bool {
        let schema = Arc::new(schema);
        let mut file = doc! { "_id": "x" };
        file.extend(self.file.clone());
        let folder = doc! { "_id": "f", "banned": "u" };
        let folders = [folder, doc! { "_id": "g", "owner": "u" }, doc! { "_id": "h", "viewers": ["u"] }];
        let documents = [("files".to_owned(), [vec![file], folders.to_vec()].concat())].into();
        let source = Arc::new(Documents::new(&schema, &documents));
        let checker = assemble(Parts::new(Arc::clone(&schema), source)).checker;
        let subject = SubjectText::Known { kind: "user", id: "u" };
        let question = schema.question(subject, "read", "file", "x").expect("a question of the schema");
        let deadline = Deadline::after(Duration::from_mins(10));
        let checked = checker.check(&[question], Consistency::FullyConsistent, deadline).await;
        checked.into_iter().any(|checked| matches!(checked.expect("an answer").answer, Answer::Allowed { .. }))
    }
}

/// The pieces of code that a help offers: the names that it guesses, and what follows a colon. An example counts only if it
/// repeats what the author wrote.
fn codes(help: &str, written: &str) -> Vec<String> {
    let written = written.trim_matches(['"', '\'']);
    let is_repeated = |example: &str| {
        written.len() > 2 && written != "true" && !written.starts_with('$') && example.contains(written)
    };
    let help = match help.split_once("for example") {
        Some((before, example)) if !is_repeated(example) => before,
        _ => help,
    };
    let is_guess = help.starts_with("did you mean");
    let quoted = help.split('`').skip(1).step_by(2).filter(|_| is_guess).map(str::to_owned);
    let after = help.match_indices(": ").map(|(at, colon)| help[at + colon.len()..].to_owned());
    let is_code = |text: &String| {
        text.starts_with(['`', '"', '{', '\'', '['])
            || ["where", "true", "false", "null"].iter().any(|it| text.starts_with(it))
    };
    let codes = quoted.chain(after.filter(is_code)).flat_map(|code| {
        let code = code.trim_matches('`').to_owned();
        [code.trim_matches('"').to_owned(), code]
    });
    // An operator takes the place of an operator only.
    codes.filter(|code| !code.starts_with('$') || written.starts_with('$')).collect()
}

/// Every schema that follows one of the errors' helps.
fn followed(text: &str, errors: &SchemaErrors) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for error in errors.iter() {
        let (Some(help), Some(span)) = (&error.help, &error.span) else { continue };
        for code in codes(help, &text[span.clone()]) {
            // What was written in quotes is replaced in quotes.
            let quote = if text[span.clone()].starts_with('"') { "\"" } else { "" };
            for instead in [code.clone(), [quote, &code, quote].concat()] {
                all.insert([&text[..span.start], &instead, &text[span.end..]].concat());
            }
            let line = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
            let end = span.end + text[span.end..].find('\n').unwrap_or(0);
            let starts = |with: &[char]| code.starts_with(with);
            for (key, without, is_meant) in [
                ("where = ", 0, code.starts_with("where")),
                ("where = ", "where = ".len(), starts(&['{', '\''])),
                ("= ", "= ".len(), code.starts_with("{ field")),
            ] {
                if let Some(at) = text[line..span.end].find(key).filter(|_| is_meant) {
                    all.insert([&text[..line + at + without], &code, " }", &text[end..]].concat());
                    all.insert([&text[..line + at + without], &code, &text[end..]].concat());
                }
            }
        }
    }
    all
}

#[tokio::test]
async fn no_help_leads_to_a_schema_that_allows_what_was_to_be_denied() {
    let (mut followed_count, mut valid_count) = (0, 0);
    for case in cases() {
        let mut todo = BTreeSet::from([case.schema()]);
        for _ in 0..=STEPS_MAX {
            let mut next = BTreeSet::new();
            for text in todo {
                match Schema::parse("schema.toml", &text) {
                    Ok(schema) => {
                        valid_count += 1;
                        let allows = case.allows(schema).await;
                        assert!(!allows, "{}\nread = {:?}\nallows, as\n{text}", case.relations, case.read);
                    }
                    Err(errors) => next.extend(followed(&text, &errors)),
                }
            }
            followed_count += next.len();
            todo = next;
        }
    }
    println!("{followed_count} schemas followed a help, {valid_count} were valid");
    assert!(valid_count >= 20, "only {valid_count} schemas were valid");
}
