//! The time until which a plan is valid: when the first of what it is based on ends, or begins. Both may let it find too much or too little.

use mongodb::bson::{DateTime, Document, doc};
use permcached::{list::PlanOptions, question::Millis, schema::Path};

use super::{both, collections};

const SCHEMA: &str = r#"
default_subject = "user"

[subject.user]
id = "string"

[subject.user.relations]
teams = { collection = "memberships", by = "user", field = "team", resource = "team", since = "since", until = "until" }

[resource.team]
id = "string"

[resource.team.relations]
member = { of = "user.teams" }

[resource.team.permissions]
see = "member"

[resource.folder]
id = "string"
collection = "folders"

[resource.folder.relations]
guest = { collection = "shares", by = "folder", field = "user", since = "since", until = "until" }
reader = { each = "readers", field = "user", since = "since", until = "until" }
banned = { collection = "bans", by = "folder", field = "user", where = { on = { "$ne" = false } }, since = "since", until = "until" }

[resource.folder.permissions]
visit = "guest & !banned"
read = "reader"

[resource.file]
id = "string"
collection = "files"

[resource.file.relations]
folder = { field = "folder", resource = "folder" }
team = { field = "team", subject = "team.member" }

[resource.file.permissions]
visit = "folder.visit"
read = "folder.read"
see = "team"
"#;

const NOW: Millis = 1_000_000;

/// A document with a time from which on it counts and one until which it does, both in milliseconds from now.
fn timed(mut document: Document, since: Millis, until: Millis) -> Document {
    for (name, after) in [("since", since), ("until", until)] {
        document.insert(name, DateTime::from_millis(NOW + after));
    }
    document
}

fn share(folder: &str, since: Millis, until: Millis) -> Document {
    timed(doc! { "folder": folder, "user": "ann" }, since, until)
}

fn folder(id: &str, since: Millis, until: Millis) -> Document {
    doc! { "_id": id, "readers": [timed(doc! { "user": "ann" }, since, until)] }
}

fn membership(team: &str, since: Millis, until: Millis) -> Document {
    timed(doc! { "user": "ann", "team": team }, since, until)
}

/// A permission, the documents, and until when a plan is valid.
type Case = (&'static str, Vec<(&'static str, Vec<Document>)>, Option<Millis>);

#[tokio::test]
async fn a_plan_is_valid_until_something_ends_or_begins() {
    let plain = || vec![doc! { "_id": "a" }, doc! { "_id": "b" }];
    let shares = |shares: [Document; 2]| vec![("shares", shares.into()), ("folders", plain())];
    let banned = |since, until| {
        let mut documents = shares([share("a", -9, 900), share("b", -9, 900)]);
        documents.push(("bans", vec![share("b", since, until)]));
        documents
    };
    let mut doubtful = banned(-400, 300);
    doubtful.last_mut().expect("the bans").1[0].insert("on", "yes");
    let cases: Vec<Case> = vec![
        ("visit", shares([share("a", -9, 900), share("b", -9, 700)]), Some(700)),
        ("visit", shares([share("a", -9, 900), share("b", 500, 700)]), Some(500)),
        ("visit", shares([share("a", 600, 900), share("b", 500, 700)]), Some(500)),
        ("visit", shares([share("a", -9, -5), share("b", -8, -7)]), None),
        ("visit", banned(400, 800), Some(400)),
        ("visit", banned(-400, 300), Some(300)),
        ("visit", banned(-400, -300), Some(900)),
        // Of a ban with a value of a wrong type nobody knows whether it counts, until it ends.
        ("visit", doubtful, Some(300)),
        ("read", vec![("folders", vec![folder("a", -9, 900), folder("b", -9, 700)])], Some(700)),
        ("read", vec![("folders", vec![folder("a", -9, 900), folder("b", 500, 700)])], Some(500)),
        ("read", vec![("folders", vec![folder("a", -9, -5), folder("b", -8, -7)])], None),
        ("see", vec![("memberships", vec![membership("a", -9, 900), membership("b", 500, 700)])], Some(500)),
        ("see", vec![("memberships", vec![membership("a", 600, 900), membership("b", 500, 700)])], Some(500)),
        ("see", vec![("memberships", vec![membership("a", -9, -5)])], None),
    ];
    for (permission, mut documents, expected) in cases {
        let file = |id: &str| doc! { "_id": id, "folder": id, "team": id };
        documents.push(("files", vec![file("a"), file("b")]));
        for mut listing in both(SCHEMA, &collections(documents.clone())).await {
            listing.lister.fixed_now = Some(NOW);
            let question = listing.question("user:ann", permission, "file");
            let reference = Some(Path::parse("file_id").unwrap());
            for options in [PlanOptions::default(), PlanOptions { reference, ..PlanOptions::default() }] {
                let plan = listing.plan(&question, options.clone()).await.unwrap();
                let valid = plan.valid_until.map(|until| until - NOW);
                assert_eq!(valid, expected, "{permission} {documents:?} {options:?}: {plan:?}");
            }
        }
    }
}
