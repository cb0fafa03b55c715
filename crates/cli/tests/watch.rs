//! `check --watch` as a real process, while real files are saved.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

mod games;

/// How long the next line may take. A build of the standard library is a minute on a quiet machine.
const WIDE: Duration = Duration::from_secs(600);
/// The line that says that a check is over.
const WATCHING: &str = "; stop with Ctrl-C";

struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(dir: &Path, game: &str) -> Self {
        let cabinet = games::cabinet(dir);
        // One pipe for both streams, so that their lines come in the order they were written.
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "exec \"$0\" \"$@\" 2>&1"])
            .arg(cabinet.get_program())
            .args(["check", game, "--watch", "--deadline", "60s"])
            .current_dir(dir)
            .stdout(Stdio::piped());
        let set = cabinet.get_envs();
        shell.envs(set.filter_map(|(name, value)| Some((name, value?))));
        let mut child = shell.spawn().unwrap();
        let (to, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().try_for_each(|line| to.send(line.unwrap())));
        Self { child, lines }
    }

    /// What is said until the next check is over.
    fn checked(&self) -> String {
        let mut said = String::new();
        loop {
            match self.lines.recv_timeout(WIDE) {
                Ok(line) => said = said + &line + "\n",
                Err(why) => panic!("{why} after:\n{said}"),
            }
            if said.ends_with(&format!("{WATCHING}\n")) {
                return said;
            }
        }
    }

    /// Saves that come in a row may be one check or several; what is told last is of the last.
    fn checked_until(&self, text: &str) -> String {
        loop {
            let said = self.checked();
            if said.contains(text) {
                return said;
            }
        }
    }

    /// Ctrl-C, and the exit code.
    fn control_c(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Of one that was waited for there is nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn module(name: &str) -> Vec<u8> {
    let wat = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/wat");
    wat::parse_file(wat.join(name).with_extension("wat")).unwrap()
}

/// As linkers and editors do it: under another name first.
fn replace(path: &Path, bytes: &[u8]) {
    let other = path.with_extension("new");
    fs::write(&other, bytes).unwrap();
    fs::rename(other, path).unwrap();
}

#[test]
fn a_module_that_is_replaced_or_written_in_place_is_checked_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("game.wasm");
    let (good, bad) = (module("ok-smallest"), module("fault-wake-trap"));
    fs::write(&path, &good).unwrap();
    let watch = Watch::start(dir.path(), "game.wasm");
    assert!(watch.checked().contains("6 verdicts within limits"));

    replace(&path, &bad);
    assert!(watch.checked_until("FAIL  guest fault").contains("pass"));
    fs::write(&path, b"half a modu").unwrap();
    watch.checked_until("game.wasm: not a wasm module");
    fs::remove_file(&path).unwrap();
    watch.checked_until("game.wasm: ");
    // What lies beside it is none of its business; the next check is of the game.
    fs::write(dir.path().join("notes.txt"), "x").unwrap();
    for _ in 0..10 {
        replace(&path, &good);
        fs::write(&path, &bad).unwrap();
    }
    replace(&path, &good);
    watch.checked_until("6 verdicts within limits");
    assert_eq!(watch.control_c(), Some(0));
}

#[test]
fn control_c_ends_it_with_the_code_of_the_last_check() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("game.wasm");
    for (bytes, code) in [(module("fault-wake-trap"), 1), (b"text".to_vec(), 2)] {
        fs::write(&path, bytes).unwrap();
        let watch = Watch::start(dir.path(), "game.wasm");
        watch.checked();
        assert_eq!(watch.control_c(), Some(code));
    }
}

#[test]
fn a_source_that_is_saved_is_built_and_checked_and_a_mistake_in_it_is_survived() {
    if !games::can_build() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    games::succeed(games::cabinet(dir.path()).args(["new", "watched"]));
    let source = dir.path().join("watched/src/lib.rs");
    let text = fs::read_to_string(&source).unwrap();
    let watch = Watch::start(dir.path(), "watched");
    assert!(watch.checked().contains("6 verdicts within limits"));

    fs::write(&source, text.replace("keys += 1", "keys +=")).unwrap();
    let said = watch.checked_until("watched does not build");
    assert!(said.contains("error: expected expression"), "{said}");
    let panics = text.replace("self.keys += 1", "panic!(\"by its author\")");
    fs::write(&source, panics).unwrap();
    assert!(watch.checked_until("FAIL").contains("guest fault"));
    replace(&source, text.as_bytes());
    watch.checked_until("6 verdicts within limits");
    assert_eq!(watch.control_c(), Some(0));
}
