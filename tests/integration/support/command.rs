//! The built binary: run to its end, or left serving until the test is over.
//!
//! Its environment is the test's own: nothing of the machine's configuration reaches it.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(45);

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// All that was said, wherever.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A schema in a file, which lives as long as the directory.
pub fn schema_file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("schema.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    (directory, path)
}

/// A command with these arguments, and none of the variables that it reads but these.
pub fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_permcached"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.args(arguments).env_clear().env("PATH", path).envs(variables.iter().copied());
    command.stdin(Stdio::null());
    command
}

/// Runs a command. What it says must be plain text: no test is a terminal.
#[track_caller]
pub fn run(arguments: &[&str]) -> Ended {
    run_with(arguments, &[])
}

/// As [`run`], with these variables.
#[track_caller]
pub fn run_with(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let output = command(arguments, variables).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ended = Ended {
        code: output.status.code().expect("not ended by a signal"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    assert!(!ended.said().contains('\u{1b}'), "{arguments:?}: {ended:?}");
    assert!(!ended.stderr.contains("panicked"), "{arguments:?}: {ended:?}");
    ended
}

/// A `permcached serve` on a free port, killed with the value.
pub struct Serving {
    process: Child,
    lines: Receiver<String>,
    pub address: SocketAddr,
}

impl Serving {
    /// Serves the sample documents by their schema.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// As [`Serving::start`], with these variables.
    #[track_caller]
    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::open(&[arguments, &["--port", "0"]].concat(), variables, "ready")
    }

    /// As [`Serving::start_with`], on a port that is among the arguments or variables, and as soon as the log says this with the
    /// address.
    #[track_caller]
    pub fn open(arguments: &[&str], variables: &[(&str, &str)], message: &str) -> Self {
        let mut serving = Self::begin(arguments, variables);
        let line = serving.logged(message);
        serving.address = line["address"].as_str().unwrap().parse().unwrap();
        serving
    }

    /// As [`Serving::open`], whose port may not be open yet, and is not known.
    #[track_caller]
    pub fn begin(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut all = vec!["serve"];
        all.extend(arguments);
        let mut process = command(&all, variables).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let unknown = SocketAddr::from(([0; 4], 0));
        Self { process, lines, address: unknown }
    }

    /// Another command that runs until the test is over, and the lines that it prints.
    #[track_caller]
    pub fn beside(&self, arguments: &[&str]) -> Beside {
        let url = self.url();
        let all = [arguments, &["--server", &url]].concat();
        let mut process = command(&all, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Beside { process, lines }
    }

    /// The next line of the log that says this.
    #[track_caller]
    pub fn logged(&self, message: &str) -> serde_json::Value {
        self.next_line(message, |said| said == message)
    }

    /// The next line of the log in which this stands.
    #[track_caller]
    pub fn logged_with(&self, part: &str) -> serde_json::Value {
        self.next_line(part, |said| said.contains(part))
    }

    #[track_caller]
    fn next_line(&self, wanted: &str, is_wanted: impl Fn(&str) -> bool) -> serde_json::Value {
        loop {
            let (_, line) = self.line(wanted);
            if line["message"].as_str().is_some_and(&is_wanted) {
                return line;
            }
        }
    }

    /// All lines of the log that nobody has looked at, to the one that says this.
    #[track_caller]
    pub fn lines_to(&self, message: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let (text, line) = self.line(message);
            lines.push(text);
            if line["message"] == message {
                return lines;
            }
        }
    }

    /// The next line of the log, as it is and as JSON, while one that says `wanted` is waited for.
    #[track_caller]
    fn line(&self, wanted: &str) -> (String, serde_json::Value) {
        let text = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("nothing says `{wanted}`"));
        let line = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        (text, line)
    }

    /// The server's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that it has logged and nobody has looked at, to its end.
    pub fn rest(&self) -> Vec<String> {
        self.lines.iter().collect()
    }

    /// Sends it a signal, by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end, and says with which code that was.
    pub fn exit_code(mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A command that asks a server, killed with the value.
pub struct Beside {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Beside {
    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        self.lines.next().expect("it goes on").unwrap()
    }

    /// Waits for its end: the code, and what it complained of.
    pub fn ended(mut self) -> (Option<i32>, String) {
        let mut complaint = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        (self.process.wait().unwrap().code(), complaint)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}
