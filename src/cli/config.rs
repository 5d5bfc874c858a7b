//! `permcached config`: what counts, and where it comes from.

use clap::Args;

use super::{Ended, Failure, Outcome, options::Options, text};
use crate::config::{Config, ProcessEnvironment, effective, manual};

#[derive(Debug, Args)]
pub(super) struct ShowConfig {
    #[command(flatten)]
    options: Options,
    /// Print the manual's page about all variables instead, as Markdown
    #[arg(long)]
    manual: bool,
}

impl ShowConfig {
    pub(super) fn run(self) -> Ended {
        if self.manual {
            text::all(&manual());
            return Ok(Outcome::Yes);
        }
        let overrides = self.options.overrides();
        text::all(&effective(&overrides, &ProcessEnvironment));
        Config::read(&overrides, &ProcessEnvironment).map_err(Failure::usage_because)?;
        Ok(Outcome::Yes)
    }
}
