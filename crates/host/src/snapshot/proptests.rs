//! Snapshots of arbitrary rooms, and arbitrary bytes.

use super::tests::{MAX, empty, encoded, payload_of};
use super::*;
use crate::frame::Frame;
use crate::player::Character;
use crate::services::Standing;
use crate::slots::{Baseline, SlotState};
use cabinet_wire::{FRAME_BYTES, Kind, Status};
use proptest::prelude::*;

fn player() -> impl Strategy<Value = Player> {
    let text = || "\\PC{0,8}";
    let character = (text(), any::<[u8; 3]>(), any::<[u8; 3]>(), any::<u8>());
    (text(), text(), text(), any::<bool>(), character).prop_map(
        |(account, handle, conn, member, c)| Player {
            account,
            handle,
            conn,
            kind: if member { Kind::Member } else { Kind::Guest },
            character: Character {
                glyph: c.0,
                ink: c.1,
                bg: c.2,
                ascii_fallback: c.3,
            },
        },
    )
}

fn baseline() -> impl Strategy<Value = Baseline> {
    let cells = prop::collection::vec((0usize..FRAME_BYTES, any::<u8>()), 0..6);
    prop_oneof![
        Just(Baseline::Never),
        Just(Baseline::Lost),
        cells.prop_map(|cells| {
            let mut bytes = Box::new([0; FRAME_BYTES]);
            for (at, byte) in cells {
                bytes[at] = byte;
            }
            Baseline::Frame(Frame::from_bytes(&bytes))
        }),
    ]
}

fn slots_state() -> impl Strategy<Value = SlotsState> {
    let slot =
        || (any::<u32>(), baseline()).prop_map(|(epoch, baseline)| SlotState { epoch, baseline });
    let listed = prop::collection::btree_map(0u16..1024, slot(), 0..5);
    (any::<u32>(), any::<u32>(), slot(), listed).prop_map(
        |(epoch_seq, unlisted_epoch, broadcast, listed)| SlotsState {
            epoch_seq,
            unlisted_epoch,
            broadcast,
            slots: listed
                .into_iter()
                .filter(|(_, s)| s.baseline != Baseline::Never || s.epoch != unlisted_epoch)
                .collect(),
        },
    )
}

fn global() -> impl Strategy<Value = GlobalValue> {
    prop_oneof![
        any::<u32>().prop_map(GlobalValue::I32),
        any::<u64>().prop_map(GlobalValue::I64),
        any::<u32>().prop_map(GlobalValue::F32),
        any::<u64>().prop_map(GlobalValue::F64),
        any::<u128>().prop_map(GlobalValue::V128),
        prop::option::of(0..u32::MAX).prop_map(GlobalValue::FuncRef),
    ]
}

prop_compose! {
    fn result()(
        mode in prop::sample::select(Mode::ALL),
        round_seq: u32,
        standings in prop::collection::vec(
            (player(), any::<i64>(), any::<u16>(), prop::option::of(prop::sample::select(Status::ALL)))
                .prop_map(|(player, metric, rank, status)| Standing { player, metric, rank, status }),
            0..3,
        ),
    ) -> RoomResult {
        RoomResult { mode, standings, round_seq }
    }
}

prop_compose! {
    fn memory()(
        wasm_pages in 0usize..4,
        writes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..10),
    ) -> MemoryImage {
        let mut memory = vec![0; wasm_pages * 65_536];
        for (at, byte) in writes {
            if !memory.is_empty() {
                let at = at.index(memory.len());
                memory[at] = byte;
            }
        }
        MemoryImage::capture(&memory).expect("whole pages")
    }
}

prop_compose! {
    fn snapshot()(
        artifact: [u8; 32],
        flags: [bool; 9],
        numbers: [u32; 9],
        long: (i64, i64, u64, u64, u8),
        mode in prop::sample::select(Mode::ALL),
        overrides: [Option<u64>; 2],
        member_section: Option<Vec<u8>>,
        members in prop::collection::vec(player(), 0..3),
        last_roster in prop::collection::vec(player(), 0..3),
        result in prop::option::of(result()),
        slots in slots_state(),
        globals in prop::collection::vec(global(), 0..8),
        tables in prop::collection::vec(prop::collection::vec(prop::option::of(0..u32::MAX), 0..5), 0..3),
        memory in memory(),
    ) -> Snapshot {
        Snapshot {
            artifact: ArtifactDigest(artifact),
            abi_major: numbers[0],
            rules: [numbers[1] as u8; 32],
            canonical_nans: flags[0],
            seed_set: flags[1],
            initialised: flags[2],
            closed: flags[3],
            ended: flags[4],
            dead: flags[5],
            settled: flags[6],
            force_full: flags[7],
            input_context: long.4,
            now: long.0,
            seed: long.1,
            entropy_consumed: long.2,
            post_seq: numbers[2],
            roster_epoch: numbers[3],
            last_full_epoch: numbers[4],
            config: ConfigState {
                mode,
                capacity: numbers[5],
                min_players: numbers[6],
                resident: flags[8],
                deadline_ns: overrides[0],
                heartbeat_ns: overrides[1],
            },
            kernel_grown_pages: numbers[7],
            kernel_memory_pages: numbers[8],
            fuel_used: long.3,
            member_section,
            members,
            last_roster,
            result,
            slots,
            globals,
            tables,
            memory,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_state_survives_and_its_bytes_are_its_own(state in snapshot()) {
        let bytes = state.encode(1).expect("within limits");
        let decoded = Snapshot::decode(&bytes, MAX).expect("our own bytes");
        prop_assert_eq!(&decoded, &state);
        prop_assert_eq!(decoded.encode(1).expect("within limits"), bytes);
    }

    #[test]
    fn a_changed_payload_is_refused_or_is_the_only_encoding_of_what_it_decodes_to(
        state in snapshot(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut payload = payload_of(&state);
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        let bytes = encoded(&payload);
        if let Ok(decoded) = Snapshot::decode(&bytes, MAX) {
            prop_assert_eq!(decoded.encode(1).expect("within limits"), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        at in 0usize..400,
    ) {
        prop_assert!(Snapshot::decode(&bytes, MAX).is_err());
        prop_assert!(Snapshot::decode(&encoded(&bytes), MAX).is_err());
        let mut payload = payload_of(&empty());
        let at = at.min(payload.len());
        payload.splice(at.., bytes);
        _ = Snapshot::decode(&encoded(&payload), MAX);
    }
}
