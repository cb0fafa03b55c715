//! What lies beside a head: which checkpoints may go, whether the head is the newest, and what it is
//! rebuilt from when it is lost. Decisions only; a listing goes in, names come out.

use std::time::Duration;

use crate::head::{Head, ObjectRef, Standing};
use crate::ids::{Epoch, Fence};
use crate::names::{ObjectName, RoomObject};
use crate::planted::{Bug, planted};

/// Which old checkpoints are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// So many of the newest, the head's own among them; at least 1.
    pub keep_last: usize,
    /// All that are younger than this.
    pub keep_younger: Duration,
}

impl Default for Retention {
    /// The last four, and everything of the last ten minutes.
    fn default() -> Self {
        Self {
            keep_last: 4,
            keep_younger: Duration::from_secs(600),
        }
    }
}

impl Retention {
    /// What may be deleted beside `head`: checkpoints and claims below it. They may be deleted in
    /// any order, and only in part: nothing a reader needs is among them.
    #[must_use]
    pub fn deletable(&self, head: &Head, listed: &[RoomObject], now_ms: u64) -> Vec<RoomObject> {
        let Some(current) = head.object else {
            return Vec::new();
        };
        // By fence first: what an older owner wrote late is below whatever its successor wrote.
        let order = |name: &ObjectName| (name.fence, name.epoch);
        let top = order(&current.name);
        let mut below: Vec<ObjectName> = listed
            .iter()
            .filter_map(|object| match object {
                RoomObject::Checkpoint(name) => Some(*name),
                RoomObject::Claim(_) => None,
            })
            .filter(|name| *name != current.name && order(name) <= top)
            .collect();
        below.sort_unstable_by_key(|name| std::cmp::Reverse((order(name), name.at_ms)));
        let young = u64::try_from(self.keep_younger.as_millis()).unwrap_or(u64::MAX);
        let old = |name: &ObjectName| now_ms.saturating_sub(name.at_ms) >= young;
        let kept_besides = self.keep_last.saturating_sub(1);
        let checkpoints = below
            .into_iter()
            .skip(kept_besides)
            .filter(old)
            .map(RoomObject::Checkpoint);
        let claims = listed
            .iter()
            .copied()
            .filter(|object| matches!(object, RoomObject::Claim(fence) if *fence < head.fence));
        checkpoints.chain(claims).collect()
    }
}

/// Whether something listed proves that a newer head than this one was there: then somebody put an
/// old one back.
///
/// An owner writes one epoch above its head at most before the head follows, and a claim is written
/// after the head that holds its fence.
pub(crate) fn outdated(head: &Head, listed: &[RoomObject]) -> bool {
    listed.iter().any(|object| match object {
        RoomObject::Claim(fence) => *fence > head.fence,
        RoomObject::Checkpoint(name) => {
            name.fence > head.fence
                || (name.fence == head.fence && name.epoch > head.epoch().next())
        }
    })
}

/// Whether the checkpoint that a head names is not among what is listed. Once the room is over it need
/// not be.
pub(crate) fn lacks_its_checkpoint(head: &Head, listed: &[RoomObject]) -> bool {
    let is_over = matches!(head.standing, Standing::Expired | Standing::Ended);
    !is_over
        && head
            .object
            .is_some_and(|object| !listed.contains(&RoomObject::Checkpoint(object.name)))
}

/// What a lost head is rebuilt from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rebuilt {
    /// The highest fence seen.
    pub(crate) fence: Fence,
    pub(crate) from: RebuildFrom,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RebuildFrom {
    /// This checkpoint, which the owner with the highest fence wrote.
    Checkpoint(ObjectName),
    /// What the newest owner went on from: it has written nothing of its own.
    ClaimOf(Fence),
    /// There is nothing.
    Nothing,
}

/// The newest checkpoint of the newest owner: by fence first, then by epoch.
pub(crate) fn rebuild(listed: &[RoomObject]) -> Rebuilt {
    let mut fence = Fence::NONE;
    let mut claimed = None;
    let mut best: Option<ObjectName> = None;
    for object in listed {
        match object {
            RoomObject::Claim(claim) => {
                fence = fence.max(*claim);
                claimed = claimed.max(Some(*claim));
            }
            RoomObject::Checkpoint(name) => {
                fence = fence.max(name.fence);
                let order = |name: &ObjectName| {
                    let fence = if planted(Bug::RebuildByEpoch) {
                        Fence::NONE
                    } else {
                        name.fence
                    };
                    (fence, name.epoch, name.at_ms, name.digest)
                };
                if best.is_none_or(|best| order(&best) < order(name)) {
                    best = Some(*name);
                }
            }
        }
    }
    let newest_is_a_claim = claimed.is_some_and(|claim| {
        best.is_none_or(|best| best.fence < claim) && !planted(Bug::RebuildByEpoch)
    });
    let from = match (newest_is_a_claim, claimed, best) {
        (true, Some(claim), _) => RebuildFrom::ClaimOf(claim),
        (_, _, Some(best)) => RebuildFrom::Checkpoint(best),
        _ => RebuildFrom::Nothing,
    };
    Rebuilt { fence, from }
}

/// A floor kept outside the store: heads below it are refused, whatever the store says.
///
/// Without one, a head that was put back alone is found out by what lies beside it; a whole bucket
/// that was put back is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Floor {
    /// The fence at least.
    pub fence: Fence,
    /// The epoch at least.
    pub epoch: Epoch,
}

impl Floor {
    /// The floor a head comes to.
    #[must_use]
    pub fn of(head: &Head) -> Self {
        Self {
            fence: head.fence,
            epoch: head.epoch(),
        }
    }

    /// Whether a head is at least here.
    #[must_use]
    pub fn admits(&self, head: &Head) -> bool {
        head.fence >= self.fence && head.epoch() >= self.epoch
    }
}

/// Whether a checkpoint is what a head names.
pub(crate) fn is_object(object: &ObjectRef, digest: &[u8; 32], bytes: usize) -> bool {
    object.digest == *digest && object.bytes == bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Hand;
    use crate::ids::{OwnerId, RoomIds};
    use cabinet_wire::ArtifactDigest;
    use proptest::prelude::*;

    fn name(fence: u64, epoch: u64, at_ms: u64) -> ObjectName {
        let mut digest = [7; 32];
        digest[0] = fence as u8;
        ObjectName::new(Epoch(epoch), Fence(fence), at_ms, &digest)
    }

    fn checkpoint(fence: u64, epoch: u64) -> RoomObject {
        RoomObject::Checkpoint(name(fence, epoch, epoch * 1_000))
    }

    fn claim(fence: u64) -> RoomObject {
        RoomObject::Claim(Fence(fence))
    }

    fn head(fence: u64, object: ObjectName) -> Head {
        let hand = Hand {
            owner: OwnerId([1; 16]),
            nonce: [2; 16],
            at_ms: 3,
        };
        let mut head = Head::first(RoomIds::default().next(1, [0; 8]), hand);
        head.fence = Fence(fence);
        head.advanced(
            ObjectRef {
                name: object,
                digest: [7; 32],
                bytes: 1,
                artifact: ArtifactDigest([0; 32]),
            },
            hand,
        )
    }

    #[test]
    fn the_last_and_the_young_are_kept_and_the_rest_below_the_head_goes() {
        let listed: Vec<RoomObject> = (1..=9)
            .map(|epoch| checkpoint(2, epoch))
            .chain([claim(1), claim(2), checkpoint(1, 40)])
            .collect();
        let head = head(2, name(2, 8, 8_000));
        let keep = Retention {
            keep_last: 3,
            keep_younger: Duration::from_millis(4_500),
        };
        // 7 and 6 are kept as the last, 5 as young; 9 is above the head. What the older owner wrote
        // comes after all of them, however high its epoch, and is young for longer.
        assert_eq!(
            keep.deletable(&head, &listed, 8_500),
            [
                checkpoint(2, 4),
                checkpoint(2, 3),
                checkpoint(2, 2),
                checkpoint(2, 1),
                claim(1)
            ]
        );
        assert!(
            keep.deletable(&head, &listed, 60_000)
                .contains(&checkpoint(1, 40))
        );
    }

    #[test]
    fn a_head_that_was_put_back_is_known_by_what_lies_beside_it() {
        let head = head(2, name(2, 5, 0));
        assert!(!outdated(
            &head,
            &[checkpoint(2, 6), checkpoint(1, 90), claim(2)]
        ));
        assert!(outdated(&head, &[checkpoint(2, 7)]));
        assert!(outdated(&head, &[checkpoint(3, 1)]));
        assert!(outdated(&head, &[claim(3)]));
    }

    #[test]
    fn a_lost_head_is_rebuilt_from_the_newest_owner_and_not_the_highest_epoch() {
        let from = |listed: &[RoomObject]| rebuild(listed).from;
        let RoomObject::Checkpoint(newest) = checkpoint(2, 5) else {
            unreachable!("it was made as one");
        };
        assert_eq!(
            from(&[
                checkpoint(1, 9),
                checkpoint(2, 5),
                checkpoint(2, 4),
                claim(2)
            ]),
            RebuildFrom::Checkpoint(newest)
        );
        // The new owner has written nothing: it counts what it went on from.
        assert_eq!(
            from(&[checkpoint(1, 9), claim(2)]),
            RebuildFrom::ClaimOf(Fence(2))
        );
        assert_eq!(from(&[]), RebuildFrom::Nothing);
        assert_eq!(rebuild(&[checkpoint(1, 9), claim(7)]).fence, Fence(7));
    }

    proptest! {
        #[test]
        fn nothing_a_reader_needs_is_deletable(
            fences in prop::collection::vec((1u64..5, 1u64..20, 0u64..50_000), 1..30),
            keep_last in 0usize..6, young in 0u64..50_000, now in 0u64..60_000,
        ) {
            let listed: Vec<RoomObject> = fences
                .iter()
                .map(|(fence, epoch, at)| RoomObject::Checkpoint(name(*fence, *epoch, *at)))
                .collect();
            let (fence, epoch, at) = fences[0];
            let current = name(fence, epoch, at);
            let head = head(fence, current);
            let keep = Retention { keep_last, keep_younger: Duration::from_millis(young) };
            for gone in keep.deletable(&head, &listed, now) {
                let RoomObject::Checkpoint(gone) = gone else { continue };
                prop_assert!(gone != current);
                prop_assert!((gone.fence, gone.epoch) <= (Fence(fence), Epoch(epoch)));
                prop_assert!(now.saturating_sub(gone.at_ms) >= young);
            }
        }
    }
}
