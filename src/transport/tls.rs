//! TLS on the port: reads certificates from files and reloads them when they change. With a client authority, clients
//! must present certificates too. Offers TLS 1.2 and 1.3, with HTTP/2 and HTTP/1.1.
//!
//! Accepts no connections (`connections` does), and identifies no caller: a client certificate replaces no token.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
    },
    server::TlsStream,
};

/// How often the files are checked for changes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(30);

/// The paths of the files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The port's certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that sign clients' certificates, if clients must present one.
    pub client_ca: Option<PathBuf>,
}

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// The certificate chain.
    Cert,
    /// The private key.
    Key,
    /// The authorities that sign clients' certificates.
    ClientCa,
}

/// Why a file cannot be used. Shows nothing of its contents.
#[derive(Debug, thiserror::Error)]
#[error("`{}`, which {what}", path.display())]
pub struct TlsError {
    /// Which file it is.
    pub file: TlsFile,
    path: PathBuf,
    what: String,
}

/// The port's certificates. Clones share them.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    /// What was read last, and the configuration made of it.
    current: watch::Sender<(Contents, Arc<ServerConfig>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

/// The contents of the files.
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
    /// Every file that cannot be read, or the first whose contents cannot be used.
    pub fn load(files: TlsFiles) -> Result<Self, Vec<TlsError>> {
        let contents = files.read()?;
        let config = files.compile(&contents).map_err(|error| vec![error])?;
        Ok(Self { files, current: watch::Sender::new((contents, config)) })
    }

    /// Completes the TLS handshake of a new connection, with the certificate that was read last.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = Arc::clone(&self.current.borrow().1);
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Reloads the files whenever they change, and never returns. New contents apply to connections accepted
    /// afterwards. If they cannot be used, the earlier ones stay.
    pub(super) async fn reload_when_changed(self) {
        let mut ticks = interval(RELOAD_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_error = None;
        loop {
            ticks.tick().await;
            let error = self.reload().err().and_then(|errors| errors.first().map(ToString::to_string));
            if error.is_some() && error != last_error {
                tracing::warn!(
                    error,
                    "a certificate file has changed and cannot be used: the earlier certificate stays in use"
                );
            }
            last_error = error;
        }
    }

    /// Reads the files, and uses their contents if they have changed.
    fn reload(&self) -> Result<(), Vec<TlsError>> {
        let contents = self.files.read()?;
        if contents == self.current.borrow().0 {
            return Ok(());
        }
        let config = self.files.compile(&contents).map_err(|error| vec![error])?;
        tracing::info!("a certificate has changed and is in use from now on");
        self.current.send_replace((contents, config));
        Ok(())
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Contents, Vec<TlsError>> {
        let mut errors = Vec::new();
        let mut read = |file, path: &PathBuf| {
            let read = std::fs::read(path).map_err(|error| self.wrong(file, format!("cannot be read: {error}")));
            read.map_err(|error| errors.push(error)).unwrap_or_default()
        };
        let contents = Contents {
            cert: read(TlsFile::Cert, &self.cert),
            key: read(TlsFile::Key, &self.key),
            client_ca: self.client_ca.as_ref().map(|path| read(TlsFile::ClientCa, path)),
        };
        if errors.is_empty() { Ok(contents) } else { Err(errors) }
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
        if contents.client_ca.is_some() {
            // No session is resumed: a resuming client is not asked for its certificate again, which may have expired since.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    #[test]
    fn a_new_certificate_is_used_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
        let write = || {
            let CertifiedKey { cert: own, signing_key } =
                generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            fs::write(&cert, own.pem()).unwrap();
            fs::write(&key, signing_key.serialize_pem()).unwrap();
        };
        write();
        let tls = Tls::load(TlsFiles { cert: cert.clone(), key: key.clone(), client_ca: None }).unwrap();
        let current = || Arc::clone(&tls.current.borrow().1);
        let first = current();
        tls.reload().unwrap();
        assert!(Arc::ptr_eq(&first, &current()), "an unchanged file is not reloaded");
        write();
        tls.reload().unwrap();
        let second = current();
        assert!(!Arc::ptr_eq(&first, &second), "a changed file is reloaded");
        fs::write(&key, "no key").unwrap();
        let [error]: [TlsError; 1] = tls.reload().unwrap_err().try_into().unwrap();
        assert_eq!((error.file, error.what.as_str()), (TlsFile::Key, "holds no private key as PEM"));
        assert!(Arc::ptr_eq(&second, &current()), "the earlier certificate stays in use");
    }

    #[test]
    fn the_key_of_another_certificate_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
        let [one, other] = ["a", "b"].map(|name| generate_simple_self_signed([name.to_owned()]).unwrap());
        fs::write(&cert, one.cert.pem()).unwrap();
        fs::write(&key, other.signing_key.serialize_pem()).unwrap();
        let files = TlsFiles { cert, key, client_ca: None };
        let [error]: [TlsError; 1] = Tls::load(files.clone()).unwrap_err().try_into().unwrap();
        assert!(error.file == TlsFile::Key && error.what.contains("not the key of the certificate"), "{error}");
        fs::write(&files.cert, "").unwrap();
        let [error]: [TlsError; 1] = Tls::load(files).unwrap_err().try_into().unwrap();
        assert_eq!(error.file, TlsFile::Cert);
    }
}
