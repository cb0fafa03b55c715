//! The slots against a room that keeps 1,025 grids and does everything at once.

use super::*;
use cabinet_wire::{CELL_BYTES, FRAME_BYTES};
use proptest::prelude::*;

const CELLS: usize = FRAME_BYTES / CELL_BYTES;

/// A container of runs (start, cells, fill byte).
fn container(keyframe: bool, epoch: u32, runs: &[(usize, usize, u8)]) -> Vec<u8> {
    let mut out = vec![u8::from(keyframe)];
    out.extend(epoch.to_le_bytes());
    out.extend((runs.len() as u16).to_le_bytes());
    out.extend([24, 80]);
    for &(start, len, fill) in runs {
        out.extend((start as u16).to_le_bytes());
        out.extend((len as u16).to_le_bytes());
        out.extend(std::iter::repeat_n(fill, len * CELL_BYTES));
    }
    out
}

fn keyframe(epoch: u32, fill: u8) -> Vec<u8> {
    container(true, epoch, &[(0, CELLS, fill)])
}

fn told(applied: &Applied<'_>) -> (u32, bool) {
    (applied.epoch, applied.frame.is_some())
}

fn first_byte(slots: &Slots, slot: usize) -> Option<u8> {
    slots.frame(slot).map(|frame| frame.cell(0, 0)[0])
}

#[test]
fn a_guest_that_draws_stays_at_epoch_0() {
    let mut slots = Slots::new();
    assert_eq!(told(&slots.apply(0, &keyframe(0, 1))), (0, true));
    let delta = container(false, 0, &[(5, 1, 2)]);
    let applied = slots.apply(0, &delta);
    assert_eq!(told(&applied), (0, true));
    let frame = applied.frame.expect("applied");
    assert_eq!((frame.cell(0, 4)[0], frame.cell(0, 5)[0]), (1, 2));
    assert_eq!(slots.epoch_seq(), 0);
}

#[test]
fn a_delta_without_a_baseline_or_of_another_epoch_is_answered_with_a_new_one() {
    let mut slots = Slots::new();
    let delta = |epoch| container(false, epoch, &[(0, 1, 9)]);
    assert_eq!(told(&slots.apply(3, &delta(0))), (1, false));
    assert_eq!(told(&slots.apply(3, &keyframe(1, 1))), (1, true));
    assert_eq!(told(&slots.apply(3, &delta(0))), (2, false));
    assert_eq!(
        told(&slots.apply(3, &delta(2))),
        (3, false),
        "the baseline is gone"
    );
    assert_eq!(first_byte(&slots, 3), None);
}

#[test]
fn a_restored_reference_room_at_epoch_5_answers_its_first_delta_with_8() {
    let mut slots = Slots::new();
    slots.reseed(5);
    slots.invalidate_all();
    let applied = slots.apply(0, &container(false, 0, &[]));
    assert_eq!(told(&applied), (8, false));
}

#[test]
fn a_broadcast_is_the_baseline_of_slots_that_ever_had_one_and_of_no_other() {
    let mut slots = Slots::new();
    slots.apply(0, &keyframe(0, 1));
    assert_eq!(told(&slots.identical(&keyframe(7, 2))), (7, true));
    assert_eq!(first_byte(&slots, 0), Some(2));
    assert_eq!(first_byte(&slots, 1), None);
    assert_eq!(
        told(&slots.apply(0, &container(false, 7, &[(1, 1, 3)]))),
        (7, true)
    );
    assert_eq!(first_byte(&slots, 0), Some(2));
    assert_eq!(slots.frame(0).map(|f| f.cell(0, 1)[0]), Some(3));
    assert_eq!(slots.broadcast_frame().map(|f| f.cell(0, 1)[0]), Some(2));
    assert_eq!(told(&slots.apply(1, &container(false, 7, &[]))), (1, false));
}

#[test]
fn slots_keep_a_broadcast_that_the_broadcast_slot_has_lost() {
    let mut slots = Slots::new();
    slots.apply(0, &keyframe(0, 1));
    slots.identical(&keyframe(0, 2));
    assert!(slots.identical(b"no container").malformed);
    assert_eq!(slots.broadcast_frame(), None);
    assert_eq!(first_byte(&slots, 0), Some(2));
}

#[test]
fn a_partial_keyframe_after_an_invalidation_shows_nothing_of_what_was_there() {
    for lose in [Slots::invalidate_all, |slots: &mut Slots| _ = slots.bump(0)] {
        let mut slots = Slots::new();
        slots.apply(0, &keyframe(0, 1));
        lose(&mut slots);
        slots.apply(0, &container(true, 0, &[(1, 1, 2)]));
        let frame = slots.frame(0).expect("a keyframe was applied");
        assert_eq!((frame.cell(0, 0)[0], frame.cell(0, 1)[0]), (0, 2));
    }
}

#[test]
fn a_keyframe_that_leaves_one_cell_out_leaves_it_undrawn() {
    let mut slots = Slots::new();
    slots.apply(0, &keyframe(0, 1));
    slots.invalidate_all();
    let runs = [
        (0, 1, 2),
        (1, 1, 2),
        (2, 1, 2),
        (3, 1, 2),
        (4, CELLS - 5, 2),
    ];
    let long = container(true, 0, &runs);
    assert!(long.len() > FRAME_BYTES);
    slots.apply(0, &long);
    let frame = slots.frame(0).expect("a keyframe was applied");
    assert_eq!((frame.cell(23, 78)[0], frame.cell(23, 79)[0]), (2, 0));
}

#[test]
fn an_index_without_a_slot_is_answered_0_and_changes_nothing() {
    let mut slots = Slots::new();
    for index in [ROSTER_CAP, usize::MAX] {
        assert_eq!(told(&slots.apply(index, &keyframe(4, 1))), (0, false));
    }
    assert_eq!(slots.export(), Slots::new().export());
    assert_eq!(
        told(&slots.apply(ROSTER_CAP - 1, &keyframe(4, 1))),
        (4, true)
    );
}

#[test]
fn epochs_wrap() {
    let mut slots = Slots::new();
    slots.reseed(u32::MAX);
    assert_eq!(slots.epoch_seq(), 0);
    assert_eq!(slots.bump(BROADCAST_SLOT), 1);
}

#[test]
fn a_slot_drawn_over_a_broadcast_takes_no_new_rows_once_warm() {
    let mut slots = Slots::new();
    let mut addresses = std::collections::BTreeSet::new();
    for wake in 0..20u8 {
        slots.identical(&keyframe(0, wake));
        for slot in 0..3 {
            slots.apply(slot, &container(wake == 0, 0, &[(slot, 1, 77)]));
            let frame = slots.frame(slot).expect("applied");
            if wake >= 10 {
                let rows: Vec<_> = frame.rows().map(|row| row.as_ptr()).collect();
                if wake < 15 {
                    addresses.extend(rows);
                } else {
                    assert!(
                        rows.iter().all(|row| addresses.contains(row)),
                        "wake {wake}"
                    );
                }
            }
        }
    }
}

/// The same rules, applied eagerly to every slot.
struct Model {
    seq: u32,
    slots: Vec<ModelSlot>,
}

#[derive(Clone, Default)]
struct ModelSlot {
    grid: Option<Vec<u8>>,
    epoch: u32,
    has: bool,
}

impl Model {
    fn lose(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.epoch = self.seq;
        slot.has = false;
        if let Some(grid) = &mut slot.grid {
            grid.fill(0);
        }
    }

    fn bump(&mut self, slot: usize) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.lose(slot);
        self.seq
    }

    fn invalidate_all(&mut self) {
        self.seq = self.seq.wrapping_add(1);
        (0..self.slots.len()).for_each(|slot| self.lose(slot));
    }

    fn apply(&mut self, index: usize, bytes: &[u8]) -> (u32, bool) {
        let Ok(checked) = delta::check(bytes) else {
            return (self.bump(index), false);
        };
        let slot = &mut self.slots[index];
        if !checked.is_keyframe() && (!slot.has || slot.epoch != checked.epoch()) {
            return (self.bump(index), false);
        }
        let grid = slot.grid.get_or_insert_with(|| vec![0; FRAME_BYTES]);
        for run in checked.runs() {
            grid[run.start * CELL_BYTES..][..run.cells.len()].copy_from_slice(run.cells);
        }
        if checked.is_keyframe() {
            slot.epoch = checked.epoch();
        }
        slot.has = true;
        let (epoch, grid) = (slot.epoch, grid.clone());
        if index == BROADCAST_SLOT {
            for slot in &mut self.slots[..BROADCAST_SLOT] {
                slot.has = slot.grid.is_some();
                if slot.has {
                    slot.epoch = epoch;
                    slot.grid = Some(grid.clone());
                }
            }
        }
        (epoch, true)
    }
}

#[derive(Debug, Clone)]
enum Op {
    Send(usize, Bytes),
    Bump(usize),
    Invalidate,
    Reseed(u32),
    Reload,
    Hold(usize),
}

#[derive(Debug, Clone)]
enum Bytes {
    Full(u32, u8),
    Partial(u32, usize, u8),
    Delta(u32, usize, u8),
    DeltaAtItsEpoch(usize, u8),
    Malformed,
}

fn op() -> impl Strategy<Value = Op> {
    let slot = prop_oneof![
        0usize..3,
        Just(ROSTER_CAP - 1),
        Just(BROADCAST_SLOT),
        Just(BROADCAST_SLOT)
    ];
    let bytes = prop_oneof![
        2 => (0u32..4, any::<u8>()).prop_map(|(e, f)| Bytes::Full(e, f)),
        1 => (0u32..4, 0usize..1900, any::<u8>()).prop_map(|(e, s, f)| Bytes::Partial(e, s, f)),
        1 => (0u32..9, 0usize..1900, any::<u8>()).prop_map(|(e, s, f)| Bytes::Delta(e, s, f)),
        5 => (0usize..1900, any::<u8>()).prop_map(|(s, f)| Bytes::DeltaAtItsEpoch(s, f)),
        1 => Just(Bytes::Malformed),
    ];
    prop_oneof![
        12 => (slot.clone(), bytes).prop_map(|(s, b)| Op::Send(s, b)),
        1 => slot.clone().prop_map(Op::Bump),
        1 => Just(Op::Invalidate),
        1 => prop_oneof![0u32..20, Just(u32::MAX)].prop_map(Op::Reseed),
        1 => Just(Op::Reload),
        2 => slot.prop_map(Op::Hold),
    ]
}

fn grid(frame: &Frame) -> Vec<u8> {
    frame.rows().flatten().copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_slots_are_told_apart_from_eager_ones_by_nothing(
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut slots = Slots::new();
        let mut model = Model { seq: 0, slots: vec![ModelSlot::default(); ROSTER_CAP + 1] };
        let mut held: Vec<(Frame, Vec<u8>)> = vec![];
        for op in ops {
            match op {
                Op::Send(slot, bytes) => {
                    let bytes = match bytes {
                        Bytes::Full(epoch, fill) => keyframe(epoch, fill),
                        Bytes::Partial(epoch, start, fill) => container(true, epoch, &[(start, 20, fill)]),
                        Bytes::Delta(epoch, start, fill) => container(false, epoch, &[(start, 20, fill)]),
                        Bytes::DeltaAtItsEpoch(start, fill) => {
                            container(false, model.slots[slot].epoch, &[(start, 20, fill)])
                        }
                        Bytes::Malformed => vec![1, 2, 3],
                    };
                    let expected = model.apply(slot, &bytes);
                    let applied = if slot == BROADCAST_SLOT {
                        slots.identical(&bytes)
                    } else {
                        slots.apply(slot, &bytes)
                    };
                    prop_assert_eq!(told(&applied), expected);
                    prop_assert_eq!(applied.malformed, bytes.len() == 3);
                    prop_assert_eq!(applied.frame.map(grid), expected.1.then(|| model.slots[slot].grid.clone()).flatten());
                }
                Op::Bump(slot) => prop_assert_eq!(slots.bump(slot), model.bump(slot)),
                Op::Invalidate => {
                    slots.invalidate_all();
                    model.invalidate_all();
                }
                Op::Reseed(high_water) => {
                    slots.reseed(high_water);
                    model.seq = high_water;
                    model.invalidate_all();
                }
                Op::Reload => {
                    let state = slots.export();
                    let reloaded = Slots::import(&state);
                    prop_assert_eq!(reloaded.export(), state);
                    slots = reloaded;
                }
                Op::Hold(slot) => {
                    if let Some(frame) = slots.frame(slot) {
                        held.push((frame.clone(), grid(frame)));
                    }
                }
            }
            prop_assert_eq!(slots.epoch_seq(), model.seq);
            for index in [0, 1, 2, 3, ROSTER_CAP - 1, BROADCAST_SLOT] {
                let expected = &model.slots[index];
                let (epoch, allocated) = match slots.slots.get(index) {
                    _ if index == BROADCAST_SLOT => (slots.view(&slots.broadcast).epoch, slots.broadcast.frame.is_some()),
                    Some(slot) => (slots.view(slot).epoch, slot.frame.is_some()),
                    None => (slots.invalidated.epoch, false),
                };
                prop_assert_eq!(epoch, expected.epoch, "epoch of slot {}", index);
                prop_assert_eq!(allocated, expected.grid.is_some());
                let frame = slots.frame(index).map(grid);
                prop_assert_eq!(frame, expected.grid.clone().filter(|_| expected.has));
            }
        }
        for (frame, bytes) in held {
            prop_assert_eq!(grid(&frame), bytes, "a held frame changed");
        }
    }
}
