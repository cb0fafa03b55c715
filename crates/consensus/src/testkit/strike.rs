//! Faults as they come, and as they pass.

use std::time::Duration;

use super::plan::{Fault, What};
use super::run::{EXCUSED_MS, Run};

/// What a fault leaves to be put right later.
pub(super) enum Undo {
    Heal(usize, usize),
    Disk(usize),
    Loss,
    Slow,
}

impl Run {
    fn excuse(&self, node: usize, until: u64) {
        if let Some(id) = self.life(node) {
            self.world.facts().lobby.excuse(&id, until + EXCUSED_MS);
        }
    }

    fn excuse_all(&self, until: u64) {
        let mut facts = self.world.facts();
        let all = &mut facts.lobby.excused_all;
        *all = (*all).max(until + EXCUSED_MS);
    }

    /// Cuts a node off from everybody but `kept`.
    fn isolate(&mut self, node: usize, kept: Option<usize>, until: u64) {
        for other in 0..self.machines.len() {
            if other != node && Some(other) != kept {
                for (from, to) in [(node, other), (other, node)] {
                    self.net.cut(from, to, true);
                    self.undo.push((until, Undo::Heal(from, to)));
                }
            }
        }
        // Its last words may have been of others' silence.
        self.excuse_all(until);
        self.world.facts().counters.partitions += 1;
    }

    pub(super) fn strike(&mut self, fault: &Fault) {
        let until = self.now() + fault.for_ms;
        match fault.what {
            What::Crash(node, seed) => self.crash(node, seed, until),
            What::CrashLeader(seed) => {
                if let Some(node) = self.leader() {
                    self.crash(node, seed, until);
                }
            }
            What::PowerCut(seed) => {
                for node in 0..self.machines.len() {
                    self.crash(node, seed.wrapping_add(node as u64), until);
                }
            }
            What::OneWay(from, to) => {
                self.net.cut(from, to, true);
                self.undo.push((until, Undo::Heal(from, to)));
                self.excuse(from, until);
                self.excuse(to, until);
                self.world.facts().counters.one_way += 1;
            }
            What::Isolate(node) => self.isolate(node, None, until),
            What::IsolateLeader => {
                if let Some(node) = self.leader() {
                    self.isolate(node, None, until);
                }
            }
            What::LeaveLeader(kept) => {
                if let Some(node) = self.leader().filter(|node| *node != kept) {
                    self.isolate(node, Some(kept), until);
                    self.world.facts().counters.left_with_one += 1;
                }
            }
            What::SlowDisk(node, ms) => {
                let disk = &self.machines[node].disk;
                disk.set_sync_delay(Duration::from_millis(ms));
                self.undo.push((until, Undo::Disk(node)));
                self.excuse_all(until);
                self.world.facts().counters.slow_disks += 1;
            }
            What::Loss(permille) => {
                self.net.set_loss(permille);
                self.undo.push((until, Undo::Loss));
                self.excuse_all(until);
            }
            What::SlowNet(ms) => {
                self.net.set_extra(ms);
                self.undo.push((until, Undo::Slow));
                self.excuse_all(until);
            }
            What::ClockAhead(node, ms) => {
                if let Some(running) = &self.machines[node].running {
                    running.clock.set_ahead(ms);
                    self.excuse_all(until + ms);
                    self.world.facts().counters.clocks_ahead += 1;
                }
            }
            What::LoseDisk(node) => self.lose_disk(node, until),
            What::Leave(node) => self.leave(node, until),
        }
    }

    pub(super) fn undo_due(&mut self, now: u64) {
        let (due, later) = std::mem::take(&mut self.undo)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.undo = later;
        let due: Vec<(u64, Undo)> = due;
        for (_, undo) in due {
            match undo {
                Undo::Heal(from, to) => self.net.cut(from, to, false),
                Undo::Disk(node) => {
                    let disk = &self.machines[node].disk;
                    disk.set_sync_delay(Duration::from_millis(1));
                }
                Undo::Loss => self.net.set_loss(0),
                Undo::Slow => self.net.set_extra(0),
            }
        }
    }
}
