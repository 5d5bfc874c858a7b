//! Real Redis servers: one that all tests share, and ones of a single test, which may kill, freeze or set them back. Valkey
//! serves as well as Redis.
//!
//! Works with and without a tokio runtime, and does not block a multi-threaded one. Injects no fault by itself, and asserts
//! nothing about clients.

mod cluster;
pub mod setbacks;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

pub use cluster::{Cluster, NODES};
use permcached::link::Secrets;
use redis::{
    Client, ErrorKind, FromRedisValue, RedisResult, ServerErrorKind, TlsCertificates, Value, from_redis_value,
};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::block_in_place,
};

use super::{
    certificates::Certificates,
    servers::{Server, find, started},
};

/// How long a server may take to answer. A frozen server never answers.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How long servers may take to reach a state by themselves: to load a dump, to be in sync, to find each other.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long to wait between two polls of a server.
const POLL: Duration = Duration::from_millis(10);

/// The arguments of each server: it keeps nothing on disk, and a replica does not wait for other replicas.
const FLAGS: &str = "--bind 127.0.0.1 --appendonly no --repl-diskless-sync yes --repl-diskless-sync-delay 0 \
    --rdb-del-sync-files yes";

/// The secret that instances of these tests share.
pub const SECRET: &str = "of-the-tests-0123456789abcdef0123456789abcdef";

/// [`SECRET`], alone.
pub fn secrets() -> Secrets {
    Secrets::parse(SECRET).expect("it is long enough")
}

/// The names of the programs to look for, and the variable that names another program.
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];
const VARIABLE: &str = "REDIS_SERVER";

/// Parts of the messages of servers that were built without TLS: of Valkey and newer Redis, and of older Redis.
const WITHOUT_TLS: [&str; 2] = ["Failed finding TLS support", ">>> 'tls-"];

/// The server that all tests of this binary share, started by the first that calls this. Each test has its own keys and
/// channels there.
#[track_caller]
pub fn redis() -> &'static Redis {
    static REDIS: LazyLock<Result<Redis, String>> = LazyLock::new(|| Redis::try_start(&[], None, None));
    started(&REDIS)
}

/// Runs a command on any server, on a connection of its own. With `rediss://`, the server's certificate must come from this
/// authority or, if there is none, from one of the system's.
pub fn ask(url: &str, authority: Option<&Path>, command: &[&str], within: Duration) -> RedisResult<Value> {
    blocking(|| {
        let client = match authority {
            Some(path) => {
                Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert: Some(fs::read(path)?) })
            }
            None => Client::open(url),
        };
        let mut connection = client?.get_connection_with_timeout(within)?;
        connection.set_read_timeout(Some(within))?;
        redis::cmd(command[0]).arg(&command[1..]).query(&mut connection)
    })
}

/// Waits until a condition is met.
#[track_caller]
pub fn until(what: &str, mut is_met: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_met() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        blocking(|| thread::sleep(POLL));
    }
}

/// Runs blocking work without blocking the other tasks of a multi-threaded runtime.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => block_in_place(work),
        _ => work(),
    }
}

/// A running server. Dropping the value ends it.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    /// The password of the default user.
    password: Option<String>,
    /// Its certificates, if it serves TLS.
    certificates: Option<Certificates>,
}

impl Redis {
    /// Starts a server, with these arguments after the usual ones.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        Self::try_start(arguments, None, None).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts a server that requires a password.
    #[track_caller]
    pub fn with_password(password: &str) -> Self {
        let started = Self::try_start(&["--requirepass", password], Some(password.to_owned()), None);
        started.unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts a server that accepts only TLS, with a certificate for 127.0.0.1 and localhost. If the program was built without
    /// TLS, prints that and returns nothing.
    #[track_caller]
    pub fn with_tls() -> Option<Self> {
        Self::with_certificates(Certificates::new())
    }

    /// As [`Redis::with_tls`], with these certificates.
    #[track_caller]
    pub fn with_certificates(certificates: Certificates) -> Option<Self> {
        match Self::try_start(&[], None, Some(certificates)) {
            Ok(redis) => Some(redis),
            Err(why) if WITHOUT_TLS.iter().any(|message| why.contains(message)) => {
                let program = program().unwrap_or_default();
                println!("not tested: {} was built without TLS", program.display());
                None
            }
            Err(why) => panic!("{why}"),
        }
    }

    fn try_start(
        arguments: &[&str],
        password: Option<String>,
        certificates: Option<Certificates>,
    ) -> Result<Self, String> {
        let started = |port, directory: &Path| {
            let mut all = usual_arguments(port, directory, certificates.as_ref());
            all.extend(arguments.iter().map(OsString::from));
            all
        };
        let server = blocking(|| Server::start_program(NAMES[0], &program()?, started))?;
        let redis = Self { server, password, certificates };
        redis.until_ready()?;
        Ok(redis)
    }

    /// The URL, with the password if there is one.
    pub fn url(&self) -> String {
        match &self.password {
            Some(password) => self.url_of("", password),
            None => self.url_with(""),
        }
    }

    /// The URL for a user.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        self.url_with(&format!("{user}:{password}@"))
    }

    fn url_with(&self, user: &str) -> String {
        let scheme = if self.certificates.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{user}127.0.0.1:{}", self.port())
    }

    /// The URL of its Unix socket.
    pub fn socket_url(&self) -> String {
        let password = self.password.as_ref().map(|password| format!("?pass={password}")).unwrap_or_default();
        format!("redis+unix://{}{password}", socket(&self.server.directory).display())
    }

    /// The file of its certificate authority, if it serves TLS.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.certificates.as_ref().map(|_| Certificates::authority_in(&self.server.directory))
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Runs a command on a connection of its own.
    #[track_caller]
    pub fn run(&self, command: &[&str]) -> Value {
        self.try_run(command).unwrap_or_else(|error| panic!("{}", self.server.failure(&command.join(" "), &error)))
    }

    /// As [`Redis::run`], for a command that may fail.
    pub fn try_run(&self, command: &[&str]) -> RedisResult<Value> {
        ask(&self.url(), self.ca_file().as_deref(), command, ANSWER_TIME)
    }

    /// As [`Redis::run`], with a reply of a known type.
    #[track_caller]
    pub fn read<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let value = from_redis_value(self.run(command));
        value.unwrap_or_else(|error| panic!("{}", self.server.failure(&command.join(" "), &error)))
    }

    /// Whether it answers within this time.
    pub fn answers_within(&self, within: Duration) -> bool {
        ask(&self.url(), self.ca_file().as_deref(), &["PING"], within).is_ok()
    }

    /// The value of a field of its `INFO`; empty if there is no such field.
    #[track_caller]
    pub fn info(&self, section: &str, field: &str) -> String {
        field_of(&self.read::<String>(&["INFO", section]), field)
    }

    /// How many bytes it reports as used.
    #[track_caller]
    pub fn used_memory(&self) -> u64 {
        self.info("memory", "used_memory").parse().expect("a number of bytes")
    }

    /// Removes all keys.
    #[track_caller]
    pub fn flush(&self) {
        self.run(&["FLUSHALL"]);
    }

    /// Closes the connections of all clients of a kind, `normal` or `pubsub`. Returns how many there were.
    #[track_caller]
    pub fn kill_clients(&self, kind: &str) -> u64 {
        self.read(&["CLIENT", "KILL", "TYPE", kind])
    }

    /// How many subscribers there are to the channels that match a pattern. Subscriptions to patterns do not count.
    #[track_caller]
    pub fn subscribers(&self, channels: &str) -> u64 {
        let channels: Vec<String> = self.read(&["PUBSUB", "CHANNELS", channels]);
        let command = ["PUBSUB", "NUMSUB"].into_iter().chain(channels.iter().map(String::as_str));
        let counts: Vec<(String, u64)> = self.read(&command.collect::<Vec<_>>());
        counts.iter().map(|(_, count)| count).sum()
    }

    /// Adds a user with the rights of these rules, such as `~permcached:* +@read`, and no others. The user exists until the server
    /// ends.
    #[track_caller]
    pub fn set_user(&self, name: &str, password: &str, rules: &str) {
        let password = format!(">{password}");
        let command = ["ACL", "SETUSER", name, "reset", "on", &password].into_iter().chain(rules.split_whitespace());
        self.run(&command.collect::<Vec<_>>());
    }

    /// Stops the process until [`Redis::thaw`]. The kernel still accepts connections.
    pub fn freeze(&self) {
        blocking(|| self.server.signal("STOP"));
    }

    /// Continues a frozen server.
    pub fn thaw(&self) {
        blocking(|| self.server.signal("CONT"));
    }

    /// Ends it by `kill -9`. Its data is lost, unless its arguments make it keep them.
    pub fn kill(&self) {
        blocking(|| self.server.kill());
    }

    /// Starts an ended server again, at the same address and with the same arguments.
    #[track_caller]
    pub fn start_again(&mut self) {
        let again = blocking(|| self.server.start_again()).and_then(|()| self.until_ready());
        again.unwrap_or_else(|why| panic!("{why}"));
    }

    /// Waits until it has loaded its data from disk: it accepts connections earlier.
    fn until_ready(&self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Err(error) = self.try_run(&["PING"]) else { return Ok(()) };
            let is_loading = error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading);
            if !is_loading || Instant::now() >= deadline {
                return Err(self.server.failure("PING", &error));
            }
            blocking(|| thread::sleep(POLL));
        }
    }
}

fn program() -> Result<PathBuf, String> {
    find(&NAMES, VARIABLE)
}

/// Writes certificates to a server's directory. Returns the arguments by which the server uses them.
fn tls_arguments(certificates: &Certificates, port: u16, directory: &Path) -> Vec<OsString> {
    let [certificate, key] = certificates.server.write(directory, "server");
    let authority = certificates.write_authority(directory);
    let mut arguments: Vec<OsString> = vec!["--port".into(), "0".into()];
    arguments.extend(["--tls-port".into(), port.to_string().into()]);
    arguments.extend(["--tls-auth-clients".into(), "no".into()]);
    arguments.extend(["--tls-ca-cert-file".into(), authority.into()]);
    arguments.extend(["--tls-cert-file".into(), certificate.into(), "--tls-key-file".into(), key.into()]);
    arguments
}

fn usual_arguments(port: u16, directory: &Path, certificates: Option<&Certificates>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = FLAGS.split_whitespace().map(OsString::from).collect();
    arguments.extend(["--save".into(), "".into()]);
    arguments.extend(["--dir".into(), directory.into()]);
    arguments.extend(["--unixsocket".into(), socket(directory).into()]);
    match certificates {
        Some(certificates) => arguments.extend(tls_arguments(certificates, port, directory)),
        None => arguments.extend(["--port".into(), port.to_string().into()]),
    }
    arguments
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("socket")
}

/// The value of a field in a text with lines such as `role:master`; empty if there is no such line.
fn field_of(text: &str, field: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}
