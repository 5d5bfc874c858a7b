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
use crate::{
    check::{Checked, Dependencies},
    freshness::Token,
    question::Answer,
    schema::Schema,
};

/// What an answer takes, if its names are not long.
const ANSWER_BYTES: usize = 80;

/// A response of at least this many bytes gets no further dependencies: those of 10,000 answers would take more than clients accept.
const DEPENDENCIES_UNTIL: usize = 1_024 * 1_024;

/// A response that is being written.
pub(super) struct Answers<'a> {
    schema: &'a Schema,
    /// The domain of the dependencies.
    domain: u64,
    bytes: Vec<u8>,
    /// The last token and its text: most answers of a response have the same.
    token: Option<(Token, String)>,
}

impl<'a> Answers<'a> {
    /// A response with so many answers.
    pub(super) fn new(schema: &'a Schema, domain: u64, count: usize) -> Self {
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + count * ANSWER_BYTES);
        bytes.extend([0; PREFIX_BYTES]);
        Self { schema, domain, bytes, token: None }
    }

    /// Adds the answer of a `CheckResponse`, and what it depends on if the request asks for that.
    pub(super) fn add(&mut self, checked: &Checked, dependencies: Option<&Dependencies>) {
        self.nested(1, |this| {
            this.write(checked);
            if let Some(dependencies) = dependencies.filter(|_| this.bytes.len() < DEPENDENCIES_UNTIL) {
                let message = convert::dependencies(dependencies, this.domain);
                this.nested(9, |this| message.encode_raw(&mut this.bytes));
            }
        });
    }

    /// Adds a result of a `BatchCheckResponse`: an answer.
    pub(super) fn add_result(&mut self, checked: &Checked, dependencies: Option<&Dependencies>) {
        self.nested(1, |this| this.add(checked, dependencies));
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
            proto::{self, BatchCheckResponse, CheckResponse, batch_check_response},
        },
    };

    const DOMAIN: u64 = 7;
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

    fn depends_on() -> impl Strategy<Value = Option<Dependencies>> {
        let names = prop::collection::vec(any::<u64>(), 1..65).prop_map(Vec::into_boxed_slice);
        let valid_for = prop::option::of((0..u64::MAX / 2).prop_map(Duration::from_millis));
        prop::option::of((names, any::<u64>(), valid_for).prop_map(|(names, oldest, valid_for)| Dependencies {
            names,
            oldest: Moment::from_count(oldest),
            valid_for,
        }))
    }

    #[test]
    fn a_large_response_gets_no_further_dependencies() {
        let schema = schema();
        let depends_on = Dependencies { names: (0..64).collect(), oldest: Moment::default(), valid_for: None };
        let checked = Checked {
            answer: Answer::Denied(Reason::NoGrant),
            may_change_at: None,
            tier: Tier::Memory,
            as_of: Token { clock: Clock::Cluster, moment: Moment::default() },
            age: Duration::ZERO,
            is_stale: false,
        };
        let mut answers = Answers::new(&schema, DOMAIN, 10_000);
        (0..10_000).for_each(|_| answers.add_result(&checked, Some(&depends_on)));
        let bytes = answers.finish();
        assert!((DEPENDENCIES_UNTIL..2 * DEPENDENCIES_UNTIL).contains(&bytes.len()), "{}", bytes.len());
        let response: BatchCheckResponse = message::decode(message::only(&bytes).unwrap()).unwrap();
        let has_some = |result: &batch_check_response::Result| match &result.outcome {
            Some(batch_check_response::result::Outcome::Answer(answer)) => answer.depends_on.is_some(),
            outcome => panic!("{outcome:?}"),
        };
        assert!(response.results.iter().is_sorted_by_key(|result| !has_some(result)), "the first ones have theirs");
        assert!(has_some(&response.results[0]) && !has_some(&response.results[9_999]));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn answers_are_written_as_prost_writes_them(all in prop::collection::vec((checked(), depends_on()), 1..5), error in "\\PC{0,200}") {
            use batch_check_response::{Result, result::Outcome};
            let schema = schema();
            let mut answers = Answers::new(&schema, DOMAIN, 1);
            answers.add(&all[0].0, all[0].1.as_ref());
            let answer = |(checked, depends_on): &(Checked, Option<Dependencies>)| proto::Answer {
                depends_on: depends_on.as_ref().map(|depends_on| convert::dependencies(depends_on, DOMAIN)),
                ..convert::answer(&schema, checked)
            };
            let whole = CheckResponse { answer: Some(answer(&all[0])) };
            prop_assert_eq!(answers.finish(), message::encode(&whole));
            let error = pb::Status { code: 3, message: error, details: Vec::new() };
            let mut answers = Answers::new(&schema, DOMAIN, all.len());
            for (checked, depends_on) in &all {
                answers.add_result(checked, depends_on.as_ref());
            }
            answers.add_error(&error);
            let outcomes = all.iter().map(|each| Outcome::Answer(answer(each)));
            let results = outcomes.chain([Outcome::Error(error)]).map(|outcome| Result { outcome: Some(outcome) });
            prop_assert_eq!(answers.finish(), message::encode(&BatchCheckResponse { results: results.collect() }));
        }
    }
}
