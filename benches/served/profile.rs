//! Profiles a server with `perf` while it is called, and writes to `target/profile/`: where the processor time goes by layer,
//! by function, and by function with its callers.
//!
//! Requires a build with symbols and frame pointers, as `make profile` makes it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use super::{
    CONNECTIONS, Case,
    layers::{Layers, stacks},
    rounds::Side,
    servers::Server,
};

/// How long a profile takes.
const TIME: Duration = Duration::from_secs(8);

/// How often a second the stack of each busy processor is recorded: a prime, so that it keeps step with nothing.
const FREQUENCY: &str = "1999";

/// How long a server is called before the profile begins.
const WARM_UP: Duration = Duration::from_secs(1);

/// How many lines of the table of functions are written.
const FUNCTIONS: usize = 60;

/// Profiles the server while the case's calls are made.
pub(crate) async fn run(name: &str, server: &Server, case: &Case) {
    let directory = directory(name);
    let side = Side::new(server, CONNECTIONS, case.call.calls()).await;
    side.round(case.streams, WARM_UP).await;
    let data = directory.join("perf.data");
    let mut recording = Command::new("perf")
        .args(["record", "--quiet", "--freq", FREQUENCY, "--call-graph", "fp", "--pid"])
        .arg(server.process_id().to_string())
        .arg("--output")
        .arg(&data)
        .args(["--", "sleep", &TIME.as_secs().to_string()])
        .spawn()
        .unwrap_or_else(|error| panic!("perf cannot be run: {error}. {REMEDY}"));
    // A little longer than the profile, so that it records no idle server.
    let round = side.round(case.streams, TIME + WARM_UP).await;
    assert!(recording.wait().expect("perf").success(), "perf failed. {REMEDY}");
    let script = perf(&data, &["script", "--no-inline", "--fields", "ip,sym,dso"]);
    fs::write(directory.join("callers.txt"), callers(&data)).expect("it is written");
    let stacks = stacks(&script);
    let layers = Layers::of(&stacks);
    fs::write(directory.join("functions.txt"), layers.functions(FUNCTIONS)).expect("it is written");
    fs::write(directory.join("folded.txt"), layers.folded()).expect("it is written");
    let heading = format!(
        "{name}, {CONNECTIONS} connections with {} streams: {:.2} µs a call, of which {:.2} in the system\n\n",
        case.streams,
        round.cpu(),
        round.system
    );
    let table = heading + &layers.table(round.cpu());
    fs::write(directory.join("layers.txt"), &table).expect("it is written");
    println!("{table}\nmore in {}\n", directory.display());
}

const REMEDY: &str = "Install it (apt-get install linux-perf), and let this user record other processes \
    (sysctl kernel.perf_event_paranoid=1)";

/// Makes the directory of a profile.
fn directory(name: &str) -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/target").into());
    let words: Vec<_> = name.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let directory = Path::new(&target).join("profile").join(words.join("-").to_lowercase());
    fs::create_dir_all(&directory).expect("the directory can be made");
    directory
}

fn perf(data: &Path, arguments: &[&str]) -> String {
    let (command, rest) = arguments.split_first().expect("a command of perf");
    let mut perf = Command::new("perf");
    perf.arg(command).arg("--input").arg(data).args(rest).stderr(Stdio::null());
    let output = perf.output().expect("perf runs");
    assert!(output.status.success(), "{perf:?} failed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// perf's own report: each function with its callers.
fn callers(data: &Path) -> String {
    let limits = ["--percent-limit", "0.5", "--no-inline", "--stdio", "--no-children"];
    perf(data, &[&["report", "--call-graph", "graph,0.5,callee,function,percent"], &limits[..]].concat())
}
