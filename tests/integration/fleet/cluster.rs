//! A Redis Cluster of three masters: the log and the lease are on one master each, and each master is killed in turn.
//!
//! The masters have no replicas.

use bson::doc;
use permcached::check::Consistency;

use super::{FILE, GUEST, NO_GRANT, SCHEMA, SHARE, id, reads, share, shared_file};
use crate::support::{
    both::{counted, found_in},
    fleet::Fleet,
    live::{Live, until},
    redis::{Cluster, NODES},
};

async fn assert_changes_are_applied(fleet: &Fleet) {
    let question = reads(&fleet.instances[0].live, FILE);
    fleet.until_cached(&question, GUEST).await;
    let gone = fleet.instances[0].live.delete("shares", doc! { "_id": id(SHARE) }).await;
    fleet.until_applied(gone, &question, NO_GRANT).await;
    let back = fleet.instances[0].live.insert("shares", vec![share(SHARE, FILE)]).await;
    fleet.until_applied(back, &question, GUEST).await;
}

fn written(live: &Live) -> u64 {
    counted(&live.app.metrics, "permcached_redis_facts_written_total")
}

/// With the URL of a single node, that node refuses the keys of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_configured_as_a_single_server_costs_only_speed() {
    let cluster = Cluster::start(&[]);
    for node in 0..NODES {
        let fleet = Fleet::new(2, &cluster.urls()[node], SCHEMA, &shared_file()).await;
        assert_changes_are_applied(&fleet).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_serves_all_purposes_also_after_each_master_was_killed() {
    let mut cluster = Cluster::start(&[]);
    let fleet = Fleet::new(3, &cluster.urls().join(","), SCHEMA, &shared_file()).await;
    fleet.until_bus_covers_all().await;
    fleet.until_followed_by(1).await;
    assert_changes_are_applied(&fleet).await;
    // Facts are spread over all masters, and all of them are found.
    let [first, second] = [&fleet.instances[0], &fleet.instances[1]].map(|instance| &instance.live);
    let questions: Vec<_> = (10..40).map(|file| reads(first, file)).collect();
    for question in &questions {
        first.ask(question, Consistency::MinimizeLatency).await.expect("an answer");
    }
    until(|| written(first) >= questions.len() as u64).await;
    let now = first.ask(&questions[0], Consistency::FullyConsistent).await.expect("an answer").as_of.moment;
    second.until_applied(now).await;
    for question in &questions {
        second.ask(question, Consistency::MinimizeLatency).await.expect("an answer");
    }
    let found = found_in(&second.app.metrics, "redis");
    assert!(found >= questions.len() as u64, "{found} facts were found");
    cluster.node(0).freeze();
    assert_changes_are_applied(&fleet).await;
    cluster.node(0).thaw();
    cluster.until_complete();
    fleet.until_bus_covers_all().await;
    for node in 0..NODES {
        cluster.kill(node);
        assert_changes_are_applied(&fleet).await;
        cluster.start_again(node);
        cluster.until_complete();
        fleet.until_bus_covers_all().await;
        fleet.until_followed_by(1).await;
        assert_changes_are_applied(&fleet).await;
    }
    for live in fleet.each() {
        assert_eq!(live.app.freshness.floor(), live.first_floor, "nothing was dropped");
    }
}
