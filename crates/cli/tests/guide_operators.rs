//! The commands of `docs/guide-operators.md`, run in the order they stand there.

mod common;

use std::fs;
use std::process::Command;
use std::sync::Arc;

use cabinet_durability::seal::{Keyring, MasterKey, Sealing};
use cabinet_durability::store::DirStore;
use cabinet_durability::{Header, OwnerId, RoomIds, Vault, VaultOptions};
use cabinet_host::{GameOptions, Host, HostOptions, MemoryServices, Mode, RoomConfig, Seed};
use common::{fixture, reference, state_of};

const GUIDE: &str = include_str!("../../../docs/guide-operators.md");
const NOW_MS: u64 = 1_700_000_000_000;

#[test]
fn every_command_of_the_guide_runs() {
    let folder = tempfile::tempdir().unwrap();
    let secret = "3f9a0c57".repeat(8);
    fs::write(folder.path().join("keys"), format!("1 {secret}\n")).unwrap();
    fs::copy(fixture("tour.wasm"), folder.path().join("tour.wasm")).unwrap();
    let wasm = fs::read(fixture("tour.wasm")).unwrap();
    let mut options = GameOptions::default();
    options.deadline = std::time::Duration::from_secs(60);
    let game = Host::new(HostOptions::default())
        .unwrap()
        .load(&wasm, &options)
        .unwrap();
    let config = RoomConfig {
        mode: Mode::Private,
        capacity: 2,
        min_players: 1,
        seed: Seed::Set(7),
        resident: true,
        deadline: None,
        heartbeat: None,
    };
    let mut room = game.room(config, Box::new(MemoryServices::new()));
    let now = i64::try_from(NOW_MS).unwrap() * 1_000_000;
    let _ = room.start(now);
    let id = RoomIds::default().next(NOW_MS, [1; 8]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Arc::new(DirStore::open(folder.path().join("store")).unwrap());
        let sealing = Sealing::Keys(Keyring::new(MasterKey::from_hex(1, &secret).unwrap()));
        let options = VaultOptions::new(OwnerId::named("node"));
        let vault = Vault::open(store, sealing, options).unwrap();
        let lease = vault.create(id, NOW_MS).await.unwrap();
        let packed = lease.pack(
            lease.next_epoch(),
            game.digest(),
            &state_of(&mut room),
            NOW_MS,
        );
        let header = Header {
            slug: "tour".to_owned(),
            at: now,
            roster: Vec::new(),
        };
        lease.park(&packed.unwrap(), header, NOW_MS).await.unwrap();
    });

    let commands: Vec<&str> = GUIDE
        .split("```sh\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .flat_map(str::lines)
        .collect();
    assert_eq!(commands.len(), 15, "{commands:?}");
    let left = folder.path().join("reference/snapshots");
    fs::create_dir_all(&left).unwrap();
    let old = reference::room(9);
    let record = reference::record(old, "tour", &reference::snapshot());
    fs::write(left.join(old.to_string()), reference::sealed(&record)).unwrap();
    fs::write(folder.path().join("reference-key"), reference::KEY).unwrap();
    let program = env!("CARGO_BIN_EXE_cabinet");
    let script = commands
        .join("\n")
        .replace("cabinet rooms", "\"$CABINET\" rooms");
    let ran = Command::new("sh")
        .args(["-e", "-c", &script])
        .current_dir(folder.path())
        .env("CABINET", program)
        .env("ROOM", id.to_string())
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(ran.status.success(), "{out}\n{err}");
    assert!(
        out.contains("screens after 3 wakes") && out.contains("1 expired"),
        "{out}"
    );
    assert!(out.contains("\n2 records sealed under key 2"), "{out}");
    assert!(out.contains("\n1 rooms imported"), "{out}");
}
