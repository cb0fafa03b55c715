//! Cargo, run so that its output reads as if typed by hand, for commands that only call tests; and
//! the servers that such tests look for.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// How a command went; the worst of several counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ran {
    /// As it should.
    Well,
    /// Something broke.
    Broken,
    /// It could not be run.
    NotAtAll,
}

impl Ran {
    /// 0, 1 or 2.
    pub fn exit_code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Well => 0,
            Self::Broken => 1,
            Self::NotAtAll => 2,
        })
    }
}

/// Says what is run, and runs it.
pub fn cargo(variables: &[(&str, &str)], args: &[&str]) -> Ran {
    println!("$ {}", typed(variables, args));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let ran = Command::new(cargo)
        .current_dir(root())
        .envs(variables.iter().copied())
        .args(args)
        .status();
    match ran {
        Ok(status) if status.success() => Ran::Well,
        Ok(_) => Ran::Broken,
        Err(error) => {
            eprintln!("cannot run cargo: {error}");
            Ran::NotAtAll
        }
    }
}

fn typed(variables: &[(&str, &str)], args: &[&str]) -> String {
    let mut line = String::new();
    for (name, value) in variables {
        line += &format!("{name}={value} ");
    }
    line + "cargo " + &args.join(" ")
}

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    // xtask sits directly under the root, so the fallback is never taken.
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Whether the tests will find moto; says where, or how to get it.
pub fn find_moto() -> bool {
    let python = std::env::var_os("CABINET_MOTO").unwrap_or_else(|| "python3".into());
    // As the tests look for it.
    let found = answers(&python, &["-c", "import moto.server, flask"]);
    if found {
        println!("moto: {}", python.display());
    } else {
        println!(
            "moto: not in {}, its tests will say SKIPPED. To have it:\n  \
             python3 -m venv target/moto-venv && target/moto-venv/bin/pip install 'moto[s3,server]'\n  \
             export CABINET_MOTO=\"$PWD/target/moto-venv/bin/python\"",
            python.display()
        );
    }
    found
}

/// The garage to test; says how to get one when there is none.
pub fn find_garage() -> Option<OsString> {
    let garage = std::env::var_os("CABINET_GARAGE").unwrap_or_else(|| "garage".into());
    if answers(&garage, &["--version"]) {
        println!("garage: {}", garage.display());
        return Some(garage);
    }
    println!(
        "garage: no {}. To have it: cargo install garage --locked, or CABINET_GARAGE=<its binary>",
        garage.display()
    );
    None
}

fn answers(program: &OsString, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_with_its_variables() {
        assert_eq!(
            typed(&[("A", "1")], &["test", "--lib"]),
            "A=1 cargo test --lib"
        );
        assert_eq!(typed(&[], &["test"]), "cargo test");
    }

    #[test]
    fn what_could_not_be_run_is_worse_than_what_broke() {
        assert!(Ran::NotAtAll > Ran::Broken && Ran::Broken > Ran::Well);
    }

    #[test]
    fn a_program_that_is_not_there_does_not_answer() {
        assert!(!answers(&"/nowhere/garage".into(), &["--version"]));
    }
}
