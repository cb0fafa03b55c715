//! Surroundings a new user has and a developer has not: streams that end, names with blanks in them,
//! no home, directories that take nothing.
#![cfg(unix)]

mod common;

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::place::Place;

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    fixtures.join(name)
}

fn cabinet(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cabinet"));
    command.args(args).current_dir(dir).stdin(Stdio::null());
    command
}

/// A directory with a game and what each command reads beside it.
fn desk() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    put("tour.wasm", &fs::read(fixture("tour.wasm")).unwrap());
    put(
        "smoke.yaml",
        b"seed: 1\nseats: 1\nsteps:\n  - shot: start\n",
    );
    put("a.jsonl", b"{\"seed\":1}\n{\"seq\":0}\n");
    put("b.jsonl", b"{\"seed\":2}\n{\"seq\":0}\n");
    dir
}

/// What prints something, with its exit code when all is well.
const PRINT: &[(&[&str], i32)] = &[
    (&["help"], 0),
    (&["check", "--help"], 0),
    (&["--version"], 0),
    (&["version"], 0),
    (&["completions", "zsh"], 0),
    (&["new", "maze"], 0),
    (&["meta", "tour.wasm"], 0),
    (&["trace", "tour.wasm", "--set", "deadline 60s"], 0),
    (&["diff", "a.jsonl", "b.jsonl"], 1),
    (&["diff", "a.jsonl", "b.jsonl", "--json"], 1),
    (&["lint", "tour.wasm"], 0),
    (&["lint", "tour.wasm", "--json"], 0),
    (&["config", "tour.wasm"], 0),
    (&["check", "tour.wasm", "--deadline", "60s"], 0),
    (&["check", "tour.wasm", "--deadline", "60s", "--json"], 0),
    (&["smoke", "tour.wasm"], 0),
    (&["smoke", "tour.wasm", "--check", "--out", "smoke-out"], 0),
    (&["smoke", "tour.wasm", "--json"], 0),
    (&["play", "tour.wasm", "--bench-first-frame"], 0),
];

#[test]
fn a_reader_that_has_read_enough_is_no_problem() {
    let desk = desk();
    for (args, code) in PRINT {
        let mut child = cabinet(desk.path(), args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_takes_nothing_is_one_line_and_no_panic() {
    let desk = desk();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (args, _) in PRINT {
        let output = cabinet(desk.path(), args).stdout(full()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(said.contains("No space left"), "{args:?}: {said}");
        let _ = fs::remove_dir_all(desk.path().join("maze"));
    }
    for args in [&["check", "missing"][..], &["jump"], &["check", "a.jsonl"]] {
        let output = cabinet(desk.path(), args).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
    }
}

#[test]
fn files_and_directories_may_have_any_name() {
    let desk = desk();
    for name in [
        &b"mes jeux & co"[..],
        "zoë/狗".as_bytes(),
        b"it's",
        b"a\xffb",
        b"-x",
        b"a\nb",
    ] {
        let dir = desk.path().join(OsStr::from_bytes(name));
        fs::create_dir_all(&dir).unwrap();
        let game = dir.join("a b.wasm");
        fs::copy(desk.path().join("tour.wasm"), &game).unwrap();
        fs::copy(desk.path().join("smoke.yaml"), dir.join("smoke.yaml")).unwrap();
        let run = |words: &[&str], and: &[&OsStr]| {
            let mut command = cabinet(desk.path(), &words[..1]);
            let output = command.arg(&game).args(&words[1..]).args(and).output();
            let output = output.unwrap();
            assert_eq!(output.status.code(), Some(0), "{words:?}: {output:?}");
            output
        };
        let shots = dir.join("my shots");
        let trace = dir.join("trace");
        run(&["meta"], &[]);
        run(&["check", "--deadline", "60s", "--json"], &[]);
        run(&["lint", "--json"], &[]);
        run(&["smoke", "--update"], &[]);
        run(&["smoke", "--check"], &[]);
        run(&["smoke", "--json", "--out"], &[shots.as_os_str()]);
        run(
            &["smoke", "--check", "--json", "--out"],
            &[shots.as_os_str()],
        );
        run(&["trace", "-o"], &[trace.as_os_str()]);
        run(
            &["config", "host.deadline_ms=200", "--store"],
            &[dir.join("kept").as_os_str()],
        );
        let record = dir.join("r.cabp");
        run(
            &["play", "--bench-first-frame", "--record"],
            &[record.as_os_str()],
        );
        let replayed = cabinet(desk.path(), &["replay"])
            .arg(&record)
            .arg(&game)
            .args(["--frame", "2"])
            .output()
            .unwrap();
        assert_eq!(replayed.status.code(), Some(0), "{replayed:?}");
    }
}

#[test]
fn a_line_about_a_file_is_one_line_whatever_it_is_called() {
    let desk = desk();
    for name in [&b"a\nb"[..], b"\x1b[2J", b"a\xff\nb"] {
        let path = desk.path().join(OsStr::from_bytes(name));
        fs::write(&path, "text").unwrap();
        for command in [
            "check", "meta", "trace", "lint", "config", "play", "smoke", "replay",
        ] {
            let output = cabinet(desk.path(), &[command])
                .arg(&path)
                .output()
                .unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{command}: {said:?}");
            assert_eq!(said.lines().count(), 1, "{command}: {said:?}");
            assert!(!said.contains('\x1b'), "{command}: {said:?}");
        }
    }
}

#[test]
fn without_a_home_or_a_terminal_that_can_do_anything_it_works_all_the_same() {
    let desk = desk();
    let plain = |set: &[(&str, &str)], args: &[&str]| -> Output {
        let mut command = cabinet(desk.path(), args);
        command.env_remove("HOME").env_remove("XDG_CACHE_HOME");
        let output = command.envs(set.iter().copied()).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(0),
            "{set:?} {args:?}: {output:?}"
        );
        assert!(
            !output.stdout.contains(&0x1B),
            "{set:?} {args:?}: {output:?}"
        );
        output
    };
    let file = desk.path().join("tour.wasm");
    for set in [
        &[][..],
        &[("HOME", "")],
        &[("HOME", "relative")],
        &[("HOME", "/proc/no/home")],
        &[("HOME", file.to_str().unwrap())],
        &[("XDG_CACHE_HOME", "/dev/null")],
        &[("TERM", "dumb"), ("NO_COLOR", "1")],
        &[("TERM", "")],
        &[("LANG", "C"), ("LC_ALL", "POSIX"), ("COLORTERM", "\x1b")],
    ] {
        plain(set, &["play", "tour.wasm", "--bench-first-frame"]);
        plain(set, &["check", "tour.wasm", "--deadline", "60s"]);
        plain(set, &["meta", "tour.wasm"]);
    }
    assert!(!desk.path().join("relative").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_that_takes_nothing_is_told_in_one_line() {
    let desk = desk();
    // Nobody makes files here, root included.
    let refused = |args: &[&str]| {
        let output = cabinet(Path::new("/proc"), args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    };
    let game = desk.path().join("tour.wasm");
    let game = game.to_str().unwrap();
    refused(&["new", "maze"]);
    refused(&["smoke", game]);
    refused(&["smoke", game, "--update", "--out", "shots"]);
    refused(&["trace", game, "-o", "a.jsonl"]);
    refused(&["play", game, "--bench-first-frame", "--record", "a.cabp"]);
    refused(&["play", game, "--bench-first-frame", "--log", "a.log"]);
    refused(&["config", game, "host.deadline_ms=200", "--store", "kept"]);
}

#[test]
fn a_directory_that_is_gone_is_told_in_one_line() {
    let desk = desk();
    let here = desk.path().join("here");
    fs::create_dir(&here).unwrap();
    let output = Command::new("sh")
        .args(["-c", "cd \"$1\" && rmdir \"$1\" && exec \"$0\" new maze"])
        .arg(env!("CARGO_BIN_EXE_cabinet"))
        .arg(&here)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn what_to_type_next_can_be_typed_whatever_the_name() {
    let desk = desk();
    let made = cabinet(desk.path(), &["new", "--", "-x"]).output().unwrap();
    let said = String::from_utf8(made.stdout).unwrap();
    assert!(said.contains("\n  cabinet check ./-x\n"), "{said}");
}

/// Ends a program that waits for ever, so that the test does not.
fn ended(command: &mut Command, what: &[&str]) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{what:?} waits: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// A pipe and a socket in a directory, under these names.
fn odd_ones(dir: &Path) -> UnixListener {
    let made = Command::new("mkfifo").arg(dir.join("pipe")).status();
    assert!(made.unwrap().success());
    UnixListener::bind(dir.join("socket")).unwrap()
}

/// Runs each command with what is no file in the place of its `X`: it says so, and waits for nothing.
fn refuse(dir: &Path, commands: &[Vec<&str>]) {
    for (odd, what) in [
        ("pipe", "pipe: a pipe"),
        ("socket", "socket: a socket"),
        ("/dev/zero", "/dev/zero: a device"),
    ] {
        for args in commands {
            let args: Vec<String> = args.iter().map(|word| word.replace('X', odd)).collect();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let output = ended(&mut cabinet(dir, &args), &args);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
            assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
            let told = format!("{what} and no file; name a file");
            assert!(said.contains(&told), "{args:?}: {said}");
        }
    }
}

#[test]
fn what_is_no_file_is_refused_wherever_a_file_is_read() {
    let desk = desk();
    let _socket = odd_ones(desk.path());
    let record = [
        "play",
        "tour.wasm",
        "--bench-first-frame",
        "--record",
        "a.cabp",
    ];
    let recorded = cabinet(desk.path(), &record).output().unwrap();
    assert_eq!(recorded.status.code(), Some(0), "{recorded:?}");
    let bench = ["play", "tour.wasm", "--bench-first-frame"];
    refuse(
        desk.path(),
        &[
            vec!["check", "X"],
            vec!["check", "tour.wasm", "--script", "X"],
            vec!["meta", "X"],
            vec!["trace", "X"],
            vec!["trace", "tour.wasm", "--script", "X"],
            vec!["diff", "X", "a.jsonl"],
            vec!["diff", "a.jsonl", "X"],
            vec!["lint", "X"],
            vec!["lint", "tour.wasm", "--script", "X"],
            vec!["config", "X"],
            vec!["play", "X", "--bench-first-frame"],
            [&bench[..], &["--config", "k=@X"]].concat(),
            vec!["smoke", "X", "--script", "smoke.yaml"],
            vec!["smoke", "tour.wasm", "--script", "X"],
            vec!["replay", "X", "--json"],
            vec!["replay", "a.cabp", "X", "--frame", "1"],
        ],
    );
    // A shot that is committed, and a script beside the game.
    let mkfifo = |path: &str| {
        let _ = fs::remove_file(desk.path().join(path));
        let made = Command::new("mkfifo").arg(desk.path().join(path)).status();
        assert!(made.unwrap().success());
    };
    let update = cabinet(desk.path(), &["smoke", "tour.wasm", "--update"]).output();
    assert_eq!(update.unwrap().status.code(), Some(0));
    fs::create_dir(desk.path().join("kept")).unwrap();
    for (path, args) in [
        (
            "shots/01-start.ansi",
            &["smoke", "tour.wasm", "--check"][..],
        ),
        ("shots/01-start.ansi", &["smoke", "tour.wasm", "--update"]),
        ("smoke.yaml", &["smoke", "tour.wasm", "--check"]),
        (
            "kept/store.redb",
            &["config", "tour.wasm", "--store", "kept"],
        ),
        (
            "log",
            &["play", "tour.wasm", "--bench-first-frame", "--log", "log"],
        ),
        ("trace", &["trace", "tour.wasm", "-o", "trace"]),
        ("a.cabp", &record),
    ] {
        mkfifo(path);
        let output = ended(&mut cabinet(desk.path(), args), args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{path}: {said}");
        assert_eq!(said.lines().count(), 1, "{path}: {said}");
        assert!(said.contains("a pipe and no file"), "{path}: {said}");
    }
}

#[test]
fn what_is_no_file_is_refused_wherever_rooms_reads_one() {
    let place = Place::new();
    let dir = place.folder.path();
    let _socket = odd_ones(dir);
    fs::copy(fixture("tour.wasm"), dir.join("tour.wasm")).unwrap();
    let parked = place.parked.to_string();
    let rooms = |args: &[&'static str]| [&["rooms", "--store", "store"], args].concat();
    let keyed = |args| [&rooms(&["--key-file", "keys"])[..], args].concat();
    refuse(
        dir,
        &[
            rooms(&["list", "--key-file", "X"]),
            keyed(&["restore", &parked, "X"]),
            keyed(&["import", "X", "tour.wasm", "--reference-unsealed"]),
            keyed(&["import", "X", "tour.wasm", "--reference-key", "keys"]),
            keyed(&["import", "store", "X", "--reference-key", "keys"]),
            keyed(&["import", "store", "tour.wasm", "--reference-key", "X"]),
        ],
    );
}

#[test]
fn a_pipe_in_a_records_place_is_named_by_what_reads_the_record() {
    let place = Place::new();
    let dir = place.folder.path();
    let parked = place.parked.to_string();
    let dump = ["dump", &parked, "--out", "dumped"];
    for (kind, command) in [("/heads+/", &["reseal"][..]), ("/rooms+/", &dump)] {
        let (path, bytes) = place
            .files()
            .into_iter()
            .find(|(path, _)| {
                let path = path.to_string_lossy();
                path.contains(&parked) && path.contains(kind)
            })
            .unwrap();
        fs::remove_file(&path).unwrap();
        let made = Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let store = ["rooms", "--store", "store", "--key-file", "keys"];
        let args = [&store[..], command].concat();
        let output = ended(&mut cabinet(dir, &args), &args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{kind}: {said}");
        let name = path.file_name().unwrap().to_str().unwrap();
        let told = format!("{name}: a pipe, a socket or a device is in its place; take it away");
        assert!(said.contains(&told), "{kind}: {said}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn what_a_pipe_of_ours_is_open_to_is_done_with_it_and_no_more() {
    let desk = desk();
    fs::write(desk.path().join("one.script"), "join 0\nwake\n").unwrap();
    let run = |line: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", line, env!("CARGO_BIN_EXE_cabinet")]);
        ended(shell.current_dir(desk.path()), &[line])
    };
    // What it writes to itself it would wait for.
    for (line, path) in [
        ("exec \"$0\" check tour.wasm --script /dev/fd/1", "fd/1"),
        ("exec \"$0\" check tour.wasm --script /dev/stdout", "stdout"),
        ("exec \"$0\" check tour.wasm --script /dev/fd/2", "fd/2"),
        ("exec \"$0\" check tour.wasm --script /dev/stderr", "stderr"),
    ] {
        let output = run(line);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}: {said}");
        let told = format!("{path}: a pipe and no file");
        assert!(said.contains(&told), "{line}: {said}");
    }
    // Only Linux says how a descriptor of ours is open.
    if cfg!(target_os = "linux") {
        let output = run("exec \"$0\" check tour.wasm --script /dev/fd/3 3>&1");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let output = run("true | \"$0\" trace tour.wasm -o /dev/fd/0");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    // What somebody reads is written to.
    let output = run("exec \"$0\" trace tour.wasm --script one.script -o /dev/fd/3 3>&1 >&2");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.starts_with(b"{\"abi_major\":"), "{output:?}");
}

#[test]
fn a_pipe_that_the_shell_made_is_read() {
    let desk = desk();
    fs::write(
        desk.path().join("one.script"),
        "deadline 60s\njoin 0\nwake\n",
    )
    .unwrap();
    for script in ["/dev/fd/0", "/dev/stdin", "/proc/self/fd/0"] {
        if !Path::new(script).exists() {
            continue;
        }
        let mut shell = Command::new("sh");
        let line = "cat one.script | \"$0\" check tour.wasm --script \"$1\"";
        shell.args(["-c", line, env!("CARGO_BIN_EXE_cabinet"), script]);
        let output = ended(shell.current_dir(desk.path()), &[script]);
        assert_eq!(output.status.code(), Some(0), "{script}: {output:?}");
    }
}
