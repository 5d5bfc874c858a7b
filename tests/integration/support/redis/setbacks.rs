//! How a Redis comes to hold what it held once: restarted from an old dump, or replaced by a replica that was behind.
//!
//! No clocks are set back: what was to expire meanwhile has expired.

use std::fs;

use super::{Redis, until};

/// What a server held at some moment.
#[derive(Debug)]
pub struct Dump(Vec<u8>);

impl Redis {
    /// What it holds now.
    #[track_caller]
    pub fn dump(&self) -> Dump {
        self.run(&["SAVE"]);
        let path = self.server.directory.join("dump.rdb");
        let dump = Dump(fs::read(&path).expect("it has just been saved"));
        // Who is only killed starts again with nothing.
        fs::remove_file(&path).expect("the directory is our own");
        dump
    }

    /// Ends it and starts it again as it was then, at the same address: what was written since is gone, and what was
    /// removed is back. This stands for a restart from an old dump. It is not for a server that appends to a file.
    #[track_caller]
    pub fn restart_from(&mut self, dump: &Dump) {
        self.kill();
        let path = self.server.directory.join("dump.rdb");
        fs::write(&path, &dump.0).expect("the directory is our own");
        self.start_again();
        fs::remove_file(&path).expect("the directory is our own");
    }

    /// Starts a replica of a server that speaks no TLS, and waits until it is in sync.
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

    /// Waits until a replica has all that its primary has now.
    #[track_caller]
    pub fn until_in_sync_with(&self, primary: &Self) {
        let offset = |server: &Self, field| server.info("replication", field).parse::<u64>().unwrap_or(0);
        let written = offset(primary, "master_repl_offset");
        until("the replica is in sync", || {
            let is_linked = self.info("replication", "master_link_status") == "up";
            is_linked && offset(self, "slave_repl_offset") >= written
        });
    }

    /// Has a replica follow nobody from now on, and take writes itself.
    #[track_caller]
    pub fn promote(&self) {
        self.run(&["REPLICAOF", "NO", "ONE"]);
    }

    /// Ends it, and has what its replica holds served at its address. Clients see their connections break, and then a
    /// server that lacks whatever was written since [`Redis::promote`].
    ///
    /// This stands for a failover behind one address, as a proxy or a name makes it, where a replica had not been told
    /// of the last writes: a primary does not wait for it. The replica itself goes on elsewhere.
    #[track_caller]
    pub fn fail_over_losing_writes(&mut self, replica: &Self) {
        assert_eq!(replica.info("replication", "role"), "master", "promoted first: who follows loses nothing");
        let dump = replica.dump();
        self.restart_from(&dump);
    }
}
