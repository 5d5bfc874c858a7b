//! `list`, `who` and `filter`: in process and from a server, page by page or as a whole, for people and for programs.

use std::{fs, process::Command};

use serde_json::{Deserializer, Value};

use super::{BOB, CONTRACT, ZOE, in_process};
use crate::support::{
    command::{Ended, Serving, run},
    service::{DOCUMENTS, SCHEMA},
};

const ALICE: &str = "user:a11ce0000000000000000001";

/// The first words of each line: what is listed.
fn listed(ended: &Ended) -> Vec<&str> {
    ended.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect()
}

/// Whether `permcached check` says yes.
fn may(subject: &str, permission: &str, resource: &str) -> bool {
    run(&in_process(&["check", subject, permission, resource])).code == 0
}

#[test]
fn list_prints_what_check_allows_in_process_and_from_a_server() {
    let server = Serving::start(&["--documents", DOCUMENTS, "--schema", SCHEMA]);
    let url = server.url();
    let files: Vec<String> = (1..=14).map(|number| format!("file:f11e{number:020x}")).collect();
    for (who, code) in [(BOB, 0), (ALICE, 0), (ZOE, 1), ("anonymous", 1)] {
        let expected: Vec<&str> = files.iter().map(String::as_str).filter(|file| may(who, "read", file)).collect();
        assert_eq!(expected.is_empty(), code == 1, "{who}");
        let ask = ["list", who, "read", "file"];
        for way in [in_process(&ask), [ask.as_slice(), &["--server", &url]].concat()] {
            let ended = run(&way);
            assert_eq!((ended.code, listed(&ended)), (code, expected.clone()), "{way:?}: {ended:?}");
            let hint = format!("permcached explain {who} read {}", expected.first().unwrap_or(&"file:ID"));
            assert!(ended.stderr.contains(&hint), "{ended:?}");
        }
    }
    let bob = run(&in_process(&["list", BOB, "read", "file"]));
    assert!(bob.stdout.contains(&format!("{CONTRACT}  by folder#guest\n")), "{bob:?}");
    // The hint can be pasted.
    let hint = bob.stderr.lines().find(|line| line.starts_with("permcached explain ")).unwrap();
    let words: Vec<&str> = hint.split(' ').skip(1).collect();
    let explained = run(&words);
    assert_eq!(explained.code, 0, "{explained:?}");
}

#[test]
fn list_goes_from_page_to_page_or_through_all() {
    let all = run(&in_process(&["list", ALICE, "read", "file"]));
    let count = listed(&all).len();
    assert!(count > 3, "{all:?}");
    let mut pages = Vec::new();
    let mut token = String::new();
    loop {
        let page = run(&in_process(&["list", ALICE, "read", "file", "--page-size", "2", "--page-token", &token]));
        assert_eq!(page.code, 0, "{page:?}");
        pages.extend(listed(&page).into_iter().map(str::to_owned));
        let Some((_, rest)) = page.stderr.split_once("there is more: --page-token ") else { break };
        token = rest.split(',').next().unwrap().to_owned();
        assert!(listed(&page).len() == 2, "{page:?}");
    }
    assert_eq!(pages, listed(&all));
    let whole = run(&in_process(&["list", ALICE, "read", "file", "--page-size", "1", "--all"]));
    assert_eq!(whole.stdout, all.stdout);
    assert!(!whole.stderr.contains("there is more"), "{whole:?}");
    let within = r#"{"mime_type": "text/markdown"}"#;
    let few = run(&in_process(&["list", ALICE, "read", "file", "--within", within]));
    assert!(!listed(&few).is_empty() && listed(&few).len() < count, "{few:?}");

    let json = run(&in_process(&["list", ALICE, "read", "file", "--page-size", "3", "--all", "--json"]));
    assert_eq!(json.stderr, "", "{json:?}");
    let responses: Vec<Value> = Deserializer::from_str(&json.stdout).into_iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(responses.len(), count.div_ceil(3), "{json:?}");
    let ids = responses.iter().flat_map(|response| response["resources"].as_array().unwrap());
    let ids: Vec<String> = ids.map(|listed| format!("file:{}", listed["id"].as_str().unwrap())).collect();
    assert_eq!(ids, pages);
    assert_eq!(responses.last().unwrap()["nextPageToken"], "");
    assert!(responses[0]["asOf"].is_string() && responses[0]["examined"].is_string(), "{json:?}");
}

#[test]
fn who_prints_the_subjects_and_whether_there_are_others() {
    let server = Serving::start(&["--documents", DOCUMENTS, "--schema", SCHEMA]);
    let url = server.url();
    let ask = ["who", "read", CONTRACT];
    for way in [in_process(&ask), [ask.as_slice(), &["--server", &url]].concat()] {
        let ended = run(&way);
        assert_eq!(ended.code, 0, "{ended:?}");
        let found = listed(&ended);
        assert!(found.contains(&BOB) && found.contains(&ALICE) && !found.contains(&ZOE), "{ended:?}");
        assert!(found.iter().all(|user| may(user, "read", CONTRACT)), "{ended:?}");
        assert!(
            ended.stdout.contains("user:ada000000000000000000008  by folder#guest, until 2099-12-31T23:59:59Z\n"),
            "{ended:?}"
        );
        assert!(ended.stderr.contains(&format!("permcached explain {} read {CONTRACT}", found[0])), "{ended:?}");
    }
    let links = run(&in_process(&["who", "read", CONTRACT, "--type", "link"]));
    assert!(listed(&links).iter().all(|link| link.starts_with("link:sha256:")), "{links:?}");
    let nobody = run(&in_process(&["who", "read", "file:f11e0000000000000000000c"]));
    assert_eq!((nobody.code, nobody.stdout.as_str()), (1, ""), "{nobody:?}");
    let json = run(&in_process(&["who", "read", CONTRACT, "--json"]));
    let response: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&response["everybody"], json.stderr.as_str()), (&Value::from("NO"), ""), "{json:?}");
}

#[test]
fn filter_prints_a_query_for_mongosh_and_what_it_finds() {
    let server = Serving::start(&["--documents", DOCUMENTS, "--schema", SCHEMA]);
    let url = server.url();
    let ask = ["filter", BOB, "read", "file"];
    for way in [in_process(&ask), [ask.as_slice(), &["--server", &url]].concat()] {
        let ended = run(&way);
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.stdout.starts_with("{ ") && ended.stdout.ends_with(" }\n"), "{ended:?}");
        assert!(ended.stdout.contains("ObjectId(\"b0b000000000000000000002\")"), "{ended:?}");
        assert!(!ended.stdout.contains("$oid") && !ended.stdout.contains("$date"), "{ended:?}");
        assert!(
            ended.stderr.starts_with(&format!("EXACT: finds each file that {BOB} may read, and nothing else")),
            "{ended:?}"
        );
    }
    let nothing = run(&in_process(&["filter", "anonymous", "read", "file"]));
    assert_eq!((nothing.code, nothing.stdout.as_str()), (1, "{ _id: { $in: [] } }\n"), "{nothing:?}");
    assert!(nothing.stderr.starts_with("NONE: anonymous may read no file"), "{nothing:?}");
    let of_comments = run(&in_process(&["filter", BOB, "read", "file", "--reference-field", "file_id"]));
    assert!(of_comments.stdout.starts_with("{ file_id: { $in: [ObjectId("), "{of_comments:?}");
    let json = run(&in_process(&["filter", BOB, "read", "file", "--json"]));
    let response: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&response["kind"], json.stderr.as_str()), (&Value::from("EXACT"), ""), "{json:?}");
    let filter: Value = serde_json::from_str(response["filter"].as_str().unwrap()).unwrap();
    assert!(filter.is_object() && filter != serde_json::json!({}), "{json:?}");
    // What a link may read contains the link, which whoever asks has.
    let link = run(&in_process(&["filter", "link:a0000000-0000-4000-8000-000000000020", "read", "note"]));
    assert!(link.stdout.contains("\"a0000000-0000-4000-8000-000000000020\""), "{link:?}");
}

#[test]
fn a_wrong_list_ends_with_2_and_a_remedy() {
    let server = Serving::start(&["--documents", DOCUMENTS, "--schema", SCHEMA]);
    let url = server.url();
    let cases: [(&[&str], &str); 9] = [
        (&["list", BOB, "raed", "file"], "permission: unknown permission of `file` `raed`: did you mean `read`?"),
        (&["list", BOB, "read", "flie"], "resource_type: unknown resource type `flie`: did you mean `file`?"),
        (&["list", BOB, "read", "file", "--page-size", "1001"], "page_size: is 1001: 1 to 1000 are allowed"),
        (&["list", BOB, "read", "file", "--page-token", "x"], "page_token: is not a page token"),
        (&["list", BOB, "read", "file", "--within", "deleted"], "within: not Extended JSON"),
        (&["who", "raed", CONTRACT], "permission: unknown permission"),
        (&["who", "read", CONTRACT, "--type", "usr"], "subject_type: unknown subject type `usr`: did you mean `user`?"),
        (&["filter", BOB, "read", "file", "--max-ids", "10001"], "max_ids: is 10001: 1 to 10000 are allowed"),
        (&["filter", "bob", "read", "file"], "the subject `bob` has no type: write type:id, such as user:"),
    ];
    for (question, words) in cases {
        for way in [in_process(question), [question, &["--server", &url]].concat()] {
            let ended = run(&way);
            assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{way:?}: {ended:?}");
            assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains(words), "{way:?}: {ended:?}");
        }
    }
    let both = run(&["list", BOB, "read", "file", "--all", "--page-token", "x"]);
    assert_eq!(both.code, 2, "{both:?}");
}

#[test]
fn ids_that_control_a_terminal_or_end_a_line_are_shown_in_another_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let ids =
        ["a\nfile:secret", "b\u{1b}[31mred", "c\u{202e}txt", "d\u{9b}2J", "it's \\ plain", "z\n'; echo \\'run\\'; '"];
    let file = |id: &&str| format!("{}\n", serde_json::json!({ "_id": id, "owner": "u\n1" }));
    fs::write(path("files.jsonl"), ids.iter().map(file).collect::<String>()).unwrap();
    let schema = "default_subject = \"user\"\n[subject.user]\nid = \"string\"\n[resource.file]\nid = \"string\"\n\
                  collection = \"files\"\nrelations.owner = { field = \"owner\" }\npermissions.read = \"owner\"\n";
    fs::write(path("schema.toml"), schema).unwrap();
    let here = [path("schema.toml"), directory.path().to_str().unwrap().to_owned()];
    let ask = |words: &[&str]| run(&[words, &["--schema", &here[0], "--documents", &here[1]]].concat());

    let user = "user:u\n1";
    let all = ask(&["list", user, "read", "file"]);
    let shown = [
        "file:a\\u{a}file:secret  by file#owner",
        "file:b\\u{1b}[31mred  by file#owner",
        "file:c\\u{202e}txt  by file#owner",
        "file:d\\u{9b}2J  by file#owner",
        "file:it's \\ plain  by file#owner",
        "file:z\\u{a}'; echo \\'run\\'; '  by file#owner",
    ];
    assert_eq!((all.code, all.stdout.lines().collect::<Vec<_>>()), (0, shown.to_vec()), "{all:?}");
    assert!(all.stderr.starts_with("permcached explain $'user:u\\0121' read $'file:a\\012file:secret'"), "{all:?}");
    let who = ask(&["who", "read", "file:a\nfile:secret"]);
    assert_eq!((who.code, who.stdout.as_str()), (0, "user:u\\u{a}1  by file#owner\n"), "{who:?}");
    let json = ask(&["list", user, "read", "file", "--json"]);
    let response: Value = serde_json::from_str(&json.stdout).unwrap();
    let exact: Vec<&str> =
        response["resources"].as_array().unwrap().iter().map(|file| file["id"].as_str().unwrap()).collect();
    assert_eq!(exact, ids);
    let is_raw = |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
    assert!(!json.stdout.contains(is_raw), "{json:?}");
    // What is offered to be pasted is one word in bash, and runs nothing in a shell that does not know this way to quote.
    let one = ask(&["list", user, "read", "file", "--within", r#"{"_id": {"$gt": "y"}}"#]);
    let word = one.stderr.split_once(" read ").unwrap().1.split_once(" --").unwrap().0;
    for (shell, is_exact) in [("bash", true), ("sh", false)] {
        let printed = Command::new(shell).args(["-c", &format!("printf %s {word}")]).output().unwrap();
        let printed = String::from_utf8(printed.stdout).unwrap();
        assert!(
            if is_exact { printed == format!("file:{}", ids[5]) } else { printed.contains("file:z") },
            "{word} {printed}"
        );
    }
    for words in [["explain", user, "read", "file:b\u{1b}[31mred"], ["explain", user, "read", "file:d\u{9b}2J"]] {
        let explained = ask(&words);
        let is_shown = explained.stdout.contains("\\u{1b}[31mred") || explained.stdout.contains("\\u{9b}2J");
        assert!(explained.code == 0 && is_shown, "{explained:?}");
    }
}
