//! What flows between peers, and what a flood holds up.

use bytes::Bytes;
use cabinet_consensus::fabric::tls::{Credentials, TlsConfig, TlsLimits, peer_of};
use cabinet_consensus::fabric::{FRAME_BYTES_MAX, Fabric, Lane, Principal, QueueLimits, SendError};

use crate::support::*;

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
async fn app_frames_that_gather_leave_before_a_close() {
    let authority = Authority::new();
    let (ann, bob) = pair(&authority).await;
    let mut incoming = opened(&bob, "chess");
    for n in 0..3u8 {
        ann.send(&peer("bob"), &game("chess"), Lane::App, vec![n].into())
            .unwrap();
    }
    ann.close().await;
    for n in 0..3u8 {
        let got = in_time("a frame", incoming.app.recv()).await.unwrap();
        assert_eq!(got.frame, [n].as_slice());
    }
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
async fn what_was_taken_for_sending_before_a_close_arrives() {
    const FRAMES: u32 = 2000;
    let authority = Authority::new();
    let (ann, bob) = pair(&authority).await;
    let mut incoming = opened(&bob, "chess");
    for n in 0..FRAMES {
        let frame = [&number(n)[..], &[0; 1020]].concat();
        ann.send(&peer("bob"), &game("chess"), Lane::Raft, frame.into())
            .unwrap();
    }
    ann.close().await;
    for n in 0..FRAMES {
        let got = in_time("a frame", incoming.raft.recv()).await.unwrap();
        assert_eq!(got.frame[..4], number(n));
    }
}
