//! What the test files share: the program, run, the games of `fixtures`, and a room's state.
#![allow(dead_code)] // Each test file takes what it needs.

pub mod bucket;
pub mod place;
pub mod reference;
#[path = "../../../durability/tests/common/skip.rs"]
pub mod skip;
#[cfg(unix)]
pub mod terminal;

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a run of the program came to.
#[derive(Debug)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs the program in a folder.
pub fn cabinet(folder: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cabinet"));
    command
        .current_dir(folder)
        .args(args)
        .env(
            "XDG_CACHE_HOME",
            concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"),
        )
        .env_remove("CABINET_KEY_FILE");
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A game of `fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(name)
}

/// What a keeper writes of a room, whose members are all who were ever in it.
pub fn state_of(room: &mut cabinet_host::Room) -> Vec<u8> {
    let mut bytes = b"CABT".to_vec();
    bytes.extend(1_u32.to_le_bytes());
    bytes.push(0);
    text(&mut bytes, "tour");
    bytes.extend(5_i64.to_le_bytes());
    for _ in ["joined", "roster"] {
        bytes.extend((room.members().len() as u32).to_le_bytes());
        for member in room.members() {
            text(&mut bytes, &member.account);
            text(&mut bytes, &member.handle);
            text(&mut bytes, &member.conn);
            bytes.push(member.kind as u8);
            text(&mut bytes, &member.character.glyph);
            bytes.extend(member.character.ink);
            bytes.extend(member.character.bg);
            bytes.push(member.character.ascii_fallback);
        }
    }
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(room.snapshot().unwrap().payload().unwrap());
    bytes
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
}
