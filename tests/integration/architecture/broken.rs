//! Made-up files that break one rule each: every rule finds what breaks it, with its line and a remedy.
//!
//! Does not check the repository itself.

mod references;
mod vocabulary;

use super::{
    File, MACHINES, Rule, dependencies_have_no_circle, fences_hold, files_are_tidy, imports_name_each_item,
    imports_point_up, only_the_command_line_prints, pure_modules_are_pure, words_are_absent,
};

/// A library of three modules, and one more file.
fn with_file(path: &str, text: &str) -> Vec<File> {
    let file = |path: &str, text: &str| File::new(path, text);
    let mut files = vec![
        file("src/lib.rs", "//! The map.\npub mod question;\npub mod source;\npub mod app;\n"),
        file(
            "src/app.rs",
            "//! All.\nuse crate::{question::Id, source};\nmod inner { use super::super::source::Source; }\n",
        ),
    ];
    files.retain(|file| file.path != path);
    files.push(file(path, text));
    files
}

#[track_caller]
fn assert_seen(rule: Rule, path: &str, text: &str, seen: &[&str]) {
    let wrong = rule(&with_file(path, text));
    assert_eq!(wrong.len(), seen.len(), "{path}:\n{text}\n{wrong:#?}");
    for (wrong, seen) in wrong.iter().zip(seen) {
        assert!(wrong.contains(seen) && wrong.contains("remedy: "), "{wrong} does not contain {seen}");
    }
}

#[test]
fn an_import_that_points_down_is_seen() {
    let rule: Rule = imports_point_up;
    assert_seen(
        rule,
        "src/source.rs",
        "//! S.\nuse crate::question::Id;\nuse self::inner::X;\nuse std::sync::Arc;",
        &[],
    );
    assert_seen(
        rule,
        "src/source.rs",
        "//! S.\nuse crate::app::App;",
        &["src/source.rs:2: `crate::app::App` in `source`"],
    );
    assert_seen(rule, "src/source/one.rs", "//! S.\nuse super::super::app;", &["one.rs:2: `crate::app`"]);
    let nested =
        "//! S.\nuse {\n  std::fs,\n  crate::{question::{self, Id},\n    app::{App as Other, self}, source::*},\n};";
    assert_seen(rule, "src/source.rs", nested, &["source.rs:5: `crate::app::App`", "source.rs:5: `crate::app`"]);
    assert_seen(
        rule,
        "src/source.rs",
        "//! S.\nfn f() -> Vec<crate::app::App> {\n  todo(|| crate::app::run::<u8>())\n}",
        &["source.rs:2: `crate::app::App`", "source.rs:3: `crate::app::run`"],
    );
    assert_seen(
        rule,
        "src/source.rs",
        "//! S.\nfn f() {\n  tokio::select! { x = crate::app::run() => {} }\n}",
        &["source.rs:3"],
    );
    assert_seen(
        rule,
        "src/source.rs",
        "//! S.\nmod tests {\n  use super::super::app::App;\n  use super::Source;\n}",
        &["source.rs:3"],
    );
    for code in [
        "fn f() -> crate::app::App {}",
        "impl X for crate::app::App {}",
        "fn f() { for x in 0..crate::app::N {} }",
        "fn f() { match x { _ => crate::app::f() } }",
        "fn f() { <X as crate::app::T>::f() }",
        "fn f() { X::<crate::app::T>::f().g().h() }",
        "fn f() { x.y(!crate::app::f()) }",
        "macro_rules! m { () => { $crate::app::f() } }",
        "#[derive(crate::app::T)] struct X;",
        "pub use crate::app as other;",
        "fn f() { use crate::app::f; }",
        "fn f() -> impl Sized + use<> { crate::app::f() }",
    ] {
        assert_seen(rule, "src/source.rs", &format!("//! S.\n{code}"), &["src/source.rs:2: `crate::app"]);
    }
    assert_seen(
        rule,
        "src/source.rs",
        "//! See `crate::app`.\n/// And [`crate::app::App`].\nconst X: &str = \"crate::app\";",
        &[],
    );
    assert_seen(
        rule,
        "src/question.rs",
        "//! Q.\nuse crate::Source;",
        &["question.rs:2: `crate::Source` is no module"],
    );
    assert_seen(rule, "src/main.rs", "//! M.\nuse permcached::app;", &[]);
    assert_seen(
        rule,
        "src/lib.rs",
        "//! The map.\npub mod question;\npub mod app;\npub mod source;",
        &["lib.rs:4: `source` stands below `app`"],
    );
    assert_seen(
        rule,
        "src/lib.rs",
        "//! The map.\npub mod question;\npub mod source;\npub mod util;\npub mod app;",
        &["lib.rs:4: the module `util` is not in ORDER"],
    );
}

/// The circles of a library whose module `source` has the children `a`, `b` and `c`, each with this text.
fn circles(parent: &str, [a, b, c]: [&str; 3]) -> Vec<String> {
    let children = [("a", a), ("b", b), ("c", c)].map(|(name, text)| (format!("src/source/{name}.rs"), text));
    let parent = ("src/source.rs".to_owned(), parent);
    let file = |(path, text): (String, &str)| File::new(path, format!("//! F.\n{text}"));
    let mut files = with_file("src/source/a/inner.rs", "//! I.\n");
    files.extend([parent].into_iter().chain(children).map(file));
    dependencies_have_no_circle(&files)
}

#[test]
fn a_circle_of_siblings_is_seen() {
    let parent = "mod a;\nmod b;\nmod c;\npub use a::A;\npub use b::{B, f};\npub struct Own;";
    for (a, b) in [
        ("use super::{c, b::{self, B}};", "use crate::source::a::A;"),
        ("use super::B;", "use super::A;"),
        ("use crate::source::B as Other;", "fn g() { super::a::A }"),
        ("use super::b;\nfn g() { b::B::new() }", "use super::{a as x, Own};\nfn g() { x::A }"),
        ("impl X for crate::source::B {}", "fn g() { use super::A; }"),
        ("use super::f;", "use super::a::{inner, A};"),
    ] {
        let wrong = circles(parent, [a, b, ""]);
        let [wrong] = wrong.as_slice() else { panic!("{a}\n{b}\n{wrong:?}") };
        let circle =
            wrong.starts_with("src/source/a.rs:") && wrong.contains(": `source::a` uses `source::b` (src/source/a.rs:");
        assert!(circle && wrong.contains("), which uses `source::a` (src/source/b.rs:"), "{wrong}");
    }
    let wrong = circles(parent, ["use super::b::B;", "use super::c::C;", "\nuse super::A;"]);
    let circle = "`source::a` uses `source::b` (src/source/a.rs:2), which uses `source::c` (src/source/b.rs:2), \
                  which uses `source::a` (src/source/c.rs:3): a circle";
    assert!(wrong.len() == 1 && wrong[0].contains(circle), "{wrong:?}");
    let wrong = circles(parent, ["", "use super::a::inner::X;", "use super::B;"]);
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_file_and_its_parts_may_use_each_other() {
    let parent = "mod a;\nmod b;\npub use a::A;\nuse b::B;\npub struct Own;\nfn f() -> B { a::f() }";
    for [a, b] in [
        ["use super::Own;\nuse super::B;", "use crate::source::Own;"],
        ["use super::b::B;", "use super::{Own, b};"],
        ["use super::b::B;", "//! See [`super::a::A`].\n#[cfg(test)]\nmod tests {\n  use super::super::a::A;\n}"],
        ["pub use inner::X;\nmod inner;", ""],
    ] {
        assert_eq!(circles(parent, [a, b, ""]), Vec::<String>::new(), "{a}\n{b}");
    }
}

#[test]
fn an_import_of_all_names_is_seen() {
    let rule: Rule = imports_name_each_item;
    for (code, path) in [
        ("pub use child::*;", "child::*"),
        ("use super::*;", "crate::*"),
        ("fn f() { use super::{a::A, b::*}; }", "crate::b::*"),
        ("use self::inner::*;", "crate::source::inner::*"),
        ("pub(crate) use std::io::prelude::*;", "std::io::prelude::*"),
    ] {
        let wrong = format!("src/source.rs:2: `{path}` hides");
        assert_seen(rule, "src/source.rs", &format!("//! S.\n{code}"), &[&wrong]);
    }
    let clean = "//! S.\nuse super::app;\nconst N: u8 = 2 * 3;\n#[cfg(test)]\nmod tests {\n  use super::*;\n}";
    assert_seen(rule, "src/source.rs", clean, &[]);
    assert_seen(rule, "src/source/tests.rs", "//! S.\nuse super::*;", &[]);
    assert_seen(rule, "tests/integration/one.rs", "//! S.\nuse super::*;", &[]);
}

#[test]
fn a_crate_beyond_its_fence_is_seen() {
    let rule: Rule = fences_hold;
    assert_seen(rule, "src/transport/http.rs", "//! T.\nuse tonic::Status;\nuse axum::Router;", &[]);
    assert_seen(rule, "src/source/mongodb.rs", "//! M.\nuse mongodb::Client;", &[]);
    assert_seen(rule, "src/source.rs", "//! S.\npub mod mongodb;\npub use mongodb::MongoDb;", &[]);
    assert_seen(
        rule,
        "src/app.rs",
        "//! A.\nuse crate::source::{mongodb::{self, MongoDb}};\nfn f() { mongodb::inspect() }",
        &[],
    );
    assert_seen(rule, "src/app.rs", "//! A.\nfn f(redis: u8) -> u8 { redis + self.clap }", &[]);
    assert_seen(rule, "src/source.rs", "//! S.\nuse tonic::{Code, Status};", &["source.rs:2: `tonic`"]);
    assert_seen(
        rule,
        "src/app.rs",
        "//! A.\nuse mongodb as db;",
        &["app.rs:2: `mongodb` is known only in source::mongodb (reads"],
    );
    assert_seen(rule, "src/app.rs", "//! A.\nfn f() {\n  ::redis::Client::open()\n}", &["app.rs:3: `redis`"]);
    assert_seen(rule, "src/app.rs", "//! A.\n#[tonic::async_trait]\nimpl X for Y {}", &["app.rs:2: `tonic`"]);
    assert_seen(
        rule,
        "src/check.rs",
        "//! C.\nuse std::{env, fs};",
        &["check.rs:2: `std::env` is known only in config"],
    );
    assert_seen(
        rule,
        "src/cli/serve.rs",
        "//! C.\nfn f() { tonic::transport::Server::builder(); }",
        &["serve.rs:2: `tonic`"],
    );
    assert_seen(
        rule,
        "src/config.rs",
        "//! C.\nuse clap::Args;\nfn f() { std::env::var(\"X\") }",
        &["config.rs:2: `clap`"],
    );
    assert_seen(
        rule,
        "src/transport.rs",
        "//! T.\nuse hyper::body;\nuse prost_types::Any;\nfn f() { mongodb::f() }",
        &["transport.rs:4"],
    );
    assert_seen(rule, "src/transporter.rs", "//! T.\nuse hyper::body;", &["transporter.rs:2: `hyper`"]);
}

#[test]
fn impurity_is_seen() {
    let rule: Rule = pure_modules_are_pure;
    assert_seen(rule, "src/evaluate/truth.rs", "//! E.\nuse std::time::Duration;", &[]);
    assert_seen(
        rule,
        "src/evaluate/truth.rs",
        "//! E.\nuse std::time::{Duration, Instant};",
        &["truth.rs:2: `std::time::Instant`"],
    );
    assert_seen(
        rule,
        "src/schema.rs",
        "//! S.\nfn f() {\n  std::fs::read(\"x\");\n  tokio::spawn(x);\n}",
        &["schema.rs:3", "schema.rs:4"],
    );
    assert_seen(rule, "src/source.rs", "//! S.\nuse std::time::Instant;", &[]);
}

#[test]
fn untidiness_is_seen() {
    assert_seen(only_the_command_line_prints, "src/cli/ask.rs", "//! C.\nfn f() { println!() }", &[]);
    let prints = "//! C.\nfn f() {\n  std::println!(\"{}\", dbg!(1));\n  assert!(x != y);\n}";
    assert_seen(
        only_the_command_line_prints,
        "src/check.rs",
        prints,
        &["check.rs:3: `println!`", "check.rs:3: `dbg!`"],
    );
    assert_seen(
        files_are_tidy,
        "benches/one.rs",
        "use std::fs;\n//! No.",
        &["benches/one.rs:1: a file opens with `//!`"],
    );
    assert_seen(files_are_tidy, "build.rs", "\n//! No.", &["build.rs:1"]);
    assert_seen(
        files_are_tidy,
        "tests/integration/support/mod.rs",
        "//! S.",
        &["call it tests/integration/support.rs"],
    );
    assert_seen(files_are_tidy, "src/main.rs", &format!("//! M.{}", "\n".repeat(60)), &[]);
    assert_seen(
        files_are_tidy,
        "src/main.rs",
        &format!("//! M.{}", "\n//".repeat(60)),
        &["src/main.rs:61: more than 60 lines"],
    );
    for word in ["TODO", "FIXME", "XXX", "Fylora"] {
        let message = format!("src/app.rs:2: `{}` has no place in src", if word == "Fylora" { "fylora" } else { word });
        assert_seen(words_are_absent, "src/app.rs", &format!("//! A.\n// {word}"), &[&message]);
        assert_seen(words_are_absent, "docs/app.md", word, &[]);
    }
    for (start, end) in MACHINES {
        assert_seen(words_are_absent, "docs/a.md", &format!("a\nsee {start}{end}x"), &["docs/a.md:2"]);
    }
}
