//! `cabinet rooms`, run as its users run it, on a folder a vault wrote.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cabinet_cli::rooms;
use cabinet_durability::store::{
    Answer, Blob, BlobStore, Condition, DirStore, Key, Page, StoreError, Version, Want,
};
use clap::Parser as _;
use common::place::{Place, SECRET, one_line};
use common::reference;
use common::{cabinet, fixture};

#[test]
fn an_operator_sees_every_room_and_what_is_in_it() {
    let place = Place::new();
    let before = place.files();
    let (live, parked) = (place.live.to_string(), place.parked.to_string());

    let list = place.rooms(&["list"]);
    assert_eq!(list.code, 0, "{list:?}");
    assert!(list.stdout.contains(&format!("{live}  live ")), "{list:?}");
    assert!(
        list.stdout
            .contains(&format!("{parked}  parked   tour  epoch 1")),
        "{list:?}"
    );
    assert!(list.stdout.ends_with("2 rooms, 0 damaged\n"));
    let json: serde_json::Value =
        serde_json::from_str(&place.rooms(&["list", "--json"]).stdout).unwrap();
    assert_eq!(json["rooms"][0]["epoch"], 2);

    let show = place.rooms(&["show", &parked]);
    assert_eq!(show.code, 0, "{show:?}");
    // What a player called themselves does not colour the operator's terminal.
    assert!(show.stdout.contains("ada (Ada\\u{1b}[31m)"), "{show:?}");
    assert!(!show.stdout.contains('\u{1b}'));
    assert!(
        place
            .rooms(&["show", &live])
            .stdout
            .contains("@2 under fence 1")
    );

    let verify = place.rooms(&["verify"]);
    assert_eq!(verify.code, 0, "{verify:?}");
    assert!(verify.stdout.contains(", 0 wrong"), "{verify:?}");

    let (first, second) = (format!("{live}@1"), format!("{live}@2"));
    let diff = place.rooms(&["diff", &first, &second]);
    assert_eq!(diff.code, 1, "{diff:?}");
    assert!(
        diff.stdout
            .contains("room clock: 1700000000050000000, then 1700000000100000000")
    );
    assert!(
        diff.stdout.contains("bytes differ, the first at 0x"),
        "{diff:?}"
    );
    assert_eq!(place.rooms(&["diff", &second, &parked]).code, 0);

    let dump = place.rooms(&["dump", &parked, "--out", "dumped"]);
    assert_eq!(dump.code, 0, "{dump:?}");
    let dumped = |name: &str| fs::read(place.folder.path().join("dumped").join(name)).unwrap();
    let about: serde_json::Value = serde_json::from_slice(&dumped("state.json")).unwrap();
    assert_eq!(about["game"], "tour");
    assert_eq!(about["memory_bytes"], dumped("memory.bin").len());
    let globals: serde_json::Value = serde_json::from_slice(&dumped("globals.json")).unwrap();
    assert_eq!(globals[0]["type"], "i32");
    one_line(&place.rooms(&["dump", &parked, "--out", "dumped"]));

    let game = fixture("tour.wasm");
    let restored = place.rooms(&["restore", &parked, game.to_str().unwrap(), "--wakes", "2"]);
    assert_eq!(restored.code, 0, "{restored:?}");
    assert!(
        restored.stdout.contains("screens after 2 wakes"),
        "{restored:?}"
    );
    let other = fixture("coil.wasm");
    one_line(&place.rooms(&["restore", &parked, other.to_str().unwrap()]));

    assert_eq!(place.files(), before);
}

#[test]
fn verify_names_a_record_that_was_changed() {
    let place = Place::new();
    let sealed = |path: &Path| {
        let text = path.to_string_lossy();
        text.contains("/heads+/") || text.contains("/rooms+/")
    };
    let mut tampered = 0;
    for (path, bytes) in place.files().into_iter().filter(|(path, _)| sealed(path)) {
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            let verify = place.rooms(&["verify", "--json"]);
            assert_eq!(verify.code, 1, "{path:?} at {at}: {verify:?}");
            let told: serde_json::Value = serde_json::from_str(&verify.stdout).unwrap();
            let findings = told["findings"].as_array().unwrap();
            let named = findings.iter().any(|finding| {
                let key = finding["key"].as_str().unwrap();
                let last = key.rsplit('/').next().unwrap();
                path.file_name().unwrap().to_string_lossy().contains(last)
            });
            assert!(named, "{path:?} at {at}: {told}");
            tampered += 1;
        }
        fs::write(&path, bytes).unwrap();
    }
    assert!(tampered >= 3 * 5, "{tampered}");
}

#[cfg(unix)]
#[test]
fn a_pipe_in_a_records_place_is_told_and_not_waited_for() {
    let place = Place::new();
    let head = |(path, _): &(std::path::PathBuf, Vec<u8>)| {
        let text = path.to_string_lossy();
        text.contains("/heads+/") && text.contains(&place.parked.to_string())
    };
    let (head, _) = place.files().into_iter().find(head).unwrap();
    fs::remove_file(&head).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&head).status();
    assert!(made.unwrap().success());
    let parked = place.parked.to_string();
    for (args, code) in [
        (&["list"][..], 1),
        (&["show", &parked], 2),
        (&["reseal"], 2),
    ] {
        let told = place.rooms(args);
        assert_eq!(told.code, code, "{args:?}: {told:?}");
        let said = format!("{}{}", told.stdout, told.stderr);
        assert!(said.contains("a pipe, a socket or a device"), "{said}");
    }
    // It is no record, and the room's head is lost.
    let verify = place.rooms(&["verify"]);
    assert_eq!(verify.code, 1, "{verify:?}");
}

#[test]
fn a_sweep_says_what_it_would_do_and_does_it_when_told_to() {
    let place = Place::new();
    let before = place.files();
    let would = place.rooms(&["sweep"]);
    assert_eq!(would.code, 0, "{would:?}");
    assert!(
        would
            .stdout
            .contains(&format!("would put v1/heads/{}", place.parked)),
        "{would:?}"
    );
    assert!(
        would.stdout.contains("with --write: 1 expired"),
        "{would:?}"
    );
    assert_eq!(place.files(), before);
    let kept = place.rooms(&["sweep", "--parked-for", "36500"]);
    assert!(kept.stdout.contains("0 expired"), "{kept:?}");
    let swept = place.rooms(&["sweep", "--write"]);
    assert!(swept.stdout.contains("1 expired"), "{swept:?}");
    let parked = place.parked.to_string();
    assert!(place.rooms(&["show", &parked]).stdout.contains("expired"));
}

/// A store that refuses writes, as a bucket does to somebody who may only read.
struct Refusing(DirStore);

impl BlobStore for Refusing {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        self.0.get(key, want)
    }

    fn put<'a>(&'a self, _: &'a Key, _: Bytes, _: Condition) -> Answer<'a, Version> {
        Box::pin(async { Err(StoreError::Refused("no permission".into())) })
    }

    fn delete<'a>(&'a self, _: &'a [Key]) -> Answer<'a, ()> {
        Box::pin(async { Err(StoreError::Refused("no permission".into())) })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        self.0.list(prefix, after, limit)
    }
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: rooms::Args,
}

#[test]
fn every_command_that_reads_works_on_a_store_that_refuses_writes() {
    let place = Place::new();
    let (live, parked) = (place.live.to_string(), place.parked.to_string());
    let keys = place.folder.path().join("keys");
    let out = place.folder.path().join("out");
    let record = place.folder.path().join("record");
    let blob = reference::snapshot();
    fs::write(
        &record,
        reference::record(reference::room(1), "tour", &blob),
    )
    .unwrap();
    let game = fixture("tour.wasm");
    for command in [
        &["list"][..],
        &["show", &live],
        &["verify"],
        &["dump", &parked, "--out", out.to_str().unwrap()],
        &["diff", &parked, &parked],
        &["restore", &parked, game.to_str().unwrap()],
        // These only say what they would do.
        &["sweep", "--deep"],
        &["reseal"],
        &[
            "import",
            record.to_str().unwrap(),
            game.to_str().unwrap(),
            "--reference-unsealed",
        ],
    ] {
        let line = [&["rooms", "--key-file", keys.to_str().unwrap()], command].concat();
        let args = Line::try_parse_from(line)
            .unwrap_or_else(|error| panic!("{error}"))
            .args;
        let store = Arc::new(Refusing(DirStore::open(place.store()).unwrap()));
        let outcome = rooms::run_on(store, &args);
        assert_eq!(
            outcome,
            Ok(cabinet_cli::outcome::Outcome::Good),
            "{command:?}"
        );
    }
}

#[test]
fn garbage_is_one_line_that_says_what_to_do() {
    let place = Place::new();
    let folder = place.folder.path();
    fs::write(folder.join("bad-keys"), format!("1 {}zz\n", &SECRET[2..])).unwrap();
    fs::write(
        folder.join("other-keys"),
        format!("2 {}\n", SECRET.replace('3', "4")),
    )
    .unwrap();
    fs::write(folder.join("binary"), [0xff, 0xfe, 0]).unwrap();
    let parked = place.parked.to_string();
    let parked_at = format!("{parked}@9");
    let named = format!("{parked}@x");
    fs::write(folder.join("empty"), "\n").unwrap();
    let tour = fixture("tour.wasm").to_str().unwrap().to_owned();
    let table = [
        (&["rooms", "list"][..], "--store URL"),
        (&["rooms", "list", "--store", "nowhere"], "no such folder"),
        (&["rooms", "list", "--store", "ftp://x"], "s3://BUCKET"),
        (&["rooms", "list", "--store", "s3://"], "no bucket"),
        (&["rooms", "list", "--store", "store"], "--key-file FILE"),
        (
            &["rooms", "list", "--store", "store", "--key-file", "none"],
            "none: ",
        ),
        (
            &[
                "rooms",
                "list",
                "--store",
                "store",
                "--key-file",
                "bad-keys",
            ],
            "line 1",
        ),
        (
            &["rooms", "list", "--store", "store", "--key-file", "binary"],
            "cannot be read",
        ),
        (
            &[
                "rooms",
                "list",
                "--store",
                "store",
                "--unsealed",
                "--key-file",
                "keys",
            ],
            "cannot be used",
        ),
        (
            &[
                "rooms",
                "--store",
                "store",
                "--key-file",
                "keys",
                "list",
                "--unsealed",
            ],
            "do not go together",
        ),
        (
            &[
                "rooms",
                "show",
                "x",
                "--store",
                "store",
                "--key-file",
                "keys",
            ],
            "no room's id",
        ),
        (
            &[
                "rooms",
                "show",
                &parked,
                "--store",
                "store",
                "--key-file",
                "other-keys",
            ],
            "key 1",
        ),
        (
            &[
                "rooms",
                "dump",
                &named,
                "--out",
                "o",
                "--store",
                "store",
                "--key-file",
                "keys",
            ],
            "number",
        ),
        (
            &[
                "rooms",
                "dump",
                &parked_at,
                "--out",
                "o",
                "--store",
                "store",
                "--key-file",
                "keys",
            ],
            "no such checkpoint",
        ),
        (
            &[
                "rooms",
                "restore",
                &parked,
                "keys",
                "--store",
                "store",
                "--key-file",
                "keys",
            ],
            "wasm",
        ),
        (&["rooms", "sweep", "--parked-for", "0"], "parked-for"),
        (
            &["rooms", "reseal", "--store", "store", "--unsealed"],
            "no key to seal under",
        ),
        (&["rooms", "reseal", "--store", "store"], "--key-file FILE"),
        (&["smoke", "none.wasm"], "none.wasm"),
        (
            &["smoke", "binary", "--script", "binary"],
            "smoke.yaml:1: not UTF-8",
        ),
        (&["smoke", "keys", "--check", "--update"], "cannot be used"),
    ];
    let on_the_store = [
        (on_store(&["reseal", "x"]), "unexpected argument"),
        (on_store(&["import"]), "required"),
        (on_store(&["import", "keys", &tour]), "--reference-key"),
        (
            on_store(&["import", "nowhere", &tour, "--reference-key", "binary"]),
            "nowhere: No such file",
        ),
        (
            on_store(&["import", "nowhere", &tour, "--reference-unsealed"]),
            "nowhere: No such file",
        ),
        (
            on_store(&["import", "/dev/null", &tour, "--reference-unsealed"]),
            "/dev/null: a device and no file",
        ),
        (
            on_store(&["import", "ftp://me:hush@x", &tour, "--reference-unsealed"]),
            "\"ftp\" is nothing to import from",
        ),
        (
            on_store(&["import", "s3://b/p", &tour, "--reference-unsealed"]),
            "needs --reference-key FILE",
        ),
        (
            on_store(&["import", "s3://", &tour, "--reference-key", "binary"]),
            "no bucket",
        ),
        (
            on_store(&["import", "store", &tour, "--reference-key", "binary"]),
            "under snapshots/",
        ),
        (
            on_store(&["import", "binary", &tour, "--reference-key", "none"]),
            "none: ",
        ),
        (
            on_store(&["import", "binary", &tour, "--reference-key", "empty"]),
            "no key in it",
        ),
        (
            on_store(&["import", "binary", &tour, "--reference-key", "keys"]),
            "seal does not hold",
        ),
        (
            on_store(&["import", "binary", &tour, "--reference-unsealed"]),
            "--room ROOM",
        ),
        (
            on_store(&[
                "import",
                "binary",
                &tour,
                "--reference-unsealed",
                "--room",
                "x",
            ]),
            "no room's id",
        ),
        (
            on_store(&[
                "import",
                "binary",
                &tour,
                "--reference-unsealed",
                "--room",
                &parked,
            ]),
            "not compressed as a snapshot is",
        ),
        (
            on_store(&[
                "import",
                "binary",
                &tour,
                "--reference-unsealed",
                "--slug",
                "NO",
            ]),
            "--slug NO",
        ),
        (
            on_store(&["import", "binary", "keys", "--reference-unsealed"]),
            "wasm",
        ),
        (
            on_store(&[
                "import",
                "binary",
                &tour,
                "--reference-unsealed",
                "--reference-key",
                "keys",
            ]),
            "cannot be used",
        ),
        (
            on_store(&["restore", &parked, &tour, "--play"]),
            "needs a terminal",
        ),
        (
            on_store(&["restore", &parked, &tour, "--play", "--json"]),
            "no --json",
        ),
        (
            on_store(&["restore", &parked, &tour, "--play", "--wakes", "2"]),
            "cannot be used",
        ),
        (on_store(&["restore", "x", &tour, "--play"]), "no room's id"),
        (
            on_store(&["restore", &parked, &tour, "--color", "pink"]),
            "pink",
        ),
    ];
    let all = table.iter().map(|(args, wanted)| (args.to_vec(), *wanted));
    for (args, wanted) in all.chain(on_the_store) {
        let ran = cabinet(folder, &args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(wanted), "{args:?}: {ran:?}");
        assert!(!ran.stderr.contains(&SECRET[8..16]), "{args:?}: {ran:?}");
        // What clap says ends with the usage, which is more than a line.
        if ran.stderr.starts_with("cabinet: ") {
            one_line(&ran);
        }
    }
}

/// What follows `cabinet rooms` on the store of a place.
fn on_store<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let on = ["--store", "store", "--key-file", "keys"];
    [&["rooms"], words, &on].concat()
}
