//! The project's own accept tables: which metas and which frame containers a host takes. Committed in
//! `vectors/` as `own_vectors` describes.

use std::fmt::Write as _;

use cabinet_wire::meta::{self, ConfigSpec, Control, ControlInput, Leaderboard, List, Meta};
use cabinet_wire::{Text, delta};

use super::delta::container;
use super::meta::encoded;
use super::own_vectors::compare;
use super::support::{lines, reason, short_hex, unhex};

const META_ABOUT: &str =
    "Which metas a host accepts, name | verdict | hex. ab*3 stands for ababab, none for no bytes.
Every prefix of one meta with every section (prefix_N), then one rule at a time.";

/// A short meta with something in every section.
const BRIEF: Meta<'_> = Meta {
    slug: Text::new("brief"),
    name: Text::new("B"),
    short_description: Text::new("d"),
    min_players: 1,
    max_players: 4,
    tags: List::new(&[Text::new("t")]),
    quick_mode_label: Text::new(""),
    solo_mode_label: Text::new(""),
    private_invite_line: Text::new(""),
    leaderboard: Some(Leaderboard {
        metric_label: Text::new("p"),
        direction: 0,
        aggregation: 1,
        format: 2,
    }),
    config: List::new(&[ConfigSpec {
        key: Text::new("k"),
        title: Text::new("K"),
        description: Text::new(""),
        config_type: 3,
        default: Text::new("1"),
        schema: Text::new("{}"),
    }]),
    ctx_features: 3,
    heartbeat_ms: 100,
    lifecycle: 1,
    wire_revision: 6,
    controls: List::new(&[
        Control {
            input: ControlInput::Rune('u' as u32),
            label: Text::new("U"),
        },
        Control {
            input: ControlInput::Key(3),
            label: Text::new("E"),
        },
    ]),
};

/// Where the brief meta may end: in front of its sections, and after each.
const BRIEF_ENDS: [usize; 6] = [35, 53, 59, 60, 62, 77];

#[test]
fn meta_verdicts_are_as_committed() {
    let bytes = encoded(&BRIEF);
    let mut fresh = String::new();
    for len in 0..=bytes.len() {
        let verdict = if BRIEF_ENDS.contains(&len) {
            "ok"
        } else {
            "bad"
        };
        let name = format!("prefix_{len:02}_{verdict}");
        meta_case(&mut fresh, &name, &bytes[..len]);
    }
    meta_case(
        &mut fresh,
        "trailing_junk_ok",
        &[&bytes[..], &[0xDE, 0xAD]].concat(),
    );
    for (name, meta) in plain_cases() {
        meta_case(&mut fresh, &name, &encoded(&meta));
    }
    for (name, specs) in config_cases() {
        let config = List::new(&specs);
        meta_case(&mut fresh, &name, &encoded(&Meta { config, ..BRIEF }));
    }
    for (name, schema) in schema_cases() {
        let spec = ConfigSpec {
            key: Text::new("k"),
            config_type: 3,
            schema: Text(&schema),
            ..ConfigSpec::default()
        };
        let config = List::new(std::slice::from_ref(&spec));
        meta_case(
            &mut fresh,
            &format!("schema_{name}"),
            &encoded(&Meta { config, ..BRIEF }),
        );
    }
    for (name, controls) in control_cases() {
        let controls = List::new(&controls);
        meta_case(&mut fresh, &name, &encoded(&Meta { controls, ..BRIEF }));
    }
    let mut unknown_kind = bytes.clone();
    unknown_kind[BRIEF_ENDS[4] + 2] = 2;
    meta_case(&mut fresh, "control_kind_2_bad", &unknown_kind);
    let mut leaderboard = encoded(&Meta {
        leaderboard: None,
        ..BRIEF
    });
    let flag = BRIEF_ENDS[0] - (1 + 2 + 1 + 3);
    assert_eq!(leaderboard[flag], 0);
    leaderboard[flag] = 2;
    meta_case(&mut fresh, "leaderboard_flag_2_is_none_ok", &leaderboard);

    let committed = compare("meta-accept.txt", META_ABOUT, &fresh);
    for line in lines(&committed) {
        let fields: Vec<_> = line.split(" | ").collect();
        // The name says what is expected, so that a rewritten file cannot agree with a wrong gate.
        let expected = fields[0].ends_with("_ok");
        assert!(expected || fields[0].ends_with("_bad"), "{line}");
        assert_eq!(fields[1] == "ok", expected, "{line}");
        assert_eq!(verdict(&unhex(fields[2])), fields[1], "{}", fields[0]);
    }
}

fn meta_case(table: &mut String, name: &str, bytes: &[u8]) {
    writeln!(table, "{name} | {} | {}", verdict(bytes), short_hex(bytes)).unwrap();
}

fn verdict(bytes: &[u8]) -> &'static str {
    match meta::decode(bytes).and_then(|meta| meta.validate()) {
        Ok(()) => "ok",
        Err(error) => reason(&error),
    }
}

fn plain_cases() -> Vec<(String, Meta<'static>)> {
    let mut cases = Vec::new();
    for (bits, name) in [(0, "none"), (1 << 9, "unknown"), (u32::MAX, "all")] {
        cases.push((
            format!("features_{name}_ok"),
            Meta {
                ctx_features: bits,
                ..BRIEF
            },
        ));
    }
    for (heartbeat_ms, verdict) in [
        (0, "ok"),
        (1, "bad"),
        (19, "bad"),
        (20, "ok"),
        (1000, "ok"),
        (1001, "bad"),
        (65535, "bad"),
    ] {
        let name = format!("heartbeat_{heartbeat_ms}_{verdict}");
        cases.push((
            name,
            Meta {
                heartbeat_ms,
                ..BRIEF
            },
        ));
    }
    for lifecycle in [0, 2, 3, 255] {
        cases.push((
            format!("lifecycle_{lifecycle}_ok"),
            Meta { lifecycle, ..BRIEF },
        ));
    }
    for wire_revision in [0, 7, 65535] {
        cases.push((
            format!("revision_{wire_revision}_ok"),
            Meta {
                wire_revision,
                ..BRIEF
            },
        ));
    }
    for (min_players, max_players) in [(0, 0), (9, 2), (1, 65535)] {
        let name = format!("players_{min_players}_{max_players}_ok");
        cases.push((
            name,
            Meta {
                min_players,
                max_players,
                ..BRIEF
            },
        ));
    }
    let mut leaderboard = BRIEF.leaderboard.unwrap();
    (
        leaderboard.direction,
        leaderboard.aggregation,
        leaderboard.format,
    ) = (99, 99, 99);
    let meta = Meta {
        leaderboard: Some(leaderboard),
        ..BRIEF
    };
    cases.push(("leaderboard_codes_99_ok".to_owned(), meta));
    cases.push((
        "name_not_utf8_ok".to_owned(),
        Meta {
            name: Text(b"\xff\xfe"),
            ..BRIEF
        },
    ));
    let slugs: [(&str, &[u8]); 7] = [
        ("empty_bad", b""),
        ("upper_bad", b"Abc"),
        ("namespace_bad", b"ada/abc"),
        ("newline_bad", b"abc\n"),
        ("underscore_bad", b"a_b"),
        ("32_ok", &[b'a'; 32]),
        ("33_bad", &[b'a'; 33]),
    ];
    for (name, slug) in slugs {
        cases.push((
            format!("slug_{name}"),
            Meta {
                slug: Text(slug),
                ..BRIEF
            },
        ));
    }
    cases
}

fn config_cases() -> Vec<(String, Vec<ConfigSpec<'static>>)> {
    let spec = |key: &'static str, config_type, schema: &'static str| ConfigSpec {
        key: Text::new(key),
        config_type,
        schema: Text::new(schema),
        ..ConfigSpec::default()
    };
    let cases = [
        ("none_ok", vec![]),
        ("key_empty_bad", vec![spec("", 0, "")]),
        ("key_host_bad", vec![spec("host.", 0, "")]),
        ("key_host_dot_x_bad", vec![spec("host.x", 0, "")]),
        ("key_hostx_ok", vec![spec("hostx", 0, "")]),
        ("key_upper_host_ok", vec![spec("Host.x", 0, "")]),
        (
            "key_repeated_bad",
            vec![spec("a", 0, ""), spec("b", 0, ""), spec("a", 1, "")],
        ),
        ("type_3_without_schema_ok", vec![spec("a", 3, "")]),
        ("type_4_bad", vec![spec("a", 4, "")]),
        ("type_255_bad", vec![spec("a", 255, "")]),
        ("schema_on_text_bad", vec![spec("a", 0, "{}")]),
        ("schema_on_bool_bad", vec![spec("a", 2, "{}")]),
    ];
    cases
        .map(|(name, specs)| (format!("config_{name}"), specs))
        .into()
}

fn schema_cases() -> Vec<(&'static str, Vec<u8>)> {
    let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat().into_bytes();
    let mut cases: Vec<(&str, Vec<u8>)> = [
        ("object_ok", &b"{\"type\":\"object\"}"[..]),
        ("scalar_ok", b"1"),
        ("empty_array_ok", b"[]"),
        ("white_space_ok", b" \t\r\n{} "),
        ("bad_utf8_ok", b"\"\xff\""),
        ("lone_surrogate_ok", b"\"\\ud800\""),
        ("repeated_keys_ok", b"{\"a\":1,\"a\":2}"),
        ("delete_character_ok", b"\"\x7f\""),
        ("nan_bad", b"NaN"),
        ("two_values_bad", b"{} {}"),
        ("trailing_comma_bad", b"[1,]"),
        ("leading_zero_bad", b"01"),
        ("plus_bad", b"+1"),
        ("unterminated_bad", b"{\"a\":"),
        ("byte_order_mark_bad", b"\xef\xbb\xbf{}"),
        ("control_byte_bad", b"\"\x01\""),
    ]
    .map(|(name, schema)| (name, schema.to_vec()))
    .into();
    cases.push(("depth_129_ok", nested(129)));
    cases.push(("depth_10000_ok", nested(10_000)));
    cases.push(("depth_10001_bad", nested(10_001)));
    cases
}

fn control_cases() -> Vec<(String, Vec<Control<'static>>)> {
    let rune = |rune, label| Control {
        input: ControlInput::Rune(rune),
        label: Text(label),
    };
    let key = |key, label| Control {
        input: ControlInput::Key(key),
        label: Text(label),
    };
    let many = |count| (0..count).map(|n| rune(0x41 + n, b"K")).collect::<Vec<_>>();
    let cases = [
        ("none_ok", vec![]),
        ("rune_1f_bad", vec![rune(0x1F, b"X")]),
        ("rune_20_ok", vec![rune(0x20, b"X")]),
        ("rune_7f_ok", vec![rune(0x7F, b"X")]),
        ("rune_surrogate_ok", vec![rune(0xD800, b"X")]),
        ("rune_110000_ok", vec![rune(0x11_0000, b"X")]),
        ("rune_7fffffff_ok", vec![rune(0x7FFF_FFFF, b"X")]),
        ("rune_80000000_bad", vec![rune(0x8000_0000, b"X")]),
        ("rune_ffffffff_bad", vec![rune(u32::MAX, b"X")]),
        ("key_0_bad", vec![key(0, b"X")]),
        ("key_1_ok", vec![key(1, b"X")]),
        ("key_9_ok", vec![key(9, b"X")]),
        ("key_10_bad", vec![key(10, b"X")]),
        ("label_empty_bad", vec![key(1, b"")]),
        ("label_16_ok", vec![key(1, b"abcdefghijklmnop")]),
        ("label_17_bad", vec![key(1, b"abcdefghijklmnopq")]),
        (
            "label_16_wide_ok",
            vec![key(1, "ßßßßßßßßßßßßßßßß".as_bytes())],
        ),
        ("label_16_not_utf8_ok", vec![key(1, &[0xFF; 16])]),
        ("label_17_not_utf8_bad", vec![key(1, &[0xFF; 17])]),
        (
            "repeated_bad",
            vec![key(1, b"A"), rune(0x31, b"B"), key(1, b"C")],
        ),
        (
            "same_number_ok",
            vec![key(9, b"A"), rune(0x39, b"B"), rune(0x20 + 9, b"C")],
        ),
        ("32_ok", many(32)),
        ("33_bad", many(33)),
    ];
    cases
        .map(|(name, controls)| (format!("control_{name}"), controls))
        .into()
}

#[test]
fn container_verdicts_are_as_committed() {
    let plain = container(0, 0, &[]);
    let one = container(0, 1, &[(0, 1, 0xFF)]);
    let with = |mut bytes: Vec<u8>, at: usize, value: u8| {
        bytes[at] = value;
        bytes
    };
    let cases = [
        ("nothing", "refused", Vec::new()),
        ("header_cut", "refused", plain[..8].to_vec()),
        ("no_change", "ok", plain.clone()),
        ("no_change_keyframe", "ok", container(1, 0, &[])),
        ("keyframe_partial", "ok", container(1, 1, &[(3, 2, 1)])),
        ("keyframe_whole", "ok", container(1, 1, &[(0, 1920, 1)])),
        (
            "keyframe_split",
            "ok",
            container(1, 2, &[(0, 960, 1), (960, 960, 2)]),
        ),
        ("flag_02", "refused", container(2, 0, &[])),
        ("flag_80", "refused", container(0x80, 0, &[])),
        ("rows_25", "refused", with(plain.clone(), 7, 25)),
        ("cols_0", "refused", with(plain.clone(), 8, 0)),
        ("touching", "ok", container(0, 2, &[(0, 2, 1), (2, 1, 2)])),
        (
            "overlapping",
            "refused",
            container(0, 2, &[(0, 2, 1), (1, 1, 2)]),
        ),
        (
            "descending",
            "refused",
            container(0, 2, &[(5, 1, 1), (3, 1, 2)]),
        ),
        ("run_of_none", "refused", container(0, 1, &[(0, 0, 0)])),
        ("last_cell", "ok", container(0, 1, &[(1919, 1, 1)])),
        ("past_the_grid", "refused", container(0, 1, &[(1920, 1, 1)])),
        (
            "across_the_end",
            "refused",
            container(0, 1, &[(1919, 2, 1)]),
        ),
        ("body_cut", "refused", with(one.clone(), 11, 2)),
        ("trailing_byte", "refused", [one.clone(), vec![0]].concat()),
        (
            "one_run_too_many",
            "refused",
            container(0, 1, &[(0, 1, 1), (5, 1, 2)]),
        ),
        (
            "one_run_too_few",
            "refused",
            container(0, 3, &[(0, 1, 1), (5, 1, 2)]),
        ),
        ("cell_bytes_are_not_checked", "ok", one),
    ];
    let mut fresh = String::new();
    for (name, expected, bytes) in cases {
        let verdict = if delta::check(&bytes).is_ok() {
            "ok"
        } else {
            "refused"
        };
        assert_eq!(verdict, expected, "{name}");
        writeln!(fresh, "{name} | {verdict} | {}", short_hex(&bytes)).unwrap();
    }
    let about = "Which frame containers a host accepts, name | verdict | hex. ab*3 stands for ababab, none for no bytes.";
    for line in lines(&compare("delta-accept.txt", about, &fresh)) {
        let fields: Vec<_> = line.split(" | ").collect();
        let bytes = unhex(fields.get(2).copied().unwrap_or_default());
        assert_eq!(
            delta::check(&bytes).is_ok(),
            fields[1] == "ok",
            "{}",
            fields[0]
        );
    }
}
