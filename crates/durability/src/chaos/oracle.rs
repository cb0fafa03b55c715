//! What was promised, and by when: told of every call's beginning and end, it knows what a later
//! call may say.

use std::collections::BTreeMap;

use crate::ids::{Epoch, Fence};
use crate::vault::Checkpoint;

/// A state that was written, or may have been: which process, and the how-manieth of it.
pub(super) type Mark = (u64, u64);

#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// Ticks with every event.
    now: u64,
    /// What was given to be written at a place, acknowledged or not.
    attempts: BTreeMap<(Fence, Epoch), Vec<Mark>>,
    /// Acknowledged: when, under which fence, what.
    acknowledged: BTreeMap<Epoch, (u64, Fence, Mark)>,
    /// Claims that were told to have succeeded: when, and from which epoch.
    claims: BTreeMap<Fence, (u64, Epoch)>,
    /// Takes of a parked room that succeeded, by the epoch it was parked at.
    takes: BTreeMap<Epoch, u64>,
    /// Parkings that were acknowledged.
    parked: BTreeMap<Epoch, u64>,
    broken: Option<String>,
}

impl Oracle {
    pub(super) fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    pub(super) fn breaks(&mut self, what: impl Into<String>) {
        self.broken.get_or_insert(what.into());
    }

    pub(super) fn attempt(&mut self, fence: Fence, epoch: Epoch, mark: Mark) {
        self.attempts.entry((fence, epoch)).or_default().push(mark);
    }

    /// A write that began at `began` is acknowledged.
    pub(super) fn acknowledge(&mut self, began: u64, fence: Fence, epoch: Epoch, mark: Mark) {
        let now = self.tick();
        if let Some((by, _)) = self
            .claims
            .iter()
            .find(|(claim, (at, _))| **claim > fence && *at < began)
        {
            self.breaks(format!(
                "a write of epoch {epoch} under fence {fence} was acknowledged, and began after the claim {by} succeeded"
            ));
        }
        let before = self.acknowledged.insert(epoch, (now, fence, mark));
        if let Some((_, by, other)) = before.filter(|(_, _, other)| *other != mark) {
            self.breaks(format!(
                "epoch {epoch} was acknowledged twice: {other:?} under fence {by}, {mark:?} under {fence}"
            ));
        }
    }

    pub(super) fn claim(&mut self, fence: Fence, from: Epoch, began: u64) {
        let now = self.tick();
        if self.claims.insert(fence, (now, from)).is_some() {
            self.breaks(format!("fence {fence} was given twice"));
        }
        if from < self.newest_before(began) {
            self.breaks(format!(
                "the claim {fence} went on from epoch {from}, and {} had been acknowledged before it began",
                self.newest_before(began)
            ));
        }
    }

    pub(super) fn took(&mut self, parked_at: Epoch) {
        let takes = self.takes.entry(parked_at).or_default();
        *takes += 1;
        if *takes > 1 {
            self.breaks(format!(
                "the room parked at epoch {parked_at} was taken twice"
            ));
        }
    }

    pub(super) fn parked(&mut self, began: u64, fence: Fence, epoch: Epoch, mark: Mark) {
        self.acknowledge(began, fence, epoch, mark);
        let now = self.now;
        self.parked.insert(epoch, now);
    }

    /// A reader that began at `began` was given this.
    pub(super) fn read(&mut self, began: u64, read: &Checkpoint, mark: Option<Mark>) {
        let (fence, epoch) = (read.fence, read.epoch);
        let attempts = self.attempts.get(&(fence, epoch));
        match mark {
            None => self.breaks("a reader was given bytes that nobody wrote"),
            Some(mark) if !attempts.is_some_and(|all| all.contains(&mark)) => self.breaks(format!(
                "a reader was given {mark:?} for epoch {epoch} under fence {fence}, where it was never written"
            )),
            Some(mark) => {
                if let Some((_, by, acknowledged)) = self.acknowledged.get(&epoch)
                    && *acknowledged != mark
                {
                    let told = format!(
                        "a reader was given {mark:?} for epoch {epoch}, and {acknowledged:?} under fence {by} is acknowledged"
                    );
                    self.breaks(told);
                }
            }
        }
        let newest = self.newest_before(began);
        if epoch < newest {
            self.breaks(format!(
                "a reader was given epoch {epoch}, and {newest} had been acknowledged before it asked"
            ));
        }
    }

    /// A head was rebuilt from this while nobody wrote.
    pub(super) fn rebuilt(&mut self, fence: Fence, epoch: Epoch) {
        let later = self
            .claims
            .iter()
            .find(|(claim, (_, from))| **claim > fence && *from < epoch)
            .map(|(claim, (_, from))| (*claim, *from));
        if let Some((claim, from)) = later {
            self.breaks(format!(
                "a head was rebuilt from epoch {epoch} under fence {fence}, and the claim {claim} had gone on from {from}"
            ));
        }
        if epoch < self.newest() {
            self.breaks(format!(
                "a head was rebuilt from epoch {epoch}, and {} is acknowledged",
                self.newest()
            ));
        }
    }

    pub(super) fn newest(&self) -> Epoch {
        self.acknowledged
            .last_key_value()
            .map_or(Epoch::NONE, |(epoch, _)| *epoch)
    }

    /// The newest epoch acknowledged before that.
    fn newest_before(&self, when: u64) -> Epoch {
        self.acknowledged
            .iter()
            .rev()
            .find(|(_, (at, _, _))| *at < when)
            .map_or(Epoch::NONE, |(epoch, _)| *epoch)
    }

    /// Whether the newest thing known of the room is that it was parked, and nobody took it.
    pub(super) fn is_parked(&self) -> bool {
        let newest = self.newest();
        self.parked.contains_key(&newest) && !self.takes.contains_key(&newest)
    }
}
