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
//! - who proves nothing is refused and counted, whatever it says of its log.

use std::collections::BTreeSet;
use std::time::Duration;

use prost::Message;

use super::{Node, count, guard};
use crate::ids::{NodeId, PeerId};
use crate::lobby::proof::{Proof, Secret};
use crate::log::RecordKind;
use crate::raft::wire::Body;
use crate::raft::{Consensus, lock};
use crate::state::command::{Body as Do, Command};

/// Entries at the beginning of a log that are looked through for the first settings: before them
/// stand the members and a blank entry of each leader that did not get as far.
const SETTINGS_WITHIN: u64 = 64;

impl Node {
    /// How long ago a leader was heard. Raft itself goes on naming a leader that fell silent, since
    /// its pre-vote changes nothing.
    pub(crate) fn leader_silent_for(&self) -> Duration {
        self.clock.now().saturating_sub(*guard(&self.heard))
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
        if self.leader_silent_for() >= self.timing.election_max() * 3 {
            *guard(&self.trusted) = members.into_iter().collect();
        }
    }

    /// Whether a node of this peer is a member, by our own log or by who welcomed this node.
    pub(crate) fn knows(&self, peer: &PeerId) -> bool {
        let membership = self.engine.status().borrow().membership.clone();
        let members = membership.voters.iter().chain(&membership.learners);
        let is_theirs = |node: &NodeId| node.peer == *peer;
        members.into_iter().any(is_theirs) || guard(&self.trusted).iter().any(is_theirs)
    }

    /// The peers that are members, this one among them: by our own log, or, before it names any, by
    /// who welcomed this node.
    pub(crate) fn members(&self) -> BTreeSet<PeerId> {
        let membership = self.engine.status().borrow().membership.clone();
        let peer = |node: &NodeId| node.peer.clone();
        if membership.voters.is_empty() {
            return guard(&self.trusted).iter().map(peer).collect();
        }
        let members = membership.voters.iter().chain(&membership.learners);
        members.map(peer).collect()
    }

    /// Whether a leader would have been heard by now if there were one and its frames came.
    fn hears_no_leader(&self) -> bool {
        self.leader_silent_for() >= self.timing.election_max() * 3
    }

    /// Whether there is anything this node would take from `from`, so that it is worth reading.
    pub(super) fn may_say_something(&self, from: &NodeId) -> bool {
        let status = self.engine.status();
        let member = status.borrow().membership.contains(from);
        member || guard(&self.trusted).contains(from)
    }

    pub(super) fn may_ask(&self, from: &NodeId, body: &Body) -> bool {
        let status = self.engine.status();
        let status = status.borrow();
        match body {
            Body::Submit(_) | Body::Read(_) => status.membership.contains(from),
            _ if status.membership.voters.contains(from) => true,
            _ if guard(&self.trusted).contains(from) => true,
            // It may have been given a vote, and lead, while this node was cut off.
            _ => status.membership.contains(from) && !self.engine.leads() && self.hears_no_leader(),
        }
    }

    /// A leader speaks, whom this node takes frames from.
    pub(super) fn hears_leader(&self, leader: &NodeId) {
        *guard(&self.heard) = self.clock.now();
        let status = self.engine.status();
        if status.borrow().membership.voters.contains(leader) {
            guard(&self.trusted).clear();
        }
    }

    /// After its vote it must hear the leader it has voted for, whom its log may not call a voter
    /// yet.
    pub(super) fn voted_for(&self, node: &NodeId) {
        let status = self.engine.status();
        if !status.borrow().membership.voters.contains(node) {
            self.trust_too(node);
        }
    }

    fn trust_too(&self, node: &NodeId) {
        let mut trusted = guard(&self.trusted);
        trusted.retain(|known| known.peer != node.peer);
        trusted.insert(node.clone());
    }

    /// What shows `to` that this node was let into the session; `None` before it has the log.
    pub(crate) fn proof_for(&self, to: &PeerId) -> Option<Proof> {
        let session = self.rpc.session()?;
        Some(self.secret()?.prove(session, &self.me().peer, to))
    }

    /// Whether `from` shows that it was let into the session. Asked only while no leader is heard:
    /// otherwise there is nobody to be told of.
    pub(crate) fn is_proved(&self, from: &PeerId, proof: Option<&Proof>) -> bool {
        if self.engine.leads() || !self.hears_no_leader() {
            return false;
        }
        let (Some(proof), Some(session)) = (proof, self.rpc.session()) else {
            return false;
        };
        let Some(secret) = self.secret() else {
            return false;
        };
        let proved = secret.proves(session, from, &self.me().peer, proof);
        if !proved {
            count(&self.drops.not_member);
        }
        proved
    }

    /// Takes frames of a node too that shows that it was let into the session.
    pub(crate) fn meet(&self, node: &NodeId, proof: Option<&Proof>) {
        if self.is_proved(&node.peer, proof) {
            self.trust_too(node);
        }
    }

    fn secret(&self) -> Option<Secret> {
        let applied = lock(&self.replica)
            .settings
            .as_ref()
            .map(|s| s.secret.clone());
        if let Some(applied) = applied {
            return applied;
        }
        // After a restart nothing is applied before a leader says what is committed, and whom to
        // believe that is the question. A log that begins later has its settings in a snapshot.
        if let Some(known) = self.secret_in_log.get() {
            return Some(known.clone());
        }
        let found = self.look_for_secret()?;
        Some(self.secret_in_log.get_or_init(|| found).clone())
    }

    fn look_for_secret(&self) -> Option<Secret> {
        for index in 0..SETTINGS_WITHIN {
            let records = self.log.read(index, index + 1).ok()?;
            let record = records.first()?;
            if record.kind != RecordKind::Command {
                continue;
            }
            let command = Command::decode(record.body.clone()).ok()?;
            if let Some(Do::Configure(configure)) = command.body {
                return Secret::from_bytes(&configure.secret);
            }
        }
        None
    }
}
