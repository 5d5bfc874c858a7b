//! The servers: permcached, and an empty tonic service. Each is a process of its own.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use permcached::transport::proto::{
    Answer, BatchCheckRequest, BatchCheckResponse, CheckRequest, CheckResponse, ExplainRequest, ExplainResponse,
    ListPermissionsRequest, ListPermissionsResponse, ListResourcesRequest, ListResourcesResponse, ListSubjectsRequest,
    ListSubjectsResponse, PlanFilterRequest, PlanFilterResponse,
    permission_service_server::{PermissionService, PermissionServiceServer},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpListener;
use tonic::{
    Response, Status,
    transport::{Identity, ServerTlsConfig, server::TcpIncoming},
};

use super::calls;

const TOKEN: &str = "a-token-of-this-bench";

/// The names of the files with the certificate and its key.
const CERTIFICATE: [&str; 2] = ["certificate.pem", "key.pem"];

/// A server's port: in the clear, and without tokens; or with both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    Nothing,
    Token,
    TokenAndTls,
}

impl Security {
    pub(crate) const ALL: [Self; 3] = [Self::Nothing, Self::Token, Self::TokenAndTls];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Token => ", token",
            Self::TokenAndTls => ", token and TLS",
        }
    }

    fn token(self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Token | Self::TokenAndTls => Some(TOKEN.to_owned()),
        }
    }
}

/// A service that always gives the same answer.
pub(crate) struct Empty;

#[tonic::async_trait]
impl PermissionService for Empty {
    async fn check(&self, _: tonic::Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let answer = Answer { allowed: true, ..Answer::default() };
        Ok(Response::new(CheckResponse { answer: Some(answer) }))
    }

    async fn batch_check(&self, _: tonic::Request<BatchCheckRequest>) -> Result<Response<BatchCheckResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn list_permissions(
        &self,
        _: tonic::Request<ListPermissionsRequest>,
    ) -> Result<Response<ListPermissionsResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn explain(&self, _: tonic::Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn plan_filter(&self, _: tonic::Request<PlanFilterRequest>) -> Result<Response<PlanFilterResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn list_resources(
        &self,
        _: tonic::Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn list_subjects(
        &self,
        _: tonic::Request<ListSubjectsRequest>,
    ) -> Result<Response<ListSubjectsResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

impl Empty {
    /// The argument that makes this program run as the empty service.
    pub(crate) const ARGUMENT: &str = "empty-service";

    /// Serves, with the certificate of the working directory or without TLS, until this process is killed.
    pub(crate) async fn serve(has_tls: bool) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let mut server = tonic::transport::Server::builder();
        if has_tls {
            let [certificate, key] = CERTIFICATE.map(|name| fs::read_to_string(name).expect("it was written"));
            let config = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
            server = server.tls_config(config).expect("a certificate");
        }
        println!("{address}");
        let served = server.add_service(PermissionServiceServer::new(Self)).serve_with_incoming(incoming);
        served.await.expect("it serves");
    }
}

/// A server, which is killed when this is dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
    /// The authority of its certificate, if it has TLS.
    pub(crate) authority: Option<String>,
    /// The token that a caller shows it, if it asks for one.
    pub(crate) token: Option<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }
}

impl Server {
    /// The empty service. It ignores the token.
    pub(crate) fn empty(directory: &Path, security: Security) -> Self {
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.arg(Empty::ARGUMENT).current_dir(directory).stdout(Stdio::piped());
        let authority = (security == Security::TokenAndTls).then(|| {
            command.arg("tls");
            certificate(directory)
        });
        let mut process = command.spawn().expect("it starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it prints its address");
        let address = line.trim().parse().expect("an address");
        Self { process, address, authority, token: security.token() }
    }

    /// permcached over the documents of this bench.
    pub(crate) fn permcached(directory: &Path, security: Security) -> Self {
        for (collection, documents) in calls::documents() {
            let lines: Vec<String> = documents.iter().map(ToString::to_string).collect();
            fs::write(directory.join(collection).with_extension("jsonl"), lines.join("\n")).expect("it is written");
        }
        Self::permcached_with(directory, calls::SCHEMA, security, &["--documents", "."], &[])
    }

    /// permcached over what the arguments or the environment say. `PERMCACHED_PROGRAM` names another build of it.
    pub(crate) fn permcached_with(
        directory: &Path,
        schema: &str,
        security: Security,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let program = env::var_os("PERMCACHED_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_permcached").into());
        fs::write(directory.join("schema.toml"), schema).expect("it is written");
        let mut command = Command::new(program);
        command.args(["serve", "--port", "0", "--bind", "127.0.0.1", "--schema", "schema.toml"]);
        command.args(arguments).current_dir(directory);
        // More than are open at once.
        command.env_clear().envs([("MAX_REQUESTS", "8192"), ("MAX_CALLER_REQUESTS", "8192")]);
        command.envs(environment.iter().copied());
        if security != Security::Nothing {
            command.env("AUTH_TOKENS", format!("bench:{TOKEN}"));
        }
        let authority = (security == Security::TokenAndTls).then(|| {
            let [file, key] = CERTIFICATE;
            command.envs([("TLS_CERT_FILE", file), ("TLS_KEY_FILE", key)]);
            certificate(directory)
        });
        let mut process = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        let mut output = Vec::new();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("permcached ended: {output:?}")).expect("text");
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            if parsed["message"] == "ready" {
                break parsed["address"].as_str().and_then(|text| text.parse().ok()).expect("an address");
            }
            output.push(line);
        };
        // Its later output must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, address, authority, token: security.token() }
    }

    /// Another program, which listens on this address and asks for this token.
    pub(crate) fn other(mut command: Command, address: SocketAddr, token: Option<String>) -> Self {
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { process, address, authority: None, token }
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// The processor time that the process has used.
    pub(crate) fn cpu(&self) -> Cpu {
        Cpu::of(self.process.id())
    }

    /// The bytes of memory that the process has.
    pub(crate) fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has a resident size");
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes * 1_024.0
    }
}

/// The processor time of a process: exact in total, and in hundredths of a second in user code and in the system.
pub(crate) struct Cpu {
    pub(crate) total: Duration,
    pub(crate) user_ticks: f64,
    pub(crate) system_ticks: f64,
}

impl Cpu {
    /// The processor time of the process with this id.
    pub(crate) fn of(process: u32) -> Self {
        let process = Pid::from_raw(i32::try_from(process).expect("a process id"));
        let clock = ClockId::pid_cpu_clock_id(process).expect("it runs");
        let total = Duration::from(clock_gettime(clock).expect("it runs"));
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("the end of its name");
        // They are the fields 14 and 15; two fields come before the `)`.
        let mut ticks = fields.split_whitespace().skip(11).map(|ticks| ticks.parse().expect("a number"));
        let mut next = || ticks.next().expect("enough fields");
        Self { total, user_ticks: next(), system_ticks: next() }
    }
}

/// Writes a certificate for `localhost`, with its key. Returns the authority that signed it.
fn certificate(directory: &Path) -> String {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let [file, key_file] = CERTIFICATE.map(|name| directory.join(name));
    fs::write(file, certificate.pem()).expect("it is written");
    fs::write(key_file, key.serialize_pem()).expect("it is written");
    authority.pem()
}
