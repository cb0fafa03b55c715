//! One connection whose both ends have said Hello: reading, writing and keeping it alive.
//!
//! Invariants
//! - reading never waits for writing, nor for who takes the frames;
//! - everything that waits is written at once, up to [`BATCH_BYTES`] and one frame, and before
//!   the Bye; app frames gather for [`APP_GATHERS`] before that;
//! - the registry forgets the connection whichever way this ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsStream;

use super::Shared;
use super::arbiter::Kind;
use super::frame::{Bye, Decoder, Frame, FrameError, encode_data};
use super::idle::{Idle, Silence};
use super::outbound::{Parcel, packs};
use super::registry::Ticket;
use crate::fabric::{Inbound, Lane};

/// About how many payload bytes go into one write.
const BATCH_BYTES: usize = 256 << 10;
/// How long app frames wait for others before they are written. A burst of small ones costs the
/// machine one write, one read and their wake-ups, not as many as it has frames: that is time a turn
/// would wait for.
const APP_GATHERS: Duration = Duration::from_millis(1);
/// A write buffer that grew beyond this for a long frame is given back.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// A place in the registry, given up when dropped.
pub(super) struct Link {
    shared: Arc<Shared>,
    ticket: Ticket,
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>, ticket: Ticket) -> Self {
        Self { shared, ticket }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.registry.release(&self.ticket);
    }
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// We said Bye.
    Stopped,
    /// They did.
    Bye,
    /// The stream ended.
    Lost,
    /// Nothing arrived for too long.
    Silent,
    /// What arrived was no frame.
    Broken(FrameError),
    /// A frame that must not come here or now.
    OutOfPlace,
}

/// What the reader, the writer and the watcher of one connection tell one another.
struct Line {
    link: Link,
    idle: Mutex<Idle>,
    ping: AtomicBool,
    /// The last ping that was not answered: a flood of them is answered once.
    pong: Mutex<Option<u64>>,
}

impl Line {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pong(&self) -> MutexGuard<'_, Option<u64>> {
        self.pong.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a connection to its end. `greeting` is written first.
pub(super) async fn run(
    link: Link,
    stream: TlsStream<TcpStream>,
    decoder: Decoder,
    greeting: Option<Frame>,
) {
    let limits = link.shared.limits;
    let line = Line {
        idle: Mutex::new(Idle::new(
            limits.ping_after,
            limits.idle_timeout,
            Instant::now().into_std(),
        )),
        link,
        ping: AtomicBool::new(false),
        pong: Mutex::new(None),
    };
    let (from, to) = tokio::io::split(stream);
    let end = tokio::select! {
        end = read(&line, from, decoder) => end,
        end = write(&line, to, greeting) => end,
        end = watch_silence(&line) => end,
        end = overrun(&line) => end,
    };
    let counts = &line.link.shared.counts;
    match &end {
        End::Silent => counts.silent.add(1),
        End::Broken(FrameError::Oversize { .. }) => counts.oversize.add(1),
        End::Broken(_) | End::OutOfPlace => counts.malformed.add(1),
        End::Stopped | End::Bye | End::Lost => {}
    }
    let Ticket { peer, kind, .. } = &line.link.ticket;
    tracing::debug!(%peer, ?kind, ?end, "connection ended");
}

async fn read(line: &Line, mut from: ReadHalf<TlsStream<TcpStream>>, mut decoder: Decoder) -> End {
    loop {
        loop {
            match decoder.next() {
                Ok(Some(frame)) => {
                    if let Err(end) = on_frame(line, frame) {
                        return end;
                    }
                }
                Ok(None) => break,
                Err(error) => return End::Broken(error),
            }
        }
        match from.read_buf(decoder.space()).await {
            Ok(0) | Err(_) => return End::Lost,
            Ok(_) => line.idle().on_heard(Instant::now().into_std()),
        }
    }
}

fn on_frame(line: &Line, frame: Frame) -> Result<(), End> {
    let Link { shared, ticket } = &line.link;
    match frame {
        Frame::Data {
            game,
            lane,
            payloads,
        } => {
            let belongs = match lane {
                Lane::Raft | Lane::Lobby => Kind::Control,
                Lane::App => Kind::App,
            };
            if ticket.kind != belongs {
                return Err(End::OutOfPlace);
            }
            let received = &shared.counts.lane(lane).received;
            received.add(payloads.len() as u64);
            let frames = payloads.into_iter().map(|frame| Inbound {
                from: ticket.peer.clone(),
                frame,
            });
            let passed = ticket.gate.pass(ticket.connection, || {
                // Whether anybody took them is in the switchboard's own counters.
                shared.board.deliver_all(&game, lane, frames);
            });
            if passed { Ok(()) } else { Err(End::Stopped) }
        }
        Frame::Ping(number) => {
            *line.pong() = Some(number);
            ticket.ready.notify_one();
            Ok(())
        }
        Frame::Pong(_) => Ok(()),
        Frame::Bye(why) => {
            tracing::debug!(peer = %ticket.peer, ?why, "the other end says Bye");
            Err(End::Bye)
        }
        Frame::Hello(_) => Err(End::OutOfPlace),
    }
}

async fn write(
    line: &Line,
    mut to: WriteHalf<TlsStream<TcpStream>>,
    greeting: Option<Frame>,
) -> End {
    let Link { shared, ticket } = &line.link;
    let mut stop = ticket.stop.clone();
    let mut bytes = BytesMut::new();
    let mut batch = Vec::new();
    let mut ended = false;
    if let Some(frame) = greeting {
        frame.encode(&mut bytes);
    }
    loop {
        if let Some(number) = line.pong().take() {
            Frame::Pong(number).encode(&mut bytes);
        }
        if line.ping.swap(false, Ordering::Relaxed) {
            Frame::Ping(ticket.connection).encode(&mut bytes);
        }
        ticket
            .outbound
            .take(ticket.connection, BATCH_BYTES, &mut batch);
        let emptied = batch.is_empty();
        for pack in packs(&batch) {
            // A pack is never empty.
            let Parcel { game, lane, .. } = &pack[0];
            shared.counts.lane(*lane).sent.add(pack.len() as u64);
            let payloads = pack.iter().map(|parcel| &parcel.payload);
            encode_data(game, *lane, payloads, &mut bytes);
        }
        batch.clear();
        let stopping = *stop.borrow();
        let stopping = stopping.or(ended.then_some(Bye::Closing));
        let stopping = stopping.filter(|_| emptied);
        if let Some(why) = stopping {
            Frame::Bye(why).encode(&mut bytes);
        }
        if !bytes.is_empty() {
            if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
                return End::Lost;
            }
            if bytes.capacity() > BUFFER_BYTES_MAX {
                bytes = BytesMut::new();
            }
            bytes.clear();
            if stopping.is_none() {
                continue;
            }
        }
        if stopping.is_some() {
            // The other end may be gone already.
            let _ = to.shutdown().await;
            return End::Stopped;
        }
        let wake = async {
            ticket.ready.notified().await;
            if ticket.kind == Kind::App {
                tokio::time::sleep(APP_GATHERS).await;
            }
        };
        tokio::select! {
            () = wake => {}
            stopped = stop.changed() => ended = stopped.is_err(),
        }
    }
}

async fn watch_silence(line: &Line) -> End {
    loop {
        let silence = line.idle().poll(Instant::now().into_std());
        match silence {
            Silence::Until(then) => tokio::time::sleep_until(Instant::from_std(then)).await,
            Silence::Ping => {
                line.ping.store(true, Ordering::Relaxed);
                line.link.ticket.ready.notify_one();
            }
            Silence::Dead => return End::Silent,
        }
    }
}

/// Ends a connection that was told to stop and cannot get rid of its last bytes.
async fn overrun(line: &Line) -> End {
    let Link { shared, ticket } = &line.link;
    // That nobody is left to stop it is a stop too.
    let _ = ticket.stop.clone().wait_for(Option::is_some).await;
    tokio::time::sleep(shared.limits.close_timeout / 2).await;
    End::Stopped
}
