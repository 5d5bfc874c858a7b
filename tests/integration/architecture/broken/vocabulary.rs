//! Made-up files with retired terms: in identifiers, in names and in prose.
//!
//! Does not check the repository itself.

use super::{File, assert_seen, with_file};
use crate::architecture::{
    Rule,
    text::{prose, words_of},
    vocabulary::{
        identifiers_use_the_vocabulary, names_use_the_vocabulary, prose_uses_the_vocabulary,
        vocabulary_exceptions_are_used,
    },
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
    assert_seen(
        rule,
        "src/one.rs",
        "//! O.\nstruct Line;\nfn line(a: LineNumber) {}",
        &["src/one.rs:2: the identifier `Line`"],
    );
}

#[test]
fn a_retired_term_in_an_identifier_of_another_language_is_seen() {
    let rule: Rule = identifiers_use_the_vocabulary;
    let go = "// hasRoom\nfunc f() string {\n\treturn \"a \\\" room\" + `\nroom` + r.hasRoom()\n}";
    assert_seen(rule, "load/a.go", go, &["load/a.go:4: the identifier `hasRoom`"]);
    assert_seen(rule, "tests/a.mjs", "const a = 'room' // room\nlet room", &["tests/a.mjs:2"]);
    assert_seen(rule, "tests/a.py", "\"\"\"A room.\n\"\"\"\n# room\nroom = 'room'", &["tests/a.py:4"]);
    let template = "room\n<a>{{if .HasRoom}} with room{{end}}\n{{.Title}} {{.Room}}";
    assert_seen(rule, "load/a.html", template, &["load/a.html:2: the identifier `HasRoom`", "load/a.html:3"]);
}

#[test]
fn every_use_of_a_retired_identifier_is_seen_after_an_exception() {
    let mut files = vec![File::new("CHANGELOG.md/a.rs", "//! O.\nfn flight() {}")];
    assert_eq!(identifiers_use_the_vocabulary(&files), Vec::<String>::new());
    files.push(File::new("src/one.rs", "//! O.\nfn flight() {}"));
    assert_eq!(identifiers_use_the_vocabulary(&files).len(), 1);
}

#[test]
fn an_exception_that_is_not_used_is_seen() {
    let rule: Rule = vocabulary_exceptions_are_used;
    assert_seen(rule, "CHANGELOG.md", "The speaker, a flight, two flights", &[]);
    let unused = "CHANGELOG.md:1: the exception for \"speaker\" is not used";
    assert_seen(rule, "CHANGELOG.md", "A flight, two flights", &[unused]);
    let path = "tests/integration/architecture/vocabulary/terms.rs";
    let mut files = with_file(path, "//! T.");
    let wrong = rule(&files);
    let seen =
        ["the phrase \"in flight\"", "the phrase", "the phrase", "string literals of tests/integration/architecture/"];
    assert!(wrong.len() == seen.len() && wrong.iter().zip(seen).all(|(wrong, seen)| wrong.contains(seen)), "{wrong:?}");
    files.push(File::new("src/one.rs", "//! One statement\n//! per sentence.\nfn is_in_flight(reading_code: u8) {}"));
    files.push(File::new("tests/integration/architecture/one.rs", "//! O.\nconst T: &str = \"horizon\";"));
    assert_eq!(rule(&files), Vec::<String>::new());
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
    let text = "//! M.\nconst L: &str = \"no room\";\nconst M: &str = \"1\\npermcached_flights 2\";\n\
                const N: &str = \"up{told=\\\"a\\\"}\";";
    assert_seen(
        rule,
        "tests/integration/one.rs",
        text,
        &["one.rs:3: the name `permcached_flights`", "one.rs:4: the name `told`"],
    );
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
    for text in [
        "The speaker.",
        "a\n\nThe two speakers",
        "a design\nsection",
        "what is at hand,",
        "moment `W` is",
        "X is",
        "an empty demand",
        "on the wire",
        "the\nnews",
        "watched facts",
        "it landed",
        "facts are held",
        "A reading",
    ] {
        let wrong = rule(&with_file("docs/a.md", text));
        assert!(wrong.len() == 1 && wrong[0].starts_with("docs/a.md:"), "{text}: {wrong:?}");
    }
    assert_seen(rule, "docs/a.md", "In flight, in-flight and inflight. They need to say so. x, w, W3C-like: PX.", &[]);
    assert_seen(
        rule,
        "docs/a.md",
        "On demand, reading order, a request that demands more, two wired parts, sound.",
        &[],
    );
    assert_seen(rule, "docs/a.fr.md", "Un speaker.", &["docs/a.fr.md:1"]);
    let code = "//! A.\n/// The horizon.\nfn horizon<X>() {\n  // The\n  // first design.\n  f(\"1\\nhorizon\")\n}";
    let seen = ["one.rs:2: the term \"horizon\"", "one.rs:6: the term \"horizon\"", "one.rs:5"];
    assert_seen(rule, "tests/integration/one.rs", code, &seen);
    assert_seen(rule, "tests/integration/architecture/one.rs", "//! A.\nconst M: &str = \"horizon\";", &[]);
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
