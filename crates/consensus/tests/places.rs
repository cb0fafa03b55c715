//! What the rules are told of who proposes: a seat, the gallery, the witness's place, or none.

#[allow(dead_code, reason = "shared with other tests, which use the rest")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::Compaction;
use cabinet_consensus::fabric::{MemoryFabric, MemoryPeer};
use cabinet_consensus::game::{Blueprint, Game, Malformed, Place, Snapshots, TurnInfo};
use cabinet_consensus::ids::Incarnation;
use cabinet_consensus::log::MemoryLog;
use cabinet_consensus::session::{
    GameSession, HostOptions, JoinOptions, ReturnPolicy, SessionConfig, game_host, game_join,
    game_resume, game_spectate, game_witness,
};
use cabinet_consensus::turns::{
    NotProposed, Ruling, SpeculationOptions, SpeculativeSequencer, TurnEvent,
};
use common::{config, peer, port, until};

/// Who plays may play; the rules keep where from, and refuse everybody else.
#[derive(Clone, Default, Debug, PartialEq)]
struct Moves(Vec<u8>);

impl Game for Moves {
    type Action = u64;
    type Outcome = u64;
    type Refusal = String;

    fn apply(&mut self, at: &TurnInfo, _: &u64) -> Result<u64, String> {
        let Some(seat) = at.seat() else {
            return Err(format!("{:?} does not play", at.place));
        };
        self.0.push(seat as u8);
        Ok(u64::from(seat))
    }
}

impl Snapshots for Moves {
    fn snapshot(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        Ok(Self(bytes.to_vec()))
    }
}

type Session = GameSession<Moves>;

fn moves() -> Blueprint<Moves> {
    Blueprint::with_snapshots(Moves::default)
}

/// A machine whose log outlives its processes.
struct Machine {
    at: Arc<MemoryPeer>,
    log: MemoryLog,
    lives: u64,
}

impl Machine {
    fn new(net: &MemoryFabric, name: &str) -> Self {
        Self {
            at: net.join(peer(name)).unwrap(),
            log: MemoryLog::new(),
            lives: u64::from(name.as_bytes()[0]) * 100,
        }
    }

    fn config(&mut self) -> SessionConfig {
        self.lives += 1;
        let mut config = config(self.lives);
        config.admission.evict_after = None;
        config.log = Arc::new(self.log.clone());
        config.limits.log_kept_after_snapshot = 1;
        config.hash_every = 10;
        config.compaction = Some(Compaction {
            entries: 20,
            bytes: 1 << 30,
            age: Duration::from_secs(86_400),
        });
        config
    }

    async fn resume(&mut self, was: Session) -> Session {
        was.close().await;
        self.log.reopen();
        let config = self.config();
        game_resume(port(&self.at), moves(), config).await.unwrap()
    }
}

async fn says(session: &Session) -> Ruling<Moves> {
    session.sequencer().propose(&1).await.unwrap().ruling
}

fn no(place: Place) -> Ruling<Moves> {
    Ruling::Refused(format!("{:?} does not play", Some(place)))
}

#[tokio::test(start_paused = true)]
async fn rules_that_look_at_the_place_refuse_who_only_watches_on_every_node_and_after_a_restart() {
    let net = MemoryFabric::new();
    let mut at = ["ann", "bob", "eve", "wit"].map(|name| Machine::new(&net, name));
    let configs = at.each_mut().map(Machine::config);
    let [anns, bobs, eves, wits] = configs;
    let options = HostOptions {
        claim_wait: Duration::from_millis(200),
        return_at: ReturnPolicy::FullMembership,
        spectators_max: 1,
        witness: true,
        ..HostOptions::new(2, Incarnation(1))
    };
    let joining = || JoinOptions::new(Incarnation(1));
    let (ann, bob, eve, wit) = tokio::join!(
        game_host(port(&at[0].at), moves(), options, anns),
        game_join(port(&at[1].at), moves(), joining(), bobs),
        game_spectate(port(&at[2].at), moves(), joining(), eves),
        game_witness(port(&at[3].at), moves(), joining(), wits),
    );
    let mut all = [ann.unwrap(), bob.unwrap(), eve.unwrap(), wit.unwrap()];
    let places = [
        Some(Place::Seat(0)),
        Some(Place::Seat(1)),
        Some(Place::Gallery),
        Some(Place::Witness),
    ];
    let wanted: [Ruling<Moves>; 4] = places.map(|place| match place {
        Some(Place::Seat(seat)) => Ruling::Accepted(u64::from(seat)),
        other => Ruling::Refused(format!("{other:?} does not play")),
    });
    let mut readers = Vec::new();
    for session in &all {
        readers.push(session.sequencer().events_from(1));
    }
    for (session, wanted) in all.iter().zip(&wanted) {
        assert_eq!(says(session).await, *wanted);
    }
    // Every node was told the same of every action, and says what.
    for reader in &mut readers {
        for (place, wanted) in places.iter().zip(&wanted) {
            let TurnEvent::Committed(action) = reader.next().await.unwrap() else {
                panic!("only actions were written");
            };
            assert_eq!((action.place, action.info().place), (*place, *place));
            assert_eq!(action.ruling, *wanted);
        }
    }
    // What is shown ahead is what the rules will say.
    let shown = |session: &Session| {
        SpeculativeSequencer::start(session.sequencer(), SpeculationOptions::default()).unwrap()
    };
    let view = shown(&all[2]);
    let ahead = view.propose(1).await;
    assert!(
        matches!(&ahead, Err(NotProposed::PredictedRefusal(why)) if why.contains("Gallery")),
        "{ahead:?}"
    );
    let view = shown(&all[1]);
    let ahead = view.propose(1).await.unwrap();
    assert_eq!(ahead.decided().await.unwrap().ruling, Ruling::Accepted(1));
    drop(view);

    // Their logs begin with a snapshot now, which is where their next processes find the places.
    for _ in 0..40 {
        says(&all[0]).await;
    }
    until("all have forgotten the beginning", || {
        (all.iter()).all(|session| session.node().numbers().purged.is_some())
    })
    .await;
    for (n, (machine, wanted)) in at.iter_mut().zip(&wanted).enumerate() {
        let [ann, bob, eve, wit] = all;
        let mut sessions = [Some(ann), Some(bob), Some(eve), Some(wit)];
        let was = sessions[n].take().unwrap();
        sessions[n] = Some(machine.resume(was).await);
        all = sessions.map(Option::unwrap);
        assert_eq!(says(&all[n]).await, *wanted, "{n} after its restart");
        assert_eq!(says(&all[2]).await, no(Place::Gallery));
        assert_eq!(says(&all[3]).await, no(Place::Witness));
    }
    // A replica that differs would have stopped itself by its hash.
    for session in &all {
        assert!(session.node().status().borrow().stopped.is_none());
        session.close().await;
    }
}
