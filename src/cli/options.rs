//! The options of the commands that read the whole configuration. Values are validated in `config`.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;

use crate::config::{
    Overrides,
    variable::{BIND_ADDRESS, CONFIG_FILE, DOCUMENTS_DIR, PORT, SCHEMA_FILE},
};

/// Each option takes precedence over the environment variable in its help.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The schema [`SCHEMA_FILE`]
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Read documents from a directory of <collection>.jsonl files instead of a database [`DOCUMENTS_DIR`]
    #[arg(long, value_name = "DIR")]
    documents: Option<PathBuf>,
    /// A TOML file of variables [`CONFIG_FILE`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The port, 0 for a free one [`PORT`, else 50051]
    #[arg(long)]
    port: Option<u16>,
    /// The address to listen on [`BIND_ADDRESS`, else 0.0.0.0 with tokens and 127.0.0.1 without]
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<IpAddr>,
}

impl Options {
    pub(super) fn overrides(&self) -> Overrides {
        Overrides::default()
            .with(&SCHEMA_FILE, self.schema.as_ref())
            .with(&DOCUMENTS_DIR, self.documents.as_ref())
            .with(&CONFIG_FILE, self.config.as_ref())
            .with(&PORT, self.port.map(|port| port.to_string()))
            .with(&BIND_ADDRESS, self.bind.map(|address| address.to_string()))
    }
}
