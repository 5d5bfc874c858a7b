//! The command line. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use permcached::cli::{Cli, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(run(cli));
            // What is still under way ends with the process: ended one by one, MongoDB's driver may panic over its own parts.
            std::mem::forget(runtime);
            code
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "there is nothing else to say it with")]
            {
                eprintln!("error: no runtime: {error}");
            }
            ExitCode::from(3)
        }
    }
}
