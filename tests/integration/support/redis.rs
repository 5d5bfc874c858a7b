//! Real Redis servers: one that all tests share, and ones that a test has for itself and may harm: kill, freeze, set
//! back. A Valkey does for a Redis.
//!
//! Nothing here needs a runtime, and within one of several threads nothing holds it up. It harms nothing by itself, and
//! says nothing of what clients should see.

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

/// How long a server may take to answer. A frozen one never does.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// How long servers may take for what they do by themselves: to load a dump, to be in sync, to find each other.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long to wait between two looks at a server.
const POLL: Duration = Duration::from_millis(10);

/// What each server is started with: it keeps nothing on disk, and replicas need not wait for others to come.
const FLAGS: &str = "--bind 127.0.0.1 --appendonly no --repl-diskless-sync yes --repl-diskless-sync-delay 0 \
    --rdb-del-sync-files yes";

/// The names by which a program is looked for, and the variable that names another.
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];
const VARIABLE: &str = "REDIS_SERVER";

/// What servers say that know nothing of TLS: Valkey and newer ones, older ones.
const WITHOUT_TLS: [&str; 2] = ["Failed finding TLS support", ">>> 'tls-"];

/// The server that all tests of this binary share, started by the first to ask. Each has keys and channels of its own
/// there.
#[track_caller]
pub fn redis() -> &'static Redis {
    static REDIS: LazyLock<Result<Redis, String>> = LazyLock::new(|| Redis::try_start(&[], None, None));
    started(&REDIS)
}

/// Runs a command on a connection of its own, whoever the server belongs to and whoever asks. A server whose URL is
/// `rediss` is believed if that authority vouches for it, else if one of the system's does.
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

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        blocking(|| thread::sleep(POLL));
    }
}

/// Does what blocks, and lets a runtime of several threads go on meanwhile.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => block_in_place(work),
        _ => work(),
    }
}

/// A running server. It ends with the value.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    /// What everybody has to say who does not come as another user.
    password: Option<String>,
    /// What its clients have to believe, where it speaks TLS.
    certificates: Option<Certificates>,
}

impl Redis {
    /// Starts one, with arguments that come after the usual ones.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        Self::try_start(arguments, None, None).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts one that wants a password.
    #[track_caller]
    pub fn with_password(password: &str) -> Self {
        let started = Self::try_start(&["--requirepass", password], Some(password.to_owned()), None);
        started.unwrap_or_else(|why| panic!("{why}"))
    }

    /// Starts one that speaks TLS and nothing else, by a certificate for 127.0.0.1 and localhost. None, and a line that
    /// says so, if the program was built without.
    #[track_caller]
    pub fn with_tls() -> Option<Self> {
        match Self::try_start(&[], None, Some(Certificates::new())) {
            Ok(redis) => Some(redis),
            Err(why) if WITHOUT_TLS.iter().any(|words| why.contains(words)) => {
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

    /// Where a client finds it, and with the password, if it has one.
    pub fn url(&self) -> String {
        match &self.password {
            Some(password) => self.url_of("", password),
            None => self.url_with(""),
        }
    }

    /// Where a client finds it as a user.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        self.url_with(&format!("{user}:{password}@"))
    }

    fn url_with(&self, user: &str) -> String {
        let scheme = if self.certificates.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://{user}127.0.0.1:{}", self.port())
    }

    /// Where a client on this machine finds it without a port.
    pub fn socket_url(&self) -> String {
        let password = self.password.as_ref().map(|password| format!("?pass={password}")).unwrap_or_default();
        format!("redis+unix://{}{password}", socket(&self.server.directory).display())
    }

    /// The authority that vouches for it, where it speaks TLS.
    pub fn ca_file(&self) -> Option<PathBuf> {
        self.certificates.as_ref().map(|_| Certificates::authority_in(&self.server.directory))
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Runs a command on a connection of its own.
    #[track_caller]
    pub fn run(&self, command: &[&str]) -> Value {
        self.try_run(command).unwrap_or_else(|error| panic!("{}", self.server.failure(&command.join(" "), &error)))
    }

    /// As [`Redis::run`], where the command may fail.
    pub fn try_run(&self, command: &[&str]) -> RedisResult<Value> {
        ask(&self.url(), self.ca_file().as_deref(), command, ANSWER_TIME)
    }

    /// As [`Redis::run`], where the type of the reply is known.
    #[track_caller]
    pub fn read<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let read = from_redis_value(self.run(command));
        read.unwrap_or_else(|error| panic!("{}", self.server.failure(&command.join(" "), &error)))
    }

    /// Whether it answers in so short a time.
    pub fn answers_within(&self, within: Duration) -> bool {
        ask(&self.url(), self.ca_file().as_deref(), &["PING"], within).is_ok()
    }

    /// One field of what it tells of itself; empty if there is no such field.
    #[track_caller]
    pub fn info(&self, section: &str, field: &str) -> String {
        field_of(&self.read::<String>(&["INFO", section]), field)
    }

    /// How many bytes it takes itself to use.
    #[track_caller]
    pub fn used_memory(&self) -> u64 {
        self.info("memory", "used_memory").parse().expect("a number of bytes")
    }

    /// Forgets all that it holds.
    #[track_caller]
    pub fn flush(&self) {
        self.run(&["FLUSHALL"]);
    }

    /// Cuts the connections of all clients of a kind, `normal` or `pubsub`, and says how many there were.
    #[track_caller]
    pub fn kill_clients(&self, kind: &str) -> u64 {
        self.read(&["CLIENT", "KILL", "TYPE", kind])
    }

    /// How many subscribers the channels have whose name is like that. Those that subscribe to patterns do not count.
    #[track_caller]
    pub fn subscribers(&self, channels: &str) -> u64 {
        let channels: Vec<String> = self.read(&["PUBSUB", "CHANNELS", channels]);
        let command = ["PUBSUB", "NUMSUB"].into_iter().chain(channels.iter().map(String::as_str));
        let counts: Vec<(String, u64)> = self.read(&command.collect::<Vec<_>>());
        counts.iter().map(|(_, count)| count).sum()
    }

    /// Lets a user in who may do what the rules say, such as `~permcached:* +@read`, and nothing else. The server knows
    /// of the user until it ends.
    #[track_caller]
    pub fn set_user(&self, name: &str, password: &str, rules: &str) {
        let password = format!(">{password}");
        let command = ["ACL", "SETUSER", name, "reset", "on", &password].into_iter().chain(rules.split_whitespace());
        self.run(&command.collect::<Vec<_>>());
    }

    /// Stops all that it does, until [`Redis::thaw`]. Connections are still taken: the kernel does that.
    pub fn freeze(&self) {
        blocking(|| self.server.signal("STOP"));
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        blocking(|| self.server.signal("CONT"));
    }

    /// Ends it by `kill -9`. What it held is lost, unless it was started with arguments that keep it.
    pub fn kill(&self) {
        blocking(|| self.server.kill());
    }

    /// Starts it again that has ended, at the same address and with the same arguments.
    #[track_caller]
    pub fn start_again(&mut self) {
        let again = blocking(|| self.server.start_again()).and_then(|()| self.until_ready());
        again.unwrap_or_else(|why| panic!("{why}"));
    }

    /// Waits until it has loaded what it has on disk: it listens before.
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

/// Writes certificates to a server's directory, and tells the server of them.
fn over_tls(certificates: &Certificates, port: u16, directory: &Path) -> Vec<OsString> {
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
        Some(certificates) => arguments.extend(over_tls(certificates, port, directory)),
        None => arguments.extend(["--port".into(), port.to_string().into()]),
    }
    arguments
}

fn socket(directory: &Path) -> PathBuf {
    directory.join("socket")
}

/// The value of a field in lines such as `role:master`; empty if there is no such line.
fn field_of(lines: &str, field: &str) -> String {
    let value = lines.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}
