//! A player's seat: keys go in, frames come out, and leaving is told once.

use std::sync::Arc;

use cabinet_host::{Input, Player};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Command, RoomHandle, RoomShared};
use crate::screens::Viewer;

/// Keys a player may be ahead of the room.
pub const INPUTS_MAX: usize = 32;

/// A player's seat in a room: what they type goes in, what they see comes out. Dropping it leaves.
#[derive(Debug)]
pub struct Seat {
    room: RoomHandle,
    player: Arc<Player>,
    viewer: Viewer,
    inputs: Arc<Semaphore>,
    left: bool,
}

impl Seat {
    pub(crate) fn new(shared: Arc<RoomShared>, player: Player, viewer: Viewer) -> Self {
        Self {
            room: RoomHandle { shared },
            player: Arc::new(player),
            viewer,
            inputs: Arc::new(Semaphore::new(INPUTS_MAX)),
            left: false,
        }
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> &RoomHandle {
        &self.room
    }

    /// Whose seat it is.
    #[must_use]
    pub fn player(&self) -> &Player {
        &self.player
    }

    /// What the player sees.
    pub fn frames(&mut self) -> &mut Viewer {
        &mut self.viewer
    }

    /// Passes on a key press; waits while [`INPUTS_MAX`] of this player wait already. Returns when
    /// it is queued, not when the guest has seen it.
    ///
    /// # Errors
    /// [`InputError::Closed`].
    pub async fn input(&self, input: Input) -> Result<(), InputError> {
        let permit = Arc::clone(&self.inputs)
            .acquire_owned()
            .await
            .map_err(|_| InputError::Closed)?;
        self.send(input, permit)
    }

    /// As [`Seat::input`], without waiting.
    ///
    /// # Errors
    /// [`InputError`].
    pub fn try_input(&self, input: Input) -> Result<(), InputError> {
        let permit = Arc::clone(&self.inputs)
            .try_acquire_owned()
            .map_err(|_| InputError::Full)?;
        self.send(input, permit)
    }

    /// Leaves, and returns once the guest was told. A room that is over was left already.
    pub async fn leave(mut self) {
        self.left = true;
        let (reply, told) = oneshot::channel();
        let command = Command::Leave {
            player: Arc::clone(&self.player),
            reply: Some(reply),
        };
        if self.room.shared.post(command).is_ok() {
            // An error means that the room ended first.
            let _ = told.await;
        }
    }

    fn send(&self, input: Input, permit: OwnedSemaphorePermit) -> Result<(), InputError> {
        let span = tracing::debug_span!(
            target: "cabinet::room", "input",
            slug = self.room.slug().as_str(), room = %self.room.id()
        );
        let command = Command::Input {
            player: Arc::clone(&self.player),
            input,
            span,
            _permit: permit,
        };
        self.room
            .shared
            .post(command)
            .map_err(|_| InputError::Closed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.left {
            // A room that is over was left already.
            let _ = self.room.shared.post(Command::Leave {
                player: Arc::clone(&self.player),
                reply: None,
            });
        }
    }
}

/// A key was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The room is over.
    #[error("room is closed")]
    Closed,
    /// The player is [`INPUTS_MAX`] keys ahead of the room. Only [`Seat::try_input`] says so.
    #[error("{INPUTS_MAX} keys of this player wait already")]
    Full,
}
