//! Starts the runtime and runs the command line. Everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use permcached::cli::{Cli, run};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(run(cli));
            // Remaining tasks end with the process. If the runtime were dropped, MongoDB's driver could panic in its own tasks.
            std::mem::forget(runtime);
            code
        }
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "without a runtime, only standard error is left")]
            {
                eprintln!("error: the runtime cannot start: {error}");
            }
            ExitCode::from(3)
        }
    }
}
