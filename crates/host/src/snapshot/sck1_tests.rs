//! `SCK1` against the reference's own snapshots, and against damage.

use super::*;
use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use std::io::Write;
use std::path::PathBuf;

const MAX: usize = 64 << 20;
/// Members, and bytes of a string: their counts are 16 bits.
const COUNT_MAX: usize = u16::MAX as usize;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn vectors() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/vectors");
    let dir = std::env::var_os("CABINET_VECTORS").map_or(PathBuf::from(beside), PathBuf::from);
    dir.is_dir().then_some(dir)
}

fn small() -> Sck1 {
    Sck1 {
        artifact: ArtifactDigest([7; 32]),
        now: 1_700_000_000_050_000_000,
        seed: 12345,
        entropy_consumed: 32,
        ended: false,
        dead: true,
        input_context: 2,
        mode: b"solo".to_vec(),
        capacity: 1,
        min_players: 1,
        epoch_seq: 1,
        post_seq: 9,
        roster: vec![Sck1Member {
            handle: b"ada".to_vec(),
            account: b"a1".to_vec(),
            conn: b"c1".to_vec(),
            kind: b"member".to_vec(),
        }],
        memory: vec![5; 1000].into(),
    }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    deflate(&mut blob, payload, 1).expect("memory is to be had");
    blob
}

fn decode_payload(payload: &[u8]) -> Result<Sck1, Sck1Error> {
    Sck1::decode(&frame(payload), MAX)
}

#[test]
fn the_header_of_one_member_in_solo_is_the_published_120_bytes() {
    let mut artifact = [0; 32];
    artifact[..4].copy_from_slice(&[0x94, 0x9a, 0x13, 0x13]);
    let snapshot = Sck1 {
        artifact: ArtifactDigest(artifact),
        dead: false,
        input_context: 0,
        post_seq: 0,
        memory: Vec::new().into(),
        ..small()
    };
    let payload = snapshot.payload().expect("small");
    assert_eq!(payload.len(), 120);
    let text = hex(&payload);
    assert!(text.starts_with("314b43530400000002000000949a1313"));
    assert!(text.ends_with(concat!(
        "80f02439fe9c9717393000000000000020000000000000000000000400736f6c6f01000000010000000100000000",
        "00000001000300616461020061310200633106006d656d62657200000000"
    )));
}

#[test]
fn the_references_snapshots_decode_to_what_its_traces_say_and_encode_to_the_same_bytes() {
    let Some(vectors) = vectors() else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED the reference's snapshots: no shared vectors (set CABINET_VECTORS)"
        );
        return;
    };
    for name in ["trace-fixture", "trace-fixture-rs", "trace-fixture-rs-kit"] {
        let blob = std::fs::read(vectors.join(format!("snapshots/{name}.snap"))).expect(name);
        let trace = std::fs::read_to_string(vectors.join(format!("traces/{name}.txt")));
        let trace = trace.expect(name);
        let facts = trace
            .lines()
            .find(|line| line.starts_with("# SNAPSHOT raw_len="));
        let fact = |key: &str| {
            let mut words = facts.expect("a SNAPSHOT line").split_whitespace();
            words
                .find_map(|word| word.strip_prefix(key))
                .expect("a fact")
        };

        let snapshot = Sck1::decode(&blob, MAX).expect(name);
        assert_eq!(snapshot.seed, 42);
        assert_eq!(snapshot.mode, b"private");
        assert_eq!(snapshot.roster.len(), 2);
        assert_eq!(snapshot.roster[1].conn, b"conn-1");
        let memory = snapshot.memory.bytes();
        assert_eq!(memory.len().to_string(), fact("mem_len="));
        assert_eq!(hex(digest(&SHA256, memory).as_ref()), fact("mem_sha256="));

        let payload = snapshot.payload().expect(name);
        assert_eq!(payload.len().to_string(), fact("raw_len="));
        assert_eq!(hex(digest(&SHA256, &payload).as_ref()), fact("raw_sha256="));
        let header = &payload[..payload.len() - memory.len()];
        assert_eq!(hex(header), fact("header_hex="));
        let again = Sck1::decode(&snapshot.encode(3).expect(name), MAX).expect(name);
        assert_eq!(again, snapshot);
    }
}

#[test]
fn every_cut_of_the_payload_is_refused_for_where_it_falls() {
    let payload = small().payload().expect("small");
    let memory_at = payload.len() - 1000;
    for cut in 0..payload.len() {
        let expected = match cut {
            0..4 => Sck1Error::BadMagic,
            4..8 => Sck1Error::Format { found: 0 },
            8..44 => Sck1Error::TruncatedHash,
            _ if cut < memory_at => Sck1Error::Short,
            _ => Sck1Error::TruncatedMemory { want: 1000 },
        };
        assert_eq!(
            decode_payload(&payload[..cut]),
            Err(expected),
            "cut at {cut}"
        );
    }
}

#[test]
fn magic_format_abi_and_artifact_each_have_their_refusal() {
    let payload = small().payload().expect("small");
    let changed = |at: usize| {
        let mut payload = payload.clone();
        payload[at] ^= 1;
        decode_payload(&payload)
    };
    assert_eq!(changed(0), Err(Sck1Error::BadMagic));
    assert_eq!(changed(4), Err(Sck1Error::Format { found: 5 }));
    assert_eq!(changed(8), Err(Sck1Error::AbiMajor { found: 3 }));
    let other = changed(12).expect("another artifact decodes");
    let game = small().artifact;
    assert_eq!(
        other.check_artifact(game),
        Err(Sck1Error::ArtifactMismatch {
            blob: other.artifact,
            game
        })
    );
    assert_eq!(other.check_artifact(other.artifact), Ok(()));
}

#[test]
fn bytes_after_the_memory_are_ignored_and_flags_are_true_only_at_1() {
    let mut payload = small().payload().expect("small");
    payload.extend(b"trailing");
    assert_eq!(decode_payload(&payload), Ok(small()));
    for (flag, ended, dead) in [(1, true, true), (2, false, false)] {
        payload[68..70].fill(flag);
        let read = decode_payload(&payload).expect("valid");
        assert_eq!((read.ended, read.dead), (ended, dead));
    }
}

#[test]
fn what_is_not_a_zstd_frame_is_refused_as_such() {
    assert_eq!(
        Sck1::decode(b"SCK1 but plain", MAX),
        Err(Sck1Error::Decompress)
    );
    let blob = small().encode(1).expect("small");
    assert_eq!(
        Sck1::decode(&blob[..blob.len() - 1], MAX),
        Err(Sck1Error::Decompress)
    );
    let mut damaged = blob.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert_eq!(
        Sck1::decode(&damaged, MAX),
        Err(Sck1Error::Decompress),
        "checksum"
    );
    // As at the reference, nothing decodes to nothing.
    assert_eq!(Sck1::decode(b"", MAX), Err(Sck1Error::BadMagic));
}

#[test]
fn a_payload_at_the_bound_is_read_and_one_byte_more_is_not() {
    let payload = small().payload().expect("small");
    let (with_size, streamed) = (frame(&payload), zstd::stream::encode_all(&payload[..], 1));
    for blob in [with_size, streamed.expect("memory is to be had")] {
        assert_eq!(Sck1::decode(&blob, payload.len()), Ok(small()));
        assert_eq!(
            Sck1::decode(&blob, payload.len() - 1),
            Err(Sck1Error::TooLarge {
                max: payload.len() as u64 - 1
            })
        );
    }
}

#[test]
fn a_payload_in_several_frames_is_read_as_the_reference_reads_it() {
    let payload = small().payload().expect("small");
    let (a, b) = payload.split_at(500);
    let blob = [frame(a), frame(b), frame(&[])].concat();
    assert_eq!(Sck1::decode(&blob, MAX), Ok(small()));
}

#[test]
fn a_small_blob_with_a_huge_payload_is_refused_by_what_it_announces() {
    let bomb = frame(&vec![0; 64 << 20]);
    assert!(bomb.len() < 10_000);
    let mut decoder = Sck1Decoder::new();
    let max = 1 << 20;
    assert_eq!(
        decoder.decode(&bomb, max),
        Err(Sck1Error::TooLarge { max: max as u64 })
    );
}

#[test]
fn counts_of_16_bits_are_written_and_one_more_is_refused() {
    let long = |n: usize| Sck1 {
        mode: vec![b'x'; n],
        ..small()
    };
    let crowd = |n: usize| Sck1 {
        roster: vec![Sck1Member::default(); n],
        ..small()
    };
    for state in [long(COUNT_MAX), crowd(COUNT_MAX)] {
        assert_eq!(
            decode_payload(&state.payload().expect("at the limit")),
            Ok(state)
        );
    }
    assert_eq!(
        long(COUNT_MAX + 1).payload(),
        Err(Sck1Error::Limit {
            what: "bytes of text"
        })
    );
    assert_eq!(
        crowd(COUNT_MAX + 1).payload(),
        Err(Sck1Error::Limit { what: "members" })
    );
}

#[test]
fn a_recycled_buffer_is_used_again() {
    let blob = small().encode(1).expect("small");
    let mut decoder = Sck1Decoder::new();
    let first = decoder.decode(&blob, MAX).expect("valid");
    let address = first.memory.payload.as_ptr();
    decoder.recycle(first);
    let second = decoder.decode(&blob, MAX).expect("valid");
    assert_eq!(second.memory.payload.as_ptr(), address);
    assert_eq!(second, small());
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..12)
}

prop_compose! {
    fn member()(handle in text(), account in text(), conn in text(), kind in text()) -> Sck1Member {
        Sck1Member { handle, account, conn, kind }
    }
}

prop_compose! {
    fn snapshot()(
        artifact: [u8; 32],
        numbers: [i64; 3],
        flags: (bool, bool, u8),
        mode in text(),
        more: [u32; 4],
        roster in prop::collection::vec(member(), 0..4),
        memory in prop::collection::vec(any::<u8>(), 0..300),
    ) -> Sck1 {
        Sck1 {
            artifact: ArtifactDigest(artifact),
            now: numbers[0],
            seed: numbers[1],
            entropy_consumed: numbers[2],
            ended: flags.0,
            dead: flags.1,
            input_context: flags.2,
            mode,
            capacity: more[0],
            min_players: more[1],
            epoch_seq: more[2],
            post_seq: more[3],
            roster,
            memory: memory.into(),
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(state in snapshot()) {
        prop_assert_eq!(Sck1::decode(&state.encode(1).expect("small"), MAX), Ok(state));
    }

    #[test]
    fn any_change_to_a_payload_is_refused_or_read_without_panic(
        state in snapshot(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut payload = state.payload().expect("small");
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        if let Ok(read) = decode_payload(&payload) {
            // Only flags above 1 and bytes after the memory are not kept.
            prop_assert!(read.payload().expect("small").len() <= payload.len());
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Sck1::decode(&bytes, 1 << 20).is_err());
        _ = decode_payload(&bytes);
    }
}
