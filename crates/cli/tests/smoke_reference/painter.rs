//! A guest that shows any cells: pages that a test makes, one after the other.

use cabinet_wire::cell::Cell;
use cabinet_wire::delta::{self, Grid};
use cabinet_wire::{CELL_BYTES, COLS, ROWS};

/// One screen.
pub struct Page(Box<Grid>);

impl Page {
    pub fn blank() -> Self {
        Self(delta::zeroed())
    }

    pub fn put(&mut self, row: usize, col: usize, cell: Cell) {
        self.put_bytes(row, col, cell.to_bytes());
    }

    pub fn put_bytes(&mut self, row: usize, col: usize, bytes: [u8; CELL_BYTES]) {
        assert!(row < ROWS && col < COLS);
        let at = (row * COLS + col) * CELL_BYTES;
        self.0[at..at + CELL_BYTES].copy_from_slice(&bytes);
    }
}

/// The guest as WebAssembly. Whoever joins sees the first page, each wake shows everybody the next;
/// each input shows the next to seat 0 alone.
pub fn guest(pages: &[Page]) -> Vec<u8> {
    let mut data = String::new();
    let mut bytes = Vec::new();
    for page in pages {
        bytes.clear();
        delta::encode_keyframe(&page.0, 1, &mut bytes);
        data.extend(bytes.iter().map(|byte| format!("\\{byte:02x}")));
    }
    let (frame, whole) = (bytes.len(), bytes.len() / 8 * 8);
    let (count, memory) = (pages.len(), (pages.len() * frame).div_ceil(65_536));
    let text = format!(
        r#"(module
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store1 (param i64 i32)))
  (import "extism:host/env" "store_u64" (func $store (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output (param i64 i64)))
  (import "extism:host/user" "identical" (func $identical (param i64) (result i64)))
  (import "extism:host/user" "send" (func $send (param i64 i64) (result i64)))
  (memory (export "memory") {memory})
  (data (i32.const 0) "{data}")
  (global $page (mut i32) (i32.const 0))
  (func $frame (result i64) (local $block i64) (local $from i32) (local $at i32)
    (local.set $block (call $alloc (i64.const {frame})))
    (local.set $from (i32.mul (global.get $page) (i32.const {frame})))
    (loop $more
      (call $store
        (i64.add (local.get $block) (i64.extend_i32_u (local.get $at)))
        (i64.load (i32.add (local.get $from) (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $more (i32.lt_u (local.get $at) (i32.const {whole}))))
    (loop $rest
      (call $store1
        (i64.add (local.get $block) (i64.extend_i32_u (local.get $at)))
        (i32.load8_u (i32.add (local.get $from) (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $rest (i32.lt_u (local.get $at) (i32.const {frame}))))
    (local.get $block))
  (func $next
    (global.set $page (i32.rem_u (i32.add (global.get $page) (i32.const 1)) (i32.const {count}))))
  (func (export "shellcade_abi") (result i32) (local $at i64)
    (local.set $at (call $alloc (i64.const 8)))
    (call $store (local.get $at) (i64.const 2))
    (call $output (local.get $at) (i64.const 4))
    (i32.const 0))
  ;; Slug "w", 1 to 4 players.
  (func (export "meta") (result i32) (local $at i64)
    (local.set $at (call $alloc (i64.const 24)))
    (call $store (local.get $at) (i64.const 0x0100000000770001))
    (call $store (i64.add (local.get $at) (i64.const 8)) (i64.const 0x0000000000000400))
    (call $store (i64.add (local.get $at) (i64.const 16)) (i64.const 0))
    (call $output (local.get $at) (i64.const 20))
    (i32.const 0))
  (func (export "join") (result i32)
    (drop (call $identical (call $frame)))
    (i32.const 0))
  (func (export "wake") (result i32)
    (call $next)
    (drop (call $identical (call $frame)))
    (i32.const 0))
  (func (export "input") (result i32)
    (call $next)
    (drop (call $send (i64.const 0) (call $frame)))
    (i32.const 0))
  (func (export "start") (export "leave") (export "close") (result i32) (i32.const 0)))"#
    );
    wat::parse_str(text).unwrap()
}

/// Pages of everything a cell can be, but for what shots leave out on purpose: DEL and C1 controls,
/// and controls that combine.
pub fn pages() -> Vec<Page> {
    vec![styles(), glyphs(), oddities(), by_chance()]
}

/// Every combination of attribute bits, known and unknown, with and without colours.
fn styles() -> Page {
    let mut page = Page::blank();
    for attr in 0..=255_u8 {
        let at = usize::from(attr) * 4;
        for (place, (fg, bg)) in [
            (None, None),
            (Some([attr, 0, 255]), None),
            (None, Some([1, attr, 99])),
            (Some([0, 0, 0]), Some([255, 255, 255])),
        ]
        .into_iter()
        .enumerate()
        {
            let cell = Cell {
                fg,
                bg,
                attr,
                ..Cell::of('a')
            };
            page.put((at + place) / COLS, (at + place) % COLS, cell);
        }
    }
    page
}

/// Letters of many scripts, frames, blocks, wide glyphs and clusters.
fn glyphs() -> Page {
    let mut page = Page::blank();
    let starts = [
        0x20, 0xa0, 0x100, 0x391, 0x410, 0x5d0, 0x2190, 0x2500, 0x2550, 0x2580, 0x25a0, 0x2660,
        0x2800, 0xfff0, 0x1f100,
    ];
    for (row, start) in starts.into_iter().enumerate() {
        for col in 0..COLS {
            let point = start + u32::try_from(col).unwrap();
            // No control stands here.
            if point != 0x7f {
                let cell = Cell {
                    cp: [point, 0, 0],
                    ..Cell::default()
                };
                page.put(row, col, cell);
            }
        }
    }
    let right = Cell {
        cont: true,
        ..Cell::default()
    };
    for col in (0..COLS).step_by(2) {
        let point = 0x4e00 + u32::try_from(col).unwrap();
        let wide = Cell {
            cp: [point, 0, 0],
            bg: Some([0, 0, 90]),
            ..Cell::default()
        };
        page.put(16, col, wide);
        page.put(16, col + 1, right);
    }
    let clusters = [
        ['❤', '\u{fe0f}', '\0'],
        ['7', '\u{fe0f}', '\u{20e3}'],
        ['e', '\u{301}', '\0'],
        ['👩', '\u{200d}', '💻'],
        ['🇨', '🇭', '\0'],
        ['x', '\0', '\u{301}'],
        [' ', '\u{308}', '\0'],
        ['\0', '\u{308}', '\0'],
    ];
    for (place, points) in clusters.into_iter().enumerate() {
        let cell = Cell {
            cp: points.map(u32::from),
            ..Cell::default()
        };
        page.put(18, place * 4, cell);
        page.put(18, place * 4 + 1, right);
        // At the end of a row, where blanks are trimmed.
        page.put(19 + place % 4, COLS - 1 - place / 4, cell);
    }
    page
}

/// Cells that no SDK writes.
fn oddities() -> Page {
    let mut page = Page::blank();
    let points = [
        0,
        1,
        0x1b,
        0x1f,
        0xd800,
        0xdfff,
        0xfffe,
        0xffff,
        0x10_ffff,
        0x11_0000,
        0x7fff_ffff,
        0x8000_0000,
        u32::MAX,
    ];
    let visible = |point: &u32| *point == 0 || *point > 0x1f;
    for (row, base) in points.into_iter().enumerate() {
        let marks = points.iter().copied().filter(visible);
        for (place, mark) in marks.enumerate() {
            let cell = Cell {
                cp: [base, mark, 0x301],
                ..Cell::default()
            };
            page.put(row, place * 3, cell);
        }
    }
    // Flags that are neither 0 nor 1 set nothing; padding is not looked at.
    for (place, flag) in [0, 1, 2, 255].into_iter().enumerate() {
        let mut bytes = Cell::of('f').to_bytes();
        bytes[12..16].copy_from_slice(&[flag, 10, 20, 30]);
        page.put_bytes(14, place, bytes);
        let mut bytes = Cell::of('b').to_bytes();
        bytes[16..20].copy_from_slice(&[flag, 40, 50, 60]);
        page.put_bytes(15, place, bytes);
        let mut bytes = Cell::of('c').to_bytes();
        bytes[21..24].copy_from_slice(&[flag, 7, 7]);
        page.put_bytes(16, place * 2, bytes);
    }
    // Right halves of nothing, and a row of them.
    for col in 0..COLS {
        let cell = Cell {
            cont: true,
            attr: 1,
            ..Cell::of('z')
        };
        page.put(18, col, cell);
        page.put(20, col / 2 + COLS / 2 - 1, cell);
    }
    page
}

/// Cells from a generator of numbers.
fn by_chance() -> Page {
    let mut page = Page::blank();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: u32| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u32::try_from(state % u64::from(below)).unwrap()
    };
    for at in 0..ROWS * COLS {
        let mut colour = || {
            let byte = |number: u32| u8::try_from(number).unwrap();
            (next(3) > 0).then(|| [byte(next(3)), byte(next(2)) * 255, 0])
        };
        let (fg, bg) = (colour(), colour());
        let base = [0, 0x20, 0x61, 0x263a, 0x1f600][next(5) as usize];
        let marked = [0, 0, 0, 0x301, 0xfe0f][next(5) as usize];
        let cell = Cell {
            cp: [base + u32::from(base > 0x20) * next(4), marked, 0],
            fg,
            bg,
            attr: u8::try_from(next(16)).unwrap(),
            cont: next(12) == 0,
        };
        page.put(at / COLS, at % COLS, cell);
    }
    page
}
