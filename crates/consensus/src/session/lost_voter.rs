//! What Raft cannot do: a change of voters that is in a log, and whose voter is lost before it is
//! committed, can neither be finished nor undone.
//!
//! Admission begins no change of voters unless those that answer are a majority before it and after
//! it, so the voter must be lost between its last answer and the commit. Then the state is this: the
//! entry with both halves, `{ann, bob, cyd}` and `{ann, bob}`, is in the logs of ann and cyd. It
//! needs two of the first and both of the second. Bob may have stored it and voted for it before he
//! was lost, so nobody may take it back: that a majority forgets an entry is what Raft rules out. And
//! nobody can lead against it: ann and cyd, who have it, are bound by it, and there is nobody else.

use std::time::Duration;

use super::*;
use crate::config::Timing;
use crate::fabric::MemoryFabric;
use crate::fabric::Port;
use crate::game::TurnInfo;
use crate::ids::GameId;
use crate::node::ReadError;
use crate::raft::{Change, ChangeError};
use crate::raft::{Consensus, Role};
use crate::turns::{Ruling, TurnError};

#[derive(Clone, Default)]
struct Sum(u64);

impl Game for Sum {
    type Action = u64;
    type Outcome = u64;
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, add: &u64) -> Result<u64, ()> {
        self.0 += add;
        Ok(self.0)
    }
}

fn peer(name: &str) -> PeerId {
    PeerId::new(name).unwrap()
}

const SILENT: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_secs(5);

/// Ann leads, and bob and cyd follow.
async fn table(net: &MemoryFabric) -> [GameSession<Sum>; 3] {
    let roster: BTreeSet<_> = ["ann", "bob", "cyd"].map(peer).into();
    let mut sessions = Vec::new();
    for name in ["ann", "bob", "cyd"] {
        let port = Port::open(net.join(peer(name)).unwrap(), GameId::new("sum").unwrap()).unwrap();
        let config = SessionConfig {
            timing: Timing::fast(),
            ..SessionConfig::new(Arc::new(TokioClock::default()), 1)
        };
        let opened = game_node(port, Blueprint::new(Sum::default), roster.clone(), config);
        sessions.push(opened.await.unwrap());
    }
    sessions[0].sequencer().propose(&1).await.unwrap();
    let leader = sessions[0].node().leader().unwrap();
    let leads = sessions.iter().position(|one| *one.node().id() == leader);
    if leads != Some(0) {
        let ann = sessions[0].node().id().clone();
        let former = sessions[leads.unwrap()].node();
        assert_eq!(former.transfer(&ann, SOON).await, Ok(()));
    }
    sessions[0].sequencer().propose(&1).await.unwrap();
    sessions.try_into().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_voter_is_lost_before_it_commits_waits_for_that_voter_and_says_so() {
    let net = MemoryFabric::new();
    let [ann, bob, cyd] = table(&net).await;
    let [(a, an), (b, bn), (c, cn)] =
        [&ann, &bob, &cyd].map(|one| (one.node(), one.node().id().clone()));
    // Bob answered a moment ago, so the guard lets the change begin; and then he is lost.
    net.cut(&peer("ann"), &peer("bob"));
    net.cut(&peer("cyd"), &peer("bob"));
    let changed = ann.node.engine.change(Change::Remove(cn.clone()));
    let changed = tokio::time::timeout(SOON, changed).await;
    assert!(changed.is_err(), "it is not committed: {changed:?}");

    // The state: both halves, in the logs of those who are left.
    let before: BTreeSet<_> = [an.clone(), bn.clone(), cn.clone()].into();
    let after: BTreeSet<_> = [an.clone(), bn.clone()].into();
    for view in [&a, &c] {
        assert_eq!(view.membership().joint, [before.clone(), after.clone()]);
        assert!(!view.status().borrow().membership_committed);
    }
    let why = Waiting::ForChange {
        before,
        after,
        missing: vec![bn.clone()],
    };
    assert_eq!(a.waiting(SILENT), why, "the leader names who it waits for");

    // It cannot be finished, nor another begun in its place, however long that is tried.
    for change in [Change::FinishJoint, Change::Promote(cn.clone())] {
        let refused = ann.node.engine.change(change).await;
        assert_eq!(refused, Err(ChangeError::InProgress));
    }
    let sequencer = ann.sequencer();
    let proposed = sequencer.propose_with(
        &1,
        crate::turns::Proposal {
            within: SOON,
            ..Default::default()
        },
    );
    assert!(matches!(proposed.await, Err(TurnError::Propose(_))));
    assert_eq!(a.read_barrier(SOON).await, Err(ReadError::NoQuorum));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(a.waiting(SILENT), why);
    // Nobody else can lead: cyd stands, and her own log asks for bob as well.
    net.cut(&peer("ann"), &peer("cyd"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    net.heal();
    net.cut(&peer("ann"), &peer("bob"));
    net.cut(&peer("cyd"), &peer("bob"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    for view in [&a, &c] {
        assert_ne!(view.status().borrow().role, Role::Leader);
        assert!(view.membership().is_joint());
    }

    // Bob comes back with his log: the change ends by itself, and nothing is lost.
    net.heal();
    let added = ann.sequencer().propose(&1).await.unwrap();
    assert!(matches!(added.ruling, Ruling::Accepted(3..)), "{added:?}");
    let mut status = b.status();
    let ended = status.wait_for(|now| now.membership_committed && !now.membership.is_joint());
    tokio::time::timeout(SOON, ended).await.unwrap().unwrap();
    assert_eq!(a.waiting(SILENT), Waiting::No);
}
