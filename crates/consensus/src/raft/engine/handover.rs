//! Handing leadership over.
//!
//! openraft sets no end to it: a leader that hands over takes no entries, changes no members, sends
//! no heartbeats and stands for no election until another leads.
//!
//! Invariants
//! - it is handed to one other voter that answers, has nearly all of the log and is not being taken
//!   out, and to nobody else in the same term;
//! - entries that the next leader lacks are still sent while it is under way, whoever answers.

use openraft::ServerState;

use super::{ENTRIES_MAX, Engine, stopped, types};
use crate::ids::NodeId;
use crate::raft::{Consensus, TransferError};
use crate::watch;

/// The term whose leader hands over, and to whom.
pub(super) type Handing = watch::Sender<Option<(u64, NodeId)>>;

impl Engine {
    pub(super) async fn hand_over(&self, to: NodeId) -> Result<(), TransferError> {
        let fatal = |fatal| TransferError::Stopped(stopped(fatal));
        // From openraft itself: what is published may be late.
        let look = || {
            self.raft.with_raft_state(|state| {
                let effective = state.membership_state.effective();
                let members = types::membership(effective.membership());
                let term = state.vote_ref().leader_id.term;
                (state.server_state == ServerState::Leader, term, members)
            })
        };
        let not_leader = || {
            let leader = self.status.borrow().leader.clone();
            let leader = leader.filter(|leader| *leader != self.me);
            TransferError::NotLeader { leader }
        };
        // Before the lock: who leads no more may still wait for a removal to end.
        if !look().await.map_err(fatal)?.0 {
            return Err(not_leader());
        }
        let Ok(_removing) = self.removing.try_lock() else {
            return Err(TransferError::Changing);
        };
        let (leads, term, members) = look().await.map_err(fatal)?;
        if !leads {
            return Err(not_leader());
        }
        // openraft takes no second one back, and who was told first would be refused its votes.
        let under_way = self.handing.borrow().clone();
        if let Some((_, other)) = under_way.filter(|(of, _)| *of == term) {
            return match other == to {
                true => Ok(()),
                false => Err(TransferError::Changing),
            };
        }
        let staying = members.joint.last().unwrap_or(&members.voters);
        if to == self.me || !staying.contains(&to) {
            return Err(TransferError::NotAnotherVoter { to });
        }
        let numbers = self.numbers();
        let known = numbers.progress.get(&to).copied().unwrap_or_default();
        let answers = known.acked.is_some_and(|ago| ago <= self.lease);
        let last = numbers.last.unwrap_or(0);
        let near = |has: u64| last.saturating_sub(has) <= ENTRIES_MAX as u64;
        if !answers || !known.matched.is_some_and(near) {
            return Err(TransferError::NotReady { to });
        }
        self.handing.set(Some((term, to.clone())));
        let asked = self.raft.trigger().transfer_leader(to).await;
        asked.map_err(fatal)
    }

    /// To whom this node hands leadership over, if it does.
    pub(super) fn hands_over_to(&self) -> Option<NodeId> {
        let status = self.status.borrow();
        let handing = self.handing.borrow();
        let (_, to) = handing.as_ref().filter(|(term, _)| *term == status.term)?;
        status.role.leads().then(|| to.clone())
    }
}
