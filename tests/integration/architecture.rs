//! Rules about the code and the documentation (ARCHITECTURE.md): what may import what, which crates are known where, what
//! files must and must not contain, which terms are retired, and that references resolve. The rules are data, and each
//! exception states its reason. `broken` shows that every rule sees what breaks it.
//!
//! Does not test behaviour.

mod broken;
mod circles;
mod paths;
mod references;
mod text;
mod vocabulary;

use std::{cell::OnceCell, fs, path::Path, process::Command};

use circles::{dependencies_have_no_circle, imports_name_each_item};
use paths::{Found, Named};
use references::{citations_resolve, links_resolve, proof_names_what_exists, security_names_what_exists};
use text::Rust;
use vocabulary::{
    identifiers_use_the_vocabulary, names_use_the_vocabulary, prose_uses_the_vocabulary, vocabulary_exceptions_are_used,
};

/// The modules in reading order: each uses only those above it.
const ORDER: [&str; 22] = [
    "question",
    "moment",
    "telemetry",
    "diagnosis",
    "schema",
    "fact",
    "evaluate",
    "freshness",
    "source",
    "sample",
    "link",
    "facts",
    "check",
    "list",
    "bus",
    "feed",
    "invalidate",
    "transport",
    "config",
    "app",
    "cli",
    "fuzzing",
];

/// Crates, or modules of `std`, that only some modules may name.
struct Fence {
    names: &'static [&'static str],
    /// The modules that may name them, each with the reason.
    within: &'static [(&'static str, &'static str)],
}

const FENCES: [Fence; 10] = [
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
            ("transport", "serves gRPC, and contains the generated code"),
            ("link::names", "the keys of facts contain numbers of variable length"),
            ("cli::ask", "calls a running service"),
            ("cli::list", "calls a running service"),
            ("cli::mongosh", "shows points in time"),
            ("cli::target", "calls a running service"),
            ("cli::invalidate", "calls a running service"),
            ("cli::watch", "calls a running service"),
            ("cli::questions::verify", "calls a running service"),
            ("cli::remote", "connects to a running service"),
            ("cli::health", "calls a running service"),
            ("cli::text", "shows messages as JSON"),
        ],
    },
    Fence { names: &["axum", "hyper", "http", "http_body", "tower"], within: &[("transport", "serves gRPC and HTTP")] },
    Fence { names: &["mongodb"], within: &[("source::mongodb", "reads documents and the change stream")] },
    Fence {
        names: &["mongodb::error"],
        within: &[
            ("source::mongodb::error", "shows kinds in place of the driver's errors, which quote whole documents"),
            ("source::mongodb::connect", "tells why no server can be reached, by the kind"),
            ("source::mongodb::client", "looks at the kind only, and returns the error to `command`"),
        ],
    },
    Fence {
        names: &["bson"],
        within: &[
            ("schema", "compiles conditions, which are MongoDB's queries"),
            ("fact", "reads documents"),
            ("source", "fetches documents"),
            ("facts::codec", "its tests read documents"),
            ("list", "compiles permissions into MongoDB's queries"),
            ("transport::explanation", "shows conditions as JSON"),
            ("transport::lists::extended_json", "sends queries as JSON"),
            ("cli::schema_test", "parses points in time"),
            ("fuzzing", "makes documents"),
        ],
    },
    Fence {
        names: &["redis", "fred", "deadpool_redis"],
        within: &[
            ("link", "connects to it"),
            ("facts::redis", "keeps facts there"),
            ("bus::redis", "sends change batches and hints over it"),
            ("feed::lease", "keeps the leader's lease there"),
        ],
    },
    Fence {
        names: &["redis::RedisError"],
        within: &[("link", "shows kinds in place of the client's errors, which quote replies and commands")],
    },
    Fence {
        names: &[
            "prometheus_client",
            "tracing_subscriber",
            "tracing_opentelemetry",
            "opentelemetry",
            "opentelemetry_sdk",
            "opentelemetry_otlp",
        ],
        within: &[("telemetry", "records metrics and traces")],
    },
    Fence { names: &["clap"], within: &[("cli", "it is the command line"), ("main", "calls it")] },
    Fence { names: &["std::env"], within: &[("config", "is the only reader of the environment")] },
];

/// The modules that only compute, and what they therefore must not name.
const PURE: [&str; 5] = ["question", "moment", "schema", "fact", "evaluate"];
const IMPURE: [&str; 13] = [
    "tokio",
    "tokio_stream",
    "tokio_util",
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

/// The macros that print, and the modules that may.
const PRINTS: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];
const PRINTERS: [&str; 2] = ["cli", "main"];

/// Words that no code contains, each with a remedy.
const WORDS: [(&str, &str); 4] = [
    ("TODO", "do it, or write an issue"),
    ("FIXME", "fix it, or write an issue"),
    ("XXX", "explain it, or write an issue"),
    ("fylora", "the first application is one of many: its names belong to schemas/, examples/ and docs/"),
];

/// The most lines in `main.rs`.
const MAIN_LINES_MAX: usize = 60;

/// Paths of development machines, in two halves, so that the rule does not find them here.
const MACHINES: [(&str, &str); 2] = [("/wo", "rk/"), ("/tmp/w", "t-")];

/// A file of the repository. Its path is relative to the root, with `/`.
struct File {
    path: String,
    text: String,
    named: OnceCell<Named>,
    rust: OnceCell<Rust>,
}

impl File {
    fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into(), named: OnceCell::new(), rust: OnceCell::new() }
    }

    fn is_rust(&self) -> bool {
        has_extension(&self.path, "rs")
    }

    /// The path of a module of the library or the binary: `src/source/mongodb.rs` is `source::mongodb`.
    fn module(&self) -> Option<Vec<&str>> {
        let inner = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        Some(inner.split('/').collect())
    }

    /// Whether the file is one of these modules or inside one.
    fn is_in<'a>(&self, modules: impl IntoIterator<Item = &'a str>) -> bool {
        let own = self.module().unwrap_or_default().join("::");
        modules
            .into_iter()
            .any(|module| own.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
    }

    fn named(&self) -> &Named {
        self.named.get_or_init(|| {
            let module = self.module().unwrap_or_default();
            Named::of(&self.text, if matches!(module.as_slice(), ["lib" | "main"]) { &[] } else { &module })
        })
    }

    /// The file's identifiers, strings and comments, if it is Rust.
    fn rust(&self) -> Option<&Rust> {
        self.is_rust().then(|| self.rust.get_or_init(|| Rust::of(&self.text)))
    }

    fn wrong(&self, line: usize, what: &str, remedy: &str) -> String {
        format!("{}:{line}: {what}\n    remedy: {remedy}", self.path)
    }
}

fn has_extension(path: &str, wanted: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == wanted)
}

/// Every file that git tracks or would track; without git, every file outside of build directories.
fn repository() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut git = Command::new("git");
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root);
    let paths = match git.output() {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            let listed = String::from_utf8(output.stdout).unwrap();
            listed.split_terminator('\0').map(str::to_owned).collect()
        }
        _ => walk(root, ""),
    };
    // Deleted files and files that are not text cannot be read, and are skipped.
    let read = |path: String| fs::read_to_string(root.join(&path)).ok().map(|text| File::new(path, text));
    let files: Vec<File> = paths.into_iter().filter_map(read).collect();
    assert!(files.iter().any(|file| file.path == "src/lib.rs"), "the repository is not in {}", root.display());
    files
}

fn walk(root: &Path, below: &str) -> Vec<String> {
    let entries = fs::read_dir(root.join(below)).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            match entry.file_type().unwrap().is_dir() {
                true if matches!(name.as_str(), ".git" | "target" | "node_modules") => Vec::new(),
                true => walk(root, &path),
                false => vec![path],
            }
        })
        .collect()
}

/// Imports point only up the list of `lib.rs`, and that list is the one of ARCHITECTURE.md.
fn imports_point_up(files: &[File]) -> Vec<String> {
    let Some(lib) = files.iter().find(|file| file.path == "src/lib.rs") else {
        return Vec::new();
    };
    let modules = &lib.named().modules;
    let place = |name: &str| ORDER.iter().position(|other| *other == name);
    let mut wrong = Vec::new();
    let mut last = None;
    for Found { line, path } in modules {
        let name = &path[0];
        match place(name) {
            None => wrong.push(lib.wrong(
                *line,
                &format!("the module `{name}` is not in ORDER"),
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
    for file in files.iter().filter(|file| file.module().is_some() && !file.is_in(["lib", "main"])) {
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
                        "move what both use up to `{own}` or above, or pass it from below as an argument or a trait"
                    ),
                ));
            }
        }
    }
    wrong
}

/// Whether a path is this name or inside it.
fn is_of(path: &[String], name: &str) -> bool {
    let names: Vec<&str> = name.split("::").collect();
    path.len() >= names.len() && path.iter().zip(&names).all(|(one, other)| one == other)
}

/// Only the modules of its fence name a crate.
fn fences_hold(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.module().is_some()) {
        for Found { line, path } in &file.named().paths {
            for Fence { names, within } in &FENCES {
                let Some(name) = names.iter().find(|name| is_of(path, name)) else {
                    continue;
                };
                if !file.is_in(within.iter().map(|(module, _)| *module)) {
                    let places =
                        within.iter().map(|(module, why)| format!("{module} ({why})")).collect::<Vec<_>>().join(", ");
                    wrong.push(file.wrong(
                        *line,
                        &format!("`{name}` is known only in {places}"),
                        "call one of these modules, whose interface has this crate's own types",
                    ));
                }
            }
        }
    }
    // One `use` may name a crate several times.
    wrong.dedup();
    wrong
}

/// Modules that only compute do no I/O and read no clock.
fn pure_modules_are_pure(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.is_in(PURE)) {
        for Found { line, path } in &file.named().paths {
            if let Some(name) = IMPURE.iter().find(|name| is_of(path, name)) {
                wrong.push(file.wrong(
                    *line,
                    &format!("`{name}` has no place in {}, which only compute", PURE.join(", ")),
                    "let the caller do it, and take the result or the time as an argument",
                ));
            }
        }
    }
    wrong
}

/// Only the command line prints.
fn only_the_command_line_prints(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.module().is_some() && !file.is_in(PRINTERS)) {
        for Found { line, path } in file.named().macros.iter().filter(|found| PRINTS.contains(&&*found.path[0])) {
            wrong.push(file.wrong(
                *line,
                &format!("`{}!` outside of {}", path[0], PRINTERS.join(" and ")),
                "log it with `tracing`",
            ));
        }
    }
    wrong
}

/// Every file opens with what it is, and none is called `mod.rs`.
fn files_are_tidy(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        if !file.text.starts_with("//!") {
            wrong.push(file.wrong(1, "a file opens with `//!`", "state what the file is, then what it does not do"));
        }
        if file.path.ends_with("/mod.rs") {
            let name = file.path.trim_end_matches("/mod.rs");
            wrong.push(file.wrong(1, "no file is called mod.rs", &format!("call it {name}.rs")));
        }
    }
    for file in files.iter().filter(|file| file.path == "src/main.rs" && file.text.lines().count() > MAIN_LINES_MAX) {
        let what = format!("more than {MAIN_LINES_MAX} lines");
        wrong.push(file.wrong(MAIN_LINES_MAX + 1, &what, "main is a checklist: move the work to cli or app"));
    }
    wrong
}

/// No code contains some words, and no file contains a path of a development machine.
fn words_are_absent(files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files {
        for (text, line) in file.text.lines().zip(1..) {
            for (word, remedy) in WORDS.into_iter().filter(|_| file.path.starts_with("src/")) {
                let is_there = if word == "fylora" { text.to_lowercase().contains(word) } else { text.contains(word) };
                if is_there {
                    wrong.push(file.wrong(line, &format!("`{word}` has no place in src"), remedy));
                }
            }
            for machine in
                MACHINES.map(|(start, end)| format!("{start}{end}")).into_iter().filter(|path| text.contains(path))
            {
                let what = format!("`{machine}` is a path of one machine");
                wrong.push(file.wrong(line, &what, "name it relative to the repository, or use a temporary directory"));
            }
        }
    }
    wrong
}

type Rule = fn(&[File]) -> Vec<String>;

const RULES: [Rule; 16] = [
    imports_point_up,
    dependencies_have_no_circle,
    imports_name_each_item,
    fences_hold,
    pure_modules_are_pure,
    only_the_command_line_prints,
    files_are_tidy,
    words_are_absent,
    identifiers_use_the_vocabulary,
    names_use_the_vocabulary,
    prose_uses_the_vocabulary,
    vocabulary_exceptions_are_used,
    links_resolve,
    citations_resolve,
    proof_names_what_exists,
    security_names_what_exists,
];

#[test]
fn the_repository_keeps_the_rules() {
    let files = repository();
    let wrong: Vec<String> = RULES.iter().flat_map(|rule| rule(&files)).collect();
    assert!(wrong.is_empty(), "{} places break the rules:\n\n{}\n", wrong.len(), wrong.join("\n"));
}
