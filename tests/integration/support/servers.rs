//! Real servers for the integration tests, each on a free port of 127.0.0.1. They end with the test process, whether that
//! returns, panics, or is ended by ctrl-C or `kill -9`.
//!
//! Fetches no server (`make test` does), and keeps nothing between runs. Shares no client, as a MongoDB client belongs to the
//! runtime that created it, and each `#[tokio::test]` has its own runtime.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mongodb::{
    Client, Database,
    bson::{Document, doc},
    options::ClientOptions,
};
use tokio::runtime;

/// How long a server may take until it is ready.
const START_MAX: Duration = Duration::from_mins(1);
/// How long to wait between two checks of a condition.
const POLL: Duration = Duration::from_millis(10);
/// How often a server is started before its failure counts: another process may take the free port first.
const STARTS_MAX: usize = 3;
/// How many lines of a server's log a failure shows.
const LOG_LINES_MAX: usize = 15;
/// The name of the replica set.
const SET_NAME: &str = "rs0";
/// The name and the password of a secured server's administrator.
const ROOT: &str = "root";

/// A shell script that runs the server `"$@"` in the directory `$0` while the other end of stdin is open. Then it ends the
/// server and removes the directory. The file `pid` has the server's process id. If the server ends first, the file `ended`
/// has its exit status, and each line of stdin starts it again. The script ignores SIGHUP: the kernel sends it to a process
/// group whose parent ends while a member is stopped, and a test may have stopped the server.
const KEEPER: &str = r#"
directory=$0
trap '' HUP
exec 3<&0
begin() {
    rm -f "$directory/pid"
    {
        "$@" </dev/null >>"$directory/log" 2>&1 3<&- &
        echo "$!" >"$directory/pid"
        wait "$!"
        echo "$?" >"$directory/ended"
    } &
    until [ -s "$directory/pid" ]; do sleep 0.01; done
}
begin "$@"
while read -r _ <&3; do begin "$@"; done
[ -e "$directory/ended" ] || kill -9 "$(cat "$directory/pid")"
wait
rm -rf "$directory"
"#;

/// The single-node replica set that all tests of this binary share. The first call starts it.
#[track_caller]
pub fn mongo() -> &'static Mongo {
    static MONGO: LazyLock<Result<Mongo, String>> = LazyLock::new(|| Mongo::start(Some(SET_NAME), false, &[]));
    started(&MONGO)
}

/// The single-node replica set with authentication that all tests of this binary share. The first call starts it.
#[track_caller]
pub fn secured_mongo() -> &'static Mongo {
    static MONGO: LazyLock<Result<Mongo, String>> = LazyLock::new(|| Mongo::start(Some(SET_NAME), true, &[]));
    started(&MONGO)
}

/// The mongod without a replica set that all tests of this binary share. The first call starts it.
#[track_caller]
pub fn standalone_mongo() -> &'static Mongo {
    static MONGO: LazyLock<Result<Mongo, String>> = LazyLock::new(|| Mongo::start(None, false, &[]));
    started(&MONGO)
}

/// The server, or a panic that shows in every test why there is none, and not only in the first.
#[track_caller]
pub(super) fn started<T>(server: &'static Result<T, String>) -> &'static T {
    match server {
        Ok(server) => server,
        Err(why) => panic!("{why}"),
    }
}

/// A running mongod.
#[derive(Debug)]
pub struct Mongo {
    server: Server,
    set_name: Option<&'static str>,
    /// Whether clients must authenticate.
    secured: bool,
}

impl Mongo {
    /// The connection string, as the administrator if there is one.
    pub fn uri(&self) -> String {
        if self.secured { self.uri_of(ROOT, ROOT, "admin") } else { self.uri_with("", "") }
    }

    /// The connection string for a user of a database.
    pub fn uri_of(&self, user: &str, password: &str, database: &str) -> String {
        self.uri_with(&format!("{user}:{password}@"), &format!("&authSource={database}"))
    }

    fn uri_with(&self, user: &str, options: &str) -> String {
        let port = self.port();
        match self.set_name {
            Some(set_name) => format!("mongodb://{user}127.0.0.1:{port}/?replicaSet={set_name}{options}"),
            None => format!("mongodb://{user}127.0.0.1:{port}/?directConnection=true{options}"),
        }
    }

    /// A single-node replica set for one test, which may kill and freeze it.
    #[track_caller]
    pub fn own() -> Self {
        Self::own_with(&[])
    }

    /// Like [`Mongo::own`], with further arguments.
    #[track_caller]
    pub fn own_with(arguments: &[&str]) -> Self {
        Self::start(Some(SET_NAME), false, arguments).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Ends it by `kill -9`.
    pub fn kill(&self) {
        self.server.kill();
    }

    /// Starts it again once it has ended.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.server.start_again().unwrap_or_else(|why| panic!("{why}"));
    }

    /// Stops its process until [`Mongo::thaw`].
    pub fn freeze(&self) {
        self.server.signal("STOP");
    }

    /// Continues its process.
    pub fn thaw(&self) {
        self.server.signal("CONT");
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// A database for one test, by a new client that belongs to the calling runtime.
    pub async fn database(&self) -> Database {
        static DATABASES: AtomicU64 = AtomicU64::new(0);
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let client = Client::with_uri_str(self.uri()).await.expect("the URI is our own");
        client.database(&name)
    }

    /// A member of a replica set that is not initiated.
    #[track_caller]
    pub fn uninitiated() -> Self {
        Self::spawn(Some(SET_NAME), false, &[]).unwrap_or_else(|why| panic!("{why}"))
    }

    fn start(set_name: Option<&'static str>, secured: bool, more: &[&str]) -> Result<Self, String> {
        let mongo = Self::spawn(set_name, secured, more)?;
        // The caller may be inside a runtime, where another cannot run. Hence the thread.
        thread::scope(|scope| scope.spawn(|| mongo.until_writable()).join())
            .unwrap_or_else(|_| Err("the start of mongod panicked".to_owned()))?;
        Ok(mongo)
    }

    fn spawn(set_name: Option<&'static str>, secured: bool, more: &[&str]) -> Result<Self, String> {
        let server = Server::start("mongod", "MONGOD", |port, directory| {
            let mut arguments = mongod_arguments(port, directory);
            arguments.extend(more.iter().map(OsString::from));
            if let Some(set_name) = set_name {
                arguments.extend(["--replSet", set_name, "--oplogSize", "64"].map(OsString::from));
            }
            if secured {
                arguments.extend(["--keyFile".into(), write_key(directory).into()]);
            }
            arguments
        })?;
        Ok(Self { server, set_name, secured })
    }

    /// Initiates the replica set, if there is one, and waits until the server accepts writes.
    fn until_writable(&self) -> Result<(), String> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        runtime.block_on(async {
            // A direct connection, as there is no set before it is initiated.
            let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", self.port());
            let mut options = ClientOptions::parse(uri).await.map_err(|error| error.to_string())?;
            options.server_selection_timeout = Some(START_MAX);
            let admin = Client::with_options(options).map_err(|error| error.to_string())?.database("admin");
            if let Some(set_name) = self.set_name {
                let member = doc! { "_id": 0, "host": format!("127.0.0.1:{}", self.port()) };
                let command = doc! { "replSetInitiate": { "_id": set_name, "members": [member] } };
                admin.run_command(command).await.map_err(|error| self.server.failure("replSetInitiate", &error))?;
            }
            let deadline = Instant::now() + START_MAX;
            while Instant::now() < deadline {
                let hello: Document = admin
                    .run_command(doc! { "hello": 1 })
                    .await
                    .map_err(|error| self.server.failure("hello", &error))?;
                if hello.get_bool("isWritablePrimary").unwrap_or(false) {
                    return if self.secured { self.create_root(&admin).await } else { Ok(()) };
                }
                tokio::time::sleep(POLL).await;
            }
            Err(self.server.failure("becoming a writable primary", &"took too long"))
        })
    }

    /// Creates the first user. A server without users allows that to every local client.
    async fn create_root(&self, admin: &Database) -> Result<(), String> {
        let command = doc! { "createUser": ROOT, "pwd": ROOT, "roles": ["root"], "mechanisms": ["SCRAM-SHA-256"] };
        let created = admin.run_command(command).await;
        created.map(drop).map_err(|error| self.server.failure("createUser", &error))
    }
}

/// The arguments of every mongod: little memory, little disk, a quick start. Fail points require the test commands.
pub(super) fn mongod_arguments(port: u16, directory: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--port".into(), port.to_string().into()];
    arguments.extend(["--dbpath".into(), directory.into()]);
    let flags = "--bind_ip 127.0.0.1 --nounixsocket --wiredTigerCacheSizeGB 0.25 \
        --wiredTigerEngineConfigString log=(file_max=8MB,prealloc=false) \
        --setParameter diagnosticDataCollectionEnabled=false --setParameter enableTestCommands=1";
    arguments.extend(flags.split_whitespace().map(OsString::from));
    arguments
}

/// Writes the key file that the members of a set share. Only its owner may read it, as mongod requires. If it cannot be
/// written, mongod reports that.
fn write_key(directory: &Path) -> PathBuf {
    let path = directory.join("key");
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    let _ = file.and_then(|mut file| file.write_all(b"a key for one test run"));
    path
}

/// A server process, its port and its directory. When the value is dropped, or this process ends in any way, the server ends
/// and the directory is removed.
#[derive(Debug)]
pub(super) struct Server {
    name: &'static str,
    pub(super) port: u16,
    pub(super) directory: PathBuf,
    /// The shell around the server, which waits for its stdin to be closed.
    keeper: Child,
}

impl Server {
    /// Starts a server and waits until it listens. `arguments` returns its arguments for a port and a directory. The program is
    /// the one that the environment variable `variable` names, else `name` on the PATH or in `target/servers`.
    pub(super) fn start(
        name: &'static str,
        variable: &str,
        arguments: impl Fn(u16, &Path) -> Vec<OsString>,
    ) -> Result<Self, String> {
        Self::start_program(name, &find(&[name], variable)?, arguments)
    }

    /// Like [`Server::start`], with the path of the program.
    pub(super) fn start_program(
        name: &'static str,
        program: &Path,
        arguments: impl Fn(u16, &Path) -> Vec<OsString>,
    ) -> Result<Self, String> {
        let mut failure = String::new();
        for _ in 0..STARTS_MAX {
            let server =
                Self::spawn(name, program, &arguments).map_err(|error| format!("{name} cannot be started: {error}"))?;
            match server.until_listening() {
                Ok(()) => return Ok(server),
                Err(why) => failure = why,
            }
        }
        Err(failure)
    }

    fn spawn(
        name: &'static str,
        program: &Path,
        arguments: impl Fn(u16, &Path) -> Vec<OsString>,
    ) -> std::io::Result<Self> {
        let port = free_port()?;
        let directory = tempfile::Builder::new().prefix(&format!("permcached-{name}-")).tempdir()?;
        let keeper = Command::new("sh")
            .args(["-c", KEEPER])
            .arg(directory.path())
            .arg(program)
            .args(arguments(port, directory.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // In a process group of its own, so that ctrl-C does not end it: it must outlive the tests.
            .process_group(0)
            .spawn()?;
        // From here on, the keeper removes the directory.
        Ok(Self { name, port, directory: directory.keep(), keeper })
    }

    fn until_listening(&self) -> Result<(), String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let deadline = Instant::now() + START_MAX;
        while Instant::now() < deadline {
            let listening = TcpStream::connect_timeout(&address, START_MAX).is_ok();
            // Checked second: if the server has ended, another process listens on the port.
            if let Ok(status) = fs::read_to_string(self.directory.join("ended")) {
                return Err(self.failure("the start", &format!("it ended with status {}", status.trim())));
            }
            if listening {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(self.failure("the start", &"took too long"))
    }

    /// Sends the server a signal, by name.
    pub(super) fn signal(&self, name: &str) {
        let process = fs::read_to_string(self.directory.join("pid")).expect("the server has been started");
        let sent = Command::new("kill").args(["-s", name, process.trim()]).status().expect("there is a kill");
        assert!(sent.success(), "{} on port {} has ended by itself", self.name, self.port);
    }

    /// Ends the server by `kill -9`, and waits for its end.
    pub(super) fn kill(&self) {
        self.signal("KILL");
        while !self.has_ended() {
            thread::sleep(POLL);
        }
    }

    /// Whether the server has ended, for any reason.
    pub(super) fn has_ended(&self) -> bool {
        self.directory.join("ended").exists()
    }

    /// Starts an ended server again, with the same port and directory.
    pub(super) fn start_again(&mut self) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{} cannot be started again: {error}", self.name);
        fs::remove_file(self.directory.join("ended")).map_err(failed)?;
        let stdin = self.keeper.stdin.as_mut().expect("it is closed only on drop");
        stdin.write_all(b"again\n").map_err(failed)?;
        self.until_listening()
    }

    /// What failed, and the end of the server's log.
    pub(super) fn failure(&self, what: &str, why: &impl ToString) -> String {
        let log = fs::read(self.directory.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.iter().skip(lines.len().saturating_sub(LOG_LINES_MAX)).copied().collect::<Vec<_>>().join("\n");
        let (name, port, why) = (self.name, self.port, why.to_string());
        format!("{name} on port {port}: {what} failed: {why}. The end of its log:\n{tail}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // On an error there is nothing to do: the keeper has ended, and the server with it.
        let _ = self.keeper.wait();
    }
}

/// A port of 127.0.0.1 that no process uses at the moment.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The path of the first of these programs that is found, or an error with a remedy.
pub(super) fn find(names: &[&str], variable: &str) -> Result<PathBuf, String> {
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from) {
        return if path.is_file() { Ok(path) } else { Err(format!("{variable}={}: no such file", path.display())) };
    }
    let on_path = env::var_os("PATH").unwrap_or_default();
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers");
    let directories: Vec<PathBuf> = env::split_paths(&on_path).chain([fetched]).collect();
    let places = names.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
    places.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        let name = names[0];
        format!("no {name} found: run `make test`, which fetches one, or set {variable}=/path/to/{name}")
    })
}
