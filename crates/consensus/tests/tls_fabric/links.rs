//! Connections that come, go, collide and come back.

use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::fabric::tls::{DirectoryError, TlsLimits};
use cabinet_consensus::fabric::{Fabric, Lane, SendError};
use rustls::version::TLS13;
use tokio::net::TcpStream;

use crate::support::*;

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
