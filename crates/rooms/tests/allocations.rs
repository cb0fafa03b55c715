//! What a steady room allocates on the host's side: nothing, unless somebody keeps its frames.
//!
//! Counted on the test's own thread: the test runner's threads allocate as they please.

#[path = "../../host/tests/common/counting.rs"]
mod counting;

mod common;

use std::sync::Arc;

use cabinet_host::Input;
use cabinet_rooms::{
    Listing, ManualClock, NoRecorder, Recorder, RoomSpec, Runtime, RuntimeOptions, Seat,
    SeededEntropy, View, Viewer,
};
use cabinet_wire::Lifecycle;

use common::{ByHand, EPOCH, game, list, ms, player};

/// Wakes of a measured stretch; a tour wakes every 40 ms.
const WAKES: u64 = 200;
const PERIOD_MS: u64 = 40;
/// Rows a wake of the tour changes: the one that counts wakes and the one that shows the time.
const ROWS_PER_WAKE: u64 = 2;

/// Rows a room takes anew before they go round again, after somebody kept the old ones.
const ROWS_AFTER_KEEPING: u64 = 4;

/// A room of `tour` with two seats, warm.
struct Steady {
    by: ByHand,
    seats: [Seat; 2],
    spectator: Viewer,
    kept: Vec<View>,
}

/// Who looks at a wake's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Eyes {
    Shut,
    /// Both seats and a spectator take it.
    Open,
    /// And one of them keeps it for ever.
    Keeping,
}

/// What a stretch came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    allocations: u64,
    /// Changed rows that the first seat was told of.
    rows: u64,
}

fn steady(recorder: Arc<dyn Recorder>) -> Steady {
    let clock = ManualClock::new(EPOCH);
    let mut options = RuntimeOptions::default();
    options.recorder = recorder;
    options.entropy = Arc::new(SeededEntropy::new(42));
    let by = ByHand {
        runtime: Runtime::by_hand(options, &clock),
        clock,
        counts: Arc::default(),
    };
    let listed = list(Listing::new(game("tour.wasm")).with_lifecycle(Lifecycle::Ephemeral));
    let room = by.runtime.open(&listed, RoomSpec::default()).unwrap();
    let seats = [1, 2].map(|n| by.run(room.join(player(n))).unwrap());
    let spectator = room.spectate();
    let mut steady = Steady {
        by,
        seats,
        spectator,
        kept: Vec::with_capacity(4_096),
    };
    steady.wakes(WAKES, Eyes::Open);
    steady.wakes(WAKES, Eyes::Shut);
    steady.keys(WAKES);
    steady
}

impl Steady {
    fn wakes(&mut self, wakes: u64, eyes: Eyes) -> Stretch {
        let before = counting::allocations();
        let mut rows = 0;
        for _ in 0..wakes {
            self.by.pass(ms(PERIOD_MS));
            if eyes != Eyes::Shut {
                rows += self.look(eyes);
            }
        }
        Stretch {
            allocations: counting::allocations() - before,
            rows,
        }
    }

    /// Keys that the tour counts, each drawn before the next.
    fn keys(&mut self, keys: u64) -> Stretch {
        let before = counting::allocations();
        let mut rows = 0;
        for _ in 0..keys {
            self.seats[0].try_input(Input::Rune('~' as u32)).unwrap();
            self.by.pass(ms(0));
            rows += self.look(Eyes::Open);
        }
        Stretch {
            allocations: counting::allocations() - before,
            rows,
        }
    }

    fn look(&mut self, eyes: Eyes) -> u64 {
        let [first, _] = self.seats.each_mut().map(|seat| {
            let view = seat.frames().try_next();
            view.expect("every callback draws")
        });
        let seen = self.spectator.try_next().expect("the tour draws for all");
        assert_eq!(seen.changed, first.changed);
        let rows = u64::from(first.changed.count_ones());
        if eyes == Eyes::Keeping {
            self.kept.push(first);
        }
        rows
    }
}

/// A row that a guest changes is written to another one of 1,920 bytes while somebody has the old
/// one: those go round between the room and its viewers, and only a viewer that keeps frames makes
/// the room take new ones, a row for each that changed. Scheduling, mail, input, callback, services,
/// recorder and status cost nothing.
fn assert_only_kept_rows_are_allocated(mut room: Steady) {
    for eyes in [Eyes::Open, Eyes::Keeping, Eyes::Open] {
        let stretch = room.wakes(WAKES, eyes);
        assert_eq!(stretch.rows, ROWS_PER_WAKE * WAKES, "{eyes:?}");
        let max = match eyes {
            Eyes::Keeping => stretch.rows,
            // The rows that came back from those who kept theirs.
            _ => ROWS_AFTER_KEEPING,
        };
        assert!(stretch.allocations <= max, "{eyes:?}: {stretch:?}");
    }
    let unseen = room.wakes(WAKES, Eyes::Shut);
    assert!(unseen.allocations <= ROWS_AFTER_KEEPING, "{unseen:?}");
    // Who looked away is told of every row that changed since, once.
    assert_eq!(room.look(Eyes::Open), ROWS_PER_WAKE);
    // The score's row; the rest of the page says what it said.
    let keys = room.keys(WAKES);
    assert_eq!(keys.rows, WAKES);
    assert!(keys.allocations <= ROWS_AFTER_KEEPING, "{keys:?}");
}

#[test]
fn a_steady_room_allocates_nothing_unless_a_viewer_keeps_its_frames() {
    assert_only_kept_rows_are_allocated(steady(Arc::new(NoRecorder)));
}

/// With handles that lead nowhere: what exporters allocate is theirs, and `metrics_allocations.rs`
/// counts it.
#[cfg(feature = "metrics")]
#[test]
fn recording_metrics_adds_nothing_to_that() {
    let recorder = cabinet_rooms::MetricsRecorder::new();
    assert_only_kept_rows_are_allocated(steady(Arc::new(recorder)));
}
