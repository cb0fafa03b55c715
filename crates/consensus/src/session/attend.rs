//! The lobby lane of a running session: claims answered for, announcements heard, and, where this
//! node leads, admission carried out.
//!
//! Invariants
//! - what is under way is a future of this task: it ends with it, and nothing is left behind;
//! - at most one change and one proposal of admission are under way;
//! - what becomes of this node is believed of a voter it knows, of the node that such a voter says
//!   leads, and, while it hears no leader, of who proves that it was let into the session. Who only
//!   proves that speaks for itself: it names no leader and no other member.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::presence::Presence;
use crate::fabric::{Inbound, Lane, Links, Receiver};
use crate::ids::{NodeId, PeerId, SessionId};
use crate::lobby::AdmissionTiming;
use crate::lobby::admission::{Admission, REANNOUNCE_EVERY, Step, View};
use crate::lobby::claim::{ClaimAction, HostClaim};
use crate::lobby::wire::{self, Announce, Answer, Claim, LobbyMsg, Verdict};
use crate::node::{Clock, Node};
use crate::raft::{Change, Consensus, Role, lock};
use crate::state::command::{Body, Kind, SeatRequest, Vacate};
use crate::state::seats::{NoPlace, SeatTable};
use crate::watch;

/// Most lobby frames that are heard in a row. Between two such batches whatever else runs on the
/// thread has a turn: taking frames that wait costs none of the runtime's budget.
pub(super) const FRAMES_AT_ONCE: usize = 32;

/// Another session of the same game that was seen on this fabric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rival {
    /// Its id.
    pub session: SessionId,
    /// Who vouches for it, in the latest term that was heard of.
    pub holder: NodeId,
    /// That term.
    pub term: u64,
}

/// The leader of the latest term that was spoken of.
pub(crate) struct Vouched {
    term: u64,
    leader: NodeId,
    /// When it was said: it is forgotten when a leader is heard after that.
    at: Duration,
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
    /// Why this node, which wants its place back, gets none.
    pub refused: watch::Sender<Option<NoPlace>>,
    /// The same, said by somebody this node believes.
    pub put_out: watch::Sender<Option<NoPlace>>,
    pub presence: watch::Sender<Presence>,
    /// What presence was last made of.
    pub attended: Option<(SeatTable, BTreeSet<NodeId>)>,
    pub leaving: Arc<AtomicBool>,
    /// Whom a voter known here called the leader: a node that was away may know none of those that
    /// lead now.
    pub vouched: Option<Vouched>,
    /// Whether this node is a member and hears a leader.
    pub settled: bool,
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

/// Tells the others, best effort, that the session is over here.
pub(crate) fn say_closed(links: &Links) {
    broadcast(links, &LobbyMsg::Withdraw { nonce: 0 });
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
    let mut change = Slot::default();
    let mut proposal = Slot::default();
    let mut led = false;
    let mut announced_at: Option<Duration> = None;
    let mut peers = this.links.peers();
    let mut status_watch = this.node.status();
    loop {
        let now = this.clock.now();
        let status = this.node.status().get();
        if status.stopped.is_some() {
            say_closed(&this.links);
            return;
        }
        this.note_presence();
        let leads = status.role == Role::Leader;
        if leads || led {
            this.node.hears_itself();
        }
        let hears = leads || this.node.leader_silent_for() < this.silence;
        let leader = status.leader.clone().filter(|_| hears);
        this.claim.follow(status.term, leader);
        let ticked = this.claim.tick(now);
        this.act_on_claim(ticked);
        this.note_rivals();
        if led != leads {
            admission.reset();
        }
        led = leads;
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
                // Seats that are older than the members would put out who was let in since.
                membership_committed: status.membership_committed
                    && numbers.applied >= Some(status.membership_index),
                membership_index: status.membership_index,
                last_log: numbers.last.unwrap_or(0),
                progress: &numbers.progress,
                connected: &connected,
                change_in_flight: change.is_busy(),
                proposal_in_flight: proposal.is_busy(),
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
                            proof: this.node.proof_for(&to),
                        };
                        send(&this.links, &to, &LobbyMsg::Answer(answer));
                    }
                    Step::Seat { node, kind } => {
                        let body = Body::Seat(SeatRequest {
                            node: Some((&node).into()),
                            kind: kind as i32,
                        });
                        proposal.begin(this.propose(body));
                    }
                    Step::Vacate { node, left } => {
                        let body = Body::Vacate(Vacate {
                            node: Some((&node).into()),
                            left,
                        });
                        proposal.begin(this.propose(body));
                    }
                    Step::AddLearner(node) => change.begin(this.change(Change::AddLearner(node))),
                    Step::Promote(node) => change.begin(this.change(Change::Promote(node))),
                    Step::Remove(node) => change.begin(this.change(Change::Remove(node))),
                    Step::FinishJoint => change.begin(this.change(Change::FinishJoint)),
                    // Before an entry of its own term is committed it may not have seen yet that it
                    // was given a place.
                    Step::HandOver(to) if this.has_all_seats() => {
                        change.begin(this.hand_over(to));
                    }
                    Step::HandOver(_) => {}
                }
            }
        }
        // A node that is no member, or hears no leader, says that it is here.
        this.settled = status.membership.contains(this.node.me()) && hears;
        if this.settled {
            this.has_place();
        }
        let due = announced_at.is_none_or(|at| now.saturating_sub(at) >= REANNOUNCE_EVERY);
        if !this.settled && due && !this.leaving.load(Ordering::Relaxed) {
            announced_at = Some(now);
            let announce = Announce {
                node: this.node.me().clone(),
                kind: this.kind,
                session: Some(this.session),
                member: status.membership.contains(this.node.me()),
                // What it has been let in as, it is.
                needs_vote: false,
                begins: false,
            };
            broadcast(&this.links, &LobbyMsg::Announce(announce));
        }
        let wake = this
            .claim
            .wakes_at()
            .map_or(this.tick, |at| at.saturating_sub(now).min(this.tick));
        tokio::select! {
            biased;
            () = change.done() => {}
            () = proposal.done() => {}
            Ok(()) = peers.changed() => {
                let connected = connected(&this.links);
                let actions = this.claim.peers_changed(&connected, this.clock.now());
                this.act_on_claim(actions);
            }
            _ = status_watch.changed() => {
                drop(status_watch.borrow_and_update());
            }
            // After what changes seldom: peers send as much as they like.
            inbound = lobby.recv() => {
                let Some(inbound) = inbound else { return };
                let now = this.clock.now();
                this.heard(led.then_some(&mut admission), inbound, now);
                let mut heard = 1;
                while heard < FRAMES_AT_ONCE && let Some(inbound) = lobby.try_recv() {
                    this.heard(led.then_some(&mut admission), inbound, now);
                    heard += 1;
                }
                if heard == FRAMES_AT_ONCE {
                    tokio::task::yield_now().await;
                }
            }
            () = tokio::time::sleep(wake.max(Duration::from_millis(1))) => {}
        }
    }
}

/// One thing that is under way, or none.
#[derive(Default)]
struct Slot(Option<BoxFuture<'static, ()>>);

impl Slot {
    fn begin(&mut self, what: BoxFuture<'static, ()>) {
        self.0 = Some(what);
    }

    fn is_busy(&self) -> bool {
        self.0.is_some()
    }

    /// Resolves once what is under way is done; never while nothing is. Cancel safe.
    async fn done(&mut self) {
        match &mut self.0 {
            Some(what) => what.await,
            None => std::future::pending().await,
        }
        self.0 = None;
    }
}

impl Attendant {
    fn propose(&self, body: Body) -> BoxFuture<'static, ()> {
        let (node, again) = (self.node.clone(), self.tick);
        async move {
            if node.bounded(body).await.is_none() {
                tokio::time::sleep(again).await;
            }
        }
        .boxed()
    }

    fn change(&self, change: Change) -> BoxFuture<'static, ()> {
        // The engine carries it out by itself, to its end: this only waits for it.
        let changing = self.node.engine.change(change.clone());
        let again = self.tick;
        async move {
            if let Err(error) = changing.await {
                // Level-triggered: what still differs is tried again.
                tracing::debug!(?change, %error, "a change of members did not happen");
                // Not at once: Raft refuses while an entry it waits for is on its way, and asking
                // without a pause would keep the thread that brings it (hosted seed 0).
                tokio::time::sleep(again).await;
            }
        }
        .boxed()
    }

    /// Whether this leader has applied what was committed under those before it.
    fn has_all_seats(&self) -> bool {
        let (own, applied) = (
            self.node.engine.committed_from(),
            self.node.numbers().applied,
        );
        own.is_some_and(|own| applied.is_some_and(|applied| applied >= own))
    }

    fn hand_over(&self, to: NodeId) -> BoxFuture<'static, ()> {
        let (node, again) = (self.node.clone(), self.tick);
        async move {
            if let Err(error) = node.engine.transfer(&to).await {
                tracing::debug!(%to, %error, "who has no place still leads");
            }
            // Until it leads no more there is nothing else to change.
            tokio::time::sleep(again).await;
        }
        .boxed()
    }

    /// `admission` is there while this node leads: an announcement that is older than that may have
    /// been of a node that left since, and would seat it again. Who still wants in says so again.
    fn heard(&mut self, admission: Option<&mut Admission>, inbound: Inbound, now: Duration) {
        let Inbound { from, frame } = inbound;
        let mut noted = Ok(());
        match wire::decode(&from, &frame) {
            Ok(LobbyMsg::Announce(announce)) => {
                let member = announce.member
                    && (self.node.status().borrow().membership).contains(&announce.node);
                // Who was put out while it was away must know who leads now; and while nobody does, a
                // voter must know whose votes it may give.
                let both_vote = || {
                    let status = self.node.status();
                    let voters = &status.borrow().membership.voters;
                    voters.contains(&announce.node) && voters.contains(self.node.me())
                };
                if !member || (!self.settled && both_vote()) {
                    let actions = self.claim.heard_announce(&from);
                    self.act_on_claim(actions);
                }
                if let Some(admission) = admission {
                    noted = admission.heard_announce(&from, announce, now);
                }
            }
            Ok(LobbyMsg::GiveUp { node }) => {
                if let Some(admission) = admission {
                    noted = admission.heard_give_up(&from, node, now);
                }
            }
            Ok(LobbyMsg::Claim(claim)) => {
                if claim.session == self.session {
                    let proof = claim.proof.as_ref();
                    self.node.meet_holder(&from, &claim.holder, proof);
                }
                self.note_leader(&from, &claim, now);
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
            Ok(LobbyMsg::Answer(answer)) => self.heard_answer(&from, answer),
            Err(error) => {
                self.node.count_malformed(1);
                tracing::debug!(%from, %error, "a lobby frame was dropped");
            }
        }
        if let Err(error) = noted {
            self.node.count_overload();
            tracing::debug!(%from, %error, "an announcement was dropped");
        }
    }

    fn note_presence(&mut self) {
        let mut heard: BTreeSet<NodeId> = self.claim.kin().cloned().collect();
        let seats = {
            let replica = lock(&self.node.replica);
            let known = self.attended.as_ref();
            if replica.planted.forgets_nobody {
                let before = known.map(|(_, before)| before.iter().cloned());
                heard.extend(before.into_iter().flatten());
            }
            if known.is_some_and(|(seats, of)| *seats == replica.seats && *of == heard) {
                return;
            }
            replica.seats.clone()
        };
        let now = Presence::new(&seats, &heard, self.node.me());
        self.presence.set_if_new(now);
        self.attended = Some((seats, heard));
    }

    fn note_rivals(&self) {
        let rivals = self.claim.rivals().into_iter();
        let rivals = rivals.map(|(session, (term, holder))| Rival {
            session,
            holder: holder.clone(),
            term,
        });
        self.rivals.set_if_new(rivals.collect());
    }

    fn note_leader(&mut self, from: &PeerId, claim: &Claim, now: Duration) {
        let Some(leader) = &claim.leader else {
            return;
        };
        let newer = (self.vouched()).is_none_or(|known| known.term <= claim.term);
        let may_be = claim.session == self.session && self.node.engine.may_be_in(claim.term);
        if newer && may_be && self.node.believes(from) {
            self.vouched = Some(Vouched {
                term: claim.term,
                leader: leader.clone(),
                at: now,
            });
        }
    }

    /// What was vouched for since a leader was last heard.
    fn vouched(&self) -> Option<&Vouched> {
        let heard_at = self.node.heard_at();
        self.vouched.as_ref().filter(|known| known.at >= heard_at)
    }

    fn heard_answer(&self, from: &PeerId, answer: Answer) {
        let leads = (self.vouched()).is_some_and(|known| known.leader.peer == *from);
        let believed = leads || self.node.believes(from);
        let proved = !believed
            && answer.session == self.session
            && self.node.is_proved(from, answer.proof.as_ref());
        if !believed && !proved {
            if !self.node.knows(from) {
                self.node.count_not_member(1);
            }
            return;
        }
        if answer.to != *self.node.me() || answer.session != self.session || self.settled {
            return;
        }
        if answer.verdict == Verdict::Welcome {
            if believed {
                self.node.trust(answer.members);
            } else {
                let own = answer.members.iter().filter(|node| node.peer == *from);
                own.for_each(|node| self.node.meet(node));
            }
            self.has_place();
        } else if let Some(why) = answer.verdict.no_place() {
            self.refused.set_if_new(Some(why));
            // Who shows no more than that it was let in once stops nothing here.
            if believed {
                self.put_out.set_if_new(Some(why));
            }
        }
    }

    fn has_place(&self) {
        self.refused.set_if_new(None);
        self.put_out.set_if_new(None);
    }

    fn act_on_claim(&self, actions: Vec<ClaimAction>) {
        for action in actions {
            match action {
                ClaimAction::Send { to, mut msg } => {
                    if let LobbyMsg::Claim(claim) = &mut msg {
                        claim.proof = self.node.proof_for(&to);
                    }
                    send(&self.links, &to, &msg);
                }
                ClaimAction::Broadcast(msg) => broadcast(&self.links, &msg),
                ClaimAction::SplitDetected {
                    theirs, session, ..
                } => tracing::debug!(%theirs, %session, "another session of this game lives"),
                // Only a host that is not established yet gets these, and it attends nothing.
                ClaimAction::Won | ClaimAction::DuplicateHost { .. } => {}
            }
        }
    }
}
