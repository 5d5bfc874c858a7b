//! Measures lists over a mongod with a million files in folders that are 0 to 16 deep, for subjects with 10 to 10,000 ids: plans, pages
//! of resources and lists of subjects, as served; the finds of a plan with nothing in memory; and the application's own query with a plan
//! beside the naive way, which checks each candidate. Prints tables in Markdown, and writes plots into `docs/`.
//!
//! Words after `--` choose among `plans`, `pages`, `subjects`, `cold` and `queries`. A number is that of files, for a quick try: with
//! fewer than a million, subjects with many ids are left out, and no plot is written.

#![expect(
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench that cannot run panics with the reason, and prints its results"
)]
#![allow(dead_code, reason = "the tests' support code and the other benches' modules do more than this bench uses")]

#[path = "served/calls.rs"]
mod calls;
#[path = "served/client.rs"]
mod client;
#[path = "lists/cold.rs"]
mod cold;
#[path = "../tests/integration/support/servers.rs"]
mod database;
#[path = "growth/plot.rs"]
mod plot;
#[path = "lists/queries.rs"]
mod queries;
#[path = "lists/requests.rs"]
mod requests;
#[path = "served/rounds.rs"]
mod rounds;
#[path = "served/servers.rs"]
mod servers;
#[path = "lists/world.rs"]
mod world;

use std::{env, sync::Arc, time::Instant};

use bson::doc;
use client::{Calls, Connections};
use cold::Cold;
use mongodb::{Client, Database};
use permcached::schema::Schema;
use plot::{Panel, plot};
use queries::Taken;
use rounds::{Round, Side, measure};
use servers::{Security, Server};
use world::{Asker, DEPTH_MAX, READERS, World};

/// The number of files in the figures of docs/performance.md.
const FILES: u32 = 1_000_000;

/// The depths that are measured as served.
const DEPTHS: [u32; 6] = [0, 1, 2, 4, 8, DEPTH_MAX];

const DATABASE: &str = "lists";

/// The targets of a plan with everything in memory, and of a page: 99th percentiles in milliseconds.
const PLAN_MAX: f64 = 2.0;
const PAGE_MAX: f64 = 25.0;

/// How many finds a plan may take with nothing in memory, beside one for each level of folders.
const FINDS_MORE: u32 = 3;

struct Bench {
    world: World,
    schema: Arc<Schema>,
    database: Database,
    uri: String,
    server: Server,
    /// The rows that missed their targets.
    missed: Vec<String>,
    /// The plots, if the world is of full size.
    has_plots: bool,
}

/// A row of a table.
fn print_row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

fn print_heading(cells: &[&str]) {
    println!();
    print_row(&cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
    println!("|{}", "---|".repeat(cells.len()));
}

/// A number with three digits or more.
fn shown(value: f64) -> String {
    let digits = match value {
        0.0..0.1 => 3,
        0.1..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

impl Bench {
    async fn open(files: u32) -> Self {
        let schema = Arc::new(Schema::parse("fylora-sharing.toml", world::SCHEMA).expect("a shipped schema is valid"));
        let uri = database::mongo().uri().replace("/?", &format!("/{DATABASE}?"));
        let database = Client::with_uri_str(&uri).await.expect("the URI is our own").database(DATABASE);
        let (world, began) = (World::new(files), Instant::now());
        world.store(&database, &schema).await;
        println!("{files} files and what belongs to them were stored in {:.0} s", began.elapsed().as_secs_f64());
        let directory = tempfile::tempdir().expect("a directory");
        let environment = [("MONGODB_URI", &*uri)];
        let server = Server::permcached_with(directory.path(), world::SCHEMA, Security::Nothing, &[], &environment);
        Self { has_plots: files >= FILES, world, schema, database, uri, server, missed: Vec::new() }
    }

    /// Measures a call, one at a time, with everything in memory. Prints the row, and returns the figures.
    async fn row(&mut self, name: &str, calls: Calls, max: Option<f64>) -> Round {
        let side = Side::new(&self.server, 1, calls).await;
        side.connections.until_answered(&side.calls).await;
        let [round] = measure([&side], 1).await;
        let [cpu, p50, p99] = [round.cpu(), round.median, round.p99].map(|time| time / 1e3);
        let verdict =
            max.map_or(String::new(), |max| if p99 <= max { "met".to_owned() } else { "**missed**".to_owned() });
        if max.is_some_and(|max| p99 > max) {
            self.missed.push(format!("{name}: {} ms (p99)", shown(p99)));
        }
        print_row(&[name.to_owned(), shown(cpu), shown(p50), shown(p99), verdict]);
        round
    }

    fn heading(what: &str, target: &str) {
        print_heading(&[what, "processor time of the server, ms", "p50, ms", "p99, ms", target]);
    }

    /// The subjects by their ids.
    fn by_ids(&self) -> Vec<(Asker, Asker)> {
        self.world.sizes().into_iter().map(|ids| (Asker::Files(ids), Asker::Folders(ids))).collect()
    }

    fn plot_by_ids(&self, name: &str, what: &str, rounds: &[[Round; 2]]) {
        let names = self.world.sizes().into_iter().map(|ids| ids.to_string());
        let column = |place: usize, of: fn(&Round) -> f64| rounds.iter().map(|pair| of(&pair[place]) / 1e3).collect();
        let panel = |title: &str, of: fn(&Round) -> f64| {
            Panel::of_steps(&format!("{what}: {title}, ms"), "ids of the subject", names.clone())
                .line("shared files", column(0, of))
                .line("folders in a shared tree", column(1, of))
        };
        let panels = [panel("processor time", Round::cpu), panel("99th percentile", |round| round.p99)];
        if self.has_plots {
            plot(name, &panels);
        }
    }

    async fn plans(&mut self) {
        Self::heading("`PlanFilter`", "target: p99 of 2 ms");
        self.row(&Asker::Owner.to_string(), requests::plan(Asker::Owner), Some(PLAN_MAX)).await;
        let mut rounds = Vec::new();
        for (files, folders) in self.by_ids() {
            let of_files = self.row(&files.to_string(), requests::plan(files), Some(PLAN_MAX)).await;
            let of_folders = self.row(&folders.to_string(), requests::plan(folders), Some(PLAN_MAX)).await;
            rounds.push([of_files, of_folders]);
        }
        let mut by_depth = [const { Vec::new() }; 2];
        for depth in DEPTHS {
            let asker = Asker::Depth(depth);
            let round = self.row(&asker.to_string(), requests::plan(asker), Some(PLAN_MAX)).await;
            by_depth[0].push((f64::from(depth), round.cpu()));
            by_depth[1].push((f64::from(depth), round.p99));
        }
        let [cpu, p99] = by_depth;
        let panel = |title, points| Panel::new(title, "folders below the shared one").points("permcached", points);
        self.plot_by_ids("lists-plans", "PlanFilter", &rounds);
        if self.has_plots {
            plot(
                "lists-depth",
                &[panel("PlanFilter: processor time, µs", cpu), panel("PlanFilter: 99th percentile, µs", p99)],
            );
        }
    }

    async fn pages(&mut self) {
        Self::heading("`ListResources`, a page of 100", "target: p99 of 25 ms");
        self.page(Asker::Owner).await;
        let mut rounds = Vec::new();
        for (files, folders) in self.by_ids() {
            rounds.push([self.page(files).await, self.page(folders).await]);
        }
        self.page(Asker::Depth(DEPTH_MAX)).await;
        self.plot_by_ids("lists-pages", "page of 100", &rounds);
    }

    async fn page(&mut self, asker: Asker) -> Round {
        let connections = Connections::open(&self.server, 1).await;
        let calls = requests::pages(&connections, asker).await;
        self.row(&asker.to_string(), calls, Some(PAGE_MAX)).await
    }

    async fn subjects(&mut self) {
        Self::heading("`ListSubjects`", "");
        for readers in READERS {
            let calls = requests::readers(self.world.shared_file(readers), readers);
            self.row(&format!("a file with {readers} shares"), calls, None).await;
        }
        for depth in DEPTHS {
            let calls = requests::readers(self.world.deep_file(depth), 1);
            self.row(&format!("a file {depth} folders below a shared one"), calls, None).await;
        }
    }

    async fn cold(&mut self) {
        let cold = Cold::open(&self.schema, &self.uri, DATABASE).await;
        print_heading(&["`PlanFilter` with nothing in memory", "finds", "target", "ms", ""]);
        let mut finds_by_depth = Vec::new();
        let sizes = self.by_ids();
        let askers =
            (0..=DEPTH_MAX).map(Asker::Depth).chain(sizes.into_iter().flat_map(|(files, folders)| [files, folders]));
        for asker in askers {
            let (finds, time) = cold.measure(asker).await;
            let finds = u32::try_from(finds).expect("a few");
            let max = FINDS_MORE + asker.depth();
            let verdict = if finds <= max { "met" } else { "**missed**" };
            print_row(&[asker.to_string(), finds.to_string(), max.to_string(), shown(time), verdict.to_owned()]);
            if finds > max {
                self.missed.push(format!("{asker}: {finds} finds, target {max}"));
            }
            if let Asker::Depth(depth) = asker {
                finds_by_depth.push((f64::from(depth), f64::from(finds)));
            }
        }
        if self.has_plots {
            let targets = finds_by_depth.iter().map(|(depth, _)| (*depth, depth + f64::from(FINDS_MORE))).collect();
            let panel = Panel::new("finds of a plan with nothing in memory", "folders below the shared one")
                .points("target: depth + 3", targets)
                .points("permcached", finds_by_depth);
            plot("lists-finds", &[panel]);
        }
    }

    async fn queries(&mut self) {
        let status = self.database.run_command(doc! { "serverStatus": 1 }).await.expect("mongod answers");
        let mongod = u32::try_from(status.get_i64("pid").expect("a process id")).expect("a process id");
        let connections = Connections::open(&self.server, 1).await;
        let (database, server) = (&self.database, &self.server);
        let servers = queries::Servers { database, mongod, server, connections: &connections };
        print_heading(&[
            "20 files by date",
            "processor time, ms: query; plan and query; naive",
            "p50, ms: query",
            "plan and query",
            "ratio",
            "naive: candidates",
            "found",
            "p50, ms",
            "naive ÷ plan and query: time",
            "processor time",
        ]);
        for (files, folders) in self.by_ids() {
            for asker in [files, folders] {
                let queries::Measured { query, planned, naive, candidates, found } = servers.measure(asker).await;
                let cpu = |taken: &Taken| taken.own_cpu + taken.mongod_cpu;
                print_row(&[
                    asker.to_string(),
                    [&query, &planned, &naive].map(|taken| shown(cpu(taken))).join("; "),
                    shown(query.time),
                    shown(planned.time),
                    shown(planned.time / query.time),
                    candidates.to_string(),
                    found.to_string(),
                    shown(naive.time),
                    shown(naive.time / planned.time),
                    shown(cpu(&naive) / cpu(&planned)),
                ]);
            }
        }
    }
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (numbers, words): (Vec<&String>, Vec<&String>) =
        arguments.iter().partition(|argument| argument.parse::<u32>().is_ok());
    let files = numbers.first().map_or(FILES, |number| number.parse().expect("it is a number"));
    let is_chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(&***word));
    let mut bench = Bench::open(files).await;
    if is_chosen("plans") {
        bench.plans().await;
    }
    if is_chosen("pages") {
        bench.pages().await;
    }
    if is_chosen("subjects") {
        bench.subjects().await;
    }
    if is_chosen("cold") {
        bench.cold().await;
    }
    if is_chosen("queries") {
        bench.queries().await;
    }
    println!("\nTargets missed: {}", if bench.missed.is_empty() { "none" } else { "" });
    for line in &bench.missed {
        println!("  {line}");
    }
}
