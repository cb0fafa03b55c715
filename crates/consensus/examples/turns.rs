//! The game of `docs/guide-turns.md`: players take stones from a heap, and whoever takes the last one
//! wins. `cargo run -p cabinet-consensus --example turns` plays it, three players in one process.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cabinet_consensus::config::Compaction;
use cabinet_consensus::fabric::{MemoryFabric, Port};
use cabinet_consensus::game::{Blueprint, Game, Malformed, Snapshots, TurnInfo};
use cabinet_consensus::ids::{ClientId, GameId, Incarnation, PeerId};
use cabinet_consensus::log::DurableLog;
use cabinet_consensus::log::durable::{Driver, DurableOptions, FileDisk};
use cabinet_consensus::session::{
    CoreOptions, GameSession, Identity, JoinOptions, ServerCore, SessionConfig, TokioClock,
    game_node, game_player, game_server,
};
use cabinet_consensus::turns::{
    NotProposed, Proposal, Ruling, Speculation, SpeculationOptions, SpeculativeSequencer, Standing,
    TurnEvent,
};

/// What does not go well.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Players take one to three stones in turn; whoever takes the last one wins.
#[derive(Clone, Debug, PartialEq)]
pub struct Stones {
    /// Who plays, in the order of their turns.
    pub players: Vec<PeerId>,
    /// Stones left.
    pub heap: u64,
    /// Whose turn it is.
    pub next: usize,
    /// Who took the last stone.
    pub winner: Option<PeerId>,
}

impl Stones {
    /// A heap of stones and nobody's turn taken.
    pub fn new(roster: &BTreeSet<PeerId>, heap: u64) -> Self {
        Self {
            players: roster.iter().cloned().collect(),
            heap,
            next: 0,
            winner: None,
        }
    }

    fn take(&mut self, count: u64) {
        self.heap -= count;
        if self.heap == 0 {
            self.winner = Some(self.players[self.next].clone());
        }
        self.next = (self.next + 1) % self.players.len();
    }
}

impl Game for Stones {
    type Action = u64;
    type Outcome = u64;
    type Refusal = String;

    fn apply(&mut self, at: &TurnInfo, count: &u64) -> Result<u64, String> {
        if self.winner.is_some() {
            return Err("the game is over".to_owned());
        }
        if at.player.as_ref() != Some(&self.players[self.next]) {
            return Err(format!("it is {}'s turn", self.players[self.next]));
        }
        if !(1..=self.heap.min(3)).contains(count) {
            return Err("take one to three of the stones there are".to_owned());
        }
        self.take(*count);
        Ok(self.heap)
    }

    fn time_limit(&self) -> Option<Duration> {
        self.winner.is_none().then_some(Duration::from_secs(30))
    }

    fn time_out(&mut self, _: &TurnInfo) {
        self.take(1);
    }
}

impl Snapshots for Stones {
    fn snapshot(&self) -> Vec<u8> {
        let winner = self.winner.as_ref().map_or("", |peer| peer.as_str());
        let mut text = format!("{}\n{}\n{winner}", self.heap, self.next);
        for player in &self.players {
            // A peer id has no control characters, so a line holds it.
            text.push('\n');
            text.push_str(player.as_str());
        }
        text.into_bytes()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
        let mut lines = text.split('\n');
        let mut line = || lines.next().ok_or(Malformed);
        let heap = line()?.parse().map_err(|_| Malformed)?;
        let next = line()?.parse().map_err(|_| Malformed)?;
        let winner = match line()? {
            "" => None,
            name => Some(PeerId::new(name).map_err(|_| Malformed)?),
        };
        let players: Vec<_> = lines
            .map(|name| PeerId::new(name).map_err(|_| Malformed))
            .collect::<Result<_, _>>()?;
        if next >= players.len() {
            return Err(Malformed);
        }
        Ok(Self {
            players,
            heap,
            next,
            winner,
        })
    }
}

/// A game whose players are all in this process.
pub async fn table(names: &[&str], heap: u64) -> Result<Vec<GameSession<Stones>>, Failure> {
    let roster = names
        .iter()
        .map(|name| PeerId::new(*name))
        .collect::<Result<BTreeSet<_>, _>>()?;
    let net = MemoryFabric::new();
    let mut sessions = Vec::new();
    for peer in &roster {
        let port = Port::open(net.join(peer.clone())?, GameId::new("stones")?)?;
        let players = roster.clone();
        let blueprint = Blueprint::with_snapshots(move || Stones::new(&players, heap));
        let config = SessionConfig::new(Arc::new(TokioClock::default()), rand::random());
        sessions.push(game_node(port, blueprint, roster.clone(), config).await?);
    }
    Ok(sessions)
}

/// Plays one player's part to the end of the game; answers who won.
pub async fn play(session: &GameSession<Stones>, first: Stones) -> Result<PeerId, Failure> {
    let me = session.node().id().peer.clone();
    let sequencer = session.sequencer();
    let mut events = sequencer.events_from(1);
    let mut view = Speculation::new(Some(me.clone()), first, Standing::default(), 16);
    let mut moved = None;
    loop {
        let game = view.authoritative_state();
        if let Some(winner) = &game.winner {
            return Ok(winner.clone());
        }
        let turn = view.standing().turn;
        if game.players[game.next] == me && moved != Some(turn) {
            moved = Some(turn);
            let count = (game.heap % 4).max(1);
            let only_now = Proposal {
                expected_turn: Some(turn),
                ..Proposal::default()
            };
            let decision = sequencer.propose_with(&count, only_now).await?;
            match decision.ruling {
                Ruling::Accepted(left) => println!("{me} takes {count}, {left} are left"),
                Ruling::Refused(why) => println!("{me} may not take {count}: {why}"),
                Ruling::Fenced => println!("{me} was too late"),
                Ruling::Withheld { accepted, .. } => println!("{me}: took place: {accepted}"),
            }
        }
        let event = events.next().await.ok_or("the session was closed")?;
        if let TurnEvent::Desync { index, .. } = event {
            return Err(format!("this node is not like the others after entry {index}").into());
        }
        view.on_event(&event);
    }
}

/// Plays one player's part as [`play`] does, and shows each move before it is decided.
pub async fn play_ahead(session: &GameSession<Stones>) -> Result<PeerId, Failure> {
    let me = session.node().id().peer.clone();
    let view = SpeculativeSequencer::start(session.sequencer(), SpeculationOptions::default())?;
    let mut shown = view.shown();
    let mut moved = None;
    loop {
        let now = shown.borrow_and_update().clone();
        let game = &now.agreed;
        if let Some(winner) = &game.winner {
            return Ok(winner.clone());
        }
        let turn = now.standing.turn;
        if game.players[game.next] == me && moved != Some(turn) {
            moved = Some(turn);
            let only_now = Proposal {
                expected_turn: Some(turn),
                ..Proposal::default()
            };
            match view.propose_with((game.heap % 4).max(1), only_now).await {
                Ok(ticket) => {
                    println!("{me} sees {} left", view.shown().borrow().state.heap);
                    ticket.decided().await?;
                }
                // The rules refuse it here: it was not sent.
                Err(NotProposed::PredictedRefusal(why)) => println!("{me} may not: {why}"),
                Err(error) => return Err(error.into()),
            }
        }
        shown.changed().await?;
    }
}

/// One of the servers that vote. Each passes the same core and the same players.
pub async fn serve(
    port: Port,
    core: ServerCore,
    players: BTreeSet<PeerId>,
) -> Result<GameSession<Stones>, Failure> {
    let options = CoreOptions {
        core,
        seats: u32::try_from(players.len())?,
        spectators_max: 0,
    };
    let blueprint = Blueprint::with_snapshots(move || Stones::new(&players, 21));
    let config = SessionConfig::new(Arc::new(TokioClock::default()), rand::random());
    Ok(game_server(port, blueprint, options, config).await?)
}

/// One of the players that ride. One that lost its log comes back with a higher `life`.
pub async fn ride(
    port: Port,
    core: ServerCore,
    players: BTreeSet<PeerId>,
    life: u64,
) -> Result<GameSession<Stones>, Failure> {
    let blueprint = Blueprint::with_snapshots(move || Stones::new(&players, 21));
    let options = JoinOptions::new(Incarnation(life));
    let config = SessionConfig::new(Arc::new(TokioClock::default()), rand::random());
    Ok(game_player(port, blueprint, core, options, config).await?)
}

/// One player on a machine of their own: the log is kept in a directory and cut from time to time, and
/// the player's client goes on where it was when the process comes back.
pub async fn seat(
    port: Port,
    me: &PeerId,
    roster: BTreeSet<PeerId>,
    directory: &Path,
) -> Result<GameSession<Stones>, Failure> {
    let disk = Arc::new(FileDisk::new(directory));
    let log = DurableLog::open(disk, DurableOptions::default(), Driver::Thread).await?;
    let players = roster.clone();
    let blueprint = Blueprint::with_snapshots(move || Stones::new(&players, 21));
    let config = SessionConfig {
        log: Arc::new(log),
        compaction: Some(Compaction::default()),
        identity: Identity::Durable(ClientId::new(me.as_str())?),
        ..SessionConfig::new(Arc::new(TokioClock::default()), rand::random())
    };
    Ok(game_node(port, blueprint, roster, config).await?)
}

#[tokio::main]
#[allow(dead_code, reason = "the guide's test brings this file in as a module")]
async fn main() -> Result<(), Failure> {
    let names = ["ann", "bob", "cyd"];
    let sessions = table(&names, 21).await?;
    let roster = names
        .iter()
        .map(|name| PeerId::new(*name))
        .collect::<Result<_, _>>()?;
    let first = Stones::new(&roster, 21);
    let parts = sessions.iter().map(|session| play(session, first.clone()));
    let winners = futures_util::future::try_join_all(parts).await?;
    println!("{} wins", winners[0]);
    for session in &sessions {
        session.close().await;
    }
    Ok(())
}
