//! Proposals and answers that travel together, and what a node says of one that it did not take.

use prost::Message;

use super::*;
use crate::raft::wire::{Answered, Frame, Numbered, Submits, Submitted, Submitteds, TOGETHER_MAX};

/// Lets everything that is on its way arrive.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_awaits_any_more_takes_no_other_of_its_frame_with_it() {
    let table = Table::open(|_| {}).await;
    let [_, ann, _] = table.nodes();
    let (eve, mut asked) = table.stranger();
    // As a joiner asks who leads before its own log names any member.
    let tick = unstamped(&Do::Tick(crate::state::command::Tick {}));
    let ask = || {
        let (ann, to, tick) = (ann.clone(), eve.me().clone(), tick.clone());
        tokio::spawn(async move { ann.forward(&to, tick, HOP).await })
    };
    let calls: Vec<_> = (0..4).map(|_| ask()).collect();
    settle().await;
    let mut ids = Vec::new();
    while let Some(Inbound { frame, .. }) = asked.try_recv() {
        match Frame::decode(frame).unwrap() {
            Frame {
                body: Some(Body::Submits(Submits { asks })),
                ..
            } => ids.extend(asks.iter().map(|ask| ask.id)),
            Frame { id, .. } => ids.push(id),
        }
    }
    assert_eq!(ids.len(), 4);
    // The first, and another among the rest, gave up meanwhile.
    for n in [0, 2] {
        calls[n].abort();
    }
    settle().await;
    let before = ann.dropped();
    let answer = |id: &u64| Answered {
        id: *id,
        answer: Some(Submitted {
            outcome: 5,
            ..Submitted::default()
        }),
    };
    let together = |answers: Vec<Answered>| Body::Submitteds(Submitteds { answers });
    let answers = ids.iter().map(answer).collect();
    assert!(eve.send(ann.me(), ids[0], together(answers)));
    let mut decided = Vec::new();
    for (n, call) in calls.into_iter().enumerate() {
        if let Ok(answer) = call.await {
            assert_eq!(answer, Ok(Applied::Internal), "call {n}");
            decided.push(n);
        }
    }
    assert_eq!(decided, [1, 3]);
    let after = ann.dropped();
    assert_eq!(after.unasked, before.unasked + 2);
    assert_eq!(after.not_member, before.not_member);
    // Now none of them is awaited, and it is a stranger's frame like any other.
    let answers = ids.iter().map(answer).collect();
    assert!(eve.send(ann.me(), ids[0], together(answers)));
    settle().await;
    assert_eq!(ann.dropped().not_member, before.not_member + 1);
}

fn submits(count: usize) -> Body {
    let command = unstamped(&Do::Tick(crate::state::command::Tick {}));
    let asks = (0..count as u64).map(|id| Numbered {
        id: (1 << 41) + id,
        command: command.clone(),
    });
    Body::Submits(Submits {
        asks: asks.collect(),
    })
}

#[tokio::test(start_paused = true)]
async fn proposals_that_travel_together_are_nobodys_where_their_sender_is_no_member() {
    let table = Table::open(|_| {}).await;
    let [leader, ann, _] = table.nodes();
    let (eve, mut answered) = table.stranger();
    tokio::time::sleep(HOP).await;
    let (before, last) = (leader.dropped(), leader.numbers().last);
    for count in [1, 2, TOGETHER_MAX] {
        assert!(eve.send(leader.me(), 1, submits(count)));
    }
    settle().await;
    assert_eq!(leader.dropped().not_member, before.not_member + 3);
    assert_eq!(leader.numbers().last, last);
    assert!(answered.try_recv().is_none(), "and nobody is answered");
    // A member asks for what no member may, each is answered, and none is in the log.
    let (mine, unasked) = (leader.dropped().not_member, ann.dropped().unasked);
    assert!(ann.rpc.send(leader.me(), 1, submits(3)));
    settle().await;
    assert_eq!(leader.dropped().not_member, mine + 3);
    assert_eq!(ann.dropped().unasked, unasked + 3);
    assert_eq!(leader.numbers().last, last);
}

#[tokio::test(start_paused = true)]
async fn as_many_proposals_and_answers_as_may_travel_together_are_taken_and_one_more_is_no_frame() {
    let table = Table::open(|_| {}).await;
    let [leader, ann, _] = table.nodes();
    let answers = |count| {
        Body::Submitteds(Submitteds {
            answers: vec![Answered::default(); count],
        })
    };
    let before = leader.dropped();
    for bodies in [submits(TOGETHER_MAX), answers(TOGETHER_MAX)] {
        assert!(ann.rpc.send(leader.me(), 1, bodies));
        settle().await;
    }
    let at_most = leader.dropped();
    let each = TOGETHER_MAX as u64;
    assert_eq!(
        at_most.not_member,
        before.not_member + each,
        "each is judged"
    );
    assert_eq!(
        at_most.malformed,
        before.malformed + each,
        "they say nothing"
    );
    for bodies in [submits(TOGETHER_MAX + 1), answers(TOGETHER_MAX + 1)] {
        assert!(ann.rpc.send(leader.me(), 1, bodies));
        settle().await;
    }
    let past = leader.dropped();
    assert_eq!(past.malformed, at_most.malformed + 2);
    assert_eq!(past.not_member, at_most.not_member);
    assert!(ann.rpc.send(leader.me(), 1, submits(0)));
    settle().await;
    assert_eq!(leader.dropped().malformed, past.malformed + 1, "of nothing");
}

#[tokio::test(start_paused = true)]
async fn whatever_bytes_a_frame_of_proposals_is_made_of_it_costs_the_game_nothing() {
    let table = Table::open(|_| {}).await;
    let [leader, ann, _] = table.nodes();
    let (eve, _answered) = table.stranger();
    let mut dice = 0x2545_F491_4F6C_DD1D_u64;
    let mut roll = move || {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice
    };
    let session = table.sessions[0].1.id().to_bytes();
    let total = |of: &Node| {
        let dropped = of.dropped();
        dropped.malformed
            + dropped.not_member
            + dropped.other_session
            + dropped.other_life
            + dropped.unasked
            + dropped.repeated
            + dropped.overload
    };
    let ports = [&ann.rpc, &eve];
    for n in 0..600 {
        let from = ports[n % 2];
        let answers = Body::Submitteds(Submitteds {
            answers: vec![Answered::default(); 3],
        });
        let body = if n % 4 < 2 { submits(3) } else { answers };
        let frame = Frame::new(session.clone(), from.me(), leader.me(), roll(), body);
        let mut bytes = frame.encode_to_vec();
        // Its beginning says that it is for this node; what follows is torn.
        let head = Frame {
            body: None,
            ..frame
        }
        .encoded_len();
        let len = bytes.len() - head;
        match n % 3 {
            0 => bytes.truncate(head + roll() as usize % len),
            1 => bytes[head + roll() as usize % len] = roll() as u8,
            _ => bytes[head..]
                .iter_mut()
                .for_each(|byte| *byte = roll() as u8),
        }
        let before = total(&leader);
        from.send_bytes(&leader.me().peer, bytes.into());
        settle().await;
        if n % 2 == 1 {
            assert_eq!(total(&leader), before + 1, "{n}: a stranger's is nobody's");
        }
    }
    let hello = "hello".to_owned();
    let decided = table.sessions[0].1.sequencer().propose(&hello).await;
    assert!(decided.unwrap().is_accepted());
    for (_, session) in &table.sessions {
        assert_eq!(session.node().status().get().stopped, None);
    }
}

#[tokio::test(start_paused = true)]
async fn who_resumed_says_that_a_proposal_was_not_taken_once_no_call_of_before_is_waited_for() {
    let logs: [crate::log::MemoryLog; 3] = Default::default();
    let mut table = Table::open(|config| {
        let n = usize::try_from(config.nonce).unwrap();
        config.log = Arc::new(logs[n].clone());
    })
    .await;
    let n = (table.leader + 1) % 3;
    let bob = table.node((table.leader + 2) % 3);
    let ask = Do::Open(Open {
        client: bob.client().as_str().to_owned(),
        owner: bob.me().peer.as_str().to_owned(),
        nonce: bob.nonce,
    });
    let me = table.node(n).me().clone();
    let ask = || bob.forward(&me, unstamped(&ask), HOP);
    let not_leader = |answer| matches!(answer, Err(crate::raft::SubmitError::NotLeader { .. }));
    assert!(not_leader(ask().await), "it follows");
    table.sessions[n].1.close().await;
    logs[n].reopen();
    let at = table.sessions[n].0.clone();
    let port = Port::open(at, GameId::new("last").unwrap()).unwrap();
    let roster: BTreeSet<_> = NAMES.iter().map(|n| PeerId::new(n).unwrap()).collect();
    let mut config = SessionConfig::new(Arc::new(TokioClock::default()), 9);
    config.timing = Timing::fast();
    config.log = Arc::new(logs[n].clone());
    let opening = game_node(port, Blueprint::new(Last::default), roster, config);
    table.sessions[n].1 = opening.await.unwrap();
    // What is sent now may be a copy of what the process before put in this log.
    assert_eq!(ask().await, Err(crate::raft::SubmitError::Unknown));
    tokio::time::sleep(Timing::fast().election_max() * 2).await;
    assert!(not_leader(ask().await));
}
