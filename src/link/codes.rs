//! Message authentication codes: an instance recognises by them what another instance with the same secret has written to
//! Redis (docs/redis.md, "Who can write to Redis").
//!
//! A code says who wrote something, and not when: whether a fact still counts, and what a change batch means, is decided
//! elsewhere. The lease has no code, as nothing but speed depends on it.

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::{Secrets, names};
use crate::{
    source::Identity,
    telemetry::{Metrics, RateLimitedLog},
};

/// How many bytes of HMAC-SHA256 are kept. A forger has one chance in 2^128 for each attempt.
pub const CODE_BYTES: usize = 16;

/// The codes of an instance: a key for each purpose, so that what was written for one is not accepted for another.
#[derive(Clone, Debug)]
pub struct Codes {
    /// For facts. The context is the key in Redis.
    pub facts: Authenticator,
    /// For change batches, on their channel and in the log.
    pub change_batches: Authenticator,
    /// For hints.
    pub hints: Authenticator,
}

impl Codes {
    /// The codes for what [`Names::new`](super::Names::new) gives names to. The keys depend on all that the names depend on,
    /// but on the whole of it and not on a short hash.
    pub(super) fn new(secrets: &Secrets, source: &Identity, fingerprint: [u8; 32], format: u32) -> Self {
        let space = names::space(source, fingerprint, format);
        let derive = |purpose, place: &str| Authenticator::new(secrets, purpose, place);
        Self {
            facts: derive("fact", &space),
            change_batches: derive("change batch", &space),
            hints: derive("hint", &names::place(source)),
        }
    }
}

/// Signs and recognises what is written for one purpose.
#[derive(Clone)]
pub struct Authenticator {
    /// One state for each secret, with its key already taken in. The first one signs.
    states: Arc<[Hmac<Sha256>]>,
}

impl Authenticator {
    fn new(secrets: &Secrets, purpose: &str, place: &str) -> Self {
        let state = |secret| {
            let mut derivation = hmac(&Sha256::digest(secret));
            // Neither a purpose nor what `Debug` prints contains a zero byte.
            derivation.update(purpose.as_bytes());
            derivation.update(&[0]);
            derivation.update(place.as_bytes());
            hmac(&derivation.finalize().into_bytes())
        };
        Self { states: secrets.reveal().map(state).collect() }
    }

    /// The content with its code before it. `context` is not part of the result: it must be the same when the content is
    /// opened.
    #[must_use]
    pub fn sign(&self, context: &[u8], content: &[u8]) -> Vec<u8> {
        let mut signed = Vec::with_capacity(CODE_BYTES + content.len());
        if let Some(state) = self.states.first() {
            let code = taken_in(state, context, content).finalize().into_bytes();
            signed.extend(code.iter().take(CODE_BYTES));
        }
        signed.extend(content);
        signed
    }

    /// The content of what another instance with one of these secrets has signed in this context; none for anything else.
    #[must_use]
    pub fn open<'a>(&self, context: &[u8], signed: &'a [u8]) -> Option<&'a [u8]> {
        let (code, content) = signed.split_at_checked(CODE_BYTES)?;
        let is_by = |state| taken_in(state, context, content).verify_truncated_left(code).is_ok();
        self.states.iter().any(is_by).then_some(content)
    }
}

/// The state after a context and a content. The length of the context separates the two.
fn taken_in(state: &Hmac<Sha256>, context: &[u8], content: &[u8]) -> Hmac<Sha256> {
    let mut state = state.clone();
    let length = u64::try_from(context.len()).unwrap_or(u64::MAX);
    state.update(&length.to_be_bytes());
    state.update(context);
    state.update(content);
    state
}

/// HMAC-SHA256 with a key of 32 bytes, which zeros fill up to a block as its definition requires.
fn hmac(key: &[u8]) -> Hmac<Sha256> {
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    Hmac::new(&block)
}

/// Shows no key.
impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticator({} hidden)", self.states.len())
    }
}

/// What was found in Redis without a valid code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unauthentic {
    /// The value of a fact's key.
    Fact,
    /// A message on the channel of change batches.
    ChangeBatch,
    /// An entry of the log.
    LogEntry,
    /// A message on the channel of hints.
    Hint,
}

impl Unauthentic {
    /// Shows the counter of each kind, before anything is found.
    pub fn show_all(metrics: &Metrics) {
        for what in [Self::Fact, Self::ChangeBatch, Self::LogEntry, Self::Hint] {
            metrics.may_find_unauthentic(what.as_str());
        }
    }

    /// The name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fact => "fact",
            Self::ChangeBatch => "change_batch",
            Self::LogEntry => "log_entry",
            Self::Hint => "hint",
        }
    }

    /// Counts it, and logs it at most once a minute. It is ignored.
    pub fn report(self, metrics: &Metrics) {
        static FACTS: RateLimitedLog = RateLimitedLog::per_minute(1);
        static CHANGE_BATCHES: RateLimitedLog = RateLimitedLog::per_minute(1);
        static LOG_ENTRIES: RateLimitedLog = RateLimitedLog::per_minute(1);
        static HINTS: RateLimitedLog = RateLimitedLog::per_minute(1);
        let log = match self {
            Self::Fact => &FACTS,
            Self::ChangeBatch => &CHANGE_BATCHES,
            Self::LogEntry => &LOG_ENTRIES,
            Self::Hint => &HINTS,
        };
        metrics.unauthentic(self.as_str());
        if let Some(suppressed) = log.admit() {
            tracing::warn!(
                what = self.as_str(),
                suppressed,
                remedy = "set the same REDIS_SECRET on all instances, and let no other client write to `pc:*` (docs/redis.md)",
                "something in Redis has no valid code, so it is ignored"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    fn secrets(list: &[u8]) -> Secrets {
        let list: Vec<String> = list.iter().map(|number| format!("{number:02x}").repeat(32)).collect();
        Secrets::parse(&list.join(",")).expect("they are valid")
    }

    fn identity(set: &str, database: &str, uuid: u8) -> Identity {
        let collections = vec![("files".to_owned(), Some([uuid; 16]))];
        Identity { set: Some(set.to_owned()), database: database.to_owned(), collections }
    }

    fn codes(list: &[u8]) -> Codes {
        Codes::new(&secrets(list), &identity("rs0", "app", 1), [1; 32], 1)
    }

    static CODES: LazyLock<Codes> = LazyLock::new(|| codes(&[1, 2]));

    proptest! {
        #[test]
        fn whatever_differs_from_what_was_signed_is_refused(
            context in prop::collection::vec(any::<u8>(), 0..40),
            content in prop::collection::vec(any::<u8>(), 0..300),
            place in any::<prop::sample::Index>(),
            change in 1..=u8::MAX,
        ) {
            let signed = CODES.facts.sign(&context, &content);
            prop_assert_eq!(signed.len(), content.len() + CODE_BYTES);
            prop_assert_eq!(CODES.facts.open(&context, &signed), Some(content.as_slice()));
            // One byte changed, left out or added.
            let place = place.index(signed.len());
            let mut changed = signed.clone();
            changed[place] ^= change;
            prop_assert_eq!(CODES.facts.open(&context, &changed), None);
            prop_assert_eq!(CODES.facts.open(&context, &signed[..place]), None);
            let longer = [signed.as_slice(), &[change]].concat();
            prop_assert_eq!(CODES.facts.open(&context, &longer), None);
            // Another context, also one that only moves the border between the two.
            prop_assert_eq!(CODES.facts.open(&[context.as_slice(), &[change]].concat(), &signed), None);
            let (code, rest) = signed.split_at(CODE_BYTES);
            if let Some((first, rest)) = rest.split_first() {
                let moved = [context.as_slice(), &[*first]].concat();
                let rest = [code, rest].concat();
                prop_assert_eq!(CODES.facts.open(&moved, &rest), None);
            }
            // Another purpose.
            prop_assert_eq!(CODES.change_batches.open(&context, &signed), None);
            prop_assert_eq!(CODES.hints.open(&context, &signed), None);
        }
    }

    #[test]
    fn nothing_opens_what_another_database_schema_or_format_has_signed_except_that_hints_reach_all_of_a_database() {
        let own = codes(&[1]);
        let of = |source: Identity, fingerprint, format| Codes::new(&secrets(&[1]), &source, [fingerprint; 32], format);
        let others = [
            (of(identity("rs0", "app", 2), 1, 1), true),
            (of(identity("rs0", "app", 1), 2, 1), true),
            (of(identity("rs0", "app", 1), 1, 2), true),
            (of(identity("rs0", "staging", 1), 1, 1), false),
            (of(identity("rs1", "app", 1), 1, 1), false),
        ];
        for (other, shares_hints) in others {
            for (own, other, opens) in [
                (&own.facts, &other.facts, false),
                (&own.change_batches, &other.change_batches, false),
                (&own.hints, &other.hints, shares_hints),
            ] {
                assert_eq!(own.open(b"", &other.sign(b"", b"content")).is_some(), opens, "{other:?}");
            }
        }
    }

    #[test]
    fn the_first_secret_signs_and_every_listed_one_is_accepted() {
        let [old, both, swapped, new, other] = [&[1][..], &[1, 2], &[2, 1], &[2], &[3]].map(codes);
        let steps = [&old, &both, &swapped, &new];
        for (writer, readers) in steps.iter().zip([
            [true, true, true, false],
            [true, true, true, false],
            [false, true, true, true],
            [false, true, true, true],
        ]) {
            let signed = writer.hints.sign(b"", b"content");
            for (reader, opens) in steps.iter().zip(readers) {
                assert_eq!(reader.hints.open(b"", &signed).is_some(), opens);
            }
            assert_eq!(other.hints.open(b"", &signed), None);
        }
    }

    /// Computed independently, with the HMAC of another language's standard library.
    #[test]
    fn a_code_is_a_truncated_hmac_of_the_context_and_the_content() {
        let signed = codes(&[1]).facts.sign(b"key", b"content");
        let code = u128::from_str_radix("90e30b141fb6db5bd0fb93ae9f37a7e5", 16).expect("it is hexadecimal");
        assert_eq!(signed.split_at(CODE_BYTES).0, code.to_be_bytes());
    }

    #[test]
    fn no_key_is_shown() {
        assert_eq!(format!("{:?}", codes(&[1, 2]).facts), "Authenticator(2 hidden)");
    }
}
