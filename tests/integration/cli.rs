//! The command line as people and scripts use it: the built binary, its output and its exit codes. What the service answers
//! is tested elsewhere.

mod ask;
mod colors;
mod config;
mod documents;
mod explain;
mod generated;
mod help;
mod hints;
mod lists;
mod questions;
mod schema;
mod serve;

use crate::support::service::{DOCUMENTS, SCHEMA};

const BOB: &str = "user:b0b000000000000000000002";
const ZOE: &str = "user:20e000000000000000000006";
const CONTRACT: &str = "file:f11e00000000000000000002";

/// The arguments, with those that make the command answer in its own process.
fn in_process<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--documents", DOCUMENTS, "--schema", SCHEMA]].concat()
}
