//! Every mistake has its message and its line; nothing read panics.

use super::*;
use proptest::prelude::*;

fn parsed(text: &str) -> SmokeScript {
    SmokeScript::parse(text.as_bytes()).unwrap()
}

fn refused(text: &str) -> String {
    SmokeScript::parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn the_smallest_script_is_read_with_its_defaults() {
    let script = parsed("\nseed: 42\nseats: 2\nsteps:\n  - shot: lobby\n");
    assert_eq!((script.run.seed, script.run.seats), (42, 2));
    assert_eq!(script.heartbeat, Duration::from_millis(50));
    assert_eq!(script.run.clock_unix_nanos, 946_684_842_000_000_000);
    let name = "lobby".to_owned();
    assert_eq!(script.run.steps, [ShotStep::Shot { name, seats: None }]);
    assert_eq!(script.lines, [5]);
}

#[test]
fn every_kind_of_step_is_read() {
    let script = parsed(
        "seed: 7\nseats: 3\nheartbeat: 100ms\n\
         config:\n  variant: classic\n  level: 3\n  hex: 0x10\n  yes: true\n  none:\n  quoted: \"a\\tb\"\n\
         steps:\n  - shot: start\n  - rune: \"5\"\n  - key: enter\n  - key: space\n  - text: \"ab\"\n  \
         - seat: 2\n  - advance: 300ms\n  - wake:\n  - key: up\n  - shot: end\n    seats: [2, 0]\n",
    );
    let config = script.run.config;
    let config: Vec<(&str, &str)> = config.iter().map(|(k, v)| (&**k, &**v)).collect();
    let wanted = [
        ("hex", "0x10"),
        ("level", "3"),
        ("none", ""),
        ("quoted", "a\tb"),
        ("variant", "classic"),
        ("yes", "true"),
    ];
    assert_eq!(config, wanted);
    let typed = |rune| ShotStep::Input { seat: 0, rune };
    let beat = || ShotStep::Wake {
        by: Duration::from_millis(100),
    };
    let wanted = [
        ShotStep::Shot {
            name: "start".to_owned(),
            seats: None,
        },
        typed('5'),
        ShotStep::Key {
            seat: 0,
            key: Key::Enter,
        },
        typed(' '),
        typed('a'),
        typed('b'),
        beat(),
        beat(),
        beat(),
        ShotStep::Wake { by: Duration::ZERO },
        ShotStep::Key {
            seat: 2,
            key: Key::Up,
        },
        ShotStep::Shot {
            name: "end".to_owned(),
            seats: Some(vec![0, 2]),
        },
    ];
    assert_eq!(script.run.steps, wanted);
    assert_eq!(
        script.lines,
        [12, 13, 14, 15, 16, 16, 18, 18, 18, 19, 20, 21]
    );
}

/// Every message of the format, with its line.
#[test]
fn every_mistake_has_its_message_and_its_line() {
    let head = "seed: 1\nseats: 2\n";
    for (text, message) in [
        ("", ": top level must be a mapping"),
        ("[]", ": top level must be a mapping"),
        (
            "seats: 1\nsteps: [{shot: a}]",
            ": missing required field seed",
        ),
        (
            "seed: 1\nsteps: [{shot: a}]",
            ": missing required field seats",
        ),
        ("seed: 1\nseats: 1", ": missing required field steps"),
        ("seed: one\n", ":1: seed must be an integer"),
        ("seed: \"1\"\n", ":1: seed must be an integer"),
        ("seed: 1.5\n", ":1: seed must be an integer"),
        ("\n\nseed: [1]\n", ":3: seed must be an integer"),
        (
            "seed: 1\nseats: 9\n",
            ":2: seats must be an integer in 1..8",
        ),
        (
            "seed: 1\nseats: 0\n",
            ":2: seats must be an integer in 1..8",
        ),
        (
            "seed: 1\nseats: two\n",
            ":2: seats must be an integer in 1..8",
        ),
        (
            "heartbeat: -5ms\n",
            ":1: heartbeat must be a positive duration (e.g. 50ms)",
        ),
        (
            "config: 3\n",
            ":1: config must be a mapping of string keys to scalar values",
        ),
        (
            "config:\n  a: [1]\n",
            ":2: config \"a\": value must be a scalar",
        ),
        (
            "seed: 1\nfoo: 1\n",
            ":2: unknown field \"foo\" (want seed, seats, heartbeat, config, steps)",
        ),
        (
            "seed: 1\nseats: 2\nsteps: []",
            ":3: steps must be a non-empty list",
        ),
        (
            "seed: 1\nseats: 2\nsteps: 3",
            ":3: steps must be a non-empty list",
        ),
        (
            "seed: 1\nseats: 2\nsteps:\nheartbeat: 1s\n",
            ":3: steps must be a non-empty list",
        ),
    ] {
        assert_eq!(refused(text), format!("smoke.yaml{message}"), "{text:?}");
    }
    for (steps, message) in [
        ("[wake]", "each step must be a mapping like `- key: enter`"),
        ("[{}]", "each step must be a mapping like `- key: enter`"),
        (
            "[{zap: 1}]",
            "unknown step \"zap\" (want rune, key, text, seat, advance, wake, shot)",
        ),
        (
            "[{wake: , bogus: 1}]",
            "unexpected extra field \"bogus\" in wake step",
        ),
        (
            "[{rune: ab}]",
            "rune must be exactly one printable character, got \"ab\"",
        ),
        (
            "[{rune: \"\"}]",
            "rune must be exactly one printable character, got \"\"",
        ),
        (
            "[{rune: [a]}]",
            "rune must be exactly one printable character, got \"\"",
        ),
        (
            "[{key: bogus}]",
            "unknown key \"bogus\" (want enter, backspace, esc, tab, up, down, left, right, space)",
        ),
        ("[{text: \"\"}]", "text must be a non-empty string"),
        ("[{seat: 2}]", "seat must be an integer in 0..1"),
        ("[{seat: -1}]", "seat must be an integer in 0..1"),
        ("[{seat: x}]", "seat must be an integer in 0..1"),
        (
            "[{advance: nope}]",
            "advance must be a positive duration (e.g. 1.5s)",
        ),
        (
            "[{advance: 0s}]",
            "advance must be a positive duration (e.g. 1.5s)",
        ),
        (
            "[{advance: 1h75ms}]",
            "advance 1h0m0.075s is not a multiple of the 50ms heartbeat — pick an exact tick",
        ),
        ("[{wake: now}]", "wake takes no value"),
        (
            "[{shot: 'a/b'}]",
            "shot name \"a/b\" must match ^[a-zA-Z0-9][a-zA-Z0-9._-]*$ (it becomes a filename)",
        ),
        (
            "[{shot: }]",
            "shot name \"\" must match ^[a-zA-Z0-9][a-zA-Z0-9._-]*$ (it becomes a filename)",
        ),
        ("[{shot: a}, {shot: a}]", "duplicate shot name \"a\""),
        (
            "[{shot: a, frames: 2}]",
            "shot allows only a `seats:` filter alongside the name",
        ),
        (
            "[{shot: a, seats: [0], more: 1}]",
            "shot allows only a `seats:` filter alongside the name",
        ),
        (
            "[{shot: a, seats: []}]",
            "shot seats must be a non-empty list of seat indices",
        ),
        (
            "[{shot: a, seats: 0}]",
            "shot seats must be a non-empty list of seat indices",
        ),
        (
            "[{shot: a, seats: [3]}]",
            "shot seat must be an integer in 0..1",
        ),
        (
            "[{shot: a, seats: [0, 0]}]",
            "duplicate seat 0 in shot filter",
        ),
    ] {
        let text = format!("{head}steps: {steps}");
        assert_eq!(
            refused(&text),
            format!("smoke.yaml:3: {message}"),
            "{steps}"
        );
    }
    assert_eq!(
        refused(&format!("{head}steps: [{{wake: }}]")),
        "smoke.yaml: script has no shot step — nothing would be captured"
    );
}

#[test]
fn a_mistake_in_a_step_names_the_line_of_the_step() {
    let text = "seed: 1\nseats: 1\nsteps:\n  - shot: ok\n  - key: bogus\n";
    assert!(refused(text).starts_with("smoke.yaml:5: unknown key"));
    assert!(refused("seed: 1\nseats: [1\n").contains("not YAML: "));
    assert_eq!(
        SmokeScript::parse(b"seed: 1\n# \xff\n")
            .unwrap_err()
            .to_string(),
        "smoke.yaml:2: not UTF-8"
    );
}

#[test]
fn values_are_judged_in_the_order_of_the_file_and_steps_last() {
    assert!(refused("steps: [{zap: 1}]\nseed: x\n").ends_with(":2: seed must be an integer"));
    // The heartbeat counts wherever it stands.
    let text = "steps: [{advance: 75ms}, {shot: a}]\nseed: 1\nseats: 1\nheartbeat: 25ms\n";
    assert_eq!(parsed(text).run.steps.len(), 4);
}

#[test]
fn a_seed_decides_the_second_of_the_year_2000() {
    for (seed, second) in [(0, 0), (1234, 1_234), (31_536_000, 0), (-1, 31_535_999)] {
        assert_eq!(
            clock_unix_nanos(seed),
            (EPOCH_UNIX_SECONDS + second) * 1_000_000_000
        );
    }
    assert!(clock_unix_nanos(i64::MIN) > 0 && clock_unix_nanos(i64::MAX) > 0);
}

#[test]
fn every_limit_is_held_at_its_edge() {
    let head = "seed: 1\nseats: 1\n";
    let fits = |text: String| SmokeScript::parse(text.as_bytes()).map(|_| ());
    let last_words = |text: String| refused(&text);

    // The last step is the shot.
    let typed = |count: usize| {
        format!(
            "{head}steps: [{{text: {}}}, {{shot: a}}]",
            "x".repeat(count)
        )
    };
    assert_eq!(fits(typed(MAX_STEPS - 1)), Ok(()));
    let many = "smoke.yaml:3: more than 200000 characters, heartbeats and other steps";
    assert_eq!(last_words(typed(MAX_STEPS)), many);
    let waited =
        |beats: usize| format!("{head}steps: [{{advance: {}ms}}, {{shot: a}}]", beats * 50);
    assert_eq!(fits(waited(MAX_STEPS - 1)), Ok(()));
    assert_eq!(last_words(waited(MAX_STEPS)), many);
    assert_eq!(
        last_words(format!("{head}steps: [{{advance: 2000000h}}]")),
        many
    );

    let shots = |count: usize| {
        let shots: String = (0..count).map(|n| format!("{{shot: s{n}}}, ")).collect();
        format!("{head}steps: [{shots}]")
    };
    assert_eq!(fits(shots(MAX_SHOTS)), Ok(()));
    assert_eq!(
        last_words(shots(MAX_SHOTS + 1)),
        "smoke.yaml:3: more than 99 shots"
    );

    let named = |length: usize| format!("{head}steps: [{{shot: {}}}]", "n".repeat(length));
    assert_eq!(fits(named(MAX_NAME_BYTES)), Ok(()));
    let long = "smoke.yaml:3: shot name longer than 200 bytes";
    assert_eq!(last_words(named(MAX_NAME_BYTES + 1)), long);

    let keys = |count: usize| {
        let keys: String = (0..count).map(|n| format!("k{n}: 1, ")).collect();
        format!("{head}config: {{{keys}}}\nsteps: [{{shot: a}}]")
    };
    assert_eq!(fits(keys(MAX_CONFIG)), Ok(()));
    assert_eq!(
        last_words(keys(MAX_CONFIG + 1)),
        "smoke.yaml:3: more than 1024 config keys"
    );

    let filled = |bytes: usize| {
        let script = format!("{head}steps: [{{shot: a}}]\n#");
        let rest = bytes - script.len();
        script + &"x".repeat(rest)
    };
    assert_eq!(fits(filled(MAX_SCRIPT_BYTES)), Ok(()));
    let large = "smoke.yaml: larger than 1048576 bytes";
    assert_eq!(last_words(filled(MAX_SCRIPT_BYTES + 1)), large);
}

const SAMPLE: &str = "seed: 0x7\nseats: 3\nheartbeat: 100ms\nconfig: {a: 1, b: \"x\\ny\", c: |\n  z\n}\n\
    steps:\n  - shot: start\n  - rune: \"5\"\n  - key: enter\n  - text: 'a''b'\n  - seat: 2\n  \
    - advance: 1s\n  - wake: ~\n  - {shot: end, seats: [2, 0]}\n---\nmore\n";

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = SmokeScript::parse(&bytes);
    }

    #[test]
    fn no_yaml_punctuation_makes_the_reader_panic(
        text in "[-?:,\\[\\]{}#&*!|>'\"%@` \t\na-c0-9~\u{85}\u{feff}]{0,200}"
    ) {
        let _ = SmokeScript::parse(text.as_bytes());
    }

    #[test]
    fn a_mutated_script_is_read_or_refused_on_a_line_of_its_own(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..6)
    ) {
        let mut bytes = SAMPLE.as_bytes().to_vec();
        for (at, byte, kind) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                2 => bytes.insert(at, byte),
                _ => bytes.truncate(at + 1),
            }
        }
        match SmokeScript::parse(&bytes) {
            Ok(script) => prop_assert_eq!(script.lines.len(), script.run.steps.len()),
            Err(problem) => {
                let lines = 1 + bytes.iter().filter(|byte| **byte == b'\n').count();
                prop_assert!(problem.line.is_none_or(|line| (1..=lines).contains(&line)));
            }
        }
    }
}
