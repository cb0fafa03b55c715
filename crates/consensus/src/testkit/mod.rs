//! A game on several nodes in virtual time, with everything that can go wrong, and the invariants
//! that must hold whatever does: `docs/ARCHITECTURE.md` calls it the simulator.
//!
//! One seed is one run: one thread, one paused clock, one stream of randomness. The nodes are the
//! real ones, from the session down to the durable log; only the network, the disks and the clocks
//! are simulated.
//!
//! Invariants, checked as it happens
//! - `ElectionSafety`: a term has one leader;
//! - `LogMatching`: entries of one index and term are the same bytes on every node;
//! - `LeaderCompleteness`: what was applied anywhere stays at its index, in its term;
//! - `StateMachineSafety`: states after the same entry are the same bytes;
//! - `ExactlyOnce`: no action is applied twice, and what a client was told took place did;
//! - `RealTimeOrder`: a turn that was acknowledged before another was proposed precedes it;
//! - `LinearizableReads`: a read sees every turn acknowledged before it began;
//! - `OneTimeoutPerTurn`: no turn is ended before its own time is up;
//! - `EventsInOrder`: a reader sees the log's actions, in order, whatever it missed;
//! - `NodeLives`: no node stops or fails to start on what its disk holds;
//! - `Progress`: once nothing goes wrong any more, every proposal is decided and all nodes catch up.

mod client;
mod dice;
mod early;
mod game;
mod net;
mod plan;
mod run;
mod world;

pub use plan::{Fault, What};
pub use run::{run_faults, run_seed};

/// A bug to put in, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plant {
    /// None: the code as it is.
    #[default]
    Nothing,
    /// The session table remembers only the highest serial of a client.
    HighWaterSessions,
    /// Every node times turns, and a timeout counts whenever it comes.
    TimerPerNode,
    /// The log says records are on stable storage before they are.
    ReplyBeforeFsync,
    /// A node answers a read from what it has applied.
    LocalReads,
}

impl Plant {
    /// Every bug, and the name it goes by.
    pub const ALL: [(&'static str, Self); 4] = [
        ("high-water-sessions", Self::HighWaterSessions),
        ("timer-per-node", Self::TimerPerNode),
        ("reply-before-fsync", Self::ReplyBeforeFsync),
        ("local-reads", Self::LocalReads),
    ];
}

/// What kind of run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    /// How many nodes; the seed picks three, sometimes five, when `None`.
    pub nodes: Option<usize>,
    /// For how long things go wrong, in virtual milliseconds.
    pub chaos_ms: u64,
    /// How long the game may take to recover afterwards, in virtual milliseconds.
    pub heal_ms: u64,
    /// The bug that is put in.
    pub plant: Plant,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            nodes: None,
            chaos_ms: 3000,
            heal_ms: 5000,
            plant: Plant::Nothing,
        }
    }
}

/// How often each situation came up in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Leaders after the first.
    pub failovers: u64,
    /// Machines that stopped.
    pub crashes: u64,
    /// Nodes that came back on their disk.
    pub restarts: u64,
    /// Links or nodes that were cut off.
    pub partitions: u64,
    /// Snapshots a node took from another.
    pub snapshot_installs: u64,
    /// Readers that were too slow.
    pub lagged: u64,
    /// States replaced while the node's client had proposals under way.
    pub resets_with_pending: u64,
    /// Turns that timed out.
    pub timeouts: u64,
    /// Turns that began under one leader and timed out under another.
    pub timeouts_across_failover: u64,
    /// Proposals decided.
    pub acknowledged: u64,
    /// Attempts without a verdict, made again under their key.
    pub unknown: u64,
    /// Reads answered.
    pub reads: u64,
}

impl Counters {
    /// Each count with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 12] {
        [
            ("fail-over", self.failovers),
            ("crash", self.crashes),
            ("restart", self.restarts),
            ("partition", self.partitions),
            ("snapshot install", self.snapshot_installs),
            ("lagged", self.lagged),
            ("reset with pending turns", self.resets_with_pending),
            ("timeout", self.timeouts),
            ("deadline across a fail-over", self.timeouts_across_failover),
            ("acknowledged", self.acknowledged),
            ("unknown outcome", self.unknown),
            ("linearizable read", self.reads),
        ]
    }
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its name.
    pub invariant: &'static str,
    /// What happened.
    pub detail: String,
    /// When, in virtual milliseconds.
    pub at_ms: u64,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The run's seed.
    pub seed: u64,
    /// A hash of everything that happened: the same for the same seed, in every process.
    pub trace_hash: u64,
    /// What the run saw.
    pub counters: Counters,
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
}

/// The faults of a seed that fails, without those it fails without.
#[must_use]
pub fn shrink(seed: u64, scenario: &Scenario) -> Vec<Fault> {
    let mut faults = run::faults_of(seed, scenario);
    let mut at = faults.len();
    while at > 0 {
        at -= 1;
        let mut fewer = faults.clone();
        fewer.remove(at);
        if run_faults(seed, scenario, &fewer).violation.is_some() {
            faults = fewer;
        }
    }
    faults
}
