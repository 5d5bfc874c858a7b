//! The causes of the health states: the database is not there yet, goes and comes back; Redis goes and comes back; the
//! shutdown.
//!
//! Does not test every way to read the state (`transport::health` does).

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use bson::doc;
use futures::future::join_all;
use tokio::{
    net::TcpSocket,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Streaming};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{SCHEMA, ask, endpoint, fill, uri};
use crate::support::{
    command::{Serving, schema_file},
    monitored::FailPoint,
    redis::{Redis, SECRET},
    servers::{Mongo, standalone_mongo},
    service::{Http, http},
};

/// How long a change of state may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until the body of `/readyz` starts with this.
async fn until_readyz(serving: &Serving, wanted: &str) -> Http {
    until_readyz_at(serving.address, wanted).await
}

async fn until_readyz_at(address: SocketAddr, wanted: &str) -> Http {
    let mut last = None;
    let comes_about = async {
        loop {
            let response = http(address, "/readyz").await;
            if response.body.starts_with(wanted) {
                return response;
            }
            last = Some(response);
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, comes_about).await.unwrap_or_else(|_| panic!("not `{wanted}` but {last:?}"))
}

async fn watch_health(serving: &Serving) -> Streaming<HealthCheckResponse> {
    let mut client = HealthClient::new(endpoint(serving).connect_lazy());
    client.watch(HealthCheckRequest::default()).await.unwrap().into_inner()
}

async fn next_status(watch: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    timeout(PATIENCE, watch.message()).await.expect("a response in time").unwrap().map(|response| response.status())
}

async fn asked(serving: &Serving) -> ServingStatus {
    let mut client = HealthClient::new(endpoint(serving).connect_lazy());
    client.check(HealthCheckRequest::default()).await.unwrap().get_ref().status()
}

/// The port opens only once the database is available, so that no client is sent to an instance that cannot answer.
#[tokio::test(flavor = "multi_thread")]
async fn the_port_stays_closed_until_mongodb_is_there() {
    let mut mongo = Mongo::own();
    fill(&mongo).await;
    mongo.kill();
    let port = crate::support::servers::free_port().unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (_directory, schema) = schema_file(SCHEMA);
    let (uri, port) = (uri(&mongo), port.to_string());
    let variables = [("SCHEMA_FILE", &*schema), ("MONGODB_URI", &*uri), ("PORT", &*port), ("STARTUP_GRACE", "10m")];
    let serving = Serving::begin(&[], &variables);
    let line = serving.logged("MongoDB cannot be used yet: it is tried again");
    assert_eq!(line["level"], "WARN");
    assert!(TcpStream::connect(address).is_err(), "the port is closed");
    // It is reserved, so that no outgoing connection takes it. (The listeners of the standard library would get it.)
    let taken = TcpSocket::new_v4().unwrap().bind(address);
    assert_eq!(taken.unwrap_err().kind(), ErrorKind::AddrInUse);
    mongo.start_again();
    serving.logged("ready");
    ask(&tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy(), None)
        .await
        .unwrap();
}

/// Configured with variables only, as an operator does it.
#[tokio::test(flavor = "multi_thread")]
async fn every_configured_limit_is_enforced() {
    let mongo = Mongo::own();
    fill(&mongo).await;
    let probes = crate::support::servers::free_port().unwrap();
    let (_directory, schema) = schema_file(SCHEMA);
    let (uri, port) = (uri(&mongo), probes.to_string());
    let variables = [
        ("SCHEMA_FILE", &*schema),
        ("MONGODB_URI", &*uri),
        ("PROBE_PORT", &*port),
        ("AUTH_TOKENS", "backend:a-token-of-the-tests,worker:b-token-of-the-tests,cron:c-token-of-the-tests"),
        ("MAX_REQUESTS", "2"),
        ("MAX_CALLER_REQUESTS", "1"),
        ("MAX_CONNECTIONS", "3"),
        ("MAX_STALENESS", "1s"),
        ("OBSERVED_FACTS", "100"),
    ];
    let serving = Serving::start_with(&["--bind", "127.0.0.1"], &variables);
    let probes = SocketAddr::from((Ipv4Addr::LOCALHOST, probes));
    assert_eq!(http(probes, "/readyz").await.body, "ready");
    let channel = endpoint(&serving).connect_lazy();
    ask(&channel, Some("a-token-of-the-tests")).await.unwrap();
    // The observer runs.
    let observed = async {
        loop {
            let metrics = http(probes, "/metrics").await.body;
            let count = metrics.lines().find_map(|line| line.strip_prefix("permcached_observed_facts_total "));
            if count.is_some_and(|count| count != "0") {
                return metrics;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let metrics = timeout(PATIENCE, observed).await.expect("facts are observed");
    assert!(metrics.contains("permcached_stale_facts_total{tier=\"memory\"} 0"), "{metrics}");
    // One call of a caller at a time: the first one waits for MongoDB, which does not answer.
    mongo.freeze();
    until_readyz_at(probes, "degraded: the source has not answered").await;
    let calls = join_all((0..4).map(|_| ask(&channel, Some("a-token-of-the-tests")))).await;
    let codes: Vec<Code> = calls.into_iter().map(|call| call.unwrap_err().code()).collect();
    assert!(codes.contains(&Code::ResourceExhausted) && !codes.iter().all(|code| *code == codes[0]), "{codes:?}");
    // Two calls of all callers together.
    let tokens = ["a-token-of-the-tests", "b-token-of-the-tests", "c-token-of-the-tests"];
    let calls = join_all(tokens.map(|token| ask(&channel, Some(token)))).await;
    let codes: Vec<Code> = calls.into_iter().map(|call| call.unwrap_err().code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == Code::ResourceExhausted).count(), 1, "{codes:?}");
    mongo.thaw();
    // One connection is open, and two more are allowed. Older ones give way to the others.
    let mut open: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(serving.address).unwrap()).collect();
    let line = serving.logged("a connection gave way to a new one: MAX_CONNECTIONS is reached");
    assert_eq!(line["level"], "WARN");
    open.clear();
    serving.signal("TERM");
    assert_eq!(serving.exit_code(), Some(0));
}

/// The process may have 128 descriptors. Idle connections to both ports take as many of them as they may, and are opened again and
/// again; MongoDB needs new ones meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_leave_descriptors_to_probes_and_mongodb() {
    let mut mongo = Mongo::own();
    fill(&mongo).await;
    let port = crate::support::servers::free_port().unwrap();
    let (_directory, schema) = schema_file(SCHEMA);
    let (uri, probe_port) = (uri(&mongo), port.to_string());
    let variables = [("SCHEMA_FILE", &*schema), ("MONGODB_URI", &*uri), ("PROBE_PORT", &*probe_port)];
    let serving = Serving::start_with_descriptors(128, &["--bind", "127.0.0.1"], &variables);
    let probes = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ports = [(serving.address, 200), (probes, 40)];
    let connect = || {
        let each = ports.into_iter().flat_map(|(address, count)| std::iter::repeat_n(address, count));
        join_all(each.map(|address| timeout(Duration::from_millis(500), tokio::net::TcpStream::connect(address))))
    };
    let mut idle = connect().await;
    let opened_again = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            idle = connect().await;
        }
    };
    let works = async {
        mongo.kill();
        until_readyz_at(probes, "degraded").await;
        mongo.start_again();
        until_readyz_at(probes, "ready").await;
        ask(&endpoint(&serving).connect_lazy(), None).await.unwrap();
    };
    tokio::select! {
        () = works => {}
        () = opened_again => {}
    }
}

/// While one permission may still be answered from facts older than the bound, the instance stays in service.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_stays_in_service_while_a_permission_allows_stale_answers() {
    let mongo = Mongo::own();
    fill(&mongo).await;
    let stale = SCHEMA.replace("read = \"owner\"", "read = { is = \"owner\", stale_if_error = \"8s\" }");
    let (_directory, schema) = schema_file(&stale);
    let uri = uri(&mongo);
    let variables = [("SCHEMA_FILE", &*schema), ("MONGODB_URI", &*uri), ("MAX_STALENESS", "500ms")];
    let serving = Serving::start_with(&[], &variables);
    let channel = endpoint(&serving).connect_lazy();
    ask(&channel, None).await.unwrap();
    mongo.freeze();
    // From this state on, facts are older than the bound.
    assert_eq!(until_readyz(&serving, "degraded: the source does not answer").await.status, 200);
    ask(&channel, None).await.unwrap();
    assert_eq!(until_readyz(&serving, "degraded: the source has not answered for so long").await.status, 503);
    let code = ask(&channel, None).await.unwrap_err().code();
    assert!(matches!(code, Code::Unavailable | Code::DeadlineExceeded), "{code:?}");
    mongo.thaw();
    until_readyz(&serving, "ready").await;
}

/// MongoDB answers, but its change stream does not: cached facts count for the bound, and the state shows the fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_receives_no_changes_is_degraded_and_serves() {
    let mongo = Mongo::own();
    fill(&mongo).await;
    let (_directory, schema) = schema_file(SCHEMA);
    let uri = format!("{}&appName=nochanges", uri(&mongo));
    let serving = Serving::start_with(&[], &[("SCHEMA_FILE", &*schema), ("MONGODB_URI", &*uri)]);
    let channel = endpoint(&serving).connect_lazy();
    let fails = doc! { "failCommands": ["aggregate", "getMore"], "errorCode": 43 };
    let failing = FailPoint::on(&mongo, "nochanges", "alwaysOn", fails).await;
    assert_eq!(until_readyz(&serving, "degraded: changes are not received").await.status, 200);
    assert_eq!(asked(&serving).await, ServingStatus::Serving);
    ask(&channel, None).await.unwrap();
    failing.off().await;
    until_readyz(&serving, "ready").await;
}

/// On a single server moments are this instance's own, so that only hints can go through Redis, and no change batches.
#[tokio::test(flavor = "multi_thread")]
async fn a_single_server_with_redis_is_ready() {
    let redis = Redis::start(&[]);
    let (_directory, schema) = schema_file(SCHEMA);
    let (uri, url) = (standalone_mongo().uri(), redis.url());
    let variables = [
        ("SCHEMA_FILE", &*schema),
        ("MONGODB_URI", &*uri),
        ("MONGODB_DATABASE", "lifecycle"),
        ("REDIS_URL", &*url),
        ("REDIS_SECRET", SECRET),
    ];
    let serving = Serving::start_with(&[], &variables);
    until_readyz(&serving, "ready").await;
}

/// A command that is not answered takes the link to Redis down until it is connected again. That is not an outage.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_of_redis_does_not_degrade_the_service_and_an_outage_does() {
    let mongo = Mongo::own();
    fill(&mongo).await;
    let redis = Redis::start(&[]);
    let (_directory, schema) = schema_file(SCHEMA);
    let (uri, url) = (uri(&mongo), redis.url());
    let variables = [
        ("SCHEMA_FILE", &*schema),
        ("MONGODB_URI", &*uri),
        ("REDIS_URL", &*url),
        ("REDIS_SECRET", SECRET),
        ("RUST_LOG", "info,permcached::link=debug"),
    ];
    let serving = Serving::start_with(&[], &variables);
    let is_up = async || {
        let metrics = http(serving.address, "/metrics").await.body;
        let mut links = metrics.lines().filter(|line| line.starts_with("permcached_redis_up{"));
        links.all(|line| line.ends_with(" 1") || line.ends_with(" 1.0"))
    };
    let until_up = async || {
        let comes = async {
            while !is_up().await {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, comes).await.expect("Redis is connected again");
    };
    until_up().await;
    until_readyz(&serving, "ready").await;
    // On a busy machine, connecting may take so long that it is an outage. Such a round shows nothing.
    let (mut late, mut outages, mut lines) = (0, 0, Vec::new());
    while late < 3 {
        redis.freeze();
        // It is lost with the next command, which may come seconds later: the instance pauses after it has given up the lease.
        let read = serving.lines_to("the link to Redis is lost");
        let began = Instant::now();
        redis.thaw();
        until_up().await;
        if began.elapsed() < Duration::from_secs(2) {
            late += 1;
        } else {
            outages += 1;
        }
        // Before the first round, Redis was not connected at the start.
        if late + outages > 1 {
            lines.extend(read);
        }
    }
    redis.kill();
    until_readyz(&serving, "degraded: Redis is unreachable").await;
    serving.signal("TERM");
    lines.extend(serving.rest());
    let degraded = lines.iter().filter(|line| line.contains("the service is degraded")).count();
    assert!((1..=1 + outages).contains(&degraded), "{degraded} times: {lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_started_before_mongodb_goes_through_all_four_states() {
    let mut mongo = Mongo::own();
    fill(&mongo).await;
    mongo.kill();
    let mut redis = Redis::start(&[]);
    let (_directory, schema) = schema_file(SCHEMA);
    let (uri, url) = (uri(&mongo), redis.url());
    let variables = [
        ("SCHEMA_FILE", &*schema),
        ("MONGODB_URI", &*uri),
        ("REDIS_URL", &*url),
        ("REDIS_SECRET", SECRET),
        ("PORT", "0"),
        ("STARTUP_GRACE", "0s"),
        // Long enough to observe the states between.
        ("MAX_STALENESS", "8s"),
    ];
    let serving = Serving::open(&[], &variables, "the port is open, and not ready");
    let channel = endpoint(&serving).connect_lazy();
    let (serves, not) = (ServingStatus::Serving, ServingStatus::NotServing);

    // Starting.
    let mut watch = watch_health(&serving).await;
    assert_eq!((next_status(&mut watch).await, asked(&serving).await), (Some(not), not));
    let response = until_readyz(&serving, "starting: MongoDB cannot be used").await;
    assert_eq!((response.status, http(serving.address, "/healthz").await.status), (503, 200));
    assert_eq!(ask(&channel, None).await.unwrap_err().code(), Code::Unavailable);

    // Ready, on the same connections.
    mongo.start_again();
    assert_eq!(next_status(&mut watch).await, Some(serves));
    assert_eq!(until_readyz(&serving, "ready").await.status, 200);
    ask(&channel, None).await.unwrap();

    // Without MongoDB, it still answers as long as cached facts are fresh enough.
    mongo.freeze();
    assert_eq!(until_readyz(&serving, "degraded: the source does not answer").await.status, 200);
    assert_eq!(asked(&serving).await, serves);
    ask(&channel, None).await.unwrap();
    assert_eq!(next_status(&mut watch).await, Some(not));
    assert_eq!(until_readyz(&serving, "degraded: the source has not answered for so long").await.status, 503);
    mongo.thaw();
    assert_eq!(next_status(&mut watch).await, Some(serves));
    until_readyz(&serving, "ready").await;
    ask(&channel, None).await.unwrap();

    // Without Redis.
    redis.kill();
    assert_eq!(until_readyz(&serving, "degraded: Redis is unreachable").await.status, 200);
    assert_eq!(asked(&serving).await, serves);
    ask(&channel, None).await.unwrap();
    redis.start_again();
    until_readyz(&serving, "ready").await;

    // Draining: health clients get the status, then the port closes. While Redis was away, they got no new status.
    serving.signal("TERM");
    assert_eq!(next_status(&mut watch).await, Some(not));
    assert_eq!(next_status(&mut watch).await, None);
    let address = serving.address;
    assert_eq!(serving.exit_code(), Some(0));
    assert!(TcpStream::connect(address).is_err(), "the port is closed");
}
