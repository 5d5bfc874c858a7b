//! The calls that are measured, over the documents of this bench: a user, eight folders within each other, and files.

use axum::body::Bytes;
use permcached::transport::proto::{
    BatchCheckRequest, BatchCheckResponse, CheckRequest, CheckResponse, Question, Resource, Subject,
    batch_check_response::result::Outcome,
};
use prost::Message;
use serde_json::json;

/// How many folders lie between a file and the one that is shared.
const DEPTH: u32 = 8;

/// How many files there are.
const FILES: u32 = 1_000;

/// A call that the client makes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Call {
    /// `Check`: the file's owner may read it.
    Owner,
    /// `Check`: somebody with whom the eighth folder above the file is shared may read it.
    EightFolders,
    /// `BatchCheck`: as many different files of the owner.
    Batch(u32),
}

impl Call {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Owner => "Check, owner".to_owned(),
            Self::EightFolders => "Check, eight folders".to_owned(),
            Self::Batch(questions) => format!("BatchCheck of {questions}"),
        }
    }

    pub(crate) fn questions(self) -> u32 {
        match self {
            Self::Owner | Self::EightFolders => 1,
            Self::Batch(questions) => questions,
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Owner | Self::EightFolders => "/permcached.v1.PermissionService/Check",
            Self::Batch(_) => "/permcached.v1.PermissionService/BatchCheck",
        }
    }

    /// The request as a gRPC message.
    pub(crate) fn request(self) -> Bytes {
        match self {
            Self::Owner => grpc(&check(owner(), 0)),
            Self::EightFolders => grpc(&check(guest(), 0)),
            Self::Batch(questions) => grpc(&BatchCheckRequest {
                questions: (0..questions)
                    .map(|number| {
                        let CheckRequest { subject, permission, resource, .. } = check(owner(), number % FILES);
                        Question { subject, permission, resource }
                    })
                    .collect(),
                consistency: None,
            }),
        }
    }

    /// Verifies a response: everything is allowed.
    pub(crate) fn verify(self, message: &[u8]) {
        match self {
            Self::Owner | Self::EightFolders => {
                let response = CheckResponse::decode(message).expect("a response");
                assert!(response.answer.as_ref().is_some_and(|answer| answer.allowed), "a wrong answer: {response:?}");
            }
            Self::Batch(questions) => {
                let response = BatchCheckResponse::decode(message).expect("a response");
                let allowed = response.results.iter().filter(|result| match &result.outcome {
                    Some(Outcome::Answer(answer)) => answer.allowed,
                    _ => false,
                });
                assert_eq!(u32::try_from(allowed.count()).ok(), Some(questions), "a wrong answer");
            }
        }
    }
}

/// A gRPC message.
pub(crate) fn grpc(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("it is small");
    [&[0], length.to_be_bytes().as_slice(), &message].concat().into()
}

fn check(subject: String, file: u32) -> CheckRequest {
    CheckRequest {
        subject: Some(Subject { id: subject, ..Subject::default() }),
        permission: "read".to_owned(),
        resource: Some(Resource { r#type: "file".to_owned(), id: id(3, file) }),
        consistency: None,
    }
}

fn id(kind: u8, number: u32) -> String {
    format!("{kind:02x}00000000000000{number:08x}")
}

fn owner() -> String {
    id(1, 1)
}

fn guest() -> String {
    id(1, 2)
}

/// The files of a directory with a schema and its documents, by their names.
pub(crate) fn files() -> [(&'static str, String); 5] {
    let reference = |id: String| json!({ "$oid": id });
    let lines = |documents: Vec<serde_json::Value>| {
        let lines: Vec<String> = documents.iter().map(ToString::to_string).collect();
        lines.join("\n")
    };
    let users = [owner(), guest()].map(|id| json!({ "_id": reference(id), "is_active": true }));
    let files = (0..FILES).map(|number| {
        json!({ "_id": reference(id(3, number)), "owner_id": reference(owner()), "folder_id": reference(id(2, 1)) })
    });
    let folders = (1..=DEPTH).map(|number| match number {
        DEPTH => json!({ "_id": reference(id(2, number)) }),
        _ => json!({ "_id": reference(id(2, number)), "parent_id": reference(id(2, number + 1)) }),
    });
    let share = json!({ "_id": "share", "folder_id": reference(id(2, DEPTH)), "user_id": reference(guest()) });
    [
        ("schema.toml", SCHEMA.to_owned()),
        ("users.jsonl", lines(users.to_vec())),
        ("files.jsonl", lines(files.collect())),
        ("folders.jsonl", lines(folders.collect())),
        ("shares.jsonl", lines(vec![share])),
    ]
}

const SCHEMA: &str = include_str!("../file_store.toml");
