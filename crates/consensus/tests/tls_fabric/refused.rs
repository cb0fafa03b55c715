//! Who and what is refused, counted and survived.

use std::net::SocketAddr;
use std::time::Duration;

use cabinet_consensus::fabric::tls::{
    ConfigError, Credentials, DirectoryError, IdentityError, TlsConfig, TlsFabric, TlsLimits,
    peer_uri,
};
use cabinet_consensus::fabric::{FRAME_BYTES_MAX, Fabric};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

/// Neither end kept a connection, not even for a moment.
async fn never_joined(a: &TlsFabric, b: &TlsFabric) {
    assert!(a.peers().get().is_empty() && b.peers().get().is_empty());
    assert_eq!((a.connections(), b.connections()), (0, 0));
    assert_eq!((a.stats().connected, b.stats().connected), (0, 0));
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
async fn the_most_frames_share_a_header_and_come_apart_in_order() {
    let authority = Authority::new();
    let ann = authority.start("ann").await;
    let mut incoming = opened(&ann, "chess");
    let mut raw = Raw::greeted(&authority, ann.address(), "bob", 1).await;
    let payloads: Vec<Vec<u8>> = (0..64).map(|n| vec![n; usize::from(n)]).collect();
    raw.write(&framed(&packed("chess", 2, payloads.clone())))
        .await;
    for payload in payloads {
        let got = in_time("a frame", incoming.lobby.recv()).await.unwrap();
        assert_eq!(got.frame, payload);
    }
    counted(&ann, "each", |s| s.lobby.received == 64).await;
    assert_eq!(ann.delivery().lobby.delivered, 64);
}

#[tokio::test]
async fn frames_that_make_no_sense_close_their_connection_and_are_counted() {
    let authority = Authority::new();
    let ann = authority.start("ann").await;
    let mut incoming = opened(&ann, "chess");
    let mut garbage = 24_u32.to_le_bytes().to_vec();
    garbage.extend([0xff; 24]);
    let cases: [(u32, Vec<u8>); 8] = [
        (1, garbage),
        (1, framed(&Wire::default())),
        // A lane of the other connection, and no lane at all.
        (1, framed(&data("chess", 3, vec![1]))),
        (2, framed(&data("chess", 1, vec![1]))),
        (2, framed(&data("chess", 2, vec![1]))),
        (2, framed(&data("chess", 9, vec![1]))),
        (1, framed(&hello("bob", 1))),
        // One more frame than may share a header.
        (1, framed(&packed("chess", 1, vec![vec![1]; 65]))),
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
    counted(&ann, "Data before Hello", |s| s.malformed == 9).await;
    // A version that is not ours.
    let mut raw = Raw::dial(ann.address(), Some(&issued), &TLS13)
        .await
        .unwrap();
    let mut wire = hello("bob", 1);
    wire.hello.as_mut().unwrap().version = 1;
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
