//! What a TLS fabric is told before it starts.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

use super::backoff::BackoffPolicy;
use super::identity::{Credentials, IdentityError, Trust};
use crate::fabric::{FRAME_BYTES_MAX, PEERS_MAX, QueueLimits};
use crate::ids::PeerId;

/// Draws 64 bits at random: the number that tells one run of a process from another, and jitter.
pub type Entropy = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How much of everything, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsLimits {
    /// Peers in the directory and peers that dialled in, together; [`PEERS_MAX`] at most.
    pub peers_max: usize,
    /// Connections that came in and have not said Hello.
    pub handshakes_max: usize,
    /// Frames that wait to be written, per peer and lane.
    pub outbound: QueueLimits,
    /// Frames that wait to be read, per game and lane.
    pub inbound: QueueLimits,
    /// How long a connection may take from its first byte to both Hellos.
    pub handshake_timeout: Duration,
    /// After how much silence the other end is asked whether it is there.
    pub ping_after: Duration,
    /// After how much silence a connection is given up.
    pub idle_timeout: Duration,
    /// How long [`close`](super::TlsFabric::close) waits for the last bytes to leave.
    pub close_timeout: Duration,
}

impl Default for TlsLimits {
    fn default() -> Self {
        Self {
            peers_max: PEERS_MAX,
            handshakes_max: 64,
            outbound: QueueLimits {
                frames_max: 4096,
                bytes_max: 16 << 20,
            },
            inbound: QueueLimits::default(),
            handshake_timeout: Duration::from_secs(5),
            ping_after: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(15),
            close_timeout: Duration::from_secs(1),
        }
    }
}

/// A configuration that cannot be one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Our own certificate does not name us.
    #[error("our own certificate cannot be used: {0}")]
    Identity(#[from] IdentityError),
    /// The certificates or the key do not work.
    #[error("our certificates or our key cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    /// A limit is outside what it may be.
    #[error("{what} must be {must}")]
    Limit {
        /// Which limit.
        what: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// The directory is wrong.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

/// A peer that cannot be put into the directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// A peer does not dial itself.
    #[error("{0} is this peer itself")]
    Local(PeerId),
    /// There are as many peers as may be.
    #[error("this fabric has at most {max} peers: remove one first")]
    Full {
        /// Peers allowed.
        max: usize,
    },
    /// The fabric was closed.
    #[error("the fabric is closed")]
    Closed,
}

/// A checked configuration of a [`TlsFabric`](super::TlsFabric).
pub struct TlsConfig {
    pub(super) local: PeerId,
    pub(super) trust: Trust,
    pub(super) server: Arc<rustls::ServerConfig>,
    pub(super) listen: SocketAddr,
    pub(super) peers: BTreeMap<PeerId, SocketAddr>,
    pub(super) limits: TlsLimits,
    pub(super) backoff: BackoffPolicy,
    pub(super) entropy: Entropy,
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration of {} at {}", self.local, self.listen)
    }
}

impl TlsConfig {
    /// A configuration of the peer `local`, which proves itself with `credentials`. It listens on
    /// a free port of 127.0.0.1 and knows nobody until told otherwise.
    pub fn builder(local: PeerId, credentials: Credentials) -> TlsConfigBuilder {
        TlsConfigBuilder {
            local,
            credentials,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            peers: BTreeMap::new(),
            limits: TlsLimits::default(),
            backoff: BackoffPolicy::default(),
            entropy: None,
        }
    }
}

/// Builds a [`TlsConfig`].
#[must_use]
pub struct TlsConfigBuilder {
    local: PeerId,
    credentials: Credentials,
    listen: SocketAddr,
    peers: BTreeMap<PeerId, SocketAddr>,
    limits: TlsLimits,
    backoff: BackoffPolicy,
    entropy: Option<Entropy>,
}

impl TlsConfigBuilder {
    /// Where to listen; port 0 takes a free one.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Adds a peer to the directory.
    pub fn peer(mut self, peer: PeerId, address: SocketAddr) -> Self {
        self.peers.insert(peer, address);
        self
    }

    /// How much of everything, and how long.
    pub fn limits(mut self, limits: TlsLimits) -> Self {
        self.limits = limits;
        self
    }

    /// How dialling is spaced.
    pub fn backoff(mut self, policy: BackoffPolicy) -> Self {
        self.backoff = policy;
        self
    }

    /// Where random numbers come from, instead of the operating system. Two runs of one peer must
    /// not draw the same first number.
    pub fn entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = Some(entropy);
        self
    }

    /// Checks everything.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names what is wrong.
    pub fn build(self) -> Result<TlsConfig, ConfigError> {
        check_limits(&self.limits, &self.backoff)?;
        let found = self.credentials.peer()?;
        if found != self.local {
            let expected = self.local;
            return Err(IdentityError::Mismatch { expected, found }.into());
        }
        if self.peers.contains_key(&self.local) {
            return Err(DirectoryError::Local(self.local).into());
        }
        let max = self.limits.peers_max;
        if self.peers.len() > max {
            return Err(DirectoryError::Full { max }.into());
        }
        let trust = Trust::new(self.credentials)?;
        let server = Arc::new(trust.server()?);
        // What a dialler does later fails here first.
        trust.client(&self.local)?;
        Ok(TlsConfig {
            local: self.local,
            trust,
            server,
            listen: self.listen,
            peers: self.peers,
            limits: self.limits,
            backoff: self.backoff,
            entropy: self.entropy.unwrap_or_else(system_entropy),
        })
    }
}

fn check_limits(limits: &TlsLimits, backoff: &BackoffPolicy) -> Result<(), ConfigError> {
    let hour = Duration::from_secs(3600);
    let short = |time: Duration| !time.is_zero() && time <= hour;
    let queue = |q: QueueLimits| q.frames_max > 0 && q.bytes_max >= FRAME_BYTES_MAX;
    let checks = [
        (
            (1..=PEERS_MAX).contains(&limits.peers_max),
            "peers_max",
            "1 to PEERS_MAX",
        ),
        (
            (1..=65_536).contains(&limits.handshakes_max),
            "handshakes_max",
            "1 to 65,536",
        ),
        (
            queue(limits.outbound),
            "outbound",
            "at least one frame and FRAME_BYTES_MAX bytes",
        ),
        (
            queue(limits.inbound),
            "inbound",
            "at least one frame and FRAME_BYTES_MAX bytes",
        ),
        (
            short(limits.handshake_timeout),
            "handshake_timeout",
            "above zero and at most an hour",
        ),
        (
            short(limits.idle_timeout),
            "idle_timeout",
            "above zero and at most an hour",
        ),
        (
            !limits.ping_after.is_zero() && limits.ping_after < limits.idle_timeout,
            "ping_after",
            "above zero and below idle_timeout",
        ),
        (
            short(limits.close_timeout),
            "close_timeout",
            "above zero and at most an hour",
        ),
        (
            short(backoff.base) && backoff.base <= backoff.cap,
            "backoff base",
            "above zero and at most the cap",
        ),
        (
            short(backoff.cap),
            "backoff cap",
            "above zero and at most an hour",
        ),
        (
            backoff.yield_for <= hour,
            "backoff yield_for",
            "at most an hour",
        ),
    ];
    match checks.into_iter().find(|(holds, ..)| !holds) {
        Some((_, what, must)) => Err(ConfigError::Limit { what, must }),
        None => Ok(()),
    }
}

fn system_entropy() -> Entropy {
    let random = SystemRandom::new();
    Arc::new(move || {
        let mut bytes = [0; 8];
        // Where the system has no randomness no handshake succeeds either; zero hurts nobody.
        let _ = random.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_checked_at_its_edge_and_one_past_it() {
        let refused = |change: &dyn Fn(&mut TlsLimits, &mut BackoffPolicy)| {
            let (mut limits, mut backoff) = (TlsLimits::default(), BackoffPolicy::default());
            change(&mut limits, &mut backoff);
            match check_limits(&limits, &backoff) {
                Err(ConfigError::Limit { what, .. }) => Some(what),
                _ => None,
            }
        };
        let hour = Duration::from_secs(3600);
        let longer = hour + Duration::from_nanos(1);
        assert_eq!(refused(&|_, _| ()), None);
        assert_eq!(refused(&|l, _| l.peers_max = 1), None);
        assert_eq!(refused(&|l, _| l.peers_max = 0), Some("peers_max"));
        let past = PEERS_MAX + 1;
        assert_eq!(refused(&|l, _| l.peers_max = past), Some("peers_max"));
        assert_eq!(refused(&|l, _| l.handshakes_max = 65_536), None);
        assert_eq!(
            refused(&|l, _| l.handshakes_max = 65_537),
            Some("handshakes_max")
        );
        assert_eq!(
            refused(&|l, _| l.outbound.bytes_max = FRAME_BYTES_MAX),
            None
        );
        assert_eq!(
            refused(&|l, _| l.outbound.bytes_max = FRAME_BYTES_MAX - 1),
            Some("outbound")
        );
        assert_eq!(refused(&|l, _| l.inbound.frames_max = 0), Some("inbound"));
        assert_eq!(refused(&|l, _| l.handshake_timeout = hour), None);
        assert_eq!(
            refused(&|l, _| l.handshake_timeout = longer),
            Some("handshake_timeout")
        );
        assert_eq!(
            refused(&|l, _| l.ping_after = l.idle_timeout),
            Some("ping_after")
        );
        assert_eq!(refused(&|_, b| b.base = b.cap), None);
        assert_eq!(
            refused(&|_, b| b.base = b.cap + Duration::from_nanos(1)),
            Some("backoff base")
        );
    }
}
