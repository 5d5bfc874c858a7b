//! A served check while documents change: for each hundred checks, none, one or ten writes to MongoDB of documents that the
//! checks are about.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bson::{Bson, Document, doc, oid::ObjectId};
use futures::FutureExt as _;
use mongodb::{Client, Collection, IndexModel};

use super::{
    STREAMS,
    calls::{self, Call, FILES},
    client::Between,
    database,
    plot::{Panel, plot},
    rounds::{Side, measure},
    servers::{Security, Server},
};

/// How many writes there are for each hundred checks.
const PERCENT: [u64; 3] = [0, 1, 10];

const DATABASE: &str = "growth";

fn bson(document: serde_json::Value) -> Document {
    match Bson::try_from(document) {
        Ok(Bson::Document(document)) => document,
        other => panic!("no document: {other:?}"),
    }
}

/// Writes that keep a share of the calls.
fn writes(percent: u64, files: Collection<Document>) -> Between {
    let (calls, last) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    Arc::new(move || {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        // Whether the number of writes that are due has grown.
        if (call + 1) * percent / 100 == call * percent / 100 {
            return None;
        }
        let (files, number) = (files.clone(), last.fetch_add(1, Ordering::Relaxed));
        Some(
            async move {
                // Each file in turn, in another folder than before. The owner may read it wherever it is.
                let (file, round) = (number % u64::from(FILES), number / u64::from(FILES));
                let id = |kind, number: u64| {
                    ObjectId::parse_str(calls::id(kind, u32::try_from(number).expect("it is small"))).expect("an id")
                };
                let update = doc! { "$set": { "folder_id": id(2, round % 2 + 1) } };
                files.update_one(doc! { "_id": id(3, file) }, update).await.expect("mongod answers");
            }
            .boxed(),
        )
    })
}

pub(crate) async fn run() {
    let uri = database::mongo().uri().replace("/?", &format!("/{DATABASE}?"));
    let database = Client::with_uri_str(&uri).await.expect("the URI is our own").database(DATABASE);
    for (collection, documents) in calls::documents() {
        let documents: Vec<Document> = documents.into_iter().map(bson).collect();
        database.collection(collection).insert_many(documents).await.expect("mongod answers");
    }
    for field in ["file_id", "folder_id"] {
        let index = IndexModel::builder().keys(doc! { field: 1 }).build();
        database.collection::<Document>("shares").create_index(index).await.expect("mongod answers");
    }
    let directory = tempfile::tempdir().expect("a directory");
    let environment = [("MONGODB_URI", &*uri)];
    let server = Server::permcached_with(directory.path(), calls::SCHEMA, Security::Nothing, &[], &environment);
    let files = database.collection::<Document>("files");
    println!(
        "\n{:<24} {:>9} {:>6} {:>10} {:>10} {:>10}",
        "Check, owner", "CPU µs", "ratio", "calls/s", "p50 µs", "p99 µs"
    );
    let (mut cpu, mut p99, mut first) = (Vec::new(), Vec::new(), None);
    for percent in PERCENT {
        let calls = Call::Owner.calls().with(writes(percent, files.clone()));
        let side = Side::new(&server, 8, calls).await;
        let [round] = measure([&side], STREAMS).await;
        let ratio = round.cpu() / *first.get_or_insert(round.cpu());
        println!(
            "{:<24} {:>9.2} {ratio:>6.2} {:>10.0} {:>10.0} {:>10.0}",
            format!("{percent} % writes"),
            round.cpu(),
            round.calls_a_second,
            round.median,
            round.p99
        );
        cpu.push(round.cpu());
        p99.push(round.p99 / 1_000.0);
    }
    let names = PERCENT.map(|percent| format!("{percent} %"));
    let panel = |title, values| {
        Panel::of_steps(title, "writes for each hundred checks", names.clone()).line("permcached", values)
    };
    plot("growth-writes", &[panel("processor time of a Check, µs", cpu), panel("99th percentile, ms", p99)]);
}
