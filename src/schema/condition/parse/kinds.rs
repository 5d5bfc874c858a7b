//! Parses the operands of tests of bits and of types.
//!
//! Evaluates nothing.

use bson::{
    Bson,
    spec::{BinarySubtype, ElementType},
};

use super::Parser;
use crate::schema::{
    condition::Mask,
    error::SchemaError,
    node::{Node, Value},
    number::whole_number,
    types::{self, NUMBER, NUMBERS, named, numbered},
};

/// The maximal length of a mask in binary data.
const MASK_BYTES_MAX: usize = 1_024;

impl Parser<'_> {
    /// Parses a mask: a number, a list of the positions of bits, or binary data.
    pub(super) fn mask(&mut self, operator: &str, node: &Node) -> Option<Mask> {
        let help = "for the bits with the values 1 and 4: 5, or their positions: [0, 2]";
        let mask = match &node.value {
            Value::List(items) => {
                let mut positions = Vec::new();
                for item in items {
                    let Some(position) = position(item) else {
                        let message = format!("the position of a bit is a whole number from 0 to {}", i32::MAX);
                        return self.wrong(SchemaError::new(&item.span, message).help(help));
                    };
                    positions.push(position);
                }
                Some(Mask::of_positions(positions))
            }
            Value::Scalar(Bson::Binary(binary)) if binary.bytes.len() > MASK_BYTES_MAX => {
                let message = format!("`{operator}` takes at most {MASK_BYTES_MAX} bytes of binary data");
                return self.wrong(SchemaError::new(&node.span, message).help("list the positions of the bits"));
            }
            Value::Scalar(Bson::Binary(binary)) if binary.subtype != BinarySubtype::Generic => {
                let message = format!("`{operator}` takes binary data of subtype 00 only");
                return self.wrong(SchemaError::new(&node.span, message).help("list the positions of the bits"));
            }
            Value::Scalar(Bson::Binary(binary)) => Some(Mask::of_bytes(&binary.bytes)),
            Value::Scalar(value) => {
                whole_number(value).and_then(|number| u64::try_from(number).ok()).map(Mask::of_number)
            }
            Value::Table(_) => None,
        };
        let message = match mask {
            Some(mask) if !mask.is_empty() => return Some(mask),
            Some(_) => format!("`{operator}` tests no bit"),
            None if matches!(&node.value, Value::Scalar(value) if is_number(value)) => {
                format!("`{operator}` expects a whole number that is not negative and fits in 64 bits")
            }
            None => {
                format!("`{operator}` expects a number, a list of positions or binary data, not {}", node.describe())
            }
        };
        self.wrong(SchemaError::new(&node.span, message).help(help))
    }

    /// Parses the types of `$type`: one, or a list, by names or numbers.
    pub(super) fn types(&mut self, node: &Node) -> Option<Vec<ElementType>> {
        let items = node.items();
        if items.is_empty() {
            let help = format!("for example: {}", self.example("[\"string\", \"number\"]"));
            return self.wrong(SchemaError::new(&node.span, "`$type` lists no type").help(help));
        }
        let mut types = Vec::new();
        for item in items {
            match self.kinds_of(item) {
                Some(found) => types.extend(found),
                None => return None,
            }
        }
        Some(types)
    }

    fn kinds_of(&mut self, item: &Node) -> Option<Vec<ElementType>> {
        match &item.value {
            Value::Scalar(Bson::String(name)) if name == NUMBER => Some(NUMBERS.to_vec()),
            Value::Scalar(Bson::String(name)) => match named(name) {
                Some(kind) => Some(vec![kind]),
                None if name == "missing" => {
                    let help = format!("for a missing field: {}", self.example("{ \"$exists\": false }"));
                    self.wrong(SchemaError::new(&item.span, "`missing` is not a type of values").help(help))
                }
                None => {
                    let names = types::names().chain([NUMBER]);
                    let error = SchemaError::new(&item.span, format!("unknown type `{name}`"));
                    self.wrong(error.suggesting(name, names))
                }
            },
            Value::Scalar(value) if is_number(value) => match whole_number(value).and_then(numbered) {
                Some(kind) => Some(vec![kind]),
                None => {
                    let help = "write its name, for example \"string\", or for any number \"number\"";
                    self.wrong(SchemaError::new(&item.span, "no type of MongoDB has this number").help(help))
                }
            },
            Value::Scalar(_) | Value::List(_) | Value::Table(_) => {
                let help = "write its name, for example \"string\", or a list of names";
                let message = format!("`$type` expects the name of a type, not {}", item.describe());
                self.wrong(SchemaError::new(&item.span, message).help(help))
            }
        }
    }
}

/// A whole number that is the position of a bit, or the size of an array.
pub(super) fn position(node: &Node) -> Option<u32> {
    let Value::Scalar(value) = &node.value else { return None };
    let number = i32::try_from(whole_number(value)?).ok()?;
    u32::try_from(number).ok()
}

fn is_number(value: &Bson) -> bool {
    matches!(value, Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_))
}
