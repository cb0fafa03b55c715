//! A member that was cut off comes back to members it has never heard of.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::Compaction;
use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer};
use cabinet_consensus::game::Blueprint;
use cabinet_consensus::ids::Incarnation;
use cabinet_consensus::log::{LogStore, MemoryLog};
use cabinet_consensus::session::{
    GameSession, HostOptions, JoinOptions, ReturnPolicy, SessionConfig, game_host, game_join,
    game_resume,
};
use cabinet_consensus::turns::Ruling;
use common::{Sum, config as usual, peer, port, until};
use tokio::time::{sleep, timeout};

type Session = GameSession<Sum>;

const PATIENCE: Duration = Duration::from_secs(20);

fn snapped() -> Blueprint<Sum> {
    Blueprint::with_snapshots(Sum::default)
}

/// Nothing is kept that a snapshot stands for.
fn compacts(config: &mut SessionConfig) {
    config.limits.log_kept_after_snapshot = 0;
    config.compaction = Some(Compaction {
        entries: 1,
        bytes: 1 << 30,
        age: Duration::from_secs(86_400),
    });
}

/// Silence costs nobody its place.
fn config(nonce: u64) -> SessionConfig {
    let mut config = usual(nonce);
    config.admission.evict_after = None;
    config
}

async fn add(session: &Session, n: u64) -> u64 {
    let proposed = timeout(PATIENCE, session.sequencer().propose(&n)).await;
    match proposed.expect("the game goes on").unwrap().ruling {
        Ruling::Accepted(total) => total,
        other => panic!("unexpected {other:?}"),
    }
}

/// Cyd is cut off from a game of ann, bob and her. Dan and fay come, ann and bob go for good: nobody
/// that cyd has ever heard of is left. Dan and fay, then cyd and where she is.
struct Estranged {
    net: MemoryFabric,
    dan: Session,
    fay: Session,
    cyd: Session,
    cyds: Arc<MemoryPeer>,
    log: MemoryLog,
}

impl Estranged {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// What cyd is told beside the usual.
    async fn with(set: impl FnOnce(&mut SessionConfig)) -> Self {
        let net = MemoryFabric::new();
        let names = ["ann", "bob", "cyd", "dan", "fay"];
        let at = names.map(|name| net.join(peer(name)).unwrap());
        let options = HostOptions {
            claim_wait: Duration::from_millis(100),
            return_at: ReturnPolicy::Quorum,
            ..HostOptions::new(5, Incarnation(1))
        };
        let joins = |n: usize, config| {
            let options = JoinOptions {
                within: PATIENCE,
                hosts: [peer("ann")].into(),
                ..JoinOptions::new(Incarnation(1))
            };
            game_join(port(&at[n]), snapped(), options, config)
        };
        let log = MemoryLog::new();
        let mut cyds_config = SessionConfig {
            log: Arc::new(log.clone()),
            ..config(3)
        };
        set(&mut cyds_config);
        let (ann, bob, cyd) = tokio::join!(
            game_host(port(&at[0]), snapped(), options, config(1)),
            joins(1, config(2)),
            joins(2, cyds_config),
        );
        let (ann, bob, cyd) = (ann.unwrap(), bob.unwrap(), cyd.unwrap());
        assert_eq!(add(&cyd, 1).await, 1);

        for other in ["ann", "bob", "dan", "fay"] {
            net.cut(&peer("cyd"), &peer(other));
        }
        let dan = joins(3, config(4)).await.unwrap();
        let fay = joins(4, config(5)).await.unwrap();
        assert!(ann.leave(PATIENCE).await);
        assert!(bob.leave(PATIENCE).await);
        until("ann and bob are out", || dan.node().voters().len() == 3).await;
        assert_eq!(add(&fay, 2).await, 3);
        assert!(dan.node().voters().contains(cyd.node().id()));
        let known = cyd.node().voters();
        assert!(!known.contains(dan.node().id()) && !known.contains(fay.node().id()));
        let [_, _, cyds, _, _] = at;
        Self {
            net,
            dan,
            fay,
            cyd,
            cyds,
            log,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_cut_off_follows_a_leader_it_never_heard_of_when_all_it_knew_are_gone() {
    let Estranged {
        net, dan, fay, cyd, ..
    } = Estranged::new().await;
    net.heal();
    until("cyd catches up", || {
        cyd.node().voters() == dan.node().voters()
    })
    .await;
    assert_eq!(add(&cyd, 4).await, 7);
    // She is one of them: any two go on without the third.
    fay.close().await;
    assert_eq!(add(&dan, 8).await, 15);
    assert_eq!(add(&cyd, 16).await, 31);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_cut_off_votes_for_one_it_never_heard_of_when_its_vote_is_needed() {
    let Estranged {
        net, dan, fay, cyd, ..
    } = Estranged::new().await;
    // One of the two is gone as well, whoever of them led: nobody leads who could say so.
    fay.close().await;
    sleep(Duration::from_secs(2)).await;
    net.heal();
    assert_eq!(add(&cyd, 4).await, 7);
    assert_eq!(add(&dan, 8).await, 15);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_restarted_while_it_was_cut_off_finds_those_it_never_heard_of() {
    comes_back(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_log_begins_after_its_settings_finds_them_by_its_snapshot() {
    comes_back(true).await;
}

/// Cyd is restarted while she is cut off, and is needed.
async fn comes_back(compacted: bool) {
    let Estranged {
        net,
        dan,
        fay,
        cyd,
        cyds,
        log,
    } = Estranged::with(|config| {
        if compacted {
            compacts(config);
        }
    })
    .await;
    if compacted {
        // No settings are left in it.
        until("cyd compacts", || log.state().unwrap().first > 5).await;
    }
    cyd.close().await;
    log.reopen();
    let again = SessionConfig {
        log: Arc::new(log.clone()),
        ..config(13)
    };
    let cyd = game_resume(port(&cyds), snapped(), again).await.unwrap();
    fay.close().await;
    sleep(Duration::from_secs(2)).await;
    net.heal();
    assert_eq!(add(&cyd, 4).await, 7);
    assert_eq!(add(&dan, 8).await, 15);
}
