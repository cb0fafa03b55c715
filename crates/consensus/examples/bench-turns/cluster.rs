//! Three nodes of a counting game in this process, on one of three grounds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use cabinet_consensus::config::Timing;
use cabinet_consensus::fabric::tls::{Credentials, TlsConfig, TlsFabric, peer_uri};
use cabinet_consensus::fabric::{Fabric, MemoryFabric, Port, SwitchboardStats};
use cabinet_consensus::game::{Blueprint, Game, TurnInfo};
use cabinet_consensus::ids::{GameId, PeerId};
use cabinet_consensus::log::durable::{Driver, DurableOptions, FileDisk};
use cabinet_consensus::log::{DurableLog, LogStore, MemoryLog};
use cabinet_consensus::raft::Role;
use cabinet_consensus::session::{
    AppChannel, GameSession, NodeView, SessionConfig, TokioClock, game_node,
};
use cabinet_consensus::turns::{ProposeError, TurnError, TurnSequencer};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Error;
use crate::load::Caller;

const NAMES: [&str; 3] = ["ann", "bob", "cyd"];

/// What carries the frames and keeps the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    Memory,
    Tls,
    Durable,
}

impl Setting {
    pub const ALL: [Self; 3] = [Self::Memory, Self::Tls, Self::Durable];

    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Tls => "tls",
            Self::Durable => "durable",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Memory => "memory: frames and logs in memory",
            Self::Tls => "tls: frames over mutual TLS on loopback, logs in memory",
            Self::Durable => "durable: frames in memory, logs on disk",
        }
    }
}

/// Counts what everybody says, and answers as much as a bare write does: nothing.
#[derive(Clone, Default)]
pub struct Count(u64);

impl Game for Count {
    type Action = u64;
    type Outcome = ();
    type Refusal = ();

    fn apply(&mut self, _: &TurnInfo, add: &u64) -> Result<(), ()> {
        self.0 = self.0.wrapping_add(*add);
        Ok(())
    }
}

type Stats = Box<dyn Fn() -> SwitchboardStats + Send + Sync>;

pub struct Cluster {
    pub setting: Setting,
    sessions: Vec<GameSession<Count>>,
    leader: usize,
    stats: Vec<Stats>,
    logs: Vec<Arc<dyn LogStore>>,
    secured: Vec<Arc<TlsFabric>>,
    _dir: TempDir,
}

impl Cluster {
    pub async fn start(setting: Setting, timing: Timing) -> Result<Self, Error> {
        let dir = tempfile::tempdir()?;
        let peers = NAMES.map(PeerId::new);
        let peers = peers.into_iter().collect::<Result<Vec<_>, _>>()?;
        let roster: BTreeSet<_> = peers.iter().cloned().collect();
        let mut cluster = Self {
            setting,
            sessions: Vec::new(),
            leader: 0,
            stats: Vec::new(),
            logs: Vec::new(),
            secured: Vec::new(),
            _dir: dir,
        };
        let fabrics = cluster.fabrics(&peers).await?;
        for (nonce, (peer, fabric)) in (1..).zip(peers.iter().zip(fabrics)) {
            let log: Arc<dyn LogStore> = if setting == Setting::Durable {
                let disk = Arc::new(FileDisk::new(cluster._dir.path().join(peer.as_str())));
                Arc::new(DurableLog::open(disk, DurableOptions::default(), Driver::Thread).await?)
            } else {
                Arc::new(MemoryLog::new())
            };
            cluster.logs.push(log.clone());
            let config = SessionConfig {
                log,
                timing,
                ..SessionConfig::new(Arc::new(TokioClock::default()), nonce)
            };
            let port = Port::open(fabric, GameId::new("count")?)?;
            let blueprint = Blueprint::new(Count::default);
            let session = game_node(port, blueprint, roster.clone(), config).await?;
            cluster.sessions.push(session);
        }
        cluster.leader = cluster.wait_for_leader().await?;
        // Everybody's session is open before anything is measured.
        for caller in [Caller::Leader, Caller::Follower, Caller::Bare] {
            cluster.call(caller).await?;
        }
        Ok(cluster)
    }

    async fn fabrics(&mut self, peers: &[PeerId]) -> Result<Vec<Arc<dyn Fabric>>, Error> {
        let mut fabrics: Vec<Arc<dyn Fabric>> = Vec::new();
        if self.setting != Setting::Tls {
            let net = MemoryFabric::new();
            for peer in peers {
                let at = net.join(peer.clone())?;
                fabrics.push(at.clone());
                self.stats.push(Box::new(move || at.stats()));
            }
            return Ok(fabrics);
        }
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let root = authority.self_signed(&key)?.pem();
        let issuer = Issuer::new(authority, key);
        for peer in peers {
            let mut params = CertificateParams::new(Vec::new())?;
            let uri = SanType::URI(peer_uri(peer).as_str().try_into()?);
            params.subject_alt_names.push(uri);
            let key = KeyPair::generate()?;
            let chain = params.signed_by(&key, &issuer)?.pem();
            let key = key.serialize_pem();
            let proof = Credentials::from_pem(chain.as_bytes(), key.as_bytes(), root.as_bytes())?;
            let mut config = TlsConfig::builder(peer.clone(), proof);
            for known in &self.secured {
                config = config.peer(known.local().clone(), known.address());
            }
            let at = TlsFabric::start(config.build()?).await?;
            self.secured.push(at.clone());
            fabrics.push(at.clone());
            self.stats.push(Box::new(move || at.delivery()));
        }
        for at in &self.secured {
            let all = peers.len() - 1;
            at.peers().wait_for(|peers| peers.len() == all).await?;
        }
        Ok(fabrics)
    }

    async fn wait_for_leader(&self) -> Result<usize, Error> {
        for _ in 0..3000 {
            let leads =
                |session: &GameSession<Count>| session.node().status().get().role == Role::Leader;
            if let Some(leader) = self.sessions.iter().position(leads) {
                return Ok(leader);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Err("no leader in half a minute".into())
    }

    pub fn writer(&self, caller: Caller) -> Writer {
        let leader = &self.sessions[self.leader];
        match caller {
            Caller::Bare => Writer::Bare(leader.node(), bare_entry()),
            Caller::Leader => Writer::Turn(leader.sequencer()),
            Caller::Follower => {
                let follower = (self.leader + 1) % self.sessions.len();
                Writer::Turn(self.sessions[follower].sequencer())
            }
        }
    }

    /// One write.
    pub async fn call(&self, caller: Caller) -> Result<(), Error> {
        self.writer(caller).write().await
    }

    /// Messages delivered on the Raft lane so far.
    pub fn messages(&self) -> u64 {
        self.stats.iter().map(|stats| stats().raft.delivered).sum()
    }

    /// Syncs of every log so far.
    pub fn syncs(&self) -> u64 {
        self.logs.iter().map(|log| log.stats().syncs).sum()
    }

    /// Starts a flood of an app channel that nobody reads, and waits until it drops frames.
    pub async fn flood(&self) -> Result<Flood, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let mut channels = Vec::new();
        for (n, session) in (0..).zip(&self.sessions) {
            let channel = session.app_channel("flood")?;
            channels.push(channel.clone());
            let stop = stop.clone();
            // Three machines are not in step.
            let first = Instant::now() + FLOOD_EVERY / NAMES.len() as u32 * n;
            tasks.spawn(async move {
                let mut tick = tokio::time::interval_at(first, FLOOD_EVERY);
                while !stop.load(Ordering::Relaxed) {
                    tick.tick().await;
                    for _ in 0..FLOOD_BURST {
                        let _ = channel.broadcast(&[7; FLOOD_BYTES]);
                    }
                }
            });
        }
        for channel in channels {
            let before = channel.dropped();
            for _ in 0..10_000 {
                if channel.dropped() > before {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if channel.dropped() == before {
                return Err("the flood never filled a channel".into());
            }
        }
        Ok(Flood { stop, tasks })
    }

    /// So many bursts of so many broadcasts by each session, with room between two for them to arrive.
    pub async fn bursts(&self, frames: usize, count: usize) -> Result<(), Error> {
        let open = |session: &GameSession<Count>| session.app_channel("flood");
        let channels: Vec<_> = self.sessions.iter().map(open).collect::<Result<_, _>>()?;
        for _ in 0..count {
            for channel in &channels {
                for _ in 0..frames {
                    channel.broadcast(&[7; FLOOD_BYTES])?;
                }
            }
            tokio::time::sleep(FLOOD_EVERY).await;
        }
        let arrived: u64 = channels.iter().map(AppChannel::dropped).sum();
        println!("{arrived} frames arrived and were dropped");
        Ok(())
    }

    pub async fn close(self) {
        for session in &self.sessions {
            session.close().await;
        }
        for fabric in &self.secured {
            fabric.close().await;
        }
    }
}

/// Frames each node sends to each other one at a time: 5,000 a second.
const FLOOD_BURST: usize = 15;
pub const FLOOD_EVERY: Duration = Duration::from_millis(3);
const FLOOD_BYTES: usize = 256;

/// A flood that is under way.
pub struct Flood {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Flood {
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// One way to write.
pub enum Writer {
    Bare(NodeView, Bytes),
    Turn(TurnSequencer<Count>),
}

impl Writer {
    pub async fn write(&self) -> Result<(), Error> {
        match self {
            // Bytes of its own, as every write that means something has.
            Self::Bare(node, entry) => {
                let entry = Bytes::copy_from_slice(entry);
                Ok(node.client_write(entry).await?)
            }
            Self::Turn(sequencer) => loop {
                match sequencer.propose(&1).await {
                    Ok(decision) if decision.is_accepted() => return Ok(()),
                    // A straggler holds the client's window up: it is next.
                    Err(TurnError::Propose(ProposeError::TooManyPending { .. })) => {
                        tokio::task::yield_now().await;
                    }
                    Ok(decision) => return Err(format!("not accepted: {decision:?}").into()),
                    Err(error) => return Err(error.into()),
                }
            },
        }
    }
}

/// As many bytes as a turn's command has, in a field that no command has: every node decodes it
/// and does nothing.
fn bare_entry() -> Bytes {
    const BODY: usize = 34;
    let mut entry = BytesMut::new();
    entry.put_slice(&[15 << 3 | 2, BODY as u8]);
    entry.put_bytes(0, BODY);
    entry.freeze()
}
