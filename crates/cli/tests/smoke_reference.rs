//! `cabinet smoke` beside `shellcade-kit smoke`: the same scripts make the same bytes, and what
//! neither plays is refused in the same words.
//!
//! What the reference made is recorded in `smoke_reference/shots.sha256` and `refusals.toml`, so that
//! a clone compares with it. Where its program is at hand it is run again: `CABINET_REFERENCE_BIN`
//! names it, or else it is `bin/shellcade-kit` in the checkout that `CABINET_REFERENCE` names.
//! `CABINET_WRITE_VECTORS=1` then records anew.

#[path = "smoke_reference/cases.rs"]
mod cases;
mod common;
#[path = "smoke_reference/painter.rs"]
mod painter;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cases::{CASES, Case, Game};
use common::{Ran, cabinet, fixture};
use serde::{Deserialize, Serialize};

/// What the name of an error begins with, theirs and ours.
const PREFIXES: [&str; 2] = ["shellcade-kit: ", "cabinet: "];

/// What `refusals.toml` begins with.
const HEADER: &str = "\
# Scripts that are not played: what the reference says, and where we say something else on purpose,
# what. Where it plays what we refuse, `reference` is empty. `CABINET_WRITE_VECTORS=1` with the
# reference's program writes `reference` anew.

";

/// Shot files by name.
type Files = BTreeMap<String, Vec<u8>>;

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/smoke_reference")
        .join(name)
}

/// Said on the handle itself: the test runner keeps what a test that passes prints.
fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}");
}

fn checkout() -> Option<PathBuf> {
    std::env::var_os("CABINET_REFERENCE").map(PathBuf::from)
}

/// The reference's program.
fn program() -> Option<PathBuf> {
    let named = std::env::var_os("CABINET_REFERENCE_BIN").map(PathBuf::from);
    named.or_else(|| Some(checkout()?.join("bin/shellcade-kit")).filter(|path| path.is_file()))
}

fn recording() -> bool {
    std::env::var_os("CABINET_WRITE_VECTORS").is_some()
}

/// Runs the reference in a folder.
fn reference(program: &Path, folder: &Path, args: &[&str]) -> Ran {
    let output = Command::new(program)
        .current_dir(folder)
        .args(args)
        .output();
    let output = output.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A case's folder, with its script and the guest where that is made here.
fn laid_out(script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("smoke.yaml"), script).unwrap();
    folder
}

/// Where a case's game is; `None` without the reference's checkout for what is there.
fn game_of(case: &Case, folder: &Path) -> Option<PathBuf> {
    match case.game {
        Game::Ours(name) => Some(fixture(name)),
        Game::Theirs(name) => Some(checkout()?.join("host/gameabi/testdata").join(name)),
        Game::Painter => {
            let path = folder.join("painter.wasm");
            fs::write(&path, painter::guest(&painter::pages())).unwrap();
            Some(path)
        }
    }
}

fn smoke<'a>(game: &'a Path, out: &'a str) -> [&'a str; 6] {
    let game = game.to_str().unwrap();
    ["smoke", game, "--script", "smoke.yaml", "--out", out]
}

fn files(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The line of `shots.sha256` for a file.
fn line(case: &Case, name: &str, bytes: &[u8]) -> String {
    format!("{}  {}/{name}", hex(bytes), case.name)
}

/// Ours, and what it printed.
fn ours(case: &Case, folder: &Path, game: &Path) -> (Files, String) {
    let ran = cabinet(folder, &smoke(game, "shots"));
    assert_eq!(ran.code, 0, "{}: {ran:?}", case.name);
    let files = files(&folder.join("shots"));
    fs::remove_dir_all(folder.join("shots")).unwrap();
    (files, ran.stdout)
}

#[test]
fn shots_are_the_references_by_what_was_recorded_of_it() {
    let text = fs::read_to_string(recorded("shots.sha256")).unwrap();
    let mut missing = 0;
    for case in CASES {
        let folder = laid_out(case.script);
        let Some(game) = game_of(case, folder.path()) else {
            missing += 1;
            continue;
        };
        let (files, _) = ours(case, folder.path(), &game);
        let made: Vec<String> = files
            .iter()
            .map(|(name, bytes)| line(case, name, bytes))
            .collect();
        let of_case = |line: &&str| line.contains(&format!("  {}/", case.name));
        let wanted: Vec<&str> = text.lines().filter(of_case).collect();
        assert_eq!(made, wanted, "{}", case.name);
    }
    if missing > 0 {
        skipped(&format!(
            "{missing} of {} smoke cases: their games are the reference's, and CABINET_REFERENCE is not set",
            CASES.len()
        ));
    }
}

#[test]
fn shots_and_what_is_printed_are_the_references_run_beside_it() {
    let Some(program) = program() else {
        return skipped(
            "smoke beside the reference: no CABINET_REFERENCE_BIN, and no bin/shellcade-kit in CABINET_REFERENCE",
        );
    };
    let mut lines = String::new();
    for case in CASES {
        let folder = laid_out(case.script);
        let Some(game) = game_of(case, folder.path()) else {
            assert!(!recording(), "CABINET_REFERENCE is needed to record");
            continue;
        };
        let theirs = reference(&program, folder.path(), &smoke(&game, "shots"));
        assert_eq!(theirs.code, 0, "{}: {theirs:?}", case.name);
        let expected = files(&folder.path().join("shots"));
        fs::remove_dir_all(folder.path().join("shots")).unwrap();
        let (made, printed) = ours(case, folder.path(), &game);
        for (name, bytes) in &expected {
            let (theirs, ours) = (String::from_utf8_lossy(bytes), made.get(name));
            let ours = ours.map(|bytes| String::from_utf8_lossy(bytes));
            assert_eq!(ours.as_deref(), Some(&*theirs), "{}/{name}", case.name);
            lines.push_str(&line(case, name, bytes));
            lines.push('\n');
        }
        assert_eq!(made, expected, "{}", case.name);
        assert_eq!(printed, theirs.stdout, "{}", case.name);
    }
    if recording() {
        fs::write(recorded("shots.sha256"), lines).unwrap();
    }
}

/// A script that is not played.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    script: String,
    /// What the reference says of it, without its own name in front.
    reference: String,
    /// What we say where that is on purpose something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    ours: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Refusals {
    refusal: Vec<Refusal>,
}

fn refusals() -> Refusals {
    toml::from_str(&fs::read_to_string(recorded("refusals.toml")).unwrap()).unwrap()
}

/// What an error says, without who says it.
fn said(ran: &Ran) -> String {
    assert_ne!(ran.code, 0, "{ran:?}");
    let text = ran.stderr.trim_end();
    let bare = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix));
    bare.unwrap_or(text).to_owned()
}

#[test]
fn scripts_are_refused_in_the_references_words_as_recorded() {
    let refusals = refusals().refusal;
    assert!(refusals.len() > 100, "{}", refusals.len());
    for refusal in refusals {
        let folder = laid_out(&refusal.script);
        let ran = cabinet(folder.path(), &smoke(&fixture("coil.wasm"), "shots"));
        assert_eq!(ran.code, 2, "{refusal:?}: {ran:?}");
        let wanted = refusal.ours.as_ref().unwrap_or(&refusal.reference);
        assert_eq!(&said(&ran), wanted, "{}", refusal.script);
        assert!(!folder.path().join("shots").exists());
    }
}

#[test]
fn scripts_are_refused_in_the_references_words_beside_it() {
    let Some(program) = program() else {
        return skipped(
            "refusals beside the reference: no CABINET_REFERENCE_BIN, and no bin/shellcade-kit in CABINET_REFERENCE",
        );
    };
    let mut refusals = refusals();
    for refusal in &mut refusals.refusal {
        let folder = laid_out(&refusal.script);
        let ran = reference(
            &program,
            folder.path(),
            &smoke(&fixture("coil.wasm"), "shots"),
        );
        // Where it plays what we refuse, nothing is recorded of it.
        let theirs = if ran.code == 0 {
            String::new()
        } else {
            said(&ran)
        };
        if recording() {
            refusal.reference = theirs;
        } else {
            assert_eq!(theirs, refusal.reference, "{}", refusal.script);
        }
    }
    if recording() {
        let text = HEADER.to_owned() + &toml::to_string(&refusals).unwrap();
        fs::write(recorded("refusals.toml"), text).unwrap();
    }
}
