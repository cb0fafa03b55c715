//! Frames between machines: a u32 length and a prost message.
//!
//! Invariants
//! - a length is compared with the limit before anything is reserved for it;
//! - a [`Frame`] holds checked names and a known lane and kind: what is none of that is a
//!   [`FrameError`];
//! - frames of one game and lane that leave together share one header, at most [`PACKED_MAX`] of
//!   them, so that a burst of small ones costs each end one look at it;
//! - bytes that arrive before a Hello are held to [`HELLO_BYTES_MAX`].
//!
//! The bytes are in `docs/FORMATS.md`, "Frames between machines". No I/O here.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint,
    encoded_len_varint, key_len, skip_field,
};
use prost::{DecodeError, Message};

use super::arbiter::Kind;
use crate::fabric::{FRAME_BYTES_MAX, Lane};
use crate::hidden::Hidden;
use crate::ids::{GameId, PeerId};

/// The version this code speaks, in its Hello.
pub(super) const VERSION: u32 = 2;
/// Longest frame before a connection has said Hello, in bytes without the length.
pub(super) const HELLO_BYTES_MAX: usize = 512;
/// Longest frame afterwards: the largest payload, and a game's longest name with the tags.
pub(super) const WIRE_BYTES_MAX: usize = FRAME_BYTES_MAX + 512;
/// Bytes of the length before each frame.
pub(super) const LENGTH_BYTES: usize = 4;
/// Bytes read at once when no long frame is under way.
const READ_BYTES: usize = 64 << 10;
/// Most payloads in one frame.
pub(super) const PACKED_MAX: usize = 64;
/// Payloads that leave together share a frame while they have no more bytes than this.
pub(super) const PACKED_BYTES_MAX: usize = 64 << 10;
/// A shorter payload is copied, so that it does not keep [`READ_BYTES`] alive in a queue.
const SHARED_BYTES_MIN: usize = 16 << 10;

/// What is in an envelope beside data, which is read and written by hand: see [`encode_data`].
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(oneof = "Body", tags = "1, 3, 4, 5")]
    body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Body {
    #[prost(message, tag = "1")]
    Hello(HelloBody),
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

/// Tags of data.
mod data {
    /// The field of the envelope that it is.
    pub(super) const TAG: u32 = 2;
    /// That field's key: its tag, and that a length follows.
    pub(super) const KEY: u8 = 2 << 3 | 2;
    pub(super) const GAME: u32 = 1;
    pub(super) const LANE: u32 = 2;
    pub(super) const PAYLOAD: u32 = 3;
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
        payloads: Vec<Bytes>,
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
                payloads,
            } => {
                let hidden: Vec<_> = payloads.iter().map(|p| Hidden(p.len())).collect();
                f.debug_struct("Data")
                    .field("game", game)
                    .field("lane", lane)
                    .field("payloads", &hidden)
                    .finish()
            }
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
                payloads,
            } => return encode_data(&game, lane, payloads.iter(), to),
            Self::Ping(number) => Body::Ping(number),
            Self::Pong(number) => Body::Pong(number),
            Self::Bye(bye) => Body::Bye(bye.number()),
        };
        let envelope = Envelope { body: Some(body) };
        put_length(envelope.encoded_len(), to);
        envelope.encode_raw(to);
    }

    fn parse(bytes: Bytes) -> Result<Self, FrameError> {
        if bytes.first() == Some(&data::KEY) {
            return decode_data(bytes);
        }
        let envelope = Envelope::decode(bytes).map_err(undecodable)?;
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
            Body::Ping(number) => Ok(Self::Ping(number)),
            Body::Pong(number) => Ok(Self::Pong(number)),
            Body::Bye(number) => Ok(Self::Bye(Bye::from_number(number))),
        }
    }
}

/// Appends length and frame of a game's payloads on one lane. By hand, with prost's own fields: many
/// small ones go through here, and neither end copies them or allocates for their header.
pub(super) fn encode_data<'a>(
    game: &GameId,
    lane: Lane,
    payloads: impl ExactSizeIterator<Item = &'a Bytes> + Clone,
    to: &mut BytesMut,
) {
    debug_assert!(payloads.len() <= PACKED_MAX, "senders count");
    let name = game.as_str().as_bytes();
    let lane = u64::from(lane.number());
    let sized = |tag, len: usize| key_len(tag) + encoded_len_varint(len as u64) + len;
    let len = sized(data::GAME, name.len())
        + key_len(data::LANE)
        + encoded_len_varint(lane)
        + payloads
            .clone()
            .map(|p| sized(data::PAYLOAD, p.len()))
            .sum::<usize>();
    put_length(sized(data::TAG, len), to);
    let put_key = |tag, len: usize, to: &mut BytesMut| {
        encode_key(tag, WireType::LengthDelimited, to);
        encode_varint(len as u64, to);
    };
    put_key(data::TAG, len, to);
    put_key(data::GAME, name.len(), to);
    to.put_slice(name);
    encode_key(data::LANE, WireType::Varint, to);
    encode_varint(lane, to);
    for payload in payloads {
        put_key(data::PAYLOAD, payload.len(), to);
        to.put_slice(payload);
    }
}

fn put_length(len: usize, to: &mut BytesMut) {
    debug_assert!(len <= WIRE_BYTES_MAX, "senders check their payload");
    to.reserve(LENGTH_BYTES + len);
    to.put_u32_le(u32::try_from(len).unwrap_or(u32::MAX));
}

/// An envelope that holds data and nothing else.
fn decode_data(mut from: Bytes) -> Result<Frame, FrameError> {
    decode_key(&mut from).map_err(undecodable)?;
    let mut fields = sized(&mut from)?;
    if !from.is_empty() {
        return Err(FrameError::Malformed("data beside something else"));
    }
    let (mut game, mut lane, mut payloads) = (None, None, Vec::new());
    while !fields.is_empty() {
        match decode_key(&mut fields).map_err(undecodable)? {
            (data::GAME, WireType::LengthDelimited) => {
                let name = sized(&mut fields)?;
                let name = std::str::from_utf8(&name).ok();
                game = name.and_then(|name| GameId::new(name).ok());
            }
            (data::LANE, WireType::Varint) => {
                let number = decode_varint(&mut fields).map_err(undecodable)?;
                lane = u8::try_from(number).ok().and_then(Lane::from_number);
            }
            (data::PAYLOAD, WireType::LengthDelimited) => {
                let payload = sized(&mut fields)?;
                let len = payload.len();
                if len > FRAME_BYTES_MAX {
                    let max = FRAME_BYTES_MAX;
                    return Err(FrameError::Oversize { len, max });
                }
                if payloads.len() >= PACKED_MAX {
                    return Err(FrameError::Malformed("too many payloads"));
                }
                payloads.push(match len < SHARED_BYTES_MIN {
                    true => Bytes::copy_from_slice(&payload),
                    false => payload,
                });
            }
            (tag, wire) => {
                skip_field(wire, tag, &mut fields, DecodeContext::default()).map_err(undecodable)?
            }
        }
    }
    Ok(Frame::Data {
        game: game.ok_or(FrameError::Malformed("a game id that is none"))?,
        lane: lane.ok_or(FrameError::Malformed("an unknown lane"))?,
        payloads,
    })
}

/// The bytes of a field that begins with its length.
fn sized(from: &mut Bytes) -> Result<Bytes, FrameError> {
    let len = decode_varint(from).map_err(undecodable)?;
    match usize::try_from(len) {
        Ok(len) if len <= from.len() => Ok(from.split_to(len)),
        _ => Err(FrameError::Malformed("a field longer than its frame")),
    }
}

fn undecodable(_: DecodeError) -> FrameError {
    FrameError::Malformed("not a message of ours")
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
            payloads: vec![vec![7; len].into()],
        }
    }

    #[test]
    fn what_a_frame_carries_is_shown_by_its_length() {
        let frame = Frame::Data {
            game: GameId::new("chess").unwrap(),
            lane: Lane::Raft,
            payloads: vec![Bytes::from_static(SECRET)],
        };
        hides_it(&frame);
        let shown = format!("{frame:?}");
        assert!(
            shown.contains("chess") && shown.contains("32 bytes"),
            "{shown}"
        );
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
        // What a prost message of the documented fields makes is what is read here.
        let data = |game: &str, lane| {
            let body = AsDocumented {
                game: game.into(),
                lane,
                payloads: vec![Bytes::new()],
            };
            Frame::parse(Documented { data: Some(body) }.encode_to_vec().into())
        };
        let hello = |version, peer: &str, kind| {
            encode(Body::Hello(HelloBody {
                version,
                peer: peer.into(),
                kind,
                nonce: 1,
            }))
        };
        assert!(data("chess", 3).is_ok() && hello(VERSION, "ann", 2).is_ok());
        for bad in [
            data("chess", 0),
            data("chess", 4),
            data("chess", 257),
            data("", 1),
            data(&"g".repeat(NAME_BYTES_MAX + 1), 1),
            hello(VERSION, "ann", 0),
            hello(VERSION, "ann", 3),
            hello(VERSION, "", 1),
            hello(VERSION, &"p".repeat(PEER_ID_BYTES_MAX + 1), 1),
            Frame::parse(Bytes::new()),
        ] {
            assert!(matches!(bad, Err(FrameError::Malformed(_))), "{bad:?}");
        }
        for other in [1, VERSION + 1] {
            assert_eq!(hello(other, "ann", 1), Err(FrameError::Version(other)));
        }
    }

    /// An envelope with data, as `docs/FORMATS.md` has it.
    #[derive(Clone, PartialEq, Message)]
    struct Documented {
        #[prost(message, optional, tag = "2")]
        data: Option<AsDocumented>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct AsDocumented {
        #[prost(string, tag = "1")]
        game: String,
        #[prost(uint32, tag = "2")]
        lane: u32,
        #[prost(bytes = "bytes", repeated, tag = "3")]
        payloads: Vec<Bytes>,
    }

    #[test]
    fn the_most_payloads_share_a_frame_and_one_more_does_not() {
        let packed = |count| {
            let data = AsDocumented {
                game: "chess".into(),
                lane: 3,
                payloads: vec![Bytes::new(); count],
            };
            Frame::parse(Documented { data: Some(data) }.encode_to_vec().into())
        };
        let Ok(Frame::Data { payloads, .. }) = packed(PACKED_MAX) else {
            panic!("at the limit");
        };
        assert_eq!(payloads.len(), PACKED_MAX);
        let too_many = Err(FrameError::Malformed("too many payloads"));
        assert_eq!(packed(PACKED_MAX + 1), too_many);
        assert!(matches!(packed(0), Ok(Frame::Data { payloads, .. }) if payloads.is_empty()));
    }

    #[test]
    fn data_beside_another_field_or_with_a_length_beyond_its_end_is_refused() {
        let whole = Documented {
            data: Some(AsDocumented {
                game: "chess".into(),
                lane: 1,
                payloads: vec![Bytes::from_static(b"move")],
            }),
        }
        .encode_to_vec();
        assert!(Frame::parse(whole.clone().into()).is_ok());
        let ping = Envelope {
            body: Some(Body::Ping(7)),
        };
        let after = [whole.clone(), ping.encode_to_vec()].concat();
        let before = [ping.encode_to_vec(), whole.clone()].concat();
        // The last payload's length is the byte before its four.
        let mut long = whole.clone();
        long[whole.len() - 5] += 1;
        // A field of a later version inside is passed over.
        let mut later = whole.clone();
        later[1] += 2;
        later.extend([9 << 3, 1]);
        assert_eq!(Frame::parse(later.into()), Frame::parse(whole.into()));
        for bad in [after, long] {
            let parsed = Frame::parse(bad.into());
            assert!(
                matches!(parsed, Err(FrameError::Malformed(_))),
                "{parsed:?}"
            );
        }
        // Data that does not come first is a field nobody knows.
        assert_eq!(Frame::parse(before.into()), Ok(Frame::Ping(7)));
    }

    proptest! {
        #[test]
        fn data_is_encoded_as_prost_encodes_what_is_documented(
            game in "[^\\p{Cc}]{1,60}",
            lane in 0_usize..3,
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..PACKED_MAX),
        ) {
            let payloads: Vec<Bytes> = payloads.into_iter().map(Bytes::from).collect();
            let lane = Lane::ALL[lane];
            let mut ours = BytesMut::new();
            encode_data(&GameId::new(&game).unwrap(), lane, payloads.iter(), &mut ours);
            let data = AsDocumented { game, lane: lane.number().into(), payloads };
            let theirs = Documented { data: Some(data) }.encode_to_vec();
            prop_assert_eq!(ours.get_u32_le() as usize, theirs.len());
            prop_assert_eq!(&ours[..], &theirs[..]);
        }
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
                prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20_000), 0..3)
            )
                .prop_map(|(game, lane, payloads)| Frame::Data {
                    game: GameId::new(game).unwrap(),
                    lane: Lane::ALL[lane],
                    payloads: payloads.into_iter().map(Bytes::from).collect(),
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
