//! Whether who leads may: `CheckQuorum`, held against what the network lets through.

use super::run::Run;
use crate::config::Timing;
use crate::ids::NodeId;
use crate::raft::Role;

/// How much longer than its lease a leader may be believed: what it asked is on its way, its disk is
/// slow, and it looks once a heartbeat.
const MORE_MS: u64 = 200;

impl Run {
    /// A millisecond of every leader's: whether those that could answer it are a majority.
    pub(super) fn counts_votes(&mut self) {
        let longest = Timing::fast().election_max_ms + MORE_MS;
        for node in 0..self.machines.len() {
            let alone = self.leads_unheard(node);
            let mut facts = self.world.facts();
            let now = facts.at_ms();
            let Some(term) = alone else {
                self.unheard_since[node] = None;
                continue;
            };
            let since = *self.unheard_since[node].get_or_insert(now);
            if now - since > longest {
                let detail = format!(
                    "node {node} leads in term {term}, and for {} ms no majority could answer it",
                    now - since
                );
                facts.broken("CheckQuorum", detail);
            }
        }
    }

    /// The term a node says it leads in, though a majority of its voters cannot answer it.
    fn leads_unheard(&self, node: usize) -> Option<u64> {
        let running = self.machines[node].running.as_ref()?;
        let status = running.session.node().status();
        let status = status.borrow();
        let answers = |voter: &NodeId| {
            let place = self.names.iter().position(|name| *name == voter.peer);
            place.is_some_and(|place| self.net.joins(node, place))
        };
        let leads = status.role == Role::Leader && status.stopped.is_none();
        (leads && !status.membership.has_quorum(answers)).then_some(status.term)
    }
}
