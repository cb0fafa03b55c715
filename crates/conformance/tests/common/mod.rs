//! What the test files share.

use std::io::Write as _;

/// Says that a test has proven nothing because what it reads is not here.
///
/// Written to the handle itself: what goes through `eprintln!` the test runner keeps to itself when
/// the test passes.
pub fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}");
}
