//! Reading and writing scripts: examples, limits, errors and the round trip.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::super::BUILTIN;
use super::*;

fn problem(text: &str) -> (usize, LineProblem) {
    match Script::parse(text) {
        Err(ScriptError::Line { line, problem }) => (line, problem),
        other => panic!("{text:?} gave {other:?}"),
    }
}

#[test]
fn every_builtin_script_reads_and_has_steps() {
    for builtin in BUILTIN {
        let script = Script::parse(builtin.text);
        assert!(script.is_ok(), "{}: {script:?}", builtin.name);
        assert_eq!(builtin.script(), script.unwrap(), "{}", builtin.name);
    }
}

#[test]
fn the_players_of_the_reference_traces_can_be_written() {
    let script = Script::parse(
        "config greeting=hello\n\
         seat 1 member account=a1 handle=ada conn=c1\n\
         seat 0 guest account= handle=zoë conn=c9\n\
         join 1\n\
         wake +50ms\n\
         input 1 'é'\n\
         key 1 up\n",
    )
    .unwrap();
    let ada = script.setup.player(1);
    assert_eq!(
        (ada.account.as_str(), ada.handle.as_str(), ada.conn.as_str()),
        ("a1", "ada", "c1")
    );
    let zoe = script.setup.player(0);
    assert_eq!(
        (zoe.account.as_str(), zoe.handle.as_str(), zoe.kind),
        ("", "zoë", Kind::Guest)
    );
    assert_eq!(script.setup.player(7).account, "seat-7");
    assert_eq!(
        script.steps[1],
        Step::Wake {
            after: Duration::from_millis(50)
        }
    );
    assert_eq!(
        script.steps[2],
        Step::Input {
            seat: 1, rune: 'é'
        }
    );
    assert_eq!(
        script.steps[3],
        Step::Key {
            seat: 1,
            key: Key::Up
        }
    );
}

#[test]
fn memory_pages_are_what_a_memory_can_have() {
    for (pages, reads) in [("0", false), ("1", true), ("65536", true), ("65537", false)] {
        let script = Script::parse(&format!("memory-pages {pages}\njoin 0\n"));
        assert_eq!(script.is_ok(), reads, "{pages}: {script:?}");
    }
}

#[test]
fn an_error_names_its_line() {
    use LineProblem as P;
    let not = |word: &str, wanted| P::NotA {
        word: word.to_owned(),
        wanted,
    };
    assert_eq!(
        problem("# one\n\njump 0\n"),
        (3, P::Unknown("jump".to_owned()))
    );
    assert_eq!(problem("join"), (1, P::Shape("join SEAT")));
    assert_eq!(problem("join 0 1"), (1, P::Shape("join SEAT")));
    assert_eq!(problem("join x"), (1, not("x", "a seat number")));
    assert_eq!(problem("input 0 ab"), (1, not("ab", "one character")));
    assert_eq!(problem("input 0 ''"), (1, not("", "one character")));
    assert_eq!(problem("input 0 'a"), (1, P::OpenQuote));
    assert_eq!(problem("wake 50ms"), (1, P::Shape("wake +DURATION")));
    assert_eq!(
        problem("join 0\nseed 1"),
        (2, P::LateSetup("seed".to_owned()))
    );
    assert_eq!(
        problem("seed 1\nseed 1"),
        (2, P::Twice("`seed`".to_owned()))
    );
    assert_eq!(
        problem("config a=1\nconfig a=2"),
        (2, P::Twice("config \"a\"".to_owned()))
    );
    assert_eq!(
        problem("seat 1 guest\nseat 1 guest"),
        (2, P::Twice("seat 1".to_owned()))
    );
    assert_eq!(
        problem("seat 1 guest conn=a conn=b"),
        (1, P::Twice("conn".to_owned()))
    );
    assert_eq!(
        problem("seat 1 guest name=a"),
        (1, P::Unknown("name".to_owned()))
    );
    assert_eq!(
        problem("mode fast"),
        (1, not("fast", "quick, private or solo"))
    );
    assert_eq!(
        problem("shot a\nshot a"),
        (2, P::Twice("shot \"a\"".to_owned()))
    );
    assert_eq!(
        problem("join 0\nclose\n\nsnapshot"),
        (4, P::AfterClose("snapshot".to_owned()))
    );
    assert_eq!(
        problem("close\nclose"),
        (2, P::AfterClose("close".to_owned()))
    );
    for bad in ["shot .a", "shot ''", "shot a/b", "shot é"] {
        assert!(matches!(problem(bad), (1, P::NotA { .. })), "{bad}");
    }
    for bad in [
        "50",
        "ms",
        "-5ms",
        "5 ms",
        "1.5s",
        "9223372036854775808ns",
        "3000000000h",
    ] {
        let problem = Script::parse(&format!("advance {bad}"));
        assert!(
            matches!(problem, Err(ScriptError::Line { line: 1, .. })),
            "{bad}: {problem:?}"
        );
    }
    assert_eq!(
        duration("9223372036854775807ns"),
        Ok(Duration::from_nanos(i64::MAX as u64))
    );
    let shown = Script::parse("join 0\njump 0").unwrap_err().to_string();
    assert_eq!(shown, "line 2: unknown word \"jump\"");
}

#[test]
fn each_limit_holds_at_the_limit_and_not_one_past_it() {
    let steps = |count: usize| "wake\n".repeat(count);
    assert_eq!(
        Script::parse(&steps(MAX_STEPS)).unwrap().steps.len(),
        MAX_STEPS
    );
    assert_eq!(
        problem(&steps(MAX_STEPS + 1)),
        (
            MAX_STEPS + 1,
            LineProblem::Limit {
                what: "the number of steps",
                limit: MAX_STEPS
            }
        )
    );

    assert!(Script::parse("join 1023").is_ok());
    assert_eq!(
        problem("join 1024"),
        (
            1,
            LineProblem::Limit {
                what: "the seat number",
                limit: 1_023
            }
        )
    );

    let seat = |len: usize| format!("seat 0 member handle={}\njoin 0", "x".repeat(len));
    assert!(Script::parse(&seat(MAX_FIELD_BYTES)).is_ok());
    assert!(matches!(
        problem(&seat(MAX_FIELD_BYTES + 1)),
        (1, LineProblem::Limit { .. })
    ));

    let config = |count: usize| {
        let lines = (0..count).map(|key| format!("config k{key}=v\n"));
        lines.chain(["wake\n".to_owned()]).collect::<String>()
    };
    assert!(Script::parse(&config(MAX_CONFIG)).is_ok());
    let (line, past) = problem(&config(MAX_CONFIG + 1));
    assert_eq!(line, MAX_CONFIG + 1);
    assert!(matches!(past, LineProblem::Limit { .. }));

    let shots = |count: usize| {
        (0..count)
            .map(|n| format!("shot s{n}\n"))
            .collect::<String>()
    };
    assert!(Script::parse(&shots(MAX_SHOTS)).is_ok());
    assert_eq!(
        problem(&shots(MAX_SHOTS + 1)),
        (
            MAX_SHOTS + 1,
            LineProblem::Limit {
                what: "the number of shots",
                limit: MAX_SHOTS
            }
        )
    );

    let name = |len: usize| format!("shot {}", "x".repeat(len));
    assert!(Script::parse(&name(MAX_FIELD_BYTES)).is_ok());
    assert!(matches!(
        problem(&name(MAX_FIELD_BYTES + 1)),
        (1, LineProblem::Limit { .. })
    ));

    let sized = |bytes: usize| format!("wake\n{}", "#".repeat(bytes - 5));
    assert!(Script::from_bytes(sized(MAX_SCRIPT_BYTES).as_bytes()).is_ok());
    assert_eq!(
        Script::from_bytes(sized(MAX_SCRIPT_BYTES + 1).as_bytes()),
        Err(ScriptError::TooLarge {
            bytes: MAX_SCRIPT_BYTES + 1
        })
    );
}

#[test]
fn a_setup_line_can_be_laid_over_a_setup() {
    let mut setup = Script::parse("seed 1\nseat 0 guest\nconfig a=1\nwake")
        .unwrap()
        .setup;
    for line in [
        "seed 2",
        "deadline 5s",
        "seat 0 member handle=x",
        "config a=2",
        "# nothing",
    ] {
        setup.set(line).unwrap();
    }
    assert_eq!(setup.seed, 2);
    assert_eq!(setup.deadline, Some(Duration::from_secs(5)));
    assert_eq!(setup.player(0).handle, "x");
    assert_eq!(setup.config["a"], "2");
    let before = setup.clone();
    assert_eq!(
        setup.set("join 0"),
        Err(LineProblem::Unknown("join".to_owned()))
    );
    assert!(setup.set("mode fast").is_err());
    assert_eq!(setup, before);
}

#[test]
fn a_file_that_is_no_script_is_refused() {
    assert_eq!(Script::from_bytes(b""), Err(ScriptError::NoSteps));
    assert_eq!(
        Script::from_bytes(b"# only words\n"),
        Err(ScriptError::NoSteps)
    );
    assert_eq!(
        Script::from_bytes(b"join 0\n\xff"),
        Err(ScriptError::NotUtf8 { at: 7 })
    );
    assert_eq!(Script::parse("join 0\r\nwake\r\n").unwrap().steps.len(), 2);
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9-]{0,8}", "\\PC{0,8}", "[ #='\"\\\\\\n\\t]{0,6}"]
}

fn seats() -> impl Strategy<Value = Seat> {
    let kinds = prop_oneof![Just(Kind::Guest), Just(Kind::Member)];
    let colours = (any::<[u8; 3]>(), any::<[u8; 3]>(), 0_u8..128);
    (kinds, [texts(), texts(), texts(), texts()], colours).prop_map(
        |(kind, [account, handle, conn, glyph], (ink, bg, fallback))| Seat {
            kind,
            account,
            handle,
            conn,
            glyph,
            ink,
            bg,
            fallback,
        },
    )
}

fn durations() -> impl Strategy<Value = Duration> {
    let nanos = prop_oneof![
        0..=i64::MAX as u64,
        (0_u64..10_000).prop_map(|ms| ms * 1_000_000)
    ];
    nanos.prop_map(Duration::from_nanos)
}

fn setups() -> impl Strategy<Value = Setup> {
    let modes = prop_oneof![Just(Mode::Quick), Just(Mode::Private), Just(Mode::Solo)];
    let rooms = (
        any::<i64>(),
        modes,
        any::<Option<u32>>(),
        any::<Option<u32>>(),
    );
    let clock = prop_oneof![
        any::<i64>(),
        (-100_i64..100).prop_map(|s| s * 1_000_000_000)
    ]
    // The magnitude must fit: `-i64::MIN` has no positive counterpart.
    .prop_map(|nanos| nanos.max(-i64::MAX));
    let deadline = proptest::option::of(durations());
    let pages = proptest::option::of(1..=65_536_u32);
    let limits = (clock, deadline, pages, any::<Option<bool>>());
    let config = btree_map("[a-z.=#]{1,6}", texts(), 0..4);
    let seats: BTreeSeats = btree_map(0..MAX_SEATS, seats(), 0..4).boxed();
    (rooms, limits, config, seats).prop_map(
        |(
            (seed, mode, capacity, min_players),
            (clock, deadline, pages, resident),
            config,
            seats,
        )| Setup {
            seed,
            mode,
            capacity,
            min_players,
            clock_unix_nanos: clock,
            deadline,
            memory_pages_max: pages,
            resident,
            config,
            seats,
        },
    )
}

type BTreeSeats = BoxedStrategy<BTreeMap<u16, Seat>>;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..MAX_SEATS).prop_map(|seat| Step::Join { seat }),
        (0..MAX_SEATS).prop_map(|seat| Step::Leave { seat }),
        (0..MAX_SEATS, any::<char>()).prop_map(|(seat, rune)| Step::Input { seat, rune }),
        (0..MAX_SEATS, proptest::sample::select(Key::ALL))
            .prop_map(|(seat, key)| Step::Key { seat, key }),
        durations().prop_map(|after| Step::Wake { after }),
        durations().prop_map(|by| Step::Advance { by }),
        Just(Step::Snapshot),
    ];
    let shots = proptest::collection::btree_set("[a-zA-Z0-9][a-zA-Z0-9._-]{0,9}", 0..3);
    (vec(step, 1..20), shots, any::<bool>()).prop_map(|(mut steps, shots, closes)| {
        steps.extend(shots.into_iter().map(|name| Step::Shot { name }));
        steps.extend(closes.then_some(Step::Close));
        steps
    })
}

proptest! {
    #[test]
    fn a_printed_script_reads_back_the_same(setup in setups(), steps in steps()) {
        let script = Script { setup, steps };
        let text = script.to_string();
        prop_assert_eq!(Script::parse(&text), Ok(script), "{}", text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(\\PC|\\n){0,200}") {
        let _ = Script::parse(&text);
    }

    #[test]
    fn no_line_of_known_words_makes_the_reader_panic(
        words in vec(proptest::sample::select(&[
            "join", "seat", "0", "1024", "input", "'x'", "wake", "+1ms", "config", "a=b", "clock",
            "-5s", "guest", "ink=00ff00", "fallback=@", "\n", "key", "up", "shot", "'",
        ][..]), 0..30),
    ) {
        let _ = Script::parse(&words.join(" "));
    }
}
