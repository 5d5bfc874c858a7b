//! The application's own query for the newest files of one type, restricted by a plan; beside the naive way, which checks each candidate.

use std::time::{Duration, Instant};

use bson::{Bson, Document, doc, oid::ObjectId};
use futures::TryStreamExt as _;
use mongodb::Database;

use super::{
    client::Connections,
    requests::{are_allowed, checks, filter, plan},
    servers::{Cpu, Server},
    world::{Asker, MIME},
};

/// How many files the application shows.
const SHOWN: usize = 20;

/// How many candidates are checked at once.
const AT_ONCE: usize = 100;

/// After how many candidates the naive way gives up.
const CANDIDATES_MAX: usize = 20_000;

/// How often the query runs, after it has run a few times, and how often the naive way is gone.
const QUERIES: usize = 50;
const QUERIES_BEFORE: usize = 5;
const WALKS: usize = 3;

/// The medians of one way to find files.
#[derive(Clone, Copy, Default)]
pub(crate) struct Taken {
    /// Milliseconds until the files are there.
    pub(crate) time: f64,
    /// The 99th percentile of that.
    pub(crate) p99: f64,
    /// The processor time of permcached and of mongod, in milliseconds, on average.
    pub(crate) own_cpu: f64,
    pub(crate) mongod_cpu: f64,
}

/// The measurements of one subject.
pub(crate) struct Measured {
    /// The query alone, whose filter is already there.
    pub(crate) query: Taken,
    /// The plan, and then the query.
    pub(crate) planned: Taken,
    /// The naive way.
    pub(crate) naive: Taken,
    /// How many candidates the naive way has checked.
    pub(crate) candidates: usize,
    /// How many files it has found.
    pub(crate) found: usize,
}

/// The servers of both ways.
pub(crate) struct Servers<'a> {
    pub(crate) database: &'a Database,
    pub(crate) mongod: u32,
    pub(crate) server: &'a Server,
    pub(crate) connections: &'a Connections,
}

fn sort() -> Document {
    doc! { "created_at": -1, "_id": 1 }
}

fn id_of(file: &Document) -> ObjectId {
    file.get_object_id("_id").expect("a file has an id")
}

impl Servers<'_> {
    pub(crate) async fn measure(&self, asker: Asker) -> Measured {
        let planned_filter = self.plan(asker).await;
        let shown = self.query(&planned_filter).await;
        let query = self.times(QUERIES, || self.query(&planned_filter)).await;
        let planned = self.times(QUERIES, || async { self.query(&self.plan(asker).await).await }).await;
        let (candidates, found) = self.naive(asker).await;
        if candidates < CANDIDATES_MAX {
            assert_eq!(shown, found, "both ways find the same");
        } else {
            assert!(shown.starts_with(&found), "both ways find the same");
        }
        let naive = self.times(WALKS, || async { self.naive(asker).await.1 }).await;
        Measured { query, planned, naive, candidates, found: found.len() }
    }

    /// The filter of a plan.
    async fn plan(&self, asker: Asker) -> Document {
        let response = self.connections.until_answered(&plan(asker)).await;
        let value: serde_json::Value = serde_json::from_str(&filter(&response)).expect("it is JSON");
        match Bson::try_from(value) {
            Ok(Bson::Document(filter)) => filter,
            other => panic!("no document: {other:?}"),
        }
    }

    async fn query(&self, filter: &Document) -> Vec<ObjectId> {
        let query = doc! { "$and": [filter, { "mime": MIME }] };
        let limit = i64::try_from(SHOWN).expect("it is small");
        let files = self.database.collection::<Document>("files");
        let found = files.find(query).sort(sort()).limit(limit);
        let found: Vec<Document> = found.await.expect("mongod answers").try_collect().await.expect("mongod answers");
        found.iter().map(id_of).collect()
    }

    /// Checks one candidate after the other. Returns how many, and those that may be read.
    async fn naive(&self, asker: Asker) -> (usize, Vec<ObjectId>) {
        let files = self.database.collection::<Document>("files");
        let found = files.find(doc! { "mime": MIME }).sort(sort());
        let batch_size = u32::try_from(AT_ONCE).expect("it is small");
        let mut found = found.batch_size(batch_size).await.expect("mongod answers");
        let (mut candidates, mut allowed, mut is_over) = (0, Vec::new(), false);
        while allowed.len() < SHOWN && candidates < CANDIDATES_MAX && !is_over {
            let mut files = Vec::with_capacity(AT_ONCE);
            while files.len() < AT_ONCE && !is_over {
                match found.try_next().await.expect("mongod answers") {
                    Some(file) => files.push(id_of(&file)),
                    None => is_over = true,
                }
            }
            candidates += files.len();
            let response = self.connections.until_answered(&checks(asker, files.iter().copied())).await;
            let are_allowed = files.iter().zip(are_allowed(&response));
            allowed.extend(are_allowed.filter(|(_, is_allowed)| *is_allowed).map(|(file, _)| *file));
        }
        allowed.truncate(SHOWN);
        (candidates, allowed)
    }

    async fn times<F: Future<Output = Vec<ObjectId>>>(&self, count: usize, work: impl Fn() -> F) -> Taken {
        for _ in 0..QUERIES_BEFORE.min(count / 2) {
            work().await;
        }
        let mut times = Vec::with_capacity(count);
        let cpu = || [self.server.cpu().total, Cpu::of(self.mongod).total];
        let before = cpu();
        for _ in 0..count {
            let began = Instant::now();
            work().await;
            times.push(began.elapsed());
        }
        let after = cpu();
        times.sort_unstable();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let each = |place: usize| {
            milliseconds(after[place].saturating_sub(before[place])) / f64::from(u32::try_from(count).expect("a few"))
        };
        Taken {
            time: milliseconds(times[count / 2]),
            p99: milliseconds(times[count * 99 / 100]),
            own_cpu: each(0),
            mongod_cpu: each(1),
        }
    }
}
