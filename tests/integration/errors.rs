//! Errors of the crate: what `Display` shows and what `source()` returns are shown together by `error_chain`, so that
//! `Display` must not repeat the source.
//!
//! Which error arises when is tested elsewhere.

use std::{error::Error, fs, io, path::Path, sync::Arc};

use permcached::{
    app::AppError,
    check::CheckError,
    diagnosis::error_chain,
    link::{ClientError, LinkError},
    source::{
        SourceError,
        documents::DocumentsError,
        mongodb::{ConnectError, DriverError},
    },
    transport::ServeError,
};

const CAUSE: &str = "the cause of all this";

fn cause() -> io::Error {
    io::Error::other(CAUSE)
}

fn find() -> SourceError {
    SourceError::Find { collection: "files".to_owned(), source: Arc::new(cause()) }
}

#[test]
fn no_error_repeats_its_source_and_the_chain_shows_it_once() {
    let address = "127.0.0.1:1".parse().unwrap();
    let path = || Path::new("somewhere").to_owned();
    let reflection = tonic_reflection::server::Error::InvalidFileDescriptorSet(CAUSE.to_owned());
    let errors: Vec<Box<dyn Error>> = vec![
        Box::new(SourceError::Probe(Arc::new(cause()))),
        Box::new(find()),
        Box::new(CheckError::Unavailable(find())),
        Box::new(DocumentsError::Read { path: path(), source: cause() }),
        Box::new(AppError::ReadSchema { path: path(), source: cause() }),
        Box::new(AppError::Bind { address, source: cause() }),
        Box::new(AppError::Source(find())),
        Box::new(ServeError::Reflection(reflection)),
    ];
    for error in errors {
        let source = error.source().map(ToString::to_string);
        assert!(source.is_some_and(|source| !error.to_string().contains(&source)), "{error:?}");
        let chain = error_chain(&*error).to_string();
        assert!(!error.to_string().contains(CAUSE) && chain.matches(CAUSE).count() == 1, "{chain}");
    }
    // What the drivers say is never a source: only its kind is.
    let driver = DriverError::from(mongodb::error::Error::from(cause()));
    let error = ConnectError::Unreachable(driver.clone());
    assert_eq!(error_chain(&error).to_string(), format!("{error}: {driver}"));
    assert!(!driver.to_string().contains(CAUSE), "{driver}");
    let client = ClientError::from(redis::RedisError::from(cause()));
    for error in [LinkError::Refused(client.clone()), LinkError::Failed(client.clone())] {
        assert_eq!(error_chain(&error).to_string(), format!("{error}: {client}"));
        assert!(!format!("{error:?}{client}").contains(CAUSE), "{error:?}");
    }
}

/// For errors that a test cannot make.
#[test]
fn no_error_attribute_names_its_source() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![root];
    let mut attributes = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for declaration in text.split("#[error(").skip(1) {
                attributes += 1;
                let (message, rest) = declaration.split_once(")]").unwrap();
                let variant = rest.split_once("#[error(").map_or(rest, |(variant, _)| variant);
                let variant: String = variant.lines().skip(1).take(1).collect();
                let has_source = variant.contains("#[source]") || variant.contains("#[from]");
                let repeats = message.contains("{source}") || has_source && message.contains("{0}");
                assert!(!repeats, "{}: {message}", path.display());
            }
        }
    }
    assert!(attributes > 20, "{attributes}");
}
