//! `permcached serve`: reads the configuration, starts the log, and runs the service until SIGTERM or SIGINT. The service
//! itself is `app::run`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    Ended, Failure, Outcome,
    options::Options,
    text::{print_error_line, print_in_time, warn},
};
use crate::{
    app,
    config::{Config, ProcessEnvironment},
    telemetry::start_recording,
};

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    options: Options,
    /// When ready, print this file, with the server's address for {address}
    #[arg(long, value_name = "FILE")]
    hints: Option<PathBuf>,
}

impl Serve {
    pub(super) async fn run(self) -> Ended {
        let config = Config::read(&self.options.overrides(), &ProcessEnvironment);
        let config = config.map_err(Failure::usage_because)?;
        let recording = start_recording(&config.log_filter, config.traces.as_deref()).map_err(Failure::no_answer)?;
        let hints = self.hints;
        let ready = |address: SocketAddr| match hints.map(std::fs::read_to_string) {
            Some(Ok(text)) => {
                print_in_time(move || print_line!("{}", text.replace("{address}", &address.to_string())));
            }
            Some(Err(error)) => print_in_time(move || warn(&format!("cannot read the file of --hints: {error}"))),
            None => {}
        };
        let stop = stop_signal().map_err(Failure::no_answer_because)?;
        let served = app::run(&config, ready, stop).await;
        recording.end().await;
        match served {
            Ok(()) => Ok(Outcome::Yes),
            Err(error) => {
                let Failure { outcome, message } = error.into();
                print_in_time(move || print_error_line(&message));
                Ok(outcome)
            }
        }
    }
}

/// Completes at SIGTERM or SIGINT.
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
