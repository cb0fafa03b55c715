//! The host claim: who may found a session, and who answers for one that is founded.
//!
//! Invariants
//! - a claim that is not established never wins against one that is, whatever their nonces;
//! - of two claims that are not established the lower nonce wins, then the lower node, so both
//!   sides decide alike, and the loser withdraws;
//! - a claim that was won but is not established yet answers nobody: a rival waits for it;
//! - a claim stands for the whole wait before it is won, whatever anybody answers: who hosts may not
//!   be connected yet, and whoever has nothing to say of it may be. A peer that connects meanwhile has
//!   a wait of its own to answer in, and all of it ends one more wait after the first;
//! - two hosts that do not hear of each other in that time both found a session: nobody else speaks
//!   for either, since a session's word counts from its own members alone;
//! - a rival session is reported once, and again when somebody vouches for it in a later term; one
//!   peer's word is news so often and no more, whatever it says in turn (`reports`). A rival it is
//!   for as long as a peer is connected that vouches for it and goes on doing so;
//! - a claim for a session that lives says the present term, and who leads in it: a later leader's
//!   outranks an older one.
//!
//! No clock and no network here: each event says what time it is, each [`ClaimAction`] what to send
//! or to tell the session. Every node has one of these, whether it hosts, joined, or only looks on:
//! silence would keep whoever claims waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::reports::Reports;
use super::wire::{Claim, LobbyMsg};
use crate::ids::{NodeId, PeerId, SessionId};

mod reports;

/// A claim is repeated this often within its wait, to those that did not answer.
const REPEATS: u32 = 4;
/// A claim is won after so many waits at the latest, whoever connects meanwhile.
const WAITS_MAX: u32 = 2;
/// An established session makes itself known every so many waits to peers that it has not heard
/// the same session from.
const BEACON_WAITS: u32 = 4;
/// A rival that was not heard for so many of its beacons has ended without a word.
const RIVAL_BEACONS: u32 = 8;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClaimAction {
    /// Send this to one peer.
    Send {
        /// To whom.
        to: PeerId,
        /// What.
        msg: LobbyMsg,
    },
    /// Send this to every peer connected.
    Broadcast(LobbyMsg),
    /// Nobody objects: found the session, then call [`HostClaim::establish`] or
    /// [`HostClaim::withdraw`].
    Won,
    /// Somebody hosts already, or claimed it with a lower nonce: give up. The claim is withdrawn.
    DuplicateHost {
        /// Who hosts.
        incumbent: NodeId,
        /// What it hosts.
        session: SessionId,
    },
    /// Two established sessions met. They cannot merge; both sides report it.
    SplitDetected {
        /// Who vouches for the other.
        theirs: NodeId,
        /// The other session.
        session: SessionId,
        /// Its term.
        term: u64,
    },
}

/// What a peer vouches for, of another session than this.
#[derive(Debug)]
struct RivalClaim {
    session: SessionId,
    holder: NodeId,
    term: u64,
    heard_at: Duration,
}

#[derive(Debug)]
enum Phase {
    /// Without a claim: answers that it has none.
    Idle,
    /// Waits for objections until `deadline`, and for whom it awaits then until `latest` at most.
    Claiming {
        deadline: Duration,
        latest: Duration,
        repeat_at: Duration,
        /// Connected peers that have not answered, and until when each is waited for.
        awaited: BTreeMap<PeerId, Duration>,
    },
    /// Nobody objected; the session is being founded.
    Won,
    /// The session lives.
    Established {
        term: u64,
        leader: Option<NodeId>,
        beacon_at: Duration,
    },
}

/// A node of the same session.
#[derive(Debug)]
struct Kin {
    node: NodeId,
    /// When its claim was last answered.
    told: Duration,
}

/// One node's part in the question of who hosts.
#[derive(Debug)]
pub(crate) struct HostClaim {
    me: NodeId,
    session: SessionId,
    nonce: u64,
    wait: Duration,
    phase: Phase,
    connected: BTreeSet<PeerId>,
    /// Nodes heard to be of the same session, by peer: they need no beacon.
    kin: BTreeMap<PeerId, Kin>,
    /// The rival session that each peer vouches for, as it said last: one peer cannot say so much that
    /// another is not heard.
    rivals: BTreeMap<PeerId, RivalClaim>,
    /// What was reported of whose word.
    reports: Reports,
    /// A bug for the simulator to find: see [`crate::state::Planted::lowest_id_hosts`].
    pub(crate) lowest_id_hosts: bool,
}

impl HostClaim {
    /// A node that hosts nothing and is a member of nothing yet, with the peers it is connected to.
    pub(crate) fn idle(me: NodeId, connected: &BTreeSet<PeerId>, wait: Duration) -> Self {
        let mut connected = connected.clone();
        connected.remove(&me.peer);
        Self {
            me,
            session: SessionId(0),
            nonce: 0,
            wait,
            phase: Phase::Idle,
            connected,
            kin: BTreeMap::new(),
            rivals: BTreeMap::new(),
            reports: Reports::default(),
            lowest_id_hosts: false,
        }
    }

    /// A node that is a member of an established session, from its log: it answers for it as the
    /// host does.
    pub(crate) fn incumbent(
        me: NodeId,
        session: SessionId,
        term: u64,
        connected: &BTreeSet<PeerId>,
        wait: Duration,
        now: Duration,
    ) -> (Self, Vec<ClaimAction>) {
        let mut this = Self::idle(me, connected, wait);
        let actions = this.establish(session, term, now);
        (this, actions)
    }

    /// Claims to host `session`. Waits for an objection for all of `wait`, whoever answers: a rival
    /// may be connecting. A peer that connects within it is waited for as long again, until it
    /// answers, and no more than two waits pass.
    pub(crate) fn claim(
        &mut self,
        session: SessionId,
        nonce: u64,
        now: Duration,
    ) -> Vec<ClaimAction> {
        self.session = session;
        self.nonce = nonce;
        let deadline = now.saturating_add(self.wait);
        let connected = self.connected.iter().cloned();
        self.phase = Phase::Claiming {
            deadline,
            latest: now.saturating_add(self.wait.saturating_mul(WAITS_MAX)),
            repeat_at: now.saturating_add(self.wait / REPEATS),
            awaited: connected.map(|peer| (peer, deadline)).collect(),
        };
        vec![ClaimAction::Broadcast(self.mine())]
    }

    /// The session has a cluster that committed something in `term`, or a later term: from now on
    /// this node answers for it. Says so to everybody the first time.
    pub(crate) fn establish(
        &mut self,
        session: SessionId,
        term: u64,
        now: Duration,
    ) -> Vec<ClaimAction> {
        let known = self.is_established() && self.session == session;
        self.session = session;
        if let Phase::Established { term: held, .. } = &mut self.phase
            && known
        {
            *held = term.max(*held);
            return Vec::new();
        }
        self.phase = Phase::Established {
            term,
            leader: None,
            beacon_at: now.saturating_add(self.beacon_every()),
        };
        self.kin.clear();
        self.rivals.clear();
        self.reports = Reports::default();
        vec![ClaimAction::Broadcast(self.mine())]
    }

    /// What this node's log says now of the session it answers for.
    pub(crate) fn follow(&mut self, now_term: u64, now_leader: Option<NodeId>) {
        if let Phase::Established { term, leader, .. } = &mut self.phase {
            *term = now_term.max(*term);
            *leader = now_leader;
        }
    }

    /// A peer wants in: it must know who answers for what before it believes anybody.
    pub(crate) fn heard_announce(&self, from: &PeerId) -> Vec<ClaimAction> {
        match self.phase {
            Phase::Established { .. } => self.tell(from),
            Phase::Idle => vec![ClaimAction::Send {
                to: from.clone(),
                msg: LobbyMsg::NoClaim { nonce: 0 },
            }],
            // It will be told what comes of the claim.
            Phase::Claiming { .. } | Phase::Won => Vec::new(),
        }
    }

    /// Gives the claim up: the session failed, or is over for this node.
    pub(crate) fn withdraw(&mut self) -> Vec<ClaimAction> {
        if matches!(self.phase, Phase::Idle) {
            return Vec::new();
        }
        self.phase = Phase::Idle;
        self.rivals.clear();
        self.reports = Reports::default();
        vec![ClaimAction::Broadcast(LobbyMsg::Withdraw {
            nonce: self.nonce,
        })]
    }

    /// A peer claims to host, or vouches for a session.
    pub(crate) fn heard_claim(
        &mut self,
        from: &PeerId,
        theirs: &Claim,
        now: Duration,
    ) -> Vec<ClaimAction> {
        if *from == self.me.peer || theirs.holder.peer != *from {
            return Vec::new();
        }
        if self.lowest_id_hosts && self.me < theirs.holder {
            return self.answered(from, now);
        }
        let rival = theirs.session != self.session;
        match &self.phase {
            Phase::Idle if theirs.established => Vec::new(),
            Phase::Idle => vec![ClaimAction::Send {
                to: from.clone(),
                msg: LobbyMsg::NoClaim {
                    nonce: theirs.nonce,
                },
            }],
            Phase::Claiming { .. } | Phase::Won if theirs.established && rival => {
                self.lose_to(theirs)
            }
            // It waits for this node, which is about to broadcast what came of it.
            Phase::Won => Vec::new(),
            Phase::Claiming { .. } if theirs.established => self.answered(from, now),
            Phase::Claiming { .. } => {
                if (theirs.nonce, &theirs.holder) < (self.nonce, &self.me) {
                    return self.lose_to(theirs);
                }
                // It may not have been listening when this claim was broadcast.
                let mut actions = vec![ClaimAction::Send {
                    to: from.clone(),
                    msg: self.mine(),
                }];
                actions.extend(self.answered(from, now));
                actions
            }
            Phase::Established { .. } if !theirs.established => {
                self.rivals.remove(from);
                self.tell(from)
            }
            Phase::Established { .. } if !rival => {
                self.rivals.remove(from);
                // Who is known here may not know this node: it is another process on the same log,
                // or saw the connection go and come. Two that know each other end at that.
                let lately = |kin: &&Kin| {
                    kin.node == theirs.holder && now < kin.told.saturating_add(self.wait)
                };
                if self.kin.get(from).filter(lately).is_some() {
                    return Vec::new();
                }
                let kin = Kin {
                    node: theirs.holder.clone(),
                    told: now,
                };
                self.kin.insert(from.clone(), kin);
                self.tell(from)
            }
            Phase::Established { .. } => {
                self.kin.remove(from);
                let silent = self.rival_lives();
                let is_told = |known: &RivalClaim| {
                    known.session == theirs.session && known.term >= theirs.term
                };
                let was_told = self.rivals.values().any(is_told);
                let (session, term) = (theirs.session, theirs.term);
                let news = self
                    .reports
                    .hear(from, session, term, was_told, now, silent);
                // Frames may overtake each other: of one session a peer's latest term counts.
                let held = self.rivals.get(from);
                let held = held.filter(|held| held.session == theirs.session);
                let claim = RivalClaim {
                    session: theirs.session,
                    holder: theirs.holder.clone(),
                    term: held.map_or(theirs.term, |held| held.term.max(theirs.term)),
                    heard_at: now,
                };
                self.rivals.insert(from.clone(), claim);
                if !news {
                    return Vec::new();
                }
                let mut actions = self.tell(from);
                actions.push(ClaimAction::SplitDetected {
                    theirs: theirs.holder.clone(),
                    session: theirs.session,
                    term: theirs.term,
                });
                actions
            }
        }
    }

    /// A peer has nothing against the claim with this nonce.
    pub(crate) fn heard_no_claim(
        &mut self,
        from: &PeerId,
        nonce: u64,
        now: Duration,
    ) -> Vec<ClaimAction> {
        if nonce != self.nonce {
            return Vec::new();
        }
        self.answered(from, now)
    }

    /// A peer gave up its claim: it objects to nothing any more.
    pub(crate) fn heard_withdraw(&mut self, from: &PeerId, now: Duration) -> Vec<ClaimAction> {
        self.kin.remove(from);
        self.rivals.remove(from);
        self.answered(from, now)
    }

    /// Who is connected now. Newcomers are told of the claim.
    pub(crate) fn peers_changed(
        &mut self,
        peers: &BTreeSet<PeerId>,
        now: Duration,
    ) -> Vec<ClaimAction> {
        let mut peers = peers.clone();
        peers.remove(&self.me.peer);
        let came: Vec<PeerId> = peers.difference(&self.connected).cloned().collect();
        self.connected = peers;
        self.kin.retain(|peer, _| self.connected.contains(peer));
        self.rivals.retain(|peer, _| self.connected.contains(peer));
        if let Phase::Claiming {
            awaited, latest, ..
        } = &mut self.phase
        {
            awaited.retain(|peer, _| self.connected.contains(peer));
            let until = now.saturating_add(self.wait).min(*latest);
            awaited.extend(came.iter().map(|peer| (peer.clone(), until)));
        }
        let speaks = matches!(
            self.phase,
            Phase::Claiming { .. } | Phase::Established { .. }
        );
        let mut actions = Vec::new();
        if speaks {
            for peer in &came {
                actions.extend(self.tell(peer));
            }
        }
        actions.extend(self.win_if_clear(now));
        actions
    }

    /// Time passed.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<ClaimAction> {
        let repeat_every = self.wait / REPEATS;
        let beacon_every = self.beacon_every();
        let silent = self.rival_lives();
        self.rivals
            .retain(|_, rival| now.saturating_sub(rival.heard_at) < silent);
        let won = self.win_if_clear(now);
        if !won.is_empty() {
            return won;
        }
        let again: Vec<PeerId> = match &mut self.phase {
            Phase::Claiming {
                repeat_at, awaited, ..
            } if now >= *repeat_at => {
                *repeat_at = now.saturating_add(repeat_every);
                awaited.keys().cloned().collect()
            }
            Phase::Established { beacon_at, .. } if now >= *beacon_at => {
                *beacon_at = now.saturating_add(beacon_every);
                let strangers = self.connected.iter();
                let strangers = strangers.filter(|peer| !self.kin.contains_key(*peer));
                strangers.cloned().collect()
            }
            _ => Vec::new(),
        };
        again.iter().flat_map(|peer| self.tell(peer)).collect()
    }

    /// When [`Self::tick`] next has something to do.
    pub(crate) fn wakes_at(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Claiming { repeat_at, .. } => self.wins_at().map(|at| at.min(*repeat_at)),
            Phase::Established { beacon_at, .. } => Some(*beacon_at),
            Phase::Idle | Phase::Won => None,
        }
    }

    /// Whether this node answers for a session that lives.
    pub(crate) fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established { .. })
    }

    /// The nodes that are connected, spoke for this session, and have not taken that back.
    pub(crate) fn kin(&self) -> impl Iterator<Item = &NodeId> {
        let connected = |(peer, _): &(&PeerId, &Kin)| self.connected.contains(*peer);
        self.kin.iter().filter(connected).map(|(_, kin)| &kin.node)
    }

    /// The rival sessions somebody vouches for: of each the latest term, and whose word that is.
    pub(crate) fn rivals(&self) -> BTreeMap<SessionId, (u64, &NodeId)> {
        let mut rivals = BTreeMap::new();
        for rival in self.rivals.values() {
            let said = (rival.term, &rival.holder);
            let latest = rivals.entry(rival.session).or_insert(said);
            *latest = said.max(*latest);
        }
        rivals
    }

    fn beacon_every(&self) -> Duration {
        self.wait.saturating_mul(BEACON_WAITS)
    }

    /// How long a rival that is not heard is taken for one.
    fn rival_lives(&self) -> Duration {
        self.beacon_every().saturating_mul(RIVAL_BEACONS)
    }

    fn mine(&self) -> LobbyMsg {
        let (term, leader) = match &self.phase {
            Phase::Established { term, leader, .. } => (Some(*term), leader.clone()),
            _ => (None, None),
        };
        LobbyMsg::Claim(Claim {
            session: self.session,
            holder: self.me.clone(),
            nonce: self.nonce,
            established: term.is_some(),
            term: term.unwrap_or(0),
            leader,
            proof: None,
        })
    }

    fn tell(&self, peer: &PeerId) -> Vec<ClaimAction> {
        vec![ClaimAction::Send {
            to: peer.clone(),
            msg: self.mine(),
        }]
    }

    fn lose_to(&mut self, theirs: &Claim) -> Vec<ClaimAction> {
        let mut actions = self.withdraw();
        actions.push(ClaimAction::DuplicateHost {
            incumbent: theirs.holder.clone(),
            session: theirs.session,
        });
        actions
    }

    /// A peer does not object, or not any more: nothing is repeated to it.
    fn answered(&mut self, from: &PeerId, now: Duration) -> Vec<ClaimAction> {
        if let Phase::Claiming { awaited, .. } = &mut self.phase {
            awaited.remove(from);
        }
        self.win_if_clear(now)
    }

    /// When the claim is won, unless something is heard before.
    fn wins_at(&self) -> Option<Duration> {
        let Phase::Claiming {
            deadline, awaited, ..
        } = &self.phase
        else {
            return None;
        };
        let awaited = awaited.values().copied();
        Some(awaited.fold(*deadline, Duration::max))
    }

    fn win_if_clear(&mut self, now: Duration) -> Vec<ClaimAction> {
        if self.wins_at().is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.phase = Phase::Won;
        vec![ClaimAction::Won]
    }
}

#[cfg(test)]
mod tests;
