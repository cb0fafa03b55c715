//! Games that go on after their processes died: hosts, players and spectators that come back with
//! their logs, and logs that are somebody else's.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cabinet_consensus::config::Compaction;
use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer, Port};
use cabinet_consensus::game::Blueprint;
use cabinet_consensus::ids::{GameId, Incarnation};
use cabinet_consensus::log::durable::sim_disk::{Crash, SimDisk};
use cabinet_consensus::log::durable::{Driver, DurableOptions};
use cabinet_consensus::log::{DurableLog, LogStore, MemoryLog, Position, StoredSnapshot};
use cabinet_consensus::raft::Role;
use cabinet_consensus::session::{
    GameSession, HostError, HostOptions, JoinError, JoinOptions, OpenError, ResumeError,
    ReturnPolicy, SessionConfig, TokioClock, Waiting, game_host, game_join, game_node, game_resume,
    game_spectate,
};
use cabinet_consensus::state::seats::NoPlace;
use cabinet_consensus::turns::{Proposal, ProposeError, ReadError, Ruling, TurnError, TurnEvent};
use common::{Sum, config, peer, port, until};

type Session = GameSession<Sum>;

fn sum() -> Blueprint<Sum> {
    Blueprint::with_snapshots(Sum::default)
}

/// A machine: its disk and its place on the network survive a process.
struct Machine {
    at: Arc<MemoryPeer>,
    disk: SimDisk,
    lives: u64,
}

impl Machine {
    fn new(net: &MemoryFabric, name: &str) -> Self {
        Self {
            at: net.join(peer(name)).unwrap(),
            disk: SimDisk::new(),
            lives: 0,
        }
    }

    fn port(&self) -> Port {
        port(&self.at)
    }

    /// What a process of this machine opens its session with.
    async fn config(&mut self) -> SessionConfig {
        self.lives += 1;
        let disk = self.disk.attach();
        let log = DurableLog::open(disk, DurableOptions::default(), Driver::Task).await;
        SessionConfig {
            log: Arc::new(log.unwrap()),
            ..config(self.lives)
        }
    }

    async fn host(&mut self, seats: u32, return_at: ReturnPolicy) -> Session {
        let options = HostOptions {
            claim_wait: Duration::from_millis(200),
            spectators_max: 1,
            return_at,
            ..HostOptions::new(seats, Incarnation(1))
        };
        let config = self.config().await;
        game_host(self.port(), sum(), options, config)
            .await
            .unwrap()
    }

    async fn join(&mut self) -> Session {
        let config = self.config().await;
        game_join(self.port(), sum(), JoinOptions::new(Incarnation(1)), config)
            .await
            .unwrap()
    }

    async fn resume(&mut self) -> Session {
        let config = self.config().await;
        game_resume(self.port(), sum(), config).await.unwrap()
    }

    /// The process dies, and the power with it.
    async fn die(&self, session: Session) {
        self.disk.crash(Crash::Lost);
        // What is left of it can write nothing any more.
        session.close().await;
    }
}

async fn add(session: &Session, n: u64) -> u64 {
    match session.sequencer().propose(&n).await.unwrap().ruling {
        Ruling::Accepted(total) => total,
        other => panic!("unexpected {other:?}"),
    }
}

/// Ann plays by herself, with this log.
async fn alone(at: &Arc<MemoryPeer>, log: &MemoryLog) -> Result<Session, OpenError> {
    let config = SessionConfig {
        log: Arc::new(log.clone()),
        ..config(1)
    };
    game_node(port(at), sum(), [peer("ann")].into(), config).await
}

/// Every action from the first on, as many as are asked for.
async fn actions(session: &Session, count: usize) -> Vec<u64> {
    let mut events = session.sequencer().events_from(1);
    let mut seen = Vec::new();
    while seen.len() < count {
        if let TurnEvent::Committed(action) = events.next().await.unwrap() {
            seen.push(action.action);
        }
    }
    seen
}

/// A host and two players, with a seat for a fourth, and five acknowledged turns.
async fn played(net: &MemoryFabric) -> (Vec<Machine>, Vec<Session>) {
    let mut machines: Vec<_> = ["ann", "bob", "cyd"]
        .iter()
        .map(|name| Machine::new(net, name))
        .collect();
    let [ann, bob, cyd] = &mut machines[..] else {
        unreachable!()
    };
    let (host, first, second) =
        tokio::join!(ann.host(4, ReturnPolicy::Quorum), bob.join(), cyd.join());
    let sessions = vec![host, first, second];
    for n in 1..=5 {
        add(&sessions[n as usize % 3], n).await;
    }
    (machines, sessions)
}

#[tokio::test(start_paused = true)]
async fn a_hosted_game_goes_on_when_every_process_died_and_lets_a_late_player_in() {
    let net = MemoryFabric::new();
    let (mut machines, sessions) = played(&net).await;
    let id = sessions[0].id();
    let seats = sessions[0].seats();
    for (machine, session) in machines.iter().zip(sessions) {
        machine.die(session).await;
    }
    let mut resumed = Vec::new();
    for machine in &mut machines {
        resumed.push(machine.resume().await);
    }
    for session in &resumed {
        assert_eq!(session.id(), id);
        assert_eq!(actions(session, 5).await, [1, 2, 3, 4, 5]);
    }
    assert_eq!(add(&resumed[1], 6).await, 21);
    assert_eq!(resumed[1].seats(), seats, "everybody sits where it sat");

    let mut dan = Machine::new(&net, "dan");
    let late = dan.join().await;
    assert_eq!(late.id(), id);
    assert_eq!(actions(&late, 6).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(add(&late, 7).await, 28);
    // Whoever resumed answers for the session as before.
    let mut eve = Machine::new(&net, "eve");
    let options = HostOptions::new(1, Incarnation(1));
    let config = eve.config().await;
    let second = game_host(eve.port(), sum(), options, config).await;
    assert!(
        matches!(&second, Err(HostError::DuplicateHost { session, .. }) if *session == id),
        "{second:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_process_that_comes_back_alone_finds_the_game_that_went_on_without_it() {
    let net = MemoryFabric::new();
    let (mut machines, mut sessions) = played(&net).await;
    machines[0].die(sessions.remove(0)).await;
    assert_eq!(add(&sessions[0], 6).await, 21);
    // Put out meanwhile: its place is kept in its name, and it asks for it.
    until("the dead host is put out", || {
        sessions
            .iter()
            .any(|s| s.node().membership().voters.len() == 2)
    })
    .await;
    assert_eq!(add(&sessions[1], 7).await, 28);
    let host = machines[0].resume().await;
    assert_eq!(actions(&host, 7).await, [1, 2, 3, 4, 5, 6, 7]);
    until("it votes again", || {
        host.node().membership().voters.contains(host.node().id())
            && host.node().membership().voters.len() == 3
    })
    .await;
    assert_eq!(add(&host, 8).await, 36);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_to_a_seat_that_is_anothers_by_now_is_told_so_and_let_in_once_one_is_free() {
    let net = MemoryFabric::new();
    let (mut machines, mut sessions) = played(&net).await;
    let mut dan = Machine::new(&net, "dan");
    let last = dan.join().await;
    // Cyd dies and is put out, and eve takes the seat, the only one there is.
    machines[2].die(sessions.pop().unwrap()).await;
    until("cyd is put out", || {
        last.seats().free_seats() == 1 && last.node().voters().len() == 3
    })
    .await;
    let mut eve = Machine::new(&net, "eve");
    let taken = eve.join().await;
    // Whoever leads now, cyd has never heard of.
    let heir = taken.node().id().clone();
    for session in sessions.iter().chain([&last]) {
        if session.node().status().borrow().role == Role::Leader {
            let node = session.node();
            let handed = node.transfer(&heir, Duration::from_secs(5));
            assert_eq!(handed.await, Ok(()));
        }
    }
    let cyd = machines[2].resume().await;
    assert_eq!(*cyd.refused().borrow(), None, "nobody has said so yet");
    until("cyd is told", || cyd.refused().borrow().is_some()).await;
    assert_eq!(*cyd.refused().borrow(), Some(NoPlace::RosterFull));
    let waiting = cyd.node().waiting(Duration::from_secs(1));
    assert_eq!(waiting, Waiting::ForPlace(NoPlace::RosterFull));
    // Whoever proposes or reads is told so, and does not wait for as long as it would.
    let (asked, hour) = (tokio::time::Instant::now(), Duration::from_secs(3600));
    let refused = NoPlace::RosterFull;
    let propose = |serial| {
        let sequencer = cyd.sequencer();
        let proposal = Proposal {
            serial,
            within: hour,
            ..Proposal::default()
        };
        async move {
            let proposed = sequencer.propose_with(&6, proposal).await;
            proposed.map(|decision| decision.ruling)
        }
    };
    let no_place = TurnError::Propose(ProposeError::NoPlace(refused));
    assert_eq!(propose(None).await, Err(no_place));
    // Of a number that may have been proposed before nothing is promised.
    let unknown = propose(Some(77)).await;
    assert!(
        matches!(&unknown, Err(TurnError::Propose(ProposeError::Unknown { key })) if key.serial == 77),
        "{unknown:?}"
    );
    let read = cyd.node().read_barrier(hour).await;
    assert_eq!(read, Err(ReadError::NoPlace(refused)));
    assert!(asked.elapsed() < hour, "it is told soon");
    // A seat becomes free, and nobody needs to do anything.
    assert!(last.leave(Duration::from_secs(5)).await);
    until("cyd votes again", || {
        taken.node().voters().contains(cyd.node().id()) && cyd.refused().borrow().is_none()
    })
    .await;
    assert_eq!(add(&cyd, 6).await, 21);
    assert_eq!(cyd.node().waiting(Duration::from_secs(1)), Waiting::No);
}

/// Cyd is cut off while it has a proposal and a read under way, and comes back to a full table.
async fn loses_its_place(leads: bool) {
    let net = MemoryFabric::new();
    let (_machines, sessions) = played(&net).await;
    let [host, _, cyd] = &sessions[..] else {
        unreachable!("three play")
    };
    let mut dan = Machine::new(&net, "dan");
    let last = dan.join().await;
    // Whether it led or followed: what it asked may be in a log, for all it knows.
    let leader = host.node().leader().unwrap();
    if leads != (leader == *cyd.node().id()) {
        let to = if leads { cyd.node() } else { host.node() };
        let all = sessions.iter().chain([&last]);
        let former = all.map(GameSession::node).find(|node| *node.id() == leader);
        let former = former.unwrap();
        let handed = former.transfer(to.id(), Duration::from_secs(5)).await;
        assert_eq!(handed, Ok(()));
    }
    for name in ["ann", "bob", "dan"] {
        net.cut(&peer("cyd"), &peer(name));
    }
    let (asked, hour) = (tokio::time::Instant::now(), Duration::from_secs(3600));
    let proposal = Proposal {
        within: hour,
        ..Proposal::default()
    };
    let back = async {
        until("cyd is put out", || last.seats().free_seats() == 1).await;
        let mut eve = Machine::new(&net, "eve");
        net.cut(&peer("cyd"), &peer("eve"));
        let taken = eve.join().await;
        net.heal();
        taken
    };
    let (sequencer, view) = (cyd.sequencer(), cyd.node());
    let (proposed, read, _taken) = tokio::join!(
        sequencer.propose_with(&6, proposal),
        view.read_barrier(hour),
        back
    );
    let proposed = proposed.map(|decision| decision.ruling);
    assert!(
        matches!(
            proposed,
            Err(TurnError::Propose(ProposeError::Unknown { .. }))
        ),
        "{proposed:?}"
    );
    assert_eq!(read, Err(ReadError::NoPlace(NoPlace::RosterFull)));
    assert!(asked.elapsed() < hour, "it is told soon");
    // Nothing of it took effect.
    assert_eq!(add(host, 7).await, 22);
}

#[tokio::test(start_paused = true)]
async fn what_a_follower_asked_when_it_lost_its_place_is_unknown_soon() {
    loses_its_place(false).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_leader_asked_when_it_lost_its_place_is_unknown_soon() {
    loses_its_place(true).await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_is_let_in_by_a_leader_it_has_never_heard_of() {
    let net = MemoryFabric::new();
    let (mut machines, mut sessions) = played(&net).await;
    machines[2].die(sessions.pop().unwrap()).await;
    until("cyd is put out", || sessions[0].node().voters().len() == 2).await;
    let mut dan = Machine::new(&net, "dan");
    let dan = dan.join().await;
    for session in &sessions {
        if session.node().status().borrow().role == Role::Leader {
            let heir = dan.node();
            let node = session.node();
            let handed = node.transfer(heir.id(), Duration::from_secs(5));
            assert_eq!(handed.await, Ok(()));
        }
    }
    let cyd = machines[2].resume().await;
    until("cyd votes again", || {
        dan.node().voters().contains(cyd.node().id())
    })
    .await;
    assert_eq!(add(&cyd, 6).await, 21);
    assert_eq!(dan.node().status().borrow().role, Role::Leader);
}

#[tokio::test(start_paused = true)]
async fn a_majority_that_resumes_is_enough_and_a_spectator_resumes_as_one() {
    let net = MemoryFabric::new();
    let (mut machines, sessions) = played(&net).await;
    let mut fay = Machine::new(&net, "fay");
    let config = fay.config().await;
    let watching = game_spectate(fay.port(), sum(), JoinOptions::new(Incarnation(1)), config);
    let watching = watching.await.unwrap();
    fay.die(watching).await;
    for (machine, session) in machines.iter().zip(sessions) {
        machine.die(session).await;
    }
    let watching = fay.resume().await;
    let alone = machines[2].resume().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let leads = |s: &Session| s.node().status().borrow().role == Role::Leader;
    assert!(
        !leads(&alone) && !leads(&watching),
        "one of three is no majority"
    );
    let second = machines[1].resume().await;
    assert_eq!(add(&second, 6).await, 21);
    assert_eq!(actions(&watching, 6).await, [1, 2, 3, 4, 5, 6]);
    assert_eq!(watching.node().status().borrow().role, Role::Learner);
}

#[tokio::test(start_paused = true)]
async fn a_compacted_log_is_resumed_from_its_snapshot_as_often_as_need_be() {
    let net = MemoryFabric::new();
    let mut ann = Machine::new(&net, "ann");
    let mut session = ann.host(1, ReturnPolicy::FullMembership).await;
    session.close().await;
    for round in 0..4u64 {
        let mut config = ann.config().await;
        config.limits.log_kept_after_snapshot = 1;
        config.compaction = Some(Compaction {
            entries: 5,
            bytes: 1 << 30,
            age: Duration::from_secs(3600),
        });
        session = game_resume(ann.port(), sum(), config).await.unwrap();
        for n in 1..=10 {
            assert_eq!(add(&session, 1).await, round * 10 + n);
        }
        until("the log is compacted", || {
            session.node().numbers().purged.is_some()
        })
        .await;
        ann.die(session).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_of_another_node_or_game_is_refused_before_anything_is_written() {
    let net = MemoryFabric::new();
    let (mut machines, sessions) = played(&net).await;
    let id = sessions[1].id();
    for (machine, session) in machines.iter().zip(sessions) {
        session.close().await;
        machine.disk.crash(Crash::Lost);
    }
    let before = machines[1].disk.files();
    // Ann's process is given Bob's directory.
    let bobs = machines[1].config().await;
    let resumed = game_resume(machines[0].port(), sum(), bobs.clone()).await;
    let Err(ResumeError::Open(OpenError::OtherOwner { owner })) = resumed else {
        panic!("unexpected {resumed:?}");
    };
    assert_eq!((owner.node.peer.as_str(), owner.session), ("bob", id));
    let other_owner = OpenError::OtherOwner { owner };
    let options = HostOptions::new(2, Incarnation(1));
    let hosted = game_host(machines[0].port(), sum(), options.clone(), bobs.clone()).await;
    assert_eq!(hosted.err(), Some(HostError::Open(other_owner.clone())));
    let joining = JoinOptions::new(Incarnation(9));
    let joined = game_join(machines[0].port(), sum(), joining.clone(), bobs.clone()).await;
    assert_eq!(joined.err(), Some(JoinError::Open(other_owner.clone())));
    let roster = [peer("ann"), peer("bob")].into();
    let opened = game_node(machines[0].port(), sum(), roster, bobs.clone()).await;
    assert_eq!(opened.err(), Some(other_owner.clone()));
    // Bob's process is given his own, for another game, and for a roster instead of a lobby.
    let chess = Port::open(machines[1].at.clone(), GameId::new("chess").unwrap()).unwrap();
    let resumed = game_resume(chess, sum(), bobs.clone()).await;
    assert_eq!(resumed.err(), Some(ResumeError::Open(other_owner.clone())));
    let roster = [peer("ann"), peer("bob")].into();
    let opened = game_node(machines[1].port(), sum(), roster, bobs.clone()).await;
    assert_eq!(opened.err(), Some(other_owner));
    // His own and this game, but as if he were new.
    let hosted = game_host(machines[1].port(), sum(), options, bobs.clone()).await;
    let begun =
        |error: &OpenError| matches!(error, OpenError::LogBegun { owner } if owner.session == id);
    assert!(matches!(hosted, Err(HostError::Open(error)) if begun(&error)));
    let joined = game_join(machines[1].port(), sum(), joining, bobs.clone()).await;
    assert!(matches!(joined, Err(JoinError::Open(error)) if begun(&error)));
    bobs.log.close().await.unwrap();
    assert_eq!(machines[1].disk.files(), before, "nothing was written");
}

#[tokio::test(start_paused = true)]
async fn there_is_nothing_to_resume_in_a_log_nobody_wrote_to_and_one_without_an_owner_is_refused() {
    let net = MemoryFabric::new();
    let mut ann = Machine::new(&net, "ann");
    let config = ann.config().await;
    let resumed = game_resume(ann.port(), sum(), config.clone()).await;
    assert_eq!(resumed.err(), Some(ResumeError::NothingHeld));
    // A join that failed before anything was written leaves the log as good as new.
    let short = JoinOptions {
        within: Duration::from_millis(100),
        ..JoinOptions::new(Incarnation(1))
    };
    let joined = game_join(ann.port(), sum(), short, config.clone()).await;
    assert!(matches!(joined, Err(JoinError::Timeout(_))));
    let options = HostOptions {
        claim_wait: Duration::from_millis(100),
        ..HostOptions::new(1, Incarnation(1))
    };
    let hosted = game_host(ann.port(), sum(), options.clone(), config).await;
    assert_eq!(add(&hosted.unwrap(), 1).await, 1);

    let log = MemoryLog::new();
    log.save_vote(vec![1].into()).await.unwrap();
    let mut nobodys = SessionConfig::new(Arc::new(TokioClock::default()), 9);
    nobodys.log = Arc::new(log);
    let bob = Machine::new(&net, "bob");
    let resumed = game_resume(bob.port(), sum(), nobodys.clone()).await;
    assert_eq!(
        resumed.err(),
        Some(ResumeError::Open(OpenError::OwnerUnknown))
    );
    let hosted = game_host(bob.port(), sum(), options, nobodys).await;
    assert_eq!(hosted.err(), Some(HostError::Open(OpenError::OwnerUnknown)));
}

#[tokio::test(start_paused = true)]
async fn a_log_whose_snapshot_this_game_cannot_read_is_said_to_be_one() {
    let net = MemoryFabric::new();
    let at = net.join(peer("ann")).unwrap();
    let log = MemoryLog::new();
    let opening = || alone(&at, &log);
    opening().await.unwrap().close().await;
    log.reopen();
    let unreadable = StoredSnapshot {
        through: Position { index: 0, term: 0 },
        membership: Bytes::new(),
        state: Bytes::from_static(&[0xff; 9]),
    };
    log.save_snapshot(unreadable).await.unwrap();
    let opened = opening().await;
    assert_eq!(opened.err(), Some(OpenError::SnapshotUnreadable));
}

#[tokio::test(start_paused = true)]
async fn a_log_whose_beginning_nothing_holds_any_more_is_said_to_be_one() {
    let net = MemoryFabric::new();
    let at = net.join(peer("ann")).unwrap();
    let log = MemoryLog::new();
    let opening = || alone(&at, &log);
    let session = opening().await.unwrap();
    assert_eq!(add(&session, 1).await, 1);
    session.close().await;
    log.reopen();
    let last = log.state().unwrap().last.unwrap();
    log.purge(last).await.unwrap();
    let opened = opening().await;
    let Some(OpenError::Start(why)) = opened.err() else {
        panic!("it opened, or for another reason did not");
    };
    let gone = format!("entries through {} are gone", last.index);
    assert!(why.contains(&gone), "{why}");
}
