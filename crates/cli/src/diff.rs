//! `cabinet diff A B`: where two traces part.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use cabinet_conformance::diff::{Side, diff};
use cabinet_conformance::{error_line, files};

use crate::outcome::{self, Outcome, Problem, say};

/// Arguments of `cabinet diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  cabinet trace old.wasm --grids -o a.jsonl; cabinet trace new.wasm --grids -o b.jsonl
  cabinet diff a.jsonl b.jsonl

Exit codes: 0 the same, 1 they differ, 2 one of them is no trace.")]
pub struct Args {
    /// A trace, as `cabinet trace` writes it.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// Another.
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Print a JSON object, or `null` when they are the same.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// A [`Problem`] when one of the two is not a trace.
pub fn run(args: &Args) -> Result<Outcome, Problem> {
    let (mut a, mut b) = (open(&args.a)?, open(&args.b)?);
    let found = diff(&mut a, &mut b).map_err(|error| {
        let path = match error.side() {
            Side::A => &args.a,
            Side::B => &args.b,
        };
        Problem::about(path.display(), &error)
    })?;
    if args.json {
        say(format_args!(
            "{}\n",
            outcome::json(&serde_json::json!(found))
        ))?;
    } else {
        match &found {
            Some(found) => say(found)?,
            None => say("the traces are the same\n")?,
        }
    }
    Ok(match found {
        None => Outcome::Good,
        Some(_) => Outcome::Bad,
    })
}

fn open(path: &Path) -> Result<BufReader<File>, Problem> {
    let file = files::open(path).map_err(|error| Problem::new(error_line(&error)))?;
    Ok(BufReader::new(file))
}
