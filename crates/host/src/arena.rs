//! Where the blocks of the Extism kernel memory are: `alloc`, `free` and `length`.
//!
//! Guests can tell the addresses apart (some leave them in memory that is hashed), so they are
//! those of the reference allocator. Its metadata, which it keeps beside the data where a guest
//! can overwrite it, is kept here instead: this file never looks at the memory.
//!
//! Layout it mimics: a root of 64 bytes at address 1, then blocks, each a header of 12 bytes and
//! its data; the first data is at 77. Blocks are cut from the end of the used part until the
//! space up to `length` runs out; only then is the first freed block that is large enough taken
//! again, and only failing that does the memory grow.
//!
//! Invariants
//! - the chain through `Block::next` holds every block, in address order;
//! - a bucket's `first` is the lowest block whose header starts in its 4 KiB, and its `max_free`
//!   is the largest freed block among them.
//!
//! So no call costs more than a few microseconds, however a guest has cut the memory up: the
//! blocks of one bucket (at most 315) or one number per bucket.

/// Address of the first header: a root of 64 bytes at address 1 comes before it.
const FIRST_HEADER: u64 = 65;
/// Bytes in front of each block's data.
const HEADER_BYTES: u64 = 12;
/// Bytes of the root. `length` leaves them out, and the space check once more.
pub const ROOT_BYTES: u64 = 64;
/// `length` of a new arena: one page without its root.
const FIRST_LENGTH: u64 = PAGE_BYTES - ROOT_BYTES;
const PAGE_BYTES: u64 = 65_536;
/// Pages a wasm32 memory can be grown by with every address still below 2^32.
const GROWN_PAGES_MAX: u32 = 65_534;
/// A freed block this much larger than a request is split.
const SPLIT_EXCESS: u32 = 128;
/// Blocks since the last reset after which `alloc` answers 0. Two hundred times what a callback
/// with a thousand frames needs; bounds the host memory a guest can take to about 5 MiB.
pub const BLOCKS_MAX: usize = 262_144;

const BUCKET_BYTES: u32 = 4_096;
const NONE: u32 = u32::MAX;

/// The allocator's state.
#[derive(Debug, Clone)]
pub struct Arena {
    grown_pages: u32,
    /// Bytes of headers and data handed out, from [`FIRST_HEADER`] on.
    position: u64,
    blocks: Vec<Block>,
    /// The block with the highest address.
    last: u32,
    buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Block {
    header: u32,
    /// Bytes the block spans after its header.
    size: u32,
    /// Bytes last asked for: what `length` answers.
    used: u32,
    next: u32,
    live: bool,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    first: u32,
    max_free: u32,
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

impl Arena {
    /// An arena without blocks over a memory that was never grown.
    #[must_use]
    pub fn new() -> Self {
        Self {
            grown_pages: 0,
            position: 0,
            blocks: Vec::new(),
            last: NONE,
            buckets: Vec::new(),
        }
    }

    /// Forgets every block. The pages grown so far stay, and so does the host memory used to keep
    /// track: an arena that has been through a callback like the next one allocates nothing.
    pub fn reset(&mut self) {
        self.position = 0;
        self.blocks.clear();
        self.last = NONE;
        self.buckets.clear();
    }

    /// The address of a new block of `n` bytes, or 0 when `n` is 0 or there is no room for it.
    /// `grow` is called at most once, to add that many pages of 64 KiB to the memory.
    pub fn alloc(&mut self, n: u64, grow: impl FnOnce(u32) -> bool) -> u64 {
        let Ok(n) = u32::try_from(n) else { return 0 };
        if n == 0 {
            return 0;
        }
        let needed = u64::from(n) + HEADER_BYTES;
        let remaining = self.space() - self.position - ROOT_BYTES;
        if needed >= remaining {
            if needed <= self.position
                && let Some(first_fit) = self.first_fit(n)
            {
                return self.take(first_fit, n);
            }
            if self.blocks.len() == BLOCKS_MAX {
                return 0;
            }
            // At most 2^16 + 1, for n is below 2^32.
            let pages = (needed - remaining).div_ceil(PAGE_BYTES) as u32;
            if pages > 0 {
                if pages > GROWN_PAGES_MAX - self.grown_pages || !grow(pages) {
                    return 0;
                }
                self.grown_pages += pages;
            }
        }
        self.append(n)
    }

    /// Frees the live block that starts at `offset`; false if there is none.
    pub fn free(&mut self, offset: u64) -> bool {
        let Some(at) = self.find(offset) else {
            return false;
        };
        let block = &mut self.blocks[at];
        block.live = false;
        let bucket = &mut self.buckets[bucket_of(block.header)];
        bucket.max_free = bucket.max_free.max(block.size);
        true
    }

    /// The bytes asked for of the live block that starts exactly at `offset`, else 0. This is the
    /// kernel's `length` and its `length_unsafe`, which differ only for addresses that are not
    /// blocks.
    #[must_use]
    pub fn length(&self, offset: u64) -> u64 {
        self.find(offset)
            .map_or(0, |at| u64::from(self.blocks[at].used))
    }

    /// Pages the memory was grown by since the arena was made. With it, addresses of later
    /// callbacks depend on earlier ones, so snapshots carry it.
    #[must_use]
    pub fn grown_pages(&self) -> u32 {
        self.grown_pages
    }

    /// Makes an arena whose memory was already grown by `pages`; forgets every block. False, and
    /// nothing changes, when no arena can have grown so far.
    #[must_use]
    pub fn restore_grown_pages(&mut self, pages: u32) -> bool {
        if pages > GROWN_PAGES_MAX {
            return false;
        }
        self.reset();
        self.grown_pages = pages;
        true
    }

    /// What the reference calls `length`.
    fn space(&self) -> u64 {
        FIRST_LENGTH + u64::from(self.grown_pages) * PAGE_BYTES
    }

    fn append(&mut self, n: u32) -> u64 {
        if self.blocks.len() == BLOCKS_MAX {
            return 0;
        }
        // GROWN_PAGES_MAX keeps every address below 2^32.
        let header = (FIRST_HEADER + self.position) as u32;
        let at = self.blocks.len() as u32;
        self.position += u64::from(n) + HEADER_BYTES;
        if let Some(last) = self.blocks.get_mut(self.last as usize) {
            last.next = at;
        }
        self.last = at;
        self.insert(Block {
            header,
            size: n,
            used: n,
            next: NONE,
            live: true,
        })
    }

    /// Records a block that is already in the chain; returns the address of its data.
    fn insert(&mut self, block: Block) -> u64 {
        let at = self.blocks.len() as u32;
        let bucket = bucket_of(block.header);
        while self.buckets.len() <= bucket {
            self.buckets.push(Bucket {
                first: NONE,
                max_free: 0,
            });
        }
        let first = &mut self.buckets[bucket].first;
        if *first == NONE || self.blocks[*first as usize].header > block.header {
            *first = at;
        }
        self.blocks.push(block);
        u64::from(block.header) + HEADER_BYTES
    }

    /// The lowest freed block of at least `n` bytes.
    fn first_fit(&self, n: u32) -> Option<usize> {
        let bucket = self.buckets.iter().position(|b| b.max_free >= n)?;
        self.blocks_of(bucket)
            .find(|&at| !self.blocks[at].live && self.blocks[at].size >= n)
    }

    /// Gives out `n` bytes of the freed block `at`: all of it, or its tail when much would be
    /// left over.
    fn take(&mut self, at: usize, n: u32) -> u64 {
        let block = &mut self.blocks[at];
        let bucket = bucket_of(block.header);
        let excess = block.size - n;
        let offset = if excess < SPLIT_EXCESS {
            block.used = n;
            block.live = true;
            u64::from(block.header) + HEADER_BYTES
        } else if self.blocks.len() == BLOCKS_MAX {
            return 0;
        } else {
            let added = self.blocks.len() as u32;
            let block = &mut self.blocks[at];
            block.size = excess - HEADER_BYTES as u32;
            let tail = Block {
                header: block.header + HEADER_BYTES as u32 + block.size,
                size: n,
                used: n,
                next: block.next,
                live: true,
            };
            block.next = added;
            if tail.next == NONE {
                self.last = added;
            }
            self.insert(tail)
        };
        self.buckets[bucket].max_free = self
            .blocks_of(bucket)
            .map(|at| &self.blocks[at])
            .filter(|block| !block.live)
            .map(|block| block.size)
            .max()
            .unwrap_or(0);
        offset
    }

    fn find(&self, offset: u64) -> Option<usize> {
        let header = u32::try_from(offset.checked_sub(HEADER_BYTES)?).ok()?;
        self.blocks_of(bucket_of(header))
            .find(|&at| self.blocks[at].header == header && self.blocks[at].live)
    }

    /// The blocks whose headers start in a bucket, in address order.
    fn blocks_of(&self, bucket: usize) -> impl Iterator<Item = usize> {
        let mut at = self.buckets.get(bucket).map_or(NONE, |b| b.first);
        std::iter::from_fn(move || {
            let block = self.blocks.get(at as usize)?;
            let found = at as usize;
            at = block.next;
            (bucket_of(block.header) == bucket).then_some(found)
        })
    }
}

fn bucket_of(header: u32) -> usize {
    (header / BUCKET_BYTES) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refuse(_: u32) -> bool {
        false
    }

    #[test]
    fn the_first_block_is_at_77_and_the_next_follows_its_end_by_a_header() {
        let mut arena = Arena::new();
        assert_eq!(arena.alloc(25, refuse), 77);
        assert_eq!(arena.alloc(8, refuse), 114);
        assert_eq!(arena.length(77), 25);
        assert_eq!(arena.length(114), 8);
        assert_eq!(arena.position, 122 - 65);
    }

    #[test]
    fn only_the_exact_start_of_a_live_block_has_a_length_or_can_be_freed() {
        let mut arena = Arena::new();
        let block = arena.alloc(100, refuse);
        for offset in [
            0,
            1,
            11,
            12,
            block - 1,
            block + 1,
            u64::MAX,
            1 << 32 | block,
        ] {
            assert_eq!(arena.length(offset), 0, "{offset}");
            assert!(!arena.free(offset), "{offset}");
        }
        assert!(arena.free(block));
        assert_eq!(arena.length(block), 0);
        assert!(!arena.free(block));
    }

    #[test]
    fn a_freed_block_is_not_reused_while_the_page_has_room() {
        let mut arena = Arena::new();
        let first = arena.alloc(1000, refuse);
        arena.free(first);
        assert_eq!(arena.alloc(1000, refuse), first + 1012);
    }

    #[test]
    fn the_space_check_grows_one_byte_before_the_page_is_full() {
        // 65,472 − 64 bytes remain at first; a request of exactly that many, header included,
        // grows by no page, one more by one.
        for (n, pages) in [
            (65_395, None),
            (65_396, None),
            (65_397, Some(1)),
            (130_932, Some(1)),
            (130_933, Some(2)),
        ] {
            let mut grown = None;
            let mut arena = Arena::new();
            assert_eq!(
                arena.alloc(n, |p| {
                    grown = Some(p);
                    true
                }),
                77
            );
            assert_eq!(grown, pages, "{n}");
            assert_eq!(arena.grown_pages(), pages.unwrap_or(0));
        }
    }

    #[test]
    fn a_request_that_just_fits_the_end_takes_a_freed_block_instead() {
        for (left, offset) in [(5_013, 77 + 65_408 - 5_013), (5_012, 77 + 4_988 + 12)] {
            let mut arena = Arena::new();
            let first = arena.alloc(10_000, refuse);
            arena.alloc(65_408 - 10_012 - 12 - left, refuse);
            arena.free(first);
            assert_eq!(arena.alloc(5_000, refuse), offset, "{left} bytes left");
        }
    }

    #[test]
    fn a_freed_block_as_large_as_everything_used_is_taken_again() {
        let mut arena = Arena::new();
        let only = arena.alloc(40_000, refuse);
        arena.free(only);
        assert_eq!(arena.alloc(40_000, refuse), only);
    }

    #[test]
    fn a_freed_block_is_split_from_its_tail_at_128_bytes_of_excess() {
        for (excess, offset, left) in [(127, 77, 0), (128, 77 + 128, 116)] {
            let mut arena = Arena::new();
            let first = arena.alloc(40_000, refuse);
            arena.free(first);
            arena.alloc(20_000, refuse);
            assert_eq!(arena.alloc(40_000 - excess, refuse), offset);
            assert_eq!(arena.length(offset), 40_000 - excess);
            let remainder = arena.first_fit(1).map_or(0, |at| arena.blocks[at].size);
            assert_eq!(remainder, left);
        }
    }

    #[test]
    fn reset_keeps_the_growth_and_starts_at_77_again() {
        let mut arena = Arena::new();
        arena.alloc(200_000, |_| true);
        let pages = arena.grown_pages();
        assert_eq!(pages, 3);
        arena.reset();
        assert_eq!((arena.alloc(1, refuse), arena.grown_pages()), (77, 3));
        arena.reset();
        // Room for it without growing: the earlier growth counts.
        assert_eq!(arena.alloc(200_000, refuse), 77);
    }

    #[test]
    fn requests_without_room_answer_0_and_change_nothing() {
        let mut arena = Arena::new();
        for n in [0, 65_500, 33 << 20, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            assert_eq!(arena.alloc(n, refuse), 0, "{n}");
        }
        assert_eq!((arena.position, arena.grown_pages()), (0, 0));
        assert_eq!(arena.alloc(1, refuse), 77);
    }

    #[test]
    fn no_address_reaches_two_to_the_32() {
        let mut arena = Arena::new();
        assert!(!arena.restore_grown_pages(GROWN_PAGES_MAX + 1));
        assert!(arena.restore_grown_pages(GROWN_PAGES_MAX));
        let most = arena.space() - ROOT_BYTES - HEADER_BYTES;
        assert_eq!(arena.alloc(most + 1, |_| true), 0);
        assert_eq!(arena.alloc(most, |_| true), 77);
        assert!(FIRST_HEADER + arena.position <= 1 << 32);
    }

    #[test]
    fn one_block_more_than_the_limit_is_refused() {
        let mut arena = Arena::new();
        let first = arena.alloc(70_000, |_| true);
        for _ in 1..BLOCKS_MAX {
            assert_ne!(arena.alloc(1, |_| true), 0);
        }
        assert_eq!(arena.alloc(1, |_| true), 0);
        assert_eq!(arena.alloc(70_000, |_| true), 0);
        // A split would be a block more, a whole block is not.
        arena.free(first);
        assert_eq!(arena.alloc(69_000, |_| true), 0);
        assert_eq!(arena.alloc(69_999, |_| true), first);
        arena.reset();
        assert_eq!(arena.alloc(1, |_| true), 77);
    }

    /// The allocator as the prose has it: a list that is walked.
    struct Model {
        list: Vec<(u64, u64, u64, bool)>, // header, size, used, live
        position: u64,
        length: u64,
        pages_left: u32,
    }

    impl Model {
        fn alloc(&mut self, n: u64) -> u64 {
            if n == 0 {
                return 0;
            }
            let remaining = self.length - self.position - 64;
            if n + 12 >= remaining {
                if n + 12 <= self.position
                    && let Some(i) = self.list.iter().position(|b| !b.3 && b.1 >= n)
                {
                    if self.list[i].1 - n < 128 {
                        self.list[i].2 = n;
                        self.list[i].3 = true;
                        return self.list[i].0 + 12;
                    }
                    self.list[i].1 -= n + 12;
                    let header = self.list[i].0 + 12 + self.list[i].1;
                    self.list.insert(i + 1, (header, n, n, true));
                    return header + 12;
                }
                let pages = (n + 12 - remaining).div_ceil(65_536) as u32;
                if pages > self.pages_left {
                    return 0;
                }
                self.pages_left -= pages;
                self.length += u64::from(pages) * 65_536;
            }
            let header = 65 + self.position;
            self.list.push((header, n, n, true));
            self.position += n + 12;
            header + 12
        }

        fn length(&self, offset: u64) -> u64 {
            self.list
                .iter()
                .find(|b| b.0 + 12 == offset && b.3)
                .map_or(0, |b| b.2)
        }

        fn free(&mut self, offset: u64) -> bool {
            let found = self.list.iter_mut().find(|b| b.0 + 12 == offset && b.3);
            found.map(|b| b.3 = false).is_some()
        }
    }

    #[derive(Debug, Clone)]
    enum Op {
        Alloc(u64),
        FreeNth(usize),
        Probe(u64),
        Reset,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (1u64..300).prop_map(Op::Alloc),
            4 => (0u64..30_000).prop_map(Op::Alloc),
            2 => (0u64..150_000).prop_map(Op::Alloc),
            6 => any::<usize>().prop_map(Op::FreeNth),
            1 => (0u64..200_000).prop_map(Op::Probe),
            1 => Just(Op::Reset),
        ]
    }

    proptest! {
        #[test]
        fn every_address_and_length_is_the_list_walking_models(
            ops in prop::collection::vec(op(), 0..200),
            cap in 0u32..12,
        ) {
            let mut arena = Arena::new();
            let mut model = Model { list: vec![], position: 0, length: 65_472, pages_left: cap };
            let mut offsets = vec![];
            let mut left = cap;
            for op in ops {
                match op {
                    Op::Alloc(n) => {
                        let got = arena.alloc(n, |pages| {
                            let fits = pages <= left;
                            left -= if fits { pages } else { 0 };
                            fits
                        });
                        prop_assert_eq!(got, model.alloc(n));
                        offsets.push(got);
                    }
                    Op::FreeNth(i) if !offsets.is_empty() => {
                        let offset = offsets[i % offsets.len()];
                        prop_assert_eq!(arena.free(offset), model.free(offset));
                    }
                    Op::FreeNth(_) => {}
                    Op::Probe(offset) => prop_assert_eq!(arena.length(offset), model.length(offset)),
                    Op::Reset => {
                        arena.reset();
                        model.list.clear();
                        model.position = 0;
                        offsets.clear();
                    }
                }
                prop_assert_eq!(arena.position, model.position);
                prop_assert_eq!(arena.grown_pages(), cap - model.pages_left);
                for &offset in &offsets {
                    prop_assert_eq!(arena.length(offset), model.length(offset));
                }
            }
        }
    }
}
