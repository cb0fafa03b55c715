//! What the tests of kept rooms share: processes that have a runtime and a keeper on one store, and a
//! store that can be down.

#![allow(dead_code)] // each test binary uses its part

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use cabinet_durability::cadence::CadenceRules;
use cabinet_durability::seal::{Keyring, MasterKey, Sealing};
use cabinet_durability::store::{
    Answer, Blob, BlobStore, Condition, Key, MemoryStore, Page, StoreError, Version, Want,
};
use cabinet_durability::{OwnerId, Vault, VaultOptions};
use cabinet_host::Player;
use cabinet_rooms::keeper::{Keeper, KeeperOptions, ReclaimedRoom};
use cabinet_rooms::{
    GameSlug, Listed, Listing, Registry, RoomHandle, RoomSpec, Runtime, RuntimeOptions, Seat,
};
use cabinet_wire::Lifecycle;

use tokio::sync::Notify;

use super::common::{WIDE, fixture, game, load, spec};

/// A memory store that can be down, and counts its requests.
#[derive(Default)]
pub struct Store {
    inner: MemoryStore,
    down: AtomicBool,
    pub requests: AtomicU64,
    /// Puts under keys that begin so wait until this is lifted.
    held: Mutex<Option<&'static str>>,
    lifted: Notify,
    /// The next put of a head is done, and neither answered nor seen for a moment.
    loses: AtomicBool,
}

impl Store {
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Holds every put under keys that begin so.
    pub fn hold(&self, prefix: &'static str) {
        *self.held.lock().unwrap() = Some(prefix);
    }

    pub fn lift(&self) {
        *self.held.lock().unwrap() = None;
        self.lifted.notify_waiters();
    }

    /// The next put of a head is done and its answer lost, and so is that of the read after it.
    pub fn lose_a_head(&self) {
        self.loses.store(true, Ordering::SeqCst);
    }

    async fn held(&self, key: &Key) {
        loop {
            let lifted = self.lifted.notified();
            let held = *self.held.lock().unwrap();
            if !held.is_some_and(|prefix| key.as_str().starts_with(prefix)) {
                return;
            }
            lifted.await;
        }
    }

    fn ask(&self) -> Result<(), StoreError> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("down".into()));
        }
        Ok(())
    }
}

impl BlobStore for Store {
    fn get<'a>(&'a self, key: &'a Key, want: Want) -> Answer<'a, Option<Blob>> {
        Box::pin(async move {
            self.ask()?;
            if key.as_str().starts_with("v1/heads/") && self.loses.swap(false, Ordering::SeqCst) {
                return Err(StoreError::Unavailable("the answer was lost".into()));
            }
            self.inner.get(key, want).await
        })
    }

    fn put<'a>(&'a self, key: &'a Key, bytes: Bytes, condition: Condition) -> Answer<'a, Version> {
        Box::pin(async move {
            self.held(key).await;
            self.ask()?;
            let done = self.inner.put(key, bytes, condition).await;
            if key.as_str().starts_with("v1/heads/") && self.loses.load(Ordering::SeqCst) {
                return Err(StoreError::Ambiguous("the answer was lost".into()));
            }
            done
        })
    }

    fn delete<'a>(&'a self, keys: &'a [Key]) -> Answer<'a, ()> {
        Box::pin(async move {
            self.ask()?;
            self.inner.delete(keys).await
        })
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        limit: usize,
    ) -> Answer<'a, Page> {
        Box::pin(async move {
            self.ask()?;
            self.inner.list(prefix, after, limit).await
        })
    }
}

/// Names of everything in a store.
pub async fn names(store: &dyn BlobStore) -> Vec<String> {
    let page = store.list("", None, 1_000).await.unwrap();
    page.entries
        .iter()
        .map(|entry| entry.key.as_str().to_owned())
        .collect()
}

/// A process: a runtime, a registry and a keeper.
pub struct Process {
    pub runtime: Runtime,
    pub registry: Registry,
    pub keeper: Keeper,
}

pub fn vault(store: &Arc<Store>, owner: &str) -> Vault {
    let mut key = [5; 32];
    key[0] = 1;
    let ring = Keyring::new(MasterKey::new(1, key).unwrap());
    let options = VaultOptions::new(OwnerId::named(owner));
    let store: Arc<dyn BlobStore> = store.clone();
    Vault::open(store, Sealing::Keys(ring), options).unwrap()
}

/// A keeper's options under that name, whose cadence never comes.
pub fn options(store: &Arc<Store>, owner: &str) -> KeeperOptions {
    let handle = tokio::runtime::Handle::current();
    let mut options = KeeperOptions::new(vault(store, owner), handle);
    options.cadence = CadenceRules {
        base: Duration::from_secs(1 << 20),
        jitter: Duration::ZERO,
    };
    options
}

/// A process of that name, whose cadence never comes unless told.
pub fn process(store: &Arc<Store>, owner: &str) -> Process {
    process_with(store, owner, |_| {})
}

pub fn process_with(
    store: &Arc<Store>,
    owner: &str,
    change: impl FnOnce(&mut KeeperOptions),
) -> Process {
    let mut options = options(store, owner);
    change(&mut options);
    let mut runtime = RuntimeOptions::default();
    runtime.threads = 1;
    process_on(options, runtime)
}

pub fn process_on(options: KeeperOptions, runtime: RuntimeOptions) -> Process {
    Process {
        runtime: Runtime::new(runtime).unwrap(),
        registry: Registry::new(),
        keeper: Keeper::new(options),
    }
}

impl Process {
    /// A room that one player is in, and that is taken in the store.
    pub async fn plays(&self, listed: &Arc<Listed>, player: Player) -> (RoomHandle, Seat) {
        let room = self.keeper.open(&self.runtime, listed, spec()).unwrap();
        let seat = room.join(player).await.unwrap();
        until_taken(self).await;
        (room, seat)
    }

    /// What becomes of the rooms that others left, all of whom are dead.
    pub async fn reclaims(&self) -> Vec<ReclaimedRoom> {
        self.keeper
            .reclaim(&self.runtime, &self.registry, everybody, spec_of)
            .await
            .unwrap()
    }

    /// Offers `tour` under this lifecycle.
    pub fn offers(&self, lifecycle: Lifecycle) -> Arc<Listed> {
        self.registry
            .add(Listing::new(game("tour.wasm")).with_lifecycle(lifecycle))
            .unwrap()
    }

    /// Offers a `tour` that was updated: the same code, another artifact.
    pub fn offers_update(&self, lifecycle: Lifecycle) -> Arc<Listed> {
        static UPDATED: OnceLock<cabinet_host::Game> = OnceLock::new();
        let game = UPDATED.get_or_init(|| {
            let mut wasm = fixture("tour.wasm");
            // A custom section named `x`.
            wasm.extend([0, 2, 1, b'x']);
            load(&wasm, WIDE)
        });
        self.registry
            .add(Listing::new(game.clone()).with_lifecycle(lifecycle))
            .unwrap()
    }
}

/// How many wakes the player's screen tells of.
pub async fn wakes_seen(seat: &mut Seat) -> u32 {
    let view = seat.frames().next().await.expect("a frame");
    wakes_in(&view.frame)
}

pub fn wakes_in(frame: &cabinet_host::Frame) -> u32 {
    let row = frame.row_text(1);
    let count = row.split("wakes=").nth(1).unwrap();
    count.split(' ').next().unwrap().parse().unwrap()
}

pub fn everybody(_: &OwnerId) -> bool {
    true
}

pub fn store() -> Arc<Store> {
    Arc::new(Store::default())
}

/// Waits until something that is under way has come about.
pub async fn until(mut come: impl AsyncFnMut() -> bool) {
    while !come().await {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub async fn until_taken(process: &Process) {
    until(async || process.keeper.stats().unclaimed == 0).await;
}

pub fn spec_of(_: &GameSlug) -> RoomSpec {
    spec()
}
