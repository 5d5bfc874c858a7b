//! Made-up files with references to what does not exist.
//!
//! Does not check the repository itself.

use super::{File, with_file};
use crate::architecture::references::{
    OWN_PAGES, citations_resolve, links_resolve, proof_names_what_exists, security_names_what_exists,
};

const FRESHNESS: &str =
    "# Freshness\n\n## Terms\n\n### 1. Stamp\n\n### 2. As of, and `to`\n\n## Terms\n\n```\n# Not this\n```\n";

/// The made-up library with a manual of two points, and one more file.
fn manual_and(path: &str, text: &str) -> Vec<File> {
    let mut files = with_file(path, text);
    files.push(File::new("docs/freshness.md", FRESHNESS));
    files.push(File::new("ARCHITECTURE.md", "# Architecture\n\n## A check\n"));
    files
}

fn seen(wrong: &[String]) -> Vec<&str> {
    wrong.iter().map(|wrong| wrong.lines().next().unwrap_or_default()).collect()
}

#[test]
fn a_link_to_nothing_is_seen() {
    let wrong = |text: &str| links_resolve(&manual_and("docs/a.md", text));
    for text in [
        "[a](freshness.md), [b](../ARCHITECTURE.md#a-check), [c](../docs/), [d](https://example.org/x.md#y)",
        "[a](freshness.md#terms) [b](freshness.md#terms-1) [c](freshness.md#2-as-of-and-to)",
        "# Here\n[a](#here)",
        "```\n[a](b.md)\n```",
        &format!("{OWN_PAGES}docs/freshness.md#1-stamp"),
    ] {
        assert_eq!(wrong(text), Vec::<String>::new(), "{text}");
    }
    for (text, what) in [
        ("a\n[a](fresh.md)", "docs/a.md:2: `fresh.md` leads to no file"),
        ("[a](ARCHITECTURE.md)", "docs/a.md:1: `ARCHITECTURE.md` leads to no file"),
        ("[a](../../x.md)", "docs/a.md:1: `../../x.md` leads to no file"),
        ("[a](freshness.md#stamp)", "docs/a.md:1: `freshness.md#stamp` leads to no heading of docs/freshness.md"),
        ("[a](freshness.md#not-this)", "docs/a.md:1: `freshness.md#not-this` leads to no heading of docs/freshness.md"),
        ("# Here\n[a](#there)", "docs/a.md:2: `#there` leads to no heading of docs/a.md"),
        (&format!("\"{OWN_PAGES}docs/a.md#b\""), "docs/a.md:1: `docs/a.md#b` leads to no heading of docs/a.md"),
    ] {
        assert_eq!(seen(&wrong(text)), [what], "{text}");
    }
}

#[test]
fn a_citation_of_nothing_is_seen() {
    let wrong = |path: &str, text: &str| citations_resolve(&manual_and(path, text));
    let right = "//! See docs/freshness.md, points 1 and 2; `docs/freshness.md`, \"Terms\" and \"Stamp\"; ARCHITECTURE.md, \"A\n\
                 //! check\". (point 2) src/app.rs, `app.rs`, src/, src/*.rs, docs/freshness.md#1-stamp. $x/src/none.rs\n\
                 const A: &str = \"src/none.rs, which a test makes up\";";
    assert_eq!(wrong("tests/integration/one.rs", right), Vec::<String>::new());
    for (text, what) in [
        ("//! In docs/none.md.", "tests/one.rs:1: `docs/none.md` is no file"),
        ("//! In\n//! src/none/.", "tests/one.rs:2: `src/none/` is no file"),
        ("//! In `none.rs`.", "tests/one.rs:1: `none.rs` is no file"),
        ("//! See compose.yaml.", "tests/one.rs:1: `compose.yaml` is no file"),
        ("//! The `Makefile`, our.toml.", "tests/one.rs:1: `Makefile` is no file"),
        ("//! See docs/freshness.md, point 3.", "tests/one.rs:1: `point 3` is no point of docs/freshness.md"),
        ("//! Points 1, 2 and\n//! 14.", "tests/one.rs:1: `point 14` is no point of docs/freshness.md"),
        ("//! Points 1 to 4.", "tests/one.rs:1: `point 4` is no point of docs/freshness.md"),
        ("//! See ARCHITECTURE.md, point 1.", "tests/one.rs:1: `point 1` is no point of ARCHITECTURE.md"),
        ("//! See ARCHITECTURE.md, \"B\".", "tests/one.rs:1: `ARCHITECTURE.md, \"B\"` is no heading"),
        ("//! `docs/freshness.md`, \"Terms\" and \"B\"", "tests/one.rs:1: `docs/freshness.md, \"B\"` is no heading"),
        ("// docs/freshness.md#b", "tests/one.rs:1: `docs/freshness.md#b` is no heading"),
    ] {
        assert_eq!(seen(&wrong("tests/one.rs", text)), [what], "{text}");
    }
    assert_eq!(
        seen(&wrong("src/one.rs", "//! O.\nconst A: &str = \"see docs/b.md\";")),
        ["src/one.rs:2: `docs/b.md` is no file"]
    );
    for (path, mark) in
        [("proto/a.proto", "//"), ("schemas/a.toml", "#"), ("deploy/a.yaml", "#"), ("docs/a.md", ""), ("Makefile", "#")]
    {
        let what = format!("{path}:2: `docs/b.md` is no file");
        assert_eq!(seen(&wrong(path, &format!("a\n{mark} docs/b.md"))), [what.as_str()]);
    }
}

#[test]
fn a_name_in_the_proof_that_nothing_has_is_seen() {
    let wrong = |proof: &str| {
        let mut files = with_file("docs/proof.md", proof);
        files.push(File::new(
            "tests/integration/model/runs.rs",
            "#[test]\nfn plain() {\n}\n\n    #[test]\n    #[ignore]\n    fn joins() {\n",
        ));
        files.push(File::new("tests/integration/model/safeguards.rs", "    /// 1. Stamp.\n    Stamp,\n"));
        files.push(File::new("tests/integration/fleet/log.rs", "async fn a_lost_message_is_repaired() {\n"));
        proof_names_what_exists(&files)
    };
    let tables = "## The runs\n| `plain` | x |\n## The safeguards\n| `Stamp` | 1 |\n";
    let right = "## In the code\n| 1 | `none` | `fleet::log::a_lost_…`, `log` |\n| 2 | x | `log::a_lost_message_is_repaired` |\n`Progress::apply`";
    assert_eq!(wrong(&format!("{tables}{right}")), Vec::<String>::new());
    for (name, is_named) in [("fleet::log::a_lost", "fleet::log::a_lost"), ("log::b_…", "log::b_…"), ("bus", "bus")]
    {
        let text = format!("{tables}## In the code\n| 1 | x | `{name}` |");
        let what = format!("docs/proof.md:6: `{is_named}` is no test of tests/integration/");
        assert_eq!(seen(&wrong(&text)), [what.as_str()]);
    }
    let other = "## The runs\n| `plain` | x |\n| `joins` | x |\n## The safeguards\n";
    assert_eq!(
        seen(&wrong(other)),
        [
            "docs/proof.md:1: `joins` is in docs/proof.md and not in tests/integration/model/runs.rs",
            "docs/proof.md:1: `Stamp` is in tests/integration/model/safeguards.rs and not in docs/proof.md",
        ]
    );
}

#[test]
fn a_safeguard_without_a_test_that_exists_is_seen() {
    let wrong = |rows: &str| {
        let page = format!(
            "| a | `gone` |\n## Safeguards\n| safeguard | test |\n|---|---|\n{rows}\n## What remains\n| a | `gone` |\n"
        );
        let mut files = with_file("docs/security.md", &page);
        files.push(File::new("tests/integration/fleet/log.rs", "async fn a_lost_message_is_repaired() {\n"));
        files.push(File::new("src/link/codes.rs", "    #[test]\n    fn no_key_is_shown() {\n"));
        files.push(File::new("src/config/tests.rs", "#[test]\nfn all_are_named() {\n"));
        security_names_what_exists(&files)
    };
    let right = "| a | `fleet::log::a_lost_message_is_repaired`, `link::codes::tests::no_key_is_shown` |\n| b | `config::tests::all_are_named` |";
    assert_eq!(wrong(right), Vec::<String>::new());
    for name in ["fleet::log::a_lost", "link::codes::no_key_is_shown", "config::all_are_named"] {
        let what = format!("docs/security.md:5: `{name}` is no test");
        assert_eq!(seen(&wrong(&format!("| a | `{name}` |"))), [what.as_str()]);
    }
    assert_eq!(seen(&wrong("| a | none |")), ["docs/security.md:5: no test is named"]);
}
