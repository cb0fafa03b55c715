//! The project's own vectors, in `vectors/`: written by these encoders, committed, and compared with
//! fresh output. `CABINET_WRITE_VECTORS=1` rewrites them; a difference in review is a difference on
//! the wire.

use std::fmt::Write as _;
use std::path::Path;

use cabinet_wire::ctx::{self, Character, Head, Member, Roster};
use cabinet_wire::input::{self, Input};
use cabinet_wire::meta::{self, Meta};
use cabinet_wire::outcome::{self, Ranking};
use cabinet_wire::{Key, Kind, Mode, Status, Text, delta};

use super::meta::{FULL, encoded, full_ends};
use super::scenarios;
use super::support::{fnv1a, hex, lines, named_hex, read_text, short_hex, spaces};

/// Compares `fresh` with the committed file, or writes the file when asked to.
pub fn compare(file: &str, about: &str, fresh: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(file);
    let about: String = about.lines().map(|line| format!("# {line}\n")).collect();
    let fresh = format!("{about}{fresh}");
    if std::env::var_os("CABINET_WRITE_VECTORS").is_some_and(|on| on == "1") {
        std::fs::write(&path, &fresh).unwrap();
    }
    let committed = read_text(&path);
    for (number, (have, want)) in committed.lines().zip(fresh.lines()).enumerate() {
        assert_eq!(have, want, "{file}:{}", number + 1);
    }
    assert_eq!(
        committed.len(),
        fresh.len(),
        "{file}: lines added or removed"
    );
    committed
}

const CTX_ABOUT: &str = "Call contexts, name = hex. The name ends in the features they were encoded with.
now 1750000000000000001, seed -7, set, private, capacity 6, min 2, settled; then the bytes aabb.
Members: zoë (member, glyph ♞, ink 10203f, background none, fallback N) and a keyless guest without a glyph.";

#[test]
fn contexts_are_as_committed() {
    let head = Head {
        now_unix_nanos: 1_750_000_000_000_000_001,
        seed: -7,
        seed_set: true,
        mode: Mode::Private,
        capacity: 6,
        min_players: 2,
    };
    let members = [
        Member {
            handle: Text::new("zoë"),
            account: Text::new("acct/zoe"),
            conn: Text::new("conn-1"),
            kind: Kind::Member,
            character: Character {
                glyph: Text::new("♞"),
                ink: [0x10, 0x20, 0x3F],
                bg: [0; 3],
                ascii_fallback: b'N',
            },
        },
        Member {
            handle: Text(b"\xff?"),
            conn: Text::new("conn-2"),
            ..Member::default()
        },
    ];
    let full = Roster::Full {
        epoch: 0x0102_0304,
        members: &members,
    };
    let forms = [
        ("legacy", Roster::Legacy(&members)),
        ("legacy_empty", Roster::Legacy(&[])),
        ("full", full),
        ("unchanged", Roster::Unchanged { epoch: 5 }),
    ];
    let mut fresh = String::new();
    for (name, roster) in forms {
        for features in 0..4 {
            let mut bytes = Vec::new();
            ctx::encode(&head, &roster, features, true, &mut bytes).unwrap();
            bytes.extend_from_slice(&[0xAA, 0xBB]);
            writeln!(fresh, "{name}_{features} = {}", hex(&bytes)).unwrap();
        }
    }
    for (name, bytes) in named_hex(&compare("ctx.txt", CTX_ABOUT, &fresh)) {
        let features = name.chars().last().and_then(|c| c.to_digit(10)).unwrap();
        let decoded = ctx::decode(&bytes, features).unwrap();
        assert_eq!((decoded.head, decoded.settled), (head, true), "{name}");
        assert_eq!(decoded.extras, [0xAA, 0xBB], "{name}");
        for (read, sent) in decoded.roster.members().zip(members) {
            assert_eq!(read.handle, sent.handle, "{name}");
            let shown = if features & 2 == 0 {
                Character::default()
            } else {
                sent.character
            };
            assert_eq!(read.character, shown, "{name}");
        }
    }
}

#[test]
fn inputs_are_as_committed() {
    let mut fresh = String::new();
    let mut add = |name: &str, write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        write(&mut bytes);
        writeln!(fresh, "{name} = {}", hex(&bytes)).unwrap();
    };
    add("index_0", &|out| input::encode_index(0, out));
    add("index_1023", &|out| input::encode_index(1023, out));
    for (name, rune) in [
        ("x", 'x' as u32),
        ("snowman", 0x2603),
        ("not_unicode", 0x11_0000),
    ] {
        add(&format!("rune_{name}"), &|out| {
            input::encode(1, &Input::Rune(rune), out)
        });
    }
    for &key in Key::ALL {
        add(&format!("key_{key}"), &|out| {
            input::encode(2, &Input::Key(key), out)
        });
    }
    let about = "What follows the context of join and leave (index_*) and of input, name = hex.";
    for (name, bytes) in named_hex(&compare("input.txt", about, &fresh)) {
        if let Some(key) = name.strip_prefix("key_") {
            let key = Key::from_name(key).unwrap();
            assert_eq!(input::decode(&bytes), Ok((2, Input::Key(key))));
        }
    }
}

#[test]
fn results_are_as_committed() {
    let mut odd = Ranking::new(1023, i64::MIN, u16::MAX, Status::Flagged);
    let all = [
        Ranking::new(0, i64::MAX, 1, Status::Finished),
        Ranking::new(3, -1, 0, Status::Dnf),
        odd,
    ];
    odd.status = 3;
    let mut fresh = String::new();
    for (name, rankings) in [
        ("empty", &[][..]),
        ("all_statuses", &all),
        ("unknown_status", &[odd]),
    ] {
        let mut bytes = Vec::new();
        outcome::encode(rankings, &mut bytes).unwrap();
        writeln!(fresh, "{name} = {}", hex(&bytes)).unwrap();
    }
    let about = "Results of end and post, name = hex. Players reach 1023.";
    for (name, bytes) in named_hex(&compare("outcome.txt", about, &fresh)) {
        let read: Vec<_> = outcome::decode(&bytes, 1024).unwrap().collect();
        let statuses = read
            .iter()
            .filter(|ranking| ranking.status().is_some())
            .count();
        assert_eq!(statuses, if name == "all_statuses" { 3 } else { 0 });
    }
}

#[test]
fn metas_are_as_committed() {
    let bytes = encoded(&FULL);
    let smallest = Meta {
        slug: Text::new("g"),
        ..Meta::default()
    };
    let mut fresh = format!("smallest = {}\n", hex(&encoded(&smallest)));
    let sections = [
        "none",
        "config",
        "largeroom",
        "lifecycle",
        "revision",
        "controls",
    ];
    for (section, end) in sections.iter().zip(full_ends()) {
        writeln!(fresh, "through_{section} = {}", hex(&bytes[..end])).unwrap();
    }
    let about = "Metas, name = hex. through_S is the same full meta ending after section S.";
    let vectors = named_hex(&compare("meta.txt", about, &fresh));
    assert_eq!(vectors.len(), 7);
    for (name, bytes) in vectors {
        let meta = meta::decode(&bytes).unwrap();
        assert_eq!(meta.validate_authored(), Ok(()), "{name}");
        assert_eq!(name == "through_controls", meta == FULL, "{name}");
    }
}

const DELTA_ABOUT: &str = "The delta encoder on six made-up games (tests/codecs/scenarios.rs), epoch 0, from a grid of spaces.
scenario frame | cells changed | run list | run list or keyframe | the frame's keyframe
An encoding is its length and either = and its hex or # and its 64-bit FNV-1a.";

#[test]
fn deltas_are_as_committed() {
    let mut fresh = String::new();
    for scenario in &scenarios::ALL {
        let mut prev = spaces();
        for frame in 0..scenario.frames {
            let next = scenario.frame(frame);
            let (mut run_list, mut either, mut keyframe) = (Vec::new(), Vec::new(), Vec::new());
            let changed = delta::encode_run_list(&prev, &next, 0, &mut run_list);
            delta::encode(&prev, &next, 0, &mut either);
            delta::encode_keyframe(&next, 0, &mut keyframe);
            let columns = [&run_list, &either, &keyframe]
                .map(|bytes| summary(bytes))
                .join(" | ");
            writeln!(fresh, "{} {frame} | {changed} | {columns}", scenario.name).unwrap();

            for (base, bytes) in [(&prev, &run_list), (&prev, &either), (&spaces(), &keyframe)] {
                let mut grid = base.clone();
                delta::check(bytes).unwrap().apply_to(&mut grid);
                assert!(grid == next, "{} {frame}", scenario.name);
            }
            prev = next;
        }
    }
    let committed = compare("delta.txt", DELTA_ABOUT, &fresh);
    assert_eq!(lines(&committed).count(), 12 + 16 + 20 + 20 + 8 + 5);
}

fn summary(bytes: &[u8]) -> String {
    match bytes.len() {
        len @ 0..=600 => format!("{len}={}", short_hex(bytes).replace(' ', "_")),
        len => format!("{len}#{:016x}", fnv1a(bytes)),
    }
}
