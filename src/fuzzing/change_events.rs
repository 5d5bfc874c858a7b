//! Change events: any event marks what it may have changed.

use super::SCHEMA;
use crate::source::mongodb;

/// Reads a change event in BSON.
pub fn change_events(data: &[u8]) {
    mongodb::fuzzing::event(&SCHEMA, data);
}
