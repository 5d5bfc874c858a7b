//! The value that stands for one that cannot be read: text that is not UTF-8, or a field whose name its document has twice.
//!
//! Decodes nothing: a source puts this value into the documents that it returns. What follows from it is decided where
//! relations are read from documents.

use bson::Bson;

/// Its text. A document that really has this code as a value is treated the same: code is no id, no date and no operand.
const TEXT: &str = "\u{fffd}";

/// A value that stands for one that cannot be read. It has a type that no id, no date and no operand of a condition has.
#[must_use]
pub fn unreadable() -> Bson {
    Bson::JavaScriptCode(TEXT.to_owned())
}

/// Whether the value is [`unreadable`] or contains such a value at any depth.
pub(super) fn has_unreadable(value: &Bson) -> bool {
    match value {
        Bson::JavaScriptCode(text) => text == TEXT,
        Bson::Array(items) => items.iter().any(has_unreadable),
        Bson::Document(document) => document.values().any(has_unreadable),
        _ => false,
    }
}
