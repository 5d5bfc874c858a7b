//! `--help` of each command: every argument and option says what it is, within the width of a terminal.

use crate::support::command::run;

const COMMANDS: [&[&str]; 15] = [
    &[],
    &["serve"],
    &["check"],
    &["explain"],
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
];

#[test]
fn every_command_explains_itself() {
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
                // A name in its column, two blanks at least, and what it is; or the rest of what was begun above.
                let (name, what) = line.trim_start().split_once("  ").unwrap_or(("", line));
                assert!(what.trim().split(' ').count() >= 2, "{command:?}: `{name}` is not explained:\n{text}");
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

/// What scripts go by stands where people look for it.
#[test]
fn exit_codes_are_told() {
    for command in [&[][..], &["check"], &["explain"]] {
        let ended = run(&[command, &["--help"]].concat());
        assert!(ended.stdout.contains("Exit codes: 0 allowed"), "{}", ended.stdout);
    }
}
