//! Going: for good, or only closing.
//!
//! Invariants
//! - leaving takes the time it is given at most, and closing ten seconds;
//! - a server of a core keeps its vote, which the first entry of the log gave it: it hands over and
//!   closes;
//! - who stops leaving before it is done is in the game as before, and asks for its place again if
//!   it gave that up;
//! - everything a session started ends with it, also when it is only dropped.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::{GameSession, attend};
use crate::config;
use crate::game::Game;
use crate::raft::{Consensus, RaftStatus, Role, lock};
use crate::state::command::{Body, Vacate};

impl<G: Game> GameSession<G> {
    /// Leaves for good: hands leadership to the voter that is furthest of those that answer, if this
    /// node leads, gives its seat up, and closes. Takes `within` at most, and then what [`Self::close`]
    /// takes; answers whether the others know.
    ///
    /// A server of a core has no seat to give up, and its vote stays: the session begins with that.
    /// It closes once it does not lead, within eight upper election timeouts, and answers whether
    /// that is so; until it comes back with its log the others are a voter short.
    ///
    /// If the future is dropped before it is done, the session goes on. Should it have given its
    /// place up by then, it asks for one again, as who was put out does.
    pub async fn leave(&self, within: Duration) -> bool {
        let deadline = config::deadline(within);
        let leaving = Leaving::begin(&self.leaving);
        let left = timeout_at(deadline, self.say_goodbye(deadline)).await;
        self.close().await;
        leaving.done();
        left.unwrap_or(false)
    }

    /// Hands leadership over and gives the seat up; answers whether the others know.
    pub(super) async fn say_goodbye(&self, deadline: Instant) -> bool {
        self.leaving.store(true, Ordering::Relaxed);
        let status = self.node.status().get();
        let me = self.node.me().clone();
        let leads = status.role.leads();
        if status.membership.voters.iter().all(|voter| *voter == me) {
            return !leads;
        }
        if self.node.is_in_core() {
            return self.stop_leading(deadline).await;
        }
        if leads {
            self.hand_over(deadline).await;
        }
        // Also where nobody was seen to take over: whoever leads next is asked.
        let vacate = Body::Vacate(Vacate {
            node: Some((&me).into()),
            left: true,
        });
        if self
            .node
            .submit_idempotent(vacate, deadline)
            .await
            .is_none()
        {
            return false;
        }
        // Until the others have taken it out of the vote, a game of two needs it to agree to that.
        if status.role != Role::Learner {
            let mut status = self.node.status();
            let is_out = |status: &RaftStatus| {
                let members = &status.membership;
                let staying = members.joint.last().unwrap_or(&members.voters);
                !staying.contains(&me)
            };
            loop {
                let again = deadline.min(Instant::now() + self.grace);
                if timeout_at(again, status.wait_for(is_out)).await.is_ok() {
                    break;
                }
                if again == deadline {
                    return false;
                }
                // Who has only just begun to lead has heard from nobody who could take over, and
                // it does not take itself out while another could lead.
                if status.borrow().role.leads() {
                    self.hand_over(deadline).await;
                }
            }
            // It sees the joint configuration it votes for, not the one without it: its answer
            // must leave before it does.
            let grace = Instant::now() + self.grace;
            sleep_until(grace.min(deadline)).await;
        }
        true
    }

    /// Hands leadership over for as long as that takes, within reason; answers whether this node
    /// leads no more. Who has only just begun to has heard from nobody who could take over.
    async fn stop_leading(&self, deadline: Instant) -> bool {
        let enough = deadline.min(Instant::now() + self.grace * 8);
        let leads = || self.node.status().borrow().role.leads();
        while leads() && Instant::now() < enough {
            self.hand_over(enough).await;
            if leads() {
                sleep_until(enough.min(Instant::now() + self.grace)).await;
            }
        }
        !leads()
    }

    /// Asks the voter that is furthest of those that answer to lead, and waits until anybody but
    /// this node does: who was asked may die, and then the others elect.
    async fn hand_over(&self, deadline: Instant) {
        let me = self.node.me();
        let mut status = self.node.status();
        let progress = self.node.numbers().progress;
        let members = status.borrow().membership.clone();
        let placed = lock(&self.node.replica).seats.voters();
        let heir = members
            .voters
            .iter()
            .filter(|voter| *voter != me)
            .filter_map(|voter| {
                let known = progress.get(voter)?;
                let answers = known.acked? <= self.grace;
                // One that was put out would hand over again.
                answers.then_some((placed.contains(voter), known.matched?, voter))
            })
            .max();
        let Some((.., heir)) = heir else { return };
        if self.node.engine.transfer(heir).await.is_err() {
            return;
        }
        let led = status.wait_for(|status| {
            let leader = status.leader.as_ref();
            !status.role.leads() && leader.is_some_and(|leader| leader != me)
        });
        let enough = Instant::now() + self.grace * 8;
        // What comes next finds out who leads by itself.
        let _ = timeout_at(enough.min(deadline), led).await;
    }

    /// Stops everything this session started and frees the game's name on the fabric. Idempotent.
    ///
    /// Takes ten seconds at most. A disk that does not answer for so long is left behind: its log
    /// stays in use until it does.
    pub async fn close(&self) {
        self.node.close().await;
        let held = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some((mut tasks, guard)) = held {
            tasks.shutdown().await;
            attend::say_closed(&self.links);
            drop(guard);
        }
        self.channels.close();
    }
}

/// Who leaves asks for no place meanwhile.
struct Leaving<'a> {
    leaving: &'a AtomicBool,
    before: bool,
}

impl<'a> Leaving<'a> {
    fn begin(leaving: &'a AtomicBool) -> Self {
        let before = leaving.swap(true, Ordering::Relaxed);
        Self { leaving, before }
    }

    /// It has left.
    fn done(mut self) {
        self.before = true;
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.leaving.store(self.before, Ordering::Relaxed);
    }
}

impl<G: Game> Drop for GameSession<G> {
    fn drop(&mut self) {
        let held = self.held.get_mut();
        if held.unwrap_or_else(PoisonError::into_inner).is_some() {
            attend::say_closed(&self.links);
        }
        self.node.abandon();
        self.channels.close();
    }
}
