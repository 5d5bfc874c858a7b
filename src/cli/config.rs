//! `permcached config`: shows the value of each variable and where it comes from, then every error. Shows no secret, and
//! tries nothing: `permcached doctor` does.

use clap::Args;

use super::{Ended, Failure, Outcome, options::Options, text};
use crate::config::{Config, ProcessEnvironment, effective, manual};

#[derive(Debug, Args)]
pub(super) struct ShowConfig {
    #[command(flatten)]
    options: Options,
    /// Print the documentation of all variables instead, as Markdown
    #[arg(long)]
    manual: bool,
}

impl ShowConfig {
    pub(super) fn run(self) -> Ended {
        if self.manual {
            text::print(&manual());
            return Ok(Outcome::Yes);
        }
        let overrides = self.options.overrides();
        text::print(&effective(&overrides, &ProcessEnvironment));
        let config = Config::read(&overrides, &ProcessEnvironment).map_err(Failure::usage_because)?;
        config.notes.iter().for_each(text::note);
        Ok(Outcome::Yes)
    }
}
