//! Answers that callers keep: whatever change makes one wrong is reported with the name of something that it depends on.
//!
//! Over a real replica set. The near cache of the Node.js client, which relies on this, has tests of its own.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bson::{Bson, DateTime, Document, doc};
use fastrand::Rng;
use permcached::{
    bus::Subscription,
    check::{Checked, Consistency, Dependencies},
    freshness::{DEPENDENCIES_MAX, Moment, name_of_change},
    question::{Answer, Question},
    source::Deadline,
};

use crate::support::{
    both::{TIME_MAX, question, shown},
    live::{Live, at_least, operation_time},
};

/// Most of what a schema can say about files, with ids that are numbers.
const FILES: &str = r#"
default_subject = "user"

[subject.user]
id = "integer"
collection = "users"
where = { active = { "$ne" = false } }

[subject.user.relations]
admin  = { where = { role = "admin" } }
teams  = { field = "team_ids", resource = "team" }
groups = { collection = "memberships", by = "user", field = "group", resource = "group" }
banned = { collection = "bans", by = "user" }

[resource.team]
id = "integer"
[resource.team.relations]
member = { of = "user.teams" }

[resource.group]
id = "integer"
[resource.group.relations]
member = { of = "user.groups" }

[resource.folder]
id = "integer"
collection = "folders"
[resource.folder.relations]
owner  = { field = "owner" }
parent = { field = "parent", resource = "folder" }
guest  = { collection = "shares", by = "folder", field = "user", wildcard = true }
[resource.folder.permissions]
read = "owner | guest | parent.read"

[resource.file]
id = "integer"
collection = "files"
where = { deleted = { "$ne" = true } }
[resource.file.relations]
owner   = { field = "owner" }
folder  = { field = "folder", resource = "folder" }
guest   = { collection = "shares", by = "file", field = "user", wildcard = true, where = { active = { "$ne" = false } } }
team    = { field = "team", resource = "team" }
group   = { field = "groups", resource = "group" }
public  = { where = { public = true } }
blocked = { collection = "blocks", by = "file", field = "user" }
[resource.file.permissions]
read  = "public | (owner | guest | folder.read | team.member | group.member | subject.admin) & !blocked & !subject.banned"
write = "owner | subject.admin"
"#;

const FIELDS_OF_FILES: &[(&str, &[&str])] = &[
    ("users", &["active", "role", "team_ids"]),
    ("memberships", &["user", "group"]),
    ("bans", &["user"]),
    ("folders", &["owner", "parent"]),
    ("shares", &["file", "folder", "user", "active"]),
    ("files", &["deleted", "owner", "folder", "team", "groups", "public"]),
    ("blocks", &["file", "user"]),
];

/// Sets of subjects, ids within texts, and circles of circles.
const CIRCLES: &str = r#"
default_subject = "user"

[subject.user]
id = "string"

[subject.link]
id = "string"
secret = true

[resource.circle]
id = "string"
collection = "circles"
[resource.circle.relations]
member = { field = "members", subject = "user", format = "user:{id}" }
inner  = { field = "inner", resource = "circle" }
[resource.circle.permissions]
member_of = "member | inner.member_of"

[resource.page]
id = "string"
collection = "pages"
[resource.page.relations]
reader = { collection = "grants", by = { field = "object", format = "page:{id}" }, field = "circle", subject = "circle.member_of" }
editor = { collection = "grants", by = { field = "object", format = "page:{id}" }, field = "user", subject = "user" }
link   = { collection = "links", by = "page", field = "token", subject = "link" }
[resource.page.permissions]
read = "reader | editor | link"
only_readers = "reader & !editor"
"#;

/// Everything that a test may do to the documents of a schema, and what it asks.
struct World {
    live: Live,
    rng: Rng,
    collections: Vec<(&'static str, Vec<&'static str>)>,
    /// The `_id` of a document by its number.
    id: fn(u8) -> Bson,
    /// A value of a field.
    value: fn(&mut Rng, &str) -> Bson,
    questions: Vec<Question>,
}

/// An answer, and what it depends on.
type Kept = (Checked, Option<Dependencies>);

/// How often something was seen.
#[derive(Debug, Default)]
struct Seen {
    answers: usize,
    kept: usize,
    flips: usize,
    /// Answers that stayed as they were and whose dependencies no change named.
    spared: usize,
    /// Answers of facts with different moments.
    mixed: usize,
}

impl World {
    /// One change of one document; none if it changed nothing.
    async fn write(&mut self) -> Option<Moment> {
        let rng = &mut self.rng;
        let (collection, fields) = self.collections[rng.usize(..self.collections.len())].clone();
        let id = (self.id)(rng.u8(..4));
        let field = fields[rng.usize(..fields.len())];
        let update = |update: Document| doc! { "q": { "_id": id.clone() }, "u": update, "upsert": true };
        let command = match rng.u8(..10) {
            0 | 1 => doc! { "delete": collection, "deletes": [{ "q": { "_id": id.clone() }, "limit": 1 }] },
            2..=4 => {
                let mut document = Document::new();
                for field in fields {
                    if rng.u8(..4) > 0 {
                        document.insert(field, (self.value)(rng, field));
                    }
                }
                doc! { "update": collection, "updates": [update(document)] }
            }
            5 => doc! { "update": collection, "updates": [update(doc! { "$unset": { field: 1 } })] },
            _ => {
                let value = (self.value)(rng, field);
                doc! { "update": collection, "updates": [update(doc! { "$set": { field: value } })] }
            }
        };
        let reply = self.live.database.run_command(command).await.expect("the command is right");
        let count = |field| reply.get_i32(field).unwrap_or(0);
        let has_changed = reply.contains_key("upserted") || count("nModified") > 0;
        let has_deleted = !reply.contains_key("nModified") && count("n") > 0;
        (has_changed || has_deleted).then(|| operation_time(&reply))
    }

    /// The answer to each question as of a moment or later.
    async fn ask(&self, consistency: Consistency) -> Vec<Kept> {
        let (checked, mut dependencies) = self
            .live
            .app
            .checker
            .check_with_dependencies(&self.questions, consistency, Deadline::after(TIME_MAX))
            .await;
        dependencies.resize(self.questions.len(), None);
        checked.into_iter().map(|checked| checked.expect("an answer")).zip(dependencies).collect()
    }

    /// The names of everything that a stream reports until a moment; none if anything may have changed. The changes of one moment come
    /// together.
    async fn names_until(&self, stream: &mut Subscription, moment: Moment) -> Option<BTreeSet<u64>> {
        let mut names = Some(BTreeSet::new());
        loop {
            let update = stream.next().await;
            let mut is_reported = update.to.is_some_and(|to| to >= moment);
            for change in &update.changes {
                is_reported |= change.at >= moment;
                match name_of_change(&self.live.schema, &change.what) {
                    Some(name) => names.iter_mut().for_each(|names| _ = names.insert(name)),
                    None => names = None,
                }
            }
            if is_reported {
                return names;
            }
        }
    }

    /// Makes changes, and asserts that each answer that one of them makes wrong depends on something that it names.
    async fn run(mut self, changes: usize) -> Seen {
        let mut seen = Seen::default();
        let mut stream = self.live.app.bus.subscribe(None);
        stream.next().await;
        let mut before = self.ask(Consistency::FullyConsistent).await;
        for number in 0..changes {
            let Some(moment) = self.write().await else { continue };
            let names = self.names_until(&mut stream, moment).await;
            let after = self.ask(at_least(moment)).await;
            for (question, ((old, depends_on), (new, depend_now))) in
                self.questions.iter().zip(before.iter().zip(&after))
            {
                seen.answers += 1;
                let is_same = kind(old.answer) == kind(new.answer);
                seen.flips += usize::from(!is_same);
                if let Some(depend_now) = depend_now {
                    assert!(depend_now.oldest <= new.as_of.moment);
                    seen.mixed += usize::from(depend_now.oldest < new.as_of.moment);
                }
                let Some(depends_on) = depends_on else { continue };
                seen.kept += 1;
                assert!((1..=DEPENDENCIES_MAX).contains(&depends_on.names.len()));
                let is_named =
                    names.as_ref().is_none_or(|names| depends_on.names.iter().any(|name| names.contains(name)));
                let schema = &self.live.schema;
                assert!(
                    is_same || is_named,
                    "change {number} makes {} of {question:?} {}, and {depends_on:?} is not among {names:?}",
                    shown(schema, old.answer),
                    shown(schema, new.answer)
                );
                seen.spared += usize::from(!is_named);
            }
            before = after;
        }
        seen
    }
}

/// What callers see of an answer that does not depend on the time.
fn kind(answer: Answer) -> Answer {
    match answer {
        Answer::Allowed { .. } => Answer::Allowed { by: None, valid_until: None },
        denied @ Answer::Denied(_) => denied,
    }
}

fn value_of_files(rng: &mut Rng, field: &str) -> Bson {
    let id = |rng: &mut Rng| Bson::Int64(rng.i64(..4));
    match field {
        "active" | "deleted" | "public" => Bson::Boolean(rng.u8(..3) > 0),
        "role" => rng.choice(["admin", "editor"]).unwrap().into(),
        "team_ids" | "groups" => Bson::Array(vec![id(rng), id(rng)]),
        // Other forms of ids, and documents, count under a `!`.
        "user" | "file" => match rng.u8(..12) {
            0 => "1".into(),
            1 => "*".into(),
            2 => Bson::Document(doc! { "id": 1 }),
            3 => Bson::Array(vec![id(rng), Bson::Array(vec![id(rng)])]),
            4 => Bson::Double(1.0),
            _ => id(rng),
        },
        _ => id(rng),
    }
}

fn value_of_circles(rng: &mut Rng, field: &str) -> Bson {
    let name = |rng: &mut Rng| ["a", "b", "c", "d"][rng.usize(..4)];
    match field {
        "members" => Bson::Array(vec![format!("user:{}", name(rng)).into(), name(rng).into()]),
        "object" => format!("{}:{}", if rng.u8(..6) > 0 { "page" } else { "file" }, name(rng)).into(),
        _ => name(rng).into(),
    }
}

fn questions(live: &Live, subjects: &[&str], resources: &[&str], permissions: &[&str]) -> Vec<Question> {
    let mut all = Vec::new();
    for subject in subjects {
        for resource in resources {
            all.extend(permissions.iter().map(|permission| question(&live.schema, subject, permission, resource)));
        }
    }
    all
}

#[tokio::test]
async fn every_change_that_makes_an_answer_wrong_names_something_that_it_depends_on() {
    let live = Live::new(FILES, &[]).await;
    let subjects = ["user:0", "user:1", "user:2", "anonymous"];
    let files = ["file:0", "file:1", "file:2"];
    let mut all = questions(&live, &subjects, &files, &["read", "write"]);
    all.extend(questions(&live, &subjects, &["folder:0", "folder:1"], &["read"]));
    let collections = FIELDS_OF_FILES.iter().map(|(name, fields)| (*name, fields.to_vec())).collect();
    let id = |number: u8| Bson::Int64(number.into());
    let world = World { live, rng: Rng::with_seed(7), collections, id, value: value_of_files, questions: all };
    let seen = world.run(300).await;
    assert!(seen.flips > 200 && seen.kept > seen.answers / 2 && seen.mixed > 0, "{seen:?}");
    assert!(seen.spared > seen.kept / 2, "most changes concern few answers: {seen:?}");
}

#[tokio::test]
async fn changes_of_sets_and_of_keys_within_texts_are_named_too() {
    let live = Live::new(CIRCLES, &[]).await;
    let subjects = ["user:a", "user:b", "link:a", "anonymous"];
    let all = questions(&live, &subjects, &["page:a", "page:b", "page:c"], &["read", "only_readers"]);
    let collections = vec![
        ("circles", vec!["members", "inner"]),
        ("pages", vec!["title"]),
        ("grants", vec!["object", "circle", "user"]),
        ("links", vec!["page", "token"]),
    ];
    let id = |number: u8| ["a", "b", "c", "d"][usize::from(number)].into();
    let world = World { live, rng: Rng::with_seed(7), collections, id, value: value_of_circles, questions: all };
    let seen = world.run(200).await;
    assert!(seen.flips > 60 && seen.kept > seen.answers / 2, "{seen:?}");
    assert!(seen.spared > seen.kept / 2, "{seen:?}");
}

const TIMES: &str = r#"
default_subject = "user"
[subject.user]
id = "integer"
[resource.file]
id = "integer"
collection = "files"
[resource.file.relations]
owner = { field = "owner" }
guest = { collection = "shares", by = "file", field = "user", since = "since", until = "until" }
[resource.file.permissions]
read = "owner | guest"
"#;

#[tokio::test]
async fn an_answer_that_time_changes_has_an_end_and_some_must_not_be_kept() {
    let now = DateTime::now().timestamp_millis();
    let at = |seconds: i64| DateTime::from_millis(now + 1_000 * seconds);
    let mut shares = vec![
        doc! { "file": 1, "user": 1, "until": at(3_600) },
        doc! { "file": 1, "user": 2, "since": at(7_200) },
        doc! { "file": 1, "user": 3, "until": at(-10) },
    ];
    shares.extend((0..63).map(|user| doc! { "file": 3, "user": user }));
    shares.extend((0..64).map(|user| doc! { "file": 4, "user": user }));
    let files = vec![
        doc! { "_id": 1, "owner": 9 },
        doc! { "_id": 2, "owner": { "id": 1 } },
        doc! { "_id": 3, "owner": 9 },
        doc! { "_id": 4, "owner": 9 },
    ];
    let live = Live::new(TIMES, &[("files", files), ("shares", shares)]).await;
    let ask = async |subject: &str, file: &str| {
        let questions = [question(&live.schema, subject, "read", file)];
        let checker = &live.app.checker;
        let limits = (Consistency::MinimizeLatency, Deadline::after(TIME_MAX));
        let (mut checked, mut dependencies) = checker.check_with_dependencies(&questions, limits.0, limits.1).await;
        let shown = shown(&live.schema, checked.remove(0).unwrap().answer);
        (shown, dependencies.remove(0))
    };
    let valid_for = |(shown, dependencies): (String, Option<Dependencies>)| (shown, dependencies.unwrap().valid_for);
    let (shown, ends) = valid_for(ask("user:1", "file:1").await);
    assert_eq!(shown, "allowed by file#guest");
    let ends = ends.unwrap();
    assert!(ends <= Duration::from_hours(1) && ends > Duration::from_mins(58), "{ends:?}");
    let (shown, begins) = valid_for(ask("user:2", "file:1").await);
    assert_eq!(shown, "denied EXPIRED");
    let begins = begins.unwrap();
    assert!(begins <= Duration::from_hours(2) && begins > Duration::from_mins(118), "{begins:?}");
    assert_eq!(valid_for(ask("user:3", "file:1").await), ("denied EXPIRED".to_owned(), None));
    assert_eq!(valid_for(ask("user:9", "file:1").await), ("allowed by file#owner".to_owned(), None));
    assert_eq!(valid_for(ask("user:1", "file:7").await), ("denied NOT_FOUND".to_owned(), None));
    // A value of a wrong type, a document too many, and no common time of all instances.
    assert_eq!(ask("user:1", "file:2").await, ("denied MALFORMED".to_owned(), None));
    let (shown, dependencies) = ask("user:8", "file:3").await;
    assert_eq!(
        (&*shown, dependencies),
        ("allowed by file#guest", None),
        "63 shares, their key, the file and the subject"
    );
    let (_, dependencies) = ask("user:9", "file:4").await;
    assert_eq!(dependencies.unwrap().names.len(), 2, "the owner's answer depends on no share");
}

#[tokio::test]
async fn documents_on_disk_have_no_dependencies() {
    use permcached::{
        app::{Parts, assemble},
        source::documents::Documents,
    };
    let schema = Arc::new(crate::support::both::schema("times.toml", TIMES));
    let files = [("files".to_owned(), vec![doc! { "_id": 1, "owner": 9 }])].into();
    let app = assemble(Parts::new(Arc::clone(&schema), Arc::new(Documents::new(&schema, &files))));
    let questions = [question(&schema, "user:9", "read", "file:1")];
    let limits = (Consistency::MinimizeLatency, Deadline::after(TIME_MAX));
    let (checked, dependencies) = app.checker.check_with_dependencies(&questions, limits.0, limits.1).await;
    assert_eq!(shown(&schema, checked[0].as_ref().unwrap().answer), "allowed by file#owner");
    assert_eq!(dependencies, []);
}
