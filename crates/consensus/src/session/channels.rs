//! The application's own traffic beside the game: named, best effort, never relayed.
//!
//! Invariants
//! - a frame goes to the peers it was sent to and to nobody else;
//! - an unread channel fills its own queue, drops its oldest frames and counts them: nothing else
//!   waits for it;
//! - a frame for a channel nobody opened is dropped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};

use crate::fabric::{FRAME_BYTES_MAX, Inbound, Lane, Links, Overflow, Receiver, SendError};
use crate::fabric::{Pusher, queue};
use crate::ids::{NAME_BYTES_MAX, PeerId};

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
    /// As many channels are open as may be.
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
}

struct Open {
    push: Pusher<Inbound>,
    /// The reading half, until somebody takes it.
    reader: Option<Receiver<Inbound>>,
}

struct Shared {
    links: Links,
    open: Mutex<BTreeMap<String, Open>>,
    unknown: AtomicU64,
    channels_max: usize,
    frames_max: usize,
}

/// The channels of one session.
#[derive(Clone)]
pub(crate) struct Channels(Arc<Shared>);

impl Channels {
    pub(crate) fn new(links: Links, channels_max: usize, frames_max: usize) -> Self {
        Self(Arc::new(Shared {
            links,
            open: Mutex::default(),
            unknown: AtomicU64::new(0),
            channels_max,
            frames_max,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Open>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, name: &str) -> Result<AppChannel, ChannelError> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(ChannelError::Name { len: name.len() });
        }
        let mut open = self.lock();
        let max = self.0.channels_max;
        if !open.contains_key(name) {
            if open.len() >= max {
                return Err(ChannelError::TooMany { max });
            }
            let bytes_max = FRAME_BYTES_MAX.saturating_mul(4);
            let (push, reader) = queue(self.0.frames_max, bytes_max, Overflow::DropOldest);
            let reader = Some(reader);
            open.insert(name.to_owned(), Open { push, reader });
        }
        Ok(AppChannel {
            channels: self.clone(),
            name: Arc::from(name),
        })
    }

    /// Puts a frame that arrived into its channel.
    pub(crate) fn deliver(&self, inbound: Inbound) {
        let Inbound { from, frame } = inbound;
        let named = frame.first().map(|len| usize::from(*len));
        let name = named
            .filter(|len| *len > 0 && frame.len() > *len)
            .and_then(|len| std::str::from_utf8(&frame[1..=len]).ok());
        let open = self.lock();
        let Some((name, channel)) = name.and_then(|name| Some((name, open.get(name)?))) else {
            self.0.unknown.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let payload = frame.slice(1 + name.len()..);
        let bytes = payload.len();
        channel.push.push(
            Inbound {
                from,
                frame: payload,
            },
            bytes,
        );
    }

    /// Frames for channels nobody opened here.
    pub(crate) fn unknown(&self) -> u64 {
        self.0.unknown.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        for channel in self.lock().values() {
            channel.push.close();
        }
    }
}

/// One named channel of a session. Clones and later openings of the name are the same channel.
#[derive(Clone)]
pub struct AppChannel {
    channels: Channels,
    name: Arc<str>,
}

impl AppChannel {
    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn frame(&self, payload: &[u8]) -> Bytes {
        let mut frame = BytesMut::with_capacity(1 + self.name.len() + payload.len());
        // A name has at most 255 bytes: `Channels::open` checked it.
        frame.put_u8(self.name.len() as u8);
        frame.put_slice(self.name.as_bytes());
        frame.put_slice(payload);
        frame.freeze()
    }

    /// Sends to every connected peer, best effort; answers how many took it.
    pub fn broadcast(&self, payload: &[u8]) -> usize {
        let frame = self.frame(payload);
        self.channels.0.links.broadcast(Lane::App, &frame)
    }

    /// Sends to one peer and to nobody else, best effort.
    ///
    /// # Errors
    ///
    /// [`SendError`] when the frame was certainly not sent.
    pub fn send_to(&self, to: &PeerId, payload: &[u8]) -> Result<(), SendError> {
        self.channels
            .0
            .links
            .send(to, Lane::App, self.frame(payload))
    }

    /// Takes what arrives. A channel has one reader; frames that come before wait, up to the limit.
    ///
    /// # Errors
    ///
    /// [`ChannelError::ReaderTaken`] the second time.
    pub fn incoming(&self) -> Result<Receiver<Inbound>, ChannelError> {
        let mut open = self.channels.lock();
        let reader = open
            .get_mut(&*self.name)
            .and_then(|open| open.reader.take());
        reader.ok_or_else(|| ChannelError::ReaderTaken {
            name: self.name.to_string(),
        })
    }

    /// Frames dropped because nobody read them in time.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let open = self.channels.lock();
        open.get(&*self.name).map_or(0, |open| open.push.dropped())
    }
}
