//! Having a command decided by whoever leads.
//!
//! Invariants
//! - a command is sent again until it is decided or its deadline passes;
//! - whoever asks knows whether an attempt without an answer may be in a log;
//! - what the node's own client asks is not asked for while somebody the node believes says that it has
//!   no place: a member alone is answered. What a node asks in its own name is: it may have a place by then.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Node;
use super::answer::submitted_from;
use crate::ids::NodeId;
use crate::raft::rpc::CallError;
use crate::raft::wire::{Body, Numbered, Submit, Submits};
use crate::raft::{Consensus, SubmitError};
use crate::state::Applied;
use crate::state::command::Body as Do;
use crate::state::command::plain::Draft;
use crate::state::seats::NoPlace;

impl Node {
    /// Decides a command here, where this node leads.
    pub(super) fn submit_here(
        &self,
        body: Do,
    ) -> impl Future<Output = Result<Applied, SubmitError>> + Send + '_ {
        self.stamp_and_submit(&Draft::Other(body))
    }

    fn stamp_and_submit(
        &self,
        draft: &Draft<'_>,
    ) -> impl Future<Output = Result<Applied, SubmitError>> + Send + use<'_> {
        self.engine.submit(draft.stamped(self.stamp()))
    }

    /// Decides a command of this node's own client here, within what is under way for all.
    async fn submit_own(&self, draft: &Draft<'_>) -> Result<Applied, SubmitError> {
        let Some(_carried) = self.load.take_own() else {
            return Err(SubmitError::Busy);
        };
        self.stamp_and_submit(draft).await
    }

    /// [`Node::submit_here`] for a member, within what is under way for it and for all.
    pub(super) async fn submit_for(
        &self,
        from: &NodeId,
        draft: &Draft<'_>,
    ) -> Result<Applied, SubmitError> {
        let Some(_carried) = self.load.take(&from.peer) else {
            return Err(SubmitError::Busy);
        };
        self.stamp_and_submit(draft).await
    }

    /// Has a command decided by whoever leads, sending it again until `deadline`. Commands that
    /// go through here may be applied twice without harm.
    pub(super) async fn submit(&self, body: Do, deadline: Instant) -> Result<Applied, Undecided> {
        let draft = Draft::Other(body);
        self.submit_noting(draft, None, deadline, &mut false).await
    }

    /// [`Node::submit`], noting in `maybe` whether an attempt before the answer may be in a log.
    /// `serial` is one of this node's under way.
    pub(super) async fn submit_noting(
        &self,
        draft: Draft<'_>,
        serial: Option<u64>,
        deadline: Instant,
        maybe: &mut bool,
    ) -> Result<Applied, Undecided> {
        let mut hint: Option<NodeId> = None;
        let mut hops = 0u32;
        let mut busy = false;
        // The usual case at a leader, without what a thousand proposals would contend for.
        let now = Instant::now();
        let is_the_clients = matches!(draft, Draft::Act(_) | Draft::Other(Do::Open(_)));
        let refused = || self.no_place().filter(|_| is_the_clients);
        if self.engine.leads() && now < deadline && refused().is_none() {
            let attempt = self.submit_own(&draft);
            let decided = self.until(now, deadline, serial, is_the_clients, attempt);
            match decided.await {
                Some(Ok(applied)) => return Ok(applied),
                Some(Err(SubmitError::NotLeader { leader })) => hint = leader,
                Some(Err(SubmitError::Busy)) => busy = true,
                Some(Err(SubmitError::Unknown)) => *maybe = true,
                Some(Err(SubmitError::Stopped(_))) => return Err(Undecided::stopped(*maybe)),
                None => {
                    return Err(Undecided::Late {
                        maybe: true,
                        leader: Some(self.me().clone()),
                    });
                }
            }
        }
        let mut status = self.engine.status();
        loop {
            let (believed, stopped) = {
                let now = status.borrow_and_update();
                (now.leader.clone(), now.stopped.is_some())
            };
            if stopped {
                return Err(Undecided::stopped(*maybe));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(if busy && !*maybe {
                    Undecided::Busy
                } else {
                    Undecided::Late {
                        maybe: *maybe,
                        leader: believed,
                    }
                });
            }
            if let Some(why) = refused() {
                // Whoever asks again and again must not keep the thread that hears of a place.
                tokio::time::sleep(self.timing.heartbeat().min(left)).await;
                return Err(match *maybe {
                    false => Undecided::NoPlace(why),
                    true => Undecided::Late {
                        maybe: true,
                        leader: believed,
                    },
                });
            }
            let leader = hint.take().or(believed);
            let result = match &leader {
                Some(leader) if leader == self.me() => {
                    let attempt = self.submit_own(&draft);
                    let decided = self.while_placed(deadline, is_the_clients, attempt);
                    match decided.await {
                        Some(result) => result,
                        None => {
                            return Err(Undecided::Late {
                                maybe: true,
                                leader: Some(leader.clone()),
                            });
                        }
                    }
                }
                Some(leader) => {
                    let hop = left.min(self.hop());
                    let forward = self.forward(leader, draft.stamped(0), hop);
                    Box::pin(forward).await
                }
                None => Err(SubmitError::NotLeader { leader: None }),
            };
            match result {
                Ok(applied) => return Ok(applied),
                Err(SubmitError::NotLeader { leader }) => {
                    busy = false;
                    hint = leader;
                }
                Err(SubmitError::Busy) => busy = true,
                Err(SubmitError::Unknown) => *maybe = true,
                Err(SubmitError::Stopped(_)) => return Err(Undecided::stopped(*maybe)),
            }
            hops += 1;
            // A hint is followed at once, but not for ever: two nodes may name each other.
            // Otherwise whoever leads next is waited for.
            if hint.is_none() || hint == leader || hops.is_multiple_of(3) {
                hint = None;
                let pause = self.timing.heartbeat().min(left);
                let _ = tokio::time::timeout(pause, status.changed()).await;
            }
        }
    }

    /// The longest that whoever leads has to answer a call.
    fn hop(&self) -> Duration {
        self.timing.election_max() * 2
    }

    /// Whether a proposal that comes now may be a copy of one that an earlier process of this node
    /// took, in a call that is waited for still.
    pub(super) fn may_have_served_before(&self) -> bool {
        self.engine.has_resumed() && self.started.elapsed() < self.hop()
    }

    pub(super) async fn forward(
        &self,
        leader: &NodeId,
        command: Bytes,
        hop: Duration,
    ) -> Result<Applied, SubmitError> {
        let Some(asked) = self.rpc.list(leader) else {
            return Err(SubmitError::NotLeader { leader: None });
        };
        let id = asked.id();
        if let Some(ask) = self.gather.offer(leader, Numbered { id, command }) {
            self.send_together(leader, vec![ask]);
            self.gathered.notify_one();
        }
        match asked.answer(hop).await {
            Ok(Body::Submitted(answer)) => submitted_from(answer),
            Ok(_) => Err(SubmitError::Unknown),
            Err(CallError::NotSent) => Err(SubmitError::NotLeader { leader: None }),
            Err(_) => Err(SubmitError::Unknown),
        }
    }

    /// One frame of proposals.
    fn send_together(&self, to: &NodeId, mut asks: Vec<Numbered>) {
        let ids: Vec<_> = asks.iter().map(|ask| ask.id).collect();
        let Some(first) = ids.first().copied() else {
            return;
        };
        // One alone goes as it always did.
        let body = match asks.pop() {
            Some(Numbered { command, .. }) if asks.is_empty() => Body::Submit(Submit { command }),
            last => {
                asks.extend(last);
                Body::Submits(Submits { asks })
            }
        };
        if !self.rpc.send(to, first, body) {
            for id in ids {
                self.rpc.not_sent(id);
            }
        }
    }

    /// [`Node::submit`] for commands that may be applied twice without harm.
    pub(crate) async fn submit_idempotent(&self, body: Do, deadline: Instant) -> Option<Applied> {
        self.submit(body, deadline).await.ok()
    }
}

/// Sends what was proposed while something was being sent, until the node ends.
pub(super) async fn carry(node: Arc<Node>) {
    loop {
        node.gathered.notified().await;
        loop {
            // Whoever is about to propose does so first.
            tokio::task::yield_now().await;
            let frames = node.gather.take();
            if frames.is_empty() {
                break;
            }
            for (to, asks) in frames {
                node.send_together(&to, asks);
            }
        }
    }
}

/// A command nobody decided in time.
pub(super) enum Undecided {
    Late {
        /// Whether it may be in a log.
        maybe: bool,
        leader: Option<NodeId>,
    },
    /// The leader had too much under way: it is in no log.
    Busy,
    /// This node is no member, and is told that it will be none: it is in no log.
    NoPlace(NoPlace),
    Closed,
}

impl Undecided {
    /// The node has stopped; `maybe` says whether an attempt before may be in a log.
    fn stopped(maybe: bool) -> Self {
        if maybe {
            Self::Late {
                maybe,
                leader: None,
            }
        } else {
            Self::Closed
        }
    }
}
