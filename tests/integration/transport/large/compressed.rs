//! Compressed requests: they are answered as others are, in the encoding that they have, and no request decompresses to more than
//! its bounds.

use std::io::{Read as _, Write as _};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use futures::future::join_all;
use h2::client::ResponseFuture;
use permcached::transport::proto::{BatchCheckResponse, CheckResponse};
use prost::Message;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, ServerReflectionResponse, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use super::*;
use crate::support::http2::{HEALTH_CHECK, HEALTH_WATCH, REFLECTION};

/// The encodings that are accepted.
const ENCODINGS: [&str; 2] = ["gzip", "zstd"];

fn packed(encoding: &str, plain: &[u8]) -> Vec<u8> {
    match encoding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::bulk::compress(plain, 3).unwrap(),
        other => panic!("{other}"),
    }
}

fn unpacked(encoding: &str, packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    match encoding {
        "gzip" => GzDecoder::new(packed).read_to_end(&mut plain).map(|_| plain).unwrap(),
        "zstd" => zstd::bulk::decompress(packed, MESSAGE_BYTES_MAX).unwrap(),
        other => panic!("{other}"),
    }
}

/// Begins a call with this compressed message.
async fn begin(raw: &Raw, method: &str, message: &[u8], headers: &[(&str, &str)]) -> ResponseFuture {
    let (response, mut stream) = raw.begin(method, headers).await;
    let mut body = prefixed(message.len(), message);
    body[0] = 1;
    // The service may refuse it before it has all of it.
    let _refused = stream.send_data(body.into(), true);
    response
}

/// The encoding of a response, whether its message is compressed, and the message. It must be OK.
async fn answered(response: ResponseFuture) -> (Option<String>, u8, Vec<u8>) {
    let read = async {
        let (head, mut body) = response.await.unwrap().into_parts();
        let mut all = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            all.extend_from_slice(&data);
        }
        let trailers = body.trailers().await.unwrap().unwrap_or_else(|| head.headers.clone());
        let status = Status::from_header_map(&trailers).expect("a status");
        assert_eq!(status.code(), Code::Ok, "{status:?}");
        let encoding = head.headers.get("grpc-encoding").map(|name| name.to_str().unwrap().to_owned());
        (encoding, all[0], all[5..].to_vec())
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a response")
}

#[tokio::test]
async fn a_compressed_request_is_answered_in_its_encoding_if_the_client_accepts_it() {
    let service = Service::start().await;
    let raw = Raw::connect(service.address).await;
    let asking = [BOB, ALICE, ZOE].into_iter().cycle().take(900);
    let questions = asking.map(|who| question(who, "read", CONTRACT)).collect();
    let (small, large) = (check(BOB, "read", CONTRACT).encode_to_vec(), batch(questions).encode_to_vec());
    let single = ask(&service.client(), check(BOB, "read", CONTRACT)).await.unwrap();
    for encoding in ENCODINGS {
        for accepted in ["identity,deflate,gzip, zstd", "identity", encoding] {
            let is_accepted = accepted != "identity";
            let headers = [("grpc-encoding", encoding), ("grpc-accept-encoding", accepted)];
            for (method, message) in [(CHECK, &small), (BATCH, &large)] {
                let response = begin(&raw, method, &packed(encoding, message), &headers).await;
                let (named, flag, message) = answered(response).await;
                assert_eq!(named.as_deref(), is_accepted.then_some(encoding), "{method} {accepted}");
                assert_eq!(flag, u8::from(is_accepted), "{method} {accepted}");
                let plain = if is_accepted { unpacked(encoding, &message) } else { message };
                if method == CHECK {
                    let answer = CheckResponse::decode(&*plain).unwrap().answer.unwrap();
                    assert_eq!((answer.allowed, answer.granted_by), (true, single.granted_by.clone()));
                } else {
                    let results = BatchCheckResponse::decode(&*plain).unwrap().results;
                    let allowed =
                        |result: &Option<Outcome>| matches!(result, Some(Outcome::Answer(answer)) if answer.allowed);
                    assert_eq!(results.len(), 900);
                    assert_eq!(results.iter().filter(|result| allowed(&result.outcome)).count(), 600);
                }
            }
        }
        // A message that is not compressed, though its call may have compressed ones.
        let (response, mut stream) = raw.begin(CHECK, &[("grpc-encoding", encoding)]).await;
        stream.send_data(prefixed(small.len(), &small).into(), true).unwrap();
        assert_eq!(status(response).await.code(), Code::Ok);
    }
    // Who does not compress gets no compressed response, whatever it accepts.
    let (response, mut stream) = raw.begin(CHECK, &[("grpc-accept-encoding", "gzip,zstd")]).await;
    stream.send_data(prefixed(small.len(), &small).into(), true).unwrap();
    assert_eq!(answered(response).await.0, None);
}

#[tokio::test]
async fn a_call_in_another_encoding_gets_the_list_of_those_that_are_accepted() {
    let service = Service::start().await;
    let raw = Raw::connect(service.address).await;
    for encoding in ["deflate", "br", "snappy"] {
        let response = begin(&raw, CHECK, b"x", &[("grpc-encoding", encoding)]).await.await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
        assert_eq!(response.headers().get("grpc-accept-encoding").unwrap(), "identity,gzip,zstd");
    }
    let unnamed = status(begin(&raw, CHECK, b"x", &[]).await).await;
    assert_eq!(unnamed.code(), Code::Internal, "{unnamed:?}");
}

/// Each would have tens of megabytes, or says that it has less than it has.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn a_message_that_decompresses_to_more_than_a_message_may_have_is_refused_without_memory_for_it() {
    const MEMORY_MAX: usize = 64 * 1_024 * 1_024;
    let serving = Serving::start(&["--schema", "schemas/fylora-sharing.toml", "--documents", "examples/fylora"]);
    let zeros = vec![0; 64 * 1_024 * 1_024];
    let mut lying = packed("gzip", &zeros);
    let place = lying.len() - 4;
    lying.splice(place.., 1_000_000_u32.to_le_bytes());
    let mut unsized_frame = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    unsized_frame.include_contentsize(false).unwrap();
    unsized_frame.write_all(&zeros).unwrap();
    let items = [0x0a, 0].repeat(MESSAGE_BYTES_MAX / 2 - 20_000);
    let bombs = [
        ("gzip", packed("gzip", &zeros), Code::OutOfRange),
        ("zstd", packed("zstd", &zeros), Code::OutOfRange),
        ("gzip", lying, Code::Internal),
        ("zstd", unsized_frame.finish().unwrap(), Code::Internal),
        // Their items are counted before they are decoded.
        ("gzip", packed("gzip", &items), Code::InvalidArgument),
        ("zstd", packed("zstd", &items), Code::InvalidArgument),
    ];
    let before = peak_memory(serving.process_id());
    for (place, (encoding, bomb, code)) in bombs.iter().enumerate() {
        let raws = join_all((0..4).map(|_| Raw::connect(serving.address))).await;
        let calls = raws.iter().flat_map(|raw| (0..4).map(move |_| raw));
        let refused =
            calls.map(async |raw| status(begin(raw, BATCH, bomb, &[("grpc-encoding", encoding)]).await).await);
        for status in join_all(refused).await {
            assert!([*code, Code::ResourceExhausted].contains(&status.code()), "{place}: {status:?}");
        }
        let once = status(begin(&raws[0], BATCH, bomb, &[("grpc-encoding", encoding)]).await).await;
        assert_eq!(once.code(), *code, "{place}: {once:?}");
    }
    let grown = peak_memory(serving.process_id()) - before;
    assert!(grown < MEMORY_MAX, "{grown} bytes more");
}

/// More of them at once than the caller's room holds.
#[tokio::test]
async fn compressed_requests_wait_for_free_bytes_and_leave_some_for_other_callers() {
    let service = of_two_callers().await;
    for encoding in ENCODINGS {
        let message = packed(encoding, &long_batch());
        let bearer = format!("Bearer {GREEDY}");
        let headers = [("authorization", bearer.as_str()), ("grpc-encoding", encoding)];
        let raws = join_all((0..30).map(|_| Raw::connect(service.address))).await;
        let calls = raws.iter().map(async |raw| status(begin(raw, BATCH, &message, &headers).await).await);
        let (statuses, modest) = tokio::join!(join_all(calls), ask_batch(&service, MODEST));
        for (index, status) in statuses.into_iter().enumerate() {
            assert_eq!(status.code(), Code::Ok, "{index}: {status:?}");
        }
        assert_eq!(modest.unwrap(), 10_000);
    }
}

/// The messages of a body.
fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let [flag, a, b, c, d, rest @ ..] = bytes {
        assert_eq!(*flag, 0, "streams are not compressed");
        let (message, after) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        messages.push(message.to_vec());
        bytes = after;
    }
    messages
}

#[tokio::test]
async fn health_answers_compressed_requests_in_their_encoding_if_the_client_accepts_it() {
    let service = Service::start().await;
    let raw = Raw::connect(service.address).await;
    let known = HealthCheckRequest { service: "permcached.v1.PermissionService".to_owned() }.encode_to_vec();
    let every = HealthCheckRequest::default().encode_to_vec();
    for encoding in ENCODINGS {
        for (accepted, request) in [("identity,deflate,gzip,zstd", &known), ("identity", &known), (encoding, &every)] {
            let is_accepted = accepted != "identity";
            let headers = [("grpc-encoding", encoding), ("grpc-accept-encoding", accepted)];
            let response = begin(&raw, HEALTH_CHECK, &packed(encoding, request), &headers).await;
            let (named, flag, message) = answered(response).await;
            assert_eq!(
                (named.as_deref(), flag),
                (is_accepted.then_some(encoding), u8::from(is_accepted)),
                "{accepted}"
            );
            let plain = if is_accepted { unpacked(encoding, &message) } else { message };
            assert_eq!(HealthCheckResponse::decode(&*plain).unwrap().status(), ServingStatus::Serving, "{accepted}");
            // The stream lasts, so only its first message is read.
            let response = begin(&raw, HEALTH_WATCH, &packed(encoding, request), &headers).await;
            let (head, mut body) = tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap().into_parts();
            assert!(!head.headers.contains_key("grpc-encoding"));
            let first = tokio::time::timeout(PATIENCE, body.data()).await.unwrap().unwrap().unwrap();
            let status = HealthCheckResponse::decode(&*messages(&first)[0]).unwrap().status();
            assert_eq!(status, ServingStatus::Serving, "{accepted}");
        }
        let unknown = HealthCheckRequest { service: "unknown".to_owned() }.encode_to_vec();
        let unknown = begin(&raw, HEALTH_CHECK, &packed(encoding, &unknown), &[("grpc-encoding", encoding)]).await;
        assert_eq!(status(unknown).await.code(), Code::NotFound);
    }
    let other = status(begin(&raw, HEALTH_CHECK, b"x", &[("grpc-encoding", "snappy")]).await).await;
    assert_eq!(other.code(), Code::Unimplemented, "{other:?}");
}

#[tokio::test]
async fn reflection_takes_compressed_messages_however_they_arrive() {
    let service = Service::start().await;
    let raw = Raw::connect(service.address).await;
    let request = |name: &str| {
        let message_request = Some(MessageRequest::FileContainingSymbol(name.to_owned()));
        ServerReflectionRequest { host: String::new(), message_request }.encode_to_vec()
    };
    for encoding in ENCODINGS {
        let compressed = |name: &str| {
            let packed = packed(encoding, &request(name));
            let mut message = prefixed(packed.len(), &packed);
            message[0] = 1;
            message
        };
        let plain = request("grpc.health.v1.Health");
        let names = ["permcached.v1.PermissionService", "permcached.v1.WatchService"];
        let [first, last] = names.map(compressed);
        let all = [first, prefixed(plain.len(), &plain), last].concat();
        for piece in [1, 7, all.len()] {
            let (response, mut stream) = raw.begin(REFLECTION, &[("grpc-encoding", encoding)]).await;
            for (place, bytes) in all.chunks(piece).enumerate() {
                let is_last = (place + 1) * piece >= all.len();
                stream.send_data(bytes.to_vec().into(), is_last).unwrap();
            }
            let replies = everything(response).await;
            assert_eq!(replies.len(), 3, "{encoding}, {piece} at once");
            for reply in replies {
                let reply = ServerReflectionResponse::decode(&*reply).unwrap().message_response;
                assert!(matches!(reply, Some(MessageResponse::FileDescriptorResponse(_))), "{reply:?}");
            }
        }
        // A message that breaks off, and one that is no message of this encoding.
        for broken in [all[..9].to_vec(), [&[1, 0, 0, 0, 1][..], b"x"].concat()] {
            let (response, mut stream) = raw.begin(REFLECTION, &[("grpc-encoding", encoding)]).await;
            stream.send_data(broken.into(), true).unwrap();
            assert!(everything(response).await.is_empty(), "{encoding}");
        }
    }
}

/// The messages of a response, read to its end.
async fn everything(response: ResponseFuture) -> Vec<Vec<u8>> {
    let read = async {
        let mut body = response.await.unwrap().into_body();
        let mut all = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            all.extend_from_slice(&data);
        }
        messages(&all)
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a response")
}

/// Nobody needs a token for these calls. Each message has less than 4 KiB, and would have megabytes. Reflection ends the stream
/// without saying why.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn calls_without_a_token_decompress_to_no_more_than_4_kib() {
    const MEMORY_MAX: usize = 16 * 1_024 * 1_024;
    let serving = Serving::start(&["--schema", "schemas/fylora-sharing.toml", "--documents", "examples/fylora"]);
    let zeros = |mebibytes: usize| vec![0; mebibytes * 1_024 * 1_024];
    let mut lying = packed("gzip", &zeros(3));
    let place = lying.len() - 4;
    lying.splice(place.., 1_000_u32.to_le_bytes());
    let mut unsized_frame = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    unsized_frame.include_contentsize(false).unwrap();
    unsized_frame.write_all(&zeros(16)).unwrap();
    let bombs = [
        ("gzip", packed("gzip", &zeros(3)), Code::OutOfRange),
        ("zstd", packed("zstd", &zeros(16)), Code::OutOfRange),
        ("gzip", lying, Code::Internal),
        ("zstd", unsized_frame.finish().unwrap(), Code::Internal),
    ];
    let before = peak_memory(serving.process_id());
    for (place, (encoding, bomb, code)) in bombs.iter().enumerate() {
        assert!(bomb.len() < 4_096, "{place}: {} bytes", bomb.len());
        let raws = join_all((0..8).map(|_| Raw::connect(serving.address))).await;
        for (method, code) in [(HEALTH_CHECK, *code), (HEALTH_WATCH, *code), (REFLECTION, Code::Ok)] {
            let calls = raws.iter().flat_map(|raw| (0..2).map(move |_| raw));
            let refused =
                calls.map(async |raw| status(begin(raw, method, bomb, &[("grpc-encoding", encoding)]).await).await);
            for status in join_all(refused).await {
                assert!([code, Code::ResourceExhausted].contains(&status.code()), "{method} {place}: {status:?}");
            }
            let once = status(begin(&raws[0], method, bomb, &[("grpc-encoding", encoding)]).await).await;
            assert_eq!(once.code(), code, "{method} {place}: {once:?}");
        }
    }
    let grown = peak_memory(serving.process_id()) - before;
    assert!(grown < MEMORY_MAX, "{grown} bytes more");
}
