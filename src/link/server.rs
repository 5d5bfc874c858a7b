//! A Redis server or cluster: its addresses, and connections to it.
//!
//! Reconnects nothing: [`Link`](super::Link) does.

use std::{fmt, io, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, TlsCertificates,
    aio::{ConnectionLike, MultiplexedConnection, PubSubStream},
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{RoutingInfo, SingleNodeRoutingInfo},
};

/// How long the client library waits for anything. This is longer than any caller's own time limit, so that the latter decides.
const CLIENT_TIME: Duration = Duration::from_secs(5);

/// How long a cluster's client waits for any one node. This is much less than for the whole cluster, so that a node that is
/// gone does not keep the client from reaching the others.
const NODE_TIME: Duration = Duration::from_millis(300);

/// How long a cluster's client waits before it tries a node again, at least, in milliseconds.
const NODE_RETRY_MILLIS: u64 = 50;

/// The beginning of a certificate in PEM format.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// The address of Redis: one server, or some nodes of a cluster.
#[derive(Clone)]
pub struct Server {
    nodes: Vec<ConnectionInfo>,
    certificates: TlsCertificates,
}

/// Why a text is no address of Redis. The messages do not quote the address, which may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// The URL cannot be parsed.
    #[error(
        "is not the URL of a Redis: write redis://[user:password@]host[:port][/database], rediss:// for TLS, or unix:///path; \
         percent-encode what is neither a letter nor a digit in the user's name and password; several nodes of a cluster are \
         separated by commas"
    )]
    Url,
    /// A URL ends with `#insecure`, the client library's way to accept every certificate.
    #[error(
        "ends with #insecure, which would let anybody between pose as Redis, and is not supported: leave it out, and set \
         REDIS_CA_FILE to the certificate authority of Redis"
    )]
    Insecure,
    /// There is no URL.
    #[error("names no server")]
    Nothing,
    /// Some nodes are reached over TLS, and others are not.
    #[error(
        "names some servers with rediss:// and others without: the nodes of a cluster are all reached over TLS, or none is"
    )]
    Mixed,
    /// A certificate authority is given for a server without TLS.
    #[error("has no effect, as no server is reached over TLS: write rediss:// in place of redis://, or leave it out")]
    NoTls,
    /// A node of a cluster is reached through a socket.
    #[error(
        "names several servers, that is, a cluster, and its nodes cannot be reached through a socket: name them by host and port"
    )]
    Socket,
    /// The certificate authority's file holds no certificate.
    #[error("holds no certificate in PEM format that can be read")]
    Certificates,
}

impl Server {
    /// Parses a server's URL, or the URLs of several nodes of a cluster, separated by commas.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn parse(urls: &str) -> Result<Self, ServerError> {
        let parse = |url: &str| url.into_connection_info().map(plain).map_err(|_| ServerError::Url);
        let nodes = urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(parse);
        let nodes: Vec<ConnectionInfo> = nodes.collect::<Result<_, _>>()?;
        match nodes.as_slice() {
            [] => Err(ServerError::Nothing),
            all if all.iter().any(|node| matches!(node.addr(), ConnectionAddr::TcpTls { insecure: true, .. })) => {
                Err(ServerError::Insecure)
            }
            [_, _, ..] if nodes.iter().any(|node| matches!(node.addr(), ConnectionAddr::Unix(_))) => {
                Err(ServerError::Socket)
            }
            all if all.iter().any(is_over_tls) && !all.iter().all(is_over_tls) => Err(ServerError::Mixed),
            _ => Ok(Self::of(nodes)),
        }
    }

    /// A server at a host and a port.
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

    /// Replaces the system's certificate authorities by this one, in PEM format.
    ///
    /// # Errors
    /// [`ServerError::NoTls`] and [`ServerError::Certificates`].
    pub fn with_authority(mut self, pem: Vec<u8>) -> Result<Self, ServerError> {
        if !self.nodes.iter().any(is_over_tls) {
            return Err(ServerError::NoTls);
        }
        // The client library ignores text that is no certificate, and reports no error.
        if !pem.windows(CERTIFICATE.len()).any(|text| text == CERTIFICATE) {
            return Err(ServerError::Certificates);
        }
        self.certificates.root_cert = Some(pem);
        // Only the client library knows which certificates it can parse.
        let over_tls = "rediss://127.0.0.1".into_connection_info().map_err(|_| ServerError::Url)?;
        let tried = Client::build_with_tls(over_tls, self.certificates.clone());
        tried.map(|_| self).map_err(|_| ServerError::Certificates)
    }

    /// The addresses, without users and passwords.
    pub(super) fn addresses(&self) -> String {
        self.nodes.iter().map(|node| node.addr().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// The first node's password, which nothing else shows.
    #[cfg(test)]
    pub(crate) fn secret_for_tests(&self) -> Option<String> {
        self.nodes.first().and_then(|node| node.redis_settings().password().map(str::to_owned))
    }

    /// The user's name.
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

    /// Connects. Whether Redis answers on the connection is not known yet.
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

    /// Subscribes to channels: in a cluster through any one node, as each node receives what is published at any other.
    pub(super) async fn subscribe(&self, channels: &[&str]) -> Result<PubSubStream, RedisError> {
        let mut result = Err(RedisError::from(io::Error::from(io::ErrorKind::NotFound)));
        let mut nodes = self.nodes.clone();
        // The order is random, so that instances use different nodes, and none stays with a node that accepts connections only.
        fastrand::shuffle(&mut nodes);
        for node in &nodes {
            result = self.subscribe_through(node, channels).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn subscribe_through(&self, node: &ConnectionInfo, channels: &[&str]) -> Result<PubSubStream, RedisError> {
        let mut connection = self.client(node)?.get_async_pubsub().await?;
        connection.subscribe(channels).await?;
        Ok(connection.into_on_message())
    }
}

fn is_over_tls(node: &ConnectionInfo) -> bool {
    matches!(node.addr(), ConnectionAddr::TcpTls { .. })
}

/// The node, without `CLIENT SETINFO` on connecting: so its user needs no right to that.
fn plain(node: ConnectionInfo) -> ConnectionInfo {
    let settings = node.redis_settings().clone().set_skip_set_lib_name();
    node.set_redis_settings(settings)
}

/// Shows the addresses, without users and passwords.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.nodes.iter().map(|node| node.addr().to_string())).finish()
    }
}

/// A connection that many commands share at once.
#[derive(Clone)]
pub(super) enum Connection {
    /// To a server.
    One(MultiplexedConnection),
    /// To a cluster.
    Cluster(ClusterConnection),
}

impl Connection {
    /// Waits until Redis answers a `PING`: in a cluster any one node, as another may be gone.
    pub(super) async fn ping(&mut self) -> Result<(), RedisError> {
        let command = redis::cmd("PING");
        match self {
            Self::One(connection) => connection.req_packed_command(&command).await?.extract_error()?,
            Self::Cluster(connection) => {
                let to_any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
                connection.route_command(command, to_any).await?.extract_error()?
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
