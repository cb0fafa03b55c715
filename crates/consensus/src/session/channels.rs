//! The application's own traffic beside the game: named, best effort, never relayed.
//!
//! Invariants
//! - a frame goes to the members it was sent to and to nobody else, whoever is on the fabric;
//! - an unread channel fills its own queue, drops its oldest frames and counts them: nothing else
//!   waits for it;
//! - a frame for a channel nobody has open is dropped;
//! - a frame that arrives wakes nobody but who waits for it;
//! - a channel is open as long as a handle or its reader is there, and one of each name is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::fabric::{FRAME_BYTES_MAX, Inbound, Lane, Links, Overflow, Receiver, SendError};
use crate::fabric::{Pusher, queue};
use crate::ids::{NAME_BYTES_MAX, PeerId};
use crate::node::Node;
use crate::raft::lock;
use crate::state::Planted;

/// A channel that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// A name has 1 to 255 bytes.
    #[error("a channel's name has 1 to {NAME_BYTES_MAX} bytes, this one has {len}")]
    Name {
        /// Bytes given.
        len: usize,
    },
    /// As many channels are open as may be. One is free again once all its handles and its reader
    /// are dropped.
    #[error("at most {max} channels are open at a time: drop one first")]
    TooMany {
        /// Channels allowed.
        max: usize,
    },
    /// The channel's frames are being read already.
    #[error("channel {name:?} has a reader already")]
    ReaderTaken {
        /// Its name.
        name: String,
    },
    /// The session is closed.
    #[error("the session is closed")]
    Closed,
}

/// A frame of an app channel that was certainly not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelSendError {
    /// The peer is no member of the game, as far as this node knows.
    #[error("{0} is no member of the game")]
    NotMember(PeerId),
    /// The session is closed.
    #[error("the session is closed")]
    Closed,
    /// The fabric did not take it.
    #[error(transparent)]
    Fabric(#[from] SendError),
}

struct Open {
    push: Pusher<Inbound>,
    /// The reading half, unless somebody has it.
    reader: Option<Receiver<Inbound>>,
    not_sent: Arc<AtomicU64>,
    /// Handles and readers there are.
    users: usize,
}

#[derive(Default)]
struct State {
    /// By the bytes of their names: a frame's is looked up as it came.
    open: BTreeMap<Box<[u8]>, Open>,
    closed: bool,
}

struct Shared {
    node: Arc<Node>,
    links: Links,
    state: Mutex<State>,
    unknown: AtomicU64,
    turned_away: AtomicU64,
    planted: Planted,
    channels_max: usize,
    frames_max: usize,
}

/// The channels of one session.
#[derive(Clone)]
pub(crate) struct Channels(Arc<Shared>);

impl Channels {
    pub(crate) fn new(
        node: Arc<Node>,
        links: Links,
        channels_max: usize,
        frames_max: usize,
    ) -> Self {
        let planted = lock(&node.replica).planted;
        Self(Arc::new(Shared {
            node,
            links,
            state: Mutex::default(),
            unknown: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            planted,
            channels_max,
            frames_max,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, name: &str) -> Result<AppChannel, ChannelError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(ChannelError::Name { len: name.len() });
        }
        let mut state = self.lock();
        if state.closed {
            return Err(ChannelError::Closed);
        }
        let max = self.0.channels_max;
        if !state.open.contains_key(name.as_bytes()) {
            if state.open.len() >= max {
                return Err(ChannelError::TooMany { max });
            }
            let bytes_max = FRAME_BYTES_MAX.saturating_mul(4);
            let (push, reader) = queue(self.0.frames_max, bytes_max, Overflow::DropOldest);
            let opened = Open {
                push,
                reader: Some(reader),
                not_sent: Arc::default(),
                users: 0,
            };
            state.open.insert(name.as_bytes().into(), opened);
        }
        let Some(open) = state.open.get_mut(name.as_bytes()) else {
            unreachable!("it was there, or has just been opened")
        };
        open.users += 1;
        Ok(AppChannel(Arc::new(Handle {
            push: open.push.clone(),
            not_sent: open.not_sent.clone(),
            user: User {
                channels: self.clone(),
                name: Arc::from(name),
            },
        })))
    }

    /// Hands the app frames of members to their channels for as long as they come. They go on the
    /// thread that brings them: a flood nobody reads wakes no task, so none of the node's waits.
    pub(crate) async fn carry(self, app: Receiver<Inbound>) {
        let channels = self.clone();
        let mut app = app.divert(move |inbound| {
            if channels.0.node.knows(&inbound.from) {
                channels.deliver(inbound);
            } else {
                channels.0.turned_away.fetch_add(1, Ordering::Relaxed);
                channels.0.node.count_not_member(1);
            }
        });
        app.ended().await;
        self.close();
    }

    /// Puts a frame that arrived into its channel.
    fn deliver(&self, inbound: Inbound) {
        let Inbound { from, mut frame } = inbound;
        let named = frame.first().map(|len| usize::from(*len));
        let name = named.and_then(|len| frame.get(1..=len));
        let state = self.lock();
        let first = state.open.values().next();
        let first = first.filter(|_| self.0.planted.any_channel);
        // No channel has a name that is empty or no text.
        let named = |name| Some((name, first.or_else(|| state.open.get(name))?));
        let Some((name, channel)) = name.and_then(named) else {
            self.0.unknown.fetch_add(1, Ordering::Relaxed);
            return;
        };
        frame.advance(1 + name.len());
        let bytes = frame.len();
        channel.push.push(Inbound { from, frame }, bytes);
    }

    /// Frames for channels nobody has open here.
    pub(crate) fn unknown(&self) -> u64 {
        self.0.unknown.load(Ordering::Relaxed)
    }

    /// Frames of peers that are no members, as far as this node knew.
    #[cfg(feature = "testkit")]
    pub(crate) fn turned_away(&self) -> u64 {
        self.0.turned_away.load(Ordering::Relaxed)
    }

    /// What only a planted bug does.
    fn passes_on(&self, name: &str, inbound: &Inbound) {
        if !self.0.planted.relays {
            return;
        }
        let frame = [&[name.len() as u8][..], name.as_bytes(), &inbound.frame].concat();
        let frame = Bytes::from(frame);
        for peer in self.0.node.members().iter() {
            if peer != self.0.links.local() && *peer != inbound.from {
                let _ = self.0.links.send(peer, Lane::App, frame.clone());
            }
        }
    }

    /// Ends every channel: no frame comes or goes any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for channel in state.open.values() {
            channel.push.close();
        }
    }
}

/// One of those that keep a channel open. The channel goes with the last of them.
struct User {
    channels: Channels,
    name: Arc<str>,
}

impl Drop for User {
    fn drop(&mut self) {
        let mut state = self.channels.lock();
        let Some(open) = state.open.get_mut(self.name.as_bytes()) else {
            return;
        };
        open.users -= 1;
        if open.users == 0 {
            state.open.remove(self.name.as_bytes());
        }
    }
}

struct Handle {
    push: Pusher<Inbound>,
    not_sent: Arc<AtomicU64>,
    user: User,
}

/// One named channel of a session. Over TLS what is sent waits a millisecond or two for more, so that
/// a burst is one write and turns keep the machine. Clones and later openings of the name are the same channel, as
/// long as one of them or its reader is there; a channel opened after that is a new one.
#[derive(Clone)]
pub struct AppChannel(Arc<Handle>);

impl fmt::Debug for AppChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "app channel {:?}", self.name())
    }
}

impl AppChannel {
    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.user.name
    }

    /// The payload with the channel's name before it, if it may be sent at all.
    fn frame(&self, payload: &[u8]) -> Result<Bytes, ChannelSendError> {
        if self.0.user.channels.lock().closed {
            return Err(ChannelSendError::Closed);
        }
        let name = self.name();
        let len = 1 + name.len() + payload.len();
        if len > FRAME_BYTES_MAX {
            return Err(SendError::TooLarge { len }.into());
        }
        let mut frame = BytesMut::with_capacity(len);
        // A name has at most 255 bytes: `Channels::open` checked it.
        frame.put_u8(name.len() as u8);
        frame.put_slice(name.as_bytes());
        frame.put_slice(payload);
        Ok(frame.freeze())
    }

    /// Sends to every other member of the game, players, spectators and the witness, best effort;
    /// answers how many it was sent to. For each that is not connected or whose queue is full,
    /// [`not_sent`](Self::not_sent) grows by one. A peer that is no member gets nothing.
    ///
    /// # Errors
    ///
    /// [`ChannelSendError`] when the frame may not be sent at all.
    pub fn broadcast(&self, payload: &[u8]) -> Result<usize, ChannelSendError> {
        let frame = self.frame(payload)?;
        let Shared { node, links, .. } = &*self.0.user.channels.0;
        let mut sent = 0;
        let mut not_sent = 0;
        for peer in &*node.members() {
            if peer != links.local() {
                match links.send(peer, Lane::App, frame.clone()) {
                    Ok(()) => sent += 1,
                    Err(_) => not_sent += 1,
                }
            }
        }
        self.count_not_sent(not_sent);
        Ok(sent)
    }

    /// Sends to one member and to nobody else, best effort.
    ///
    /// # Errors
    ///
    /// [`ChannelSendError`] when the frame was certainly not sent.
    pub fn send_to(&self, to: &PeerId, payload: &[u8]) -> Result<(), ChannelSendError> {
        let frame = self.frame(payload)?;
        let Shared { node, links, .. } = &*self.0.user.channels.0;
        if to != links.local() && node.members().binary_search(to).is_err() {
            return Err(ChannelSendError::NotMember(to.clone()));
        }
        let sent = links.send(to, Lane::App, frame);
        self.count_not_sent(u64::from(sent.is_err()));
        Ok(sent?)
    }

    fn count_not_sent(&self, frames: u64) {
        if frames > 0 {
            self.0.not_sent.fetch_add(frames, Ordering::Relaxed);
        }
    }

    /// Takes what arrives, until it is dropped. A channel has one reader at a time; frames that
    /// come while there is none wait, up to the limit.
    ///
    /// # Errors
    ///
    /// [`ChannelError::ReaderTaken`] while another reads.
    pub fn incoming(&self) -> Result<ChannelReader, ChannelError> {
        let User { channels, name } = &self.0.user;
        let mut state = channels.lock();
        // The channel is open: this handle is one of its users.
        let open = state.open.get_mut(name.as_bytes());
        let taken = open.and_then(|open| {
            let receiver = open.reader.take()?;
            open.users += 1;
            Some(receiver)
        });
        let receiver = taken.ok_or_else(|| ChannelError::ReaderTaken {
            name: name.to_string(),
        })?;
        Ok(ChannelReader {
            receiver: Some(receiver),
            user: User {
                channels: channels.clone(),
                name: name.clone(),
            },
        })
    }

    /// Frames that arrived and were dropped because nobody read them in time.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.push.dropped()
    }

    /// Frames that wait for a reader.
    #[cfg(feature = "testkit")]
    pub(crate) fn waiting(&self) -> usize {
        self.0.push.waiting()
    }

    /// Frames for members that the fabric did not take.
    #[must_use]
    pub fn not_sent(&self) -> u64 {
        self.0.not_sent.load(Ordering::Relaxed)
    }
}

/// The frames that arrive on an [`AppChannel`]. When it is dropped, another may read: what it left
/// waits for that one as long as the channel is open.
pub struct ChannelReader {
    /// There until this is dropped.
    receiver: Option<Receiver<Inbound>>,
    user: User,
}

impl fmt::Debug for ChannelReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reader of app channel {:?}", self.user.name)
    }
}

impl ChannelReader {
    /// The next frame, or `None` when the session is closed. Cancel safe.
    pub async fn recv(&mut self) -> Option<Inbound> {
        let inbound = self.receiver.as_mut()?.recv().await?;
        self.user.channels.passes_on(&self.user.name, &inbound);
        Some(inbound)
    }

    /// The next frame, if one is there.
    pub fn try_recv(&mut self) -> Option<Inbound> {
        self.receiver.as_mut()?.try_recv()
    }

    /// Frames that arrived and were dropped because nobody read them in time.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.receiver.as_ref().map_or(0, Receiver::dropped)
    }
}

impl Drop for ChannelReader {
    fn drop(&mut self) {
        let mut state = self.user.channels.lock();
        if let Some(open) = state.open.get_mut(self.user.name.as_bytes()) {
            open.reader = self.receiver.take();
        }
    }
}
