//! One room that is kept: taken in the store, checkpointed on its cadence, parked, ended.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use cabinet_durability::cadence::{CadenceRules, Fired, Scheduler};
use cabinet_durability::{Epoch, Header, Lease, Member, Packed, RoomId, VaultError, Written};
use cabinet_host::Player;
use cabinet_wire::Lifecycle;
use futures_util::future::{self, Either};
use tokio::sync::watch;

use super::{Inner, KeepError, error_line, state};
use crate::captures::{CapturePool, Captured};
use crate::room::{CheckpointError, EndReason, Phase, RoomHandle};
use crate::runtime::Runtime;

/// The wait before a room is taken, or ended, in the store the second time; doubles after that.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often the end of a room is told to the store; then a sweep or a reclaim finishes it.
const END_ATTEMPTS_MAX: u32 = 12;
/// Callbacks of a room that nothing was captured of.
const NEVER: u64 = u64::MAX;

pub(crate) struct Kept {
    inner: Weak<Inner>,
    captures: Arc<CapturePool>,
    room: RoomHandle,
    rules: CadenceRules,
    lease: OnceLock<Arc<Lease>>,
    /// Replaced when a parking failed and the room goes on.
    scheduler: Mutex<Option<Scheduler>>,
    /// The room's callbacks at the last capture that was written.
    written_at: AtomicU64,
    since_prune: AtomicU32,
    /// The room is being parked: nothing else is captured.
    parking: watch::Sender<bool>,
    /// The runtime is shutting down.
    closing: Arc<AtomicBool>,
}

impl Kept {
    pub(super) fn new(
        inner: &Arc<Inner>,
        runtime: &Runtime,
        room: RoomHandle,
        rules: CadenceRules,
        lease: Option<Lease>,
    ) -> Arc<Self> {
        let kept = Self {
            inner: Arc::downgrade(inner),
            captures: Arc::clone(runtime.captures()),
            closing: runtime.closing(),
            parking: watch::Sender::new(false),
            room,
            rules,
            lease: OnceLock::new(),
            scheduler: Mutex::new(None),
            written_at: AtomicU64::new(NEVER),
            since_prune: AtomicU32::new(0),
        };
        if let Some(lease) = lease {
            // Set once, here or when the room is taken.
            let _ = kept.lease.set(Arc::new(lease));
        }
        Arc::new(kept)
    }

    pub(crate) fn room(&self) -> RoomId {
        self.room.id()
    }

    pub(crate) fn handle(&self) -> &RoomHandle {
        &self.room
    }

    /// Whether the room's lifecycle knows parking.
    pub(crate) fn parks(&self) -> bool {
        self.room.status().lifecycle == Lifecycle::Resumable
    }

    pub(crate) fn lease(&self) -> Option<&Arc<Lease>> {
        self.lease.get()
    }

    /// Begins the room's tasks.
    pub(super) fn start(self: &Arc<Self>) {
        let Some(inner) = self.inner.upgrade() else {
            return;
        };
        let kept = Arc::clone(self);
        inner.options.executor.spawn(async move {
            if kept.take().await {
                kept.schedule();
            }
        });
        let kept = Arc::clone(self);
        inner.options.executor.spawn(async move {
            kept.until_the_end().await;
        });
    }

    /// Takes a new room in the store, for as long as it takes. `false`: it is over, or somebody
    /// else's.
    async fn take(&self) -> bool {
        let mut wait = RETRY_FIRST;
        while self.lease.get().is_none() {
            let Some(inner) = self.inner.upgrade() else {
                return false;
            };
            if self.room.status().phase.is_over() {
                return false;
            }
            let vault = &inner.options.vault;
            let taken = match vault.create(self.room(), inner.now_ms()).await {
                Err(VaultError::Fenced { .. }) => self.take_own(&inner).await,
                taken => taken.map(Some),
            };
            match taken {
                Ok(Some(lease)) => {
                    // Nobody else takes this room.
                    let _ = self.lease.set(Arc::new(lease));
                    return true;
                }
                Ok(None) => {
                    tracing::error!(room = %self.room(), "a new room is in the store already");
                    self.fenced(&inner);
                    return false;
                }
                Err(error) => {
                    inner.counts.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(
                        room = %self.room(), error = error_line(&error), again_in = ?wait,
                        "room not taken in the store; it goes on, and would be lost with this process"
                    );
                }
            }
            inner.sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
        true
    }

    /// Takes the head that an earlier attempt of ours left, whose answer was lost. `None`: it is
    /// somebody else's.
    async fn take_own(&self, inner: &Inner) -> Result<Option<Lease>, VaultError> {
        let vault = &inner.options.vault;
        match vault.head(self.room()).await? {
            Some(head) if head.owner == vault.owner() && head.object.is_none() => {
                let (lease, _) = vault.claim(self.room(), inner.now_ms()).await?;
                Ok(Some(lease))
            }
            _ => Ok(None),
        }
    }

    /// Begins the cadence, at the epoch the lease is at.
    fn schedule(self: &Arc<Self>) {
        let (Some(inner), Some(lease)) = (self.inner.upgrade(), self.lease.get()) else {
            return;
        };
        let pace = Arc::clone(&inner.options.pace);
        let scheduler = Scheduler::new(self.rules, lease.next_epoch(), pace.now(), inner.draw());
        {
            let mut current = self.lock();
            if current.is_some() || self.room.status().phase.is_over() {
                return;
            }
            *current = Some(scheduler.clone());
        }
        let kept = Arc::clone(self);
        let executor = inner.options.executor.clone();
        drop(inner);
        executor.spawn(async move {
            let draw = || kept.inner.upgrade().map_or(0, |inner| inner.draw());
            let idle = || kept.room.callbacks() == kept.written_at.load(Ordering::Acquire);
            scheduler
                .run(&*pace, draw, idle, |epoch| kept.fire(epoch))
                .await;
        });
    }

    /// One checkpoint of the cadence.
    async fn fire(&self, epoch: Epoch) -> Fired {
        match self.capture_and_write(Some(epoch)).await {
            Ok(Written::Newest) => Fired::Written,
            Ok(_) => match self.lease.get() {
                Some(lease) => Fired::Passed(lease.epoch()),
                None => Fired::Failed,
            },
            Err(Stopped::Over | Stopped::Fenced(_)) => Fired::Stop,
            Err(Stopped::Failed(_)) => Fired::Failed,
        }
    }

    /// One checkpoint now.
    pub(super) async fn checkpoint_now(&self) -> Result<(), KeepError> {
        // The cadence may have the epoch just now: then the next one is ours.
        for _ in 0..3 {
            match self.capture_and_write(None).await {
                Ok(Written::Newest) => return Ok(()),
                Ok(_) => {}
                Err(Stopped::Over) if self.lease.get().is_none() => {
                    return Err(KeepError::NotTaken);
                }
                Err(Stopped::Over) => return Err(KeepError::NotKept),
                Err(Stopped::Fenced(error) | Stopped::Failed(error)) => return Err(error),
            }
        }
        Err(KeepError::Overtaken)
    }

    async fn capture_and_write(&self, epoch: Option<Epoch>) -> Result<Written, Stopped> {
        let inner = self.inner.upgrade().ok_or(Stopped::Over)?;
        let lease = self.lease.get().ok_or(Stopped::Over)?;
        // Before the capture: what is captured is in memory until it is written.
        let capturing = pin!(async {
            let permit = Arc::clone(&inner.in_flight).acquire_owned().await;
            let permit = permit.map_err(|_| Stopped::Over)?;
            match self.room.capture().await {
                Ok(captured) => Ok((permit, captured)),
                Err(CheckpointError::Closed) => Err(Stopped::Over),
                Err(error) => {
                    let error = KeepError::Capture(error);
                    self.failed(&inner, "checkpoint", &error);
                    Err(Stopped::Failed(error))
                }
            }
        });
        // A room that is being parked answers nobody, and parking waits for what is under way.
        let mut parking = self.parking.subscribe();
        let parks = pin!(async move {
            // The sender lives as long as this room is kept.
            let _ = parking.wait_for(|parks| *parks).await;
        });
        let (_permit, captured) = match future::select(capturing, parks).await {
            Either::Left((captured, _)) => captured?,
            Either::Right(_) => return Err(Stopped::Failed(KeepError::Parking)),
        };
        let callbacks = captured.callbacks;
        let epoch = epoch.unwrap_or_else(|| lease.next_epoch());
        let written = async {
            let packed = self.pack(&inner, epoch, captured).await?;
            let written = lease.write(&packed, inner.now_ms()).await?;
            Ok::<_, KeepError>((packed, written))
        };
        match written.await {
            Ok((packed, written)) => {
                if written == Written::Newest {
                    inner.counts.checkpoints.fetch_add(1, Ordering::Relaxed);
                    let bytes = packed.stored_bytes();
                    inner.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
                    self.written_at.store(callbacks, Ordering::Release);
                    self.prune_now_and_then(&inner, lease).await;
                }
                Ok(written)
            }
            Err(error) if self.failed(&inner, "checkpoint", &error) => Err(Stopped::Fenced(error)),
            Err(error) => Err(Stopped::Failed(error)),
        }
    }

    /// Deletes old checkpoints, once in a while.
    async fn prune_now_and_then(&self, inner: &Inner, lease: &Lease) {
        let since = self.since_prune.fetch_add(1, Ordering::Relaxed) + 1;
        if since < inner.options.prune_every {
            return;
        }
        self.since_prune.store(0, Ordering::Relaxed);
        let pruned = lease.prune(&inner.options.retention, inner.now_ms()).await;
        if let Err(error) = pruned {
            tracing::debug!(room = %self.room(), error = error_line(&error), "old checkpoints stay");
        }
    }

    /// Encodes, compresses and seals, on a thread that may be busy.
    async fn pack(
        &self,
        inner: &Arc<Inner>,
        epoch: Epoch,
        captured: Captured,
    ) -> Result<Packed, KeepError> {
        let now_ms = inner.now_ms();
        let captures = Arc::clone(&self.captures);
        let lease = Arc::clone(self.lease.get().ok_or(KeepError::NotTaken)?);
        let packing = inner.options.executor.spawn_blocking(move || {
            let artifact = captured.snapshot.artifact();
            let mut bytes = captures.take(state::bytes_about(&captured));
            let encoded = state::encode(&captured, &mut bytes);
            captures.give(captured.snapshot.into_buffer());
            let packed = encoded
                .map_err(KeepError::from)
                .and_then(|()| Ok(lease.pack(epoch, artifact, &bytes, now_ms)?));
            captures.give(bytes);
            packed
        });
        packing.await.map_err(KeepError::Executor)?
    }

    /// Parks the room, or, where its lifecycle knows no parking, leaves a last checkpoint for
    /// whoever reclaims it.
    pub(super) async fn park(self: &Arc<Self>, captured: Captured) -> Result<(), KeepError> {
        // What the cadence has under way is written first, if it is captured; it would have our
        // epoch.
        self.parking.send_replace(true);
        let scheduler = self.lock().take();
        if let Some(scheduler) = scheduler {
            scheduler.close().await;
        }
        let parked = self.park_captured(captured).await;
        if parked.is_err() {
            self.parking.send_replace(false);
        }
        if let (Err(error), Some(inner)) = (&parked, self.inner.upgrade())
            && !self.failed(&inner, "parking", error)
        {
            // The room goes on.
            self.schedule();
        }
        parked
    }

    async fn park_captured(&self, captured: Captured) -> Result<(), KeepError> {
        let inner = self.inner.upgrade().ok_or(KeepError::NotKept)?;
        let lease = self.lease.get().ok_or(KeepError::NotTaken)?;
        let permit = Arc::clone(&inner.in_flight).acquire_owned().await;
        let _permit = permit.map_err(|_| KeepError::NotKept)?;
        let header = Header {
            slug: captured.slug.as_str().into(),
            at: captured.at,
            roster: captured.roster.iter().map(member).collect(),
        };
        let parks = captured.lifecycle == Lifecycle::Resumable;
        let epoch = lease.next_epoch();
        let packed = self.pack(&inner, epoch, captured).await?;
        if parks {
            lease.park(&packed, header, inner.now_ms()).await?;
            inner.counts.parked.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        match lease.write(&packed, inner.now_ms()).await? {
            Written::Newest => {
                inner.counts.checkpoints.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            // An attempt nobody knew of has that epoch: capture again.
            _ => Err(KeepError::Overtaken),
        }
    }

    /// What a failure means to the room. `true`: another process has it, and it is dropped here.
    fn failed(&self, inner: &Inner, what: &str, error: &KeepError) -> bool {
        if matches!(error, KeepError::Vault(VaultError::Fenced { .. })) {
            self.fenced(inner);
            return true;
        }
        inner.counts.failed.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            room = %self.room(), slug = self.room.slug().as_str(), error = error_line(error),
            "{what} failed; it is tried again"
        );
        false
    }

    /// Another process has the room: there must not be two of it.
    fn fenced(&self, inner: &Inner) {
        inner.counts.fenced.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            room = %self.room(), slug = self.room.slug().as_str(),
            "another process has the room; it is dropped here"
        );
        self.room.evict();
    }

    /// Waits until the room is over, and tells the store.
    async fn until_the_end(&self) {
        let ending = self.room.ended().await;
        let scheduler = self.lock().take();
        if let Some(scheduler) = scheduler {
            scheduler.close().await;
        }
        let settled = match ending.reason {
            // Parked, somebody else's, or as it was.
            EndReason::Hibernated | EndReason::Moved | EndReason::NotResumed => false,
            // Not its own end: it goes on from its last checkpoint wherever it is reclaimed.
            EndReason::Host => false,
            EndReason::Closed if self.closing.load(Ordering::Acquire) => false,
            _ => self.room.status().phase == Phase::Settled,
        };
        if settled && let Some(lease) = self.lease.get() {
            self.end(lease).await;
        }
        if let Some(inner) = self.inner.upgrade() {
            inner.forget(self);
        }
    }

    async fn end(&self, lease: &Lease) {
        let mut wait = RETRY_FIRST;
        for _ in 0..END_ATTEMPTS_MAX {
            let Some(inner) = self.inner.upgrade() else {
                return;
            };
            match lease.end(inner.now_ms()).await {
                Ok(()) => return,
                Err(VaultError::Fenced { .. } | VaultError::Standing(_)) => return,
                Err(error) => tracing::warn!(
                    room = %self.room(), error = error_line(&error), again_in = ?wait,
                    "the store was not told that a room is over"
                ),
            }
            inner.sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Scheduler>> {
        self.scheduler
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a checkpoint was not written.
enum Stopped {
    /// The room is over, or the keeper is gone.
    Over,
    Fenced(KeepError),
    Failed(KeepError),
}

fn member(player: &Player) -> Member {
    Member {
        account: player.account.clone(),
        handle: player.handle.clone(),
    }
}
