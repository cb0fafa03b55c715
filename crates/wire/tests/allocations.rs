//! What allocates: encoders nothing once their buffer is warm, decoders nothing at all, and
//! validation no more than the payload can pay for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell as Counter;

use cabinet_wire::ctx::{self, Character, Head, Member, Roster, RosterForm};
use cabinet_wire::input::{self, Input};
use cabinet_wire::meta::{self, ConfigSpec, Control, ControlInput, Leaderboard, List, Meta};
use cabinet_wire::outcome::{self, Ranking};
use cabinet_wire::{CELL_BYTES, Key, Status, Text, delta, json};

struct Counting;

thread_local! {
    static CALLS: Counter<usize> = const { Counter::new(0) };
    static BYTES: Counter<usize> = const { Counter::new(0) };
}

fn count(bytes: usize) {
    CALLS.set(CALLS.get() + 1);
    BYTES.set(BYTES.get() + bytes);
}

// SAFETY: every call goes to the system allocator unchanged; counting touches two thread-local
// cells that need neither allocation nor a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `work` makes, and of how many bytes.
fn allocations(work: impl FnOnce()) -> (usize, usize) {
    let before = (CALLS.get(), BYTES.get());
    work();
    (CALLS.get() - before.0, BYTES.get() - before.1)
}

const HEAD: Head = Head {
    now_unix_nanos: 1,
    seed: 2,
    seed_set: true,
    mode: cabinet_wire::Mode::Quick,
    capacity: 0,
    min_players: 1,
};

fn members() -> Vec<Member<'static>> {
    let member = Member {
        handle: Text::new("somebody"),
        account: Text::new("account"),
        conn: Text::new("connection"),
        character: Character {
            glyph: Text::new("@"),
            ..Character::default()
        },
        ..Member::default()
    };
    vec![member; 1000]
}

const META: Meta<'_> = Meta {
    slug: Text::new("counted"),
    tags: List::new(&[Text::new("a"), Text::new("b")]),
    leaderboard: Some(Leaderboard {
        metric_label: Text::new("points"),
        direction: 0,
        aggregation: 0,
        format: 0,
    }),
    config: List::new(&[ConfigSpec {
        key: Text::new("k"),
        title: Text::new("K"),
        description: Text::new(""),
        config_type: 3,
        default: Text::new("{}"),
        schema: Text::new("{\"type\":\"object\"}"),
    }]),
    controls: List::new(&[Control {
        input: ControlInput::Key(1),
        label: Text::new("GO"),
    }]),
    name: Text::new(""),
    short_description: Text::new(""),
    min_players: 1,
    max_players: 2,
    quick_mode_label: Text::new(""),
    solo_mode_label: Text::new(""),
    private_invite_line: Text::new(""),
    ctx_features: 3,
    heartbeat_ms: 50,
    lifecycle: 0,
    wire_revision: 6,
};

#[test]
fn the_counter_counts() {
    let (calls, bytes) = allocations(|| drop(vec![0u8; 100]));
    assert_eq!((calls, bytes), (1, 100));
}

#[test]
fn no_encoder_allocates_once_its_buffer_is_warm() {
    let members = members();
    let mut section = Vec::new();
    ctx::encode_members(members.iter().copied(), 3, &mut section).unwrap();
    let base = delta::zeroed();
    let mut few = base.clone();
    few[77 * CELL_BYTES] = 1;
    let mut all = base.clone();
    all.fill(9);
    let rankings = [Ranking::new(0, 1, 1, Status::Finished); 1000];

    let mut out = Vec::new();
    let mut encode_everything = || {
        for roster in [
            Roster::Legacy(&members),
            Roster::Full {
                epoch: 3,
                members: &members,
            },
            Roster::Unchanged { epoch: 3 },
        ] {
            out.clear();
            ctx::encode(&HEAD, &roster, 3, false, &mut out).unwrap();
            input::encode(0, &Input::Key(Key::Up), &mut out);
        }
        out.clear();
        ctx::encode_members(members.iter().copied(), 3, &mut out).unwrap();
        out.clear();
        let form = RosterForm::Full { epoch: 4 };
        ctx::encode_with_members(&HEAD, form, 1000, &section, false, &mut out).unwrap();
        input::encode_index(0, &mut out);
        out.clear();
        outcome::encode(&rankings, &mut out).unwrap();
        out.clear();
        meta::encode(&META, &mut out).unwrap();
        for next in [&base, &few, &all] {
            out.clear();
            delta::encode_run_list(&base, next, 0, &mut out);
            out.clear();
            delta::encode(&base, next, 0, &mut out);
            out.clear();
            delta::encode_keyframe(next, 0, &mut out);
        }
    };
    let (cold, _) = allocations(&mut encode_everything);
    assert!(cold > 0, "the first pass warms the buffer");
    let warm = allocations(&mut encode_everything);
    assert_eq!(warm, (0, 0));
}

#[test]
fn no_decoder_allocates() {
    let members = members();
    let mut context = Vec::new();
    ctx::encode(&HEAD, &Roster::Legacy(&members), 3, false, &mut context).unwrap();
    let mut result = Vec::new();
    outcome::encode(&[Ranking::new(0, 1, 1, Status::Dnf); 500], &mut result).unwrap();
    let mut declared = Vec::new();
    meta::encode(&META, &mut declared).unwrap();
    let mut grid = delta::zeroed();
    let mut keyframe = Vec::new();
    delta::encode_keyframe(&grid, 0, &mut keyframe);
    let schema = [b"[".repeat(9000), b"]".repeat(9000)].concat();

    let made = allocations(|| {
        assert_eq!(
            ctx::decode(&context, 3).unwrap().roster.members().count(),
            1000
        );
        assert_eq!(outcome::decode(&result, 1).unwrap().count(), 500);
        let meta = meta::decode(&declared).unwrap();
        assert_eq!(meta.tags.iter().count() + meta.config.iter().count(), 3);
        delta::check(&keyframe).unwrap().apply_to(&mut grid);
        assert!(json::is_well_formed(&schema));
    });
    assert_eq!(made, (0, 0));
}

#[test]
fn a_count_without_bytes_behind_it_reserves_nothing() {
    let mut context = Vec::new();
    ctx::encode(&HEAD, &Roster::Legacy(&[]), 0, false, &mut context).unwrap();
    context[22..24].copy_from_slice(&0xFFFDu16.to_le_bytes());
    let mut full = Vec::new();
    let roster = Roster::Full {
        epoch: 0,
        members: &[],
    };
    ctx::encode(&HEAD, &roster, 0, false, &mut full).unwrap();
    full[28..30].copy_from_slice(&0xFFFFu16.to_le_bytes());
    let mut tags = vec![0; 11];
    tags[..3].copy_from_slice(&[1, 0, b'g']);
    tags.extend_from_slice(&[0xFF, 0xFF]);
    let runs = [0, 0, 0, 0, 0, 0xFF, 0xFF, 24, 80];

    let made = allocations(|| {
        assert!(ctx::decode(&context, 0).is_err());
        assert!(ctx::decode(&full, 0).is_err());
        assert!(meta::decode(&tags).is_err());
        assert!(outcome::decode(&[0xFF, 0xFF], 1).is_err());
        assert!(delta::check(&runs).is_err());
    });
    assert_eq!(made, (0, 0));
}

#[test]
fn validation_allocates_in_proportion_to_the_payload() {
    let keys: Vec<_> = (0..10_000u32).map(u32::to_be_bytes).collect();
    let specs: Vec<_> = (keys.iter())
        .map(|key| ConfigSpec {
            key: Text(key),
            ..ConfigSpec::default()
        })
        .collect();
    let config = List::new(&specs);
    let mut bytes = Vec::new();
    meta::encode(&Meta { config, ..META }, &mut bytes).unwrap();
    let meta = meta::decode(&bytes).unwrap();
    let (calls, reserved) = allocations(|| meta.validate().unwrap());
    assert_eq!(calls, 1, "the keys, once");
    assert!(
        reserved <= 2 * bytes.len(),
        "{reserved} bytes for a payload of {}",
        bytes.len()
    );
}
