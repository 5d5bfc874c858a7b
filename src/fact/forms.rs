//! The other forms of an id: the closed list of values that applications write in place of an id's declared form
//! (docs/schema.md, "Ids in another form"). A lookup that serves a relation under a `!` searches for all of them.
//!
//! A document that is found by one of them grants nothing: that is decided where relations are read from documents.

use bson::{Binary, Bson, oid::ObjectId, spec::BinarySubtype};

use super::value::{id_of_any_form, id_to_bson};
use crate::question::{Id, IdForm};

/// The number of bytes of an `ObjectId` and of a UUID.
const OBJECT_ID_BYTES: usize = 12;
const UUID_BYTES: usize = 16;

/// The orders in which drivers have stored the bytes of a UUID: the standard one, that of the legacy C# driver, and that of
/// the legacy Java driver.
const UUID_ORDERS: [[usize; UUID_BYTES]; 3] = [
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15],
    [7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8],
];

/// The values that mean the id in another than its declared form, which is the form of `id` itself.
pub(crate) fn other_forms(id: &Id) -> Vec<Bson> {
    let mut forms = match id {
        Id::ObjectId(bytes) => of_object_id(*bytes),
        Id::Uuid(bytes) => of_uuid(*bytes),
        Id::Integer(number) => vec![Bson::String(number.to_string())],
        Id::String(text) => of_text(text),
        // A secret is never looked up.
        Id::Digest(_) => Vec::new(),
    };
    let declared = id_to_bson(id);
    forms.retain(|form| *form != declared);
    forms
}

/// Visits each id of one of these forms that a value means in another than the id's declared form: the inverse of
/// [`other_forms`].
pub(super) fn ids_of_other_forms(value: &Bson, forms: &[IdForm], visit: &mut impl FnMut(Id)) {
    let mut candidates = Vec::new();
    match value {
        Bson::String(text) | Bson::Symbol(text) => candidates.extend(of_text(text)),
        Bson::Binary(Binary { bytes, .. }) => {
            if let Ok(bytes) = <[u8; OBJECT_ID_BYTES]>::try_from(bytes.as_slice()) {
                candidates.extend(of_object_id(bytes));
            }
            if let Ok(bytes) = <[u8; UUID_BYTES]>::try_from(bytes.as_slice()) {
                // Each order is its own inverse.
                candidates.extend(UUID_ORDERS.iter().flat_map(|order| of_uuid(ordered(bytes, order))));
            }
        }
        Bson::ObjectId(id) => candidates.extend(of_object_id(id.bytes())),
        value => candidates.extend(id_of_any_form(value).map(|id| Bson::String(id.to_string()))),
    }
    let mut ids: Vec<Id> = candidates.iter().filter_map(id_of_any_form).collect();
    ids.sort_unstable();
    ids.dedup();
    let is_meant = |id: &Id| forms.contains(&form_of(id)) && other_forms(id).iter().any(|form| is_equal(form, value));
    ids.into_iter().filter(is_meant).for_each(visit);
}

/// Whether mongod takes both values for equal. Numbers of different types are, and so are texts and symbols.
fn is_equal(one: &Bson, other: &Bson) -> bool {
    one == other || id_of_any_form(one).is_some_and(|id| id_of_any_form(other) == Some(id))
}

fn form_of(id: &Id) -> IdForm {
    match id {
        Id::ObjectId(_) => IdForm::ObjectId,
        Id::Integer(_) => IdForm::Integer,
        Id::Uuid(_) => IdForm::Uuid,
        Id::String(_) | Id::Digest(_) => IdForm::String,
    }
}

fn of_object_id(bytes: [u8; OBJECT_ID_BYTES]) -> Vec<Bson> {
    let text = Id::ObjectId(bytes).to_string();
    let upper = text.to_uppercase();
    vec![Bson::ObjectId(ObjectId::from_bytes(bytes)), text.into(), upper.into(), binary(BinarySubtype::Generic, &bytes)]
}

fn of_uuid(bytes: [u8; UUID_BYTES]) -> Vec<Bson> {
    let text = Id::Uuid(bytes).to_string();
    let digits = text.replace('-', "");
    let mut forms: Vec<Bson> = [text.to_uppercase(), digits.to_uppercase(), text, digits].map(Bson::String).into();
    forms.push(binary(BinarySubtype::Generic, &bytes));
    for order in &UUID_ORDERS {
        let bytes = ordered(bytes, order);
        forms.extend([BinarySubtype::Uuid, BinarySubtype::UuidOld].map(|subtype| binary(subtype, &bytes)));
    }
    forms
}

/// The forms of the id that a text spells. A text that spells no id of another form has none. Neither has one with small and
/// capital letters: a document with another form of it could not tell which letters are which.
fn of_text(text: &str) -> Vec<Bson> {
    let lower = text.to_ascii_lowercase();
    if lower != text && text.to_ascii_uppercase() != text {
        return Vec::new();
    }
    let hyphenated = if lower.len() == 2 * UUID_BYTES && lower.is_ascii() { hyphenated(&lower) } else { lower.clone() };
    let spelled = [
        Id::parse(&lower, IdForm::ObjectId, false),
        Id::parse(&hyphenated, IdForm::Uuid, false),
        Id::parse(text, IdForm::Integer, false),
    ];
    let mut forms = Vec::new();
    for id in spelled.into_iter().flatten() {
        match id {
            Id::ObjectId(bytes) => forms.extend(of_object_id(bytes)),
            Id::Uuid(bytes) => forms.extend(of_uuid(bytes)),
            Id::Integer(number) => forms.push(Bson::Int64(number)),
            Id::String(_) | Id::Digest(_) => {}
        }
    }
    forms
}

/// 32 hex digits, grouped as a UUID.
fn hyphenated(digits: &str) -> String {
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if matches!(place, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

fn ordered(bytes: [u8; UUID_BYTES], order: &[usize; UUID_BYTES]) -> [u8; UUID_BYTES] {
    order.map(|place| bytes.get(place).copied().unwrap_or_default())
}

fn binary(subtype: BinarySubtype, bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype, bytes: bytes.to_vec() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ids() -> impl Strategy<Value = Id> {
        prop_oneof![
            any::<[u8; 12]>().prop_map(Id::ObjectId),
            any::<[u8; 16]>().prop_map(Id::Uuid),
            any::<i64>().prop_map(Id::Integer),
            "[0-9a-f]{24}|[0-9A-F]{24}|[0-9a-fA-F]{24}".prop_map(|text| Id::String(text.into())),
            "[0-9a-f]{32}|[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}".prop_map(|text| Id::String(text.into())),
            "-?[0-9]{1,19}|[a-zA-Z0-9 ]{1,8}".prop_map(|text| Id::String(text.into())),
        ]
    }

    fn meant(value: &Bson) -> BTreeSet<Id> {
        let mut ids = BTreeSet::new();
        ids_of_other_forms(value, &IdForm::ALL, &mut |id| {
            ids.insert(id);
        });
        ids
    }

    proptest! {
        #[test]
        fn a_value_means_exactly_the_ids_that_search_for_it(id in ids()) {
            for form in other_forms(&id) {
                let meant = meant(&form);
                prop_assert!(meant.contains(&id), "{form} means {meant:?}");
                for other in meant {
                    prop_assert!(other_forms(&other).iter().any(|searched| is_equal(searched, &form)), "{other:?}");
                }
            }
        }

        #[test]
        fn no_other_form_is_the_declared_one(id in ids()) {
            prop_assert!(other_forms(&id).iter().all(|form| id_of_any_form(form).as_ref() != Some(&id)));
        }
    }

    #[test]
    fn the_list_of_forms_is_closed() {
        let texts =
            |id: &Id| other_forms(id).iter().filter_map(|form| form.as_str().map(str::to_owned)).collect::<Vec<_>>();
        let count = |id: &Id| other_forms(id).len();
        let oid = Id::ObjectId([0xab; 12]);
        assert_eq!((texts(&oid), count(&oid)), (vec!["ab".repeat(12), "AB".repeat(12)], 3));
        let uuid = Id::parse("00112233-4455-6677-8899-aabbccddeeff", IdForm::Uuid, false).unwrap();
        assert_eq!((texts(&uuid).len(), count(&uuid)), (4, 10));
        assert_eq!(other_forms(&Id::Integer(-5)), [Bson::String("-5".to_owned())]);
        assert_eq!(other_forms(&Id::String("5".into())), [Bson::Int64(5)]);
        let text = Id::String("ab".repeat(12).into());
        assert_eq!((texts(&text), count(&text)), (vec!["AB".repeat(12)], 3));
        for plain in ["aB".repeat(12).as_str(), "eng", "05", "5.0", "+5", "9223372036854775808", "zz", "*"] {
            assert_eq!(other_forms(&Id::String(plain.into())), [], "{plain}");
        }
        let csharp = binary(
            BinarySubtype::UuidOld,
            &[0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff],
        );
        let java = binary(
            BinarySubtype::UuidOld,
            &[0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88],
        );
        assert!(other_forms(&uuid).contains(&csharp) && other_forms(&uuid).contains(&java));
    }
}
