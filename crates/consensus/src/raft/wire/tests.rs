//! What a frame may hold, and what it shows.

use proptest::prelude::*;

use super::*;
use crate::hidden::tests::{SECRET, hides_it};
use crate::ids::SessionId;

fn encoded(body: Body) -> Bytes {
    let node = NodeId::new(
        crate::ids::PeerId::new("ann").unwrap(),
        crate::ids::Incarnation(3),
    );
    let frame = Frame::new(SessionId(5).to_bytes(), &node, &node, 1, body);
    frame.encode_to_vec().into()
}

#[test]
fn a_frame_holds_as_many_entries_and_nodes_as_may_be_and_one_more_is_too_many() {
    let entries = |n| {
        encoded(Body::Append(Append {
            entries: vec![EntryMsg::default(); n],
            ..Append::default()
        }))
    };
    assert!(Frame::is_bounded(&entries(ENTRIES_MAX)));
    assert!(!Frame::is_bounded(&entries(ENTRIES_MAX + 1)));
    // Said twice, a message is one: the parts count together.
    let halves = [entries(ENTRIES_MAX / 2 + 1), entries(ENTRIES_MAX / 2)].concat();
    assert!(!Frame::is_bounded(&halves));
    let asks = |n| {
        encoded(Body::Submits(Submits {
            asks: vec![Numbered::default(); n],
        }))
    };
    let answers = |n| {
        encoded(Body::Submitteds(Submitteds {
            answers: vec![Answered::default(); n],
        }))
    };
    for (at_the_limit, one_past_it) in [
        (asks(TOGETHER_MAX), asks(TOGETHER_MAX + 1)),
        (answers(TOGETHER_MAX), answers(TOGETHER_MAX + 1)),
    ] {
        assert!(Frame::is_bounded(&at_the_limit));
        assert!(!Frame::is_bounded(&one_past_it));
    }
    let members = |everybody, half| {
        let some = |n| vec![NodeMsg::default(); n];
        encoded(Body::Chunk(Chunk {
            membership: Some(MembershipMsg {
                halves: vec![Nodes { nodes: some(half) }],
                nodes: some(everybody),
                at: None,
            }),
            ..Chunk::default()
        }))
    };
    assert!(Frame::is_bounded(&members(NODES_MAX - 11, 10)));
    assert!(!Frame::is_bounded(&members(NODES_MAX - 11, 11)));
    assert!(!Frame::is_bounded(&members(NODES_MAX - 10, 10)));
}

#[test]
fn an_answer_is_looked_for_among_as_many_as_may_travel_together_and_not_past_them() {
    let many = encoded(Body::Submitteds(Submitteds {
        answers: (0..=TOGETHER_MAX as u64)
            .map(|id| Answered { id, answer: None })
            .collect(),
    }));
    let last = TOGETHER_MAX as u64 - 1;
    for (id, found) in [(0, true), (7, true), (last, true), (last + 1, false)] {
        assert_eq!(answers_together(&many, |named| named == id), found, "{id}");
    }
    assert!(!answers_together(&many[..many.len() / 2], |id| id == last));
    let asks = vec![Numbered::default(); 3];
    let asked = encoded(Body::Submits(Submits { asks }));
    assert!(!answers_together(&asked, |_| true));
    assert!(!answers_together(&[0xff; 40], |_| true));
}

#[test]
fn a_frame_shows_neither_entries_nor_snapshots_nor_commands() {
    let held = Bytes::from_static(SECRET);
    let at = Some(At { index: 77, term: 3 });
    let entry = EntryMsg {
        at,
        kind: 1,
        body: held.clone(),
    };
    hides_it(&entry);
    let node = NodeId::new(
        crate::ids::PeerId::new("ann").unwrap(),
        crate::ids::Incarnation(3),
    );
    let answer = |held: &Bytes| Submitted {
        kept: Some(crate::state::KeptMsg {
            bytes: held.clone(),
            ..Default::default()
        }),
        ..Submitted::default()
    };
    for body in [
        Body::Append(Append {
            previous: at,
            entries: vec![entry],
            ..Append::default()
        }),
        Body::Chunk(Chunk {
            through: at,
            data: held.clone(),
            ..Chunk::default()
        }),
        Body::Submits(Submits {
            asks: vec![Numbered {
                id: 77,
                command: held.clone(),
            }],
        }),
        Body::Submit(Submit {
            command: held.clone(),
        }),
        Body::Submitted(answer(&held)),
        Body::Submitteds(Submitteds {
            answers: vec![Answered {
                id: 77,
                answer: Some(answer(&held)),
            }],
        }),
    ] {
        hides_it(&body);
        let frame = Frame::new(SessionId(5).to_bytes(), &node, &node, 77, body);
        hides_it(&frame);
        let shown = format!("{frame:?}");
        assert!(
            shown.contains("77") && shown.contains("32 bytes"),
            "{shown}"
        );
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = all_fields(&bytes, |_, field| all_fields(field, |_, _| true));
        let _ = Head::decode(&bytes[..]);
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
            let head = Head {
                session: frame.session.clone(),
                from_incarnation: frame.from_incarnation,
                to_incarnation: frame.to_incarnation,
                id: frame.id,
            };
            prop_assert_eq!(Head::decode(bytes.clone()).unwrap(), head);
            prop_assert_eq!(Frame::decode(bytes).unwrap(), frame);
        }
    }
}
