//! Rooms: several games on one connection set, who is in each and who of them is there, and a second
//! host over links that take their time.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cabinet_consensus::config::Timing;
use cabinet_consensus::fabric::{
    Fabric, Incoming, Lane, MemoryFabric, MemoryPeer, Peers, Port, PortError, SendError,
};
use cabinet_consensus::ids::{GameId, Incarnation, NodeId, PeerId};
use cabinet_consensus::session::{
    CoreOptions, GameSession, HostError, HostOptions, JoinOptions, PresenceChange, ReturnPolicy,
    ServerCore, SessionConfig, game_host, game_join, game_node, game_player, game_server,
    game_spectate,
};
use cabinet_consensus::state::seats::Place;
use cabinet_consensus::turns::Ruling;
use cabinet_consensus::watch::Watch;
use common::{Sum, config, peer, port_of, sum, until};
use tokio::sync::mpsc;
use tokio::time::Instant;

type Session = GameSession<Sum>;

fn hosting(seats: u32) -> HostOptions {
    HostOptions {
        claim_wait: Duration::from_millis(200),
        spectators_max: 1,
        ..HostOptions::new(seats, Incarnation(1))
    }
}

fn joining() -> JoinOptions {
    JoinOptions::new(Incarnation(1))
}

async fn add(session: &Session, n: u64) -> u64 {
    match session.sequencer().propose(&n).await.unwrap().ruling {
        Ruling::Accepted(total) => total,
        other => panic!("unexpected {other:?}"),
    }
}

/// A room of three: `ann` hosts.
async fn room(at: &[Arc<MemoryPeer>; 3], game: &str) -> [Session; 3] {
    let (ann, bob, cyd) = tokio::join!(
        game_host(port_of(&at[0], game), sum(), hosting(3), config(1)),
        game_join(port_of(&at[1], game), sum(), joining(), config(2)),
        game_join(port_of(&at[2], game), sum(), joining(), config(3))
    );
    [ann.unwrap(), bob.unwrap(), cyd.unwrap()]
}

fn three(net: &MemoryFabric) -> [Arc<MemoryPeer>; 3] {
    ["ann", "bob", "cyd"].map(|name| net.join(peer(name)).unwrap())
}

fn id(session: &Session) -> NodeId {
    session.node().id().clone()
}

async fn here(session: &Session, wanted: &[&Session]) {
    let wanted: BTreeSet<_> = wanted.iter().map(|session| id(session)).collect();
    until("the right ones are there", || {
        session.presence().borrow().here() == wanted
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn rooms_on_one_connection_set_are_apart_and_each_knows_who_is_there() {
    let at = three(&MemoryFabric::new());
    let (red, blue) = tokio::join!(room(&at, "red"), room(&at, "blue"));
    assert_ne!(red[0].id(), blue[0].id());
    for session in red.iter().chain(&blue) {
        let all: Vec<_> = if session.id() == red[0].id() {
            &red
        } else {
            &blue
        }
        .iter()
        .collect();
        here(session, &all).await;
    }
    assert_eq!(add(&red[1], 1).await, 1);
    assert_eq!(add(&blue[2], 10).await, 10);
    // Bob closes one of them. He is connected as before, and there in the other.
    red[1].close().await;
    here(&red[0], &[&red[0], &red[2]]).await;
    here(&blue[0], &[&blue[0], &blue[1], &blue[2]]).await;
    assert_eq!(add(&blue[1], 10).await, 20);
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_link_is_cut_is_away_and_back_when_it_heals_with_its_seat() {
    let net = MemoryFabric::new();
    let at = three(&net);
    let [ann, bob, cyd] = room(&at, "red").await;
    here(&ann, &[&ann, &bob, &cyd]).await;
    let mut presence = ann.presence();
    let before = presence.borrow_and_update().clone();
    net.cut(&peer("ann"), &peer("cyd"));
    presence.changed().await.unwrap();
    let cut = presence.borrow_and_update().clone();
    assert_eq!(cut.since(&before), [PresenceChange::Away(id(&cyd))]);
    assert_eq!(
        cut.of(&id(&cyd)).unwrap().place,
        before.of(&id(&cyd)).unwrap().place
    );
    // Bob reaches both: presence is what one node sees.
    here(&bob, &[&ann, &bob, &cyd]).await;
    net.heal();
    let back = presence.wait_for(|now| now.is_here(&id(&cyd))).await;
    let back = back.unwrap().clone();
    assert_eq!(back.since(&cut), [PresenceChange::Here(id(&cyd))]);
    assert_eq!(back, before);
    assert_eq!(add(&cyd, 1).await, 1);
}

#[tokio::test(start_paused = true)]
async fn closing_a_session_leaves_its_room_at_once_and_twice_is_harmless() {
    let net = MemoryFabric::new();
    let at = three(&net);
    let [ann, bob, cyd] = room(&at, "red").await;
    here(&ann, &[&ann, &bob, &cyd]).await;
    let (gone, left) = (id(&cyd), id(&bob));
    let mut presence = ann.presence();
    cyd.close().await;
    cyd.close().await;
    presence.wait_for(|now| !now.is_here(&gone)).await.unwrap();
    let closed = presence.borrow_and_update().clone();
    assert!(closed.of(&gone).is_some(), "who closes keeps its seat");
    // The room's name is free for the next session of this peer.
    drop(Port::open(at[2].clone(), GameId::new("red").unwrap()).unwrap());
    // Who is dropped instead is away just the same.
    let dropped = id(&ann);
    let theirs = bob.presence();
    drop(ann);
    until("the host is away", || !theirs.borrow().is_here(&dropped)).await;
    assert!(theirs.borrow().is_here(&left));
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_is_no_member_any_more_and_who_watches_is_one() {
    let net = MemoryFabric::new();
    let at = three(&net);
    let [ann, bob, cyd] = room(&at, "red").await;
    let eve = net.join(peer("eve")).unwrap();
    let eve = game_spectate(port_of(&eve, "red"), sum(), joining(), config(4));
    let eve = eve.await.unwrap();
    here(&ann, &[&ann, &bob, &cyd, &eve]).await;
    here(&eve, &[&ann, &bob, &cyd, &eve]).await;
    let mut presence = ann.presence();
    let before = presence.borrow_and_update().clone();
    assert_eq!(before.of(&id(&eve)).unwrap().place, Some(Place::Gallery));
    let left = id(&cyd);
    assert!(cyd.leave(Duration::from_secs(5)).await);
    let after = presence.wait_for(|now| now.of(&left).is_none()).await;
    let changes = after.unwrap().since(&before);
    assert_eq!(changes, [PresenceChange::Left(left)]);
}

#[tokio::test(start_paused = true)]
async fn servers_and_the_players_that_ride_on_them_see_each_other() {
    let net = MemoryFabric::new();
    let core = ServerCore::new(["s1", "s2"].map(peer)).unwrap();
    let mut sessions = Vec::new();
    for name in ["s1", "s2"] {
        let at = net.join(peer(name)).unwrap();
        let options = CoreOptions {
            core: core.clone(),
            seats: 2,
            spectators_max: 0,
        };
        let opened = game_server(port_of(&at, "red"), sum(), options, config(1)).await;
        sessions.push((at, opened.unwrap()));
    }
    for name in ["ann", "bob"] {
        let at = net.join(peer(name)).unwrap();
        let port = port_of(&at, "red");
        let player = game_player(port, sum(), core.clone(), joining(), config(2)).await;
        sessions.push((at, player.unwrap()));
    }
    let all: Vec<_> = sessions.iter().map(|(_, session)| session).collect();
    for session in &all {
        here(session, &all).await;
    }
    let now = all[2].presence().borrow().clone();
    assert_eq!(now.of(&id(all[0])).unwrap().place, None);
    assert_eq!(now.of(&id(all[3])).unwrap().place, Some(Place::Seat(1)));
}

#[tokio::test(start_paused = true)]
async fn a_game_is_opened_over_whoever_is_in_the_room() {
    let at = three(&MemoryFabric::new());
    let mut sessions = Vec::new();
    for (n, at) in at.iter().enumerate() {
        let port = port_of(at, "red");
        // Everybody sees the same room, and so passes the same roster.
        let others = port.peers().get();
        let roster: BTreeSet<PeerId> = others.keys().chain([port.local()]).cloned().collect();
        assert_eq!(roster, ["ann", "bob", "cyd"].map(peer).into());
        let opened = game_node(port, sum(), roster, config(n as u64)).await;
        sessions.push(opened.unwrap());
    }
    let all: Vec<_> = sessions.iter().collect();
    for (n, session) in (1..).zip(&all) {
        assert_eq!(add(session, 1).await, n);
        here(session, &all).await;
        let presence = session.presence().borrow().clone();
        let seats: Vec<_> = presence.members().filter_map(|(_, a)| a.place).collect();
        assert_eq!(seats, [0, 1, 2].map(Place::Seat));
    }
}

/// A fabric whose frames take their time, in the order they were sent.
struct Slow {
    inner: Arc<MemoryPeer>,
    by: Duration,
    queue: mpsc::UnboundedSender<(Instant, PeerId, GameId, Lane, Bytes)>,
}

impl Slow {
    fn new(inner: Arc<MemoryPeer>, by: Duration) -> Arc<Self> {
        let (queue, mut sent) = mpsc::unbounded_channel::<(Instant, PeerId, GameId, Lane, Bytes)>();
        let at = inner.clone();
        tokio::spawn(async move {
            while let Some((due, to, game, lane, frame)) = sent.recv().await {
                tokio::time::sleep_until(due).await;
                // Whoever is gone by then is gone.
                let _ = at.send(&to, &game, lane, frame);
            }
        });
        Arc::new(Self { inner, by, queue })
    }
}

impl Fabric for Slow {
    fn local(&self) -> &PeerId {
        self.inner.local()
    }

    fn peers(&self) -> Watch<Peers> {
        self.inner.peers()
    }

    fn send(&self, to: &PeerId, game: &GameId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let due = Instant::now() + self.by;
        let sent = (due, to.clone(), game.clone(), lane, frame);
        self.queue.send(sent).map_err(|_| SendError::Closed)
    }

    fn open(&self, game: &GameId) -> Result<Incoming, PortError> {
        self.inner.open(game)
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_hosts_second_over_slow_links_is_told_who_hosts() {
    let latency = Duration::from_millis(50);
    for apart in [0, 20, 49, 51, 99, 101, 5000].map(Duration::from_millis) {
        let net = MemoryFabric::new();
        let [ann, bob] =
            ["ann", "bob"].map(|name| Slow::new(net.join(peer(name)).unwrap(), latency));
        let open = |at: &Arc<Slow>| Port::open(at.clone(), GameId::new("red").unwrap()).unwrap();
        let options = |life| HostOptions {
            return_at: ReturnPolicy::Quorum,
            claim_wait: Duration::from_secs(2),
            ..HostOptions::new(1, Incarnation(life))
        };
        // Slow links, and so slow elections.
        let settings = |nonce| SessionConfig {
            timing: Timing::default(),
            ..config(nonce)
        };
        let second = async {
            tokio::time::sleep(apart).await;
            game_host(open(&bob), sum(), options(1), settings(2)).await
        };
        let first = game_host(open(&ann), sum(), options(1), settings(1));
        let (first, second) = tokio::join!(first, second);
        match (first, second) {
            (Ok(host), Err(HostError::DuplicateHost { incumbent, session })) => {
                assert_eq!((session, incumbent), (host.id(), id(&host)), "{apart:?}");
            }
            (Err(HostError::DuplicateHost { incumbent, session }), Ok(host)) => {
                assert_eq!((session, incumbent), (host.id(), id(&host)), "{apart:?}");
            }
            other => panic!("{apart:?} apart: {other:?}"),
        }
    }
}
