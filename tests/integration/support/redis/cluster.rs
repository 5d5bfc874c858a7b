//! A Redis Cluster of three primaries, each with a third of the slots, for a single test, which may kill nodes.
//!
//! Has no replicas: while a node is down, so are its slots.

use super::{Redis, field_of, until};
use crate::support::servers::free_port;

/// How many nodes there are.
pub const NODES: usize = 3;

/// How many slots the keys have.
const SLOTS: usize = 16_384;

/// A node counts as failed after a second without contact, instead of fifteen, so that tests of faults take less time.
const FLAGS: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];

/// Three servers that form a cluster. Dropping the value ends them.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts a cluster, with these arguments after the usual ones, and waits until all nodes know that it is complete.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        // By default the cluster bus uses the port ten thousand above the node's, and there may be no such port.
        let bus_ports: Vec<String> =
            (0..NODES).map(|_| free_port().expect("a free port of 127.0.0.1").to_string()).collect();
        let node = |bus_port: &String| {
            let flags = FLAGS.into_iter().chain(["--cluster-port", bus_port]).chain(arguments.iter().copied());
            Redis::start(&flags.collect::<Vec<_>>())
        };
        let cluster = Self { nodes: bus_ports.iter().map(node).collect() };
        for (number, node) in cluster.nodes.iter().enumerate() {
            let (first, next) = (SLOTS * number / NODES, SLOTS * (number + 1) / NODES);
            node.run(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &(next - 1).to_string()]);
            // Otherwise two nodes may have the same epoch, and must resolve that conflict first.
            node.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        }
        for (node, bus_port) in cluster.nodes.iter().zip(&bus_ports).skip(1) {
            cluster.nodes[0].run(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), bus_port]);
        }
        cluster.until_complete();
        cluster
    }

    /// The URLs of the nodes.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// A node.
    pub fn node(&self, node: usize) -> &Redis {
        &self.nodes[node]
    }

    /// Ends a node by `kill -9`. Its data is lost.
    pub fn kill(&self, node: usize) {
        self.nodes[node].kill();
    }

    /// Starts an ended node again, empty and with the same slots. [`Cluster::until_complete`] waits until the others know.
    #[track_caller]
    pub fn start_again(&mut self, node: usize) {
        self.nodes[node].start_again();
    }

    /// Whether a node considers the cluster complete: each slot has a node in contact.
    #[track_caller]
    pub fn is_complete_to(&self, node: usize) -> bool {
        let info: String = self.nodes[node].read(&["CLUSTER", "INFO"]);
        field_of(&info, "cluster_state") == "ok" && field_of(&info, "cluster_known_nodes") == NODES.to_string()
    }

    /// Waits until every node considers the cluster complete.
    #[track_caller]
    pub fn until_complete(&self) {
        until("the cluster is complete", || (0..NODES).all(|node| self.is_complete_to(node)));
    }
}
