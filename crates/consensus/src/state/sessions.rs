//! Who has proposed what: the table that makes an action happen once.
//!
//! It is part of the replicated state, so every node and every later leader has the same one.
//!
//! Invariants
//! - a serial is applied at most once per client, whatever order, repetition or leader its
//!   requests come by;
//! - of each client the results of the last [`WINDOW`] serials are kept, so that a repeated request
//!   gets the first answer; an older serial is refused, never applied;
//! - a session ends when its client was silent for the time to live, on the game's clock, at a
//!   place in the log: the same on every node. A request of an ended session is refused.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::{ClientId, PeerId};

/// Serials of a client whose results are remembered. A client has fewer requests than this under
/// way, so an older one was answered or given up.
pub const WINDOW: u64 = 2048;

/// Highest serial of an action.
pub const SERIAL_MAX: u64 = u64::MAX / 2;

/// Most sessions at a time. Past it, the one silent for longest ends when another is opened.
pub const SESSIONS_MAX: usize = 512;

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
    /// The client's session belongs to another peer.
    #[error("the client id belongs to another peer")]
    NotYours,
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
    pub last_ms: u64,
    pub results: BTreeMap<u64, Kept>,
}

/// The replicated table of clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sessions {
    pub(crate) clients: BTreeMap<ClientId, Session>,
    /// Who was heard when, oldest first: what expiry walks.
    pub(crate) silence: std::collections::BTreeSet<(u64, ClientId)>,
}

/// A session that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// What an action of this session carries.
    pub generation: u64,
    /// The next serial nobody used.
    pub next_serial: u64,
}

impl Sessions {
    /// Begins a session at entry `index`, or continues the client's own: its serials go on. The
    /// same `nonce` again changes nothing.
    ///
    /// # Errors
    ///
    /// [`Rejection::NotYours`] when another peer owns the client id.
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
            self.touch(client, now_ms);
            return Ok(opened);
        }
        while self.clients.len() >= SESSIONS_MAX {
            let Some((_, oldest)) = self.silence.pop_first() else {
                break;
            };
            self.clients.remove(&oldest);
        }
        self.silence.insert((now_ms, client.clone()));
        self.clients.insert(
            client.clone(),
            Session {
                owner: owner.clone(),
                generation: index,
                nonce,
                highest: 0,
                last_ms: now_ms,
                results: BTreeMap::new(),
            },
        );
        Ok(Opened {
            generation: index,
            next_serial: 1,
        })
    }

    /// Whether a request is to be applied.
    pub fn admit(
        &mut self,
        client: &ClientId,
        generation: u64,
        serial: u64,
        now_ms: u64,
    ) -> Admission {
        let Some(session) = self.clients.get(client) else {
            return Admission::Rejected(Rejection::NoSession);
        };
        // What was decided is decided, whichever process of the client asks.
        if let Some(kept) = session.results.get(&serial) {
            let kept = kept.clone();
            self.touch(client, now_ms);
            return Admission::Duplicate(kept);
        }
        if session.generation != generation {
            return Admission::Rejected(Rejection::Superseded);
        }
        if serial == 0 || serial > SERIAL_MAX || serial + WINDOW <= session.highest {
            return Admission::Rejected(Rejection::TooOld);
        }
        self.touch(client, now_ms);
        Admission::Apply
    }

    /// Remembers what became of a request that [`Sessions::admit`] let through.
    pub fn keep(&mut self, client: &ClientId, serial: u64, kept: Kept) {
        let Some(session) = self.clients.get_mut(client) else {
            return;
        };
        session.results.insert(serial, kept);
        if serial > session.highest {
            session.highest = serial;
            while let Some(first) = session.results.first_entry()
                && *first.key() + WINDOW <= serial
            {
                first.remove();
            }
        }
    }

    /// Ends the sessions of clients that were silent since before `now_ms - ttl_ms`.
    pub fn expire(&mut self, now_ms: u64, ttl_ms: u64) {
        while let Some((last, _)) = self.silence.first()
            && last.saturating_add(ttl_ms) < now_ms
        {
            let Some((_, client)) = self.silence.pop_first() else {
                break;
            };
            self.clients.remove(&client);
        }
    }

    /// The client of this name, if it has a session: its name was checked when it got that.
    pub(crate) fn known(&self, client: &str) -> Option<ClientId> {
        let (known, _) = self.clients.get_key_value(client)?;
        Some(known.clone())
    }

    /// The peer that opened the client's session, if there is one.
    #[must_use]
    pub fn owner(&self, client: &ClientId) -> Option<&PeerId> {
        self.clients.get(client).map(|session| &session.owner)
    }

    /// What became of an action, while it is remembered.
    #[must_use]
    pub fn result(&self, client: &ClientId, serial: u64) -> Option<&Kept> {
        self.clients.get(client)?.results.get(&serial)
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

    fn touch(&mut self, client: &ClientId, now_ms: u64) {
        if let Some(session) = self.clients.get_mut(client)
            && session.last_ms != now_ms
        {
            self.silence.remove(&(session.last_ms, client.clone()));
            session.last_ms = now_ms;
            self.silence.insert((now_ms, client.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client() -> ClientId {
        ClientId::new("ann").unwrap()
    }

    fn owner() -> PeerId {
        PeerId::new("ann").unwrap()
    }

    fn kept(index: u64) -> Kept {
        Kept {
            index,
            term: 1,
            turn: index,
            result: KeptResult::Accepted(Bytes::new()),
        }
    }

    fn opened() -> (Sessions, u64) {
        let mut table = Sessions::default();
        let open = table.open(&client(), &owner(), 7, 3, 0).unwrap();
        assert_eq!((open.generation, open.next_serial), (3, 1));
        (table, open.generation)
    }

    #[test]
    fn a_request_is_applied_once_and_its_repetition_gets_the_first_answer() {
        let (mut table, session) = opened();
        assert_eq!(table.admit(&client(), session, 1, 0), Admission::Apply);
        table.keep(&client(), 1, kept(4));
        assert_eq!(
            table.admit(&client(), session, 1, 0),
            Admission::Duplicate(kept(4))
        );
    }

    #[test]
    fn an_older_request_that_comes_late_is_applied_all_the_same() {
        let (mut table, session) = opened();
        for serial in [3, 1, 2] {
            assert_eq!(table.admit(&client(), session, serial, 0), Admission::Apply);
            table.keep(&client(), serial, kept(serial));
        }
        assert_eq!(
            table.admit(&client(), session, 1, 0),
            Admission::Duplicate(kept(1))
        );
    }

    #[test]
    fn the_window_holds_its_limit_and_one_older_is_refused_not_applied() {
        let (mut table, session) = opened();
        table.admit(&client(), session, WINDOW + 1, 0);
        table.keep(&client(), WINDOW + 1, kept(9));
        assert_eq!(table.admit(&client(), session, 2, 0), Admission::Apply);
        assert_eq!(
            table.admit(&client(), session, 1, 0),
            Admission::Rejected(Rejection::TooOld)
        );
        assert_eq!(
            table.admit(&client(), session, 0, 0),
            Admission::Rejected(Rejection::TooOld)
        );
    }

    #[test]
    fn the_highest_serial_is_taken_and_one_higher_is_refused() {
        let (mut table, session) = opened();
        assert_eq!(
            table.admit(&client(), session, SERIAL_MAX + 1, 0),
            Admission::Rejected(Rejection::TooOld)
        );
        assert_eq!(
            table.admit(&client(), session, u64::MAX, 0),
            Admission::Rejected(Rejection::TooOld)
        );
        assert_eq!(
            table.admit(&client(), session, SERIAL_MAX, 0),
            Admission::Apply
        );
        table.keep(&client(), SERIAL_MAX, kept(4));
        let again = table.open(&client(), &owner(), 8, 6, 0).unwrap();
        assert_eq!(again.next_serial, SERIAL_MAX + 1);
    }

    #[test]
    fn a_client_that_comes_back_goes_on_and_shuts_its_former_self_out() {
        let (mut table, old) = opened();
        table.admit(&client(), old, 1, 0);
        table.keep(&client(), 1, kept(4));
        let again = table.open(&client(), &owner(), 7, 5, 0).unwrap();
        assert_eq!((again.generation, again.next_serial), (old, 2));
        let new = table.open(&client(), &owner(), 8, 6, 0).unwrap();
        assert_eq!((new.generation, new.next_serial), (6, 2));
        assert_eq!(
            table.admit(&client(), old, 2, 0),
            Admission::Rejected(Rejection::Superseded)
        );
        assert_eq!(
            table.admit(&client(), new.generation, 1, 0),
            Admission::Duplicate(kept(4))
        );
        let thief = table.open(&client(), &PeerId::new("bob").unwrap(), 9, 7, 0);
        assert_eq!(thief, Err(Rejection::NotYours));
    }

    #[test]
    fn a_silent_client_is_forgotten_one_past_its_time_and_refused_then() {
        let (mut table, session) = opened();
        table.expire(1000, 1000);
        assert_eq!(table.len(), 1);
        table.expire(1001, 1000);
        assert!(table.is_empty());
        assert_eq!(
            table.admit(&client(), session, 1, 1001),
            Admission::Rejected(Rejection::NoSession)
        );
    }

    #[test]
    fn a_client_that_speaks_is_not_forgotten() {
        let (mut table, session) = opened();
        table.admit(&client(), session, 1, 900);
        table.expire(1800, 1000);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn the_most_sessions_fit_and_one_more_ends_the_most_silent() {
        let mut table = Sessions::default();
        let name = |n: usize| ClientId::new(format!("c{n}")).unwrap();
        for n in 0..SESSIONS_MAX {
            table.open(&name(n), &owner(), 1, 1, n as u64).unwrap();
        }
        assert!(table.owner(&name(0)).is_some());
        table
            .open(&name(SESSIONS_MAX), &owner(), 1, 1, 1_000_000)
            .unwrap();
        assert_eq!(table.len(), SESSIONS_MAX);
        assert!(table.owner(&name(0)).is_none());
        assert!(table.owner(&name(1)).is_some());
    }

    proptest! {
        /// Any order and repetition of requests within the window applies each once.
        #[test]
        fn each_serial_is_applied_at_most_once(
            requests in proptest::collection::vec((1u64..600, 0u8..2), 1..400),
        ) {
            let (mut table, session) = opened();
            let mut applied = BTreeMap::new();
            let mut highest = 0;
            for (n, (serial, _)) in requests.into_iter().enumerate() {
                match table.admit(&client(), session, serial, n as u64) {
                    Admission::Apply => {
                        prop_assert!(!applied.contains_key(&serial), "{serial} twice");
                        applied.insert(serial, n as u64);
                        table.keep(&client(), serial, kept(n as u64));
                        highest = highest.max(serial);
                    }
                    Admission::Duplicate(kept) => {
                        prop_assert_eq!(applied.get(&serial), Some(&kept.index));
                    }
                    Admission::Rejected(why) => {
                        prop_assert_eq!(why, Rejection::TooOld);
                        prop_assert!(serial + WINDOW <= highest);
                    }
                }
            }
        }
    }
}
