//! What a room is made with.

use std::time::Duration;

use cabinet_wire::Mode;

/// Where a room's randomness comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seed {
    /// Somebody chose it: the guest sees it marked as set.
    Set(i64),
    /// Drawn for this room: the guest sees the same number, marked as not set.
    Drawn(i64),
}

impl Seed {
    /// Draws a seed from the system.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn draw() -> Result<Self, NoRandomness> {
        let mut bytes = [0; 8];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
            .map_err(|_| NoRandomness)?;
        Ok(Self::Drawn(i64::from_le_bytes(bytes)))
    }

    /// The number.
    pub fn value(self) -> i64 {
        match self {
            Self::Set(seed) | Self::Drawn(seed) => seed,
        }
    }
}

/// The system has no randomness to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random source failed")]
pub struct NoRandomness;

/// What a room is made with; fixed for its life.
#[derive(Debug, Clone, PartialEq)]
pub struct RoomConfig {
    /// Quick, private or solo.
    pub mode: Mode,
    /// Most members; 0 for no limit. Told to the guest, as 65,535 at most; enforced by whoever
    /// admits players.
    pub capacity: u32,
    /// Fewest members to begin with. Told to the guest.
    pub min_players: u32,
    /// Drawn once, kept through every restore.
    pub seed: Seed,
    /// Whether the room wakes with nobody in it.
    pub resident: bool,
    /// Overrides the game's deadline.
    pub deadline: Option<Duration>,
    /// Overrides the game's wake cadence.
    pub heartbeat: Option<Duration>,
}

impl RoomConfig {
    /// A quick room for anybody, not resident, with the game's cadence and deadline.
    pub fn new(seed: Seed) -> Self {
        Self {
            mode: Mode::Quick,
            capacity: 0,
            min_players: 1,
            seed,
            resident: false,
            deadline: None,
            heartbeat: None,
        }
    }
}
