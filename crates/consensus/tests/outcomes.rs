//! What is answered when there is no verdict, and when: at the deadline that was asked for, however
//! short or long, and never more than is known.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::Timing;
use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer, Port};
use cabinet_consensus::game::{Blueprint, Game, TurnInfo};
use cabinet_consensus::ids::GameId;
use cabinet_consensus::session::{GameSession, SessionConfig, TokioClock, game_node};
use cabinet_consensus::turns::{
    Proposal, ProposeError, ReadError, SpeculationOptions, SpeculativeSequencer, TurnError,
};
use common::{peer, until};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};

/// Counts what is said.
#[derive(Clone, Default)]
struct Talk(u64);

impl Game for Talk {
    type Action = String;
    type Outcome = u64;
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, _: &String) -> Result<u64, ()> {
        self.0 += 1;
        Ok(self.0)
    }
}

const NAMES: [&str; 3] = ["ann", "bob", "cyd"];
/// Far more than anything here takes that ends at all.
const PATIENCE: Duration = Duration::from_secs(120);

type Node = (Arc<MemoryPeer>, GameSession<Talk>);

struct Table {
    net: MemoryFabric,
    nodes: Vec<Node>,
}

impl Table {
    /// Ann leads.
    async fn new(set: impl Fn(&str, &mut SessionConfig)) -> Self {
        let net = MemoryFabric::new();
        let roster: BTreeSet<_> = NAMES.map(peer).into();
        let mut nodes = Vec::new();
        for (n, name) in NAMES.iter().enumerate() {
            let at = net.join(peer(name)).unwrap();
            let port = Port::open(at.clone(), GameId::new("talk").unwrap()).unwrap();
            let mut config = SessionConfig::new(Arc::new(TokioClock::default()), n as u64);
            config.timing = Timing::fast();
            set(name, &mut config);
            let blueprint = Blueprint::new(Talk::default);
            let opening = game_node(port, blueprint, roster.clone(), config);
            nodes.push((at, opening.await.unwrap()));
        }
        let this = Self { net, nodes };
        let ann = this.session("ann").node();
        until("somebody leads", || ann.leader().is_some()).await;
        let leader = ann.leader().unwrap();
        if leader != *ann.id() {
            let of = this.session(leader.peer.as_str()).node();
            assert_eq!(of.transfer(ann.id(), PATIENCE).await, Ok(()));
        }
        let hello = "hello".to_owned();
        for name in NAMES {
            let said = this.session(name).sequencer().propose(&hello).await;
            assert!(said.unwrap().is_accepted());
        }
        this
    }

    fn session(&self, name: &str) -> &GameSession<Talk> {
        let at = NAMES.iter().position(|known| *known == name).unwrap();
        &self.nodes[at].1
    }

    fn cut_off_ann(&self) {
        for other in ["bob", "cyd"] {
            self.net.cut(&peer("ann"), &peer(other));
        }
    }
}

fn within(within: Duration) -> Proposal {
    Proposal {
        within,
        ..Proposal::default()
    }
}

fn is_unknown(error: &TurnError) -> bool {
    matches!(error, TurnError::Propose(ProposeError::Unknown { .. }))
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_answers_waits_for_each_verdict_until_its_own_deadline() {
    let table = Table::new(|_, _| {}).await;
    let sequencer = table.session("ann").sequencer();
    table.cut_off_ann();
    let begun = Instant::now();
    // Shorter and longer than the sweeps between which who waits has no timer.
    let times = [1, 9, 10, 11, 19, 20, 21, 30, 45, 500, 5000, 60_000].map(Duration::from_millis);
    let say = |time: Duration| {
        let sequencer = &sequencer;
        async move {
            let text = "late".to_owned();
            let said = sequencer.propose_with(&text, within(time));
            let said = timeout(PATIENCE, said).await;
            let why = said.expect("its deadline ends it").unwrap_err();
            assert!(is_unknown(&why), "{time:?}: {why:?}");
            let took = begun.elapsed();
            // In virtual time nothing but the timer decides when that was.
            assert!(
                took >= time && took < time + Duration::from_millis(5),
                "{time:?}: {took:?}"
            );
        }
    };
    join_all(times.map(say)).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_verdict_is_told_when_the_session_closes_before_its_deadline() {
    let table = Table::new(|_, _| {}).await;
    let ann = table.session("ann");
    let sequencer = ann.sequencer();
    table.cut_off_ann();
    let begun = Instant::now();
    let text = "late".to_owned();
    let waits = async {
        // Past every sweep, and in the middle of them.
        let said = sequencer.propose_with(&text, within(PATIENCE * 2));
        timeout(PATIENCE, said).await.expect("the end ends it")
    };
    let closes = async {
        sleep(Duration::from_secs(5)).await;
        ann.close().await;
    };
    let (said, ()) = tokio::join!(waits, closes);
    assert!(is_unknown(&said.unwrap_err()));
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn what_a_leader_finds_too_large_is_unknown_where_an_attempt_before_may_have_passed() {
    let table = Table::new(|name, config| {
        config.limits.action_bytes_max = if name == "bob" { 100 } else { 10 };
    })
    .await;
    let bob = table.session("bob").sequencer();
    let (fits, large) = ("x".repeat(10), "x".repeat(11));
    assert!(bob.propose(&fits).await.unwrap().is_accepted());
    let said = bob.propose(&large).await;
    let too_large = TurnError::Propose(ProposeError::TooLarge { len: 11, max: 10 });
    assert_eq!(said.err(), Some(too_large), "nobody said it before");
    // Under a number of his own he may have said it to a leader that took more.
    let said = bob.propose_with_id(40, &large).await;
    assert!(is_unknown(&said.unwrap_err()));
    assert!(bob.propose_with_id(41, &fits).await.unwrap().is_accepted());
    // What his own node finds too large was never sent.
    let said = bob.propose_with_id(42, &"x".repeat(101)).await;
    let own = TurnError::Propose(ProposeError::TooLarge { len: 101, max: 100 });
    assert_eq!(said.err(), Some(own));
}

#[tokio::test(start_paused = true)]
async fn the_longest_time_there_is_may_be_asked_for_everywhere_and_means_until_it_is_done() {
    let table = Table::new(|_, _| {}).await;
    let [ann, bob] = ["ann", "bob"].map(|name| table.session(name));
    let text = "hello".to_owned();
    for session in [ann, bob] {
        let (node, turns) = (session.node(), session.sequencer());
        assert!(node.read_barrier(Duration::MAX).await.is_ok());
        assert!(turns.read_barrier(Duration::MAX).await.is_ok());
        let seen = turns.read_within(Duration::MAX, |seen| seen.game.0).await;
        assert!(seen.unwrap() >= 3);
        let said = turns.propose_with(&text, within(Duration::MAX)).await;
        assert!(said.unwrap().is_accepted());
        let pinned = Proposal {
            serial: Some(90),
            ..within(Duration::MAX)
        };
        assert!(
            turns
                .propose_with(&text, pinned)
                .await
                .unwrap()
                .is_accepted()
        );
        let options = SpeculationOptions::default();
        let shows = SpeculativeSequencer::start(session.sequencer(), options).unwrap();
        let ticket = shows
            .propose_with(text.clone(), within(Duration::MAX))
            .await;
        let Ok(ticket) = ticket else {
            panic!("it is proposed");
        };
        assert!(ticket.decided().await.unwrap().is_accepted());
        assert_eq!(node.state(Duration::MAX).leader, node.leader());
    }
    let heir = bob.node();
    assert_eq!(ann.node().transfer(heir.id(), Duration::MAX).await, Ok(()));
    let left = timeout(PATIENCE, bob.leave(Duration::MAX)).await;
    assert_eq!(left, Ok(true), "also who has only just begun to lead");
}

#[tokio::test(start_paused = true)]
async fn what_may_take_no_time_at_all_answers_at_once() {
    let table = Table::new(|_, _| {}).await;
    let bob = table.session("bob");
    let begun = Instant::now();
    assert_eq!(
        bob.node().read_barrier(Duration::ZERO).await,
        Err(ReadError::NoQuorum)
    );
    let text = "hello".to_owned();
    let said = bob
        .sequencer()
        .propose_with(&text, within(Duration::ZERO))
        .await;
    assert!(matches!(
        said,
        Err(TurnError::Propose(ProposeError::NotAppended { .. }))
    ));
    assert_eq!(begun.elapsed(), Duration::ZERO);
}
