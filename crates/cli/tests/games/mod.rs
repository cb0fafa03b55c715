//! What the tests share that build games: whether that can be done here, and where to.
#![allow(dead_code)] // Each test file takes what it needs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cabinet_conformance::toolchain::{DEFAULT_TARGET, Toolchain};

#[path = "../../../durability/tests/common/skip.rs"]
mod skip;

/// Whether games can be built here. If not, says why.
pub fn can_build() -> bool {
    let why = match Toolchain::find(DEFAULT_TARGET) {
        Ok(toolchain) => toolchain.too_old_for(env!("CARGO_PKG_RUST_VERSION")),
        Err(missing) => Some(missing.to_string()),
    };
    if let Some(why) = &why {
        skip::skipped("games", why);
    }
    why.is_none()
}

/// One target directory for all games: where the standard library is built with them, that is
/// once and a minute, not once a game.
pub fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("games")
}

/// The program, in a directory, with that target directory and a cache of the tests' own.
pub fn cabinet(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cabinet"));
    command
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", target())
        .env(
            "XDG_CACHE_HOME",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"),
        );
    command
}

/// What it said, once it ended well.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = said(&output);
    assert!(output.status.success(), "{command:?} failed:\n{said}");
    said
}

/// Both streams of a command.
pub fn said(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}
