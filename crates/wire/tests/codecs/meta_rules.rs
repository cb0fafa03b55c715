//! The rules of a meta: what a host refuses, what only an author is told.

use cabinet_wire::meta::{ConfigSpec, Control, ControlInput, List, Meta, MetaError};
use cabinet_wire::{CONTROLS_MAX, Lifecycle, SlugError, Text};

use super::meta::{FULL, SPECS};

fn spec(key: &str) -> ConfigSpec<'_> {
    ConfigSpec {
        key: Text::new(key),
        ..ConfigSpec::default()
    }
}

fn with_config(specs: &[ConfigSpec<'_>]) -> Result<(), MetaError> {
    let config = List::new(specs);
    Meta { config, ..FULL }.validate()
}

fn with_controls(controls: &[Control<'_>]) -> Result<(), MetaError> {
    let controls = List::new(controls);
    Meta { controls, ..FULL }.validate()
}

fn control(input: ControlInput, label: &'static [u8]) -> Control<'static> {
    Control {
        input,
        label: Text(label),
    }
}

const A: ControlInput = ControlInput::Rune('a' as u32);

#[test]
fn config_specs_that_keep_the_rules_pass() {
    assert_eq!(with_config(&[]), Ok(()));
    assert_eq!(with_config(SPECS), Ok(()));
    assert_eq!(
        with_config(&[spec("hostx"), spec("Host.x"), spec("host"), spec("HOST.")]),
        Ok(())
    );
}

#[test]
fn config_keys_are_there_once_and_not_the_hosts() {
    assert_eq!(
        with_config(&[spec("a"), spec("")]),
        Err(MetaError::ConfigKeyEmpty { index: 1 })
    );
    let repeated = [spec("b"), spec("a"), spec("c"), spec("a"), spec("b")];
    assert_eq!(
        with_config(&repeated),
        Err(MetaError::ConfigKeyRepeated { index: 3 })
    );
    for key in ["host.", "host.heartbeat_ms"] {
        assert_eq!(
            with_config(&[spec(key)]),
            Err(MetaError::ConfigKeyReserved { index: 0 })
        );
    }
}

#[test]
fn a_config_type_is_one_of_four_and_only_json_has_a_schema() {
    for config_type in 0..=u8::MAX {
        let plain = ConfigSpec {
            config_type,
            ..spec("k")
        };
        let unknown = MetaError::ConfigTypeUnknown {
            index: 0,
            code: config_type,
        };
        let expected = if config_type < 4 {
            Ok(())
        } else {
            Err(unknown)
        };
        assert_eq!(with_config(&[plain]), expected);
        let schema = ConfigSpec {
            schema: Text::new("{}"),
            ..plain
        };
        let expected = match config_type {
            0..3 => Err(MetaError::SchemaOnNonJson { index: 0 }),
            3 => Ok(()),
            _ => Err(unknown),
        };
        assert_eq!(with_config(&[schema]), expected);
    }
    let broken = ConfigSpec {
        schema: Text::new("{"),
        ..SPECS[3]
    };
    assert_eq!(
        with_config(&[broken]),
        Err(MetaError::SchemaMalformed { index: 0 })
    );
}

#[test]
fn the_first_broken_rule_is_the_one_reported() {
    // A repeated key behind a bad type is never reached; in front of one it is.
    let bad_type = ConfigSpec {
        config_type: 4,
        ..spec("x")
    };
    let first = with_config(&[bad_type, spec("a"), spec("a")]);
    assert_eq!(
        first,
        Err(MetaError::ConfigTypeUnknown { index: 0, code: 4 })
    );
    let first = with_config(&[spec("a"), spec("a"), bad_type]);
    assert_eq!(first, Err(MetaError::ConfigKeyRepeated { index: 1 }));
    let meta = Meta {
        slug: Text::new("NO"),
        heartbeat_ms: 1,
        config: List::new(&[]),
        ..FULL
    };
    assert_eq!(
        meta.validate(),
        Err(MetaError::HeartbeatOutOfRange { heartbeat_ms: 1 })
    );
}

#[test]
fn sixty_thousand_distinct_keys_are_not_compared_pair_by_pair() {
    // Pairwise this is two thousand million comparisons; the test would not end in a sitting.
    let keys: Vec<_> = (0..60_000u32).map(u32::to_be_bytes).collect();
    let mut specs: Vec<_> = (keys.iter())
        .map(|key| ConfigSpec {
            key: Text(key),
            ..ConfigSpec::default()
        })
        .collect();
    assert_eq!(with_config(&specs), Ok(()));
    specs[59_999].key = specs[5].key;
    assert_eq!(
        with_config(&specs),
        Err(MetaError::ConfigKeyRepeated { index: 59_999 })
    );
}

#[test]
fn a_heartbeat_is_none_or_20_to_1000_ms() {
    for heartbeat_ms in [0, 20, 21, 100, 999, 1000] {
        assert_eq!(
            Meta {
                heartbeat_ms,
                ..FULL
            }
            .validate(),
            Ok(())
        );
    }
    for heartbeat_ms in [1, 5, 19, 1001, 1500, 65535] {
        let refused = Err(MetaError::HeartbeatOutOfRange { heartbeat_ms });
        assert_eq!(
            Meta {
                heartbeat_ms,
                ..FULL
            }
            .validate(),
            refused
        );
    }
}

#[test]
fn a_control_rune_is_printable_by_the_references_signed_measure() {
    for rune in [0x20, 0x7F, 0xD800, 0x11_0000, 0x7FFF_FFFF] {
        assert_eq!(
            with_controls(&[control(ControlInput::Rune(rune), b"X")]),
            Ok(())
        );
    }
    for rune in [0, 0x1F, 0x8000_0000, 0xFFFF_FFFF] {
        let refused = Err(MetaError::ControlRuneNotPrintable { index: 0, rune });
        assert_eq!(
            with_controls(&[control(ControlInput::Rune(rune), b"X")]),
            refused
        );
    }
}

#[test]
fn a_control_key_is_an_assigned_one() {
    for key in 0..=u8::MAX {
        let refused = Err(MetaError::ControlKeyUnknown { index: 0, key });
        let expected = if (1..=9).contains(&key) {
            Ok(())
        } else {
            refused
        };
        assert_eq!(
            with_controls(&[control(ControlInput::Key(key), b"X")]),
            expected
        );
    }
}

#[test]
fn two_controls_never_send_the_same_input() {
    let nine = [
        control(ControlInput::Key(9), b"A"),
        control(ControlInput::Rune(0x39), b"B"),
    ];
    assert_eq!(with_controls(&nine), Ok(()), "the key 9 is not the rune 9");
    let twice = [nine[0], nine[1], control(ControlInput::Key(9), b"C")];
    assert_eq!(
        with_controls(&twice),
        Err(MetaError::ControlRepeated { index: 2 })
    );
}

#[test]
fn a_control_label_has_1_to_16_code_points() {
    assert_eq!(
        with_controls(&[control(A, b"")]),
        Err(MetaError::ControlLabelEmpty { index: 0 })
    );
    let cases: [(&[u8], usize); 4] = [
        (b"x", 1),
        ("é".as_bytes(), 1),
        (b"\xff", 1),
        ("e\u{301}".as_bytes(), 2),
    ];
    for (unit, chars) in cases {
        let label = unit.repeat(16 / chars).leak();
        assert_eq!(with_controls(&[control(A, label)]), Ok(()));
        let label = [&label[..], b"x"].concat().leak();
        let refused = Err(MetaError::ControlLabelTooLong {
            index: 0,
            chars: 17,
        });
        assert_eq!(with_controls(&[control(A, label)]), refused);
    }
}

#[test]
fn thirty_two_controls_pass_and_thirty_three_do_not() {
    let rune = |n: u32| control(ControlInput::Rune(0x41 + n), b"K");
    let controls: Vec<_> = (0..33).map(rune).collect();
    assert_eq!(with_controls(&controls[..CONTROLS_MAX]), Ok(()));
    assert_eq!(
        with_controls(&controls),
        Err(MetaError::TooManyControls { count: 33 })
    );
}

#[test]
fn a_slug_that_is_no_slug_is_refused_last() {
    let slug = Text::new("Abc");
    let refused = MetaError::Slug(SlugError::Byte { at: 0, byte: b'A' });
    assert_eq!(Meta { slug, ..FULL }.validate(), Err(refused));
    let slug = Text(&[b'a'; 33]);
    let refused = MetaError::Slug(SlugError::TooLong { bytes: 33 });
    assert_eq!(Meta { slug, ..FULL }.validate(), Err(refused));
}

#[test]
fn a_host_lets_pass_what_only_an_author_is_told() {
    let features = Meta {
        ctx_features: 1 << 7,
        ..FULL
    };
    assert_eq!(features.validate(), Ok(()));
    let refused = MetaError::UnknownFeatures { bits: 1 << 7 };
    assert_eq!(features.validate_authored(), Err(refused));
    for ctx_features in 0..4 {
        assert_eq!(
            Meta {
                ctx_features,
                ..FULL
            }
            .validate_authored(),
            Ok(())
        );
    }

    for code in 3..=u8::MAX {
        let lifecycle = Meta {
            lifecycle: code,
            ..FULL
        };
        assert_eq!(lifecycle.validate(), Ok(()));
        assert_eq!(lifecycle.lifecycle(), Lifecycle::Resumable);
        assert_eq!(
            lifecycle.validate_authored(),
            Err(MetaError::UnknownLifecycle { code })
        );
    }

    let resident = |min_players| Meta {
        lifecycle: Lifecycle::Resident.into(),
        min_players,
        ..FULL
    };
    assert_eq!(resident(2).validate(), Ok(()));
    let refused = MetaError::ResidentNeedsOnePlayer { min_players: 2 };
    assert_eq!(resident(2).validate_authored(), Err(refused));
    assert_eq!(resident(1).validate_authored(), Ok(()));
    assert_eq!(resident(0).validate_authored(), Ok(()));
    let invalid = Meta {
        heartbeat_ms: 5,
        ..FULL
    };
    assert!(
        invalid.validate_authored().is_err(),
        "authors keep the host's rules as well"
    );
}
