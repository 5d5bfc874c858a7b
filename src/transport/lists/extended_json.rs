//! Queries as canonical Extended JSON, in the order of their fields. A query may have 10,000 ids: it is written in pieces between which
//! other threads may run, and no further than it may be sent.
//!
//! Knows no operator.

use std::fmt::Write as _;

use bson::{Bson, Document};
use serde_json::Value;

use crate::transport::low_priority::give_way;

/// How many values are written until other threads may run: some 10 microseconds.
const VALUES_AT_ONCE: usize = 128;

/// The text has more bytes than are allowed: so many, and maybe more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong(pub(super) usize);

/// A query as canonical Extended JSON.
///
/// # Errors
/// It has more bytes than this.
pub(super) fn canonical(query: &Document, bytes_max: usize) -> Result<String, TooLong> {
    let mut writing = Writing { text: String::new(), values: 0, bytes_max };
    writing.document(query)?;
    Ok(writing.text)
}

/// A text that is being written.
struct Writing {
    text: String,
    values: usize,
    bytes_max: usize,
}

impl Writing {
    fn document(&mut self, document: &Document) -> Result<(), TooLong> {
        self.text.push('{');
        for (place, (name, value)) in document.iter().enumerate() {
            if place > 0 {
                self.text.push(',');
            }
            self.quoted(name);
            self.text.push(':');
            self.value(value)?;
        }
        self.text.push('}');
        Ok(())
    }

    fn value(&mut self, value: &Bson) -> Result<(), TooLong> {
        self.values += 1;
        if self.values.is_multiple_of(VALUES_AT_ONCE) {
            give_way();
        }
        match value {
            Bson::Document(document) => self.document(document)?,
            Bson::Array(items) => {
                self.text.push('[');
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        self.text.push(',');
                    }
                    self.value(item)?;
                }
                self.text.push(']');
            }
            // Most values of a long query are ids.
            Bson::ObjectId(id) => {
                // A text takes whatever is written to it.
                let _ok = write!(self.text, "{{\"$oid\":\"{id}\"}}");
            }
            Bson::String(text) => self.quoted(text),
            other => {
                let _ok = write!(self.text, "{}", other.clone().into_canonical_extjson());
            }
        }
        if self.text.len() > self.bytes_max { Err(TooLong(self.text.len())) } else { Ok(()) }
    }

    fn quoted(&mut self, text: &str) {
        let _ok = write!(self.text, "{}", Value::from(text));
    }
}

#[cfg(test)]
mod tests {
    use bson::{Binary, DateTime, Decimal128, Timestamp, doc, oid::ObjectId, spec::BinarySubtype};

    use super::*;

    #[test]
    fn a_query_is_written_as_the_driver_writes_it_in_the_order_of_its_fields() {
        let binary = |subtype, bytes| Bson::Binary(Binary { subtype, bytes });
        let query = doc! {
            "z": { "$in": [ObjectId::from_bytes([7; 12]), "x \"quoted\" \u{2028} \u{0} é \\", 5_i32, -5_i64, 0.5, f64::NAN, f64::INFINITY] },
            "a": { "$not": { "$gt": DateTime::from_millis(1_763_900_000_123) }, "$type": ["date", "null"] },
            "\"$odd\"": [true, null, DateTime::from_millis(i64::MIN), DateTime::from_millis(253_402_300_800_000)],
            "$and": [{}, { "$or": [] }, { "u": binary(BinarySubtype::Uuid, vec![1; 16]), "b": binary(BinarySubtype::Generic, vec![0, 255]) }],
            "d": Bson::Decimal128("1.50".parse::<Decimal128>().unwrap()),
            "t": Bson::Timestamp(Timestamp { time: 7, increment: 8 }),
            "m": [Bson::MinKey, Bson::MaxKey, Bson::Undefined],
        };
        let text = canonical(&query, usize::MAX).unwrap();
        assert_eq!(text, Bson::from(query.clone()).into_canonical_extjson().to_string());
        // NaN is not equal to itself.
        let read: Bson = serde_json::from_str::<Value>(&text).unwrap().try_into().unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", Bson::from(query)));
        assert_eq!(canonical(&Document::new(), usize::MAX).unwrap(), "{}");
    }

    #[test]
    fn a_text_is_written_no_further_than_it_may_be_sent() {
        let ids: Vec<String> = (0..1_000).map(|number| format!("{number:0>100}")).collect();
        let query = doc! { "_id": { "$in": ids } };
        let whole = canonical(&query, usize::MAX).unwrap();
        assert_eq!(canonical(&query, whole.len()).as_deref(), Ok(&*whole));
        let Err(TooLong(bytes)) = canonical(&query, 10_000) else { panic!("it is too long") };
        assert!((10_001..10_200).contains(&bytes), "{bytes}");
    }
}
