//! Whom a node takes Raft's frames from, by what it hears and what it was shown: all of it in one
//! table.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::strangers::{Sum, app, config, lobby, node, peer, port};
use super::*;
use crate::fabric::{Incoming, Lane, Links, MemoryFabric, MemoryPeer};
use crate::ids::NodeId;
use crate::lobby::proof::{Proof, Secret};
use crate::lobby::wire::{Answer, Claim, LobbyMsg, Verdict};
use crate::raft::Role;
use crate::raft::wire::{
    Append, At, Body as Ask, Chunk, Frame, MembershipMsg, ReadAsked, Submit, Transfer, VoteAsked,
    VoteMsg,
};

/// What ann hears when eve comes, who was let in once and is out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Hears {
    /// Bob leads, and is heard.
    Leader,
    /// Ann leads, and has for a while.
    Herself,
    /// Ann led until now, and has handed over.
    HerSuccessor,
    /// Ann led until now, and nobody answers her any more.
    NobodyFromNowOn,
    /// Ann led, and nobody has answered her for three timeouts since.
    NobodySinceSheLed,
    /// Bob was heard a millisecond less than three timeouts ago.
    NobodyYet,
    /// Bob was heard three timeouts ago.
    Nobody,
}

pub(super) struct Table {
    pub net: MemoryFabric,
    /// Where ann, bob and cyd are.
    pub at: Vec<Arc<MemoryPeer>>,
    pub sessions: Vec<GameSession<Sum>>,
    pub eve: Links,
    _heard_by_eve: Incoming,
    secret: Secret,
}

/// Lets everything happen that needs no time.
pub(super) async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

pub(super) async fn until(what: &str, mut met: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if met() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what}");
}

impl Table {
    pub async fn new() -> Self {
        let net = MemoryFabric::new();
        let names = ["ann", "bob", "cyd"];
        let roster: BTreeSet<_> = names.map(peer).into();
        let (mut at, mut sessions) = (Vec::new(), Vec::new());
        for (n, name) in names.into_iter().enumerate() {
            let place = net.join(peer(name)).unwrap();
            let blueprint = Blueprint::new(Sum::default);
            let opened = game_node(port(&place), blueprint, roster.clone(), config(n as u64));
            sessions.push(opened.await.unwrap());
            at.push(place);
        }
        sessions[0].sequencer().propose(&1).await.unwrap();
        let settings = lock(&sessions[0].node.replica).settings.clone();
        let secret = settings.unwrap().secret.unwrap();
        let eve = net.join(peer("eve")).unwrap();
        let (eve, heard) = port(&eve).split();
        Self {
            net,
            at,
            sessions,
            eve,
            _heard_by_eve: heard,
            secret,
        }
    }

    pub fn node(&self, n: usize) -> &Arc<Node> {
        &self.sessions[n].node
    }

    pub fn role(&self, n: usize) -> Role {
        self.node(n).status().borrow().role
    }

    pub fn three_timeouts(&self) -> Duration {
        self.node(0).timing().election_max() * 3
    }

    pub async fn let_lead(&self, n: usize) {
        let leader = (0..3).find(|n| self.role(*n) == Role::Leader).unwrap();
        if leader != n {
            let to = self.node(n).me().clone();
            let from = self.sessions[leader].node();
            assert_eq!(from.transfer(&to, Duration::from_secs(5)).await, Ok(()));
        }
        until("the new leader leads", || self.role(n) == Role::Leader).await;
        tokio::time::sleep(self.three_timeouts() * 2).await;
    }

    pub fn cut_off(&self, n: usize) {
        let all = ["ann", "bob", "cyd"];
        for other in all.iter().filter(|other| **other != all[n]) {
            self.net.cut(&peer(all[n]), &peer(other));
        }
    }

    /// Waits until ann has heard no leader for so long.
    pub async fn silence(&self, long: Duration) {
        let left = long.saturating_sub(self.node(0).leader_silent_for());
        tokio::time::sleep(left).await;
        assert_eq!(self.node(0).leader_silent_for(), long);
    }

    pub async fn bring_about(&self, what: Hears) {
        let leads = matches!(what, Hears::Leader | Hears::NobodyYet | Hears::Nobody);
        self.let_lead(usize::from(leads)).await;
        match what {
            Hears::Leader | Hears::Herself => {}
            Hears::HerSuccessor => {
                let ann = self.sessions[0].node();
                let to = self.node(1).me().clone();
                let handing =
                    tokio::spawn(async move { ann.transfer(&to, Duration::from_secs(5)).await });
                until("ann follows", || !self.role(0).leads()).await;
                self.cut_off(0);
                handing.abort();
            }
            Hears::NobodyFromNowOn | Hears::NobodySinceSheLed => {
                self.cut_off(0);
                until("ann is stale", || self.role(0) == Role::StaleLeader).await;
                if what == Hears::NobodySinceSheLed {
                    settle().await;
                    self.silence(self.three_timeouts()).await;
                }
            }
            Hears::NobodyYet | Hears::Nobody => {
                self.cut_off(0);
                let less = Duration::from_millis(u64::from(what == Hears::NobodyYet));
                self.silence(self.three_timeouts() - less).await;
            }
        }
    }

    pub fn dropped(&self, n: usize) -> u64 {
        self.node(n).dropped().not_member
    }

    /// How many of eve's frames node `n` counts as no member's when she sends this.
    pub async fn counts(&self, n: usize, lane: Lane, frame: Bytes) -> u64 {
        let before = self.dropped(n);
        let to = &self.node(n).me().peer;
        self.eve.send(to, lane, frame).unwrap();
        settle().await;
        self.dropped(n) - before
    }

    pub fn proof(&self, n: usize) -> Proof {
        let (session, to) = (self.sessions[n].id(), &self.node(n).me().peer);
        self.secret.prove(session, &peer("eve"), to)
    }

    /// What eve claims to node `n`.
    pub fn says(&self, n: usize, proof: Option<Proof>) -> Claim {
        Claim {
            session: self.sessions[n].id(),
            holder: eve(),
            nonce: 0,
            established: true,
            term: 9,
            leader: Some(eve()),
            proof,
        }
    }

    fn claim(&self, n: usize, proof: Option<Proof>) -> Bytes {
        lobby(&LobbyMsg::Claim(self.says(n, proof)))
    }

    /// What eve answers node `n`, as if she led.
    pub fn answers(&self, n: usize, proof: Option<Proof>) -> Answer {
        Answer {
            to: self.node(n).me().clone(),
            session: self.sessions[n].id(),
            verdict: Verdict::Welcome,
            members: vec![eve(), node("zed", 0), self.node(n).me().clone()],
            proof,
        }
    }

    fn welcome(&self, n: usize, proof: Option<Proof>) -> Bytes {
        lobby(&LobbyMsg::Answer(self.answers(n, proof)))
    }

    pub fn frame(&self, n: usize, from: &NodeId, ask: Ask) -> Bytes {
        let session = self.sessions[n].id().to_bytes();
        Frame::new(session, from, self.node(n).me(), 1, ask)
            .encode_to_vec()
            .into()
    }

    pub fn pre_vote(&self, n: usize, from: &NodeId) -> Bytes {
        let term = self.node(n).status().borrow().term;
        self.frame(n, from, asks(from, term).into_iter().next().unwrap())
    }
}

pub(super) fn eve() -> NodeId {
    node("eve", 0)
}

/// Everything that Raft's own requests are.
fn asks(from: &NodeId, term: u64) -> [Ask; 5] {
    let term = term + 5;
    let at = At {
        index: 1 << 40,
        term,
    };
    let vote = |committed| {
        Some(VoteMsg {
            term,
            node: Some(from.into()),
            committed,
        })
    };
    [
        Ask::Vote(VoteAsked {
            vote: vote(false),
            last: Some(at),
            pre: true,
            ..VoteAsked::default()
        }),
        Ask::Vote(VoteAsked {
            vote: vote(false),
            last: Some(at),
            ..VoteAsked::default()
        }),
        Ask::Append(Append {
            vote: vote(true),
            ..Append::default()
        }),
        Ask::Chunk(Chunk {
            vote: vote(true),
            through: Some(at),
            membership: Some(MembershipMsg::default()),
            total: 3,
            data: Bytes::from_static(b"a"),
            ..Chunk::default()
        }),
        Ask::Transfer(Transfer {
            from: vote(true),
            to: Some(from.into()),
            last: Some(at),
        }),
    ]
}

#[tokio::test(start_paused = true)]
async fn who_proves_that_it_was_let_in_is_heard_only_by_who_hears_no_leader() {
    let all = [
        Hears::Leader,
        Hears::Herself,
        Hears::HerSuccessor,
        Hears::NobodyFromNowOn,
        Hears::NobodySinceSheLed,
        Hears::NobodyYet,
        Hears::Nobody,
    ];
    for hears in all {
        for (is_genuine, by_claim) in [(true, true), (true, false), (false, true), (false, false)] {
            let case = format!("{hears:?}, genuine {is_genuine}, by a claim {by_claim}");
            let table = Table::new().await;
            table.bring_about(hears).await;
            let ann = table.node(0);
            let term = ann.status().borrow().term;
            let silent = ann.leader_silent_for();
            let listens = matches!(hears, Hears::Nobody | Hears::NobodySinceSheLed);
            let mut proof = table.proof(0);
            if !is_genuine {
                proof[31] ^= 1;
            }
            let proof = Some(proof);
            let taken = listens && is_genuine;
            if by_claim {
                let counted = table.counts(0, Lane::Lobby, table.claim(0, proof)).await;
                assert_eq!(counted, u64::from(listens && !is_genuine), "{case}");
            } else {
                if listens {
                    // It looks every now and then whether it still hears one.
                    tokio::time::sleep(ann.timing().heartbeat() * 2).await;
                }
                let counted = table.counts(0, Lane::Lobby, table.welcome(0, proof)).await;
                assert_eq!(counted, u64::from(!taken), "{case}");
            }
            for (n, ask) in asks(&eve(), term).into_iter().enumerate() {
                let counted = table
                    .counts(0, Lane::Raft, table.frame(0, &eve(), ask))
                    .await;
                assert_eq!(counted, u64::from(!taken), "{case}: request {n}");
            }
            // Whatever she has shown, she is no member.
            let tick = crate::state::command::Tick {};
            let command = crate::state::command::Body::Tick(tick);
            let command = crate::state::command::Command::new(0, command).to_bytes();
            for ask in [Ask::Submit(Submit { command }), Ask::Read(ReadAsked {})] {
                let frame = table.frame(0, &eve(), ask);
                assert_eq!(table.counts(0, Lane::Raft, frame).await, 1, "{case}");
            }
            assert_eq!(table.counts(0, Lane::App, app(b"psst")).await, 1, "{case}");
            assert!(!ann.believes(&peer("eve")) && !ann.believes(&peer("zed")));
            // Whom else she names is nobody, and having heard her is not having heard a leader.
            let zed = node("zed", 0);
            assert!(!ann.may_say_something(&zed), "{case}");
            if !matches!(hears, Hears::Leader | Hears::Herself) {
                assert!(ann.leader_silent_for() >= silent, "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_known_by_its_proof_alone_is_forgotten_once_there_is_a_leader() {
    let table = Table::new().await;
    // Nobody leads, and eve has been met by all of them.
    for n in 0..3 {
        table.cut_off(n);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for n in 0..3 {
        let proof = Some(table.proof(n));
        assert_eq!(
            table.counts(n, Lane::Lobby, table.claim(n, proof)).await,
            0,
            "node {n}"
        );
        let asked = table.pre_vote(n, &eve());
        assert_eq!(table.counts(n, Lane::Raft, asked).await, 0, "node {n}");
    }
    table.net.heal();
    let leads = |n: &usize| table.role(*n) == Role::Leader;
    until("one leads", || (0..3).any(|n| leads(&n))).await;
    table.sessions[0].sequencer().propose(&1).await.unwrap();
    for n in 0..3 {
        let asked = table.pre_vote(n, &eve());
        assert_eq!(table.counts(n, Lane::Raft, asked).await, 1, "node {n}");
    }
    // Not only for as long as it is there.
    for n in 0..3 {
        table.cut_off(n);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    for n in 0..3 {
        let asked = table.pre_vote(n, &eve());
        assert_eq!(table.counts(n, Lane::Raft, asked).await, 1, "node {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_was_replaced_is_not_heard_as_one() {
    let table = Table::new().await;
    table.bring_about(Hears::Nobody).await;
    let (ann, bob) = (table.node(0), table.node(1).me().clone());
    let term = ann.status().borrow().term;
    for (of, is_heard) in [(term - 1, false), (term, true)] {
        let vote = VoteMsg {
            term: of,
            node: Some((&bob).into()),
            committed: true,
        };
        ann.hears_leader(&bob, Some(&vote));
        assert_eq!(ann.leader_silent_for().is_zero(), is_heard, "{of}");
    }
}
