//! Frames between machines: a u32 length and a prost message.
//!
//! Invariants
//! - a length is compared with the limit before anything is reserved for it;
//! - a [`Frame`] holds checked names and a known lane and kind: what is none of that is a
//!   [`FrameError`];
//! - bytes that arrive before a Hello are held to [`HELLO_BYTES_MAX`].
//!
//! The bytes are in `docs/FORMATS.md`, "Frames between machines". No I/O here.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use super::arbiter::Kind;
use crate::fabric::{FRAME_BYTES_MAX, Lane};
use crate::hidden::Hidden;
use crate::ids::{GameId, PeerId};

/// The version this code speaks, in its Hello.
pub(super) const VERSION: u32 = 1;
/// Longest frame before a connection has said Hello, in bytes without the length.
pub(super) const HELLO_BYTES_MAX: usize = 512;
/// Longest frame afterwards: the largest payload, and a game's longest name with the tags.
pub(super) const WIRE_BYTES_MAX: usize = FRAME_BYTES_MAX + 512;
/// Bytes of the length before each frame.
pub(super) const LENGTH_BYTES: usize = 4;
/// Bytes read at once when no long frame is under way.
const READ_BYTES: usize = 64 << 10;
/// A shorter payload is copied, so that it does not keep [`READ_BYTES`] alive in a queue.
const SHARED_BYTES_MIN: usize = 16 << 10;

#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5")]
    body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Body {
    #[prost(message, tag = "1")]
    Hello(HelloBody),
    #[prost(message, tag = "2")]
    Data(DataBody),
    #[prost(fixed64, tag = "3")]
    Ping(u64),
    #[prost(fixed64, tag = "4")]
    Pong(u64),
    #[prost(uint32, tag = "5")]
    Bye(u32),
}

#[derive(Clone, PartialEq, Message)]
struct HelloBody {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(string, tag = "2")]
    peer: String,
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(fixed64, tag = "4")]
    nonce: u64,
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct DataBody {
    #[prost(string, tag = "1")]
    game: String,
    #[prost(uint32, tag = "2")]
    lane: u32,
    #[prost(bytes = "bytes", tag = "3")]
    payload: Bytes,
}

impl fmt::Debug for DataBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataBody")
            .field("game", &self.game)
            .field("lane", &self.lane)
            .field("payload", &Hidden(self.payload.len()))
            .finish()
    }
}

/// Why a connection ends, as its end says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bye {
    /// The fabric closes.
    Closing,
    /// Another connection of the pair stays.
    Duplicate,
    /// There are as many peers as may be.
    Full,
    /// The peer was removed here.
    Removed,
    /// The peer is not who it says, or not of our version.
    Refused,
    /// Anything else, from a later version.
    Other(u32),
}

impl Bye {
    fn number(self) -> u32 {
        match self {
            Self::Closing => 1,
            Self::Duplicate => 2,
            Self::Full => 3,
            Self::Removed => 4,
            Self::Refused => 5,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Closing,
            2 => Self::Duplicate,
            3 => Self::Full,
            4 => Self::Removed,
            5 => Self::Refused,
            number => Self::Other(number),
        }
    }
}

/// The first frame of each end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) peer: PeerId,
    pub(super) kind: Kind,
    pub(super) nonce: u64,
}

/// A frame whose fields were checked.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Frame {
    Hello(Hello),
    Data {
        game: GameId,
        lane: Lane,
        payload: Bytes,
    },
    Ping(u64),
    Pong(u64),
    Bye(Bye),
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(hello) => f.debug_tuple("Hello").field(hello).finish(),
            Self::Data {
                game,
                lane,
                payload,
            } => f
                .debug_struct("Data")
                .field("game", game)
                .field("lane", lane)
                .field("payload", &Hidden(payload.len()))
                .finish(),
            Self::Ping(nonce) => f.debug_tuple("Ping").field(nonce).finish(),
            Self::Pong(nonce) => f.debug_tuple("Pong").field(nonce).finish(),
            Self::Bye(bye) => f.debug_tuple("Bye").field(bye).finish(),
        }
    }
}

/// Bytes that are no frame: the connection they came on is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame has at most {max} bytes, this one announces {len}")]
    Oversize { len: usize, max: usize },
    #[error("the frame does not decode: {0}")]
    Malformed(&'static str),
    #[error("the peer speaks version {0}, this one speaks {VERSION}: upgrade the older one")]
    Version(u32),
}

impl Frame {
    /// Appends length and frame to `to`.
    pub(super) fn encode(self, to: &mut BytesMut) {
        let body = match self {
            Self::Hello(Hello { peer, kind, nonce }) => Body::Hello(HelloBody {
                version: VERSION,
                peer: peer.as_str().to_owned(),
                kind: kind.number(),
                nonce,
            }),
            Self::Data {
                game,
                lane,
                payload,
            } => Body::Data(DataBody {
                game: game.as_str().to_owned(),
                lane: lane.number().into(),
                payload,
            }),
            Self::Ping(number) => Body::Ping(number),
            Self::Pong(number) => Body::Pong(number),
            Self::Bye(bye) => Body::Bye(bye.number()),
        };
        let envelope = Envelope { body: Some(body) };
        let len = envelope.encoded_len();
        debug_assert!(len <= WIRE_BYTES_MAX, "senders check their payload");
        to.reserve(LENGTH_BYTES + len);
        to.put_u32_le(u32::try_from(len).unwrap_or(u32::MAX));
        envelope.encode_raw(to);
    }

    fn parse(bytes: Bytes) -> Result<Self, FrameError> {
        let envelope =
            Envelope::decode(bytes).map_err(|_| FrameError::Malformed("not a message of ours"))?;
        let body = envelope
            .body
            .ok_or(FrameError::Malformed("a message of no known type"))?;
        match body {
            Body::Hello(hello) => {
                if hello.version != VERSION {
                    return Err(FrameError::Version(hello.version));
                }
                let peer = PeerId::new(&hello.peer)
                    .map_err(|_| FrameError::Malformed("a peer id that is none"))?;
                let kind = Kind::from_number(hello.kind)
                    .ok_or(FrameError::Malformed("an unknown kind of connection"))?;
                Ok(Self::Hello(Hello {
                    peer,
                    kind,
                    nonce: hello.nonce,
                }))
            }
            Body::Data(data) => {
                let game = GameId::new(&data.game)
                    .map_err(|_| FrameError::Malformed("a game id that is none"))?;
                let lane = u8::try_from(data.lane)
                    .ok()
                    .and_then(Lane::from_number)
                    .ok_or(FrameError::Malformed("an unknown lane"))?;
                if data.payload.len() > FRAME_BYTES_MAX {
                    return Err(FrameError::Oversize {
                        len: data.payload.len(),
                        max: FRAME_BYTES_MAX,
                    });
                }
                let payload = if data.payload.len() < SHARED_BYTES_MIN {
                    Bytes::copy_from_slice(&data.payload)
                } else {
                    data.payload
                };
                Ok(Self::Data {
                    game,
                    lane,
                    payload,
                })
            }
            Body::Ping(number) => Ok(Self::Ping(number)),
            Body::Pong(number) => Ok(Self::Pong(number)),
            Body::Bye(number) => Ok(Self::Bye(Bye::from_number(number))),
        }
    }
}

/// Frames out of a stream of bytes.
pub(super) struct Decoder {
    buffer: BytesMut,
    max: usize,
}

impl Decoder {
    /// A decoder of a connection that has not said Hello.
    pub(super) fn before_hello() -> Self {
        Self {
            buffer: BytesMut::new(),
            max: HELLO_BYTES_MAX,
        }
    }

    /// From here on frames may be as long as frames are.
    pub(super) fn after_hello(&mut self) {
        self.max = WIRE_BYTES_MAX;
    }

    /// The next whole frame, if its bytes are here.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(len) = self.announced()? else {
            return Ok(None);
        };
        if self.buffer.len() < LENGTH_BYTES + len {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        Frame::parse(self.buffer.split_to(len).freeze()).map(Some)
    }

    /// Where the bytes that arrive next go: there is room for some.
    pub(super) fn space(&mut self) -> &mut BytesMut {
        let missing = match self.announced() {
            Ok(Some(len)) => (LENGTH_BYTES + len).saturating_sub(self.buffer.len()),
            // An oversize frame is reported by `next`, which comes before any read.
            Ok(None) | Err(_) => 0,
        };
        let usual = READ_BYTES.min(LENGTH_BYTES + self.max);
        if self.buffer.capacity() - self.buffer.len() < missing.max(usual / 4) {
            self.buffer.reserve(missing.max(usual));
        }
        &mut self.buffer
    }

    fn announced(&self) -> Result<Option<usize>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if len > self.max {
            return Err(FrameError::Oversize { len, max: self.max });
        }
        Ok(Some(len))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hidden::tests::{SECRET, hides_it};
    use crate::ids::{NAME_BYTES_MAX, PEER_ID_BYTES_MAX};

    fn decoder() -> Decoder {
        let mut decoder = Decoder::before_hello();
        decoder.after_hello();
        decoder
    }

    fn data(game: &str, len: usize) -> Frame {
        Frame::Data {
            game: GameId::new(game).unwrap(),
            lane: Lane::Raft,
            payload: vec![7; len].into(),
        }
    }

    #[test]
    fn what_a_frame_carries_is_shown_by_its_length() {
        let payload = Bytes::from_static(SECRET);
        let frame = Frame::Data {
            game: GameId::new("chess").unwrap(),
            lane: Lane::Raft,
            payload: payload.clone(),
        };
        hides_it(&frame);
        let shown = format!("{frame:?}");
        assert!(
            shown.contains("chess") && shown.contains("32 bytes"),
            "{shown}"
        );
        let body = DataBody {
            payload,
            ..DataBody::default()
        };
        hides_it(&Envelope {
            body: Some(Body::Data(body)),
        });
    }

    fn bytes_of(frame: Frame) -> BytesMut {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        bytes
    }

    #[test]
    fn the_longest_payload_with_the_longest_name_decodes_and_one_more_byte_does_not() {
        let name = "g".repeat(NAME_BYTES_MAX);
        let mut decoder = decoder();
        decoder
            .space()
            .extend_from_slice(&bytes_of(data(&name, FRAME_BYTES_MAX)));
        assert_eq!(decoder.next(), Ok(Some(data(&name, FRAME_BYTES_MAX))));
        decoder
            .space()
            .extend_from_slice(&bytes_of(data(&name, FRAME_BYTES_MAX + 1)));
        let len = FRAME_BYTES_MAX + 1;
        let max = FRAME_BYTES_MAX;
        assert_eq!(decoder.next(), Err(FrameError::Oversize { len, max }));
    }

    #[test]
    fn an_announced_length_is_judged_before_anything_is_reserved_for_it() {
        for (mut decoder, max) in [
            (Decoder::before_hello(), HELLO_BYTES_MAX),
            (decoder(), WIRE_BYTES_MAX),
        ] {
            let len = u32::try_from(max).unwrap();
            decoder.space().put_u32_le(len);
            assert_eq!(decoder.next(), Ok(None), "at the limit");
            decoder.buffer.clear();
            decoder.space().put_u32_le(len + 1);
            let len = max + 1;
            assert_eq!(decoder.next(), Err(FrameError::Oversize { len, max }));
            assert!(decoder.space().capacity() <= 2 * READ_BYTES);
        }
    }

    #[test]
    fn the_longest_hello_fits_its_limit() {
        let hello = Frame::Hello(Hello {
            peer: PeerId::new("p".repeat(PEER_ID_BYTES_MAX)).unwrap(),
            kind: Kind::App,
            nonce: u64::MAX,
        });
        let bytes = bytes_of(hello.clone());
        let mut decoder = Decoder::before_hello();
        decoder.space().extend_from_slice(&bytes);
        assert_eq!(decoder.next(), Ok(Some(hello)));
    }

    #[test]
    fn unknown_lanes_kinds_versions_and_empty_names_are_refused() {
        let encode = |body: Body| {
            let body = Envelope { body: Some(body) }.encode_to_vec();
            Frame::parse(body.into())
        };
        let data = |game: &str, lane| {
            encode(Body::Data(DataBody {
                game: game.into(),
                lane,
                payload: Bytes::new(),
            }))
        };
        let hello = |version, peer: &str, kind| {
            encode(Body::Hello(HelloBody {
                version,
                peer: peer.into(),
                kind,
                nonce: 1,
            }))
        };
        assert!(data("chess", 3).is_ok() && hello(1, "ann", 2).is_ok());
        for bad in [
            data("chess", 0),
            data("chess", 4),
            data("chess", 257),
            data("", 1),
            data(&"g".repeat(NAME_BYTES_MAX + 1), 1),
            hello(1, "ann", 0),
            hello(1, "ann", 3),
            hello(1, "", 1),
            hello(1, &"p".repeat(PEER_ID_BYTES_MAX + 1), 1),
            Frame::parse(Bytes::new()),
        ] {
            assert!(matches!(bad, Err(FrameError::Malformed(_))), "{bad:?}");
        }
        assert_eq!(hello(2, "ann", 1), Err(FrameError::Version(2)));
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            ("[^\\p{Cc}]{1,16}", any::<bool>(), any::<u64>()).prop_map(|(peer, app, nonce)| {
                Frame::Hello(Hello {
                    peer: PeerId::new(peer).unwrap(),
                    kind: Kind::ALL[usize::from(app)],
                    nonce,
                })
            }),
            (
                "[^\\p{Cc}]{1,60}",
                0_usize..3,
                prop::collection::vec(any::<u8>(), 0..40_000)
            )
                .prop_map(|(game, lane, payload)| Frame::Data {
                    game: GameId::new(game).unwrap(),
                    lane: Lane::ALL[lane],
                    payload: payload.into(),
                }),
            any::<u64>().prop_map(Frame::Ping),
            any::<u64>().prop_map(Frame::Pong),
            any::<u32>().prop_map(|number| Frame::Bye(Bye::from_number(number))),
        ]
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_bytes_are_cut(
            frames in prop::collection::vec(any_frame(), 1..6),
            cut in 1_usize..50_000,
        ) {
            let mut bytes = BytesMut::new();
            for frame in &frames {
                frame.clone().encode(&mut bytes);
            }
            let mut decoder = decoder();
            let mut seen = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.space().extend_from_slice(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            framed in any::<bool>(),
        ) {
            let mut decoder = decoder();
            if framed {
                decoder.space().put_u32_le(u32::try_from(bytes.len()).unwrap());
            }
            decoder.space().extend_from_slice(&bytes);
            for _ in 0..=bytes.len() {
                if !matches!(decoder.next(), Ok(Some(_))) {
                    break;
                }
            }
        }

        #[test]
        fn a_frame_with_one_byte_changed_never_panics(
            frame in any_frame(),
            at in any::<prop::sample::Index>(),
            to in any::<u8>(),
        ) {
            let mut bytes = bytes_of(frame);
            let at = at.index(bytes.len());
            bytes[at] = to;
            let mut decoder = decoder();
            decoder.space().extend_from_slice(&bytes);
            let _ = decoder.next();
        }
    }
}
