//! Peers on machines of their own: frames over TCP with mutual TLS.
//!
//! A [`TlsFabric`] listens, dials the peers of its directory and keeps two connections to each: one
//! for Raft and the lobby, one for the app channels, so that a flood of the latter waits behind
//! itself only. Who a peer is stands in its certificate ([`peer_uri`]) and nowhere else.
//!
//! Who dials: the peer with the lower id at once, the other a little later, since the first may not
//! know the address. When both did, the connection that the lower id dialled stays.
//!
//! Invariants
//! - no frame is delivered before both ends have proved who they are and said Hello;
//! - a peer is in [`Fabric::peers`] while its control connection is up;
//! - [`Fabric::send`] never waits; what a full queue drops is counted;
//! - every task ends with [`TlsFabric::close`] or with the last handle.
//!
//! ```
//! use cabinet_consensus::fabric::Fabric;
//! use cabinet_consensus::fabric::tls::{Credentials, TlsConfig, TlsFabric, peer_uri};
//! use cabinet_consensus::ids::PeerId;
//! use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
//!
//! // An authority signs a certificate for each peer, with the peer's URI in it.
//! let mut authority = CertificateParams::new(Vec::new())?;
//! authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
//! let key = KeyPair::generate()?;
//! let root = authority.self_signed(&key)?;
//! let issuer = Issuer::new(authority, key);
//! let config = |peer: &PeerId| -> Result<_, Box<dyn std::error::Error>> {
//!     let mut params = CertificateParams::new(Vec::new())?;
//!     let uri = SanType::URI(peer_uri(peer).as_str().try_into()?);
//!     params.subject_alt_names.push(uri);
//!     let key = KeyPair::generate()?;
//!     let chain = params.signed_by(&key, &issuer)?.pem();
//!     let (key, root) = (key.serialize_pem(), root.pem());
//!     let proof = Credentials::from_pem(chain.as_bytes(), key.as_bytes(), root.as_bytes())?;
//!     Ok(TlsConfig::builder(peer.clone(), proof))
//! };
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! let (ann, bob) = (PeerId::new("ann")?, PeerId::new("bob")?);
//! let at_bob = TlsFabric::start(config(&bob)?.build()?).await?;
//! let to_bob = config(&ann)?.peer(bob.clone(), at_bob.address());
//! let at_ann = TlsFabric::start(to_bob.build()?).await?;
//! let peers = at_ann.peers().wait_for(|peers| !peers.is_empty()).await?;
//! assert!(peers.contains_key(&bob));
//! at_ann.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! This is not a gossip layer: it sends to peers it has a connection to and relays nothing. It
//! does not revoke certificates either; give them short lives.

mod arbiter;
mod backoff;
mod config;
mod connection;
mod dialler;
mod frame;
mod handshake;
mod identity;
mod idle;
mod outbound;
mod registry;
mod stats;
mod tasks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};

pub use backoff::BackoffPolicy;
pub use config::{ConfigError, DirectoryError, Entropy, TlsConfig, TlsConfigBuilder, TlsLimits};
pub use identity::{Credentials, CredentialsError, IdentityError, peer_of, peer_uri};
pub use rustls::pki_types;
pub use stats::{TlsLaneStats, TlsStats};

use self::arbiter::Kind;
use self::identity::Trust;
use self::outbound::Parcel;
use self::registry::Registry;
use self::stats::Counts;
use self::tasks::Tasks;
use super::{
    FRAME_BYTES_MAX, Fabric, Incoming, Lane, Peers, PortError, SendError, Switchboard,
    SwitchboardStats,
};
use crate::ids::{GameId, PeerId};
use crate::watch::{self, Watch};

/// How long the listener rests when the system gives it no connection, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A fabric that did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// A peer cannot be in the directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// What the handle and the tasks share.
struct Shared {
    local: PeerId,
    /// Tells this run of the process from another.
    run: u64,
    trust: Trust,
    server: Arc<rustls::ServerConfig>,
    limits: TlsLimits,
    backoff: BackoffPolicy,
    entropy: Entropy,
    registry: Registry,
    board: Switchboard,
    counts: Counts,
    tasks: Tasks,
    closing: watch::Sender<bool>,
}

/// This machine's end of the connections to every other.
pub struct TlsFabric {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Held while closing, so that whoever closes second waits as well.
    close: Mutex<()>,
}

impl TlsFabric {
    /// Listens, and begins to dial. It needs a tokio runtime with I/O and time, whose tasks are the
    /// fabric's.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the address cannot be listened on.
    pub async fn start(config: TlsConfig) -> Result<Arc<Self>, StartError> {
        let TlsConfig {
            local,
            trust,
            server,
            listen,
            peers,
            limits,
            backoff,
            entropy,
        } = config;
        let failed = |source| StartError::Listen {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            registry: Registry::new(local.clone(), limits.peers_max, limits.outbound),
            local,
            run: entropy(),
            trust,
            server,
            limits,
            backoff,
            entropy,
            board: Switchboard::new(limits.inbound),
            counts: Counts::default(),
            tasks: Tasks::new(tokio::runtime::Handle::current()),
            closing: watch::channel(false).0,
        });
        shared.tasks.spawn(listen_on(shared.clone(), listener));
        let fabric = Arc::new(Self {
            shared,
            address,
            close: Mutex::new(()),
        });
        for (peer, address) in peers {
            fabric.add_peer(&peer, address)?;
        }
        Ok(fabric)
    }

    /// Where this fabric listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts a peer into the directory, or gives it another address. A connection that is up stays;
    /// the address is for the next one.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`] when the peer is this one, or there are too many.
    pub fn add_peer(&self, peer: &PeerId, address: SocketAddr) -> Result<(), DirectoryError> {
        let shared = &self.shared;
        shared.registry.add(peer, address, |errand| {
            shared.tasks.spawn(dialler::keep(shared.clone(), errand))
        })
    }

    /// Takes a peer out of the directory and closes its connections; answers whether it was known.
    /// It may still dial in: who is a member is for the game to say.
    pub fn remove_peer(&self, peer: &PeerId) -> bool {
        self.shared.registry.remove(peer)
    }

    /// Connections that are up: two to each peer when all is well.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.registry.connections()
    }

    /// What happened on the connections so far.
    #[must_use]
    pub fn stats(&self) -> TlsStats {
        self.shared.counts.read()
    }

    /// What happened to the frames that arrived.
    #[must_use]
    pub fn delivery(&self) -> SwitchboardStats {
        self.shared.board.stats()
    }

    /// A counter of this fabric's tasks, which outlives it: zero once it is closed.
    #[must_use]
    pub fn tasks(&self) -> TaskCount {
        TaskCount(self.shared.tasks.alive())
    }

    /// Sends what waits, says Bye to every peer, ends every game's incoming stream, frees the address and ends every
    /// task, in about [`TlsLimits::close_timeout`] at most.
    pub async fn close(&self) {
        let _only = self.close.lock().await;
        self.shared.hang_up();
        self.shared
            .tasks
            .finish(self.shared.limits.close_timeout)
            .await;
    }
}

impl Shared {
    fn hang_up(&self) {
        self.closing.set_if_new(true);
        self.registry.close();
        self.board.close();
    }
}

impl Drop for TlsFabric {
    fn drop(&mut self) {
        self.shared.hang_up();
        self.shared.tasks.abort();
    }
}

/// How many tasks of a fabric live.
#[derive(Debug, Clone)]
pub struct TaskCount(Arc<AtomicUsize>);

impl TaskCount {
    /// How many live now.
    #[must_use]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Fabric for TlsFabric {
    fn local(&self) -> &PeerId {
        &self.shared.local
    }

    fn peers(&self) -> Watch<Peers> {
        self.shared.registry.peers()
    }

    fn send(&self, to: &PeerId, game: &GameId, lane: Lane, frame: Bytes) -> Result<(), SendError> {
        let shared = &self.shared;
        if *to == shared.local {
            return Err(SendError::ToSelf(to.clone()));
        }
        if frame.len() > FRAME_BYTES_MAX {
            return Err(SendError::TooLarge { len: frame.len() });
        }
        let kind = match lane {
            Lane::Raft | Lane::Lobby => Kind::Control,
            Lane::App => Kind::App,
        };
        let outbound = shared.registry.route(to, kind)?;
        let pushed = outbound.push(Parcel {
            game: game.clone(),
            lane,
            payload: frame,
        });
        if pushed.dropped > 0 {
            shared.counts.lane(lane).dropped.add(pushed.dropped);
        }
        if pushed.taken {
            Ok(())
        } else {
            Err(SendError::Full(to.clone()))
        }
    }

    fn open(&self, game: &GameId) -> Result<Incoming, PortError> {
        self.shared.board.open(game)
    }
}

/// Takes connections until the fabric closes.
async fn listen_on(shared: Arc<Shared>, listener: TcpListener) {
    let handshakes = Arc::new(Semaphore::new(shared.limits.handshakes_max));
    let mut closing = shared.closing.subscribe();
    while !*closing.borrow() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = closing.changed() => continue,
        };
        let Ok((tcp, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            shared.counts.refused.add(1);
            continue;
        };
        let (task, mut closing) = (shared.clone(), closing.clone());
        shared.tasks.spawn(async move {
            let made = tokio::select! {
                made = handshake::accept(&task, tcp) => made,
                _ = closing.wait_for(|closing| *closing) => return,
            };
            drop(permit);
            match made {
                Ok((link, stream, decoder, hello)) => {
                    connection::run(link, stream, decoder, Some(hello)).await;
                }
                Err(failure) => {
                    tracing::debug!(%failure, "a connection that came in was not kept");
                    failure.count(&task);
                }
            }
        });
    }
}
