//! What goes wrong in a run, and when: decided by the seed before the run begins.

use super::dice::Dice;

/// A fault and when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Virtual milliseconds since the run began.
    pub at_ms: u64,
    /// How long it lasts.
    pub for_ms: u64,
    /// What it is.
    pub what: What,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A node's machine stops; the seed says what its disk keeps of what was not synced.
    Crash(usize, u64),
    /// The machine of whoever leads stops.
    CrashLeader(u64),
    /// Every machine stops.
    PowerCut(u64),
    /// Frames from the first to the second are lost.
    OneWay(usize, usize),
    /// A node neither sends nor hears.
    Isolate(usize),
    /// Whoever leads neither sends nor hears.
    IsolateLeader,
    /// A sync of this node's disk takes this many milliseconds.
    SlowDisk(usize, u64),
    /// So many frames in a thousand are lost.
    Loss(u64),
    /// Frames take up to so many milliseconds more.
    SlowNet(u64),
}

pub(super) fn plan(seed: u64, nodes: usize, chaos_ms: u64) -> Vec<Fault> {
    let mut dice = Dice::new(seed, 1);
    let mut faults = Vec::new();
    let mut at_ms = dice.range(100, 400);
    while at_ms < chaos_ms {
        let node = dice.range(0, nodes as u64) as usize;
        let other = (node + 1 + dice.range(0, nodes as u64 - 1) as usize) % nodes;
        let (what, least, most) = match dice.range(0, 15) {
            0..=2 => (What::Crash(node, dice.next()), 30, 700),
            3..=5 => (What::CrashLeader(dice.next()), 30, 500),
            6 => (What::PowerCut(dice.next()), 20, 100),
            7 => (What::OneWay(node, other), 50, 400),
            8 => (What::Isolate(node), 50, 700),
            9..=10 => (What::IsolateLeader, 50, 500),
            11..=12 => (What::SlowDisk(node, dice.range(5, 60)), 100, 500),
            13 => (What::Loss(dice.range(20, 250)), 50, 400),
            _ => (What::SlowNet(dice.range(2, 25)), 50, 300),
        };
        let for_ms = dice.range(least, most);
        faults.push(Fault {
            at_ms,
            for_ms,
            what,
        });
        at_ms += dice.range(20, 350);
    }
    faults
}
