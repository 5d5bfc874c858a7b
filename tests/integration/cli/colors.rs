//! Colours in what commands print: on a terminal and where they are forced, and nowhere else.

use super::{BOB, CONTRACT, ZOE, in_process};
use crate::support::{
    command::{command, run, run_on_terminal, schema_file},
    service::{DOCUMENTS, SCHEMA},
};

const ESCAPE: char = '\u{1b}';

/// A command for each kind of output that has colours: an answer, a tree, the log, schema errors and diagnoses.
fn commands(broken_schema: &str) -> Vec<Vec<String>> {
    let owned = |arguments: &[&str]| arguments.iter().map(|&argument| argument.to_owned()).collect();
    vec![
        owned(&in_process(&["check", BOB, "read", CONTRACT])),
        owned(&in_process(&["explain", ZOE, "read", CONTRACT])),
        // The collections have no file there, which is logged.
        owned(&["check", BOB, "read", CONTRACT, "--documents", "schemas", "--schema", SCHEMA]),
        owned(&["schema", "check", broken_schema]),
        owned(&["doctor", "--documents", DOCUMENTS, "--schema", SCHEMA]),
    ]
}

#[test]
fn colors_are_for_terminals_only_and_follow_the_usual_variables() {
    let (_directory, broken_schema) = schema_file("default_subject = \"user\"\n");
    for arguments in commands(&broken_schema) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let plain = |text: String| assert!(!text.contains(ESCAPE), "{arguments:?}: {text}");
        let colored = |text: String| assert!(text.contains(ESCAPE), "{arguments:?}: {text}");
        plain(run(&arguments).output());
        plain(run_on_terminal(&arguments, &[("TERM", "xterm"), ("NO_COLOR", "1")]));
        plain(run_on_terminal(&arguments, &[("TERM", "dumb")]));
        colored(run_on_terminal(&arguments, &[("TERM", "xterm")]));
    }
}

#[test]
fn clicolor_force_shows_colors_in_a_pipe() {
    let arguments = in_process(&["explain", ZOE, "read", CONTRACT]);
    let output = command(&arguments, &[("CLICOLOR_FORCE", "1")]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("\u{1b}[31mdenied\u{1b}[0m: "), "{text}");
}

/// The line of what is being done ends with a carriage return, and is gone at the end.
#[test]
fn what_a_long_command_is_doing_is_shown_on_terminals_only() {
    let test = ["schema", "test", "schemas/fylora.test.toml"];
    let shown = run_on_terminal(&test, &[("TERM", "xterm")]);
    assert!(shown.contains("asking 308 questions …") && shown.contains("reading documents …"), "{shown:?}");
    let doctor = ["doctor", "--documents", DOCUMENTS, "--schema", SCHEMA];
    assert!(run_on_terminal(&doctor, &[("TERM", "xterm")]).contains("\rexamining …"));
    for arguments in [&test[..], &doctor] {
        let piped = run(arguments).output();
        assert!(!piped.contains('\r') && !piped.contains('…'), "{piped:?}");
    }
}
