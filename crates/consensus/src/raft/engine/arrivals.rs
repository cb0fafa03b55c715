//! Snapshots that arrive in pieces.
//!
//! Invariants
//! - a snapshot larger than the limit is refused at its first piece;
//! - all halves together are at most [`ARRIVING_MAX`], and the wholes they will be at most as large
//!   as one snapshot may be: what was heard of longest ago goes first;
//! - a half is dropped when its sender falls silent, leads no more by a later sender's vote, or was
//!   a member and is none any more.
//!
//! No clock here: each event says what time it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::hidden::Hidden;
use crate::ids::NodeId;
use crate::log::Position;

/// Most snapshots that arrive at a time.
pub(super) const ARRIVING_MAX: usize = 4;

/// What a piece belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transfer {
    /// The term the sender leads in.
    pub term: u64,
    pub through: Position,
    /// Bytes of the whole.
    pub total: u64,
}

/// What became of a piece.
#[derive(PartialEq, Eq)]
pub(super) enum Piece {
    /// The next one must begin here.
    Next(u64),
    /// It was the last one.
    Whole(Bytes),
    /// The whole would be larger than the limit.
    TooLarge,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Next(at) => f.debug_tuple("Next").field(at).finish(),
            Self::Whole(data) => f.debug_tuple("Whole").field(&Hidden(data.len())).finish(),
            Self::TooLarge => f.write_str("TooLarge"),
        }
    }
}

struct Arriving {
    transfer: Transfer,
    data: BytesMut,
    last: Duration,
    /// Whether the sender was a member by our own log when a piece of it came.
    was_member: bool,
}

impl fmt::Debug for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving")
            .field("transfer", &self.transfer)
            .field("data", &Hidden(self.data.len()))
            .field("last", &self.last)
            .field("was_member", &self.was_member)
            .finish()
    }
}

/// The halves of one node.
#[derive(Debug)]
pub(super) struct Arrivals {
    bytes_max: u64,
    idle_max: Duration,
    by: BTreeMap<NodeId, Arriving>,
}

impl Arrivals {
    pub fn new(bytes_max: u64, idle_max: Duration) -> Self {
        Self {
            bytes_max,
            idle_max,
            by: BTreeMap::new(),
        }
    }

    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// A piece came. `is_member` says whether `from` is one by our own log.
    pub fn take(
        &mut self,
        from: &NodeId,
        transfer: Transfer,
        offset: u64,
        data: &[u8],
        is_member: bool,
        now: Duration,
    ) -> Piece {
        if transfer.total > self.bytes_max {
            self.by.remove(from);
            return Piece::TooLarge;
        }
        let known = self.by.get(from).map(|arriving| arriving.transfer);
        if known != Some(transfer) || offset == 0 {
            self.by.remove(from);
            self.make_room(&transfer);
            let arriving = Arriving {
                transfer,
                data: BytesMut::new(),
                last: now,
                was_member: false,
            };
            self.by.insert(from.clone(), arriving);
        }
        let Some(arriving) = self.by.get_mut(from) else {
            return Piece::Next(0);
        };
        arriving.last = now;
        arriving.was_member |= is_member;
        let have = arriving.data.len() as u64;
        let end = offset.saturating_add(data.len() as u64);
        if offset != have || end > transfer.total {
            return Piece::Next(have);
        }
        arriving.data.extend_from_slice(data);
        if end < transfer.total {
            return Piece::Next(end);
        }
        let whole = self.by.remove(from);
        Piece::Whole(whole.map(|whole| whole.data.freeze()).unwrap_or_default())
    }

    fn make_room(&mut self, coming: &Transfer) {
        self.by
            .retain(|_, arriving| arriving.transfer.term >= coming.term);
        loop {
            let totals = self.by.values().map(|arriving| arriving.transfer.total);
            let bytes = totals.fold(coming.total, u64::saturating_add);
            if self.by.len() < ARRIVING_MAX && bytes <= self.bytes_max {
                return;
            }
            let oldest = self.by.iter().min_by_key(|(_, arriving)| arriving.last);
            let Some(oldest) = oldest.map(|(from, _)| from.clone()) else {
                return;
            };
            self.by.remove(&oldest);
        }
    }

    /// Drops the halves nobody will finish.
    pub fn sweep(&mut self, voters: &BTreeSet<NodeId>, now: Duration) {
        let idle_max = self.idle_max;
        self.by.retain(|from, arriving| {
            let idle = now.saturating_sub(arriving.last) > idle_max;
            let put_out = arriving.was_member && !voters.contains(from);
            !idle && !put_out
        });
    }

    /// How many there are, and the bytes they hold.
    #[cfg(test)]
    fn held(&self) -> (usize, u64) {
        let bytes = self.by.values().map(|arriving| arriving.data.len() as u64);
        (self.by.len(), bytes.sum())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hidden::tests::{SECRET, hides_it};
    use crate::ids::{Incarnation, PeerId};

    const IDLE_MAX: Duration = Duration::from_millis(100);

    fn node(n: u64) -> NodeId {
        NodeId::new(PeerId::new(format!("n{n}")).unwrap(), Incarnation(0))
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn transfer(term: u64, total: u64) -> Transfer {
        let through = Position { index: 9, term };
        Transfer {
            term,
            through,
            total,
        }
    }

    fn arrivals() -> Arrivals {
        Arrivals::new(10, IDLE_MAX)
    }

    #[test]
    fn a_snapshot_arrives_piece_by_piece_and_a_piece_out_of_place_is_asked_for_again() {
        let mut arrivals = arrivals();
        let mut take = |offset, data: &[u8]| {
            arrivals.take(&node(1), transfer(1, 5), offset, data, true, ms(0))
        };
        assert_eq!(take(0, b"ab"), Piece::Next(2));
        assert_eq!(take(3, b"d"), Piece::Next(2));
        assert_eq!(take(2, b"cdef"), Piece::Next(2), "more than the whole");
        assert_eq!(take(2, b"cde"), Piece::Whole(Bytes::from_static(b"abcde")));
        assert_eq!(take(2, b"cde"), Piece::Next(0));
        // The sender begins anew.
        assert_eq!(take(0, b"x"), Piece::Next(1));
        assert_eq!(take(0, b""), Piece::Next(0));
        assert_eq!(
            take(0, b"abcde"),
            Piece::Whole(Bytes::from_static(b"abcde"))
        );
        assert_eq!(arrivals.held(), (0, 0));
    }

    #[test]
    fn what_arrived_is_shown_by_its_length() {
        let mut arrivals = Arrivals::new(100, IDLE_MAX);
        let whole = transfer(1, SECRET.len() as u64);
        let next = arrivals.take(&node(1), whole, 0, &SECRET[..20], true, ms(0));
        assert_eq!(next, Piece::Next(20));
        hides_it(&arrivals);
        assert!(format!("{arrivals:?}").contains("20 bytes"));
        hides_it(&arrivals.take(&node(1), whole, 20, &SECRET[20..], true, ms(0)));
    }

    #[test]
    fn a_snapshot_of_the_most_bytes_is_taken_and_one_byte_more_is_not() {
        let mut arrivals = arrivals();
        let fits = arrivals.take(&node(1), transfer(1, 10), 0, &[7; 10], true, ms(0));
        assert_eq!(fits, Piece::Whole(Bytes::from_static(&[7; 10])));
        arrivals.take(&node(1), transfer(1, 10), 0, &[7; 3], true, ms(0));
        let one_more = arrivals.take(&node(1), transfer(1, 11), 0, b"", true, ms(0));
        assert_eq!(one_more, Piece::TooLarge);
        assert_eq!(arrivals.held(), (0, 0), "its former half is gone too");
    }

    #[test]
    fn as_many_halves_are_kept_as_may_be_and_one_more_takes_the_place_of_the_oldest() {
        let mut arrivals = arrivals();
        for n in 0..=ARRIVING_MAX as u64 {
            arrivals.take(&node(n), transfer(1, 2), 0, b"a", true, ms(n));
            let kept = (n + 1).min(ARRIVING_MAX as u64);
            assert_eq!(arrivals.held(), (kept as usize, kept));
        }
        let oldest = arrivals.take(&node(0), transfer(1, 2), 1, b"b", true, ms(9));
        assert_eq!(oldest, Piece::Next(0));
    }

    #[test]
    fn the_halves_will_never_be_more_than_one_snapshot_may_be() {
        let mut arrivals = arrivals();
        arrivals.take(&node(1), transfer(1, 5), 0, b"a", true, ms(0));
        arrivals.take(&node(2), transfer(1, 5), 0, b"a", true, ms(1));
        assert_eq!(arrivals.held(), (2, 2));
        arrivals.take(&node(3), transfer(1, 6), 0, b"a", true, ms(2));
        assert_eq!(arrivals.held(), (1, 1));
    }

    #[test]
    fn a_half_goes_when_its_sender_falls_silent_is_put_out_or_is_outvoted() {
        let voters = BTreeSet::from([node(1)]);
        let mut arrivals = arrivals();
        arrivals.take(&node(1), transfer(1, 2), 0, b"a", true, ms(0));
        arrivals.sweep(&voters, IDLE_MAX);
        assert_eq!(arrivals.held().0, 1);
        arrivals.sweep(&voters, IDLE_MAX + ms(1));
        assert_eq!(arrivals.held().0, 0, "silent");

        arrivals.take(&node(1), transfer(1, 2), 0, b"a", true, ms(0));
        arrivals.sweep(&BTreeSet::new(), ms(1));
        assert_eq!(arrivals.held().0, 0, "no member any more");
        // A joiner has no log to know its leader by.
        arrivals.take(&node(1), transfer(1, 2), 0, b"a", false, ms(0));
        arrivals.sweep(&BTreeSet::new(), ms(1));
        assert_eq!(arrivals.held().0, 1);

        arrivals.take(&node(2), transfer(2, 2), 0, b"a", true, ms(1));
        assert_eq!(arrivals.held().0, 1, "a later term's");
        let outvoted = arrivals.take(&node(1), transfer(1, 2), 1, b"b", true, ms(1));
        assert_eq!(outvoted, Piece::Next(0));
    }

    proptest! {
        #[test]
        fn whatever_comes_what_is_held_is_bounded(
            pieces in proptest::collection::vec(
                (0..9u64, 0..3u64, 0..14u64, 0..12u64, 0..12usize, any::<bool>()), 0..200,
            ),
        ) {
            let mut arrivals = arrivals();
            for (at, (from, term, total, offset, len, is_member)) in pieces.into_iter().enumerate() {
                let now = ms(at as u64);
                let taken = arrivals.take(
                    &node(from), transfer(term, total), offset, &vec![1; len], is_member, now,
                );
                if let Piece::Whole(whole) = taken {
                    prop_assert_eq!(whole.len() as u64, total);
                }
                let (count, bytes) = arrivals.held();
                prop_assert!(count <= ARRIVING_MAX && bytes <= 10);
            }
        }
    }
}
