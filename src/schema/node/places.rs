//! Where the parts of a JSON text stand. For text that is JSON already: nothing is checked here.

use std::collections::HashSet;

use crate::schema::error::Span;

/// The place of a JSON value, and of all that is in it.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) span: Span,
    /// The keys of an object, in order; empty for anything else.
    pub(super) keys: Vec<Span>,
    /// The values of an object or the items of an array, in order.
    pub(super) parts: Vec<Places>,
}

impl Places {
    /// Finds the parts of `text`. Places are relative to it.
    pub(super) fn of(text: &str) -> Self {
        Scanner { text: text.as_bytes(), position: 0 }.value()
    }

    /// The first key of an object that is there already.
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
    /// Goes to the next byte that is not blank, a comma or a colon, and looks at it.
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

    /// A string, a number or a word.
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
        // At least one byte, so that the scanner ends whatever the text.
        self.position = self.text.len().min(start + length.max(1));
        start..self.position
    }
}
