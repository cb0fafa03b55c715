//! The fields that `docs/FORMATS.md` names are those that `--json` prints, and no others.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use common::place::Place;
use common::reference::{record, room, snapshot};
use common::{Ran, cabinet, fixture};
use serde_json::Value;

const FORMATS: &str = include_str!("../../../docs/FORMATS.md");

/// The lines of the section with this heading, up to the next one.
fn section(heading: &str) -> Vec<&'static str> {
    let mut lines = FORMATS.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "no section {heading}");
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with('#')).collect();
    assert!(!lines.is_empty(), "nothing under {heading}");
    lines
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Every field that the section of a command names, with the way to it.
fn documented(command: &str) -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    for line in section(&format!("### `cabinet {command}`")) {
        let cells: Vec<&str> = line.split('|').collect();
        let [_, within, names, ..] = cells[..] else {
            continue;
        };
        let within = quoted(within).next();
        for name in quoted(names) {
            let field = within.map_or(name.to_owned(), |within| format!("{within}.{name}"));
            assert!(fields.insert(field), "{command}: {name} twice");
        }
    }
    assert!(!fields.is_empty(), "{command}");
    fields
}

/// Every field of a value, with the way to it. Where `*` is documented, any name is one.
fn written(value: &Value, within: &str, documented: &BTreeSet<String>, to: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let field = |name: &str| match within {
                    "" => name.to_owned(),
                    _ => format!("{within}.{name}"),
                };
                let any = field("*");
                let field = if documented.contains(&any) {
                    any
                } else {
                    field(name)
                };
                written(value, &field, documented, to);
                to.insert(field);
            }
        }
        Value::Array(list) => {
            for value in list {
                written(value, &format!("{within}[]"), documented, to);
            }
        }
        _ => {}
    }
}

/// All that was printed, taken together, has the documented fields.
fn agree(command: &str, printed: &[Ran]) {
    let documented = documented(command);
    let mut fields = BTreeSet::new();
    for ran in printed {
        assert!(ran.code < 2, "{command}: {ran:?}");
        for value in serde_json::Deserializer::from_str(&ran.stdout).into_iter::<Value>() {
            let value = value.unwrap_or_else(|error| panic!("{command}: {error}: {ran:?}"));
            written(&value, "", &documented, &mut fields);
        }
    }
    assert_eq!(fields, documented, "{command}");
}

/// A directory with games, one of which says twice as much as it should and dies.
fn desk() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    for name in ["tour.wasm", "coil.wasm", "crowd.wasm", "fences.wasm"] {
        put(name, &fs::read(fixture(name)).unwrap());
    }
    let text = fs::read_to_string(fixture("wat/fault-error-text.wat")).unwrap();
    // Nine players at least and four at most.
    let odd = text.replace("0x0100000000770001", "0x0900000000770001");
    assert_ne!(odd, text);
    put("odd.wasm", &wat::parse_str(odd).unwrap());
    put(
        "all.script",
        b"deadline 60s\njoin 0\nwake\nshot seen\nsnapshot\nwake +50ms\n",
    );
    put(
        "smoke.yaml",
        b"seed: 1\nseats: 1\nsteps:\n  - shot: start\n",
    );
    dir
}

#[test]
fn what_check_prints_is_documented() {
    let desk = desk();
    let check = |args: &[&str]| cabinet(desk.path(), &[&["check", "--json"], args].concat());
    let script = ["--script", "all.script"];
    let random = ["--deadline", "60s", "--random", "1", "--seed", "1"];
    agree(
        "check --json",
        &[
            check(&[&["tour.wasm", "--profile"], &script[..]].concat()),
            check(&[&["odd.wasm", "--shrink"], &script[..]].concat()),
            check(&[&["tour.wasm"], &random[..]].concat()),
        ],
    );
}

#[test]
fn what_the_other_commands_print_is_documented() {
    let desk = desk();
    let run = |args: &[&str]| cabinet(desk.path(), args);
    let games = [
        "tour.wasm",
        "coil.wasm",
        "crowd.wasm",
        "fences.wasm",
        "odd.wasm",
    ];
    let metas: Vec<Ran> = games
        .iter()
        .map(|game| run(&["meta", game, "--json"]))
        .collect();
    agree("meta --json", &metas);
    // There is one form.
    assert_eq!(run(&["meta", "tour.wasm"]).stdout, metas[0].stdout);
    agree("config --json", &[run(&["config", "tour.wasm", "--json"])]);
    agree("lint --json", &[run(&["lint", "tour.wasm", "--json"])]);
    agree("new --json", &[run(&["new", "maze", "--json"])]);
    agree("version --json", &[run(&["version", "--json"])]);

    for (file, key) in [("a.jsonl", "x"), ("b.jsonl", "y")] {
        let script = format!("deadline 60s\njoin 0\ninput 0 '{key}'\nwake +50ms\n");
        fs::write(desk.path().join("keys.script"), script).unwrap();
        let trace = [
            "trace",
            "tour.wasm",
            "--grids",
            "--script",
            "keys.script",
            "-o",
            file,
        ];
        assert_eq!(run(&trace).code, 0);
    }
    let differ = run(&["diff", "a.jsonl", "b.jsonl", "--json"]);
    assert_eq!(differ.code, 1, "{differ:?}");
    agree("diff --json", &[differ]);
    assert_eq!(
        run(&["diff", "a.jsonl", "a.jsonl", "--json"]).stdout,
        "null\n"
    );

    let smoke = ["smoke", "tour.wasm", "--json", "--out", "shots"];
    agree("smoke --json", &[run(&smoke)]);
    fs::write(desk.path().join("shots/01-start.txt"), "other\n").unwrap();
    let check = run(&[&smoke[..], &["--check"]].concat());
    assert_eq!(check.code, 1, "{check:?}");
    agree("smoke --check --json", &[check]);

    let record = [
        "play",
        "tour.wasm",
        "--bench-first-frame",
        "--record",
        "a.cabp",
    ];
    assert_eq!(run(&[&record[..], &["--config", "k=v"]].concat()).code, 0);
    agree("replay --json", &[run(&["replay", "a.cabp", "--json"])]);
    let frame = ["replay", "a.cabp", "--json", "--frame", "2"];
    let dump = ["replay", "a.cabp", "--json", "--dump"];
    agree("replay --frame N --json", &[run(&frame), run(&dump)]);
}

/// The outermost fields that the row of a command of `rooms` names: before each colon.
fn of_rooms(command: &str) -> BTreeSet<String> {
    let begins = format!("| `{command}` | ");
    let rows = section("## What `cabinet rooms --json` prints");
    let row = rows.iter().find_map(|line| line.strip_prefix(&begins));
    let row = row.unwrap_or_else(|| panic!("no row for {command}"));
    let parts = row.split("; ");
    let names = parts.flat_map(|part| quoted(part.split(':').next().unwrap_or(part)));
    names.map(str::to_owned).collect()
}

#[test]
fn what_rooms_prints_is_documented() {
    let place = Place::new();
    let (live, parked) = (place.live.to_string(), place.parked.to_string());
    fs::write(
        place.folder.path().join("record"),
        record(room(1), "tour", &snapshot()),
    )
    .unwrap();
    let game = fixture("tour.wasm");
    let game = game.to_str().unwrap();
    let head = section("## What `cabinet rooms --json` prints").join(" ");
    let head = head.split("A **head**: ").nth(1).unwrap();
    let head: BTreeSet<&str> = quoted(head.split("Of a room whose head").next().unwrap()).collect();
    for args in [
        &["list"][..],
        &["show", &parked],
        &["verify"],
        &["dump", &parked, "--out", "dumped"],
        &["diff", &parked, &live],
        &["restore", &parked, game],
        &["reseal"],
        &["import", "record", game, "--reference-unsealed"],
        &["sweep"],
    ] {
        let ran = place.rooms(&[&["--json"], args].concat());
        assert!(ran.code < 2, "{args:?}: {ran:?}");
        let told: Value = serde_json::from_str(&ran.stdout).unwrap();
        let names: BTreeSet<String> = told.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, of_rooms(args[0]), "{args:?}");
        for shown in [&told["head"], &told["rooms"][0]] {
            for name in shown
                .as_object()
                .into_iter()
                .flat_map(serde_json::Map::keys)
            {
                assert!(head.contains(name.as_str()), "{name} of a head");
            }
        }
    }
    assert!(Path::new(&place.folder.path().join("dumped/state.json")).is_file());
}
