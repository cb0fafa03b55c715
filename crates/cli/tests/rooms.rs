//! `cabinet rooms`, run as its users run it, on a folder a vault wrote.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use cabinet_cli::rooms;
use cabinet_durability::seal::{Keyring, MasterKey, Sealing};
use cabinet_durability::store::{
    Answer, Blob, BlobStore, Condition, DirStore, Key, Page, StoreError, Version, Want,
};
use cabinet_durability::{Header, Member, OwnerId, RoomId, RoomIds, Vault, VaultOptions};
use cabinet_host::{
    GameOptions, Host, HostOptions, MemoryServices, Mode, Player, RoomConfig, Seed,
};
use clap::Parser as _;
use common::{Ran, cabinet, fixture, state_of};

const SECRET: &str = "3f9a0c573f9a0c573f9a0c573f9a0c573f9a0c573f9a0c573f9a0c573f9a0c57";
const NOW_MS: u64 = 1_700_000_000_000;

/// A folder with a store in it, the keys, a live room and a parked one.
struct Place {
    folder: tempfile::TempDir,
    live: RoomId,
    parked: RoomId,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("keys"), format!("# now\n1 {SECRET}\n")).unwrap();
        let mut ids = RoomIds::default();
        let (live, parked) = (ids.next(NOW_MS, [1; 8]), ids.next(NOW_MS, [2; 8]));
        let place = Self {
            folder,
            live,
            parked,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(place.fill());
        place
    }

    async fn fill(&self) {
        let store = Arc::new(DirStore::open(self.store()).unwrap());
        let sealing = Sealing::Keys(Keyring::new(MasterKey::from_hex(1, SECRET).unwrap()));
        let options = VaultOptions::new(OwnerId::named("node"));
        let vault = Vault::open(store, sealing, options).unwrap();
        let wasm = fs::read(fixture("tour.wasm")).unwrap();
        let mut load = GameOptions::default();
        load.deadline = std::time::Duration::from_secs(60);
        let game = Host::new(HostOptions::default())
            .unwrap()
            .load(&wasm, &load)
            .unwrap();
        let mut room = game.room(
            RoomConfig {
                mode: Mode::Private,
                capacity: 2,
                min_players: 1,
                seed: Seed::Set(7),
                resident: false,
                deadline: None,
                heartbeat: None,
            },
            Box::new(MemoryServices::new()),
        );
        let now = i64::try_from(NOW_MS).unwrap() * 1_000_000;
        let player = Player {
            account: "ada".to_owned(),
            handle: "Ada\u{1b}[31m".to_owned(),
            conn: "c".to_owned(),
            kind: cabinet_host::Kind::Member,
            character: cabinet_host::Character::default(),
        };
        let _ = room.start(now);
        let _ = room.join(now, player);
        let lease = vault.create(self.live, NOW_MS).await.unwrap();
        for beat in 1..3 {
            let _ = room.wake(now + beat * 50_000_000);
            let packed = lease.pack(
                lease.next_epoch(),
                game.digest(),
                &state_of(&mut room),
                NOW_MS,
            );
            lease.write(&packed.unwrap(), NOW_MS).await.unwrap();
        }
        let lease = vault.create(self.parked, NOW_MS).await.unwrap();
        let packed = lease.pack(
            lease.next_epoch(),
            game.digest(),
            &state_of(&mut room),
            NOW_MS,
        );
        let roster = vec![Member {
            account: "ada".to_owned(),
            handle: "Ada\u{1b}[31m".to_owned(),
        }];
        let slug = "tour".to_owned();
        let header = Header {
            slug,
            at: now,
            roster,
        };
        lease.park(&packed.unwrap(), header, NOW_MS).await.unwrap();
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn rooms(&self, args: &[&str]) -> Ran {
        let all = [&["rooms", "--store", "store", "--key-file", "keys"], args].concat();
        cabinet(self.folder.path(), &all)
    }

    /// Every file of the store, and what is in it.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut folders = vec![self.store()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push((path.clone(), fs::read(path).unwrap()));
                }
            }
        }
        files.sort();
        files
    }
}

fn one_line(ran: &Ran) -> &str {
    assert_eq!((ran.code, ran.stderr.lines().count()), (2, 1), "{ran:?}");
    assert!(!ran.stderr.contains(&SECRET[..8]), "{ran:?}");
    &ran.stderr
}

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
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (live, parked) = (place.live.to_string(), place.parked.to_string());
    let keys = place.folder.path().join("keys");
    let out = place.folder.path().join("out");
    let game = fixture("tour.wasm");
    for command in [
        &["list"][..],
        &["show", &live],
        &["verify"],
        &["dump", &parked, "--out", out.to_str().unwrap()],
        &["diff", &parked, &parked],
        &["restore", &parked, game.to_str().unwrap()],
        // It only says what it would do.
        &["sweep"],
    ] {
        let line = [&["rooms", "--key-file", keys.to_str().unwrap()], command].concat();
        let args = Line::try_parse_from(line)
            .unwrap_or_else(|error| panic!("{error}"))
            .args;
        let store = Arc::new(Refusing(DirStore::open(place.store()).unwrap()));
        let outcome = runtime.block_on(rooms::run_on(store, &args));
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
    for (args, wanted) in [
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
        (&["smoke", "none.wasm"], "none.wasm"),
        (
            &["smoke", "binary", "--script", "binary"],
            "smoke.yaml:1: not UTF-8",
        ),
        (&["smoke", "keys", "--check", "--update"], "cannot be used"),
    ] {
        let ran = cabinet(folder, args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(wanted), "{args:?}: {ran:?}");
        assert!(!ran.stderr.contains(&SECRET[8..16]), "{args:?}: {ran:?}");
        // What clap says ends with the usage, which is more than a line.
        if ran.stderr.starts_with("cabinet: ") {
            one_line(&ran);
        }
    }
}
