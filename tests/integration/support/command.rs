//! The built binary: run to its end, or as a server that is killed at the end of the test.
//!
//! Does not pass on the environment: a command sees only the variables that the test sets.

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    os::unix::ffi::OsStrExt as _,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use super::servers::free_port;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// How long a test waits for a line of the log, or for the end of a command.
const PATIENCE: Duration = Duration::from_secs(45);

/// How a command ended, and its output.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The output on both streams.
    pub fn output(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A schema in a file, which is deleted with the directory that is returned beside its path.
pub fn schema_file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("schema.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    (directory, path)
}

/// A command with these arguments and only these variables, and `PATH`.
pub fn command(arguments: &[&str], variables: &[(&str, &str)]) -> Command {
    // `make soak` runs the release build, which is not the one that belongs to the tests.
    let program = std::env::var_os("PERMCACHED_PROGRAM").filter(|program| !program.is_empty());
    let mut command = Command::new(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_permcached").into()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.args(arguments).env_clear().env("PATH", path).envs(variables.iter().copied());
    command.stdin(Stdio::null());
    command
}

/// Runs a command with pipes. Its output must be plain text, without colours.
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
    assert!(!ended.output().contains('\u{1b}'), "{arguments:?}: {ended:?}");
    assert!(!ended.stderr.contains("panicked"), "{arguments:?}: {ended:?}");
    ended
}

/// Runs a command on a pseudo-terminal, with these variables. Returns the output on both streams.
#[track_caller]
pub fn run_on_terminal(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let mut terminal = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap());
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let name = OsStr::from_bytes(name.to_bytes());
    let stream = || File::options().read(true).write(true).open(name).unwrap();
    // The command is dropped here, and with it this process's ends of the streams: the terminal ends with the child.
    let mut child = command(arguments, variables).stdout(stream()).stderr(stream()).spawn().unwrap();
    let mut output = Vec::new();
    let mut buffer = [0; 4_096];
    // Linux reports the end of the other side as an error.
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        output.extend_from_slice(&buffer[..count]);
    }
    child.wait().unwrap();
    String::from_utf8(output).unwrap()
}

/// A `permcached serve` on a free port. Dropping it kills the process.
pub struct Serving {
    process: Child,
    lines: Receiver<String>,
    pub address: SocketAddr,
}

impl Serving {
    /// Starts a server with these arguments, and waits until it is ready.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// As [`Serving::start`], with these variables.
    #[track_caller]
    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::open(&[arguments, &["--port", "0"]].concat(), variables, "ready")
    }

    /// As [`Serving::start_with`], on the port of the arguments or variables. Returns when the log has a line with this message
    /// and the address.
    #[track_caller]
    pub fn open(arguments: &[&str], variables: &[(&str, &str)], message: &str) -> Self {
        let mut serving = Self::begin(arguments, variables);
        let line = serving.logged(message);
        serving.address = line["address"].as_str().unwrap().parse().unwrap();
        serving
    }

    /// As [`Serving::start_with`], for a log that says nothing about the start: waits until the port answers.
    #[track_caller]
    pub fn start_quietly(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let port = free_port().unwrap();
        let text = port.to_string();
        let mut serving = Self::begin(&[arguments, &["--port", &text]].concat(), variables);
        serving.address = SocketAddr::from(([127, 0, 0, 1], port));
        let started = Instant::now();
        while std::net::TcpStream::connect(serving.address).is_err() {
            assert!(started.elapsed() < PATIENCE, "the port does not open");
            thread::sleep(Duration::from_millis(20));
        }
        serving
    }

    /// The id of the process.
    pub fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// As [`Serving::open`], without waiting: the port may not be open yet, and the address is not known.
    #[track_caller]
    pub fn begin(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::spawn(command(&[&["serve"], arguments].concat(), variables))
    }

    /// As [`Serving::start_with`], with so many file descriptors at most.
    #[track_caller]
    pub fn start_with_descriptors(descriptors: u32, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let all = [&["serve"], arguments, &["--port", "0"]].concat();
        let serve = command(&all, variables);
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &descriptors.to_string()]);
        limited.arg(serve.get_program()).args(&all).env_clear();
        limited.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        let mut serving = Self::spawn(limited);
        let line = serving.logged("ready");
        serving.address = line["address"].as_str().unwrap().parse().unwrap();
        serving
    }

    fn spawn(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let unknown = SocketAddr::from(([0; 4], 0));
        Self { process, lines, address: unknown }
    }

    /// Starts a command that calls this server, and leaves it running.
    #[track_caller]
    pub fn start_client(&self, arguments: &[&str]) -> RunningClient {
        let url = self.url();
        let all = [arguments, &["--server", &url]].concat();
        let mut process = command(&all, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        RunningClient { process, lines }
    }

    /// The next line of the log with this message.
    #[track_caller]
    pub fn logged(&self, message: &str) -> serde_json::Value {
        self.next_line(message, |text| text == message)
    }

    /// The next line of the log whose message contains this.
    #[track_caller]
    pub fn logged_with(&self, part: &str) -> serde_json::Value {
        self.next_line(part, |text| text.contains(part))
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

    /// All lines of the log that were not read yet, up to the one with this message.
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

    /// The next line of the log, as text and as JSON. Panics with `wanted` if none comes.
    #[track_caller]
    fn line(&self, wanted: &str) -> (String, serde_json::Value) {
        let text = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line of the log has `{wanted}`"));
        let line = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
        (text, line)
    }

    /// The server's URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All lines of the log that were not read yet, to the end of the process.
    pub fn rest(&self) -> Vec<String> {
        self.lines.iter().collect()
    }

    /// Sends it a signal, by name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end of the process, and returns the exit code.
    pub fn exit_code(mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "the process does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A command that calls a server. Dropping it kills the process.
pub struct RunningClient {
    process: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl RunningClient {
    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        self.lines.next().expect("the command prints another line").unwrap()
    }

    /// Waits for the end of the process. Returns the exit code and standard error.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let mut stderr = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.process.wait().unwrap().code(), stderr)
    }
}

impl Drop for RunningClient {
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
