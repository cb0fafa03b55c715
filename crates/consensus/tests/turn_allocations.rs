//! What a turn allocates under load, on all three nodes together. A file of its own: it counts what
//! a whole process does.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::Timing;
use cabinet_consensus::fabric::{MemoryFabric, Port};
use cabinet_consensus::game::{Blueprint, Game, TurnInfo};
use cabinet_consensus::ids::{GameId, PeerId};
use cabinet_consensus::raft::Role;
use cabinet_consensus::session::{
    AdmissionTiming, GameSession, SessionConfig, TokioClock, game_node,
};
use cabinet_consensus::turns::TurnSequencer;
use futures_util::future::join_all;

struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    CALLS.set(CALLS.get() + 1);
}

// SAFETY: every call goes to the system allocator unchanged; counting touches a thread-local cell
// that needs neither allocation nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Says nothing to whoever acts: what it would say is the game's own.
#[derive(Clone, Default)]
struct Count(u64);

impl Game for Count {
    type Action = u64;
    type Outcome = ();
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, add: &u64) -> Result<(), ()> {
        self.0 += add;
        Ok(())
    }
}

const IN_FLIGHT: usize = 512;

async fn turns(sequencer: &TurnSequencer<Count>, rounds: usize) {
    for _ in 0..rounds {
        let decided = join_all((0..IN_FLIGHT).map(|_| sequencer.propose(&1))).await;
        assert!(decided.into_iter().all(|turn| turn.unwrap().is_accepted()));
    }
}

/// One thread, which the counter is of.
#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_turn_under_load_allocates_a_handful_of_times_on_all_nodes_together() {
    const ROUNDS: usize = 8;
    let net = MemoryFabric::new();
    let roster: BTreeSet<_> = ["ann", "bob", "cyd"]
        .map(|n| PeerId::new(n).unwrap())
        .into();
    let mut sessions = Vec::new();
    for (nonce, peer) in (1..).zip(&roster) {
        let at = net.join(peer.clone()).unwrap();
        let port = Port::open(at, GameId::new("count").unwrap()).unwrap();
        // Heartbeats are rare: turns are counted.
        let timing = Timing {
            election_min_ms: 20_000,
            election_max_ms: 40_000,
            heartbeat_ms: 10_000,
        };
        let config = SessionConfig {
            timing,
            admission: AdmissionTiming {
                alive_within: timing.heartbeat() * 3,
                admit_within: timing.heartbeat() * 6,
                ..AdmissionTiming::default()
            },
            ..SessionConfig::new(Arc::new(TokioClock::default()), nonce)
        };
        let session = game_node(port, Blueprint::new(Count::default), roster.clone(), config);
        sessions.push(session.await.unwrap());
    }
    let mut status = sessions[0].node().status();
    let led = status.wait_for(|status| status.leader.is_some());
    let led = tokio::time::timeout(Duration::from_secs(600), led).await;
    led.unwrap().unwrap();
    let leads = |session: &GameSession<Count>| session.node().status().get().role == Role::Leader;
    let leader = sessions.iter().position(leads).unwrap();
    for (who, at, most) in [
        ("the leader", leader, AT_THE_LEADER_MAX),
        ("a follower", (leader + 1) % 3, AT_A_FOLLOWER_MAX),
    ] {
        let sequencer = sessions[at].sequencer();
        // Until every ring is as long as it gets.
        turns(&sequencer, 3 * ROUNDS).await;
        let before = CALLS.get();
        turns(&sequencer, ROUNDS).await;
        let calls = CALLS.get() - before;
        let each = calls as f64 / (ROUNDS * IN_FLIGHT) as f64;
        println!("{each:.2} allocations for a turn of {who}");
        assert!(each < most, "{each:.2} allocations for a turn of {who}");
    }
    for session in &sessions {
        session.close().await;
    }
}

/// 7.9 and 16.9 when this was written, two of them of `join_all`; openraft's bare write takes 3.4.
const AT_THE_LEADER_MAX: f64 = 10.0;
const AT_A_FOLLOWER_MAX: f64 = 20.0;
