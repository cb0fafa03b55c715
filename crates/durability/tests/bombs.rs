//! Authentic records that would come to more than they say, or say more than is allowed: what they
//! cost is bounded by the limit, not by the bomb.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write as _;

use bytes::Bytes;
use cabinet_durability::seal::{OpenError, Wanted};

#[path = "common/forge.rs"]
mod forge;
use forge::{place, sealed, sealer};

struct Counting;

thread_local! {
    /// The largest block the thread asked for.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(bytes: usize) {
    // A thread that is ending has no counter any more.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(bytes)));
}

// SAFETY: every method hands on to the system allocator, whose contract it keeps.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const GIB: u64 = 1 << 30;
const RAW_MAX: u64 = 256 << 20;
/// What opening a bomb may cost beside the record itself.
const SPARE: usize = 1 << 20;

/// The most memory the process ever had, bytes, where the system tells: zstd's own allocations are
/// in it.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// One frame of a GiB of zeros, which says so in its 4-byte content size.
fn gib_of_zeros() -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.set_pledged_src_size(Some(GIB)).expect("it is new");
    let zeros = vec![0; 1 << 20];
    for _ in 0..GIB >> 20 {
        encoder.write_all(&zeros).expect("it compresses");
    }
    encoder.finish().expect("it compresses")
}

/// Opens a record as a vault would, and says how; asserts that it cost next to nothing.
fn opened(bytes: &Bytes) -> Result<usize, OpenError> {
    LARGEST.set(0);
    let before = peak();
    let opened = sealer(1).open(bytes.clone(), &Wanted::exactly(&place()), RAW_MAX);
    let largest = LARGEST.get();
    assert!(largest <= bytes.len() + SPARE, "asked for {largest} bytes");
    if let (Some(before), Some(after)) = (before, peak()) {
        let grown = after - before;
        assert!(grown <= 32 << 20, "the process grew by {grown} bytes");
    }
    opened.map(|(_, raw)| raw.len())
}

#[test]
fn a_bomb_costs_no_more_than_its_record() {
    const SAYS: u64 = 1_000;
    let bomb = gib_of_zeros();
    let honest = zstd::bulk::compress(&[7; SAYS as usize], 1).expect("it compresses");
    assert_eq!(opened(&sealed(&place(), SAYS, &honest)), Ok(1_000));

    // The record says a thousand bytes, the frame a GiB.
    let found = opened(&sealed(&place(), SAYS, &bomb));
    assert_eq!(found, Err(OpenError::Damaged("compressed frame")));

    // The frame says a thousand too, and comes to a GiB.
    let mut lies = bomb.clone();
    let size = lies
        .windows(4)
        .position(|window| window == (GIB as u32).to_le_bytes())
        .expect("the content size");
    lies[size..size + 4].copy_from_slice(&(SAYS as u32).to_le_bytes());
    let found = opened(&sealed(&place(), SAYS, &lies));
    assert_eq!(found, Err(OpenError::Damaged("compressed content")));

    // A second frame comes after an honest one.
    let found = opened(&sealed(&place(), SAYS, &[honest, bomb.clone()].concat()));
    assert_eq!(found, Err(OpenError::Damaged("compressed content")));

    // Record and frame agree on more than is allowed.
    let found = opened(&sealed(&place(), GIB, &bomb));
    let over = OpenError::TooLarge {
        bytes: GIB,
        max: RAW_MAX,
    };
    assert_eq!(found, Err(over));
}

#[test]
fn a_record_that_says_it_holds_a_tebibyte_is_refused_before_anything_is_allocated() {
    const TIB: u64 = 1 << 40;
    // Single segment, 8-byte content size, and one empty last block.
    let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0xE0];
    frame.extend(TIB.to_le_bytes());
    frame.extend([1, 0, 0]);
    for raw in [TIB, u64::MAX] {
        let found = opened(&sealed(&place(), raw, &frame));
        let over = OpenError::TooLarge {
            bytes: raw,
            max: RAW_MAX,
        };
        assert_eq!(found, Err(over));
    }
    let found = opened(&sealed(&place(), 10, &frame));
    assert_eq!(found, Err(OpenError::Damaged("compressed frame")));
}

#[test]
fn a_frame_without_a_size_or_with_too_little_in_it_is_damaged() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.write_all(&[7; 1_000]).expect("it compresses");
    encoder.flush().expect("it compresses");
    let sizeless = encoder.finish().expect("it compresses");
    let found = opened(&sealed(&place(), 1_000, &sizeless));
    assert_eq!(found, Err(OpenError::Damaged("compressed frame")));
    for body in [&b""[..], b"not zstd", &[0x28, 0xB5, 0x2F, 0xFD]] {
        let found = opened(&sealed(&place(), 1_000, body));
        assert_eq!(found, Err(OpenError::Damaged("compressed frame")));
    }
}
