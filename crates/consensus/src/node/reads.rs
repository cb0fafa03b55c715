//! Reads that are promised to be the latest, and handing leadership on.

use std::time::Duration;

use tokio::time::Instant;

use super::Node;
use crate::config;
use crate::ids::NodeId;
use crate::raft::rpc::Caller;
use crate::raft::wire::{Body, ReadAsked};
use crate::raft::{Consensus, RaftStatus, ReadIndexError, TransferError, lock};
use crate::state::seats::NoPlace;

/// A read that cannot be promised to be the latest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No majority confirmed the leader in time.
    #[error("no majority confirmed a leader in time")]
    NoQuorum,
    /// A voter says that this node has no place in the game any more, so nobody tells it what is the
    /// latest. See [`GameSession::refused`](crate::session::GameSession::refused).
    #[error("this node has no place in the game any more")]
    NoPlace(#[source] NoPlace),
    /// The node has stopped.
    #[error("the session is closed")]
    Closed,
}

impl Node {
    /// The entry a read must wait for, where this node leads.
    pub(super) async fn read_index(&self) -> Result<u64, ReadIndexError> {
        let engine = self.engine.clone();
        let ask = async move { engine.read_index().await };
        self.reads.join(ask).await
    }

    /// Waits until this node has applied every turn that was acknowledged before the call;
    /// [`config::TIME_MAX`] at most.
    pub(crate) async fn read_barrier(&self, within: Duration) -> Result<u64, ReadError> {
        let deadline = config::deadline(within);
        let mut status = self.engine.status();
        if lock(&self.replica).planted.local_reads {
            return Ok(self.feed.applied());
        }
        loop {
            let now = status.borrow_and_update().clone();
            if now.stopped.is_some() {
                return Err(ReadError::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ReadError::NoQuorum);
            }
            if let Some(why) = self.no_place() {
                // Whoever reads again and again must not keep the thread that hears of a place.
                tokio::time::sleep(self.timing.heartbeat().min(left)).await;
                return Err(ReadError::NoPlace(why));
            }
            let index = match &now.leader {
                Some(leader) if leader == self.me() => {
                    let asked = self.while_placed(deadline, true, self.read_index());
                    match asked.await {
                        Some(Ok(index)) => Some(index),
                        Some(Err(ReadIndexError::Stopped(_))) => return Err(ReadError::Closed),
                        _ => None,
                    }
                }
                Some(leader) => {
                    let hop = left.min(self.timing.election_max() * 2);
                    match self.rpc.call(leader, Body::Read(ReadAsked {}), hop).await {
                        Ok(Body::ReadAt(at)) => at.index,
                        _ => None,
                    }
                }
                None => None,
            };
            if let Some(index) = index {
                let mut progress = self.feed.progress();
                let applied = progress.wait_for(|applied| *applied > index);
                let applied = self.while_placed(deadline, true, applied).await;
                return match (applied, self.no_place()) {
                    (Some(Ok(_)), _) => Ok(index + 1),
                    (None, Some(why)) => Err(ReadError::NoPlace(why)),
                    _ => Err(ReadError::NoQuorum),
                };
            }
            let pause = self.timing.heartbeat().min(left);
            let _ = tokio::time::timeout(pause, status.changed()).await;
        }
    }

    /// Hands leadership to `to`, once it could take it, and waits until it leads.
    pub(crate) async fn transfer(
        &self,
        to: &NodeId,
        within: Duration,
    ) -> Result<(), TransferError> {
        let deadline = config::deadline(within);
        let mut status = self.engine.status();
        let term = loop {
            let term = status.borrow().term;
            let asked = self.engine.transfer(to).await;
            // It may answer, or have caught up, a moment later.
            let later = matches!(
                asked,
                Err(TransferError::NotReady { .. } | TransferError::Changing)
            );
            let again = Instant::now() + self.timing.heartbeat();
            if !later || again >= deadline {
                asked?;
                break term;
            }
            tokio::time::sleep_until(again).await;
        };
        if self.planted.hands_over_unseen {
            return Ok(());
        }
        let decided = |now: &RaftStatus| {
            let led = now.leader.as_ref();
            now.stopped.is_some() || led == Some(to) || (led.is_some() && now.term > term)
        };
        match tokio::time::timeout_at(deadline, status.wait_for(decided)).await {
            Ok(Ok(now)) if now.leader.as_ref() == Some(to) => Ok(()),
            Ok(Ok(now)) if now.stopped.is_some() => Err(TransferError::Stopped(
                now.stopped.clone().unwrap_or_default(),
            )),
            _ => Err(TransferError::NotTaken { to: to.clone() }),
        }
    }
}
