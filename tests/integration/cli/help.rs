//! `--help` of each command: every argument and option has a description, within the width of a terminal.

use crate::support::command::run;

/// Every command and subcommand.
pub(super) const COMMANDS: [&[&str]; 20] = [
    &[],
    &["serve"],
    &["check"],
    &["explain"],
    &["list"],
    &["who"],
    &["filter"],
    &["schema"],
    &["schema", "check"],
    &["schema", "test"],
    &["questions"],
    &["questions", "write"],
    &["questions", "verify"],
    &["invalidate"],
    &["watch"],
    &["config"],
    &["doctor"],
    &["health"],
    &["completions"],
    &["man"],
];

#[test]
fn every_command_has_a_description() {
    for command in COMMANDS {
        let ended = run(&[command, &["--help"]].concat());
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{command:?}");
        let text = &ended.stdout;
        assert!(text.contains("Usage: permcached"), "{text}");
        let first = text.lines().next().unwrap();
        assert!(first.split(' ').count() >= 4 && !first.starts_with("Usage"), "{command:?} has no description: {text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let mut listed = 0;
        for section in ["Commands:\n", "Arguments:\n", "Options:\n"] {
            let Some((_, lines)) = text.split_once(section) else { continue };
            for line in lines.lines().take_while(|line| line.starts_with("  ")) {
                // A name, at least two blanks and a description; or the continuation of the description above.
                let (name, what) = line.trim_start().split_once("  ").unwrap_or(("", line));
                assert!(what.trim().split(' ').count() >= 2, "{command:?}: `{name}` has no description:\n{text}");
                listed += 1;
            }
        }
        assert!(listed > 0, "{text}");
    }
}

#[test]
fn the_version_is_the_package_s() {
    let ended = run(&["--version"]);
    assert_eq!((ended.code, ended.stdout), (0, format!("permcached {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_help_lists_the_exit_codes() {
    for command in [&[][..], &["check"], &["explain"], &["list"], &["who"], &["filter"]] {
        let ended = run(&[command, &["--help"]].concat());
        assert!(ended.stdout.contains("Exit codes: 0 allowed"), "{}", ended.stdout);
    }
}
