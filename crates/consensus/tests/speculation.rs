//! Speculation as a task over three nodes in one process: shown at once, resolved by key, through
//! fail-over, refusals, resets, lags and unknown outcomes.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::time::Duration;

use cabinet_consensus::config::{Compaction, ConfigError};
use cabinet_consensus::fabric::{MemoryFabric, Port};
use cabinet_consensus::game::{Blueprint, Game, Malformed, Snapshots, TurnInfo};
use cabinet_consensus::ids::{GameId, Incarnation};
use cabinet_consensus::session::{
    GameSession, HostError, HostOptions, JoinError, JoinOptions, OpenError, SessionConfig,
    game_host, game_join, game_node, game_spectate, game_witness,
};
use cabinet_consensus::turns::{
    NotProposed, Notice, Proposal, ProposeError, Ruling, SpeculationOptions, SpeculativeSequencer,
    TurnError,
};
use common::{NAMES, fast as config, leader, peer, three};

/// Players take from a pile, and whoever takes what is not there is refused.
#[derive(Clone, Debug, PartialEq)]
struct Pile {
    left: u64,
    taken: u64,
}

impl Game for Pile {
    type Action = u64;
    type Outcome = u64;
    type Refusal = String;

    fn apply(&mut self, _: &TurnInfo, take: &u64) -> Result<u64, String> {
        let Some(left) = self.left.checked_sub(*take) else {
            return Err(format!("only {} left", self.left));
        };
        self.left = left;
        self.taken += 1;
        Ok(left)
    }
}

impl Snapshots for Pile {
    fn snapshot(&self) -> Vec<u8> {
        [self.left.to_le_bytes(), self.taken.to_le_bytes()].concat()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        let (left, taken) = bytes.split_at_checked(8).ok_or(Malformed)?;
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes);
        Ok(Self {
            left: number(left).map_err(|_| Malformed)?,
            taken: number(taken).map_err(|_| Malformed)?,
        })
    }
}

type Session = GameSession<Pile>;
type Shows = SpeculativeSequencer<Pile>;

fn compacting(nonce: u64) -> SessionConfig {
    let mut config = config(nonce);
    config.compaction = Some(Compaction {
        entries: 20,
        bytes: 1 << 30,
        age: Duration::from_secs(3600),
    });
    config.limits.log_kept_after_snapshot = 2;
    config
}

fn pile(left: u64) -> Blueprint<Pile> {
    Blueprint::with_snapshots(move || Pile { left, taken: 0 })
}

fn speculate(session: &Session) -> Shows {
    SpeculativeSequencer::start(session.sequencer(), SpeculationOptions::default()).unwrap()
}

/// Cuts one of the three off from the others.
fn isolate(net: &MemoryFabric, name: &str) {
    for other in NAMES.iter().filter(|other| **other != name) {
        net.cut(&peer(name), &peer(other));
    }
}

async fn until_left(shows: &Shows, left: u64) {
    let agreed = shows
        .shown()
        .wait_for(|shown| shown.agreed.left == left && shown.pending == 0)
        .await
        .unwrap();
    assert_eq!(agreed.state, agreed.agreed);
}

#[tokio::test(start_paused = true)]
async fn an_action_is_shown_before_it_is_decided_and_confirmed_on_every_node() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "pile", pile(100), config).await;
    let shows: Vec<_> = nodes.iter().map(|(_, s)| speculate(s)).collect();
    // The first waits for the client's session; from then on nothing is waited for.
    let first = shows[0].propose(1).await.unwrap();
    assert_eq!(first.decided().await.unwrap().ruling, Ruling::Accepted(99));
    let mut tickets = Vec::new();
    for take in [2, 3, 4] {
        tickets.push(shows[0].propose(take).await.unwrap());
    }
    let shown = shows[0].shown().get();
    assert_eq!((shown.state.left, shown.agreed.left), (90, 99));
    assert_eq!((shown.pending, shown.confirmed), (3, 1));
    assert_eq!(*shows[0].pending_count().borrow(), 3);
    assert_eq!(shows[0].await_confirmed(4).await, Ok(4));
    for (ticket, left) in tickets.into_iter().zip([97, 94, 90]) {
        let decided = ticket.decided().await.unwrap();
        assert_eq!(decided.ruling, Ruling::Accepted(left));
    }
    for shows in &shows {
        until_left(shows, 90).await;
    }
    assert_eq!(
        *shows[1].confirmed_count().borrow(),
        0,
        "others' do not count"
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_rules_refuse_here_is_not_sent_and_what_they_refuse_there_is_reported() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "pile", pile(10), config).await;
    let at = leader(&nodes).await;
    let (me, other) = ((at + 1) % 3, (at + 2) % 3);
    let mut shows = speculate(&nodes[me].1);
    let theirs = speculate(&nodes[other].1);
    let mut notices = shows.notices().unwrap();
    assert!(shows.notices().is_none());
    let ticket = shows.propose(1).await.unwrap();
    ticket.decided().await.unwrap();
    assert!(matches!(
        notices.recv().await,
        Some(Notice::Confirmed { .. })
    ));
    let refused = shows.propose(10).await;
    assert_eq!(
        refused.map(|_| ()),
        Err(NotProposed::PredictedRefusal("only 9 left".to_owned()))
    );
    // Cut off, this node does not see that the pile is empty.
    isolate(&net, NAMES[me]);
    let all = theirs.propose(9).await.unwrap();
    assert!(all.decided().await.unwrap().is_accepted());
    let ticket = shows.propose(9).await.unwrap();
    assert_eq!(shows.shown().borrow().state.left, 0);
    net.heal();
    let key = ticket.key().clone();
    let decided = ticket.decided().await.unwrap();
    assert_eq!(decided.ruling, Ruling::Refused("only 0 left".to_owned()));
    let notice = notices.recv().await.unwrap();
    match notice {
        // What the other's event says of it here, or its own there: whichever comes first.
        Notice::Rejected { key: told, .. } | Notice::Refused { key: told, .. } => {
            assert_eq!(told, key);
        }
        other => panic!("unexpected {other:?}"),
    }
    until_left(&shows, 0).await;
    assert_eq!(*shows.confirmed_count().borrow(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_pending_when_the_leader_dies_is_confirmed_once() {
    let net = MemoryFabric::new();
    let mut nodes = three(&net, "pile", pile(1000), config).await;
    let at = leader(&nodes).await;
    let survivors: Vec<_> = (0..3).filter(|n| *n != at).collect();
    let shows: Vec<_> = survivors.iter().map(|n| speculate(&nodes[*n].1)).collect();
    for shows in &shows {
        let _ = shows.propose(1).await.unwrap().decided().await.unwrap();
    }
    let mut tickets = Vec::new();
    for _ in 0..8 {
        for shows in &shows {
            tickets.push(shows.propose(2).await.unwrap());
        }
    }
    let (dead, session) = nodes.remove(at);
    dead.leave();
    session.close().await;
    for ticket in tickets {
        assert!(ticket.decided().await.unwrap().is_accepted());
    }
    for shows in &shows {
        assert_eq!(shows.await_confirmed(9).await, Ok(9));
        until_left(shows, 1000 - 2 - 32).await;
        assert_eq!(shows.shown().borrow().agreed.taken, 18);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_while_actions_are_pending_keeps_them_until_they_are_decided() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "pile", pile(1000), compacting).await;
    let at = leader(&nodes).await;
    let me = (at + 1) % 3;
    let shows = speculate(&nodes[me].1);
    let _ = shows.propose(1).await.unwrap().decided().await.unwrap();
    isolate(&net, NAMES[me]);
    let others = nodes[at].1.sequencer();
    for _ in 0..100 {
        others.propose(&1).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(nodes[at].1.node().numbers().purged.is_some());
    let mut tickets = Vec::new();
    for _ in 0..3 {
        tickets.push(shows.propose(5).await.unwrap());
    }
    assert_eq!(shows.shown().borrow().state.left, 999 - 15);
    net.heal();
    for ticket in tickets {
        assert!(ticket.decided().await.unwrap().is_accepted());
    }
    until_left(&shows, 999 - 100 - 15).await;
    let shown = shows.shown().get();
    assert!(shown.resets > 0, "{shown:?}");
    assert_eq!((shown.agreed.taken, shown.behind), (104, false));
    assert_eq!(shown.confirmed, 4);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_falls_behind_reads_the_log_again_or_takes_a_state_instead() {
    for compact in [false, true] {
        let net = MemoryFabric::new();
        let nodes = three(&net, "pile", pile(10_000), |nonce| {
            let mut config = if compact {
                compacting(nonce)
            } else {
                config(nonce)
            };
            // One event is kept: a batch of entries is more.
            config.events.events_max = 1;
            config
        })
        .await;
        let at = leader(&nodes).await;
        let shows = speculate(&nodes[(at + 1) % 3].1);
        for _ in 0..5 {
            let under_way: Vec<_> = (0..40)
                .map(|_| {
                    let sequencer = nodes[at].1.sequencer();
                    tokio::spawn(async move { sequencer.propose(&1).await })
                })
                .collect();
            let mine = shows.propose(2).await.unwrap();
            for task in under_way {
                assert!(task.await.unwrap().unwrap().is_accepted());
            }
            assert!(mine.decided().await.unwrap().is_accepted());
        }
        assert_eq!(shows.await_confirmed(5).await, Ok(5));
        until_left(&shows, 10_000 - 200 - 10).await;
        let shown = shows.shown().get();
        assert!(shown.lags > 0 && !shown.behind, "{shown:?}");
        assert_eq!(shown.agreed.taken, 205);
        if !compact {
            assert_eq!(shown.resets, 0);
        }
        if compact {
            // Who starts now finds the log gone and a state in its place.
            let late = speculate(&nodes[at].1);
            until_left(&late, 10_000 - 200 - 10).await;
            assert_eq!(late.shown().borrow().resets, 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_stays_shown_and_is_resolved_by_its_key() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "pile", pile(100), config).await;
    let at = leader(&nodes).await;
    let shows = speculate(&nodes[at].1);
    let _ = shows.propose(1).await.unwrap().decided().await.unwrap();
    // A leader cut off appends and cannot commit.
    isolate(&net, NAMES[at]);
    let short = Proposal {
        within: Duration::from_millis(100),
        ..Proposal::default()
    };
    let kept = shows.propose_with(7, short).await.unwrap();
    let given_up = shows.propose_with(20, short).await.unwrap();
    let unknown = shows.shown().wait_for(|shown| shown.unknown == 2).await;
    assert_eq!(unknown.unwrap().state.left, 99 - 27);
    shows.give_up(given_up.key()).await;
    let key = given_up.key().clone();
    assert_eq!(
        given_up.decided().await.map(|_| ()),
        Err(TurnError::Propose(ProposeError::Unknown { key }))
    );
    let shown = shows.shown().wait_for(|shown| shown.pending == 1).await;
    assert_eq!(shown.unwrap().state.left, 99 - 7);
    net.heal();
    assert!(kept.decided().await.unwrap().is_accepted());
    assert_eq!(shows.await_confirmed(2).await, Ok(2));
    let settled = shows.shown().wait_for(|shown| shown.pending == 0).await;
    // Whether the one that was given up took place is the log's to say, and it says it of all.
    let left = settled.unwrap().agreed.left;
    assert!(left == 92 || left == 72, "{left}");
}

#[tokio::test(start_paused = true)]
async fn as_many_as_may_are_pending_and_one_more_is_refused() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "pile", pile(100), config).await;
    let start = |pending_max| {
        SpeculativeSequencer::start(nodes[0].1.sequencer(), SpeculationOptions { pending_max })
    };
    let max = 1024;
    for value in [0, max + 1] {
        let refused = start(value).err();
        assert!(
            matches!(refused, Some(ConfigError::Limit { max: 1024, value: given, .. }) if given == value as u64),
            "{refused:?}"
        );
    }
    assert!(start(max).is_ok());
    let shows = start(3).unwrap();
    let _ = shows.propose(1).await.unwrap().decided().await.unwrap();
    let tickets = [
        shows.propose(1).await.unwrap(),
        shows.propose(1).await.unwrap(),
        shows.propose(1).await.unwrap(),
    ];
    assert_eq!(
        shows.propose(1).await.map(|_| ()),
        Err(NotProposed::TooManyPending { max: 3 })
    );
    for ticket in tickets {
        assert!(ticket.decided().await.unwrap().is_accepted());
    }
    let again = shows.propose(1).await.unwrap();
    assert_eq!(again.decided().await.unwrap().ruling, Ruling::Accepted(95));
}

#[tokio::test(start_paused = true)]
async fn the_same_key_is_shown_once_and_gets_the_first_answer() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "pile", pile(100), config).await;
    let shows = speculate(&nodes[0].1);
    let keyed = Proposal {
        serial: Some(7),
        ..Proposal::default()
    };
    let (first, second) = (
        shows.propose_with(10, keyed).await.unwrap(),
        shows.propose_with(10, keyed).await.unwrap(),
    );
    assert_eq!(shows.shown().borrow().state.left, 90);
    let (first, second) = (
        first.decided().await.unwrap(),
        second.decided().await.unwrap(),
    );
    assert_eq!(first.index, second.index);
    until_left(&shows, 90).await;
    let third = shows.propose_with(10, keyed).await.unwrap();
    assert_eq!(third.decided().await.unwrap().index, first.index);
    let shown = shows.shown().get();
    assert_eq!((shown.confirmed, shown.agreed.taken), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_action_that_may_be_in_a_log_is_asked_for_again_past_a_leader_that_is_busy() {
    let net = MemoryFabric::new();
    let one_at_a_time = |nonce| {
        let mut config = config(nonce);
        config.limits.pending_total_max = 1;
        config
    };
    let nodes = three(&net, "pile", pile(100), one_at_a_time).await;
    let at = leader(&nodes).await;
    let shows = speculate(&nodes[at].1);
    let _ = shows.propose(1).await.unwrap().decided().await.unwrap();
    // It is written at a leader that cannot decide, and then another takes the only place there is.
    isolate(&net, NAMES[at]);
    let short = Proposal {
        within: Duration::from_millis(200),
        ..Proposal::default()
    };
    let ticket = shows.propose_with(10, short).await.unwrap();
    let mut shown = shows.shown();
    shown.wait_for(|shown| shown.unknown == 1).await.unwrap();
    let sequencer = nodes[at].1.sequencer();
    let other = tokio::spawn(async move { sequencer.propose(&100).await.is_ok() });
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(shows.shown().borrow().unknown, 1, "it is still shown");
    net.heal();
    assert!(ticket.decided().await.unwrap().is_accepted());
    assert!(other.await.unwrap());
    until_left(&shows, 89).await;
}

#[tokio::test(start_paused = true)]
async fn a_closed_session_ends_the_task_and_its_tickets_say_that_nobody_knows() {
    let net = MemoryFabric::new();
    let nodes = three(&net, "pile", pile(100), config).await;
    let at = leader(&nodes).await;
    let shows = speculate(&nodes[at].1);
    let _ = shows.propose(1).await.unwrap().decided().await.unwrap();
    isolate(&net, NAMES[at]);
    let ticket = shows.propose(1).await.unwrap();
    let key = ticket.key().clone();
    nodes[at].1.close().await;
    let told = ticket.decided().await.map(|_| ());
    assert_eq!(told, Err(TurnError::Propose(ProposeError::Unknown { key })));
    assert!(shows.await_confirmed(100).await.is_err());
    assert_eq!(
        shows.propose(1).await.map(|_| ()),
        Err(NotProposed::Propose(ProposeError::Closed))
    );
}

/// A game that cannot be written down.
#[derive(Clone)]
struct Any;

impl Game for Any {
    type Action = Vec<u8>;
    type Outcome = ();
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, _: &Vec<u8>) -> Result<(), ()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn no_path_opens_a_game_that_cannot_read_a_snapshot_with_compaction_on() {
    let net = MemoryFabric::new();
    let at = net.join(peer("ann")).unwrap();
    let port = || Port::open(at.clone(), GameId::new("any").unwrap()).unwrap();
    let any = || Blueprint::new(|| Any);
    let refused = || OpenError::Config(ConfigError::CompactionNeedsSnapshots);
    let life = Incarnation(1);
    let joining = || JoinOptions::new(life);
    let known = game_node(port(), any(), [peer("ann")].into(), compacting(1)).await;
    assert_eq!(known.err(), Some(refused()));
    let hosted = game_host(port(), any(), HostOptions::new(1, life), compacting(1)).await;
    assert_eq!(hosted.err(), Some(HostError::Open(refused())));
    let joined = game_join(port(), any(), joining(), compacting(1)).await;
    assert_eq!(joined.err(), Some(JoinError::Open(refused())));
    let watched = game_spectate(port(), any(), joining(), compacting(1)).await;
    assert_eq!(watched.err(), Some(JoinError::Open(refused())));
    let witness = game_witness(port(), any(), joining(), compacting(1)).await;
    assert_eq!(witness.err(), Some(JoinError::Open(refused())));
}
