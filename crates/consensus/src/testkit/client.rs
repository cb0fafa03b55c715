//! Who uses the game: a client per node that proposes, one that reads, and one that follows the
//! events. They outlive the node's crashes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::dice::Dice;
use super::game::Ledger;
use super::mirror::Mirror;
use super::player::Player;
use super::quest::Quest;
use super::world::{Watcher, World};
use crate::turns::{Ruling, TurnEvent, TurnSequencer};

/// How a client plays, in all its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    /// Whether its identity is its process's, and not its own for good.
    pub automatic: bool,
    /// Whether it plays through a `SpeculativeSequencer`.
    pub speculates: bool,
}

impl Style {
    pub(super) fn of(seed: u64, node: usize) -> Self {
        let kind = Dice::new(seed, 64 + node as u64).range(0, 8);
        Self {
            automatic: matches!(kind, 0..=2),
            speculates: matches!(kind, 1..=4),
        }
    }
}

/// A node's present life, as its client sees it.
#[derive(Clone)]
pub(super) struct Life {
    pub sequencer: TurnSequencer<Ledger>,
    pub watcher: Arc<Watcher>,
    /// Whether the machine ran a process before.
    pub again: bool,
    /// The view of a durable client that does not speculate, as it should be.
    pub mirror: Option<Arc<Mutex<Mirror>>>,
    pub player: Option<Arc<Player>>,
}

impl Life {
    pub(super) fn mirror(&self) -> Option<MutexGuard<'_, Mirror>> {
        let mirror = self.mirror.as_ref()?;
        Some(mirror.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where a client finds its node; nothing while it is down.
#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Life>>>);

impl Slot {
    pub(super) fn get(&self) -> Option<Life> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set(&self, life: Option<Life>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = life;
    }
}

/// Proposals a client has under way at most, and how far its serials run ahead of the oldest.
const PIPELINE: usize = 4;
const AHEAD: u64 = 12;

#[derive(Clone)]
pub(super) struct Client {
    pub world: World,
    pub slot: Slot,
    pub node: usize,
    pub style: Style,
    under_way: Arc<Mutex<BTreeSet<u64>>>,
}

impl Client {
    pub(super) fn new(world: World, slot: Slot, node: usize, style: Style) -> Self {
        Self {
            world,
            slot,
            node,
            style,
            under_way: Arc::default(),
        }
    }

    /// An action no two proposals share.
    pub(super) fn action(&self, serial: u64) -> u64 {
        (self.node as u64 + 1) * 1_000_000 + serial
    }

    pub(super) fn finished(&self, serial: u64) {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&serial);
        self.world.facts().pending[self.node] = under_way.len();
    }

    fn may_start(&self, serial: u64) -> bool {
        let mut under_way = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let oldest = under_way.first().copied().unwrap_or(serial);
        let may = under_way.len() < PIPELINE && serial < oldest + AHEAD;
        if may {
            under_way.insert(serial);
            self.world.facts().pending[self.node] = under_way.len();
        }
        may
    }

    /// Proposes until `stop_ms`.
    pub(super) async fn play(self, mut dice: Dice, stop_ms: u64) {
        let mut serial = 1;
        loop {
            // Now and then nobody moves for so long that turns run out.
            let pause = if dice.permille(60) {
                dice.range(150, 400)
            } else {
                dice.range(1, 30)
            };
            sleep(Duration::from_millis(pause)).await;
            if self.world.facts().at_ms() >= stop_ms {
                return;
            }
            if self.may_start(serial) {
                let quest = Quest::new(self.clone(), serial, Dice::new(dice.next(), 9));
                tokio::spawn(quest.run());
                serial += 1;
            }
        }
    }

    /// Reads for ever.
    pub(super) async fn read(self, mut dice: Dice) {
        loop {
            sleep(Duration::from_millis(dice.range(5, 80))).await;
            let Some(life) = self.slot.get() else {
                continue;
            };
            let floor = self.world.facts().acknowledged;
            let within = Duration::from_millis(200);
            let read = life.sequencer.read_barrier(within).await;
            if let Ok(index) = read
                && life.watcher.is_on()
            {
                let mut facts = self.world.facts();
                facts.counters.reads += 1;
                facts.note(self.node, 8, &[index, floor]);
                if index < floor {
                    let node = self.node;
                    let detail = format!(
                        "node {node} answered a read at entry {index}, and entry {floor} was \
                         acknowledged before it began"
                    );
                    facts.broken("LinearizableReads", detail);
                }
            }
        }
    }

    /// Follows the events of one life of the node, at times too slowly.
    pub(super) async fn follow(self, life: Life, mut dice: Dice) {
        let mut events = life.sequencer.events_from(1);
        let mut last = 0;
        while let Some(event) = events.next().await {
            if !life.watcher.is_on() {
                return;
            }
            if let Some(mut mirror) = life.mirror() {
                mirror.saw(&event, &mut self.world.facts());
            }
            self.saw(event, &mut last);
            if dice.permille(30) {
                sleep(Duration::from_millis(dice.range(100, 900))).await;
            }
        }
    }

    fn saw(&self, event: TurnEvent<Ledger>, last: &mut u64) {
        let mut facts = self.world.facts();
        match event {
            TurnEvent::Committed(act) => {
                if matches!(act.ruling, Ruling::Accepted(_)) {
                    facts.saw(self.node, act.action, act.index, *last);
                }
                *last = act.index;
            }
            TurnEvent::Lagged { from, to } => {
                facts.counters.lagged += 1;
                facts.note(self.node, 9, &[from, to]);
            }
            TurnEvent::Reset { index, .. } => {
                let pending = facts.pending[self.node] > 0;
                facts.counters.resets_with_pending += u64::from(pending);
                facts.note(self.node, 10, &[index]);
                *last = index.max(*last);
            }
            TurnEvent::TimedOut { index, .. } => *last = index.max(*last),
            TurnEvent::Malformed { index, .. } => {
                facts.broken("EventsInOrder", format!("entry {index} cannot be read"));
            }
            TurnEvent::Desync { index, .. } => {
                facts.broken("StateMachineSafety", format!("desync after entry {index}"));
            }
        }
    }
}
