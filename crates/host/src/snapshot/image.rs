//! A guest's memory without its zeros.

use std::ops::Range;

use super::SnapshotError;
use super::limits::MEMORY_PAGES;

/// Bytes in a page of an image, the unit in which zeros are left out.
pub(super) const PAGE_BYTES: usize = 4_096;
const WASM_PAGE_BYTES: usize = 65_536;
pub(super) const PAGES_PER_WASM_PAGE: usize = WASM_PAGE_BYTES / PAGE_BYTES;

/// A linear memory: its size, and the 4 KiB pages of it that are not all zero.
#[derive(Clone)]
pub struct MemoryImage {
    wasm_pages: u32,
    /// By rising index.
    pages: Vec<PageAt>,
    /// Where in `bytes` the contents of pages are, one after the other.
    contents: Range<usize>,
    /// Of a decoded image the whole payload, so that no page was ever copied.
    bytes: Vec<u8>,
}

/// Which content is at which page of the memory. Pages may have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageAt {
    pub(super) index: u32,
    pub(super) content: u32,
}

/// The content of a page.
pub(super) type Page = [u8; PAGE_BYTES];

impl MemoryImage {
    /// The image of `memory`, which is a whole number of wasm pages.
    ///
    /// # Errors
    /// [`SnapshotError::Limit`] when it is longer than a 32-bit memory can be,
    /// [`SnapshotError::Damaged`] when it is no whole number of pages.
    pub fn capture(memory: &[u8]) -> Result<Self, SnapshotError> {
        Self::capture_into(memory, Vec::new())
    }

    /// As [`Self::capture`], into the memory of `buffer`, whose content is dropped. One that is
    /// large enough and was used before costs a copy and no page fault.
    ///
    /// # Errors
    /// As for [`Self::capture`].
    pub fn capture_into(memory: &[u8], buffer: Vec<u8>) -> Result<Self, SnapshotError> {
        let wasm_pages = memory.len() / WASM_PAGE_BYTES;
        if !memory.len().is_multiple_of(WASM_PAGE_BYTES) {
            return Err(SnapshotError::Damaged("memory of part of a page"));
        }
        MEMORY_PAGES.check(wasm_pages)?;
        let all = memory.as_chunks::<PAGE_BYTES>().0;
        let mut bytes = buffer;
        bytes.clear();
        if bytes.capacity() == 0 {
            // Counted first: growing step by step would copy several times over.
            let kept = all.iter().filter(|page| !is_zero(page)).count();
            bytes.reserve_exact(kept * PAGE_BYTES);
        }
        let mut pages = Vec::with_capacity(bytes.capacity() / PAGE_BYTES);
        for (index, page) in (0u32..).zip(all) {
            if !is_zero(page) {
                pages.push(PageAt {
                    index,
                    // Pages of a 32-bit memory fit.
                    content: pages.len() as u32,
                });
                bytes.extend_from_slice(page);
            }
        }
        Ok(Self {
            wasm_pages: wasm_pages as u32,
            pages,
            contents: 0..bytes.len(),
            bytes,
        })
    }

    /// An image whose contents are the part `contents` of `bytes`. Checks that it is what
    /// [`Self::capture`] and [`Self::distinct`] would have made.
    pub(super) fn from_parts(
        wasm_pages: u32,
        pages: Vec<PageAt>,
        contents: Range<usize>,
        bytes: Vec<u8>,
    ) -> Result<Self, SnapshotError> {
        let (distinct, rest) = bytes
            .get(contents.clone())
            .unwrap_or(&[])
            .as_chunks::<PAGE_BYTES>();
        if !rest.is_empty() || !distinct.is_sorted_by(|a, b| a < b) {
            return Err(SnapshotError::Damaged("contents of pages"));
        }
        // In rising order only the first can be it.
        if distinct.first().is_some_and(is_zero) {
            return Err(SnapshotError::Damaged("a page of zeros"));
        }
        let rising = pages.is_sorted_by(|a, b| a.index < b.index);
        let end = u64::from(wasm_pages) * PAGES_PER_WASM_PAGE as u64;
        if !rising
            || pages
                .last()
                .is_some_and(|page| u64::from(page.index) >= end)
        {
            return Err(SnapshotError::Damaged("pages of memory"));
        }
        let mut used = vec![false; distinct.len()];
        for page in &pages {
            *used
                .get_mut(page.content as usize)
                .ok_or(SnapshotError::Damaged("content of a page"))? = true;
        }
        if used.contains(&false) {
            return Err(SnapshotError::Damaged("unused content of a page"));
        }
        Ok(Self {
            wasm_pages,
            pages,
            contents,
            bytes,
        })
    }

    /// Wasm pages of 65,536 bytes.
    #[must_use]
    pub fn wasm_pages(&self) -> u32 {
        self.wasm_pages
    }

    /// Bytes of the memory.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        u64::from(self.wasm_pages) * WASM_PAGE_BYTES as u64
    }

    /// What is not zero: offsets, rising, and the 4,096 bytes there. The rest of the memory is.
    pub fn pages(&self) -> impl ExactSizeIterator<Item = (usize, &[u8; 4_096])> {
        let contents = self.contents();
        self.pages.iter().map(move |page| {
            let offset = page.index as usize * PAGE_BYTES;
            (offset, &contents[page.content as usize])
        })
    }

    /// Makes `memory` the memory captured, whatever it held; false, with nothing written, when it
    /// is not as long.
    #[must_use]
    pub fn write_to(&self, memory: &mut [u8]) -> bool {
        if memory.len() as u64 != self.byte_len() {
            return false;
        }
        let mut at = 0;
        for (offset, page) in self.pages() {
            memory[at..offset].fill(0);
            at = offset + PAGE_BYTES;
            memory[offset..at].copy_from_slice(page);
        }
        memory[at..].fill(0);
        true
    }

    /// The different contents in rising order, and where each is: what all images of one memory
    /// have in common.
    pub(super) fn distinct(&self) -> (Vec<&Page>, Vec<PageAt>) {
        let contents = self.contents();
        let mut order: Vec<u32> = (0..contents.len() as u32).collect();
        order.sort_unstable_by_key(|&content| &contents[content as usize]);
        let mut distinct: Vec<&Page> = Vec::with_capacity(order.len());
        let mut renumbered = vec![0; order.len()];
        for content in order {
            let page = &contents[content as usize];
            if distinct.last() != Some(&page) {
                distinct.push(page);
            }
            renumbered[content as usize] = distinct.len() as u32 - 1;
        }
        let renumber = |page: &PageAt| PageAt {
            content: renumbered[page.content as usize],
            ..*page
        };
        (distinct, self.pages.iter().map(renumber).collect())
    }

    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    fn contents(&self) -> &[Page] {
        self.bytes[self.contents.clone()].as_chunks().0
    }
}

impl PartialEq for MemoryImage {
    fn eq(&self, other: &Self) -> bool {
        self.wasm_pages == other.wasm_pages && self.pages().eq(other.pages())
    }
}

impl Eq for MemoryImage {}

impl std::fmt::Debug for MemoryImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryImage")
            .field("wasm_pages", &self.wasm_pages)
            .field("pages", &self.pages.len())
            .finish_non_exhaustive()
    }
}

fn is_zero(page: &Page) -> bool {
    let any = |chunk: &[u8; 128]| chunk.iter().fold(0, |any, byte| any | byte) != 0;
    !page.as_chunks().0.iter().any(any)
}
