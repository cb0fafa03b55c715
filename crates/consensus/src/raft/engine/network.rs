//! openraft's requests as our messages, over whatever carries them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend};

use super::answered::{Answered, SENT_AGAIN_MAX};
use super::inbound::Terms;
use super::refusals::Refusals;
use super::types::{Snapshot, Types, Vote, at, entry_msg, id_of, stored_msg, vote, vote_msg};
use crate::game::Malformed;
use crate::ids::NodeId;
use crate::raft::SnapshotTooLarge;
use crate::raft::rpc::{CallError, Caller};
use crate::raft::wire::{Append, Body, Chunk, Transfer, VoteAsked, VoteMsg};

#[derive(Clone)]
pub struct Network {
    pub me: NodeId,
    pub caller: Arc<dyn Caller>,
    pub chunk_bytes: usize,
    pub chunk_timeout: Duration,
    pub refusals: Refusals,
    pub terms: Terms,
    pub answered: Answered,
}

/// The way to one node.
pub struct Way {
    network: Network,
    to: NodeId,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Way;

    async fn new_client(&mut self, to: NodeId, _: &EmptyNode) -> Way {
        Way {
            network: self.clone(),
            to,
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("the answer makes no sense")]
    Malformed,
    #[error("the snapshot is larger than the other node takes")]
    TooLarge(SnapshotTooLarge),
    #[error("the snapshot is not wanted any more")]
    Cancelled,
}

impl From<Malformed> for Unanswered {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

impl Way {
    async fn call(&self, body: Body, timeout: Duration) -> Result<Body, Unanswered> {
        Ok(self.network.caller.call(&self.to, body, timeout).await?)
    }

    fn error(&self, action: RPCTypes, timeout: Duration, error: Unanswered) -> RPCError<Types> {
        match error {
            Unanswered::Call(CallError::NoAnswer) => RPCError::Timeout(Timeout {
                action,
                id: self.network.me.clone(),
                target: self.to.clone(),
                timeout,
            }),
            other => RPCError::Unreachable(Unreachable::new(&other)),
        }
    }

    /// The vote another node answers with. A node takes the term of one that is later than its own.
    fn answered(&self, msg: Option<VoteMsg>) -> Result<Vote, Malformed> {
        let vote = vote(msg)?;
        if self.network.terms.believe(vote.leader_id.term) {
            return Ok(vote);
        }
        Err(self.network.answered.refuse())
    }

    async fn ask_vote(
        &self,
        rpc: VoteRequest<Types>,
        pre: bool,
        timeout: Duration,
    ) -> Result<VoteResponse<Types>, Unanswered> {
        let ask = Body::Vote(VoteAsked {
            vote: Some(vote_msg(&rpc.vote)),
            last: rpc.last_log_id.as_ref().map(at),
            transfer: rpc.leadership_transfer,
            pre,
        });
        let Body::Voted(voted) = self.call(ask, timeout).await? else {
            return Err(Unanswered::Malformed);
        };
        Ok(VoteResponse::new(
            self.answered(voted.vote)?,
            voted.last.map(id_of),
            voted.granted,
        ))
    }

    async fn send_snapshot(
        &self,
        leader: &Vote,
        snapshot: &Snapshot,
    ) -> Result<SnapshotResponse<Types>, Unanswered> {
        let Snapshot { meta, snapshot } = snapshot;
        let through = meta.last_log_id.as_ref().ok_or(Malformed)?;
        let mut offset = 0usize;
        // Who has refused a snapshot before is asked before it is sent any of this one.
        let mut asks = self.network.refusals.concerns(&self.to);
        let mut sent_again = 0;
        loop {
            let asked_only = asks;
            let chunk_bytes = if std::mem::take(&mut asks) {
                0
            } else {
                self.network.chunk_bytes
            };
            let end = offset.saturating_add(chunk_bytes).min(snapshot.len());
            let chunk = Body::Chunk(Chunk {
                vote: Some(vote_msg(leader)),
                through: Some(at(through)),
                membership: Some(stored_msg(&meta.last_membership)),
                offset: offset as u64,
                total: snapshot.len() as u64,
                data: snapshot.slice(offset..end),
            });
            let Body::Chunked(chunked) = self.call(chunk, self.network.chunk_timeout).await? else {
                return Err(Unanswered::Malformed);
            };
            if chunked.too_large {
                return Err(Unanswered::TooLarge(SnapshotTooLarge {
                    bytes: snapshot.len() as u64,
                    max: chunked.max,
                }));
            }
            if let Some(msg) = chunked.vote {
                let vote = self.answered(Some(msg))?;
                let answered = &self.network.answered;
                let vote = answered.to_snapshot(&self.to, leader, through, vote)?;
                return Ok(SnapshotResponse::new(vote));
            }
            // The receiver says where to go on: from the start, when it has lost what it had. It
            // would never end with one that loses it always.
            let next = usize::try_from(chunked.next).ok();
            let next = next.filter(|next| *next <= snapshot.len());
            let next = next.ok_or_else(|| self.network.answered.refuse())?;
            if next <= offset && !asked_only {
                sent_again += 1;
                if sent_again > SENT_AGAIN_MAX {
                    return Err(self.network.answered.refuse().into());
                }
            }
            offset = next;
        }
    }
}

impl RaftNetworkV2<Types> for Way {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let timeout = option.hard_ttl();
        let append = Body::Append(Append {
            vote: Some(vote_msg(&rpc.vote)),
            previous: rpc.prev_log_id.as_ref().map(at),
            entries: rpc.entries.iter().map(entry_msg).collect(),
            commit: rpc.leader_commit.as_ref().map(at),
        });
        let answered = async {
            let Body::Appended(appended) = self.call(append, timeout).await? else {
                return Err(Unanswered::Malformed);
            };
            let answered = &self.network.answered;
            let answer = match appended.outcome {
                0 => AppendEntriesResponse::Success,
                1 => AppendEntriesResponse::PartialSuccess(appended.through.map(id_of)),
                2 => AppendEntriesResponse::Conflict,
                3 => AppendEntriesResponse::HigherVote(self.answered(appended.vote)?),
                _ => return Err(answered.refuse().into()),
            };
            Ok(answered.to_append(&self.to, &rpc, answer)?)
        };
        let answered = answered.await;
        answered.map_err(|error| self.error(RPCTypes::AppendEntries, timeout, error))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let timeout = option.hard_ttl();
        let answered = self.ask_vote(rpc, false, timeout).await;
        answered.map_err(|error| self.error(RPCTypes::Vote, timeout, error))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let timeout = option.hard_ttl();
        let answered = self.ask_vote(rpc, true, timeout).await;
        answered.map_err(|error| self.error(RPCTypes::Vote, timeout, error))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let Network {
            refusals,
            chunk_timeout,
            ..
        } = &self.network;
        let sending = async {
            let sent = self.send_snapshot(&vote, &snapshot).await;
            match &sent {
                Ok(_) => refusals.clear(&self.to),
                Err(Unanswered::TooLarge(what)) => {
                    // openraft tries again as soon as this returns.
                    let pause = refusals.note(&self.to, *what, *chunk_timeout);
                    tokio::time::sleep(pause).await;
                }
                Err(_) => {}
            }
            sent
        };
        let sent = tokio::select! {
            biased;
            _ = cancel => Err(Unanswered::Cancelled),
            sent = sending => sent,
        };
        sent.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let timeout = option.hard_ttl();
        let ask = Body::Transfer(Transfer {
            from: Some(vote_msg(rpc.from_leader())),
            to: Some(rpc.to_node_id().into()),
            last: rpc.last_log_id().map(at),
        });
        match self.call(ask, timeout).await {
            // A refusal shows in who leads: there is nothing to do about it here.
            Ok(Body::Transferred(_)) => Ok(Ok(())),
            Ok(_) => Err(self.error(RPCTypes::TransferLeader, timeout, Unanswered::Malformed)),
            Err(error) => Err(self.error(RPCTypes::TransferLeader, timeout, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::super::inbound::TERM_JUMP_MAX;
    use super::*;
    use crate::ids::{Incarnation, PeerId};
    use crate::raft::wire::{Chunked, Voted};

    /// Votes for nobody, and says it is in this term.
    struct InTerm(u64);

    impl Caller for InTerm {
        fn call(
            &self,
            to: &NodeId,
            _: Body,
            _: Duration,
        ) -> BoxFuture<'static, Result<Body, CallError>> {
            let voted = Voted {
                vote: Some(VoteMsg {
                    term: self.0,
                    node: Some(to.into()),
                    committed: false,
                }),
                ..Voted::default()
            };
            futures_util::future::ready(Ok(Body::Voted(voted))).boxed()
        }
    }

    #[tokio::test]
    async fn an_answer_carries_the_term_as_far_as_a_request_may_and_no_further() {
        let node = |name| NodeId::new(PeerId::new(name).unwrap(), Incarnation(0));
        for (term, taken) in [(3 + TERM_JUMP_MAX, true), (4 + TERM_JUMP_MAX, false)] {
            let network = Network {
                me: node("ann"),
                caller: Arc::new(InTerm(term)),
                chunk_bytes: 1,
                chunk_timeout: Duration::from_secs(1),
                refusals: Refusals::new(),
                terms: Terms::new(3),
                answered: Answered::default(),
            };
            let way = Way {
                network,
                to: node("bob"),
            };
            let ask = VoteRequest::new(Vote::new(4, node("ann")), None);
            let asked = way.ask_vote(ask, true, Duration::from_secs(1)).await;
            assert_eq!(asked.is_ok(), taken, "{term}");
        }
    }

    /// Loses what it was sent so many times, and then has it.
    struct Loses(std::sync::atomic::AtomicU32);

    impl Caller for Loses {
        fn call(
            &self,
            _: &NodeId,
            ask: Body,
            _: Duration,
        ) -> BoxFuture<'static, Result<Body, CallError>> {
            let Body::Chunk(chunk) = ask else {
                return futures_util::future::ready(Err(CallError::NotSent)).boxed();
            };
            let less = |left: u32| left.checked_sub(1);
            let order = std::sync::atomic::Ordering::Relaxed;
            let has = self.0.fetch_update(order, order, less).is_err();
            let chunked = Chunked {
                vote: chunk.vote.filter(|_| has),
                ..Chunked::default()
            };
            futures_util::future::ready(Ok(Body::Chunked(chunked))).boxed()
        }
    }

    #[tokio::test]
    async fn who_loses_a_snapshot_is_sent_it_so_many_times_again_and_not_once_more() {
        let node = |name| NodeId::new(PeerId::new(name).unwrap(), Incarnation(0));
        for (times, taken) in [(SENT_AGAIN_MAX, true), (SENT_AGAIN_MAX + 1, false)] {
            let answered = Answered::default();
            let network = Network {
                me: node("ann"),
                caller: Arc::new(Loses(times.into())),
                chunk_bytes: 1 << 20,
                chunk_timeout: Duration::from_secs(1),
                refusals: Refusals::new(),
                terms: Terms::new(3),
                answered: answered.clone(),
            };
            let way = Way {
                network,
                to: node("bob"),
            };
            let snapshot = Snapshot {
                meta: super::super::types::Meta {
                    last_log_id: Some(id_of(crate::raft::wire::At { index: 7, term: 2 })),
                    last_membership: super::super::types::Stored::default(),
                },
                snapshot: Bytes::from_static(b"state"),
            };
            let leader = Vote::new_committed(3, node("ann"));
            let sent = way.send_snapshot(&leader, &snapshot).await;
            assert_eq!(sent.is_ok(), taken, "{times}: {sent:?}");
            assert_eq!(answered.refused(), u64::from(!taken));
        }
    }
}
