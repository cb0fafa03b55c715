//! The replicated state as bytes: one protobuf message with every list in order, so that equal
//! states have equal bytes.

use std::fmt;

use bytes::{BufMut, Bytes};
use prost::Message;

use super::command::NodeMsg;
use super::seats::{self, Seat, SeatTable};
use super::sessions::{
    Answer, ENDED_PER_OWNER_MAX, Ended, Kept, KeptResult, OWNERS_MAX, Owner, Results,
    SESSION_BYTES_MAX, SESSIONS_MAX, SESSIONS_PER_OWNER_MAX, Session, Sessions, WINDOW,
};
use super::votes::POINTS_MAX;
use super::{Deadline, Replica, Settings};
use crate::game::Malformed;
use crate::hidden::Hidden;
use crate::ids::{ClientId, PeerId, SessionId};
use crate::lobby::proof::Secret;

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct StateMsg {
    #[prost(uint64, tag = "1")]
    now_ms: u64,
    #[prost(uint64, tag = "2")]
    turn: u64,
    #[prost(message, optional, tag = "3")]
    settings: Option<SettingsMsg>,
    #[prost(message, optional, tag = "4")]
    seats: Option<SeatsMsg>,
    #[prost(message, repeated, tag = "5")]
    sessions: Vec<SessionMsg>,
    #[prost(uint64, optional, tag = "6")]
    deadline_ms: Option<u64>,
    #[prost(message, repeated, tag = "7")]
    votes: Vec<VoteMsg>,
    #[prost(bytes = "bytes", optional, tag = "8")]
    game: Option<Bytes>,
    #[prost(message, repeated, tag = "9")]
    ended: Vec<EndedMsg>,
    #[prost(message, repeated, tag = "10")]
    owners: Vec<OwnerMsg>,
}

impl fmt::Debug for StateMsg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMsg")
            .field("now_ms", &self.now_ms)
            .field("turn", &self.turn)
            .field("settings", &self.settings)
            .field("game", &self.game.as_ref().map(|game| Hidden(game.len())))
            .finish_non_exhaustive()
    }
}

/// A session that ended.
#[derive(Clone, PartialEq, Message)]
struct EndedMsg {
    #[prost(string, tag = "1")]
    client: String,
    #[prost(string, tag = "2")]
    owner: String,
    #[prost(uint64, tag = "3")]
    highest: u64,
    #[prost(uint64, tag = "4")]
    last_ms: u64,
}

/// A peer that opened sessions.
#[derive(Clone, PartialEq, Message)]
struct OwnerMsg {
    #[prost(string, tag = "1")]
    peer: String,
    #[prost(uint64, tag = "2")]
    floor: u64,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct SettingsMsg {
    #[prost(bytes = "bytes", tag = "1")]
    session: Bytes,
    #[prost(uint64, tag = "2")]
    session_ttl_ms: u64,
    #[prost(uint64, tag = "3")]
    hash_every: u64,
    #[prost(uint64, tag = "4")]
    outcome_bytes_max: u64,
    #[prost(bytes = "bytes", tag = "5")]
    secret: Bytes,
}

impl fmt::Debug for SettingsMsg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettingsMsg").finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Message)]
struct SeatsMsg {
    #[prost(message, repeated, tag = "1")]
    seats: Vec<SeatMsg>,
    #[prost(message, repeated, tag = "2")]
    gallery: Vec<NodeMsg>,
    #[prost(message, optional, tag = "3")]
    witness: Option<NodeMsg>,
    #[prost(uint32, tag = "4")]
    spectators_max: u32,
    #[prost(bool, tag = "5")]
    wants_witness: bool,
    #[prost(message, repeated, tag = "6")]
    core: Vec<NodeMsg>,
}

#[derive(Clone, PartialEq, Message)]
struct SeatMsg {
    #[prost(message, optional, tag = "1")]
    holder: Option<NodeMsg>,
    #[prost(string, optional, tag = "2")]
    kept_for: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionMsg {
    #[prost(string, tag = "1")]
    client: String,
    #[prost(string, tag = "2")]
    owner: String,
    #[prost(uint64, tag = "3")]
    generation: u64,
    #[prost(uint64, tag = "4")]
    nonce: u64,
    #[prost(uint64, tag = "5")]
    highest: u64,
    #[prost(uint64, tag = "6")]
    last_ms: u64,
    #[prost(message, repeated, tag = "7")]
    results: Vec<KeptMsg>,
    #[prost(uint64, tag = "8")]
    floor: u64,
}

/// One remembered result, in a snapshot and in a reply.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct KeptMsg {
    #[prost(uint64, tag = "1")]
    pub serial: u64,
    #[prost(uint64, tag = "2")]
    pub index: u64,
    #[prost(uint64, tag = "3")]
    pub term: u64,
    #[prost(uint64, tag = "4")]
    pub turn: u64,
    /// 0 accepted, 1 refused, 2 fenced, 3 malformed; 4 accepted and 5 refused without the answer.
    #[prost(uint32, tag = "5")]
    pub result: u32,
    #[prost(bytes = "bytes", tag = "6")]
    pub bytes: Bytes,
    /// The session's generation in which it was decided. Not in a reply.
    #[prost(uint64, tag = "7")]
    pub generation: u64,
    /// Bytes of an answer that is not here.
    #[prost(uint64, tag = "8")]
    pub withheld: u64,
}

impl fmt::Debug for KeptMsg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptMsg")
            .field("serial", &self.serial)
            .field("index", &self.index)
            .field("term", &self.term)
            .field("turn", &self.turn)
            .field("result", &self.result)
            .field("bytes", &Hidden(self.bytes.len()))
            .finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Message)]
struct VoteMsg {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(message, optional, tag = "2")]
    node: Option<NodeMsg>,
    #[prost(bytes = "bytes", tag = "3")]
    hash: Bytes,
}

impl KeptMsg {
    pub(crate) fn new(serial: u64, generation: u64, kept: &Kept) -> Self {
        let mut withheld = 0;
        let (result, bytes) = match &kept.result {
            KeptResult::Accepted(bytes) => (0, bytes.clone()),
            KeptResult::Refused(bytes) => (1, bytes.clone()),
            KeptResult::Fenced => (2, Bytes::new()),
            KeptResult::Malformed => (3, Bytes::new()),
            KeptResult::Withheld { accepted, bytes } => {
                withheld = *bytes;
                (if *accepted { 4 } else { 5 }, Bytes::new())
            }
        };
        Self {
            serial,
            index: kept.index,
            term: kept.term,
            turn: kept.turn,
            result,
            bytes,
            generation,
            withheld,
        }
    }

    pub(crate) fn kept(self) -> Result<Kept, Malformed> {
        let result = match self.result {
            0 => KeptResult::Accepted(self.bytes),
            1 => KeptResult::Refused(self.bytes),
            2 => KeptResult::Fenced,
            3 => KeptResult::Malformed,
            4 | 5 => KeptResult::Withheld {
                accepted: self.result == 4,
                bytes: self.withheld,
            },
            _ => return Err(Malformed),
        };
        Ok(Kept {
            index: self.index,
            term: self.term,
            turn: self.turn,
            result,
        })
    }
}

impl Replica {
    /// The state as bytes.
    pub(super) fn encode(&self) -> Bytes {
        self.message(true).encode_to_vec().into()
    }

    /// What the state's hash is of: the state without its results as one message, then the results.
    /// They are most of it and written as they lie: this is done every so many turns.
    pub(super) fn encode_for_hash(&self) -> Vec<u8> {
        let rest = self.message(false).encode_length_delimited_to_vec();
        let results = self.sessions.clients.values();
        let results: usize = results.map(|session| session.results.len()).sum();
        let mut bytes = Vec::with_capacity(rest.len() + results * RESULT_BYTES_USUAL);
        bytes.put_slice(&rest);
        for session in self.sessions.clients.values() {
            bytes.put_u64_le(session.results.len() as u64);
            for (serial, answer) in session.results.iter() {
                put_answer(&mut bytes, serial, answer);
            }
        }
        bytes
    }

    fn message(&self, results: bool) -> StateMsg {
        StateMsg {
            now_ms: self.now_ms,
            turn: self.turn,
            settings: self.settings.as_ref().map(|settings| SettingsMsg {
                session: settings.session.to_bytes(),
                session_ttl_ms: settings.session_ttl_ms,
                hash_every: settings.hash_every,
                outcome_bytes_max: settings.outcome_bytes_max,
                secret: (settings.secret.as_ref()).map_or_else(Bytes::new, Secret::to_bytes),
            }),
            seats: Some(seats_msg(&self.seats)),
            sessions: self
                .sessions
                .clients
                .iter()
                .map(|(client, session)| SessionMsg {
                    client: client.as_str().to_owned(),
                    owner: session.owner.as_str().to_owned(),
                    generation: session.generation,
                    nonce: session.nonce,
                    highest: session.highest,
                    last_ms: session.last_ms,
                    results: session
                        .results
                        .iter()
                        .take(if results { usize::MAX } else { 0 })
                        .map(|(serial, answer)| {
                            KeptMsg::new(serial, answer.generation, &answer.kept)
                        })
                        .collect(),
                    floor: session.floor,
                })
                .collect(),
            deadline_ms: self.deadline.map(|deadline| deadline.at_ms),
            ended: self
                .sessions
                .ended
                .iter()
                .map(|(client, ended)| EndedMsg {
                    client: client.as_str().to_owned(),
                    owner: ended.owner.as_str().to_owned(),
                    highest: ended.highest,
                    last_ms: ended.last_ms,
                })
                .collect(),
            owners: self
                .sessions
                .owners
                .iter()
                .map(|(peer, owner)| OwnerMsg {
                    peer: peer.as_str().to_owned(),
                    floor: owner.floor,
                })
                .collect(),
            votes: self
                .votes
                .cast
                .iter()
                .flat_map(|(at, votes)| {
                    votes.iter().map(|(node, hash)| VoteMsg {
                        at: *at,
                        node: Some(node.into()),
                        hash: Bytes::copy_from_slice(hash),
                    })
                })
                .collect(),
            game: self.game.snapshot(),
        }
    }

    /// Takes over everything but the game, whose own bytes are the answer.
    pub(super) fn decode(&mut self, state: &[u8]) -> Result<Bytes, Malformed> {
        let state = StateMsg::decode(state).map_err(|_| Malformed)?;
        self.now_ms = state.now_ms;
        self.turn = state.turn;
        self.settings = match state.settings {
            None => None,
            Some(settings) => Some(Settings {
                session: SessionId::from_bytes(&settings.session).ok_or(Malformed)?,
                session_ttl_ms: settings.session_ttl_ms,
                hash_every: settings.hash_every,
                outcome_bytes_max: settings.outcome_bytes_max.min(SESSION_BYTES_MAX as u64),
                secret: Secret::from_bytes(&settings.secret),
            }),
        };
        self.seats = seats_table(state.seats.ok_or(Malformed)?)?;
        self.sessions = sessions(state.sessions, state.ended, state.owners)?;
        self.deadline = state.deadline_ms.map(|at_ms| Deadline {
            turn: state.turn,
            at_ms,
        });
        let votes = &mut self.votes.cast;
        votes.clear();
        for vote in state.votes {
            let node = vote.node.and_then(|n| n.node()).ok_or(Malformed)?;
            let hash = vote.hash[..].try_into().map_err(|_| Malformed)?;
            votes.entry(vote.at).or_default().insert(node, hash);
        }
        if votes.len() as u64 > POINTS_MAX {
            return Err(Malformed);
        }
        state.game.ok_or(Malformed)
    }
}

/// What a result with a short answer takes.
const RESULT_BYTES_USUAL: usize = 64;

/// Every field, and the length of the one whose length is not known.
fn put_answer(bytes: &mut Vec<u8>, serial: u64, answer: &Answer) {
    let kept = &answer.kept;
    let mut withheld = 0;
    let (tag, result): (u8, &[u8]) = match &kept.result {
        KeptResult::Accepted(outcome) => (0, outcome),
        KeptResult::Refused(refusal) => (1, refusal),
        KeptResult::Fenced => (2, &[]),
        KeptResult::Malformed => (3, &[]),
        KeptResult::Withheld { accepted, bytes } => {
            withheld = *bytes;
            (if *accepted { 4 } else { 5 }, &[])
        }
    };
    for number in [
        serial,
        kept.index,
        kept.term,
        kept.turn,
        answer.generation,
        withheld,
        result.len() as u64,
    ] {
        bytes.put_u64_le(number);
    }
    bytes.put_u8(tag);
    bytes.put_slice(result);
}

fn seats_msg(table: &SeatTable) -> SeatsMsg {
    SeatsMsg {
        seats: table
            .seats
            .iter()
            .map(|seat| SeatMsg {
                holder: seat.holder.as_ref().map(NodeMsg::from),
                kept_for: seat.kept_for.as_ref().map(|peer| peer.as_str().to_owned()),
            })
            .collect(),
        gallery: table
            .gallery
            .iter()
            .map(|(peer, incarnation)| NodeMsg {
                peer: peer.as_str().to_owned(),
                incarnation: incarnation.0,
            })
            .collect(),
        witness: table.witness.as_ref().map(NodeMsg::from),
        spectators_max: table.spectators_max,
        wants_witness: table.wants_witness,
        core: table.core.iter().map(NodeMsg::from).collect(),
    }
}

fn seats_table(msg: SeatsMsg) -> Result<SeatTable, Malformed> {
    if msg.seats.len() > seats::SEATS_MAX as usize
        || msg.gallery.len() > seats::SPECTATORS_MAX as usize
        || msg.core.len() > seats::CORE_MAX as usize
    {
        return Err(Malformed);
    }
    let node = |msg: NodeMsg| msg.node().ok_or(Malformed);
    let mut table = SeatTable {
        spectators_max: msg.spectators_max,
        wants_witness: msg.wants_witness,
        witness: msg.witness.map(node).transpose()?,
        ..SeatTable::default()
    };
    for seat in msg.seats {
        let kept_for = seat
            .kept_for
            .map(|peer| PeerId::new(peer).map_err(|_| Malformed))
            .transpose()?;
        table.seats.push(Seat {
            holder: seat.holder.map(node).transpose()?,
            kept_for,
        });
    }
    for watcher in msg.gallery {
        let watcher = node(watcher)?;
        table.gallery.insert(watcher.peer, watcher.incarnation);
    }
    for server in msg.core {
        table.core.insert(node(server)?);
    }
    Ok(table)
}

fn sessions(
    list: Vec<SessionMsg>,
    ended: Vec<EndedMsg>,
    owners: Vec<OwnerMsg>,
) -> Result<Sessions, Malformed> {
    if list.len() > SESSIONS_MAX || owners.len() > OWNERS_MAX {
        return Err(Malformed);
    }
    let peer = |name: &str| PeerId::new(name).map_err(|_| Malformed);
    let mut table = Sessions::default();
    for msg in owners {
        let owner = Owner {
            floor: msg.floor,
            ..Owner::default()
        };
        table.owners.insert(peer(&msg.peer)?, owner);
    }
    for msg in ended {
        let client = ClientId::new(&msg.client).map_err(|_| Malformed)?;
        let ended = Ended {
            owner: peer(&msg.owner)?,
            highest: msg.highest,
            last_ms: msg.last_ms,
        };
        let owner = table.owners.get_mut(&ended.owner).ok_or(Malformed)?;
        owner.ended.insert((msg.last_ms, client.clone()));
        if owner.ended.len() > ENDED_PER_OWNER_MAX {
            return Err(Malformed);
        }
        table.ended.insert(client, ended);
    }
    for msg in list {
        if msg.results.len() as u64 > WINDOW {
            return Err(Malformed);
        }
        let client = ClientId::new(&msg.client).map_err(|_| Malformed)?;
        let mut session = Session {
            owner: peer(&msg.owner)?,
            generation: msg.generation,
            nonce: msg.nonce,
            highest: msg.highest,
            floor: msg.floor,
            last_ms: msg.last_ms,
            results: Results::default(),
        };
        for kept in msg.results {
            let (serial, generation) = (kept.serial, kept.generation);
            let kept = kept.kept()?;
            let kept = session.results.insert(serial, Answer { generation, kept });
            // One that is too old would keep a later one out.
            let highest = session.highest;
            if !kept || serial > highest || serial + WINDOW <= highest {
                return Err(Malformed);
            }
        }
        let owner = table.owners.get_mut(&session.owner).ok_or(Malformed)?;
        owner.open += 1;
        if owner.open > SESSIONS_PER_OWNER_MAX || session.results.bytes() > SESSION_BYTES_MAX {
            return Err(Malformed);
        }
        table.insert(client, session);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hidden::tests::{SECRET, hides_it};

    #[test]
    fn a_state_shows_neither_the_secret_nor_the_game() {
        let settings = SettingsMsg {
            secret: Bytes::from_static(SECRET),
            ..SettingsMsg::default()
        };
        hides_it(&settings);
        let state = StateMsg {
            turn: 77,
            settings: Some(settings),
            game: Some(Bytes::from_static(SECRET)),
            ..StateMsg::default()
        };
        hides_it(&state);
        let shown = format!("{state:?}");
        assert!(
            shown.contains("77") && shown.contains("32 bytes"),
            "{shown}"
        );
    }

    fn is_read(highest: u64, serials: &[u64]) -> bool {
        let result = |serial: &u64| KeptMsg {
            serial: *serial,
            ..KeptMsg::default()
        };
        let session = SessionMsg {
            client: "ann".to_owned(),
            owner: "ann".to_owned(),
            highest,
            results: serials.iter().map(result).collect(),
            ..SessionMsg::default()
        };
        let owner = OwnerMsg {
            peer: "ann".to_owned(),
            ..OwnerMsg::default()
        };
        sessions(vec![session], Vec::new(), vec![owner]).is_ok()
    }

    #[test]
    fn results_in_the_window_are_read_and_one_past_either_end_of_it_is_not() {
        assert!(is_read(WINDOW, &[1, WINDOW]));
        assert!(!is_read(WINDOW + 1, &[1, WINDOW + 1]));
        assert!(!is_read(WINDOW + 1, &[1]));
        assert!(is_read(5, &[5]));
        assert!(!is_read(4, &[5]));
        assert!(!is_read(u64::MAX, &[u64::MAX]));
    }
}
