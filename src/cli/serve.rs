//! `permcached serve`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{Ended, Failure, Outcome, text::warn};
use crate::{
    app,
    config::{Config, Overrides, ProcessEnvironment, log_filter},
    telemetry::start_logs,
};

/// Options of `serve`. Each goes before the environment variable that it names.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// The schema [`SCHEMA_FILE`]
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Take documents from this directory of <collection>.jsonl instead of a database [`DOCUMENTS_DIR`]
    #[arg(long, value_name = "DIR")]
    documents: Option<PathBuf>,
    /// The port, 0 for a free one [`PORT`, else 50051]
    #[arg(long)]
    port: Option<u16>,
    /// The address to listen on [`BIND_ADDRESS`, else 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<IpAddr>,
    /// When ready, print the commands of this file, with the server's address in place of {address}
    #[arg(long, value_name = "FILE")]
    hints: Option<PathBuf>,
}

impl Serve {
    pub(super) async fn run(self) -> Ended {
        let Self { schema, documents, port, bind, hints } = self;
        let overrides = Overrides { schema, documents, port, bind };
        let config = Config::read(&overrides, &ProcessEnvironment);
        let config = match start_logs(&log_filter(&ProcessEnvironment)) {
            Ok(()) => config,
            Err(error) => Err(config.err().unwrap_or_default().and(format!("RUST_LOG: {error}"))),
        };
        let config = config.map_err(Failure::usage)?;
        let listening = |address: SocketAddr| match hints.map(std::fs::read_to_string) {
            Some(Ok(text)) => say!("{}", text.replace("{address}", &address.to_string())),
            Some(Err(error)) => warn(&format!("the hints cannot be read: {error}")),
            None => {}
        };
        let stop = stop_signal().map_err(Failure::no_answer)?;
        app::run(&config, listening, stop).await?;
        Ok(Outcome::Yes)
    }
}

/// Done when the process is told to end.
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
