//! A Redis Cluster: three masters, the log and the lease on one of them each, and one of them killed.

use bson::doc;

use super::{FILE, GUEST, NO_GRANT, SCHEMA, SHARE, id, reads, share, shared_file};
use crate::support::{
    fleet::Fleet,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_carries_all_also_after_any_of_its_masters_was_killed() {
    let mut cluster = Cluster::start(&[]);
    let fleet = Fleet::new(3, &cluster.urls().join(","), SCHEMA, &shared_file()).await;
    fleet.until_told().await;
    fleet.until_followed_by(1).await;
    notices(&fleet).await;
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
