//! `permcached man`: the manual pages, made of the same texts as `--help`. They hold nothing that `--help` does not.

use std::{fs, path::PathBuf};

use clap::Args;

use super::{Ended, Failure, Outcome, text};

#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write the pages of all commands into this directory, made if missing
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(self, command: clap::Command) -> Ended {
        match self.out {
            Some(directory) => {
                let written =
                    fs::create_dir_all(&directory).and_then(|()| clap_mangen::generate_to(command, &directory));
                written
                    .map_err(|error| Failure::usage(format!("cannot write to `{}`: {error}", directory.display())))?;
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page).map_err(Failure::no_answer_because)?;
                text::print(&String::from_utf8_lossy(&page));
            }
        }
        Ok(Outcome::Yes)
    }
}
