//! A store on disk as a vault leaves it, for tests of `cabinet rooms`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use cabinet_durability::seal::{Keyring, MasterKey, Sealing};
use cabinet_durability::store::DirStore;
use cabinet_durability::{Header, Lease, Member, OwnerId, RoomId, RoomIds, Vault, VaultOptions};
use cabinet_host::{
    GameOptions, Host, HostOptions, MemoryServices, Mode, Player, RoomConfig, Seed,
};

use cabinet_wire::ArtifactDigest;

use super::{Ran, cabinet, fixture, state_of};

pub const SECRET: &str = "3f9a0c573f9a0c573f9a0c573f9a0c573f9a0c573f9a0c573f9a0c573f9a0c57";
pub const NOW_MS: u64 = 1_700_000_000_000;

/// A folder with a store in it, the keys, a live room and a parked one.
pub struct Place {
    pub folder: tempfile::TempDir,
    pub live: RoomId,
    pub parked: RoomId,
}

impl Place {
    pub fn new() -> Self {
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
        let vault = place.vault(&[(1, SECRET)]);
        runtime.unwrap().block_on(place.fill(&vault));
        place
    }

    /// Writes the two rooms into a store.
    pub async fn fill(&self, vault: &Vault) {
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
            write_next(&lease, game.digest(), &state_of(&mut room)).await;
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

    /// A process with these keys, the first of which seals.
    pub fn vault(&self, keys: &[(u32, &str)]) -> Vault {
        let key = |(id, digits): &(u32, &str)| MasterKey::from_hex(*id, digits).unwrap();
        let mut ring = Keyring::new(key(&keys[0]));
        for older in &keys[1..] {
            ring = ring.with_older(key(older)).unwrap();
        }
        let store = Arc::new(DirStore::open(self.store()).unwrap());
        let options = VaultOptions::new(OwnerId::named("node"));
        Vault::open(store, Sealing::Keys(ring), options).unwrap()
    }

    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub fn rooms(&self, args: &[&str]) -> Ran {
        let all = [&["rooms", "--store", "store", "--key-file", "keys"], args].concat();
        cabinet(self.folder.path(), &all)
    }

    /// Every file of the store, and what is in it.
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
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

pub fn one_line(ran: &Ran) -> &str {
    assert_eq!((ran.code, ran.stderr.lines().count()), (2, 1), "{ran:?}");
    assert!(!ran.stderr.contains(&SECRET[..8]), "{ran:?}");
    &ran.stderr
}

/// A room's owner writes its next checkpoint.
pub async fn write_next(lease: &Lease, artifact: ArtifactDigest, state: &[u8]) {
    let packed = lease.pack(lease.next_epoch(), artifact, state, NOW_MS);
    lease.write(&packed.unwrap(), NOW_MS).await.unwrap();
}
