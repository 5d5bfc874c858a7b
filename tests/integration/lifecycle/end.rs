//! SIGTERM under load with open streams, and a rolling restart of three instances.
//!
//! Does not test crashes (`history` does).

use std::{
    error::Error as _,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use permcached::transport::proto::{WatchRequest, watch_service_client::WatchServiceClient};
use tokio::time::{sleep, timeout};
use tonic::{
    Code, Request,
    transport::{Channel, Endpoint},
};

use super::{DATABASE, SCHEMA, ask, endpoint, fill, uri};
use crate::support::{
    command::{Serving, schema_file},
    redis::{Redis, SECRET},
    servers::{Mongo, free_port},
};

/// How long the service may take to end, as docs/operations.md promises.
const END_MAX: Duration = Duration::from_secs(5);

const TOKEN: &str = "a-token-of-the-tests";

/// The caller with this token.
const CALLER: &str = "tests:a-token-of-the-tests";

/// How many calls are open at once.
const CALLERS: usize = 32;

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_fails_no_call_that_was_accepted() {
    let mongo = Mongo::own();
    fill(&mongo).await;
    let (_directory, schema) = schema_file(SCHEMA);
    let uri = uri(&mongo);
    let variables = [("SCHEMA_FILE", &*schema), ("MONGODB_URI", &*uri), ("AUTH_ADMIN_TOKENS", CALLER)];
    let serving = Serving::start_with(&["--bind", "127.0.0.1"], &variables);

    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut request = Request::new(WatchRequest { since: None });
        request.metadata_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
        let mut client = WatchServiceClient::new(endpoint(&serving).connect_lazy());
        streams.push(client.watch(request).await.unwrap().into_inner());
    }
    let idle = TcpStream::connect(serving.address).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let channels: Vec<Channel> = (0..4).map(|_| endpoint(&serving).connect_lazy()).collect();
    // Each calls until a call fails, and returns when that call began and its status.
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let (channel, asked) = (channels[number % channels.len()].clone(), Arc::clone(&asked));
            tokio::spawn(async move {
                loop {
                    let began = Instant::now();
                    match ask(&channel, Some(TOKEN)).await {
                        Ok(()) => asked.fetch_add(1, Ordering::Relaxed),
                        Err(status) => return (began, status),
                    };
                }
            })
        })
        .collect();
    while asked.load(Ordering::Relaxed) < 2_000 {
        sleep(Duration::from_millis(1)).await;
    }
    let stopping_since = Instant::now();
    serving.signal("TERM");
    for mut stream in streams {
        let end = timeout(END_MAX, async {
            loop {
                if let Err(status) = stream.message().await {
                    break status;
                }
            }
        })
        .await;
        assert_eq!(end.expect("an end").code(), Code::Unavailable);
    }
    for caller in callers {
        let (began, status) = timeout(END_MAX, caller).await.expect("it is refused").unwrap();
        assert!(began > stopping_since, "a call that was open failed: {status:?}");
    }
    let log = serving.rest();
    assert!(log.iter().any(|line| line.contains("stopped")), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("still open")), "not every connection ended by itself: {log:?}");
    assert_eq!(serving.exit_code(), Some(0));
    assert!(stopping_since.elapsed() < END_MAX, "it took {:?}", stopping_since.elapsed());
    drop(idle);
}

/// A call over three instances. It is retried when the service asks for it or the connection breaks, as docs/clients.md
/// tells clients to.
async fn insist(channel: &Channel) -> Result<(), tonic::Status> {
    let mut result = Ok(());
    for attempt in 0_u32..8 {
        result = ask(channel, Some(TOKEN)).await;
        match &result {
            // A broken connection has a source error; a status from the service has none.
            Err(status) if status.code() == Code::Unavailable || status.source().is_some() => {
                sleep(Duration::from_millis(20) * 2_u32.pow(attempt)).await;
            }
            _ => break,
        }
    }
    result
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_three_instances_fails_no_call() {
    let (mongo, redis) = (Mongo::own(), Redis::start(&[]));
    fill(&mongo).await;
    let (_directory, schema) = schema_file(SCHEMA);
    let (uri, url) = (uri(&mongo), redis.url());
    let start = |port: u16| {
        let port = port.to_string();
        let variables = [
            ("SCHEMA_FILE", &*schema),
            ("MONGODB_URI", &*uri),
            ("MONGODB_DATABASE", DATABASE),
            ("REDIS_URL", &*url),
            ("REDIS_SECRET", SECRET),
            ("AUTH_TOKENS", CALLER),
            ("PORT", &*port),
        ];
        Serving::open(&["--bind", "127.0.0.1"], &variables, "ready")
    };
    let mut fleet: Vec<Serving> = (0..3).map(|_| start(free_port().unwrap())).collect();
    let endpoints = fleet.iter().map(|serving| {
        Endpoint::from_shared(serving.url()).unwrap().connect_timeout(Duration::from_secs(1)).timeout(END_MAX)
    });
    let channel = Channel::balance_list(endpoints);
    let (asked, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (channel, asked, is_over) = (channel.clone(), Arc::clone(&asked), Arc::clone(&is_over));
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    insist(&channel).await.unwrap_or_else(|status| panic!("a call failed: {status:?}"));
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let some_more = async || {
        let enough = asked.load(Ordering::Relaxed) + 500;
        let comes = async {
            while asked.load(Ordering::Relaxed) < enough {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_mins(1), comes).await.expect("calls are answered");
    };
    for _ in 0..3 {
        some_more().await;
        let serving = fleet.remove(0);
        let port = serving.address.port();
        serving.signal("TERM");
        assert_eq!(serving.exit_code(), Some(0));
        some_more().await;
        fleet.push(start(port));
    }
    some_more().await;
    is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
}
