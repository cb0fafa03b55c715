//! The guide for authors, run as it is written.

use std::path::{Path, PathBuf};
use std::process::Command;

use cabinet_conformance::toolchain::{DEFAULT_TARGET, Toolchain};

const GUIDE: &str = include_str!("../../../docs/guide-authors.md");

/// The lines of the guide's `sh` blocks.
fn commands() -> Vec<&'static str> {
    let mut inside = false;
    let mut commands = Vec::new();
    for line in GUIDE.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            command if inside => commands.push(command),
            _ => {}
        }
    }
    commands
}

/// Why games cannot be built here, if they cannot.
fn missing() -> Option<String> {
    let toolchain = match Toolchain::find(DEFAULT_TARGET) {
        Ok(toolchain) => toolchain,
        Err(missing) => return Some(missing.to_string()),
    };
    let mut needed = env!("CARGO_PKG_RUST_VERSION").split('.');
    let mut number = || needed.next().and_then(|text| text.parse().ok());
    let needed: (u32, u32) = (number().unwrap(), number().unwrap());
    (toolchain.version() < Some(needed)).then(|| format!("{toolchain} is older than {needed:?}"))
}

fn run(dir: &Path, command: &str) -> String {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_cabinet"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = program.parent().unwrap().to_path_buf();
    let path = std::env::join_paths(std::iter::once(here).chain(std::env::split_paths(&path)));
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(dir)
        .env("PATH", path.unwrap())
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "`{command}` failed:\n{said}");
    said
}

#[test]
fn every_command_of_the_guide_does_what_it_says() {
    let commands = commands();
    for verb in ["new", "check", "smoke", "trace", "diff"] {
        let begins = format!("cabinet {verb} ");
        assert!(
            commands.iter().any(|line| line.starts_with(&begins)),
            "{verb}"
        );
    }
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), commands[0]);
    assert!(dir.path().join("maze/src/lib.rs").is_file());
    if let Some(missing) = missing() {
        println!("NOT RUN past `{}`: {missing}", commands[0]);
        return;
    }
    let known = run(dir.path(), "cabinet help");
    for command in &commands[1..] {
        let verb = command.split(' ').nth(1).unwrap_or_default();
        if command.starts_with("cabinet ") && !known.contains(&format!("\n  {verb} ")) {
            println!("NOT RUN: `{command}`, which this build does not have");
            continue;
        }
        run(dir.path(), command);
    }
}
