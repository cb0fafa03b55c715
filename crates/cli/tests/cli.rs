//! The program as people meet it: exit codes, and one line for whatever is wrong.

#[allow(dead_code, reason = "shared with another test, which uses the rest")]
#[path = "smoke_reference/painter.rs"]
mod painter;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cabinet_wire::cell::Cell;
use painter::Page;
use proptest::prelude::*;

fn cabinet(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cabinet"))
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    fixtures.join(name)
}

/// Where a game, a module that fails, a script and some things that are neither lie.
fn bench() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    for name in ["ok-smallest", "fault-wake-trap"] {
        let wasm = wat::parse_file(fixture("wat").join(name).with_extension("wat")).unwrap();
        put(&format!("{name}.wasm"), &wasm);
    }
    put("text.wasm", b"hello");
    put("empty.wasm", b"");
    put("no-game.wasm", b"\0asm\x01\0\0\0");
    // Wide, so that a busy machine fails nobody.
    put(
        "one.script",
        b"deadline 60s\njoin 0\nwake\nwake +50ms\nwake\n",
    );
    put("bad.script", b"join 0\njump 1\n");
    put("binary.script", b"\xff\xfe\0");
    put("trace.jsonl", b"{\"seed\":1}\n{\"seq\":0}\n");
    std::fs::create_dir(dir.path().join("hollow")).unwrap();
    dir
}

#[test]
fn garbage_anywhere_gives_one_line_and_exit_code_2() {
    let dir = bench();
    let escape = "\x1b[2J\nx";
    let game = "ok-smallest.wasm";
    let cases: &[&[&str]] = &[
        &[],
        &["jump"],
        &[escape],
        &["--no-such-flag"],
        &["check"],
        &["check", ""],
        &["check", "missing.wasm"],
        &["check", escape],
        &["check", "text.wasm"],
        &["check", "empty.wasm"],
        &["check", "no-game.wasm"],
        &["check", "hollow"],
        &["check", game, "more"],
        &["check", game, "--no-such-flag"],
        &["check", game, "--script", "missing"],
        &["check", game, "--script", "hollow"],
        &["check", game, "--script", "bad.script"],
        &["check", game, "--script", "binary.script"],
        &["check", game, "--script", "one.script", "--random", "2"],
        &["check", game, "--deadline", "fast"],
        &["check", game, "--random", "0"],
        &["check", game, "--random", "many"],
        &["check", game, "--seed", "1"],
        &["check", game, "--random", "1", "--seed", "-1"],
        &["check", "missing", "--watch"],
        &["new"],
        &["new", ""],
        &["new", "a_b"],
        &["new", "../up"],
        &["new", "ada/chess"],
        &["new", escape],
        &["new", "hollow"],
        &["new", "maze", "--template", "castle"],
        &["new", "maze", "--license", "gpl"],
        &["meta"],
        &["meta", "missing.wasm"],
        &["meta", "text.wasm"],
        &["meta", "no-game.wasm"],
        &["trace"],
        &["trace", "text.wasm"],
        &["trace", game, "--script", "bad.script"],
        &["trace", game, "--set", "mode fast"],
        &["trace", game, "--set", escape],
        &["trace", game, "--restore", "half"],
        &["trace", game, "-o", "no/such/dir"],
        &["diff"],
        &["diff", "trace.jsonl"],
        &["diff", "trace.jsonl", "missing"],
        &["diff", "trace.jsonl", "hollow"],
        &["diff", "trace.jsonl", "text.wasm"],
        &["diff", "trace.jsonl", "empty.wasm"],
        &["diff", "empty.wasm", "empty.wasm"],
        &["play", game, "--bench-first-frame", "--log", game],
        &["replay", "empty.wasm", "--json"],
        &["diff", "binary.script", "trace.jsonl"],
        &["config"],
        &["config", "text.wasm"],
        &["config", game, "no.such"],
        &["config", game, "no.such=1", "--store", "kept"],
        &["config", game, "host.deadline_ms=fast", "--store", "kept"],
        &["config", game, "host.deadline_ms=2001", "--store", "kept"],
        &["config", game, "host.deadline_ms=200"],
        &["config", game, "--store", "missing"],
        &["config", game, "--store", "text.wasm"],
        &["config", game, "--store", "hollow"],
        &["config", game, "--slug", "Not A\x1b[31m Slug!"],
        &["config", game, "--slug", "ada/"],
        &["lint"],
        &["lint", "text.wasm"],
        &["lint", game, "--script", "bad.script"],
        &["lint", "fault-wake-trap.wasm"],
        &["trace", game, "-o", game],
        &["completions"],
        &["completions", "dos"],
        &["version", "more"],
    ];
    for args in cases {
        let output = cabinet(dir.path(), args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said:?}");
        assert!(said.starts_with("cabinet: "), "{args:?}: {said}");
        assert!(!said.contains('\x1b'), "{args:?}: {said:?}");
        assert!(output.stdout.is_empty(), "{args:?}: {}", stdout(&output));
    }
    assert!(!dir.path().join("maze").exists(), "a refused name was made");
}

#[test]
fn check_ends_in_0_for_a_good_game_and_in_1_for_a_bad_one() {
    let dir = bench();
    let args = |game| ["check", game, "--script", "one.script"];
    let good = cabinet(dir.path(), &args("ok-smallest.wasm"));
    assert_eq!(good.status.code(), Some(0), "{}", stdout(&good));
    let bad = cabinet(dir.path(), &args("fault-wake-trap.wasm"));
    assert_eq!(bad.status.code(), Some(1));
    assert!(stdout(&bad).contains("FAIL"), "{}", stdout(&bad));
}

#[test]
fn what_a_guest_says_is_escaped_once_in_json_and_does_not_draw() {
    let dir = bench();
    let text = std::fs::read_to_string(fixture("wat/fault-error-text.wat")).unwrap();
    // An escape sequence, a line feed, the control sequence introducer of one character, a quote.
    let loud = text.replace("0x2165_6b61_7720_6f6e", "0x229bc20a4a325b1b");
    assert_ne!(loud, text);
    let wasm = wat::parse_str(loud).unwrap();
    std::fs::write(dir.path().join("loud.wasm"), wasm).unwrap();
    let check = ["check", "loud.wasm", "--script", "one.script"];
    let json = cabinet(dir.path(), &[&check[..], &["--json"]].concat());
    assert_eq!(json.status.code(), Some(1), "{json:?}");
    let printed = stdout(&json);
    assert!(
        !printed.trim_end().contains(|c: char| c.is_control()),
        "{printed:?}"
    );
    let object: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let said = "\u{1b}[2J\n\u{9b}\"";
    let steps = object["report"]["steps"].as_array().unwrap();
    let fault = steps.iter().find_map(|row| row["fault"].as_str()).unwrap();
    assert!(fault.contains(said), "{fault:?}");
    let verdicts = object["report"]["verdicts"].as_array().unwrap();
    let details = verdicts
        .iter()
        .map(|found| found["detail"].as_str().unwrap());
    assert!(details.into_iter().any(|detail| detail.contains(said)));
    let text = stdout(&cabinet(dir.path(), &check));
    assert!(text.contains("\\u{1b}[2J\\n\\u{9b}\""), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
}

#[test]
fn a_failing_script_is_reduced_to_what_fails_and_reads_back() {
    let dir = bench();
    let random = ["--deadline", "60s", "--random", "20", "--seed", "3"];
    let args = [
        &["check", "fault-wake-trap.wasm", "--shrink", "--json"],
        &random[..],
    ];
    let output = cabinet(dir.path(), &args.concat());
    assert_eq!(output.status.code(), Some(1));
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["shrunk"]["shortest"], true);
    let script = object["shrunk"]["script"].as_str().unwrap();
    let read = cabinet_conformance::Script::parse(script).unwrap();
    assert!(read.steps.len() <= 2, "{script}");
    std::fs::write(dir.path().join("short.script"), script).unwrap();
    let again = [
        "check",
        "fault-wake-trap.wasm",
        "--script",
        "short.script",
        "--deadline",
        "60s",
    ];
    assert_eq!(cabinet(dir.path(), &again).status.code(), Some(1));
}

#[test]
fn a_profile_names_callbacks_and_host_calls() {
    let tour = fixture("tour.wasm");
    let args = ["check", "--deadline", "60s", "--profile", "--json"];
    let args = [&args[..], &[tour.to_str().unwrap()]].concat();
    let output = cabinet(Path::new("."), &args);
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names = |of: &str| -> Vec<String> {
        let rows = object["profile"][of].as_array().unwrap().iter();
        rows.map(|row| row["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(names("exports").contains(&"join".to_owned()), "{object}");
    let calls = names("host_calls");
    assert!(calls.contains(&"identical".to_owned()), "{calls:?}");
}

#[test]
fn two_traces_of_one_game_are_the_same_and_another_seed_is_told() {
    let dir = bench();
    let tour = fixture("tour.wasm");
    let traced = |name: &str, seed: &str| {
        let set = format!("seed {seed}");
        let args = ["--grids", "--set", "deadline 60s", "-o", name, "--set"];
        let args = [&["trace", tour.to_str().unwrap()], &args[..], &[&set]].concat();
        let output = cabinet(dir.path(), &args);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    };
    traced("a", "1");
    traced("b", "1");
    traced("c", "2");
    let same = cabinet(dir.path(), &["diff", "a", "b"]);
    assert_eq!(stdout(&same), "the traces are the same\n");
    assert_eq!(same.status.code(), Some(0));
    let other = cabinet(dir.path(), &["diff", "a", "c"]);
    assert_eq!(other.status.code(), Some(1));
    let told = stdout(&other);
    assert!(told.contains("line 1: header\n  seed: 1 / 2\n"), "{told}");
    let json = cabinet(dir.path(), &["diff", "a", "c", "--json"]);
    let object: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(object["line"], 1);
}

#[test]
fn meta_begins_as_the_references_does_and_tells_both_revisions() {
    let tour = fixture("tour.wasm");
    let output = cabinet(Path::new("."), &["meta", tour.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0));
    let text = stdout(&output);
    let begins = "{\n  \"abi\": 2,\n  \"slug\": \"tour\",\n  \"name\": \"Grand Tour\",";
    assert!(text.starts_with(begins), "{text}");
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(object["probed"]["wireRevision"], 6);
    assert_eq!(object["host"]["wireRevision"], 6);
}

#[test]
fn a_configured_value_is_kept_and_shown() {
    let dir = bench();
    let config = |key: &str| {
        let args = ["config", "ok-smallest.wasm", "--store", "kept", key];
        let output = cabinet(dir.path(), &args);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        stdout(&output)
    };
    let set = config("host.deadline_ms=200");
    assert!(set.contains("for rooms made from now on"), "{set}");
    let shown = config("host.deadline_ms");
    assert!(
        shown.contains("number 10 to 2000, default \"100\", set to \"200\""),
        "{shown}"
    );
}

#[test]
fn a_look_at_what_is_configured_writes_nothing() {
    let dir = bench();
    let set = [
        "config",
        "ok-smallest.wasm",
        "--store",
        "kept",
        "host.deadline_ms=200",
        "--json",
    ];
    let told: serde_json::Value =
        serde_json::from_str(&stdout(&cabinet(dir.path(), &set))).unwrap();
    assert_eq!(told["applies"], "rooms made from now on");
    assert_eq!(told["keys"][0]["set"], "200");
    let kept = dir.path().join("kept");
    let files = || {
        let mut files: Vec<_> = std::fs::read_dir(&kept)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (std::fs::read(&path).unwrap(), path))
            .collect();
        files.sort();
        files
    };
    let before = files();
    let look = ["config", "ok-smallest.wasm", "--store", "kept", "--json"];
    let output = cabinet(dir.path(), &look);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(told["slug"], "w");
    let keys = told["keys"].as_array().unwrap();
    let deadline = keys.iter().find(|key| key["key"] == "host.deadline_ms");
    assert_eq!(deadline.unwrap()["set"], "200");
    assert!(files() == before, "a look changed the store");
    let hollow = ["config", "ok-smallest.wasm", "--store", "hollow"];
    assert_eq!(cabinet(dir.path(), &hollow).status.code(), Some(2));
    assert_eq!(
        std::fs::read_dir(dir.path().join("hollow"))
            .unwrap()
            .count(),
        0
    );
}

/// Whoever reads no further has read enough; a disk that is full is said, once.
#[cfg(target_os = "linux")]
#[test]
fn output_nobody_takes_ends_no_command_in_a_panic() {
    let dir = bench();
    let (tour, script) = (fixture("tour.wasm"), dir.path().join("smoke.yaml"));
    let tour = tour.to_str().unwrap();
    std::fs::write(
        &script,
        "seed: 1\nseats: 1\nsteps:\n  - advance: 100ms\n  - shot: begin\n",
    )
    .unwrap();
    std::fs::create_dir(dir.path().join("rooms")).unwrap();
    let commands: &[&[&str]] = &[
        &["check", tour],
        &["meta", tour],
        &["lint", tour],
        &["config", tour],
        &["smoke", tour, "--script", "smoke.yaml"],
        &["smoke", tour, "--script", "smoke.yaml", "--json"],
        &["rooms", "list", "--store", "rooms", "--unsealed"],
        &["version"],
        &["completions", "bash"],
    ];
    for args in commands {
        let full = || {
            std::fs::File::options()
                .write(true)
                .open("/dev/full")
                .unwrap()
        };
        let run = |out: std::process::Stdio, err: std::process::Stdio| {
            std::process::Command::new(env!("CARGO_BIN_EXE_cabinet"))
                .args(*args)
                .current_dir(dir.path())
                .env("XDG_CACHE_HOME", dir.path().join("cache"))
                .stdout(out)
                .stderr(err)
                .output()
                .unwrap()
        };
        let output = run(full().into(), std::process::Stdio::piped());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains("cannot write to stdout"), "{args:?}: {said}");
        assert!(!said.contains("panicked"), "{args:?}: {said}");
        assert_eq!(
            run(full().into(), full().into()).status.code(),
            Some(2),
            "{args:?}"
        );
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = run(writer.into(), std::process::Stdio::piped());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
        assert!(!said.contains("roken pipe"), "{args:?}: {said}");
    }
}

#[test]
fn lint_names_what_breaks_the_width_contract_and_its_exit_code_says_so() {
    let dir = bench();
    let mut page = Page::blank();
    page.put(2, 3, Cell::of('中'));
    page.put(5, 7, Cell::of('♥'));
    let mut half = Cell::of(' ');
    half.cont = true;
    page.put(5, 8, half);
    let game = dir.path().join("wide.wasm");
    std::fs::write(&game, painter::guest(&[page])).unwrap();
    let output = cabinet(dir.path(), &["lint", "wide.wasm"]);
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("width: row 2, col 3: U+4E2D"), "{said}");
    assert!(said.contains("width: row 5, col 7: U+2665"), "{said}");
    assert!(
        said.contains("lint: 2 width-contract violation(s)"),
        "{said}"
    );
}

#[test]
fn lint_finds_nothing_wrong_with_games_that_draw_as_they_should() {
    for game in ["coil.wasm", "fences.wasm", "tour.wasm"] {
        let output = cabinet(Path::new("."), &["lint", fixture(game).to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{game}: {}", stdout(&output));
        assert!(stdout(&output).contains("lint: OK"), "{game}");
    }
}

#[test]
fn a_new_game_is_whole_and_a_second_one_of_its_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let args = [
        "new",
        "Maze",
        "--template",
        "sprint",
        "--license",
        "mpl-2.0",
    ];
    let made = cabinet(dir.path(), &args);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    for file in [
        "Cargo.toml",
        "src/lib.rs",
        "smoke.yaml",
        "README.md",
        "LICENSE",
        ".github/workflows/check.yml",
    ] {
        assert!(dir.path().join("maze").join(file).is_file(), "{file}");
    }
    let again = cabinet(dir.path(), &["new", "maze"]);
    assert_eq!(again.status.code(), Some(2));
}

#[test]
fn help_version_and_completions_go_to_stdout() {
    for args in [
        &["help"][..],
        &["--help"],
        &["check", "--help"],
        &["--version"],
        &["version"],
        &["version", "--json"],
        &["completions", "bash"],
        &["completions", "zsh"],
    ] {
        let output = cabinet(Path::new("."), args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty(), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
    }
}

proptest! {
    // Each case starts the program four times.
    #![proptest_config(ProptestConfig {
        cases: 12,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_trace_and_no_script_makes_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let dir = bench();
        std::fs::write(dir.path().join("noise"), &bytes).unwrap();
        for args in [
            &["diff", "noise", "trace.jsonl"][..],
            &["diff", "trace.jsonl", "noise"],
            &["check", "ok-smallest.wasm", "--script", "noise"],
            &["check", "noise"],
        ] {
            // A panic is 101, a signal has no code.
            let code = cabinet(dir.path(), args).status.code();
            prop_assert!(matches!(code, Some(0..=2)), "{args:?}: {code:?}");
        }
    }
}
