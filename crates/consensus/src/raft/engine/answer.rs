//! Answering what other nodes ask of Raft.
//!
//! Invariants
//! - a node promises only what is on stable storage;
//! - a vote that says it takes over counts as one only if the leader said so.

use std::sync::PoisonError;
use std::time::Duration;

use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest,
};

use super::arrivals::{Piece, Transfer};
use super::{Engine, lock, types};
use crate::game::Malformed;
use crate::ids::NodeId;
use crate::log::Position;
use crate::raft::SnapshotTooLarge;
use crate::raft::wire::{self, Appended, Body, Chunked, Transferred, Voted};

impl Engine {
    /// Whether another node may ask this at all; then `handle` answers it.
    pub(crate) fn admits(&self, from: &NodeId, ask: &Body) -> bool {
        self.terms.admit(from, ask)
    }

    /// Whether another node may be in this term.
    pub(crate) fn may_be_in(&self, term: u64) -> bool {
        self.terms.believe(term)
    }

    pub(super) async fn on_append(
        &self,
        from: &NodeId,
        append: wire::Append,
    ) -> Result<Body, Malformed> {
        let entries = append
            .entries
            .into_iter()
            .map(types::entry_of)
            .collect::<Result<Vec<_>, _>>()?;
        let last = entries
            .last()
            .map(|entry| types::position(&entry.log_id))
            .or(append.previous.map(Position::from));
        let has_entries = !entries.is_empty();
        let request = AppendEntriesRequest {
            vote: types::vote(append.vote)?,
            prev_log_id: append.previous.map(types::id_of),
            entries,
            leader_commit: append.commit.map(types::id_of),
        };
        let answer = self
            .raft
            .append_entries(request)
            .await
            .map_err(|_| Malformed)?;
        if has_entries && matches!(answer, AppendEntriesResponse::Success) {
            // It goes on from the log: no snapshot is needed.
            self.refusals.clear(from);
        }
        let mut appended = Appended::default();
        let promised = match &answer {
            AppendEntriesResponse::Success => last,
            AppendEntriesResponse::PartialSuccess(through) => through.as_ref().map(types::position),
            _ => None,
        };
        if let Some(at) = promised
            && !self.kept.wait_for_entry(&self.log, at, self.patience).await
        {
            return Err(Malformed);
        }
        match answer {
            AppendEntriesResponse::Success => {}
            AppendEntriesResponse::PartialSuccess(through) => {
                appended.outcome = 1;
                appended.through = through.as_ref().map(types::at);
            }
            AppendEntriesResponse::Conflict => appended.outcome = 2,
            AppendEntriesResponse::HigherVote(vote) => {
                appended.outcome = 3;
                appended.vote = Some(types::vote_msg(&vote));
            }
        }
        Ok(Body::Appended(appended))
    }

    pub(super) async fn on_vote(
        &self,
        from: &NodeId,
        ask: wire::VoteAsked,
    ) -> Result<Body, Malformed> {
        let vote = types::vote(ask.vote)?;
        let term = vote.leader_id.term;
        let mut request = VoteRequest::new(vote, ask.last.map(types::id_of));
        request.leadership_transfer = ask.transfer && !ask.pre && self.hands_to(from, term).await;
        let answer = if ask.pre {
            self.raft.pre_vote(request).await
        } else {
            self.raft.vote(request).await
        };
        let answer = answer.map_err(|_| Malformed)?;
        Ok(Body::Voted(Voted {
            vote: Some(types::vote_msg(&answer.vote)),
            last: answer.last_log_id.as_ref().map(types::at),
            granted: answer.vote_granted && !self.idles(),
        }))
    }

    /// What only a planted bug does: a witness that gives no votes.
    fn idles(&self) -> bool {
        let replica = lock(&self.replica);
        replica.planted.idle_witness && replica.seats.witness.as_ref() == Some(&self.me)
    }

    /// Whether the leader said that it hands over to `candidate`, which then asks for votes in
    /// `term`. Its word comes by another way than the vote, so it may come a little later. Without
    /// it the vote is one like any other.
    async fn hands_to(&self, candidate: &NodeId, term: u64) -> bool {
        let mut handing = self.handing.subscribe();
        let said = handing.wait_for(|said| {
            said.as_ref()
                .is_some_and(|(of, to)| of.checked_add(1) == Some(term) && to == candidate)
        });
        matches!(tokio::time::timeout(self.heartbeat, said).await, Ok(Ok(_)))
    }

    pub(super) async fn on_chunk(
        &self,
        from: &NodeId,
        chunk: wire::Chunk,
    ) -> Result<Body, Malformed> {
        let vote = types::vote(chunk.vote)?;
        let through: Position = chunk.through.ok_or(Malformed)?.into();
        let members = types::stored(&chunk.membership.ok_or(Malformed)?)?;
        let transfer = Transfer {
            term: vote.leader_id.term,
            through,
            total: chunk.total,
        };
        let is_member = self.status.borrow().membership.voters.contains(from);
        let now = self.began.elapsed();
        let (piece, max) = {
            let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
            let piece = arrivals.take(from, transfer, chunk.offset, &chunk.data, is_member, now);
            (piece, arrivals.bytes_max())
        };
        let whole = match piece {
            Piece::TooLarge => {
                let bytes = transfer.total;
                self.refusals
                    .note(from, SnapshotTooLarge { bytes, max }, Duration::ZERO);
                return Ok(Body::Chunked(Chunked {
                    too_large: true,
                    max,
                    ..Chunked::default()
                }));
            }
            Piece::Next(next) => {
                return Ok(Body::Chunked(Chunked {
                    next,
                    ..Chunked::default()
                }));
            }
            Piece::Whole(whole) => whole,
        };
        self.refusals.clear(from);
        let snapshot = types::Snapshot {
            meta: types::Meta {
                last_log_id: Some(types::id(through)),
                last_membership: members,
            },
            snapshot: whole,
        };
        let answer = self
            .raft
            .install_full_snapshot(vote.clone(), snapshot)
            .await
            .map_err(|_| Malformed)?;
        // openraft answers once it has begun to install: the leader would count on what a crash
        // can still take (seed 37).
        if answer.vote == vote
            && !self
                .kept
                .wait_for_entry(&self.log, through, self.patience)
                .await
        {
            return Err(Malformed);
        }
        Ok(Body::Chunked(Chunked {
            next: transfer.total,
            vote: Some(types::vote_msg(&answer.vote)),
            ..Chunked::default()
        }))
    }

    pub(super) async fn on_transfer(
        &self,
        from: &NodeId,
        ask: wire::Transfer,
    ) -> Result<Body, Malformed> {
        let to = ask.to.and_then(|node| node.node()).ok_or(Malformed)?;
        let vote = types::vote(ask.from)?;
        let term = vote.leader_id.term;
        let is_leader = {
            let status = self.status.borrow();
            status.leader.as_ref() == Some(from) && status.term == term
        };
        if is_leader {
            self.handing.set(Some((term, to.clone())));
        }
        let request = TransferLeaderRequest::new(vote, to, ask.last.map(types::id_of));
        let taken = self.raft.handle_transfer_leader(request).await;
        Ok(Body::Transferred(Transferred {
            taken: matches!(taken, Ok(Ok(()))),
        }))
    }
}
