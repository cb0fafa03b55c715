//! From a TCP connection to one whose both ends have said Hello.
//!
//! Who dialled says Hello first; who was dialled answers with its own once the registry has taken
//! the connection, or says why not. Both compare the name in the Hello with the certificate's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::Shared;
use super::arbiter::{Kind, Origin};
use super::connection::{Link, run};
use super::frame::{Bye, Decoder, Frame, FrameError, Hello};
use super::identity::{Blame, IdentityError, blame, peer_of, principal};
use super::registry::{Offer, Place, Ticket};
use crate::ids::PeerId;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("nobody answers at the address: {0}")]
    Unreachable(io::Error),
    #[error("the TLS stream failed: {0}")]
    Stream(#[from] io::Error),
    #[error("our TLS configuration does not work: {0}")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("another frame came where a Hello belongs")]
    NoHello,
    #[error("the other end turned us away: {0:?}")]
    TurnedAway(Bye),
    #[error("we turned the other end away: {0:?}")]
    TurnedThemAway(Bye),
    #[error("the handshake took too long")]
    Slow,
}

impl Failure {
    /// Whether trying again soon is no use.
    pub(super) fn lasts(&self) -> bool {
        match self {
            Self::Stream(error) => !matches!(blame(error), Blame::Nobody),
            Self::Identity(_) | Self::Tls(_) | Self::Frame(_) | Self::NoHello => true,
            Self::TurnedAway(why) => !matches!(why, Bye::Closing | Bye::Duplicate),
            Self::Unreachable(_) | Self::TurnedThemAway(_) | Self::Slow => false,
        }
    }

    pub(super) fn count(&self, shared: &Shared) {
        let counts = &shared.counts;
        let count = match self {
            Self::Unreachable(_) => &counts.unreachable,
            Self::Stream(error) => match blame(error) {
                Blame::Stranger => &counts.mismatched,
                Blame::Certificate | Blame::Nobody => &counts.handshakes_failed,
            },
            Self::Tls(_) | Self::Slow => &counts.handshakes_failed,
            Self::Identity(_) => &counts.mismatched,
            Self::Frame(FrameError::Oversize { .. }) => &counts.oversize,
            Self::Frame(FrameError::Malformed(_)) | Self::NoHello => &counts.malformed,
            Self::Frame(FrameError::Version(_)) => &counts.refused,
            Self::TurnedAway(Bye::Duplicate) | Self::TurnedThemAway(Bye::Duplicate) => {
                &counts.duplicates
            }
            Self::TurnedAway(_) => &counts.handshakes_failed,
            Self::TurnedThemAway(_) => &counts.refused,
        };
        count.add(1);
    }
}

/// Makes a connection of one kind to a peer and starts its task.
pub(super) async fn dial(
    shared: &Arc<Shared>,
    peer: &PeerId,
    kind: Kind,
    address: SocketAddr,
) -> Result<(), Failure> {
    let attempt = async {
        let config = Arc::new(shared.trust.client(peer)?);
        let tcp = TcpStream::connect(address)
            .await
            .map_err(Failure::Unreachable)?;
        tcp.set_nodelay(true)?;
        let stream = TlsConnector::from(config).connect(nameless(), tcp).await?;
        let mut stream = TlsStream::from(stream);
        let certificate = certificate_of(&stream)?;
        say(&mut stream, hello(shared, kind)).await?;
        let mut decoder = Decoder::before_hello();
        let theirs = hear(&mut stream, &mut decoder).await?;
        let offered = match check(&certificate, &theirs) {
            Ok(_) if theirs.kind != kind || theirs.peer != *peer => Err(Failure::NoHello),
            Ok(_) => take(
                shared,
                Offer {
                    peer: peer.clone(),
                    kind,
                    origin: Origin {
                        dialler: shared.local.clone(),
                        run: theirs.nonce,
                    },
                    principal: principal(&certificate),
                    dialled: Some(address),
                },
            ),
            Err(error) => Err(error.into()),
        };
        let ticket = match offered {
            Ok(ticket) => ticket,
            Err(failure) => return Err(turn_away(&mut stream, failure).await),
        };
        decoder.after_hello();
        Ok((Link::new(shared.clone(), ticket), stream, decoder))
    };
    let timeout = shared.limits.handshake_timeout;
    let (link, stream, decoder) = match tokio::time::timeout(timeout, attempt).await {
        Ok(made) => made?,
        Err(_) => return Err(Failure::Slow),
    };
    shared.tasks.spawn(run(link, stream, decoder, None));
    Ok(())
}

/// Takes a connection that came in as far as its Hello. The answer's last part is our own, which
/// is still to be written.
pub(super) async fn accept(
    shared: &Arc<Shared>,
    tcp: TcpStream,
) -> Result<(Link, TlsStream<TcpStream>, Decoder, Frame), Failure> {
    let attempt = async {
        tcp.set_nodelay(true)?;
        let acceptor = TlsAcceptor::from(shared.server.clone());
        let mut stream = TlsStream::from(acceptor.accept(tcp).await?);
        let certificate = certificate_of(&stream)?;
        let mut decoder = Decoder::before_hello();
        let theirs = match hear(&mut stream, &mut decoder).await {
            Ok(theirs) => theirs,
            Err(failure) => return Err(turn_away(&mut stream, failure).await),
        };
        let offered = match check(&certificate, &theirs) {
            Ok(peer) if peer == shared.local => Err(IdentityError::Mismatch {
                expected: theirs.peer,
                found: peer,
            }
            .into()),
            Ok(peer) => take(
                shared,
                Offer {
                    origin: Origin {
                        dialler: peer.clone(),
                        run: theirs.nonce,
                    },
                    peer,
                    kind: theirs.kind,
                    principal: principal(&certificate),
                    dialled: None,
                },
            ),
            Err(error) => Err(error.into()),
        };
        let ticket = match offered {
            Ok(ticket) => ticket,
            Err(failure) => return Err(turn_away(&mut stream, failure).await),
        };
        decoder.after_hello();
        let link = Link::new(shared.clone(), ticket);
        Ok((link, stream, decoder, hello(shared, theirs.kind)))
    };
    match tokio::time::timeout(shared.limits.handshake_timeout, attempt).await {
        Ok(made) => made,
        Err(_) => Err(Failure::Slow),
    }
}

fn hello(shared: &Shared, kind: Kind) -> Frame {
    Frame::Hello(Hello {
        peer: shared.local.clone(),
        kind,
        nonce: shared.run,
    })
}

/// A server name that is never sent: rustls asks for one.
fn nameless() -> ServerName<'static> {
    const NAME: &str = "cabinet.invalid";
    match DnsName::try_from(NAME) {
        Ok(name) => ServerName::DnsName(name),
        // NAME is a host name, so this is not reached; an address is as good.
        Err(_) => ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into()),
    }
}

fn certificate_of(stream: &TlsStream<TcpStream>) -> Result<CertificateDer<'static>, IdentityError> {
    let chain = stream.get_ref().1.peer_certificates();
    let first = chain.and_then(|chain| chain.first());
    Ok(first.ok_or(IdentityError::Unnamed)?.clone().into_owned())
}

/// Who the certificate and the Hello agree the peer is.
fn check(certificate: &CertificateDer<'_>, hello: &Hello) -> Result<PeerId, IdentityError> {
    let found = peer_of(certificate)?;
    if found == hello.peer {
        Ok(found)
    } else {
        Err(IdentityError::Mismatch {
            expected: hello.peer.clone(),
            found,
        })
    }
}

fn take(shared: &Shared, offer: Offer) -> Result<Ticket, Failure> {
    let (ticket, place) = shared
        .registry
        .offer(offer)
        .map_err(Failure::TurnedThemAway)?;
    shared.counts.connected.add(1);
    if place == Place::Anothers {
        shared.counts.duplicates.add(1);
    }
    Ok(ticket)
}

/// Tells the other end that it is not wanted, if it still listens.
async fn turn_away(stream: &mut TlsStream<TcpStream>, failure: Failure) -> Failure {
    let why = match &failure {
        Failure::TurnedThemAway(why) => *why,
        Failure::Stream(_) | Failure::TurnedAway(_) => return failure,
        _ => Bye::Refused,
    };
    // The connection ends either way.
    if say(stream, Frame::Bye(why)).await.is_ok() {
        let _ = stream.shutdown().await;
    }
    failure
}

async fn say(stream: &mut TlsStream<TcpStream>, frame: Frame) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

async fn hear(stream: &mut TlsStream<TcpStream>, decoder: &mut Decoder) -> Result<Hello, Failure> {
    loop {
        match decoder.next()? {
            Some(Frame::Hello(hello)) => return Ok(hello),
            Some(Frame::Bye(why)) => return Err(Failure::TurnedAway(why)),
            Some(_) => return Err(Failure::NoHello),
            None => {}
        }
        if stream.read_buf(decoder.space()).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}
