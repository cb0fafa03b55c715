//! Leaderboard posts on their way: sent at once, and again when the board could not take them.
//!
//! A post carries its id, so sending one again is harmless. Posts outlive the room they came from;
//! what a room has not had recorded when it is captured goes with the capture
//! ([`Posts::of_room`]), so that a restored room's board misses nothing.
//!
//! Posts that wait are bounded in number and bytes, for all games together and for each: a game
//! whose board hangs loses posts of its own and nobody else's. What is lost is counted, and logged
//! once a second.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use cabinet_host::ServiceError;
use tokio::sync::Notify;

use crate::cell::RoomCell;
use crate::clock::Clock;
use crate::pool::Pool;
use crate::recorder::{GameLabel, Recorder, StoreOp};
use crate::reply::Reply;
use crate::sched::Key;
use crate::services::{Leaderboard, Post};
use cabinet_durability::RoomId;

/// Posts that may wait, of all games and of one.
pub(crate) const WAITING_MAX: usize = 4_096;
pub(crate) const WAITING_OF_A_GAME_MAX: usize = 512;
/// Bytes of their results, likewise.
const BYTES_MAX: usize = 64 << 20;
const BYTES_OF_A_GAME_MAX: usize = 8 << 20;
/// How long a board may take to answer before it is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Times a post is sent.
const ATTEMPTS_MAX: u32 = 8;
/// The wait before a post is sent the second time; doubles after that.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// At most one line about lost posts in so long.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// All posts of a runtime.
pub(crate) struct Posts {
    recorder: Arc<dyn Recorder>,
    clock: Arc<dyn Clock>,
    /// How to say that [`Posts::resend`] may have something to do.
    wake: OnceLock<(Weak<Pool<RoomCell>>, Key)>,
    state: Mutex<State>,
    /// Nothing waits any more.
    empty: Notify,
}

#[derive(Default)]
struct State {
    /// By ticket, so in the order they were posted.
    waiting: BTreeMap<u64, Waiting>,
    tickets: u64,
    all: Load,
    /// By the label's index.
    games: HashMap<usize, Load>,
    lost: u64,
    logged: Option<Duration>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Load {
    posts: usize,
    bytes: usize,
}

struct Waiting {
    board: Arc<dyn Leaderboard>,
    post: Arc<Post>,
    label: GameLabel,
    bytes: usize,
    attempts: u32,
    /// Sent, and not answered yet; else it failed.
    sent: bool,
    /// When it is sent again.
    due: Duration,
}

impl Posts {
    pub(crate) fn new(recorder: Arc<dyn Recorder>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            recorder,
            clock,
            wake: OnceLock::new(),
            state: Mutex::default(),
            empty: Notify::new(),
        })
    }

    /// Says who calls [`Posts::resend`] when it is poked.
    pub(crate) fn wake_with(&self, pool: &Arc<Pool<RoomCell>>, key: Key) {
        // Set once, by the runtime.
        let _ = self.wake.set((Arc::downgrade(pool), key));
    }

    /// Sends a post. Does not wait.
    pub(crate) fn post(
        self: &Arc<Self>,
        board: &Arc<dyn Leaderboard>,
        post: Post,
        label: &GameLabel,
    ) {
        let now = self.clock.now();
        let bytes = bytes_of(&post);
        let ticket = {
            let mut state = self.lock();
            if state.is_full(label, bytes) {
                None
            } else {
                state.load(label, |load| {
                    load.posts += 1;
                    load.bytes += bytes;
                });
                let ticket = state.tickets;
                state.tickets += 1;
                let waiting = Waiting {
                    board: Arc::clone(board),
                    post: Arc::new(post.clone()),
                    label: label.clone(),
                    bytes,
                    attempts: 0,
                    sent: false,
                    due: now,
                };
                state.waiting.insert(ticket, waiting);
                Some(ticket)
            }
        };
        match ticket {
            Some(ticket) => {
                self.send(ticket, now);
                self.poke_if_waiting(ticket);
            }
            None => {
                self.recorder.store_error(label, StoreOp::Post);
                self.lost(&post, "too many posts of this game wait");
            }
        }
    }

    /// Sends again what is due at `now`; returns when to come back, if anything waits.
    pub(crate) fn resend(self: &Arc<Self>, now: Duration) -> Option<Duration> {
        let due: Vec<u64> = {
            let state = self.lock();
            let due = state.waiting.iter().filter(|(_, post)| post.due <= now);
            due.map(|(ticket, _)| *ticket).collect()
        };
        for ticket in due {
            self.send(ticket, now);
        }
        self.lock().waiting.values().map(|post| post.due).min()
    }

    /// Posts that are not recorded yet.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().all.posts
    }

    /// Posts of a room that are not recorded yet, in the order they were posted.
    pub(crate) fn of_room(&self, room: RoomId) -> Vec<Post> {
        let state = self.lock();
        let waiting = state.waiting.values();
        waiting
            .filter(|waiting| waiting.post.room == room)
            .map(|waiting| Post::clone(&waiting.post))
            .collect()
    }

    /// Waits until every post is recorded or given up.
    pub(crate) async fn drained(&self) {
        loop {
            let empty = self.empty.notified();
            if self.waiting() == 0 {
                return;
            }
            empty.await;
        }
    }

    /// Sends a post that waits, once more; one that was sent often enough is given up.
    fn send(self: &Arc<Self>, ticket: u64, now: Duration) {
        let (board, post, label, attempt) = {
            let mut state = self.lock();
            let Some(waiting) = state.waiting.get_mut(&ticket) else {
                return;
            };
            let silent = waiting.sent;
            waiting.attempts += 1;
            waiting.sent = true;
            waiting.due = now.saturating_add(ANSWER_WITHIN);
            let (post, label) = (Arc::clone(&waiting.post), waiting.label.clone());
            let attempt = waiting.attempts;
            if silent && attempt > ATTEMPTS_MAX {
                drop(state);
                self.give_up(ticket, "its board does not answer");
                return;
            }
            (Arc::clone(&waiting.board), post, label, attempt)
        };
        if attempt > 1 {
            tracing::debug!(slug = &*post.slug, room = %post.room, attempt, "a post is sent again");
        }
        let posts = Arc::clone(self);
        let reply = Reply::new(move |answer| posts.answered(ticket, answer.err()));
        if catch_unwind(AssertUnwindSafe(|| board.post(&post, reply))).is_err() {
            // The dropped reply has answered for it.
            self.recorder.store_panicked(&label, StoreOp::Post);
        }
    }

    /// An answer, perhaps a late one to an earlier attempt: recorded is recorded.
    fn answered(&self, ticket: u64, error: Option<ServiceError>) {
        let Some(error) = error else {
            self.done(ticket);
            return;
        };
        let now = self.clock.now();
        let (label, over) = {
            let mut state = self.lock();
            let Some(waiting) = state.waiting.get_mut(&ticket) else {
                return;
            };
            waiting.sent = false;
            let wait = RETRY_FIRST.saturating_mul(1 << (waiting.attempts - 1).min(16));
            waiting.due = now.saturating_add(wait);
            let refused = matches!(error, ServiceError::Refused(_));
            let over = refused || waiting.attempts >= ATTEMPTS_MAX;
            (waiting.label.clone(), over)
        };
        self.recorder.store_error(&label, StoreOp::Post);
        if over {
            self.give_up(ticket, &error.to_string());
        } else {
            self.poke_if_waiting(ticket);
        }
    }

    fn give_up(&self, ticket: u64, why: &str) {
        if let Some(waiting) = self.done(ticket) {
            self.lost(&waiting.post, why);
        }
    }

    fn done(&self, ticket: u64) -> Option<Waiting> {
        let (waiting, empty) = {
            let mut state = self.lock();
            let waiting = state.waiting.remove(&ticket)?;
            state.load(&waiting.label, |load| {
                load.posts -= 1;
                load.bytes -= waiting.bytes;
            });
            (waiting, state.all.posts == 0)
        };
        if empty {
            self.empty.notify_waiters();
        }
        Some(waiting)
    }

    /// Sees to it that somebody looks again when the post is due.
    fn poke_if_waiting(&self, ticket: u64) {
        if !self.lock().waiting.contains_key(&ticket) {
            return;
        }
        if let Some((pool, key)) = self.wake.get()
            && let Some(pool) = pool.upgrade()
        {
            pool.poke(*key);
        }
    }

    fn lost(&self, post: &Post, why: &str) {
        let now = self.clock.now();
        let lost = {
            let mut state = self.lock();
            state.lost += 1;
            let quiet = state
                .logged
                .is_some_and(|logged| now.saturating_sub(logged) < LOG_EVERY);
            if quiet {
                return;
            }
            state.logged = Some(now);
            std::mem::take(&mut state.lost)
        };
        tracing::error!(
            slug = &*post.slug, room = %post.room, round = post.result.round_seq, why, lost,
            "leaderboard posts are lost"
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_full(&self, label: &GameLabel, bytes: usize) -> bool {
        let of_game = self.games.get(&label.index()).copied().unwrap_or_default();
        self.all.posts >= WAITING_MAX
            || of_game.posts >= WAITING_OF_A_GAME_MAX
            || self.all.bytes + bytes > BYTES_MAX
            || of_game.bytes + bytes > BYTES_OF_A_GAME_MAX
    }

    fn load(&mut self, label: &GameLabel, change: impl Fn(&mut Load)) {
        change(&mut self.all);
        let of_game = self.games.entry(label.index()).or_default();
        change(of_game);
        if of_game.posts == 0 {
            self.games.remove(&label.index());
        }
    }
}

/// What a post takes in memory, about.
fn bytes_of(post: &Post) -> usize {
    let line = |line: &cabinet_host::Standing| {
        let player = &line.player;
        let names = player.account.len() + player.handle.len() + player.conn.len();
        size_of::<cabinet_host::Standing>() + names + player.character.glyph.len()
    };
    size_of::<Waiting>() + post.result.standings.iter().map(line).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::clock::ManualClock;
    use crate::recorder::NoRecorder;
    use crate::services::{PostId, Posted};
    use cabinet_durability::RoomIds;
    use cabinet_host::{Mode, RoomResult};

    /// Answers by a script; what is left of it is kept waiting.
    #[derive(Default)]
    struct Board {
        script: Mutex<VecDeque<Answer>>,
        landed: Mutex<Vec<PostId>>,
        held: Mutex<Vec<Reply<Posted>>>,
    }

    enum Answer {
        Land,
        Fail,
        Refuse,
        Drop,
        Panic,
        Hold,
    }

    impl Leaderboard for Board {
        fn post(&self, post: &Post, reply: Reply<Posted>) {
            let answer = self.script.lock().unwrap().pop_front();
            match answer.unwrap_or(Answer::Land) {
                Answer::Land => {
                    self.landed.lock().unwrap().push(post.id);
                    reply.send(Ok(Posted::Landed));
                }
                Answer::Fail => reply.send(Err(ServiceError::Unavailable("down".into()))),
                Answer::Refuse => reply.send(Err(ServiceError::Refused("no".into()))),
                Answer::Drop => drop(reply),
                Answer::Panic => panic!("a board that panics"),
                Answer::Hold => self.held.lock().unwrap().push(reply),
            }
        }
    }

    fn post(round_seq: u32) -> Post {
        let room = RoomIds::default().next(1, [0; 8]);
        let result = RoomResult {
            mode: Mode::Quick,
            standings: vec![],
            round_seq,
        };
        Post {
            id: PostId::of("game", room, &result),
            slug: "game".into(),
            room,
            result,
            at: 0,
        }
    }

    fn label() -> GameLabel {
        GameLabel::other()
    }

    fn board(script: Vec<Answer>) -> (Arc<Board>, Arc<dyn Leaderboard>) {
        let board = Arc::new(Board {
            script: Mutex::new(script.into()),
            ..Board::default()
        });
        (Arc::clone(&board), board)
    }

    /// Posts on a clock that has run for a while.
    fn posts() -> (Arc<Posts>, ManualClock) {
        let clock = ManualClock::new(0);
        clock.advance_to(Duration::from_secs(100));
        let posts = Posts::new(Arc::new(NoRecorder), Arc::new(clock.clone()));
        (posts, clock)
    }

    /// Sends again whatever comes due until nothing waits; returns the waits in milliseconds.
    fn run_out(posts: &Arc<Posts>, clock: &ManualClock) -> Vec<u128> {
        let mut waits = Vec::new();
        while let Some(next) = posts.resend(clock.now()) {
            waits.push((next - clock.now()).as_millis());
            clock.advance_to(next);
        }
        waits
    }

    fn label_of(index: u16) -> GameLabel {
        GameLabel::new(format!("game-{index}").into(), index)
    }

    #[test]
    fn a_post_that_fails_is_sent_again_until_it_lands() {
        let (posts, clock) = posts();
        let (board, dynamic) = board(vec![
            Answer::Fail,
            Answer::Drop,
            Answer::Panic,
            Answer::Land,
        ]);
        posts.post(&dynamic, post(1), &label());
        assert_eq!(run_out(&posts, &clock), [500, 1_000, 2_000]);
        assert_eq!(*board.landed.lock().unwrap(), [post(1).id]);
        assert_eq!(posts.waiting(), 0);
    }

    #[test]
    fn a_refused_post_is_not_sent_again_and_one_that_never_lands_is_given_up() {
        let (posts, clock) = posts();
        let (_, refusing) = board(vec![Answer::Refuse]);
        posts.post(&refusing, post(1), &label());
        assert_eq!(posts.resend(clock.now()), None);
        let (down, dynamic) = board((0..ATTEMPTS_MAX).map(|_| Answer::Fail).collect());
        posts.post(&dynamic, post(2), &label());
        run_out(&posts, &clock);
        assert!(down.script.lock().unwrap().is_empty());
        assert!(down.landed.lock().unwrap().is_empty());
        assert_eq!(posts.waiting(), 0);
    }

    #[test]
    fn a_board_that_does_not_answer_is_asked_again_and_given_up() {
        let (posts, clock) = posts();
        let (silent, dynamic) = board((0..ATTEMPTS_MAX).map(|_| Answer::Hold).collect());
        posts.post(&dynamic, post(1), &label());
        let waits = run_out(&posts, &clock);
        assert_eq!(waits, [30_000; ATTEMPTS_MAX as usize]);
        assert_eq!(posts.waiting(), 0);
        // What it says now is too late to matter.
        let held = std::mem::take(&mut *silent.held.lock().unwrap());
        assert_eq!(held.len(), ATTEMPTS_MAX as usize);
        for reply in held {
            reply.send(Ok(Posted::Landed));
        }
        assert_eq!(posts.waiting(), 0);
    }

    #[test]
    fn a_late_answer_to_an_earlier_attempt_counts_once() {
        let (posts, clock) = posts();
        let (slow, dynamic) = board(vec![Answer::Hold, Answer::Hold]);
        posts.post(&dynamic, post(1), &label());
        clock.advance_to(clock.now() + ANSWER_WITHIN);
        posts.resend(clock.now());
        let held = std::mem::take(&mut *slow.held.lock().unwrap());
        assert_eq!(held.len(), 2);
        for reply in held {
            reply.send(Ok(Posted::Landed));
            assert_eq!(posts.waiting(), 0);
        }
    }

    #[test]
    fn a_game_whose_board_hangs_loses_its_own_posts_and_nobody_elses() {
        let (posts, _) = posts();
        let (hung, dynamic) = board((0..=WAITING_OF_A_GAME_MAX).map(|_| Answer::Hold).collect());
        for round in 0..=WAITING_OF_A_GAME_MAX {
            posts.post(&dynamic, post(round as u32), &label_of(1));
        }
        assert_eq!(posts.waiting(), WAITING_OF_A_GAME_MAX);
        assert_eq!(hung.held.lock().unwrap().len(), WAITING_OF_A_GAME_MAX);
        let (board, dynamic) = board(vec![]);
        posts.post(&dynamic, post(7), &label_of(2));
        assert_eq!(board.landed.lock().unwrap().len(), 1);
        hung.held.lock().unwrap().clear();
        assert_eq!(posts.waiting(), WAITING_OF_A_GAME_MAX);
    }

    #[test]
    fn one_more_than_all_games_may_have_waiting_is_lost() {
        let (posts, _) = posts();
        let games = WAITING_MAX / WAITING_OF_A_GAME_MAX;
        let (board, dynamic) = board((0..=WAITING_MAX).map(|_| Answer::Hold).collect());
        for at in 0..=WAITING_MAX {
            let game = (at / WAITING_OF_A_GAME_MAX) as u16;
            posts.post(&dynamic, post(at as u32), &label_of(game));
        }
        assert_eq!(games, 8);
        assert_eq!(posts.waiting(), WAITING_MAX);
        let held = std::mem::take(&mut *board.held.lock().unwrap());
        for reply in held {
            reply.send(Ok(Posted::Landed));
        }
        assert_eq!(posts.waiting(), 0);
        assert!(posts.lock().games.is_empty());
    }

    #[test]
    fn results_that_wait_are_bounded_in_bytes_too() {
        let (posts, _) = posts();
        let (board, dynamic) = board((0..4).map(|_| Answer::Hold).collect());
        let of_size = |bytes: usize| {
            let mut post = post(1);
            post.result.standings = vec![cabinet_host::Standing {
                player: cabinet_host::Player::member("", "", ""),
                metric: 0,
                rank: 0,
                status: None,
            }];
            let more = bytes - bytes_of(&post);
            post.result.standings[0].player.handle = "x".repeat(more);
            assert_eq!(bytes_of(&post), bytes);
            post
        };
        posts.post(&dynamic, of_size(BYTES_OF_A_GAME_MAX + 1), &label_of(1));
        assert_eq!(posts.waiting(), 0);
        posts.post(&dynamic, of_size(BYTES_OF_A_GAME_MAX), &label_of(1));
        assert_eq!(posts.waiting(), 1);
        assert_eq!(board.held.lock().unwrap().len(), 1);
    }

    #[test]
    fn what_a_room_has_not_had_recorded_is_known_in_order() {
        let (posts, _) = posts();
        let (_board, dynamic) = board(vec![Answer::Hold, Answer::Land, Answer::Fail]);
        let room = post(1).room;
        for round in 1..=3 {
            posts.post(&dynamic, post(round), &label());
        }
        let rounds: Vec<_> = posts
            .of_room(room)
            .iter()
            .map(|post| post.result.round_seq)
            .collect();
        assert_eq!(rounds, [1, 3]);
        let other = RoomIds::default().next(2, [0; 8]);
        assert!(posts.of_room(other).is_empty());
    }
}
