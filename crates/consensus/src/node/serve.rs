//! Serving the Raft lane: which frames count, and what the others may ask.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use prost::Message;

use super::answer::submitted;
use super::serving::{Serving, is_ours};
use super::{Node, count};
use crate::fabric::{Inbound, Receiver};
use crate::ids::{ClientId, Incarnation, NodeId, SessionId};
use crate::raft::wire::{Append, Body, Chunk, Frame, Head, ReadAt, Submit, Submitted, all_fields};
use crate::raft::{Consensus, ReadIndexError, SubmitError, lock};
use crate::state::Applied;
use crate::state::command::plain::{self, Draft, PlainAct};
use crate::state::command::{Act, Body as Do, CONFIGURE_TAG, Command, Open};
use crate::state::sessions::Rejection;

impl Node {
    async fn answer(&self, from: NodeId, id: u64, body: Body) {
        let answer = match body {
            Body::Submit(submit) => Some(Body::Submitted(self.on_submit(&from, submit).await)),
            Body::Read(_) => Some(Body::ReadAt(self.on_read(&from).await)),
            request => self.engine.handle(&from, request).await,
        };
        if let Some(answer) = answer {
            self.rpc.send(&from, id, answer);
        }
    }

    /// A read waits for a majority, as long as a proposal does: it is one of what its peer may have
    /// under way.
    async fn on_read(&self, from: &NodeId) -> ReadAt {
        let Some(_carried) = self.load.take(&from.peer) else {
            count(&self.drops.overload);
            return ReadAt::default();
        };
        let (index, leader) = match self.read_index().await {
            Ok(index) => (Some(index), None),
            Err(ReadIndexError::NotLeader { leader }) => (None, leader),
            Err(_) => (None, None),
        };
        ReadAt {
            index,
            leader: leader.as_ref().map(Into::into),
        }
    }

    async fn on_submit(&self, from: &NodeId, submit: Submit) -> Submitted {
        // Nearly all that is asked, and nothing of it needs to be taken apart.
        if let Some((_, act)) = plain::read(&submit.command) {
            if ClientId::new(act.client).is_err() {
                count(&self.drops.malformed);
                return submitted(Ok(Applied::Rejected(Rejection::Malformed)));
            }
            let owner = from.peer.as_str();
            return match self.may_act(act.action) {
                Ok(()) => {
                    self.decided_for(from, Draft::Act(PlainAct { owner, ..act }))
                        .await
                }
                Err(why) => submitted(Ok(Applied::Rejected(why))),
            };
        }
        // Nobody may ask for that, and it would be long to read.
        if !all_fields(&submit.command, |tag, _| tag != CONFIGURE_TAG) {
            count(&self.drops.malformed);
            return submitted(Ok(Applied::Rejected(Rejection::Malformed)));
        }
        let Ok(Command {
            body: Some(mut body),
            ..
        }) = Command::decode(submit.command)
        else {
            count(&self.drops.malformed);
            return submitted(Ok(Applied::Rejected(Rejection::Malformed)));
        };
        // The log takes records of a certain size: nothing goes into one that has no limit here.
        let names_a_client = match &body {
            Do::Open(Open { client, .. }) | Do::Act(Act { client, .. }) => {
                ClientId::new(client).is_ok()
            }
            _ => true,
        };
        if !names_a_client {
            count(&self.drops.malformed);
            return submitted(Ok(Applied::Rejected(Rejection::Malformed)));
        }
        // What a member may ask of the leader, and in whose name: its own.
        let allowed = match &mut body {
            Do::Open(open) => {
                open.owner = from.peer.as_str().to_owned();
                true
            }
            Do::Act(act) => {
                if let Err(why) = self.may_act(&act.action) {
                    return submitted(Ok(Applied::Rejected(why)));
                }
                act.owner = from.peer.as_str().to_owned();
                true
            }
            Do::Vacate(vacate) => {
                vacate.node.as_ref().and_then(|n| n.node()).as_ref() == Some(from)
            }
            Do::Timeout(_) => lock(&self.replica).planted.timer_per_node,
            Do::Hash(hash) => {
                let own = hash.node.as_ref().and_then(|n| n.node()).as_ref() == Some(from);
                // Every node judges it where it stands in the log; what cannot count is not put
                // there in the first place.
                if own && let Err(why) = lock(&self.replica).would_count(hash) {
                    count(&self.drops.votes);
                    return submitted(Ok(Applied::NoVote(why)));
                }
                own
            }
            _ => false,
        };
        if !allowed {
            count(&self.drops.not_member);
            return submitted(Ok(Applied::Rejected(Rejection::NotYours)));
        }
        self.decided_for(from, Draft::Other(body)).await
    }

    fn may_act(&self, action: &[u8]) -> Result<(), Rejection> {
        let max = self.limits.action_bytes_max;
        if action.len() > max {
            count(&self.drops.overload);
            let max = max as u64;
            return Err(Rejection::TooLarge { max });
        }
        Ok(())
    }

    async fn decided_for(&self, from: &NodeId, draft: Draft<'_>) -> Submitted {
        let within = self.timing.election_max() * 4;
        // Whoever asked has given up by then, and asks again under the same key.
        let submit = tokio::time::timeout(within, self.submit_for(from, &draft));
        let result = submit.await.unwrap_or(Err(SubmitError::Unknown));
        if result == Err(SubmitError::Busy) {
            count(&self.drops.overload);
        }
        submitted(result)
    }
}

/// Serves the lane until it ends.
pub(super) async fn serve(node: Arc<Node>, mut incoming: Receiver<Inbound>) {
    let mut serving = Serving::default();
    let mut under_way = FuturesUnordered::new();
    loop {
        let inbound = tokio::select! {
            biased;
            Some(served) = under_way.next(), if !under_way.is_empty() => {
                serving.give_back(served);
                continue;
            }
            inbound = incoming.recv() => inbound,
        };
        let Some(Inbound { from, frame }) = inbound else {
            return;
        };
        let Ok(Head {
            session,
            from_incarnation,
            to_incarnation,
            id,
        }) = Head::decode(frame.clone())
        else {
            count(&node.drops.malformed);
            continue;
        };
        let session = SessionId::from_bytes(&session);
        if session.is_none() || session != node.rpc.session() {
            count(&node.drops.other_session);
            continue;
        }
        if to_incarnation != node.me().incarnation.0 {
            count(&node.drops.other_life);
            continue;
        }
        let from = NodeId::new(from, Incarnation(from_incarnation));
        if !node.rpc.awaits(&from, id) && !node.may_say_something(&from) {
            count(&node.drops.not_member);
            continue;
        }
        let bytes = frame.len();
        let frame = Frame::is_bounded(&frame).then(|| Frame::decode(frame));
        let Some(Ok(Frame {
            body: Some(body), ..
        })) = frame
        else {
            count(&node.drops.malformed);
            continue;
        };
        if !body.is_request() {
            if !node.rpc.answered(&from, id, body) {
                count(&node.drops.unasked);
            }
            continue;
        }
        if !node.may_ask(&from, &body) {
            count(&node.drops.not_member);
            continue;
        }
        // A member that speaks in another's name, or would use up the terms.
        if !is_ours(&body) && !node.engine.admits(&from, &body) {
            count(&node.drops.not_member);
            continue;
        }
        // Whoever sent it sends it again: answers are always taken, for what waits here waits for them.
        let Some(served) = serving.take(&from.peer, &body, bytes) else {
            count(&node.drops.overload);
            continue;
        };
        if let Body::Append(Append { vote, .. }) | Body::Chunk(Chunk { vote, .. }) = &body {
            node.hears_leader(&from, vote.as_ref());
        }
        let node = &node;
        under_way.push(async move {
            node.answer(from, id, body).await;
            served
        });
    }
}
