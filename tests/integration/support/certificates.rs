//! Certificates of a server on this machine and of clients, signed by an authority that is made for one test and
//! trusted by nobody else.
//!
//! They do not expire, unless a test asks for an expired one.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};

/// The names by which clients may call the server.
const NAMES: [&str; 2] = ["127.0.0.1", "localhost"];

/// A certificate and its key, as PEM.
#[derive(Debug)]
pub struct Certified {
    pub certificate: String,
    pub key: String,
}

impl Certified {
    /// Writes both to a directory, under this name.
    pub fn write(&self, directory: &Path, name: &str) -> [PathBuf; 2] {
        let [certificate, key] = ["pem", "key"].map(|kind| directory.join(format!("{name}.{kind}")));
        fs::write(&certificate, &self.certificate).expect("the directory is our own");
        fs::write(&key, &self.key).expect("the directory is our own");
        [certificate, key]
    }
}

/// An authority, and the certificate that it has signed for a server.
pub struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
    pub server: Certified,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("certificates of the tests")
    }
}

impl Certificates {
    /// Makes a new authority and server. Certificates of another authority are not valid for them.
    pub fn new() -> Self {
        Self::of_authority("An authority of the tests")
    }

    /// As [`Certificates::new`], with another name of the authority.
    pub fn of_authority(name: &str) -> Self {
        let mut params = named(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, key()).expect("an authority");
        let server = signed(&authority, &named("A server of the tests", &NAMES));
        Self { authority, server }
    }

    /// A client's certificate.
    pub fn client(&self) -> Certified {
        signed(&self.authority, &client())
    }

    /// A server whose certificate is its own authority, as `openssl req -x509` makes it by default, or one that is signed by its own
    /// key without being an authority.
    pub fn self_signed(is_authority: bool) -> Self {
        let mut params = named("A server that signs its own certificate", &NAMES);
        params.is_ca = if is_authority { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        let key = key();
        let private = key.serialize_pem();
        let authority = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let server = Certified { certificate: authority.pem(), key: private };
        Self { authority, server }
    }

    /// As [`Certificates::client`], but expired.
    pub fn expired_client(&self) -> Certified {
        let mut params = client();
        params.not_after = date_time_ymd(2020, 1, 1);
        signed(&self.authority, &params)
    }

    /// As [`Certificates::client`], with this serial number, by which it can be revoked.
    pub fn numbered_client(&self, number: u64) -> Certified {
        let mut params = client();
        params.serial_number = Some(SerialNumber::from(number));
        signed(&self.authority, &params)
    }

    /// As [`Certificates::client`], with these host names and URIs, and this common name.
    pub fn named_client(&self, common: &str, hosts: &[&str], uris: &[&str]) -> Certified {
        let mut params = named(common, hosts);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("a URI"))));
        signed(&self.authority, &params)
    }

    /// The authority's list of revoked certificates: those with these serial numbers. It is current until a year.
    pub fn revoked(&self, numbers: &[u64], until: i32) -> String {
        let revoked = numbers.iter().map(|number| RevokedCertParams {
            serial_number: SerialNumber::from(*number),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.authority).expect("a revocation list").pem().expect("a revocation list as PEM")
    }

    /// The authority's certificate, as PEM.
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    /// The path of the authority's certificate in a directory.
    pub fn authority_in(directory: &Path) -> PathBuf {
        directory.join("ca.pem")
    }

    /// Writes the authority's certificate to a directory, for programs that should trust it.
    pub fn write_authority(&self, directory: &Path) -> PathBuf {
        let path = Self::authority_in(directory);
        fs::write(&path, self.authority()).expect("the directory is our own");
        path
    }
}

fn signed(authority: &CertifiedIssuer<'static, KeyPair>, params: &CertificateParams) -> Certified {
    let key = key();
    let certificate = params.signed_by(&key, authority).expect("a certificate");
    Certified { certificate: certificate.pem(), key: key.serialize_pem() }
}

fn client() -> CertificateParams {
    let mut params = named("A client of the tests", &[]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
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
