//! A game of one number that three players count up together, in memory or over TLS.

use std::collections::BTreeSet;
use std::sync::Arc;

use cabinet_consensus::fabric::tls::{TlsConfig, TlsFabric};
use cabinet_consensus::fabric::{Fabric, MemoryFabric, Port};
use cabinet_consensus::game::{Blueprint, Game, TurnInfo};
use cabinet_consensus::ids::{GameId, PeerId};
use cabinet_consensus::session::{GameSession, SessionConfig, TokioClock, game_node};
use cabinet_consensus::turns::{Ruling, TurnEvent};

/// What does not go well.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A number.
#[derive(Clone, Default)]
pub struct Count(u64);

impl Game for Count {
    type Action = ();
    type Outcome = u64;
    type Refusal = String;

    fn apply(&mut self, _: &TurnInfo, (): &()) -> Result<u64, String> {
        self.0 = self.0.checked_add(1).ok_or("that is all")?;
        Ok(self.0)
    }
}

/// One player's part of the game, on whatever joins the machines.
///
/// # Errors
/// When the game does not open.
pub async fn sit(
    fabric: Arc<dyn Fabric>,
    roster: BTreeSet<PeerId>,
    nonce: u64,
) -> Result<GameSession<Count>, Error> {
    let port = Port::open(fabric, GameId::new("count")?)?;
    let config = SessionConfig::new(Arc::new(TokioClock::default()), nonce);
    Ok(game_node(port, Blueprint::new(Count::default), roster, config).await?)
}

/// One player in memory.
///
/// # Errors
/// When the name is no name, or taken.
pub async fn in_memory(net: &MemoryFabric, name: &str) -> Result<GameSession<Count>, Error> {
    let peer = PeerId::new(name)?;
    let roster = [peer.clone()].into();
    sit(net.join(peer)?, roster, 1).await
}

/// One player over TLS.
///
/// # Errors
/// When the port is taken.
pub async fn over_tls(
    config: TlsConfig,
    roster: BTreeSet<PeerId>,
    nonce: u64,
) -> Result<GameSession<Count>, Error> {
    let fabric = TlsFabric::start(config).await?;
    sit(fabric, roster, nonce).await
}

/// Counts once, and says what everybody saw.
///
/// # Errors
/// When it is not decided in time.
pub async fn count(session: &GameSession<Count>) -> Result<Option<u64>, Error> {
    let sequencer = session.sequencer();
    let mut events = sequencer.events();
    sequencer.propose(&()).await?;
    while let Some(event) = events.next().await {
        if let TurnEvent::Committed(action) = event {
            return Ok(match action.ruling {
                Ruling::Accepted(count) => Some(count),
                _ => None,
            });
        }
    }
    Ok(None)
}
