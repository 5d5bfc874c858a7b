//! The messages that the callers send.

use std::io::Write as _;

use axum::body::Bytes;
use flate2::{Compression, write::GzEncoder};
use permcached::transport::proto::{
    BatchCheckRequest, CheckRequest, InvalidateRequest, ListPermissionsRequest, Question, Resource, Subject,
};
use prost::Message;

/// A little less than the largest message that the server takes.
pub(crate) const LARGEST: usize = 4 * 1_024 * 1_024 - 64;

/// A message with its gRPC prefix.
pub(crate) fn grpc(message: &impl Message) -> Bytes {
    prefixed(&message.encode_to_vec())
}

/// Bytes with a gRPC prefix, whether or not they are a message.
pub(crate) fn prefixed(bytes: &[u8]) -> Bytes {
    let length = u32::try_from(bytes.len()).expect("it is small");
    [&[0], length.to_be_bytes().as_slice(), bytes].concat().into()
}

/// Bytes, compressed with gzip, with the prefix of a compressed message.
pub(crate) fn compressed(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("memory takes them");
    let packed = encoder.finish().expect("memory takes them");
    let length = u32::try_from(packed.len()).expect("it is small");
    [&[1], length.to_be_bytes().as_slice(), &packed].concat().into()
}

fn alice() -> Subject {
    Subject { id: "a11ce0000000000000000001".to_owned(), ..Subject::default() }
}

fn roadmap() -> Resource {
    Resource { r#type: "file".to_owned(), id: "f11e00000000000000000001".to_owned() }
}

/// The question whether an owner may read.
pub(crate) fn check() -> CheckRequest {
    CheckRequest {
        subject: Some(alice()),
        permission: "read".to_owned(),
        resource: Some(roadmap()),
        consistency: None,
        dependencies: false,
    }
}

/// The same question, so many times.
pub(crate) fn batch(questions: usize) -> BatchCheckRequest {
    let CheckRequest { subject, permission, resource, .. } = check();
    BatchCheckRequest {
        questions: vec![Question { subject, permission, resource }; questions],
        consistency: None,
        dependencies: false,
    }
}

/// So many questions, with every field of each wrong.
pub(crate) fn bad_batch(questions: usize) -> BatchCheckRequest {
    let question = Question {
        subject: Some(Subject { r#type: "usr".to_owned(), id: "*".to_owned(), anonymous: true }),
        permission: "raed".to_owned(),
        resource: Some(Resource { r#type: "flie".to_owned(), id: "roadmap".to_owned() }),
    };
    BatchCheckRequest { questions: vec![question; questions], consistency: None, dependencies: false }
}

/// So many empty questions, as many as fit into a message at most.
pub(crate) fn empty_questions() -> Vec<u8> {
    // Field 1, of the length 0.
    [0x0a, 0x00].repeat(LARGEST / 2)
}

/// The permissions of one resource.
pub(crate) fn list() -> ListPermissionsRequest {
    ListPermissionsRequest { subject: Some(alice()), resource: Some(roadmap()), consistency: None }
}

/// So many resources that do not exist.
pub(crate) fn bad_invalidation(resources: usize) -> InvalidateRequest {
    let resource = Resource { r#type: "flie".to_owned(), id: "roadmap".to_owned() };
    InvalidateRequest { resources: vec![resource; resources], ..InvalidateRequest::default() }
}
