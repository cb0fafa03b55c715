//! Snapshots: round trips, limits, and bytes that nobody should trust.

use super::image::PAGE_BYTES;
use super::reader::deflate;
use super::*;
use crate::frame::Frame;
use crate::player::Character;
use crate::services::Standing;
use crate::slots::{Baseline, SlotState, Slots};
use cabinet_wire::{FRAME_BYTES, Status};

pub(super) const MAX: usize = 256 << 20;

pub(super) fn empty() -> Snapshot {
    Snapshot {
        artifact: ArtifactDigest([0; 32]),
        abi_major: 2,
        rules: [1; 32],
        canonical_nans: true,
        seed_set: false,
        initialised: false,
        closed: false,
        ended: false,
        dead: false,
        settled: false,
        force_full: true,
        input_context: 0,
        now: 0,
        seed: 0,
        entropy_consumed: 0,
        post_seq: 0,
        roster_epoch: 0,
        last_full_epoch: 0,
        config: ConfigState {
            mode: Mode::Quick,
            capacity: 0,
            min_players: 0,
            resident: false,
            deadline_ns: None,
            heartbeat_ns: None,
        },
        kernel_grown_pages: 0,
        kernel_memory_pages: 16,
        fuel_used: 0,
        member_section: None,
        members: Vec::new(),
        last_roster: Vec::new(),
        result: None,
        slots: SlotsState::default(),
        globals: Vec::new(),
        tables: Vec::new(),
        memory: MemoryImage::capture(&[]).expect("no pages"),
    }
}

/// A room of 30 wasm pages, of which some 4 KiB pages are in use, with two players drawn for.
fn lived_in() -> Snapshot {
    let mut memory = vec![0; 30 * 65_536];
    for page in (0..480).filter(|page| page % 9 < 3) {
        for (i, byte) in memory[page * PAGE_BYTES..][..PAGE_BYTES]
            .iter_mut()
            .enumerate()
        {
            *byte = ((i * 7) ^ (i >> 3) ^ page) as u8;
        }
    }
    let mut baselines = Slots::new();
    for (slot, fill) in [(0, 1), (1, 1), (5, 2)] {
        let mut container = vec![1, 0, 0, 0, 0, 1, 0, 24, 80, 0, 0, 0x80, 7];
        container.extend([fill; FRAME_BYTES]);
        assert!(baselines.apply(slot, &container).frame.is_some());
    }
    let ada = Player::member("a1", "ada", "c1").with_character(Character {
        glyph: "λ".into(),
        ink: [1, 2, 3],
        bg: [4, 5, 6],
        ascii_fallback: b'l',
    });
    let bob = Player::guest("bob", "c2");
    Snapshot {
        member_section: Some(b"two members".to_vec()),
        members: vec![ada.clone()],
        last_roster: vec![ada.clone(), bob.clone()],
        result: Some(RoomResult {
            mode: Mode::Solo,
            round_seq: 3,
            standings: [(ada, Some(Status::Finished)), (bob, None)]
                .map(|(player, status)| Standing {
                    player,
                    metric: -5,
                    rank: 1,
                    status,
                })
                .into(),
        }),
        slots: baselines.export(),
        globals: vec![
            GlobalValue::I32(u32::MAX),
            GlobalValue::I64(u64::MAX),
            GlobalValue::F32(0x7fc0_0001),
            GlobalValue::F64(0xfff8_0000_0000_0001),
            GlobalValue::V128(u128::MAX - 1),
            GlobalValue::FuncRef(None),
            GlobalValue::FuncRef(Some(0)),
            GlobalValue::FuncRef(Some(u32::MAX - 1)),
        ],
        tables: vec![vec![], vec![None, Some(0), Some(7)]],
        memory: MemoryImage::capture(&memory).expect("whole pages"),
        ..empty()
    }
}

pub(super) fn payload_of(snapshot: &Snapshot) -> Vec<u8> {
    let bytes = snapshot.encode(1).expect("within limits");
    zstd::stream::decode_all(&bytes[HEADER_BYTES..]).expect("a zstd frame")
}

pub(super) fn encoded(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::from(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend((payload.len() as u64).to_le_bytes());
    deflate(&mut out, payload, 1).expect("memory is to be had");
    out
}

#[test]
fn a_snapshot_decodes_to_the_state_it_was_made_of() {
    for snapshot in [empty(), lived_in()] {
        let bytes = snapshot.encode(1).expect("within limits");
        let decoded = Snapshot::decode(&bytes, MAX).expect("our own bytes");
        assert_eq!(decoded, snapshot);
        assert_eq!(decoded.encode(1).expect("within limits"), bytes);
    }
}

#[test]
fn the_same_state_has_the_same_bytes_however_the_room_came_to_it() {
    let mut live = Slots::new();
    let mut keyframe = vec![1, 0, 0, 0, 0, 1, 0, 24, 80, 0, 0, 0x80, 7];
    keyframe.extend([9; FRAME_BYTES]);
    live.apply(0, &keyframe);
    live.identical(&keyframe);
    live.bump_broadcast();
    let restored = Slots::import(&live.export());
    // The one draws over what it already shared with the broadcast, the other over a copy.
    let mut rooms = [live, restored];
    for slots in &mut rooms {
        slots.apply(0, &keyframe);
        slots.apply(2, &keyframe);
    }
    let [a, b] = rooms.map(|slots| {
        let snapshot = Snapshot {
            slots: slots.export(),
            ..empty()
        };
        snapshot.encode(1).expect("within limits")
    });
    assert_eq!(a, b);
}

#[test]
fn equal_rows_are_stored_once() {
    let payload = payload_of(&lived_in());
    let bare = payload_of(&Snapshot {
        slots: SlotsState::default(),
        ..lived_in()
    });
    // Three frames of one row each repeated 24 times, two of them alike.
    let slots = 3 * (2 + 4 + 1 + 48);
    assert_eq!(payload.len() - bare.len(), 2 * 1_920 + slots);
}

#[test]
fn the_memory_is_written_back_over_whatever_was_there() {
    let snapshot = lived_in();
    let decoded = Snapshot::decode(&snapshot.encode(1).expect("within limits"), MAX);
    let image = decoded.expect("our own bytes").memory;
    let mut memory = vec![0xEE; 30 * 65_536];
    assert!(image.write_to(&mut memory));
    assert_eq!(
        MemoryImage::capture(&memory).expect("whole pages"),
        snapshot.memory
    );
    assert!(!image.write_to(&mut memory[..65_536]));
}

#[test]
fn only_whole_pages_are_a_memory() {
    for len in [1, 4_096, 65_535, 65_537] {
        assert!(MemoryImage::capture(&vec![0; len]).is_err(), "{len}");
    }
    let mut last_byte = vec![0; 65_536];
    last_byte[65_535] = 1;
    let image = MemoryImage::capture(&last_byte).expect("one page");
    let offsets: Vec<_> = image.pages().map(|page| page.0).collect();
    assert_eq!(offsets, [61_440]);
}

#[test]
fn a_length_above_the_callers_is_refused_before_anything_is_allocated() {
    let snapshot = lived_in();
    let bytes = snapshot.encode(1).expect("within limits");
    let length = payload_of(&snapshot).len();
    assert_eq!(Snapshot::decode(&bytes, length), Ok(snapshot));
    let refused = SnapshotError::TooLarge {
        bytes: length as u64,
        max: length as u64 - 1,
    };
    assert_eq!(Snapshot::decode(&bytes, length - 1), Err(refused));

    let mut lying = bytes.clone();
    lying[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(
        Snapshot::decode(&lying, MAX),
        Err(SnapshotError::TooLarge {
            bytes: u64::MAX,
            ..
        })
    ));
    for wrong in [length - 1, length + 1] {
        lying[8..16].copy_from_slice(&(wrong as u64).to_le_bytes());
        assert_eq!(
            Snapshot::decode(&lying, MAX),
            Err(SnapshotError::Damaged("compressed frame"))
        );
    }
}

#[test]
fn other_magic_and_other_versions_are_told_apart_from_damage() {
    let bytes = empty().encode(1).expect("within limits");
    assert_eq!(Snapshot::decode(b"", MAX), Err(SnapshotError::NotASnapshot));
    let mut other = bytes.clone();
    other[0] ^= 1;
    assert_eq!(
        Snapshot::decode(&other, MAX),
        Err(SnapshotError::NotASnapshot)
    );
    let mut newer = bytes;
    newer[4] = 2;
    assert_eq!(
        Snapshot::decode(&newer, MAX),
        Err(SnapshotError::Version { found: 2 })
    );
}

#[test]
fn one_flipped_byte_or_a_cut_anywhere_never_gives_another_state() {
    let snapshot = lived_in();
    let bytes = snapshot.encode(1).expect("within limits");
    for at in (0..bytes.len()).step_by(bytes.len() / 300 + 1).chain(0..40) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        // A few bits of a compressed frame mean nothing.
        if let Ok(decoded) = Snapshot::decode(&flipped, MAX) {
            assert!(decoded == snapshot, "byte {at} flipped");
        }
        assert!(Snapshot::decode(&bytes[..at], MAX).is_err(), "cut at {at}");
    }
    let mut nothing_more = Vec::new();
    deflate(&mut nothing_more, b"", 1).expect("memory is to be had");
    for more in [vec![0], nothing_more] {
        let longer = [bytes.clone(), more].concat();
        assert!(Snapshot::decode(&longer, MAX).is_err());
    }
}

#[test]
fn a_frame_without_a_checksum_is_refused() {
    let payload = payload_of(&empty());
    let mut bytes = Vec::from(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((payload.len() as u64).to_le_bytes());
    bytes.extend(zstd::bulk::compress(&payload, 1).expect("memory is to be had"));
    assert_eq!(
        Snapshot::decode(&bytes, MAX),
        Err(SnapshotError::Damaged("compressed frame"))
    );
}

#[test]
fn bytes_after_the_payload_or_missing_from_it_are_refused() {
    for snapshot in [empty(), lived_in()] {
        let mut payload = payload_of(&snapshot);
        assert!(Snapshot::decode(&encoded(&payload), MAX).is_ok());
        for cut in (0..payload.len()).step_by(payload.len() / 500 + 1) {
            assert!(
                Snapshot::decode(&encoded(&payload[..cut]), MAX).is_err(),
                "cut at {cut}"
            );
        }
        payload.push(1);
        assert!(Snapshot::decode(&encoded(&payload), MAX).is_err());
    }
}

fn refused_limit(snapshot: &Snapshot, limited: &str) {
    match snapshot.encode(1) {
        Err(SnapshotError::Limit { what, found, max }) => {
            assert_eq!((what, found), (limited, max + 1));
        }
        other => panic!("{limited}: {:?}", other.map(|bytes| bytes.len())),
    }
}

fn kept(snapshot: &Snapshot) {
    let bytes = snapshot.encode(1).expect("at the limit");
    assert!(Snapshot::decode(&bytes, MAX).expect("at the limit") == *snapshot);
}

#[test]
fn every_limit_is_kept_when_reached_and_refused_when_passed() {
    let nobody = || Player::guest("", "");
    type Fill = fn(&mut Snapshot, usize);
    let cases: [(&str, usize, Fill); 7] = [
        ("players", limits::PLAYERS.max, |s, n| {
            s.members = vec![Player::guest("", ""); n]
        }),
        ("players", limits::PLAYERS.max, |s, n| {
            s.last_roster = vec![Player::guest("", ""); n]
        }),
        ("bytes of text", limits::TEXT.max, |s, n| {
            s.members = vec![Player::guest("x".repeat(n), "")];
        }),
        (
            "bytes of member section",
            limits::MEMBER_SECTION.max,
            |s, n| {
                s.member_section = Some(vec![0; n]);
            },
        ),
        ("globals", limits::GLOBALS.max, |s, n| {
            s.globals = vec![GlobalValue::I32(1); n]
        }),
        ("tables", limits::TABLES.max, |s, n| {
            s.tables = vec![vec![]; n]
        }),
        ("table elements", limits::TABLE_ELEMENTS.max, |s, n| {
            s.tables = vec![vec![None; n]]
        }),
    ];
    for (limited, max, fill) in cases {
        let mut snapshot = empty();
        fill(&mut snapshot, max);
        kept(&snapshot);
        fill(&mut snapshot, max + 1);
        refused_limit(&snapshot, limited);
    }

    let standing = Standing {
        player: nobody(),
        metric: 0,
        rank: 0,
        status: Some(Status::Dnf),
    };
    let slot = |index| {
        let baseline = Baseline::Lost;
        (index, SlotState { epoch: 1, baseline })
    };
    for (over, limited) in [(false, ""), (true, "standings")] {
        let standings = vec![standing.clone(); limits::STANDINGS.max + usize::from(over)];
        let result = RoomResult {
            mode: Mode::Quick,
            standings,
            round_seq: 0,
        };
        let snapshot = Snapshot {
            result: Some(result),
            ..empty()
        };
        if over {
            refused_limit(&snapshot, limited)
        } else {
            kept(&snapshot)
        }
    }
    for (over, limited) in [(false, ""), (true, "slots")] {
        let mut snapshot = empty();
        snapshot.slots.slots = (0..limits::SLOTS.max as u16 + u16::from(over))
            .map(slot)
            .collect();
        if over {
            refused_limit(&snapshot, limited)
        } else {
            kept(&snapshot)
        }
    }
    let mut snapshot = empty();
    snapshot.tables = vec![vec![Some(u32::MAX)]];
    assert!(matches!(
        snapshot.encode(1),
        Err(SnapshotError::Limit {
            what: "functions",
            ..
        })
    ));
}

#[test]
fn every_slot_with_rows_of_its_own_is_kept() {
    let frame = |n: u16| {
        let mut bytes = Box::new([0; FRAME_BYTES]);
        for (row, cells) in bytes.chunks_exact_mut(1_920).enumerate() {
            cells[..2].copy_from_slice(&n.to_le_bytes());
            cells[2] = row as u8;
        }
        let baseline = Baseline::Frame(Frame::from_bytes(&bytes));
        SlotState { epoch: 3, baseline }
    };
    let mut snapshot = empty();
    snapshot.slots.broadcast = frame(u16::MAX);
    snapshot.slots.slots = (0..slots_max()).map(|n| (n, frame(n))).collect();
    kept(&snapshot);
}

fn slots_max() -> u16 {
    limits::SLOTS.max as u16
}

#[test]
fn counts_that_promise_more_than_there_is_are_refused_by_limit_or_as_cut() {
    let payload = payload_of(&empty());
    // The last fields of an empty room: globals, tables, memory pages, pages in use.
    let end = payload.len();
    let with = |at: usize, count: u32| {
        let mut payload = payload.clone();
        payload[at..at + 4].copy_from_slice(&count.to_le_bytes());
        Snapshot::decode(&encoded(&payload), MAX)
    };
    for (at, max) in [
        (end - 16, limits::GLOBALS.max),
        (end - 12, limits::TABLES.max),
        (end - 8, limits::MEMORY_PAGES.max),
        (end - 4, limits::PAGES.max),
    ] {
        let max = max as u32;
        assert!(
            matches!(with(at, max + 1), Err(SnapshotError::Limit { .. })),
            "field {} from the end",
            end - at
        );
        // At the limit it is the missing elements that are noticed.
        let at_limit = with(at, max);
        assert!(!matches!(at_limit, Err(SnapshotError::Limit { .. })));
        assert_eq!(
            at_limit.is_ok(),
            at == end - 8,
            "an all-zero memory needs no pages"
        );
    }
}

#[test]
fn frame_rows_out_of_order_or_alike_or_unused_are_refused() {
    let frame = |fill| SlotState {
        epoch: 0,
        baseline: Baseline::Frame(Frame::from_bytes(&[fill; FRAME_BYTES])),
    };
    let mut snapshot = empty();
    snapshot.slots.broadcast = frame(5);
    snapshot.slots.slots = vec![(0, frame(6))];
    let payload = payload_of(&snapshot);
    let rows = payload.windows(1_920).position(|row| row == [5; 1_920]);
    let second = rows.expect("the first row") + 1_920;
    for (fill, good) in [(4, false), (5, false), (7, true)] {
        let mut payload = payload.clone();
        payload[second..second + 1_920].fill(fill);
        let decoded = Snapshot::decode(&encoded(&payload), MAX);
        assert_eq!(decoded.is_ok(), good, "a second row of {fill}");
    }

    // The numbers of the last slot's rows come before the four empty lists at the end.
    let numbers = payload.len() - 16 - 48..payload.len() - 16;
    for (number, why) in [(0, "unused frame row"), (2, "frame row number")] {
        let mut payload = payload.clone();
        for at in numbers.clone().step_by(2) {
            payload[at] = number;
        }
        let decoded = Snapshot::decode(&encoded(&payload), MAX);
        assert_eq!(decoded, Err(SnapshotError::Damaged(why)));
    }
}

#[test]
fn equal_pages_are_stored_once_and_equal_memories_have_equal_bytes() {
    let mut memory = vec![0; 2 * 65_536];
    for (page, fill) in [(0, 9), (3, 1), (4, 9), (31, 9)] {
        memory[page * PAGE_BYTES..][..PAGE_BYTES].fill(fill);
    }
    let snapshot = Snapshot {
        memory: MemoryImage::capture(&memory).expect("whole pages"),
        ..empty()
    };
    let payload = payload_of(&snapshot);
    assert_eq!(
        payload.len(),
        payload_of(&empty()).len() + 4 * 8 + 2 * PAGE_BYTES
    );
    kept(&snapshot);
}

#[test]
fn pages_that_no_capture_makes_are_refused() {
    let payload = payload_of(&empty());
    let with = |wasm_pages: u32, pages: &[(u32, u32)], contents: &[u8]| {
        let mut payload = payload[..payload.len() - 8].to_vec();
        payload.extend(wasm_pages.to_le_bytes());
        payload.extend((pages.len() as u32).to_le_bytes());
        for page in pages {
            payload.extend(page.0.to_le_bytes());
            payload.extend(page.1.to_le_bytes());
        }
        payload.extend(contents);
        Snapshot::decode(&encoded(&payload), MAX).map(drop)
    };
    let (zero, one, two) = ([0; 4_096], [1; 4_096], [2; 4_096]);
    let both = [one, two].concat();
    assert_eq!(with(1, &[(15, 0)], &one), Ok(()));
    assert_eq!(with(1, &[(0, 1), (2, 0), (3, 1)], &both), Ok(()));
    for (pages, contents) in [
        (&[(16, 0)][..], &one[..]),
        (&[(u32::MAX, 0)], &one),
        (&[(0, 1)], &one),
        (&[(0, u32::MAX)], &one),
        (&[], &one),
        (&[(0, 0)], &[]),
        (&[(0, 0)], &both),
        (&[(0, 0)], &zero),
        (&[(0, 0)], &one[1..]),
        (&[(2, 0), (1, 1)], &both),
        (&[(1, 0), (1, 1)], &both),
        (&[(0, 0), (1, 1)], &[two, one].concat()),
        (&[(0, 0), (1, 1)], &[one, one].concat()),
    ] {
        assert!(with(1, pages, contents).is_err(), "{pages:?}");
    }
}

fn first_page(snapshot: &Snapshot) -> Option<*const u8> {
    snapshot.memory.pages().next().map(|page| page.1.as_ptr())
}

#[test]
fn a_decoder_reads_the_next_snapshot_into_the_memory_of_the_last() {
    let bytes = lived_in().encode(1).expect("within limits");
    let mut decoder = Decoder::new();
    let first = decoder.decode(&bytes, MAX).expect("our own bytes");
    let address = first_page(&first);
    decoder.recycle(first);
    assert!(decoder.decode(b"CABS and nothing", MAX).is_err());
    let second = decoder.decode(&bytes, MAX).expect("our own bytes");
    assert_eq!(first_page(&second), address);
    assert_eq!(second, lived_in());
}

#[test]
fn a_payload_reads_back_and_nothing_else_does() {
    let snapshot = lived_in();
    let payload = snapshot.payload().unwrap();
    assert_eq!(Snapshot::from_payload(payload.clone(), 0), Ok(snapshot));
    for cut in [0, 1, payload.len() / 2, payload.len() - 1] {
        assert!(Snapshot::from_payload(payload[..cut].to_vec(), 0).is_err());
    }
    assert!(Snapshot::from_payload(payload.clone(), payload.len() + 1).is_err());
    let mut longer = vec![9; 77];
    let snapshot = lived_in();
    snapshot.payload_into(&mut longer).unwrap();
    assert_eq!(longer[77..], payload);
    assert_eq!(Snapshot::from_payload(longer.clone(), 77), Ok(snapshot));
    longer.push(0);
    assert!(Snapshot::from_payload(longer, 77).is_err());
}

#[test]
fn a_capture_into_used_memory_holds_what_a_fresh_one_holds() {
    let mut memory = vec![0; 2 * 65_536];
    memory[5] = 1;
    memory[70_000] = 2;
    let fresh = MemoryImage::capture(&memory).unwrap();
    for buffer in [vec![7; 10], vec![7; 8_192], vec![7; 1 << 20]] {
        let address = buffer.as_ptr();
        let room = buffer.capacity();
        let again = MemoryImage::capture_into(&memory, buffer).unwrap();
        assert_eq!(again, fresh);
        let kept = again.into_buffer();
        assert_eq!(kept.len(), 8_192);
        assert!(
            room < 8_192 || kept.as_ptr() == address,
            "a large one is used as it is"
        );
    }
}
