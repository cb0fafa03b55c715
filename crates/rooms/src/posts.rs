//! Leaderboard posts on their way: sent at once, and again when the board could not take them.
//!
//! A post carries its id, so sending one again is harmless. Posts outlive the room they came from.
//! At most [`WAITING_MAX`] wait; past that the newest are lost, counted and logged.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use cabinet_host::ServiceError;

use tokio::sync::Notify;

use crate::cell::RoomCell;
use crate::pool::Pool;
use crate::recorder::{GameLabel, Recorder, StoreOp};
use crate::reply::Reply;
use crate::sched::Key;
use crate::services::{Leaderboard, Post};

/// Posts that may be on their way or wait to be sent again.
pub(crate) const WAITING_MAX: usize = 4_096;
/// Times a post is sent.
const ATTEMPTS_MAX: u32 = 8;
/// The wait before a post is sent the second time; doubles after that.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// All posts of a runtime.
pub(crate) struct Posts {
    recorder: Arc<dyn Recorder>,
    /// How to say that something is to be sent again.
    wake: OnceLock<(Weak<Pool<RoomCell>>, Key)>,
    state: Mutex<State>,
    /// Nothing waits any more.
    empty: Notify,
}

#[derive(Default)]
struct State {
    /// Sent and not answered.
    under_way: usize,
    failed: VecDeque<Failed>,
    /// The time as of the last [`Posts::resend`].
    now: Duration,
}

struct Failed {
    board: Arc<dyn Leaderboard>,
    post: Post,
    label: GameLabel,
    attempts: u32,
    due: Duration,
}

impl Posts {
    pub(crate) fn new(recorder: Arc<dyn Recorder>) -> Arc<Self> {
        Arc::new(Self {
            recorder,
            wake: OnceLock::new(),
            state: Mutex::default(),
            empty: Notify::new(),
        })
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
        let full = {
            let mut state = self.lock();
            let full = state.under_way + state.failed.len() >= WAITING_MAX;
            state.under_way += usize::from(!full);
            full
        };
        if full {
            self.recorder.store_error(label, StoreOp::Post);
            self.lost(&post, "too many posts wait");
        } else {
            self.send(Arc::clone(board), post, label.clone(), 1);
        }
    }

    /// Sends again what is due at `now`; returns when to come back, if anything waits.
    pub(crate) fn resend(self: &Arc<Self>, now: Duration) -> Option<Duration> {
        let (due, next) = {
            let mut state = self.lock();
            state.now = now;
            let (due, later): (VecDeque<_>, VecDeque<_>) =
                state.failed.drain(..).partition(|failed| failed.due <= now);
            let next = later.iter().map(|failed| failed.due).min();
            state.failed = later;
            state.under_way += due.len();
            (due, next)
        };
        for failed in due {
            self.send(failed.board, failed.post, failed.label, failed.attempts + 1);
        }
        let added = self.lock().failed.iter().map(|failed| failed.due).min();
        next.into_iter().chain(added).min()
    }

    /// Posts that are not recorded yet.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.lock();
        state.under_way + state.failed.len()
    }

    fn send(
        self: &Arc<Self>,
        board: Arc<dyn Leaderboard>,
        post: Post,
        label: GameLabel,
        attempts: u32,
    ) {
        let posts = Arc::clone(self);
        let again = (Arc::clone(&board), post.clone(), label.clone());
        let reply = Reply::new(move |answer| {
            let (board, post, label) = again;
            posts.answered(answer.err(), board, post, label, attempts);
        });
        if catch_unwind(AssertUnwindSafe(|| board.post(&post, reply))).is_err() {
            // The dropped reply has answered for it.
            self.recorder.store_panicked(&label, StoreOp::Post);
        }
    }

    fn answered(
        &self,
        error: Option<ServiceError>,
        board: Arc<dyn Leaderboard>,
        post: Post,
        label: GameLabel,
        attempts: u32,
    ) {
        let Some(error) = error else {
            self.done();
            return;
        };
        self.recorder.store_error(&label, StoreOp::Post);
        let refused = matches!(error, ServiceError::Refused(_));
        if refused || attempts >= ATTEMPTS_MAX {
            self.lost(&post, &error.to_string());
            self.done();
            return;
        }
        let mut state = self.lock();
        state.under_way -= 1;
        let wait = RETRY_FIRST.saturating_mul(1 << (attempts - 1).min(16));
        let due = state.now.saturating_add(wait);
        state.failed.push_back(Failed {
            board,
            post,
            label,
            attempts,
            due,
        });
        drop(state);
        if let Some((pool, key)) = self.wake.get()
            && let Some(pool) = pool.upgrade()
        {
            pool.poke(*key);
        }
    }

    fn done(&self) {
        let empty = {
            let mut state = self.lock();
            state.under_way -= 1;
            state.under_way + state.failed.len() == 0
        };
        if empty {
            self.empty.notify_waiters();
        }
    }

    fn lost(&self, post: &Post, why: &str) {
        tracing::error!(
            slug = &*post.slug, room = %post.room, round = post.result.round_seq, why,
            "a leaderboard post is lost"
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RoomIds;
    use crate::recorder::NoRecorder;
    use crate::services::{PostId, Posted};
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

    #[test]
    fn a_post_that_fails_is_sent_again_until_it_lands() {
        let posts = Posts::new(Arc::new(NoRecorder));
        let (board, dynamic) = board(vec![
            Answer::Fail,
            Answer::Drop,
            Answer::Panic,
            Answer::Land,
        ]);
        posts.post(&dynamic, post(1), &label());
        let mut now = Duration::ZERO;
        let mut waits = Vec::new();
        while let Some(next) = posts.resend(now) {
            waits.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(waits, [500, 1_000, 2_000]);
        assert_eq!(*board.landed.lock().unwrap(), [post(1).id]);
        assert_eq!(posts.waiting(), 0);
    }

    #[test]
    fn a_refused_post_is_not_sent_again_and_one_that_never_lands_is_given_up() {
        let posts = Posts::new(Arc::new(NoRecorder));
        let (_, refusing) = board(vec![Answer::Refuse]);
        posts.post(&refusing, post(1), &label());
        assert_eq!(posts.resend(Duration::from_secs(3_600)), None);
        let (down, dynamic) = board((0..ATTEMPTS_MAX).map(|_| Answer::Fail).collect());
        posts.post(&dynamic, post(2), &label());
        let mut now = Duration::ZERO;
        while let Some(next) = posts.resend(now) {
            now = next;
        }
        assert!(down.script.lock().unwrap().is_empty());
        assert!(down.landed.lock().unwrap().is_empty());
        assert_eq!(posts.waiting(), 0);
    }

    #[test]
    fn one_more_than_may_wait_is_lost() {
        let posts = Posts::new(Arc::new(NoRecorder));
        let (board, dynamic) = board((0..=WAITING_MAX).map(|_| Answer::Hold).collect());
        for round in 0..=WAITING_MAX {
            posts.post(&dynamic, post(round as u32), &label());
        }
        assert_eq!(posts.waiting(), WAITING_MAX);
        let held = std::mem::take(&mut *board.held.lock().unwrap());
        assert_eq!(held.len(), WAITING_MAX);
        for reply in held {
            reply.send(Ok(Posted::Landed));
        }
        assert_eq!(posts.waiting(), 0);
    }
}
