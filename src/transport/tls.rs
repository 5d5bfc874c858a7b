//! TLS on the port: reads certificates from files and reloads them when they change. With a client authority, clients
//! must present certificates too (`clients`). Offers TLS 1.2 and 1.3, with HTTP/2 and HTTP/1.1.
//!
//! Accepts no connections (`connections` does), and identifies no caller: a client certificate replaces no token.

mod clients;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring::default_provider},
        pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject},
        server::{NoServerSessionStorage, VerifierBuilderError, danger::ClientCertVerifier},
    },
    server::TlsStream,
};

/// How often the files are checked for changes.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// The paths of the files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The port's certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// What clients must present a certificate by, if they must.
    pub clients: Option<ClientCertificates>,
}

/// Which client certificates are accepted.
#[derive(Clone, Debug)]
pub struct ClientCertificates {
    /// The authorities that sign them.
    pub ca: PathBuf,
    /// The lists of those that are revoked, if there are any. Without a usable, current list no client is accepted.
    pub crl: Option<PathBuf>,
    /// The host names and URIs of which a certificate must have one. If there are none, every name is accepted.
    pub names: Arc<[String]>,
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
    /// The lists of clients' certificates that are revoked.
    ClientCrl,
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
    current: watch::Sender<Current>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(f)
    }
}

/// What is in use.
struct Current {
    /// The contents that were used last.
    contents: Contents,
    /// The configuration made of them. None while the revocation lists cannot be used: then no client is accepted.
    config: Option<Arc<ServerConfig>>,
}

/// The contents of the files.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    client_crl: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Every file that cannot be read, or the first whose contents cannot be used.
    pub fn load(files: TlsFiles) -> Result<Self, Vec<TlsError>> {
        let contents = files.read()?;
        let config = files.compile(&contents).map_err(|error| vec![error])?;
        Ok(Self { files, current: watch::Sender::new(Current { contents, config: Some(config) }) })
    }

    /// Completes the TLS handshake of a new connection, with the certificate that was read last.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let config = self.current.borrow().config.clone();
        let config =
            config.ok_or_else(|| io::Error::other("TLS_CLIENT_CRL_FILE cannot be used: no client is accepted"))?;
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Reloads the files whenever they change, and never returns. New contents apply to connections accepted
    /// afterwards. If they cannot be used, the earlier ones stay, except for revocation lists.
    pub(super) async fn reload_when_changed(self) {
        let mut ticks = interval(RELOAD_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_error = None;
        loop {
            ticks.tick().await;
            let error = self.reload().err().map(|error| (error.file, error.to_string()));
            if error != last_error {
                match &error {
                    None => {}
                    Some((TlsFile::ClientCrl, error)) => tracing::error!(
                        error,
                        "the revocation list cannot be used: no new connection is accepted until it can"
                    ),
                    Some((TlsFile::Cert | TlsFile::Key | TlsFile::ClientCa, error)) => tracing::warn!(
                        error,
                        "a certificate file has changed and cannot be used: the earlier certificate stays in use"
                    ),
                }
            }
            last_error = error;
        }
    }

    /// Reads the files, and uses their contents if they have changed. Returns the first error. If the revocation lists cannot
    /// be used, no client is accepted from now on; new ones are used even if another file cannot be.
    fn reload(&self) -> Result<(), TlsError> {
        let (result, changed) = self.reloaded();
        let Some(changed) = changed else { return result };
        let is_usable = changed.config.is_some();
        let before = self.current.send_replace(changed);
        if is_usable && (before.config.is_none() || result.is_ok()) {
            tracing::info!("a certificate or revocation list has changed and is in use from now on");
        }
        result
    }

    /// The first error of the files, and what is to be used from now on, if that is something else.
    fn reloaded(&self) -> (Result<(), TlsError>, Option<Current>) {
        let current = self.current.borrow();
        let earlier = &current.contents;
        let closed =
            |error| (Err(error), current.config.is_some().then(|| Current { contents: earlier.clone(), config: None }));
        let client_crl = match self.files.read_client_crl() {
            Ok(pem) => pem,
            Err(error) => return closed(error),
        };
        let use_it = |contents: Contents, result| {
            if contents == *earlier && current.config.is_some() {
                return (result, None);
            }
            match self.files.compile(&contents) {
                Ok(config) => (result, Some(Current { contents, config: Some(config) })),
                Err(error) if error.file == TlsFile::ClientCrl => closed(error),
                Err(error) => (Err(error), None),
            }
        };
        let (result, fresh) = match self.files.read() {
            Ok(contents) => use_it(contents, Ok(())),
            Err(errors) => (errors.into_iter().next().map_or(Ok(()), Err), None),
        };
        match result {
            // The other files cannot be used. The revocation list is not to wait for them.
            Err(error) if error.file != TlsFile::ClientCrl => {
                use_it(Contents { client_crl, ..earlier.clone() }, Err(error))
            }
            result => (result, fresh),
        }
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Contents, Vec<TlsError>> {
        let mut errors = Vec::new();
        let mut read =
            |file, path: &Path| self.read_file(file, path).map_err(|error| errors.push(error)).unwrap_or_default();
        let mut contents = Contents {
            cert: read(TlsFile::Cert, &self.cert),
            key: read(TlsFile::Key, &self.key),
            client_ca: self.clients.as_ref().map(|clients| read(TlsFile::ClientCa, &clients.ca)),
            client_crl: None,
        };
        match self.read_client_crl() {
            Ok(pem) => contents.client_crl = pem,
            Err(error) => errors.push(error),
        }
        if errors.is_empty() { Ok(contents) } else { Err(errors) }
    }

    fn read_client_crl(&self) -> Result<Option<Vec<u8>>, TlsError> {
        let path = self.clients.as_ref().and_then(|clients| clients.crl.as_ref());
        path.map(|path| self.read_file(TlsFile::ClientCrl, path)).transpose()
    }

    fn read_file(&self, file: TlsFile, path: &Path) -> Result<Vec<u8>, TlsError> {
        std::fs::read(path).map_err(|error| self.wrong(file, format!("cannot be read: {error}")))
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
            Some(ca) => {
                versions.with_client_cert_verifier(self.verifier(ca, contents.client_crl.as_deref(), provider)?)
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

    /// The verifier of client certificates.
    fn verifier(
        &self,
        ca: &[u8],
        crl: Option<&[u8]>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in self.certificates(TlsFile::ClientCa, ca)? {
            let added = roots.add(authority);
            added.map_err(|error| self.wrong(TlsFile::ClientCa, format!("holds no authority: {error}")))?;
        }
        let lists = crl.map_or_else(|| Ok(Vec::new()), |pem| self.revocation_lists(pem))?;
        let names = self.clients.as_ref().map(|clients| Arc::clone(&clients.names)).unwrap_or_default();
        clients::verifier(roots, lists, names, provider).map_err(|error| {
            let file = match error {
                VerifierBuilderError::InvalidCrl(_) => TlsFile::ClientCrl,
                _ => TlsFile::ClientCa,
            };
            self.wrong(file, format!("cannot be used: {error}"))
        })
    }

    fn certificates(&self, file: TlsFile, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.unwrap_or_default();
        if certificates.is_empty() {
            return Err(self.wrong(file, "holds no certificate as PEM"));
        }
        Ok(certificates)
    }

    /// The revocation lists of a file, of which there is at least one: without any, no certificate would be revoked.
    fn revocation_lists(&self, pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
        let lists = lists.unwrap_or_default();
        if lists.is_empty() {
            let what = "holds no revocation list as PEM: `openssl crl -inform der` converts one";
            return Err(self.wrong(TlsFile::ClientCrl, what));
        }
        if clients::has_two_of_one_authority(&lists) {
            return Err(self.wrong(TlsFile::ClientCrl, "holds two lists of one authority: remove the older one"));
        }
        Ok(lists)
    }

    fn wrong(&self, file: TlsFile, what: impl Into<String>) -> TlsError {
        let clients = self.clients.as_ref();
        let path = match file {
            TlsFile::Cert => Some(&self.cert),
            TlsFile::Key => Some(&self.key),
            TlsFile::ClientCa => clients.map(|clients| &clients.ca),
            TlsFile::ClientCrl => clients.and_then(|clients| clients.crl.as_ref()),
        };
        TlsError { file, path: path.unwrap_or(&self.cert).clone(), what: what.into() }
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
        let tls = Tls::load(TlsFiles { cert: cert.clone(), key: key.clone(), clients: None }).unwrap();
        let current = || Arc::clone(tls.current.borrow().config.as_ref().unwrap());
        let first = current();
        tls.reload().unwrap();
        assert!(Arc::ptr_eq(&first, &current()), "an unchanged file is not reloaded");
        write();
        tls.reload().unwrap();
        let second = current();
        assert!(!Arc::ptr_eq(&first, &second), "a changed file is reloaded");
        fs::write(&key, "no key").unwrap();
        let error = tls.reload().unwrap_err();
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
        let files = TlsFiles { cert, key, clients: None };
        let [error]: [TlsError; 1] = Tls::load(files.clone()).unwrap_err().try_into().unwrap();
        assert!(error.file == TlsFile::Key && error.what.contains("not the key of the certificate"), "{error}");
        fs::write(&files.cert, "").unwrap();
        let [error]: [TlsError; 1] = Tls::load(files).unwrap_err().try_into().unwrap();
        assert_eq!(error.file, TlsFile::Cert);
    }
}
