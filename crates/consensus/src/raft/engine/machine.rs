//! The replicated state as openraft wants it, and snapshots of it.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use prost::Message;

use super::ObserverRef;
use super::store::{Kept, io_error};
use super::types::{
    Id, Meta, Snapshot, Stored, Types, id, membership, position, stored, stored_msg,
};
use crate::events::Feed;
use crate::log::{LogStore, StoredSnapshot};
use crate::raft::wire::MembershipMsg;
use crate::state::{Applied, Replica, Restored};

/// The state and who may look at it.
pub type Shared = Arc<Mutex<Replica>>;

pub fn lock(replica: &Shared) -> MutexGuard<'_, Replica> {
    replica.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the last snapshot was too large to be written, and to be sent.
#[derive(Clone)]
pub struct TooLarge {
    max: usize,
    /// 0 when it was not.
    bytes: Arc<AtomicU64>,
}

impl TooLarge {
    pub fn new(max: usize) -> Self {
        Self {
            max,
            bytes: Arc::default(),
        }
    }

    pub fn bytes(&self) -> Option<u64> {
        Some(self.bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes != 0)
    }

    /// Notes how large a snapshot is; answers whether it may be written.
    fn fits(&self, bytes: usize) -> bool {
        let fits = bytes <= self.max;
        let noted = if fits { 0 } else { bytes as u64 };
        self.bytes.store(noted, Ordering::Relaxed);
        fits
    }
}

pub struct Machine {
    pub replica: Shared,
    /// The game's clock, for who must not wait for an entry that is being applied.
    pub game_clock_ms: Arc<AtomicU64>,
    pub feed: Feed,
    pub log: Arc<dyn LogStore>,
    pub observer: ObserverRef,
    pub kept: Kept,
    pub too_large: TooLarge,
    pub applied: Option<Id>,
    pub members: Stored,
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Machine {
    /// Starts from the latest snapshot, if there is one.
    pub fn opened(mut self, snapshot: Option<StoredSnapshot>) -> Result<Self, io::Error> {
        if let Some(snapshot) = snapshot {
            let members = members_from(&snapshot.membership)?;
            let through = id(snapshot.through);
            let restored = self.restored(&through, &members, &snapshot.state)?;
            self.take_over(through, members, restored);
        }
        Ok(self)
    }

    fn restored(
        &self,
        through: &Id,
        members: &Stored,
        state: &Bytes,
    ) -> Result<Restored, io::Error> {
        let voters = membership(members.membership()).voters;
        let restored = lock(&self.replica).restored(position(through), voters, state);
        restored.map_err(|_| invalid("the snapshot holds no state of this game"))
    }

    fn take_over(&mut self, through: Id, members: Stored, restored: Restored) {
        {
            let mut replica = lock(&self.replica);
            replica.take_over(restored);
            self.game_clock_ms.store(replica.now_ms, Ordering::Release);
        }
        self.applied = Some(through);
        self.members = members;
        self.feed.publish();
        self.observer.installed(position(&through));
    }
}

fn members_from(bytes: &Bytes) -> Result<Stored, io::Error> {
    let msg = MembershipMsg::decode(bytes.clone())
        .map_err(|_| invalid("the snapshot names no members"))?;
    stored(&msg).map_err(|_| invalid("the snapshot names no members"))
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<Id>, Stored), io::Error> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut failed = None;
        while let Some((entry, responder)) = entries.try_next().await? {
            let at = position(&entry.log_id);
            let applied = {
                let mut replica = lock(&self.replica);
                let applied = match entry.payload {
                    EntryPayload::Blank => {
                        replica.pass_blank(at);
                        Applied::Internal
                    }
                    EntryPayload::Membership(members) => {
                        replica.pass_membership(at, membership(&members).voters);
                        self.members = Stored::new(Some(entry.log_id), members);
                        Applied::Internal
                    }
                    EntryPayload::Normal(command) => match replica.apply(at, &command.0) {
                        Ok(applied) => applied,
                        Err(desync) => {
                            failed = Some(desync);
                            break;
                        }
                    },
                };
                self.game_clock_ms.store(replica.now_ms, Ordering::Release);
                applied
            };
            self.applied = Some(entry.log_id);
            self.observer.applied(at, &self.replica);
            if let Some(responder) = responder {
                responder.send(applied);
            }
        }
        self.feed.publish();
        match failed {
            // openraft stops the node, which is what a diverged one must do.
            Some(desync) => Err(io::Error::other(desync)),
            None => Ok(()),
        }
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        let builder = self.get_snapshot_builder().await;
        // One that no other node takes and no log stores. The log goes on without it.
        let state = builder.state.as_ref().map_or(0, Bytes::len);
        let members = stored_msg(&builder.members).encoded_len();
        self.too_large.fits(state + members).then_some(builder)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            // The state as it stands at the last applied entry: what is applied while the
            // snapshot is written is not in it.
            state: lock(&self.replica).snapshot(),
            through: self.applied,
            members: self.members.clone(),
            log: self.log.clone(),
            kept: self.kept.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &Meta, state: Bytes) -> Result<(), io::Error> {
        let through = meta
            .last_log_id
            .ok_or_else(|| invalid("a snapshot of nothing"))?;
        let members = &meta.last_membership;
        // One that this game cannot read must not be what the node starts from for ever after.
        let restored = self.restored(&through, members, &state)?;
        store(&self.log, &self.kept, &through, members, state).await?;
        self.take_over(through, members.clone(), restored);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let Some(snapshot) = self.log.load_snapshot().await.map_err(io_error)? else {
            return Ok(None);
        };
        Ok(Some(Snapshot {
            meta: Meta {
                last_log_id: Some(id(snapshot.through)),
                last_membership: members_from(&snapshot.membership)?,
            },
            snapshot: snapshot.state,
        }))
    }
}

pub struct Builder {
    state: Option<Bytes>,
    through: Option<Id>,
    members: Stored,
    log: Arc<dyn LogStore>,
    kept: Kept,
}

/// Stores a snapshot, and says so to whoever waits for it.
async fn store(
    log: &Arc<dyn LogStore>,
    kept: &Kept,
    through: &Id,
    members: &Stored,
    state: Bytes,
) -> Result<(), io::Error> {
    let snapshot = StoredSnapshot {
        through: position(through),
        membership: stored_msg(members).encode_to_vec().into(),
        state,
    };
    match log.save_snapshot(snapshot).await {
        Ok(()) => kept.snapshot(through.index),
        Err(error) => {
            kept.fail();
            return Err(io_error(error));
        }
    }
    Ok(())
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let state = self
            .state
            .take()
            .ok_or_else(|| invalid("this game cannot write its state down"))?;
        // A snapshot of nothing stands for no entry, so there is nothing to keep.
        if let Some(through) = &self.through {
            store(&self.log, &self.kept, through, &self.members, state.clone()).await?;
        }
        Ok(Snapshot {
            meta: Meta {
                last_log_id: self.through,
                last_membership: self.members.clone(),
            },
            snapshot: state,
        })
    }
}
