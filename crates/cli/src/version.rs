//! `cabinet version`: three lines, or JSON.

use serde_json::json;

use crate::outcome::{Outcome, Problem, say};

/// Arguments of `cabinet version`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// A [`Problem`] when stdout cannot be written.
pub fn run(args: &Args) -> Result<Outcome, Problem> {
    // The crates of one version are released together.
    let version = env!("CARGO_PKG_VERSION");
    let (abi, revision) = (cabinet_wire::ABI_MAJOR, cabinet_wire::WIRE_REVISION);
    if args.json {
        let object = json!({
            "cabinet": version, "kit": version, "abi": abi, "wireRevision": revision,
        });
        say(format_args!("{object}\n"))?;
    } else {
        say(format_args!(
            "cabinet {version}\nkit     {version} (cabinet-guest)\nabi     v{abi}, revision {revision}\n"
        ))?;
    }
    Ok(Outcome::Good)
}
