//! Whole callbacks: what a game is told, what it can ask for, and what is dropped before it.

use cabinet_guest::prelude::*;
use cabinet_guest::testing::{Callback, TestOptions, TestPlayer};
use cabinet_guest::{ConfigError, Delivery, Kind, KvError, LogLevel, Standing};
use proptest::prelude::*;

/// Notes what it is told.
#[derive(Debug, Default)]
struct Diary {
    notes: Vec<String>,
    kept: Option<PlayerId>,
}

impl Game for Diary {
    const META: Meta = Meta::new("diary", "Diary")
        .players(1, 4)
        .roster_epochs()
        .characters()
        .config(&[
            ConfigSpec::text("motd", "Message", "hello"),
            ConfigSpec::number("size", "Size", "3"),
            ConfigSpec::number("ratio", "Ratio", "0.5"),
            ConfigSpec::bool("fast", "Fast", true),
        ]);

    fn new(room: &mut Room) -> Diary {
        Diary {
            notes: vec![format!("new {}", room.player_count())],
            kept: None,
        }
    }

    fn start(&mut self, room: &mut Room) {
        self.notes
            .push(format!("start {:?} {:?}", room.mode(), room.capacity()));
    }

    fn join(&mut self, room: &mut Room, player: PlayerId) {
        self.kept.get_or_insert(player);
        let here: Vec<&str> = room.players().map(|player| player.handle).collect();
        self.notes
            .push(format!("join {} of {here:?}", room.handle(player)));
    }

    fn leave(&mut self, room: &mut Room, player: PlayerId) {
        let here: Vec<&str> = room.players().map(|player| player.handle).collect();
        self.notes
            .push(format!("leave {} of {here:?}", room.handle(player)));
        assert!(!room.is_present(player) && room.player(player).is_some());
        room.kv_set_i64(player, "last", 7, MergeRule::KeepWinner)
            .ok();
    }

    fn input(&mut self, room: &mut Room, player: PlayerId, input: Input) {
        self.notes
            .push(format!("{} typed {input:?}", room.handle(player)));
        let kept = self.kept.unwrap_or(player);
        match input {
            Input::Char('p') => {
                let outcome = Outcome::new().finished(player, 5).finished(kept, 9);
                let delivery = room.post(&outcome.ranked_high_to_low());
                self.notes.push(format!("posted {delivery:?}"));
            }
            Input::Char('e') => {
                let outcome = Outcome::new().with(Standing {
                    player,
                    metric: -1,
                    rank: 3,
                    status: Status::Flagged,
                });
                let delivery = room.end(&outcome);
                assert_eq!(room.ended(), delivery != Delivery::Dropped);
                let again = room.end(&Outcome::new());
                self.notes.push(format!("ended {delivery:?} {again:?}"));
            }
            Input::Char('!') => panic!("asked to"),
            Input::Char('k') => {
                assert_eq!(room.kv_get(player, ""), Err(KvError::EmptyKey));
                assert_eq!(
                    room.kv_set(player, "x", b"", MergeRule::Sum),
                    Err(KvError::EmptyValue)
                );
                assert_eq!(
                    room.kv_set(player, "x", b"a", MergeRule::Max),
                    Err(KvError::NotANumber)
                );
                let coins = room.kv_get_i64(player, "coins");
                let set = room.kv_set_i64(player, "coins", 42, MergeRule::Max);
                self.notes.push(format!("{coins:?} {set:?}"));
            }
            Input::Char('o') => {
                self.notes.push(format!("{:?}", room.kv_get(kept, "last")));
            }
            Input::Char('d') => room.kv_delete(player, "coins").unwrap(),
            Input::Char('c') => {
                let note = format!(
                    "{:?} {:?} {:?} {:?}",
                    room.config("motd").map(str::to_owned),
                    room.config_i64("size"),
                    room.config_number("ratio"),
                    room.config_bool("fast")
                );
                self.notes.push(note);
                assert_eq!(room.config("nope"), Err(ConfigError::Undeclared));
                assert_eq!(room.config_bool("size"), Err(ConfigError::WrongType));
                assert_eq!(room.config_i64("ratio"), Err(ConfigError::BadDefault));
            }
            Input::Char('l') => room.log(LogLevel::Debug, format_args!("{}", "é".repeat(3000))),
            Input::Char('i') => room.set_input_context(InputContext::Text),
            _ => {}
        }
    }

    fn wake(&mut self, room: &mut Room) {
        let roll = room.rng().below(1000);
        self.notes
            .push(format!("wake {} {roll}", room.now().unix_seconds()));
    }

    fn close(&mut self, room: &mut Room) {
        self.notes.push(format!("close {}", room.settled()));
    }
}

fn last(room: &TestRoom<Diary>) -> &str {
    room.game().notes.last().unwrap()
}

#[test]
fn a_room_is_told_everything_in_order() {
    let mut room = TestRoom::<Diary>::new();
    let (ada, bob) = (room.join("ada"), room.join("bob"));
    room.input(bob, Key::Up);
    room.wake();
    room.leave(ada);
    room.close();
    assert_eq!(
        room.game().notes,
        [
            "new 0",
            "start Private Some(4)",
            "join ada of [\"ada\"]",
            "join bob of [\"ada\", \"bob\"]",
            "bob typed Key(Up)",
            "wake 1700000000 413",
            "leave ada of [\"bob\"]",
            "close true",
        ]
    );
}

#[test]
fn the_end_of_a_room_is_told_once_and_nothing_follows() {
    let mut room = TestRoom::<Diary>::new();
    let ada = room.join("ada");
    room.input(ada, 'e');
    let notes = &room.game().notes;
    assert_eq!(
        notes[notes.len() - 2..],
        ["ended Complete AlreadyEnded", "close true"]
    );
    let credit = room.result().unwrap()[0];
    assert_eq!((credit.seat, credit.metric, credit.rank), (ada, -1, 3));
    assert_eq!(credit.status, Status::Flagged);
    room.input(ada, 'x');
    room.wake();
    room.close();
    assert_eq!(last(&room), "close true");
}

#[test]
fn a_result_never_credits_somebody_for_a_player_who_left() {
    let mut room = TestRoom::<Diary>::new();
    let (ada, bob) = (room.join("ada"), room.join("bob"));
    room.leave(ada);
    room.input(bob, 'p');
    assert_eq!(last(&room), "posted Partial(1)");
    let post = &room.posts()[0];
    assert_eq!((post.len(), post[0].seat, post[0].metric), (1, bob, 5));
    assert!(
        room.logs()
            .iter()
            .any(|(level, _)| *level == LogLevel::Warn)
    );
}

#[test]
fn a_room_whose_end_the_host_had_no_memory_for_goes_on_until_the_next_end() {
    let mut room = TestRoom::<Diary>::new();
    let ada = room.join("ada");
    room.set_memory(false);
    for (key, note) in [('e', "ended Dropped Dropped"), ('p', "posted Dropped")] {
        room.input(ada, key);
        assert_eq!(last(&room), note);
    }
    assert_eq!((room.result(), room.posts().len()), (None, 0));
    room.set_memory(true);
    room.input(ada, 'p');
    assert_eq!(last(&room), "posted Complete");
    room.input(ada, 'e');
    assert_eq!(last(&room), "close true");
    assert_eq!(room.result().unwrap()[0].seat, ada);
}

#[test]
fn without_memory_for_a_key_nothing_is_read_stored_forgotten_or_logged() {
    let mut room = TestRoom::<Diary>::new();
    let ada = room.join("ada");
    room.set_kv(ada, "coins", b"37");
    room.set_config("motd", b"hi");
    room.set_memory(false);
    room.input(ada, 'k');
    assert_eq!(last(&room), "Ok(None) Ok(())");
    room.input(ada, 'd');
    assert_eq!(room.kv(ada, "coins"), Some(&b"37"[..]));
    room.input(ada, 'c');
    assert!(last(&room).starts_with(r#"Ok("hello")"#), "{}", last(&room));
    room.input(ada, 'l');
    assert_eq!(room.logs(), []);
}

#[test]
fn a_game_that_panics_leaves_its_test_room_to_be_looked_at() {
    let mut room = TestRoom::<Diary>::new();
    let ada = room.join("ada");
    let panicked = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
        room.input(ada, '!');
    }));
    assert!(panicked.is_err());
    assert_eq!(last(&room), "ada typed Char('!')");
    room.wake();
    assert!(last(&room).starts_with("wake"));
}

#[test]
fn what_is_stored_on_leave_is_stored_for_who_left() {
    let mut room = TestRoom::<Diary>::new();
    let (ada, bob) = (room.join("ada"), room.join("bob"));
    room.leave(ada);
    assert_eq!(
        (room.kv(ada, "last"), room.kv(bob, "last")),
        (Some(&b"7"[..]), None)
    );
    room.input(bob, 'o');
    assert_eq!(last(&room), "Err(NotInRoom)");
}

#[test]
fn the_store_answers_tells_mistakes_apart_and_reads_as_empty_when_down() {
    let mut room = TestRoom::<Diary>::new();
    let ada = room.join("ada");
    room.set_kv(ada, "coins", b" 37\n");
    room.input(ada, 'k');
    assert_eq!(last(&room), "Ok(Some(37)) Ok(())");
    assert_eq!(room.kv(ada, "coins"), Some(&b"42"[..]));
    room.set_kv(ada, "coins", b"many");
    room.input(ada, 'k');
    assert_eq!(last(&room), "Err(NotANumber) Ok(())");
    room.set_store(false);
    room.input(ada, 'k');
    assert_eq!(last(&room), "Ok(None) Ok(())");
    room.set_store(true);
    room.input(ada, 'd');
    assert_eq!(room.kv(ada, "coins"), None);
}

#[test]
fn a_guest_without_an_account_stores_nothing() {
    let mut room = TestRoom::<Diary>::new();
    let guest = room.join_guest("guest");
    room.input(guest, 'o');
    assert_eq!(last(&room), "Err(NoAccount)");
}

#[test]
fn configuration_falls_back_to_the_declared_default() {
    let with = |config: &[(&str, &str)]| {
        let config = config
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()));
        let mut room = TestRoom::<Diary>::with(TestOptions {
            config: config.collect(),
            ..TestOptions::default()
        });
        let ada = room.join("ada");
        room.input(ada, 'c');
        (last(&room).to_owned(), room.logs().len())
    };
    // One warning each time: reading the fraction as a whole number.
    assert_eq!(
        with(&[]),
        (r#"Ok("hello") Ok(3) Ok(0.5) Ok(true)"#.to_owned(), 1)
    );
    let set = [
        ("motd", "hi"),
        ("size", " 12 "),
        ("ratio", "-1e3"),
        ("fast", "false"),
    ];
    assert_eq!(with(&set).0, r#"Ok("hi") Ok(12) Ok(-1000.0) Ok(false)"#);
    let broken = [
        ("motd", ""),
        ("size", "big"),
        ("ratio", "inf"),
        ("fast", "yes"),
    ];
    assert_eq!(
        with(&broken),
        (r#"Ok("hello") Ok(3) Ok(0.5) Ok(true)"#.to_owned(), 4)
    );
}

#[test]
fn a_configured_value_that_is_not_text_is_logged_and_the_default_taken() {
    let mut room = TestRoom::<Diary>::new();
    let ada = room.join("ada");
    for key in ["motd", "size"] {
        room.set_config(key, b"\xFF1");
    }
    room.input(ada, 'c');
    assert_eq!(last(&room), r#"Ok("hello") Ok(3) Ok(0.5) Ok(true)"#);
    let logs: Vec<&str> = room.logs().iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(
        logs,
        [
            "config motd: not UTF-8 text, using the default",
            "config size: not UTF-8 text, using the default",
            "config ratio: no usable number, and the declared default is none either",
        ]
    );
}

#[test]
fn a_log_line_is_cut_at_4096_bytes_between_characters() {
    let mut room = TestRoom::<Diary>::new();
    let ada = room.join("ada");
    room.input(ada, 'l');
    let (level, line) = &room.logs()[0];
    assert_eq!((*level, line.len()), (LogLevel::Debug, 4096));
    assert!(line.chars().all(|ch| ch == 'é'));
    room.input(ada, 'i');
    assert_eq!(room.input_context(), 2);
}

#[test]
fn one_seed_is_one_sequence_and_another_seed_another() {
    let rolls = |seed| {
        let mut room = TestRoom::<Diary>::with(TestOptions {
            seed,
            ..TestOptions::default()
        });
        room.advance(Duration::from_millis(500));
        room.game().notes.clone()
    };
    assert_eq!(rolls(-3), rolls(-3));
    assert_ne!(rolls(-3), rolls(4));
}

#[test]
fn a_reconnect_with_another_figure_is_seen_at_once() {
    let mut room = TestRoom::<Diary>::new();
    let figure = |glyph: &str, conn: &str| TestPlayer {
        handle: "ada".into(),
        account: "a".into(),
        conn: conn.into(),
        kind: Kind::Member,
        glyph: glyph.into(),
        colors: [[1, 2, 3], [4, 5, 6]],
        ascii_fallback: b'A',
    };
    let first = room.join_as(figure("λ", "c1"));
    let before = room.player_id(first);
    room.leave(first);
    let second = room.join_as(figure("μ", "c2"));
    assert_ne!(room.player_id(second), before);
}

/// The context of a room with nobody in it, as in the legacy form.
fn empty_context() -> Vec<u8> {
    let mut payload = vec![0; 22];
    payload.extend([0, 0, 0]);
    payload
}

#[test]
fn what_is_short_absent_or_unknown_is_dropped_before_the_game() {
    let mut room = TestRoom::<Diary>::new();
    let before = room.game().notes.len();
    let context = empty_context();
    let one_short = &context[..context.len() - 1];
    for callback in [
        Callback::Join,
        Callback::Leave,
        Callback::Input,
        Callback::Wake,
    ] {
        room.call_raw(callback, &[]);
        room.call_raw(callback, one_short);
    }
    for callback in [Callback::Join, Callback::Leave, Callback::Input] {
        room.call_raw(callback, &context);
        room.call_raw(callback, &[&context[..], &[0; 10]].concat());
        room.call_raw(callback, &[&context[..], &[0xFF; 10]].concat());
    }
    assert_eq!(room.game().notes.len(), before);
}

#[test]
fn unknown_kinds_keys_and_code_points_are_ignored_and_trailing_bytes_too() {
    let mut room = TestRoom::<Diary>::new();
    room.join("ada");
    let mut context = empty_context();
    context.splice(22..24, [0xFF, 0xFF]);
    // "Unchanged" under the epoch of ada's join.
    context.splice(24..24, 2_u32.to_le_bytes());
    let typed = |room: &mut TestRoom<Diary>, kind: u8, rune: u32, key: u8, trailing: &[u8]| {
        let before = room.game().notes.len();
        let mut payload = context.clone();
        payload.extend(0_u32.to_le_bytes());
        payload.push(kind);
        payload.extend(rune.to_le_bytes());
        payload.push(key);
        payload.extend(trailing);
        room.call_raw(Callback::Input, &payload);
        room.game().notes.len() > before
    };
    assert!(typed(&mut room, 0, 'x' as u32, 0, &[]));
    assert!(typed(&mut room, 1, 99, 9, &[1, 2, 3]));
    for (kind, rune, key) in [
        (2, 'x' as u32, 1),
        (1, 0, 0),
        (1, 0, 10),
        (0, 0xD800, 0),
        (0, 0x11_0000, 0),
    ] {
        assert!(
            !typed(&mut room, kind, rune, key, &[]),
            "{kind} {rune} {key}"
        );
    }
    assert_eq!(room.logs(), []);
}

#[test]
fn an_unchanged_roster_of_another_epoch_keeps_the_players_and_is_logged_once() {
    let mut room = TestRoom::<Diary>::new();
    let ada = room.join("ada");
    let mut context = empty_context();
    context.splice(22..24, [0xFF, 0xFF]);
    context.splice(24..24, 77_u32.to_le_bytes());
    for _ in 0..3 {
        room.call_raw(Callback::Wake, &context);
    }
    assert!(room.player_id(ada).is_some());
    assert_eq!(room.logs().len(), 1, "{:?}", room.logs());
}

proptest! {
    #[test]
    fn no_payload_breaks_a_room(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 1..20),
    ) {
        let mut room = TestRoom::<Diary>::new();
        room.join("ada");
        let callbacks =
            [Callback::Start, Callback::Join, Callback::Leave, Callback::Input, Callback::Wake];
        for (index, payload) in payloads.iter().enumerate() {
            let mut bytes = empty_context();
            bytes.truncate(22);
            bytes.extend(payload);
            let callback = callbacks[index % callbacks.len()];
            room.call_raw(callback, &bytes);
            if callback == Callback::Start && room.started() {
                room.game();
            }
        }
    }
}

/// A game no host loads.
struct Unloadable;

impl Game for Unloadable {
    const META: Meta = Meta::new("Bad Slug", "Unloadable");

    fn new(_: &mut Room) -> Unloadable {
        Unloadable
    }
}

#[test]
#[should_panic(expected = "META is invalid")]
fn a_declaration_that_no_host_takes_fails_its_native_tests() {
    let _ = TestRoom::<Unloadable>::new();
}
