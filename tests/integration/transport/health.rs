//! The four states as gRPC health (`Check` and `Watch`), HTTP and the port itself show them.
//!
//! The test sets the states; `lifecycle` has their causes.

use std::{net::TcpStream, time::Duration};

use permcached::transport::{Apis, Health};
use tokio::{sync::watch, time::timeout};
use tonic::{Code, Streaming};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{ALICE, ROADMAP, ask, check};
use crate::support::service::{PATIENCE, Service};

const SERVICES: [&str; 4] =
    ["", "permcached.v1.PermissionService", "permcached.v1.InvalidationService", "permcached.v1.WatchService"];

async fn next_status(watch: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    timeout(PATIENCE, watch.message()).await.expect("a response in time").unwrap().map(|response| response.status())
}

/// An unchanged status is not reported again.
#[tokio::test]
async fn each_state_is_reported_when_it_comes_and_none_stays() {
    let (health_sender, health) = watch::channel(Health::Starting("MongoDB is not there".to_owned()));
    let (offer, offered) = watch::channel::<Option<Apis>>(None);
    let mut apis = None;
    let mut service = Service::start_as(|serving| {
        serving.health = health;
        apis = serving.apis.borrow().clone();
        serving.apis = offered;
    })
    .await;
    let mut client = HealthClient::new(service.channel());
    let mut watches = Vec::new();
    for service in SERVICES {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut watch = client.watch(request).await.unwrap().into_inner();
        assert_eq!(next_status(&mut watch).await, Some(ServingStatus::NotServing), "`{service}`");
        watches.push(watch);
    }
    let refused = ask(&service.client(), check(ALICE, "read", ROADMAP)).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "starting: MongoDB is not there"));
    let ready = service.get("/readyz").await;
    assert_eq!((ready.status, ready.body.as_str()), (503, "starting: MongoDB is not there"));
    assert_eq!(service.get("/healthz").await.status, 200, "a restart would not help");
    offer.send_replace(apis);

    let degraded = |why: &str, answers| Health::Degraded { why: why.to_owned(), answers };
    let (serving, not) = (ServingStatus::Serving, ServingStatus::NotServing);
    let mut before = not;
    for (health, status, code, body) in [
        (Health::Ready, serving, 200, "ready"),
        (degraded("Redis is away", true), serving, 200, "degraded: Redis is away"),
        (degraded("MongoDB is away", false), not, 503, "degraded: MongoDB is away"),
        (degraded("Redis is away", true), serving, 200, "degraded: Redis is away"),
        (Health::Ready, serving, 200, "ready"),
    ] {
        health_sender.send_replace(health);
        if status != before {
            for watch in &mut watches {
                assert_eq!(next_status(watch).await, Some(status), "{body}");
            }
        }
        before = status;
        for service in SERVICES {
            let asked = client.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap();
            assert_eq!(asked.get_ref().status(), status, "`{service}`, {body}");
        }
        let ready = service.get("/readyz").await;
        assert_eq!((ready.status, ready.body.as_str()), (code, body));
        // The service answers questions that arrive anyway.
        assert!(ask(&service.client(), check(ALICE, "read", ROADMAP)).await.unwrap().allowed, "{body}");
    }
    service.shut_down();
    for watch in &mut watches {
        assert_eq!(next_status(watch).await, Some(not), "draining");
        assert_eq!(next_status(watch).await, None, "and it ends");
    }
    let address = service.address;
    service.ended().await;
    assert!(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err(), "the port is closed");
}
