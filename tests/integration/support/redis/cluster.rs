//! A Redis Cluster of three primaries, each with a third of the slots, that a test has for itself and may harm.
//!
//! There are no replicas in it: who ends takes its slots along until it is started again.

use super::{Redis, field_of, until};
use crate::support::servers::free_port;

/// How many nodes there are.
pub const NODES: usize = 3;

/// How many slots the keys have.
const SLOTS: usize = 16_384;

/// A node that is not heard of for a second counts as failed, not for fifteen as is usual: so faults take less time.
const FLAGS: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];

/// Three servers that are one to their clients. They end with the value.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts one, with arguments that come after the usual ones, and waits until all nodes know that it is whole.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        // The usual port of the bus is ten thousand above the other, and there may be no such port.
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
            // Else two of them would have the same, and would have to find that out.
            node.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        }
        for (node, bus_port) in cluster.nodes.iter().zip(&bus_ports).skip(1) {
            cluster.nodes[0].run(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), bus_port]);
        }
        cluster.whole();
        cluster
    }

    /// Where a client finds the nodes.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// One of the servers.
    pub fn node(&self, node: usize) -> &Redis {
        &self.nodes[node]
    }

    /// Ends a node by `kill -9`. What it held is lost.
    pub fn kill(&self, node: usize) {
        self.nodes[node].kill();
    }

    /// Starts a node again that has ended: empty, and with the slots that it had. [`Cluster::whole`] waits until the
    /// others know.
    #[track_caller]
    pub fn start_again(&mut self, node: usize) {
        self.nodes[node].start_again();
    }

    /// Whether a node takes the cluster for whole: each slot has a node that is heard of.
    #[track_caller]
    pub fn is_whole_to(&self, node: usize) -> bool {
        let info: String = self.nodes[node].read(&["CLUSTER", "INFO"]);
        field_of(&info, "cluster_state") == "ok" && field_of(&info, "cluster_known_nodes") == NODES.to_string()
    }

    /// Waits until every node takes the cluster for whole.
    #[track_caller]
    pub fn whole(&self) {
        until("the cluster is whole", || (0..NODES).all(|node| self.is_whole_to(node)));
    }
}
