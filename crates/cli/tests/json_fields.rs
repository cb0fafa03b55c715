//! The fields that `docs/FORMATS.md` names are those that `--json` prints, and no others.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::place::Place;
use common::reference::{record, room, snapshot};
use common::{Ran, cabinet, fixture};
use serde_json::Value;

const FORMATS: &str = include_str!("../../../docs/FORMATS.md");

/// The commands whose sections are compared with what they print.
const COMPARED: &[&str] = &[
    "check --json",
    "config --json",
    "diff --json",
    "lint --json",
    "meta --json",
    "new --json",
    "replay --json",
    "replay --frame N --json",
    "rooms list --json",
    "rooms show --json",
    "rooms verify --json",
    "rooms dump --json",
    "rooms diff --json",
    "rooms restore --json",
    "rooms reseal --json",
    "rooms import --json",
    "rooms sweep --json",
    "smoke --json",
    "smoke --check --json",
    "version --json",
];

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
    assert!(COMPARED.contains(&command), "{command}");
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

#[test]
fn every_section_is_compared() {
    let sections: Vec<&str> = FORMATS
        .lines()
        .filter_map(|line| line.strip_prefix("### `cabinet ")?.strip_suffix('`'))
        .collect();
    assert_eq!(sections, COMPARED);
}

#[test]
fn what_rooms_prints_is_documented() {
    // The same rooms twice.
    let (place, damaged) = (Place::new(), Place::new());
    let (live, parked) = (place.live.to_string(), place.parked.to_string());
    let put = |name: &str, bytes: &[u8]| {
        let path = place.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    // A parked room, and a checkpoint, which is sealed.
    let left = |n: u8| format!("reference/snapshots/{}", room(n));
    put(&left(1), &record(room(1), "tour", &snapshot()));
    put(&format!("{}/latest", left(2)), b"sealed");
    assert_eq!(damaged.parked, place.parked);
    let mut heads = files(&damaged.store());
    heads.retain(|path| path.to_string_lossy().contains("heads") && path.ends_with(&parked));
    assert_eq!(heads.len(), 1);
    let game = fixture("tour.wasm");
    let game = game.to_str().unwrap();
    for (args, is_damage_shown) in [
        (&["list"][..], true),
        (&["show", &parked], true),
        (&["verify"], true),
        (&["dump", &parked, "--out", "dumped"], false),
        (&["diff", &parked, &live], false),
        (&["restore", &parked, game], false),
        (&["reseal"], true),
        (
            &["import", "reference", game, "--reference-unsealed"],
            false,
        ),
        (&["sweep"], false),
    ] {
        let mut printed = vec![place.rooms(&[&["--json"], args].concat())];
        if is_damage_shown {
            // One that does not open is nothing to show; one that is gone is.
            match args[0] {
                "show" => fs::remove_file(&heads[0]).unwrap(),
                _ => fs::write(&heads[0], "no record").unwrap(),
            }
            let ran = damaged.rooms(&[&["--json"], args].concat());
            assert_eq!(ran.code, 1, "{args:?}: {ran:?}");
            printed.push(ran);
        }
        agree(&format!("rooms {} --json", args[0]), &printed);
    }
    assert!(Path::new(&place.folder.path().join("dumped/state.json")).is_file());
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| match path.is_dir() {
        true => files(&path),
        false => vec![path],
    };
    paths.flat_map(of).collect()
}
