//! `completions` and `man`: what is made of the command line's own description.

use std::fs;

use super::help::COMMANDS;
use crate::support::command::run;

#[test]
fn every_shell_has_a_completion_script_that_knows_every_command() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ended = run(&["completions", shell]);
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{shell}");
        for name in COMMANDS.iter().flat_map(|command| command.iter()) {
            assert!(ended.stdout.contains(name), "{shell}: `{name}` is missing");
        }
    }
    let ended = run(&["completions", "command.com"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("[possible values: bash, elvish, fish, powershell, zsh]"), "{ended:?}");
}

#[test]
fn the_manual_page_names_every_command() {
    let ended = run(&["man"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    assert!(ended.stdout.contains(".TH permcached 1"), "{ended:?}");
    for command in COMMANDS.iter().filter(|command| command.len() == 1) {
        let reference = format!("permcached\\-{}(1)", command[0]);
        assert!(ended.stdout.contains(&reference), "{reference}: {ended:?}");
    }
}

#[test]
fn the_pages_of_all_commands_are_written_into_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("share/man1");
    let ended = run(&["man", "--out", pages.to_str().unwrap()]);
    assert_eq!((ended.code, ended.output().as_str()), (0, ""), "{ended:?}");
    for command in COMMANDS {
        let name = [&["permcached"], command].concat().join("-");
        let page =
            fs::read_to_string(pages.join(format!("{name}.1"))).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let ended = run(&["man", "--out", file.to_str().unwrap()]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.starts_with("error: cannot write to `"), "{ended:?}");
}
