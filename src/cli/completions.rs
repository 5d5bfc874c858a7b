//! `permcached completions`: prints a shell's completion script for this command line. The shell or its package installs it.

use clap::Args;
use clap_complete::{Shell, generate};

use super::{Outcome, text};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, mut command: clap::Command) -> Outcome {
        let mut script = Vec::new();
        generate(self.shell, &mut command, "permcached", &mut script);
        text::print(&String::from_utf8_lossy(&script));
        Outcome::Yes
    }
}
