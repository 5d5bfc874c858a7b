//! Questions as they stand in the bytes of a request. Their texts are not copied: most requests consist of little else.
//!
//! Looks no name up, and validates no field (`convert` does).

use prost::Message as _;
use tonic::Status;

use super::{
    low_priority::give_way,
    proto,
    protobuf::{Fields, Malformed, Value},
};

/// How many questions are read until other threads may run: some 10 microseconds.
const QUESTIONS_AT_ONCE: usize = 64;

/// A `Subject`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SubjectFields<'a> {
    pub(super) kind: &'a str,
    pub(super) id: &'a str,
    pub(super) anonymous: bool,
}

/// A `Resource`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ResourceFields<'a> {
    pub(super) kind: &'a str,
    pub(super) id: &'a str,
}

/// A `Question`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QuestionFields<'a> {
    pub(super) subject: Option<SubjectFields<'a>>,
    pub(super) permission: &'a str,
    pub(super) resource: Option<ResourceFields<'a>>,
}

/// A `CheckRequest`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CheckFields<'a> {
    pub(super) question: QuestionFields<'a>,
    pub(super) consistency: Option<proto::Consistency>,
    pub(super) dependencies: bool,
}

/// A `BatchCheckRequest`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct BatchFields<'a> {
    pub(super) questions: Vec<QuestionFields<'a>>,
    pub(super) consistency: Option<proto::Consistency>,
    pub(super) dependencies: bool,
}

impl<'a> CheckFields<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// It is no message of this type.
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Status> {
        let mut read = Self::default();
        for field in Fields(message) {
            match field? {
                (4, value) => merge_consistency(&mut read.consistency, value)?,
                (5, value) => read.dependencies = value.flag()?,
                (number, value) => read.question.merge_field(number, value)?,
            }
        }
        Ok(read)
    }
}

impl<'a> BatchFields<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// It is no message of this type.
    pub(super) fn read(message: &'a [u8]) -> Result<Self, Status> {
        let mut read = Self::default();
        for field in Fields(message) {
            match field? {
                (1, value) => {
                    let mut question = QuestionFields::default();
                    for field in Fields(value.message()?) {
                        let (number, value) = field?;
                        question.merge_field(number, value)?;
                    }
                    read.questions.push(question);
                    if read.questions.len().is_multiple_of(QUESTIONS_AT_ONCE) {
                        give_way();
                    }
                }
                (2, value) => merge_consistency(&mut read.consistency, value)?,
                (3, value) => read.dependencies = value.flag()?,
                _ => {}
            }
        }
        Ok(read)
    }
}

impl<'a> QuestionFields<'a> {
    /// Adds a field. As in every protobuf message, the last value counts, and a message that is there twice is merged.
    fn merge_field(&mut self, number: u64, value: Value<'a>) -> Result<(), Malformed> {
        match number {
            1 => self.subject.get_or_insert_default().merge(value.message()?)?,
            2 => self.permission = value.text()?,
            3 => self.resource.get_or_insert_default().merge(value.message()?)?,
            _ => {}
        }
        Ok(())
    }
}

impl<'a> SubjectFields<'a> {
    fn merge(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        for field in Fields(message) {
            match field? {
                (1, value) => self.kind = value.text()?,
                (2, value) => self.id = value.text()?,
                (3, value) => self.anonymous = value.flag()?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> ResourceFields<'a> {
    fn merge(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        for field in Fields(message) {
            match field? {
                (1, value) => self.kind = value.text()?,
                (2, value) => self.id = value.text()?,
                _ => {}
            }
        }
        Ok(())
    }
}

fn merge_consistency(consistency: &mut Option<proto::Consistency>, value: Value<'_>) -> Result<(), Malformed> {
    consistency.get_or_insert_default().merge(value.message()?).map_err(|_| Malformed)
}

impl<'a> From<&'a proto::Subject> for SubjectFields<'a> {
    fn from(subject: &'a proto::Subject) -> Self {
        Self { kind: &subject.r#type, id: &subject.id, anonymous: subject.anonymous }
    }
}

impl<'a> From<&'a proto::Resource> for ResourceFields<'a> {
    fn from(resource: &'a proto::Resource) -> Self {
        Self { kind: &resource.r#type, id: &resource.id }
    }
}

impl From<Malformed> for Status {
    fn from(_: Malformed) -> Self {
        Self::internal("failed to decode the request: it is no message of this protocol")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::transport::proto::{
        BatchCheckRequest, CheckRequest, Consistency, Question, Resource, Subject, consistency::Requirement,
    };

    impl<'a> From<&'a Question> for QuestionFields<'a> {
        fn from(question: &'a Question) -> Self {
            let Question { subject, permission, resource } = question;
            Self { subject: subject.as_ref().map(Into::into), permission, resource: resource.as_ref().map(Into::into) }
        }
    }

    /// Reads bytes in both ways, as a single request and as a batch.
    fn test_bytes(bytes: &[u8]) {
        // Groups are refused before: the API has none.
        let whole = CheckRequest::decode(bytes);
        match (CheckFields::read(bytes), &whole) {
            (Ok(read), Ok(CheckRequest { subject, permission, resource, consistency, dependencies })) => {
                let question =
                    Question { subject: subject.clone(), permission: permission.clone(), resource: resource.clone() };
                assert_eq!((read.question, &read.consistency), ((&question).into(), consistency), "{bytes:?}");
                assert_eq!(read.dependencies, *dependencies, "{bytes:?}");
            }
            (Err(_), Err(_)) => {}
            (read, whole) => assert!(has_group(bytes), "{bytes:?}: {read:?} {whole:?}"),
        }
        match (BatchFields::read(bytes), BatchCheckRequest::decode(bytes)) {
            (Ok(read), Ok(BatchCheckRequest { questions, consistency, dependencies })) => {
                let questions: Vec<QuestionFields<'_>> = questions.iter().map(Into::into).collect();
                assert_eq!((read.questions, read.consistency), (questions, consistency), "{bytes:?}");
                assert_eq!(read.dependencies, dependencies, "{bytes:?}");
            }
            (Err(_), Err(_)) => {}
            (read, whole) => assert!(has_group(bytes), "{bytes:?}: {read:?} {whole:?}"),
        }
    }

    /// Whether a byte may be the tag of a group.
    fn has_group(bytes: &[u8]) -> bool {
        bytes.iter().any(|byte| matches!(byte & 7, 3 | 4))
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), Just("file".to_owned()), "\\PC{0,12}"]
    }

    fn question() -> impl Strategy<Value = Question> {
        let subject = prop::option::of((text(), text(), any::<bool>()));
        let subject =
            subject.prop_map(|parts| parts.map(|(kind, id, anonymous)| Subject { r#type: kind, id, anonymous }));
        let resource = prop::option::of((text(), text()));
        let resource = resource.prop_map(|parts| parts.map(|(kind, id)| Resource { r#type: kind, id }));
        (subject, text(), resource).prop_map(|(subject, permission, resource)| Question {
            subject,
            permission,
            resource,
        })
    }

    fn consistency() -> impl Strategy<Value = Option<Consistency>> {
        let requirement = prop_oneof![
            any::<bool>().prop_map(Requirement::MinimizeLatency),
            any::<bool>().prop_map(Requirement::FullyConsistent),
        ];
        prop::option::of(prop::option::of(requirement).prop_map(|requirement| Consistency { requirement }))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn questions_are_read_as_prost_reads_them(
            questions in prop::collection::vec(question(), 0..4),
            consistency in consistency(),
            dependencies in any::<bool>(),
            // One message after the other is one in which fields are there twice.
            more in prop::collection::vec(question(), 0..2),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let mut single = Vec::new();
            for Question { subject, permission, resource } in questions.iter().chain(&more).cloned() {
                let consistency = consistency.clone();
                let check = CheckRequest { subject, permission, resource, consistency, dependencies };
                check.encode(&mut single).unwrap();
            }
            let mut batch = BatchCheckRequest { questions, consistency, dependencies }.encode_to_vec();
            test_bytes(&single);
            test_bytes(&batch);
            for bytes in [&mut single, &mut batch] {
                for (place, byte) in &changes {
                    if !bytes.is_empty() {
                        let place = place.index(bytes.len());
                        bytes[place] = *byte;
                    }
                }
                test_bytes(bytes);
            }
        }
    }

    #[test]
    fn what_is_no_message_is_an_error_and_unknown_fields_are_left_out() {
        for bytes in [
            &[0x0a][..],
            &[0x0a, 5, 1],
            &[0x08, 1],
            &[0x12, 1, 0xff],
            &[0x0a, 2, 0x18, 0x80],
            &[0x0a, 3, 0x1a, 1, 1],
            &[0x22, 1, 0x08],
            &[0xff; 11],
        ] {
            test_bytes(bytes);
            assert!(CheckFields::read(bytes).is_err(), "{bytes:?}");
        }
        for bytes in [&[][..], &[0x78, 1], &[0x7d, 1, 2, 3, 4], &[0x79, 1, 2, 3, 4, 5, 6, 7, 8], &[0x7a, 1, 7]] {
            test_bytes(bytes);
            assert_eq!(CheckFields::read(bytes).unwrap(), CheckFields::default(), "{bytes:?}");
        }
    }
}
