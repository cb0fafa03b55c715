//! Who asks for another leader, and whether what it is told is true.
//!
//! That the game goes on, whatever became of it, is for the recovery to see.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::dice::Dice;
use super::world::Watcher;
use crate::ids::{Incarnation, NodeId, PeerId};
use crate::raft::{RaftStatus, Role, TransferError};
use crate::session::NodeView;

/// A late word of Raft's is mostly out by then.
const SETTLES: Duration = Duration::from_millis(2);
/// And at the latest then: what openraft publishes waits for its vote to be on a slow disk, which it answers
/// before (seed 745), and is looked at once a heartbeat.
const SETTLES_LATE: Duration = Duration::from_millis(500);

/// One life of a node that hands leadership over now and then, or tries to.
pub(super) struct Hands {
    pub view: NodeView,
    pub watcher: Arc<Watcher>,
    pub names: Arc<[PeerId]>,
    /// When it stops.
    pub until_ms: u64,
}

/// What was known before a call and after it.
struct Asked<'a> {
    me: &'a NodeId,
    to: &'a NodeId,
    before: &'a RaftStatus,
    after: &'a RaftStatus,
    /// Whether `to` led, since the term before the call, or may have.
    led: bool,
}

impl Hands {
    pub(super) async fn hand_over(self, mut dice: Dice) {
        loop {
            sleep(Duration::from_millis(dice.range(150, 900))).await;
            if !self.watcher.is_on() || self.watcher.world.facts().at_ms() >= self.until_ms {
                return;
            }
            let before = self.view.status().get();
            let to = self.chosen(&before, &mut dice);
            let place = self.names.iter().position(|name| *name == to.peer);
            let is_seen = || {
                let facts = self.watcher.world.facts();
                place.is_some_and(|place| facts.in_game.contains(&place))
            };
            let was_seen = is_seen();
            let within = Duration::from_millis(dice.range(20, 500));
            let told = self.view.transfer(&to, within).await;
            let judged = |after: &RaftStatus| {
                let seen = was_seen && is_seen();
                let facts = self.watcher.world.facts();
                judge(
                    &Asked {
                        me: self.view.id(),
                        to: &to,
                        before: &before,
                        after,
                        // Who is on its way in or out may lead, and nobody sees it (hosted seed 3021).
                        led: !seen
                            || place.is_some_and(|place| facts.led_since(before.term, place)),
                    },
                    &told,
                )
            };
            let mut holds = Ok(());
            for pause in [SETTLES, SETTLES_LATE] {
                sleep(pause).await;
                if !self.watcher.is_on() {
                    return;
                }
                holds = judged(&self.view.status().get());
                if holds.is_ok() {
                    break;
                }
            }
            let mut facts = self.watcher.world.facts();
            facts.holds("Handover", holds);
            let kind = match &told {
                Ok(()) => 0,
                Err(TransferError::NotTaken { .. }) => 1,
                Err(TransferError::NotReady { .. }) => 2,
                Err(TransferError::NotAnotherVoter { .. }) => 3,
                Err(_) => 4,
            };
            let counters = &mut facts.counters;
            match kind {
                0 => counters.handed_over += 1,
                1 => counters.not_taken += 1,
                2 => counters.not_ready += 1,
                3 => counters.no_heir += 1,
                _ => {}
            }
            let node = self.watcher.node;
            facts.note(node, 18, &[kind, place.unwrap_or(0) as u64]);
        }
    }

    /// Whom to ask: mostly another voter, who may be down, at times who cannot lead.
    fn chosen(&self, status: &RaftStatus, dice: &mut Dice) -> NodeId {
        let me = self.view.id();
        let members = &status.membership;
        let mut one_of = |nodes: Vec<&NodeId>| {
            let n = dice.range(0, nodes.len() as u64) as usize;
            nodes.get(n).map(|node| (*node).clone())
        };
        let others = one_of(members.voters.iter().filter(|node| *node != me).collect());
        let watches = one_of(members.learners.iter().collect());
        let anybody = one_of(vec![me]).unwrap_or_else(|| me.clone());
        let stranger = self.names[dice.range(0, self.names.len() as u64) as usize].clone();
        // A life nobody has begun.
        let stranger = NodeId::new(stranger, Incarnation(1 << 20));
        match dice.range(0, 10) {
            0 => anybody,
            1 => stranger,
            2 => watches.unwrap_or(stranger),
            _ => others.unwrap_or(stranger),
        }
    }
}

/// Whether a call told the truth.
fn judge(asked: &Asked<'_>, told: &Result<(), TransferError>) -> Result<(), String> {
    let Asked {
        me,
        to,
        before,
        after,
        led,
    } = *asked;
    let voted = |status: &RaftStatus| status.membership.voters.contains(to);
    let stays = before.membership == after.membership && !before.membership.is_joint();
    let leads = |status: &RaftStatus| status.role == Role::Leader;
    let led_on = leads(before) && leads(after) && before.term == after.term;
    let wrong = |why: &str| {
        Err(format!(
            "{me} was told {told:?} of {to}, and {why}: {before:?}, then {after:?}"
        ))
    };
    match told {
        Ok(()) if to == me => wrong("is that itself"),
        Ok(()) if !led => wrong("it did not lead"),
        Ok(()) if led_on => wrong("leads as before"),
        Err(TransferError::NotLeader { .. }) if led_on => wrong("leads"),
        Err(TransferError::NotAnotherVoter { .. }) if to != me && stays && voted(before) => {
            wrong("it is one")
        }
        Err(TransferError::NotReady { .. } | TransferError::NotTaken { .. })
            if to == me || (stays && !voted(before)) =>
        {
            wrong("it is no other voter")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Membership;

    fn node(name: &str) -> NodeId {
        NodeId::new(PeerId::new(name).unwrap(), Incarnation(0))
    }

    fn status(role: Role, term: u64) -> RaftStatus {
        let membership = Membership {
            voters: [node("ann"), node("bob")].into(),
            learners: [node("eve")].into(),
            ..Membership::default()
        };
        RaftStatus {
            role,
            term,
            leader: None,
            membership: Arc::new(membership),
            membership_index: 0,
            membership_committed: true,
            snapshots_refused: Arc::default(),
            stopped: None,
        }
    }

    /// Whether ann may have been told this of that node, when it led or not.
    fn holds(to: &str, told: Result<(), TransferError>, led: bool, after: &RaftStatus) -> bool {
        let before = status(Role::Leader, 3);
        let asked = Asked {
            me: &node("ann"),
            to: &node(to),
            before: &before,
            after,
            led,
        };
        judge(&asked, &told).is_ok()
    }

    #[test]
    fn each_lie_about_a_hand_over_is_found() {
        let (on, over) = (status(Role::Leader, 3), status(Role::Follower, 4));
        assert!(holds("bob", Ok(()), true, &over));
        assert!(!holds("bob", Ok(()), false, &over), "it did not lead");
        assert!(!holds("bob", Ok(()), true, &on), "ann leads on");
        assert!(!holds("ann", Ok(()), true, &over), "to itself");
        let no_voter = |to: &str| Err(TransferError::NotAnotherVoter { to: node(to) });
        assert!(holds("eve", no_voter("eve"), false, &on));
        assert!(holds("ann", no_voter("ann"), false, &on));
        assert!(!holds("bob", no_voter("bob"), false, &on));
        let not_leader = || Err(TransferError::NotLeader { leader: None });
        assert!(holds("bob", not_leader(), false, &over));
        assert!(!holds("bob", not_leader(), false, &on));
        let not_ready = |to: &str| Err(TransferError::NotReady { to: node(to) });
        assert!(holds("bob", not_ready("bob"), false, &on));
        assert!(!holds("eve", not_ready("eve"), false, &on));
        let not_taken = Err(TransferError::NotTaken { to: node("ann") });
        assert!(!holds("ann", not_taken, false, &over));
    }
}
