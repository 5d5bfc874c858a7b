//! The form in which documents write an id as text: `role:{id}`.
//!
//! Knows no forms of ids: the text in place of `{id}` is read elsewhere.

/// What stands for the id.
const ID: &str = "{id}";

/// A form of ids as text: what stands before and after the id. Both may be empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    prefix: Box<str>,
    suffix: Box<str>,
}

impl Format {
    /// Reads a format.
    ///
    /// # Errors
    /// What is wrong with it, as the predicate of a sentence.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (prefix, suffix) = text.split_once(ID).ok_or("has no `{id}`")?;
        if suffix.contains(ID) {
            return Err("has `{id}` more than once");
        }
        Ok(Self { prefix: prefix.into(), suffix: suffix.into() })
    }

    /// What stands before and after the id.
    pub(crate) fn parts(&self) -> [&str; 2] {
        [&self.prefix, &self.suffix]
    }

    /// The part of a text that stands in place of `{id}`; none if the text lacks the parts around it.
    pub(crate) fn id_in<'a>(&self, text: &'a str) -> Option<&'a str> {
        text.strip_prefix(&*self.prefix)?.strip_suffix(&*self.suffix)
    }

    /// The text for an id.
    pub(crate) fn text(&self, id: &str) -> String {
        [&*self.prefix, id, &*self.suffix].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_around_an_id_must_be_there_and_must_not_overlap() {
        for (format, text, id) in [
            ("{id}", "", Some("")),
            ("{id}", "a b", Some("a b")),
            ("role:{id}", "role:admin", Some("admin")),
            ("role:{id}", "role:", Some("")),
            ("role:{id}", "Role:admin", None),
            ("role:{id}", "admin", None),
            ("_User${id}", "_User$u1", Some("u1")),
            ("<{id}>", "<<a>>", Some("<a>")),
            ("aba{id}aba", "ababa", None),
            ("aba{id}aba", "abaaba", Some("")),
            ("é{id}", "é1", Some("1")),
            ("{id}{}", "1{}", Some("1")),
        ] {
            let format = Format::parse(format).unwrap();
            assert_eq!(format.id_in(text), id, "{format:?} {text}");
            assert!(id.is_none_or(|id| format.text(id) == text));
        }
        assert!(["", "{ID}", "id", "{id", "{id}{id}", "{id}:{id}"].iter().all(|text| Format::parse(text).is_err()));
    }
}
