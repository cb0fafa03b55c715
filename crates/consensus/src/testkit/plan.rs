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
    /// Whoever leads neither sends to nor hears anybody but this node.
    LeaveLeader(usize),
    /// A sync of this node's disk takes this many milliseconds.
    SlowDisk(usize, u64),
    /// So many frames in a thousand are lost.
    Loss(u64),
    /// Frames take up to so many milliseconds more.
    SlowNet(u64),
    /// A node's clock is set ahead by so many milliseconds.
    ClockAhead(usize, u64),
    /// A node's machine stops and its disk is lost: the peer comes back as a new life. Only where a
    /// hosted game can bear it.
    LoseDisk(usize),
    /// A peer leaves, and comes back as a new life. Only where a hosted game can bear it.
    Leave(usize),
}

/// The faults of a game whose players are known.
pub(super) fn roster(seed: u64, nodes: usize, chaos_ms: u64) -> Vec<Fault> {
    let mut dice = Dice::new(seed, 1);
    let first_ms = dice.range(100, 400);
    plan(dice, nodes, first_ms..chaos_ms, fault)
}

/// The faults of a game that is hosted: the first once it is.
pub(super) fn hosted(seed: u64, nodes: usize, chaos_ms: u64) -> Vec<Fault> {
    let mut dice = Dice::new(seed, 1);
    let first_ms = dice.range(1000, 1300);
    plan(dice, nodes, first_ms..chaos_ms, |dice, nodes| {
        let node = dice.range(0, nodes as u64) as usize;
        match dice.range(0, 12) {
            0..=1 => (What::LoseDisk(node), 30, 1500),
            2 => (What::Leave(node), 100, 1500),
            _ => fault(dice, nodes),
        }
    })
}

/// The faults of a game whose members come and go by a script, beside it: whoever is there hears
/// the others, if late.
pub(super) fn estranged(seed: u64, nodes: usize, chaos_ms: u64) -> Vec<Fault> {
    let mut dice = Dice::new(seed, 1);
    let first_ms = dice.range(500, 900);
    plan(dice, nodes, first_ms..chaos_ms, |dice, nodes| {
        let node = dice.range(0, nodes as u64) as usize;
        match dice.range(0, 9) {
            0 => (What::Loss(dice.range(10, 80)), 50, 200),
            1 => (What::SlowNet(dice.range(2, 8)), 50, 200),
            _ => (What::SlowDisk(node, dice.range(1, 15)), 50, 300),
        }
    })
}

fn plan(
    mut dice: Dice,
    nodes: usize,
    when: std::ops::Range<u64>,
    mut fault: impl FnMut(&mut Dice, usize) -> (What, u64, u64),
) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut at_ms = when.start;
    while at_ms < when.end {
        let (what, least, most) = fault(&mut dice, nodes);
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

fn fault(dice: &mut Dice, nodes: usize) -> (What, u64, u64) {
    let node = dice.range(0, nodes as u64) as usize;
    let other = (node + 1 + dice.range(0, nodes as u64 - 1) as usize) % nodes;
    match dice.range(0, 16) {
        0..=2 => (What::Crash(node, dice.next()), 30, 700),
        3..=5 => (What::CrashLeader(dice.next()), 30, 500),
        6 => (What::PowerCut(dice.next()), 20, 100),
        7 => (What::OneWay(node, other), 50, 400),
        8 => (What::Isolate(node), 50, 700),
        9 => (What::IsolateLeader, 50, 500),
        10 => (What::LeaveLeader(other), 50, 1000),
        11..=12 => (What::SlowDisk(node, dice.range(5, 60)), 100, 500),
        13 => (What::Loss(dice.range(20, 250)), 50, 400),
        14 => (What::SlowNet(dice.range(2, 25)), 50, 300),
        _ => (What::ClockAhead(node, dice.range(1, 200)), 0, 1),
    }
}
