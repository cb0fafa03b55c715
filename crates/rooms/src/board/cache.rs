//! Boards kept for a while.
//!
//! Invariants
//! - a board is read by at most one read at a time; who asks meanwhile waits for that one;
//! - an error is told to those who waited and never kept;
//! - at most `boards_max` boards are kept or being read.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cabinet_host::ServiceError;
use cabinet_wire::{Aggregation, Direction};

use super::{BoardPage, BoardQuery, BoardReader, BoardRow, Page};
use crate::reply::Reply;

/// How many may wait for one read; who comes later is told "unavailable".
pub const WAITERS_MAX: usize = 16_384;

/// Keeps the whole boards a [`BoardReader`] reads, each for a time to live counted from the query
/// that had it read. Pages are cut from the kept board, so every page of it shows one moment.
///
/// A board belongs to a window that began at some moment: the daily board of yesterday is not shown
/// after midnight, however fresh.
#[derive(Clone)]
pub struct CachedReader {
    reader: BoardReader,
    ttl: Duration,
    cache: Arc<Mutex<Cache<Waiter>>>,
}

struct Waiter {
    page: Page,
    reply: Reply<BoardPage>,
}

impl CachedReader {
    /// Keeps at most `boards_max` boards (at least one), those used last, for `ttl` each. With a
    /// `ttl` of zero nothing is kept or shared: every query is a read.
    #[must_use]
    pub fn new(reader: BoardReader, ttl: Duration, boards_max: usize) -> Self {
        let ttl_ns = i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX);
        Self {
            reader,
            ttl,
            cache: Arc::new(Mutex::new(Cache::new(ttl_ns, boards_max.max(1)))),
        }
    }

    /// Reads a page.
    pub fn read(&self, query: &BoardQuery<'_>, reply: Reply<BoardPage>) {
        if self.ttl.is_zero() {
            return self.reader.read(query, reply);
        }
        let key = Key::of(query);
        let page = query.page;
        let asked = lock(&self.cache).ask(&key, query.now, Waiter { page, reply });
        match asked {
            Asked::Kept(board, waiter) => waiter.answer(Ok(board)),
            Asked::Waits => {}
            Asked::Refused(waiter) => waiter.answer(Err(ServiceError::Unavailable(
                "too many board reads are under way".into(),
            ))),
            Asked::Read => {
                let cache = Arc::clone(&self.cache);
                let done = Reply::new(move |board: Result<Arc<[BoardRow]>, ServiceError>| {
                    let waiters = lock(&cache).done(&key, board.as_ref().ok());
                    for waiter in waiters {
                        waiter.answer(board.clone());
                    }
                });
                self.reader.whole(query, done);
            }
        }
    }
}

impl Waiter {
    fn answer(self, board: Result<Arc<[BoardRow]>, ServiceError>) {
        let page = self.page;
        self.reply
            .send(board.map(|board| BoardPage::new(board, page)));
    }
}

impl fmt::Debug for CachedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedReader")
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

fn lock<W>(cache: &Mutex<Cache<W>>) -> MutexGuard<'_, Cache<W>> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names a board: everything its rows depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    slug: String,
    since: Option<i64>,
    direction: Direction,
    aggregation: Aggregation,
}

impl Key {
    fn of(query: &BoardQuery<'_>) -> Self {
        Self {
            slug: query.slug.into(),
            since: query.window.start(query.now),
            direction: query.spec.direction,
            aggregation: query.spec.aggregation,
        }
    }
}

/// Decides; generic over who waits so that tests need no replies.
struct Cache<W> {
    ttl_ns: i64,
    boards_max: usize,
    slots: HashMap<Key, Slot<W>>,
    /// Counts queries, to know which board was used last.
    uses: u64,
}

enum Slot<W> {
    Reading {
        asked: i64,
        waiters: Vec<W>,
    },
    Kept {
        asked: i64,
        used: u64,
        board: Arc<[BoardRow]>,
    },
}

/// What is to be done about a query.
enum Asked<W> {
    /// Answer it with this.
    Kept(Arc<[BoardRow]>, W),
    /// Read the board and tell [`Cache::done`].
    Read,
    /// Nothing: a read is under way.
    Waits,
    /// Turn it away.
    Refused(W),
}

impl<W> Cache<W> {
    fn new(ttl_ns: i64, boards_max: usize) -> Self {
        Self {
            ttl_ns,
            boards_max,
            slots: HashMap::new(),
            uses: 0,
        }
    }

    fn ask(&mut self, key: &Key, now: i64, waiter: W) -> Asked<W> {
        self.uses += 1;
        let full = self.slots.len() >= self.boards_max;
        match self.slots.get_mut(key) {
            Some(Slot::Reading { waiters, .. }) if waiters.len() >= WAITERS_MAX => {
                return Asked::Refused(waiter);
            }
            Some(Slot::Reading { waiters, .. }) => {
                waiters.push(waiter);
                return Asked::Waits;
            }
            // A board from the future, after the clock stepped back, is not fresh.
            Some(Slot::Kept { asked, used, board })
                if *asked <= now && now.saturating_sub(*asked) < self.ttl_ns =>
            {
                *used = self.uses;
                return Asked::Kept(Arc::clone(board), waiter);
            }
            Some(Slot::Kept { .. }) => {}
            None if full => {
                let Some(oldest) = self.used_longest_ago() else {
                    return Asked::Refused(waiter);
                };
                self.slots.remove(&oldest);
            }
            None => {}
        }
        let waiters = vec![waiter];
        self.slots.insert(
            key.clone(),
            Slot::Reading {
                asked: now,
                waiters,
            },
        );
        Asked::Read
    }

    /// The read of this board is over; `None` for an error. Who waited is to be answered.
    fn done(&mut self, key: &Key, board: Option<&Arc<[BoardRow]>>) -> Vec<W> {
        let Some(Slot::Reading { asked, waiters }) = self.slots.remove(key) else {
            return Vec::new();
        };
        if let Some(board) = board {
            let (used, board) = (self.uses, Arc::clone(board));
            self.slots
                .insert(key.clone(), Slot::Kept { asked, used, board });
        }
        waiters
    }

    /// The kept board that was not used for longest; `None` when all are being read.
    fn used_longest_ago(&self) -> Option<Key> {
        let kept = self.slots.iter().filter_map(|(key, slot)| match slot {
            Slot::Kept { used, .. } => Some((*used, key)),
            Slot::Reading { .. } => None,
        });
        kept.min_by_key(|(used, _)| *used)
            .map(|(_, key)| key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{BoardSource, BoardSpec, Score, Window};
    use proptest::prelude::*;
    use std::sync::mpsc;

    const SECOND: i64 = 1_000_000_000;
    const MIDNIGHT: i64 = 86_400 * SECOND * 20_000;
    const NOON: i64 = MIDNIGHT + 43_200 * SECOND;

    /// A source that answers when told to.
    #[derive(Default)]
    struct Held {
        asked: Mutex<Vec<Reply<Vec<Score>>>>,
        reads: Mutex<u64>,
    }

    impl BoardSource for Held {
        fn scores(&self, _: &str, _: Option<i64>, _: &BoardSpec, reply: Reply<Vec<Score>>) {
            *self.reads.lock().unwrap() += 1;
            self.asked.lock().unwrap().push(reply);
        }
    }

    impl Held {
        fn reads(&self) -> u64 {
            *self.reads.lock().unwrap()
        }

        /// Answers what is asked: a board whose one value counts the reads.
        fn answer(&self) {
            let value = self.reads() as i64;
            let asked = std::mem::take(&mut *self.asked.lock().unwrap());
            for reply in asked {
                reply.send(Ok(vec![Score {
                    account: "a1".into(),
                    handle: Some("ada".into()),
                    value,
                    achieved: 0,
                }]));
            }
        }

        fn fail(&self) {
            let asked = std::mem::take(&mut *self.asked.lock().unwrap());
            for reply in asked {
                reply.send(Err(ServiceError::Unavailable("down".into())));
            }
        }
    }

    struct Desk {
        source: Arc<Held>,
        reader: CachedReader,
        spec: BoardSpec,
    }

    type Answer = mpsc::Receiver<Result<BoardPage, ServiceError>>;

    impl Desk {
        fn new(ttl: Duration, boards_max: usize) -> Self {
            let source = Arc::new(Held::default());
            let reader = BoardReader::new(Arc::clone(&source) as Arc<dyn BoardSource>);
            Self {
                source,
                reader: CachedReader::new(reader, ttl, boards_max),
                spec: BoardSpec::default(),
            }
        }

        fn ask(&self, slug: &str, window: Window, now: i64) -> Answer {
            let (sender, receiver) = mpsc::channel();
            let query = BoardQuery {
                slug,
                spec: &self.spec,
                window,
                now,
                page: Page::default(),
            };
            // Fails when a test does not care for the answer.
            let reply = Reply::new(move |answer| drop(sender.send(answer)));
            self.reader.read(&query, reply);
            receiver
        }
    }

    /// The number of the read that an answer, which has come, is from.
    fn read_of(answer: &Answer) -> i64 {
        answer.try_recv().unwrap().unwrap().rows()[0].value
    }

    const TTL: Duration = Duration::from_secs(10);

    #[test]
    fn a_board_is_read_once_until_it_expires() {
        let desk = Desk::new(TTL, 8);
        let first = desk.ask("g", Window::AllTime, NOON);
        desk.source.answer();
        assert_eq!(read_of(&first), 1);
        for after in [0, 1, 10 * SECOND - 1] {
            assert_eq!(read_of(&desk.ask("g", Window::AllTime, NOON + after)), 1);
        }
        let second = desk.ask("g", Window::AllTime, NOON + 10 * SECOND);
        desk.source.answer();
        assert_eq!(read_of(&second), 2);
        // Its time to live counts from the query that had it read.
        assert_eq!(
            read_of(&desk.ask("g", Window::AllTime, NOON + 20 * SECOND - 1)),
            2
        );
        assert_eq!(desk.source.reads(), 2);
    }

    #[test]
    fn who_asks_during_a_read_gets_its_answer() {
        let desk = Desk::new(TTL, 8);
        let asked: Vec<_> = (0..50)
            .map(|_| desk.ask("g", Window::AllTime, NOON))
            .collect();
        assert_eq!(desk.source.reads(), 1);
        desk.source.answer();
        assert!(asked.iter().all(|answer| read_of(answer) == 1));
    }

    #[test]
    fn an_error_reaches_all_who_waited_and_is_not_kept() {
        let desk = Desk::new(TTL, 8);
        let asked = [0, 1].map(|_| desk.ask("g", Window::AllTime, NOON));
        desk.source.fail();
        for answer in asked {
            let error = ServiceError::Unavailable("down".into());
            assert_eq!(answer.try_recv().unwrap(), Err(error));
        }
        let again = desk.ask("g", Window::AllTime, NOON);
        desk.source.answer();
        assert_eq!(read_of(&again), 2);
    }

    #[test]
    fn an_expired_board_is_not_shown_when_reading_it_anew_fails() {
        let desk = Desk::new(TTL, 8);
        let first = desk.ask("g", Window::AllTime, NOON);
        desk.source.answer();
        assert_eq!(read_of(&first), 1);
        let second = desk.ask("g", Window::AllTime, NOON + 10 * SECOND);
        desk.source.fail();
        assert!(second.try_recv().unwrap().is_err());
        drop(desk.ask("g", Window::AllTime, NOON + 10 * SECOND));
        assert_eq!(desk.source.reads(), 3);
    }

    #[test]
    fn a_read_the_source_forgets_is_an_error_and_the_next_query_reads() {
        let desk = Desk::new(TTL, 8);
        let forgotten = desk.ask("g", Window::AllTime, NOON);
        desk.source.asked.lock().unwrap().clear();
        assert!(forgotten.try_recv().unwrap().is_err());
        drop(desk.ask("g", Window::AllTime, NOON));
        assert_eq!(desk.source.reads(), 2);
    }

    #[test]
    fn without_a_time_to_live_every_query_is_a_read() {
        let desk = Desk::new(Duration::ZERO, 8);
        let asked = [0, 1].map(|_| desk.ask("g", Window::AllTime, NOON));
        assert_eq!(desk.source.reads(), 2);
        desk.source.answer();
        assert!(asked.iter().all(|answer| read_of(answer) == 2));
    }

    #[test]
    fn games_windows_and_days_have_boards_of_their_own() {
        let desk = Desk::new(TTL, 8);
        for (slug, window) in [
            ("g", Window::AllTime),
            ("h", Window::AllTime),
            ("g", Window::Daily),
        ] {
            let answer = desk.ask(slug, window, NOON);
            desk.source.answer();
            read_of(&answer);
        }
        assert_eq!(desk.source.reads(), 3);

        let before = desk.ask("d", Window::Daily, MIDNIGHT - 1);
        desk.source.answer();
        assert_eq!(read_of(&before), 4);
        let after = desk.ask("d", Window::Daily, MIDNIGHT);
        desk.source.answer();
        assert_eq!(read_of(&after), 5);
    }

    #[test]
    fn a_clock_that_steps_back_makes_no_board_last_longer() {
        let desk = Desk::new(TTL, 8);
        let first = desk.ask("g", Window::AllTime, NOON);
        desk.source.answer();
        assert_eq!(read_of(&first), 1);
        let earlier = desk.ask("g", Window::AllTime, NOON - 1);
        desk.source.answer();
        assert_eq!(read_of(&earlier), 2);
    }

    #[test]
    fn the_board_used_longest_ago_makes_room_and_reads_under_way_do_not() {
        let desk = Desk::new(TTL, 2);
        for slug in ["a", "b"] {
            let answer = desk.ask(slug, Window::AllTime, NOON);
            desk.source.answer();
            read_of(&answer);
        }
        read_of(&desk.ask("a", Window::AllTime, NOON));
        drop(desk.ask("c", Window::AllTime, NOON)); // in place of b
        assert_eq!(read_of(&desk.ask("a", Window::AllTime, NOON)), 1);
        drop(desk.ask("d", Window::AllTime, NOON)); // in place of a
        let refused = desk.ask("e", Window::AllTime, NOON);
        assert!(matches!(
            refused.try_recv().unwrap(),
            Err(ServiceError::Unavailable(_))
        ));
        assert_eq!(desk.source.reads(), 4);
    }

    #[test]
    fn waiters_are_counted() {
        let mut cache = Cache::new(SECOND, 1);
        let key = key(0);
        assert!(matches!(cache.ask(&key, 0, 0), Asked::Read));
        for waiter in 1..WAITERS_MAX {
            assert!(matches!(cache.ask(&key, 0, waiter), Asked::Waits));
        }
        assert!(matches!(
            cache.ask(&key, 0, WAITERS_MAX),
            Asked::Refused(WAITERS_MAX)
        ));
        assert_eq!(cache.done(&key, None).len(), WAITERS_MAX);
    }

    fn key(n: u8) -> Key {
        Key {
            slug: n.to_string(),
            since: None,
            direction: Direction::HigherBetter,
            aggregation: Aggregation::Best,
        }
    }

    #[derive(Debug, Clone)]
    enum Event {
        Ask(u8),
        Done(u8, bool),
        Pass(i64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0..5u8).prop_map(Event::Ask),
            2 => (0..5u8, any::<bool>()).prop_map(|(key, good)| Event::Done(key, good)),
            1 => (0..8i64).prop_map(Event::Pass),
        ]
    }

    proptest! {
        #[test]
        fn every_query_is_answered_once_and_never_with_an_old_board(
            events in proptest::collection::vec(event(), 0..200),
        ) {
            let ttl = 10;
            let mut cache = Cache::new(ttl, 3);
            let mut now = 0;
            let mut answered = std::collections::HashSet::new();
            let mut asked = 0u32;
            // By key: when its read was asked, while it is under way; and when the last one was.
            let mut reading: HashMap<u8, i64> = HashMap::new();
            let mut read_at: HashMap<u8, i64> = HashMap::new();
            for event in events {
                match event {
                    Event::Ask(n) => {
                        asked += 1;
                        match cache.ask(&key(n), now, asked) {
                            Asked::Kept(_, waiter) => {
                                prop_assert!(now - read_at[&n] < ttl);
                                prop_assert!(answered.insert(waiter));
                            }
                            Asked::Read => prop_assert!(reading.insert(n, now).is_none()),
                            Asked::Waits => prop_assert!(reading.contains_key(&n)),
                            Asked::Refused(waiter) => {
                                prop_assert_eq!(reading.len(), 3);
                                prop_assert!(answered.insert(waiter));
                            }
                        }
                    }
                    Event::Done(n, good) => {
                        let Some(at) = reading.remove(&n) else { continue };
                        read_at.insert(n, at);
                        let board: Arc<[BoardRow]> = Arc::new([]);
                        let waiters = cache.done(&key(n), good.then_some(&board));
                        prop_assert!(!waiters.is_empty());
                        for waiter in waiters {
                            prop_assert!(answered.insert(waiter));
                        }
                    }
                    Event::Pass(ns) => now += ns,
                }
                prop_assert!(cache.slots.len() <= 3);
            }
            for n in reading.into_keys() {
                for waiter in cache.done(&key(n), None) {
                    prop_assert!(answered.insert(waiter));
                }
            }
            prop_assert_eq!(answered.len(), asked as usize);
        }
    }
}
