//! The guide for authors, run as it is written.

use std::path::{Path, PathBuf};
use std::process::Command;

mod games;

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

fn run(dir: &Path, command: &str) {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_cabinet"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = program.parent().unwrap().to_path_buf();
    let path = std::env::join_paths(std::iter::once(here).chain(std::env::split_paths(&path)));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", command])
        .current_dir(dir)
        .env("PATH", path.unwrap())
        .env("CARGO_TARGET_DIR", games::target());
    games::succeed(&mut shell);
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
    if !games::can_build() {
        return;
    }
    for command in &commands[1..] {
        run(dir.path(), command);
    }
}
