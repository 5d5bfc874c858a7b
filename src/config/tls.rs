//! Reads the files of TLS, and which client certificates are accepted. Accepts no connection.

use std::path::PathBuf;

use super::{
    reader::Reader,
    variable::{TLS_CERT_FILE, TLS_CLIENT_CA_FILE, TLS_CLIENT_CRL_FILE, TLS_CLIENT_NAMES, TLS_KEY_FILE},
};
use crate::transport::{ClientCertificates, Tls, TlsError, TlsFile, TlsFiles};

/// The certificate and key of the port, and which client certificates it accepts. None without TLS, or after an error.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Tls> {
    let (cert, key) = (reader.path(&TLS_CERT_FILE), reader.path(&TLS_KEY_FILE));
    let errors_before = reader.error_count();
    let clients = clients(reader);
    let is_wrong = reader.error_count() > errors_before;
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (None, None) => {
            if clients.is_some() {
                let remedy = "set TLS_CERT_FILE and TLS_KEY_FILE, or unset it";
                reader.add_error(format!("TLS_CLIENT_CA_FILE is set, but the port does not use TLS: {remedy}"));
            }
            return None;
        }
        (cert, _) => {
            let (set, missing) =
                if cert.is_some() { (&TLS_CERT_FILE, &TLS_KEY_FILE) } else { (&TLS_KEY_FILE, &TLS_CERT_FILE) };
            reader.add_error(format!("{} is set without {}: set both, or neither", set.name, missing.name));
            return None;
        }
    };
    let refuse = |errors: Vec<TlsError>| {
        for error in errors {
            let variable = match error.file {
                TlsFile::Cert => &TLS_CERT_FILE,
                TlsFile::Key => &TLS_KEY_FILE,
                TlsFile::ClientCa => &TLS_CLIENT_CA_FILE,
                TlsFile::ClientCrl => &TLS_CLIENT_CRL_FILE,
            };
            reader.add_error(format!("{} is {error}", variable.name));
        }
    };
    let loaded = Tls::load(TlsFiles { cert, key, clients }).map_err(refuse).ok();
    // Without the wrong part, the port would accept more clients than it should.
    loaded.filter(|_| !is_wrong)
}

/// Which client certificates are accepted, if clients must present one.
fn clients(reader: &mut Reader<'_>) -> Option<ClientCertificates> {
    let ca = reader.path(&TLS_CLIENT_CA_FILE);
    let crl: Option<PathBuf> = reader.path(&TLS_CLIENT_CRL_FILE);
    let names = reader.text(&TLS_CLIENT_NAMES);
    let Some(ca) = ca else {
        for (variable, is_set) in [(&TLS_CLIENT_CRL_FILE, crl.is_some()), (&TLS_CLIENT_NAMES, names.is_some())] {
            if is_set {
                let remedy = "clients present no certificate: set TLS_CLIENT_CA_FILE, or unset it";
                reader.add_error(format!("{} is set, but {remedy}", variable.name));
            }
        }
        return None;
    };
    let names: Vec<String> =
        names.iter().flat_map(|names| names.split(',')).map(|name| name.trim().to_owned()).collect();
    for (place, name) in (1..).zip(&names) {
        if let Some(what) = error_of(name) {
            reader.add_error(format!("TLS_CLIENT_NAMES: name {place} {what}"));
        }
    }
    Some(ClientCertificates { ca, crl, names: names.into() })
}

/// What is wrong with the name of a client. Names are compared exactly, so a wrong one would accept no client.
fn error_of(name: &str) -> Option<&'static str> {
    let is_host = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if name.is_empty() {
        Some("is empty: write a host name or a URI, or remove a comma")
    } else if name.contains('*') {
        Some("has a `*`: names are compared exactly, so list each of them")
    } else if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        Some("has a character that is not ASCII, or a space: write a host name or a URI as the certificate has it")
    } else if !name.contains(':') && !name.split('.').all(is_host) {
        Some(
            "is neither a host name nor a URI: write it as the certificate's subjectAltName has it; the common name does not count",
        )
    } else {
        None
    }
}
