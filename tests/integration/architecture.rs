//! The shape of the code (design section 7), held by a test: what may import what, which crates are known where, and what
//! no file may lack or hold.
//!
//! The rules are data, each exception with its reason. Every rule is shown to see what breaks it, on files made up here.

mod paths;

use std::{fs, path::Path, process::Command};

use paths::{Found, Named};

/// The modules in reading order: each uses only those above it.
const ORDER: [&str; 16] = [
    "question",
    "telemetry",
    "schema",
    "fact",
    "evaluate",
    "freshness",
    "source",
    "facts",
    "check",
    "bus",
    "feed",
    "invalidate",
    "transport",
    "config",
    "app",
    "cli",
];

/// Crates, or modules of `std`, that are known only in some modules.
struct Fence {
    names: &'static [&'static str],
    /// Where they are known, and why there.
    within: &'static [(&'static str, &'static str)],
}

const FENCES: [Fence; 6] = [
    Fence {
        names: &[
            "tonic",
            "tonic_health",
            "tonic_prost",
            "tonic_reflection",
            "tonic_types",
            "prost",
            "prost_reflect",
            "prost_types",
        ],
        within: &[
            ("transport", "it is the wire, and holds the generated code"),
            ("cli::ask", "asks a service that runs"),
            ("cli::remote", "reaches a service that runs"),
            ("cli::health", "asks a service that runs"),
            ("cli::text", "shows messages as JSON"),
        ],
    },
    Fence {
        names: &["axum", "hyper", "http", "http_body", "tower"],
        within: &[("transport", "it is the wire")],
    },
    Fence {
        names: &["mongodb"],
        within: &[
            ("source::mongodb", "reads documents"),
            ("feed", "reads the change stream"),
        ],
    },
    Fence {
        names: &["redis", "fred", "deadpool_redis"],
        within: &[
            ("facts::redis", "keeps facts there"),
            ("bus::redis", "sends statements and hints over it"),
            ("feed::lease", "keeps the speaker's lease there"),
        ],
    },
    Fence {
        names: &["clap"],
        within: &[("cli", "it is the command line"), ("main", "calls it")],
    },
    Fence {
        names: &["std::env"],
        within: &[("config", "is the only reader of the environment")],
    },
];

/// The modules that compute and do nothing else, and what they would need to do more.
const PURE: [&str; 4] = ["question", "schema", "fact", "evaluate"];
const IMPURE: [&str; 12] = [
    "tokio",
    "tokio_stream",
    "futures",
    "async_trait",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::env",
];

/// What writes where people read, and who may.
const PRINTS: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];
const PRINTERS: [&str; 2] = ["cli", "main"];

/// Words that no code holds, and why.
const WORDS: [(&str, &str); 4] = [
    ("TODO", "do it, or write an issue"),
    ("FIXME", "mend it, or write an issue"),
    ("XXX", "say what it is, or write an issue"),
    (
        "fylora",
        "the first application is one of many: its names belong to schemas/, examples/ and docs/",
    ),
];

/// How many lines `main.rs` has at most.
const MAIN_LINES_MAX: usize = 60;

/// Paths of machines on which this was written, in two halves, so that they are not found here.
const MACHINES: [(&str, &str); 2] = [("/wo", "rk/"), ("/tmp/w", "t-")];

/// A file of the repository. Its path is relative to the root, with `/`.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|extension| extension == "rs")
    }

    /// The path of a module of the library or the binary: `src/source/mongodb.rs` is `source::mongodb`.
    fn module(&self) -> Option<Vec<&str>> {
        let inner = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        Some(inner.split('/').collect())
    }

    /// Whether the file is one of these modules or within.
    fn is_in<'a>(&self, modules: impl IntoIterator<Item = &'a str>) -> bool {
        let own = self.module().unwrap_or_default().join("::");
        modules.into_iter().any(|module| {
            own.strip_prefix(module)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        })
    }

    fn named(&self) -> Named {
        let module = self.module().unwrap_or_default();
        Named::of(
            &self.text,
            if matches!(module.as_slice(), ["lib" | "main"]) {
                &[]
            } else {
                &module
            },
        )
    }

    fn wrong(&self, line: usize, what: &str, remedy: &str) -> String {
        format!("{}:{line}: {what}\n    remedy: {remedy}", self.path)
    }
}

/// Every file that git knows or would; without git, every file that is not built.
fn repository() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root);
    let paths = match git.output() {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let listed = String::from_utf8(output.stdout).unwrap();
            listed.split_terminator('\0').map(str::to_owned).collect()
        }
        _ => walk(root, ""),
    };
    // Neither a file that was deleted nor one that is not text can be read.
    let read = |path: String| {
        fs::read_to_string(root.join(&path))
            .ok()
            .map(|text| File { path, text })
    };
    let files: Vec<File> = paths.into_iter().filter_map(read).collect();
    assert!(
        files.iter().any(|file| file.path == "src/lib.rs"),
        "the repository is not in {}",
        root.display()
    );
    files
}

fn walk(root: &Path, below: &str) -> Vec<String> {
    let entries = fs::read_dir(root.join(below)).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            let path = if below.is_empty() {
                name.clone()
            } else {
                format!("{below}/{name}")
            };
            match entry.file_type().unwrap().is_dir() {
                true if matches!(name.as_str(), ".git" | "target" | "node_modules") => Vec::new(),
                true => walk(root, &path),
                false => vec![path],
            }
        })
        .collect()
}

/// Imports point up the list of `lib.rs` only, and that list is the design's.
fn imports_point_up(files: &[File]) -> Vec<String> {
    let Some(lib) = files.iter().find(|file| file.path == "src/lib.rs") else {
        return Vec::new();
    };
    let modules = lib.named().modules;
    let place = |name: &str| ORDER.iter().position(|other| *other == name);
    let mut wrong = Vec::new();
    let mut last = None;
    for Found { line, path } in &modules {
        let name = &path[0];
        match place(name) {
            None => wrong.push(lib.wrong(
                *line,
                &format!("the design knows no module `{name}`"),
                "give it a place in ORDER in tests/integration/architecture.rs and in ARCHITECTURE.md, or put it into another module",
            )),
            Some(at) if last > Some(at) => wrong.push(lib.wrong(
                *line,
                &format!("`{name}` stands below `{}`", ORDER[last.unwrap_or_default()]),
                &format!("the order is: {}", ORDER.join(", ")),
            )),
            at => last = at,
        }
    }
    for file in files
        .iter()
        .filter(|file| file.module().is_some() && !file.is_in(["lib", "main"]))
    {
        let own = file.module().unwrap()[0];
        for Found { line, path } in file.named().paths.iter().filter(|found| found.path[0] == "crate") {
            let name = path.get(1).map_or("", |name| name);
            if !modules.iter().any(|module| module.path[0] == name) {
                wrong.push(file.wrong(
                    *line,
                    &format!("`crate::{name}` is no module of src/lib.rs"),
                    "name things by their module",
                ));
            } else if place(name) > place(own) {
                wrong.push(file.wrong(
                    *line,
                    &format!(
                        "`{}` in `{own}`: imports point up the list of src/lib.rs, and `{name}` stands below",
                        path.join("::")
                    ),
                    &format!(
                        "move what both need up to `{own}` or above, or hand it in from below as an argument or a trait"
                    ),
                ));
            }
        }
    }
    wrong
}

/// Whether a path is the name's, or something in it.
fn is_of(path: &[String], name: &str) -> bool {
    let names: Vec<&str> = name.split("::").collect();
    path.len() >= names.len() && path.iter().zip(&names).all(|(one, other)| one == other)
}

/// Vendor crates are known only where they are needed.
fn fences_hold(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.module().is_some()) {
        for Found { line, path } in &file.named().paths {
            for Fence { names, within } in &FENCES {
                let Some(name) = names.iter().find(|name| is_of(path, name)) else {
                    continue;
                };
                if !file.is_in(within.iter().map(|(module, _)| *module)) {
                    let places = within
                        .iter()
                        .map(|(module, why)| format!("{module} ({why})"))
                        .collect::<Vec<_>>()
                        .join(", ");
                    wrong.push(file.wrong(
                        *line,
                        &format!("`{name}` is known only in {places}"),
                        "ask one of these for what is needed, in this crate's own types",
                    ));
                }
            }
        }
    }
    // One `use` may name a crate several times.
    wrong.dedup();
    wrong
}

/// What only computes does no I/O and reads no clock.
fn pure_modules_are_pure(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.is_in(PURE)) {
        for Found { line, path } in &file.named().paths {
            if let Some(name) = IMPURE.iter().find(|name| is_of(path, name)) {
                wrong.push(file.wrong(
                    *line,
                    &format!("`{name}` has no place in {}, which only compute", PURE.join(", ")),
                    "have it done by the caller, and take the result or the time as an argument",
                ));
            }
        }
    }
    wrong
}

/// Nothing is printed but by the command line.
fn only_the_command_line_prints(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.module().is_some() && !file.is_in(PRINTERS))
    {
        for Found { line, path } in file
            .named()
            .macros
            .iter()
            .filter(|found| PRINTS.contains(&&*found.path[0]))
        {
            wrong.push(file.wrong(
                *line,
                &format!("`{}!` outside of {}", path[0], PRINTERS.join(" and ")),
                "log it with `tracing`",
            ));
        }
    }
    wrong
}

/// Every file says first what it is; none is called `mod.rs`.
fn files_are_tidy(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        if !file.text.starts_with("//!") {
            wrong.push(file.wrong(1, "a file opens with `//!`", "say what it is, then what it does not do"));
        }
        if file.path.ends_with("/mod.rs") {
            let name = file.path.trim_end_matches("/mod.rs");
            wrong.push(file.wrong(1, "no file is called mod.rs", &format!("call it {name}.rs")));
        }
    }
    for file in files
        .iter()
        .filter(|file| file.path == "src/main.rs" && file.text.lines().count() > MAIN_LINES_MAX)
    {
        let what = format!("more than {MAIN_LINES_MAX} lines");
        wrong.push(file.wrong(
            MAIN_LINES_MAX + 1,
            &what,
            "main is a checklist: move the work to cli or app",
        ));
    }
    wrong
}

/// Some words are in no code, and paths of somebody's machine in no file.
fn words_are_absent(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files {
        for (text, line) in file.text.lines().zip(1..) {
            for (word, remedy) in WORDS.into_iter().filter(|_| file.path.starts_with("src/")) {
                let is_there = if word == "fylora" {
                    text.to_lowercase().contains(word)
                } else {
                    text.contains(word)
                };
                if is_there {
                    wrong.push(file.wrong(line, &format!("`{word}` has no place in src"), remedy));
                }
            }
            for machine in MACHINES
                .map(|(start, end)| format!("{start}{end}"))
                .into_iter()
                .filter(|path| text.contains(path))
            {
                let what = format!("`{machine}` is a path of one machine");
                wrong.push(file.wrong(
                    line,
                    &what,
                    "name it relative to the repository, or use a temporary directory",
                ));
            }
        }
    }
    wrong
}

type Rule = fn(&[File]) -> Vec<String>;

const RULES: [Rule; 6] = [
    imports_point_up,
    fences_hold,
    pure_modules_are_pure,
    only_the_command_line_prints,
    files_are_tidy,
    words_are_absent,
];

#[test]
fn the_repository_keeps_the_rules() {
    let files = repository();
    let wrong: Vec<String> = RULES.iter().flat_map(|rule| rule(&files)).collect();
    assert!(
        wrong.is_empty(),
        "{} places break the rules of the design's section 7:\n\n{}\n",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A library of three modules, and one more file.
fn with_file(path: &str, text: &str) -> Vec<File> {
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let mut files = vec![
        file(
            "src/lib.rs",
            "//! The map.\npub mod question;\npub mod source;\npub mod app;\n",
        ),
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
        assert!(
            wrong.contains(seen) && wrong.contains("remedy: "),
            "{wrong} does not say {seen}"
        );
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
    assert_seen(
        rule,
        "src/source/one.rs",
        "//! S.\nuse super::super::app;",
        &["one.rs:2: `crate::app`"],
    );
    let nested =
        "//! S.\nuse {\n  std::fs,\n  crate::{question::{self, Id},\n    app::{App as Other, self}, source::*},\n};";
    assert_seen(
        rule,
        "src/source.rs",
        nested,
        &["source.rs:5: `crate::app::App`", "source.rs:5: `crate::app`"],
    );
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
        assert_seen(
            rule,
            "src/source.rs",
            &format!("//! S.\n{code}"),
            &["src/source.rs:2: `crate::app"],
        );
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
        &["lib.rs:4: the design knows no module `util`"],
    );
}

#[test]
fn a_crate_beyond_its_fence_is_seen() {
    let rule: Rule = fences_hold;
    assert_seen(
        rule,
        "src/transport/http.rs",
        "//! T.\nuse tonic::Status;\nuse axum::Router;",
        &[],
    );
    assert_seen(rule, "src/source/mongodb.rs", "//! M.\nuse mongodb::Client;", &[]);
    assert_seen(
        rule,
        "src/source.rs",
        "//! S.\npub mod mongodb;\npub use mongodb::MongoDb;",
        &[],
    );
    assert_seen(
        rule,
        "src/app.rs",
        "//! A.\nuse crate::source::{mongodb::{self, MongoDb}};\nfn f() { mongodb::inspect() }",
        &[],
    );
    assert_seen(
        rule,
        "src/app.rs",
        "//! A.\nfn f(redis: u8) -> u8 { redis + self.clap }",
        &[],
    );
    assert_seen(
        rule,
        "src/source.rs",
        "//! S.\nuse tonic::{Code, Status};",
        &["source.rs:2: `tonic`"],
    );
    assert_seen(
        rule,
        "src/app.rs",
        "//! A.\nuse mongodb as db;",
        &["app.rs:2: `mongodb` is known only in source::mongodb (reads"],
    );
    assert_seen(
        rule,
        "src/app.rs",
        "//! A.\nfn f() {\n  ::redis::Client::open()\n}",
        &["app.rs:3: `redis`"],
    );
    assert_seen(
        rule,
        "src/app.rs",
        "//! A.\n#[tonic::async_trait]\nimpl X for Y {}",
        &["app.rs:2: `tonic`"],
    );
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
    assert_seen(
        rule,
        "src/transporter.rs",
        "//! T.\nuse hyper::body;",
        &["transporter.rs:2: `hyper`"],
    );
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
    assert_seen(
        only_the_command_line_prints,
        "src/cli/ask.rs",
        "//! C.\nfn f() { println!() }",
        &[],
    );
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
    assert_seen(
        files_are_tidy,
        "src/main.rs",
        &format!("//! M.{}", "\n".repeat(60)),
        &[],
    );
    assert_seen(
        files_are_tidy,
        "src/main.rs",
        &format!("//! M.{}", "\n//".repeat(60)),
        &["src/main.rs:61: more than 60 lines"],
    );
    for word in ["TODO", "FIXME", "XXX", "Fylora"] {
        let said = format!(
            "src/app.rs:2: `{}` has no place in src",
            if word == "Fylora" { "fylora" } else { word }
        );
        assert_seen(words_are_absent, "src/app.rs", &format!("//! A.\n// {word}"), &[&said]);
        assert_seen(words_are_absent, "docs/app.md", word, &[]);
    }
    for (start, end) in MACHINES {
        assert_seen(
            words_are_absent,
            "docs/a.md",
            &format!("a\nsee {start}{end}x"),
            &["docs/a.md:2"],
        );
    }
}
