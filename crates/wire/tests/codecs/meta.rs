//! The meta codec: layout, sections that may be missing, round trips. Rules are in `meta_rules`.

use cabinet_wire::meta::{
    self, ConfigSpec, Control, ControlInput, Leaderboard, List, Meta, MetaError, MetaOwned,
};
use cabinet_wire::{
    Aggregation, ConfigType, Direction, Lifecycle, MetricFormat, Text, WIRE_REVISION,
};
use proptest::prelude::*;

use super::support::{any_text, unhex};

pub const SPECS: &[ConfigSpec<'_>] = &[
    ConfigSpec {
        key: Text::new("motd"),
        title: Text::new("Banner"),
        description: Text::new("shown on the first row"),
        config_type: ConfigType::Text as u8,
        default: Text::new("welcome"),
        schema: Text::new(""),
    },
    ConfigSpec {
        key: Text::new("stake"),
        title: Text::new("Stake"),
        description: Text::new(""),
        config_type: ConfigType::Number as u8,
        default: Text::new("5"),
        schema: Text::new(""),
    },
    ConfigSpec {
        key: Text::new("open"),
        title: Text::new("Open"),
        description: Text::new(""),
        config_type: ConfigType::Bool as u8,
        default: Text::new("true"),
        schema: Text::new(""),
    },
    ConfigSpec {
        key: Text::new("odds"),
        title: Text::new("Odds"),
        description: Text::new("one table per wheel"),
        config_type: ConfigType::Json as u8,
        default: Text::new("[]"),
        schema: Text::new("{\"type\":\"array\"}"),
    },
];

pub const CONTROLS: &[Control<'_>] = &[
    Control {
        input: ControlInput::Rune('r' as u32),
        label: Text::new("RESIGN"),
    },
    Control {
        input: ControlInput::Rune('ß' as u32),
        label: Text::new("STRASSE"),
    },
    Control {
        input: ControlInput::Key(2),
        label: Text::new("UNDO"),
    },
];

pub const TAGS: &[Text<'_>] = &[Text::new("multi"), Text::new("card")];

pub const FULL: Meta<'_> = Meta {
    slug: Text::new("own-game"),
    name: Text::new("Own Game"),
    short_description: Text::new("every section holds something"),
    min_players: 2,
    max_players: 8,
    tags: List::new(TAGS),
    quick_mode_label: Text::new("Sit down"),
    solo_mode_label: Text::new("Practise"),
    private_invite_line: Text::new("Come to my table"),
    leaderboard: Some(Leaderboard {
        metric_label: Text::new("chips"),
        direction: 1,
        aggregation: 1,
        format: 2,
    }),
    config: List::new(SPECS),
    ctx_features: 3,
    heartbeat_ms: 250,
    lifecycle: 1,
    wire_revision: WIRE_REVISION,
    controls: List::new(CONTROLS),
};

/// How many bytes of the full meta come with the sections up to and including each.
const FULL_SECTIONS: [usize; 6] = [0, 153, 6, 1, 2, 37];

pub fn encoded(meta: &Meta<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    meta::encode(meta, &mut out).unwrap();
    out
}

fn bare(slug: &str) -> Meta<'_> {
    Meta {
        slug: Text::new(slug),
        ..Meta::default()
    }
}

/// Where the full meta may end: in front of its sections, and after each.
pub fn full_ends() -> [usize; 6] {
    let total = encoded(&FULL).len();
    let mut end = total - FULL_SECTIONS.iter().sum::<usize>();
    FULL_SECTIONS.map(|bytes| {
        end += bytes;
        end
    })
}

#[test]
fn a_full_meta_reads_back() {
    let bytes = encoded(&FULL);
    let read = meta::decode(&bytes).unwrap();
    assert_eq!(read, FULL);
    assert_eq!(encoded(&read), bytes);
    read.validate_authored().unwrap();
    assert_eq!(read.slug().unwrap().as_str(), "own-game");
    assert_eq!(read.lifecycle(), Lifecycle::Ephemeral);
    let board = read.leaderboard.unwrap();
    assert_eq!(board.direction(), Some(Direction::LowerBetter));
    assert_eq!(board.aggregation(), Some(Aggregation::Sum));
    assert_eq!(board.format(), Some(MetricFormat::Duration));
}

#[test]
fn all_four_config_types_read_back_in_order() {
    let bytes = encoded(&FULL);
    let read = meta::decode(&bytes).unwrap();
    assert_eq!(read.config.len(), 4);
    assert!(read.config.iter().eq(SPECS.iter().copied()));
    let types = read.config.iter().map(|spec| spec.config_type().unwrap());
    assert!(types.eq(ConfigType::ALL.iter().copied()));
}

#[test]
fn rune_and_key_controls_read_back() {
    let bytes = encoded(&FULL);
    let read = meta::decode(&bytes).unwrap();
    assert!(read.controls.iter().eq(CONTROLS.iter().copied()));
}

#[test]
fn the_smallest_meta_is_twenty_bytes() {
    let bytes = unhex("0100 67 0000 0000 0000 0000 0000 0000 0000 0000 00");
    assert_eq!(bytes.len(), 20);
    assert_eq!(meta::decode(&bytes).unwrap(), bare("g"));
    let written = encoded(&bare("g"));
    assert_eq!(
        written.len(),
        20 + 2 + 6 + 1 + 2 + 2,
        "encoders write every section"
    );
    assert_eq!(written[..20], bytes);
}

#[test]
fn a_missing_section_takes_every_later_one_with_it_and_no_other_cut_is_legal() {
    let bytes = encoded(&FULL);
    let ends = full_ends();
    assert_eq!(ends[5], bytes.len());
    for len in 0..bytes.len() {
        let read = meta::decode(&bytes[..len]);
        let Some(sections) = ends.iter().position(|end| *end == len) else {
            assert_eq!(read.unwrap_err(), MetaError::Short, "first {len} bytes");
            continue;
        };
        let mut expected = FULL;
        expected.controls = List::default();
        if sections < 4 {
            expected.wire_revision = 0;
        }
        if sections < 3 {
            expected.lifecycle = 0;
        }
        if sections < 2 {
            (expected.ctx_features, expected.heartbeat_ms) = (0, 0);
        }
        if sections < 1 {
            expected.config = List::default();
        }
        assert_eq!(read.unwrap(), expected, "{sections} sections");
    }
}

#[test]
fn sections_that_count_nothing_read_as_none() {
    let bytes = encoded(&bare("g"));
    let read = meta::decode(&bytes).unwrap();
    assert!(read.config.is_empty() && read.controls.is_empty() && read.tags.is_empty());
}

#[test]
fn bytes_after_the_last_section_are_ignored() {
    let mut bytes = encoded(&FULL);
    bytes.extend_from_slice(&[0xDE, 0xAD]);
    assert_eq!(meta::decode(&bytes).unwrap(), FULL);
}

#[test]
fn an_empty_slug_is_not_decoded() {
    assert_eq!(
        meta::decode(&encoded(&bare(""))).unwrap_err(),
        MetaError::EmptySlug
    );
}

#[test]
fn a_control_of_unknown_kind_fails_the_whole_meta() {
    let mut bytes = encoded(&bare("g"));
    let count = bytes.len() - 2;
    bytes.truncate(count);
    bytes.extend_from_slice(&unhex("0200 01 02 0100 55 09 72000000 0100 52"));
    let refused = MetaError::UnknownControlKind { index: 1, kind: 9 };
    assert_eq!(meta::decode(&bytes).unwrap_err(), refused);
}

#[test]
fn only_the_byte_one_announces_a_leaderboard() {
    let mut bytes = encoded(&bare("g"));
    for byte in [0, 2, 255] {
        bytes[19] = byte;
        assert_eq!(meta::decode(&bytes).unwrap().leaderboard, None);
    }
    bytes[19] = 1;
    assert!(meta::decode(&bytes).is_ok_and(|meta| meta.leaderboard.is_some()));
}

#[test]
fn the_revision_is_carried_verbatim_and_never_stamped() {
    for wire_revision in [0, 4, 6, 7, 65535] {
        let meta = Meta {
            wire_revision,
            ..FULL
        };
        assert_eq!(
            meta::decode(&encoded(&meta)).unwrap().wire_revision,
            wire_revision
        );
    }
}

#[test]
fn what_a_host_keeps_replaces_bytes_that_are_not_utf8() {
    let meta = Meta {
        name: Text(b"\xff\xfe"),
        ..FULL
    };
    let owned = MetaOwned::from(&meta);
    assert_eq!(owned.name, "\u{FFFD}\u{FFFD}");
    assert_eq!(owned.slug().unwrap().as_str(), "own-game");
    assert_eq!(owned.tags, ["multi", "card"]);
    assert_eq!(owned.lifecycle(), Lifecycle::Ephemeral);
    assert_eq!(
        owned.leaderboard.unwrap().format(),
        Some(MetricFormat::Duration)
    );
    assert_eq!(owned.config[3].config_type(), Some(ConfigType::Json));
    assert_eq!(owned.config[3].schema, "{\"type\":\"array\"}");
    assert_eq!(owned.controls[1].input, ControlInput::Rune(0xDF));
    assert_eq!((owned.ctx_features, owned.heartbeat_ms), (3, 250));
}

#[test]
fn strings_of_65535_bytes_are_written_whole_and_one_more_is_refused() {
    let long = [b'x'; 65536];
    let texts: [fn(Text<'_>) -> Meta<'_>; 6] = [
        |slug| Meta { slug, ..FULL },
        |name| Meta { name, ..FULL },
        |short_description| Meta {
            short_description,
            ..FULL
        },
        |quick_mode_label| Meta {
            quick_mode_label,
            ..FULL
        },
        |solo_mode_label| Meta {
            solo_mode_label,
            ..FULL
        },
        |private_invite_line| Meta {
            private_invite_line,
            ..FULL
        },
    ];
    for with in texts {
        let fits = with(Text(&long[..65535]));
        assert_eq!(meta::decode(&encoded(&fits)).unwrap(), fits);
        let mut out = vec![4];
        let refused = meta::encode(&with(Text(&long)), &mut out).unwrap_err();
        assert!(
            matches!(refused, MetaError::TextTooLong { bytes: 65536, .. }),
            "{refused}"
        );
        assert_eq!(out, [4], "the buffer is as it was");
    }
}

#[test]
fn lists_of_65535_items_are_written_whole_and_one_more_is_refused() {
    let tags = vec![Text::new(""); 65536];
    let specs = vec![ConfigSpec::default(); 65536];
    let controls = vec![CONTROLS[0]; 65536];
    let with = |len: usize| {
        let mut metas = [FULL; 3];
        metas[0].tags = List::new(&tags[..len]);
        metas[1].config = List::new(&specs[..len]);
        metas[2].controls = List::new(&controls[..len]);
        metas
    };
    for meta in with(65535) {
        assert_eq!(meta::decode(&encoded(&meta)).unwrap(), meta);
    }
    for meta in with(65536) {
        let mut out = vec![4];
        let refused = meta::encode(&meta, &mut out).unwrap_err();
        assert!(
            matches!(refused, MetaError::ListTooLong { count: 65536, .. }),
            "{refused}"
        );
        assert_eq!(out, [4], "the buffer is as it was");
    }
}

/// A meta that owns its strings.
#[derive(Clone, Debug)]
pub struct AnyMeta {
    texts: Vec<Vec<u8>>,
    numbers: (u16, u16, u32, u16, u8, u16),
    tags: Vec<Vec<u8>>,
    leaderboard: Option<(Vec<u8>, [u8; 3])>,
    specs: Vec<([Vec<u8>; 5], u8)>,
    controls: Vec<(ControlInput, Vec<u8>)>,
}

pub fn any_meta() -> impl Strategy<Value = AnyMeta> {
    let spec = (
        [any_text(), any_text(), any_text(), any_text(), any_text()],
        any::<u8>(),
    );
    let input = prop_oneof![
        any::<u32>().prop_map(ControlInput::Rune),
        any::<u8>().prop_map(ControlInput::Key),
    ];
    (
        prop::collection::vec(any_text(), 6),
        any::<(u16, u16, u32, u16, u8, u16)>(),
        prop::collection::vec(any_text(), 0..4),
        prop::option::of((any_text(), any::<[u8; 3]>())),
        prop::collection::vec(spec, 0..4),
        prop::collection::vec((input, any_text()), 0..4),
    )
        .prop_map(
            |(texts, numbers, tags, leaderboard, specs, controls)| AnyMeta {
                texts,
                numbers,
                tags,
                leaderboard,
                specs,
                controls,
            },
        )
}

impl AnyMeta {
    /// The encoding, which is checked against the meta it was made from.
    pub fn encoded(&self) -> Vec<u8> {
        let tags: Vec<_> = self.tags.iter().map(|tag| Text(tag)).collect();
        let specs = self.specs.iter().map(|(texts, config_type)| ConfigSpec {
            key: Text(&texts[0]),
            title: Text(&texts[1]),
            description: Text(&texts[2]),
            config_type: *config_type,
            default: Text(&texts[3]),
            schema: Text(&texts[4]),
        });
        let specs: Vec<_> = specs.collect();
        let controls: Vec<_> = (self.controls.iter())
            .map(|(input, label)| Control {
                input: *input,
                label: Text(label),
            })
            .collect();
        let slug = [b"g".as_slice(), &self.texts[0]].concat();
        let meta = Meta {
            slug: Text(&slug),
            name: Text(&self.texts[1]),
            short_description: Text(&self.texts[2]),
            min_players: self.numbers.0,
            max_players: self.numbers.1,
            tags: List::from(&tags[..]),
            quick_mode_label: Text(&self.texts[3]),
            solo_mode_label: Text(&self.texts[4]),
            private_invite_line: Text(&self.texts[5]),
            leaderboard: self.leaderboard.as_ref().map(|(label, codes)| Leaderboard {
                metric_label: Text(label),
                direction: codes[0],
                aggregation: codes[1],
                format: codes[2],
            }),
            config: List::from(&specs[..]),
            ctx_features: self.numbers.2,
            heartbeat_ms: self.numbers.3,
            lifecycle: self.numbers.4,
            wire_revision: self.numbers.5,
            controls: List::from(&controls[..]),
        };
        let bytes = encoded(&meta);
        assert_eq!(meta::decode(&bytes).unwrap(), meta);
        bytes
    }
}

proptest! {
    #[test]
    fn a_meta_survives_the_round_trip(meta in any_meta()) {
        let bytes = meta.encoded();
        prop_assert_eq!(encoded(&meta::decode(&bytes).unwrap()), bytes);
    }
}
