//! The four states, walked over gRPC health (`Check` and `Watch`), HTTP and the port itself.

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

async fn told(watch: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    timeout(PATIENCE, watch.message()).await.expect("a word").unwrap().map(|response| response.status())
}

/// And what has not changed is not told once more.
#[tokio::test]
async fn the_states_are_told_as_they_come_and_none_is_latched() {
    let (tell, health) = watch::channel(Health::Starting("MongoDB is not there".to_owned()));
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
        assert_eq!(told(&mut watch).await, Some(ServingStatus::NotServing), "`{service}`");
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
    for (health, status, code, said) in [
        (Health::Ready, serving, 200, "ready"),
        (degraded("Redis is away", true), serving, 200, "degraded: Redis is away"),
        (degraded("MongoDB is away", false), not, 503, "degraded: MongoDB is away"),
        (degraded("Redis is away", true), serving, 200, "degraded: Redis is away"),
        (Health::Ready, serving, 200, "ready"),
    ] {
        tell.send_replace(health);
        if status != before {
            for watch in &mut watches {
                assert_eq!(told(watch).await, Some(status), "{said}");
            }
        }
        before = status;
        for service in SERVICES {
            let asked = client.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap();
            assert_eq!(asked.get_ref().status(), status, "`{service}`, {said}");
        }
        let ready = service.get("/readyz").await;
        assert_eq!((ready.status, ready.body.as_str()), (code, said));
        // Whoever asks all the same is answered as well as can be.
        assert!(ask(&service.client(), check(ALICE, "read", ROADMAP)).await.unwrap().allowed, "{said}");
    }
    service.tell_to_stop();
    for watch in &mut watches {
        assert_eq!(told(watch).await, Some(not), "draining");
        assert_eq!(told(watch).await, None, "and it ends");
    }
    let address = service.address;
    service.ended().await;
    assert!(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err(), "the port is closed");
}
