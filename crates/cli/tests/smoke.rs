//! `cabinet smoke`, run as its users run it, on the games of `fixtures`.

mod common;

use std::fs;
use std::path::Path;

use common::{Ran, cabinet, fixture};

const SCRIPT: &str = "seed: 1234\nseats: 2\nsteps:\n  - shot: start\n  - rune: \"a\"\n  - key: enter\n  \
    - seat: 1\n  - text: \"ok\"\n  - advance: 250ms\n  - wake:\n  - shot: mid\n  - shot: only-one\n    \
    seats: [1]\n";

fn smoke(folder: &Path, game: &str, more: &[&str]) -> Ran {
    let (game, script) = (fixture(game), folder.join("smoke.yaml"));
    let mut args = vec![
        "smoke",
        game.to_str().unwrap(),
        "--script",
        script.to_str().unwrap(),
    ];
    args.extend(more);
    cabinet(folder, &args)
}

fn scripted(script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("smoke.yaml"), script).unwrap();
    folder
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_files_of_a_run_are_written_and_named() {
    let folder = scripted(SCRIPT);
    let ran = smoke(folder.path(), "tour.wasm", &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let written = names(&folder.path().join("smoke-out"));
    assert!(
        written.contains(&"03-only-one.ansi".to_owned()),
        "{written:?}"
    );
    assert!(
        written.contains(&"03-only-one.txt".to_owned()),
        "{written:?}"
    );
    let mut told: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(told.pop(), Some("smoke: 3 shots → smoke-out"));
    told.sort();
    assert_eq!(told, written);
    let text = fs::read(folder.path().join("smoke-out/03-only-one.txt")).unwrap();
    assert_eq!(text.iter().filter(|byte| **byte == b'\n').count(), 24);
}

#[test]
fn two_runs_write_the_same_bytes() {
    let folder = scripted(SCRIPT);
    for out in ["one", "two"] {
        assert_eq!(smoke(folder.path(), "coil.wasm", &["--out", out]).code, 0);
    }
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    assert_eq!(names(&one), names(&two));
    for name in names(&one) {
        assert_eq!(
            fs::read(one.join(&name)).unwrap(),
            fs::read(two.join(&name)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn committed_shots_are_made_checked_and_told_apart() {
    let folder = scripted(SCRIPT);
    let shots = folder.path().join("shots");
    let missing = smoke(folder.path(), "tour.wasm", &["--check"]);
    assert_eq!(
        (missing.code, missing.stderr.lines().count()),
        (2, 1),
        "{missing:?}"
    );
    assert!(missing.stderr.contains("--update"));

    assert_eq!(smoke(folder.path(), "tour.wasm", &["--update"]).code, 0);
    let same = smoke(folder.path(), "tour.wasm", &["--check"]);
    assert_eq!(same.code, 0, "{same:?}");

    // One cell is made another.
    let path = shots.join("03-only-one.ansi");
    let committed = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = committed.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 24);
    assert!(lines[23].starts_with("\u{1b}[0m "), "{:?}", lines[23]);
    lines[23] = format!("\u{1b}[0;1mZ\u{1b}[0m{}", &lines[23][5..]);
    let changed = lines.join("\n") + "\n";
    fs::write(&path, changed).unwrap();
    // One is taken away, one comes from nowhere.
    fs::remove_file(shots.join("03-only-one.txt")).unwrap();
    fs::write(shots.join("07-gone.ansi"), &committed).unwrap();
    fs::write(shots.join("07-gone.txt"), "").unwrap();
    // Named like a shot, and none: nobody's notes are removed.
    fs::write(shots.join("10-minutes-of-meeting.txt"), "ours").unwrap();
    fs::write(shots.join("README.md"), "ours").unwrap();
    let differs = smoke(folder.path(), "tour.wasm", &["--check"]);
    assert_eq!(differs.code, 1, "{differs:?}");
    assert!(
        differs.stdout.contains("03-only-one.ansi: "),
        "{}",
        differs.stdout
    );
    assert!(
        differs.stdout.contains("row 23, col 0: \"Z\" bold, now "),
        "{}",
        differs.stdout
    );
    assert!(differs.stdout.contains("03-only-one.txt: not committed"));
    assert!(differs.stdout.contains("07-gone.txt: no shot makes it"));
    assert!(!differs.stdout.contains("README") && !differs.stdout.contains("minutes"));
    let json = smoke(folder.path(), "tour.wasm", &["--check", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["same"], false);
    assert_eq!(json["differing"][0]["shot"], "03-only-one");

    let updated = smoke(folder.path(), "tour.wasm", &["--update"]);
    assert!(updated.stdout.contains("removed 07-gone.ansi"));
    assert!(updated.stdout.contains("removed 07-gone.txt"));
    assert!(shots.join("README.md").exists());
    assert!(shots.join("10-minutes-of-meeting.txt").exists());
    assert_eq!(smoke(folder.path(), "tour.wasm", &["--check"]).code, 0);
}

#[test]
fn pictures_are_made_where_they_are_wanted_and_compared_by_what_they_look_like() {
    let folder = scripted(SCRIPT);
    let shots = folder.path().join("shots");
    let picture = shots.join("03-only-one.png");
    let run = |args: &[&str]| smoke(folder.path(), "tour.wasm", args);
    assert_eq!(run(&["--update", "--png"]).code, 0);
    let first = fs::read(&picture).unwrap();
    assert_eq!(&first[..8], b"\x89PNG\r\n\x1a\n");
    let stems = |ending: &str| {
        let names = names(&shots).into_iter();
        let stems = names.filter_map(|name| name.strip_suffix(ending).map(str::to_owned));
        stems.collect::<Vec<_>>()
    };
    assert_eq!(stems(".png"), stems(".ansi"));
    assert_eq!(run(&["--update", "--png"]).code, 0);
    assert_eq!(fs::read(&picture).unwrap(), first);
    assert_eq!(run(&["--check", "--png"]).code, 0);

    // Another shot's picture in its place.
    fs::copy(shots.join(format!("{}.png", stems(".png")[0])), &picture).unwrap();
    let differs = run(&["--check", "--png"]);
    assert_eq!(differs.code, 1, "{differs:?}");
    assert!(differs.stdout.contains("03-only-one.png: "), "{differs:?}");
    assert!(differs.stdout.contains("  row "), "{differs:?}");
    fs::write(&picture, "no picture").unwrap();
    assert!(
        run(&["--check", "--png"])
            .stdout
            .contains("is no picture of a screen")
    );
    // Who does not ask for pictures is not told of them, and keeps none that may have grown old.
    assert_eq!(run(&["--check"]).code, 0);
    assert!(
        run(&["--update"])
            .stdout
            .contains("removed 03-only-one.png")
    );
    assert!(stems(".png").is_empty());
    let missing = run(&["--check", "--png"]);
    assert_eq!(missing.code, 1, "{missing:?}");
    assert!(missing.stdout.contains("03-only-one.png: not committed"));
}

#[test]
fn a_seed_changes_what_is_drawn_and_a_config_is_the_guests() {
    let drawn = |seed: &str| {
        let folder = scripted(&format!(
            "seed: {seed}\nseats: 1\nsteps:\n  - key: enter\n  - advance: 2s\n  - shot: a\n"
        ));
        let ran = smoke(folder.path(), "coil.wasm", &[]);
        assert_eq!(ran.code, 0, "{ran:?}");
        fs::read(folder.path().join("smoke-out/01-a.ansi")).unwrap()
    };
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
}

#[test]
fn what_a_run_dies_of_is_one_line_that_says_where() {
    for (script, game, wanted) in [
        (
            "seed: 1\nseats: 8\nsteps: [{shot: a}]",
            "coil.wasm",
            "seats 8 outside the game's 1..",
        ),
        (
            "seed: 1\nseats: 1\nheartbeat: 1500us\nsteps: [{shot: a}]",
            "coil.wasm",
            "smoke: heartbeat 1.5ms must be a whole number of milliseconds",
        ),
        (
            "seed: 1\nseats: 1\nsteps: [{shots: a}]",
            "coil.wasm",
            "smoke.yaml:3: unknown step",
        ),
    ] {
        let folder = scripted(script);
        let ran = smoke(folder.path(), game, &[]);
        assert_eq!((ran.code, ran.stderr.lines().count()), (2, 1), "{ran:?}");
        assert!(ran.stderr.contains(wanted), "{ran:?}");
        assert!(!folder.path().join("smoke-out").exists());
    }
}

#[test]
fn a_guest_that_draws_nothing_or_dies_is_named_with_the_line() {
    for (guest, script, wanted) in [
        (
            "ok-smallest",
            "seed: 1\nseats: 1\nsteps:\n  - wake:\n  - shot: a\n",
            "smoke: shot \"a\": seat 0 has no frame yet — the game has not rendered for it (smoke.yaml:5)",
        ),
        (
            "fault-wake-trap",
            "seed: 1\nseats: 1\nsteps:\n  - wake:\n  - shot: a\n",
            "smoke: guest faulted during step 0 (wake) (exit ",
        ),
        (
            "fault-join-trap",
            "seed: 1\nseats: 1\nsteps:\n  - shot: a\n",
            "smoke: guest faulted during join seat 0 (exit ",
        ),
    ] {
        let folder = scripted(script);
        let wasm = wat::parse_file(fixture(&format!("wat/{guest}.wat"))).unwrap();
        fs::write(folder.path().join("game.wasm"), wasm).unwrap();
        let ran = cabinet(folder.path(), &["smoke", "game.wasm"]);
        assert_eq!(
            (ran.code, ran.stderr.lines().count()),
            (2, 1),
            "{guest}: {ran:?}"
        );
        assert!(ran.stderr.contains(wanted), "{guest}: {ran:?}");
    }
}
