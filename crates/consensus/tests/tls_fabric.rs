//! Peers on real sockets with real certificates: what flows, who is refused, what is survived.

mod tls_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cabinet_consensus::fabric::tls::{
    ConfigError, Credentials, DirectoryError, IdentityError, TlsConfig, TlsFabric, TlsLimits,
    peer_of, peer_uri,
};
use cabinet_consensus::fabric::{FRAME_BYTES_MAX, Fabric, Lane, Principal, QueueLimits, SendError};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use tls_support::*;

fn number(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes())
}

/// A fabric whose dials to `to` must come to nothing: answers once it has seen `count` refusals.
async fn never_joined(a: &TlsFabric, b: &TlsFabric) {
    assert!(a.peers().get().is_empty() && b.peers().get().is_empty());
    assert_eq!((a.connections(), b.connections()), (0, 0));
    assert_eq!((a.stats().connected, b.stats().connected), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_flow_both_ways_on_every_lane_in_order_and_by_game() {
    const FRAMES: u32 = 500;
    let authority = Authority::new();
    let (ann, bob) = pair(&authority).await;
    let mut at_bob = [opened(&bob, "chess"), opened(&bob, "go")];
    let mut at_ann = [opened(&ann, "chess"), opened(&ann, "go")];
    for n in 0..FRAMES {
        for lane in Lane::ALL {
            for name in ["chess", "go"] {
                let there = [name.as_bytes(), &n.to_le_bytes()].concat();
                ann.send(&peer("bob"), &game(name), lane, there.clone().into())
                    .unwrap();
                bob.send(&peer("ann"), &game(name), lane, there.into())
                    .unwrap();
            }
        }
    }
    for (from, incoming) in [("ann", &mut at_bob), ("bob", &mut at_ann)] {
        for (name, incoming) in ["chess", "go"].iter().zip(incoming) {
            for lane in [&mut incoming.raft, &mut incoming.lobby, &mut incoming.app] {
                for n in 0..FRAMES {
                    let got = in_time("a frame", lane.recv()).await.unwrap();
                    assert_eq!(got.from, peer(from));
                    let expected = [name.as_bytes(), &n.to_le_bytes()].concat();
                    assert_eq!(got.frame, expected);
                }
            }
        }
    }
    // Two games, three lanes, one pair of connections.
    assert_eq!((ann.connections(), bob.connections()), (2, 2));
    let (sent, got) = (ann.stats(), bob.stats());
    for (sent, got) in [
        (sent.raft, got.raft),
        (sent.lobby, got.lobby),
        (sent.app, got.app),
    ] {
        let frames = u64::from(2 * FRAMES);
        assert_eq!((sent.sent, sent.dropped, got.received), (frames, 0, frames));
    }
}

#[tokio::test]
async fn each_sees_the_certificate_that_the_other_proved() {
    let authority = Authority::new();
    let (for_ann, for_bob) = (authority.issue("Ann B./ö"), authority.issue("bob"));
    let pem = |issued: &Issued| {
        let (chain, key) = &issued.pem;
        Credentials::from_pem(
            chain.as_bytes(),
            key.as_bytes(),
            authority.root_pem.as_bytes(),
        )
        .unwrap()
    };
    let ann = start(TlsConfig::builder(peer("Ann B./ö"), pem(&for_ann))).await;
    let bob =
        start(TlsConfig::builder(peer("bob"), pem(&for_bob)).peer(peer("Ann B./ö"), ann.address()))
            .await;
    joined(&ann, &bob).await;
    for (fabric, other, issued) in [(&ann, "bob", &for_bob), (&bob, "Ann B./ö", &for_ann)] {
        let digest = ring::digest::digest(&ring::digest::SHA256, &issued.chain[0]);
        let sha256 = digest.as_ref().try_into().unwrap();
        assert_eq!(
            fabric.peers().get().get(&peer(other)),
            Some(&Principal::Certificate { sha256 })
        );
        assert_eq!(peer_of(&issued.chain[0]), Ok(peer(other)));
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_either_end() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (ann, bob) = (ours.start("ann").await, theirs.start("bob").await);
    ann.add_peer(&peer("bob"), bob.address()).unwrap();
    // The dialler refuses.
    counted(&ann, "two refusals", |s| s.handshakes_failed >= 2).await;
    ann.remove_peer(&peer("bob"));
    never_joined(&ann, &bob).await;
    // The other end refuses, when the dialler trusts it.
    let issued = theirs.issue("cyd");
    let mixed = Credentials::new(issued.chain.clone(), issued.key(), vec![ours.root.clone()]);
    let cyd = start(
        TlsConfig::builder(peer("cyd"), mixed.unwrap())
            .limits(limits())
            .backoff(backoff())
            .peer(peer("ann"), ann.address()),
    )
    .await;
    let before = ann.stats().handshakes_failed;
    counted(&ann, "a refusal", |s| s.handshakes_failed > before).await;
    counted(&cyd, "it was told", |s| s.handshakes_failed > 0).await;
    never_joined(&ann, &cyd).await;
}

#[tokio::test]
async fn the_right_authority_with_the_wrong_name_is_refused_by_either_end() {
    let authority = Authority::new();
    // Somebody else answers than the peer that was dialled.
    let (ann, mallory) = (
        authority.start("ann").await,
        authority.start("mallory").await,
    );
    ann.add_peer(&peer("bob"), mallory.address()).unwrap();
    counted(&ann, "two mismatches", |s| s.mismatched >= 2).await;
    never_joined(&ann, &mallory).await;
    // Somebody dials and says another name than its certificate's, ours among them, or has none.
    let cases = [
        (authority.issue("mallory"), "bob"),
        (authority.issue("mallory"), "ann"),
        (authority.issue("ann"), "ann"),
        (authority.issue_with(&[], 4000), "bob"),
        (
            authority.issue_with(&[peer_uri(&peer("bob")), peer_uri(&peer("cyd"))], 4000),
            "bob",
        ),
    ];
    ann.remove_peer(&peer("bob"));
    until("the dialler rests", || ann.tasks().get() == 1).await;
    for (issued, says) in cases {
        let before = ann.stats().mismatched;
        let mut raw = Raw::dial(ann.address(), Some(&issued), &TLS13)
            .await
            .unwrap();
        raw.write(&framed(&hello(says, 1))).await;
        let answer = raw.read().await;
        assert_eq!(answer.and_then(|wire| wire.bye), Some(5));
        raw.ended().await;
        counted(&ann, "a mismatch", |s| s.mismatched == before + 1).await;
        assert!(ann.peers().get().is_empty());
    }
}

#[tokio::test]
async fn no_certificate_an_expired_one_and_an_older_tls_are_refused() {
    let authority = Authority::new();
    let ann = authority.start("ann").await;
    let expired = authority.issue_with(&[peer_uri(&peer("bob"))], 2001);
    let good = authority.issue("bob");
    let attempts = [
        (None, &TLS13),
        (Some(&expired), &TLS13),
        (Some(&good), &TLS12),
    ];
    for (n, (issued, version)) in (1..).zip(attempts) {
        if let Ok(mut raw) = Raw::dial(ann.address(), issued, version).await {
            raw.write(&framed(&hello("bob", 1))).await;
            assert_eq!(raw.read().await, None);
        }
        counted(&ann, "a refusal", |s| s.handshakes_failed == n).await;
    }
    assert_eq!((ann.connections(), ann.stats().connected), (0, 0));
    // A dialler refuses an expired one as well.
    let old = authority.credentials(&expired);
    let bob = start(TlsConfig::builder(peer("bob"), old)).await;
    ann.add_peer(&peer("bob"), bob.address()).unwrap();
    counted(&ann, "the dialler's refusal", |s| s.handshakes_failed > 3).await;
    never_joined(&ann, &bob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_the_most_bytes_arrives_and_one_more_byte_does_not_leave() {
    let authority = Authority::new();
    let (ann, bob) = pair(&authority).await;
    let mut incoming = opened(&bob, "chess");
    for lane in Lane::ALL {
        let send = |len| ann.send(&peer("bob"), &game("chess"), lane, vec![5; len].into());
        send(FRAME_BYTES_MAX).unwrap();
        let len = FRAME_BYTES_MAX + 1;
        assert_eq!(send(len), Err(SendError::TooLarge { len }));
    }
    for lane in [&mut incoming.raft, &mut incoming.lobby, &mut incoming.app] {
        let got = in_time("the frame", lane.recv()).await.unwrap();
        assert_eq!(got.frame.len(), FRAME_BYTES_MAX);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversize_frame_closes_its_connection_and_is_counted() {
    let authority = Authority::new();
    let ann = authority.start("ann").await;
    let mut incoming = opened(&ann, "chess");
    // A payload at the limit and one past it.
    let mut raw = Raw::greeted(&authority, ann.address(), "bob", 1).await;
    raw.write(&framed(&data("chess", 1, vec![1; FRAME_BYTES_MAX])))
        .await;
    let got = in_time("the frame", incoming.raft.recv()).await.unwrap();
    assert_eq!(got.frame.len(), FRAME_BYTES_MAX);
    raw.write(&framed(&data("chess", 1, vec![1; FRAME_BYTES_MAX + 1])))
        .await;
    raw.ended().await;
    counted(&ann, "the first", |s| s.oversize == 1).await;
    // A length past the limit, with nothing behind it.
    let mut raw = Raw::greeted(&authority, ann.address(), "bob", 1).await;
    let len = u32::try_from(FRAME_BYTES_MAX + 512).unwrap();
    raw.write(&(len + 1).to_le_bytes()).await;
    raw.ended().await;
    counted(&ann, "the second", |s| s.oversize == 2).await;
    // Before Hello the limit is lower: at it the end waits for more, past it it hangs up.
    let issued = authority.issue("bob");
    let mut raw = Raw::dial(ann.address(), Some(&issued), &TLS13)
        .await
        .unwrap();
    raw.write(&513_u32.to_le_bytes()).await;
    raw.ended().await;
    counted(&ann, "the third", |s| s.oversize == 3).await;
    assert_eq!(incoming.raft.try_recv(), None);
}

#[tokio::test]
async fn frames_that_make_no_sense_close_their_connection_and_are_counted() {
    let authority = Authority::new();
    let ann = authority.start("ann").await;
    let mut incoming = opened(&ann, "chess");
    let mut garbage = 24_u32.to_le_bytes().to_vec();
    garbage.extend([0xff; 24]);
    let cases: [(u32, Vec<u8>); 7] = [
        (1, garbage),
        (1, framed(&Wire::default())),
        // A lane of the other connection, and no lane at all.
        (1, framed(&data("chess", 3, vec![1]))),
        (2, framed(&data("chess", 1, vec![1]))),
        (2, framed(&data("chess", 2, vec![1]))),
        (2, framed(&data("chess", 9, vec![1]))),
        (1, framed(&hello("bob", 1))),
    ];
    for (n, (kind, bytes)) in (1..).zip(cases) {
        let mut raw = Raw::greeted(&authority, ann.address(), "bob", kind).await;
        raw.write(&bytes).await;
        raw.ended().await;
        counted(&ann, "one more", |s| s.malformed == n).await;
    }
    // Data before Hello.
    let issued = authority.issue("bob");
    let mut raw = Raw::dial(ann.address(), Some(&issued), &TLS13)
        .await
        .unwrap();
    raw.write(&framed(&data("chess", 1, vec![1]))).await;
    raw.ended().await;
    counted(&ann, "Data before Hello", |s| s.malformed == 8).await;
    // A version that is not ours.
    let mut raw = Raw::dial(ann.address(), Some(&issued), &TLS13)
        .await
        .unwrap();
    let mut wire = hello("bob", 1);
    wire.hello.as_mut().unwrap().version = 2;
    raw.write(&framed(&wire)).await;
    raw.ended().await;
    counted(&ann, "a version", |s| s.refused == 1).await;
    for lane in [&mut incoming.raft, &mut incoming.lobby, &mut incoming.app] {
        assert_eq!(lane.try_recv(), None);
    }
    // What is left is a working fabric.
    let bob = authority.start("bob").await;
    bob.add_peer(&peer("ann"), ann.address()).unwrap();
    joined(&ann, &bob).await;
}

#[tokio::test]
async fn bytes_that_are_no_tls_are_counted_and_survived() {
    let authority = Authority::new();
    let ann = authority.start("ann").await;
    for n in 1..=20_u8 {
        let mut tcp = TcpStream::connect(ann.address()).await.unwrap();
        let garbage: Vec<u8> = (0..200).map(|i: u8| i.wrapping_mul(n) ^ n).collect();
        let _ = tcp.write_all(&garbage).await;
        drop(tcp);
    }
    counted(&ann, "all of them", |s| s.handshakes_failed == 20).await;
    let bob = authority.start("bob").await;
    bob.add_peer(&peer("ann"), ann.address()).unwrap();
    joined(&ann, &bob).await;
}

#[tokio::test]
async fn a_peer_that_dies_and_comes_back_at_the_same_place_is_dialled_again() {
    let authority = Authority::new();
    let (ann, bob) = pair(&authority).await;
    let at = bob.address();
    for life in 1..=3_u32 {
        let bob = match life {
            1 => bob.clone(),
            _ => start(authority.config("bob").listen(at)).await,
        };
        joined(&ann, &bob).await;
        let mut incoming = opened(&bob, "chess");
        ann.send(&peer("bob"), &game("chess"), Lane::Raft, number(life))
            .unwrap();
        let got = in_time("a frame", incoming.raft.recv()).await.unwrap();
        assert_eq!(got.frame, number(life));
        bob.close().await;
        until("it is seen to leave", || !knows(&ann, "bob")).await;
        let sent = ann.send(&peer("bob"), &game("chess"), Lane::Raft, number(0));
        assert_eq!(sent, Err(SendError::NotConnected(peer("bob"))));
        let before = ann.stats().unreachable;
        counted(&ann, "nobody is there", |s| s.unreachable > before).await;
    }
    assert!(ann.stats().reconnected >= 4, "both kinds, twice");
}

#[tokio::test]
async fn a_fresh_run_of_a_peer_replaces_the_connection_its_last_run_left_behind() {
    let authority = Authority::new();
    let ann = authority.start("ann").await;
    // The last run: its end stays open and says nothing more, as after a loss of power.
    let mut dead = Raw::greeted(&authority, ann.address(), "bob", 1).await;
    until("it is there", || knows(&ann, "bob")).await;
    let bob = start(authority.config("bob").peer(peer("ann"), ann.address())).await;
    joined(&ann, &bob).await;
    dead.ended().await;
    let mut incoming = opened(&bob, "chess");
    ann.send(&peer("bob"), &game("chess"), Lane::Raft, number(1))
        .unwrap();
    let got = in_time("a frame", incoming.raft.recv()).await.unwrap();
    assert_eq!(got.frame, number(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_dial_at_once_keep_one_connection_of_each_kind() {
    let authority = Authority::new();
    let (ann, bob) = (authority.start("ann").await, authority.start("bob").await);
    for _ in 0..5 {
        ann.add_peer(&peer("bob"), bob.address()).unwrap();
        bob.add_peer(&peer("ann"), ann.address()).unwrap();
        joined(&ann, &bob).await;
        until("one of each kind", || {
            ann.connections() == 2 && bob.connections() == 2
        })
        .await;
        let mut incoming = (opened(&ann, "chess"), opened(&bob, "chess"));
        for n in 0..20 {
            for lane in Lane::ALL {
                // A frame may be lost while one connection replaces the other, the last must not.
                let _ = ann.send(&peer("bob"), &game("chess"), lane, number(n));
                let _ = bob.send(&peer("ann"), &game("chess"), lane, number(n));
            }
            let both = async {
                let (ann, bob) = (incoming.0.raft.recv(), incoming.1.raft.recv());
                tokio::join!(ann, bob)
            };
            let both = tokio::time::timeout(Duration::from_millis(500), both).await;
            if both.is_ok() && n > 5 {
                break;
            }
            assert!(n < 19, "no frame both ways");
        }
        assert_eq!((ann.connections(), bob.connections()), (2, 2));
        ann.remove_peer(&peer("bob"));
        bob.remove_peer(&peer("ann"));
        until("both are apart", || {
            ann.connections() == 0 && bob.connections() == 0
        })
        .await;
    }
}

#[tokio::test]
async fn of_two_dialled_at_once_the_lower_ids_stays_whichever_was_first() {
    let authority = Authority::new();
    // Everybody's run is number 7, which is the number that a raw end says too.
    let seventh = |name| authority.config(name).entropy(Arc::new(|| 7));
    let (ann, bob) = (start(seventh("ann")).await, start(seventh("bob")).await);
    // ann's was first: one that bob dialled is told that it is one too many.
    ann.add_peer(&peer("bob"), bob.address()).unwrap();
    joined(&ann, &bob).await;
    let issued = authority.issue("bob");
    let mut late = Raw::dial(ann.address(), Some(&issued), &TLS13)
        .await
        .unwrap();
    late.write(&framed(&hello("bob", 1))).await;
    assert_eq!(late.read().await.and_then(|wire| wire.bye), Some(2));
    counted(&ann, "it is counted", |s| s.duplicates == 1).await;
    assert!(knows(&ann, "bob") && knows(&bob, "ann"));
    assert_eq!((ann.stats().connected, bob.stats().connected), (2, 2));
    // bob's was first: one that ann dials takes its place.
    ann.remove_peer(&peer("bob"));
    until("both are apart", || bob.connections() == 0).await;
    bob.add_peer(&peer("ann"), ann.address()).unwrap();
    joined(&ann, &bob).await;
    let mut taking = Raw::greeted(&authority, bob.address(), "ann", 1).await;
    counted(&bob, "the first makes room", |s| s.duplicates == 1).await;
    let ping = Wire {
        ping: Some(1),
        ..Wire::default()
    };
    taking.write(&framed(&ping)).await;
    assert_eq!(taking.read().await.and_then(|wire| wire.pong), Some(1));
    assert!(knows(&bob, "ann"));
}

#[tokio::test]
async fn who_dials_again_from_the_same_run_replaces_what_it_had() {
    let authority = Authority::new();
    let bob = authority.start("bob").await;
    let mut first = Raw::greeted(&authority, bob.address(), "ann", 1).await;
    let mut second = Raw::greeted(&authority, bob.address(), "ann", 1).await;
    assert_eq!(first.read().await.and_then(|wire| wire.bye), Some(2));
    let wire = Wire {
        ping: Some(99),
        ..Wire::default()
    };
    second.write(&framed(&wire)).await;
    assert_eq!(second.read().await.and_then(|wire| wire.pong), Some(99));
    assert_eq!((bob.connections(), bob.stats().duplicates), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooded_app_channel_that_nobody_reads_delays_no_raft_frame() {
    const ROUNDS: u32 = 300;
    let authority = Authority::new();
    let small = TlsLimits {
        inbound: QueueLimits {
            frames_max: 512,
            bytes_max: FRAME_BYTES_MAX,
        },
        outbound: QueueLimits {
            frames_max: 512,
            bytes_max: FRAME_BYTES_MAX,
        },
        ..limits()
    };
    let ann = start(authority.config("ann").limits(small)).await;
    let bob = start(authority.config("bob").limits(small)).await;
    ann.add_peer(&peer("bob"), bob.address()).unwrap();
    joined(&ann, &bob).await;
    let (mut at_ann, at_bob) = (opened(&ann, "chess"), opened(&bob, "chess"));
    let (mut raft, _unread) = (at_bob.raft, at_bob.app);
    let echo = tokio::spawn({
        let bob = bob.clone();
        async move {
            while let Some(inbound) = raft.recv().await {
                bob.send(&peer("ann"), &game("chess"), Lane::Raft, inbound.frame)
                    .unwrap();
            }
        }
    });
    let flood = tokio::spawn({
        let ann = ann.clone();
        async move {
            let frame = Bytes::from(vec![9; 8192]);
            loop {
                for _ in 0..64 {
                    ann.send(&peer("bob"), &game("chess"), Lane::App, frame.clone())
                        .unwrap();
                }
                tokio::task::yield_now().await;
            }
        }
    });
    counted(&ann, "the flood overflows here", |s| s.app.dropped > 0).await;
    until("and there", || bob.delivery().app.dropped > 0).await;
    for n in 0..ROUNDS {
        ann.send(&peer("bob"), &game("chess"), Lane::Raft, number(n))
            .unwrap();
        let got = in_time("a round", at_ann.raft.recv()).await.unwrap();
        assert_eq!(got.frame, number(n));
    }
    assert!(!flood.is_finished() && !echo.is_finished());
    flood.abort();
    echo.abort();
    for fabric in [&ann, &bob] {
        let stats = fabric.stats();
        assert_eq!(stats.raft.dropped, 0);
        assert_eq!((stats.raft.sent, stats.raft.received), (300, 300));
    }
    assert_eq!(bob.delivery().raft.dropped, 0);
}

#[tokio::test]
async fn a_full_queue_refuses_raft_and_drops_the_oldest_of_the_others() {
    let authority = Authority::new();
    let small = TlsLimits {
        outbound: QueueLimits {
            frames_max: 4,
            bytes_max: FRAME_BYTES_MAX,
        },
        ..limits()
    };
    let ann = start(authority.config("ann").limits(small)).await;
    // A peer that never reads: its sockets fill, then our queue does.
    let _control = Raw::greeted(&authority, ann.address(), "bob", 1).await;
    let _app = Raw::greeted(&authority, ann.address(), "bob", 2).await;
    let frame = Bytes::from(vec![1; 1 << 20]);
    let mut refused = false;
    for _ in 0..2000 {
        let sent = ann.send(&peer("bob"), &game("chess"), Lane::Raft, frame.clone());
        if sent == Err(SendError::Full(peer("bob"))) {
            refused = true;
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(refused, "the Raft queue has a limit");
    assert_eq!(ann.stats().raft.dropped, 1);
    for _ in 0..2000 {
        ann.send(&peer("bob"), &game("chess"), Lane::App, frame.clone())
            .unwrap();
        if ann.stats().app.dropped > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(ann.stats().app.dropped, 1);
}

#[tokio::test]
async fn the_most_peers_connect_and_one_more_is_turned_away() {
    let authority = Authority::new();
    let two = TlsLimits {
        peers_max: 2,
        ..limits()
    };
    let ann = start(authority.config("ann").limits(two)).await;
    let address: SocketAddr = ([127, 0, 0, 1], 1).into();
    ann.add_peer(&peer("bob"), address).unwrap();
    let cyd = Raw::greeted(&authority, ann.address(), "cyd", 1).await;
    let full = DirectoryError::Full { max: 2 };
    assert_eq!(ann.add_peer(&peer("dan"), address), Err(full));
    let issued = authority.issue("dan");
    let mut raw = Raw::dial(ann.address(), Some(&issued), &TLS13)
        .await
        .unwrap();
    raw.write(&framed(&hello("dan", 1))).await;
    assert_eq!(raw.read().await.and_then(|wire| wire.bye), Some(3));
    counted(&ann, "it is counted", |s| s.refused == 1).await;
    drop(cyd);
    until("one leaves", || !knows(&ann, "cyd")).await;
    let _dan = Raw::greeted(&authority, ann.address(), "dan", 1).await;
    until("another comes", || knows(&ann, "dan")).await;
}

#[tokio::test]
async fn peers_come_and_go_at_run_time() {
    let authority = Authority::new();
    let (ann, bob) = pair(&authority).await;
    assert!(ann.remove_peer(&peer("bob")));
    assert!(!ann.remove_peer(&peer("bob")));
    until("it is gone on both ends", || {
        !knows(&ann, "bob") && !knows(&bob, "ann") && bob.connections() == 0
    })
    .await;
    // It may dial in, and be called again.
    bob.add_peer(&peer("ann"), ann.address()).unwrap();
    joined(&ann, &bob).await;
    bob.remove_peer(&peer("ann"));
    ann.add_peer(&peer("bob"), bob.address()).unwrap();
    joined(&ann, &bob).await;
    // A peer that moved is found at its new address.
    bob.close().await;
    let bob = authority.start("bob").await;
    ann.add_peer(&peer("bob"), bob.address()).unwrap();
    joined(&ann, &bob).await;
    let local = DirectoryError::Local(peer("ann"));
    assert_eq!(ann.add_peer(&peer("ann"), bob.address()), Err(local));
}

#[tokio::test]
async fn close_ends_streams_and_tasks_frees_the_port_and_says_bye() {
    let authority = Authority::new();
    let (ann, bob) = pair(&authority).await;
    let mut raw = Raw::greeted(&authority, ann.address(), "raw", 1).await;
    // A handshake that never goes on must not hold the close.
    let _half = TcpStream::connect(ann.address()).await.unwrap();
    let mut incoming = opened(&ann, "chess");
    let tasks = ann.tasks();
    assert!(tasks.get() >= 5, "a listener, two diallers, connections");
    in_time("both closes", async {
        tokio::join!(ann.close(), ann.close())
    })
    .await;
    assert_eq!(tasks.get(), 0);
    assert_eq!(raw.read().await.and_then(|wire| wire.bye), Some(1));
    assert_eq!(in_time("the end", incoming.raft.recv()).await, None);
    let sent = ann.send(&peer("bob"), &game("chess"), Lane::Raft, number(1));
    assert_eq!(sent, Err(SendError::Closed));
    assert_eq!(
        ann.add_peer(&peer("cyd"), bob.address()),
        Err(DirectoryError::Closed)
    );
    assert!(ann.open(&game("go")).is_err());
    assert!(ann.peers().get().is_empty());
    until("the other sees it", || bob.connections() == 0).await;
    let again = start(authority.config("ann").listen(ann.address())).await;
    assert_eq!(again.address(), ann.address());
}

#[tokio::test]
async fn dropping_the_last_handle_ends_every_task() {
    let authority = Authority::new();
    let (ann, bob) = pair(&authority).await;
    ann.add_peer(&peer("cyd"), ([127, 0, 0, 1], 1).into())
        .unwrap();
    let tasks = ann.tasks();
    let other = Arc::clone(&ann);
    drop(ann);
    assert!(knows(&other, "bob") && tasks.get() > 0);
    drop(other);
    until("no task is left", || tasks.get() == 0).await;
    until("the other sees it", || bob.connections() == 0).await;
}

#[tokio::test]
async fn a_handshake_that_dribbles_is_cut_and_too_many_at_once_are_turned_away() {
    let authority = Authority::new();
    let hasty = TlsLimits {
        handshake_timeout: Duration::from_millis(300),
        handshakes_max: 2,
        ..limits()
    };
    let ann = start(authority.config("ann").limits(hasty)).await;
    // The first says nothing, the second has done TLS and never says Hello.
    let mut silent = TcpStream::connect(ann.address()).await.unwrap();
    let issued = authority.issue("bob");
    let mut mute = Raw::dial(ann.address(), Some(&issued), &TLS13)
        .await
        .unwrap();
    mute.write(&[1]).await;
    let mut rest = Vec::new();
    in_time("it is cut", silent.read_to_end(&mut rest))
        .await
        .ok();
    mute.ended().await;
    counted(&ann, "both are counted", |s| s.handshakes_failed == 2).await;
    // At the limit, and one past it.
    let _held = (
        TcpStream::connect(ann.address()).await.unwrap(),
        TcpStream::connect(ann.address()).await.unwrap(),
    );
    let mut third = TcpStream::connect(ann.address()).await.unwrap();
    in_time("it is dropped", third.read_to_end(&mut rest))
        .await
        .ok();
    counted(&ann, "it is counted", |s| s.refused == 1).await;
    // Once they are cut, there is room again.
    counted(&ann, "room again", |s| s.handshakes_failed == 4).await;
    let bob = authority.start("bob").await;
    bob.add_peer(&peer("ann"), ann.address()).unwrap();
    joined(&ann, &bob).await;
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_given_up_and_one_that_answers_is_not() {
    let authority = Authority::new();
    let quick = TlsLimits {
        ping_after: Duration::from_millis(100),
        idle_timeout: Duration::from_secs(2),
        ..limits()
    };
    let ann = start(authority.config("ann").limits(quick)).await;
    let bob = start(authority.config("bob").limits(quick)).await;
    ann.add_peer(&peer("bob"), bob.address()).unwrap();
    joined(&ann, &bob).await;
    let _mute = Raw::greeted(&authority, ann.address(), "mute", 1).await;
    counted(&ann, "the mute one is given up", |s| s.silent == 1).await;
    assert!(!knows(&ann, "mute") && knows(&ann, "bob"));
    assert_eq!(bob.stats().silent, 0);
}

#[test]
fn a_configuration_that_cannot_work_is_refused_by_name() {
    let authority = Authority::new();
    let issued = authority.issue("ann");
    let mismatch = TlsConfig::builder(peer("bob"), authority.credentials(&issued)).build();
    assert!(matches!(
        mismatch.err(),
        Some(ConfigError::Identity(IdentityError::Mismatch { .. }))
    ));
    let unnamed = authority.issue_with(&[], 4000);
    let unnamed = TlsConfig::builder(peer("ann"), authority.credentials(&unnamed)).build();
    assert!(matches!(
        unnamed.err(),
        Some(ConfigError::Identity(IdentityError::Unnamed))
    ));
    let address: SocketAddr = ([127, 0, 0, 1], 1).into();
    let to_self = authority.config("ann").peer(peer("ann"), address).build();
    assert!(matches!(
        to_self.err(),
        Some(ConfigError::Directory(DirectoryError::Local(_)))
    ));
    let other_key = Credentials::new(
        issued.chain.clone(),
        authority.issue("ann").key(),
        vec![authority.root.clone()],
    );
    let other_key = TlsConfig::builder(peer("ann"), other_key.unwrap()).build();
    assert!(matches!(other_key.err(), Some(ConfigError::Tls(_))));
    assert!(Credentials::from_pem(b"", b"", b"").is_err());
}
