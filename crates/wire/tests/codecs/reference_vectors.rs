//! The vectors recorded from the reference. They are not part of this repository: see
//! [`shared_vectors`]; `own_vectors` covers the same ground in a bare clone.

use std::path::Path;

use cabinet_wire::ctx::{self, Character, CtxError, DecodedRoster, Head, Member, Roster};
use cabinet_wire::delta::{self, Grid};
use cabinet_wire::meta::{
    self, ConfigSpec, Control, ControlInput, Leaderboard, List, Meta, MetaError,
};
use cabinet_wire::outcome::{self, Ranking};
use cabinet_wire::{CELL_BYTES, FRAME_BYTES, Kind, Mode, Status, Text};

use super::delta::container;
use super::meta::encoded;
use super::scenarios;
use super::support::{
    ADA, GUEST, hex, lines, named, named_hex, noise, read_text, reason, shared_vectors, spaces,
    unhex,
};

#[test]
fn all_2164_recorded_frames_are_encoded_byte_for_byte() {
    let Some(dir) = shared_vectors("recorded frames") else {
        return;
    };
    let mut files = 0;
    let mut frames = 0;
    for entry in std::fs::read_dir(dir.join("dgld")).unwrap() {
        frames += replay_frames(&entry.unwrap().path());
        files += 1;
    }
    assert_eq!((files, frames), (11, 2164));
}

/// Encodes and applies every frame of a file and returns how many there are.
fn replay_frames(path: &Path) -> u32 {
    let bytes = std::fs::read(path).unwrap();
    let name = path.file_stem().unwrap().to_str().unwrap();
    let synthetic = scenarios::ALL
        .iter()
        .find(|s| name == format!("synth-{}", s.name));
    let mut rest = &bytes[..];
    assert_eq!(take(&mut rest, 4), b"DGLD");
    assert_eq!(
        (take_u32(&mut rest), take_u32(&mut rest)),
        (2, FRAME_BYTES as u32)
    );
    let frames = take_u32(&mut rest);
    let mut prev = spaces();
    let (mut run_list, mut either) = (Vec::new(), Vec::new());
    for frame in 0..frames {
        let mut next = prev.clone();
        let changed = take_u32(&mut rest);
        for _ in 0..changed {
            let cell = usize::from(u16::from_le_bytes(take(&mut rest, 2).try_into().unwrap()));
            next[cell * CELL_BYTES..][..CELL_BYTES].copy_from_slice(take(&mut rest, CELL_BYTES));
        }
        let expected_run_list = take_sized(&mut rest);
        let expected = take_sized(&mut rest);

        run_list.clear();
        let count = delta::encode_run_list(&prev, &next, 0, &mut run_list);
        assert_eq!(count, changed as usize, "{name} {frame}");
        assert!(run_list == expected_run_list, "{name} {frame}: run list");
        either.clear();
        let encoded = delta::encode(&prev, &next, 0, &mut either);
        assert!(either == expected, "{name} {frame}: run list or keyframe");
        assert_eq!(encoded.keyframe, expected[0] == 1, "{name} {frame}");

        assert!(
            applied(&prev, expected_run_list) == next,
            "{name} {frame}: applied"
        );
        if encoded.keyframe {
            assert!(
                applied(&noise(9), expected) == next,
                "{name} {frame}: keyframe applied"
            );
        }
        if let Some(scenario) = synthetic {
            assert!(
                scenario.frame(frame as usize) == next,
                "{name} {frame}: our own drawing"
            );
        }
        prev = next;
    }
    if let Some(scenario) = synthetic {
        assert_eq!(scenario.frames, frames as usize, "{name}");
    }
    assert!(rest.is_empty(), "{name}: bytes left");
    frames
}

fn applied(base: &Grid, bytes: &[u8]) -> Box<Grid> {
    let mut grid = delta::zeroed();
    grid.copy_from_slice(base);
    delta::check(bytes).unwrap().apply_to(&mut grid);
    grid
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(len);
    *rest = left;
    taken
}

fn take_u32(rest: &mut &[u8]) -> u32 {
    u32::from_le_bytes(take(rest, 4).try_into().unwrap())
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let len = take_u32(rest);
    take(rest, len as usize)
}

#[test]
fn all_151_recorded_metas_get_the_same_verdict_for_the_same_reason() {
    let Some(dir) = shared_vectors("recorded meta verdicts") else {
        return;
    };
    let text = read_text(&dir.join("text/meta-accept.txt"));
    let mut cases = 0;
    for line in lines(&text) {
        let fields: Vec<_> = line.split(" | ").collect();
        let (name, verdict, payload) = (fields[0], fields[1], *fields.last().unwrap());
        let bytes = match name {
            "schema_depth9999" => with_schema(9999),
            "schema_depth10001" => with_schema(10001),
            _ => unhex(payload),
        };
        let decoded = meta::decode(&bytes);
        let ours = match decoded.and_then(|meta| meta.validate()) {
            Ok(()) => "ok",
            Err(error) => reason(&error),
        };
        let theirs = match verdict {
            "ok" => "ok",
            "ERR" => "schema-malformed",
            error => recorded_reason(error),
        };
        assert_eq!(ours, theirs, "{name}: {verdict}");
        if let (Ok(meta), true) = (decoded, fields.len() == 4 && !fields[2].trim().is_empty()) {
            let summary = format!(
                "{:#x} {} {} {} {} {}",
                meta.ctx_features,
                meta.heartbeat_ms,
                meta.lifecycle() as u8,
                meta.wire_revision,
                meta.config.len(),
                meta.controls.len()
            );
            assert_eq!(summary, fields[2], "{name}");
        }
        cases += 1;
    }
    assert_eq!(cases, 151);
}

fn with_schema(depth: usize) -> Vec<u8> {
    let schema = ["[".repeat(depth), "]".repeat(depth)].concat();
    let spec = ConfigSpec {
        key: Text::new("k"),
        config_type: 3,
        schema: Text::new(&schema),
        ..ConfigSpec::default()
    };
    encoded(&Meta {
        slug: Text::new("g"),
        config: List::new(&[spec]),
        ..Meta::default()
    })
}

/// Our word for the reference's text.
fn recorded_reason(text: &str) -> &'static str {
    let classes = [
        ("short or malformed payload", "short"),
        ("meta has empty slug", "empty-slug"),
        ("slug rule", "slug-rule"),
        ("HeartbeatMS", "heartbeat"),
        ("has an empty key", "config-key-empty"),
        ("uses the reserved", "config-key-reserved"),
        ("duplicate config spec key", "config-key-repeated"),
        ("has unknown type", "config-type"),
        ("schema on a non-json type", "schema-on-non-json"),
        ("schema is not valid JSON", "schema-malformed"),
        ("has unknown input kind", "control-kind"),
        ("declares non-printable rune", "control-rune"),
        ("declares unassigned key code", "control-key"),
        ("has an empty label", "control-label-empty"),
        ("exceeds 16 runes", "control-label-long"),
        ("duplicates an earlier declared input", "control-repeated"),
        ("control decls (max 32)", "controls-count"),
    ];
    let mut found = classes.iter().filter(|(needle, _)| text.contains(needle));
    let (_, class) = found
        .next()
        .unwrap_or_else(|| panic!("unknown reason: {text}"));
    assert_eq!(found.next(), None, "{text}");
    class
}

#[test]
fn all_22_recorded_containers_get_the_same_verdict() {
    let Some(dir) = shared_vectors("recorded container verdicts") else {
        return;
    };
    let text = read_text(&dir.join("text/delta-accept.txt"));
    let mut cases = 0;
    for line in lines(&text) {
        let fields: Vec<_> = line.split(" | ").collect();
        let bytes = recorded_container(fields[0]);
        assert_eq!(
            format!("len={}", bytes.len()),
            fields[2].trim(),
            "{}",
            fields[0]
        );
        let accepted = delta::check(&bytes).is_ok();
        assert_eq!(accepted, fields[1] == "ok", "{}", fields[0]);
        cases += 1;
    }
    assert_eq!(cases, 22);
}

/// The container of that name; the recording gives lengths and descriptions only.
fn recorded_container(name: &str) -> Vec<u8> {
    let header = |at: usize, value: u8| {
        let mut bytes = container(0, 0, &[]);
        bytes[at] = value;
        bytes
    };
    match name {
        "empty" => Vec::new(),
        "hdr8" => container(0, 0, &[])[..8].to_vec(),
        "nochange" => container(0, 0, &[]),
        "nochange_keyframe_flag" => container(1, 0, &[]),
        "keyframe_partial_run" => container(1, 1, &[(3, 2, 0)]),
        "keyframe_two_runs_full" => container(1, 2, &[(0, 960, 0), (960, 960, 0)]),
        "flag2" => header(0, 2),
        "flag80" => header(0, 0x80),
        "rows25" => header(7, 25),
        "cols0" => header(8, 0),
        "adjacent_runs" => container(0, 2, &[(0, 2, 0), (2, 1, 0)]),
        "overlap" => container(0, 2, &[(0, 2, 0), (1, 1, 0)]),
        "descending" => container(0, 2, &[(5, 1, 0), (3, 1, 0)]),
        "len0" => container(0, 1, &[(0, 0, 0)]),
        "last_cell" => container(0, 1, &[(1919, 1, 0)]),
        "oob1" => container(0, 1, &[(1920, 1, 0)]),
        "oob2" => container(0, 1, &[(1919, 2, 0)]),
        // Announces two cells and brings one.
        "short_body" => {
            let mut bytes = container(0, 1, &[(0, 1, 0)]);
            bytes[11] = 2;
            bytes
        }
        "trailing" => [container(0, 1, &[(0, 1, 0)]), vec![0]].concat(),
        "runcount_low" => container(0, 1, &[(0, 1, 0), (5, 1, 0)]),
        "runcount_high" => container(0, 3, &[(0, 1, 0), (5, 1, 0)]),
        "dirty_pad_ok" => {
            let mut bytes = container(0, 1, &[(0, 1, 0)]);
            bytes[13 + 12] = 9;
            bytes[13 + 21] = 7;
            bytes[13 + 22..].fill(0xFF);
            bytes
        }
        name => panic!("unknown case {name}"),
    }
}

const GOLDEN_SPECS: &[ConfigSpec<'_>] = &[
    ConfigSpec {
        key: Text::new("odds-variant"),
        title: Text::new("Odds variant"),
        description: Text::new("PAR sheet."),
        config_type: 3,
        default: Text::new("{\"name\":\"Default\"}"),
        schema: Text::new("{\"type\":\"object\"}"),
    },
    ConfigSpec {
        key: Text::new("motd"),
        title: Text::new("Banner"),
        description: Text::new("Floor banner."),
        config_type: 0,
        default: Text::new(""),
        schema: Text::new(""),
    },
];

const RESIGN: Control<'_> = Control {
    input: ControlInput::Rune('r' as u32),
    label: Text::new("RESIGN"),
};

const UNDO: Control<'_> = Control {
    input: ControlInput::Key(2),
    label: Text::new("UNDO"),
};

const GOLDEN_FULL: Meta<'_> = Meta {
    slug: Text::new("golden-full"),
    name: Text::new("Golden Full"),
    short_description: Text::new("every section populated"),
    min_players: 2,
    max_players: 8,
    tags: List::new(&[Text::new("multi"), Text::new("card")]),
    quick_mode_label: Text::new("Deal me in"),
    solo_mode_label: Text::new("Practice"),
    private_invite_line: Text::new("Join my table"),
    leaderboard: Some(Leaderboard {
        metric_label: Text::new("chips"),
        direction: 1,
        aggregation: 1,
        format: 2,
    }),
    config: List::new(GOLDEN_SPECS),
    ctx_features: 1,
    heartbeat_ms: 250,
    lifecycle: 1,
    wire_revision: 6,
    controls: List::new(&[RESIGN, UNDO]),
};

type Cut = fn(&mut Meta<'_>);

#[test]
fn the_recorded_metas_are_written_and_read_byte_for_byte() {
    let Some(dir) = shared_vectors("recorded metas") else {
        return;
    };
    let vectors = named_hex(&read_text(&dir.join("text/scalars.txt")));
    let default = Meta {
        slug: Text::new("default"),
        min_players: 1,
        max_players: 1,
        wire_revision: 6,
        ..Meta::default()
    };
    for (name, meta) in [("meta_default", default), ("meta_full", GOLDEN_FULL)] {
        let bytes = named(&vectors, name);
        assert_eq!(hex(&encoded(&meta)), hex(bytes), "{name}");
        assert_eq!(meta::decode(bytes).unwrap(), meta, "{name}");
    }

    let mut whole = Meta {
        slug: Text::new("trunc"),
        name: Text::new("Trunc"),
        min_players: 1,
        max_players: 4,
        leaderboard: Some(Leaderboard {
            metric_label: Text::new("score"),
            direction: 1,
            aggregation: 0,
            format: 0,
        }),
        ctx_features: 1,
        heartbeat_ms: 100,
        lifecycle: 1,
        wire_revision: 6,
        ..Meta::default()
    };
    // From the youngest section to the oldest: what each cut takes away.
    let cuts: [(&str, Cut); 5] = [
        ("controls", |_| {}),
        ("revision", |meta| meta.wire_revision = 0),
        ("lifecycle", |meta| meta.lifecycle = 0),
        ("largeroom", |meta| {
            (meta.ctx_features, meta.heartbeat_ms) = (0, 0)
        }),
        ("config", |_| {}),
    ];
    for (section, cut) in cuts {
        cut(&mut whole);
        let bytes = named(&vectors, &format!("meta_trunc_pre_{section}"));
        assert_eq!(meta::decode(bytes).unwrap(), whole, "before {section}");
    }
}

#[test]
fn the_metas_pinned_elsewhere_are_written_byte_for_byte() {
    // Controls only, and the large-room trailer: recorded from the reference's Rust SDK.
    let controls = Meta {
        slug: Text::new("ctlg"),
        name: Text::new("CtlG"),
        min_players: 1,
        max_players: 2,
        wire_revision: 6,
        controls: List::new(&[RESIGN, UNDO]),
        ..Meta::default()
    };
    assert_eq!(
        hex(&encoded(&controls)),
        "040063746c67040043746c47000001000200000000000000000000000000000000000000060002000072000000060052455349474e01020400554e444f"
    );
    let large_room = Meta {
        slug: Text::new("lr"),
        name: Text::new("LR"),
        min_players: 1,
        max_players: 1000,
        ctx_features: 1,
        heartbeat_ms: 100,
        wire_revision: 6,
        ..Meta::default()
    };
    assert!(hex(&encoded(&large_room)).ends_with("0100000064000006000000"));

    // What the five reference artifacts say of themselves, by age: before any section, and with
    // sections up to the lifecycle.
    let fixture = unhex(
        "070066697874757265070046697874757265120067616d656162692074657374206775657374\
         01000200000000000000000000",
    );
    let read = meta::decode(&fixture).unwrap();
    read.validate().unwrap();
    assert_eq!(read.short_description, Text::new("gameabi test guest"));
    assert_eq!(
        (read.min_players, read.max_players, read.wire_revision),
        (1, 2, 0)
    );
    let loadspike = unhex(
        "09006c6f61647370696b650a004c6f6164205370696b652100424f4e4559415244204d6f64656c2041206c6f61642d7370696b\
         652067756573740100e803000000000000000000000001000000640002",
    );
    let read = meta::decode(&loadspike).unwrap();
    read.validate().unwrap();
    assert_eq!(
        (read.max_players, read.ctx_features, read.heartbeat_ms),
        (1000, 1, 100)
    );
    assert_eq!(
        (read.lifecycle, read.wire_revision, read.controls.len()),
        (2, 0, 0)
    );
}

/// Checks a context with a `u32` 7 behind it, both ways.
fn context(bytes: &[u8], head: &Head, roster: Roster<'_>, features: u32) {
    let mut out = Vec::new();
    ctx::encode(head, &roster, features, true, &mut out).unwrap();
    out.extend_from_slice(&7u32.to_le_bytes());
    assert_eq!(hex(&out), hex(bytes));

    let decoded = ctx::decode(bytes, features).unwrap();
    assert_eq!(decoded.head, *head);
    assert!(decoded.settled);
    assert_eq!(decoded.extras, 7u32.to_le_bytes());
    let members: Vec<_> = decoded.roster.members().collect();
    let read = match decoded.roster {
        DecodedRoster::Legacy(_) => Roster::Legacy(&members),
        DecodedRoster::Full { epoch, .. } => Roster::Full {
            epoch,
            members: &members,
        },
        DecodedRoster::Unchanged { epoch } => Roster::Unchanged { epoch },
    };
    assert_eq!(read, roster);
}

#[test]
fn the_recorded_contexts_are_written_and_read_byte_for_byte() {
    let Some(dir) = shared_vectors("recorded contexts") else {
        return;
    };
    let vectors = named_hex(&read_text(&dir.join("text/scalars.txt")));
    let head = Head {
        now_unix_nanos: 1_718_000_000_123_456_789,
        seed: -42,
        seed_set: true,
        mode: Mode::Private,
        capacity: 8,
        min_players: 2,
    };
    let members = [ADA, GUEST];
    let legacy = named(&vectors, "ctx_legacy");
    context(legacy, &head, Roster::Legacy(&members), 0);
    let full = Roster::Full {
        epoch: 42,
        members: &members,
    };
    context(named(&vectors, "ctx_epoch_full"), &head, full, 1);
    let unchanged = Roster::Unchanged { epoch: 43 };
    context(named(&vectors, "ctx_epoch_unchanged"), &head, unchanged, 1);

    let misread = ctx::decode(legacy, 2).unwrap_err();
    assert_eq!(misread, CtxError::Short, "characters that were not sent");
}

#[test]
fn the_recorded_contexts_with_characters_are_written_and_read_byte_for_byte() {
    let Some(dir) = shared_vectors("recorded contexts with characters") else {
        return;
    };
    let vectors = named_hex(&read_text(&dir.join("text/ctx_character.txt")));
    let head = Head {
        now_unix_nanos: 9,
        seed: 7,
        seed_set: true,
        mode: Mode::Private,
        capacity: 4,
        min_players: 2,
    };
    let ana = Member {
        handle: Text::new("ana"),
        account: Text::new("a-1"),
        conn: Text::new("c-1"),
        kind: Kind::Member,
        character: Character {
            glyph: Text::new("λ"),
            ink: [0x39, 0xFF, 0x14],
            bg: [0x2D, 0x1B, 0x4E],
            ascii_fallback: b'L',
        },
    };
    let bob = Member {
        handle: Text::new("bob"),
        account: Text::new("a-2"),
        conn: Text::new("c-2"),
        kind: Kind::Guest,
        character: Character {
            glyph: Text::new("@"),
            ink: [1, 2, 3],
            bg: [4, 5, 6],
            ascii_fallback: b'@',
        },
    };
    let members = [ana, bob];
    context(
        named(&vectors, "ctx_character_legacy"),
        &head,
        Roster::Legacy(&members),
        2,
    );
    let full = Roster::Full {
        epoch: 42,
        members: &members,
    };
    context(named(&vectors, "ctx_character_epoch_full"), &head, full, 3);
}

#[test]
fn the_recorded_result_is_written_and_read_byte_for_byte() {
    let Some(dir) = shared_vectors("recorded result") else {
        return;
    };
    let vectors = named_hex(&read_text(&dir.join("text/scalars.txt")));
    let bytes = named(&vectors, "result_mixed");
    let rankings = [
        Ranking::new(2, 9000, 1, Status::Finished),
        Ranking::new(0, -1, 2, Status::Dnf),
        Ranking::new(1, 512, 2, Status::Finished),
    ];
    let mut out = Vec::new();
    outcome::encode(&rankings, &mut out).unwrap();
    assert_eq!(hex(&out), hex(bytes));
    assert!(outcome::decode(bytes, 3).unwrap().eq(rankings));
    assert!(outcome::decode(bytes, 2).is_err());
}

#[test]
fn a_meta_of_a_hundred_megabyte_of_promises_is_short() {
    // Counts without bytes behind them: the recording has none of these, the reference refuses all.
    let start = unhex("0100 67 0000 0000 0000 0000");
    for tail in [
        "ffff",
        "0000 0000 0000 0000 00 ffff",
        "0000 0000 0000 0000 00 0000 000000000000 00 0000 ffff",
    ] {
        let bytes = [start.clone(), unhex(tail)].concat();
        assert_eq!(
            meta::decode(&bytes).unwrap_err(),
            MetaError::Short,
            "{tail}"
        );
    }
}
