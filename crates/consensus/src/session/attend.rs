//! The lobby lane of a running session: claims answered for, announcements heard, and, where this
//! node leads, admission carried out.
//!
//! Invariants
//! - a change of members, once begun, runs to its end: its task is watched, never cancelled;
//! - at most one change and one proposal of admission are under way.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::fabric::{Inbound, Lane, Links, Receiver};
use crate::ids::{NodeId, PeerId, SessionId};
use crate::lobby::AdmissionTiming;
use crate::lobby::admission::{Admission, REANNOUNCE_EVERY, Step, View};
use crate::lobby::claim::{ClaimAction, HostClaim};
use crate::lobby::wire::{self, Announce, Answer, LobbyMsg, Verdict};
use crate::node::{Clock, Node};
use crate::raft::{Change, Consensus, Role, lock};
use crate::state::command::{Body, Kind, SeatRequest, Vacate};
use crate::watch;

/// Another session of the same game that was seen on this fabric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rival {
    /// Its id.
    pub session: SessionId,
    /// Who vouches for it.
    pub holder: NodeId,
}

pub(crate) struct Attendant {
    pub node: Arc<Node>,
    pub links: Links,
    pub claim: HostClaim,
    pub session: SessionId,
    pub kind: Kind,
    pub timing: AdmissionTiming,
    pub tick: Duration,
    /// A leader that was not heard for this long is looked for.
    pub silence: Duration,
    pub clock: Arc<dyn Clock>,
    pub rivals: watch::Sender<BTreeSet<Rival>>,
    pub leaving: Arc<AtomicBool>,
}

pub(crate) fn send(links: &Links, to: &PeerId, msg: &LobbyMsg) {
    if let Ok(frame) = wire::encode(msg) {
        // Best effort: whoever needs it says so again.
        let _ = links.send(to, Lane::Lobby, frame);
    }
}

pub(crate) fn broadcast(links: &Links, msg: &LobbyMsg) {
    if let Ok(frame) = wire::encode(msg) {
        links.broadcast(Lane::Lobby, &frame);
    }
}

pub(crate) fn connected(links: &Links) -> BTreeSet<PeerId> {
    links.peers().borrow().keys().cloned().collect()
}

/// Serves the lobby lane until the session ends.
pub(crate) async fn attend(
    mut this: Attendant,
    first: Vec<ClaimAction>,
    mut lobby: Receiver<Inbound>,
) {
    this.act_on_claim(first);
    let mut admission = Admission::new(this.session);
    admission.promotes_at_once = lock(&this.node.replica).planted.promote_at_once;
    let mut change: Option<JoinHandle<()>> = None;
    let mut proposal: Option<JoinHandle<()>> = None;
    let mut led = false;
    let mut announced_at: Option<Duration> = None;
    let mut peers = this.links.peers();
    let mut status_watch = this.node.status();
    loop {
        let now = this.clock.now();
        let ticked = this.claim.tick(now);
        this.act_on_claim(ticked);
        let status = this.node.status().get();
        if status.stopped.is_some() {
            return;
        }
        let leads = status.role == Role::Leader;
        if led && !leads {
            admission.reset();
        }
        led = leads;
        change.take_if(|task| task.is_finished());
        proposal.take_if(|task| task.is_finished());
        if leads {
            let numbers = this.node.numbers();
            let connected = connected(&this.links);
            let (seats, open) = {
                let replica = lock(&this.node.replica);
                (replica.seats.clone(), replica.settings.is_some())
            };
            let view = View {
                now,
                me: this.node.me(),
                seats: &seats,
                open,
                membership: &status.membership,
                membership_committed: status.membership_committed,
                membership_index: status.membership_index,
                last_log: numbers.last.unwrap_or(0),
                progress: &numbers.progress,
                connected: &connected,
                change_in_flight: change.is_some(),
                proposal_in_flight: proposal.is_some(),
                timing: &this.timing,
            };
            for step in admission.step(&view) {
                let members = || {
                    let members = &status.membership;
                    members.voters.union(&members.learners).cloned().collect()
                };
                match step {
                    Step::Answer { to, node, verdict } => {
                        let answer = Answer {
                            to: node,
                            session: this.session,
                            verdict,
                            members: members(),
                        };
                        send(&this.links, &to, &LobbyMsg::Answer(answer));
                    }
                    Step::Seat { node, kind } => {
                        let body = Body::Seat(SeatRequest {
                            node: Some((&node).into()),
                            kind: kind as i32,
                        });
                        proposal = Some(this.propose(body));
                    }
                    Step::Vacate { node, left } => {
                        let body = Body::Vacate(Vacate {
                            node: Some((&node).into()),
                            left,
                        });
                        proposal = Some(this.propose(body));
                    }
                    Step::AddLearner(node) => change = Some(this.change(Change::AddLearner(node))),
                    Step::Promote(node) => change = Some(this.change(Change::Promote(node))),
                    Step::Remove(node) => change = Some(this.change(Change::Remove(node))),
                    Step::FinishJoint => change = Some(this.change(Change::FinishJoint)),
                }
            }
        }
        // A node that is no member, or hears no leader, says that it is here.
        let hears = leads || this.node.leader_silent_for() < this.silence;
        let settled = status.membership.contains(this.node.me()) && hears;
        let due = announced_at.is_none_or(|at| now.saturating_sub(at) >= REANNOUNCE_EVERY);
        if !settled && due && !this.leaving.load(Ordering::Relaxed) {
            announced_at = Some(now);
            let announce = Announce {
                node: this.node.me().clone(),
                kind: this.kind,
                session: Some(this.session),
                member: status.membership.contains(this.node.me()),
            };
            broadcast(&this.links, &LobbyMsg::Announce(announce));
        }
        let wake = this
            .claim
            .wakes_at()
            .map_or(this.tick, |at| at.saturating_sub(now).min(this.tick));
        tokio::select! {
            biased;
            inbound = lobby.recv() => {
                let Some(inbound) = inbound else { return };
                let now = this.clock.now();
                this.heard(&mut admission, inbound, now);
            }
            Ok(()) = peers.changed() => {
                let connected = connected(&this.links);
                let actions = this.claim.peers_changed(&connected, this.clock.now());
                this.act_on_claim(actions);
            }
            _ = status_watch.changed() => {
                if status_watch.borrow_and_update().stopped.is_some() {
                    return;
                }
            }
            () = tokio::time::sleep(wake.max(Duration::from_millis(1))) => {}
        }
    }
}

impl Attendant {
    fn propose(&self, body: Body) -> JoinHandle<()> {
        let node = self.node.clone();
        tokio::spawn(async move {
            node.bounded(body).await;
        })
    }

    fn change(&self, change: Change) -> JoinHandle<()> {
        let changing = self.node.engine.change(change.clone());
        tokio::spawn(async move {
            if let Err(error) = changing.await {
                // Level-triggered: what still differs is tried again.
                tracing::debug!(?change, %error, "a change of members did not happen");
            }
        })
    }

    fn heard(&mut self, admission: &mut Admission, inbound: Inbound, now: Duration) {
        let Inbound { from, frame } = inbound;
        match wire::decode(&from, &frame) {
            Ok(LobbyMsg::Announce(announce)) => admission.heard_announce(&from, announce, now),
            Ok(LobbyMsg::Claim(claim)) => {
                let actions = self.claim.heard_claim(&from, &claim, now);
                self.act_on_claim(actions);
            }
            Ok(LobbyMsg::NoClaim { nonce }) => {
                let actions = self.claim.heard_no_claim(&from, nonce, now);
                self.act_on_claim(actions);
            }
            Ok(LobbyMsg::Withdraw { .. }) => {
                let actions = self.claim.heard_withdraw(&from, now);
                self.act_on_claim(actions);
            }
            Ok(LobbyMsg::Answer(answer)) => {
                let ours = answer.to == *self.node.me() && answer.session == self.session;
                if ours && answer.verdict == Verdict::Welcome {
                    self.node.trust(&from, answer.members);
                }
            }
            Err(error) => {
                self.node.count_malformed();
                tracing::debug!(%from, %error, "a lobby frame was dropped");
            }
        }
    }

    fn act_on_claim(&self, actions: Vec<ClaimAction>) {
        for action in actions {
            match action {
                ClaimAction::Send { to, msg } => send(&self.links, &to, &msg),
                ClaimAction::Broadcast(msg) => broadcast(&self.links, &msg),
                ClaimAction::SplitDetected {
                    theirs, session, ..
                } => {
                    let rival = Rival {
                        session,
                        holder: theirs,
                    };
                    self.rivals.modify(|rivals| rivals.insert(rival));
                }
                // Only a host that is not established yet gets these, and it attends nothing.
                ClaimAction::Won | ClaimAction::DuplicateHost { .. } => {}
            }
        }
    }
}
