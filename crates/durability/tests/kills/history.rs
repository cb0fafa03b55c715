//! What was said so far, and what must be true of it.
//!
//! Invariants
//! - an epoch is acknowledged once;
//! - who takes a room goes on from whatever was acknowledged under a lower fence, or from something
//!   later that was begun, and its fence is its own;
//! - what begins after somebody with a higher fence has said so is not acknowledged;
//! - what a reader finds is what was acknowledged, or later and begun; it never goes back.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::line::{At, Did, Line, Mark};

#[derive(Default)]
pub struct History {
    /// Every checkpoint somebody set out to write.
    begun: HashSet<(u64, u64, Mark)>,
    /// By epoch: the fence, and which state.
    acked: BTreeMap<u64, (u64, Mark)>,
    /// By fence: the epoch it went on from.
    taken: BTreeMap<u64, u64>,
    children: HashMap<u64, Child>,
    /// The newest epoch a reader found.
    read: u64,
    pub counts: Counts,
}

#[derive(Default)]
struct Child {
    fence: u64,
    /// The newest epoch that was acknowledged to it, or that it went on from.
    epoch: u64,
    /// What it has not heard of yet, and whether it began after a higher fence was known.
    pending: Option<(At, bool)>,
    is_fenced: bool,
}

/// How often what was seen.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub acked: u64,
    pub claimed: u64,
    pub taken: u64,
    pub parked: u64,
    pub fenced: u64,
    pub pruned: u64,
    pub failed: u64,
    /// Checkpoints whose writer was killed before it heard of them, and that were there.
    pub landed: u64,
}

impl History {
    /// Looks at the next line.
    pub fn hear(&mut self, line: Line) {
        let Line { child, did, .. } = line;
        assert!(!self.is_fenced(child), "a fenced child says: {line}");
        match did {
            Did::Claimed | Did::Taken => self.took(line),
            Did::Began => self.began(line),
            Did::Acked | Did::Parked => self.acked(line),
            Did::Failed | Did::Superseded => {
                self.counts.failed += 1;
                self.child(child).pending = None;
            }
            Did::Pruned => self.counts.pruned += 1,
            Did::Fenced => {
                self.child(child).is_fenced = true;
                self.counts.fenced += 1;
            }
        }
    }

    fn child(&mut self, child: u64) -> &mut Child {
        self.children.entry(child).or_default()
    }

    /// Whether a child said that the room is not its own any more.
    pub fn is_fenced(&self, child: u64) -> bool {
        self.children
            .get(&child)
            .is_some_and(|child| child.is_fenced)
    }

    /// Whether a child has had the room.
    pub fn has_taken(&self, child: u64) -> bool {
        self.children.contains_key(&child)
    }

    fn took(&mut self, line: Line) {
        let Line { child, did, at } = line;
        let mut newest = self.acked.iter().rev();
        if let Some((epoch, _)) = newest.find(|(_, (fence, _))| *fence < at.fence) {
            assert!(at.epoch >= *epoch, "{line}: epoch {epoch} is lost");
        }
        self.exists(at, &line);
        let below = self.taken.range(..at.fence).next_back();
        let above = self.taken.range(at.fence..).next();
        assert!(below.is_none_or(|(_, epoch)| *epoch <= at.epoch), "{line}");
        assert!(
            above.is_none_or(|(fence, epoch)| *fence > at.fence && *epoch >= at.epoch),
            "{line}: {above:?}"
        );
        self.taken.insert(at.fence, at.epoch);
        let known = self.child(child);
        assert!(at.fence > known.fence && at.epoch >= known.epoch, "{line}");
        known.fence = at.fence;
        known.epoch = at.epoch;
        match did {
            Did::Taken => self.counts.taken += 1,
            _ => self.counts.claimed += 1,
        }
    }

    fn began(&mut self, line: Line) {
        let at = line.at;
        let is_late = self.taken.range(at.fence + 1..).next().is_some();
        let known = self.child(line.child);
        assert!(known.pending.is_none(), "{line}: two at a time");
        assert_eq!(known.fence, at.fence, "{line}");
        assert!(at.epoch > known.epoch, "{line}: after {}", known.epoch);
        known.pending = Some((at, is_late));
        let mark = at.mark.expect("what is written has a mark");
        assert!(self.begun.insert((at.epoch, at.fence, mark)), "{line}");
    }

    fn acked(&mut self, line: Line) {
        let at = line.at;
        let known = self.child(line.child);
        let (began, is_late) = known.pending.take().expect("what is acknowledged began");
        assert_eq!(began, at, "{line}");
        assert!(!is_late, "{line}: it began after somebody else had taken");
        known.epoch = at.epoch;
        for (fence, epoch) in self.taken.range(at.fence + 1..) {
            assert!(
                *epoch >= at.epoch,
                "{line}: fence {fence} went on from epoch {epoch}"
            );
        }
        let mark = at.mark.expect("what is written has a mark");
        let twice = self.acked.insert(at.epoch, (at.fence, mark));
        assert!(twice.is_none(), "{line}: so was {twice:?}");
        self.counts.acked += 1;
        if line.did == Did::Parked {
            self.counts.parked += 1;
        }
    }

    /// What the store has now, while nobody writes.
    pub fn found(&mut self, found: Option<At>) {
        let Some(at) = found else {
            assert!(self.acked.is_empty(), "everything is lost");
            return;
        };
        let newest = self.acked.last_key_value().map_or(0, |(epoch, _)| *epoch);
        assert!(at.epoch >= newest, "{at:?}: epoch {newest} is lost");
        assert!(at.epoch >= self.read, "{at:?}: it was {}", self.read);
        self.exists(at, &at);
        let mark = at.mark.expect("what was written has a mark");
        let begun = self.begun.contains(&(at.epoch, at.fence, mark));
        assert!(begun, "{at:?}: nobody wrote that under that fence");
        self.counts.landed += u64::from(at.epoch > newest && at.epoch > self.read);
        self.read = at.epoch;
    }

    /// A state that is read is the one that was acknowledged of its epoch, or one that was begun.
    fn exists(&self, at: At, said: &dyn std::fmt::Debug) {
        match (at.mark, self.acked.get(&at.epoch)) {
            (None, acked) => assert!(at.epoch == 0 && acked.is_none(), "{said:?}"),
            (Some(mark), Some((_, acked))) => assert_eq!(mark, *acked, "{said:?}"),
            (Some(mark), None) => assert!(
                self.begun
                    .iter()
                    .any(|(epoch, _, begun)| (*epoch, *begun) == (at.epoch, mark)),
                "{said:?}: nobody wrote that"
            ),
        }
    }
}
