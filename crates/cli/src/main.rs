//! The program `cabinet`. Everything it does is in the library beside it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    cabinet_cli::run(std::env::args_os())
}
