//! `permcached health`: asks a server for its state over the standard gRPC health protocol. Checks no permission.

use std::time::Duration;

use clap::Args;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{Ended, Outcome, remote::Server};

/// The time to connect, and the deadline of the request.
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
                print_line!("serving");
                Ok(Outcome::Yes)
            }
            Ok(_) => {
                print_line!("not serving");
                Ok(Outcome::No)
            }
            Err(status) => {
                print_line!("{}", server.describe(&status));
                Ok(Outcome::No)
            }
        }
    }
}
