//! `permcached config`: the values and their origins, without secrets, and the page of the manual.

use std::fs;

use crate::support::{
    command::{run, run_with},
    service::{DOCUMENTS, SCHEMA},
};

#[test]
fn docs_configuration_md_is_what_config_manual_prints() {
    let ended = run(&["config", "--manual"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let page = fs::read_to_string("docs/configuration.md").unwrap();
    assert!(page == ended.stdout, "run `permcached config --manual > docs/configuration.md`");
}

#[test]
fn values_and_all_errors_are_shown_without_secrets() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("permcached.toml");
    fs::write(&file, "max_staleness = '3s'\nredis_password = 's3cret'\nport = 1\nredis_host = 'cache'").unwrap();
    let file = file.to_str().unwrap();
    let variables = [("PORT", "4242"), ("AUTH_TOKENS", "backend:s3cret-0123456789"), ("DOCUMENTS_DIR", DOCUMENTS)];
    let ended = run_with(&["config", "--schema", SCHEMA, "--config", file], &variables);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    for (name, rest) in [
        ("SCHEMA_FILE", format!("{SCHEMA}  (option)")),
        ("PORT", "4242  (environment)".to_owned()),
        ("MAX_STALENESS", "3s  (file)".to_owned()),
        ("REDIS_PASSWORD", "(hidden)  (file)".to_owned()),
        ("REDIS_SECRET", "not set, so Redis is not used  (default)".to_owned()),
        ("AUTH_TOKENS", "(hidden)  (environment)".to_owned()),
        ("MAX_REQUESTS", "1024  (default)".to_owned()),
        ("MAX_CALLER_REQUESTS", "768  (default)".to_owned()),
        ("BIND_ADDRESS", "0.0.0.0  (default)".to_owned()),
    ] {
        let line = ended.stdout.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default();
        assert!(line.ends_with(&format!("  {rest}")), "{name}: {ended:?}");
    }
    assert!(!ended.output().contains("s3cret"), "{ended:?}");

    let ended = run_with(&["config", "--config", file], &[("PORT", "many"), ("MONGODB_URI", "mongodb://u:s3cret@h")]);
    assert_eq!(ended.code, 2, "{ended:?}");
    for words in ["no schema is named", "PORT is `many`"] {
        assert!(ended.stderr.contains(words), "{words}: {ended:?}");
    }
    assert!(ended.stdout.contains("many  (environment)") && !ended.output().contains("s3cret"), "{ended:?}");
}
