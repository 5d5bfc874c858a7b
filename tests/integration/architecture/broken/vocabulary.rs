//! Made-up files with retired terms: in identifiers, in names and in prose.
//!
//! Does not check the repository itself.

use super::{assert_seen, with_file};
use crate::architecture::{
    Rule,
    text::{prose, words_of},
    vocabulary::{identifiers_use_the_vocabulary, names_use_the_vocabulary, prose_uses_the_vocabulary},
};

#[test]
fn the_words_of_identifiers_are_found() {
    for (identifier, words) in [
        ("in_flight", "in flight"),
        ("InFlightLoad", "in flight load"),
        ("XCoversMarks2", "x covers marks"),
        ("HTTPServer", "http server"),
        ("_SAID_MAX", "said max"),
        ("saidIt", "said it"),
        ("r#said", "r said"),
    ] {
        assert_eq!(words_of(identifier).join(" "), words, "{identifier}");
    }
}

#[test]
fn a_retired_term_in_an_identifier_is_seen() {
    let rule: Rule = identifiers_use_the_vocabulary;
    for code in [
        "fn who_said_it() {}",
        "struct SaidIt;",
        "const SAID: u8 = 0;",
        "fn f() { g(|said| h!(said)); }",
        "macro_rules! m { ($said:ident) => {} }",
        "mod said;",
        "fn f<'said>() {}",
    ] {
        let wrong = rule(&with_file("tests/integration/one.rs", &format!("//! O.\n{code}")));
        let is_seen = wrong.iter().all(|wrong| wrong.contains("one.rs:2: ") && wrong.contains("\"said\""));
        assert!(!wrong.is_empty() && is_seen, "{code}: {wrong:?}");
    }
    let clean =
        "//! What he said.\n/// Said.\n// said\nconst X: &str = \"said\"; /* said */\nfn in_flight(essay: Unsaid) {}";
    assert_seen(rule, "src/one.rs", clean, &[]);
    assert_seen(rule, "src/one.rs", "//! O.\nfn f() { a.flight }", &["src/one.rs:2: the identifier `flight`"]);
    assert_seen(rule, "src/one.rs", "//! O.\n\nfn what_is_at_hand() {}", &["src/one.rs:3"]);
    assert_seen(rule, "proto/a.proto", "// said\nmessage A {\n  string said = 1; // said\n}", &["proto/a.proto:3"]);
    assert_seen(rule, "docs/a.md", "`said`", &[]);
}

#[test]
fn a_retired_term_in_a_name_is_seen() {
    let rule: Rule = names_use_the_vocabulary;
    assert_seen(rule, "src/bus/wire.rs", "//! W.", &["src/bus/wire.rs:1: the file name `wire.rs`"]);
    assert_seen(rule, "docs/wire/a.md", "", &["the file name `wire`"]);
    let metric = "//! M.\nconst M: &str = \"permcached_flights_total\";";
    assert_seen(rule, "tests/integration/one.rs", metric, &["one.rs:2: the name `permcached_flights_total`"]);
    assert_seen(
        rule,
        "src/one.rs",
        "//! M.\nconst L: &str = \"no_room\";\nconst M: &str = \"no room\";",
        &["one.rs:2"],
    );
    assert_seen(rule, "tests/integration/one.rs", "//! M.\nconst L: &str = \"no_room\";", &[]);
    let manual = "What is said.\n| `permcached_said_total` | `reason`: `no_room` |\n";
    assert_seen(rule, "docs/metrics.md", manual, &["docs/metrics.md:2", "docs/metrics.md:2: the name `no_room`"]);
    assert_seen(
        rule,
        "deploy/alerts.yml",
        "\n  expr: up{told=\"a\"} + up{a=~\"told\"}",
        &["alerts.yml:2", "alerts.yml:2"],
    );
    let board = "deploy/grafana/dashboards/permcached.json";
    assert_seen(rule, board, "{\"expr\": \"up{tier=~\\\"held\\\"}\"}", &["permcached.json:1: the name `held`"]);
}

#[test]
fn a_retired_term_in_prose_is_seen() {
    let rule: Rule = prose_uses_the_vocabulary;
    for text in
        ["The speaker.", "a\n\nThe two speakers", "a design\nsection", "what is at hand,", "moment `W` is", "X is"]
    {
        let wrong = rule(&with_file("docs/a.md", text));
        assert!(wrong.len() == 1 && wrong[0].starts_with("docs/a.md:"), "{text}: {wrong:?}");
    }
    assert_seen(rule, "docs/a.md", "In flight, in-flight and inflight. They need to say so. x, w, W3C-like: PX.", &[]);
    assert_seen(rule, "docs/a.fr.md", "The speaker.", &[]);
    let code = "//! A.\n/// The horizon.\nfn horizon<X>() {\n  // The\n  // first design.\n  f(\"the horizon\")\n}";
    assert_seen(rule, "tests/integration/one.rs", code, &["one.rs:2: the term \"horizon\"", "one.rs:5"]);
    assert_seen(rule, "src/one.rs", "//! A.\nconst M: &str = \"a mistake\";", &["src/one.rs:2: the term \"mistake\""]);
    for path in ["proto/a.proto", "load/a.go"] {
        assert_seen(rule, path, "string mistake = 1;\nb // mistake", &[&format!("{path}:2")]);
    }
    for path in ["Cargo.toml", "deploy/a.yml", "Makefile", "Dockerfile"] {
        assert_seen(rule, path, "mistake = 1\nb # mistake", &[&format!("{path}:2")]);
    }
    assert_seen(rule, "scripts/a", "#!/bin/sh\necho mistake # mistake", &["scripts/a:2"]);
}

#[test]
fn only_comments_are_prose_of_code() {
    let text = "//! One.\n\n/// Two: \"…\".\nfn f(a: &'static str, b: char) {\n    let c = '/'; // three\n    \
                let d = \"// not\"; /* four */\n    let e = r#\"// not\n// not\"#;\n}\n";
    let files = with_file("src/one.rs", text);
    let file = files.iter().find(|file| file.path == "src/one.rs").expect("it was added");
    let comments: Vec<(usize, String)> = prose(file).into_iter().map(|piece| (piece.line, piece.text)).collect();
    let expected = [(1, "One."), (3, "Two: \"…\"."), (5, "three"), (6, "* four */")];
    assert_eq!(comments, expected.map(|(line, text)| (line, text.to_owned())));
}
