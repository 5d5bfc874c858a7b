//! The life of `permcached serve` as a process: it starts before its database, loses and regains MongoDB and Redis, and
//! shuts down without failing a call.
//!
//! Does not test the freshness of answers under faults (`history` does).

mod end;
mod health;

use bson::{Document, doc, oid::ObjectId};
use mongodb::Client;
use permcached::transport::proto::{
    CheckRequest, Resource, Subject, permission_service_client::PermissionServiceClient,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use crate::support::{command::Serving, servers::Mongo};

/// A minimal schema.
const SCHEMA: &str = r#"
    default_subject = "user"
    [subject.user]
    collection = "users"
    [resource.file]
    collection = "files"
    [resource.file.relations]
    owner = { field = "owner_id" }
    [resource.file.permissions]
    read = "owner"
"#;

/// The name of the database of these tests.
const DATABASE: &str = "lifecycle";

fn id(number: u8) -> ObjectId {
    ObjectId::from_bytes([number; 12])
}

/// Inserts user 1, who owns file 2.
async fn fill(mongo: &Mongo) {
    let database = Client::with_uri_str(mongo.uri()).await.unwrap().database(DATABASE);
    database.collection::<Document>("users").insert_one(doc! { "_id": id(1) }).await.unwrap();
    database.collection::<Document>("files").insert_one(doc! { "_id": id(2), "owner_id": id(1) }).await.unwrap();
}

/// The URI of the database.
fn uri(mongo: &Mongo) -> String {
    mongo.uri().replace("/?", &format!("/{DATABASE}?"))
}

/// A request with this token for a permission that is allowed.
fn question(token: Option<&str>) -> Request<CheckRequest> {
    let mut request = Request::new(CheckRequest {
        subject: Some(Subject { r#type: String::new(), id: id(1).to_hex(), anonymous: false }),
        permission: "read".to_owned(),
        resource: Some(Resource { r#type: "file".to_owned(), id: id(2).to_hex() }),
        consistency: None,
        dependencies: false,
    });
    if let Some(token) = token {
        let token: MetadataValue<Ascii> = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", token);
    }
    request
}

/// Sends that request. Panics if the answer is a denial.
async fn ask(channel: &Channel, token: Option<&str>) -> Result<(), Status> {
    let answer = PermissionServiceClient::new(channel.clone()).check(question(token)).await?.into_inner().answer;
    assert!(answer.unwrap().allowed, "a wrong answer");
    Ok(())
}

fn endpoint(serving: &Serving) -> Endpoint {
    Endpoint::from_shared(serving.url()).unwrap()
}
