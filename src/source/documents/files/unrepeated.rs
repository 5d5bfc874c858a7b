//! JSON in which no object has a name twice. Which of two values counts is not defined, so neither does.
//!
//! Keeps no value.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};

/// A value of JSON in which no object has a name twice.
pub(super) struct Unrepeated;

impl<'de> Deserialize<'de> for Unrepeated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Check)
    }
}

struct Check;

impl<'de> Visitor<'de> for Check {
    type Value = Unrepeated;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Unrepeated, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = entries.next_key::<String>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format_args!("the field `{name}` occurs twice in the same object")));
            }
            entries.next_value::<Unrepeated>()?;
            names.insert(name);
        }
        Ok(Unrepeated)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Unrepeated, A::Error> {
        while items.next_element::<Unrepeated>()?.is_some() {}
        Ok(Unrepeated)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }

    fn visit_unit<E: Error>(self) -> Result<Unrepeated, E> {
        Ok(Unrepeated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_occurs_twice_in_one_object_is_refused_at_any_depth_and_however_it_is_escaped() {
        for text in [
            r#"{"gone": true, "gone": false}"#,
            r#"{"a": {"gone": 1, "b": 2, "gone": 1}}"#,
            r#"{"a": [1, {"gone": null, "gone": null}]}"#,
            r#"{"gone": "x", "g\u006fne": 1.5}"#,
            r#"{"_id": {"$oid": "a", "gone": 1, "gone": 2}}"#,
        ] {
            let error = serde_json::from_str::<Unrepeated>(text).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("the field `gone` occurs twice"), "{text}: {error}");
        }
        let fine = r#"{"a": {"a": [{"a": -1}, {"a": 18446744073709551615}]}, "b": [null, true, 1e300, "a"], "": {}}"#;
        assert!(serde_json::from_str::<Unrepeated>(fine).is_ok());
    }
}
