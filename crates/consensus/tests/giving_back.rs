//! Who was told welcome and did not come in, or whose call was dropped, gives back what it was given:
//! the game it asked for goes on without it.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer};
use cabinet_consensus::ids::Incarnation;
use cabinet_consensus::log::{LogError, LogStore, MemoryLog};
use cabinet_consensus::session::{
    GameSession, HostError, HostOptions, JoinError, JoinOptions, OpenError, ResumeError,
    ReturnPolicy, SessionConfig, game_host, game_join, game_resume,
};
use common::{Sum, config as usual, peer, port, sum, until};
use tokio::time::{Instant, sleep, timeout};

type Session = GameSession<Sum>;

/// Silence costs nobody its place: what is given back was said to be.
fn config(nonce: u64) -> SessionConfig {
    let mut config = usual(nonce);
    config.admission.evict_after = None;
    config
}

fn joining(within: Duration) -> JoinOptions {
    JoinOptions {
        within,
        ..JoinOptions::new(Incarnation(1))
    }
}

/// Longer than anything here takes, and shorter than what is not given back stays taken.
const PATIENCE: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// The joiner's own time is over.
    TimedOut,
    /// Its call is dropped.
    Dropped,
}

/// What became of a joiner that is given up after `within`.
#[derive(Debug, PartialEq)]
enum Became {
    /// It was in before.
    Player(Duration),
    /// Its node never began.
    Stranger,
    /// Its node began, and it is not in.
    GaveBack,
}

async fn add(session: &Session, n: u64) {
    let proposed = timeout(PATIENCE, session.sequencer().propose(&n)).await;
    assert!(proposed.expect("the game goes on").unwrap().is_accepted());
}

/// Bob comes into a game where so many are before him, and is given up after `within`; whatever
/// became of him, the game goes on and lets the next one in.
async fn bob_tries(before: usize, end: End, within: Duration) -> Became {
    let net = MemoryFabric::new();
    let at = ["ann", "bob", "cyd", "dee"].map(|name| net.join(peer(name)).unwrap());
    let options = HostOptions {
        claim_wait: Duration::from_millis(100),
        return_at: ReturnPolicy::Quorum,
        ..HostOptions::new(3, Incarnation(1))
    };
    let hosting = tokio::spawn(game_host(port(&at[0]), sum(), options, config(1)));
    let mut others = Vec::new();
    if before == 2 {
        others.push(
            game_join(port(&at[3]), sum(), joining(PATIENCE), config(4))
                .await
                .unwrap(),
        );
    }
    sleep(Duration::from_secs(1)).await;

    let log = MemoryLog::new();
    let bobs = SessionConfig {
        log: Arc::new(log.clone()),
        ..config(2)
    };
    let begun = Instant::now();
    let came = match end {
        End::TimedOut => Some(game_join(port(&at[1]), sum(), joining(within), bobs.clone()).await),
        End::Dropped => {
            let joined = game_join(port(&at[1]), sum(), joining(PATIENCE), bobs.clone());
            timeout(within, joined).await.ok()
        }
    };
    let took = begun.elapsed();
    if came.is_none() {
        // It goes on in the background, for as long as it may take.
        sleep(config(0).timing.election_max() * 12).await;
    }
    if matches!(came, Some(Err(JoinError::NotCaughtUp(_)))) {
        let again = game_resume(port(&at[1]), sum(), bobs.clone()).await;
        let closed = ResumeError::Open(OpenError::Log(LogError::Closed));
        assert_eq!(again.err(), Some(closed), "its session has closed it");
    }
    // To look at it: who did not come in has closed it.
    log.reopen();
    let in_log = log.state().unwrap().has_begun();
    let became = match &came {
        Some(Ok(_)) => Became::Player(took),
        Some(Err(JoinError::NotCaughtUp(_))) | None if in_log => Became::GaveBack,
        Some(Err(JoinError::Timeout(_) | JoinError::NotCaughtUp(_))) | None if !in_log => {
            Became::Stranger
        }
        None => unreachable!("its log has begun or not"),
        Some(Err(other)) => panic!("unexpected {other:?}"),
    };
    if became == Became::GaveBack {
        let next = game_join(port(&at[2]), sum(), joining(PATIENCE), config(3)).await;
        others.push(next.unwrap_or_else(|error| panic!("{end:?} after {within:?}: {error}")));
    } else if before == 1 {
        // The host waits for somebody.
        let next = game_join(port(&at[2]), sum(), joining(PATIENCE), config(3));
        others.push(next.await.unwrap());
    }
    let host = timeout(PATIENCE, hosting).await.unwrap().unwrap().unwrap();
    add(&host, 1).await;
    for other in &others {
        add(other, 1).await;
    }
    if (became == Became::GaveBack, end, before) == (true, End::TimedOut, 1) {
        comes_back(&host, &at[1], bobs).await;
    }
    for session in others.iter().chain([&host]) {
        session.close().await;
    }
    became
}

/// The log that bob was given has begun: he goes on with it, and asks for his place by that.
async fn comes_back(host: &Session, at: &Arc<MemoryPeer>, config: SessionConfig) {
    let again = game_join(port(at), sum(), joining(PATIENCE), config.clone()).await;
    let refused = matches!(
        again.err(),
        Some(JoinError::Open(OpenError::LogBegun { .. }))
    );
    assert!(refused);
    let bob = game_resume(port(at), sum(), config).await.unwrap();
    until("bob has a vote", || {
        host.node().voters().contains(bob.node().id())
    })
    .await;
    add(&bob, 1).await;
    bob.close().await;
}

/// Gives bob up at every moment from the one when his node begins to the one when he is in.
async fn at_every_moment(before: usize, end: End) {
    let Became::Player(takes) = bob_tries(before, end, PATIENCE).await else {
        panic!("he has time");
    };
    let takes = u64::try_from(takes.as_millis()).unwrap();
    let mut gave_back = 0;
    for ms in takes.saturating_sub(60).max(1)..takes + 10 {
        let became = bob_tries(before, end, Duration::from_millis(ms)).await;
        gave_back += u64::from(became == Became::GaveBack);
    }
    assert!(
        gave_back > 5,
        "{gave_back} of the moments before {takes} ms"
    );
}

#[tokio::test(start_paused = true)]
async fn a_game_of_two_goes_on_without_whoever_was_told_welcome_and_ran_out_of_time() {
    at_every_moment(1, End::TimedOut).await;
}

#[tokio::test(start_paused = true)]
async fn a_game_of_two_goes_on_without_whoever_was_told_welcome_and_was_dropped() {
    at_every_moment(1, End::Dropped).await;
}

#[tokio::test(start_paused = true)]
async fn a_game_of_three_goes_on_without_whoever_was_told_welcome_and_ran_out_of_time() {
    at_every_moment(2, End::TimedOut).await;
}

#[tokio::test(start_paused = true)]
async fn a_game_of_three_goes_on_without_whoever_was_told_welcome_and_was_dropped() {
    at_every_moment(2, End::Dropped).await;
}

/// Ann hosts for three, bob comes, and ann gives up before the third does.
async fn ann_gives_up(end: End) {
    let net = MemoryFabric::new();
    let at = ["ann", "bob", "cyd"].map(|name| net.join(peer(name)).unwrap());
    let within = Duration::from_secs(2);
    let options = HostOptions {
        claim_wait: Duration::from_millis(100),
        within: (end == End::TimedOut).then_some(within),
        ..HostOptions::new(3, Incarnation(1))
    };
    let log = MemoryLog::new();
    let anns = SessionConfig {
        log: Arc::new(log.clone()),
        ..config(1)
    };
    let begun = Instant::now();
    let hosting = game_host(port(&at[0]), sum(), options, anns);
    let hosting = async {
        match end {
            End::TimedOut => assert_eq!(
                hosting.await.err(),
                Some(HostError::Timeout {
                    present: 2,
                    wanted: 3
                })
            ),
            End::Dropped => assert!(timeout(within, hosting).await.is_err()),
        }
        begun.elapsed()
    };
    let coming = game_join(port(&at[1]), sum(), joining(PATIENCE), config(2));
    let (took, bob) = tokio::join!(hosting, coming);
    let bob = bob.unwrap();
    let patience = config(0).timing.election_max() * 10;
    assert!(took <= within + patience, "{took:?}");
    if end == End::Dropped {
        sleep(patience).await;
    }
    // Everything it started is gone: its game's name is free, and its log closed.
    drop(port(&at[0]));
    assert!(matches!(log.state(), Err(LogError::Closed)), "{end:?}");
    // Who came in goes on without it, and lets the next one in.
    add(&bob, 1).await;
    assert_eq!(bob.seats().free_seats(), 2);
    let cyd = game_join(port(&at[2]), sum(), joining(PATIENCE), config(3)).await;
    add(&cyd.unwrap(), 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_runs_out_of_time_leaves_its_game_to_those_who_came_in() {
    ann_gives_up(End::TimedOut).await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_dropped_leaves_its_game_to_those_who_came_in() {
    ann_gives_up(End::Dropped).await;
}
