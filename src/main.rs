//! The `tandem` program: reads the command line and hands over.

use std::process::ExitCode;

fn main() -> ExitCode {
    tandem::cli::run(std::env::args_os(), tandem::app::run)
}
