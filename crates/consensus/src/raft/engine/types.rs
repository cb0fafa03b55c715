//! openraft's types for our nodes, and what they are on our wire and in our log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std::LeaderId;
use openraft::type_config::alias as of;
use openraft::{EmptyNode, EntryPayload, LogId, Membership as RaftMembership};
use prost::Message;

use crate::game::Malformed;
use crate::ids::NodeId;
use crate::log::{Position, Record, RecordKind};
use crate::raft::Membership;
use crate::raft::wire::{At, EntryMsg, MembershipMsg, Nodes, VoteMsg, names_few};
use crate::state::Applied;
use crate::state::command::NodeMsg;

/// A command as openraft carries it: bytes it does not look into.
#[derive(Clone, PartialEq, Eq)]
pub struct Opaque(pub Bytes);

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

openraft::declare_raft_types!(
    pub Types:
        D = Opaque,
        R = Applied,
        NodeId = NodeId,
        Node = EmptyNode,
        LeaderId = LeaderId<u64, NodeId>,
        AsyncRuntime = super::runtime::Runtime,
);

pub type Responder = of::WriteResponderOf<Types>;
pub type Vote = of::VoteOf<Types>;
pub type Id = of::LogIdOf<Types>;
pub type Entry = of::EntryOf<Types>;
pub type Stored = of::StoredMembershipOf<Types>;
pub type Meta = of::SnapshotMetaOf<Types>;
pub type Snapshot = of::SnapshotOf<Types, Bytes>;
type Members = RaftMembership<NodeId, EmptyNode>;

pub fn position(id: &Id) -> Position {
    Position {
        index: id.index,
        term: id.leader_id.term,
    }
}

pub fn id(at: Position) -> Id {
    LogId::new_term_index(at.term, at.index)
}

pub fn at(id: &Id) -> At {
    position(id).into()
}

pub fn id_of(at: At) -> Id {
    id(at.into())
}

pub fn vote_msg(vote: &Vote) -> VoteMsg {
    VoteMsg {
        term: vote.leader_id.term,
        node: Some((&vote.leader_id.voted_for).into()),
        committed: vote.committed,
    }
}

pub fn vote(msg: Option<VoteMsg>) -> Result<Vote, Malformed> {
    let msg = msg.ok_or(Malformed)?;
    let node = msg.node.and_then(|node| node.node()).ok_or(Malformed)?;
    Ok(if msg.committed {
        Vote::new_committed(msg.term, node)
    } else {
        Vote::new(msg.term, node)
    })
}

pub fn vote_bytes(vote: &Vote) -> Bytes {
    vote_msg(vote).encode_to_vec().into()
}

pub fn vote_from(bytes: &Bytes) -> Result<Vote, Malformed> {
    vote(Some(VoteMsg::decode(bytes.clone()).map_err(|_| Malformed)?))
}

pub fn membership_msg(members: &Members) -> MembershipMsg {
    MembershipMsg {
        halves: members
            .get_joint_config()
            .iter()
            .map(|half| Nodes {
                nodes: half.iter().map(NodeMsg::from).collect(),
            })
            .collect(),
        nodes: members.nodes().map(|(node, _)| node.into()).collect(),
        at: None,
    }
}

pub fn members(msg: &MembershipMsg) -> Result<Members, Malformed> {
    let node = |msg: &NodeMsg| msg.node().ok_or(Malformed);
    let halves = msg
        .halves
        .iter()
        .map(|half| half.nodes.iter().map(node).collect())
        .collect::<Result<Vec<BTreeSet<_>>, _>>()?;
    let nodes = msg
        .nodes
        .iter()
        .map(|msg| Ok((node(msg)?, EmptyNode::new())))
        .collect::<Result<BTreeMap<_, _>, Malformed>>()?;
    RaftMembership::new(halves, nodes).map_err(|_| Malformed)
}

pub fn stored_msg(stored: &Stored) -> MembershipMsg {
    MembershipMsg {
        at: stored.log_id().as_ref().map(at),
        ..membership_msg(stored.membership())
    }
}

pub fn stored(msg: &MembershipMsg) -> Result<Stored, Malformed> {
    // Before the first entry nobody is a member, which the constructor would refuse.
    if msg.halves.is_empty() && msg.nodes.is_empty() {
        return Ok(Stored::default());
    }
    Ok(Stored::new(msg.at.map(id_of), members(msg)?))
}

/// The members, in our words.
pub fn membership(members: &Members) -> Membership {
    let halves = members.get_joint_config();
    Membership {
        voters: members.voter_ids().collect(),
        joint: if halves.len() > 1 {
            halves.clone()
        } else {
            Vec::new()
        },
        learners: members.learner_ids().collect(),
    }
}

fn payload_parts(payload: &EntryPayload<Opaque, NodeId, EmptyNode>) -> (RecordKind, Bytes) {
    match payload {
        EntryPayload::Blank => (RecordKind::Blank, Bytes::new()),
        EntryPayload::Normal(command) => (RecordKind::Command, command.0.clone()),
        EntryPayload::Membership(members) => (
            RecordKind::Membership,
            membership_msg(members).encode_to_vec().into(),
        ),
    }
}

fn entry_from(at: Position, kind: RecordKind, body: Bytes) -> Result<Entry, Malformed> {
    let payload = match kind {
        RecordKind::Blank => EntryPayload::Blank,
        RecordKind::Command => EntryPayload::Normal(Opaque(body)),
        RecordKind::Membership => {
            if !names_few(&body, &mut 0) {
                return Err(Malformed);
            }
            let msg = MembershipMsg::decode(body).map_err(|_| Malformed)?;
            EntryPayload::Membership(members(&msg)?)
        }
    };
    Ok(Entry {
        log_id: id(at),
        payload,
    })
}

pub fn record(entry: &Entry) -> Record {
    let (kind, body) = payload_parts(&entry.payload);
    Record {
        at: position(&entry.log_id),
        kind,
        body,
    }
}

pub fn entry(record: Record) -> Result<Entry, Malformed> {
    entry_from(record.at, record.kind, record.body)
}

pub fn entry_msg(entry: &Entry) -> EntryMsg {
    let (kind, body) = payload_parts(&entry.payload);
    EntryMsg {
        at: Some(at(&entry.log_id)),
        kind: kind as u32,
        body,
    }
}

pub fn entry_of(msg: EntryMsg) -> Result<Entry, Malformed> {
    let kind = u8::try_from(msg.kind)
        .ok()
        .and_then(RecordKind::from_number)
        .ok_or(Malformed)?;
    entry_from(msg.at.ok_or(Malformed)?.into(), kind, msg.body)
}
