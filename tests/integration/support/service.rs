//! Runs the service in this process on a real port, over the sample documents or over a faulty source. The service ends
//! when its [`Service`] is dropped.
//!
//! Asserts nothing about answers.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bson::Document;
use permcached::{
    app::{App, Parts, assemble, open, read_schema},
    check::Settings,
    config::SourceConfig,
    schema::Schema,
    source::documents::Documents,
    telemetry::Metrics,
    transport::{
        Apis, Callers, Health, Limits, ServeError, Serving,
        proto::{Resource, Subject, permission_service_client::PermissionServiceClient},
        serve,
    },
};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tonic::transport::{Channel, Endpoint};

use super::controlled::{ControlledSource, Fault};

/// The schema that most tests use. Tests run in the root of the package.
pub const SCHEMA: &str = "schemas/fylora-sharing.toml";
/// The documents for that schema.
pub const DOCUMENTS: &str = "examples/fylora";
/// How long something that should be immediate may take.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// A client of the service.
pub type Client = PermissionServiceClient<Channel>;

/// An HTTP response.
#[derive(Debug)]
pub struct Http {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
}

/// Sends a GET request over HTTP/1.1.
pub async fn http(address: SocketAddr, path: &str) -> Http {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let response = exchange(address, request).await;
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{response}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Http { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// Sends these bytes, and reads until the server closes the connection.
pub async fn exchange(address: SocketAddr, request: String) -> String {
    let exchange = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    };
    spawn_blocking(exchange).await.unwrap()
}

/// A running service.
pub struct Service {
    pub address: SocketAddr,
    pub metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Service {
    /// Starts a service over the sample documents.
    pub async fn start() -> Self {
        Self::start_as(|_| {}).await
    }

    /// As [`Service::start`], with this timeout for draining, for handshakes and for old connections.
    pub async fn draining_within(drain_timeout: Duration) -> Self {
        Self::start_as(|serving| {
            let (connection_grace, handshake_timeout) = (drain_timeout, drain_timeout);
            let limits = Limits { drain_timeout, connection_grace, handshake_timeout, ..serving.limits };
            serving.limits = limits;
        })
        .await
    }

    /// As [`Service::start`], for these callers only.
    pub async fn guarded(callers: Callers) -> Self {
        Self::start_as(|serving| serving.callers = callers).await
    }

    /// As [`Service::start`], with these changes to the port.
    pub async fn start_as(change: impl FnOnce(&mut Serving)) -> Self {
        let app = assemble(Self::sample().await);
        Self::serve(app.apis, app.metrics, change).await
    }

    /// As [`Service::start`], logging this share of answers.
    pub async fn logging(share: f64) -> Self {
        Self::of(&assemble(Parts { logged_decisions: share, ..Self::sample().await })).await
    }

    async fn sample() -> Parts {
        let source = SourceConfig::Documents(DOCUMENTS.into());
        let schema = read_schema(Path::new(SCHEMA)).unwrap();
        open(schema, &source, None, Settings::default()).await.unwrap()
    }

    /// Starts a service over these documents.
    pub async fn over(schema: &str, collections: BTreeMap<String, Vec<Document>>) -> Self {
        let schema = Arc::new(Schema::parse("schema.toml", schema).unwrap());
        let source = Arc::new(Documents::new(&schema, &collections));
        Self::of(&assemble(Parts::new(schema, source))).await
    }

    /// Starts a service over the sample documents behind a fault, with this limit of open requests.
    pub async fn faulty(fault: Fault, requests_max: usize) -> (Self, Arc<ControlledSource>) {
        Self::faulty_as(fault, requests_max, |_| {}).await
    }

    /// As [`Service::faulty`], with these changes to the port.
    pub async fn faulty_as(
        fault: Fault,
        requests_max: usize,
        change: impl FnOnce(&mut Serving),
    ) -> (Self, Arc<ControlledSource>) {
        let schema = Arc::new(read_schema(Path::new(SCHEMA)).unwrap());
        let documents = Documents::read(&schema, Path::new(DOCUMENTS)).unwrap();
        let source = Arc::new(ControlledSource::over(&schema, Arc::new(documents)));
        source.set(fault);
        // No fact is cached and every request sends a probe, so that each request meets the fault.
        let settings = Settings { staleness_max: Duration::ZERO, memory_bytes_max: 0 };
        let app = assemble(Parts { settings, requests_max, ..Parts::new(schema, source.clone()) });
        (Self::serve(app.apis, app.metrics, change).await, source)
    }

    /// Serves a running application.
    pub async fn of(app: &App) -> Self {
        Self::serve(app.apis.clone(), Arc::clone(&app.metrics), |_| {}).await
    }

    async fn serve(apis: Apis, metrics: Arc<Metrics>, change: impl FnOnce(&mut Serving)) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let counted = Arc::clone(&metrics);
        let mut serving = Serving {
            listener,
            probes: None,
            tls: None,
            callers: Callers::Anyone,
            reflection: true,
            limits: Limits::default(),
            metrics_tokens: None,
            metrics,
            health: watch::channel(Health::Ready).1,
            apis: watch::channel(Some(apis)).1,
        };
        change(&mut serving);
        let served = tokio::spawn(serve(serving, async {
            let _dropped = stopped.await;
        }));
        Self { address, metrics: counted, stop: Some(stop), served }
    }

    /// A new connection, on which no call takes longer than [`PATIENCE`].
    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().timeout(PATIENCE).connect_lazy()
    }

    /// A client with a new connection.
    pub fn client(&self) -> Client {
        PermissionServiceClient::new(self.channel())
    }

    /// Sends a GET request over HTTP/1.1.
    pub async fn get(&self, path: &str) -> Http {
        http(self.address, path).await
    }

    /// Starts the graceful shutdown, and returns at once.
    pub fn shut_down(&mut self) {
        let _ended = self.stop.take().map(|stop| stop.send(()));
    }

    /// Waits until the service has ended.
    pub async fn ended(mut self) {
        timeout(PATIENCE, &mut self.served).await.expect("the service does not end").unwrap().unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.served.abort();
    }
}

/// Reads `type:id` or `anonymous`.
#[expect(clippy::unnecessary_wraps, reason = "as requests have it")]
pub fn subject(text: &str) -> Option<Subject> {
    if text == "anonymous" {
        return Some(Subject { anonymous: true, ..Subject::default() });
    }
    let (kind, id) = text.split_once(':').unwrap();
    Some(Subject { r#type: kind.to_owned(), id: id.to_owned(), anonymous: false })
}

/// Reads `type:id`.
#[expect(clippy::unnecessary_wraps, reason = "as requests have it")]
pub fn resource(text: &str) -> Option<Resource> {
    let (kind, id) = text.split_once(':').unwrap();
    Some(Resource { r#type: kind.to_owned(), id: id.to_owned() })
}
