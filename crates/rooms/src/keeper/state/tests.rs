//! A room's bytes: what is written reads back, and nothing else reads.

use std::sync::OnceLock;

use cabinet_durability::RoomIds;
use cabinet_host::{GameOptions, Host, HostOptions, MemoryServices, RoomConfig, Seed};
use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_700_000_000_000_000_000;

fn room() -> RoomId {
    RoomIds::default().next(1_700_000_000_000, [4; 8])
}

fn snapshot() -> Snapshot {
    static SNAPSHOT: OnceLock<Snapshot> = OnceLock::new();
    SNAPSHOT
        .get_or_init(|| {
            let path = concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../fixtures/wat/ok-state.wat"
            );
            let wasm = wat::parse_file(path).unwrap();
            let host = Host::new(HostOptions::default()).unwrap();
            let game = host.load(&wasm, &GameOptions::default()).unwrap();
            let mut room = game.room(
                RoomConfig::new(Seed::Set(7)),
                Box::new(MemoryServices::new()),
            );
            let _ = room.start(NOW);
            room.snapshot().unwrap()
        })
        .clone()
}

fn players() -> impl Strategy<Value = Vec<Player>> {
    let player = ("\\PC{0,9}", "\\PC{0,9}", any::<(bool, u8, [u8; 3])>());
    prop::collection::vec(player, 0..5).prop_map(|players| {
        players
            .into_iter()
            .map(|(account, handle, (member, ascii_fallback, ink))| Player {
                conn: format!("{handle}-{account}"),
                account,
                handle,
                kind: if member { Kind::Member } else { Kind::Guest },
                character: Character {
                    glyph: "λ".into(),
                    ink,
                    bg: [1, 2, 3],
                    ascii_fallback,
                },
            })
            .collect()
    })
}

fn post(standings: Vec<Player>, metric: i64, status: Option<Status>) -> Post {
    let result = RoomResult {
        mode: Mode::Private,
        standings: standings
            .into_iter()
            .map(|player| Standing {
                player,
                metric,
                rank: 3,
                status,
            })
            .collect(),
        round_seq: 9,
    };
    Post {
        id: PostId::of("ada/w", room(), &result),
        slug: "ada/w".into(),
        room: room(),
        result,
        at: NOW,
    }
}

fn captured(joined: Vec<Player>, roster: Vec<Player>, posts: Vec<Post>) -> Captured {
    Captured {
        room: room(),
        slug: "ada/w".parse().unwrap(),
        lifecycle: Lifecycle::Ephemeral,
        roster,
        joined,
        at: NOW,
        callbacks: 1,
        posts,
        snapshot: snapshot(),
    }
}

fn bytes_of(captured: &Captured) -> Vec<u8> {
    // Whatever was in the memory before is gone.
    let mut bytes = vec![9; 300];
    encode(captured, &mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_room_reads_back(joined in players(), roster in players(), metric in any::<i64>()) {
        let statuses = [None, Some(Status::Finished), Some(Status::Dnf), Some(Status::Flagged)];
        let posts = statuses.map(|status| post(joined.clone(), metric, status)).to_vec();
        let captured = captured(joined, roster, posts);
        prop_assert!(bytes_of(&captured).len() <= bytes_about(&captured));
        let state = RoomState::decode(room(), bytes_of(&captured)).unwrap();
        prop_assert_eq!(state.slug, captured.slug);
        prop_assert_eq!(state.lifecycle, captured.lifecycle);
        prop_assert_eq!(state.at, captured.at);
        prop_assert_eq!(state.joined, captured.joined);
        prop_assert_eq!(state.roster, captured.roster);
        prop_assert_eq!(state.posts, captured.posts);
        prop_assert_eq!(state.snapshot, captured.snapshot);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = bytes_of(&captured(vec![Player::guest("g", "c")], Vec::new(), Vec::new()));
        let cut_bytes = bytes[..cut.index(bytes.len())].to_vec();
        prop_assert!(RoomState::decode(room(), cut_bytes).is_err());
        let at = at.index(bytes.len().min(400));
        bytes[at] ^= with;
        // The seal is what finds this out; here it must only be read or refused.
        let _ = RoomState::decode(room(), bytes);
    }
}

#[test]
fn another_magic_and_another_version_are_told_apart_from_damage() {
    let good = bytes_of(&captured(Vec::new(), Vec::new(), Vec::new()));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        RoomState::decode(room(), bytes).unwrap_err()
    };
    assert_eq!(with(0, b'X'), StateError::NotAState);
    assert_eq!(with(4, 2), StateError::Version { found: 2 });
    assert_eq!(with(8, 3), StateError::Damaged("lifecycle"));
    let mut longer = good.clone();
    longer.push(0);
    assert!(matches!(
        RoomState::decode(room(), longer),
        Err(StateError::Snapshot(_))
    ));
}

#[test]
fn every_limit_is_kept_when_reached_and_refused_when_passed() {
    let guest = |n: usize| Player::guest("", format!("{n}"));
    let many = |count: usize| (0..count).map(guest).collect::<Vec<_>>();
    let refused = |captured: Captured| {
        let mut bytes = Vec::new();
        match encode(&captured, &mut bytes) {
            Err(StateError::Limit { what, found, max }) => (what, found - max),
            other => panic!("{other:?}"),
        }
    };
    let kept = |captured: Captured| {
        RoomState::decode(room(), bytes_of(&captured)).unwrap();
    };
    kept(captured(many(JOINED_MAX), Vec::new(), Vec::new()));
    let over = captured(many(JOINED_MAX + 1), Vec::new(), Vec::new());
    assert_eq!(refused(over), ("players who were in the room", 1));
    kept(captured(Vec::new(), many(PLAYERS_MAX), Vec::new()));
    let over = captured(Vec::new(), many(PLAYERS_MAX + 1), Vec::new());
    assert_eq!(refused(over), ("members", 1));
    let posts = |count: usize| vec![post(Vec::new(), 1, None); count];
    kept(captured(
        Vec::new(),
        Vec::new(),
        posts(WAITING_OF_A_GAME_MAX),
    ));
    let over = captured(Vec::new(), Vec::new(), posts(WAITING_OF_A_GAME_MAX + 1));
    assert_eq!(refused(over), ("posts", 1));
    let standings = |count: usize| vec![post(many(count), 1, None)];
    kept(captured(Vec::new(), Vec::new(), standings(PLAYERS_MAX)));
    let over = captured(Vec::new(), Vec::new(), standings(PLAYERS_MAX + 1));
    assert_eq!(refused(over), ("standings", 1));
    let named = |length: usize| vec![Player::guest("h".repeat(length), "c")];
    kept(captured(named(65_535), Vec::new(), Vec::new()));
    let over = captured(named(65_536), Vec::new(), Vec::new());
    assert_eq!(refused(over), ("bytes of a text", 1));
}

#[test]
fn counts_that_promise_more_than_there_may_be_are_refused_before_anything_is_read() {
    let good = bytes_of(&captured(Vec::new(), Vec::new(), Vec::new()));
    // After magic, version, lifecycle, slug and time.
    let at = 4 + 4 + 1 + 2 + "ada/w".len() + 8;
    for (offset, what) in [
        (0, "players who were in the room"),
        (4, "members"),
        (8, "posts"),
    ] {
        let mut bytes = good.clone();
        bytes[at + offset..at + offset + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        match RoomState::decode(room(), bytes) {
            Err(StateError::Limit { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{other:?}"),
        }
    }
}

/// Where the fuzzer's corpus is.
fn corpus() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/room_state")
}

#[test]
fn every_state_of_the_corpus_is_taken_or_refused() {
    if std::env::var_os("CABINET_WRITE_VECTORS").is_some() {
        write_corpus();
    }
    let files: Vec<_> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(files.len() >= 12, "a corpus of {} files", files.len());
    for file in files {
        println!("{}", file.display());
        crate::fuzzing::room_state(&std::fs::read(&file).unwrap());
    }
}

/// States, the same cut, and the same with a bit flipped.
fn write_corpus() {
    let ada = Player::member("a1", "ada", "c1");
    let states = [
        captured(Vec::new(), Vec::new(), Vec::new()),
        captured(vec![ada.clone()], Vec::new(), Vec::new()),
        captured(vec![ada.clone()], vec![ada.clone(); 3], Vec::new()),
        captured(Vec::new(), Vec::new(), vec![post(vec![ada], -1, None)]),
    ];
    for (n, state) in states.iter().enumerate() {
        let good = bytes_of(state);
        let mut flipped = good.clone();
        flipped[8 + n * 5] ^= 1 << n;
        let cut = &good[..good.len() / (n + 2)];
        for (name, bytes) in [("good", &good[..]), ("cut", cut), ("flipped", &flipped)] {
            std::fs::write(corpus().join(format!("{name}-{n}")), bytes).unwrap();
        }
    }
}
