//! Faults that set a Redis back to older data: a restart from an old dump, and a failover to a replica that was behind.
//!
//! Sets no clock back: keys whose time has come have expired.

use std::fs;

use super::{Redis, until};

/// The data of a server at some time.
#[derive(Debug)]
pub struct Dump(Vec<u8>);

impl Redis {
    /// Its present data.
    #[track_caller]
    pub fn dump(&self) -> Dump {
        self.run(&["SAVE"]);
        let path = self.server.directory.join("dump.rdb");
        let dump = Dump(fs::read(&path).expect("it has just been saved"));
        // Removed, so that a server that is merely killed starts again empty.
        fs::remove_file(&path).expect("the directory is our own");
        dump
    }

    /// Ends it, and starts it again with the dump's data, at the same address: later writes are gone, and what was removed
    /// later is back. This simulates a restart from an old dump. Do not use it for a server with an append-only file.
    #[track_caller]
    pub fn restart_from(&mut self, dump: &Dump) {
        self.kill();
        let path = self.server.directory.join("dump.rdb");
        fs::write(&path, &dump.0).expect("the directory is our own");
        self.start_again();
        fs::remove_file(&path).expect("the directory is our own");
    }

    /// Starts a replica of a server without TLS, and waits until it is in sync.
    #[track_caller]
    pub fn replica_of(primary: &Self) -> Self {
        let replica = match &primary.password {
            Some(password) => Self::start(&["--masterauth", password]),
            None => Self::start(&[]),
        };
        replica.run(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
        replica.until_in_sync_with(primary);
        replica
    }

    /// Waits until this replica has everything that its primary has written so far.
    #[track_caller]
    pub fn until_in_sync_with(&self, primary: &Self) {
        let offset = |server: &Self, field| server.info("replication", field).parse::<u64>().unwrap_or(0);
        let target = offset(primary, "master_repl_offset");
        until("the replica is in sync", || {
            let is_linked = self.info("replication", "master_link_status") == "up";
            is_linked && offset(self, "slave_repl_offset") >= target
        });
    }

    /// Makes a replica a primary, which accepts writes.
    #[track_caller]
    pub fn promote(&self) {
        self.run(&["REPLICAOF", "NO", "ONE"]);
    }

    /// Ends it, and serves its replica's data at its address. Clients see their connections break, and then a server that lacks
    /// everything written since [`Redis::promote`].
    ///
    /// This simulates a failover behind one address, such as that of a proxy, to a replica that lacked the last writes: a
    /// primary does not wait for its replicas. The replica itself keeps running elsewhere.
    #[track_caller]
    pub fn fail_over_losing_writes(&mut self, replica: &Self) {
        assert_eq!(
            replica.info("replication", "role"),
            "master",
            "promote the replica first: until then it loses no writes"
        );
        let dump = replica.dump();
        self.restart_from(&dump);
    }
}
