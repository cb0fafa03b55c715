//! Messages between nodes on the Raft lane.
//!
//! A [`Frame`] is a request or the reply to one, by its `id`. Who sent it is what the fabric says;
//! the frame only adds which life of that peer it is. Its [`Head`] is read first: what a stranger
//! sends is not looked into, and what anybody sends is counted before it takes memory.

use std::fmt;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::hidden::Hidden;
use crate::ids::NodeId;
use crate::log::Position;
use crate::state::command::NodeMsg;

/// Most entries in a frame: what openraft sends at a time.
pub(crate) const ENTRIES_MAX: usize = 4096;

/// Most times nodes are named by a membership: everybody a game has room for, and who of them votes
/// in either half.
pub(crate) const NODES_MAX: usize = 1024;

/// Most proposals, or answers to some, that travel together.
pub(crate) const TOGETHER_MAX: usize = 256;

/// Most bytes of proposals, or of answers to some, that travel together.
pub(crate) const TOGETHER_BYTES_MAX: usize = 1 << 20;

/// The part of a [`Frame`] that says whether it is for this node, and from whom: its first fields,
/// which Protobuf reads of a whole frame too, and leaves the rest.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Head {
    #[prost(bytes = "bytes", tag = "1")]
    pub session: Bytes,
    #[prost(uint64, tag = "2")]
    pub from_incarnation: u64,
    #[prost(uint64, tag = "3")]
    pub to_incarnation: u64,
    #[prost(uint64, tag = "4")]
    pub id: u64,
}

/// Around every message of the Raft lane.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Frame {
    /// 16 bytes: frames of another session are dropped.
    #[prost(bytes = "bytes", tag = "1")]
    pub session: Bytes,
    #[prost(uint64, tag = "2")]
    pub from_incarnation: u64,
    #[prost(uint64, tag = "3")]
    pub to_incarnation: u64,
    #[prost(uint64, tag = "4")]
    pub id: u64,
    #[prost(
        oneof = "Body",
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23"
    )]
    pub body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Body {
    #[prost(message, tag = "10")]
    Append(Append),
    #[prost(message, tag = "11")]
    Appended(Appended),
    #[prost(message, tag = "12")]
    Vote(VoteAsked),
    #[prost(message, tag = "13")]
    Voted(Voted),
    #[prost(message, tag = "14")]
    Chunk(Chunk),
    #[prost(message, tag = "15")]
    Chunked(Chunked),
    #[prost(message, tag = "16")]
    Transfer(Transfer),
    #[prost(message, tag = "17")]
    Transferred(Transferred),
    #[prost(message, tag = "18")]
    Submit(Submit),
    #[prost(message, tag = "19")]
    Submitted(Submitted),
    #[prost(message, tag = "20")]
    Read(ReadAsked),
    #[prost(message, tag = "21")]
    ReadAt(ReadAt),
    #[prost(message, tag = "22")]
    Submits(Submits),
    #[prost(message, tag = "23")]
    Submitteds(Submitteds),
}

impl Body {
    /// Whether this asks for something; otherwise it answers.
    pub(crate) fn is_request(&self) -> bool {
        matches!(
            self,
            Self::Append(_)
                | Self::Vote(_)
                | Self::Chunk(_)
                | Self::Transfer(_)
                | Self::Submit(_)
                | Self::Submits(_)
                | Self::Read(_)
        )
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VoteMsg {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(message, optional, tag = "2")]
    pub node: Option<NodeMsg>,
    #[prost(bool, tag = "3")]
    pub committed: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct At {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(uint64, tag = "2")]
    pub term: u64,
}

impl From<Position> for At {
    fn from(at: Position) -> Self {
        Self {
            index: at.index,
            term: at.term,
        }
    }
}

impl From<At> for Position {
    fn from(at: At) -> Self {
        Self {
            index: at.index,
            term: at.term,
        }
    }
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct EntryMsg {
    #[prost(message, optional, tag = "1")]
    pub at: Option<At>,
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
}

impl fmt::Debug for EntryMsg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryMsg")
            .field("at", &self.at)
            .field("kind", &self.kind)
            .field("body", &Hidden(self.body.len()))
            .finish()
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Nodes {
    #[prost(message, repeated, tag = "1")]
    pub nodes: Vec<NodeMsg>,
}

/// Who is a member: the voters, or the halves of a joint configuration, and everybody.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MembershipMsg {
    #[prost(message, repeated, tag = "1")]
    pub halves: Vec<Nodes>,
    #[prost(message, repeated, tag = "2")]
    pub nodes: Vec<NodeMsg>,
    /// The entry that says so, where that is not known from the place.
    #[prost(message, optional, tag = "3")]
    pub at: Option<At>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Append {
    #[prost(message, optional, tag = "1")]
    pub vote: Option<VoteMsg>,
    #[prost(message, optional, tag = "2")]
    pub previous: Option<At>,
    #[prost(message, repeated, tag = "3")]
    pub entries: Vec<EntryMsg>,
    #[prost(message, optional, tag = "4")]
    pub commit: Option<At>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Appended {
    /// 0 all, 1 through `through`, 2 the previous entry is not there, 3 `vote` is higher.
    #[prost(uint32, tag = "1")]
    pub outcome: u32,
    #[prost(message, optional, tag = "2")]
    pub through: Option<At>,
    #[prost(message, optional, tag = "3")]
    pub vote: Option<VoteMsg>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VoteAsked {
    #[prost(message, optional, tag = "1")]
    pub vote: Option<VoteMsg>,
    #[prost(message, optional, tag = "2")]
    pub last: Option<At>,
    #[prost(bool, tag = "3")]
    pub transfer: bool,
    /// Asks what would be answered, and changes nothing.
    #[prost(bool, tag = "4")]
    pub pre: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Voted {
    #[prost(message, optional, tag = "1")]
    pub vote: Option<VoteMsg>,
    #[prost(message, optional, tag = "2")]
    pub last: Option<At>,
    #[prost(bool, tag = "3")]
    pub granted: bool,
}

/// A piece of a snapshot. The last one ends at `total`.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct Chunk {
    #[prost(message, optional, tag = "1")]
    pub vote: Option<VoteMsg>,
    #[prost(message, optional, tag = "2")]
    pub through: Option<At>,
    #[prost(message, optional, tag = "3")]
    pub membership: Option<MembershipMsg>,
    #[prost(uint64, tag = "4")]
    pub offset: u64,
    #[prost(uint64, tag = "5")]
    pub total: u64,
    #[prost(bytes = "bytes", tag = "6")]
    pub data: Bytes,
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chunk")
            .field("vote", &self.vote)
            .field("through", &self.through)
            .field("membership", &self.membership)
            .field("offset", &self.offset)
            .field("total", &self.total)
            .field("data", &Hidden(self.data.len()))
            .finish()
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Chunked {
    /// Where the next chunk must begin.
    #[prost(uint64, tag = "1")]
    pub next: u64,
    /// The receiver's vote, once the snapshot is installed or refused.
    #[prost(message, optional, tag = "2")]
    pub vote: Option<VoteMsg>,
    /// The snapshot is larger than the receiver takes.
    #[prost(bool, tag = "3")]
    pub too_large: bool,
    /// The most bytes it takes, when it is.
    #[prost(uint64, tag = "4")]
    pub max: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Transfer {
    #[prost(message, optional, tag = "1")]
    pub from: Option<VoteMsg>,
    #[prost(message, optional, tag = "2")]
    pub to: Option<NodeMsg>,
    #[prost(message, optional, tag = "3")]
    pub last: Option<At>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Transferred {
    #[prost(bool, tag = "1")]
    pub taken: bool,
}

/// A command to be stamped and appended by the leader.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct Submit {
    #[prost(bytes = "bytes", tag = "1")]
    pub command: Bytes,
}

impl fmt::Debug for Submit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submit")
            .field("command", &Hidden(self.command.len()))
            .finish()
    }
}

/// Several commands, each a call of its own, in the order they were proposed. The frame has the id of
/// the first.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Submits {
    #[prost(message, repeated, tag = "1")]
    pub asks: Vec<Numbered>,
}

/// One of several [`Submit`]s.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
pub(crate) struct Numbered {
    /// As the frame of one alone has it.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub command: Bytes,
}

impl fmt::Debug for Numbered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Numbered")
            .field("id", &self.id)
            .field("command", &Hidden(self.command.len()))
            .finish()
    }
}

/// Answers to several calls, together or not when they were asked. The frame has the id of the first.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Submitteds {
    #[prost(message, repeated, tag = "1")]
    pub answers: Vec<Answered>,
}

/// One of several [`Submitted`]s.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answered {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(message, optional, tag = "2")]
    pub answer: Option<Submitted>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Submitted {
    /// The leader to ask instead, when this node is not it.
    #[prost(message, optional, tag = "1")]
    pub leader: Option<NodeMsg>,
    #[prost(uint32, tag = "2")]
    pub outcome: u32,
    #[prost(message, optional, tag = "3")]
    pub kept: Option<crate::state::KeptMsg>,
    #[prost(uint64, tag = "4")]
    pub a: u64,
    #[prost(uint64, tag = "5")]
    pub b: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReadAsked {}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReadAt {
    /// The index to wait for, if this node leads and a majority confirmed it.
    #[prost(uint64, optional, tag = "1")]
    pub index: Option<u64>,
    #[prost(message, optional, tag = "2")]
    pub leader: Option<NodeMsg>,
}

/// Shows every field of a message that has a length; `false` when the bytes are no message, or as
/// soon as `is_well` is.
pub(crate) fn all_fields(mut bytes: &[u8], mut is_well: impl FnMut(u32, &[u8]) -> bool) -> bool {
    while !bytes.is_empty() {
        let Ok((tag, kind)) = decode_key(&mut bytes) else {
            return false;
        };
        if kind != WireType::LengthDelimited {
            if skip_field(kind, tag, &mut bytes, DecodeContext::default()).is_err() {
                return false;
            }
            continue;
        }
        let len = decode_varint(&mut bytes).ok();
        let len = len.and_then(|len| usize::try_from(len).ok());
        let Some((field, rest)) = len.and_then(|len| bytes.split_at_checked(len)) else {
            return false;
        };
        if !is_well(tag, field) {
            return false;
        }
        bytes = rest;
    }
    true
}

/// Whether the bytes of a [`MembershipMsg`] name no more nodes than there can be, `named` so far.
pub(crate) fn names_few(membership: &[u8], named: &mut usize) -> bool {
    let mut one_more = || {
        *named += 1;
        *named <= NODES_MAX
    };
    all_fields(membership, |tag, field| match tag {
        // A half counts as a node: there may be empty ones.
        1 => one_more() && all_fields(field, |tag, _| tag != 1 || one_more()),
        2 => one_more(),
        _ => true,
    })
}

/// Whether one of the calls that the bytes of a frame of [`Submitteds`] answer is awaited. Of more than
/// may travel together the first count.
pub(crate) fn answers_together(frame: &[u8], mut is_awaited: impl FnMut(u64) -> bool) -> bool {
    #[derive(Clone, PartialEq, Message)]
    struct Named {
        #[prost(uint64, tag = "1")]
        id: u64,
    }
    let (mut left, mut one_is) = (TOGETHER_MAX, false);
    all_fields(frame, |tag, body| {
        tag != 23
            || all_fields(body, |tag, answered| {
                left = left.saturating_sub(1);
                one_is =
                    tag == 1 && Named::decode(answered).is_ok_and(|named| is_awaited(named.id));
                !one_is && left > 0
            })
    });
    one_is
}

impl Frame {
    /// Whether the bytes of a frame hold no more of anything than is ever sent.
    pub(crate) fn is_bounded(frame: &[u8]) -> bool {
        // A field has two bytes at least, so fewer bytes hold few enough.
        if frame.len() < NODES_MAX.min(ENTRIES_MAX).min(TOGETHER_MAX) {
            return true;
        }
        let (mut entries, mut named, mut together) = (0, 0, 0);
        all_fields(frame, |tag, body| match tag {
            10 => all_fields(body, |tag, _| {
                entries += usize::from(tag == 3);
                entries <= ENTRIES_MAX
            }),
            22 | 23 => all_fields(body, |tag, _| {
                together += usize::from(tag == 1);
                together <= TOGETHER_MAX
            }),
            14 => all_fields(body, |tag, field| tag != 3 || names_few(field, &mut named)),
            _ => true,
        })
    }

    /// `session` is a [`SessionId`](crate::ids::SessionId) as bytes.
    pub(crate) fn new(session: Bytes, from: &NodeId, to: &NodeId, id: u64, body: Body) -> Self {
        Self {
            session,
            from_incarnation: from.incarnation.0,
            to_incarnation: to.incarnation.0,
            id,
            body: Some(body),
        }
    }
}

#[cfg(test)]
mod tests;
