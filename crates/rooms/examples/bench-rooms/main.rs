//! `cargo xtask bench rooms | crowd | neighbours`: what many rooms cost on this machine.
//!
//! Each prints a table with its targets and exits 1 when one is missed. See
//! `docs/ARCHITECTURE.md`, Measuring.

use std::process::ExitCode;

mod crowd;
mod gauge;
mod neighbours;
mod rooms;

/// Why nothing could be measured.
type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let number = args.next().and_then(|text| text.parse().ok());
    let ran = match what.as_str() {
        "rooms" => rooms::run(number.unwrap_or(2_000)),
        "crowd" => crowd::run(),
        "neighbours" => neighbours::run(),
        _ => Err("want rooms [COUNT], crowd or neighbours".into()),
    };
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench {what}: {error}");
            ExitCode::from(2)
        }
    }
}
