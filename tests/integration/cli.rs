//! The command line as a person and a script meet it: the built binary, its words and its exit codes.

mod ask;
mod config;
mod documents;
mod explain;
mod help;
mod hints;
mod questions;
mod schema;
mod serve;

use crate::support::service::{DOCUMENTS, SCHEMA};

const BOB: &str = "user:b0b000000000000000000002";
const ZOE: &str = "user:20e000000000000000000006";
const CONTRACT: &str = "file:f11e00000000000000000002";

/// The arguments with those that answer in process.
fn in_process<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--documents", DOCUMENTS, "--schema", SCHEMA]].concat()
}
