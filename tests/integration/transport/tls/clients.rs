//! Which client certificates the port accepts: revocation lists, read again while it runs, and the list of names.
//!
//! Does not test certificates that have expired or are of another authority (the parent does).

use std::{fs, path::Path, time::Duration};

use tokio::time::{sleep, timeout};

use super::{channel, is_refused, read_roadmap, serve_with};
use crate::support::{
    certificates::{Certificates, Certified},
    command::{Serving, run_with},
    service::{DOCUMENTS, PATIENCE, SCHEMA, Service},
};
use permcached::transport::{ClientCertificates, Tls, TlsFiles};

/// A year before which a list expired, and one before which it does not.
const PAST: i32 = 2021;
const FUTURE: i32 = 4000;

fn clients(certificates: &Certificates, directory: &Path, crl: Option<&str>, names: &[&str]) -> ClientCertificates {
    let path = directory.join("revoked.pem");
    let crl = crl.map(|pem| {
        fs::write(&path, pem).unwrap();
        path
    });
    let names = names.iter().map(ToString::to_string).collect();
    ClientCertificates { ca: certificates.write_authority(directory), crl, names }
}

/// Whether the service answers a new connection with this certificate.
async fn is_accepted(service: &Service, certificates: &Certificates, client: &Certified) -> bool {
    let asked = read_roadmap(channel(service, &certificates.authority(), Some(client))).await;
    assert!(asked.is_ok() || is_refused(&asked), "{asked:?}");
    asked.is_ok()
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_so_is_every_one_without_a_current_list_of_its_authority() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let unrelated = Certificates::of_authority("Another authority");
    let (revoked, valid) = (certificates.numbered_client(7), certificates.numbered_client(8));
    let list = |numbers: &[u64], until| certificates.revoked(numbers, until);
    for (what, crl, accepted) in [
        ("both are valid", list(&[9], FUTURE), [true, true]),
        ("one is revoked", list(&[7], FUTURE), [false, true]),
        ("the list has expired", list(&[7], PAST), [false, false]),
        ("the list is of another authority of the same name", others.revoked(&[9], FUTURE), [false, false]),
        ("the list is of an authority of another name", unrelated.revoked(&[9], FUTURE), [false, false]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let clients = clients(&certificates, directory.path(), Some(&crl), &[]);
        let (service, _) = serve_with(&certificates, Some(clients)).await;
        let of_both =
            [is_accepted(&service, &certificates, &revoked).await, is_accepted(&service, &certificates, &valid).await];
        assert_eq!(of_both, accepted, "{what}");
    }
}

#[tokio::test]
async fn a_changed_revocation_list_counts_while_the_service_runs_and_without_a_usable_one_nobody_is_accepted() {
    let certificates = Certificates::new();
    let (revoked, valid) = (certificates.numbered_client(7), certificates.numbered_client(8));
    let directory = tempfile::tempdir().unwrap();
    let [nobody, one] = [&[][..], &[7]].map(|numbers| certificates.revoked(numbers, FUTURE));
    let clients = clients(&certificates, directory.path(), Some(&nobody), &[]);
    let crl = clients.crl.clone().unwrap();
    let (service, _) = serve_with(&certificates, Some(clients)).await;
    let until = async |what: &str, accepted: [bool; 2]| {
        let comes = async {
            while [
                is_accepted(&service, &certificates, &revoked).await,
                is_accepted(&service, &certificates, &valid).await,
            ] != accepted
            {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, comes).await.unwrap_or_else(|_| panic!("{what}: not {accepted:?}"));
    };
    until("no certificate is revoked", [true, true]).await;
    // Another file that cannot be used does not delay the list.
    fs::write(directory.path().join("ca.pem"), "no authority").unwrap();
    fs::write(&crl, &one).unwrap();
    until("one is revoked", [false, true]).await;
    fs::write(&crl, "no list").unwrap();
    until("the list is not a list", [false, false]).await;
    fs::write(&crl, &one).unwrap();
    until("the list is usable again", [false, true]).await;
    fs::remove_file(&crl).unwrap();
    until("there is no file", [false, false]).await;
    certificates.write_authority(directory.path());
    fs::write(&crl, &nobody).unwrap();
    until("no certificate is revoked any more", [true, true]).await;
}

#[tokio::test]
async fn only_certificates_with_a_listed_name_are_accepted() {
    let certificates = Certificates::new();
    let directory = tempfile::tempdir().unwrap();
    let names = ["backend.internal", "spiffe://example.org/worker"];
    let (service, _) = serve_with(&certificates, Some(clients(&certificates, directory.path(), None, &names))).await;
    for (common, hosts, uris, is_listed) in [
        ("any", &["backend.internal"][..], &[][..], true),
        ("any", &["other.internal", "backend.internal"], &[], true),
        ("any", &[], &["spiffe://example.org/worker"], true),
        ("backend.internal", &[], &[], false),
        ("any", &["other.internal"], &["spiffe://example.org/other"], false),
        ("any", &["*.internal"], &[], false),
        ("any", &["backend.internal.example.org"], &[], false),
        ("any", &["sub.backend.internal"], &[], false),
        ("any", &["Backend.internal"], &[], false),
        ("any", &[], &["spiffe://example.org/worker/2"], false),
        ("any", &[], &["spiffe://example.org/Worker"], false),
        // A URI does not stand for a host.
        ("any", &[], &["backend.internal"], false),
        // An address is no name.
        ("any", &["127.0.0.1"], &[], false),
    ] {
        let client = certificates.named_client(common, hosts, uris);
        assert_eq!(is_accepted(&service, &certificates, &client).await, is_listed, "{common} {hosts:?} {uris:?}");
    }
    let other = Certificates::new().named_client("any", &["backend.internal"], &[]);
    assert!(!is_accepted(&service, &certificates, &other).await, "a listed name, but of another authority");
}

#[test]
fn a_list_that_cannot_be_used_is_named_at_the_start() {
    let certificates = Certificates::new();
    let directory = tempfile::tempdir().unwrap();
    let [cert, key] = certificates.server.write(directory.path(), "server");
    let one = certificates.revoked(&[7], FUTURE);
    for (crl, wanted) in [
        ("", "holds no revocation list as PEM"),
        (&*one.replace("MI", "AA"), "which cannot be used"),
        (&*format!("{one}{one}"), "holds two lists of one authority"),
    ] {
        let clients = Some(clients(&certificates, directory.path(), Some(crl), &[]));
        let errors = Tls::load(TlsFiles { cert: cert.clone(), key: key.clone(), clients }).unwrap_err();
        assert!(errors.len() == 1 && errors[0].to_string().contains(wanted), "{errors:?}");
    }
}

/// Configured as an operator does it.
#[test]
fn the_log_has_the_reason_why_a_certificate_is_refused() {
    let certificates = Certificates::new();
    let directory = tempfile::tempdir().unwrap();
    let text = |path: std::path::PathBuf| path.display().to_string();
    let [cert, key] = certificates.server.write(directory.path(), "server").map(text);
    let authority = text(certificates.write_authority(directory.path()));
    let crl = text(directory.path().join("revoked.pem"));
    fs::write(&crl, certificates.revoked(&[7], FUTURE)).unwrap();
    let variables = [
        ("TLS_CERT_FILE", &*cert),
        ("TLS_KEY_FILE", &*key),
        ("TLS_CLIENT_CA_FILE", &*authority),
        ("TLS_CLIENT_CRL_FILE", &*crl),
        ("TLS_CLIENT_NAMES", "backend.internal, spiffe://example.org/worker"),
    ];
    let server = Serving::start_with(&["--documents", DOCUMENTS, "--schema", SCHEMA], &variables);
    let url = format!("https://localhost:{}", server.address.port());
    for (name, client, code, wanted) in [
        ("listed", certificates.named_client("any", &["backend.internal"], &[]), 0, ""),
        ("revoked", certificates.numbered_client(7), 1, "Revoked"),
        (
            "unlisted",
            certificates.named_client("any", &["other.internal"], &[]),
            1,
            "TLS_CLIENT_NAMES, but [\"other.internal\"]",
        ),
    ] {
        let [client_cert, client_key] = client.write(directory.path(), name).map(text);
        let own =
            [("CLIENT_CERT_FILE", &*client_cert), ("CLIENT_KEY_FILE", &*client_key), ("SERVER_CA_FILE", &*authority)];
        let ended = run_with(&["health", "--server", &url], &own);
        assert_eq!(ended.code, code, "{name}: {ended:?}");
        if !wanted.is_empty() {
            let line = server.logged("a TLS handshake failed");
            assert!(line["error"].as_str().unwrap().contains(wanted), "{line}");
        }
    }
    fs::remove_file(&crl).unwrap();
    let line = server.logged_with("the revocation list cannot be used");
    assert!(line["level"] == "ERROR" && line["error"].as_str().unwrap().contains(&crl), "{line}");
}
