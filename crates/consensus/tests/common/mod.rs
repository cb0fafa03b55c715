//! What the tests of sessions share: a game that adds numbers, quick settings, and waiting.

use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::Timing;
use cabinet_consensus::fabric::{MemoryPeer, Port};
use cabinet_consensus::game::{Blueprint, Game, Malformed, Snapshots, TurnInfo};
use cabinet_consensus::ids::{GameId, PeerId};
use cabinet_consensus::session::{AdmissionTiming, SessionConfig, TokioClock};

/// Players add numbers.
#[derive(Clone, Default)]
pub struct Sum(pub u64);

impl Game for Sum {
    type Action = u64;
    type Outcome = u64;
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, add: &u64) -> Result<u64, ()> {
        self.0 += add;
        Ok(self.0)
    }
}

impl Snapshots for Sum {
    fn snapshot(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes = bytes.try_into().map_err(|_| Malformed)?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }
}

pub fn peer(name: &str) -> PeerId {
    PeerId::new(name).unwrap()
}

/// Fast elections, and a silence of 0.8 s costs a seat.
pub fn config(nonce: u64) -> SessionConfig {
    SessionConfig {
        timing: Timing::fast(),
        admission: AdmissionTiming {
            alive_within: Duration::from_millis(200),
            evict_after: Some(Duration::from_millis(800)),
            admit_within: Duration::from_secs(5),
        },
        ..SessionConfig::new(Arc::new(TokioClock::default()), nonce)
    }
}

pub fn port_of(at: &Arc<MemoryPeer>, game: &str) -> Port {
    Port::open(at.clone(), GameId::new(game).unwrap()).unwrap()
}

pub fn port(at: &Arc<MemoryPeer>) -> Port {
    port_of(at, "sum")
}

/// The game without its snapshots.
pub fn sum() -> Blueprint<Sum> {
    Blueprint::new(Sum::default)
}

pub async fn until(what: &str, mut met: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if met() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{what}: not in twenty seconds");
}
