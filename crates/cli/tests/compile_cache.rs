//! What `check` and `smoke` leave in the compile cache, and that nothing in it can lead them astray.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::fixture;

/// Runs the program with a cache directory of the test's own.
fn cabinet(cache: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cabinet"));
    command.current_dir(cache).args(args);
    command.env("XDG_CACHE_HOME", cache).output().unwrap()
}

/// The report of a check, without how long its steps took.
fn verdicts(ran: &Output) -> Vec<(String, String)> {
    assert_eq!(ran.status.code(), Some(0), "{ran:?}");
    let told: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let verdicts = told["report"]["verdicts"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    verdicts
        .iter()
        .map(|verdict| (text(&verdict["name"]), text(&verdict["judgement"])))
        .collect()
}

/// A check of a game, its deadline wide, as machines are busy.
fn check(game: &Path) -> [&str; 5] {
    let game = game.to_str().unwrap();
    ["check", game, "--deadline", "60s", "--json"]
}

fn warnings(ran: &Output) -> usize {
    let told: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    told["report"]["game"]["warnings"].as_array().unwrap().len()
}

fn entries(cache: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(cache.join("cabinet/compiled")) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_check_keeps_both_tiers_and_finds_them_again() {
    let dir = tempfile::tempdir().unwrap();
    let game = fixture("coil.wasm");
    let args = check(&game);
    let first = verdicts(&cabinet(dir.path(), &args));
    let kept = entries(dir.path());
    assert_eq!(kept.len(), 2, "{kept:?}");
    let written = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    let before: Vec<_> = kept.iter().map(written).collect();
    assert_eq!(verdicts(&cabinet(dir.path(), &args)), first);
    assert_eq!(kept.iter().map(written).collect::<Vec<_>>(), before);

    let args = [&args[..], &["--no-cache"]].concat();
    let other = tempfile::tempdir().unwrap();
    assert_eq!(verdicts(&cabinet(other.path(), &args)), first);
    assert!(!other.path().join("cabinet").exists());
}

#[test]
fn entries_that_were_damaged_or_are_another_users_are_compiled_anew() {
    let dir = tempfile::tempdir().unwrap();
    let game = fixture("coil.wasm");
    let args = check(&game);
    let first = verdicts(&cabinet(dir.path(), &args));
    let kept = entries(dir.path());
    let whole: Vec<Vec<u8>> = kept.iter().map(|path| fs::read(path).unwrap()).collect();
    let mut flipped = whole[0].clone();
    *flipped.last_mut().unwrap() ^= 1;
    // Changed, cut, swapped, empty.
    for damaged in [
        &flipped[..],
        &whole[0][..whole[0].len() / 2],
        &whole[1][..],
        &b""[..],
    ] {
        fs::write(&kept[0], damaged).unwrap();
        let ran = cabinet(dir.path(), &args);
        assert_eq!(verdicts(&ran), first);
        assert_ne!(fs::read(&kept[0]).unwrap(), damaged);
    }
    // Under another key nothing that is there counts.
    fs::write(dir.path().join("cabinet/compile.key"), [7; 32]).unwrap();
    let ran = cabinet(dir.path(), &args);
    assert_eq!(verdicts(&ran), first);
    assert!(warnings(&ran) > 0);
    assert_eq!(warnings(&cabinet(dir.path(), &args)), 0);
}

#[test]
fn smoke_makes_the_same_with_and_without_what_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let script = "seed: 4\nseats: 2\nsteps: [key: enter, advance: 1s, shot: a]\n";
    fs::write(dir.path().join("smoke.yaml"), script).unwrap();
    let game = fixture("coil.wasm");
    let film = |out: &str, more: &[&str]| {
        let args = [
            "smoke",
            game.to_str().unwrap(),
            "--script",
            "smoke.yaml",
            "--out",
            out,
        ];
        let ran = cabinet(dir.path(), &[&args[..], more].concat());
        assert!(ran.status.success(), "{ran:?}");
        fs::read(dir.path().join(out).join("01-a.ansi"))
            .or_else(|_| fs::read(dir.path().join(out).join("01-a.seat0.ansi")))
            .unwrap()
    };
    let without = film("none", &["--no-cache"]);
    assert!(entries(dir.path()).is_empty());
    assert_eq!(film("cold", &[]), without);
    assert_eq!(entries(dir.path()).len(), 1);
    assert_eq!(film("warm", &[]), without);
}
