//! A game from each template, built: it passes `check` and `smoke --check` as it is made, its own
//! tests pass, and it can be played.

use std::path::Path;
use std::process::Command;

mod games;

/// What a new author does, in a directory of this name.
fn begin(dir: &str, name: &str, template: &str, license: &str) {
    if !games::can_build() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join(dir);
    std::fs::create_dir(&dir).unwrap();
    let cabinet = |args: &[&str]| games::succeed(games::cabinet(&dir).args(args));
    cabinet(&["new", name, "--template", template, "--license", license]);
    // Whether it is fast enough is not asked of a busy machine.
    let checked = cabinet(&["check", name, "--deadline", "60s"]);
    assert!(checked.contains("6 verdicts within limits"), "{checked}");
    let filmed = cabinet(&["smoke", name, "--check"]);
    assert!(filmed.contains("2 screens as committed in "), "{filmed}");
    cabinet(&["lint", name]);
    let meta: serde_json::Value = serde_json::from_str(json(&cabinet(&["meta", name]))).unwrap();
    assert_eq!(meta["slug"], name);
    let played = cabinet(&["play", name, "--bench-first-frame"]);
    assert!(played.contains("first_frame_ms"), "{played}");
    own_tests(&dir.join(name));
    changed_screen_is_told(&dir, name);
}

/// What was printed to stdout, in front of what the build said to stderr.
fn json(said: &str) -> &str {
    let end = said.rfind("\n}").map_or(said.len(), |at| at + 2);
    &said[..end]
}

/// The game's own tests, as its CI runs them.
fn own_tests(game: &Path) {
    let mut cargo = Command::new("cargo");
    let told = games::succeed(
        cargo
            .args(["test", "--offline"])
            .current_dir(game)
            .env("CARGO_TARGET_DIR", games::target()),
    );
    assert!(told.contains("1 passed"), "{told}");
}

/// An edit that is seen is what `smoke --check` finds, until it is meant.
fn changed_screen_is_told(dir: &Path, name: &str) {
    let source = dir.join(name).join("src/lib.rs");
    let text = std::fs::read_to_string(&source).unwrap();
    std::fs::write(&source, text.replace("space: press", "space: PRESS")).unwrap();
    let smoke = |flag| games::cabinet(dir).args(["smoke", name, flag]).output();
    let differs = smoke("--check").unwrap();
    assert_eq!(differs.status.code(), Some(1), "{differs:?}");
    let said = games::said(&differs);
    assert!(said.contains("+ 22 |") && said.contains("PRESS"), "{said}");
    for (flag, code) in [("--update", 0), ("--check", 0)] {
        assert_eq!(smoke(flag).unwrap().status.code(), Some(code), "{flag}");
    }
}

#[test]
fn a_game_from_the_blank_template_passes_as_it_is() {
    begin("here", "lamp", "blank", "MIT");
}

#[test]
fn a_game_from_the_sprint_template_passes_in_a_directory_of_an_odd_name() {
    begin("mes jeux & co, zoë's", "tic-tac-2", "sprint", "Apache-2.0");
}

#[test]
fn a_game_whose_name_is_no_crates_passes_too() {
    begin("here", "2048", "blank", "Unlicense");
}
