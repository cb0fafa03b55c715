//! Messages between nodes on the Raft lane.
//!
//! A [`Frame`] is a request or the reply to one, by its `id`. Who sent it is what the fabric says;
//! the frame only adds which life of that peer it is.

use bytes::Bytes;
use prost::Message;

use crate::ids::NodeId;
use crate::log::Position;
use crate::state::command::NodeMsg;

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
        tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21"
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
pub(crate) struct EntryMsg {
    #[prost(message, optional, tag = "1")]
    pub at: Option<At>,
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
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
pub(crate) struct Submit {
    #[prost(bytes = "bytes", tag = "1")]
    pub command: Bytes,
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

impl Frame {
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::SessionId;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Frame::decode(Bytes::from(bytes));
        }

        #[test]
        fn what_is_sent_is_what_arrives(id: u64, index: u64, term: u64, body: Vec<u8>, pre: bool) {
            let node = NodeId::new(crate::ids::PeerId::new("ann").unwrap(), crate::ids::Incarnation(3));
            for body in [
                Body::Append(Append {
                    vote: Some(VoteMsg { term, node: Some((&node).into()), committed: pre }),
                    previous: Some(At { index, term }),
                    entries: vec![EntryMsg { at: Some(At { index, term }), kind: 1, body: body.clone().into() }],
                    commit: None,
                }),
                Body::Vote(VoteAsked { pre, ..VoteAsked::default() }),
                Body::ReadAt(ReadAt { index: Some(index), leader: None }),
            ] {
                let frame = Frame::new(SessionId(5).to_bytes(), &node, &node, id, body);
                let bytes = Bytes::from(frame.encode_to_vec());
                prop_assert_eq!(Frame::decode(bytes).unwrap(), frame);
            }
        }
    }
}
