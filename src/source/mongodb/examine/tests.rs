//! What is said about a login that is refused, by where the user is defined. No server is needed.

use super::*;

/// The diagnosis for a connection string. `source` is what a DNS record names.
async fn diagnosis(uri: &str, source: Option<&str>) -> String {
    let uri = ConnectionString::parse(uri).expect(uri);
    let mut options = ClientOptions::parse(uri.driver()).await.expect("it is valid");
    if let (Some(credential), Some(source)) = (options.credential.as_mut(), source) {
        credential.source = Some(source.to_owned());
    }
    let assumed = uri.assumed_source(&options);
    let found = refused(&Address::of(&options, assumed));
    format!("{}: {:?}", found.message, found.remedy)
}

#[tokio::test]
async fn the_remedy_of_a_refused_login_is_one_that_its_server_has() {
    let atlas = "mongodb://u:wrong@a.mongodb.net:27017/shop";
    let found = diagnosis(atlas, Some("admin")).await;
    assert!(found.contains("no such user in `admin`") && found.contains("in Atlas: Database Access"), "{found}");
    assert!(!found.contains("authSource") && !found.contains("changeUserPassword"), "{found}");
    let found = diagnosis(atlas, None).await;
    assert!(found.contains("add authSource=admin") && found.contains("in Atlas: Database Access"), "{found}");
    assert!(!found.contains("changeUserPassword"), "{found}");
    let found = diagnosis("mongodb://u:wrong@h/admin", None).await;
    assert!(found.contains("changeUserPassword") && !found.contains("authSource"), "{found}");
    for (uri, wanted) in [
        ("mongodb://u:wrong@h/shop?authMechanism=PLAIN", "add authSource=$external"),
        ("mongodb://u:wrong@h/?authMechanism=PLAIN", "no such user in `$external`"),
        ("mongodb://CN=u@h/shop?authMechanism=MONGODB-X509", "no such user in `$external`"),
    ] {
        let found = diagnosis(uri, None).await;
        assert!(found.contains(wanted) && !found.contains("changeUserPassword"), "{uri}: {found}");
    }
}

#[tokio::test]
async fn a_file_that_has_no_key_is_the_reason_and_not_the_options() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("client.pem");
    std::fs::write(&path, "no key").expect("it is written");
    let found = examine(None, &format!("mongodb://h/db?tls=true&tlsCertificateKeyFile={}", path.display()), None).await;
    let shown = format!("{found:?}");
    assert!(shown.contains("the file of `tlsCertificateKeyFile` does not have both"), "{shown}");
}
