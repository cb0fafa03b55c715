//! The call context: what a host puts in front of every callback.
//!
//! ```text
//! i64 now · i64 seed · u8 seed_set · u8 mode · u16 capacity · u16 min_players
//! member section, told apart by its first u16:
//!   0..=0xFFFD  that many members                                  legacy
//!   0xFFFE      u32 epoch · u16 count · count members              full
//!   0xFFFF      u32 epoch                                          unchanged
//! u8 settled · what the export adds (see `input`)
//! member: str handle · str account · str conn · u8 kind
//!         and, if the guest declared characters:
//!         str glyph · u8×3 ink · u8×3 background · u8 ascii fallback
//! ```
//!
//! Nothing in the payload says whether characters are there: both sides must go by the features of
//! the guest's meta. A payload read with the wrong features misreads or runs short; it is a host
//! bug, and [`decode`] reports it as [`CtxError::Short`] wherever the bytes run out.
//!
//! The roster form is the sender's choice and independent of `features` here: only a guest that
//! declared [`CTX_FEATURE_ROSTER_EPOCH`](crate::CTX_FEATURE_ROSTER_EPOCH) may be sent an epoch.

use alloc::vec::Vec;
use core::fmt;

use crate::reader::{Reader, Short};
use crate::writer::{TextTooLong, or_undo, put_i64, put_text, put_u16, put_u32};
use crate::{
    CTX_FEATURE_CHARACTER, CTX_ROSTER_COUNT_MAX, CTX_ROSTER_FULL, CTX_ROSTER_UNCHANGED, Kind, Mode,
    TEXT_BYTES_MAX, Text,
};

/// The fixed part in front of the members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Head {
    /// The room's clock: nanoseconds since the Unix epoch.
    pub now_unix_nanos: i64,
    /// The room's seed; 0 when none is set.
    pub seed: i64,
    /// Whether somebody chose the seed.
    pub seed_set: bool,
    /// How the room came to be. A code this revision does not assign reads as [`Mode::Quick`].
    pub mode: Mode,
    /// How many players the room holds; 0 is unlimited.
    pub capacity: u16,
    /// How many players it takes to begin.
    pub min_players: u16,
}

/// One player as a guest sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Member<'a> {
    /// The name to show.
    pub handle: Text<'a>,
    /// The account, empty for a keyless guest.
    pub account: Text<'a>,
    /// The connection.
    pub conn: Text<'a>,
    /// Guest or member. Any code but 1 reads as guest.
    pub kind: Kind,
    /// The avatar; empty unless the guest declared characters.
    pub character: Character<'a>,
}

/// A player's avatar: one glyph and its colours. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Character<'a> {
    /// What to draw; empty when the player chose nothing.
    pub glyph: Text<'a>,
    /// Red, green, blue of the glyph.
    pub ink: [u8; 3],
    /// Red, green, blue behind it.
    pub bg: [u8; 3],
    /// The byte to draw where the glyph cannot be.
    pub ascii_fallback: u8,
}

/// A roster to encode, in one of its three forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roster<'a> {
    /// Everybody, for a guest without roster epochs.
    Legacy(&'a [Member<'a>]),
    /// Everybody, and the epoch to remember them by.
    Full {
        /// The roster's epoch.
        epoch: u32,
        /// The members, in index order.
        members: &'a [Member<'a>],
    },
    /// The roster of an epoch the guest has been sent.
    Unchanged {
        /// The roster's epoch.
        epoch: u32,
    },
}

/// The form of a roster whose members are already encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RosterForm {
    /// Count and members.
    Legacy,
    /// Sentinel, epoch, count and members.
    Full {
        /// The roster's epoch.
        epoch: u32,
    },
    /// Sentinel and epoch.
    Unchanged {
        /// The roster's epoch.
        epoch: u32,
    },
}

/// Appends a whole context. What the export adds comes after it (see [`crate::input`]).
///
/// Of `features` only the character bit matters; bits this revision does not know are ignored.
///
/// # Errors
///
/// [`CtxError::TextTooLong`] and [`CtxError::TooManyMembers`]; `out` is then as it was.
pub fn encode(
    head: &Head,
    roster: &Roster<'_>,
    features: u32,
    settled: bool,
    out: &mut Vec<u8>,
) -> Result<(), CtxError> {
    let (form, members) = match *roster {
        Roster::Legacy(members) => (RosterForm::Legacy, members),
        Roster::Full { epoch, members } => (RosterForm::Full { epoch }, members),
        Roster::Unchanged { epoch } => (RosterForm::Unchanged { epoch }, &[][..]),
    };
    or_undo(out, |out| {
        put_head(head, out);
        put_form(form, members.len(), out)?;
        encode_members(members.iter().copied(), features, out)?;
        out.push(u8::from(settled));
        Ok(())
    })
}

/// Appends a context around members that [`encode_members`] wrote earlier: the path of a host that
/// keeps a roster's bytes while nobody comes or goes.
///
/// `count` must be the number of entries in `encoded_members`. Neither is looked at for
/// [`RosterForm::Unchanged`].
///
/// # Errors
///
/// [`CtxError::TooManyMembers`]; `out` is then as it was.
pub fn encode_with_members(
    head: &Head,
    form: RosterForm,
    count: u16,
    encoded_members: &[u8],
    settled: bool,
    out: &mut Vec<u8>,
) -> Result<(), CtxError> {
    or_undo(out, |out| {
        put_head(head, out);
        put_form(form, usize::from(count), out)?;
        if !matches!(form, RosterForm::Unchanged { .. }) {
            out.extend_from_slice(encoded_members);
        }
        out.push(u8::from(settled));
        Ok(())
    })
}

/// Appends member entries, without a count in front.
///
/// # Errors
///
/// [`CtxError::TextTooLong`] for a string the wire cannot carry (it is not cut short: two players
/// could become one), [`CtxError::TooManyMembers`] past 65535; `out` is then as it was.
pub fn encode_members<'a>(
    members: impl ExactSizeIterator<Item = Member<'a>>,
    features: u32,
    out: &mut Vec<u8>,
) -> Result<(), CtxError> {
    checked_count(members.len(), u16::MAX)?;
    or_undo(out, |out| {
        for member in members {
            put_member(&member, features, out)?;
        }
        Ok(())
    })
}

fn put_head(head: &Head, out: &mut Vec<u8>) {
    put_i64(out, head.now_unix_nanos);
    put_i64(out, head.seed);
    out.push(u8::from(head.seed_set));
    out.push(u8::from(head.mode));
    put_u16(out, head.capacity);
    put_u16(out, head.min_players);
}

fn put_form(form: RosterForm, count: usize, out: &mut Vec<u8>) -> Result<(), CtxError> {
    match form {
        RosterForm::Legacy => put_u16(out, checked_count(count, CTX_ROSTER_COUNT_MAX)?),
        RosterForm::Full { epoch } => {
            let count = checked_count(count, u16::MAX)?;
            put_u16(out, CTX_ROSTER_FULL);
            put_u32(out, epoch);
            put_u16(out, count);
        }
        RosterForm::Unchanged { epoch } => {
            put_u16(out, CTX_ROSTER_UNCHANGED);
            put_u32(out, epoch);
        }
    }
    Ok(())
}

fn put_member(member: &Member<'_>, features: u32, out: &mut Vec<u8>) -> Result<(), CtxError> {
    let text = |field, text, out: &mut Vec<u8>| {
        put_text(out, text).map_err(|TextTooLong { bytes }| CtxError::TextTooLong { field, bytes })
    };
    text("handle", member.handle, out)?;
    text("account", member.account, out)?;
    text("conn", member.conn, out)?;
    out.push(u8::from(member.kind));
    if features & CTX_FEATURE_CHARACTER != 0 {
        let character = &member.character;
        text("glyph", character.glyph, out)?;
        out.extend_from_slice(&character.ink);
        out.extend_from_slice(&character.bg);
        out.push(character.ascii_fallback);
    }
    Ok(())
}

fn checked_count(count: usize, max: u16) -> Result<u16, CtxError> {
    match u16::try_from(count) {
        Ok(count) if count <= max => Ok(count),
        _ => Err(CtxError::TooManyMembers { count, max }),
    }
}

/// A context that has been read through once and found complete.
#[derive(Clone, Copy, Debug)]
pub struct Decoded<'a> {
    /// The fixed part.
    pub head: Head,
    /// The roster, whose members are read again as they are iterated.
    pub roster: DecodedRoster<'a>,
    /// Whether the room's result stands.
    pub settled: bool,
    /// What follows the context: the export's own arguments (see [`crate::input`]).
    pub extras: &'a [u8],
}

/// A roster as it was sent.
#[derive(Clone, Copy, Debug)]
pub enum DecodedRoster<'a> {
    /// Everybody.
    Legacy(Members<'a>),
    /// Everybody, and the epoch to remember them by.
    Full {
        /// The roster's epoch.
        epoch: u32,
        /// The members, in index order.
        members: Members<'a>,
    },
    /// The roster of an epoch that was sent earlier.
    Unchanged {
        /// The roster's epoch.
        epoch: u32,
    },
}

impl<'a> DecodedRoster<'a> {
    /// The members sent along; none for [`DecodedRoster::Unchanged`].
    #[must_use]
    pub const fn members(&self) -> Members<'a> {
        match *self {
            Self::Legacy(members) | Self::Full { members, .. } => members,
            Self::Unchanged { .. } => Members {
                count: 0,
                features: 0,
                section: Reader::new(&[]),
            },
        }
    }
}

/// The members of a context: an iterator that reads them from the payload and allocates nothing.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    count: u16,
    features: u32,
    section: Reader<'a>,
}

impl<'a> Members<'a> {
    /// The encoded entries not yet iterated. Equal bytes are equal rosters (given equal counts and
    /// features), which is the cheapest way to see that nobody came or went.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.section.rest()
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        self.count = self.count.checked_sub(1)?;
        // `decode` has read every entry once, so this one is complete.
        read_member(&mut self.section, self.features).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = usize::from(self.count);
        (count, Some(count))
    }
}

impl ExactSizeIterator for Members<'_> {}

/// Reads a context sent to a guest that declared `features`.
///
/// Every member is read once, so that the iterator cannot run short later; nothing is allocated
/// and a count is believed only as far as there are bytes for it. Bytes behind the context are
/// [`Decoded::extras`].
///
/// # Errors
///
/// [`CtxError::Short`] when a field runs past the end.
pub fn decode(bytes: &[u8], features: u32) -> Result<Decoded<'_>, CtxError> {
    let mut reader = Reader::new(bytes);
    let head = read_head(&mut reader)?;
    let roster = match reader.u16()? {
        CTX_ROSTER_UNCHANGED => DecodedRoster::Unchanged {
            epoch: reader.u32()?,
        },
        CTX_ROSTER_FULL => {
            let epoch = reader.u32()?;
            let count = reader.u16()?;
            let members = read_members(&mut reader, count, features)?;
            DecodedRoster::Full { epoch, members }
        }
        count => DecodedRoster::Legacy(read_members(&mut reader, count, features)?),
    };
    Ok(Decoded {
        head,
        roster,
        settled: reader.flag()?,
        extras: reader.rest(),
    })
}

fn read_head(reader: &mut Reader<'_>) -> Result<Head, Short> {
    Ok(Head {
        now_unix_nanos: reader.i64()?,
        seed: reader.i64()?,
        seed_set: reader.flag()?,
        mode: Mode::try_from(reader.u8()?).unwrap_or_default(),
        capacity: reader.u16()?,
        min_players: reader.u16()?,
    })
}

fn read_members<'a>(
    reader: &mut Reader<'a>,
    count: u16,
    features: u32,
) -> Result<Members<'a>, Short> {
    let start = *reader;
    for _ in 0..count {
        read_member(reader, features)?;
    }
    Ok(Members {
        count,
        features,
        section: Reader::new(reader.since(start)),
    })
}

fn read_member<'a>(reader: &mut Reader<'a>, features: u32) -> Result<Member<'a>, Short> {
    Ok(Member {
        handle: reader.text()?,
        account: reader.text()?,
        conn: reader.text()?,
        kind: if reader.flag()? {
            Kind::Member
        } else {
            Kind::Guest
        },
        character: if features & CTX_FEATURE_CHARACTER != 0 {
            Character {
                glyph: reader.text()?,
                ink: reader.rgb()?,
                bg: reader.rgb()?,
                ascii_fallback: reader.u8()?,
            }
        } else {
            Character::default()
        },
    })
}

/// Why a context could not be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CtxError {
    /// A field runs past the end of the payload, which also is how features that do not match the
    /// sender's show.
    Short,
    /// A member's string has more bytes than the wire can carry.
    TextTooLong {
        /// Which string.
        field: &'static str,
        /// Its bytes.
        bytes: usize,
    },
    /// More members than the roster form can count.
    TooManyMembers {
        /// How many there are.
        count: usize,
        /// How many fit the form.
        max: u16,
    },
}

impl From<Short> for CtxError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}

impl fmt::Display for CtxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("call context ends inside a field"),
            Self::TextTooLong { field, bytes } => write!(
                f,
                "member {field} has {bytes} bytes, at most {TEXT_BYTES_MAX} fit"
            ),
            Self::TooManyMembers { count, max } => {
                write!(f, "roster has {count} members, at most {max} fit")
            }
        }
    }
}

impl core::error::Error for CtxError {}
