//! App channels: how many there may be, who reads them, whom they reach, and their end.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::fabric::{FRAME_BYTES_MAX, Links, MemoryFabric, MemoryPeer, SendError};
use cabinet_consensus::ids::Incarnation;
use cabinet_consensus::session::{
    ChannelError, ChannelSendError, GameSession, HostOptions, JoinError, JoinOptions, game_host,
    game_join, game_node, game_spectate,
};
use common::{Sum, config, peer, port, sum, until};

type Session = GameSession<Sum>;

fn hosting(seats: u32) -> HostOptions {
    HostOptions {
        claim_wait: Duration::from_millis(100),
        spectators_max: 1,
        ..HostOptions::new(seats, Incarnation(1))
    }
}

fn joining() -> JoinOptions {
    JoinOptions::new(Incarnation(1))
}

/// A game of one, which may have so many channels open.
async fn alone(channels_max: usize) -> Session {
    let net = MemoryFabric::new();
    let at = net.join(peer("ann")).unwrap();
    let mut config = config(1);
    config.limits.channels_max = channels_max;
    let opened = game_node(port(&at), sum(), [peer("ann")].into(), config);
    opened.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn as_many_channels_are_open_as_may_be_and_one_more_once_one_is_dropped() {
    let ann = alone(3).await;
    let mut open: Vec<_> = ["a", "b", "c"]
        .map(|name| ann.app_channel(name).unwrap())
        .into();
    let again = ann.app_channel("c").unwrap();
    let refused = |name| ann.app_channel(name).map(|_| ());
    let too_many = Err(ChannelError::TooMany { max: 3 });
    assert_eq!(refused("d"), too_many);
    // One handle of two is not the last of them, and neither is the last while its reader is there.
    drop(open.pop());
    assert_eq!(refused("d"), too_many);
    let reader = again.incoming().unwrap();
    drop(again);
    assert_eq!(refused("d"), too_many);
    drop(reader);
    let last = ann.app_channel("d").unwrap();
    assert_eq!(refused("c"), too_many);
    // A clone is a handle as well.
    let clone = last.clone();
    drop(last);
    assert_eq!(refused("c"), too_many);
    drop(clone);
    // However often that happens.
    for n in 0..1000 {
        let channel = ann.app_channel(&format!("c{n}")).unwrap();
        drop(channel.incoming().unwrap());
        assert!(channel.incoming().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_reads_after_another_gets_what_came_meanwhile() {
    let net = MemoryFabric::new();
    let [ann_at, bob_at] = ["ann", "bob"].map(|name| net.join(peer(name)).unwrap());
    let (host, bob) = tokio::join!(
        game_host(port(&ann_at), sum(), hosting(2), config(1)),
        game_join(port(&bob_at), sum(), joining(), config(2))
    );
    let (host, bob) = (host.unwrap(), bob.unwrap());
    let said = host.app_channel("chat").unwrap();
    let heard = bob.app_channel("chat").unwrap();
    let mut first = heard.incoming().unwrap();
    assert_eq!(said.broadcast(b"one"), Ok(1));
    assert_eq!(&first.recv().await.unwrap().frame[..], b"one");
    let taken = heard.incoming().map(|_| ());
    let name = "chat".to_owned();
    assert_eq!(taken, Err(ChannelError::ReaderTaken { name }));
    drop(first);
    assert_eq!(said.broadcast(b"two"), Ok(1));
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut second = heard.incoming().unwrap();
    assert_eq!(&second.recv().await.unwrap().frame[..], b"two");
    assert_eq!(heard.dropped(), 0);
    // What waits in a channel goes with it.
    drop(second);
    assert_eq!(said.broadcast(b"three"), Ok(1));
    tokio::time::sleep(Duration::from_millis(10)).await;
    drop(heard);
    assert_eq!(said.broadcast(b"four"), Ok(1));
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(bob.unclaimed_app_frames(), 1);
    let mut anew = bob.app_channel("chat").unwrap().incoming().unwrap();
    assert!(anew.try_recv().is_none());
}

/// Whatever comes on the app lane of a peer that is in no game.
async fn overheard(at: &Arc<MemoryPeer>) -> (Links, usize) {
    let (links, mut incoming) = port(at).split();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut frames = 0;
    while incoming.app.try_recv().is_some() {
        frames += 1;
    }
    (links, frames)
}

#[tokio::test(start_paused = true)]
async fn what_members_say_reaches_players_and_spectators_and_no_stranger_on_the_fabric() {
    let net = MemoryFabric::new();
    let at = ["ann", "bob", "fay", "eve"].map(|name| net.join(peer(name)).unwrap());
    let (host, bob, fay) = tokio::join!(
        game_host(port(&at[0]), sum(), hosting(2), config(1)),
        game_join(port(&at[1]), sum(), joining(), config(2)),
        game_spectate(port(&at[2]), sum(), joining(), config(3))
    );
    let (host, bob, fay) = (host.unwrap(), bob.unwrap(), fay.unwrap());
    let refused = game_join(port(&at[3]), sum(), joining(), config(4)).await;
    assert_eq!(refused.err(), Some(JoinError::RosterFull));
    let everybody = || {
        let knows = |session: &Session| {
            let members = session.node().membership();
            members.voters.len() + members.learners.len() == 3
        };
        [&host, &bob, &fay].into_iter().all(knows)
    };
    until("everybody knows everybody", everybody).await;
    let says = |session: &Session| session.app_channel("chat").unwrap();
    let (ann, bob, fay) = (says(&host), says(&bob), says(&fay));
    let mut readers = [&ann, &bob, &fay].map(|channel| channel.incoming().unwrap());
    let eve = peer("eve");
    let listening = overheard(&at[3]);
    let speaking = async {
        for from in [&ann, &bob, &fay] {
            assert_eq!(from.broadcast(b"between us"), Ok(2));
            let told = from.send_to(&eve, b"psst");
            assert_eq!(told, Err(ChannelSendError::NotMember(eve.clone())));
        }
    };
    let ((_links, overheard), ()) = tokio::join!(listening, speaking);
    assert_eq!(overheard, 0);
    for reader in &mut readers {
        for _ in 0..2 {
            assert_eq!(&reader.recv().await.unwrap().frame[..], b"between us");
        }
    }
    assert_eq!(ann.not_sent(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_counted_and_a_closed_session_sends_and_opens_nothing() {
    let net = MemoryFabric::new();
    let at = ["ann", "bob", "cyd"].map(|name| net.join(peer(name)).unwrap());
    let (host, bob, cyd) = tokio::join!(
        game_host(port(&at[0]), sum(), hosting(3), config(1)),
        game_join(port(&at[1]), sum(), joining(), config(2)),
        game_join(port(&at[2]), sum(), joining(), config(3))
    );
    let (host, _bob, _cyd) = (host.unwrap(), bob.unwrap(), cyd.unwrap());
    let chat = host.app_channel("chat").unwrap();
    assert_eq!((chat.broadcast(b"all"), chat.not_sent()), (Ok(2), 0));
    at[2].leave();
    assert_eq!((chat.broadcast(b"one"), chat.not_sent()), (Ok(1), 1));
    let away = chat.send_to(&peer("cyd"), b"psst");
    let not_connected = SendError::NotConnected(peer("cyd"));
    assert_eq!(away, Err(ChannelSendError::Fabric(not_connected)));
    assert_eq!(chat.not_sent(), 2);
    // A frame holds the channel's name, in one byte more than it has.
    let most = FRAME_BYTES_MAX - 5;
    assert_eq!(chat.broadcast(&vec![0; most]), Ok(1));
    let len = FRAME_BYTES_MAX + 1;
    let too_large = Err(ChannelSendError::Fabric(SendError::TooLarge { len }));
    assert_eq!(chat.broadcast(&vec![0; most + 1]), too_large);

    let mut reader = chat.incoming().unwrap();
    host.close().await;
    assert!(reader.recv().await.is_none());
    assert_eq!(chat.broadcast(b"late"), Err(ChannelSendError::Closed));
    let late = chat.send_to(&peer("bob"), b"late");
    assert_eq!(late, Err(ChannelSendError::Closed));
    let opened = host.app_channel("another").map(|_| ());
    assert_eq!(opened, Err(ChannelError::Closed));
}
