//! TLS on the port: certificates from files, read again when they change; with an authority, clients need certificates too.
//!
//! Speaks HTTP/2 and HTTP/1.1, over TLS 1.2 and 1.3.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{VerifierBuilderError, WebPkiClientVerifier},
    },
    server::TlsStream,
};

/// How often it is looked whether the files have changed.
const LOOK: Duration = Duration::from_secs(30);

/// The files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The port's certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of clients' certificates, if those are asked for.
    pub client_ca: Option<PathBuf>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// The certificate chain.
    Cert,
    /// The private key.
    Key,
    /// The authorities of clients.
    ClientCa,
}

/// Why a file is of no use. Shows nothing of what is in it.
#[derive(Debug, thiserror::Error)]
#[error("`{}`, which {what}", path.display())]
pub struct TlsError {
    /// Which it is.
    pub file: TlsFile,
    path: PathBuf,
    what: String,
}

/// What the port proves who it is with. Clones share it.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    current: tokio::sync::watch::Sender<Arc<ServerConfig>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

/// What is in the files.
#[derive(PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// The first of the files that is of no use.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let config = files.read().and_then(|contents| files.compile(&contents))?;
        Ok(Self { files, current: tokio::sync::watch::Sender::new(config) })
    }

    /// Greets who has connected, with the certificate of now.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.borrow());
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Reads the files again for ever, now and then: what they hold counts for who connects from then on. What is of no use
    /// leaves things as they are.
    pub(super) async fn follow(self) {
        let mut last = self.files.read().ok();
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut complaint = String::new();
        loop {
            ticks.tick().await;
            let read = match self.files.read() {
                Ok(contents) if last.as_ref() == Some(&contents) => continue,
                Ok(contents) => self.files.compile(&contents).map(|config| (contents, config)),
                Err(error) => Err(error),
            };
            match read {
                Ok((contents, config)) => {
                    tracing::info!("the certificate has changed, and counts from now on");
                    last = Some(contents);
                    self.current.send_replace(config);
                    complaint.clear();
                }
                Err(error) => {
                    let said = error.to_string();
                    if said != complaint {
                        tracing::warn!(%error, "the certificate has changed and is of no use: the one before still counts");
                    }
                    complaint = said;
                }
            }
        }
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Contents, TlsError> {
        let read = |file, path: &PathBuf| {
            std::fs::read(path).map_err(|error| self.wrong(file, format!("cannot be read: {error}")))
        };
        Ok(Contents {
            cert: read(TlsFile::Cert, &self.cert)?,
            key: read(TlsFile::Key, &self.key)?,
            client_ca: self.client_ca.as_ref().map(|path| read(TlsFile::ClientCa, path)).transpose()?,
        })
    }

    fn compile(&self, contents: &Contents) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = self.certificates(TlsFile::Cert, &contents.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key)
            .map_err(|_| self.wrong(TlsFile::Key, "holds no private key as PEM"))?;
        let provider = Arc::new(default_provider());
        let versions = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let versions = versions.with_safe_default_protocol_versions();
        let versions = versions.map_err(|error| self.wrong(TlsFile::Cert, format!("cannot be used: {error}")))?;
        let clients = match &contents.client_ca {
            None => versions.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for authority in self.certificates(TlsFile::ClientCa, pem)? {
                    let added = roots.add(authority);
                    added.map_err(|error| self.wrong(TlsFile::ClientCa, format!("holds no authority: {error}")))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let wrong =
                    |error: VerifierBuilderError| self.wrong(TlsFile::ClientCa, format!("cannot be used: {error}"));
                versions.with_client_cert_verifier(verifier.map_err(wrong)?)
            }
        };
        let config = clients.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => self.wrong(TlsFile::Key, "is not the key of the certificate"),
            rustls::Error::General(_) => self.wrong(TlsFile::Key, "holds a private key that cannot be used"),
            error => self.wrong(TlsFile::Cert, format!("cannot be used: {error}")),
        });
        let mut config = config?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn certificates(&self, file: TlsFile, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.unwrap_or_default();
        if certificates.is_empty() {
            return Err(self.wrong(file, "holds no certificate as PEM"));
        }
        Ok(certificates)
    }

    fn wrong(&self, file: TlsFile, what: impl Into<String>) -> TlsError {
        let path = match file {
            TlsFile::Cert => &self.cert,
            TlsFile::Key => &self.key,
            TlsFile::ClientCa => self.client_ca.as_ref().unwrap_or(&self.cert),
        };
        TlsError { file, path: path.clone(), what: what.into() }
    }
}
