//! The leader: there is one at a time, another instance takes over soon after it is gone, and two at once do no harm.
//!
//! Redis itself does not fail here: see `setbacks` and `outage`.

use std::sync::Arc;

use bson::doc;
use futures::future::join_all;
use permcached::{
    app::Sharing,
    link::{FORMAT, Namespace, Server},
    transport::proto::{CheckRequest, permission_service_client::PermissionServiceClient},
};
use tonic::transport::Endpoint;

use super::{FILE, GUEST, NO_GRANT, SCHEMA, SHARE, USER, id, reads, share, shared_file};
use crate::support::{
    command::{Serving, schema_file},
    fleet::{Fleet, Instance},
    live::until,
    redis::{Redis, SECRET, redis, secrets},
    servers::mongo,
    service::{PATIENCE, http, resource, subject},
};

/// The index of the leader, once there is one.
async fn leader(fleet: &Fleet) -> usize {
    until(|| fleet.each().any(|live| live.app.is_leader())).await;
    fleet.each().position(|live| live.app.is_leader()).expect("there is a leader")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_and_no_facts_are_dropped() {
    let mut fleet = Fleet::new(3, &redis().url(), SCHEMA, &shared_file()).await;
    fleet.until_bus_covers_all().await;
    let question = reads(&fleet.instances[0].live, FILE);
    for left in [2, 1] {
        fleet.until_cached(&question, GUEST).await;
        let floors: Vec<_> = fleet.each().map(|live| live.app.freshness.floor()).collect();
        let leading = leader(&fleet).await;
        // Its tasks are aborted; the lease stays as it was.
        drop(fleet.instances.remove(leading));
        let gone = fleet.instances[0].live.delete("shares", doc! { "_id": id(SHARE) }).await;
        fleet.until_applied(gone, &question, NO_GRANT).await;
        fleet.until_followed_by(1).await;
        leader(&fleet).await;
        assert_eq!(fleet.instances.len(), left);
        for (live, floor) in fleet.each().zip(floors.iter().enumerate().filter(|(at, _)| *at != leading)) {
            assert_eq!(live.app.freshness.floor(), *floor.1);
        }
        let back = fleet.instances[0].live.insert("shares", vec![share(SHARE, FILE)]).await;
        fleet.until_applied(back, &question, GUEST).await;
    }
}

/// An instance that shares everything with the others except the lease.
async fn with_another_lease(fleet: &Fleet, redis: &Redis) -> Instance {
    let server = Server::parse(&redis.url()).expect("a URL of the test's own");
    let start = fleet.start_sharing(Arc::clone(&fleet.schema), async |schema, mongodb| {
        let identity = mongodb.identity().await.expect("mongod answers");
        let mut namespace = Namespace::new(&identity, schema.fingerprint(), FORMAT, &secrets());
        namespace.names.lease.push_str(":another");
        Sharing::new(server, namespace)
    });
    start.await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_leaders_at_once_do_no_harm() {
    let mut fleet = Fleet::new(2, &redis().url(), SCHEMA, &shared_file()).await;
    let other = with_another_lease(&fleet, redis()).await;
    fleet.instances.push(other);
    until(|| fleet.each().filter(|live| live.app.is_leader()).count() == 2).await;
    fleet.until_followed_by(2).await;
    let question = reads(&fleet.instances[0].live, FILE);
    for _ in 0..10 {
        fleet.until_cached(&question, GUEST).await;
        let gone = fleet.instances[1].live.delete("shares", doc! { "_id": id(SHARE) }).await;
        fleet.until_applied(gone, &question, NO_GRANT).await;
        let back = fleet.instances[1].live.insert("shares", vec![share(SHARE, FILE)]).await;
        fleet.until_applied(back, &question, GUEST).await;
    }
    for live in fleet.each() {
        assert_eq!(live.app.freshness.floor(), live.first_floor, "nothing was dropped");
    }
}

/// A process of the built binary that serves the fleet's database.
fn process(fleet: &Fleet, schema: &str, redis: &Redis) -> Serving {
    let database = fleet.database.name();
    let (uri, url) = (mongo().uri(), redis.url());
    Serving::start_with(
        &[],
        &[
            ("SCHEMA_FILE", schema),
            ("MONGODB_URI", &uri),
            ("MONGODB_DATABASE", database),
            ("REDIS_URL", &url),
            ("REDIS_SECRET", SECRET),
        ],
    )
}

/// Whether a process answers that the guest may read the file, with the default consistency.
async fn allows(process: &Serving) -> bool {
    let channel = Endpoint::from_shared(process.url()).expect("an address").timeout(PATIENCE).connect_lazy();
    let request = CheckRequest {
        subject: subject(&format!("user:{}", id(USER))),
        permission: "read".to_owned(),
        resource: resource(&format!("file:{}", id(FILE))),
        consistency: None,
        dependencies: false,
    };
    let response = PermissionServiceClient::new(channel).check(request).await.expect("an answer");
    response.into_inner().answer.expect("an answer").allowed
}

async fn until_allows(process: &Serving, wanted: bool) {
    let answers = async { while allows(process).await != wanted {} };
    tokio::time::timeout(PATIENCE, answers).await.expect("the change is applied in the end");
}

/// Waits until exactly one of these processes is the leader.
async fn until_one_leads(processes: &[&Serving]) {
    let one_leads = async {
        loop {
            let metrics = processes.iter().map(|process| http(process.address, "/metrics"));
            let metrics = join_all(metrics).await;
            if metrics.iter().filter(|shown| shown.body.contains("\npermcached_leader 1")).count() == 1 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, one_leads).await.expect("there is one leader in the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_thaws_after_its_lease_ran_out_answers_within_the_bound_and_rejoins() {
    let redis = Redis::start(&[]);
    // Only its database is used.
    let fleet = Fleet::new(0, &redis.url(), SCHEMA, &shared_file()).await;
    let (_directory, schema) = schema_file(SCHEMA);
    let first = process(&fleet, &schema, &redis);
    until_one_leads(&[&first]).await;
    let second = process(&fleet, &schema, &redis);
    for process in [&first, &second] {
        until_allows(process, true).await;
    }
    first.signal("STOP");
    until_one_leads(&[&second]).await;
    let shares = fleet.database.collection::<bson::Document>("shares");
    shares.delete_one(doc! { "_id": id(SHARE) }).await.expect("mongod answers");
    until_allows(&second, false).await;
    // Longer than the bound.
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    first.signal("CONT");
    assert!(!allows(&first).await, "the bound has passed while it was frozen");
    until_one_leads(&[&first, &second]).await;
    shares.insert_one(share(SHARE, FILE)).await.expect("mongod answers");
    for process in [&first, &second] {
        until_allows(process, true).await;
    }
    shares.delete_one(doc! { "_id": id(SHARE) }).await.expect("mongod answers");
    for process in [&first, &second] {
        until_allows(process, false).await;
    }
    // A leader that is asked to end gives the lease up; the lease of a killed one runs out.
    second.signal("TERM");
    assert_eq!(second.exit_code(), Some(0));
    until_one_leads(&[&first]).await;
    let third = process(&fleet, &schema, &redis);
    until_allows(&third, false).await;
    first.signal("KILL");
    until_one_leads(&[&third]).await;
}
