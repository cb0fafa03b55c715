//! Floods and rubbish on the lanes anybody with a certificate may write to.
//!
//! Frames are counted, not timed: between two turns of another task on the same thread so many are
//! heard and no more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::attend::FRAMES_AT_ONCE;
use super::strangers::{Sum, config, lobby, node, peer, port};
use super::*;
use crate::fabric::{Inbound, Incoming, Lane, MemoryFabric, QueueLimits, Receiver};
use crate::ids::Incarnation;
use crate::lobby::wire::{self, Announce, Claim, LobbyMsg, Verdict};
use crate::state::command::Kind;

const RUBBISH: Bytes = Bytes::from_static(b"\xff\xff\xff");

fn sum() -> Blueprint<Sum> {
    Blueprint::new(Sum::default)
}

fn hosting() -> HostOptions {
    HostOptions {
        claim_wait: Duration::from_millis(200),
        spectators_max: 1,
        ..HostOptions::new(1, Incarnation(1))
    }
}

/// A peer that is connected and speaks for itself.
fn stranger(net: &MemoryFabric, name: &str) -> (Links, Incoming) {
    port(&net.join(peer(name)).unwrap()).split()
}

/// Lets the other tasks of the thread have a turn, with a millisecond passing, until `done`. Answers
/// the most that `count` grew by in one turn.
async fn most_in_a_turn(count: impl Fn() -> u64, mut done: impl FnMut() -> bool) -> u64 {
    let (mut most, mut last) = (0, count());
    for _ in 0..100_000 {
        if done() {
            return most;
        }
        tokio::time::advance(Duration::from_millis(1)).await;
        let now = count();
        most = most.max(now - last);
        last = now;
    }
    panic!("it does not end");
}

async fn answered(lobby: &mut Receiver<Inbound>, of: &str) -> Verdict {
    loop {
        let inbound = lobby.recv().await.unwrap();
        if let Ok(LobbyMsg::Answer(answer)) = wire::decode(&inbound.from, &inbound.frame)
            && answer.to == node(of, 1)
        {
            return answer.verdict;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_lobby_lane_lets_others_run_and_timers_fire_and_the_honest_are_answered() {
    let net = MemoryFabric::new();
    let at = net.join(peer("ann")).unwrap();
    let (eve, _eves) = stranger(&net, "eve");
    let (bob, mut bobs) = stranger(&net, "bob");
    let ann = game_host(port(&at), sum(), hosting(), config(1));
    let ann = ann.await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let before = ann.node().dropped_frames();

    let full = QueueLimits::default().frames_max as u64;
    let announce = Announce {
        node: node("bob", 1),
        kind: Kind::Spectator,
        session: None,
        member: false,
        needs_vote: false,
        begins: false,
    };
    for n in 0..full {
        let honest = n == full / 2;
        if honest {
            let announce = lobby(&LobbyMsg::Announce(announce.clone()));
            bob.send(&peer("ann"), Lane::Lobby, announce).unwrap();
        } else {
            eve.send(&peer("ann"), Lane::Lobby, RUBBISH).unwrap();
        }
    }
    let heard = || ann.node().dropped_frames().malformed - before.malformed;
    assert_eq!(heard(), 0, "the lane is full, and nobody has had a turn");
    let fired_at = Arc::new(AtomicU64::new(0));
    let timer = {
        let (fired_at, node) = (fired_at.clone(), ann.node());
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let heard = node.dropped_frames().malformed - before.malformed;
            fired_at.store(heard, Ordering::Relaxed);
        }
    };
    tokio::spawn(timer);
    let most = most_in_a_turn(heard, || heard() == full - 1).await;
    assert!(most <= 2 * FRAMES_AT_ONCE as u64, "{most} in one turn");
    let fired_at = fired_at.load(Ordering::Relaxed);
    assert!((1..full / 2).contains(&fired_at), "{fired_at}");
    let answered = answered(&mut bobs.lobby, "bob");
    let answered = tokio::time::timeout(Duration::from_secs(10), answered).await;
    assert_eq!(answered, Ok(Verdict::Welcome));
    ann.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_claims_or_asks_for_a_place_hears_a_flood_in_batches_too() {
    let net = MemoryFabric::new();
    // A peer that says nothing keeps the claim waiting.
    let (_fay, _fays) = stranger(&net, "fay");
    let (eve, mut eves) = stranger(&net, "eve");
    let [ann, bob] = ["ann", "bob"].map(|name| port(&net.join(peer(name)).unwrap()));
    let claim = lobby(&LobbyMsg::Claim(Claim {
        session: SessionId(9),
        holder: node("eve", 1),
        nonce: u64::MAX,
        established: false,
        term: 0,
        leader: None,
        proof: None,
    }));
    let claiming = HostOptions {
        claim_wait: Duration::from_secs(5),
        ..hosting()
    };
    let asking = JoinOptions {
        within: Duration::from_millis(100),
        ..JoinOptions::new(Incarnation(1))
    };
    let claims = tokio::spawn(game_host(ann, sum(), claiming, config(1)));
    let asks = tokio::spawn(game_join(bob, sum(), asking, config(2)));
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Each of her claims is answered, so that what she was told counts what was heard.
    while eves.lobby.try_recv().is_some() {}
    let full = QueueLimits::default().frames_max as u64;
    for name in ["ann", "bob"] {
        for _ in 0..full {
            eve.send(&peer(name), Lane::Lobby, claim.clone()).unwrap();
        }
        let mut told = 0;
        let mut most = 0;
        for turn in 0..100_000 {
            tokio::time::advance(Duration::from_micros(10)).await;
            let mut now = 0;
            while let Some(inbound) = eves.lobby.try_recv() {
                now += u64::from(inbound.from == peer(name));
            }
            most = most.max(now);
            told += now;
            if told >= full {
                break;
            }
            assert!(turn < 99_999, "{name} answered {told} times");
        }
        assert!(most <= 2 * FRAMES_AT_ONCE as u64, "{name}: {most}");
    }
    assert!(asks.await.unwrap().is_err(), "nobody hosts");
    claims.abort();
}

/// Bytes that are, most of them, no frame of the lobby; and how many of them are none.
fn rubbish() -> (Vec<Bytes>, u64) {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut frames = Vec::new();
    for len in 0..200usize {
        let byte = |_| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        };
        frames.push(Bytes::from_iter((0..len % 70).map(byte)));
    }
    let is_none = |frame: &&Bytes| wire::decode(&peer("eve"), frame).is_err();
    let none = frames.iter().filter(is_none).count() as u64;
    assert!(none > 150, "{none}");
    (frames, none)
}

#[tokio::test(start_paused = true)]
async fn random_bytes_on_the_lobby_lane_are_dropped_and_counted_while_it_claims_asks_and_plays() {
    let net = MemoryFabric::new();
    let (eve, _eves) = stranger(&net, "eve");
    let [ann, bob] = ["ann", "bob"].map(|name| port(&net.join(peer(name)).unwrap()));
    let (frames, none) = rubbish();
    let throw = |at: &str| {
        for frame in &frames {
            eve.send(&peer(at), Lane::Lobby, frame.clone()).unwrap();
        }
    };
    let options = HostOptions {
        return_at: ReturnPolicy::Quorum,
        ..HostOptions::new(2, Incarnation(1))
    };
    let hosts = tokio::spawn(game_host(ann, sum(), options, config(1)));
    let joins = tokio::spawn(game_join(
        bob,
        sum(),
        JoinOptions::new(Incarnation(1)),
        config(2),
    ));
    tokio::time::sleep(Duration::from_millis(20)).await;
    throw("ann");
    throw("bob");
    let (ann, bob) = (hosts.await.unwrap().unwrap(), joins.await.unwrap().unwrap());
    for (name, session) in [("ann", &ann), ("bob", &bob)] {
        let dropped = session.node().dropped_frames();
        assert_eq!(dropped.malformed, none, "{name} before it played");
        throw(name);
        tokio::time::sleep(Duration::from_millis(20)).await;
        let dropped = session.node().dropped_frames();
        assert_eq!(dropped.malformed, 2 * none, "{name} while it plays");
    }
    // On the app lane, from a member, they are for channels nobody has open; the rest is a stranger's.
    let before = ann.node().dropped_frames().not_member;
    for frame in &frames {
        bob.links
            .send(&peer("ann"), Lane::App, frame.clone())
            .unwrap();
        eve.send(&peer("ann"), Lane::App, frame.clone()).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let count = frames.len() as u64;
    assert_eq!(ann.unclaimed_app_frames(), count);
    assert_eq!(ann.node().dropped_frames().not_member, before + count);
    for session in [&ann, &bob] {
        assert!(session.sequencer().propose(&1).await.unwrap().is_accepted());
    }
    for session in [&ann, &bob] {
        session.close().await;
    }
}
