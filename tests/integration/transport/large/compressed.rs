//! Compressed requests: they are answered as others are, in the encoding that they have, and no request decompresses to more than
//! its bounds.

use std::io::{Read as _, Write as _};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use futures::future::join_all;
use h2::client::ResponseFuture;
use permcached::transport::proto::{BatchCheckResponse, CheckResponse};
use prost::Message;
use tonic::{Code, Status};

use super::*;

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
