//! Decodes documents of MongoDB field by field, so that one bad field spoils neither its document nor the others of a reply.
//!
//! mongod checks neither that text is UTF-8 nor that a document has each name once, so whoever may write a document may write
//! such a one. A value that cannot be decoded, and a field whose name its document has twice, become
//! [`unreadable`]. Decides nothing about what follows from that.

use std::borrow::Cow;

use bson::{Bson, Document, RawBsonRef, RawDocument, RawDocumentBuf, raw::RawElement};

use crate::schema::unreadable;

/// How deeply documents are decoded. mongod stores none that nest deeper than 200 levels.
pub(super) const DEPTH_MAX: usize = 256;

/// A field that every projection names, and that no document has.
pub(super) const NO_FIELD: &str = "no document has this field";

/// A field that queries for filtered facts add to each document: whether a name occurs twice in it.
pub(super) const REPEATED: &str = "a name occurs twice";

/// The field of a document's id.
const ID: &str = "_id";

/// The type bytes of a document and of an array.
const CONTAINERS: [u8; 2] = [0x03, 0x04];

/// A document, and what could not be decoded in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Decoded {
    /// The document, with [`unreadable`] in place of what cannot be decoded, and of each field whose name occurs twice.
    pub(super) document: Document,
    /// If a name occurs twice: the document with the first value of each name, which is the one that mongod compares.
    firsts: Option<Document>,
    /// The first top-level field in which something cannot be read. Its name is empty if it is not a text.
    pub(super) unreadable_field: Option<String>,
}

impl Decoded {
    /// Decodes a document.
    pub(super) fn of(raw: &RawDocument) -> Self {
        let mut decoding = Decoding { repeated: Repeated::IsUnreadable, has_repeated: false, has_unreadable: false };
        let mut unreadable_field = None;
        let document = decoding.document(raw, 0, &mut unreadable_field);
        let firsts = decoding.has_repeated.then(|| {
            let mut decoding = Decoding { repeated: Repeated::FirstCounts, ..decoding };
            decoding.document(raw, 0, &mut None)
        });
        Self { document, firsts, unreadable_field }
    }

    /// Decodes a document that a `find` has returned with a projection of `fields` and of [`NO_FIELD`].
    ///
    /// mongod stops reading a document once it has found as many fields as the projection names. If a name occurs twice, what
    /// comes later is then missing from the reply, a second value of any field included. So if there are that many, no field
    /// can be relied on. Otherwise there are fewer, as no document has a field [`NO_FIELD`].
    pub(super) fn projected(raw: &RawDocument, fields: &[Box<str>]) -> Self {
        let mut decoded = Self::of(raw);
        // With `_id`, which is always returned, and `NO_FIELD`.
        let projected = fields.iter().filter(|field| ***field != *ID).count() + 2;
        let (mut found, mut is_broken) = (0, false);
        elements(raw, &mut |element| {
            found += 1;
            is_broken |= matches!(element, Element::Broken);
        });
        // What stands behind an element without an end cannot be seen.
        if is_broken || found >= projected {
            for field in fields.iter().filter(|field| ***field != *ID) {
                decoded.document.insert(&**field, unreadable());
            }
            decoded.unreadable_field.get_or_insert_with(|| NO_FIELD.to_owned());
        }
        decoded
    }

    /// Decodes a document that a query for filtered facts has returned, which has the field [`REPEATED`]. Of a name that
    /// occurs twice, mongod returns one value only. So if there is such a name, no field can be relied on.
    pub(super) fn filtered(raw: &RawDocument, fields: &[Box<str>]) -> Self {
        let mut decoded = Self::of(raw);
        let is_repeated = decoded.document.remove(REPEATED) != Some(Bson::Boolean(false));
        if is_repeated || decoded.firsts.is_some() {
            for field in fields.iter().filter(|field| ***field != *ID) {
                decoded.document.insert(&**field, unreadable());
            }
            decoded.unreadable_field.get_or_insert_with(|| REPEATED.to_owned());
        }
        decoded
    }

    /// The document as mongod compares it with a query, as far as it can be decoded: of the fields with the same name, the
    /// first. It tells by which keys the document is found.
    pub(super) fn as_matched(&self) -> &Document {
        self.firsts.as_ref().unwrap_or(&self.document)
    }

    /// Whether there is anything that cannot be read.
    pub(super) fn has_unreadable(&self) -> bool {
        self.unreadable_field.is_some()
    }
}

/// What a field becomes whose name its document has twice.
#[derive(Clone, Copy, PartialEq)]
enum Repeated {
    IsUnreadable,
    FirstCounts,
}

struct Decoding {
    repeated: Repeated,
    has_repeated: bool,
    /// Whether something could not be read since this was last set to false.
    has_unreadable: bool,
}

impl Decoding {
    /// Decodes a document. `field` becomes the name of the first field in which something cannot be read.
    fn document(&mut self, raw: &RawDocument, depth: usize, field: &mut Option<String>) -> Document {
        let mut document = Document::new();
        let mut had_unreadable = std::mem::take(&mut self.has_unreadable);
        elements(raw, &mut |element| {
            let (name, value) = match element {
                Element::Whole(element) => (Cow::Borrowed(element.key().as_str()), self.element(&element, depth)),
                Element::Loose { name, kind, bytes } => match std::str::from_utf8(name) {
                    Ok(name) => (Cow::Borrowed(name), self.loose(kind, bytes, depth)),
                    Err(_) => (String::from_utf8_lossy(name), self.unreadable()),
                },
                Element::Broken => (Cow::Borrowed(""), self.unreadable()),
            };
            self.put(&mut document, &name, value);
            if std::mem::take(&mut self.has_unreadable) {
                had_unreadable = true;
                field.get_or_insert_with(|| name.into_owned());
            }
        });
        self.has_unreadable = had_unreadable;
        document
    }

    fn put(&mut self, document: &mut Document, name: &str, value: Bson) {
        match (document.get_mut(name), self.repeated) {
            (None, _) => {
                document.insert(name, value);
            }
            (Some(_), Repeated::FirstCounts) => {}
            (Some(earlier), Repeated::IsUnreadable) => {
                self.has_repeated = true;
                *earlier = self.unreadable();
            }
        }
    }

    fn element(&mut self, element: &RawElement<'_>, depth: usize) -> Bson {
        match element.value() {
            Ok(value) => self.value(value, depth),
            Err(_) => self.unreadable(),
        }
    }

    fn value(&mut self, value: RawBsonRef<'_>, depth: usize) -> Bson {
        match value {
            RawBsonRef::Document(_) | RawBsonRef::Array(_) if depth >= DEPTH_MAX => self.unreadable(),
            RawBsonRef::Document(inner) => Bson::Document(self.document(inner, depth + 1, &mut None)),
            RawBsonRef::Array(items) => match RawDocument::from_bytes(items.as_bytes()) {
                Ok(items) => self.array(items, depth + 1),
                Err(_) => self.unreadable(),
            },
            value => Bson::try_from(value).unwrap_or_else(|_| self.unreadable()),
        }
    }

    /// Decodes an array. Its elements are in order, whatever their names are.
    fn array(&mut self, raw: &RawDocument, depth: usize) -> Bson {
        let mut items = Vec::new();
        elements(raw, &mut |element| {
            items.push(match element {
                Element::Whole(element) => self.element(&element, depth),
                Element::Loose { kind, bytes, .. } => self.loose(kind, bytes, depth),
                Element::Broken => self.unreadable(),
            });
        });
        Bson::Array(items)
    }

    /// Decodes a value by its type and its bytes.
    fn loose(&mut self, kind: u8, bytes: &[u8], depth: usize) -> Bson {
        if CONTAINERS.contains(&kind) {
            return match RawDocument::from_bytes(bytes) {
                Ok(_) if depth >= DEPTH_MAX => self.unreadable(),
                Ok(inner) if kind == CONTAINERS[0] => Bson::Document(self.document(inner, depth + 1, &mut None)),
                Ok(items) => self.array(items, depth + 1),
                Err(_) => self.unreadable(),
            };
        }
        // The library decodes elements of documents only. This document has no other element, and its name is empty.
        let alone = alone(kind, bytes);
        let element = alone.as_ref().and_then(|alone| alone.iter_elements().next()?.ok());
        match element {
            Some(element) => self.element(&element, depth),
            None => self.unreadable(),
        }
    }

    fn unreadable(&mut self) -> Bson {
        self.has_unreadable = true;
        unreadable()
    }
}

/// One element of a document or of an array.
enum Element<'a> {
    /// The library can tell where it ends, and its name is a text.
    Whole(RawElement<'a>),
    /// The library does not get past it.
    Loose { name: &'a [u8], kind: u8, bytes: &'a [u8] },
    /// It is not known where it ends. It is the last one.
    Broken,
}

/// Visits every element of a document. The library's iterator ends at the first element that it cannot decode; from there on,
/// the elements are found here.
fn elements<'a>(raw: &'a RawDocument, visit: &mut impl FnMut(Element<'a>)) {
    let mut rest = raw.as_bytes().get(4..).unwrap_or_default();
    for element in raw.iter_elements() {
        let Ok(element) = element else { break };
        // A type byte, the name, a NUL, and the value.
        rest = rest.get(element.key().as_str().len() + 2 + element.size()..).unwrap_or_default();
        visit(Element::Whole(element));
    }
    loop {
        match rest {
            [0] => return,
            _ => match split(rest) {
                Some((element, after)) => {
                    visit(element);
                    rest = after;
                }
                None => return visit(Element::Broken),
            },
        }
    }
}

/// Splits off the first element; none if it is not known where it ends.
fn split(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let (name, rest) = until_nul(rest)?;
    let size = match kind {
        // Numbers and times.
        0x01 | 0x09 | 0x11 | 0x12 => 8,
        0x10 => 4,
        0x13 => 16,
        // Text, code and symbols: a length and as many bytes.
        0x02 | 0x0D | 0x0E => length(rest)?.checked_add(4)?,
        // Documents, arrays and code with scope: the length counts its own bytes.
        0x03 | 0x04 | 0x0F => length(rest)?,
        // Binary data: a length, a subtype, and as many bytes.
        0x05 => length(rest)?.checked_add(5)?,
        // A pointer: a text and an ObjectId.
        0x0C => length(rest)?.checked_add(16)?,
        0x07 => 12,
        0x08 => 1,
        // A regular expression: two texts that end with a NUL.
        0x0B => {
            let (pattern, options) = until_nul(rest)?;
            pattern.len() + until_nul(options)?.0.len() + 2
        }
        // Undefined, null, and the least and the greatest key.
        0x06 | 0x0A | 0x7F | 0xFF => 0,
        _ => return None,
    };
    let (value, after) = rest.split_at_checked(size)?;
    Some((Element::Loose { name, kind: *kind, bytes: value }, after))
}

/// Splits at the first NUL, which is in neither part.
fn until_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..at)?, bytes.get(at.checked_add(1)?..)?))
}

/// The length that the bytes begin with.
fn length(bytes: &[u8]) -> Option<usize> {
    usize::try_from(i32::from_le_bytes(*bytes.first_chunk()?)).ok()
}

/// A document whose only element has this type and this value, and an empty name.
fn alone(kind: u8, value: &[u8]) -> Option<RawDocumentBuf> {
    let length = i32::try_from(value.len().checked_add(7)?).ok()?;
    let bytes = [&length.to_le_bytes(), [kind, 0].as_slice(), value, &[0]].concat();
    RawDocumentBuf::from_bytes(bytes).ok()
}

#[cfg(test)]
mod tests {
    use bson::{Binary, Decimal128, JavaScriptCodeWithScope, Regex, Timestamp, oid::ObjectId, spec::BinarySubtype};
    use proptest::{
        collection::{btree_map, vec},
        prelude::*,
    };

    use super::*;

    fn names() -> impl Strategy<Value = String> {
        "[a-c$.é]{0,3}"
    }

    fn values() -> impl Strategy<Value = Bson> {
        let leaf = prop_oneof![
            any::<f64>().prop_map(Bson::Double),
            any::<i32>().prop_map(Bson::Int32),
            any::<i64>().prop_map(Bson::Int64),
            any::<bool>().prop_map(Bson::Boolean),
            any::<String>().prop_map(Bson::String),
            any::<String>().prop_map(Bson::Symbol),
            any::<String>().prop_map(Bson::JavaScriptCode),
            any::<[u8; 12]>().prop_map(|id| Bson::ObjectId(ObjectId::from_bytes(id))),
            any::<[u8; 16]>().prop_map(|bytes| Bson::Decimal128(Decimal128::from_bytes(bytes))),
            any::<i64>().prop_map(|millis| Bson::DateTime(bson::DateTime::from_millis(millis))),
            any::<(u32, u32)>().prop_map(|(time, increment)| Bson::Timestamp(Timestamp { time, increment })),
            vec(any::<u8>(), 0..9).prop_map(|bytes| Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes })),
            ("[a-z]{0,3}", "[imsx]{0,1}").prop_map(|(pattern, options)| {
                let (pattern, options) = (pattern.try_into().unwrap(), options.try_into().unwrap());
                Bson::RegularExpression(Regex { pattern, options })
            }),
            prop_oneof![Just(Bson::Null), Just(Bson::Undefined), Just(Bson::MinKey), Just(Bson::MaxKey)],
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..5).prop_map(Bson::Array),
                btree_map(names(), inner.clone(), 0..5).prop_map(|fields| Bson::Document(fields.into_iter().collect())),
                btree_map(names(), inner, 0..3).prop_map(|fields| {
                    let scope = fields.into_iter().collect();
                    Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: "f".to_owned(), scope })
                }),
            ]
        })
    }

    fn documents() -> impl Strategy<Value = Document> {
        btree_map(names(), values(), 0..6).prop_map(|fields| fields.into_iter().collect())
    }

    /// As bytes, so that NaN is equal to itself.
    fn encoded(document: &Document) -> Vec<u8> {
        RawDocumentBuf::try_from(document).unwrap().into_bytes()
    }

    proptest! {
        #[test]
        fn a_document_without_anything_wrong_is_decoded_as_the_library_does(document in documents()) {
            let raw = RawDocumentBuf::try_from(&document).unwrap();
            let decoded = Decoded::of(&raw);
            prop_assert_eq!(encoded(&decoded.document), raw.as_bytes());
            prop_assert_eq!(&decoded.unreadable_field, &None);
            prop_assert_eq!(encoded(decoded.as_matched()), raw.as_bytes());
        }

        #[test]
        fn no_bytes_break_the_decoding_and_what_the_library_decodes_has_the_same_values(
            document in documents(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let mut bytes = encoded(&document);
            let inner = 4..bytes.len() - 1;
            for (place, byte) in changes.into_iter().filter(|_| !inner.is_empty()) {
                bytes[inner.start + place.index(inner.len())] = byte;
            }
            let raw = RawDocumentBuf::from_bytes(bytes).unwrap();
            let decoded = Decoded::of(&raw);
            if let Ok(document) = Document::try_from(raw) {
                prop_assert!(decoded.has_unreadable() || encoded(&decoded.document) == encoded(&document));
            }
        }

        #[test]
        fn a_name_that_occurs_twice_has_no_value_and_mongod_compares_the_first(
            document in documents(),
            place in any::<prop::sample::Index>(),
            second in values(),
        ) {
            prop_assume!(!document.is_empty());
            let name = document.keys().nth(place.index(document.len())).unwrap();
            let mut bytes = encoded(&document);
            bytes.pop();
            let more = Document::from_iter([(name.clone(), second)]);
            bytes.extend_from_slice(&encoded(&more)[4..]);
            let length = i32::try_from(bytes.len()).unwrap();
            bytes[..4].copy_from_slice(&length.to_le_bytes());
            let decoded = Decoded::of(&RawDocumentBuf::from_bytes(bytes).unwrap());
            prop_assert_eq!(decoded.document.get(name), Some(&unreadable()));
            prop_assert_eq!(decoded.unreadable_field.as_ref(), Some(name));
            prop_assert_eq!(encoded(decoded.as_matched()), encoded(&document));
        }
    }
}
