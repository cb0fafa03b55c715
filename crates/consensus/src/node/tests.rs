//! What a leader takes from members that do not keep to the rules.

use std::collections::BTreeSet;

use super::*;
use crate::fabric::{MemoryFabric, MemoryPeer, Port};
use crate::game::{Blueprint, Game, TurnInfo};
use crate::ids::GameId;
use crate::raft::Role;
use crate::raft::wire::{Chunk, Chunked, MembershipMsg, Nodes, VoteMsg};
use crate::session::{GameSession, SessionConfig, game_node};
use crate::state::command::{Act, Command, Hash, Open};
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
        Self { sessions, leader }
    }

    fn node(&self, n: usize) -> Arc<Node> {
        self.sessions[n].1.sequencer().node().clone()
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
