//! The omniscient onlooker: what every node and client did, and the invariants over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::Instant;

use super::game::{Notes, allows, taken};
use super::ledger::Books;
use super::lobby::{Broken, Lobby};
use super::run::EXCUSED_MS;
use super::{Counters, Violation};
use crate::ids::{NodeId, SessionId};
use crate::log::{Position, Record};
use crate::raft::{Observer, SharedReplica, lock};

/// What is known of the whole run.
pub(super) struct Facts {
    begun: Instant,
    pub trace: u64,
    pub counters: Counters,
    pub violation: Option<Violation>,
    leaders: BTreeMap<u64, usize>,
    written: BTreeMap<(u64, u64), u64>,
    applied: BTreeMap<u64, (u64, u64)>,
    action_at: BTreeMap<u64, u64>,
    /// Actions a client was told will not take effect, and did not propose again.
    never: BTreeSet<u64>,
    /// The game after each entry.
    games: BTreeMap<u64, After>,
    pub lobby: Lobby,
    pub books: Books,
    /// The highest entry anybody was told of.
    pub acknowledged: u64,
    pub pending: Vec<usize>,
    /// Places whose process is in the game: of the others nobody sees whether they lead.
    pub in_game: BTreeSet<usize>,
}

/// The game after an entry.
#[derive(Debug, Clone, Copy, Default)]
struct After {
    /// Its state, hashed.
    state: u64,
    /// The turn that is on.
    turn: u64,
    /// How many actions took place.
    taken: usize,
}

/// What a client was told of its proposal.
pub(super) struct Told {
    pub node: usize,
    pub action: u64,
    /// The entry that decided.
    pub index: u64,
    pub verdict: Verdict,
    /// The turn it was meant for, if for one alone.
    pub fence: Option<u64>,
    /// The highest acknowledged entry when it was first proposed.
    pub floor: u64,
}

/// What became of a proposal that was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It took place, and the turn after it is this one.
    Accepted {
        turn: u64,
    },
    Refused,
    /// It was meant for another turn.
    Fenced,
}

/// Clones are the same world.
#[derive(Clone)]
pub(super) struct World(Arc<Mutex<Facts>>);

/// FNV-1a, of eight bytes at a time.
fn fold(hash: u64, bytes: &[u8]) -> u64 {
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
    let (words, rest) = bytes.as_chunks::<8>();
    let hash = words
        .iter()
        .fold(hash, |hash, word| step(hash, u64::from_le_bytes(*word)));
    rest.iter()
        .fold(step(hash, bytes.len() as u64), |hash, byte| {
            step(hash, u64::from(*byte))
        })
}

/// How often the state is compared to the last byte, in entries.
const WHOLE_STATE_EVERY: u64 = 8;

const FOLD_FROM: u64 = 0xcbf2_9ce4_8422_2325;

impl Facts {
    pub(super) fn note(&mut self, node: usize, kind: u64, values: &[u64]) {
        let at = self.at_ms();
        for value in [at, node as u64, kind].iter().chain(values) {
            self.trace = fold(self.trace, &value.to_le_bytes());
        }
    }

    pub(super) fn at_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn broken(&mut self, invariant: &'static str, detail: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation {
                invariant,
                detail,
                at_ms: self.at_ms(),
            });
        }
    }

    pub(super) fn digest(bytes: &[u8]) -> u64 {
        fold(FOLD_FROM, bytes)
    }

    /// The game's state after an entry somebody has applied.
    pub(super) fn game_at(&self, index: u64) -> Option<u64> {
        self.games.get(&index).map(|after| after.state)
    }

    fn breaks(&mut self, broken: Option<Broken>) {
        if let Some((invariant, detail)) = broken {
            self.broken(invariant, detail);
        }
    }

    /// A node says it leads.
    pub(super) fn leads(&mut self, node: usize, term: u64) {
        if let Some(other) = self.leaders.insert(term, node) {
            if other != node {
                let detail = format!("nodes {other} and {node} both lead term {term}");
                self.broken("ElectionSafety", detail);
            }
        } else {
            self.counters.failovers = (self.leaders.len() as u64).saturating_sub(1);
            self.note(node, 1, &[term]);
        }
    }

    /// Whether a node led in some term from `term` on.
    pub(super) fn led_since(&self, term: u64, node: usize) -> bool {
        self.leaders.range(term..).any(|(_, led)| *led == node)
    }

    /// The latest entry anybody has applied, from 1.
    pub(super) fn latest(&self) -> u64 {
        self.applied.last_key_value().map_or(0, |(at, _)| at + 1)
    }

    /// Whether nobody has applied the entry yet.
    fn is_first(&self, index: u64) -> bool {
        !self.applied.contains_key(&index)
    }

    fn wrote(&mut self, node: usize, record: &Record) {
        let kind = [record.kind as u8];
        let hash = fold(fold(FOLD_FROM, &kind), &record.body);
        let Position { index, term } = record.at;
        self.note(node, 2, &[index, term, hash]);
        let known = *self.written.entry((index, term)).or_insert(hash);
        if known != hash {
            let detail = format!("node {node} wrote another entry {index} of term {term}");
            self.broken("LogMatching", detail);
        }
    }

    fn applied(&mut self, node: usize, at: Position, hash: u64, notes: Notes) {
        let Position { index, term } = at;
        self.note(node, 3, &[index, term, hash]);
        let shown = index + 1;
        let (known_term, known) = *self.applied.entry(index).or_insert((term, hash));
        if known_term != term {
            let told = self.acknowledged >= shown;
            let detail = format!(
                "node {node} applied entry {shown} of term {term}, another applied that of term \
                 {known_term}{}",
                if told { ", which was acknowledged" } else { "" }
            );
            self.broken("LeaderCompleteness", detail);
        } else if known != hash {
            let detail = format!("node {node} has another state after entry {shown}");
            self.broken("StateMachineSafety", detail);
        }
        if notes.last_index == shown {
            self.action_at.insert(shown, notes.last);
            self.keeps_promise(notes.last);
        }
        if notes.doubled > 0 {
            let detail = format!("action {} was applied twice, at {shown}", notes.last);
            self.broken("ExactlyOnce", detail);
        }
        if notes.early > 0 {
            let detail = format!("entry {shown} ended a turn whose time was not up");
            self.broken("OneTimeoutPerTurn", detail);
        }
        self.counters.timeouts = self.counters.timeouts.max(notes.timeouts);
        let across = &mut self.counters.timeouts_across_failover;
        *across = (*across).max(notes.across);
    }

    /// A client was told what became of its proposal.
    pub(super) fn told(&mut self, told: &Told) {
        let Told {
            node,
            action,
            index,
            verdict,
            fence,
            floor,
        } = *told;
        self.note(node, 4, &[action, index]);
        self.counters.acknowledged += 1;
        self.judged(told);
        match verdict {
            Verdict::Accepted { .. } if self.action_at.get(&index) != Some(&action) => {
                let detail = format!(
                    "a client was told that {action} took place in entry {index}; {:?} did",
                    self.action_at.get(&index)
                );
                self.broken("ExactlyOnce", detail);
            }
            Verdict::Accepted { .. } => {
                self.counters.fenced_accepted += u64::from(fence.is_some());
            }
            Verdict::Refused => self.told_never(action),
            Verdict::Fenced => {
                self.counters.fenced_away += 1;
                self.told_never(action);
            }
        }
        if index <= floor {
            let detail = format!(
                "action {action} is entry {index} and was invoked after entry {floor} was \
                 acknowledged"
            );
            self.broken("RealTimeOrder", detail);
        }
        self.acknowledged = self.acknowledged.max(index);
    }

    /// Whether the verdict is what the rules and the fence say where the entry stands.
    fn judged(&mut self, told: &Told) {
        let Told {
            action,
            index,
            verdict,
            fence,
            ..
        } = *told;
        let before = match index.checked_sub(1) {
            Some(0) => Some(After::default()),
            Some(index) => self.games.get(&index).copied(),
            None => None,
        };
        let Some(before) = before else { return };
        let (turn, taken) = (before.turn, before.taken);
        let meant = fence.is_none_or(|fence| fence == turn);
        if meant == (verdict == Verdict::Fenced) {
            let detail = format!(
                "action {action} was meant for turn {fence:?}, met turn {turn} in entry {index} and \
                 was told {verdict:?}"
            );
            self.broken("FencedTurn", detail);
        }
        let right = match verdict {
            Verdict::Accepted { turn: next } => allows(taken, action) && next == turn + 1,
            Verdict::Refused => !allows(taken, action),
            Verdict::Fenced => true,
        };
        if !right {
            let detail = format!(
                "action {action} met turn {turn} after {taken} actions in entry {index} and was \
                 told {verdict:?}"
            );
            self.broken("ExactlyOnce", detail);
        }
    }

    /// A client proposes `action`, perhaps again.
    pub(super) fn asks(&mut self, action: u64) {
        self.never.remove(&action);
    }

    /// A client was told that `action` did not and will not take effect.
    pub(super) fn told_never(&mut self, action: u64) {
        self.never.insert(action);
        if self.action_at.values().any(|took| *took == action) {
            self.keeps_promise(action);
        }
    }

    fn keeps_promise(&mut self, took: u64) {
        if self.never.contains(&took) {
            let detail = format!("{took} took place, and its client was told that it would not");
            self.broken("PromiseKept", detail);
        }
    }

    /// A reader saw `action` as accepted in entry `index`.
    pub(super) fn saw(&mut self, node: usize, action: u64, index: u64, last: u64) {
        if self.action_at.get(&index) != Some(&action) || index <= last {
            let detail = format!(
                "node {node} showed action {action} in entry {index} after entry {last}; {:?} is \
                 there",
                self.action_at.get(&index)
            );
            self.broken("EventsInOrder", detail);
        }
    }
}

impl World {
    pub(super) fn new(nodes: usize) -> Self {
        Self(Arc::new(Mutex::new(Facts {
            begun: Instant::now(),
            trace: FOLD_FROM,
            counters: Counters::default(),
            violation: None,
            leaders: BTreeMap::new(),
            written: BTreeMap::new(),
            applied: BTreeMap::new(),
            action_at: BTreeMap::new(),
            never: BTreeSet::new(),
            games: BTreeMap::new(),
            lobby: Lobby::default(),
            books: Books::default(),
            acknowledged: 0,
            pending: vec![0; nodes],
            in_game: BTreeSet::new(),
        })))
    }

    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn frame(&self, to: usize, frame: &[u8]) {
        let hash = fold(FOLD_FROM, frame);
        self.facts().note(to, 5, &[hash]);
    }
}

/// Watches one life of one node.
pub(super) struct Watcher {
    pub(super) world: World,
    pub(super) node: usize,
    pub(super) id: NodeId,
    /// Whether the game is the simulator's own, which takes notes of itself.
    pub(super) takes_notes: bool,
    /// The state, once something was applied.
    pub(super) replica: OnceLock<SharedReplica>,
    /// Cleared when the machine stops: what the process still does, nobody sees.
    pub(super) on: AtomicBool,
    /// Set once the session is open: later snapshots came from others.
    pub(super) open: AtomicBool,
}

impl Watcher {
    pub(super) fn new(world: World, node: usize, id: NodeId) -> Arc<Self> {
        Arc::new(Self::of(world, node, id, true))
    }

    /// Of a game that is an embedder's own.
    pub(super) fn of_any_game(world: World, node: usize, id: NodeId) -> Arc<Self> {
        Arc::new(Self::of(world, node, id, false))
    }

    fn of(world: World, node: usize, id: NodeId, takes_notes: bool) -> Self {
        Self {
            world,
            node,
            id,
            takes_notes,
            replica: OnceLock::new(),
            on: AtomicBool::new(true),
            open: AtomicBool::new(false),
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
}

impl Observer for Watcher {
    fn appended(&self, records: &[Record]) {
        if self.is_on() {
            let mut facts = self.world.facts();
            for record in records {
                facts.wrote(self.node, record);
                let at_ms = facts.at_ms();
                let broken = facts.lobby.wrote(at_ms, &self.id, record);
                facts.breaks(broken);
            }
        }
    }

    fn applied(&self, at: Position, replica: &SharedReplica) {
        if self.is_on() {
            self.replica.get_or_init(|| replica.clone());
            let mut facts = self.world.facts();
            let replica = lock(replica);
            let state = replica.game.snapshot().unwrap_or_default();
            if facts.is_first(at.index) {
                let at_ms = facts.at_ms();
                let after = After {
                    state: Facts::digest(&state),
                    turn: replica.turn,
                    taken: taken(&state),
                };
                facts.games.insert(at.index + 1, after);
                facts.lobby.committed(&self.id, at.index);
                let broken = facts.lobby.sits(at_ms, at.index, &replica.seats);
                facts.breaks(broken);
            }
            let notes = Notes::read(&state).filter(|_| self.takes_notes);
            let notes = notes.unwrap_or_default();
            // What differs goes on differing: all of the state is hashed now and then, and a part of
            // it each time.
            let hash = if at.index.is_multiple_of(WHOLE_STATE_EVERY) {
                fold(FOLD_FROM, &replica.hash())
            } else {
                let clock = [replica.now_ms, replica.turn].map(u64::to_le_bytes);
                fold(fold(FOLD_FROM, &state), clock.as_flattened())
            };
            facts.applied(self.node, at, hash, notes);
        }
    }

    fn founded(&self, session: SessionId) {
        if self.is_on() {
            let mut facts = self.world.facts();
            let broken = facts.lobby.founded(self.node, session);
            facts.breaks(broken);
        }
    }

    fn gives_up(&self) {
        if self.is_on() {
            let mut facts = self.world.facts();
            let until_ms = facts.at_ms() + EXCUSED_MS;
            facts.lobby.excuse(&self.id, until_ms);
        }
    }

    fn installed(&self, at: Position) {
        if self.is_on() {
            self.world.facts().lobby.installed(&self.id, at.index);
        }
        if self.is_on() && self.open.load(Ordering::Relaxed) {
            let mut facts = self.world.facts();
            facts.counters.snapshot_installs += 1;
            facts.note(self.node, 6, &[at.index, at.term]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The invariant a client breaks that was told this of action 20, which stands in entry 3, of
    /// action 4, which the rules refuse in entry 2, or of another.
    fn breaks(
        action: u64,
        index: u64,
        verdict: Verdict,
        fence: Option<u64>,
    ) -> Option<&'static str> {
        let world = World::new(1);
        let mut facts = world.facts();
        for (index, turn, taken) in [(1, 0, 0), (2, 0, 0), (3, 1, 1)] {
            let after = After {
                state: 0,
                turn,
                taken,
            };
            facts.games.insert(index, after);
        }
        facts.action_at.insert(3, 20);
        facts.told(&Told {
            node: 0,
            action,
            index,
            verdict,
            fence,
            floor: 0,
        });
        facts.violation.as_ref().map(|broken| broken.invariant)
    }

    #[tokio::test]
    async fn a_fence_that_did_not_hold_is_found() {
        let accepted = Verdict::Accepted { turn: 1 };
        assert_eq!(breaks(20, 3, accepted, None), None);
        assert_eq!(breaks(20, 3, accepted, Some(0)), None);
        assert_eq!(breaks(20, 3, accepted, Some(1)), Some("FencedTurn"));
        assert_eq!(breaks(9, 3, Verdict::Fenced, Some(1)), None);
        assert_eq!(breaks(9, 3, Verdict::Fenced, Some(0)), Some("FencedTurn"));
        assert_eq!(breaks(9, 3, Verdict::Fenced, None), Some("FencedTurn"));
        assert_eq!(breaks(4, 2, Verdict::Refused, Some(1)), Some("FencedTurn"));
        // Turned away, and it took place.
        let lied = breaks(20, 3, Verdict::Fenced, Some(1));
        assert_eq!(lied, Some("PromiseKept"));
    }

    #[tokio::test]
    async fn a_verdict_that_is_not_the_rules_is_found() {
        assert_eq!(breaks(4, 2, Verdict::Refused, None), None);
        let allowed = breaks(9, 2, Verdict::Refused, None);
        assert_eq!(allowed, Some("ExactlyOnce"));
        let turn = breaks(20, 3, Verdict::Accepted { turn: 2 }, None);
        assert_eq!(turn, Some("ExactlyOnce"));
        let another = breaks(9, 3, Verdict::Accepted { turn: 1 }, None);
        assert_eq!(another, Some("ExactlyOnce"));
    }
}
