//! `permcached health`: asks a server over the standard gRPC health protocol.

use std::time::Duration;

use clap::Args;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{Ended, Outcome, remote::Server};

const TIME_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Health {
    /// The server [default: this machine, at `PROBE_PORT`, `PORT` or 50051]
    #[arg(long, value_name = "URL")]
    server: Option<String>,
}

impl Health {
    pub(super) async fn run(self) -> Ended {
        let server = Server::probed(self.server.as_deref(), TIME_MAX)?;
        let mut client = HealthClient::new(server.endpoint.clone().timeout(TIME_MAX).connect_lazy());
        match client.check(HealthCheckRequest::default()).await {
            Ok(response) if response.get_ref().status() == ServingStatus::Serving => {
                say!("serving");
                Ok(Outcome::Yes)
            }
            Ok(_) => {
                say!("not serving");
                Ok(Outcome::No)
            }
            Err(status) => {
                say!("{}", server.complaint(&status));
                Ok(Outcome::No)
            }
        }
    }
}
