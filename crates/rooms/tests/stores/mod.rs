//! What every store must do, run against each of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use cabinet_host::{Mode, Player, RoomResult, Standing, Status};
use cabinet_rooms::board::{
    BoardPage, BoardQuery, BoardReader, BoardSource, BoardSpec, Page, Window,
};
use cabinet_rooms::services::limits::{
    ACCOUNT_BYTES_MAX, KEY_BYTES_MAX, POST_BYTES_MAX, POST_ROW_BYTES, SLUG_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use cabinet_rooms::services::{
    ConfigStore, KvAddress, KvStore, Leaderboard, MergeRule, Post, PostId, Posted, Recorded,
    ServiceError, StoreAdmin, wait_for,
};
use cabinet_wire::{Aggregation, Direction};

/// One store under all its names.
pub struct Stores {
    pub kv: Arc<dyn KvStore>,
    pub config: Arc<dyn ConfigStore>,
    pub leaderboard: Arc<dyn Leaderboard>,
    pub boards: Arc<dyn BoardSource>,
    pub admin: Arc<dyn StoreAdmin>,
}

impl Stores {
    pub fn of<S>(store: &S) -> Self
    where
        S: KvStore + ConfigStore + Leaderboard + BoardSource + StoreAdmin + Clone + 'static,
    {
        let store = Arc::new(store.clone());
        Self {
            kv: store.clone(),
            config: store.clone(),
            leaderboard: store.clone(),
            boards: store.clone(),
            admin: store,
        }
    }

    pub fn get(&self, at: (&str, &str, &[u8])) -> Option<Vec<u8>> {
        wait_for(|reply| self.kv.get(address(at), reply)).unwrap()
    }

    pub fn set(&self, at: (&str, &str, &[u8]), value: &str, rule: &[u8]) {
        let rule = MergeRule::named(rule);
        wait_for(|reply| self.kv.set(address(at), value.as_bytes(), rule, reply)).unwrap();
    }

    pub fn delete(&self, at: (&str, &str, &[u8])) {
        wait_for(|reply| self.kv.delete(address(at), reply)).unwrap();
    }

    pub fn merge(&self, slug: &str, winner: &str, loser: &str) {
        wait_for(|reply| self.admin.merge(slug, winner, loser, reply)).unwrap();
    }

    pub fn config(&self, slug: &str, key: &[u8]) -> Option<Vec<u8>> {
        wait_for(|reply| self.config.get(slug, key, reply)).unwrap()
    }

    pub fn set_config(&self, slug: &str, key: &[u8], value: Option<&[u8]>) {
        wait_for(|reply| self.admin.set_config(slug, key, value, reply)).unwrap();
    }

    pub fn post(&self, post: &Post) -> Posted {
        wait_for(|reply| self.leaderboard.post(post, reply)).unwrap()
    }

    pub fn results(&self, slug: &str) -> Vec<Recorded> {
        wait_for(|reply| self.admin.results(slug, None, usize::MAX, reply)).unwrap()
    }

    pub fn int_values(&self, slug: &str, key: &[u8]) -> BTreeMap<String, i64> {
        wait_for(|reply| self.admin.int_values(slug, key, reply)).unwrap()
    }

    /// The board of a game that describes none, of all time.
    pub fn board_of(&self, slug: &str) -> BoardPage {
        self.board(&BoardQuery {
            slug,
            spec: &BoardSpec::default(),
            window: Window::AllTime,
            now: 0,
            page: Page::default(),
        })
    }

    fn board(&self, query: &BoardQuery<'_>) -> BoardPage {
        let reader = BoardReader::new(Arc::clone(&self.boards));
        wait_for(|reply| reader.read(query, reply)).unwrap()
    }
}

fn address<'a>((slug, account, key): (&'a str, &'a str, &'a [u8])) -> KvAddress<'a> {
    KvAddress { slug, account, key }
}

pub const ROOM: &str = "0190b5a4-3c1e-7abc-8def-0123456789ab";

/// A post of these accounts and metrics; an account's handle is its upper case.
pub fn post(slug: &str, counter: u32, at: i64, lines: &[(&str, i64)]) -> Post {
    let room = ROOM.parse().unwrap();
    let standings = (1u32..)
        .zip(lines)
        .map(|(rank, (account, metric))| Standing {
            player: Player::member(*account, account.to_uppercase(), "c1"),
            metric: *metric,
            rank: u16::try_from(rank).unwrap_or(u16::MAX),
            status: Some(Status::Finished),
        });
    let result = RoomResult {
        mode: Mode::Private,
        standings: standings.collect(),
        round_seq: counter,
    };
    Post {
        id: PostId::of(slug, room, &result),
        slug: slug.into(),
        room,
        result,
        at,
    }
}

/// Runs everything, each part on a store of its own.
pub fn every_store_behaves(mut fresh: impl FnMut() -> Stores) {
    values_are_kept_by_game_account_and_key(&fresh());
    a_max_write_never_lowers_an_integer(&fresh());
    twelve_merges_leave_what_the_rules_say(&fresh());
    a_merge_stays_within_its_game_and_accounts(&fresh());
    configuration_belongs_to_its_game(&fresh());
    results_are_recorded_once(&fresh());
    boards_count_what_is_in_their_window(&fresh());
    integer_values_leave_other_values_out(&fresh());
    sizes_are_taken_at_their_limit_and_refused_past_it(&fresh());
}

fn values_are_kept_by_game_account_and_key(stores: &Stores) {
    let places: [(&str, &str, &[u8]); 8] = [
        ("g", "a", b"k"),
        ("g", "a", b"k2"),
        ("g", "ak", b"2"),
        ("g", "b", b"k"),
        ("g", "", b"k"),
        ("g2", "a", b"k"),
        ("g", "a\0", b"k"),
        ("g", "a", b"\0k"),
    ];
    for (n, place) in places.iter().enumerate() {
        assert_eq!(stores.get(*place), None);
        stores.set(*place, &n.to_string(), b"");
    }
    for (n, place) in places.iter().enumerate() {
        assert_eq!(stores.get(*place), Some(n.to_string().into_bytes()));
    }
    stores.set(places[0], "", b"");
    assert_eq!(
        stores.get(places[0]),
        Some(Vec::new()),
        "an empty value is a value"
    );
    stores.delete(places[0]);
    stores.delete(places[0]);
    assert_eq!(stores.get(places[0]), None);
    assert_eq!(stores.get(places[1]), Some(b"1".to_vec()));
}

fn a_max_write_never_lowers_an_integer(stores: &Stores) {
    let at = ("g", "a", &b"best"[..]);
    for (value, rule, expected) in [
        ("5", &b"max"[..], "5"),
        ("3", b"max", "5"),
        ("5 ", b"max", "5"),
        (" 9\n", b"max", " 9\n"),
        ("+8", b"max", " 9\n"),
        ("-1", b"sum", "-1"),
        ("-2", b"max", "-1"),
        ("text", b"max", "text"),
        ("1", b"max", "1"),
        ("0", b"", "0"),
        ("9223372036854775808", b"max", "9223372036854775808"),
        ("-7", b"max", "-7"),
    ] {
        stores.set(at, value, rule);
        assert_eq!(stores.get(at), Some(expected.into()), "after {value:?}");
    }

    // A write that changes nothing leaves the rule alone too.
    stores.set(at, "5", b"sum");
    stores.set(at, "3", b"max");
    stores.set(("g", "b", b"best"), "1", b"");
    stores.merge("g", "a", "b");
    assert_eq!(stores.get(at), Some(b"6".to_vec()));
}

fn twelve_merges_leave_what_the_rules_say(stores: &Stores) {
    type Line = (&'static str, &'static [u8]);
    let cases: [(&str, Option<Line>, Line, &str); 12] = [
        ("moves", None, ("7", b"sum"), "7"),
        ("no-rule", Some(("w", b"")), ("l", b""), "w"),
        (
            "keep-winner",
            Some(("w", b"keep-winner")),
            ("l", b"keep-loser"),
            "w",
        ),
        ("unknown", Some(("w", b"newest")), ("l", b"keep-loser"), "w"),
        ("keep-loser", Some(("w", b"keep-loser")), ("l", b""), "l"),
        ("losers-rule", Some(("3", b"")), ("4", b"sum"), "7"),
        ("sum", Some((" 3", b"sum")), ("+4", b"max"), "7"),
        ("sum-of-text", Some(("3", b"sum")), ("four", b"sum"), "3"),
        (
            "sum-overflow",
            Some(("9223372036854775807", b"sum")),
            ("1", b"sum"),
            "9223372036854775807",
        ),
        ("max-loser", Some(("3", b"max")), ("9", b"max"), "9"),
        ("max-winner", Some(("9", b"max")), ("3", b"max"), "9"),
        ("max-of-text", Some(("b", b"max")), ("z", b"max"), "b"),
    ];
    for (key, winner, loser, _) in &cases {
        if let Some((value, rule)) = winner {
            stores.set(("g", "w", key.as_bytes()), value, rule);
        }
        stores.set(("g", "l", key.as_bytes()), loser.0, loser.1);
    }
    stores.merge("g", "w", "l");
    for (key, _, _, expected) in cases {
        let key = key.as_bytes();
        let name = String::from_utf8_lossy(key);
        assert_eq!(stores.get(("g", "w", key)), Some(expected.into()), "{name}");
        assert_eq!(stores.get(("g", "l", key)), None, "{name}");
    }

    // Rules travel with values: what moved in with `sum` is summed in the next merge.
    stores.set(("g", "x", b"moves"), "5", b"");
    stores.merge("g", "w", "x");
    assert_eq!(stores.get(("g", "w", b"moves")), Some(b"12".to_vec()));
}

fn a_merge_stays_within_its_game_and_accounts(stores: &Stores) {
    let places: [(&str, &str, &[u8]); 6] = [
        ("g", "w", b"k"),
        ("g", "l", b"k"),
        ("g", "l2", b"k"),
        ("g", "", b"k"),
        ("g2", "l", b"k"),
        ("g", "k", b"l"),
    ];
    for (n, place) in places.iter().enumerate() {
        stores.set(*place, &n.to_string(), b"sum");
    }
    let all = || places.map(|place| stores.get(place).map(|v| String::from_utf8(v).unwrap()));
    let before = all();
    for (winner, loser) in [("", "l"), ("w", ""), ("w", "w"), ("", ""), ("w", "nobody")] {
        stores.merge("g", winner, loser);
        assert_eq!(all(), before, "{winner:?} {loser:?}");
    }
    stores.merge("g", "w", "l");
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        all(),
        [some("1"), None, some("2"), some("3"), some("4"), some("5")]
    );
    stores.merge("g", "w", "l");
    assert_eq!(all()[0], some("1"), "a merge said twice adds nothing");
}

fn configuration_belongs_to_its_game(stores: &Stores) {
    assert_eq!(stores.config("g", b"greeting"), None);
    stores.set_config("g", b"greeting", Some(b"hello"));
    stores.set_config("g", b"host.heartbeat_ms", Some(b"200"));
    stores.set_config("g2", b"greeting", Some(b"hi"));
    assert_eq!(stores.config("g", b"greeting"), Some(b"hello".to_vec()));
    assert_eq!(
        stores.config("g", b"host.heartbeat_ms"),
        Some(b"200".to_vec())
    );
    assert_eq!(stores.config("g2", b"greeting"), Some(b"hi".to_vec()));
    assert_eq!(stores.config("g2", b"host.heartbeat_ms"), None);
    stores.set_config("g", b"greeting", Some(b""));
    assert_eq!(stores.config("g", b"greeting"), Some(Vec::new()));
    stores.set_config("g", b"greeting", None);
    stores.set_config("g", b"greeting", None);
    assert_eq!(stores.config("g", b"greeting"), None);
    assert_eq!(stores.config("g2", b"greeting"), Some(b"hi".to_vec()));
    assert_eq!(
        stores.get(("g2", "", b"greeting")),
        None,
        "configuration is not a value"
    );
}

fn results_are_recorded_once(stores: &Stores) {
    let first = post("g", 1, 100, &[("a", 7), ("", 9), ("b", 3)]);
    assert_eq!(stores.post(&first), Posted::Landed);
    // A replay after a restore carries another time.
    let replay = Post {
        at: 900,
        ..first.clone()
    };
    assert_eq!(stores.post(&replay), Posted::Duplicate);
    let line = |account: &str, metric, at| Recorded {
        account: account.into(),
        metric,
        mode: Mode::Private,
        status: Some(Status::Finished),
        at,
    };
    assert_eq!(stores.results("g"), [line("a", 7, 100), line("b", 3, 100)]);

    // After a rollback the counter comes again with another result: it lands.
    let other = post("g", 1, 50, &[("a", 8)]);
    assert_eq!(stores.post(&other), Posted::Landed);
    let guests = post("g", 2, 60, &[("", 8)]);
    assert_eq!(stores.post(&guests), Posted::Landed);
    assert_eq!(stores.post(&guests), Posted::Duplicate);
    let mut odd = post("g", 3, -70, &[("b", i64::MIN)]);
    odd.result.standings[0].status = None;
    assert_eq!(stores.post(&odd), Posted::Landed);
    let odd = Recorded {
        status: None,
        ..line("b", i64::MIN, -70)
    };
    let all = [odd, line("a", 8, 50), line("a", 7, 100), line("b", 3, 100)];
    assert_eq!(stores.results("g"), all);
    assert_eq!(stores.results("g2"), []);
    for (since, limit, expected) in [
        (Some(50), 2, &all[1..3]),
        (Some(51), 9, &all[2..]),
        (None, 3, &all[..3]),
        (None, 0, &[]),
    ] {
        let some = wait_for(|reply| stores.admin.results("g", since, limit, reply)).unwrap();
        assert_eq!(some, expected);
    }
}

fn boards_count_what_is_in_their_window(stores: &Stores) {
    const HOUR: i64 = 3_600_000_000_000;
    // A Wednesday, 12:00 UTC.
    const NOON: i64 = (20_775 * 24 + 12) * HOUR;
    let posts: [(i64, &[(&str, i64)]); 5] = [
        (NOON - 100 * HOUR, &[("a", 90), ("b", 10)]),
        (NOON - 30 * HOUR, &[("b", 50), ("c", 50)]),
        (NOON - 29 * HOUR, &[("c", 50)]),
        (NOON - 12 * HOUR, &[("a", 20)]),
        (NOON - HOUR, &[("b", 20), ("a", 1)]),
    ];
    for (counter, (at, lines)) in (1..).zip(posts) {
        stores.post(&post("g", counter, at, lines));
    }
    stores.post(&post("g2", 1, NOON, &[("z", 1_000)]));

    let read = |window, direction, aggregation, page| {
        let spec = BoardSpec {
            direction,
            aggregation,
            ..BoardSpec::default()
        };
        let board = stores.board(&BoardQuery {
            slug: "g",
            spec: &spec,
            window,
            now: NOON,
            page,
        });
        let rows = board
            .rows()
            .iter()
            .map(|row| (row.rank, row.handle.clone(), row.value));
        rows.collect::<Vec<_>>()
    };
    let rows = |rows: &[(u64, &str, i64)]| -> Vec<_> {
        rows.iter()
            .map(|(rank, handle, value)| (*rank, (*handle).to_owned(), *value))
            .collect()
    };
    let all = Page::default();
    let best = |window| read(window, Direction::HigherBetter, Aggregation::Best, all);
    // b and c both have 50 of the same moment: the account decides.
    assert_eq!(
        best(Window::AllTime),
        rows(&[(1, "A", 90), (2, "B", 50), (3, "C", 50)])
    );
    assert_eq!(
        best(Window::Weekly),
        rows(&[(1, "B", 50), (2, "C", 50), (3, "A", 20)])
    );
    assert_eq!(best(Window::Daily), rows(&[(1, "A", 20), (2, "B", 20)]));
    assert_eq!(
        read(
            Window::AllTime,
            Direction::LowerBetter,
            Aggregation::Best,
            all
        ),
        rows(&[(1, "A", 1), (2, "B", 10), (3, "C", 50)])
    );
    assert_eq!(
        read(
            Window::AllTime,
            Direction::HigherBetter,
            Aggregation::Sum,
            all
        ),
        rows(&[(1, "A", 111), (2, "C", 100), (3, "B", 80)])
    );
    let page = Page {
        offset: 1,
        limit: 1,
    };
    assert_eq!(
        read(
            Window::AllTime,
            Direction::HigherBetter,
            Aggregation::Sum,
            page
        ),
        rows(&[(2, "C", 100)])
    );

    // A board shows the handle an account was last seen under.
    let mut renamed = post("g", 9, NOON, &[("a", 2)]);
    renamed.result.standings[0].player.handle = "Ada".into();
    stores.post(&renamed);
    assert_eq!(best(Window::Daily), rows(&[(1, "Ada", 20), (2, "B", 20)]));
}

fn integer_values_leave_other_values_out(stores: &Stores) {
    for (account, value) in [
        ("a", "5"),
        ("b", " -7\n"),
        ("c", "x"),
        ("d", ""),
        ("e", "1.5"),
        ("", "9"),
    ] {
        stores.set(("g", account, b"best"), value, b"");
    }
    stores.set(("g", "a", b"bes"), "1", b"");
    stores.set(("g", "a", b"best2"), "2", b"");
    stores.set(("g2", "a", b"best"), "3", b"");
    let values = stores.int_values("g", b"best");
    let expected = [("", 9), ("a", 5), ("b", -7)];
    assert!(
        values.iter().map(|(a, v)| (a.as_str(), *v)).eq(expected),
        "{values:?}"
    );
}

fn sizes_are_taken_at_their_limit_and_refused_past_it(stores: &Stores) {
    let refused = |answer: Result<(), ServiceError>, what: &str| {
        assert!(
            matches!(answer, Err(ServiceError::Refused(_))),
            "{what}: {answer:?}"
        );
    };
    let set = |slug: &str, account: &str, key: &[u8], value: &[u8]| {
        let at = KvAddress { slug, account, key };
        wait_for(|reply| stores.kv.set(at, value, None, reply))
    };
    let text = |bytes: usize| "s".repeat(bytes);
    let (slug, account) = (text(SLUG_BYTES_MAX), text(ACCOUNT_BYTES_MAX));
    let (key, value) = (vec![0xFF; KEY_BYTES_MAX], vec![0; VALUE_BYTES_MAX]);
    set(&slug, &account, &key, &value).unwrap();
    assert_eq!(stores.get((&slug, &account, &key)), Some(value));

    let (long_slug, long_account) = (text(SLUG_BYTES_MAX + 1), text(ACCOUNT_BYTES_MAX + 1));
    let (long_key, long_value) = (vec![0; KEY_BYTES_MAX + 1], vec![0; VALUE_BYTES_MAX + 1]);
    refused(set(&long_slug, "a", b"k", b""), "slug");
    refused(set("", "a", b"k", b""), "empty slug");
    refused(set("g\0", "a", b"k", b""), "slug with a zero byte");
    refused(set("g", &long_account, b"k", b""), "account");
    refused(set("g", "a", &long_key, b""), "key");
    refused(set("g", "a", b"", b""), "empty key");
    refused(set("g", "a", b"k", &long_value), "value");
    let at = address(("g", "a", &long_key));
    refused(wait_for(|reply| stores.kv.get(at, reply)).map(drop), "get");
    refused(wait_for(|reply| stores.kv.delete(at, reply)), "delete");
    refused(
        wait_for(|reply| stores.config.get("g", &long_key, reply)).map(drop),
        "config",
    );
    refused(
        wait_for(|reply| stores.admin.int_values("", b"k", reply)).map(drop),
        "integers",
    );
    refused(
        wait_for(|reply| stores.admin.results("", None, 1, reply)).map(drop),
        "results",
    );
    let merge =
        |winner: &str, loser: &str| wait_for(|reply| stores.admin.merge("g", winner, loser, reply));
    refused(merge(&long_account, "l"), "winner");
    refused(merge("w", &long_account), "loser");
    let configure = |key: &[u8], value: &[u8]| {
        wait_for(|reply| stores.admin.set_config("g", key, Some(value), reply))
    };
    configure(&key, &vec![1; VALUE_BYTES_MAX]).unwrap();
    refused(configure(&long_key, b""), "set_config key");
    refused(configure(b"k", &long_value), "set_config value");

    let lines = |count: usize| -> Vec<(&str, i64)> { vec![("p", 1); count] };
    let most = POST_BYTES_MAX / (POST_ROW_BYTES + 1);
    assert_eq!(stores.post(&post("g", 1, 0, &lines(most))), Posted::Landed);
    assert_eq!(stores.results("g").len(), most);
    let posted = |post: &Post| wait_for(|reply| stores.leaderboard.post(post, reply)).map(drop);
    refused(posted(&post("g", 2, 0, &lines(most + 1))), "post");
    refused(
        posted(&post("g", 3, 0, &[(&long_account, 1)])),
        "post account",
    );
    refused(posted(&post(&long_slug, 4, 0, &[("a", 1)])), "post slug");
    assert_eq!(stores.results("g").len(), most);
}
