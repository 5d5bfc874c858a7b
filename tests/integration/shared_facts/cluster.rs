//! Facts in a Redis Cluster, whose values are read one by one: long ones are found, and what a neighbour has stored neither takes
//! more bytes than one read may nor hides other facts.
//!
//! What happens when a node is gone is tested in `fleet::cluster`.

use bson::{Document, doc};
use permcached::{
    fact::{Fact, FactKey},
    facts::codec,
    freshness::Moment,
    link::CODE_BYTES,
    question::Id,
};
use redis::{AsyncTypedCommands as _, cluster::ClusterClient, cluster_async::ClusterConnection};

use super::{Instance, World, id};
use crate::support::{
    both::counted,
    redis::{Cluster, NODES},
};

const MIB: u64 = 1 << 20;

/// The most that a value of an instance has.
const VALUE_BYTES_MAX: usize = codec::BYTES_MAX + CODE_BYTES;

/// A cluster, an instance over it, and a neighbour's connection.
struct Neighbourhood {
    cluster: Cluster,
    world: World,
    instance: Instance,
    neighbour: ClusterConnection,
}

impl Neighbourhood {
    async fn new() -> Self {
        let cluster = Cluster::start(&[]);
        let world = World::new(&cluster.urls().join(",")).await;
        let instance = world.join().await;
        let client = ClusterClient::new(cluster.urls()).expect("URLs of the test's own");
        let neighbour = client.get_async_connection().await.expect("the cluster is complete");
        Self { cluster, world, instance, neighbour }
    }

    /// The keys of the shares of so many files.
    fn keys(&self, count: u32) -> Vec<FactKey> {
        let key = |number: u32| {
            let [.., high, low] = number.to_be_bytes();
            FactKey { id: Id::ObjectId([high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), ..self.world.key("shares", 1) }
        };
        (0..count).map(key).collect()
    }

    async fn store(&mut self, key: &FactKey, value: &[u8]) {
        let name = self.instance.namespace.names.fact(key);
        self.neighbour.set(name, value).await.expect("the cluster is complete");
    }

    /// Stores a fact with so many shares, as an instance does.
    async fn store_fact(&mut self, key: &FactKey, shares: u16) {
        let share = |number: u16| {
            let [high, low] = number.to_be_bytes();
            let user = bson::oid::ObjectId::from_bytes([high, low, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
            doc! { "_id": user, "file_id": id(1), "user_id": user }
        };
        let documents: Vec<Document> = (0..shares).map(share).collect();
        let documents: Vec<&Document> = documents.iter().collect();
        let fact = Fact::read(&self.world.schema, key.clone(), Moment::default(), &documents);
        let content = codec::encode(&self.world.schema, &fact).expect("it is not too long");
        let name = self.instance.namespace.names.fact(key);
        let signed = self.instance.namespace.codes.facts.sign(&name, &content);
        self.store(key, &signed).await;
    }

    /// Reads the facts of these keys: how many are found, how many values have no valid code, and how many bytes the nodes send.
    async fn read(&self, keys: &[FactKey]) -> (usize, u64, u64) {
        let sent = || {
            let of = |node| self.cluster.node(node).info("stats", "total_net_output_bytes");
            (0..NODES).map(|node| of(node).parse::<u64>().expect("a number")).sum::<u64>()
        };
        let unauthentic =
            || counted(&self.instance.live.app.metrics, "permcached_redis_unauthentic_total{what=\"fact\"}");
        let read = async || {
            let before = (unauthentic(), sent());
            let facts = self.instance.shared.get(keys).await;
            (facts.len(), unauthentic() - before.0, sent() - before.1)
        };
        self.instance.in_time(read).await
    }
}

/// A thousand facts are asked for, so each may have 4 KiB at first. Three are longer.
#[tokio::test(flavor = "multi_thread")]
async fn facts_of_every_length_are_found_in_a_cluster() {
    let mut all = Neighbourhood::new().await;
    let keys = all.keys(1_000);
    for (place, shares) in [(0, 1), (1, 900), (500, 2), (501, 900), (998, 3), (999, 900)] {
        all.store_fact(&keys[place], shares).await;
    }
    assert_eq!(all.read(&keys).await.0, 6);
    assert_eq!(all.read(&keys[999..]).await.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bytes_that_one_read_takes_from_a_cluster_are_bounded_whatever_a_neighbour_has_stored() {
    let mut all = Neighbourhood::new().await;
    let keys = all.keys(200);
    let fact = keys[100].clone();
    for length in [VALUE_BYTES_MAX, VALUE_BYTES_MAX + 1, 1 << 20] {
        let value = vec![b'x'; length];
        for key in &keys {
            all.store(key, &value).await;
        }
        all.store_fact(&fact, 1).await;
        let (facts, _, bytes) = all.read(&keys).await;
        assert_eq!(facts, 1, "values of {length} bytes hide no other");
        assert!((3 * MIB..5 * MIB).contains(&bytes), "{bytes} bytes for values of {length}");
        let (facts, unauthentic, bytes) = all.read(&keys[..10]).await;
        assert_eq!((facts, unauthentic), (0, 10), "each is counted, if its length is {length}");
        assert!(bytes < MIB, "{bytes} bytes for ten values of {length}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_another_type_in_a_cluster_hides_no_other_and_is_counted() {
    let mut all = Neighbourhood::new().await;
    let keys = all.keys(3);
    all.store_fact(&keys[0], 1).await;
    let name = all.instance.namespace.names.fact(&keys[1]);
    all.neighbour.rpush(name, b"x").await.expect("the cluster is complete");
    let (facts, unauthentic, _) = all.read(&keys).await;
    assert_eq!((facts, unauthentic), (1, 1));
    assert!(all.instance.link.is_up(), "the link stays up");
}
