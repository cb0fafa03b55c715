//! Serving the Raft lane: which frames count, and what the others may ask.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use prost::Message;

use super::answer::submitted;
use super::gather::together;
use super::serving::{Serving, is_ours};
use super::{Node, count};
use crate::fabric::{Inbound, Receiver};
use crate::ids::{ClientId, Incarnation, NodeId, SessionId};
use crate::raft::wire::{
    Answered, Append, Body, Chunk, Frame, Head, Numbered, ReadAt, Submit, Submits, Submitted,
    Submitteds, TOGETHER_MAX, all_fields, answers_together,
};
use crate::raft::{Consensus, ReadIndexError, SubmitError, lock};
use crate::state::Applied;
use crate::state::command::plain::{self, Draft, PlainAct};
use crate::state::command::{Act, Body as Do, CONFIGURE_TAG, Command, Open};
use crate::state::sessions::Rejection;

impl Node {
    async fn answer(&self, from: NodeId, id: u64, body: Body) -> Reply {
        let answer = match body {
            Body::Submit(submit) => Some(Body::Submitted(self.on_submit(&from, submit).await)),
            Body::Read(_) => Some(Body::ReadAt(self.on_read(&from).await)),
            request => self.engine.handle(&from, request).await,
        };
        Reply {
            to: from,
            id,
            answer,
        }
    }

    /// Sends answers: of those to proposals, what goes to one node goes together.
    fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        let mut decided = BTreeMap::<NodeId, VecDeque<Answered>>::new();
        for Reply { to, id, answer } in replies {
            match answer {
                Some(Body::Submitted(answer)) => {
                    let answer = Some(answer);
                    let queue = decided.entry(to).or_default();
                    queue.push_back(Answered { id, answer });
                }
                Some(answer) => {
                    self.rpc.send(&to, id, answer);
                }
                None => {}
            }
        }
        for (to, mut queue) in decided {
            while !queue.is_empty() {
                let mut answers = together(&mut queue, Message::encoded_len);
                let first = answers.first().map_or(0, |answered| answered.id);
                let body = match answers.pop() {
                    Some(Answered {
                        answer: Some(answer),
                        ..
                    }) if answers.is_empty() => Body::Submitted(answer),
                    last => {
                        answers.extend(last);
                        Body::Submitteds(Submitteds { answers })
                    }
                };
                self.rpc.send(&to, first, body);
            }
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
        let not_taken = matches!(
            result,
            Err(SubmitError::NotLeader { .. } | SubmitError::Busy)
        );
        if not_taken && self.may_have_served_before() {
            // Said of a copy, it says nothing of what an earlier process put in the log.
            return submitted(Err(SubmitError::Unknown));
        }
        submitted(result)
    }
}

/// What a node that asked is answered; nothing where its request made no sense.
struct Reply {
    to: NodeId,
    id: u64,
    answer: Option<Body>,
}

/// Serves the lane until it ends.
pub(super) async fn serve(node: Arc<Node>, mut incoming: Receiver<Inbound>) {
    let mut serving = Serving::default();
    let mut under_way = FuturesUnordered::new();
    loop {
        let inbound = tokio::select! {
            biased;
            Some((reply, served)) = under_way.next(), if !under_way.is_empty() => {
                serving.give_back(served);
                // Those that are ready as well go with it.
                let mut replies = vec![reply];
                while replies.len() < TOGETHER_MAX
                    && let Some(Some((reply, served))) = under_way.next().now_or_never()
                {
                    serving.give_back(served);
                    replies.push(reply);
                }
                node.reply(replies);
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
        // A frame of answers has the number of the first, and whoever asked that may have given up.
        let is_awaited = |id| node.rpc.awaits(&from, id);
        if !is_awaited(id)
            && !node.may_say_something(&from)
            && !answers_together(&frame, is_awaited)
        {
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
            let answers = answers_of(id, body);
            if answers.is_empty() {
                count(&node.drops.malformed);
            }
            for (id, body) in answers {
                let Some(body) = body else {
                    count(&node.drops.malformed);
                    continue;
                };
                if !node.rpc.answered(&from, id, body) {
                    count(&node.drops.unasked);
                }
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
        // Whether or not there is room for it: who leads is heard.
        if let Body::Append(Append { vote, .. }) | Body::Chunk(Chunk { vote, .. }) = &body {
            node.hears_leader(&from, vote.as_ref());
        }
        let requests = requests_of(id, body, bytes);
        if requests.is_empty() {
            count(&node.drops.malformed);
        }
        for (id, body) in requests {
            if !serving.is_new(&from, id, &body) {
                count(&node.drops.repeated);
                continue;
            }
            // Whoever sent it sends it again: answers are always taken, for what waits here waits for
            // them.
            let Some(served) = serving.take(&from.peer, &body, bytes) else {
                count(&node.drops.overload);
                continue;
            };
            let (node, from) = (&node, from.clone());
            under_way.push(async move { (node.answer(from, id, body).await, served) });
        }
    }
}

/// Proposals that travelled together, each as one that came alone. What a frame of so many bytes was
/// filled up with, for nothing, is not kept with them.
fn requests_of(id: u64, body: Body, frame_bytes: usize) -> Vec<(u64, Body)> {
    let asks = match body {
        Body::Submits(Submits { asks }) => asks,
        Body::Submit(Submit { command }) => vec![Numbered { id, command }],
        alone => return vec![(id, alone)],
    };
    let bytes: usize = asks.iter().map(|ask| ask.command.len() + 64).sum();
    let is_filled_up = frame_bytes / 2 > bytes;
    let alone = |Numbered { id, command }: Numbered| {
        let command = match is_filled_up {
            true => Bytes::copy_from_slice(&command),
            false => command,
        };
        (id, Body::Submit(Submit { command }))
    };
    asks.into_iter().map(alone).collect()
}

/// Answers that travelled together, each as one that came alone; `None` for one that says nothing.
fn answers_of(id: u64, body: Body) -> Vec<(u64, Option<Body>)> {
    match body {
        Body::Submitteds(Submitteds { answers }) => {
            let alone = |Answered { id, answer }: Answered| (id, answer.map(Body::Submitted));
            answers.into_iter().map(alone).collect()
        }
        alone => vec![(id, Some(alone))],
    }
}
