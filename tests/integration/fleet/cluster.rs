//! A Redis Cluster: three masters, the log and the lease on one of them each, and one of them killed.

use bson::doc;
use permcached::check::Consistency;

use super::{FILE, GUEST, NO_GRANT, SCHEMA, SHARE, id, reads, share, shared_file};
use crate::support::{
    both::{counted, found_in},
    fleet::Fleet,
    live::{Live, until},
    redis::{Cluster, NODES},
};

async fn notices(fleet: &Fleet) {
    let question = reads(&fleet.instances[0].live, FILE);
    fleet.remember(&question, GUEST).await;
    let gone = fleet.instances[0].live.delete("shares", doc! { "_id": id(SHARE) }).await;
    fleet.notice(gone, &question, NO_GRANT).await;
    let back = fleet.instances[0].live.insert("shares", vec![share(SHARE, FILE)]).await;
    fleet.notice(back, &question, GUEST).await;
}

fn written(live: &Live) -> u64 {
    counted(&live.app.metrics, "permcached_redis_facts_written_total")
}

/// Named by one of its nodes alone, it refuses what belongs to the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_taken_for_a_server_costs_speed_alone() {
    let cluster = Cluster::start(&[]);
    for node in 0..NODES {
        let fleet = Fleet::new(2, &cluster.urls()[node], SCHEMA, &shared_file()).await;
        notices(&fleet).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_carries_all_also_after_any_of_its_masters_was_killed() {
    let mut cluster = Cluster::start(&[]);
    let fleet = Fleet::new(3, &cluster.urls().join(","), SCHEMA, &shared_file()).await;
    fleet.until_told().await;
    fleet.until_followed_by(1).await;
    notices(&fleet).await;
    // Facts spread over all masters, and all are found.
    let [first, second] = [&fleet.instances[0], &fleet.instances[1]].map(|instance| &instance.live);
    let questions: Vec<_> = (10..40).map(|file| reads(first, file)).collect();
    for question in &questions {
        first.ask(question, Consistency::MinimizeLatency).await.expect("an answer");
    }
    until(|| written(first) >= questions.len() as u64).await;
    let now = first.ask(&questions[0], Consistency::FullyConsistent).await.expect("an answer").as_of.moment;
    second.heard(now).await;
    for question in &questions {
        second.ask(question, Consistency::MinimizeLatency).await.expect("an answer");
    }
    let believed = found_in(&second.app.metrics, "redis");
    assert!(believed >= questions.len() as u64, "{believed} facts were found");
    cluster.node(0).freeze();
    notices(&fleet).await;
    cluster.node(0).thaw();
    cluster.whole();
    fleet.until_told().await;
    for node in 0..NODES {
        cluster.kill(node);
        notices(&fleet).await;
        cluster.start_again(node);
        cluster.whole();
        fleet.until_told().await;
        fleet.until_followed_by(1).await;
        notices(&fleet).await;
    }
    for live in fleet.each() {
        assert_eq!(live.app.checker.freshness().floor(), live.first_floor, "nothing was dropped");
    }
}
