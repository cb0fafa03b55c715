//! Requests and their answers over the Raft lane.
//!
//! Invariants
//! - an answer counts only if it comes from the very node that was asked, for the session asked in;
//! - a call ends: with the answer, or when its time is up;
//! - what is under way is bounded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prost::Message;
use tokio::sync::oneshot;

use super::wire::{Body, Frame};
use crate::fabric::{Lane, Links};
use crate::ids::{NodeId, SessionId};

/// Most calls under way at a time.
const CALLS_MAX: usize = 16_384;

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CallError {
    /// No answer came in time. The request may have been served.
    #[error("no answer in time")]
    NoAnswer,
    /// The request was not sent.
    #[error("the request was not sent")]
    NotSent,
}

/// Asks another node.
pub(crate) trait Caller: Send + Sync + 'static {
    fn call(
        &self,
        to: &NodeId,
        body: Body,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Body, CallError>>;
}

type Answer = Result<Body, CallError>;

struct Pending {
    to: NodeId,
    answer: oneshot::Sender<Answer>,
}

struct Shared {
    links: Links,
    me: NodeId,
    /// With the bytes that every frame begins with.
    session: Mutex<Option<(SessionId, Bytes)>>,
    pending: Mutex<BTreeMap<u64, Pending>>,
    next: AtomicU64,
}

/// The calls of one node.
#[derive(Clone)]
pub(crate) struct Rpc(Arc<Shared>);

/// Takes a call off the list when its future is dropped.
struct Listed {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.shared.pending().remove(&self.id);
    }
}

/// A call whose answer counts. Whoever listed it sends it.
pub(crate) struct Asked {
    listed: Listed,
    answered: oneshot::Receiver<Answer>,
}

impl Asked {
    pub(crate) fn id(&self) -> u64 {
        self.listed.id
    }

    /// Waits for the answer, no longer than that.
    pub(crate) async fn answer(self, timeout: Duration) -> Answer {
        let Self { listed, answered } = self;
        let _listed = listed;
        match tokio::time::timeout(timeout, answered).await {
            Ok(Ok(answer)) => answer,
            _ => Err(CallError::NoAnswer),
        }
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, BTreeMap<u64, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rpc {
    /// The ids of calls begin at `first`: as far from those of this node's earlier processes, under
    /// whose calls late answers come, as chance puts it.
    pub(crate) fn new(links: Links, me: NodeId, first: u64) -> Self {
        Self(Arc::new(Shared {
            links,
            me,
            session: Mutex::new(None),
            pending: Mutex::default(),
            next: AtomicU64::new(first),
        }))
    }

    pub(crate) fn me(&self) -> &NodeId {
        &self.0.me
    }

    fn of_session(&self) -> MutexGuard<'_, Option<(SessionId, Bytes)>> {
        let session = self.0.session.lock();
        session.unwrap_or_else(PoisonError::into_inner)
    }

    /// The session whose frames are sent and taken; `None` while there is none.
    pub(crate) fn session(&self) -> Option<SessionId> {
        self.of_session().as_ref().map(|(session, _)| *session)
    }

    pub(crate) fn set_session(&self, session: SessionId) {
        *self.of_session() = Some((session, session.to_bytes()));
    }

    /// Whether an answer of `from` to the call `id` is waited for.
    pub(crate) fn awaits(&self, from: &NodeId, id: u64) -> bool {
        self.0
            .pending()
            .get(&id)
            .is_some_and(|call| call.to == *from)
    }

    /// Hands an answer to whoever waits for it. `false` when nobody does.
    pub(crate) fn answered(&self, from: &NodeId, id: u64, body: Body) -> bool {
        let mut pending = self.0.pending();
        if pending.get(&id).is_none_or(|call| call.to != *from) {
            return false;
        }
        match pending.remove(&id) {
            Some(call) => call.answer.send(Ok(body)).is_ok(),
            None => false,
        }
    }

    /// Lists a call to `to`; `None` when as many are under way as may be.
    pub(crate) fn list(&self, to: &NodeId) -> Option<Asked> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        let mut pending = self.0.pending();
        if pending.len() >= CALLS_MAX {
            return None;
        }
        let to = to.clone();
        pending.insert(id, Pending { to, answer });
        drop(pending);
        let listed = Listed {
            shared: self.0.clone(),
            id,
        };
        Some(Asked { listed, answered })
    }

    /// A call that is listed was not sent after all.
    pub(crate) fn not_sent(&self, id: u64) {
        let call = self.0.pending().remove(&id);
        if let Some(call) = call {
            // Who asked may have stopped waiting.
            let _ = call.answer.send(Err(CallError::NotSent));
        }
    }

    /// Sends a frame; best effort.
    pub(crate) fn send(&self, to: &NodeId, id: u64, body: Body) -> bool {
        let Some((_, session)) = self.of_session().clone() else {
            return false;
        };
        let frame = Frame::new(session, &self.0.me, to, id, body);
        self.0
            .links
            .send(&to.peer, Lane::Raft, frame.encode_to_vec().into())
            .is_ok()
    }
}

#[cfg(test)]
impl Rpc {
    /// Sends these very bytes.
    pub(crate) fn send_bytes(&self, to: &crate::ids::PeerId, frame: Bytes) {
        self.0.links.send(to, Lane::Raft, frame).unwrap();
    }
}

impl Caller for Rpc {
    fn call(
        &self,
        to: &NodeId,
        body: Body,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Body, CallError>> {
        let asked = self
            .list(to)
            .filter(|asked| self.send(to, asked.id(), body));
        match asked {
            Some(asked) => asked.answer(timeout).boxed(),
            None => futures_util::future::ready(Err(CallError::NotSent)).boxed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::{MemoryFabric, Port};
    use crate::ids::{GameId, Incarnation, PeerId};
    use crate::raft::wire::ReadAsked;

    #[tokio::test(start_paused = true)]
    async fn as_many_calls_are_under_way_as_may_be_and_one_more_is_not_sent() {
        let net = MemoryFabric::new();
        let [ann, bob] = ["ann", "bob"].map(|name| {
            let at = net.join(PeerId::new(name).unwrap()).unwrap();
            (
                at.clone(),
                Port::open(at, GameId::new("sum").unwrap()).unwrap(),
            )
        });
        let (links, _heard) = ann.1.split();
        let (_, mut incoming) = bob.1.split();
        let node = |name| NodeId::new(PeerId::new(name).unwrap(), Incarnation(0));
        let rpc = Rpc::new(links, node("ann"), 7);
        rpc.set_session(SessionId(1));
        let to = node("bob");
        let within = Duration::from_secs(60);
        let call = |rpc: &Rpc| rpc.call(&to, Body::Read(ReadAsked {}), within);
        let mut calls = Vec::new();
        for n in 0..CALLS_MAX {
            let mut call = call(&rpc);
            assert!((&mut call).now_or_never().is_none(), "{n} is sent");
            assert!(incoming.raft.recv().await.is_some());
            calls.push(call);
        }
        assert_eq!(call(&rpc).await, Err(CallError::NotSent));
        assert!(incoming.raft.recv().now_or_never().is_none(), "one more");
        // One that is given up makes room.
        calls.pop();
        assert!(call(&rpc).now_or_never().is_none());
        assert!(incoming.raft.recv().await.is_some());
    }
}
