//! Frames on their way from a room to its viewers: depth one, newest wins, shared by rows.
//!
//! Each viewer has a pane of its own and looks at the one for everybody too; whichever was drawn
//! last is what they see. A room writes a pane by following its own frame, which touches only the
//! rows that changed, and never waits for a viewer; a broadcast is written once however many look
//! on. A viewer's copy follows the pane the same way.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use cabinet_host::Frame;

/// Where a room's frames go. Shared by the room, which writes, and its viewers.
#[derive(Debug)]
pub(crate) struct Screens {
    /// Counts frames written; says which of two is newer.
    drawn: AtomicU64,
    everyone: Mutex<Everyone>,
    /// One per member, in roster order.
    seats: Mutex<Vec<Arc<Mutex<Pane>>>>,
}

#[derive(Debug)]
struct Pane {
    frame: Frame,
    /// 0: nothing drawn yet.
    drawn: u64,
    closed: bool,
    waiting: Option<Waker>,
}

#[derive(Debug)]
struct Everyone {
    frame: Frame,
    drawn: u64,
    closed: bool,
    /// Those that wait now, by viewer.
    waiting: BTreeMap<u64, Waker>,
    viewers: u64,
}

impl Screens {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            drawn: AtomicU64::new(0),
            everyone: Mutex::new(Everyone {
                frame: Frame::blank(),
                drawn: 0,
                closed: false,
                waiting: BTreeMap::new(),
                viewers: 0,
            }),
            seats: Mutex::default(),
        })
    }

    /// Adds a viewer for the member that joins as the last of the roster.
    pub(crate) fn seat(self: &Arc<Self>) -> Viewer {
        let pane = Arc::new(Mutex::new(Pane {
            frame: Frame::blank(),
            drawn: 0,
            closed: false,
            waiting: None,
        }));
        lock(&self.seats).push(Arc::clone(&pane));
        self.viewer(Some(pane))
    }

    /// Adds somebody who sees what everybody sees.
    pub(crate) fn spectator(self: &Arc<Self>) -> Viewer {
        self.viewer(None)
    }

    fn viewer(self: &Arc<Self>, own: Option<Arc<Mutex<Pane>>>) -> Viewer {
        let mut everyone = lock(&self.everyone);
        everyone.viewers += 1;
        // A member sees what is drawn from now on; a spectator what is on the screen, too.
        let seen = match own {
            Some(_) => everyone.drawn,
            None => 0,
        };
        Viewer {
            id: everyone.viewers,
            screens: Arc::clone(self),
            own,
            frame: Frame::blank(),
            seen,
        }
    }

    /// Takes away the pane of the member at this index of the roster.
    pub(crate) fn unseat(&self, index: usize) {
        let pane = {
            let mut seats = lock(&self.seats);
            if index >= seats.len() {
                return;
            }
            seats.remove(index)
        };
        close(&pane);
    }

    /// A frame for the member at this index.
    pub(crate) fn draw(&self, index: usize, frame: &Frame) {
        let drawn = self.next();
        let waker = {
            let seats = lock(&self.seats);
            let Some(pane) = seats.get(index) else { return };
            let mut pane = lock(pane);
            pane.frame.follow(frame);
            pane.drawn = drawn;
            pane.waiting.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// A frame for everybody.
    pub(crate) fn draw_all(&self, frame: &Frame) {
        let drawn = self.next();
        let waiting = {
            let mut everyone = lock(&self.everyone);
            everyone.frame.follow(frame);
            everyone.drawn = drawn;
            std::mem::take(&mut everyone.waiting)
        };
        for waker in waiting.into_values() {
            waker.wake();
        }
    }

    /// No frame will come any more.
    pub(crate) fn close(&self) {
        // A statement of its own: wakers run when the lock is free again.
        let panes = std::mem::take(&mut *lock(&self.seats));
        for pane in panes {
            close(&pane);
        }
        let waiting = {
            let mut everyone = lock(&self.everyone);
            everyone.closed = true;
            std::mem::take(&mut everyone.waiting)
        };
        for waker in waiting.into_values() {
            waker.wake();
        }
    }

    fn next(&self) -> u64 {
        // One room thread draws; viewers learn of it through the panes' locks.
        self.drawn.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn close(pane: &Mutex<Pane>) {
    let waker = {
        let mut pane = lock(pane);
        pane.closed = true;
        pane.waiting.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One viewer's eyes on a room: the newest frame, never an older one, with what changed since the
/// last one taken. A viewer that does not look misses frames and holds nobody up.
#[derive(Debug)]
pub struct Viewer {
    id: u64,
    screens: Arc<Screens>,
    /// `None` for a spectator.
    own: Option<Arc<Mutex<Pane>>>,
    frame: Frame,
    seen: u64,
}

/// What a look brought.
#[derive(Debug, Clone)]
pub struct View {
    /// The whole frame; cloning it shares its rows.
    pub frame: Frame,
    /// Rows that may differ from the frame taken before (the blank one at first), row `n` as bit
    /// `n`.
    pub changed: u32,
}

impl Viewer {
    /// The newest frame, once there is one that was not taken yet; `None` when the room, or this
    /// viewer's stay in it, is over.
    pub async fn next(&mut self) -> Option<View> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Viewer::next`], for those who poll.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<View>> {
        self.look(Some(cx.waker()))
    }

    /// The newest frame, if it was not taken yet.
    pub fn try_next(&mut self) -> Option<View> {
        match self.look(None) {
            Poll::Ready(view) => view,
            Poll::Pending => None,
        }
    }

    /// The frame taken last; the blank one before the first.
    #[must_use]
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Both panes are looked at under both locks, the own one first, so that no frame slips in
    /// between.
    fn look(&mut self, waker: Option<&Waker>) -> Poll<Option<View>> {
        // Declared before the locks, so dropped after them: the last waker of a task may drop
        // another viewer of this room.
        let mut replaced = [None, None];
        let mut own = self.own.as_ref().map(|pane| lock(pane));
        let mut everyone = lock(&self.screens.everyone);
        let own_drawn = own.as_ref().map_or(0, |pane| pane.drawn);
        let newest = own_drawn.max(everyone.drawn);
        if newest > self.seen {
            self.seen = newest;
            let source = match &own {
                Some(pane) if pane.drawn == newest => &pane.frame,
                _ => &everyone.frame,
            };
            let changed = self.frame.follow(source);
            return Poll::Ready(Some(View {
                frame: self.frame.clone(),
                changed,
            }));
        }
        if everyone.closed || own.as_ref().is_some_and(|pane| pane.closed) {
            return Poll::Ready(None);
        }
        if let Some(waker) = waker {
            if let Some(pane) = own.as_mut() {
                replaced[0] = pane.waiting.replace(waker.clone());
            }
            replaced[1] = everyone.waiting.insert(self.id, waker.clone());
        }
        drop(everyone);
        drop(own);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        // In two steps: the waker is dropped when nothing is locked.
        let waker = lock(&self.screens.everyone).waiting.remove(&self.id);
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cabinet_wire::FRAME_BYTES;
    use std::sync::atomic::AtomicU32;
    use std::task::Wake;

    fn frame(fill: u8) -> Frame {
        Frame::from_bytes(&[fill; FRAME_BYTES])
    }

    fn fill(view: Option<View>) -> Option<u8> {
        view.map(|view| view.frame.row(0)[0])
    }

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_newest_frame_wins_whoever_it_was_for() {
        let screens = Screens::new();
        let mut ada = screens.seat();
        let mut bob = screens.seat();
        assert!(ada.try_next().is_none());
        screens.draw(0, &frame(1));
        screens.draw(0, &frame(2));
        screens.draw_all(&frame(3));
        assert_eq!(fill(ada.try_next()), Some(3));
        assert_eq!(fill(bob.try_next()), Some(3));
        screens.draw_all(&frame(4));
        screens.draw(1, &frame(5));
        assert_eq!(fill(ada.try_next()), Some(4));
        assert_eq!(fill(bob.try_next()), Some(5));
        assert!(ada.try_next().is_none() && bob.try_next().is_none());
    }

    #[test]
    fn a_view_names_the_rows_that_changed_since_the_last_one_taken() {
        let screens = Screens::new();
        let mut viewer = screens.seat();
        let mut bytes = Box::new([1; FRAME_BYTES]);
        let first = Frame::from_bytes(&bytes);
        screens.draw(0, &first);
        assert_eq!(viewer.try_next().unwrap().changed, 0x00FF_FFFF);
        bytes[5 * 1_920] = 9;
        let mut second = first.clone();
        // A room's frame shares the rows it did not draw.
        let redrawn = Frame::from_bytes(&bytes);
        second.follow(&redrawn);
        let mut shared = first.clone();
        shared.follow(&first);
        screens.draw(0, &shared);
        assert_eq!(viewer.try_next().unwrap().changed, 0);
        screens.draw(0, &redrawn);
        let view = viewer.try_next().unwrap();
        assert_eq!(view.frame, redrawn);
        assert_ne!(view.changed & 1 << 5, 0);
    }

    #[test]
    fn a_member_who_joins_late_waits_and_a_spectator_sees_what_is_there() {
        let screens = Screens::new();
        screens.draw_all(&frame(1));
        let mut late = screens.seat();
        let mut spectator = screens.spectator();
        assert!(late.try_next().is_none());
        assert_eq!(fill(spectator.try_next()), Some(1));
        screens.draw(0, &frame(2));
        assert_eq!(fill(late.try_next()), Some(2));
        assert!(spectator.try_next().is_none());
    }

    #[test]
    fn those_who_leave_keep_the_others_in_their_places() {
        let screens = Screens::new();
        let mut ada = screens.seat();
        let mut bob = screens.seat();
        screens.draw(0, &frame(1));
        screens.unseat(0);
        screens.draw(0, &frame(2));
        screens.draw(1, &frame(9));
        assert_eq!(fill(bob.try_next()), Some(2));
        // The last frame is still there to be seen; then it is over.
        assert_eq!(fill(ada.try_next()), Some(1));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(ada.poll_next(&mut cx), Poll::Ready(None)));
        assert!(bob.poll_next(&mut cx).is_pending());
        screens.close();
        assert!(matches!(bob.poll_next(&mut cx), Poll::Ready(None)));
    }

    #[test]
    fn who_waits_is_woken_once_and_who_does_not_is_not() {
        let screens = Screens::new();
        let mut ada = screens.seat();
        let _idle = screens.seat();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut cx = Context::from_waker(&waker);
        assert!(ada.poll_next(&mut cx).is_pending());
        assert!(ada.poll_next(&mut cx).is_pending());
        screens.draw_all(&frame(1));
        screens.draw_all(&frame(2));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(ada.poll_next(&mut cx).is_ready());
        assert!(ada.poll_next(&mut cx).is_pending());
        screens.draw(1, &frame(3));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        screens.close();
        assert!(count.0.load(Ordering::Relaxed) > 1);
        drop(ada);
        assert!(lock(&screens.everyone).waiting.is_empty());
    }

    #[test]
    fn a_viewer_that_never_looks_costs_the_room_its_rows_once() {
        let screens = Screens::new();
        let viewer = screens.seat();
        for round in 0..100 {
            screens.draw(0, &frame(round));
        }
        assert_eq!(lock(viewer.own.as_ref().unwrap()).frame, frame(99));
    }
}
