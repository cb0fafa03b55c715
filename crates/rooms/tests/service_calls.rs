//! What a guest asks of the world, as the services of its room see it.

mod common;
#[path = "../../host/tests/common/mod.rs"]
mod guests;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cabinet_host::{Fault, Input, LogLevel, LogSource, Mode, Player, Status};
use cabinet_rooms::services::memory::MemoryStore;
use cabinet_rooms::services::{
    Accounts, KvAddress, KvStore, Leaderboard, LogOrigin, LogSink, MergeRule, Post, PostId, Posted,
    ServiceError, ServiceSet, StoreAdmin, wait_for,
};
use cabinet_rooms::{
    EndReason, Listed, Listing, Reply, Resume, RoomHandle, RoomId, RoomSpec, Seat,
};
use cabinet_wire::{LOG_BYTES_PER_SECOND, LOG_WRITE_BYTES_MAX, Lifecycle};

use common::{ByHand, EPOCH, WIDE, by_hand, game, list, ms, player};

/// A write as the store was asked for it.
type Write = (String, String, String, Vec<u8>, Option<MergeRule>);

/// Keeps writes, and carries them out.
#[derive(Default)]
struct Ledger {
    writes: Mutex<Vec<Write>>,
    store: MemoryStore,
}

impl KvStore for Ledger {
    fn get(&self, at: KvAddress<'_>, reply: Reply<Option<Vec<u8>>>) {
        KvStore::get(&self.store, at, reply);
    }

    fn set(&self, at: KvAddress<'_>, value: &[u8], rule: Option<MergeRule>, reply: Reply<()>) {
        let key = String::from_utf8(at.key.to_vec()).unwrap();
        let write = (at.slug.into(), at.account.into(), key, value.to_vec(), rule);
        self.writes.lock().unwrap().push(write);
        self.store.set(at, value, rule, reply);
    }

    fn delete(&self, at: KvAddress<'_>, reply: Reply<()>) {
        self.store.delete(at, reply);
    }
}

/// Keeps posts and what became of them.
#[derive(Default)]
struct Board {
    posts: Mutex<Vec<(Post, Posted)>>,
    store: MemoryStore,
}

impl Leaderboard for Board {
    fn post(&self, post: &Post, reply: Reply<Posted>) {
        let answer = wait_for(|reply| self.store.post(post, reply));
        let posted = answer.clone().unwrap();
        self.posts.lock().unwrap().push((post.clone(), posted));
        reply.send(answer);
    }
}

/// A log record.
type Record = (String, RoomId, LogLevel, LogSource, Vec<u8>);

/// Keeps log records.
#[derive(Default)]
struct Log(Mutex<Vec<Record>>);

impl LogSink for Log {
    fn record(&self, from: &LogOrigin<'_>, message: &[u8]) {
        let record = (
            from.slug.to_owned(),
            from.room,
            from.level,
            from.source,
            message.to_vec(),
        );
        self.0.lock().unwrap().push(record);
    }
}

/// Keeps everything of one account under another.
struct Alias;

impl Accounts for Alias {
    fn account(&self, player: &Player, reply: Reply<Option<String>>) {
        reply.send(Ok(Some(format!("kept-{}", player.account))));
    }
}

fn tour() -> Arc<Listed> {
    list(Listing::new(game("tour.wasm")).with_lifecycle(Lifecycle::Ephemeral))
}

fn misbehave() -> Arc<Listed> {
    list(Listing::new(game("misbehave.wasm")))
}

fn spec(services: ServiceSet) -> RoomSpec {
    let mut spec = RoomSpec::default();
    spec.seed = Some(7);
    spec.services = services;
    spec
}

fn open(by: &ByHand, listed: &Arc<Listed>, services: ServiceSet) -> (RoomHandle, Seat) {
    let room = by.runtime.open(listed, spec(services)).unwrap();
    let seat = by.run(room.join(player(1))).unwrap();
    (room, seat)
}

fn press(by: &ByHand, seat: &Seat, runes: &str) {
    for rune in runes.chars() {
        by.run(seat.input(Input::Rune(rune as u32))).unwrap();
    }
    by.pass(Duration::ZERO);
}

#[test]
fn a_merge_rule_reaches_the_store_as_the_guest_named_it() {
    let by = by_hand();
    let ledger = Arc::new(Ledger::default());
    let services = ServiceSet {
        kv: Some(ledger.clone()),
        ..ServiceSet::default()
    };
    let (room, seat) = open(&by, &tour(), services);
    press(&by, &seat, "sssmk");
    by.run(seat.leave());
    let write = |key: &str, value: &[u8], rule| -> Write {
        ("tour".into(), "a1".into(), key.into(), value.into(), rule)
    };
    assert_eq!(
        *ledger.writes.lock().unwrap(),
        [
            write(
                "first",
                "premi\u{e8}re".as_bytes(),
                Some(MergeRule::KeepWinner)
            ),
            write("note", &[0, 0xFF, 0x80], Some(MergeRule::KeepLoser)),
            write("total", b"3", Some(MergeRule::Sum)),
            write("best", b"0", Some(MergeRule::Max)),
            write("visits", b"1", Some(MergeRule::Sum)),
            // Of the leaver, who can still be stored for.
            write("left", b"1", Some(MergeRule::Max)),
        ]
    );
    assert!(room.ending().is_none());
}

#[test]
fn a_rule_nobody_knows_keeps_the_winner_and_no_rule_is_none() {
    // "key" at 16, "frob" at 32, "sums" at 48 of which three bytes are a rule.
    let extra = r#"
        (import "extism:host/user" "kv_set" (func $set (param i64 i64 i64 i64)))
        (data (i32.const 16) "key") (data (i32.const 32) "frob") (data (i32.const 48) "sums")"#;
    let set = |rule: &str| {
        format!(
            "(call $set (i64.const 0) (call $block (i32.const 16) (i32.const 3))
               (call $block (i32.const 16) (i32.const 3)) {rule})"
        )
    };
    let wake = [
        "(call $block (i32.const 32) (i32.const 4))",
        "(call $block (i32.const 48) (i32.const 4))",
        "(call $block (i32.const 48) (i32.const 3))",
        "(i64.const 0)",
    ]
    .map(set)
    .concat();
    let wasm = guests::guest(&guests::plain(), extra, &wake);
    let by = by_hand();
    let ledger = Arc::new(Ledger::default());
    let services = ServiceSet {
        kv: Some(ledger.clone()),
        ..ServiceSet::default()
    };
    let listed = list(Listing::new(common::load(&wasm, WIDE)));
    let (_room, _seat) = open(&by, &listed, services);
    by.pass(ms(50));
    let rules: Vec<_> = ledger
        .writes
        .lock()
        .unwrap()
        .iter()
        .map(|write| write.4)
        .collect();
    assert_eq!(
        rules,
        [
            Some(MergeRule::KeepWinner),
            Some(MergeRule::KeepWinner),
            Some(MergeRule::Sum),
            None
        ]
    );
}

#[test]
fn values_are_kept_under_the_listings_slug_and_the_account_that_was_named() {
    let by = by_hand();
    let ledger = Arc::new(Ledger::default());
    let board = Arc::new(Board::default());
    let services = ServiceSet {
        kv: Some(ledger.clone()),
        leaderboard: Some(board.clone()),
        accounts: Some(Arc::new(Alias)),
        ..ServiceSet::default()
    };
    let listing = Listing::new(game("tour.wasm")).with_slug("ada/tour".parse().unwrap());
    let (_room, seat) = open(&by, &list(listing), services);
    press(&by, &seat, "kkp");
    let writes = ledger.writes.lock().unwrap();
    assert_eq!(writes.len(), 2);
    for (write, value) in writes.iter().zip(["1", "2"]) {
        assert_eq!(
            (write.0.as_str(), write.1.as_str()),
            ("ada/tour", "kept-a1")
        );
        assert_eq!(write.3, value.as_bytes());
    }
    assert_eq!(&*board.posts.lock().unwrap()[0].0.slug, "ada/tour");
}

#[test]
fn a_guest_reads_its_configuration_under_its_slug() {
    let by = by_hand();
    let store = MemoryStore::new();
    for (slug, greeting) in [("tour", "ahoy"), ("other", "nobody's")] {
        wait_for(|reply| {
            store.set_config(slug, b"greeting", Some(greeting.as_bytes()), reply);
        })
        .unwrap();
    }
    let log = Arc::new(Log::default());
    let mut services = store.services();
    services.log = Some(log.clone());
    let (_room, seat) = open(&by, &tour(), services);
    press(&by, &seat, "c");
    let records = log.0.lock().unwrap();
    let text = String::from_utf8_lossy(&records[0].4).into_owned();
    assert!(text.starts_with("greeting=ahoy speed=1.5"), "{text}");
}

#[test]
fn log_records_say_where_they_come_from() {
    let by = by_hand();
    let log = Arc::new(Log::default());
    let services = ServiceSet {
        log: Some(log.clone()),
        ..ServiceSet::default()
    };
    let (room, seat) = open(&by, &tour(), services.clone());
    press(&by, &seat, "l");
    let guest = |level, name: &str| -> Record {
        let text = format!("tour: {name} from 7");
        (
            "tour".into(),
            room.id(),
            level,
            LogSource::Guest,
            text.into(),
        )
    };
    assert_eq!(
        *log.0.lock().unwrap(),
        [
            guest(LogLevel::Debug, "debug"),
            guest(LogLevel::Info, "info"),
            guest(LogLevel::Warn, "warn"),
            guest(LogLevel::Error, "error"),
        ]
    );
    log.0.lock().unwrap().clear();
    // A panic's last words, through standard error.
    let (room, seat) = open(&by, &misbehave(), services);
    press(&by, &seat, "p");
    let records = log.0.lock().unwrap();
    let (slug, from, level, source, message) = &records[0];
    assert_eq!((slug.as_str(), *from), ("misbehave", room.id()));
    assert_eq!((*level, *source), (LogLevel::Debug, LogSource::Stdio));
    assert!(String::from_utf8_lossy(message).contains("panicked"));
}

/// Passed records of a guest and warnings of the host.
fn sorted(records: &[Record]) -> (Vec<&Record>, Vec<&Record>) {
    records
        .iter()
        .partition(|record| record.3 != LogSource::Host)
}

#[test]
fn a_guest_writes_32_kib_of_log_a_second_and_is_told_on_once() {
    let by = by_hand();
    let log = Arc::new(Log::default());
    let services = ServiceSet {
        log: Some(log.clone()),
        ..ServiceSet::default()
    };
    let (room, seat) = open(&by, &misbehave(), services);
    let began = Instant::now();
    // Six hundred lines, more than a second's budget holds; and again, to a spent budget.
    press(&by, &seat, "$$$");
    let windows = 1 + usize::try_from(began.elapsed().as_secs()).unwrap();
    let records = log.0.lock().unwrap().clone();
    let (passed, warned) = sorted(&records);
    let bytes: usize = passed.iter().map(|record| record.4.len().max(64)).sum();
    assert!(bytes <= LOG_BYTES_PER_SECOND * windows, "{bytes} bytes");
    assert!(bytes > LOG_BYTES_PER_SECOND - 128, "{bytes} bytes");
    assert!((1..=windows).contains(&warned.len()));
    for warning in warned {
        assert_eq!(warning.2, LogLevel::Warn);
        assert_eq!(warning.4, b"guest log output rate-limited");
    }
    assert!(room.ending().is_none());
}

#[test]
fn one_log_record_is_cut_after_4_kib_and_says_so() {
    let by = by_hand();
    let log = Arc::new(Log::default());
    let services = ServiceSet {
        log: Some(log.clone()),
        ..ServiceSet::default()
    };
    let (_room, seat) = open(&by, &misbehave(), services);
    press(&by, &seat, "%");
    let records = log.0.lock().unwrap();
    assert_eq!(records.len(), 1);
    let message = &records[0].4;
    let mark = "…[truncated]".as_bytes();
    assert!(message.ends_with(mark));
    assert_eq!(message.len(), LOG_WRITE_BYTES_MAX + mark.len());
}

#[test]
fn a_log_that_panics_loses_its_record_and_nothing_else() {
    struct Broken;
    impl LogSink for Broken {
        fn record(&self, _: &LogOrigin<'_>, _: &[u8]) {
            panic!("a log that panics");
        }
    }
    let by = by_hand();
    let services = ServiceSet {
        log: Some(Arc::new(Broken)),
        ..ServiceSet::default()
    };
    let (room, seat) = open(&by, &tour(), services);
    press(&by, &seat, "lz");
    assert!(room.ending().is_none());
    assert_eq!(by.counts.get("fault") + by.counts.get("host fault"), 0);
}

#[test]
fn posts_reach_the_leaderboard_with_their_room_counter_and_id() {
    let by = by_hand();
    let board = Arc::new(Board::default());
    let services = ServiceSet {
        leaderboard: Some(board.clone()),
        ..ServiceSet::default()
    };
    let mut spec = spec(services);
    spec.mode = Mode::Private;
    let room = by.runtime.open(&tour(), spec).unwrap();
    let seat = by.run(room.join(player(1))).unwrap();
    by.pass(ms(500));
    press(&by, &seat, "pssp");
    let posts = board.posts.lock().unwrap();
    assert_eq!(posts.len(), 2);
    for (at, (post, posted)) in posts.iter().enumerate() {
        assert_eq!(*posted, Posted::Landed);
        assert_eq!((&*post.slug, post.room), ("tour", room.id()));
        assert_eq!(post.result.round_seq, at as u32 + 1);
        assert_eq!(post.result.mode, Mode::Private);
        assert_eq!(post.at, EPOCH + 500_000_000);
        assert_eq!(post.id, PostId::of("tour", room.id(), &post.result));
        let line = &post.result.standings[0];
        assert_eq!(line.player, player(1));
        assert_eq!((line.metric, line.rank), (at as i64 * 2, 1));
        assert_eq!(line.status, Some(Status::Finished));
    }
    assert_ne!(posts[0].0.id, posts[1].0.id);
    assert_eq!(by.runtime.stats().posts_waiting, 0);
    // Posting does not end the room.
    assert!(room.ending().is_none());
}

#[test]
fn after_a_rollback_the_same_post_changes_nothing_and_another_lands() {
    let by = by_hand();
    let listed = tour();
    let board = Arc::new(Board::default());
    let spec = spec(ServiceSet {
        leaderboard: Some(board.clone()),
        ..ServiceSet::default()
    });
    let room = by.runtime.open(&listed, spec.clone()).unwrap();
    let checkpoints: Vec<_> = (0..2).map(|_| by.run(room.checkpoint()).unwrap()).collect();
    let seat = by.run(room.join(player(1))).unwrap();
    press(&by, &seat, "ssp");
    room.close();
    by.run(room.ended());
    // Once as before, once with another score.
    for (checkpoint, runes) in checkpoints.into_iter().zip(["ssp", "sssp"]) {
        let mut again = spec.clone();
        again.id = Some(room.id());
        by.pass(ms(1_000));
        let room = by
            .runtime
            .resume(&listed, Resume::Snapshot(Box::new(checkpoint)), again)
            .unwrap();
        by.run(room.started()).unwrap();
        let seat = by.run(room.join(player(1))).unwrap();
        press(&by, &seat, runes);
        room.close();
        by.run(room.ended());
    }
    let posts = board.posts.lock().unwrap();
    let seen: Vec<_> = posts
        .iter()
        .map(|(post, posted)| {
            let score = post.result.standings[0].metric;
            (post.result.round_seq, score, *posted)
        })
        .collect();
    assert_eq!(
        seen,
        [
            (1, 2, Posted::Landed),
            (1, 2, Posted::Duplicate),
            (1, 3, Posted::Landed)
        ]
    );
    assert_eq!(posts[0].0.id, posts[1].0.id);
    assert_ne!(posts[0].0.id, posts[2].0.id);
    let results = wait_for(|reply| board.store.results("tour", None, 10, reply)).unwrap();
    let metrics: Vec<i64> = results.iter().map(|line| line.metric).collect();
    assert_eq!(metrics, [2, 3]);
}

#[test]
fn posts_outlive_a_board_that_is_down_and_the_room_they_came_from() {
    /// Fails so many times.
    struct Down(Mutex<u32>, Board);
    impl Leaderboard for Down {
        fn post(&self, post: &Post, reply: Reply<Posted>) {
            let mut left = self.0.lock().unwrap();
            if *left > 0 {
                *left -= 1;
                return reply.send(Err(ServiceError::Unavailable("down".into())));
            }
            self.1.post(post, reply);
        }
    }
    let by = by_hand();
    let board = Arc::new(Down(Mutex::new(3), Board::default()));
    let services = ServiceSet {
        leaderboard: Some(board.clone()),
        ..ServiceSet::default()
    };
    let (room, seat) = open(&by, &tour(), services);
    press(&by, &seat, "p");
    assert_eq!(by.runtime.stats().posts_waiting, 1);
    room.close();
    assert_eq!(by.run(room.ended()).reason, EndReason::Closed);
    by.pass(ms(10_000));
    assert_eq!(by.runtime.stats().posts_waiting, 0);
    let posts = board.1.posts.lock().unwrap();
    assert_eq!(posts.len(), 1);
    // When it was posted, not when it was recorded.
    assert_eq!(posts[0].0.at, EPOCH);
    assert_eq!(by.counts.get("store error post"), 3);
}

#[test]
fn the_input_context_a_guest_sets_is_published() {
    let by = by_hand();
    let (room, seat) = open(&by, &tour(), ServiceSet::default());
    assert_eq!(room.status().input_context, 0);
    for context in [1, 2, 0, 1] {
        press(&by, &seat, "i");
        assert_eq!(room.status().input_context, context);
    }
    // Whoever waits for it is told.
    let command = room.status_when(|status| status.input_context == 2);
    by.run(seat.input(Input::Rune('i' as u32))).unwrap();
    assert_eq!(by.run(command).input_context, 2);
}

#[test]
fn spectators_see_what_is_for_everybody_and_nothing_else() {
    let by = by_hand();
    let (room, mut seat) = open(&by, &tour(), ServiceSet::default());
    let mut spectator = room.spectate();
    let first = spectator.try_next().unwrap();
    assert_eq!(first.frame, seat.frames().try_next().unwrap().frame);
    press(&by, &seat, "w");
    let glyphs = spectator.try_next().unwrap();
    assert!(glyphs.frame.row_text(0).starts_with("GLYPHS"));
    assert_eq!(glyphs.frame, seat.frames().try_next().unwrap().frame);
    press(&by, &seat, "h");
    assert!(spectator.try_next().is_none());
    let own = seat.frames().try_next().unwrap();
    assert!(own.frame.row_text(1).contains("PERSONAL"));
    // One who comes now sees the last frame for everybody.
    let late = room.spectate().try_next().unwrap();
    assert_eq!(late.frame, glyphs.frame);
    // A spectator is nobody to the room, and sees its end.
    assert_eq!(room.members().len(), 1);
    room.close();
    by.run(room.ended());
    assert!(by.run(spectator.next()).is_none());
}

#[test]
fn the_operators_deadline_is_applied_within_its_bounds() {
    let by = by_hand();
    let listed = misbehave();
    // What was set, and the deadline of the callback that was killed.
    for (set, applied) in [("50", ms(50)), ("1", ms(10)), ("999999", ms(2_000))] {
        let store = MemoryStore::new();
        wait_for(|reply| {
            store.set_config(
                "misbehave",
                b"host.deadline_ms",
                Some(set.as_bytes()),
                reply,
            );
        })
        .unwrap();
        let (room, seat) = open(&by, &listed, store.services());
        press(&by, &seat, "t");
        let ending = room.ending().unwrap();
        let fault = &ending.fault.as_ref().unwrap().fault;
        assert!(
            matches!(fault, Fault::Deadline { deadline, .. } if *deadline == applied),
            "{set}: {fault:?}"
        );
    }
}
