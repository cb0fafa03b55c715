//! What a leader takes from members that do not keep to the rules.

mod together;

use std::collections::BTreeSet;

use bytes::Bytes;

use super::*;
use crate::fabric::{MemoryFabric, MemoryPeer, Port};
use crate::game::{Blueprint, Game, TurnInfo};
use crate::ids::{GameId, Incarnation, PeerId};
use crate::raft::rpc::{Caller, Rpc};
use crate::raft::wire::{
    Append, At, Body, Chunk, Chunked, ENTRIES_MAX, EntryMsg, MembershipMsg, Nodes, Submit,
    Transfer, VoteAsked, VoteMsg, Voted,
};
use crate::raft::{Change, Role};
use crate::session::{GameSession, SessionConfig, game_node};
use crate::state::Applied;
use crate::state::command::{Act, Body as Do, Command, Hash, Open};
use crate::state::sessions::Rejection;
use crate::state::votes::NoVote;
use crate::turns::TurnError;

/// Says whose action was the last.
#[derive(Clone, Default)]
struct Last(String);

impl Game for Last {
    type Action = String;
    type Outcome = ();
    type Refusal = ();

    fn apply(&mut self, at: &TurnInfo, _: &String) -> Result<(), ()> {
        self.0 = format!("{:?}", at.player);
        Ok(())
    }
}

const NAMES: [&str; 3] = ["ann", "bob", "cyd"];

struct Table {
    net: MemoryFabric,
    sessions: Vec<(Arc<MemoryPeer>, GameSession<Last>)>,
    leader: usize,
}

impl Table {
    async fn open(set: impl Fn(&mut SessionConfig)) -> Self {
        let net = MemoryFabric::new();
        let roster: BTreeSet<_> = NAMES.iter().map(|n| PeerId::new(n).unwrap()).collect();
        let mut sessions = Vec::new();
        for (n, name) in NAMES.iter().enumerate() {
            let at = net.join(PeerId::new(name).unwrap()).unwrap();
            let port = Port::open(at.clone(), GameId::new("last").unwrap()).unwrap();
            let mut config = SessionConfig::new(Arc::new(TokioClock::default()), n as u64);
            config.timing = Timing::fast();
            set(&mut config);
            let opening = game_node(port, Blueprint::new(Last::default), roster.clone(), config);
            sessions.push((at, opening.await.unwrap()));
        }
        let first = "first".to_owned();
        sessions[0].1.sequencer().propose(&first).await.unwrap();
        let leads = |n: &usize| {
            let status = sessions[*n].1.node().status().get();
            status.role == Role::Leader
        };
        let leader = (0..3).find(leads).unwrap();
        Self {
            net,
            sessions,
            leader,
        }
    }

    fn node(&self, n: usize) -> Arc<Node> {
        self.sessions[n].1.sequencer().node().clone()
    }

    /// Somebody on the fabric who is in no game, and knows the session.
    fn stranger(&self) -> (Rpc, Receiver<Inbound>) {
        let at = self.net.join(PeerId::new("eve").unwrap()).unwrap();
        let port = Port::open(at, GameId::new("last").unwrap()).unwrap();
        let (links, incoming) = port.split();
        let eve = NodeId::new(PeerId::new("eve").unwrap(), Incarnation(0));
        let rpc = Rpc::new(links, eve, 1 << 40);
        rpc.set_session(self.sessions[0].1.id());
        // Held for as long as the test lives: what keeps the game's name taken.
        std::mem::forget(incoming.guard);
        (rpc, incoming.raft)
    }

    /// The leader, a follower, and another.
    fn nodes(&self) -> [Arc<Node>; 3] {
        [0, 1, 2].map(|n| self.node((self.leader + n) % 3))
    }
}

const HOP: Duration = Duration::from_secs(1);

fn act(client: &ClientId, owner: &PeerId, session: u64, serial: u64, action: &str) -> Do {
    Do::Act(Act {
        client: client.as_str().to_owned(),
        session,
        serial,
        expected_turn: None,
        action: action.to_owned().into(),
        owner: owner.as_str().to_owned(),
    })
}

/// A command as a follower hands it on: whoever leads stamps it.
fn unstamped(body: &Do) -> Bytes {
    Command::new(0, body.clone()).to_bytes()
}

async fn open(node: &Node, leader: &NodeId) -> u64 {
    let open = Do::Open(Open {
        client: node.client().as_str().to_owned(),
        owner: "whoever".to_owned(),
        nonce: node.nonce,
    });
    match node.forward(leader, unstamped(&open), HOP).await {
        Ok(Applied::Opened(opened)) => opened.generation,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_acts_in_anothers_name_is_refused_by_every_replica() {
    let table = Table::open(|_| {}).await;
    let [leader, ann, bob] = table.nodes();
    let session = open(&ann, leader.me()).await;
    // Bob knows everything about Ann's session, and says that he is her.
    let forged = act(ann.client(), &ann.me().peer, session, 50, "forged");
    assert_eq!(
        bob.forward(leader.me(), unstamped(&forged), HOP).await,
        Ok(Applied::Rejected(Rejection::NotYours))
    );
    // The leader's word is not asked: each replica judged the entry by the owner it names.
    let genuine = ann.forward(leader.me(), unstamped(&forged), HOP).await;
    let Ok(Applied::Decided { duplicate, .. }) = genuine else {
        panic!("{genuine:?}");
    };
    assert!(!duplicate, "it did not take place before");
    let named = table.sessions[0].1.sequencer();
    let last = named.read(|seen| seen.game.0.clone()).await.unwrap();
    assert_eq!(last, format!("{:?}", Some(&ann.me().peer)));
}

#[tokio::test(start_paused = true)]
async fn an_action_larger_than_the_leader_takes_is_refused_by_it() {
    let table = Table::open(|config| config.limits.action_bytes_max = 10).await;
    let [leader, ann, _] = table.nodes();
    let session = open(&ann, leader.me()).await;
    let say = |serial, text| act(ann.client(), &ann.me().peer, session, serial, text);
    let most = ann
        .forward(leader.me(), unstamped(&say(20, "0123456789")), HOP)
        .await;
    assert!(matches!(most, Ok(Applied::Decided { .. })), "{most:?}");
    assert_eq!(
        ann.forward(leader.me(), unstamped(&say(21, "0123456789+")), HOP)
            .await,
        Ok(Applied::Rejected(Rejection::TooLarge { max: 10 }))
    );
    assert_eq!(leader.dropped().overload, 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_is_taken_with_the_longest_client_and_record_there_is_and_refused_one_past_it() {
    let table = Table::open(|_| {}).await;
    let [leader, ann, _] = table.nodes();
    let malformed = Ok(Applied::Rejected(Rejection::Malformed));
    for (len, taken) in [(128, true), (129, false), (2_500_000, false)] {
        let client = "c".repeat(len);
        let open = Do::Open(Open {
            client: client.clone(),
            ..Open::default()
        });
        let act = Do::Act(Act {
            client,
            serial: 1,
            ..Act::default()
        });
        let before = leader.dropped().malformed;
        let opened = ann.forward(leader.me(), unstamped(&open), HOP).await;
        let acted = ann.forward(leader.me(), unstamped(&act), HOP).await;
        if taken {
            assert!(matches!(opened, Ok(Applied::Opened(_))), "{opened:?}");
            assert_ne!(acted, malformed);
        } else {
            assert_eq!((opened, acted), (malformed.clone(), malformed.clone()));
        }
        let refused = if taken { 0 } else { 2 };
        assert_eq!(leader.dropped().malformed, before + refused);
    }
    // Whatever it is, what no log takes is told so before it is in one.
    let record = |len| Bytes::from(vec![0; len]);
    let most = crate::log::RECORD_BYTES_MAX;
    assert_eq!(leader.engine.submit(record(most)).await, malformed);
    let last = leader.numbers().last;
    let max = most as u64;
    assert_eq!(
        leader.engine.submit(record(most + 1)).await,
        Ok(Applied::Rejected(Rejection::TooLarge { max }))
    );
    assert_eq!(leader.numbers().last, last);
    let hello = "hello".to_owned();
    let decided = table.sessions[0].1.sequencer().propose(&hello).await;
    assert!(decided.unwrap().is_accepted());
}

#[tokio::test(start_paused = true)]
async fn a_leader_has_its_most_proposals_under_way_and_one_more_is_told_so() {
    let table = Table::open(|config| {
        config.limits.pending_max = 2;
        config.limits.pending_total_max = 3;
    })
    .await;
    let [leader, ann, bob] = table.nodes();
    let short = |n: usize| {
        let sequencer = table.sessions[(table.leader + n) % 3].1.sequencer();
        async move {
            let proposal = crate::turns::Proposal {
                within: Duration::from_millis(300),
                ..Default::default()
            };
            let proposed = sequencer.propose_with(&"hello".to_owned(), proposal).await;
            proposed.map(|decision| decision.is_accepted())
        }
    };
    let overloaded = Err(TurnError::Propose(ProposeError::Overloaded));
    assert_eq!((short(1).await, short(2).await), (Ok(true), Ok(true)));
    let one = leader.load.take(&ann.me().peer).unwrap();
    assert_eq!(short(1).await, Ok(true), "at the limit of one peer");
    let two = leader.load.take(&ann.me().peer).unwrap();
    assert_eq!(short(1).await, overloaded, "one past it");
    assert!(leader.dropped().overload > 0);
    assert_eq!(short(2).await, Ok(true), "at the limit of all");
    let three = leader.load.take(&bob.me().peer).unwrap();
    assert_eq!(short(2).await, overloaded, "one past it");
    assert_eq!(short(0).await, overloaded, "the leader's own count too");
    drop((one, two, three));
    assert_eq!(short(1).await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn a_peer_has_its_most_reads_under_way_and_one_more_waits_for_its_turn() {
    let table = Table::open(|config| config.limits.pending_max = 2).await;
    let [leader, ann, bob] = table.nodes();
    let short = Duration::from_millis(300);
    let one = leader.load.take(&ann.me().peer).unwrap();
    assert!(ann.read_barrier(short).await.is_ok(), "at the limit");
    let two = leader.load.take(&ann.me().peer).unwrap();
    let before = leader.dropped().overload;
    let past = ann.read_barrier(short).await;
    assert_eq!(past, Err(ReadError::NoQuorum), "one past it");
    assert!(leader.dropped().overload > before);
    assert!(
        bob.read_barrier(short).await.is_ok(),
        "others have their own"
    );
    drop((one, two));
    assert!(ann.read_barrier(short).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn of_a_number_that_may_have_been_proposed_before_nothing_is_promised() {
    let table = Table::open(|config| config.limits.pending_max = 2).await;
    let [leader, ann, _] = table.nodes();
    let sequencer = table.sessions[(table.leader + 1) % 3].1.sequencer();
    let ask = |serial| {
        let proposal = crate::turns::Proposal {
            serial,
            within: Duration::from_millis(300),
            ..Default::default()
        };
        let sequencer = sequencer.clone();
        async move {
            let asked = sequencer.propose_with(&"hello".to_owned(), proposal).await;
            match asked {
                Ok(decision) => panic!("decided: {decision:?}"),
                Err(TurnError::Propose(why)) => why,
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    let unknown = |serial| {
        let client = ann.client().clone();
        ProposeError::Unknown {
            key: crate::ids::ActionKey { client, serial },
        }
    };
    // Its session is open: what is refused is the action.
    let first = "first".to_owned();
    sequencer.propose(&first).await.unwrap();
    let busy = [0, 1].map(|_| leader.load.take(&ann.me().peer).unwrap());
    assert_eq!(ask(None).await, ProposeError::Overloaded);
    assert_eq!(ask(Some(50)).await, unknown(50));
    drop(busy);
    // Nobody leads.
    for n in [0, 2] {
        table.sessions[(table.leader + n) % 3].1.close().await;
    }
    tokio::time::sleep(HOP).await;
    assert_eq!(ask(Some(50)).await, unknown(50));
    table.sessions[(table.leader + 1) % 3].1.close().await;
    assert_eq!(ask(None).await, ProposeError::Closed);
    assert_eq!(ask(Some(50)).await, unknown(50));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_lags_gets_every_turn_from_a_replay_that_holds_one_batch() {
    let table = Table::open(|config| config.events.events_max = 8).await;
    let turns = 3 * reader::REPLAY_ENTRIES;
    let sequencer = table.sessions[table.leader].1.sequencer();
    for _ in 0..turns / 64 {
        let hello = "hello".to_owned();
        let proposed = (0..64).map(|_| sequencer.propose(&hello));
        let decided = futures_util::future::join_all(proposed).await;
        assert!(decided.iter().all(Result::is_ok));
    }
    let mut events = sequencer.node().events(1);
    let (mut seen, mut last, mut most, mut lagged) = (0, 0, 0, 0);
    while seen <= turns {
        match events.next().await.unwrap() {
            Next::Event(event) => {
                assert!(event.index() > last);
                last = event.index();
                seen += 1;
            }
            Next::Lagged(..) => lagged += 1,
        }
        most = most.max(events.replayed());
    }
    assert_eq!(lagged, 1);
    assert!(most > 8, "it was read from the log");
    assert!(
        most <= usize::try_from(reader::REPLAY_ENTRIES).unwrap(),
        "{most}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_votes_is_kept_out_of_the_log_and_counted() {
    let table = Table::open(|config| config.hash_every = 5).await;
    let [leader, ann, bob] = table.nodes();
    tokio::time::sleep(HOP).await;
    let before = leader.numbers().last;
    let vote = |at, of: &Arc<Node>| {
        Do::Hash(Hash {
            at,
            hash: Bytes::from_static(&[1; 32]),
            node: Some(of.me().into()),
        })
    };
    for (at, why) in [
        (u64::MAX / 5 * 5, NoVote::Ahead),
        (6, NoVote::NoPoint),
        (0, NoVote::NoPoint),
    ] {
        let refused = lock(&leader.replica).would_count(&match vote(at, &ann) {
            Do::Hash(hash) => hash,
            other => panic!("{other:?}"),
        });
        assert_eq!(refused, Err(why));
        let answer = ann
            .forward(leader.me(), unstamped(&vote(at, &ann)), HOP)
            .await;
        assert_eq!(answer, Ok(Applied::Internal), "it is done with");
    }
    let others = bob
        .forward(leader.me(), unstamped(&vote(5, &ann)), HOP)
        .await;
    assert_eq!(others, Ok(Applied::Rejected(Rejection::NotYours)));
    assert_eq!(leader.dropped().votes, 3);
    assert_eq!(leader.numbers().last, before);
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_speaks_in_anothers_name_or_for_the_last_term_is_dropped_and_ends_no_game() {
    let table = Table::open(|_| {}).await;
    let [leader, ann, bob] = table.nodes();
    let term = leader.status().get().term;
    let vote = |of: &Node, term, committed| {
        Some(VoteMsg {
            term,
            node: Some(of.me().into()),
            committed,
        })
    };
    let asks = |of: &Node, term| {
        Body::Vote(VoteAsked {
            vote: vote(of, term, false),
            last: leader.numbers().last.map(|index| At { index, term: 0 }),
            transfer: true,
            pre: false,
        })
    };
    let forged = [
        asks(&bob, u64::MAX),
        asks(&leader, term + 1),
        Body::Append(Append {
            vote: vote(&leader, term, true),
            ..Append::default()
        }),
        Body::Chunk(Chunk {
            vote: vote(&leader, term, true),
            ..Chunk::default()
        }),
        Body::Transfer(Transfer {
            from: vote(&leader, term, true),
            to: Some(bob.me().into()),
            last: None,
        }),
    ];
    for (n, ask) in forged.into_iter().enumerate() {
        let before = ann.dropped().not_member;
        let answer = bob.rpc.call(ann.me(), ask, HOP).await;
        assert!(answer.is_err(), "{n}: {answer:?}");
        assert_eq!(ann.dropped().not_member, before + 1, "{n}");
    }
    // In its own name, for the next term, and nobody asked it to take over.
    let last = leader.numbers().last.unwrap();
    let ask = Body::Vote(VoteAsked {
        vote: vote(&bob, term + 1, false),
        last: Some(At { index: last, term }),
        transfer: true,
        pre: false,
    });
    let answer = bob.rpc.call(ann.me(), ask, HOP).await;
    let Ok(Body::Voted(Voted { granted, .. })) = answer else {
        panic!("{answer:?}");
    };
    assert!(!granted, "its leader is well");
    let hello = "hello".to_owned();
    let decided = table.sessions[0].1.sequencer().propose(&hello).await;
    assert_eq!(decided.unwrap().term, term);
    // The leader's own word is enough, at once.
    assert_eq!(leader.transfer(bob.me(), HOP).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_members_frame_with_more_entries_than_are_ever_sent_is_no_frame() {
    let table = Table::open(|_| {}).await;
    let [_, ann, bob] = table.nodes();
    let before = ann.dropped();
    for entries in [ENTRIES_MAX, ENTRIES_MAX + 1] {
        let many = Body::Append(Append {
            entries: vec![EntryMsg::default(); entries],
            ..Append::default()
        });
        assert!(bob.rpc.call(ann.me(), many, HOP).await.is_err());
    }
    let now = ann.dropped();
    assert_eq!(now.not_member, before.not_member + 1, "read, and nobody's");
    assert_eq!(now.malformed, before.malformed + 1);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_arrives_is_taken_at_the_limit_and_refused_one_byte_past_it() {
    let table = Table::open(|config| config.limits.snapshot_bytes_max = 100).await;
    let [leader, ann, _] = table.nodes();
    let term = leader.status().get().term;
    let chunk = |total| {
        Body::Chunk(Chunk {
            vote: Some(VoteMsg {
                term,
                node: Some(leader.me().into()),
                committed: true,
            }),
            through: Some(crate::raft::wire::At { index: 9, term }),
            membership: Some(MembershipMsg {
                halves: vec![Nodes {
                    nodes: vec![leader.me().into()],
                }],
                nodes: vec![leader.me().into()],
                at: None,
            }),
            offset: 0,
            total,
            data: Bytes::from_static(b"x"),
        })
    };
    let taken = ann.engine.handle(leader.me(), chunk(100)).await;
    let first = Chunked {
        next: 1,
        ..Chunked::default()
    };
    assert_eq!(taken, Some(Body::Chunked(first)));
    let refused = ann.engine.handle(leader.me(), chunk(101)).await;
    let too_large = Chunked {
        too_large: true,
        max: 100,
        ..Chunked::default()
    };
    assert_eq!(refused, Some(Body::Chunked(too_large)));
}

#[tokio::test(start_paused = true)]
async fn a_voters_flood_of_rafts_requests_is_served_up_to_its_share_and_dropped_and_counted_past_it()
 {
    let table = Table::open(|_| {}).await;
    let [leader, ann, bob] = table.nodes();
    let term = leader.status().get().term;
    // Each waits for the leader to say that it hands over.
    let ask = Body::Vote(VoteAsked {
        vote: Some(VoteMsg {
            term: term + 1,
            node: Some(bob.me().into()),
            committed: false,
        }),
        last: None,
        transfer: true,
        pre: false,
    });
    let before = ann.dropped().overload;
    for n in 0..serving::RAFT_OF_PEER_MAX as u64 {
        assert!(bob.rpc.send(ann.me(), n, ask.clone()));
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ann.dropped().overload, before, "at the limit");
    assert!(bob.rpc.send(ann.me(), 0, ask.clone()));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ann.dropped().overload, before + 1, "one past it");
    // The leader has its own share, and bob his again once the first are answered.
    let hello = "hello".to_owned();
    assert!(
        table.sessions[table.leader]
            .1
            .sequencer()
            .propose(&hello)
            .await
            .is_ok()
    );
    tokio::time::sleep(HOP).await;
    assert!(bob.rpc.send(ann.me(), 0, ask));
    tokio::time::sleep(HOP).await;
    assert_eq!(ann.dropped().overload, before + 1);
}

#[tokio::test(start_paused = true)]
async fn who_only_proved_that_it_was_let_in_is_not_heard_by_who_leads_or_hears_a_leader() {
    let table = Table::open(|_| {}).await;
    let [leader, follower, _] = table.nodes();
    tokio::time::sleep(HOP).await;
    let eve = NodeId::new(PeerId::new("eve").unwrap(), Incarnation(0));
    let ask = Body::Append(Append::default());
    // It showed its proof before, and nothing has forgotten it yet.
    for node in [&leader, &follower] {
        guard(&node.proved).insert(eve.clone());
    }
    // The leader has heard nobody else for as long as it leads.
    *guard(&leader.heard) = Duration::ZERO;
    for node in [&leader, &follower] {
        assert!(!node.may_say_something(&eve) && !node.may_ask(&eve, &ask));
    }
    leader.trust(vec![eve.clone()]);
    assert!(!leader.believes(&eve.peer));
    *guard(&follower.heard) = Duration::ZERO;
    assert!(follower.may_say_something(&eve) && follower.may_ask(&eve, &ask));
}

#[tokio::test(start_paused = true)]
async fn a_member_without_a_vote_is_heard_as_a_leader_only_by_who_hears_none() {
    let table = Table::open(|_| {}).await;
    let [leader, follower, _] = table.nodes();
    tokio::time::sleep(HOP).await;
    let eve = NodeId::new(PeerId::new("eve").unwrap(), Incarnation(0));
    let mut status = follower.status();
    let learns = status.wait_for(|status| status.membership.learners.contains(&eve));
    let (added, learns) = tokio::join!(
        leader.engine.change(Change::AddLearner(eve.clone())),
        learns
    );
    added.unwrap();
    drop(learns.unwrap());
    let ask = Body::Append(Append::default());
    assert!(follower.may_say_something(&eve) && !follower.may_ask(&eve, &ask));
    // It may have been given a vote since.
    *guard(&follower.heard) = Duration::ZERO;
    assert!(follower.may_ask(&eve, &ask));
}

#[tokio::test(start_paused = true)]
async fn a_proposal_that_a_fabric_brings_twice_is_served_once_and_the_second_counted() {
    let table = Table::open(|_| {}).await;
    let [leader, _, bob] = table.nodes();
    let ask = Body::Submit(Submit::default());
    let before = leader.dropped();
    for number in [70, 70, 71] {
        assert!(bob.rpc.send(leader.me(), number, ask.clone()));
    }
    tokio::time::sleep(HOP).await;
    let after = leader.dropped();
    assert_eq!(after.repeated, before.repeated + 1);
    // What came back was not asked for by a call of that number: two answers, and no third.
    assert_eq!(bob.dropped().unasked, 2);
}
