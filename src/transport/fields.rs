//! Counts the fields of a request message before the message is decoded, because decoding allocates for each of them: 4 MiB hold
//! two million empty questions, which take 270 MB as structures.
//!
//! Reads the descriptors of the API, so it applies to every request message. Decodes no value.

use std::collections::HashMap;

use prost::Message as _;
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

use super::{
    low_priority::give_way,
    method::Method,
    proto::DESCRIPTORS,
    protobuf::{Fields, Malformed, Value},
    status::Violation,
};

/// The most items that all repeated fields of one request have together.
const ITEMS_MAX: usize = 10_000;

/// The most fields of a request, besides those of its items.
const FIELDS_MAX: usize = 64;

/// The most fields of an item, on average over all items that a request may have.
const ITEM_FIELDS_MAX: usize = 16;

/// How deep messages may be nested. Those of the API are five deep.
const DEPTH_MAX: usize = 16;

/// What a request message contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// The items of its repeated fields.
    pub(super) items: usize,
    /// All of its fields, at every depth.
    pub(super) fields: usize,
}

/// Why a message must not be decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no protobuf message, or has groups, which the API does not use.
    Malformed,
    /// It has too many items or fields.
    TooMany(Violation),
}

/// A field of a message.
#[derive(Debug)]
struct Field {
    number: u64,
    name: String,
    is_repeated: bool,
    /// The place of its message among [`Messages::all`]; none if its value is no message of the API.
    message: Option<usize>,
}

/// The request message of each method.
#[derive(Debug)]
pub(super) struct Messages {
    all: Vec<Vec<Field>>,
    /// The place of each method's request among `all`.
    requests: Vec<(Method, usize)>,
}

impl Messages {
    /// The request messages of every method of the API.
    pub(super) fn of_api() -> Self {
        // A test shows that the descriptors can be read.
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default().file;
        let mut found = Vec::new();
        for file in &files {
            let prefix = format!(".{}", file.package());
            file.message_type.iter().for_each(|message| add_message(&prefix, message, &mut found));
        }
        let places: HashMap<&str, usize> = found.iter().enumerate().map(|(at, (name, _))| (&**name, at)).collect();
        let all = found.iter().map(|(_, message)| fields(message, &places)).collect();
        let mut requests = Vec::new();
        for file in &files {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    requests.extend(Method::at(&path).zip(places.get(method.input_type()).copied()));
                }
            }
        }
        Self { all, requests }
    }

    /// Counts the fields of a method's request message, and stops at the first that is too many.
    pub(super) fn count(&self, method: Method, message: &[u8]) -> Result<Counted, Refused> {
        let place = self.requests.iter().find(|(known, _)| *known == method);
        // A test shows that every method has its request.
        let Some(fields) = place.and_then(|(_, place)| self.all.get(*place)) else { return Err(Refused::Malformed) };
        let has_items = fields.iter().any(|field| field.is_repeated);
        let fields_max = FIELDS_MAX + if has_items { ITEMS_MAX * ITEM_FIELDS_MAX } else { 0 };
        let mut counting = Counting { messages: self, fields_max, counted: Counted::default() };
        counting.add_all(fields, message, 0)?;
        Ok(counting.counted)
    }
}

/// Adds a message type and those inside it, each by its full name.
fn add_message<'a>(prefix: &str, message: &'a DescriptorProto, found: &mut Vec<(String, &'a DescriptorProto)>) {
    let name = format!("{prefix}.{}", message.name());
    message.nested_type.iter().for_each(|nested| add_message(&name, nested, found));
    found.push((name, message));
}

fn fields(message: &DescriptorProto, places: &HashMap<&str, usize>) -> Vec<Field> {
    let fields = message.field.iter().map(|field| Field {
        number: u64::try_from(field.number()).unwrap_or(0),
        name: field.name().to_owned(),
        is_repeated: field.label() == Label::Repeated,
        message: if field.r#type() == Type::Message { places.get(field.type_name()).copied() } else { None },
    });
    fields.collect()
}

/// How many fields are counted until other threads may run: some 10 microseconds.
const FIELDS_AT_ONCE: usize = 512;

/// A count under way.
struct Counting<'a> {
    messages: &'a Messages,
    fields_max: usize,
    counted: Counted,
}

impl Counting<'_> {
    /// Counts the fields of a message.
    fn add_all(&mut self, fields: &[Field], message: &[u8], depth: usize) -> Result<(), Refused> {
        if depth > DEPTH_MAX {
            return Err(Refused::Malformed);
        }
        for found in Fields(message) {
            let (number, value) = found?;
            let field = fields.iter().find(|field| field.number == number);
            self.counted.fields += 1;
            if self.counted.fields.is_multiple_of(FIELDS_AT_ONCE) {
                give_way();
            }
            if self.counted.fields > self.fields_max {
                let name = field.map_or_else(|| format!("field {number}"), |field| field.name.clone());
                let message = "is one field too many in this request: send no field twice, and no unknown fields";
                return Err(Refused::TooMany(Violation::new(name, message)));
            }
            let Some(field) = field else { continue };
            if field.is_repeated {
                self.counted.items += match value {
                    // Packed numbers are one field with at most as many items as bytes.
                    Value::Bytes(bytes) if field.message.is_none() => bytes.len().max(1),
                    Value::Bytes(_) | Value::Varint(_) | Value::Fixed => 1,
                };
                if self.counted.items > ITEMS_MAX {
                    let message = "has too many items: a request has 10,000 at most";
                    return Err(Refused::TooMany(Violation::new(&field.name, message)));
                }
            }
            if let (Value::Bytes(value), Some(inner)) =
                (value, field.message.and_then(|place| self.messages.all.get(place)))
            {
                self.add_all(inner, value, depth + 1)?;
            }
        }
        Ok(())
    }
}

impl From<Malformed> for Refused {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::proto::{BatchCheckRequest, InvalidateRequest, Question, Resource, Subject};

    const CHECK: Method = Method::Check;
    const BATCH: Method = Method::BatchCheck;
    const INVALIDATE: Method = Method::Invalidate;

    fn count(method: Method, message: &[u8]) -> Result<Counted, Refused> {
        Messages::of_api().count(method, message)
    }

    /// The field that has too many items or is one too many.
    fn refused_field(method: Method, message: &[u8]) -> String {
        match count(method, message) {
            Err(Refused::TooMany(violation)) => violation.field,
            other => panic!("{other:?}"),
        }
    }

    fn batch(questions: usize) -> Vec<u8> {
        let question = Question {
            subject: Some(Subject { id: "1".to_owned(), ..Subject::default() }),
            permission: "read".to_owned(),
            resource: Some(Resource { r#type: "file".to_owned(), id: "2".to_owned() }),
        };
        BatchCheckRequest { questions: vec![question; questions], consistency: None, dependencies: false }
            .encode_to_vec()
    }

    #[test]
    fn every_method_of_the_api_has_its_request_message() {
        let messages = Messages::of_api();
        for method in Method::ALL {
            let place = messages.requests.iter().find(|(known, _)| *known == method);
            let fields = place.and_then(|(_, place)| messages.all.get(*place));
            assert!(fields.is_some_and(|fields| !fields.is_empty()), "{method:?}");
        }
    }

    #[test]
    fn items_are_counted_at_every_depth_and_named_with_their_field() {
        assert_eq!(count(BATCH, &batch(3)), Ok(Counted { items: 3, fields: 21 }));
        assert_eq!(count(BATCH, &batch(10_000)), Ok(Counted { items: 10_000, fields: 70_000 }));
        assert_eq!(refused_field(BATCH, &batch(10_001)), "questions");
        assert_eq!(refused_field(BATCH, &[0x0a, 0].repeat(2_000_000)), "questions");
        // The repeated fields of a request count together.
        let subject = Subject { id: "1".to_owned(), ..Subject::default() };
        let request = InvalidateRequest {
            resources: vec![Resource::default(); 5_000],
            subjects: vec![subject; 5_001],
            ..InvalidateRequest::default()
        };
        assert_eq!(refused_field(INVALIDATE, &request.encode_to_vec()), "subjects");
    }

    #[test]
    fn fields_that_are_repeated_unknown_or_nested_are_counted_too() {
        assert_eq!(refused_field(CHECK, &[0x0a, 0].repeat(65)), "subject");
        assert_eq!(refused_field(CHECK, &[0x78, 0].repeat(65)), "field 15");
        let nested = [0x78, 0].repeat(64);
        assert_eq!(refused_field(CHECK, &[&[0x0a, 128, 1][..], &nested].concat()), "field 15");
        let many = [0x78, 0].repeat(160_065);
        assert_eq!(refused_field(BATCH, &many), "field 15");
        assert_eq!(count(CHECK, &[0x0a, 0].repeat(64)), Ok(Counted { items: 0, fields: 64 }));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [
            &[0x0a][..],
            &[0x0a, 5, 1],
            &[0x0b, 0x0c],
            &[0x00, 0],
            &[0x0e],
            &[0xff; 11],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0],
        ] {
            assert_eq!(count(CHECK, bytes), Err(Refused::Malformed), "{bytes:?}");
        }
        assert_eq!(count(CHECK, &[]), Ok(Counted::default()));
    }
}
