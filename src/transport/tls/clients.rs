//! Which client certificates are accepted: those that an authority has signed, that no revocation list names, and that have
//! one of the listed names.
//!
//! Reads no file: `tls` does.

use std::{collections::HashSet, fmt, sync::Arc};

use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime},
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use webpki::{BorrowedCertRevocationList, CertRevocationList, EndEntityCert};

/// How many names of a refused certificate are logged at most.
const LOGGED_NAMES_MAX: usize = 8;

/// The verifier of client certificates. `lists` are revocation lists: if there is one, each authority of a certificate's chain
/// must have a current list, or the certificate is refused. If `names` is not empty, a certificate must have one of these.
pub(super) fn verifier(
    roots: RootCertStore,
    lists: Vec<CertificateRevocationListDer<'static>>,
    names: Arc<[String]>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierBuilderError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let signed = builder.with_crls(lists).enforce_revocation_expiration().build()?;
    Ok(if names.is_empty() { signed } else { Arc::new(NamedClients { signed, names }) })
}

/// Whether two of these revocation lists are of one authority and for the same certificates. Then only the first would be used.
pub(super) fn has_two_of_one_authority(lists: &[CertificateRevocationListDer<'static>]) -> bool {
    let mut seen = HashSet::new();
    let parsed = lists.iter().filter_map(|list| BorrowedCertRevocationList::from_der(list).ok());
    let mut scopes = parsed.map(|list| {
        let list = CertRevocationList::from(list);
        (list.issuer().to_vec(), list.issuing_distribution_point().map(<[u8]>::to_vec))
    });
    !scopes.all(|scope| seen.insert(scope))
}

/// Accepts the certificates that `signed` accepts, if they have one of the names.
#[derive(Debug)]
struct NamedClients {
    signed: Arc<dyn ClientCertVerifier>,
    names: Arc<[String]>,
}

impl ClientCertVerifier for NamedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.signed.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.signed.verify_client_cert(certificate, intermediates, now)?;
        let parsed = EndEntityCert::try_from(certificate)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let is_listed = |name: &str| self.names.iter().any(|listed| listed == name);
        // A listed name with a colon is a URI, and others are host names. So no URI stands for a host.
        let (mut hosts, mut uris) = (parsed.valid_dns_names(), parsed.valid_uri_names());
        if hosts.any(|name| !is_uri(name) && is_listed(name)) || uris.any(|name| is_uri(name) && is_listed(name)) {
            return Ok(verified);
        }
        let names = parsed.valid_dns_names().chain(parsed.valid_uri_names());
        let names = names.take(LOGGED_NAMES_MAX).map(str::to_owned).collect();
        let unlisted = OtherError(Arc::new(UnlistedClient { names }));
        Err(Error::InvalidCertificate(CertificateError::Other(unlisted)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}

/// Whether a name is a URI, and not the name of a host.
fn is_uri(name: &str) -> bool {
    name.contains(':')
}

/// A certificate that has none of the listed names.
#[derive(thiserror::Error)]
#[error("the certificate has none of the names of TLS_CLIENT_NAMES, but {names:?}")]
struct UnlistedClient {
    /// The first of the certificate's host names and URIs.
    names: Vec<String>,
}

/// `rustls` logs the `Debug` text.
impl fmt::Debug for UnlistedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
