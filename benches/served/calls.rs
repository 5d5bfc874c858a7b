//! The calls that are measured, over the documents of this bench: a user, folders within each other, and files.

use permcached::transport::proto::{
    BatchCheckRequest, BatchCheckResponse, CheckRequest, CheckResponse, Question, Resource, Subject,
    batch_check_response::result::Outcome,
};
use prost::Message;
use serde_json::json;

use super::client::{Calls, grpc};

/// How many folders lie between a file and the topmost one.
pub(crate) const DEPTH_MAX: u32 = 16;

/// How many files there are, and how many of them somebody asks about.
pub(crate) const FILES: u32 = 1_000;

/// The first of the files that are in no folder but a shared one.
const SHARED_FILES: u32 = 10_000;

const CHECK: &str = "permcached.v1.PermissionService/Check";
const BATCH_CHECK: &str = "permcached.v1.PermissionService/BatchCheck";

/// A call to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// `Check`: a file's owner may read it.
    Owner,
    /// `Check`: somebody may read a file, because the folder so many folders above it is shared with them.
    Folders(u32),
    /// `BatchCheck`: as many different files of the owner.
    Batch(u32),
}

impl Call {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Owner => "Check, owner".to_owned(),
            Self::Folders(depth) => format!("Check, {depth} folders deep"),
            Self::Batch(questions) => format!("BatchCheck of {questions}"),
        }
    }

    pub(crate) fn questions(self) -> u32 {
        match self {
            Self::Owner | Self::Folders(_) => 1,
            Self::Batch(questions) => questions,
        }
    }

    /// The calls for the client. All answers are yes.
    pub(crate) fn calls(self) -> Calls {
        match self {
            Self::Owner => checks((0..FILES).map(|number| check(owner(), number))),
            Self::Folders(depth) => checks([check(guest(), SHARED_FILES + depth)]),
            Self::Batch(questions) => {
                let batch = BatchCheckRequest {
                    questions: (0..questions)
                        .map(|number| {
                            let CheckRequest { subject, permission, resource, .. } = check(owner(), number % FILES);
                            Question { subject, permission, resource }
                        })
                        .collect(),
                    consistency: None,
                    dependencies: false,
                };
                Calls::new(BATCH_CHECK, [grpc(&batch)], move |_, message| {
                    let response = BatchCheckResponse::decode(message).expect("a response");
                    let allowed = response.results.iter().filter(|result| match &result.outcome {
                        Some(Outcome::Answer(answer)) => answer.allowed,
                        _ => false,
                    });
                    assert_eq!(u32::try_from(allowed.count()).ok(), Some(questions), "a wrong answer");
                })
            }
        }
    }
}

fn checks(requests: impl IntoIterator<Item = CheckRequest>) -> Calls {
    Calls::new(CHECK, requests.into_iter().map(|request| grpc(&request)), |_, message| {
        let response = CheckResponse::decode(message).expect("a response");
        assert!(response.answer.as_ref().is_some_and(|answer| answer.allowed), "a wrong answer: {response:?}");
    })
}

fn check(subject: String, file: u32) -> CheckRequest {
    CheckRequest {
        subject: Some(Subject { id: subject, ..Subject::default() }),
        permission: "read".to_owned(),
        resource: Some(Resource { r#type: "file".to_owned(), id: id(3, file) }),
        consistency: None,
        dependencies: false,
    }
}

/// The hexadecimal form of an `ObjectId`.
pub(crate) fn id(kind: u8, number: u32) -> String {
    format!("{kind:02x}00000000000000{number:08x}")
}

fn owner() -> String {
    id(1, 1)
}

fn guest() -> String {
    id(1, 2)
}

/// The schema of the documents.
pub(crate) const SCHEMA: &str = include_str!("../file_store.toml");

/// The documents by the names of their collections.
pub(crate) fn documents() -> [(&'static str, Vec<serde_json::Value>); 4] {
    let reference = |id: String| json!({ "$oid": id });
    let users = [owner(), guest()].map(|id| json!({ "_id": reference(id), "is_active": true }));
    let file = |number, folder| json!({ "_id": reference(id(3, number)), "owner_id": reference(owner()), "folder_id": reference(id(2, folder)) });
    // The file of depth n is in the n-th folder, counted from the shared one; at depth 0 it is shared itself.
    let shared = |depth: u32| match depth {
        0 => json!({ "_id": reference(id(3, SHARED_FILES)), "owner_id": reference(owner()) }),
        _ => file(SHARED_FILES + depth, DEPTH_MAX + 1 - depth),
    };
    let folders = (1..=DEPTH_MAX).map(|number| match number {
        DEPTH_MAX => json!({ "_id": reference(id(2, number)) }),
        _ => json!({ "_id": reference(id(2, number)), "parent_id": reference(id(2, number + 1)) }),
    });
    let share = |name: &str, field: &str, id: String| json!({ "_id": name, field: reference(id), "user_id": reference(guest()) });
    let shares = vec![share("folder", "folder_id", id(2, DEPTH_MAX)), share("file", "file_id", id(3, SHARED_FILES))];
    [
        ("users", users.to_vec()),
        ("files", (0..FILES).map(|number| file(number, 1)).chain((0..=DEPTH_MAX).map(shared)).collect()),
        ("folders", folders.collect()),
        ("shares", shares),
    ]
}
