//! Certificates for one server, by an authority that is made for it and that nobody else believes.
//!
//! They are valid for ever, and clients have none: the servers ask for none.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The names by which clients may call the server.
const NAMES: [&str; 2] = ["127.0.0.1", "localhost"];

/// An authority, and what it has signed for a server, as PEM.
#[derive(Debug)]
pub struct Certificates {
    authority: String,
    certificate: String,
    key: String,
}

impl Certificates {
    /// Makes new ones. Those of another authority do not do for them.
    pub fn new() -> Self {
        let mut params = named("An authority of the tests", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, key()).expect("an authority");
        let key = key();
        let certificate = named("A server of the tests", &NAMES).signed_by(&key, &authority).expect("a certificate");
        Self { authority: authority.pem(), certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Where the authority's certificate is that was written to a directory.
    pub fn authority_in(directory: &Path) -> PathBuf {
        directory.join("ca.pem")
    }

    /// Writes the authority's certificate to a directory, for those who are to believe it.
    pub fn write_authority(&self, directory: &Path) -> PathBuf {
        let path = Self::authority_in(directory);
        fs::write(&path, &self.authority).expect("the directory is our own");
        path
    }

    /// Writes them to a server's directory, and tells the server of them.
    pub(super) fn arguments(&self, port: u16, directory: &Path) -> Vec<OsString> {
        let (certificate, key) = (directory.join("server.pem"), directory.join("server.key"));
        fs::write(&certificate, &self.certificate).expect("the directory is our own");
        fs::write(&key, &self.key).expect("the directory is our own");
        let authority = self.write_authority(directory);
        let mut arguments: Vec<OsString> = vec!["--port".into(), "0".into()];
        arguments.extend(["--tls-port".into(), port.to_string().into()]);
        arguments.extend(["--tls-auth-clients".into(), "no".into()]);
        arguments.extend(["--tls-ca-cert-file".into(), authority.into()]);
        arguments.extend(["--tls-cert-file".into(), certificate.into(), "--tls-key-file".into(), key.into()]);
        arguments
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn named(name: &str, hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts).expect("names of hosts");
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
