//! The links of one instance: a proxy before each node of a replica set, and one before a Redis.
//!
//! Decides no fault.

use std::net::Ipv4Addr;

use super::{
    proxy::{Link, Proxy},
    redis::Redis,
    replica_set::ReplicaSet,
};

/// The proxies of one instance.
#[derive(Debug)]
pub struct Links {
    /// In the order of the nodes.
    pub nodes: Vec<Proxy>,
    pub redis: Option<Proxy>,
    ip: Ipv4Addr,
    uri: String,
}

impl Links {
    /// The links of the instance with this number: at most seven instances of a set have links.
    pub async fn start(number: usize, set: &ReplicaSet, redis: Option<&Redis>) -> Self {
        let digit = u8::try_from(number + 2).ok().filter(|digit| *digit < 10).expect("a number below 8");
        let ip = Ipv4Addr::new(127, 0, 0, digit);
        let nodes = futures::future::join_all(set.ports().map(|port| Proxy::start(ip, port))).await;
        let redis = match redis {
            Some(redis) => Some(Proxy::anywhere(redis.port()).await),
            None => None,
        };
        Self { nodes, redis, ip, uri: set.uri("") }
    }

    /// The connection string of the replica set over these links.
    pub fn uri(&self, app_name: &str) -> String {
        self.uri.replace("127.0.0.1", &self.ip.to_string()) + app_name
    }

    /// As [`Links::uri`], with these options after the usual ones.
    pub fn uri_with(&self, options: &str) -> String {
        self.uri("").trim_end_matches("appName=").to_owned() + options
    }

    /// The URL of Redis over its link.
    pub fn redis_url(&self) -> Option<String> {
        self.redis.as_ref().map(|proxy| format!("redis://{}", proxy.address))
    }

    /// Changes the links to all nodes.
    pub fn set_nodes(&self, link: Link) {
        self.nodes.iter().for_each(|proxy| proxy.set(link));
    }

    /// Changes the link to Redis.
    pub fn set_redis(&self, link: Link) {
        self.redis.iter().for_each(|proxy| proxy.set(link));
    }
}
