//! The messages of the lobby lane, checked as they are read.
//!
//! Invariants
//! - a [`LobbyMsg`] that came out of [`decode`] is sound: its names are names, its session has 16
//!   bytes, and the node that announces, claims or gives up belongs to the peer it came from;
//! - what [`encode`] makes, [`decode`] takes: both sides hold the same limits;
//! - fields are only ever added.

use bytes::Bytes;
use prost::Message;

use super::proof::{PROOF_BYTES, Proof};
use crate::ids::{NodeId, PeerId, SessionId};
use crate::state::command::{Kind, NodeMsg};
use crate::state::seats::NoPlace;

/// Longest frame of the lobby lane, in bytes.
pub(crate) const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Most members an answer lists.
pub(crate) const MEMBERS_MAX: usize = 512;

/// A frame of the lobby lane that is not one, or a message that cannot become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum LobbyError {
    /// The frame is too long.
    #[error("a lobby frame has at most {max} bytes, this one has {len}: drop it")]
    TooLong { len: usize, max: usize },
    /// The bytes are no protobuf.
    #[error("the lobby frame cannot be read, drop it: {0}")]
    Unreadable(#[from] prost::DecodeError),
    /// The message is of a kind this program does not know.
    #[error("the lobby frame holds no message known here: drop it, its sender may be newer")]
    Unknown,
    /// A field that must be there is not.
    #[error("the lobby message has no {field}: drop it")]
    Missing { field: &'static str },
    /// A name is none.
    #[error("the {field} of the lobby message is not a node's name: drop it")]
    Name { field: &'static str },
    /// A session's id does not have its length.
    #[error("a session id has 16 bytes, this one has {len}: drop the message")]
    Session { len: usize },
    /// A number names nothing.
    #[error("{value} is no {field}: drop the message, its sender may be newer")]
    Value { field: &'static str, value: i32 },
    /// An answer lists too many members.
    #[error("an answer lists at most {max} members, this one {len}: list fewer")]
    Members { len: usize, max: usize },
    /// A proof does not have its length.
    #[error("a proof has {PROOF_BYTES} bytes, this one has {len}: drop the message")]
    Proof { len: usize },
    /// The node is another peer's.
    #[error("{from} spoke for {named}: drop the message and count it against {from}")]
    NotItsOwn { from: PeerId, named: NodeId },
}

/// What the leader, or a node that knows better, answers an announcement with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Verdict {
    Welcome = 0,
    RosterFull = 1,
    GalleryFull = 2,
    NoWitness = 3,
    Superseded = 4,
    WrongSession = 5,
    NotOpen = 6,
    CoreVotes = 7,
    LogLost = 8,
}

impl Verdict {
    /// Why there is no place, where that is what it says.
    pub(crate) fn no_place(self) -> Option<NoPlace> {
        match self {
            Self::RosterFull => Some(NoPlace::RosterFull),
            Self::GalleryFull => Some(NoPlace::GalleryFull),
            Self::NoWitness => Some(NoPlace::NoWitness),
            Self::Superseded => Some(NoPlace::Superseded),
            Self::Welcome
            | Self::WrongSession
            | Self::NotOpen
            | Self::CoreVotes
            | Self::LogLost => None,
        }
    }
}

impl From<NoPlace> for Verdict {
    fn from(reason: NoPlace) -> Self {
        match reason {
            NoPlace::RosterFull => Self::RosterFull,
            NoPlace::GalleryFull => Self::GalleryFull,
            NoPlace::NoWitness => Self::NoWitness,
            NoPlace::Superseded => Self::Superseded,
            NoPlace::NotOpen => Self::NotOpen,
        }
    }
}

/// A node wants to be in the game, or, as a member, wants to hear from its leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announce {
    /// Who announces itself.
    pub node: NodeId,
    /// What it wants to be.
    pub kind: Kind,
    /// The session it means; any when it knows of none.
    pub session: Option<SessionId>,
    /// Whether it has the session's log already.
    pub member: bool,
    /// Whether a place without a vote is none to it.
    pub needs_vote: bool,
    /// Whether it is in no session, and its log has not begun.
    pub begins: bool,
}

/// A node hosts a session, or is a member of one, or would host one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The session.
    pub session: SessionId,
    /// Who vouches for it.
    pub holder: NodeId,
    /// Drawn at random for the claim; decides between two that are not established.
    pub nonce: u64,
    /// Whether the session has a cluster that committed something.
    pub established: bool,
    /// The cluster's term, by the holder's log; 0 when not established.
    pub term: u64,
    /// Who leads in that term, if the holder hears from a leader.
    pub leader: Option<NodeId>,
    /// That the holder was let into the session, for the one peer this is sent to.
    pub proof: Option<Proof>,
}

/// What became of an announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The node that announced itself.
    pub to: NodeId,
    /// The session that answers.
    pub session: SessionId,
    /// What became of it.
    pub verdict: Verdict,
    /// The members, so that it knows whom to expect frames from.
    pub members: Vec<NodeId>,
    /// As that of a [`Claim`].
    pub proof: Option<Proof>,
}

/// One message of the lobby lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LobbyMsg {
    /// See [`Announce`].
    Announce(Announce),
    /// See [`Claim`].
    Claim(Claim),
    /// The claim with this nonce is given up by its sender.
    Withdraw { nonce: u64 },
    /// The sender knows of no session that contradicts the claim with this nonce.
    NoClaim { nonce: u64 },
    /// See [`Answer`].
    Answer(Answer),
    /// A node that announced itself does not want in any more.
    GiveUp { node: NodeId },
}

#[derive(Clone, PartialEq, Message)]
struct FramePb {
    #[prost(oneof = "BodyPb", tags = "1, 2, 3, 4, 5, 6")]
    body: Option<BodyPb>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum BodyPb {
    #[prost(message, tag = "1")]
    Announce(AnnouncePb),
    #[prost(message, tag = "2")]
    Claim(ClaimPb),
    #[prost(message, tag = "3")]
    Withdraw(NoncePb),
    #[prost(message, tag = "4")]
    Answer(AnswerPb),
    #[prost(message, tag = "5")]
    NoClaim(NoncePb),
    #[prost(message, tag = "6")]
    GiveUp(GiveUpPb),
}

#[derive(Clone, PartialEq, Message)]
struct AnnouncePb {
    #[prost(message, optional, tag = "1")]
    node: Option<NodeMsg>,
    #[prost(enumeration = "Kind", tag = "2")]
    kind: i32,
    #[prost(bytes = "bytes", optional, tag = "3")]
    session: Option<Bytes>,
    #[prost(bool, tag = "4")]
    member: bool,
    #[prost(bool, tag = "5")]
    needs_vote: bool,
    #[prost(bool, tag = "6")]
    begins: bool,
}

#[derive(Clone, PartialEq, Message)]
struct GiveUpPb {
    #[prost(message, optional, tag = "1")]
    node: Option<NodeMsg>,
}

#[derive(Clone, PartialEq, Message)]
struct ClaimPb {
    #[prost(bytes = "bytes", tag = "1")]
    session: Bytes,
    #[prost(message, optional, tag = "2")]
    holder: Option<NodeMsg>,
    #[prost(fixed64, tag = "3")]
    nonce: u64,
    #[prost(bool, tag = "4")]
    established: bool,
    #[prost(uint64, tag = "5")]
    term: u64,
    #[prost(message, optional, tag = "6")]
    leader: Option<NodeMsg>,
    #[prost(bytes = "bytes", optional, tag = "7")]
    proof: Option<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct NoncePb {
    #[prost(fixed64, tag = "1")]
    nonce: u64,
}

#[derive(Clone, PartialEq, Message)]
struct AnswerPb {
    #[prost(message, optional, tag = "1")]
    to: Option<NodeMsg>,
    #[prost(bytes = "bytes", tag = "2")]
    session: Bytes,
    #[prost(enumeration = "Verdict", tag = "3")]
    verdict: i32,
    #[prost(message, repeated, tag = "4")]
    members: Vec<NodeMsg>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    proof: Option<Bytes>,
}

/// The frame of a message.
///
/// # Errors
///
/// [`LobbyError::Members`] when an answer lists too many, [`LobbyError::TooLong`] when the frame
/// came out too long.
pub(crate) fn encode(msg: &LobbyMsg) -> Result<Bytes, LobbyError> {
    let body = match msg {
        LobbyMsg::Announce(announce) => BodyPb::Announce(AnnouncePb {
            node: Some((&announce.node).into()),
            kind: announce.kind.into(),
            session: announce.session.map(session_bytes),
            member: announce.member,
            needs_vote: announce.needs_vote,
            begins: announce.begins,
        }),
        LobbyMsg::GiveUp { node } => BodyPb::GiveUp(GiveUpPb {
            node: Some(node.into()),
        }),
        LobbyMsg::Claim(claim) => BodyPb::Claim(ClaimPb {
            session: session_bytes(claim.session),
            holder: Some((&claim.holder).into()),
            nonce: claim.nonce,
            established: claim.established,
            term: claim.term,
            leader: claim.leader.as_ref().map(Into::into),
            proof: claim.proof.map(proof_bytes),
        }),
        LobbyMsg::Withdraw { nonce } => BodyPb::Withdraw(NoncePb { nonce: *nonce }),
        LobbyMsg::NoClaim { nonce } => BodyPb::NoClaim(NoncePb { nonce: *nonce }),
        LobbyMsg::Answer(answer) => {
            members_fit(answer.members.len())?;
            BodyPb::Answer(AnswerPb {
                to: Some((&answer.to).into()),
                session: session_bytes(answer.session),
                verdict: answer.verdict.into(),
                members: answer.members.iter().map(NodeMsg::from).collect(),
                proof: answer.proof.map(proof_bytes),
            })
        }
    };
    let frame = FramePb { body: Some(body) }.encode_to_vec();
    frame_fits(frame.len())?;
    Ok(frame.into())
}

/// Reads a frame the fabric verified to be from `from`.
///
/// # Errors
///
/// [`LobbyError`] when it is none, breaks a limit, or speaks for a node of another peer.
pub(crate) fn decode(from: &PeerId, frame: &[u8]) -> Result<LobbyMsg, LobbyError> {
    frame_fits(frame.len())?;
    let msg = match FramePb::decode(frame)?.body.ok_or(LobbyError::Unknown)? {
        BodyPb::Announce(announce) => LobbyMsg::Announce(Announce {
            node: own_node(from, announce.node, "announcing node")?,
            kind: known(announce.kind, "kind of place")?,
            session: announce.session.as_ref().map(session).transpose()?,
            member: announce.member,
            needs_vote: announce.needs_vote,
            begins: announce.begins,
        }),
        BodyPb::GiveUp(given) => LobbyMsg::GiveUp {
            node: own_node(from, given.node, "node that gives up")?,
        },
        BodyPb::Claim(claim) => LobbyMsg::Claim(Claim {
            session: session(&claim.session)?,
            holder: own_node(from, claim.holder, "holder")?,
            nonce: claim.nonce,
            established: claim.established,
            term: claim.term,
            leader: match claim.leader {
                Some(leader) => Some(node(Some(leader), "leader")?),
                None => None,
            },
            proof: claim.proof.as_ref().map(proof).transpose()?,
        }),
        BodyPb::Withdraw(claim) => LobbyMsg::Withdraw { nonce: claim.nonce },
        BodyPb::NoClaim(claim) => LobbyMsg::NoClaim { nonce: claim.nonce },
        BodyPb::Answer(answer) => {
            members_fit(answer.members.len())?;
            LobbyMsg::Answer(Answer {
                to: node(answer.to, "addressee")?,
                session: session(&answer.session)?,
                verdict: known(answer.verdict, "verdict")?,
                members: answer
                    .members
                    .into_iter()
                    .map(|member| node(Some(member), "member"))
                    .collect::<Result<_, _>>()?,
                proof: answer.proof.as_ref().map(proof).transpose()?,
            })
        }
    };
    Ok(msg)
}

fn frame_fits(len: usize) -> Result<(), LobbyError> {
    let max = FRAME_BYTES_MAX;
    (len <= max)
        .then_some(())
        .ok_or(LobbyError::TooLong { len, max })
}

fn members_fit(len: usize) -> Result<(), LobbyError> {
    let max = MEMBERS_MAX;
    (len <= max)
        .then_some(())
        .ok_or(LobbyError::Members { len, max })
}

fn session_bytes(session: SessionId) -> Bytes {
    Bytes::copy_from_slice(&session.0.to_be_bytes())
}

fn session(bytes: &Bytes) -> Result<SessionId, LobbyError> {
    let bytes =
        <[u8; 16]>::try_from(&bytes[..]).map_err(|_| LobbyError::Session { len: bytes.len() })?;
    Ok(SessionId(u128::from_be_bytes(bytes)))
}

fn proof_bytes(proof: Proof) -> Bytes {
    Bytes::copy_from_slice(&proof)
}

fn proof(bytes: &Bytes) -> Result<Proof, LobbyError> {
    let len = bytes.len();
    bytes[..].try_into().map_err(|_| LobbyError::Proof { len })
}

fn node(msg: Option<NodeMsg>, field: &'static str) -> Result<NodeId, LobbyError> {
    msg.ok_or(LobbyError::Missing { field })?
        .node()
        .ok_or(LobbyError::Name { field })
}

fn own_node(
    from: &PeerId,
    msg: Option<NodeMsg>,
    field: &'static str,
) -> Result<NodeId, LobbyError> {
    let named = node(msg, field)?;
    if named.peer == *from {
        return Ok(named);
    }
    Err(LobbyError::NotItsOwn {
        from: from.clone(),
        named,
    })
}

fn known<T: TryFrom<i32>>(value: i32, field: &'static str) -> Result<T, LobbyError> {
    T::try_from(value).map_err(|_| LobbyError::Value { field, value })
}

#[cfg(test)]
mod tests;
