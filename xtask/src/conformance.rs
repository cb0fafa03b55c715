//! `cargo xtask conformance`: the check on the committed fixtures, or on your own artifacts.
//!
//! Reports go to stdout, progress and problems to stderr. Exit code 0: every verdict of every
//! artifact is within its limit; 1: some are not; 2: something could not be checked at all.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use cabinet_conformance::{CheckOptions, Report, Script, check, error_line, files};
use cabinet_host::{Host, HostOptions};
use serde_json::json;

/// Arguments of `cargo xtask conformance`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Artifacts to check, or directories of them; the committed fixtures when there are none.
    #[arg(long, value_name = "FILE|DIR", num_args = 1..)]
    artifact: Vec<PathBuf>,
    /// The script to check with; one that fits the game's party when there is none.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Print one JSON object per artifact and line.
    #[arg(long)]
    json: bool,
    /// Also ask that each game declares a leaderboard.
    #[arg(long)]
    require_leaderboard: bool,
    /// The callback deadline to judge by, instead of the host's default; a script's own wins.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    deadline_ms: Option<u64>,
}

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    match try_run(args) {
        Ok(tally) => ExitCode::from(tally.exit_code()),
        Err(problem) => {
            eprintln!("conformance: {problem}");
            ExitCode::from(Tally::UNCHECKED)
        }
    }
}

/// What came of the artifacts, by number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    /// There is no report about these.
    unchecked: usize,
    /// Verdicts, in the reports there are, that had nothing to judge by.
    verdicts_not_checked: usize,
}

impl Tally {
    /// Exit code when something could not be checked at all.
    const UNCHECKED: u8 = 2;

    fn exit_code(self) -> u8 {
        match self {
            Tally { unchecked: 1.., .. } => Self::UNCHECKED,
            Tally { failed: 1.., .. } => 1,
            _ => 0,
        }
    }
}

fn try_run(args: &Args) -> Result<Tally, String> {
    let script = args.script.as_deref().map(read_script).transpose()?;
    let artifacts = match args.artifact.as_slice() {
        [] => wasm_files(&fixtures())?,
        given => {
            let found: Result<Vec<_>, _> = given.iter().map(|path| wasm_files(path)).collect();
            found?.concat()
        }
    };
    let host = Host::new(HostOptions::default()).map_err(|error| error_line(&error))?;
    let mut options = CheckOptions {
        require_leaderboard: args.require_leaderboard,
        ..CheckOptions::default()
    };
    if let Some(deadline_ms) = args.deadline_ms {
        options.game.deadline = Duration::from_millis(deadline_ms);
    }
    let mut tally = Tally::default();
    for (index, path) in artifacts.iter().enumerate() {
        eprintln!("[{}/{}] {}", index + 1, artifacts.len(), path.display());
        match check_file(&host, &options, script.as_ref(), path) {
            Ok(report) => {
                tally.passed += usize::from(report.ok);
                tally.failed += usize::from(!report.ok);
                tally.verdicts_not_checked += report.tally.not_checked;
                print_report(path, &report, args.json)
                    .map_err(|error| format!("cannot write the report: {error}"))?;
            }
            Err(problem) => {
                tally.unchecked += 1;
                eprintln!("conformance: {problem}");
            }
        }
    }
    eprint!("{} of {} within every limit", tally.passed, artifacts.len());
    match tally.verdicts_not_checked {
        0 => eprintln!(),
        verdicts => eprintln!(" that was checked; verdicts not checked: {verdicts}"),
    }
    Ok(tally)
}

/// Checks one artifact, or says in one line why there is no report about it.
fn check_file(
    host: &Host,
    options: &CheckOptions,
    script: Option<&Script>,
    path: &Path,
) -> Result<Report, String> {
    let wasm = read_artifact(path)?;
    check(host, &wasm, options, script)
        .map_err(|error| format!("{}: {}", path.display(), error_line(&error)))
}

fn print_report(path: &Path, report: &Report, json: bool) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    if json {
        // A path need not be UTF-8, JSON must.
        let artifact = path.display().to_string();
        writeln!(
            stdout,
            "{}",
            json!({ "artifact": artifact, "report": report })
        )
    } else {
        writeln!(stdout, "{report}")
    }
}

/// The committed fixtures.
fn fixtures() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).join("fixtures")
}

/// The path itself, or the `.wasm` files of a directory in order of name.
fn wasm_files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let shown = path.display();
    let problem = |error: std::io::Error| format!("{shown}: {error}");
    if !std::fs::metadata(path).map_err(problem)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(problem)? {
        let file = entry.map_err(problem)?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("{shown}: no .wasm file in this directory"));
    }
    Ok(files)
}

/// Reads a wasm module, or says in one line why not.
pub(crate) fn read_artifact(path: &Path) -> Result<Vec<u8>, String> {
    files::read_artifact(path).map_err(|error| error_line(&error))
}

/// Reads a script, or says in one line why not.
pub(crate) fn read_script(path: &Path) -> Result<Script, String> {
    files::read_script(path).map_err(|error| error_line(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guest whose `meta` fails with an error text that would draw over a terminal and over the
    /// verdicts of others.
    fn hostile_guest() -> Vec<u8> {
        let text = r#"(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (import "extism:host/env" "error_set" (func $error (param i64)))
  (memory (export "memory") 1)
  (func (export "shellcade_abi") (result i32) (local $at i64)
    (local.set $at (call $alloc (i64.const 8)))
    (call $store (local.get $at) (i64.const 2))
    (call $output (local.get $at) (i64.const 4))
    (i32.const 0))
  ;; Line feed, escape, "[2J", "FAIL", line feed: ten bytes.
  (func (export "meta") (result i32) (local $at i64)
    (local.set $at (call $alloc (i64.const 10)))
    (call $store (i64.add (local.get $at) (i64.const 2)) (i64.const 0x0a4c4941464a325b))
    (call $store (local.get $at) (i64.const 0x4941464a325b1b0a))
    (call $error (local.get $at))
    (i32.const 0))
  (func (export "start") (export "join") (export "leave") (export "input") (export "wake")
    (export "close") (result i32) (i32.const 0)))"#;
        wat::parse_str(text).unwrap()
    }

    /// A game from `fixtures/wat`, written to `dir`.
    fn assembled(dir: &Path, name: &str) -> PathBuf {
        let wasm = wat::parse_file(fixtures().join("wat").join(name).with_extension("wat"));
        let path = dir.join(name).with_extension("wasm");
        std::fs::write(&path, wasm.unwrap()).unwrap();
        path
    }

    fn args(artifact: &[&Path], script: Option<&Path>) -> Args {
        Args {
            artifact: artifact.iter().map(|path| path.to_path_buf()).collect(),
            script: script.map(Path::to_path_buf),
            json: false,
            require_leaderboard: false,
            deadline_ms: None,
        }
    }

    #[test]
    fn a_bad_path_a_text_file_and_a_broken_script_each_give_one_clear_line() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("game.wasm");
        std::fs::write(&text, "hello").unwrap();
        let script = dir.path().join("broken.script");
        std::fs::write(&script, "join 0\njump 1\n").unwrap();
        let missing = dir.path().join("missing.wasm");

        let problem = |result: Result<Vec<u8>, String>| result.unwrap_err();
        assert!(problem(read_artifact(&text)).ends_with("game.wasm: not a wasm module"));
        assert!(problem(read_artifact(&missing)).contains("missing.wasm: "));
        let broken = try_run(&args(&[&text], Some(&script))).unwrap_err();
        assert!(
            broken.ends_with("broken.script: line 2: unknown word \"jump\""),
            "{broken}"
        );
        let empty = tempfile::tempdir().unwrap();
        let none = try_run(&args(&[empty.path()], None)).unwrap_err();
        assert!(none.ends_with("no .wasm file in this directory"), "{none}");
        for line in [broken, none, problem(read_artifact(&missing))] {
            assert!(!line.contains('\n') && !line.contains("FAIL"), "{line}");
        }
    }

    #[test]
    fn a_directory_stands_for_its_modules_in_order_of_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.wasm", "a.wasm", "readme.md"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let files = wasm_files(dir.path()).unwrap();
        assert_eq!(
            files,
            [dir.path().join("a.wasm"), dir.path().join("b.wasm")]
        );
    }

    #[test]
    fn a_failed_verdict_ends_in_1_and_what_cannot_be_checked_in_2() {
        let dir = tempfile::tempdir().unwrap();
        let good = assembled(dir.path(), "ok-smallest");
        let bad = assembled(dir.path(), "fault-wake-trap");
        let text = dir.path().join("text.wasm");
        std::fs::write(&text, "hello").unwrap();
        // Wide, so that a busy machine fails nobody.
        let script = dir.path().join("one.script");
        std::fs::write(&script, "deadline 60s\njoin 0\nwake +50ms\n").unwrap();
        let tally = |artifacts: &[&Path]| try_run(&args(artifacts, Some(&script))).unwrap();
        assert_eq!(tally(&[&good]).exit_code(), 0);
        let failed = tally(&[&good, &bad]);
        assert_eq!((failed.passed, failed.failed), (1, 1));
        assert_eq!(failed.exit_code(), 1);
        let unchecked = tally(&[&bad, &text]);
        assert_eq!((unchecked.failed, unchecked.unchecked), (1, 1));
        assert_eq!(unchecked.exit_code(), 2);
    }

    #[test]
    fn a_guests_error_text_cannot_draw_over_the_report() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hostile.wasm");
        std::fs::write(&path, hostile_guest()).unwrap();
        let host = Host::new(HostOptions::default()).unwrap();
        let problem = check_file(&host, &CheckOptions::default(), None, &path).unwrap_err();
        assert!(problem.contains("[2Jfail\\n"), "{problem:?}");
        assert!(!problem.contains(char::is_control), "{problem:?}");
    }
}
