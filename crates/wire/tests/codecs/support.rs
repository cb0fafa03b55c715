//! What the tests share: hex, vector files, strategies for valid payloads.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use cabinet_wire::ctx::{Character, Head, Member};
use cabinet_wire::delta::{self, Grid};
use cabinet_wire::meta::MetaError;
use cabinet_wire::{CELL_BYTES, FRAME_CELLS, Kind, Mode, SlugError, Text};
use proptest::prelude::*;

/// The directory of vectors recorded from the reference, or `None` after saying so.
pub fn shared_vectors(test: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    let dir = std::env::var_os("CABINET_VECTORS").map_or(beside, PathBuf::from);
    if dir.is_dir() {
        return Some(dir);
    }
    // Not `eprintln!`, which the test runner keeps to itself when a test passes.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED {test}: no reference vectors at {}; set CABINET_VECTORS",
        dir.display()
    );
    None
}

pub fn read_text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The `name = hex` lines of a vector file.
pub fn named_hex(text: &str) -> Vec<(String, Vec<u8>)> {
    lines(text)
        .map(|line| {
            let (name, bytes) = line.split_once(" = ").expect(line);
            (name.to_owned(), unhex(bytes))
        })
        .collect()
}

pub fn named<'a>(vectors: &'a [(String, Vec<u8>)], name: &str) -> &'a [u8] {
    let found = vectors.iter().find(|(have, _)| have == name);
    &found.unwrap_or_else(|| panic!("no vector {name}")).1
}

/// The lines that are neither empty nor comments.
pub fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Bytes of hex digits; spaces are ignored, the token `ab*3` is `ababab` and `none` is nothing.
pub fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace()
        .filter(|token| *token != "none")
        .flat_map(|token| {
            let (digits, times) = token.split_once('*').unwrap_or((token, "1"));
            let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect(token);
            let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(pair).collect();
            bytes.repeat(times.parse().expect(token))
        })
        .collect()
}

/// Hex in which a byte that repeats 32 times or more is written once, the inverse of [`unhex`].
pub fn short_hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "none".to_owned();
    }
    let mut text = String::new();
    let mut rest = bytes;
    while let Some(first) = rest.first() {
        let same = rest.iter().take_while(|byte| *byte == first).count();
        if same >= 32 {
            let gap = if text.is_empty() || text.ends_with(' ') {
                ""
            } else {
                " "
            };
            write!(text, "{gap}{first:02x}*{same} ").unwrap();
            rest = &rest[same..];
        } else {
            write!(text, "{first:02x}").unwrap();
            rest = &rest[1..];
        }
    }
    text.trim_end().to_owned()
}

pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// The grid every delta scenario starts from: a space in every cell.
pub fn spaces() -> Box<Grid> {
    let mut grid = delta::zeroed();
    for cell in grid.as_chunks_mut::<CELL_BYTES>().0 {
        cell[0] = b' ';
    }
    grid
}

/// Every byte of every cell from a small generator, seeded.
pub fn noise(seed: u64) -> Box<Grid> {
    let mut grid = delta::zeroed();
    let mut state = seed | 1;
    for byte in grid.iter_mut() {
        *byte = next_random(&mut state) as u8;
    }
    grid
}

/// xorshift64*, for tests that want noise and no property.
pub fn next_random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
}

/// `base` with about `per_mille` of 1000 cells changed in one byte, and how many that were.
pub fn changed(base: &Grid, per_mille: u64, seed: u64) -> (Box<Grid>, usize) {
    let mut next = delta::zeroed();
    next.copy_from_slice(base);
    let mut state = seed | 1;
    let mut count = 0;
    for cell in 0..FRAME_CELLS {
        if next_random(&mut state) % 1000 < per_mille {
            let byte = next_random(&mut state) as usize % CELL_BYTES;
            next[cell * CELL_BYTES + byte] ^= 1 + (next_random(&mut state) % 255) as u8;
            count += 1;
        }
    }
    (next, count)
}

pub const ADA: Member<'_> = Member {
    handle: Text::new("ada"),
    account: Text::new("acct-ada"),
    conn: Text::new("c1"),
    kind: Kind::Member,
    character: NO_CHARACTER,
};

pub const GUEST: Member<'_> = Member {
    handle: Text::new("guest-7"),
    account: Text::new(""),
    conn: Text::new("c2"),
    kind: Kind::Guest,
    character: NO_CHARACTER,
};

pub const NO_CHARACTER: Character<'_> = Character {
    glyph: Text::new(""),
    ink: [0; 3],
    bg: [0; 3],
    ascii_fallback: 0,
};

/// An owned string of bytes that may or may not be UTF-8.
pub fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        "[a-zé☃]{0,12}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
}

pub fn any_head() -> impl Strategy<Value = Head> {
    let mode = prop::sample::select(Mode::ALL);
    (
        any::<i64>(),
        any::<i64>(),
        any::<bool>(),
        mode,
        any::<(u16, u16)>(),
    )
        .prop_map(
            |(now_unix_nanos, seed, seed_set, mode, (capacity, min_players))| Head {
                now_unix_nanos,
                seed,
                seed_set,
                mode,
                capacity,
                min_players,
            },
        )
}

/// A member that owns its strings.
#[derive(Clone, Debug)]
pub struct AnyMember {
    texts: [Vec<u8>; 4],
    kind: Kind,
    colours: [[u8; 3]; 2],
    ascii_fallback: u8,
}

impl AnyMember {
    pub fn borrow(&self, with_character: bool) -> Member<'_> {
        let [handle, account, conn, glyph] = &self.texts;
        let character = Character {
            glyph: Text(glyph),
            ink: self.colours[0],
            bg: self.colours[1],
            ascii_fallback: self.ascii_fallback,
        };
        Member {
            handle: Text(handle),
            account: Text(account),
            conn: Text(conn),
            kind: self.kind,
            character: if with_character {
                character
            } else {
                NO_CHARACTER
            },
        }
    }
}

pub fn any_member() -> impl Strategy<Value = AnyMember> {
    let texts = [any_text(), any_text(), any_text(), any_text()];
    (
        texts,
        prop::sample::select(Kind::ALL),
        any::<[[u8; 3]; 2]>(),
        any::<u8>(),
    )
        .prop_map(|(texts, kind, colours, ascii_fallback)| AnyMember {
            texts,
            kind,
            colours,
            ascii_fallback,
        })
}

/// One word for why a meta is refused, as the accept tables write it.
pub fn reason(error: &MetaError) -> &'static str {
    match error {
        MetaError::Short => "short",
        MetaError::EmptySlug => "empty-slug",
        MetaError::UnknownControlKind { .. } => "control-kind",
        MetaError::ConfigKeyEmpty { .. } => "config-key-empty",
        MetaError::ConfigKeyRepeated { .. } => "config-key-repeated",
        MetaError::ConfigKeyReserved { .. } => "config-key-reserved",
        MetaError::ConfigTypeUnknown { .. } => "config-type",
        MetaError::SchemaOnNonJson { .. } => "schema-on-non-json",
        MetaError::SchemaMalformed { .. } => "schema-malformed",
        MetaError::HeartbeatOutOfRange { .. } => "heartbeat",
        MetaError::TooManyControls { .. } => "controls-count",
        MetaError::ControlRuneNotPrintable { .. } => "control-rune",
        MetaError::ControlKeyUnknown { .. } => "control-key",
        MetaError::ControlRepeated { .. } => "control-repeated",
        MetaError::ControlLabelEmpty { .. } => "control-label-empty",
        MetaError::ControlLabelTooLong { .. } => "control-label-long",
        MetaError::Slug(SlugError::Empty | SlugError::TooLong { .. } | SlugError::Byte { .. }) => {
            "slug-rule"
        }
        other => panic!("not a reason a host refuses a meta for: {other}"),
    }
}
