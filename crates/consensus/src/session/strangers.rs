//! Frames of verified peers that are no members, made as members make them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::*;
use crate::config::Timing;
use crate::fabric::Port;
use crate::fabric::{Lane, MemoryFabric, MemoryPeer};
use crate::game::{Malformed, Snapshots, TurnInfo};
use crate::ids::GameId;
use crate::ids::{Incarnation, NodeId};
use crate::lobby::proof::Secret;
use crate::lobby::wire::{self, Announce, Answer, Claim, LobbyMsg, Verdict};
use crate::raft::wire::{Append, Body as Ask, Chunk, Frame, ReadAsked, Submit, VoteAsked};
use crate::state::command::Command;
use crate::state::command::{Body, Kind};

#[derive(Clone, Default)]
pub(super) struct Sum(u64);

impl Game for Sum {
    type Action = u64;
    type Outcome = u64;
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, add: &u64) -> Result<u64, ()> {
        self.0 += add;
        Ok(self.0)
    }
}

impl Snapshots for Sum {
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = bytes.try_into().map_err(|_| Malformed)?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }
}

pub(super) fn peer(name: &str) -> PeerId {
    PeerId::new(name).unwrap()
}

pub(super) fn node(name: &str, life: u64) -> NodeId {
    NodeId::new(peer(name), Incarnation(life))
}

pub(super) fn port(at: &Arc<MemoryPeer>) -> Port {
    Port::open(at.clone(), GameId::new("sum").unwrap()).unwrap()
}

pub(super) fn config(nonce: u64) -> SessionConfig {
    SessionConfig {
        timing: Timing::fast(),
        ..SessionConfig::new(Arc::new(TokioClock::default()), nonce)
    }
}

pub(super) fn lobby(msg: &LobbyMsg) -> Bytes {
    wire::encode(msg).unwrap()
}

/// An app frame for the channel "chat".
pub(super) fn app(payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(4);
    frame.put_slice(b"chat");
    frame.put_slice(payload);
    frame.freeze()
}

#[tokio::test(start_paused = true)]
async fn well_formed_frames_of_a_peer_that_is_no_member_are_dropped_and_counted_on_every_lane() {
    let net = MemoryFabric::new();
    let names = ["ann", "bob", "cyd"];
    let roster: BTreeSet<_> = names.map(peer).into();
    let mut sessions = Vec::new();
    for (n, name) in names.into_iter().enumerate() {
        let at = net.join(peer(name)).unwrap();
        let blueprint = Blueprint::new(Sum::default);
        let opened = game_node(port(&at), blueprint, roster.clone(), config(n as u64));
        sessions.push((at.clone(), opened.await.unwrap()));
    }
    let (_, ann) = &sessions[0];
    ann.sequencer().propose(&1).await.unwrap();
    let eve = net.join(peer("eve")).unwrap();
    let (links, _incoming) = port(&eve).split();
    let send = |lane, frame: Bytes| links.send(&peer("ann"), lane, frame).unwrap();
    let not_member = || ann.node().dropped_frames().not_member;
    let settle = || tokio::time::sleep(Duration::from_millis(20));

    // Raft: everything there is to ask, for the right session and life.
    let term = ann.node().status().borrow().term;
    let vote = crate::raft::wire::VoteMsg {
        term: term + 5,
        node: Some((&node("eve", 0)).into()),
        committed: true,
    };
    let through = Some(crate::raft::wire::At { index: 9, term });
    let act = Command::new(0, Body::Tick(crate::state::command::Tick {}));
    let asks = [
        Ask::Append(Append {
            vote: Some(vote.clone()),
            ..Append::default()
        }),
        Ask::Vote(VoteAsked {
            vote: Some(crate::raft::wire::VoteMsg {
                committed: false,
                ..vote.clone()
            }),
            transfer: true,
            ..VoteAsked::default()
        }),
        Ask::Chunk(Chunk {
            vote: Some(vote),
            through,
            membership: Some(crate::raft::wire::MembershipMsg::default()),
            total: 3,
            data: Bytes::from_static(b"abc"),
            ..Chunk::default()
        }),
        Ask::Submit(Submit {
            command: act.to_bytes(),
        }),
        Ask::Read(ReadAsked {}),
    ];
    for (n, ask) in asks.into_iter().enumerate() {
        let before = not_member();
        let frame = Frame::new(
            ann.id().to_bytes(),
            &node("eve", 0),
            &node("ann", 0),
            n as u64,
            ask,
        );
        send(Lane::Raft, frame.encode_to_vec().into());
        settle().await;
        assert_eq!(not_member(), before + 1, "request {n}");
    }

    // The lobby: who is no member welcomes nobody.
    let before = not_member();
    let welcome = LobbyMsg::Answer(Answer {
        to: node("ann", 0),
        session: ann.id(),
        verdict: Verdict::Welcome,
        members: vec![node("eve", 0)],
        proof: None,
    });
    send(Lane::Lobby, lobby(&welcome));
    settle().await;
    assert_eq!(not_member(), before + 1);

    // The app lane, for a channel that is open and read.
    let mut chat = ann.app_channel("chat").unwrap().incoming().unwrap();
    let before = not_member();
    send(Lane::App, app(b"psst"));
    settle().await;
    assert_eq!(not_member(), before + 1);
    assert!(chat.try_recv().is_none());
    assert_eq!(ann.unclaimed_app_frames(), 0);
    let (_, bob) = &sessions[1];
    bob.app_channel("chat")
        .unwrap()
        .broadcast(b"hello")
        .unwrap();
    let got = chat.recv().await.unwrap();
    assert_eq!((got.from, &got.frame[..]), (peer("bob"), &b"hello"[..]));

    // Nothing came of any of it.
    assert_eq!(ann.node().status().borrow().term, term);
    assert_eq!(ann.node().membership().voters.len(), 3);
    assert!(ann.sequencer().propose(&1).await.unwrap().is_accepted());
    for (_, session) in &sessions {
        session.close().await;
    }
}

/// Answers every announcement it hears as if it led.
async fn lie(at: Arc<MemoryPeer>, session: SessionId, claims: bool, verdict: Verdict) {
    let (links, mut incoming) = port(&at).split();
    let me = NodeId::new(links.local().clone(), Incarnation(1));
    while let Some(inbound) = incoming.lobby.recv().await {
        let Ok(LobbyMsg::Announce(announce)) = wire::decode(&inbound.from, &inbound.frame) else {
            continue;
        };
        let send = |msg: &LobbyMsg| {
            let _ = links.send(&inbound.from, Lane::Lobby, lobby(msg));
        };
        if claims {
            send(&LobbyMsg::Claim(Claim {
                session,
                holder: me.clone(),
                nonce: 0,
                established: true,
                term: u64::MAX,
                leader: Some(me.clone()),
                proof: None,
            }));
        }
        send(&LobbyMsg::Answer(Answer {
            to: announce.node,
            session,
            verdict,
            members: vec![me.clone()],
            proof: None,
        }));
    }
}

async fn hosted(net: &MemoryFabric, seats: u32) -> GameSession<Sum> {
    let at = net.join(peer("ann")).unwrap();
    let options = HostOptions {
        return_at: ReturnPolicy::Quorum,
        claim_wait: Duration::from_millis(100),
        ..HostOptions::new(seats, Incarnation(1))
    };
    let blueprint = Blueprint::new(Sum::default);
    let hosting = game_host(port(&at), blueprint, options, config(1));
    hosting.await.unwrap()
}

async fn joins(
    net: &MemoryFabric,
    name: &str,
    options: JoinOptions,
) -> Result<GameSession<Sum>, JoinError> {
    let at = net.join(peer(name)).unwrap();
    let blueprint = Blueprint::new(Sum::default);
    game_join(port(&at), blueprint, options, config(9)).await
}

#[tokio::test(start_paused = true)]
async fn a_joiner_believes_who_leads_and_nobody_who_only_says_what_becomes_of_it() {
    for verdict in [Verdict::RosterFull, Verdict::Welcome, Verdict::Superseded] {
        let net = MemoryFabric::new();
        let host = hosted(&net, 1).await;
        // First by name, and listening before anybody knocks: heard first, and looked at first.
        let abe = net.join(peer("abe")).unwrap();
        let lying = tokio::spawn(lie(abe, host.id(), false, verdict));
        tokio::time::sleep(Duration::from_millis(10)).await;
        let joined = joins(&net, "bob", JoinOptions::new(Incarnation(1))).await;
        assert_eq!(joined.err(), Some(JoinError::RosterFull), "the host's word");
        lying.abort();
        host.close().await;
    }
    let net = MemoryFabric::new();
    let options = HostOptions {
        claim_wait: Duration::from_millis(100),
        ..HostOptions::new(2, Incarnation(1))
    };
    let abe = net.join(peer("abe")).unwrap();
    let at = net.join(peer("ann")).unwrap();
    let blueprint = Blueprint::new(Sum::default);
    let lying = tokio::spawn(lie(abe, SessionId(6), false, Verdict::RosterFull));
    let (host, player) = tokio::join!(
        game_host(port(&at), blueprint, options, config(1)),
        joins(&net, "bob", JoinOptions::new(Incarnation(1)))
    );
    let (host, player) = (host.unwrap(), player.unwrap());
    assert_eq!(player.id(), host.id());
    assert!(
        player.node().dropped_frames().not_member > 0,
        "they are counted"
    );
    lying.abort();
}

#[tokio::test(start_paused = true)]
async fn a_joiner_that_names_a_host_gets_in_past_a_peer_that_claims_to_lead() {
    let net = MemoryFabric::new();
    let at = net.join(peer("ann")).unwrap();
    let options = HostOptions {
        claim_wait: Duration::from_millis(100),
        ..HostOptions::new(2, Incarnation(1))
    };
    let blueprint = Blueprint::new(Sum::default);
    let hosting = tokio::spawn(game_host(port(&at), blueprint, options, config(1)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let abe = net.join(peer("abe")).unwrap();
    let lying = tokio::spawn(lie(abe, SessionId(6), true, Verdict::RosterFull));
    // It listens before anybody knocks.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let within = Duration::from_secs(3);
    let naive = JoinOptions {
        within,
        ..JoinOptions::new(Incarnation(1))
    };
    match joins(&net, "bob", naive.clone()).await {
        Err(JoinError::NotVouchedFor { answers, .. }) => assert!(answers > 0),
        other => panic!("unexpected {other:?}"),
    }
    // Ann gave bob the last seat, which he did not believe. It is free again, for he said so: much
    // sooner than a seat is taken from who dies at the door.
    assert!(within < AdmissionTiming::default().admit_within);
    let told = JoinOptions {
        hosts: [peer("ann")].into(),
        ..naive
    };
    let player = joins(&net, "cyd", told).await.unwrap();
    let host = hosting.await.unwrap().unwrap();
    assert_eq!(player.id(), host.id());
    lying.abort();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_cut_off_takes_nothing_from_a_peer_that_was_never_let_in() {
    let net = MemoryFabric::new();
    let names = ["ann", "bob", "cyd"];
    let roster: BTreeSet<_> = names.map(peer).into();
    let mut sessions = Vec::new();
    for (n, name) in names.into_iter().enumerate() {
        let at = net.join(peer(name)).unwrap();
        let blueprint = Blueprint::new(Sum::default);
        let opened = game_node(port(&at), blueprint, roster.clone(), config(n as u64));
        sessions.push((at, opened.await.unwrap()));
    }
    let ann = &sessions[0].1;
    let bob = &sessions[1].1;
    ann.sequencer().propose(&1).await.unwrap();
    if ann.node().status().borrow().role.leads() {
        let (from, to) = (ann.node(), bob.node());
        assert_eq!(from.transfer(to.id(), Duration::from_secs(5)).await, Ok(()));
    }
    for other in ["bob", "cyd"] {
        net.cut(&peer("ann"), &peer(other));
    }
    bob.sequencer().propose(&1).await.unwrap();
    let eve = net.join(peer("eve")).unwrap();
    let (links, mut incoming) = port(&eve).split();
    let send = |lane, frame: Bytes| links.send(&peer("ann"), lane, frame).unwrap();
    let not_member = || ann.node().dropped_frames().not_member;
    let settle = || tokio::time::sleep(Duration::from_millis(20));
    // Long enough that ann would believe anybody who may be believed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let held = ann.node().numbers();
    let term = ann.node().status().borrow().term;
    assert_eq!(
        ann.node().state(Duration::from_millis(200)).waiting,
        Waiting::ForLeader
    );

    // What ann shows her: that ann knows the secret.
    let announce = LobbyMsg::Announce(Announce {
        node: node("eve", 0),
        kind: Kind::Player,
        session: Some(ann.id()),
        member: true,
        needs_vote: false,
        begins: false,
    });
    send(Lane::Lobby, lobby(&announce));
    let anns = loop {
        let inbound = incoming.lobby.recv().await.unwrap();
        if let Ok(LobbyMsg::Claim(claim)) = wire::decode(&inbound.from, &inbound.frame)
            && let Some(proof) = claim.proof
        {
            break proof;
        }
    };
    let guessed = Secret::drawn(&7_u64.to_be_bytes(), "sum", ann.id()).prove(
        ann.id(),
        &peer("eve"),
        &peer("ann"),
    );
    let at = crate::raft::wire::At {
        index: 1 << 40,
        term: term + 5,
    };
    let vote = |committed| {
        Some(crate::raft::wire::VoteMsg {
            term: term + 5,
            node: Some((&node("eve", 0)).into()),
            committed,
        })
    };
    let asks = || {
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
                membership: Some(crate::raft::wire::MembershipMsg::default()),
                total: 3,
                data: Bytes::from_static(b"abc"),
                ..Chunk::default()
            }),
        ]
    };
    // With no proof, the one she was shown, and one by a secret she guessed.
    for (proof, counts) in [(None, 0), (Some(anns), 1), (Some(guessed), 1)] {
        let before = not_member();
        send(
            Lane::Lobby,
            lobby(&LobbyMsg::Claim(Claim {
                session: ann.id(),
                holder: node("eve", 0),
                nonce: 0,
                established: true,
                term: term + 5,
                leader: Some(node("eve", 0)),
                proof,
            })),
        );
        settle().await;
        assert_eq!(not_member(), before + counts, "the claim, {proof:?}");
        let before = not_member();
        send(
            Lane::Lobby,
            lobby(&LobbyMsg::Answer(Answer {
                to: node("ann", 0),
                session: ann.id(),
                verdict: Verdict::Welcome,
                members: vec![node("eve", 0), node("ann", 0)],
                proof,
            })),
        );
        settle().await;
        assert_eq!(not_member(), before + 1, "the welcome, {proof:?}");
        for (n, ask) in asks().into_iter().enumerate() {
            let before = not_member();
            let to = node("ann", 0);
            let frame = Frame::new(ann.id().to_bytes(), &node("eve", 0), &to, n as u64, ask);
            send(Lane::Raft, frame.encode_to_vec().into());
            settle().await;
            assert_eq!(not_member(), before + 1, "request {n}, {proof:?}");
        }
    }
    let now = ann.node().numbers();
    assert_eq!((now.last, now.committed), (held.last, held.committed));
    assert_eq!(ann.node().status().borrow().term, term);
    assert!(
        incoming.raft.try_recv().is_none(),
        "she was answered nothing"
    );

    net.heal();
    let added = ann.sequencer().propose(&1).await.unwrap();
    assert_eq!(added.ruling, crate::turns::Ruling::Accepted(3));
    for (_, session) in &sessions {
        session.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_joiner_hears_that_a_peer_takes_its_claim_back() {
    let net = MemoryFabric::new();
    let at = net.join(peer("ann")).unwrap();
    let options = HostOptions {
        claim_wait: Duration::from_millis(100),
        ..HostOptions::new(2, Incarnation(1))
    };
    let blueprint = Blueprint::new(Sum::default);
    let hosting = tokio::spawn(game_host(port(&at), blueprint, options, config(1)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    // Abe answered for a session of his own, which is over.
    let (links, mut incoming) = port(&net.join(peer("abe")).unwrap()).split();
    let me = NodeId::new(links.local().clone(), Incarnation(1));
    let over = tokio::spawn(async move {
        while let Some(inbound) = incoming.lobby.recv().await {
            let Ok(LobbyMsg::Announce(_)) = wire::decode(&inbound.from, &inbound.frame) else {
                continue;
            };
            let claim = Claim {
                session: SessionId(6),
                holder: me.clone(),
                nonce: 0,
                established: true,
                term: 9,
                leader: Some(me.clone()),
                proof: None,
            };
            let frame = lobby(&LobbyMsg::Claim(claim));
            links.send(&inbound.from, Lane::Lobby, frame).unwrap();
            links.broadcast(Lane::Lobby, &lobby(&LobbyMsg::Withdraw { nonce: 0 }));
        }
    });
    let player = joins(&net, "bob", JoinOptions::new(Incarnation(1))).await;
    let player = player.unwrap();
    assert_eq!(player.id(), hosting.await.unwrap().unwrap().id());
    over.abort();
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_dropped_while_it_claims_takes_its_claim_back() {
    let net = MemoryFabric::new();
    let (_links, mut incoming) = port(&net.join(peer("eve")).unwrap()).split();
    let at = net.join(peer("ann")).unwrap();
    let options = HostOptions {
        claim_wait: Duration::from_secs(60),
        ..HostOptions::new(2, Incarnation(1))
    };
    let hosting = game_host(port(&at), Blueprint::new(Sum::default), options, config(1));
    let dropped = tokio::time::timeout(Duration::from_secs(1), hosting).await;
    assert!(dropped.is_err());
    let mut heard = Vec::new();
    while let Some(inbound) = incoming.lobby.try_recv() {
        heard.push(wire::decode(&inbound.from, &inbound.frame).unwrap());
    }
    assert!(
        matches!(heard.first(), Some(LobbyMsg::Claim(_))),
        "{heard:?}"
    );
    assert!(
        matches!(heard.last(), Some(LobbyMsg::Withdraw { .. })),
        "{heard:?}"
    );
    // The name is free again.
    drop(port(&at));
}
