//! The messages of the lobby lane, checked as they are read.
//!
//! Invariants
//! - a [`LobbyMsg`] that came out of [`decode`] is sound: its names are names, its session has 16
//!   bytes, and the node that announces, claims or withdraws belongs to the peer it came from;
//! - what [`encode`] makes, [`decode`] takes: both sides hold the same limits;
//! - fields are only ever added.

use bytes::Bytes;
use prost::Message;

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
}

#[derive(Clone, PartialEq, Message)]
struct FramePb {
    #[prost(oneof = "BodyPb", tags = "1, 2, 3, 4, 5")]
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
        }),
        LobbyMsg::Claim(claim) => BodyPb::Claim(ClaimPb {
            session: session_bytes(claim.session),
            holder: Some((&claim.holder).into()),
            nonce: claim.nonce,
            established: claim.established,
            term: claim.term,
            leader: claim.leader.as_ref().map(Into::into),
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
        }),
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Incarnation;

    fn peer(name: &str) -> PeerId {
        PeerId::new(name).unwrap()
    }

    fn node_of(name: &str, life: u64) -> NodeId {
        NodeId::new(peer(name), Incarnation(life))
    }

    fn answer(members: usize) -> LobbyMsg {
        LobbyMsg::Answer(Answer {
            to: node_of("ann", 1),
            session: SessionId(7),
            verdict: Verdict::Welcome,
            members: (0..members)
                .map(|n| node_of(&format!("{n:064}"), u64::MAX))
                .collect(),
        })
    }

    fn frame(body: BodyPb) -> Vec<u8> {
        FramePb { body: Some(body) }.encode_to_vec()
    }

    #[test]
    fn a_peer_cannot_announce_or_claim_for_another() {
        let announce = LobbyMsg::Announce(Announce {
            node: node_of("ann", 1),
            kind: Kind::Player,
            session: None,
            member: false,
        });
        let claim = LobbyMsg::Claim(Claim {
            session: SessionId(1),
            holder: node_of("ann", 1),
            nonce: 1,
            established: true,
            term: 3,
            leader: Some(node_of("bob", 2)),
        });
        for msg in [announce, claim] {
            let frame = encode(&msg).unwrap();
            assert_eq!(decode(&peer("ann"), &frame), Ok(msg));
            assert_eq!(
                decode(&peer("eve"), &frame),
                Err(LobbyError::NotItsOwn {
                    from: peer("eve"),
                    named: node_of("ann", 1)
                })
            );
        }
    }

    #[test]
    fn an_answer_lists_members_up_to_the_limit_and_not_one_more() {
        let fits = answer(MEMBERS_MAX);
        let frame_of = encode(&fits).unwrap();
        assert!(frame_of.len() <= FRAME_BYTES_MAX, "the longest names fit");
        assert_eq!(decode(&peer("bob"), &frame_of), Ok(fits));
        let one_past = LobbyError::Members {
            len: MEMBERS_MAX + 1,
            max: MEMBERS_MAX,
        };
        assert_eq!(encode(&answer(MEMBERS_MAX + 1)), Err(one_past.clone()));
        let members = vec![NodeMsg::from(&node_of("m", 1)); MEMBERS_MAX + 1];
        let bytes = frame(BodyPb::Answer(AnswerPb {
            to: Some((&node_of("ann", 1)).into()),
            session: session_bytes(SessionId(1)),
            verdict: 0,
            members,
        }));
        assert_eq!(decode(&peer("bob"), &bytes), Err(one_past));
    }

    #[test]
    fn a_frame_is_read_at_its_limit_and_refused_one_past_it() {
        // An unknown field is skipped, so a frame can be padded to any length.
        let padded = |len: usize| {
            let mut bytes = encode(&LobbyMsg::Withdraw { nonce: 1 }).unwrap().to_vec();
            // Field 15, length-delimited, with a length in three bytes.
            let body = len - bytes.len() - 4;
            bytes.extend([0x7a, body as u8 | 0x80, (body >> 7) as u8 | 0x80]);
            bytes.push((body >> 14) as u8);
            bytes.resize(len, 0);
            bytes
        };
        assert_eq!(
            decode(&peer("ann"), &padded(FRAME_BYTES_MAX)),
            Ok(LobbyMsg::Withdraw { nonce: 1 })
        );
        assert!(matches!(
            decode(&peer("ann"), &padded(FRAME_BYTES_MAX + 1)),
            Err(LobbyError::TooLong { len, .. }) if len == FRAME_BYTES_MAX + 1
        ));
    }

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let claim = |session: &'static [u8], holder: Option<NodeMsg>| {
            frame(BodyPb::Claim(ClaimPb {
                session: Bytes::from_static(session),
                holder,
                nonce: 1,
                established: false,
                term: 0,
                leader: None,
            }))
        };
        let announce = |kind, peer: String| {
            let node = Some(NodeMsg {
                peer,
                incarnation: 1,
            });
            frame(BodyPb::Announce(AnnouncePb {
                node,
                kind,
                session: None,
                member: false,
            }))
        };
        let read = |bytes: &[u8]| decode(&peer("ann"), bytes).unwrap_err();
        assert_eq!(read(&[]), LobbyError::Unknown);
        assert_eq!(
            read(&claim(&[0; 15], None)),
            LobbyError::Session { len: 15 }
        );
        assert_eq!(
            read(&claim(&[0; 16], None)),
            LobbyError::Missing { field: "holder" }
        );
        let kind = LobbyError::Value {
            field: "kind of place",
            value: 9,
        };
        assert_eq!(read(&announce(9, "ann".into())), kind);
        let name = LobbyError::Name {
            field: "announcing node",
        };
        assert_eq!(read(&announce(0, String::new())), name);
        assert_eq!(read(&announce(0, "x".repeat(65))), name);
        assert!(matches!(read(&[0xff]), LobbyError::Unreadable(_)));
    }

    fn nodes() -> impl Strategy<Value = NodeId> {
        ("[a-zé]{1,16}", any::<u64>()).prop_map(|(name, life)| node_of(&name, life))
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Player),
            Just(Kind::Spectator),
            Just(Kind::Witness)
        ]
    }

    fn messages() -> impl Strategy<Value = LobbyMsg> {
        let announce = (nodes(), kinds(), any::<Option<u128>>(), any::<bool>());
        let leader = proptest::option::of(nodes());
        let claim = (nodes(), any::<(u128, u64, bool, u64)>(), leader);
        let members = proptest::collection::vec(nodes(), 0..20);
        let answer = (nodes(), any::<u128>(), 0i32..7, members);
        prop_oneof![
            announce.prop_map(
                |(node, kind, session, member)| LobbyMsg::Announce(Announce {
                    node,
                    kind,
                    session: session.map(SessionId),
                    member,
                })
            ),
            claim.prop_map(|(holder, (session, nonce, established, term), leader)| {
                LobbyMsg::Claim(Claim {
                    session: SessionId(session),
                    holder,
                    nonce,
                    established,
                    term,
                    leader,
                })
            }),
            any::<u64>().prop_map(|nonce| LobbyMsg::Withdraw { nonce }),
            any::<u64>().prop_map(|nonce| LobbyMsg::NoClaim { nonce }),
            answer.prop_map(|(to, session, verdict, members)| LobbyMsg::Answer(Answer {
                to,
                session: SessionId(session),
                verdict: Verdict::try_from(verdict).unwrap(),
                members,
            })),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(msg in messages()) {
            let from = match &msg {
                LobbyMsg::Announce(announce) => announce.node.peer.clone(),
                LobbyMsg::Claim(claim) => claim.holder.peer.clone(),
                _ => peer("any"),
            };
            prop_assert_eq!(decode(&from, &encode(&msg).unwrap()), Ok(msg));
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            let _ = decode(&peer("ann"), &bytes);
        }

        #[test]
        fn a_damaged_frame_is_a_message_or_an_error(
            msg in messages(), at in any::<proptest::sample::Index>(), with in any::<u8>(),
        ) {
            let mut bytes = encode(&msg).unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] = with;
            let _ = decode(&peer("ann"), &bytes);
            let _ = decode(&peer("ann"), &bytes[..at]);
        }
    }
}
