//! TLS on the port, over real sockets: for calls and probes, with client certificates, and with a second plain port for
//! probes.
//!
//! Does not test reloading of the port's own certificate (`src/transport/tls.rs` does).

mod clients;

use std::{net::SocketAddr, sync::Arc};

use permcached::transport::{ClientCertificates, Tls, TlsFiles};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, HandshakeKind, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{ALICE, CONTRACT, ROADMAP, ask, check};
use crate::support::{
    certificates::{Certificates, Certified},
    command::{Serving, run_with},
    service::{Client, DOCUMENTS, PATIENCE, SCHEMA, Service, http},
};

/// A service with TLS, which requires client certificates if `requires_client_certificates`, and the address of its
/// port for probes.
async fn secured(certificates: &Certificates, requires_client_certificates: bool) -> (Service, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    let clients = requires_client_certificates.then(|| ClientCertificates {
        ca: certificates.write_authority(directory.path()),
        crl: None,
        names: [].into(),
    });
    serve_with(certificates, clients).await
}

/// A service with TLS that accepts these clients, and the address of its port for probes.
async fn serve_with(certificates: &Certificates, clients: Option<ClientCertificates>) -> (Service, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    let [cert, key] = certificates.server.write(directory.path(), "server");
    let tls = Tls::load(TlsFiles { cert, key, clients }).unwrap();
    let probes = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = probes.local_addr().unwrap();
    let service = Service::start_as(|serving| {
        serving.tls = Some(tls);
        serving.probes = Some(probes);
    });
    (service.await, address)
}

fn channel(service: &Service, authority: &str, identity: Option<&Certified>) -> Channel {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority));
    if let Some(Certified { certificate, key }) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://localhost:{}", service.address.port())).unwrap();
    endpoint.tls_config(tls).unwrap().timeout(PATIENCE).connect_lazy()
}

/// Whether the connection was refused. The client reports one of four codes, depending on where it noticed. `INTERNAL` and `CANCELLED`
/// are its own if they have a source: a client without TLS may take the server's TLS alert for a frame of HTTP/2, and a request may
/// wait for its turn when the connection is closed. A connection that is left open in silence is not refused.
fn is_refused<T>(asked: &Result<T, Status>) -> bool {
    matches!(asked, Err(status) if match status.code() {
        Code::Unavailable | Code::Unknown => true,
        Code::Internal | Code::Cancelled => {
            let source = std::error::Error::source(status);
            let mut sources = std::iter::successors(source, |error| error.source());
            source.is_some() && sources.all(|error| !error.is::<tonic::TimeoutExpired>())
        }
        _ => false,
    })
}

async fn read_roadmap(channel: Channel) -> Result<bool, Status> {
    let answer = ask(&Client::new(channel), check(ALICE, "read", ROADMAP)).await?;
    Ok(answer.allowed)
}

/// A client that trusts this authority, and presents this certificate if there is one.
fn connector(authority: &str, identity: Option<&Certified>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        None => config.with_no_client_auth(),
        Some(Certified { certificate, key }) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

/// Sends a GET request over HTTP/1.1 and TLS. Returns the response and the kind of handshake.
async fn get(service: &Service, connector: &TlsConnector, path: &str) -> (String, Option<HandshakeKind>) {
    let stream = TcpStream::connect(service.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    (response, stream.get_ref().1.handshake_kind())
}

#[tokio::test]
async fn calls_and_probes_are_on_the_port_over_tls() {
    let certificates = Certificates::new();
    let (service, _) = secured(&certificates, false).await;
    assert!(read_roadmap(channel(&service, &certificates.authority(), None)).await.unwrap());
    let (ready, _) = get(&service, &connector(&certificates.authority(), None), "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("\r\n\r\nready"), "{ready}");
    let plain = read_roadmap(service.channel()).await;
    assert!(is_refused(&plain), "without TLS: {plain:?}");
    let untrusting = read_roadmap(channel(&service, &Certificates::new().authority(), None)).await;
    assert!(is_refused(&untrusting), "a client that trusts only another authority: {untrusting:?}");
}

#[tokio::test]
async fn a_client_must_present_an_unexpired_certificate_of_the_authority() {
    let certificates = Certificates::new();
    let (service, _) = secured(&certificates, true).await;
    let authority = certificates.authority();
    let asked = async |identity: Option<&Certified>| read_roadmap(channel(&service, &authority, identity)).await;
    assert!(asked(Some(&certificates.client())).await.unwrap());
    assert!(is_refused(&asked(None).await), "no certificate");
    assert!(is_refused(&asked(Some(&certificates.expired_client())).await), "an expired certificate");
    assert!(is_refused(&asked(Some(&Certificates::new().client())).await), "a certificate of another authority");
}

#[tokio::test]
async fn the_port_for_probes_has_no_tls_and_answers_no_questions() {
    let certificates = Certificates::new();
    let (_service, address) = secured(&certificates, true).await;
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().timeout(PATIENCE).connect_lazy();
    let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(health.get_ref().status(), ServingStatus::Serving);
    let refused = read_roadmap(channel).await.unwrap_err();
    assert_ne!(refused.code(), Code::Ok);
    let metrics = http(address, "/metrics").await;
    assert!(metrics.status == 200 && metrics.body.contains("permcached_"), "{metrics:?}");
}

/// Configured as an operator does it: with files and variables.
#[test]
fn serve_and_the_commands_use_tls_as_configured() {
    let certificates = Certificates::new();
    let directory = tempfile::tempdir().unwrap();
    let text = |path: std::path::PathBuf| path.display().to_string();
    let [cert, key] = certificates.server.write(directory.path(), "server").map(text);
    let [client_cert, client_key] = certificates.client().write(directory.path(), "client").map(text);
    let authority = text(certificates.write_authority(directory.path()));
    let files = [("TLS_CERT_FILE", &*cert), ("TLS_KEY_FILE", &*key), ("TLS_CLIENT_CA_FILE", &*authority)];
    let variables = [files.as_slice(), &[("PROBE_PORT", "0")]].concat();
    let server = Serving::start_with(&["--documents", DOCUMENTS, "--schema", SCHEMA], &variables);
    let url = format!("https://localhost:{}", server.address.port());
    let ask = |variables: &[(&str, &str)]| run_with(&["check", ALICE, "read", CONTRACT, "--server", &url], variables);
    let own = [("CLIENT_CERT_FILE", &*client_cert), ("CLIENT_KEY_FILE", &*client_key)];
    let known = ask(&[&own[..], &[("SERVER_CA_FILE", &*authority)]].concat());
    assert!([0, 1].contains(&known.code), "{known:?}");
    assert_eq!(ask(&[("SERVER_CA_FILE", &*authority)]).code, 3, "without a certificate");
    assert_eq!(ask(&own).code, 3, "a client that does not trust the authority");
    let [old_cert, old_key] = certificates.expired_client().write(directory.path(), "expired").map(text);
    let expired = [("CLIENT_CERT_FILE", &*old_cert), ("CLIENT_KEY_FILE", &*old_key), ("SERVER_CA_FILE", &*authority)];
    assert_eq!(ask(&expired).code, 3, "with an expired certificate");
    // The log has the reason.
    let why = || server.logged("a TLS handshake failed")["error"].to_string();
    let whys = [why(), why(), why()];
    assert!(whys.iter().any(|why| why.to_lowercase().contains("expired")), "{whys:?}");
}

/// A client that resumed a session would not be asked for its certificate again.
#[tokio::test]
async fn no_client_with_a_certificate_resumes_a_session() {
    let certificates = Certificates::new();
    let (service, _) = secured(&certificates, true).await;
    let connector = connector(&certificates.authority(), Some(&certificates.client()));
    for round in 0..3 {
        let (response, handshake) = get(&service, &connector, "/healthz").await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        assert_eq!(handshake, Some(HandshakeKind::Full), "round {round}");
    }
}
