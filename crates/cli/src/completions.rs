//! `cabinet completions SHELL`.

use clap_complete::Shell;

use crate::outcome::{Outcome, Problem, say};

/// Arguments of `cabinet completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  cabinet completions bash > ~/.local/share/bash-completion/completions/cabinet")]
pub struct Args {
    /// The shell.
    shell: Shell,
}

/// Prints the completions of `program`.
///
/// # Errors
/// A [`Problem`] when stdout cannot be written.
pub fn run(args: &Args, program: &mut clap::Command) -> Result<Outcome, Problem> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, program, "cabinet", &mut script);
    say(String::from_utf8_lossy(&script))?;
    Ok(Outcome::Good)
}
