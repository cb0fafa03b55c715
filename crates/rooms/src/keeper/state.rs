//! A room as the bytes a checkpoint holds: who belongs to it, what is not recorded yet, and its
//! snapshot.
//!
//! ```text
//! 4 bytes      "CABT"
//! u32          version, 1
//! u8           lifecycle: 0 resumable, 1 ephemeral, 2 resident
//! str          slug
//! i64          when it was captured, Unix nanoseconds
//! list         everybody who was ever in it: players, as in a snapshot
//! list         who was in it last
//! list         leaderboard posts not recorded yet: i64 time, u8 mode, u32 counter, list of
//!              standings: player, i64 metric, u16 rank, u8 status, 255 for unknown
//! …            the payload of a snapshot (`CABS`), to the end
//! ```
//!
//! A `str` is a u16 byte length and UTF-8, a `list` a u32 count and the elements.

use std::sync::Arc;

use cabinet_durability::RoomId;
use cabinet_host::{
    Character, Mode, Player, RoomResult, Snapshot, SnapshotError, Standing, Status,
};
use cabinet_wire::{Kind, Lifecycle};

use crate::captures::Captured;
use crate::life::JOINED_MAX;
use crate::posts::WAITING_OF_A_GAME_MAX;
use crate::registry::GameSlug;
use crate::services::{Post, PostId};

const MAGIC: [u8; 4] = *b"CABT";
const VERSION: u32 = 1;
const STATUS_UNKNOWN: u8 = 255;
/// Members of a roster, standings of a result: as many as the wire can number.
const PLAYERS_MAX: usize = 65_535;

/// What a checkpoint of a room holds: for tools that look into one.
#[derive(Debug)]
#[non_exhaustive]
pub struct RoomState {
    /// The game.
    pub slug: GameSlug,
    /// The lifecycle the room ran under.
    pub lifecycle: Lifecycle,
    /// When it was captured, Unix nanoseconds.
    pub at: i64,
    /// Everybody who was ever in it, in the order they came.
    pub joined: Vec<Player>,
    /// Who was in it last.
    pub roster: Vec<Player>,
    /// Leaderboard posts that were not recorded yet.
    pub posts: Vec<Post>,
    /// Everything else.
    pub snapshot: Snapshot,
}

/// A room's state did not fit its bytes, or its bytes are no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// They are something else.
    #[error("not the state of a room")]
    NotAState,
    /// A newer version of the format.
    #[error("a room's state of version {found}; this is version {VERSION}: update Cabinet")]
    Version {
        /// The version it says.
        found: u32,
    },
    /// More of something than there may be.
    #[error("{found} {what}, more than {max}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many.
        found: u64,
        /// How many there may be.
        max: u64,
    },
    /// Cut, or nothing a room could be in.
    #[error("the room's state does not read: {0}")]
    Damaged(&'static str),
    /// Its snapshot is the trouble.
    #[error("the room's snapshot")]
    Snapshot(#[source] SnapshotError),
}

/// How many bytes a captured room comes to, or a little more.
pub(crate) fn bytes_about(captured: &Captured) -> usize {
    let pages = captured.snapshot.page_bytes();
    pages + pages / 64 + 65_536
}

/// Writes the bytes of a captured room in place of what `bytes` holds.
pub(crate) fn encode(captured: &Captured, bytes: &mut Vec<u8>) -> Result<(), StateError> {
    bytes.clear();
    bytes.reserve(bytes_about(captured));
    let mut out = Writer(std::mem::take(bytes));
    let written = write(captured, &mut out);
    *bytes = out.0;
    written
}

fn write(captured: &Captured, out: &mut Writer) -> Result<(), StateError> {
    out.0.extend(MAGIC);
    out.u32(VERSION);
    out.0.push(match captured.lifecycle {
        Lifecycle::Resumable => 0,
        Lifecycle::Ephemeral => 1,
        Lifecycle::Resident => 2,
    });
    out.text(captured.slug.as_str())?;
    out.i64(captured.at);
    out.players(&captured.joined, "players who were in the room", JOINED_MAX)?;
    out.players(&captured.roster, "members", PLAYERS_MAX)?;
    let posts = &captured.posts;
    out.count(posts.len(), "posts", WAITING_OF_A_GAME_MAX)?;
    for post in posts {
        out.i64(post.at);
        out.0.push(post.result.mode as u8);
        out.u32(post.result.round_seq);
        let standings = &post.result.standings;
        out.count(standings.len(), "standings", PLAYERS_MAX)?;
        for line in standings {
            out.player(&line.player)?;
            out.i64(line.metric);
            out.0.extend(line.rank.to_le_bytes());
            out.0
                .push(line.status.map_or(STATUS_UNKNOWN, |status| status as u8));
        }
    }
    captured
        .snapshot
        .payload_into(&mut out.0)
        .map_err(StateError::Snapshot)
}

impl RoomState {
    /// Reads the bytes of a checkpoint of `room`, which were authenticated and bounded before.
    ///
    /// # Errors
    /// Any [`StateError`] when they are not exactly what a keeper writes.
    pub fn decode(room: RoomId, bytes: Vec<u8>) -> Result<Self, StateError> {
        let mut fields = Reader(&bytes);
        if fields.array() != Some(MAGIC) {
            return Err(StateError::NotAState);
        }
        let version = fields.u32().ok_or(CUT)?;
        if version != VERSION {
            return Err(StateError::Version { found: version });
        }
        let lifecycle = match fields.u8().ok_or(CUT)? {
            0 => Lifecycle::Resumable,
            1 => Lifecycle::Ephemeral,
            2 => Lifecycle::Resident,
            _ => return Err(StateError::Damaged("lifecycle")),
        };
        let slug: GameSlug = fields
            .text()?
            .parse()
            .map_err(|_| StateError::Damaged("slug"))?;
        let at = fields.i64().ok_or(CUT)?;
        let joined = fields.players("players who were in the room", JOINED_MAX)?;
        let roster = fields.players("members", PLAYERS_MAX)?;
        let count = fields.count("posts", WAITING_OF_A_GAME_MAX)?;
        let mut posts = Vec::new();
        for _ in 0..count {
            posts.push(fields.post(&slug, room)?);
        }
        let before = bytes.len() - fields.0.len();
        let snapshot = Snapshot::from_payload(bytes, before).map_err(StateError::Snapshot)?;
        Ok(Self {
            slug,
            lifecycle,
            at,
            joined,
            roster,
            posts,
            snapshot,
        })
    }
}

const CUT: StateError = StateError::Damaged("cut short");

struct Writer(Vec<u8>);

impl Writer {
    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.0.extend(value.to_le_bytes());
    }

    fn count(&mut self, count: usize, what: &'static str, max: usize) -> Result<(), StateError> {
        check(count, what, max)?;
        // Every limit is below 2^32.
        self.u32(count as u32);
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), StateError> {
        check(text.len(), "bytes of a text", u16::MAX.into())?;
        self.0.extend((text.len() as u16).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn players(
        &mut self,
        players: &[Player],
        what: &'static str,
        max: usize,
    ) -> Result<(), StateError> {
        self.count(players.len(), what, max)?;
        players.iter().try_for_each(|player| self.player(player))
    }

    fn player(&mut self, player: &Player) -> Result<(), StateError> {
        self.text(&player.account)?;
        self.text(&player.handle)?;
        self.text(&player.conn)?;
        self.0.push(player.kind as u8);
        self.text(&player.character.glyph)?;
        self.0.extend(player.character.ink);
        self.0.extend(player.character.bg);
        self.0.push(player.character.ascii_fallback);
        Ok(())
    }
}

fn check(count: usize, what: &'static str, max: usize) -> Result<(), StateError> {
    if count > max {
        return Err(StateError::Limit {
            what,
            found: count as u64,
            max: max as u64,
        });
    }
    Ok(())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn count(&mut self, what: &'static str, max: usize) -> Result<usize, StateError> {
        let count = self.u32().ok_or(CUT)? as usize;
        check(count, what, max)?;
        Ok(count)
    }

    fn text(&mut self) -> Result<&'a str, StateError> {
        let length = self.array().map(u16::from_le_bytes).ok_or(CUT)?;
        let (text, rest) = self.0.split_at_checked(length.into()).ok_or(CUT)?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| StateError::Damaged("text"))
    }

    fn players(&mut self, what: &'static str, max: usize) -> Result<Vec<Player>, StateError> {
        let count = self.count(what, max)?;
        let mut players = Vec::new();
        for _ in 0..count {
            players.push(self.player()?);
        }
        Ok(players)
    }

    fn player(&mut self) -> Result<Player, StateError> {
        Ok(Player {
            account: self.text()?.into(),
            handle: self.text()?.into(),
            conn: self.text()?.into(),
            kind: Kind::try_from(self.u8().ok_or(CUT)?)
                .map_err(|_| StateError::Damaged("kind of a player"))?,
            character: Character {
                glyph: self.text()?.into(),
                ink: self.array().ok_or(CUT)?,
                bg: self.array().ok_or(CUT)?,
                ascii_fallback: self.u8().ok_or(CUT)?,
            },
        })
    }

    fn post(&mut self, slug: &GameSlug, room: RoomId) -> Result<Post, StateError> {
        let at = self.i64().ok_or(CUT)?;
        let mode = Mode::try_from(self.u8().ok_or(CUT)?)
            .map_err(|_| StateError::Damaged("mode of a post"))?;
        let round_seq = self.u32().ok_or(CUT)?;
        let count = self.count("standings", PLAYERS_MAX)?;
        let mut standings = Vec::new();
        for _ in 0..count {
            standings.push(Standing {
                player: self.player()?,
                metric: self.i64().ok_or(CUT)?,
                rank: self.array().map(u16::from_le_bytes).ok_or(CUT)?,
                status: match self.u8().ok_or(CUT)? {
                    STATUS_UNKNOWN => None,
                    status => Some(
                        Status::try_from(status)
                            .map_err(|_| StateError::Damaged("status of a standing"))?,
                    ),
                },
            });
        }
        let result = RoomResult {
            mode,
            standings,
            round_seq,
        };
        Ok(Post {
            id: PostId::of(slug.as_str(), room, &result),
            slug: Arc::from(slug.as_str()),
            room,
            result,
            at,
        })
    }
}

#[cfg(test)]
mod tests;
