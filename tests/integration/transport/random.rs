//! Random requests: the service answers each with a response or a status, and keeps running.
//!
//! Does not test which answer is right.

use permcached::transport::proto::{
    BatchCheckRequest, CheckRequest, Consistency, ExplainRequest, Freshness, ListPermissionsRequest, Moment, Question,
    Resource, Subject, consistency::Requirement, freshness,
};
use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any, prop_oneof},
    test_runner::{Config, TestRunner},
};
use prost::{
    Message,
    bytes::{Buf as _, BufMut as _},
};
use tokio::runtime::Runtime;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};

use super::{ALICE, ROADMAP, ask, check};
use crate::support::service::Service;

/// The number of requests of each kind.
const CASES: u32 = 150;

/// A codec that passes messages on as raw bytes.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}

const CALLS: [&str; 7] =
    ["Check", "BatchCheck", "ListPermissions", "Explain", "PlanFilter", "ListResources", "ListSubjects"];

async fn send(channel: &Channel, call: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.expect("the connection stands");
    let path = format!("/permcached.v1.PermissionService/{call}").parse::<PathAndQuery>().unwrap();
    grpc.unary(Request::new(bytes), path, Raw).await.map(tonic::Response::into_inner)
}

/// Sends these bytes to every method. gRPC's code for bytes that are no message is INTERNAL.
async fn is_answered(channel: &Channel, bytes: &[u8]) {
    for call in CALLS {
        match send(channel, call, bytes.to_vec()).await {
            Ok(_) => {}
            Err(status) if status.code() == Code::InvalidArgument => assert!(!status.message().is_empty()),
            Err(status) => {
                assert_eq!(status.code(), Code::Internal, "{call}: {status:?}");
                assert!(status.message().contains("decode"), "{call}: {status:?}");
            }
        }
    }
}

/// Sends requests to one service, which must still answer afterwards.
fn try_all<S: Strategy>(requests: S, bytes: impl Fn(S::Value) -> Vec<u8>) {
    let runtime = Runtime::new().unwrap();
    let (service, channel) = runtime.block_on(async {
        let service = Service::start().await;
        let channel = service.channel();
        (service, channel)
    });
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(&requests, |request| {
        runtime.block_on(is_answered(&channel, &bytes(request)));
        Ok(())
    });
    if let Err(failure) = tried {
        panic!("{failure}");
    }
    let answer = runtime.block_on(async { ask(&service.client(), check(ALICE, "read", ROADMAP)).await });
    assert!(answer.unwrap().allowed);
}

#[test]
fn random_bytes_get_a_status() {
    try_all(vec(any::<u8>(), 0..200), |bytes| bytes);
}

#[test]
fn valid_messages_with_a_few_bytes_changed_get_a_status() {
    let good = check(ALICE, "read", ROADMAP);
    let batch =
        Question { subject: good.subject.clone(), permission: "read".to_owned(), resource: good.resource.clone() };
    let messages = [
        good.encode_to_vec(),
        BatchCheckRequest { questions: vec![batch; 3], consistency: None, dependencies: false }.encode_to_vec(),
    ];
    let changes = vec((any::<usize>(), any::<u8>()), 1..6);
    try_all((0..2_usize, changes, any::<bool>()), |(which, changes, is_cut)| {
        let mut bytes = messages[which].clone();
        for (place, byte) in &changes {
            let place = place % bytes.len();
            bytes[place] = *byte;
        }
        if is_cut {
            bytes.truncate(changes[0].0 % bytes.len());
        }
        bytes
    });
}

/// Names and ids: sometimes valid ones, otherwise any text.
fn text() -> impl Strategy<Value = String> {
    let sensible = ["user", "link", "file", "folder", "note", "team", "read", "write", "owned", "owner", "*", ""];
    let ids = [
        "a11ce0000000000000000001",
        "f11e00000000000000000001",
        "r0000000000000001",
        "a0000000-0000-4000-8000-000000000002",
    ];
    prop_oneof![
        6 => proptest::sample::select([sensible.as_slice(), ids.as_slice()].concat()).prop_map(str::to_owned),
        2 => any::<String>(),
        1 => "[\\x00-\\x1f\\u{7f}\\u{202e}\\u{0}\"\\\\{}]{1,40}",
        1 => (any::<char>(), 0..3_000_usize).prop_map(|(letter, count)| letter.to_string().repeat(count)),
    ]
}

fn subjects() -> impl Strategy<Value = Option<Subject>> {
    option::weighted(0.9, (text(), text(), proptest::bool::weighted(0.1)))
        .prop_map(|parts| parts.map(|(kind, id, anonymous)| Subject { r#type: kind, id, anonymous }))
}

fn resources() -> impl Strategy<Value = Option<Resource>> {
    option::weighted(0.9, (text(), text())).prop_map(|parts| parts.map(|(kind, id)| Resource { r#type: kind, id }))
}

fn consistencies() -> impl Strategy<Value = Option<Consistency>> {
    let moment = prop_oneof![
        text().prop_map(freshness::Moment::Token),
        (any::<u32>(), any::<u32>())
            .prop_map(|(seconds, increment)| freshness::Moment::OperationTime(Moment { seconds, increment })),
    ];
    let requirement = prop_oneof![
        any::<bool>().prop_map(Requirement::MinimizeLatency),
        any::<bool>().prop_map(Requirement::FullyConsistent),
        option::of(moment).prop_map(|moment| Requirement::AtLeastAsFresh(Freshness { moment })),
        (prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX), -2..2_i64], prop_oneof![any::<i32>(), -2..2_i32])
            .prop_map(|(seconds, nanos)| Requirement::MaxAge(prost_types::Duration { seconds, nanos })),
    ];
    option::of(option::of(requirement).prop_map(|requirement| Consistency { requirement }))
}

fn questions() -> impl Strategy<Value = Question> {
    (subjects(), text(), resources()).prop_map(|(subject, permission, resource)| Question {
        subject,
        permission,
        resource,
    })
}

#[test]
fn random_fields_get_a_status() {
    try_all((questions(), consistencies()), |(question, consistency)| {
        let Question { subject, permission, resource } = question;
        CheckRequest { subject, permission, resource, consistency, dependencies: false }.encode_to_vec()
    });
}

/// Each message is sent to the other methods too, which read its fields as something else.
#[test]
fn random_batches_get_a_status() {
    try_all((vec(questions(), 0..20), consistencies()), |(questions, consistency)| {
        BatchCheckRequest { questions, consistency, dependencies: false }.encode_to_vec()
    });
}

#[test]
fn random_lists_and_explanations_get_a_status() {
    try_all((questions(), consistencies(), any::<bool>()), |(question, consistency, explains)| {
        let Question { subject, permission, resource } = question;
        if explains {
            ExplainRequest { subject, permission, resource, consistency }.encode_to_vec()
        } else {
            ListPermissionsRequest { subject, resource, consistency }.encode_to_vec()
        }
    });
}
