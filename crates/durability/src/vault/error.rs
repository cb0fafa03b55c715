//! How a vault fails, by what the caller does about it.

use cabinet_wire::ArtifactDigest;

use crate::entropy::NoRandomness;
use crate::head::{HeadError, Standing};
use crate::ids::{Epoch, Fence};
use crate::seal::{OpenError, SealError};
use crate::store::{Cause, StoreError};

/// A vault did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// There is nothing of the room, or nothing yet.
    #[error("the room has no checkpoint")]
    NoCheckpoint,
    /// The room's state is damaged, or not what it should be: set this room aside.
    #[error("the room's state is corrupt: {what}")]
    Corrupt {
        /// What is.
        what: &'static str,
        /// How its record did not open, where it is that.
        #[source]
        source: Option<OpenError>,
    },
    /// There are checkpoints and no head: rebuild it ([`Vault::rebuild`](crate::Vault::rebuild)).
    #[error("the room's head is lost: rebuild it from its checkpoints")]
    HeadLost,
    /// The head is as it should be; there is nothing to rebuild.
    #[error("the room's head is intact")]
    HeadIntact,
    /// The record cannot be read by this process, and is not known to be damaged: see to the keys
    /// or the version.
    #[error("the room's state cannot be read here")]
    Unreadable(#[source] OpenError),
    /// The room runs another artifact: the game was updated.
    #[error("the room runs artifact {stored}, the game is {wanted}: it was updated")]
    ArtifactMismatch {
        /// What the room runs.
        stored: ArtifactDigest,
        /// What was asked for.
        wanted: ArtifactDigest,
    },
    /// Another process has the room: drop it.
    #[error("another process has the room, under fence {by}")]
    Fenced {
        /// Its fence; 0 when the room is gone.
        by: Fence,
    },
    /// Somebody else resumed the room first.
    #[error("the room has been resumed already")]
    AlreadyResumed,
    /// The store has a room of that id, or had.
    #[error("the store has that room already")]
    AlreadyThere,
    /// The account was not in the room.
    #[error("the account was not in the room")]
    NotAMember,
    /// The room was parked for too long.
    #[error("the room was parked for too long and is gone")]
    Expired,
    /// The room is not in a state where that can be done.
    #[error("the room is {}", .0.name())]
    Standing(Standing),
    /// The store holds less than it did: somebody put an older state back.
    #[error("the store was rolled back: the room had got further")]
    RolledBack,
    /// More bytes than allowed.
    #[error("{bytes} bytes, more than the {max} allowed")]
    TooLarge {
        /// How many there are.
        bytes: u64,
        /// How many there may be.
        max: u64,
    },
    /// The checkpoint skips an epoch. One that is far above its head proves to a reader that the head
    /// was put back, so it is not written.
    #[error("the checkpoint skips an epoch: the next is {next}")]
    EpochSkipped {
        /// The next epoch.
        next: Epoch,
    },
    /// More of something than is looked at.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// What is to be shown of a parked room does not fit.
    #[error("the parked room's header does not fit")]
    Header(#[from] HeadError),
    /// The store did not do it. Try again later, unless it refuses.
    #[error("the store failed")]
    Unavailable(#[from] StoreError),
    /// The floors did not answer.
    #[error("the floors kept outside the store are not available")]
    Floors(#[source] Cause),
    /// Without a key only a memory store, and a directory opened for development, may be used.
    #[error(
        "this store needs a key: give `Sealing::Keys`, or open a directory with `DirStore::unsealed_for_development`"
    )]
    KeyRequired,
    /// The store ignores the conditions of puts, so two processes would overwrite each other.
    #[error(
        "the store does not honour conditional writes: wrap it in `SingleWriter`, and let one process alone write it"
    )]
    NeedsSingleWriter,
    /// The record could not be sealed.
    #[error("cannot seal")]
    Seal(#[from] SealError),
    /// There is no nonce.
    #[error("cannot draw a nonce")]
    Entropy(#[from] NoRandomness),
}

impl VaultError {
    pub(crate) fn corrupt(what: &'static str) -> Self {
        Self::Corrupt { what, source: None }
    }

    /// A record did not open.
    pub(crate) fn opening(error: OpenError) -> Self {
        match error {
            OpenError::UnknownKey(_) | OpenError::NoKeys | OpenError::Version { .. } => {
                Self::Unreadable(error)
            }
            OpenError::TooLarge { bytes, max } => Self::TooLarge { bytes, max },
            error => Self::Corrupt {
                what: "record",
                source: Some(error),
            },
        }
    }

    /// The store answers, and never the same twice.
    pub(crate) fn busy() -> Self {
        Self::Unavailable(StoreError::Unavailable(
            "the room changes hands faster than it can be looked at".into(),
        ))
    }

    /// Whether it says nothing of the room, only that what is kept elsewhere did not answer.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Floors(_))
    }

    /// Whether the same call may succeed later with nothing changed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unavailable(error) => error.is_passing(),
            Self::Floors(_) | Self::Entropy(_) => true,
            _ => false,
        }
    }
}
