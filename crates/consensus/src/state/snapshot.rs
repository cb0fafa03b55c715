//! The replicated state as bytes: one protobuf message with every list in order, so that equal
//! states have equal bytes.

use bytes::{BufMut, Bytes};
use prost::Message;

use super::command::NodeMsg;
use super::seats::{self, Seat, SeatTable};
use super::sessions::{Kept, KeptResult, SESSIONS_MAX, Session, Sessions, WINDOW};
use super::{Deadline, Replica, Settings};
use crate::game::Malformed;
use crate::ids::{ClientId, PeerId, SessionId};

#[derive(Clone, PartialEq, Message)]
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
}

#[derive(Clone, PartialEq, Message)]
struct SettingsMsg {
    #[prost(bytes = "bytes", tag = "1")]
    session: Bytes,
    #[prost(uint64, tag = "2")]
    session_ttl_ms: u64,
    #[prost(uint64, tag = "3")]
    hash_every: u64,
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
}

/// One remembered result, in a snapshot and in a reply.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct KeptMsg {
    #[prost(uint64, tag = "1")]
    pub serial: u64,
    #[prost(uint64, tag = "2")]
    pub index: u64,
    #[prost(uint64, tag = "3")]
    pub term: u64,
    #[prost(uint64, tag = "4")]
    pub turn: u64,
    /// 0 accepted, 1 refused, 2 fenced, 3 malformed.
    #[prost(uint32, tag = "5")]
    pub result: u32,
    #[prost(bytes = "bytes", tag = "6")]
    pub bytes: Bytes,
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
    pub(crate) fn new(serial: u64, kept: &Kept) -> Self {
        let (result, bytes) = match &kept.result {
            KeptResult::Accepted(bytes) => (0, bytes.clone()),
            KeptResult::Refused(bytes) => (1, bytes.clone()),
            KeptResult::Fenced => (2, Bytes::new()),
            KeptResult::Malformed => (3, Bytes::new()),
        };
        Self {
            serial,
            index: kept.index,
            term: kept.term,
            turn: kept.turn,
            result,
            bytes,
        }
    }

    pub(crate) fn kept(self) -> Result<Kept, Malformed> {
        let result = match self.result {
            0 => KeptResult::Accepted(self.bytes),
            1 => KeptResult::Refused(self.bytes),
            2 => KeptResult::Fenced,
            3 => KeptResult::Malformed,
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
            for (serial, kept) in &session.results {
                put_kept(&mut bytes, *serial, kept);
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
                        .map(|(serial, kept)| KeptMsg::new(*serial, kept))
                        .collect(),
                })
                .collect(),
            deadline_ms: self.deadline.map(|deadline| deadline.at_ms),
            votes: self
                .votes
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
            }),
        };
        self.seats = seats_table(state.seats.ok_or(Malformed)?)?;
        self.sessions = sessions(state.sessions)?;
        self.deadline = state.deadline_ms.map(|at_ms| Deadline {
            turn: state.turn,
            at_ms,
        });
        self.votes.clear();
        for vote in state.votes {
            let node = vote.node.and_then(|n| n.node()).ok_or(Malformed)?;
            let hash = vote.hash[..].try_into().map_err(|_| Malformed)?;
            self.votes.entry(vote.at).or_default().insert(node, hash);
        }
        state.game.ok_or(Malformed)
    }
}

/// What a result with a short answer takes.
const RESULT_BYTES_USUAL: usize = 64;

/// Every field, and the length of the one whose length is not known.
fn put_kept(bytes: &mut Vec<u8>, serial: u64, kept: &Kept) {
    let (tag, result): (u8, &[u8]) = match &kept.result {
        KeptResult::Accepted(outcome) => (0, outcome),
        KeptResult::Refused(refusal) => (1, refusal),
        KeptResult::Fenced => (2, &[]),
        KeptResult::Malformed => (3, &[]),
    };
    for number in [
        serial,
        kept.index,
        kept.term,
        kept.turn,
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

fn sessions(list: Vec<SessionMsg>) -> Result<Sessions, Malformed> {
    if list.len() > SESSIONS_MAX {
        return Err(Malformed);
    }
    let mut table = Sessions::default();
    for msg in list {
        if msg.results.len() as u64 > WINDOW {
            return Err(Malformed);
        }
        let client = ClientId::new(&msg.client).map_err(|_| Malformed)?;
        let mut session = Session {
            owner: PeerId::new(&msg.owner).map_err(|_| Malformed)?,
            generation: msg.generation,
            nonce: msg.nonce,
            highest: msg.highest,
            last_ms: msg.last_ms,
            results: Default::default(),
        };
        for kept in msg.results {
            session.results.insert(kept.serial, kept.kept()?);
        }
        table.silence.insert((msg.last_ms, client.clone()));
        table.clients.insert(client, session);
    }
    Ok(table)
}
