//! Coming in and not getting there: what the others may have given a node is given back before it
//! goes.
//!
//! Who asks for a vote may have one before it knows, or be about to get one. If it just went, a game
//! of two would wait for it for ever, and a larger one would be a voter short.
//!
//! Invariants
//! - a node that has begun is in the game, or has said that it leaves, whether its way in failed or
//!   was dropped, as far as anybody hears it in the time there is; a host that waits for players is
//!   one of these;
//! - that time is bounded, and the node is closed after it.

use std::sync::atomic::Ordering;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::GameSession;
use crate::game::Game;
use crate::raft::{ObserverRef, RaftStatus};
use crate::state::command::{Body, Vacate};

/// How long giving back may take, in upper election timeouts.
const GIVE_BACK_TIMEOUTS: u32 = 10;

/// A session whose node has begun and is not in the game yet.
pub(super) struct Entering<G: Game> {
    /// There until this is consumed.
    game: Option<GameSession<G>>,
    observer: ObserverRef,
}

impl<G: Game> Entering<G> {
    pub fn new(game: GameSession<G>, observer: ObserverRef) -> Self {
        let game = Some(game);
        Self { game, observer }
    }

    pub fn game(&self) -> &GameSession<G> {
        match &self.game {
            Some(game) => game,
            None => unreachable!("only what consumes this takes it"),
        }
    }

    /// It is in the game.
    pub fn came_in(mut self) -> GameSession<G> {
        match self.game.take() {
            Some(game) => game,
            None => unreachable!("only what consumes this takes it"),
        }
    }

    /// It is not: gives back what it was given, and closes.
    pub async fn give_back(self) {
        give_back(self.game(), &self.observer).await;
        self.game().close().await;
        drop(self.came_in());
    }
}

impl<G: Game> Drop for Entering<G> {
    fn drop(&mut self) {
        let Some(game) = self.game.take() else {
            return;
        };
        let observer = self.observer.clone();
        // Without a runtime the session's own drop does what it can.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                give_back(&game, &observer).await;
                game.close().await;
            });
        }
    }
}

async fn give_back<G: Game>(game: &GameSession<G>, observer: &ObserverRef) {
    observer.gives_up();
    game.leaving.store(true, Ordering::Relaxed);
    let me = game.node.me();
    let deadline = Instant::now() + game.grace * GIVE_BACK_TIMEOUTS;
    let votes = |status: &RaftStatus| {
        let members = &status.membership;
        members.joint.last().unwrap_or(&members.voters).contains(me)
    };
    let mut status = game.node.status();
    loop {
        let leads = status.borrow().role.leads();
        let said = if leads {
            let said = timeout_at(deadline, game.say_goodbye(deadline)).await;
            said == Ok(true)
        } else {
            // Before its log names any member, it may have been told who leads.
            let vacate = Body::Vacate(Vacate {
                node: Some(me.into()),
                left: true,
            });
            let vacated = game.node.submit_idempotent(vacate, deadline).await;
            vacated.is_some()
        };
        // A game of two needs it to agree that it goes.
        let out = status.wait_for(|status| status.stopped.is_some() || !votes(status));
        if !said || timeout_at(deadline, out).await.is_err() {
            return;
        }
        // It sees the joint configuration it votes for, not the one without it: its answer must
        // leave before it does. And a vote that was on its way when it spoke may still come.
        let came = status.wait_for(|status| status.stopped.is_some() || votes(status));
        let quiet = deadline.min(Instant::now() + game.grace);
        match timeout_at(quiet, came).await {
            Ok(Ok(status)) if status.stopped.is_none() => {}
            _ => return,
        }
    }
}
