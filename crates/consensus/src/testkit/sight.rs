//! Whom each node sees: `Presence`, held against what its fabric says and who is in the game.

use std::collections::BTreeSet;

use super::run::Run;
use crate::ids::NodeId;
use crate::session::{Presence, PresenceChange};

impl Run {
    /// What a node sees of the others now, and whether it may.
    pub(super) fn looks_around(&mut self, node: usize) {
        let Some(running) = &mut self.machines[node].running else {
            self.world.facts().in_game.remove(&node);
            return;
        };
        self.world.facts().in_game.insert(node);
        let now = running.session.presence().get();
        let changes = now.since(&running.presence);
        let me = running.session.node().id().clone();
        let connected = running.peer.connected();
        let stranger = |seen: &&NodeId| **seen != me && !connected.contains(&seen.peer);
        let here = now.here();
        let unseen = here.iter().find(stranger).cloned();
        let mut facts = self.world.facts();
        for change in changes {
            match change {
                PresenceChange::Away(who) => {
                    running.missed.insert(who);
                    facts.counters.members_away += 1;
                }
                PresenceChange::Here(who) => {
                    facts.counters.members_again += u64::from(running.missed.remove(&who));
                }
                _ => {}
            }
        }
        running.presence = now;
        if let Some(unseen) = unseen {
            let detail = format!("{me} says that {unseen} is here, and is not connected to it");
            facts.broken("Presence", detail);
        }
    }

    /// Why somebody does not see another who is in the game; `None` when all see all.
    pub(super) fn out_of_sight(&self, places: &BTreeSet<usize>) -> Option<String> {
        let sessions = places.iter().filter_map(|place| {
            let running = self.machines[*place].running.as_ref()?;
            Some(&running.session)
        });
        let sessions: Vec<_> = sessions.collect();
        let views: Vec<(NodeId, Presence)> = sessions
            .iter()
            .map(|session| (session.node().id().clone(), session.presence().get()))
            .collect();
        views.iter().find_map(|(me, presence)| {
            let misses = |(other, _): &&(NodeId, Presence)| {
                presence.of(other).is_some_and(|attendee| !attendee.here)
            };
            let (other, _) = views.iter().find(misses)?;
            Some(format!("{me} does not see {other}: {presence:?}"))
        })
    }
}
