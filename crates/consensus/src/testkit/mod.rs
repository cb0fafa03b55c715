//! A game on several nodes in virtual time, with everything that can go wrong, and the invariants
//! that must hold whatever does: `docs/ARCHITECTURE.md` calls it the simulator.
//!
//! One seed is one run: one thread, one paused clock, one stream of randomness. The nodes are the
//! real ones, from the session down to the durable log; only the network, the disks and the clocks
//! are simulated.
//!
//! For a game of your own there is [`Cluster`].
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
//! - `PromiseKept`: what a client was told will not take effect does not, unless it asks again;
//! - `EventsInOrder`: a reader sees the log's actions, in order, whatever it missed;
//! - `FencedTurn`: what was meant for one turn took place in that one, and only what met another is
//!   turned away;
//! - `SpeculativeView`: what a player is shown is the agreed state and its own undecided actions;
//! - `SpeculativePlayer`: so it is at a `SpeculativeSequencer`, which tells of each action what became
//!   of it, and in the end has nothing pending;
//! - `AppChannels`: what is heard on a channel was said there to who hears it, byte for byte, by the
//!   member it is from, and as often as it came; every frame is accounted for, from who sent it to
//!   who heard, lost, dropped or refused it; and of what nobody reads the latest waits;
//! - `OneHost`: nobody founds a session where one is;
//! - `AdditiveMembership`: a change of members is about one node;
//! - `CaughtUp`: who gets a vote has the log as it was when it became a learner;
//! - `SpectatorsOnlyWatch`, `SpectatorsSurvive`: who watches never votes, and no change forgets it;
//! - `NoLostSeat`: only who left, or fell silent, loses a place, and comes back to the seat it had;
//! - `Presence`: who is said to be here is connected;
//! - `Handover`: who asks for another leader is told the truth about it;
//! - `CheckQuorum`: who says that it leads can hear a majority, or could until a moment ago;
//! - `NodeLives`: no node stops or fails to start on what its disk holds;
//! - `Progress`: once nothing goes wrong any more, every proposal is decided, all nodes catch up,
//!   who is in the game sees all others who are, and in a hosted game the members are who should be.
//! - `NoPanic`: nothing panics, the tasks of a node included.

mod client;
mod cluster;
mod dice;
mod duel;
mod early;
mod estranged;
mod game;
mod handover;
mod hosted;
mod ledger;
mod link;
mod lives;
mod lobby;
mod machine;
mod mirror;
mod net;
mod panics;
mod plan;
mod player;
mod quest;
mod quorum;
mod run;
mod sight;
mod strike;
mod talk;
mod tally;
mod world;

pub use cluster::{Cluster, ClusterError, Entrance, NODES_MAX, quick_config};
pub use plan::{Fault, What};
pub use run::{run_faults, run_seed};
pub use tally::{RUNS_OF_EVERYTHING, Tally, TallyRow};

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
    /// An admission names all voters, and forgets who only watches.
    AbsoluteVoterSets,
    /// Of two hosts the lower node stays, whoever was there first.
    LowestIdHost,
    /// A learner gets its vote before it has the log.
    PromotionWithoutCatchUp,
    /// A player's view takes an event for its own by the action's value.
    MatchByValue,
    /// Who proves that it was let in once is heard also where a leader is.
    ProofBelievedWhileLed,
    /// No proof is believed: who is cut off from all it knew does not come back.
    ProofNeverTaken,
    /// A node passes on what it hears on a channel.
    AppRelay,
    /// A frame goes to the first channel that is open, whichever it names.
    WrongChannel,
    /// Who was seen once is said to be here for ever.
    PresenceKept,
    /// Leadership counts as handed over once the heir was asked.
    HandOverUnseen,
    /// A leader that no majority answers goes on as one.
    LeaderAlone,
    /// A witness gives nobody its vote.
    IdleWitness,
}

impl Plant {
    /// Every bug, and the name it goes by.
    pub const ALL: [(&'static str, Self); 16] = [
        ("high-water-sessions", Self::HighWaterSessions),
        ("timer-per-node", Self::TimerPerNode),
        ("reply-before-fsync", Self::ReplyBeforeFsync),
        ("local-reads", Self::LocalReads),
        ("absolute-voter-sets", Self::AbsoluteVoterSets),
        ("lowest-id-host", Self::LowestIdHost),
        ("promotion-without-catch-up", Self::PromotionWithoutCatchUp),
        ("match-by-value", Self::MatchByValue),
        ("proof-believed-while-led", Self::ProofBelievedWhileLed),
        ("proof-never-taken", Self::ProofNeverTaken),
        ("app-relay", Self::AppRelay),
        ("wrong-channel", Self::WrongChannel),
        ("presence-kept", Self::PresenceKept),
        ("hand-over-unseen", Self::HandOverUnseen),
        ("leader-alone", Self::LeaderAlone),
        ("idle-witness", Self::IdleWitness),
    ];
}

/// How the nodes come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Setting {
    /// By the roster in eleven seeds of sixteen, in four hosted, in one estranged.
    #[default]
    Mixed,
    /// Everybody knows everybody.
    Roster,
    /// One hosts, others join and watch, leave, are put out and come back as new lives. In one seed
    /// of four servers vote, and nobody hosts; in one it is a game of two with a witness.
    Hosted,
    /// One hosts, and a member is cut off while all the others go and new ones come.
    Estranged,
}

/// What kind of run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    /// How the nodes come together.
    pub setting: Setting,
    /// How many nodes a roster has; the seed picks three, sometimes five, when `None`.
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
            setting: Setting::default(),
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
    /// Processes that began on a machine that had run one.
    pub restarts: u64,
    /// Nodes that were cut off.
    pub partitions: u64,
    /// Links that were cut in one direction.
    pub one_way: u64,
    /// Leaders that were cut off from everybody but one.
    pub left_with_one: u64,
    /// Frames lost on links that were cut.
    pub cut_frames: u64,
    /// Frames lost elsewhere.
    pub lost_frames: u64,
    /// Frames that arrived twice.
    pub repeated_frames: u64,
    /// Frames that arrived after one that was sent later.
    pub overtaken_frames: u64,
    /// Disks that became slow.
    pub slow_disks: u64,
    /// Machines whose clock goes wrong by more than a hundredth.
    pub skewed_clocks: u64,
    /// Clocks that were set ahead.
    pub clocks_ahead: u64,
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
    /// Events that met a player's own undecided actions.
    pub speculated: u64,
    /// Turns decided for clients whose identity is their process's.
    pub automatic: u64,
    /// Those of a process that came after another.
    pub automatic_again: u64,
    /// Turns that took place for players at a `SpeculativeSequencer`.
    pub spec_turns: u64,
    /// Actions such a player was shown and the rules refused.
    pub spec_refused: u64,
    /// Actions that were shown, and no longer after what others did.
    pub spec_rejected: u64,
    /// Actions that were not sent, for the rules would refuse them.
    pub spec_predicted: u64,
    /// Actions that were not sent, for too many were pending.
    pub spec_full: u64,
    /// Times that a player's actions of unknown outcome were all resolved.
    pub spec_unknown: u64,
    /// Actions a player did not wait for any more.
    pub spec_given_up: u64,
    /// States replaced under a player whose actions were pending.
    pub spec_resets: u64,
    /// Actions meant for one turn that took place in it.
    pub fenced_accepted: u64,
    /// Actions meant for a turn that was not on.
    pub fenced_away: u64,
    /// Frames of app channels that were heard.
    pub app_heard: u64,
    /// Those that were for one member alone.
    pub app_to_one: u64,
    /// Frames of a channel nobody reads that had to go.
    pub app_dropped: u64,
    /// Frames of app channels that a node refused, for their sender was no member it knew.
    pub app_turned_away: u64,
    /// Lives that accounted for every app frame that came to them.
    pub app_books: u64,
    /// Nodes that flooded such a channel through the recovery.
    pub floods: u64,
    /// Frames of app channels by peers that never were members.
    pub strangers: u64,
    /// Frames that were not sent, for who they were for is no member.
    pub no_member_to_tell: u64,
    /// Games whose votes are on servers.
    pub served: u64,
    /// Joint member lists that were committed.
    pub joint_changes: u64,
    /// Votes that were given while somebody watched.
    pub beside_spectator: u64,
    /// Hosts that found another.
    pub duplicate_hosts: u64,
    /// Places taken from who left or fell silent.
    pub evictions: u64,
    /// Places that went to a later life of their peer.
    pub takeovers: u64,
    /// Machines that lost their disk.
    pub disks_lost: u64,
    /// Peers that left.
    pub leaves: u64,
    /// What Raft asks, answered for no more than a proof that the asker was let in.
    pub heard_by_proof: u64,
    /// Members that were cut off until all they had known were gone, and came back.
    pub estranged: u64,
    /// Proofs that somebody who had left showed to who heard a leader.
    pub shown_while_led: u64,
    /// Peers that a process saw go, by its fabric.
    pub peers_gone: u64,
    /// Those it saw come back.
    pub peers_back: u64,
    /// Members a session saw go away and keep their place.
    pub members_away: u64,
    /// Those it saw come back.
    pub members_again: u64,
    /// Times that leadership was handed to who was asked to take it.
    pub handed_over: u64,
    /// Times that who was asked to lead did not take over in time.
    pub not_taken: u64,
    /// Times that a voter could not be asked to lead.
    pub not_ready: u64,
    /// Times that somebody was to lead who is no other voter.
    pub no_heir: u64,
    /// Games of two with a witness.
    pub duels: u64,
    /// Times that a game of two went on while one of them was away, by the witness's vote.
    pub witnessed: u64,
}

impl Counters {
    /// How many counts there are.
    pub const LEN: usize = 63;

    /// Each count with its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); Self::LEN] {
        [
            ("fail-over", self.failovers),
            ("crash", self.crashes),
            ("restart", self.restarts),
            ("partition", self.partitions),
            ("one-way partition", self.one_way),
            ("leader that only one hears", self.left_with_one),
            ("frame cut off", self.cut_frames),
            ("frame lost", self.lost_frames),
            ("frame repeated", self.repeated_frames),
            ("frame overtaken", self.overtaken_frames),
            ("slow disk", self.slow_disks),
            ("skewed clock", self.skewed_clocks),
            ("clock set ahead", self.clocks_ahead),
            ("snapshot install", self.snapshot_installs),
            ("lagged", self.lagged),
            ("reset with pending turns", self.resets_with_pending),
            ("timeout", self.timeouts),
            ("deadline across a fail-over", self.timeouts_across_failover),
            ("acknowledged", self.acknowledged),
            ("unknown outcome", self.unknown),
            ("linearizable read", self.reads),
            ("speculative view", self.speculated),
            ("automatic client", self.automatic),
            ("automatic client again", self.automatic_again),
            ("speculative turn", self.spec_turns),
            ("refused after it was shown", self.spec_refused),
            ("taken back before decided", self.spec_rejected),
            ("refused before it was sent", self.spec_predicted),
            ("too many shown", self.spec_full),
            ("unknown outcome resolved", self.spec_unknown),
            ("given up", self.spec_given_up),
            ("reset under a speculation", self.spec_resets),
            ("fenced turn accepted", self.fenced_accepted),
            ("fenced turn turned away", self.fenced_away),
            ("app frame heard", self.app_heard),
            ("app frame to one", self.app_to_one),
            ("app frame dropped", self.app_dropped),
            ("app frame turned away", self.app_turned_away),
            ("app books closed", self.app_books),
            ("flooded channel", self.floods),
            ("stranger on a channel", self.strangers),
            ("no member to tell", self.no_member_to_tell),
            ("votes on servers", self.served),
            ("joint change", self.joint_changes),
            ("admission beside a spectator", self.beside_spectator),
            ("duplicate host", self.duplicate_hosts),
            ("place lost", self.evictions),
            ("place taken over", self.takeovers),
            ("disk lost", self.disks_lost),
            ("leave", self.leaves),
            ("heard by its proof alone", self.heard_by_proof),
            ("back among strangers", self.estranged),
            ("proof shown to who is led", self.shown_while_led),
            ("peer seen to go", self.peers_gone),
            ("peer seen to come back", self.peers_back),
            ("member away", self.members_away),
            ("member here again", self.members_again),
            ("leadership handed over", self.handed_over),
            ("hand-over not taken", self.not_taken),
            ("heir not ready", self.not_ready),
            ("heir without a vote", self.no_heir),
            ("game of two", self.duels),
            ("game of two with one away", self.witnessed),
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

/// The faults of a seed that breaks an invariant, without those it breaks the same one without.
#[must_use]
pub fn shrink(seed: u64, scenario: &Scenario, invariant: &str) -> Vec<Fault> {
    fewest(run::faults_of(seed, scenario), |fewer| {
        let broken = run_faults(seed, scenario, fewer).violation;
        broken.is_some_and(|broken| broken.invariant == invariant)
    })
}

fn fewest(mut faults: Vec<Fault>, mut fails: impl FnMut(&[Fault]) -> bool) -> Vec<Fault> {
    let mut at = faults.len();
    while at > 0 {
        at -= 1;
        let mut fewer = faults.clone();
        fewer.remove(at);
        if fails(&fewer) {
            faults = fewer;
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shrinking_ends_at_the_faults_without_which_it_does_not_fail() {
        let fault = |at_ms| Fault {
            at_ms,
            for_ms: 1,
            what: What::IsolateLeader,
        };
        let all: Vec<Fault> = (0..9).map(fault).collect();
        let needed = [fault(2), fault(5)];
        let left = fewest(all, |fewer| needed.iter().all(|one| fewer.contains(one)));
        assert_eq!(left, needed);
    }
}
