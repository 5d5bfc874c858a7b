//! Schemas with errors, and the exact text that describes these: message, place, source line, carets, help.
//!
//! `broken_schemas/NAME.toml` is the schema, and `NAME.txt` beside it is the expected text.
//! `UPDATE_EXPECTED=1 cargo test broken_schemas` rewrites the texts. Read the resulting `git diff` as a newcomer would.
//! Valid schemas are not tested here.

mod following;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use permcached::schema::{Schema, SchemaErrors};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/broken_schemas")
}

/// The names, without extension, of the files with this extension.
fn names(extension: &str) -> BTreeSet<String> {
    let paths = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    paths.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// Every broken schema: its name, its text and its errors.
fn errors() -> impl Iterator<Item = (String, String, SchemaErrors)> {
    names("toml").into_iter().map(|name| {
        let text = fs::read_to_string(directory().join(format!("{name}.toml"))).unwrap();
        let errors = Schema::parse(&format!("{name}.toml"), &text).expect_err(&name);
        (name, text, errors)
    })
}

#[test]
fn each_error_is_shown_as_expected() {
    let updates = env::var_os("UPDATE_EXPECTED").is_some();
    let mut different = Vec::new();
    for (name, _, errors) in errors() {
        let path = directory().join(format!("{name}.txt"));
        let rendered = errors.render(false) + "\n";
        if updates {
            fs::write(&path, &rendered).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != rendered {
            different.push(format!("==> {name}.toml now gives:\n{rendered}"));
        }
    }
    assert!(
        different.is_empty(),
        "{}\nThe texts of {} schemas differ from what is expected. If they are better now: UPDATE_EXPECTED=1",
        different.join("\n"),
        different.len(),
    );
}

#[test]
fn every_schema_has_its_expected_text() {
    assert_eq!(names("txt"), names("toml"), "NAME.txt and NAME.toml come in pairs");
    assert!(names("toml").len() >= 25);
}

#[test]
fn each_message_is_one_short_phrase_without_a_full_stop() {
    for (name, _, errors) in errors() {
        for error in errors.iter() {
            for text in error.help.iter().chain([&error.message]) {
                let is_plain = !text.ends_with('.') && !text.contains(['\n', '\t']);
                assert!(is_plain && text.len() < 160, "{name}.toml: one short line without a full stop: {text:?}");
            }
        }
    }
}

#[test]
fn windows_line_ends_change_no_message() {
    // The messages of the TOML parser are not ours.
    let messages = |errors: &SchemaErrors| {
        let read = errors.iter().filter(|one| !one.message.starts_with("not TOML"));
        read.map(|one| (one.message.clone(), one.help.clone())).collect::<Vec<_>>()
    };
    for (name, text, errors) in errors() {
        let windows = Schema::parse(&name, &text.replace('\n', "\r\n")).expect_err(&name);
        assert_eq!(messages(&windows), messages(&errors), "{name}.toml with Windows line ends");
    }
}

#[test]
fn only_the_first_100_errors_are_shown() {
    let keys: Vec<String> = (0..250).map(|at| format!("key_{at} = true\n")).collect();
    let shown = Schema::parse("keys.toml", &keys.concat()).unwrap_err().render(false);
    assert_eq!(shown.matches("error: ").count(), 100);
    assert!(shown.ends_with("keys.toml: 251 errors; these are the first 100"), "{shown}");
}

#[test]
fn an_error_in_a_very_long_line_is_shown_without_the_line() {
    let line = format!("default_subject = \"{}\" + 1", "x".repeat(10_000));
    let shown = Schema::parse("long.toml", &line).unwrap_err().render(false);
    assert!(shown.contains("--> long.toml:1:10022\n") && shown.len() < 500, "{shown}");
}
