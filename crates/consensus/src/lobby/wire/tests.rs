//! What is encoded is decoded, what breaks a limit is refused, and any bytes are one or the other.

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
        proof: Some([u8::MAX; 32]),
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
        needs_vote: false,
        begins: false,
    });
    let claim = LobbyMsg::Claim(Claim {
        session: SessionId(1),
        holder: node_of("ann", 1),
        nonce: 1,
        established: true,
        term: 3,
        leader: Some(node_of("bob", 2)),
        proof: None,
    });
    let give_up = LobbyMsg::GiveUp {
        node: node_of("ann", 1),
    };
    for msg in [announce, claim, give_up] {
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
fn a_proof_has_its_bytes_and_neither_one_more_nor_one_less_is_one() {
    let claim = |len: usize| {
        frame(BodyPb::Claim(ClaimPb {
            session: Bytes::from_static(&[0; 16]),
            holder: Some((&node_of("ann", 1)).into()),
            proof: Some(vec![7; len].into()),
            ..ClaimPb::default()
        }))
    };
    let read = |len| decode(&peer("ann"), &claim(len));
    assert!(matches!(read(32), Ok(LobbyMsg::Claim(claim)) if claim.proof == Some([7; 32])));
    for len in [0, 31, 33] {
        assert_eq!(read(len), Err(LobbyError::Proof { len }));
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
        proof: None,
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
            proof: None,
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
            needs_vote: false,
            begins: false,
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
    let announce = (nodes(), kinds(), any::<Option<u128>>(), any::<[bool; 3]>());
    let leader = proptest::option::of(nodes());
    let proof = any::<Option<[u8; 32]>>();
    let claim = (
        nodes(),
        any::<(u128, u64, bool, u64)>(),
        leader,
        proof.clone(),
    );
    let members = proptest::collection::vec(nodes(), 0..20);
    let answer = (nodes(), any::<u128>(), 0i32..9, members, proof);
    prop_oneof![
        announce.prop_map(
            |(node, kind, session, [member, needs_vote, begins])| LobbyMsg::Announce(Announce {
                node,
                kind,
                session: session.map(SessionId),
                member,
                needs_vote,
                begins,
            })
        ),
        claim.prop_map(
            |(holder, (session, nonce, established, term), leader, proof)| {
                LobbyMsg::Claim(Claim {
                    session: SessionId(session),
                    holder,
                    nonce,
                    established,
                    term,
                    leader,
                    proof,
                })
            }
        ),
        any::<u64>().prop_map(|nonce| LobbyMsg::Withdraw { nonce }),
        any::<u64>().prop_map(|nonce| LobbyMsg::NoClaim { nonce }),
        nodes().prop_map(|node| LobbyMsg::GiveUp { node }),
        answer.prop_map(
            |(to, session, verdict, members, proof)| LobbyMsg::Answer(Answer {
                to,
                session: SessionId(session),
                verdict: Verdict::try_from(verdict).unwrap(),
                members,
                proof,
            })
        ),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(msg in messages()) {
        let from = match &msg {
            LobbyMsg::Announce(announce) => announce.node.peer.clone(),
            LobbyMsg::Claim(claim) => claim.holder.peer.clone(),
            LobbyMsg::GiveUp { node } => node.peer.clone(),
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
