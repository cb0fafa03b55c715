//! What a test says when a tool it needs is not here. The tests of `cabinet-cli` take this file too.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Mutex;

/// Says on one line, once in a process, that the tests that need `tool` are not run, and why; where
/// nobody misses it: the test harness hides what a test prints and not this.
///
/// # Panics
/// If `CABINET_MUST_RUN` lists the tool, as `.ci/run` has it do of what it found or installed: what CI
/// has, it must test with.
pub fn skipped(tool: &'static str, why: &str) {
    static SAID: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    let must_run = std::env::var("CABINET_MUST_RUN").unwrap_or_default();
    assert!(
        !must_run.split_whitespace().any(|listed| listed == tool),
        "CABINET_MUST_RUN lists {tool}, and it is not here: {why}"
    );
    let mut said = match SAID.lock() {
        Ok(said) => said,
        Err(poisoned) => poisoned.into_inner(),
    };
    if said.insert(tool) {
        let _ = writeln!(std::io::stderr(), "SKIPPED what needs {tool}: {why}");
    }
}
