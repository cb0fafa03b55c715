//! Who dials, and which of two connections stays.
//!
//! Invariants
//! - both ends decide with the same facts, so they keep the same connection;
//! - of two connections of one kind between the same two processes, the one that the peer with the
//!   lower id dialled stays;
//! - a connection of another run of the remote process replaces the one before it, which is dead.
//!
//! No I/O here.

use crate::ids::PeerId;

/// Which of the two connections of a pair of peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// Raft and the lobby.
    Control,
    /// The app channels.
    App,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Control, Self::App];

    /// The kind's number in a Hello.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Control => 1,
            Self::App => 2,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Where the kind stands in an array of both.
    pub(super) fn at(self) -> usize {
        match self {
            Self::Control => 0,
            Self::App => 1,
        }
    }
}

/// When a peer that knows the other's address dials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// At once.
    First,
    /// After it has given the other, which may not know the address, the time to do it.
    Second,
}

/// The turn of `local` when it knows where `remote` is.
pub(super) fn turn(local: &PeerId, remote: &PeerId) -> Turn {
    if local < remote {
        Turn::First
    } else {
        Turn::Second
    }
}

/// What two connections of one kind to one peer are compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// Who dialled.
    pub(super) dialler: PeerId,
    /// The number the remote process drew when it started.
    pub(super) run: u64,
}

/// What happens to a fresh connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the one connection; another there may be is closed.
    Keep,
    /// The one there is stays.
    Refuse,
}

/// Judges `fresh` beside the connection there is.
pub(super) fn judge(present: Option<&Origin>, fresh: &Origin) -> Verdict {
    match present {
        None => Verdict::Keep,
        // The remote started anew: what its last run left behind is dead.
        Some(present) if present.run != fresh.run => Verdict::Keep,
        // Who dials again knows that its first connection is gone.
        Some(present) if present.dialler == fresh.dialler => Verdict::Keep,
        Some(present) if fresh.dialler < present.dialler => Verdict::Keep,
        Some(_) => Verdict::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(dialler: &str, run: u64) -> Origin {
        Origin {
            dialler: PeerId::new(dialler).unwrap(),
            run,
        }
    }

    #[test]
    fn of_two_dialled_at_once_the_lower_ids_stays_whichever_came_first() {
        let (ann, bob) = (origin("ann", 1), origin("bob", 1));
        assert_eq!(judge(None, &bob), Verdict::Keep);
        assert_eq!(judge(Some(&bob), &ann), Verdict::Keep);
        assert_eq!(judge(Some(&ann), &bob), Verdict::Refuse);
    }

    #[test]
    fn a_restarted_peer_and_one_that_dials_again_replace_what_they_had() {
        assert_eq!(
            judge(Some(&origin("ann", 1)), &origin("bob", 2)),
            Verdict::Keep
        );
        assert_eq!(
            judge(Some(&origin("bob", 1)), &origin("bob", 1)),
            Verdict::Keep
        );
    }

    #[test]
    fn exactly_one_of_two_peers_dials_first() {
        let (ann, bob) = (PeerId::new("ann").unwrap(), PeerId::new("bob").unwrap());
        assert_eq!(
            (turn(&ann, &bob), turn(&bob, &ann)),
            (Turn::First, Turn::Second)
        );
    }
}
