//! Who has proposed what: the table that makes an action happen once.
//!
//! It is part of the replicated state, so every node and every later leader has the same one.
//!
//! Invariants
//! - a serial is applied at most once per client and owner, whatever order, repetition, process or
//!   leader its requests come by, and whatever of this table was forgotten meanwhile;
//! - of each client the results of the last [`WINDOW`] serials are kept, so that a repeated request
//!   gets the first answer; an older serial is refused, never applied. A process never gets the
//!   answer of one that came after it;
//! - a session ends when its client was silent for the time to live, on the game's clock, or when
//!   its owner opens one more than it may have: at a place in the log, the same on every node. What
//!   one owner does ends no session of another;
//! - of an ended session the highest serial is remembered. A serial up to it is refused when the
//!   client comes back: what became of it is not known any more.
//!
//! What is bounded, and what happens past it
//! - [`SESSIONS_PER_OWNER_MAX`]: the owner's most silent session ends;
//! - [`SESSIONS_MAX`] and [`OWNERS_MAX`]: nobody new is let in ([`Rejection::Full`]);
//! - [`ENDED_PER_OWNER_MAX`]: of the one that ended longest ago only the owner's floor is left: a
//!   client the table does not know begins above the highest serial that was forgotten of its
//!   owner;
//! - [`SESSION_BYTES_MAX`]: the oldest answers are withheld, what was decided is not.

mod results;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::ids::{ClientId, PeerId};

pub(crate) use results::Results;

/// Serials of a client whose results are remembered. A client has fewer requests than this under
/// way, so an older one was answered or given up.
pub const WINDOW: u64 = 2048;

/// Highest serial of an action.
pub const SERIAL_MAX: u64 = u64::MAX / 2;

/// Most sessions at a time. Past it nobody opens another who has none to end.
pub const SESSIONS_MAX: usize = 512;

/// Most sessions one peer has at a time. Past it, its own that was silent for longest ends.
pub const SESSIONS_PER_OWNER_MAX: usize = 8;

/// Most peers the table remembers: those with a session, and those that ever proposed.
pub const OWNERS_MAX: usize = 4096;

/// Ended sessions remembered one by one for each owner.
pub const ENDED_PER_OWNER_MAX: usize = 16;

/// Bytes of answers kept for one session.
pub const SESSION_BYTES_MAX: usize = 128 << 10;

/// What a client's id begins with that its node named itself; the rest is the node.
pub(crate) const AUTOMATIC: &str = "auto:";

/// What became of an action: kept for whoever asks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Index of the entry that decided.
    pub index: u64,
    /// Term of the entry that decided.
    pub term: u64,
    /// The turn after it.
    pub turn: u64,
    /// What was decided.
    pub result: KeptResult,
}

/// What was decided about an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptResult {
    /// It took place; the game's outcome.
    Accepted(Bytes),
    /// The rules refused it; the game's refusal.
    Refused(Bytes),
    /// It was meant for another turn.
    Fenced,
    /// Its bytes are no action of the game.
    Malformed,
    /// It was decided; the game's answer was too large to keep, or had to make room.
    Withheld {
        /// Whether it took place.
        accepted: bool,
        /// Bytes the answer had.
        bytes: u64,
    },
}

impl KeptResult {
    fn bytes(&self) -> usize {
        match self {
            Self::Accepted(bytes) | Self::Refused(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// The same without the game's answer.
    fn withheld(&self) -> Self {
        match self {
            Self::Accepted(bytes) | Self::Refused(bytes) => Self::Withheld {
                accepted: matches!(self, Self::Accepted(_)),
                bytes: bytes.len() as u64,
            },
            other => other.clone(),
        }
    }
}

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// New: apply it, then [`Sessions::keep`] the result.
    Apply,
    /// Applied before: this is what was answered.
    Duplicate(Kept),
    /// Not applied now, and never will be under this key.
    Rejected(Rejection),
}

/// Why a request was not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// The client has no session, or it ended.
    #[error("the client's session has ended")]
    NoSession,
    /// A later process opened the client's session.
    #[error("another process took over this client id")]
    Superseded,
    /// The serial is so old that what became of it is forgotten.
    #[error("the serial is older than the last {WINDOW}")]
    TooOld,
    /// The serial belongs to a session of the client that ended: what became of it is forgotten.
    #[error("the serial is of a session that ended")]
    Expired,
    /// The client's session belongs to another peer.
    #[error("the client id belongs to another peer")]
    NotYours,
    /// There are as many sessions as may be.
    #[error("the session table is full")]
    Full,
    /// The action is larger than the leader takes.
    #[error("the leader takes actions of at most {max} bytes")]
    TooLarge {
        /// Bytes allowed.
        max: u64,
    },
    /// The entry is not a command.
    #[error("the entry is not a command")]
    Malformed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub owner: PeerId,
    /// Index of the entry that opened it last.
    pub generation: u64,
    pub nonce: u64,
    pub highest: u64,
    /// Serials up to here are of sessions that ended.
    pub floor: u64,
    pub last_ms: u64,
    pub results: Results,
}

/// A result, and the session's generation in which it was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub generation: u64,
    pub kept: Kept,
}

/// What is left of a session that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub owner: PeerId,
    pub highest: u64,
    /// When its client was last heard.
    pub last_ms: u64,
}

/// What is known of a peer that opened sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Above every serial of its sessions that were forgotten.
    pub floor: u64,
    /// Sessions it has.
    pub open: usize,
    /// Its ended sessions that are remembered, the longest silent first.
    pub ended: BTreeSet<(u64, ClientId)>,
}

/// The replicated table of clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sessions {
    pub(crate) clients: BTreeMap<ClientId, Session>,
    pub(crate) ended: BTreeMap<ClientId, Ended>,
    pub(crate) owners: BTreeMap<PeerId, Owner>,
    /// Who was heard when, oldest first: what expiry walks.
    silence: BTreeSet<(u64, ClientId)>,
}

/// A session that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// What an action of this session carries.
    pub generation: u64,
    /// The next serial nobody used.
    pub next_serial: u64,
}

/// Whether an id is of those that nodes name themselves by, and not one of this peer's.
fn is_another_nodes(client: &ClientId, owner: &PeerId) -> bool {
    client
        .as_str()
        .strip_prefix(AUTOMATIC)
        .is_some_and(|node| node.rsplit_once('/').map(|(peer, _)| peer) != Some(owner.as_str()))
}

impl Sessions {
    /// Begins a session at entry `index`, or continues the client's own: its serials go on, also
    /// those of one that ended. The same `nonce` again changes nothing.
    ///
    /// # Errors
    ///
    /// [`Rejection::NotYours`] when another peer owns the client id, [`Rejection::Full`] when there
    /// is no room for another. Nothing changed then.
    pub fn open(
        &mut self,
        client: &ClientId,
        owner: &PeerId,
        nonce: u64,
        index: u64,
        now_ms: u64,
    ) -> Result<Opened, Rejection> {
        if let Some(session) = self.clients.get_mut(client) {
            if session.owner != *owner {
                return Err(Rejection::NotYours);
            }
            if session.nonce != nonce {
                session.nonce = nonce;
                session.generation = index;
            }
            let opened = Opened {
                generation: session.generation,
                next_serial: session.highest + 1,
            };
            touch(&mut self.silence, client, session, now_ms);
            return Ok(opened);
        }
        let ended = self.ended.get(client);
        if is_another_nodes(client, owner) || ended.is_some_and(|ended| ended.owner != *owner) {
            return Err(Rejection::NotYours);
        }
        let open = match self.owners.get(owner) {
            Some(known) => known.open,
            None if self.owners.len() >= OWNERS_MAX => return Err(Rejection::Full),
            None => 0,
        };
        if open < SESSIONS_PER_OWNER_MAX && self.clients.len() >= SESSIONS_MAX {
            return Err(Rejection::Full);
        }
        // Before anything of this owner is forgotten: what is known of this client counts.
        let mut floor = self.owners.get(owner).map_or(0, |known| known.floor);
        if let Some(ended) = self.ended.remove(client) {
            floor = ended.highest;
            if let Some(known) = self.owners.get_mut(owner) {
                known.ended.remove(&(ended.last_ms, client.clone()));
            }
        }
        // Known from here on, so that ending its oldest session does not forget it.
        self.owners.entry(owner.clone()).or_default().open += 1;
        if open >= SESSIONS_PER_OWNER_MAX {
            let of_owner = |name: &ClientId| {
                let session = self.clients.get(name);
                session.is_some_and(|session| session.owner == *owner)
            };
            let oldest = self.silence.iter().find(|(_, name)| of_owner(name));
            if let Some((_, oldest)) = oldest.cloned() {
                self.end(&oldest);
            }
        }
        self.insert(
            client.clone(),
            Session {
                owner: owner.clone(),
                generation: index,
                nonce,
                highest: floor,
                floor,
                last_ms: now_ms,
                results: Results::default(),
            },
        );
        Ok(Opened {
            generation: index,
            next_serial: floor + 1,
        })
    }

    /// Whether a request that came from `owner` is to be applied.
    pub fn admit(
        &mut self,
        client: &ClientId,
        owner: &PeerId,
        generation: u64,
        serial: u64,
        now_ms: u64,
    ) -> Admission {
        let Some(session) = self.clients.get_mut(client) else {
            return Admission::Rejected(Rejection::NoSession);
        };
        if session.owner != *owner {
            return Admission::Rejected(Rejection::NotYours);
        }
        let admission = match session.results.get(serial) {
            // What was decided is decided, and a later process of the client may ask. A former one
            // means another action by this number.
            Some(answer) if answer.generation > generation => {
                return Admission::Rejected(Rejection::Superseded);
            }
            Some(answer) => Admission::Duplicate(answer.kept.clone()),
            None if session.generation != generation => {
                return Admission::Rejected(Rejection::Superseded);
            }
            None if serial != 0 && serial <= session.floor => {
                return Admission::Rejected(Rejection::Expired);
            }
            None if serial == 0 || serial > SERIAL_MAX || serial + WINDOW <= session.highest => {
                return Admission::Rejected(Rejection::TooOld);
            }
            None => Admission::Apply,
        };
        touch(&mut self.silence, client, session, now_ms);
        admission
    }

    /// Remembers what became of a request that [`Sessions::admit`] let through.
    pub fn keep(&mut self, client: &ClientId, serial: u64, kept: Kept) {
        let Some(session) = self.clients.get_mut(client) else {
            return;
        };
        if serial > session.highest {
            session.highest = serial;
            let oldest = (serial + 1).saturating_sub(WINDOW);
            session.results.forget_before(oldest);
        }
        let generation = session.generation;
        let kept = session.results.insert(serial, Answer { generation, kept });
        debug_assert!(kept, "it was let through, and so is in the window");
        session.results.withhold();
    }

    /// Ends the sessions of clients that were silent since before `now_ms - ttl_ms`.
    pub fn expire(&mut self, now_ms: u64, ttl_ms: u64) {
        let ends = |last: u64| last.saturating_add(ttl_ms) < now_ms;
        while self.silence.first().is_some_and(|(last, _)| ends(*last))
            && let Some((_, client)) = self.silence.first().cloned()
        {
            self.end(&client);
        }
    }

    /// The client and the owner of these names, if they are names. Those of a session were checked
    /// when it was opened.
    pub(crate) fn names(&self, client: &str, owner: &str) -> Option<(ClientId, PeerId)> {
        let Some((known, session)) = self.clients.get_key_value(client) else {
            return Some((ClientId::new(client).ok()?, PeerId::new(owner).ok()?));
        };
        let owner = if session.owner.as_str() == owner {
            session.owner.clone()
        } else {
            PeerId::new(owner).ok()?
        };
        Some((known.clone(), owner))
    }

    /// The peer that opened the client's session, if there is one.
    #[must_use]
    pub fn owner(&self, client: &ClientId) -> Option<&PeerId> {
        self.clients.get(client).map(|session| &session.owner)
    }

    /// What became of an action, while it is remembered.
    #[must_use]
    pub fn result(&self, client: &ClientId, serial: u64) -> Option<&Kept> {
        let session = self.clients.get(client)?;
        session.results.get(serial).map(|answer| &answer.kept)
    }

    /// How many clients have a session.
    #[must_use]
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether no client has a session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Adds a session; its owner counts it already.
    pub(super) fn insert(&mut self, client: ClientId, session: Session) {
        self.silence.insert((session.last_ms, client.clone()));
        self.clients.insert(client, session);
    }

    /// Ends a session, remembering the highest serial that may have been applied in it.
    fn end(&mut self, client: &ClientId) {
        let Some(session) = self.clients.remove(client) else {
            return;
        };
        self.silence.remove(&(session.last_ms, client.clone()));
        let Some(owner) = self.owners.get_mut(&session.owner) else {
            return;
        };
        owner.open = owner.open.saturating_sub(1);
        if session.highest > owner.floor {
            owner.ended.insert((session.last_ms, client.clone()));
            let ended = Ended {
                owner: session.owner.clone(),
                highest: session.highest,
                last_ms: session.last_ms,
            };
            self.ended.insert(client.clone(), ended);
        }
        while owner.ended.len() > ENDED_PER_OWNER_MAX
            && let Some((_, oldest)) = owner.ended.pop_first()
        {
            if let Some(forgotten) = self.ended.remove(&oldest) {
                owner.floor = owner.floor.max(forgotten.highest);
            }
        }
        if owner.open == 0 && owner.floor == 0 && owner.ended.is_empty() {
            self.owners.remove(&session.owner);
        }
    }
}

/// Notes when the client was last heard.
fn touch(
    silence: &mut BTreeSet<(u64, ClientId)>,
    client: &ClientId,
    session: &mut Session,
    now_ms: u64,
) {
    if session.last_ms == now_ms {
        return;
    }
    // The name is taken from the set and put back with another time.
    let name = silence.take(&(session.last_ms, client.clone()));
    let (_, name) = name.unwrap_or_else(|| (0, client.clone()));
    session.last_ms = now_ms;
    silence.insert((now_ms, name));
}
