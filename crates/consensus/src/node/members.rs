//! Whom a node takes frames from: the members, as far as it can know them.
//!
//! A node that was cut off may know none of those that are members by now, and nobody it knows may
//! be left to tell it. What it has in common with them is the log: its first settings hold a secret
//! that nobody knows who was never given the log.
//!
//! Invariants
//! - while a leader is heard, Raft is spoken by the voters of the own log alone, and by those that
//!   somebody who is believed said are members;
//! - while none is heard, also by every other member of the own log, which may have been given a
//!   vote since, and by who proves that it knows the session's secret;
//! - who is known by its proof alone speaks Raft and nothing else: it is in no channel, and names
//!   neither members nor leaders. It is forgotten once a leader is heard, or this node leads;
//! - a leader is heard in a frame of its own term or a later one, if the own log gives it a vote or
//!   somebody who is believed named it. This node hears itself while it leads;
//! - who proves nothing is refused and counted, whatever it says of its log.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::serving::is_ours;
use super::{Node, count, guard};
use crate::ids::{NodeId, PeerId};
use crate::lobby::proof::{Proof, Secret};
use crate::raft::wire::{Body, VoteMsg};
use crate::raft::{Consensus, Membership, lock};

impl Node {
    /// How long ago a leader was heard. Raft itself goes on naming a leader that fell silent, since
    /// its pre-vote changes nothing.
    pub(crate) fn leader_silent_for(&self) -> Duration {
        self.clock.now().saturating_sub(self.heard_at())
    }

    /// When a leader was last heard; when this node started, if none was.
    pub(crate) fn heard_at(&self) -> Duration {
        *guard(&self.heard)
    }

    /// Whether a leader would have been heard by now if there were one and its frames came.
    fn hears_no_leader(&self) -> bool {
        !self.engine.leads() && self.leader_silent_for() >= self.timing.election_max() * 3
    }

    /// Whether a proof is looked at.
    fn takes_proofs(&self) -> bool {
        (self.hears_no_leader() || self.planted.proof_while_led) && !self.planted.no_proofs
    }

    /// What Raft asked so far, answered for no more than its asker's proof.
    #[cfg(feature = "testkit")]
    pub(crate) fn heard_by_proof(&self) -> u64 {
        self.by_proof.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// This node leads, or did until now: from here on it waits for another leader as any node does.
    pub(crate) fn hears_itself(&self) {
        *guard(&self.heard) = self.clock.now();
        self.set_trusted(BTreeSet::new());
        guard(&self.proved).clear();
    }

    /// Whether this peer may say who is a member and who leads: a node of it votes by our own log, or
    /// is trusted.
    pub(crate) fn believes(&self, peer: &PeerId) -> bool {
        let membership = self.engine.status().borrow().membership.clone();
        let is_theirs = |node: &NodeId| node.peer == *peer;
        membership.voters.iter().any(is_theirs) || guard(&self.trusted).iter().any(is_theirs)
    }

    /// Takes frames of these nodes too, which somebody who is believed says are the members. Only
    /// while no leader is heard: otherwise there is nobody else to be told of.
    pub(crate) fn trust(&self, members: Vec<NodeId>) {
        if self.hears_no_leader() {
            self.set_trusted(members.into_iter().collect());
        }
    }

    fn set_trusted(&self, nodes: BTreeSet<NodeId>) {
        {
            let mut trusted = guard(&self.trusted);
            // Set often to what it is: what was found of the members stands then.
            if *trusted == nodes {
                return;
            }
            *trusted = nodes;
        }
        // After the change: who looked before it kept what it found before this.
        *guard(&self.company) = Company::default();
    }

    /// Whether a node of this peer is a member, by our own log or by who welcomed this node.
    pub(crate) fn knows(&self, peer: &PeerId) -> bool {
        self.company().known.binary_search(peer).is_ok()
    }

    /// The peers that are members, this one among them, in order and each once: by our own log, or,
    /// before it names any, by who welcomed this node.
    pub(crate) fn members(&self) -> Arc<[PeerId]> {
        self.company().members.clone()
    }

    /// What [`Company`] says now. Found anew when the status or the trusted changed: every app frame
    /// that comes or goes asks.
    fn company(&self) -> MutexGuard<'_, Company> {
        let mut company = guard(&self.company);
        let status = self.engine.present();
        // Read before the status itself, which may then be newer, and is looked at again.
        let version = status.version();
        if company.of != Some(version) {
            let membership = status.borrow().membership.clone();
            *company = Company::new(version, &membership, &guard(&self.trusted));
        }
        company
    }

    /// Whether there is anything this node would take from `from`, so that it is worth reading.
    pub(crate) fn may_say_something(&self, from: &NodeId) -> bool {
        let status = self.engine.status();
        let member = status.borrow().membership.contains(from);
        member
            || guard(&self.trusted).contains(from)
            || (guard(&self.proved).contains(from) && self.takes_proofs())
    }

    /// Whether this node answers what Raft asks in `from`'s name. Counts what it does for a proof
    /// alone.
    pub(super) fn may_ask(&self, from: &NodeId, body: &Body) -> bool {
        let status = self.engine.status();
        let status = status.borrow();
        let is_member = status.membership.contains(from);
        if is_ours(body) {
            return is_member;
        }
        if status.membership.voters.contains(from) || guard(&self.trusted).contains(from) {
            return true;
        }
        // A member may have been given a vote, and lead, while this node was cut off.
        if is_member && self.hears_no_leader() {
            return true;
        }
        let by_proof = guard(&self.proved).contains(from) && self.takes_proofs();
        if by_proof {
            count(&self.by_proof);
        }
        by_proof
    }

    /// Somebody speaks as a leader does, whom this node takes frames from. It is heard as one if it
    /// has not been replaced, and if more than its proof speaks for it: otherwise who was put out
    /// could keep this node from everybody else. Who does lead is a voter once its log came.
    pub(crate) fn hears_leader(&self, leader: &NodeId, vote: Option<&VoteMsg>) {
        let status = self.engine.status();
        let (is_voter, term) = {
            let status = status.borrow();
            (status.membership.voters.contains(leader), status.term)
        };
        let is_late = vote.is_none_or(|vote| vote.term < term);
        if is_late || !(is_voter || guard(&self.trusted).contains(leader)) {
            return;
        }
        *guard(&self.heard) = self.clock.now();
        guard(&self.proved).clear();
        if is_voter {
            self.set_trusted(BTreeSet::new());
        }
    }

    /// What shows `to` that this node was let into the session; `None` before it has the log.
    pub(crate) fn proof_for(&self, to: &PeerId) -> Option<Proof> {
        let session = self.rpc.session()?;
        Some(self.secret()?.prove(session, &self.me().peer, to))
    }

    /// Whether `from` shows that it was let into the session. Asked only while no leader is heard:
    /// otherwise there is nobody to be told of.
    pub(crate) fn is_proved(&self, from: &PeerId, proof: Option<&Proof>) -> bool {
        let (Some(proof), Some(session)) = (proof, self.rpc.session()) else {
            return false;
        };
        self.takes_proofs()
            && (self.secret())
                .is_some_and(|secret| secret.proves(session, from, &self.me().peer, proof))
    }

    /// Takes Raft's frames of a node too that has shown that it was let into the session, for as
    /// long as no leader is heard.
    pub(crate) fn meet(&self, node: &NodeId) {
        if self.takes_proofs() {
            take_in(&mut guard(&self.proved), node);
        }
    }

    /// A claim shows who makes it: whom it names is met, if it is shown to be let in. Counts a proof
    /// that is none, where one would be taken.
    pub(crate) fn meet_holder(&self, from: &PeerId, holder: &NodeId, proof: Option<&Proof>) {
        if proof.is_none() || !self.takes_proofs() {
            return;
        }
        if holder.peer == *from && self.is_proved(from, proof) {
            self.meet(holder);
        } else {
            count(&self.drops.not_member);
        }
    }

    fn secret(&self) -> Option<Secret> {
        let applied = lock(&self.replica)
            .settings
            .as_ref()
            .map(|s| s.secret.clone());
        // After a restart nothing is applied before a leader says what is committed, and whom to
        // believe that is the question. A log that begins later has its settings in a snapshot.
        applied.unwrap_or_else(|| guard(&self.secret_in_log).look(&*self.log))
    }
}

/// The peers of the members, as of one version of the status.
#[derive(Default)]
pub(super) struct Company {
    of: Option<u64>,
    /// By the log, or else by who welcomed this node.
    members: Arc<[PeerId]>,
    /// By either.
    known: Arc<[PeerId]>,
}

impl Company {
    fn new(version: u64, membership: &Membership, trusted: &BTreeSet<NodeId>) -> Self {
        let peers = |nodes: &mut dyn Iterator<Item = &NodeId>| {
            let peers: BTreeSet<_> = nodes.map(|node| node.peer.clone()).collect();
            peers.into_iter().collect::<Arc<[_]>>()
        };
        let logged = membership.voters.iter().chain(&membership.learners);
        let members = match membership.voters.is_empty() {
            true => peers(&mut trusted.iter()),
            false => peers(&mut logged.clone()),
        };
        Self {
            of: Some(version),
            members,
            known: peers(&mut logged.chain(trusted)),
        }
    }
}

/// One life of each peer, the last that was heard of: the set stays as small as the fabric.
fn take_in(nodes: &mut BTreeSet<NodeId>, node: &NodeId) {
    nodes.retain(|known| known.peer != node.peer);
    nodes.insert(node.clone());
}
