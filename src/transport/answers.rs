//! Writes the responses of `Check` and `BatchCheck`: each answer straight into the bytes that are sent.
//!
//! `convert` has the answers of the other methods.

use std::fmt::Write as _;

use axum::body::Bytes;
use prost::{Message, encoding::encode_varint};
use tonic_types::pb;

use super::{
    convert,
    message::{PREFIX_BYTES, set_prefix},
};
use crate::{check::Checked, freshness::Token, question::Answer, schema::Schema};

/// What an answer takes, if its names are not long.
const ANSWER_BYTES: usize = 80;

/// A response that is being written.
pub(super) struct Answers<'a> {
    schema: &'a Schema,
    bytes: Vec<u8>,
    /// The last token and its text: most answers of a response have the same.
    token: Option<(Token, String)>,
}

impl<'a> Answers<'a> {
    /// A response with so many answers.
    pub(super) fn new(schema: &'a Schema, count: usize) -> Self {
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + count * ANSWER_BYTES);
        bytes.extend([0; PREFIX_BYTES]);
        Self { schema, bytes, token: None }
    }

    /// Adds the answer of a `CheckResponse`.
    pub(super) fn add(&mut self, checked: &Checked) {
        self.nested(1, |this| this.write(checked));
    }

    /// Adds a result of a `BatchCheckResponse`: an answer.
    pub(super) fn add_result(&mut self, checked: &Checked) {
        self.nested(1, |this| this.add(checked));
    }

    /// Adds a result of a `BatchCheckResponse`: an error.
    pub(super) fn add_error(&mut self, error: &pb::Status) {
        self.nested(1, |this| this.nested(2, |this| error.encode_raw(&mut this.bytes)));
    }

    /// The response, with its prefix.
    pub(super) fn finish(mut self) -> Bytes {
        set_prefix(&mut self.bytes, 0);
        // What the client does not take stays in memory for a while.
        if self.bytes.capacity() > 2 * self.bytes.len() {
            self.bytes.shrink_to_fit();
        }
        self.bytes.into()
    }

    /// Writes the fields of an `Answer`. Those with the default value are left out.
    fn write(&mut self, checked: &Checked) {
        let Checked { answer, may_change_at: _, tier, as_of, age, is_stale } = *checked;
        match answer {
            Answer::Allowed { by, .. } => {
                self.number(1, 1);
                if let Some(by) = by {
                    self.text(3, &self.schema.relation_name_parts(by));
                }
            }
            Answer::Denied(reason) => self.number(2, enumeration(convert::reason(reason).into())),
        }
        self.number(4, enumeration(convert::tier(tier).into()));
        self.write_token(as_of);
        if let Ok(age) = prost_types::Duration::try_from(age) {
            self.nested(6, |this| age.encode_raw(&mut this.bytes));
        }
        if let Answer::Allowed { valid_until: Some(until), .. } = answer {
            self.nested(7, |this| convert::timestamp(until).encode_raw(&mut this.bytes));
        }
        self.number(8, u64::from(is_stale));
    }

    fn write_token(&mut self, token: Token) {
        let text = match self.token.take() {
            Some((last, text)) if last == token => text,
            Some((_, mut text)) => {
                text.clear();
                // A text takes whatever is written to it.
                let _ok = write!(text, "{token}");
                text
            }
            None => token.to_string(),
        };
        self.text(5, &[&text]);
        self.token = Some((token, text));
    }

    fn number(&mut self, number: u64, value: u64) {
        if value != 0 {
            encode_varint(number << 3, &mut self.bytes);
            encode_varint(value, &mut self.bytes);
        }
    }

    /// Writes a text that consists of these parts, and is not empty.
    fn text(&mut self, number: u64, parts: &[&str]) {
        self.nested(number, |this| parts.iter().for_each(|part| this.bytes.extend_from_slice(part.as_bytes())));
    }

    /// Writes a field with a length before it, which is known once it has been written. Most need one byte for that.
    fn nested(&mut self, number: u64, write: impl FnOnce(&mut Self)) {
        encode_varint(number << 3 | 2, &mut self.bytes);
        let place = self.bytes.len();
        self.bytes.push(0);
        write(self);
        let length = self.bytes.len() - place - 1;
        match u8::try_from(length) {
            Ok(length @ ..128) => {
                if let Some(byte) = self.bytes.get_mut(place) {
                    *byte = length;
                }
            }
            _ => {
                let mut prefix = Vec::new();
                encode_varint(u64::try_from(length).unwrap_or(u64::MAX), &mut prefix);
                self.bytes.splice(place..=place, prefix);
            }
        }
    }
}

/// The value of an enumeration of the API: none is negative.
fn enumeration(value: i32) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        freshness::{Clock, Moment},
        question::{Reason, RelationId, Tier},
        transport::{
            message,
            proto::{BatchCheckResponse, CheckResponse, batch_check_response},
        },
    };

    const SCHEMA: &str = r#"
        default_subject = "user"
        [subject.user]
        [resource.file]
        collection = "files"
        [resource.file.relations]
        owner = { field = "owner_id" }
        NAME = { field = "other_id" }
        [resource.file.permissions]
        read = "owner | NAME"
    "#;

    fn schema() -> Schema {
        // Its answer does not fit into a length of one byte.
        let text = SCHEMA.replace("NAME", &"long_".repeat(24));
        Schema::parse("schema.toml", &text).unwrap_or_else(|errors| panic!("{}", errors.render(false)))
    }

    fn checked() -> impl Strategy<Value = Checked> {
        let allowed = (prop::option::of(0..2_u16), prop::option::of(any::<i64>()))
            .prop_map(|(by, valid_until)| Answer::Allowed { by: by.map(RelationId), valid_until });
        let denied = prop::sample::select(Reason::ALL.to_vec()).prop_map(Answer::Denied);
        let tier = prop::sample::select(vec![Tier::Memory, Tier::Redis, Tier::Source]);
        let clock = prop::sample::select(vec![Clock::Cluster, Clock::Revision, Clock::Local]);
        let token = (clock, prop_oneof![0..3_u64, any::<u64>()])
            .prop_map(|(clock, count)| Token { clock, moment: Moment::from_count(count) });
        let age = prop_oneof![Just(Duration::ZERO), any::<Duration>()];
        (prop_oneof![allowed, denied], tier, token, age, any::<bool>()).prop_map(
            |(answer, tier, as_of, age, is_stale)| Checked { answer, may_change_at: None, tier, as_of, age, is_stale },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn answers_are_written_as_prost_writes_them(all in prop::collection::vec(checked(), 1..5), error in "\\PC{0,200}") {
            use batch_check_response::{Result, result::Outcome};
            let schema = schema();
            let mut answers = Answers::new(&schema, 1);
            answers.add(&all[0]);
            let whole = CheckResponse { answer: Some(convert::answer(&schema, &all[0])) };
            prop_assert_eq!(answers.finish(), message::encode(&whole));
            let error = pb::Status { code: 3, message: error, details: Vec::new() };
            let mut answers = Answers::new(&schema, all.len());
            for checked in &all {
                answers.add_result(checked);
            }
            answers.add_error(&error);
            let outcomes = all.iter().map(|checked| Outcome::Answer(convert::answer(&schema, checked)));
            let results = outcomes.chain([Outcome::Error(error)]).map(|outcome| Result { outcome: Some(outcome) });
            prop_assert_eq!(answers.finish(), message::encode(&BatchCheckResponse { results: results.collect() }));
        }
    }
}
