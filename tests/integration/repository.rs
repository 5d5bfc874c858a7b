//! What surrounds the code: the workflows run the checks and ask for provenance and SBOMs, every file names the same oldest
//! Rust, every command that a page names is in the Makefile, and the scripts of a release work.
//!
//! Runs no workflow, and does not know whether the actions in them exist.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

/// The files that must name the oldest supported Rust. All others may.
const NAME_THE_RUST: [&str; 5] = ["Cargo.toml", "Dockerfile", "load/Dockerfile", "README.md", "CONTRIBUTING.md"];

/// Files in which a version of Rust is none of ours, or is older than the present one.
const OTHER_VERSIONS: [&str; 2] = ["Cargo.lock", "CHANGELOG.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn parse(path: &str, text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn workflow(name: &str) -> Value {
    let path = format!(".github/workflows/{name}");
    parse(&path, &read(&path))
}

/// The files of the repository, relative to its root: those that git tracks, and new ones that it does not ignore.
fn files() -> Vec<String> {
    let listing = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(listing.status.success(), "git cannot list the files");
    let names = String::from_utf8(listing.stdout).unwrap();
    names.lines().filter(|name| root().join(name).is_file()).map(str::to_owned).collect()
}

/// Whether a file's name has one of these endings.
fn ends_in(path: &str, endings: &[&str]) -> bool {
    Path::new(path).extension().is_some_and(|ending| endings.iter().any(|one| ending == *one))
}

/// The YAML files of `.github`, with their contents.
fn yaml_of_github() -> Vec<(String, Value)> {
    let is_yaml = |path: &&String| path.starts_with(".github/") && ends_in(path, &["yml", "yaml"]);
    files().iter().filter(is_yaml).map(|path| (path.clone(), parse(path, &read(path)))).collect()
}

fn workflows() -> Vec<(String, Value)> {
    yaml_of_github().into_iter().filter(|(path, _)| path.starts_with(".github/workflows/")).collect()
}

fn jobs(workflow: &Value) -> Vec<(&String, &Value)> {
    workflow["jobs"].as_object().expect("a workflow has jobs").iter().collect()
}

/// The steps of a job. A job that calls another workflow has none.
fn steps(job: &Value) -> &[Value] {
    job["steps"].as_array().map_or(&[], Vec::as_slice)
}

/// The steps that use an action, of whichever version.
fn uses<'a>(job: &'a Value, action: &str) -> Vec<&'a Value> {
    let is_used = |step: &&Value| {
        step["uses"].as_str().and_then(|name| name.split_once('@')).is_some_and(|(name, _)| name == action)
    };
    steps(job).iter().filter(is_used).collect()
}

/// Whether a step of a job runs this command, and nothing else.
fn runs(job: &Value, command: &str) -> bool {
    steps(job).iter().any(|step| step["run"] == command && step["if"].is_null())
}

/// What keeps the checks from running for every change.
fn errors_of_ci(workflow: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for event in ["push", "pull_request", "workflow_call"] {
        if workflow["on"].get(event).is_none() {
            errors.push(format!("is not started by {event}"));
        }
    }
    for command in [".ci/run", "make msrv"] {
        if !jobs(workflow).iter().any(|(_, job)| runs(job, command) && job["if"].is_null()) {
            errors.push(format!("does not run {command}"));
        }
    }
    errors
}

/// The condition of whatever a release publishes. A run that was started by hand may be on a tag too.
const PUBLISHES: &str = "github.event_name == 'push' && github.ref_type == 'tag'";

/// What publishes although nothing was pushed.
fn errors_of_publishing(workflow: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for (name, job) in jobs(workflow) {
        if job["if"] == PUBLISHES {
            continue;
        }
        let actions = ["actions/attest-build-provenance", "actions/attest-sbom", "docker/login-action"];
        for action in actions {
            if uses(job, action).iter().any(|step| step["if"] != PUBLISHES) {
                errors.push(format!("{name}: {action} does not wait for a pushed tag"));
            }
        }
        let push = format!("push=${{{{ {PUBLISHES} }}}}");
        let pushes = |step: &&Value| !step["with"]["outputs"].as_str().is_some_and(|text| text.ends_with(&push));
        if uses(job, "docker/build-push-action").iter().any(pushes) {
            errors.push(format!("{name}: the image does not wait for a pushed tag"));
        }
        let runs_publisher = |step: &Value| {
            step["run"].as_str().is_some_and(|run| run.contains("gh release") || run.contains("imagetools create"))
        };
        if steps(job).iter().any(runs_publisher) {
            errors.push(format!("{name}: does not wait for a pushed tag"));
        }
    }
    errors
}

/// The programs' SBOMs that a release lacks, or does not publish with checksums.
fn errors_of_sboms(workflow: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for (name, job) in jobs(workflow) {
        let some_run =
            |text: &str| steps(job).iter().any(|step| step["run"].as_str().is_some_and(|run| run.contains(text)));
        if runs(job, "cargo build --locked --release --bin permcached") {
            if !some_run("cargo cyclonedx --format json --describe binaries") {
                errors.push(format!("{name}: the program has no SBOM"));
            }
            let is_uploaded = uses(job, "actions/upload-artifact").iter().any(|step| step["with"]["path"] == "dist/*");
            let is_attested =
                uses(job, "actions/attest-sbom").iter().any(|step| step["with"]["subject-path"] == "dist/*.tar.gz");
            if !is_uploaded || !is_attested {
                errors.push(format!("{name}: the program's SBOM is not uploaded and attested"));
            }
        }
        if some_run("gh release create") {
            for text in ["sha256sum -- *.tar.gz *.cdx.json >SHA256SUMS", "dist/*.cdx.json dist/SHA256SUMS"] {
                if !some_run(text) {
                    errors.push(format!("{name}: the release lacks the SBOMs: {text}"));
                }
            }
        }
    }
    errors
}

/// What a release lacks: its checks, its architectures, provenance or SBOMs. Also what it publishes without a pushed tag.
fn errors_of_release(workflow: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    if workflow["on"]["push"]["tags"] != serde_json::json!(["v*"]) {
        errors.push("does not start with a tag v*".to_owned());
    }
    let checks: Vec<&String> = jobs(workflow)
        .into_iter()
        .filter(|(_, job)| job["uses"] == "./.github/workflows/ci.yml")
        .map(|(name, _)| name)
        .collect();
    let mut platforms = BTreeSet::new();
    for (name, job) in jobs(workflow) {
        for step in uses(job, "docker/build-push-action") {
            if step["with"]["provenance"] != "mode=max" {
                errors.push(format!("{name}: the image has no full provenance"));
            }
            if step["with"]["sbom"] != true {
                errors.push(format!("{name}: the image has no SBOM"));
            }
            let matrix = job["strategy"]["matrix"]["include"].as_array().expect("a matrix of platforms");
            platforms.extend(matrix.iter().filter_map(|entry| entry["platform"].as_str()));
        }
        let builds = !uses(job, "docker/build-push-action").is_empty()
            || runs(job, "cargo build --locked --release --bin permcached");
        let waits_for = |check: &&String| {
            let others = job["needs"].as_array().map_or(&[][..], Vec::as_slice);
            others.iter().any(|other| other.as_str() == Some(check))
        };
        if builds && !checks.iter().any(waits_for) {
            errors.push(format!("{name}: builds without the checks"));
        }
        if !uses(job, "actions/attest-build-provenance").is_empty() {
            for permission in ["id-token", "attestations"] {
                if job["permissions"][permission] != "write" {
                    errors.push(format!("{name}: may not attest without {permission}"));
                }
            }
        }
    }
    for platform in ["linux/amd64", "linux/arm64"] {
        if !platforms.contains(platform) {
            errors.push(format!("builds no image for {platform}"));
        }
    }
    for (key, subject) in [("subject-path", "the programs"), ("subject-digest", "the image")] {
        let is_attested = |job: &Value| {
            uses(job, "actions/attest-build-provenance").iter().any(|step| step["with"].get(key).is_some())
        };
        if !jobs(workflow).iter().any(|(_, job)| is_attested(job)) {
            errors.push(format!("does not attest {subject}"));
        }
    }
    errors.extend(errors_of_publishing(workflow));
    errors.extend(errors_of_sboms(workflow));
    errors
}

/// Rights that a workflow has without reason, and jobs that may run for hours.
fn errors_of_rights(workflow: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    if workflow["permissions"] != serde_json::json!({ "contents": "read" }) {
        errors.push("more than reading is permitted to every job".to_owned());
    }
    for (name, job) in jobs(workflow) {
        if job["timeout-minutes"].is_null() && job["uses"].is_null() {
            errors.push(format!("{name}: has no time limit"));
        }
        for step in uses(job, "actions/checkout") {
            if step["with"]["persist-credentials"] != false {
                errors.push(format!("{name}: leaves the token where every later step can read it"));
            }
        }
    }
    errors
}

/// The versions of Rust that a text names, as `Rust 1.2`, `rust:1.2`, `RUST=1.2`, `rust-version = "1.2"` or
/// `toolchain install 1.2`.
fn rust_versions(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let mut versions = Vec::new();
    for prefix in ["rust ", "rust:", "rust=", "rust-version = \"", "toolchain: ", "toolchain install "] {
        for (at, _) in text.match_indices(prefix) {
            let rest = text[at + prefix.len()..].trim_start_matches(['"', '\'']);
            let version: String = rest.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect();
            let version = version.trim_end_matches('.');
            if version.contains('.') {
                versions.push(version.to_owned());
            }
        }
    }
    versions
}

/// The targets after `make` in a text's code.
fn make_targets(text: &str) -> BTreeSet<&str> {
    let after = |marker: &'static str| {
        text.match_indices(marker).filter_map(move |(at, _)| {
            let rest = &text[at + marker.len()..];
            rest.split(|letter: char| !letter.is_ascii_lowercase()).next().filter(|target| !target.is_empty())
        })
    };
    ["`make ", "run: make ", "\n    make ", "\nmake "].into_iter().flat_map(after).collect()
}

#[test]
fn the_yaml_of_github_parses() {
    let parsed: Vec<String> = yaml_of_github().into_iter().map(|(path, _)| path).collect();
    for name in ["ci.yml", "dependencies.yml", "release.yml"] {
        assert!(parsed.contains(&format!(".github/workflows/{name}")), "{parsed:?} lacks {name}");
    }
    assert!(serde_saphyr::from_str::<Value>("jobs: [").is_err());
}

#[test]
fn ci_runs_every_check_for_every_change() {
    let ci = workflow("ci.yml");
    assert_eq!(errors_of_ci(&ci), Vec::<String>::new());
    let mut broken = ci.clone();
    broken["on"].as_object_mut().unwrap().remove("pull_request");
    assert_eq!(errors_of_ci(&broken), ["is not started by pull_request"]);
    let mut broken = ci.clone();
    broken["jobs"].as_object_mut().unwrap().remove("checks");
    assert_eq!(errors_of_ci(&broken), ["does not run .ci/run"]);
    let mut broken = ci;
    broken["jobs"]["msrv"]["if"] = Value::from(false);
    assert_eq!(errors_of_ci(&broken), ["does not run make msrv"]);
}

/// The step of a release that builds the image.
fn build(workflow: &mut Value) -> &mut Value {
    let steps = workflow["jobs"]["image-parts"]["steps"].as_array_mut().unwrap();
    steps.iter_mut().find(|step| step["id"] == "build").unwrap()
}

/// Removes what attests provenance from a job.
fn drop_attestation(job: &mut Value) {
    let steps = job["steps"].as_array_mut().unwrap();
    steps
        .retain(|step| !step["uses"].as_str().is_some_and(|name| name.starts_with("actions/attest-build-provenance@")));
}

#[test]
fn a_release_is_checked_and_has_provenance_and_sboms() {
    let release = workflow("release.yml");
    assert_eq!(errors_of_release(&release), Vec::<String>::new());
    // Each change to the workflow, and what it lacks afterwards.
    let lacks = |change: fn(&mut Value), error: &str| {
        let mut broken = release.clone();
        change(&mut broken);
        assert_eq!(errors_of_release(&broken), [error]);
    };
    lacks(|workflow| build(workflow)["with"]["sbom"] = Value::from(false), "image-parts: the image has no SBOM");
    lacks(
        |workflow| build(workflow)["with"]["provenance"] = Value::from("mode=min"),
        "image-parts: the image has no full provenance",
    );
    lacks(
        |workflow| {
            workflow["jobs"]["image-parts"]["strategy"]["matrix"]["include"].as_array_mut().unwrap().pop();
        },
        "builds no image for linux/arm64",
    );
    lacks(|workflow| drop_attestation(&mut workflow["jobs"]["programs"]), "does not attest the programs");
    lacks(|workflow| drop_attestation(&mut workflow["jobs"]["image"]), "does not attest the image");
    lacks(
        |workflow| workflow["jobs"]["programs"]["permissions"]["id-token"] = Value::Null,
        "programs: may not attest without id-token",
    );
    lacks(|workflow| workflow["jobs"]["programs"]["needs"] = Value::Null, "programs: builds without the checks");
    lacks(|workflow| workflow["on"]["push"] = Value::Null, "does not start with a tag v*");
    lacks(
        |workflow| workflow["jobs"]["publish"]["if"] = Value::from("github.ref_type == 'tag'"),
        "publish: does not wait for a pushed tag",
    );
    lacks(
        |workflow| {
            let steps = workflow["jobs"]["programs"]["steps"].as_array_mut().unwrap();
            steps.retain(|step| !step["run"].as_str().is_some_and(|run| run.contains("cargo cyclonedx")));
        },
        "programs: the program has no SBOM",
    );
    lacks(
        |workflow| {
            let steps = workflow["jobs"]["programs"]["steps"].as_array_mut().unwrap();
            steps.retain(|step| !step["uses"].as_str().is_some_and(|name| name.starts_with("actions/attest-sbom@")));
        },
        "programs: the program's SBOM is not uploaded and attested",
    );
}

#[test]
fn workflows_have_few_rights_and_little_time() {
    let workflows = workflows();
    for (path, workflow) in &workflows {
        assert_eq!(errors_of_rights(workflow), Vec::<String>::new(), "{path}");
    }
    let (_, mut broken) = workflows.into_iter().next().unwrap();
    broken["permissions"]["packages"] = Value::from("write");
    for (_, job) in broken["jobs"].as_object_mut().unwrap() {
        job.as_object_mut().unwrap().remove("timeout-minutes");
        job["steps"][0]["with"] = Value::Null;
    }
    let jobs = jobs(&broken).len();
    assert_eq!(errors_of_rights(&broken).len(), 1 + 2 * jobs, "{:?}", errors_of_rights(&broken));
}

#[test]
fn every_file_names_the_same_oldest_rust() {
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    for path in NAME_THE_RUST {
        assert!(rust_versions(&read(path)).contains(&oldest.to_owned()), "{path} does not name Rust {oldest}");
    }
    for path in files().iter().filter(|path| !OTHER_VERSIONS.contains(&path.as_str())) {
        // A file that is not text names no version.
        let text = fs::read_to_string(root().join(path)).unwrap_or_default();
        // This file's own examples are no versions of Rust.
        for version in rust_versions(&text).into_iter().filter(|_| path != "tests/integration/repository.rs") {
            assert_eq!(version, oldest, "{path} names Rust {version}, Cargo.toml {oldest}");
        }
    }
    for text in ["Rust 1.2 or newer", "rust:1.2-slim", "RUST=1.2", "rust-version = \"1.2\"", "toolchain: '1.2'"] {
        assert_eq!(rust_versions(text), ["1.2"], "{text}");
    }
    assert_eq!(rust_versions("toolchain install 1.2.3, Rust 2."), ["1.2.3"]);
}

#[test]
fn every_make_target_that_a_page_names_exists() {
    let makefile = read("Makefile");
    let exists = |target: &str| makefile.lines().any(|rule| rule.starts_with(&format!("{target}:")));
    let mut named = 0;
    for path in files().iter().filter(|path| ends_in(path, &["md", "yml"]) || *path == ".ci/run") {
        for target in make_targets(&read(path)) {
            assert!(exists(target), "{path} names `make {target}`, which the Makefile lacks");
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
    assert!(!exists("unknown"));
    assert_eq!(make_targets("`make one`, make two, \n- run: make three\n"), BTreeSet::from(["one", "three"]));
}

#[test]
fn release_notes_are_the_section_of_their_version() {
    let notes = |version: &str| {
        let output = Command::new(root().join("scripts/release-notes")).arg(version).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    // The oldest section, because that of unreleased changes is empty after a release.
    let changelog = read("CHANGELOG.md");
    let oldest = changelog.lines().filter_map(|line| line.strip_prefix("## ")).next_back().unwrap();
    let (succeeded, text) = notes(oldest.split(' ').next().unwrap());
    assert!(succeeded);
    assert!(text.contains("### Added") && !text.contains("\n## "), "{text}");
    assert_eq!(notes("0.0.0"), (false, String::new()));
}

#[test]
fn a_release_archive_has_the_program_its_manual_and_the_schemas() {
    let directory = tempfile::tempdir().unwrap();
    let script = root().join("scripts/pack-release");
    let pack =
        |program: &str| Command::new(&script).args([program, "some-target"]).arg(directory.path()).output().unwrap();
    let packed = pack(env!("CARGO_BIN_EXE_permcached"));
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    let name = format!("permcached-{}-some-target", env!("CARGO_PKG_VERSION"));
    let listing =
        Command::new("tar").arg("-tzf").arg(directory.path().join(format!("{name}.tar.gz"))).output().unwrap();
    let listing = String::from_utf8(listing.stdout).unwrap();
    for file in
        ["permcached", "LICENSE", "man/permcached-serve.1", "completions/permcached.fish", "schemas/fylora.toml"]
    {
        assert!(listing.lines().any(|line| line == format!("{name}/{file}")), "{file} is missing:\n{listing}");
    }
    assert!(!pack("false").status.success(), "a program that does not answer is packed");
}
