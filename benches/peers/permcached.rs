//! permcached over the world's data.

use std::{fs, path::Path};

use permcached::transport::proto::{
    BatchCheckRequest, BatchCheckResponse, CheckRequest, CheckResponse, Question as ProtoQuestion, Resource, Subject,
    batch_check_response::result::Outcome,
};
use prost::Message;
use serde_json::{Value, json};

use super::{
    Service,
    calls::SCHEMA,
    client::grpc,
    servers::{Security, Server},
    world::{Question, USERS, World},
};

fn id(kind: u8, number: usize) -> String {
    format!("{kind:02x}00000000000000{number:08x}")
}

fn reference(kind: u8, number: usize) -> Value {
    json!({ "$oid": id(kind, number) })
}

/// The documents by the names of their collections.
fn documents(world: &World) -> [(&'static str, Vec<Value>); 4] {
    let share = |number: usize, field: &str, kind, object, user| json!({ "_id": reference(5, number), field: reference(kind, object), "user_id": reference(1, user) });
    let file_shares = world.file_shares.iter().map(|(file, user)| ("file_id", 3, *file, *user));
    let folder_shares = world.folder_shares.iter().map(|(folder, user)| ("folder_id", 2, *folder, *user));
    let shares = file_shares.chain(folder_shares).enumerate();
    let folder = |(number, parent): (usize, &Option<usize>)| match parent {
        Some(parent) => json!({ "_id": reference(2, number), "parent_id": reference(2, *parent) }),
        None => json!({ "_id": reference(2, number) }),
    };
    let files = world.files.iter().enumerate().map(|(number, file)| {
        let (owner, folder) = (reference(1, file.owner), reference(2, file.folder));
        json!({ "_id": reference(3, number), "owner_id": owner, "folder_id": folder, "is_deleted": file.is_deleted })
    });
    [
        ("users", (0..USERS).map(|user| json!({ "_id": reference(1, user), "is_active": true })).collect()),
        ("folders", world.folders.iter().enumerate().map(folder).collect()),
        ("files", files.collect()),
        (
            "shares",
            shares.map(|(number, (field, kind, object, user))| share(number, field, kind, object, user)).collect(),
        ),
    ]
}

fn question(question: &Question) -> ProtoQuestion {
    ProtoQuestion {
        subject: Some(Subject { id: id(1, question.user), ..Subject::default() }),
        permission: "read".to_owned(),
        resource: Some(Resource { r#type: "file".to_owned(), id: id(3, question.file) }),
    }
}

pub(crate) fn start(world: &World, directory: &Path) -> Service {
    for (collection, documents) in documents(world) {
        let lines: Vec<String> = documents.iter().map(ToString::to_string).collect();
        fs::write(directory.join(collection).with_extension("jsonl"), lines.join("\n")).expect("it is written");
    }
    Service {
        name: "permcached",
        server: Server::permcached_with(directory, SCHEMA, Security::Nothing, &["--documents", "."], &[]),
        methods: ["permcached.v1.PermissionService/Check", "permcached.v1.PermissionService/BatchCheck"],
        check: Box::new(|asked| {
            let ProtoQuestion { subject, permission, resource } = question(asked);
            grpc(&CheckRequest { subject, permission, resource, consistency: None, dependencies: false })
        }),
        bulk: Box::new(|asked| {
            let questions = asked.iter().map(question).collect();
            grpc(&BatchCheckRequest { questions, consistency: None, dependencies: false })
        }),
        read_check: |message| CheckResponse::decode(message).expect("a response").answer.expect("an answer").allowed,
        read_bulk: |message| {
            let results = BatchCheckResponse::decode(message).expect("a response").results;
            let allowed = results.into_iter().map(|result| match result.outcome {
                Some(Outcome::Answer(answer)) => answer.allowed,
                other => panic!("no answer: {other:?}"),
            });
            allowed.collect()
        },
    }
}
