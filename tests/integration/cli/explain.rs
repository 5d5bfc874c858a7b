//! `explain` as text: in short the way that grants or a line for each relation, with `--all` every step. The JSON is tested in `ask`.

use std::{io::Read as _, process::Stdio};

use super::{BOB, CONTRACT, ZOE, in_process};
use crate::support::{
    command::{Serving, command, run},
    service::{DOCUMENTS, SCHEMA},
};

/// The folders above the contract, the innermost first.
const FOLDERS: [&str; 4] = [
    "folder:f01d00000000000000000004",
    "folder:f01d00000000000000000003",
    "folder:f01d00000000000000000002",
    "folder:f01d00000000000000000001",
];

/// The line about this relation of this object, and the lines below it that are indented further.
#[track_caller]
fn about(text: &str, relation: &str, object: &str) -> (String, String) {
    let words = format!(" {relation} of {object}");
    let indent = |line: &str| line.chars().take_while(|letter| !letter.is_alphanumeric()).count();
    let mut lines = text.lines().skip_while(|line| !line.contains(&words));
    let headline = lines.next().unwrap_or_else(|| panic!("no line about{words}:\n{text}"));
    let below: Vec<&str> = lines.take_while(|line| indent(line) > indent(headline)).collect();
    (headline.to_owned(), below.join("\n"))
}

#[test]
fn a_denial_four_folders_deep_names_every_relation_and_why_it_did_not_grant() {
    let ended = run(&in_process(&["explain", "--all", ZOE, "read", CONTRACT]));
    assert_eq!(ended.code, 1);
    let text = &ended.stdout;

    // The relations of the file, then those of each folder above it, each with the reason.
    let file = [
        ("owner", "1 grant to others"),
        ("guest", "no document"),
        ("link", "leads only to link"),
        ("verified_link", "leads only to verified_link"),
        ("reading_code", "leads only to code"),
        ("folder.shared", "folder:f01d00000000000000000004"),
    ];
    for (relation, why) in file {
        let (headline, below) = about(text, relation, CONTRACT);
        assert!(headline.contains("✗") && headline.contains("NO_GRANT"), "{headline}");
        assert!(below.contains(why), "{headline}\n{below}");
    }
    let guests = ["1 grant to others", "no document", "1 grant to others", "no document"];
    for (place, folder) in FOLDERS.into_iter().enumerate() {
        let above = FOLDERS.get(place + 1).copied().unwrap_or("leads nowhere");
        for (relation, why) in [
            ("guest", guests[place]),
            ("link", "leads only to link"),
            ("verified_link", "leads only to verified_link"),
            ("parent.shared", above),
        ] {
            let (headline, below) = about(text, relation, folder);
            assert!(headline.contains("✗") && headline.contains("NO_GRANT"), "{headline}");
            assert!(below.contains(why), "{headline}\n{below}");
        }
        let (headline, below) = about(text, "deleted", folder);
        assert!(headline.contains("✓ not deleted"), "{headline}");
        let id = folder.split_once(':').unwrap().1;
        assert!(below.contains(&format!("folders by _id = {id}")), "{below}");
    }
    // Where to find each in the database: collection, field and key.
    for place in ["files by _id = f11e00000000000000000002", "shares by file_id = f11e00000000000000000002"] {
        assert!(text.contains(place), "{place}\n{text}");
    }
    for folder in FOLDERS {
        let id = folder.split_once(':').unwrap().1;
        assert!(text.contains(&format!("shares by folder_id = {id}")), "{folder}\n{text}");
    }
    assert!(text.contains(&format!("✓ {ZOE} is active")), "{text}");
}

#[test]
fn a_grant_is_shown_with_its_document_and_its_end() {
    let ended = run(&in_process(&["explain", "--all", BOB, "read", CONTRACT]));
    assert_eq!(ended.code, 0);
    let (headline, below) = about(&ended.stdout, "guest", FOLDERS[2]);
    assert!(headline.contains("✓"), "{headline}");
    assert!(below.contains(&format!("shares/54a4e0000000000000000001 shared_with_user_id = {BOB}")), "{below}");

    let ended = run(&in_process(&["explain", "--all", "user:ada000000000000000000008", "read", CONTRACT]));
    let (_, below) = about(&ended.stdout, "guest", FOLDERS[0]);
    assert!(below.contains("until 2099-12-31T23:59:59Z"), "{below}");

    let ended = run(&in_process(&[
        "explain",
        "--all",
        "user:c410e0000000000000000003",
        "read",
        "file:f11e00000000000000000007",
    ]));
    assert_eq!(ended.code, 1);
    let (headline, below) = about(&ended.stdout, "guest", "folder:f01d00000000000000000008");
    assert!(headline.contains("EXPIRED") && below.contains("until 2025-03-"), "{headline}\n{below}");

    let ended = run(&in_process(&[
        "explain",
        "--all",
        "user:a11ce0000000000000000001",
        "read",
        "file:f11e0000000000000000000e",
    ]));
    let (headline, below) = about(&ended.stdout, "owner", "file:f11e0000000000000000000e");
    assert!(
        headline.contains("MALFORMED") && below.contains("owner_id is not an id of the right type"),
        "{headline}\n{below}"
    );
}

#[test]
fn an_explanation_shows_tokens_of_others_as_hashes() {
    for all in [&["--all"][..], &[]] {
        let asked = ["explain", "link:no-such-token", "read", "file:f11e00000000000000000005"];
        let ended = run(&in_process(&[&asked[..], all].concat()));
        assert_eq!(ended.code, 1);
        let text = ended.output();
        assert!(!text.contains("a0000000-0000-4000"), "{text}");
        // The subject's own token is in the repeated question and nowhere else.
        assert!(text.matches("no-such-token").count() <= 1, "{text}");
    }
}

/// What `explain` shows by default: the lines between the answer and the hint at `--all`.
#[track_caller]
fn brief(subject: &str, permission: &str, resource: &str) -> String {
    let ended = run(&in_process(&["explain", subject, permission, resource]));
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines.len() > 3 && lines[1].is_empty() && lines.last().unwrap().starts_with("--all "), "{ended:?}");
    lines[2..lines.len() - 1].join("\n")
}

/// Replaces the zeros in the middle of ids: `f11e…2`.
fn shortened(text: &str) -> String {
    let mut text = text.to_owned();
    for zeros in (6..=22).rev() {
        text = text.replace(&"0".repeat(zeros), "…");
    }
    text
}

#[test]
fn a_grant_is_explained_by_the_way_that_grants() {
    for (subject, permission, resource, expected) in [
        (
            "user:a11ce0000000000000000001",
            "read",
            "file:f11e00000000000000000001",
            "✓ not deleted of file:f11e…1: files by _id = f11e…1\n\
             ✓ owner of file:f11e…1: files/f11e…1 owner_id = user:a11ce…1",
        ),
        (
            BOB,
            "read",
            CONTRACT,
            "✓ not deleted of file:f11e…2: files by _id = f11e…2\n\
             ✓ folder.shared of file:f11e…2: files/f11e…2 folder_id = folder:f01d…4\n\
             ✓ not deleted of folder:f01d…4: folders by _id = f01d…4\n\
             ✓ parent.shared of folder:f01d…4: folders/f01d…4 parent_id = folder:f01d…3\n\
             ✓ not deleted of folder:f01d…3: folders by _id = f01d…3\n\
             ✓ parent.shared of folder:f01d…3: folders/f01d…3 parent_id = folder:f01d…2\n\
             ✓ not deleted of folder:f01d…2: folders by _id = f01d…2\n\
             ✓ guest of folder:f01d…2: shares/54a4e…1 shared_with_user_id = user:b0b…2",
        ),
    ] {
        assert_eq!(shortened(&brief(subject, permission, resource)), expected, "{subject}");
    }
}

#[test]
fn a_denial_is_explained_by_one_line_for_each_relation() {
    let alice = "user:a11ce0000000000000000001";
    for (subject, resource, expected) in [
        (
            ZOE,
            CONTRACT,
            "✗ owner of file:f11e…2: files by _id = f11e…2: 1 document, 1 grant to others  NO_GRANT\n\
             ✗ guest of file:f11e…2: shares by file_id = f11e…2: no document that fits any relation  NO_GRANT\n\
             ✗ guest of folder:f01d…4: shares by folder_id = f01d…4: 1 document, 1 grant to others  NO_GRANT\n\
             ✗ guest of folder:f01d…3: shares by folder_id = f01d…3: no document that fits any relation  NO_GRANT\n\
             ✗ guest of folder:f01d…2: shares by folder_id = f01d…2: 2 documents, 1 grant to others  NO_GRANT\n\
             ✗ guest of folder:f01d…1: shares by folder_id = f01d…1: no document that fits any relation  NO_GRANT\n\
             ✗ parent.shared of folder:f01d…1: folders by _id = f01d…1: 1 document, which leads nowhere  NO_GRANT",
        ),
        (alice, "file:f11e00000000000000000006", "✓ deleted of file:f11e…6: files/f11e…6 is_deleted"),
        (
            "user:fad100000000000000000005",
            "file:f11e0000000000000000000b",
            "✗ user:fad1…5 is active: users by _id = fad1…5: 1 document, none of which grants  SUBJECT_INACTIVE",
        ),
        (
            alice,
            "file:f11e000000000000000000ff",
            "✗ file:f11e…ff exists: files by _id = f11e…ff: no document  NOT_FOUND",
        ),
    ] {
        assert_eq!(shortened(&brief(subject, "read", resource)), expected, "{subject} {resource}");
    }
    // The document that was expired, and the one that is malformed.
    let expired = shortened(&brief("user:c410e0000000000000000003", "read", "file:f11e00000000000000000007"));
    let line = "✗ guest of folder:f01d…8: shares/54a4e…8 shared_with_user_id = user:c410e…3, until 2025-03-31T23:59:59Z  EXPIRED";
    assert!(expired.lines().any(|found| found == line), "{expired}");
    let malformed = shortened(&brief(alice, "read", "file:f11e0000000000000000000e"));
    let line = "? owner of file:f11e…e: files/f11e…e owner_id is not an id of the right type  MALFORMED";
    assert_eq!(malformed.lines().next(), Some(line), "{malformed}");
    // A running server explains in the same way.
    let serving = Serving::start(&["--schema", SCHEMA, "--documents", DOCUMENTS]);
    let ended = run(&["explain", ZOE, "read", CONTRACT, "--server", &serving.url()]);
    assert!(ended.stdout.contains(&brief(ZOE, "read", CONTRACT)), "{ended:?}");
    let ended = run(&["explain", "--all", ZOE, "read", CONTRACT, "--server", &serving.url()]);
    assert!(ended.stdout.contains("leads only to link") && !ended.stdout.contains("--all"), "{ended:?}");
}

/// A chain of folders, and a file with tags that have watchers.
#[test]
fn a_denial_over_many_resources_shows_a_few_of_each_relation_and_counts_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let schema = write(
        "schema.toml",
        r#"
        default_subject = "user"
        [subject.user]
        id = "string"
        [resource.folder]
        id = "integer"
        collection = "folders"
        [resource.folder.relations]
        owner  = { field = "owner" }
        parent = { field = "parent", resource = "folder" }
        [resource.folder.permissions]
        read = "owner | parent.read"
        [resource.tag]
        id = "integer"
        collection = "tags"
        [resource.tag.relations]
        watcher = { field = "watcher" }
        [resource.file]
        id = "integer"
        collection = "files"
        [resource.file.relations]
        folder = { field = "folder", resource = "folder" }
        tag    = { field = "tags", resource = "tag" }
        [resource.file.permissions]
        read = "tag.watcher | folder.read"
        "#,
    );
    let lines = |of: &dyn Fn(u32) -> String, count: u32| (1..=count).map(of).collect::<Vec<_>>().join("\n");
    // One tag has a watcher that is no id.
    let watcher = |number: u32| if number == 7 { "7".to_owned() } else { format!("\"w{number}\"") };
    write("tags.jsonl", &lines(&|id| format!(r#"{{"_id": {id}, "watcher": {}}}"#, watcher(id)), 300));
    let parent = |id: u32| if id == 1 { "null".to_owned() } else { (id - 1).to_string() };
    let folder = |id| format!(r#"{{"_id": {id}, "parent": {}, "owner": "o{id}"}}"#, parent(id));
    write("folders.jsonl", &lines(&folder, 20));
    let tags: Vec<u32> = (1..=300).collect();
    write("files.jsonl", &format!(r#"{{"_id": 1, "folder": 20, "tags": {tags:?}}}"#));
    let explain = |user: &str| {
        let documents = directory.path().display().to_string();
        let ended = run(&["explain", "--schema", &schema, "--documents", &documents, user, "read", "file:1"]);
        ended.stdout.lines().skip(2).map(str::to_owned).collect::<Vec<String>>()
    };
    let denied = explain("user:nobody");
    let starting = |with: &str| denied.iter().filter(|line| line.starts_with(with)).count();
    assert_eq!((starting("✗ watcher of tag:"), starting("✗ owner of folder:")), (5, 5), "{denied:#?}");
    for line in [
        "✗ watcher of 294 more resources of type tag  NO_GRANT",
        "? watcher of tag:7: tags/7 watcher is not an id of the right type  MALFORMED",
        "✗ owner of 15 more resources of type folder  NO_GRANT",
    ] {
        assert!(denied.iter().any(|found| found == line), "{line}: {denied:#?}");
    }
    assert!(denied.len() <= 16, "{denied:#?}");
    // The way that grants is shown whole.
    let allowed = explain("user:o1");
    assert_eq!(allowed.iter().filter(|line| line.starts_with("✓ parent.read of folder:")).count(), 19, "{allowed:#?}");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let mut child = command(&in_process(&["explain", "--all", ZOE, "read", CONTRACT]), &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(1), ""));
}

/// The explanation of a question about the sample documents of a recipe.
fn explained(recipe: &str, subject: &str, permission: &str, resource: &str) -> String {
    let (schema, documents) = (format!("schemas/recipes/{recipe}.toml"), format!("examples/recipes/{recipe}"));
    run(&["explain", "--all", "--schema", &schema, "--documents", &documents, subject, permission, resource]).stdout
}

#[test]
fn a_relation_of_the_subject_is_shown_with_its_document_field_and_value() {
    let (ann, team) = ("user:a00000000000000000000001", "team:e00000000000000000000001");
    let text = explained("teams", ann, "view", team);
    let (headline, below) = about(&text, "member", team);
    assert!(headline.contains(&format!("✓ member of {team}: teams of {ann}")), "{text}");
    let document = format!("users/a00000000000000000000001 team_ids = {team}");
    assert!(below.contains("users by _id = a00000000000000000000001") && below.contains(&document), "{text}");

    // The ids of other teams are shown if none leads here.
    let sal = "user:a00000000000000000000002";
    let text = explained("teams", sal, "view", team);
    let (headline, below) = about(&text, "member", team);
    assert!(headline.contains(&format!("✗ member of {team}: teams of {sal}")), "{text}");
    assert!(below.contains("team_ids = team:e00000000000000000000002"), "{text}");

    let text = explained("teams", "anonymous", "view", team);
    let (_, below) = about(&text, "member", team);
    assert!(below.contains("leads only to user"), "{text}");
}

#[test]
fn a_flag_of_the_subject_is_shown_with_its_condition_or_with_the_types_that_have_it() {
    let (admin, report) = ("user:a00000000000000000000001", "document:d00000000000000000000001");
    let text = explained("global-administrator", admin, "write", report);
    let (headline, below) = about(&text, "admin", admin);
    assert!(headline.contains('✓') && below.contains("users/a00000000000000000000001 role"), "{text}");

    let support = "user:a00000000000000000000002";
    let text = explained("global-administrator", support, "write", report);
    let (headline, below) = about(&text, "admin", support);
    assert!(headline.contains('✗') && below.contains(r#"where {"role":{"$eq":"admin"}}"#), "{text}");

    let text = explained("global-administrator", "anonymous", "write", report);
    let (headline, below) = about(&text, "admin", "anonymous");
    assert!(headline.contains('✗') && below.contains("leads only to user"), "{text}");
}
