//! The frame container: checking, applying, encoding.

use cabinet_wire::delta::{self, DeltaError, Encoded, Grid};
use cabinet_wire::{CELL_BYTES, DELTA_HEADER_BYTES, FRAME_CELLS, KEYFRAME_BYTES, RUN_HEADER_BYTES};
use proptest::prelude::*;

use super::support::{changed, noise, spaces};

fn run_list(prev: &Grid, next: &Grid) -> Vec<u8> {
    let mut out = Vec::new();
    delta::encode_run_list(prev, next, 0, &mut out);
    out
}

fn applied(base: &Grid, container: &[u8]) -> Box<Grid> {
    let mut grid = delta::zeroed();
    grid.copy_from_slice(base);
    delta::check(container).unwrap().apply_to(&mut grid);
    grid
}

/// A container with this header and these runs, each of cells that repeat one byte.
pub fn container(flags: u8, count: u16, runs: &[(u16, u16, u8)]) -> Vec<u8> {
    let mut bytes = vec![flags, 0, 0, 0, 0];
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&[24, 80]);
    for &(start, len, fill) in runs {
        bytes.extend_from_slice(&start.to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.resize(bytes.len() + usize::from(len) * CELL_BYTES, fill);
    }
    bytes
}

#[test]
fn a_delta_applied_to_what_it_was_made_from_gives_the_next_frame() {
    let mut seed = 1;
    for per_mille in [0, 1, 10, 100, 500, 900, 1000] {
        for _ in 0..30 {
            seed += 1;
            let base = noise(seed);
            let (next, count) = changed(&base, per_mille, seed);
            let mut out = Vec::new();
            assert_eq!(delta::encode_run_list(&base, &next, 5, &mut out), count);
            let container = delta::check(&out).unwrap();
            assert_eq!(container.epoch(), 5);
            let runs = container.run_count();
            let size =
                DELTA_HEADER_BYTES + RUN_HEADER_BYTES * usize::from(runs) + CELL_BYTES * count;
            assert_eq!(out.len(), size);
            assert!(applied(&base, &out) == next);
        }
    }
}

#[test]
fn no_change_is_the_header_alone() {
    let grid = noise(3);
    let mut out = Vec::new();
    let encoded = delta::encode(&grid, &grid, 0x0403_0201, &mut out);
    let expected = Encoded {
        changed_cells: 0,
        keyframe: false,
    };
    assert_eq!(encoded, expected);
    assert_eq!(out, [0, 1, 2, 3, 4, 0, 0, 24, 80]);
    let container = delta::check(&out).unwrap();
    assert!(!container.is_keyframe());
    assert_eq!(container.runs().count(), 0);
    assert!(applied(&grid, &out) == grid);
}

#[test]
fn one_changed_cell_is_one_run_of_37_bytes() {
    let base = spaces();
    let mut next = base.clone();
    next[100 * CELL_BYTES] = b'x';
    let out = run_list(&base, &next);
    assert_eq!(out.len(), 37);
    let container = delta::check(&out).unwrap();
    let run = container.runs().next().unwrap();
    assert_eq!((run.start, run.len(), run.cells[0]), (100, 1, b'x'));
}

#[test]
fn runs_are_never_merged_across_an_unchanged_cell_nor_split() {
    let base = spaces();
    let mut next = base.clone();
    for cell in [0, 1, 3, 79, 80, FRAME_CELLS - 1] {
        next[cell * CELL_BYTES] = b'x';
    }
    let out = run_list(&base, &next);
    let runs: Vec<_> = delta::check(&out)
        .unwrap()
        .runs()
        .map(|run| (run.start, run.len()))
        .collect();
    assert_eq!(runs, [(0, 2), (3, 1), (79, 2), (1919, 1)]);
}

#[test]
fn each_of_a_cells_24_bytes_counts() {
    let base = spaces();
    for byte in 0..CELL_BYTES {
        let mut next = base.clone();
        next[7 * CELL_BYTES + byte] ^= 0x80;
        assert_eq!(
            delta::encode_run_list(&base, &next, 0, &mut Vec::new()),
            1,
            "byte {byte}"
        );
    }
}

#[test]
fn a_keyframe_is_46093_bytes_and_overwrites_any_baseline() {
    let next = noise(4);
    let mut out = vec![0xEE];
    delta::encode_keyframe(&next, 77, &mut out);
    assert_eq!(out.len() - 1, KEYFRAME_BYTES);
    let keyframe = &out[1..];
    assert_eq!(
        keyframe[..13],
        [1, 77, 0, 0, 0, 1, 0, 24, 80, 0, 0, 0x80, 7]
    );
    let container = delta::check(keyframe).unwrap();
    assert!(container.is_keyframe() && container.covers_grid());
    assert_eq!((container.epoch(), container.run_count()), (77, 1));
    assert!(applied(&noise(5), keyframe) == next);
    assert!(applied(&delta::zeroed(), keyframe) == next);
}

#[test]
fn the_keyframe_takes_over_exactly_when_every_cell_changed() {
    let base = spaces();
    let mut next = noise(6);
    for cell in next.as_chunks_mut::<CELL_BYTES>().0 {
        cell[0] = b'A';
    }
    assert_eq!(
        run_list(&base, &next).len(),
        KEYFRAME_BYTES,
        "the threshold is inclusive"
    );
    let mut out = Vec::new();
    assert!(delta::encode(&base, &next, 3, &mut out).keyframe);
    let mut keyframe = Vec::new();
    delta::encode_keyframe(&next, 3, &mut keyframe);
    assert_eq!(out, keyframe);

    // One cell left alone, where it costs a second run: the longest delta there is.
    next[960 * CELL_BYTES..961 * CELL_BYTES].copy_from_slice(&base[..CELL_BYTES]);
    out.clear();
    let encoded = delta::encode(&base, &next, 3, &mut out);
    assert_eq!((encoded.keyframe, encoded.changed_cells), (false, 1919));
    assert_eq!(out.len(), 46073);
}

#[test]
fn every_rule_of_the_container_has_its_error() {
    let refused = |bytes: &[u8]| delta::check(bytes).unwrap_err();
    let whole = container(0, 2, &[(0, 2, 0), (2, 1, 0)]);
    assert!(delta::check(&whole).is_ok(), "touching runs are fine");
    for len in 0..whole.len() {
        assert_eq!(refused(&whole[..len]), DeltaError::Short);
    }
    assert_eq!(refused(&container(2, 0, &[])), DeltaError::UnknownFlags(2));
    assert_eq!(
        refused(&container(0x81, 0, &[])),
        DeltaError::UnknownFlags(0x81)
    );
    let sized = |rows, cols| [&[0; 7][..], &[rows, cols]].concat();
    assert_eq!(
        refused(&sized(25, 80)),
        DeltaError::WrongSize { rows: 25, cols: 80 }
    );
    assert_eq!(
        refused(&sized(24, 0)),
        DeltaError::WrongSize { rows: 24, cols: 0 }
    );
    assert_eq!(refused(&container(0, 2, &[(0, 1, 0)])), DeltaError::Short);
    assert_eq!(
        refused(&container(0, 1, &[(0, 1, 0), (5, 1, 0)])),
        DeltaError::Trailing { bytes: 28 }
    );
    assert_eq!(
        refused(&container(0, 1, &[(0, 0, 0)])),
        DeltaError::EmptyRun { run: 0 }
    );
    let overlap = container(0, 2, &[(0, 2, 0), (1, 1, 0)]);
    assert_eq!(refused(&overlap), DeltaError::OutOfOrder { run: 1 });
    let descending = container(0, 2, &[(5, 1, 0), (4, 1, 0)]);
    assert_eq!(refused(&descending), DeltaError::OutOfOrder { run: 1 });
    assert_eq!(
        refused(&container(0, 1, &[(1920, 1, 0)])),
        DeltaError::OutOfGrid { run: 0 }
    );
    assert_eq!(
        refused(&container(0, 1, &[(1919, 2, 0)])),
        DeltaError::OutOfGrid { run: 0 }
    );
    assert_eq!(
        refused(&container(0, 1, &[(0xFFFF, 1, 0)])),
        DeltaError::OutOfGrid { run: 0 }
    );
    assert!(
        delta::check(&container(0, 1, &[(1919, 1, 0xFF)])).is_ok(),
        "the last cell, any bytes"
    );
}

#[test]
fn a_keyframe_that_does_not_cover_the_grid_is_accepted_and_says_so() {
    for runs in [&[][..], &[(3, 2, 1)], &[(0, 1919, 1)]] {
        let bytes = container(1, runs.len() as u16, runs);
        let container = delta::check(&bytes).unwrap();
        assert!(container.is_keyframe() && !container.covers_grid());
    }
    let split = container(1, 2, &[(0, 960, 1), (960, 960, 2)]);
    assert_eq!(split.len(), 46097);
    assert!(delta::check(&split).unwrap().covers_grid());
}

#[test]
fn as_many_runs_as_cells_are_accepted_and_one_more_is_not() {
    let mut runs: Vec<_> = (0..1920).map(|cell| (cell, 1, cell as u8)).collect();
    let bytes = container(0, 1920, &runs);
    assert!(delta::check(&bytes).unwrap().covers_grid());
    runs.push((1920, 1, 0));
    let refused = delta::check(&container(0, 1921, &runs)).unwrap_err();
    assert_eq!(refused, DeltaError::OutOfGrid { run: 1920 });
}

#[test]
fn a_grid_driven_by_deltas_is_the_grid_driven_by_keyframes() {
    let mut frame = spaces();
    let (mut by_delta, mut by_keyframe) = (noise(1), noise(2));
    let mut first = Vec::new();
    delta::encode_keyframe(&frame, 0, &mut first);
    by_delta = applied(&by_delta, &first);
    for step in 0..20 {
        let (next, _) = changed(&frame, 40 * step, step);
        by_delta = applied(&by_delta, &run_list(&frame, &next));
        let mut keyframe = Vec::new();
        delta::encode_keyframe(&next, 0, &mut keyframe);
        by_keyframe = applied(&by_keyframe, &keyframe);
        assert!(by_delta == next && by_keyframe == next, "step {step}");
        frame = next;
    }
}

proptest! {
    #[test]
    fn runs_are_the_maximal_stretches_of_changed_cells(
        cells in prop::collection::btree_set(0..FRAME_CELLS, 0..60), epoch: u32,
    ) {
        let base = spaces();
        let mut next = base.clone();
        for cell in &cells {
            next[cell * CELL_BYTES + cell % CELL_BYTES] ^= 1;
        }
        let mut out = Vec::new();
        let encoded = delta::encode(&base, &next, epoch, &mut out);
        prop_assert_eq!(encoded, Encoded { changed_cells: cells.len(), keyframe: false });
        let container = delta::check(&out).unwrap();
        prop_assert_eq!(container.epoch(), epoch);
        let mut last_end = None;
        let mut covered = Vec::new();
        for run in container.runs() {
            prop_assert_ne!(Some(run.start), last_end, "touching runs would be one");
            last_end = Some(run.start + run.len());
            covered.extend(run.start..run.start + run.len());
        }
        prop_assert_eq!(covered, cells.into_iter().collect::<Vec<_>>());
        prop_assert!(applied(&base, &out) == next);
    }

    #[test]
    fn checking_and_applying_agree_on_any_bytes(
        flags in 0u8..3,
        runs in prop::collection::vec((0u16..1925, 0u16..40, any::<u8>()), 0..5),
        count in 0u16..6,
        cut in 0usize..3,
    ) {
        let mut bytes = container(flags, count, &runs);
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Ok(checked) = delta::check(&bytes) {
            let mut grid = spaces();
            checked.apply_to(&mut grid);
            let listed: Vec<_> = checked.runs().collect();
            prop_assert_eq!(listed.len(), usize::from(checked.run_count()));
            for run in listed {
                let at = run.start * CELL_BYTES;
                prop_assert_eq!(&grid[at..at + run.cells.len()], run.cells);
            }
        }
    }
}
