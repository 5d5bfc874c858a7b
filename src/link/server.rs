//! A Redis server or cluster: what its addresses may be, and connections to it.

use std::{fmt, io, time::Duration};

use futures::StreamExt;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo, Msg,
    RedisConnectionInfo, RedisError, TlsCertificates,
    aio::{ConnectionLike, MultiplexedConnection, PubSubStream},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
};

/// How long the client itself waits for anything: longer than whoever asks it, so that only those decide.
const CLIENT_TIME: Duration = Duration::from_secs(5);

/// How long a cluster's client waits for any one of its nodes: so much less than for all of it that one which is gone does
/// not keep the others from being reached.
const NODE_TIME: Duration = Duration::from_millis(300);

/// How long at least a cluster's client waits for one of its nodes, in milliseconds.
const NODE_RETRY_MILLIS: u64 = 50;

/// What a certificate in PEM format begins with.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Where Redis is: one server, or some nodes of a cluster.
#[derive(Clone)]
pub struct Server {
    nodes: Vec<ConnectionInfo>,
    certificates: TlsCertificates,
}

/// Why something is no address of Redis. Says nothing of the address, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// It cannot be read.
    #[error(
        "is not the URL of a Redis: write redis://[user:password@]host[:port][/database], rediss:// for TLS, or unix:///path; \
         percent-encode what is neither a letter nor a digit in the user's name and password; several nodes of a cluster are \
         separated by commas"
    )]
    Url,
    /// There is none.
    #[error("names no server")]
    Nothing,
    /// Some are reached over TLS, and others are not.
    #[error(
        "names some servers with rediss:// and others without: the nodes of a cluster are all reached over TLS, or none is"
    )]
    Mixed,
    /// A certificate authority is of no use.
    #[error("is of no use where no server is reached over TLS: write rediss:// in place of redis://, or leave it out")]
    NoTls,
    /// A cluster's node is reached through a socket.
    #[error(
        "names several servers, and so a cluster, whose nodes are not reached through a socket: name them by host and port"
    )]
    Socket,
    /// The file of the certificate authority is none.
    #[error("holds no certificate in PEM format that can be read")]
    Certificates,
}

impl Server {
    /// The server of a URL, or the cluster of several.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn parse(urls: &str) -> Result<Self, ServerError> {
        let parse = |url: &str| url.into_connection_info().map(plain).map_err(|_| ServerError::Url);
        let nodes = urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(parse);
        let nodes: Vec<ConnectionInfo> = nodes.collect::<Result<_, _>>()?;
        match nodes.as_slice() {
            [] => Err(ServerError::Nothing),
            [_, _, ..] if nodes.iter().any(|node| matches!(node.addr(), ConnectionAddr::Unix(_))) => {
                Err(ServerError::Socket)
            }
            all if all.iter().any(is_over_tls) && !all.iter().all(is_over_tls) => Err(ServerError::Mixed),
            _ => Ok(Self::of(nodes)),
        }
    }

    /// The server at a host and a port.
    ///
    /// # Errors
    /// [`ServerError::Url`].
    pub fn at(host: &str, port: u16, password: Option<&str>) -> Result<Self, ServerError> {
        let node = (host, port).into_connection_info().map_err(|_| ServerError::Url)?;
        let login = match password {
            Some(password) => RedisConnectionInfo::default().set_password(password),
            None => RedisConnectionInfo::default(),
        };
        Ok(Self::of(vec![plain(node.set_redis_settings(login))]))
    }

    fn of(nodes: Vec<ConnectionInfo>) -> Self {
        Self { nodes, certificates: TlsCertificates { client_tls: None, root_cert: None } }
    }

    /// With this certificate authority, in PEM format, in place of the system's.
    ///
    /// # Errors
    /// [`ServerError::Certificates`].
    pub fn with_authority(mut self, pem: Vec<u8>) -> Result<Self, ServerError> {
        if !self.nodes.iter().any(is_over_tls) {
            return Err(ServerError::NoTls);
        }
        // The client makes no certificate of what is none, and does not say so.
        if !pem.windows(CERTIFICATE.len()).any(|text| text == CERTIFICATE) {
            return Err(ServerError::Certificates);
        }
        self.certificates.root_cert = Some(pem);
        // The client is the one who knows what it can read.
        let over_tls = "rediss://127.0.0.1".into_connection_info().map_err(|_| ServerError::Url)?;
        let tried = Client::build_with_tls(over_tls, self.certificates.clone());
        tried.map(|_| self).map_err(|_| ServerError::Certificates)
    }

    /// Its addresses, without users and passwords.
    pub(super) fn addresses(&self) -> String {
        self.nodes.iter().map(|node| node.addr().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// The name of the user.
    pub(super) fn user(&self) -> &str {
        self.nodes.first().and_then(|node| node.redis_settings().username()).unwrap_or("default")
    }

    /// Whether several nodes are named.
    pub(super) fn is_cluster(&self) -> bool {
        self.nodes.len() > 1
    }

    fn client(&self, node: &ConnectionInfo) -> Result<Client, RedisError> {
        if is_over_tls(node) {
            Client::build_with_tls(node.clone(), self.certificates.clone())
        } else {
            Client::open(node.clone())
        }
    }

    /// A connection of which it is not known whether it answers.
    pub(super) async fn connect(&self) -> Result<Connection, RedisError> {
        if self.is_cluster() {
            let mut builder = ClusterClient::builder(self.nodes.iter().cloned())
                .connection_timeout(NODE_TIME)
                .response_timeout(NODE_TIME)
                .min_retry_wait(NODE_RETRY_MILLIS);
            if self.nodes.iter().any(is_over_tls) {
                builder = builder.certs(self.certificates.clone());
            }
            return Ok(Connection::Cluster(builder.build()?.get_async_connection().await?));
        }
        let node = self.nodes.first().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CLIENT_TIME))
            .set_response_timeout(Some(CLIENT_TIME));
        let connection = self.client(node)?.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Connection::One(connection))
    }

    /// Listens to channels: in a cluster through any of its nodes, as each passes on what any of them is told.
    pub(super) async fn subscribe(&self, channels: &[&str]) -> Result<Subscription, RedisError> {
        let mut result = Err(RedisError::from(io::Error::from(io::ErrorKind::NotFound)));
        let mut nodes = self.nodes.clone();
        // Not all instances through the same node, and not for ever through one that is there and no use.
        fastrand::shuffle(&mut nodes);
        for node in &nodes {
            result = self.subscribe_through(node, channels).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn subscribe_through(&self, node: &ConnectionInfo, channels: &[&str]) -> Result<Subscription, RedisError> {
        let mut connection = self.client(node)?.get_async_pubsub().await?;
        connection.subscribe(channels).await?;
        Ok(Subscription(connection.into_on_message()))
    }
}

fn is_over_tls(node: &ConnectionInfo) -> bool {
    matches!(node.addr(), ConnectionAddr::TcpTls { .. })
}

/// One that says nothing of its library: a right that no user needs then.
fn plain(node: ConnectionInfo) -> ConnectionInfo {
    let settings = node.redis_settings().clone().set_skip_set_lib_name();
    node.set_redis_settings(settings)
}

/// Its addresses, without users and passwords.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes.iter().map(|node| node.addr().to_string())).finish()
    }
}

/// A connection that many use at once.
#[derive(Clone)]
pub(super) enum Connection {
    /// To a server.
    One(MultiplexedConnection),
    /// To a cluster.
    Cluster(ClusterConnection),
}

impl Connection {
    /// Has it answer. Of a cluster one node, as another may be gone.
    pub(super) async fn greet(&mut self) -> Result<(), RedisError> {
        let ping = redis::cmd("PING");
        match self {
            Self::One(connection) => connection.req_packed_command(&ping).await?.extract_error()?,
            Self::Cluster(connection) => {
                let to_any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
                connection.route_command(ping, to_any).await?.extract_error()?
            }
        };
        Ok(())
    }

    pub(super) async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, RedisError> {
        let value = match self {
            Self::One(connection) => connection.req_packed_command(command).await?,
            Self::Cluster(connection) => connection.req_packed_command(command).await?,
        };
        Ok(redis::from_redis_value(value.extract_error()?)?)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::One(_) => "One",
            Self::Cluster(_) => "Cluster",
        })
    }
}

/// What is said on some channels.
pub struct Subscription(PubSubStream);

impl Subscription {
    /// What is said next, and on which channel; nothing once the connection is lost.
    pub async fn next(&mut self) -> Option<(String, Vec<u8>)> {
        let message: Msg = self.0.next().await?;
        Some((message.get_channel_name().to_owned(), message.get_payload_bytes().to_vec()))
    }
}
