//! An authority, certificates, short timeouts, and raw ends of connections for the TLS tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cabinet_consensus::fabric::tls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use cabinet_consensus::fabric::tls::{
    BackoffPolicy, Credentials, TlsConfig, TlsConfigBuilder, TlsFabric, TlsLimits, TlsStats,
    peer_uri,
};
use cabinet_consensus::fabric::{Fabric, Incoming};
use cabinet_consensus::ids::{GameId, PeerId};
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Beyond what any step takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn peer(name: &str) -> PeerId {
    PeerId::new(name).unwrap()
}

pub fn game(name: &str) -> GameId {
    GameId::new(name).unwrap()
}

/// Waits for `what` to hold.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(in_time.is_ok(), "not in time: {what}");
}

pub async fn in_time<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wanted).await {
        Ok(value) => value,
        Err(_) => panic!("not in time: {what}"),
    }
}

pub struct Issued {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Vec<u8>,
    pub pem: (String, String),
}

impl Issued {
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.clone()).unwrap()
    }
}

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub root: CertificateDer<'static>,
    pub root_pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap();
        Self {
            root: root.der().clone(),
            root_pem: root.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn issue_with(&self, uris: &[String], last_year: i32) -> Issued {
        let mut params = CertificateParams::new(vec!["cabinet.invalid".into()]).unwrap();
        for uri in uris {
            let uri = SanType::URI(uri.as_str().try_into().unwrap());
            params.subject_alt_names.push(uri);
        }
        params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            chain: vec![certificate.der().clone()],
            key: key.serialize_der(),
            pem: (certificate.pem(), key.serialize_pem()),
        }
    }

    pub fn issue(&self, name: &str) -> Issued {
        self.issue_with(&[peer_uri(&peer(name))], 4000)
    }

    /// Credentials of `issued` towards peers of this authority.
    pub fn credentials(&self, issued: &Issued) -> Credentials {
        Credentials::new(issued.chain.clone(), issued.key(), vec![self.root.clone()]).unwrap()
    }

    pub fn config(&self, name: &str) -> TlsConfigBuilder {
        let issued = self.issue(name);
        TlsConfig::builder(peer(name), self.credentials(&issued))
            .limits(limits())
            .backoff(backoff())
    }

    pub async fn start(&self, name: &str) -> Arc<TlsFabric> {
        start(self.config(name)).await
    }
}

pub fn limits() -> TlsLimits {
    TlsLimits {
        handshake_timeout: Duration::from_secs(10),
        ..TlsLimits::default()
    }
}

pub fn backoff() -> BackoffPolicy {
    BackoffPolicy {
        base: Duration::from_millis(10),
        cap: Duration::from_millis(200),
        reset_after: Duration::from_secs(1),
        yield_for: Duration::from_millis(20),
    }
}

pub async fn start(config: TlsConfigBuilder) -> Arc<TlsFabric> {
    TlsFabric::start(config.build().unwrap()).await.unwrap()
}

pub fn knows(fabric: &TlsFabric, name: &str) -> bool {
    fabric.peers().get().contains_key(&peer(name))
}

/// Waits until both are connected by both kinds of connection.
pub async fn joined(a: &TlsFabric, b: &TlsFabric) {
    until("both are connected", || {
        knows(a, b.local().as_str())
            && knows(b, a.local().as_str())
            && a.connections() >= 2
            && b.connections() >= 2
    })
    .await;
}

/// Two fabrics, the first of which dials.
pub async fn pair(authority: &Authority) -> (Arc<TlsFabric>, Arc<TlsFabric>) {
    let (ann, bob) = (authority.start("ann").await, authority.start("bob").await);
    ann.add_peer(&peer("bob"), bob.address()).unwrap();
    joined(&ann, &bob).await;
    (ann, bob)
}

pub async fn counted(fabric: &TlsFabric, what: &str, holds: impl Fn(&TlsStats) -> bool) {
    until(what, || holds(&fabric.stats())).await;
}

pub fn opened(fabric: &TlsFabric, name: &str) -> Incoming {
    fabric.open(&game(name)).unwrap()
}

// A second implementation of the frames, from docs/FORMATS.md alone.

#[derive(Clone, PartialEq, Message)]
pub struct HelloWire {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(string, tag = "2")]
    pub peer: String,
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    #[prost(fixed64, tag = "4")]
    pub nonce: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct DataWire {
    #[prost(string, tag = "1")]
    pub game: String,
    #[prost(uint32, tag = "2")]
    pub lane: u32,
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub payloads: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Wire {
    #[prost(message, optional, tag = "1")]
    pub hello: Option<HelloWire>,
    #[prost(message, optional, tag = "2")]
    pub data: Option<DataWire>,
    #[prost(fixed64, optional, tag = "3")]
    pub ping: Option<u64>,
    #[prost(fixed64, optional, tag = "4")]
    pub pong: Option<u64>,
    #[prost(uint32, optional, tag = "5")]
    pub bye: Option<u32>,
}

pub fn framed(wire: &Wire) -> Vec<u8> {
    let body = wire.encode_to_vec();
    let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    bytes.extend(body);
    bytes
}

pub fn hello(name: &str, kind: u32) -> Wire {
    Wire {
        hello: Some(HelloWire {
            version: 2,
            peer: name.into(),
            kind,
            nonce: 7,
        }),
        ..Wire::default()
    }
}

pub fn data(game: &str, lane: u32, payload: Vec<u8>) -> Wire {
    packed(game, lane, vec![payload])
}

/// Frames of one game that share a header.
pub fn packed(game: &str, lane: u32, payloads: Vec<Vec<u8>>) -> Wire {
    Wire {
        data: Some(DataWire {
            game: game.into(),
            lane,
            payloads,
        }),
        ..Wire::default()
    }
}

/// Takes any server: the tests of what a server refuses must get that far.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The dialling end of a connection, in the test's hand.
pub struct Raw(pub TlsStream<TcpStream>);

impl Raw {
    /// TLS to `address`, with a certificate or without; with the version of TLS given.
    pub async fn dial(
        address: SocketAddr,
        issued: Option<&Issued>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> std::io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody));
        let config = match issued {
            Some(issued) => builder
                .with_client_auth_cert(issued.chain.clone(), issued.key())
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::try_from("cabinet.invalid").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self(connector.connect(name, tcp).await?))
    }

    /// A connection of `kind` on which both have said Hello.
    pub async fn greeted(
        authority: &Authority,
        address: SocketAddr,
        name: &str,
        kind: u32,
    ) -> Self {
        let issued = authority.issue(name);
        let mut raw = Self::dial(address, Some(&issued), &rustls::version::TLS13)
            .await
            .unwrap();
        raw.write(&framed(&hello(name, kind))).await;
        let answer = raw.read().await.expect("a Hello");
        assert_eq!(answer.hello.expect("a Hello").kind, kind);
        raw
    }

    /// Writes; that the other end is gone already is no failure.
    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
        let _ = self.0.flush().await;
    }

    /// The next frame, `None` at the end.
    pub async fn read(&mut self) -> Option<Wire> {
        let reading = async {
            let len = self.0.read_u32_le().await.ok()?;
            let mut body = vec![0; usize::try_from(len).unwrap()];
            self.0.read_exact(&mut body).await.ok()?;
            Some(Wire::decode(&body[..]).unwrap())
        };
        in_time("a frame or the end", reading).await
    }

    /// Reads to the end.
    pub async fn ended(&mut self) {
        while self.read().await.is_some() {}
    }
}

pub fn number(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes())
}
