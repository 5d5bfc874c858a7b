//! Finds the places of the values and keys in a JSON text.
//!
//! Checks nothing: the text must be known to be JSON.

use std::collections::HashSet;

use crate::schema::error::Span;

/// The place of a JSON value, and the places of everything in it.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) span: Span,
    /// The keys of an object, in order; empty for anything else.
    pub(super) keys: Vec<Span>,
    /// The values of an object or the items of an array, in order.
    pub(super) parts: Vec<Places>,
}

impl Places {
    /// Finds the places in `text`, relative to its start.
    pub(super) fn of(text: &str) -> Self {
        Scanner { text: text.as_bytes(), position: 0 }.value()
    }

    /// The first key of an object that repeats an earlier one.
    pub(super) fn repeated_key(&self, text: &str) -> Option<Span> {
        let mut seen = HashSet::new();
        self.keys.iter().find(|key| !seen.insert(text.get((*key).clone()))).cloned()
    }
}

struct Scanner<'a> {
    text: &'a [u8],
    position: usize,
}

impl Scanner<'_> {
    /// Moves to the next byte that is not blank, a comma or a colon, and returns it.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.position)?;
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':') {
                return Some(byte);
            }
            self.position += 1;
        }
    }

    fn value(&mut self) -> Places {
        let open = self.peek();
        let start = self.position;
        let (mut keys, mut parts) = (Vec::new(), Vec::new());
        match open {
            Some(b'{' | b'[') => {
                self.position += 1;
                while !matches!(self.peek(), None | Some(b'}' | b']')) {
                    if open == Some(b'{') {
                        keys.push(self.scalar());
                        self.peek();
                    }
                    parts.push(self.value());
                }
                self.position = self.text.len().min(self.position + 1);
            }
            _ => {
                self.scalar();
            }
        }
        Places { span: start..self.position, keys, parts }
    }

    /// Scans a string, a number or a word.
    fn scalar(&mut self) -> Span {
        let start = self.position;
        let rest = self.text.get(start..).unwrap_or_default();
        let length = if let Some(inside) = rest.strip_prefix(b"\"") {
            let mut is_escaped = false;
            let end = inside.iter().position(|byte| {
                let is_end = *byte == b'"' && !is_escaped;
                is_escaped = *byte == b'\\' && !is_escaped;
                is_end
            });
            end.map_or(rest.len(), |end| end + 2)
        } else {
            let is_end = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | b'}' | b']');
            rest.iter().position(is_end).unwrap_or(rest.len())
        };
        // Consume at least one byte, so that the scanner ends for any text.
        self.position = self.text.len().min(start + length.max(1));
        start..self.position
    }
}
