//! The attacks. Each is a function that attacks until it is dropped; [`ATTACKS`] lists them in the order in which they run.

use std::{future::Future, pin::Pin};

use super::{
    aim::Aim,
    client::{ADMIN_SECRET, ATTACKER_SECRET, BATCH_CHECK, CHECK, EXPLAIN, Flood, INVALIDATE, LIST_PERMISSIONS},
    messages::{LARGEST, bad_batch, bad_invalidation, batch, check, compressed, empty_questions, grpc, list, prefixed},
    open::{self, Opened},
};

/// An attack that runs until it is dropped.
type Running = Pin<Box<dyn Future<Output = ()>>>;

/// An attack.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Aim) -> Running,
    /// The server's environment variables besides the defaults.
    pub(crate) environment: &'static [(&'static str, &'static str)],
}

const fn attack(name: &'static str, run: fn(Aim) -> Running) -> Attack {
    Attack { name, run, environment: &[] }
}

/// Every attack.
pub(crate) const ATTACKS: &[Attack] = &[
    attack("nothing", |_| Box::pin(std::future::pending())),
    attack("4 MiB of empty questions, once", |aim| Box::pin(once(aim))),
    attack("4 MiB of empty questions, 1 connection", |aim| flood(aim, BATCH_CHECK, prefixed(&empty_questions()), 1, 4)),
    attack("4 MiB of empty questions, 8 connections", |aim| {
        flood(aim, BATCH_CHECK, prefixed(&empty_questions()), 8, 4)
    }),
    attack("10,000 bad questions, 8 connections", |aim| flood(aim, BATCH_CHECK, grpc(&bad_batch(10_000)), 8, 4)),
    attack("10,000 honest questions, 8 connections", |aim| flood(aim, BATCH_CHECK, grpc(&batch(10_000)), 8, 4)),
    attack("1,000 honest questions, 8 connections", |aim| flood(aim, BATCH_CHECK, grpc(&batch(1_000)), 8, 16)),
    attack("100 honest questions, 8 connections", |aim| flood(aim, BATCH_CHECK, grpc(&batch(100)), 8, 64)),
    attack("10,000 answers unread, 12 connections", |aim| unread(aim, grpc(&batch(10_000)), 12, 16)),
    attack("700 answers unread, 12 connections", |aim| unread(aim, grpc(&batch(700)), 12, 60)),
    attack("single checks, 8 connections", |aim| flood(aim, CHECK, grpc(&check()), 8, 32)),
    attack("permissions of a resource, 8 connections", |aim| flood(aim, LIST_PERMISSIONS, grpc(&list()), 8, 32)),
    attack("4 MiB of a field repeated, 8 connections", |aim| {
        flood(aim, CHECK, prefixed(&repeated(&[0x0a, 0x00])), 8, 4)
    }),
    attack("4 MiB of unknown fields, 8 connections", |aim| flood(aim, CHECK, prefixed(&repeated(&[0x78, 0x00])), 8, 4)),
    attack("4 MiB of a nested field, 8 connections", |aim| flood(aim, CHECK, prefixed(&nested()), 8, 4)),
    attack("4 MiB of one string, 8 connections", |aim| flood(aim, CHECK, prefixed(&one_string()), 8, 4)),
    attack("4 MiB that decompress from few bytes, 8 connections", |aim| {
        flood(aim, CHECK, compressed(&one_string()), 8, 4)
    }),
    attack("explanations as admin, 8 connections", |aim| admin(aim, EXPLAIN, grpc(&check()))),
    attack("10,000 bad resources as admin, 8 connections", |aim| {
        admin(aim, INVALIDATE, grpc(&bad_invalidation(10_000)))
    }),
    attack("health streams without a token, 17 connections", |aim| {
        Box::pin(
            Opened {
                path: open::HEALTH_WATCH,
                body: Some(open::EMPTY),
                is_whole: true,
                connections: 17,
                streams: 1_024,
            }
            .run(aim),
        )
    }),
    attack("health streams without a token, 600 connections", |aim| {
        Box::pin(
            Opened { path: open::HEALTH_WATCH, body: Some(open::EMPTY), is_whole: true, connections: 600, streams: 8 }
                .run(aim),
        )
    }),
    attack("unread reflection without a token, 17 connections", |aim| {
        Box::pin(
            Opened {
                path: open::REFLECTION,
                body: Some(open::LARGE_FILE),
                is_whole: false,
                connections: 17,
                streams: 1_024,
            }
            .run(aim),
        )
    }),
    attack("health without bodies, 8 connections", |aim| {
        Box::pin(
            Opened { path: open::HEALTH_CHECK, body: None, is_whole: false, connections: 8, streams: 130 }.run(aim),
        )
    }),
    attack("health that nobody takes, 100 connections", |aim| {
        Box::pin(
            Opened {
                path: open::HEALTH_CHECK,
                body: Some(open::EMPTY),
                is_whole: true,
                connections: 100,
                streams: 256,
            }
            .run(aim),
        )
    }),
    attack("60 headers without a token, 8 connections", |aim| Box::pin(open::headers(aim, open::HEALTH_CHECK, 60, 8))),
    attack("200 headers without a token, 8 connections", |aim| {
        Box::pin(open::headers(aim, open::HEALTH_CHECK, 200, 8))
    }),
    attack("200 headers to Check without a token, 8 connections", |aim| {
        Box::pin(open::headers(aim, open::CHECK, 200, 8))
    }),
    attack("280 headers without a token, 8 connections", |aim| {
        Box::pin(open::headers(aim, open::HEALTH_CHECK, 280, 8))
    }),
    attack("metrics without a token, 8 connections", |aim| Box::pin(open::page(aim, "/metrics", 8))),
    attack("2,000 idle connections", |aim| Box::pin(open::idle(aim, 2_000))),
    attack("4 MiB of empty resources as admin", |aim| admin(aim, INVALIDATE, prefixed(&empty_questions()))),
];

fn flood(aim: Aim, method: &'static str, message: axum::body::Bytes, connections: usize, streams: usize) -> Running {
    Box::pin(Flood { method, secret: ATTACKER_SECRET, message, connections, streams }.run(aim))
}

fn admin(aim: Aim, method: &'static str, message: axum::body::Bytes) -> Running {
    Box::pin(Flood { method, secret: ADMIN_SECRET, message, connections: 8, streams: 4 }.run(aim))
}

fn unread(aim: Aim, message: axum::body::Bytes, connections: usize, streams: usize) -> Running {
    let flood = Flood { method: BATCH_CHECK, secret: ATTACKER_SECRET, message, connections, streams };
    Box::pin(flood.leave_unread(aim))
}

/// One message of the largest size.
async fn once(aim: Aim) {
    let message = prefixed(&empty_questions());
    let client = super::client::connect(aim.address).await.expect("a connection");
    let request = super::client::request(aim.address, BATCH_CHECK, ATTACKER_SECRET);
    match super::client::call(&client, request, message).await {
        Ok(Ok(())) => aim.count("OK"),
        Ok(Err(code)) => aim.count(&code),
        Err(_) => aim.count("connection lost"),
    }
    std::future::pending::<()>().await;
}

/// A field, as often as it fits into a message.
fn repeated(field: &[u8]) -> Vec<u8> {
    field.repeat(LARGEST / field.len())
}

/// A field of nothing but unknown empty fields, inside of a subject.
fn nested() -> Vec<u8> {
    delimited(0x0a, &[0x7a, 0x00].repeat(LARGEST / 2 - 8))
}

/// A question with a subject whose id is as long as a message allows.
fn one_string() -> Vec<u8> {
    delimited(0x0a, &delimited(0x12, &vec![b'x'; LARGEST - 16]))
}

/// A field with this tag and value.
fn delimited(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut field = vec![tag];
    prost::encode_length_delimiter(value.len(), &mut field).expect("it grows");
    field.extend_from_slice(value);
    field
}
