//! Faults of the network between an instance and its servers, by the proxies before them, and a failover of Redis that the
//! proxies follow.
//!
//! Does nothing to a server except to promote a replica. Does not wait for the instances' recovery; `faults` does.

use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use crate::support::{links::Links, proxy::Link, redis::Redis};

/// How long each chunk takes over a slow link: longer than a usual answer takes, shorter than a request may take.
const DELAY: Duration = Duration::from_millis(150);

/// What happens to links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkFault {
    /// Each chunk is delayed.
    Slow,
    /// Connections are accepted, and everything waits until the end.
    Withheld,
    /// What the instance sends waits.
    WithheldToServer,
    /// What the servers send waits.
    WithheldToInstance,
    /// Everything is lost, and no connection that has lost something is ever reset.
    Lost,
    /// All connections are reset, again and again.
    Reset,
}

/// Whose links, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// One instance and all nodes.
    InstanceAndNodes(usize),
    /// One instance and one node.
    InstanceAndNode(usize, usize),
    /// One instance and Redis.
    InstanceAndRedis(usize),
    /// One instance and all its servers.
    InstanceAndAll(usize),
    /// All instances and all nodes.
    AllAndNodes,
    /// All instances and Redis.
    AllAndRedis,
}

impl Between {
    /// Links at random.
    pub fn at_random(rng: &mut Rng, instances: usize, nodes: usize) -> Self {
        let instance = rng.usize(..instances);
        match rng.u8(..6) {
            0 => Self::InstanceAndNodes(instance),
            1 => Self::InstanceAndNode(instance, rng.usize(..nodes)),
            2 => Self::InstanceAndRedis(instance),
            3 => Self::InstanceAndAll(instance),
            4 => Self::AllAndNodes,
            _ => Self::AllAndRedis,
        }
    }

    fn set(self, links: &[Links], link: Link) {
        match self {
            Self::InstanceAndNodes(instance) => links[instance].set_nodes(link),
            Self::InstanceAndNode(instance, node) => links[instance].nodes[node].set(link),
            Self::InstanceAndRedis(instance) => links[instance].set_redis(link),
            Self::InstanceAndAll(instance) => {
                links[instance].set_nodes(link);
                links[instance].set_redis(link);
            }
            Self::AllAndNodes => links.iter().for_each(|links| links.set_nodes(link)),
            Self::AllAndRedis => links.iter().for_each(|links| links.set_redis(link)),
        }
    }
}

impl LinkFault {
    pub const ALL: [Self; 6] =
        [Self::Slow, Self::Withheld, Self::WithheldToServer, Self::WithheldToInstance, Self::Lost, Self::Reset];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Slow => "links slow",
            Self::Withheld => "links half open, held back",
            Self::WithheldToServer => "links one way, to the instance",
            Self::WithheldToInstance => "links one way, to the server",
            Self::Lost => "links half open, lost",
            Self::Reset => "links reset",
        }
    }

    /// Causes the fault for as long as `lasts`, and undoes it. Returns a note for the report.
    pub async fn inflict(self, between: Between, links: &[Links], lasts: Duration) -> String {
        let link = match self {
            Self::Slow => Link::Slow(DELAY),
            Self::Withheld => Link::Withheld,
            Self::WithheldToServer => Link::WithheldToServer,
            Self::WithheldToInstance => Link::WithheldToClient,
            Self::Lost => Link::Lost,
            Self::Reset => Link::Reset,
        };
        between.set(links, link);
        sleep(lasts).await;
        between.set(links, Link::Open);
        format!("{between:?} for {lasts:.1?}")
    }
}

/// A replica of Redis is promoted, lacks what is written from then on, and takes the place of its primary: the links follow.
pub(super) async fn switch_redis(redis: &mut Redis, links: &[Links], lasts: Duration) -> String {
    let replica = Redis::replica_of(redis);
    replica.promote();
    sleep(lasts).await;
    links.iter().filter_map(|links| links.redis.as_ref()).for_each(|proxy| proxy.switch_to(replica.port()));
    *redis = replica;
    format!("promoted {lasts:.1?} before the switch")
}
