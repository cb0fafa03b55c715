//! `cargo xtask stores`: the store suite, on every store there is here.
//!
//! Memory, a directory and an S3 server in the process always; moto and garage where they are
//! installed. Exit code 0: all that ran keep their promises; 1: one does not; 2: something could not
//! be run, or one that was asked for by name is not here.

use std::process::ExitCode;

use crate::run::{self, Ran};

/// Arguments of `cargo xtask stores`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only moto, and whatever else is named.
    #[arg(long)]
    moto: bool,
    /// Only garage, and whatever else is named.
    #[arg(long)]
    garage: bool,
}

/// What came of one store.
enum Came {
    Ran(Ran),
    /// It is not installed.
    Skipped,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let named = args.moto || args.garage;
    let mut rows = Vec::new();
    if !named {
        rows.push(("memory, directory", Came::Ran(suite(&[], "stores", &[]))));
        let in_process = suite(&["--features", "s3"], "s3_in_process", &[]);
        rows.push(("s3s-fs in process", Came::Ran(in_process)));
    }
    if args.moto || !named {
        let came = match run::find_moto() {
            true => Came::Ran(suite(&["--features", "s3"], "s3_moto", &[])),
            false => Came::Skipped,
        };
        rows.push(("moto", came));
    }
    if args.garage || !named {
        let came = match run::find_garage().as_deref().map(|path| path.to_str()) {
            Some(Some(path)) => {
                let garage = [("CABINET_GARAGE", path)];
                Came::Ran(suite(&["--features", "s3"], "s3_garage", &garage))
            }
            _ => Came::Skipped,
        };
        rows.push(("garage", came));
    }
    println!();
    for (store, came) in &rows {
        println!("{store:<20} {}", came.word());
    }
    judge(&rows, named).exit_code()
}

fn suite(features: &[&str], test: &str, variables: &[(&str, &str)]) -> Ran {
    let mut args = vec!["test", "--package", "cabinet-durability"];
    args.extend(features);
    args.extend(["--test", test, "--", "--nocapture"]);
    run::cargo(variables, &args)
}

/// The worst of all; what was asked for by name must be there.
fn judge(rows: &[(&str, Came)], named: bool) -> Ran {
    let came = rows.iter().map(|(_, came)| match came {
        Came::Ran(ran) => *ran,
        Came::Skipped if named => Ran::NotAtAll,
        Came::Skipped => Ran::Well,
    });
    came.max().unwrap_or(Ran::Well)
}

impl Came {
    fn word(&self) -> &'static str {
        match self {
            Self::Ran(Ran::Well) => "keeps the promises",
            Self::Ran(Ran::Broken) => "FAILED",
            Self::Ran(Ran::NotAtAll) => "COULD NOT BE RUN",
            Self::Skipped => "SKIPPED: it is not installed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_by_name_must_be_there() {
        let rows = || [("moto", Came::Ran(Ran::Well)), ("garage", Came::Skipped)];
        assert_eq!(judge(&rows(), false), Ran::Well);
        assert_eq!(judge(&rows(), true), Ran::NotAtAll);
    }

    #[test]
    fn one_store_that_fails_fails_all() {
        let rows = [
            ("moto", Came::Ran(Ran::Broken)),
            ("directory", Came::Ran(Ran::Well)),
        ];
        assert_eq!(judge(&rows, false), Ran::Broken);
    }
}
