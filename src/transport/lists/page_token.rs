//! Page tokens: where the next page of a list begins. A token is opaque to callers, and is parsed like anything that an unidentified client may send.
//!
//! It holds no secret and grants nothing: each page is answered for what its request asks. So it is not signed: a forged token can
//! only begin a page elsewhere.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::{
    question::{ID_BYTES_MAX, Id, IdForm},
    schema::Schema,
};

/// The version of the format.
const VERSION: u8 = 1;

/// The bytes of the schema's fingerprint that a token has.
const FINGERPRINT_BYTES: usize = 8;

/// The bytes of the request's hash that a token has.
const REQUEST_BYTES: usize = 16;

/// The longest token that is read, in characters.
const CHARS_MAX: usize = (1 + FINGERPRINT_BYTES + REQUEST_BYTES + 1 + ID_BYTES_MAX).div_ceil(3) * 4;

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PageTokenError {
    /// It is none of this service's tokens.
    #[error("is not a page token: pass on `next_page_token` unchanged, or leave it empty for the first page")]
    Malformed,
    /// It is of another version of permcached.
    #[error("is of another version of permcached: begin again with the first page")]
    Version,
    /// It is of another schema.
    #[error("is of another schema: begin again with the first page")]
    Schema,
    /// It is of another request.
    #[error(
        "is of another request: apart from `page_size` and `consistency`, every field must be as for the page before"
    )]
    Request,
}

/// What a token must agree with: the schema and the request, whose pages it leads through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paged {
    fingerprint: [u8; FINGERPRINT_BYTES],
    request: [u8; REQUEST_BYTES],
    /// Whether ids are secret, so that the token contains their digests.
    is_secret: bool,
    form: IdForm,
}

impl Paged {
    /// The pages of a request. `fields` is everything by which it differs from others, apart from where its page begins; `form` is the
    /// form of the ids that are listed, and `is_secret` whether they are secret.
    pub(super) fn new(schema: &Schema, fields: &[&str], form: IdForm, is_secret: bool) -> Self {
        let mut hash = Sha256::new();
        for field in fields {
            hash.update(u64::try_from(field.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(field);
        }
        Self { fingerprint: first(&schema.fingerprint()), request: first(&hash.finalize().into()), is_secret, form }
    }

    /// The token of the page that begins after this id.
    pub(super) fn token(&self, after: &Id) -> String {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(VERSION);
        bytes.extend(self.fingerprint);
        bytes.extend(self.request);
        match after {
            Id::ObjectId(id) => tagged(&mut bytes, 1, id),
            Id::Integer(id) => tagged(&mut bytes, 2, &id.to_le_bytes()),
            Id::Uuid(id) => tagged(&mut bytes, 3, id),
            Id::String(id) => tagged(&mut bytes, 4, id.as_bytes()),
            Id::Digest(id) => tagged(&mut bytes, 5, id),
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The id after which the page of this token begins; none for the empty token of the first page.
    ///
    /// # Errors
    /// [`PageTokenError`].
    pub(super) fn after(&self, token: &str) -> Result<Option<Id>, PageTokenError> {
        if token.is_empty() {
            return Ok(None);
        }
        if token.len() > CHARS_MAX {
            return Err(PageTokenError::Malformed);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| PageTokenError::Malformed)?;
        let (version, rest) = bytes.split_first().ok_or(PageTokenError::Malformed)?;
        if *version != VERSION {
            return Err(PageTokenError::Version);
        }
        let (fingerprint, rest) = rest.split_first_chunk().ok_or(PageTokenError::Malformed)?;
        let (request, rest) = rest.split_first_chunk().ok_or(PageTokenError::Malformed)?;
        let (tag, id) = rest.split_first().ok_or(PageTokenError::Malformed)?;
        let id = read_id(*tag, id).ok_or(PageTokenError::Malformed)?;
        if *fingerprint != self.fingerprint {
            return Err(PageTokenError::Schema);
        }
        if *request != self.request {
            return Err(PageTokenError::Request);
        }
        if self.may_list(&id) { Ok(Some(id)) } else { Err(PageTokenError::Malformed) }
    }

    /// Whether the pages can contain this id.
    fn may_list(&self, id: &Id) -> bool {
        match id {
            Id::Digest(_) => self.is_secret,
            Id::ObjectId(_) => !self.is_secret && self.form == IdForm::ObjectId,
            Id::Integer(_) => !self.is_secret && self.form == IdForm::Integer,
            Id::Uuid(_) => !self.is_secret && self.form == IdForm::Uuid,
            Id::String(text) => {
                !self.is_secret && self.form == IdForm::String && Id::parse(text, IdForm::String, false).is_ok()
            }
        }
    }
}

fn tagged(bytes: &mut Vec<u8>, tag: u8, id: &[u8]) {
    bytes.push(tag);
    bytes.extend(id);
}

fn read_id(tag: u8, bytes: &[u8]) -> Option<Id> {
    Some(match tag {
        1 => Id::ObjectId(bytes.try_into().ok()?),
        2 => Id::Integer(i64::from_le_bytes(bytes.try_into().ok()?)),
        3 => Id::Uuid(bytes.try_into().ok()?),
        4 => Id::String(str::from_utf8(bytes).ok()?.into()),
        5 => Id::Digest(bytes.try_into().ok()?),
        _ => return None,
    })
}

/// The first bytes of a hash.
fn first<const N: usize>(hash: &[u8; 32]) -> [u8; N] {
    let mut first = [0; N];
    first.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    first
}

/// Reads a text as the token of each kind of page. If `is_own` is set, the bytes are made the rest of a token whose version, schema and
/// request are right.
#[cfg(any(test, fuzzing))]
pub(crate) fn test_page_token(schema: &Schema, is_own: bool, text: &[u8]) {
    for form in IdForm::ALL {
        for is_secret in [false, true] {
            let paged = Paged::new(schema, &["ListResources", "user:1", "read", "file", ""], form, is_secret);
            let token = if is_own {
                let head = [&[VERSION][..], &paged.fingerprint, &paged.request].concat();
                URL_SAFE_NO_PAD.encode([&*head, text].concat())
            } else {
                String::from_utf8_lossy(text).into_owned()
            };
            match paged.after(&token) {
                Ok(Some(id)) => assert_eq!(paged.token(&id), token, "a token has one spelling"),
                Ok(None) => assert!(token.is_empty(), "only the empty token begins with the first page"),
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCHEMA: &str = r#"
        default_subject = "user"
        [subject.user]
        [resource.file]
        collection = "files"
        [resource.file.relations]
        owner = { field = "owner_id" }
        [resource.file.permissions]
        read = "owner"
    "#;

    fn schema(text: &str) -> Schema {
        Schema::parse("schema.toml", text).unwrap()
    }

    fn paged(form: IdForm, is_secret: bool) -> Paged {
        Paged::new(&schema(SCHEMA), &["user", "1", "read", "file", ""], form, is_secret)
    }

    fn ids() -> Vec<(IdForm, bool, Id)> {
        vec![
            (IdForm::ObjectId, false, Id::ObjectId([7; 12])),
            (IdForm::Integer, false, Id::Integer(-3)),
            (IdForm::Uuid, false, Id::Uuid([9; 16])),
            (IdForm::String, false, Id::String("x".into())),
            (IdForm::String, false, Id::String("é".repeat(ID_BYTES_MAX / 2).into())),
            (IdForm::String, true, Id::digest("secret")),
            (IdForm::Integer, true, Id::digest("secret")),
        ]
    }

    #[test]
    fn the_id_of_a_token_is_read_again() {
        for (form, is_secret, id) in ids() {
            let paged = paged(form, is_secret);
            let token = paged.token(&id);
            assert!(token.len() <= CHARS_MAX, "{} characters", token.len());
            assert_eq!(paged.after(&token), Ok(Some(id)));
        }
        assert_eq!(paged(IdForm::ObjectId, false).after(""), Ok(None));
    }

    #[test]
    fn a_token_of_another_request_or_schema_is_refused_whatever_its_id() {
        let id = Id::ObjectId([7; 12]);
        let token = paged(IdForm::ObjectId, false).token(&id);
        let of = |schema: &Schema, fields: &[&str]| Paged::new(schema, fields, IdForm::ObjectId, false).after(&token);
        assert_eq!(of(&schema(SCHEMA), &["user", "1", "read", "file", ""]), Ok(Some(id)));
        // The same letters in other fields are another request.
        for fields in
            [&["user", "2", "read", "file", ""][..], &["user", "1", "read", "file"], &["user1", "", "read", "file", ""]]
        {
            assert_eq!(of(&schema(SCHEMA), fields), Err(PageTokenError::Request), "{fields:?}");
        }
        let other = schema(&SCHEMA.replace("owner_id", "creator_id"));
        assert_eq!(of(&other, &["user", "1", "read", "file", ""]), Err(PageTokenError::Schema));
        let mut bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        bytes[0] = 2;
        let newer = URL_SAFE_NO_PAD.encode(bytes);
        assert_eq!(paged(IdForm::ObjectId, false).after(&newer), Err(PageTokenError::Version));
    }

    #[test]
    fn a_token_with_an_id_of_another_form_is_refused() {
        for (form, is_secret, id) in ids() {
            let token = paged(form, is_secret).token(&id);
            for (other, is_other_secret, _) in ids() {
                if (other, is_other_secret) != (form, is_secret) && !(is_secret && is_other_secret) {
                    assert_eq!(
                        paged(other, is_other_secret).after(&token),
                        Err(PageTokenError::Malformed),
                        "{form:?} {other:?}"
                    );
                }
            }
        }
        for text in ["", "*", &"x".repeat(ID_BYTES_MAX + 1)] {
            let paged = paged(IdForm::String, false);
            let token = paged.token(&Id::String(text.into()));
            assert_eq!(paged.after(&token), Err(PageTokenError::Malformed), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// A token that is read is exactly one that this service writes.
        #[test]
        fn a_token_has_one_spelling_and_anything_else_is_refused(
            which in 0..7_usize,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cut in prop::option::of(any::<prop::sample::Index>()),
            text in "\\PC{0,40}",
        ) {
            let (form, is_secret, id) = ids().swap_remove(which);
            let paged = paged(form, is_secret);
            let mut bytes = URL_SAFE_NO_PAD.decode(paged.token(&id)).unwrap();
            for (place, byte) in &changes {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            let mut changed = paged.token(&id);
            for (place, byte) in &changes {
                let place = place.index(changed.len());
                if byte.is_ascii() {
                    changed.replace_range(place..=place, std::str::from_utf8(&[*byte]).unwrap());
                }
            }
            for token in [URL_SAFE_NO_PAD.encode(bytes), changed, text] {
                match paged.after(&token) {
                    Ok(Some(id)) => prop_assert_eq!(paged.token(&id), token),
                    Ok(None) => prop_assert!(token.is_empty()),
                    Err(_) => {}
                }
            }
        }
    }
}
