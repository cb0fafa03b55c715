//! Garbage in the flags and files of `play` and `replay`: one line that says what to do, exit code 2.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures")
        .join(name);
    path.to_str().unwrap().to_owned()
}

fn cabinet(args: &[&str]) -> Output {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    Command::new(env!("CARGO_BIN_EXE_cabinet"))
        .args(args)
        .env("XDG_CACHE_HOME", cache)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn refused(args: &[&str], says: &str) {
    let output = cabinet(args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    assert!(said.contains(says), "{args:?}: {said}");
    assert!(output.stdout.is_empty(), "{args:?}");
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn play_says_in_one_line_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (tour, here) = (fixture("tour.wasm"), dir.path().to_str().unwrap());
    let garbage = write(dir.path(), "garbage.wasm", b"\x1b[2Jnot wasm\n");
    let garbage = garbage.to_str().unwrap();
    refused(&["play", &tour], "play needs a terminal");
    let bench = "--bench-first-frame";
    for (args, says) in [
        (&["/does/not/exist.wasm"][..], "/does/not/exist.wasm"),
        (&[garbage], "garbage.wasm"),
        (&[here], "Cargo.toml"),
        (&[&tour, "--config", "greeting"], "want KEY=VALUE"),
        (&[&tour, "--config", "=x"], "a key has 1 to"),
        (
            &[&tour, "--config", "a=@/does/not/exist"],
            "cannot read /does/not/exist",
        ),
        (
            &[&tour, "--config", "a=1", "--config", "a=2"],
            "given twice",
        ),
        (&[&tour, "--record", here], "cannot record to"),
        (
            &[&tour, "--record", "/does/not/exist/x"],
            "cannot record to",
        ),
        (&[&tour, "--record", garbage], "is no recording"),
        (&[&tour, "--log", here], "cannot log to"),
        (&[&tour, "--log", "/does/not/exist/x"], "cannot log to"),
    ] {
        refused(&[&["play", bench], args].concat(), says);
    }
}

#[test]
fn a_flag_that_cannot_be_read_is_refused_with_its_name() {
    let tour = fixture("tour.wasm");
    for (args, says) in [
        (&["play", &tour, "--seats", "many"][..], "--seats"),
        (&["play", &tour, "--seats", "65536"], "--seats"),
        (&["play", &tour, "--seed", "9223372036854775808"], "--seed"),
        (
            &["play", &tour, "--heartbeat", "50"],
            "want a duration such as 50ms",
        ),
        (&["play", &tour, "--heartbeat", "2m"], "from 1ms to 1m"),
        (&["play", &tour, "--color", "all"], "--color"),
        (&["play", &tour, "--no-such-flag"], "--no-such-flag"),
        (&["replay", "x", "--frame", "-1"], "-1"),
        (&["replay", "x", "--frame", "1", "--dump"], "--dump"),
        (&["replay", "x", "--seat", "0"], "--seat"),
    ] {
        refused(args, says);
    }
}

#[test]
fn replay_says_in_one_line_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("game.cabp");
    let record = record.to_str().unwrap();
    let tour = fixture("tour.wasm");
    let made = cabinet(&[
        "play",
        "--bench-first-frame",
        &tour,
        "--seed",
        "1",
        "--record",
        record,
    ]);
    assert!(made.status.success(), "{made:?}");
    let whole = std::fs::read(record).unwrap();

    let file =
        |name: &str, bytes: &[u8]| write(dir.path(), name, bytes).to_str().unwrap().to_owned();
    let mut damaged = whole.clone();
    damaged[60] ^= 1;
    let mut newer = whole.clone();
    newer[4] = 9;
    for (args, says) in [
        (&["/does/not/exist", "--json"][..], "/does/not/exist"),
        (
            &[dir.path().to_str().unwrap(), "--json"],
            "a directory and no file",
        ),
        (&[&tour, "--json"], "no recording"),
        (&[&file("empty", b""), "--json"], "no recording"),
        (&[&file("damaged", &damaged), "--dump"], "damaged"),
        (&[&file("newer", &newer), "--dump"], "version 9"),
        (
            &[&file("short", &whole[..40]), "--dump"],
            "ends before its first callback",
        ),
        (&[record], "replay needs a terminal"),
        (&[record, "--frame", "999999"], "has steps 0 to"),
        (&[record, "--frame", "0", "--seat", "2"], "has seats 1 to 1"),
        (
            &[record, &fixture("coil.wasm"), "--dump"],
            "another game, or another version of it",
        ),
        (
            &[record, "/does/not/exist.wasm", "--dump"],
            "/does/not/exist.wasm",
        ),
    ] {
        refused(&[&["replay"], args].concat(), says);
    }
}

#[test]
fn a_torn_recording_is_shown_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("game.cabp");
    let record = record.to_str().unwrap();
    let tour = fixture("tour.wasm");
    let made = cabinet(&["play", "--bench-first-frame", &tour, "--record", record]);
    assert!(made.status.success(), "{made:?}");
    let whole = std::fs::read(record).unwrap();
    std::fs::write(record, &whole[..whole.len() - 3]).unwrap();
    let output = cabinet(&["replay", record, "--frame", "2"]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("warning") && said.lines().count() == 1,
        "{said}"
    );
    assert!(String::from_utf8(output.stdout).unwrap().contains("TOUR"));
}

#[test]
fn a_program_reads_a_recording_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("game.cabp");
    let record = record.to_str().unwrap();
    let tour = fixture("tour.wasm");
    let config = ["--config", "greeting=salve", "--seed", "-5", "--seats", "2"];
    let words = [
        &["play", "--bench-first-frame", &tour, "--record", record],
        &config[..],
    ]
    .concat();
    let made = cabinet(&words);
    assert!(made.status.success(), "{made:?}");
    let bench: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    assert!(bench["first_frame_ms"].as_f64().unwrap() > 0.0);

    let read = |args: &[&str]| -> Vec<serde_json::Value> {
        let output = cabinet(&[&["replay", record], args].concat());
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let summary = &read(&["--json"])[0];
    assert_eq!(summary["slug"], "tour");
    assert_eq!(
        (&summary["seed"], &summary["seed_set"]),
        (&(-5).into(), &true.into())
    );
    assert_eq!(summary["seats"], 2);
    assert_eq!(summary["mode"], "private");
    assert_eq!(summary["config"][0]["key"], "greeting");
    let steps = summary["callbacks"].as_u64().unwrap();

    let dump = read(&["--dump", "--json", "--seat", "2"]);
    assert!(!dump.is_empty() && dump.iter().all(|step| step["seat"] == 2));
    let last = dump.last().unwrap();
    let step = last["step"].as_u64().unwrap();
    assert!(step <= steps);
    let frame = read(&["--frame", &step.to_string(), "--json", "--seat", "2"]);
    assert_eq!(&frame[0], last);
    assert_eq!(frame[0]["rows"].as_array().unwrap().len(), 24);
}
