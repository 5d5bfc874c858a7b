//! `explain` as text: it names every relation that could have granted, and why each did not. The JSON is tested in `ask`.

use std::{io::Read as _, process::Stdio};

use super::{BOB, CONTRACT, ZOE, in_process};
use crate::support::command::{command, run};

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
    let ended = run(&in_process(&["explain", ZOE, "read", CONTRACT]));
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
    let ended = run(&in_process(&["explain", BOB, "read", CONTRACT]));
    assert_eq!(ended.code, 0);
    let (headline, below) = about(&ended.stdout, "guest", FOLDERS[2]);
    assert!(headline.contains("✓"), "{headline}");
    assert!(below.contains(&format!("shares/54a4e0000000000000000001 shared_with_user_id = {BOB}")), "{below}");

    let ended = run(&in_process(&["explain", "user:ada000000000000000000008", "read", CONTRACT]));
    let (_, below) = about(&ended.stdout, "guest", FOLDERS[0]);
    assert!(below.contains("until 2099-12-31T23:59:59Z"), "{below}");

    let ended =
        run(&in_process(&["explain", "user:c410e0000000000000000003", "read", "file:f11e00000000000000000007"]));
    assert_eq!(ended.code, 1);
    let (headline, below) = about(&ended.stdout, "guest", "folder:f01d00000000000000000008");
    assert!(headline.contains("EXPIRED") && below.contains("until 2025-03-"), "{headline}\n{below}");

    let ended =
        run(&in_process(&["explain", "user:a11ce0000000000000000001", "read", "file:f11e0000000000000000000e"]));
    let (headline, below) = about(&ended.stdout, "owner", "file:f11e0000000000000000000e");
    assert!(
        headline.contains("MALFORMED") && below.contains("owner_id is not an id of the right type"),
        "{headline}\n{below}"
    );
}

#[test]
fn an_explanation_shows_tokens_of_others_as_hashes() {
    let ended = run(&in_process(&["explain", "link:no-such-token", "read", "file:f11e00000000000000000005"]));
    assert_eq!(ended.code, 1);
    let text = ended.output();
    assert!(!text.contains("a0000000-0000-4000"), "{text}");
    // The subject's own token is in the repeated question and nowhere else.
    assert!(text.matches("no-such-token").count() <= 1, "{text}");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let mut child = command(&in_process(&["explain", ZOE, "read", CONTRACT]), &[])
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
    run(&["explain", "--schema", &schema, "--documents", &documents, subject, permission, resource]).stdout
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
