//! Who is in the room, kept between callbacks.
//!
//! Invariants
//! - an index is the callback's own: the host's roster in the host's order;
//! - a [`PlayerId`] names one connection from its join to its leave and is never given out again;
//! - nothing is decoded or allocated while the roster stays the same.

use core::num::NonZeroU64;
use core::ops::Range;

use cabinet_wire::Kind;
use cabinet_wire::ctx::{DecodedRoster, Member, Members};

use crate::style::{Color, Style};

/// A player, for as long as the connection is in the room. Safe to keep in game state: when the
/// player has left it names nobody, never somebody else. Ordered by when they joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlayerId(NonZeroU64);

impl PlayerId {
    /// The id that is given out after `index` others.
    pub(crate) const fn nth(index: u64) -> PlayerId {
        PlayerId(NonZeroU64::MIN.saturating_add(index))
    }
}

/// A player as the host describes them, borrowed from the room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Player<'r> {
    /// The name to keep.
    pub id: PlayerId,
    /// The name to show.
    pub handle: &'r str,
    /// The account, empty for a guest. One account may play on several connections.
    pub account: &'r str,
    /// The connection.
    pub conn: &'r str,
    /// Guest or member.
    pub kind: Kind,
    /// The player's figure; empty unless `META` asks for [`characters`](crate::Meta::characters).
    pub character: Character<'r>,
}

/// The figure a player chose: a glyph and two colours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Character<'r> {
    /// One glyph, or empty.
    pub glyph: &'r str,
    /// The glyph's colour.
    pub ink: Color,
    /// The colour behind it.
    pub background: Color,
    /// What to draw instead of the glyph where only ASCII can be shown; 0 for nothing.
    pub ascii_fallback: u8,
}

impl Player<'_> {
    /// Whether this is a keyless guest, for whom nothing can be stored.
    pub fn is_guest(&self) -> bool {
        self.kind == Kind::Guest
    }
}

impl Character<'_> {
    /// Whether the player has none.
    pub const fn is_empty(&self) -> bool {
        self.glyph.is_empty()
    }

    /// The figure's colours.
    pub const fn style(&self) -> Style {
        Style::new().fg(self.ink).bg(self.background)
    }
}

/// What the roster section of a callback said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// The roster we have.
    Same,
    /// Another roster.
    Changed,
    /// "Unchanged" since an epoch we do not have: a host fault. The roster stays.
    Mismatch,
}

/// The roster of the last callback.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    seats: Vec<Seat>,
    /// Every string of every seat, one after the other.
    text: String,
    /// The entries as they were sent, to see that they are the same again.
    section: Vec<u8>,
    epoch: Option<u32>,
    /// Whether any roster was ever received.
    known: bool,
    /// How many ids were given out.
    ids: u64,
    departing: Option<usize>,
    /// The previous `seats` and `text`, kept for their memory.
    spare: (Vec<Seat>, String),
}

#[derive(Clone, Debug)]
struct Seat {
    id: PlayerId,
    handle: Range<usize>,
    account: Range<usize>,
    conn: Range<usize>,
    kind: Kind,
    glyph: Range<usize>,
    ink: [u8; 3],
    background: [u8; 3],
    ascii_fallback: u8,
    /// Was told to have left; a seat like it is somebody else.
    gone: bool,
}

impl Roster {
    /// Takes over the callback's roster.
    pub fn update(&mut self, roster: &DecodedRoster<'_>) -> Update {
        self.departing = None;
        match *roster {
            DecodedRoster::Unchanged { epoch } if self.epoch == Some(epoch) => Update::Same,
            DecodedRoster::Unchanged { .. } => Update::Mismatch,
            // After a restore from the reference's snapshot the roster is sent again as it was. A
            // host that forgot our frames as well says so when the next change is sent.
            DecodedRoster::Full { epoch, members } => {
                self.epoch = Some(epoch);
                self.take_over(members)
            }
            DecodedRoster::Legacy(members) => {
                self.epoch = None;
                self.take_over(members)
            }
        }
    }

    fn take_over(&mut self, members: Members<'_>) -> Update {
        let same =
            self.known && members.len() == self.seats.len() && members.as_bytes() == self.section;
        if same {
            return Update::Same;
        }
        self.replace(members);
        Update::Changed
    }

    /// The player at an index who joins. A seat whose player had left is somebody new.
    pub fn joining(&mut self, index: usize) -> Option<PlayerId> {
        let seat = self.seats.get_mut(index)?;
        if seat.gone {
            (seat.id, seat.gone) = (next_id(&mut self.ids), false);
        }
        Some(seat.id)
    }

    /// The player at an index who leaves and is in the roster for the last time.
    pub fn leaving(&mut self, index: usize) -> Option<PlayerId> {
        let seat = self.seats.get_mut(index)?;
        seat.gone = true;
        self.departing = Some(index);
        Some(seat.id)
    }

    /// Who sits at an index of this callback.
    pub fn id_at(&self, index: usize) -> Option<PlayerId> {
        self.seats.get(index).map(|seat| seat.id)
    }

    /// The index of a player in this callback, also of the one who is leaving.
    pub fn index_of(&self, id: PlayerId) -> Option<usize> {
        let here = |index: usize, seat: &Seat| {
            seat.id == id && (!seat.gone || self.departing == Some(index))
        };
        self.seats
            .iter()
            .enumerate()
            .position(|(index, seat)| here(index, seat))
    }

    /// Seats of this callback, taken or being left.
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether the player at this index stays in the room.
    pub fn stays(&self, index: usize) -> bool {
        self.seats.get(index).is_some_and(|seat| !seat.gone)
    }

    /// The player at an index.
    pub fn player(&self, index: usize) -> Option<Player<'_>> {
        let seat = self.seats.get(index)?;
        Some(Player {
            id: seat.id,
            handle: &self.text[seat.handle.clone()],
            account: &self.text[seat.account.clone()],
            conn: &self.text[seat.conn.clone()],
            kind: seat.kind,
            character: Character {
                glyph: &self.text[seat.glyph.clone()],
                ink: color(seat.ink),
                background: color(seat.background),
                ascii_fallback: seat.ascii_fallback,
            },
        })
    }

    fn replace(&mut self, members: Members<'_>) {
        self.section.clear();
        self.section.extend_from_slice(members.as_bytes());
        self.known = true;
        core::mem::swap(&mut self.seats, &mut self.spare.0);
        core::mem::swap(&mut self.text, &mut self.spare.1);
        self.seats.clear();
        self.text.clear();
        // Rosters change by one seat at a time, so the match of one seat is usually right after
        // the match of the seat before it.
        let mut likely = 0;
        for member in members {
            let mut seat = read_seat(&member, &mut self.text);
            match self.claim(&seat, likely) {
                Some(index) => {
                    seat.id = self.spare.0[index].id;
                    likely = index + 1;
                }
                None => seat.id = next_id(&mut self.ids),
            }
            self.seats.push(seat);
        }
    }

    /// The old seat of the same connection, from `likely` on and around; nobody else gets it then.
    fn claim(&mut self, seat: &Seat, likely: usize) -> Option<usize> {
        let (old, old_text) = &mut self.spare;
        let text = &self.text;
        let same = |other: &Seat| {
            !other.gone
                && other.kind == seat.kind
                && old_text[other.conn.clone()] == text[seat.conn.clone()]
                && old_text[other.account.clone()] == text[seat.account.clone()]
        };
        let likely = likely.min(old.len());
        let index = (likely..old.len())
            .chain(0..likely)
            .find(|&index| same(&old[index]))?;
        old[index].gone = true;
        Some(index)
    }
}

/// An id never given out before. 64 bits last for a million joins a second over half a million
/// years; counting saturates.
fn next_id(given_out: &mut u64) -> PlayerId {
    let id = PlayerId::nth(*given_out);
    *given_out = given_out.saturating_add(1);
    id
}

fn read_seat(member: &Member<'_>, text: &mut String) -> Seat {
    let mut keep = |bytes: &[u8]| {
        let start = text.len();
        text.push_str(&String::from_utf8_lossy(bytes));
        start..text.len()
    };
    Seat {
        id: PlayerId::nth(0),
        handle: keep(member.handle.as_bytes()),
        account: keep(member.account.as_bytes()),
        conn: keep(member.conn.as_bytes()),
        kind: member.kind,
        glyph: keep(member.character.glyph.as_bytes()),
        ink: member.character.ink,
        background: member.character.bg,
        ascii_fallback: member.character.ascii_fallback,
        gone: false,
    }
}

const fn color([r, g, b]: [u8; 3]) -> Color {
    Color::rgb(r, g, b)
}

#[cfg(test)]
mod tests {
    use cabinet_wire::{CTX_FEATURE_CHARACTER, Text, ctx};

    use super::*;

    fn member(name: &'static str) -> Member<'static> {
        Member {
            handle: Text::new(name),
            account: Text::new(name),
            conn: Text::new(name),
            kind: Kind::Member,
            ..Member::default()
        }
    }

    fn update(roster: &mut Roster, sent: ctx::Roster<'_>, features: u32) -> Update {
        let mut bytes = Vec::new();
        ctx::encode(&ctx::Head::default(), &sent, features, false, &mut bytes).unwrap();
        roster.update(&ctx::decode(&bytes, features).unwrap().roster)
    }

    fn legacy(roster: &mut Roster, members: &[Member<'_>]) -> Update {
        update(roster, ctx::Roster::Legacy(members), 0)
    }

    fn ids(roster: &Roster) -> Vec<PlayerId> {
        (0..roster.len())
            .filter_map(|index| roster.id_at(index))
            .collect()
    }

    #[test]
    fn the_same_legacy_section_is_the_same_roster_and_any_byte_makes_another() {
        let mut roster = Roster::default();
        let ada = member("ada");
        assert_eq!(legacy(&mut roster, &[]), Update::Changed);
        assert_eq!(legacy(&mut roster, &[]), Update::Same);
        assert_eq!(legacy(&mut roster, &[ada]), Update::Changed);
        assert_eq!(legacy(&mut roster, &[ada]), Update::Same);
        let renamed = Member {
            handle: Text::new("Ada"),
            ..ada
        };
        assert_eq!(legacy(&mut roster, &[renamed]), Update::Changed);
        assert_eq!(roster.player(0).map(|player| player.handle), Some("Ada"));
    }

    #[test]
    fn an_id_follows_its_connection_through_joins_leaves_and_renames() {
        let mut roster = Roster::default();
        let [ada, bob, cyd] = ["ada", "bob", "cyd"].map(member);
        legacy(&mut roster, &[ada, bob, cyd]);
        let before = ids(&roster);
        legacy(&mut roster, &[bob, cyd, ada]);
        assert_eq!(ids(&roster), [before[1], before[2], before[0]]);
        assert_eq!(roster.leaving(2), Some(before[0]));
        assert_eq!(roster.index_of(before[0]), Some(2));
        let renamed = Member {
            handle: Text::new("Robert"),
            ..bob
        };
        legacy(&mut roster, &[renamed, cyd]);
        assert_eq!(ids(&roster), [before[1], before[2]]);
        assert_eq!(roster.index_of(before[0]), None);
    }

    #[test]
    fn who_comes_back_gets_a_new_id() {
        let mut roster = Roster::default();
        let ada = member("ada");
        legacy(&mut roster, &[ada]);
        let first = roster.id_at(0);
        roster.leaving(0);
        legacy(&mut roster, &[]);
        legacy(&mut roster, &[ada]);
        assert_ne!(roster.joining(0), first);
    }

    #[test]
    fn a_join_into_a_seat_just_left_is_somebody_new_even_if_the_roster_reads_the_same() {
        // The reference's aliased fingerprints: leave and join under one epoch.
        let mut roster = Roster::default();
        update(
            &mut roster,
            ctx::Roster::Full {
                epoch: 1,
                members: &[member("ada")],
            },
            1,
        );
        let first = roster.leaving(0);
        assert_eq!(
            update(&mut roster, ctx::Roster::Unchanged { epoch: 1 }, 1),
            Update::Same
        );
        assert_ne!(roster.joining(0), first);
    }

    #[test]
    fn two_connections_that_look_alike_keep_ids_of_their_own() {
        let mut roster = Roster::default();
        let guest = Member {
            kind: Kind::Guest,
            ..member("")
        };
        legacy(&mut roster, &[guest, guest]);
        let before = ids(&roster);
        assert_ne!(before[0], before[1]);
        legacy(&mut roster, &[guest, guest, member("ada")]);
        assert_eq!(ids(&roster)[..2], before);
    }

    #[test]
    fn an_unchanged_epoch_keeps_the_roster_and_a_wrong_one_is_a_mismatch() {
        let mut roster = Roster::default();
        let unchanged = |epoch| ctx::Roster::Unchanged { epoch };
        assert_eq!(update(&mut roster, unchanged(1), 1), Update::Mismatch);
        let full = ctx::Roster::Full {
            epoch: 7,
            members: &[member("ada")],
        };
        assert_eq!(update(&mut roster, full, 1), Update::Changed);
        assert_eq!(update(&mut roster, unchanged(7), 1), Update::Same);
        assert_eq!(update(&mut roster, unchanged(8), 1), Update::Mismatch);
        assert_eq!(roster.player(0).map(|player| player.handle), Some("ada"));
    }

    #[test]
    fn the_same_roster_sent_in_full_again_is_no_change_and_its_epoch_counts() {
        let mut roster = Roster::default();
        let full = |epoch, members| ctx::Roster::Full { epoch, members };
        let ada = [member("ada")];
        let bob = [member("bob")];
        assert_eq!(update(&mut roster, full(7, &ada), 1), Update::Changed);
        // What a host sends that restored the room from a snapshot: its epochs begin anew.
        assert_eq!(update(&mut roster, full(0, &ada), 1), Update::Same);
        let unchanged = ctx::Roster::Unchanged { epoch: 0 };
        assert_eq!(update(&mut roster, unchanged, 1), Update::Same);
        assert_eq!(update(&mut roster, full(1, &bob), 1), Update::Changed);
    }

    #[test]
    fn characters_are_read_when_asked_for_and_invalid_text_is_shown_replaced() {
        let mut roster = Roster::default();
        let character = ctx::Character {
            glyph: Text::new("λ"),
            ink: [1, 2, 3],
            bg: [4, 5, 6],
            ascii_fallback: b'L',
        };
        let ada = Member {
            character,
            handle: Text(b"a\xff"),
            ..member("ada")
        };
        update(
            &mut roster,
            ctx::Roster::Legacy(&[ada]),
            CTX_FEATURE_CHARACTER,
        );
        let player = roster.player(0).unwrap();
        assert_eq!((player.handle, player.character.glyph), ("a\u{fffd}", "λ"));
        assert_eq!(
            player.character.style(),
            Style::new().fg(color([1, 2, 3])).bg(color([4, 5, 6]))
        );
    }
}
