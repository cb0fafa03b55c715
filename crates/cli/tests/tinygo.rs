//! A game's directory with a `go.mod` is built with TinyGo. A stand-in on the path says what it was
//! asked for, and hands out a game of `fixtures`.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory of an odd name with a Go game, and one with a `tinygo` that runs this.
fn setting(tinygo: Option<&str>) -> (tempfile::TempDir, PathBuf) {
    let base = tempfile::tempdir().unwrap();
    let game = base.path().join("mon jeu, 狗");
    let bin = base.path().join("bin");
    for dir in [&game, &bin] {
        fs::create_dir(dir).unwrap();
    }
    fs::write(game.join("go.mod"), "module example.org/game\n").unwrap();
    if let Some(script) = tinygo {
        let path = bin.join("tinygo");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    (base, game)
}

fn meta(base: &Path, game: &Path, and_then: &str) -> Output {
    let tour = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tour.wasm");
    Command::new(env!("CARGO_BIN_EXE_cabinet"))
        .arg("meta")
        .arg(game)
        .env("PATH", format!("{}{and_then}", base.join("bin").display()))
        .env("ASKED", base.join("asked"))
        .env("MODULE", tour)
        .output()
        .unwrap()
}

#[test]
fn a_go_game_is_built_as_its_own_kit_builds_it_and_what_the_build_says_is_shown() {
    let asks = "pwd > \"$ASKED\"; for word; do echo \"$word\"; done >> \"$ASKED\"\n\
                echo 'a warning' >&2\n\
                while [ \"$1\" != -o ]; do shift; done; cp \"$MODULE\" \"$2\"";
    let (base, game) = setting(Some(asks));
    let output = meta(base.path(), &game, ":/usr/bin:/bin");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "a warning\n");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["slug"], "tour");
    let asked = fs::read_to_string(base.path().join("asked")).unwrap();
    let asked: Vec<&str> = asked.lines().collect();
    let dir = game.canonicalize().unwrap();
    assert_eq!(asked[0], dir.to_str().unwrap());
    let options = ["build", "-opt=1", "-no-debug", "-gc=conservative", "-o"];
    assert_eq!(asked[1..6], options);
    assert!(asked[6].ends_with("game.wasm"), "{asked:?}");
    let target = ["-target", "wasip1", "-buildmode=c-shared", "."];
    assert_eq!(asked[7..], target);
    // Nothing of the build is left, neither there nor in the game's directory.
    assert!(!Path::new(asked[6]).exists());
    assert_eq!(fs::read_dir(&game).unwrap().count(), 1);
}

#[test]
fn a_build_that_fails_and_one_that_makes_no_module_are_told() {
    for (script, says) in [
        (
            "echo 'main.go:3: oh' >&2; exit 1",
            "does not build (exit status: 1)",
        ),
        ("exit 0", "game.wasm"),
    ] {
        let (base, game) = setting(Some(script));
        let output = meta(base.path(), &game, ":/usr/bin:/bin");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.lines().last().unwrap().contains(says), "{said}");
        assert_eq!(said.contains("main.go:3: oh"), script.contains("oh"));
    }
}

#[test]
fn without_tinygo_the_problem_says_what_to_install() {
    let (base, game) = setting(None);
    let output = meta(base.path(), &game, "");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("mon jeu, 狗: a Go game is built with TinyGo, which is not installed"));
    assert!(said.contains("tinygo.org/getting-started"), "{said}");
}
