//! Connection strings as applications have them: for other drivers, with errors, and with passwords that no error shows.

use super::*;

#[track_caller]
fn parsed(text: &str) -> ConnectionString {
    ConnectionString::parse(text).unwrap_or_else(|errors| panic!("{text}: {errors}"))
}

fn noted(uri: &ConnectionString) -> String {
    uri.notes().iter().map(|note| note.message.clone()).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn driver(text: &str) -> String {
    parsed(text).driver().to_owned()
}

#[track_caller]
fn error(text: &str) -> String {
    ConnectionString::parse(text).expect_err(text).to_string()
}

#[test]
fn options_of_other_drivers_are_left_out_and_named() {
    for option in [
        "socketTimeoutMS=45000",
        "useUnifiedTopology=true",
        "useNewUrlParser=true",
        "timeoutMS=5000",
        "uuidRepresentation=standard",
        "uuidRepresentation=javaLegacy",
        "gssapiServiceName=mongodb",
        "tlsDisableOCSPEndpointCheck=true",
        "waitQueueMultiple=5",
        "autoReconnect=true",
        "poolSize=10",
        "connect=replicaSet",
        "maxLifeTimeMS=1000",
        "serverSelectionTryOnce=false",
        "tz_aware=true",
        "type_registry=x",
        "socketKeepAlive=true",
        "readConcern=majority",
        "maxStalenessSeconds=120",
        "readPreference=secondaryPreferred",
        "readConcernLevel=local",
        "SOCKETTIMEOUTMS=1",
    ] {
        let given = parsed(&format!("mongodb://u:p@h:1/db?{option}&replicaSet=rs0"));
        assert_eq!(given.driver(), "mongodb://u:p@h:1/db?replicaSet=rs0");
        let name = option.split('=').next().unwrap();
        let notes = noted(&given).to_lowercase();
        assert!(notes.contains(&format!("`{}`", name.to_lowercase())), "{option}: {notes}");
    }
    // Without a value they have no effect either.
    for option in ["useUnifiedTopology", "socketTimeoutMS=", "readPreference=", "tlsAllowInvalidHostnames"] {
        let given = parsed(&format!("mongodb://h/db?{option}"));
        assert_eq!(given.driver(), "mongodb://h/db");
        let name = option.trim_end_matches('=');
        assert!(noted(&given).contains(&format!("`{name}`")), "{option}: {}", noted(&given));
    }
    assert_eq!(parsed("mongodb://h/db?retryWrites=").driver(), "mongodb://h/db");
    // They say how an application writes.
    let given = parsed(
        "mongodb://h/db?w=majority&wtimeout=1&wtimeoutMS=1&journal=true&j=1&retryWrites=true&readPreference=primary",
    );
    assert_eq!((given.driver(), noted(&given).as_str()), ("mongodb://h/db", ""));
}

#[test]
fn options_that_the_driver_knows_are_passed_on() {
    for (given, passed) in [
        ("retryReads=True&maxPoolSize=50", "maxPoolSize=50&retryReads=true"),
        ("ssl=true", "tls=true"),
        ("SSL=true&tls=true", "tls=true"),
        ("compressors=zstd,snappy,zlib", "compressors=zstd,snappy,zlib"),
        ("compressors=lz4, Snappy", "compressors=snappy"),
        ("compressors=zlib&zlibCompressionLevel=6", "compressors=zlib&zlibCompressionLevel=6"),
        ("authsource=admin&AUTHMECHANISM=scram-sha-256", "authMechanism=SCRAM-SHA-256&authSource=admin"),
        ("serverMonitoringMode=POLL", "serverMonitoringMode=poll"),
        ("replicaSet=rs0&replicaSet=rs0", "replicaSet=rs0"),
        ("appName=%40shop%40;maxPoolSize=5;", "appName=%40shop%40&maxPoolSize=5"),
        ("appName=@shop@&", "appName=@shop@"),
        ("authMechanism=DEFAULT&maxPoolSize=5", "maxPoolSize=5"),
        ("authMechanism=default&authSource=admin", "authSource=admin"),
        ("heartbeatFrequencyMS=500&maxConnecting=1", "heartbeatFrequencyMS=500&maxConnecting=1"),
        ("maxPoolSize=0&minPoolSize=1", "minPoolSize=1"),
    ] {
        assert_eq!(driver(&format!("mongodb://u:p@h/db?{given}")), format!("mongodb://u:p@h/db?{passed}"), "{given}");
    }
    for whole in [
        "mongodb://[::1]:27017,[fe80::1]/db",
        "mongodb://a:1,b:2,c/db?replicaSet=rs0",
        "mongodb://%2Ftmp%2Fmongodb-27017.sock/db",
        "mongodb+srv://u:p@cluster.example.net/db",
        "mongodb+srv://u:p@cluster.example.net/db?replicaSet=rs0&srvMaxHosts=0",
        "mongodb://h,i/db?directConnection=false",
        "mongodb://h/",
        "mongodb://h/?appName=@shop@",
        "mongodb://h/?appName=team@shop.example",
        "mongodb://h:1,i:2/?appName=@shop@&maxPoolSize=5",
        "mongodb://u:%C3%A9@h/",
        "mongodb://CN=u@h/?authMechanism=MONGODB-X509&authSource=%24external",
    ] {
        assert_eq!(driver(whole), whole);
    }
    assert_eq!(driver("mongodb://h?appName=@shop@"), "mongodb://h/?appName=@shop@");
    assert!(noted(&parsed("mongodb://h/?maxPoolSize=0")).contains("`maxPoolSize=0`"));
    assert_eq!(parsed("mongodb://h?tls=true").driver(), "mongodb://h/?tls=true");
    assert!(noted(&parsed("mongodb://h/?compressors=lz4")).contains("`zstd`, `snappy` and `zlib`"));
}

#[test]
fn what_would_relax_the_verification_of_the_server_is_never_taken_for_more() {
    for option in [
        "rejectUnauthorized=false",
        "tlsAllowInvalidHostnames=true",
        "sslValidate=false",
        "sslInvalidHostNameAllowed=1",
        "ssl_cert_reqs=CERT_NONE",
    ] {
        let given = parsed(&format!("mongodb://h/db?tls=true&{option}"));
        assert_eq!(given.driver(), "mongodb://h/db?tls=true");
        assert!(noted(&given).contains("are verified as if they were not set"), "{}", noted(&given));
    }
    for option in ["tlsAllowInvalidHostnames=false", "sslValidate=true", "ssl_cert_reqs=CERT_REQUIRED"] {
        assert!(parsed(&format!("mongodb://h/db?tls=true&{option}")).notes().is_empty(), "{option}");
    }
    for option in ["tlsInsecure", "tlsAllowInvalidCertificates"] {
        let given = parsed(&format!("mongodb://h/db?{option}=true"));
        assert_eq!(given.driver(), format!("mongodb://h/db?{option}=true"));
        assert!(noted(&given).contains("is not verified"), "{}", noted(&given));
    }
    for (option, wanted) in [
        ("tlsCRLFile=/crl.pem", "`tlsCRLFile`: the driver cannot check revocation lists"),
        ("tls=false&tlsInsecure=true", "`tls=false` contradicts `tlsInsecure`"),
        ("ssl=false&tls=true", "`ssl` and `tls` contradict each other"),
        ("tlsCAFile=/nowhere/ca.pem", "`tlsCAFile` is `/nowhere/ca.pem`, which cannot be read"),
        ("proxyHost=localhost", "SOCKS5"),
        ("tlsCertificateKeyFilePassword=s3cret", "openssl pkey"),
    ] {
        let error = error(&format!("mongodb://h/db?{option}"));
        assert!(error.contains(wanted) && !error.contains("s3cret"), "{option}: {error}");
    }
}

#[test]
fn what_is_wrong_is_named_whether_there_is_a_user_or_not() {
    for (rest, wanted) in [
        ("h/db?replicaset1=rs0", "`replicaset1` is no option of MongoDB's drivers: did you mean `replicaSet`?"),
        ("h/db?authSorce=admin", "did you mean `authSource`?"),
        ("h/db?retrywrite=true", "did you mean `retryWrites`?"),
        ("h/db?entirelyUnknown=1", "`entirelyUnknown` is no option of MongoDB's drivers: remove it"),
        ("h/db?tls=on", "`tls` is `on`: set it to true or false"),
        ("h/db?retryWrites=maybe", "`retryWrites` is `maybe`: set it to true or false"),
        ("h/db?maxPoolSize=many", "`maxPoolSize` is `many`: set it to a whole number from 0"),
        ("h/db?readPreference=secondry", "set it to one of `primary`"),
        ("h/db?authMechanism=GSSAPI", "set it to one of `SCRAM-SHA-256`"),
        ("h/db?replicaSet=a&replicaSet=b", "`replicaSet` is set twice, to different values"),
        ("h/db?replicaSet", "`replicaSet` has no value"),
        ("h/db?authSource=", "`authSource` has no value"),
        ("h/db?srvMaxHosts=2", "`srvMaxHosts` is only for mongodb+srv://"),
        ("h,i/db?directConnection=true", "`directConnection` needs a single host"),
        ("h,i/db?loadBalanced=true", "`loadBalanced` needs a single host"),
        ("h/db?loadBalanced=true&replicaSet=rs0", "`loadBalanced` and `replicaSet` exclude each other"),
        ("h/db?loadBalanced=true&directConnection=1", "`loadBalanced` and `directConnection` exclude each other"),
        ("h/db?maxConnecting=0", "`maxConnecting` is `0`: set it to a whole number from 1"),
        ("h/db?heartbeatFrequencyMS=100", "`heartbeatFrequencyMS` is `100`: set it to a whole number from 500"),
        ("h/db?authMechanismProperties=x", "`authMechanismProperties` has a property without a value"),
        (
            "h/db?authMechanismProperties=A:b,ALLOWED_HOSTS:h",
            "has ALLOWED_HOSTS, which a connection string cannot have",
        ),
        ("h/db?ssl_keyfile=k.pem", "name it by tlsCertificateKeyFile"),
        ("h/db?ssl_certfile=c.pem", "name it by tlsCertificateKeyFile"),
        ("h/db?maxConnecting=0&appName=@acct@", "`maxConnecting` is `0`"),
        ("h:10255/?ssl=true&retrywrite=false&appName=@acct@", "did you mean `retryWrites`?"),
        ("h:10255/?ssl=true&retrywrite=false&appName=@acct@&maxIdleTimeMS=1", "did you mean `retryWrites`?"),
        ("h:port/?appName=@acct@", "host 1 is not a host"),
        ("h:port/db", "host 1 is not a host"),
        ("h,:27017/db", "host 2 is not a host"),
        ("::1/db", "an IPv6 address is in brackets"),
        ("/tmp/mongodb-27017.sock/db", "it names no host"),
        ("h/a/b", "the name of the database"),
    ] {
        for user in ["", "u:s3cret@"] {
            let text = format!("mongodb://{user}{rest}");
            let error = error(&text);
            assert!(error.contains(wanted), "{text}: {error}");
            assert!(!error.contains("percent-encode what") && !error.contains("s3cret"), "{text}: {error}");
        }
    }
    let error_of_all = error("mongodb://h:x/a/b?tls=on&authSorce=admin");
    for wanted in ["`tls` is", "`authSorce` is no", "host 1", "the name of the database"] {
        assert!(error_of_all.contains(wanted), "{error_of_all}");
    }
    for (text, wanted) in [
        ("localhost:27017/db", "it does not begin with mongodb://"),
        ("postgres://h/db", "it begins with neither mongodb:// nor mongodb+srv://"),
        ("mongodb+srv://h:27017/db", "mongodb+srv:// has a port"),
        ("mongodb+srv://a.b.c,d.e.f/db", "mongodb+srv:// has several hosts"),
        ("mongodb+srv://a.b.c/db?directConnection=true", "`directConnection` excludes mongodb+srv://"),
        ("mongodb+srv://a.b.c/db?srvMaxHosts=1&replicaSet=rs0", "`srvMaxHosts` and `replicaSet` exclude each other"),
        (
            "mongodb+srv://a.b.c/db?srvMaxHosts=1&loadBalanced=true",
            "`srvMaxHosts` and `loadBalanced` exclude each other",
        ),
    ] {
        assert!(error(text).contains(wanted), "{text}: {}", error(text));
    }
}

#[test]
fn a_password_that_is_not_percent_encoded_is_the_reason_only_where_it_is_and_is_never_shown() {
    for (user, is_encoded) in [
        ("u:s3cret:x", false),
        ("u:s3cret/x", false),
        ("u:s3cret@x", false),
        ("u:s3cret?x", false),
        ("u:s3cret?tls=x&y", false),
        ("u:s3cret?appName=x", false),
        ("u:12?s3cret=x", false),
        ("u:12?tls=s3cret", false),
        ("u:12?timeoutMS=s3cret", false),
        ("u@x:12?s3=cret", false),
        ("u:12?appName=s3cret", false),
        ("u:12?w=s3cret", false),
        ("u:s3cret#x", false),
        ("u:s3cret%x", false),
        ("u:s3cret%€", false),
        ("u:s3cret%4", false),
        ("u/x:s3cret", false),
        ("u:s3cret%40x", true),
        ("u:s3cret!*()x", true),
        ("u%40example.com:s3cret", true),
    ] {
        match ConnectionString::parse(&format!("mongodb://{user}@h:27017/db?replicaSet=rs0")) {
            Ok(given) => {
                assert!(is_encoded, "{user}");
                assert!(given.driver().contains(user), "{user}");
                assert!(!format!("{given:?}").contains("s3cret"), "{given:?}");
            }
            Err(errors) => {
                let shown = errors.to_string();
                assert!(!is_encoded && shown.contains("percent-encode what"), "{user}: {shown}");
                assert!(!shown.contains("s3cret") && !shown.contains("12"), "{user}: {shown}");
            }
        }
    }
    for (user, wanted) in [
        ("u", "a user's name and no password"),
        ("u:", "a user's name and no password"),
        (":s3cret", "no user's name"),
        ("u:<db_password>", "placeholder"),
        ("u:s3cret%E9", "another encoding than UTF-8"),
        ("u%FF:s3cret", "another encoding than UTF-8"),
    ] {
        let error = error(&format!("mongodb://{user}@h/db"));
        assert!(error.contains(wanted) && !error.contains("percent-encode what"), "{user}: {error}");
    }
    assert_eq!(
        driver("mongodb://CN=u@h/db?authMechanism=MONGODB-X509"),
        "mongodb://CN=u@h/db?authMechanism=MONGODB-X509"
    );
}

#[test]
fn what_a_mechanism_requires_is_named() {
    for (text, wanted) in [
        ("mongodb://u:s3cret@h/?authMechanism=MONGODB-X509", "excludes a password"),
        ("mongodb://u:@h/?authMechanism=MONGODB-X509", "excludes a password"),
        ("mongodb://u:s3cret@h/?authMechanism=MONGODB-OIDC", "excludes a password"),
        ("mongodb://u@h/?authMechanism=MONGODB-X509&authSource=admin", "looks users up in $external only"),
        ("mongodb://h/?authMechanism=MONGODB-OIDC&authSource=shop", "looks users up in $external only"),
        ("mongodb://h/?authMechanism=SCRAM-SHA-256", "`authMechanism=SCRAM-SHA-256` needs a user"),
        ("mongodb://h/?authMechanism=plain", "`authMechanism=PLAIN` needs a user"),
        ("mongodb://u@h/?authMechanism=SCRAM-SHA-1", "a user's name and no password"),
        // The driver's own reasons: the names of the options are shown, and no value.
        (
            "mongodb://h/?authMechanism=MONGODB-OIDC&authMechanismProperties=ENVIRONMENT:s3cret",
            "the driver does not accept these options, or not together: `authMechanism` and `authMechanismProperties`",
        ),
    ] {
        let error = error(text);
        assert!(error.contains(wanted) && !error.contains("s3cret"), "{text}: {error}");
    }
}

/// The source that a login has is the driver's choice, so the driver's options decide.
#[tokio::test]
async fn the_database_of_the_login_is_assumed_only_if_the_driver_takes_it_from_the_connection_string() {
    for (text, assumed) in [
        ("mongodb://u:p@h/shop", Some(("shop", "admin"))),
        ("mongodb://u:p@h/shop?authMechanism=SCRAM-SHA-256", Some(("shop", "admin"))),
        ("mongodb://u:p@h/shop?authMechanism=PLAIN", Some(("shop", "$external"))),
        ("mongodb://u:p@h/admin?authMechanism=PLAIN", Some(("admin", "$external"))),
        ("mongodb://u:p@h/shop?authSource=admin", None),
        ("mongodb://u:p@h/shop?authSource=shop", None),
        ("mongodb://u:p@h/admin", None),
        ("mongodb://CN=u@h/shop?authMechanism=MONGODB-X509", None),
        ("mongodb://u:p@h/", None),
        ("mongodb://h/shop", None),
    ] {
        let given = parsed(text);
        let options = ClientOptions::parse(given.driver()).await.expect(text);
        let assumed = assumed.map(|(source, usual)| AssumedSource { source: source.to_owned(), usual });
        assert_eq!(given.assumed_source(&options), assumed, "{text}");
    }
    // The DNS record of Atlas names `admin`, which the driver prefers to the database.
    let given = parsed("mongodb+srv://u:p@cluster.example.net/shop?w=majority");
    let mut options = ClientOptions::parse("mongodb://u:p@h/shop").await.expect("it is valid");
    assert!(given.assumed_source(&options).is_some());
    options.credential.as_mut().expect("there is a user").source = Some("admin".to_owned());
    assert_eq!(given.assumed_source(&options), None);
}

#[test]
fn an_option_that_names_the_database_is_refused_and_not_ignored() {
    for option in ["dbName=shop", "dbname=shop", "dbName="] {
        let error = error(&format!("mongodb://h/other?{option}&retryWrites=true"));
        assert!(error.starts_with("`dbName`: name the database after the host"), "{error}");
    }
}

#[test]
fn a_connection_string_escaped_for_html_has_an_error_of_its_own() {
    let error = error("mongodb://h/db?retryWrites=true&amp;w=majority&amp;maxPoolSize=5");
    assert!(error.starts_with("it has `&amp;`, which is an `&` escaped for HTML: write `&`"), "{error}");
}
