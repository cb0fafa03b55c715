//! [`Recorder`] on the `metrics` facade.
//!
//! Handles are registered once per game and kept in a table by [`GameLabel::index`]: after a
//! game's first event, telling another takes neither a lock nor an allocation of ours. (The one
//! exception is the first stolen time of an export, told when a room has just been killed: few
//! games have any, and twenty lines of zeros for each would swell every scrape.) What the
//! installed exporter's handles do is its own affair; Prometheus' counters and gauges are one
//! atomic, its histograms allocate a block for every 64 samples.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit};

use crate::recorder::{Export, GAME_LABELS_MAX, GameLabel, Recorder, StoreOp};

/// Tells the `metrics` facade what happens in rooms.
///
/// Install the exporter first: a game's handles belong to the recorder that was installed when its
/// first event came. Histograms want explicit buckets, [`crate::SECONDS_BUCKETS`]; all their names
/// end in `_seconds`. `examples/prometheus.rs` shows both.
pub struct MetricsRecorder {
    games: Box<[OnceLock<Box<Handles>>]>,
}

/// Every metric: name, kind, unit, what it says.
const METRICS: [(&str, MetricKind, Unit, &str); 17] = [
    (
        CALLBACK_SECONDS,
        MetricKind::Histogram,
        Unit::Seconds,
        "Wall time of callbacks that reached the guest",
    ),
    (
        CALLBACK_DEADLINES,
        MetricKind::Counter,
        Unit::Count,
        "Callbacks killed by their deadline",
    ),
    (
        CALLBACK_STOLEN_SECONDS,
        MetricKind::Histogram,
        Unit::Seconds,
        "CPU time stolen from the machine during callbacks killed by their deadline",
    ),
    (
        CALLBACKS_EXCUSED,
        MetricKind::Counter,
        Unit::Count,
        "Deadline kills excused because the guest had not had half of its window",
    ),
    (
        HOST_IO_DEADLINES,
        MetricKind::Counter,
        Unit::Count,
        "Callbacks ended because stores took too long",
    ),
    (
        HOST_FAULTS,
        MetricKind::Counter,
        Unit::Count,
        "Rooms that the host failed",
    ),
    (
        GUEST_FAULTS,
        MetricKind::Counter,
        Unit::Count,
        "Rooms killed by their guest",
    ),
    (
        FRAME_BYTES,
        MetricKind::Counter,
        Unit::Bytes,
        "Container bytes of accepted frames; a broadcast counts once",
    ),
    (
        INPUT_BYTES,
        MetricKind::Counter,
        Unit::Bytes,
        "Payload bytes of input",
    ),
    (
        STORE_ERRORS,
        MetricKind::Counter,
        Unit::Count,
        "Requests that a store failed or was too slow for",
    ),
    (
        STORE_PANICS,
        MetricKind::Counter,
        Unit::Count,
        "Requests that a store panicked over; also counted as errors",
    ),
    (
        LINEAR_MEMORY,
        MetricKind::Gauge,
        Unit::Bytes,
        "Linear memory of the guests",
    ),
    (
        ROOMS,
        MetricKind::Gauge,
        Unit::Count,
        "Rooms with an instance",
    ),
    (
        WAKE_LATE_SECONDS,
        MetricKind::Histogram,
        Unit::Seconds,
        "How long after they were due wakes began",
    ),
    (
        WAKES_SKIPPED,
        MetricKind::Counter,
        Unit::Count,
        "Wakes left out because the room was more than a period late",
    ),
    (
        ROOMS_ENDED,
        MetricKind::Counter,
        Unit::Count,
        "Rooms that left, by reason",
    ),
    (
        QUARANTINES,
        MetricKind::Counter,
        Unit::Count,
        "Times the game was taken out of the registry after too many faults",
    ),
];

const CALLBACK_SECONDS: &str = "cabinet_callback_seconds";
const CALLBACK_DEADLINES: &str = "cabinet_callback_deadlines_total";
const CALLBACK_STOLEN_SECONDS: &str = "cabinet_callback_stolen_seconds";
const CALLBACKS_EXCUSED: &str = "cabinet_callbacks_excused_total";
const HOST_IO_DEADLINES: &str = "cabinet_host_io_deadlines_total";
const HOST_FAULTS: &str = "cabinet_host_faults_total";
const GUEST_FAULTS: &str = "cabinet_guest_faults_total";
const FRAME_BYTES: &str = "cabinet_frame_bytes_total";
const INPUT_BYTES: &str = "cabinet_input_bytes_total";
const STORE_ERRORS: &str = "cabinet_store_errors_total";
const STORE_PANICS: &str = "cabinet_store_panics_total";
const LINEAR_MEMORY: &str = "cabinet_linear_memory_bytes";
const ROOMS: &str = "cabinet_rooms";
const WAKE_LATE_SECONDS: &str = "cabinet_wake_late_seconds";
const WAKES_SKIPPED: &str = "cabinet_wakes_skipped_total";
const ROOMS_ENDED: &str = "cabinet_rooms_ended_total";
const QUARANTINES: &str = "cabinet_quarantines_total";

/// The reasons of [`Recorder::room_ended`]; another is told as the last.
const REASONS: [&str; 8] = [
    "game",
    "abandoned",
    "closed",
    "fault",
    "host",
    "hibernated",
    "not-resumed",
    "other",
];

#[derive(Clone, Copy)]
enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricsRecorder {
    /// A recorder for the process's exporter, to which every metric is described at once.
    #[must_use]
    pub fn new() -> Self {
        Self::describe();
        // One past the last is the label that the later games share.
        Self {
            games: (0..=GAME_LABELS_MAX).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Registers a game's handles, which its first event would do otherwise, on a room thread.
    pub fn prepare(&self, game: &GameLabel) {
        self.handles(game);
    }

    fn describe() {
        for (name, kind, unit, what) in METRICS {
            match kind {
                MetricKind::Counter => metrics::describe_counter!(name, unit, what),
                MetricKind::Gauge => metrics::describe_gauge!(name, unit, what),
                MetricKind::Histogram => metrics::describe_histogram!(name, unit, what),
            }
        }
    }

    fn handles(&self, game: &GameLabel) -> &Handles {
        // An index is at most GAME_LABELS_MAX.
        let at = game.index().min(GAME_LABELS_MAX);
        let handles = self.games[at].get_or_init(|| Box::new(Handles::register(game.slug())));
        if handles.slug == game.slug() {
            return handles;
        }
        // Another registry's game has this index: it is told under nobody's name.
        let other = GameLabel::other();
        self.games[GAME_LABELS_MAX].get_or_init(|| Box::new(Handles::register(other.slug())))
    }
}

impl Default for MetricsRecorder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MetricsRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let games = self.games.iter().filter(|it| it.get().is_some()).count();
        f.debug_struct("MetricsRecorder")
            .field("games", &games)
            .finish_non_exhaustive()
    }
}

/// One game's metrics; arrays by the discriminant of the label.
struct Handles {
    slug: String,
    exports: [ExportHandles; Export::ALL.len()],
    store_errors: [Counter; StoreOp::ALL.len()],
    store_panics: [Counter; StoreOp::ALL.len()],
    rooms_ended: [Counter; REASONS.len()],
    host_faults: Counter,
    guest_faults: Counter,
    frame_bytes: Counter,
    input_bytes: Counter,
    linear_memory: Gauge,
    rooms: Gauge,
    wake_late: Histogram,
    wakes_skipped: Counter,
    quarantines: Counter,
}

struct ExportHandles {
    seconds: Histogram,
    stolen_seconds: OnceLock<Histogram>,
    deadlines: Counter,
    excused: Counter,
    host_io_deadlines: Counter,
}

impl Handles {
    fn register(slug: &str) -> Self {
        let counter = |name: &'static str| metrics::counter!(name, "slug" => slug.to_owned());
        let by_op = |name: &'static str| {
            StoreOp::ALL
                .map(|op| metrics::counter!(name, "slug" => slug.to_owned(), "op" => op.name()))
        };
        Self {
            slug: slug.to_owned(),
            exports: Export::ALL.map(|export| ExportHandles::register(slug, export)),
            store_errors: by_op(STORE_ERRORS),
            store_panics: by_op(STORE_PANICS),
            rooms_ended: REASONS.map(|reason| {
                metrics::counter!(ROOMS_ENDED, "slug" => slug.to_owned(), "reason" => reason)
            }),
            host_faults: counter(HOST_FAULTS),
            guest_faults: counter(GUEST_FAULTS),
            frame_bytes: counter(FRAME_BYTES),
            input_bytes: counter(INPUT_BYTES),
            linear_memory: metrics::gauge!(LINEAR_MEMORY, "slug" => slug.to_owned()),
            rooms: metrics::gauge!(ROOMS, "slug" => slug.to_owned()),
            wake_late: metrics::histogram!(WAKE_LATE_SECONDS, "slug" => slug.to_owned()),
            wakes_skipped: counter(WAKES_SKIPPED),
            quarantines: counter(QUARANTINES),
        }
    }

    fn of(&self, export: Export) -> &ExportHandles {
        &self.exports[export as usize]
    }
}

impl ExportHandles {
    fn register(slug: &str, export: Export) -> Self {
        let counter = |name| count_of(name, slug, export);
        Self {
            seconds: times_of(CALLBACK_SECONDS, slug, export),
            stolen_seconds: OnceLock::new(),
            deadlines: counter(CALLBACK_DEADLINES),
            excused: counter(CALLBACKS_EXCUSED),
            host_io_deadlines: counter(HOST_IO_DEADLINES),
        }
    }
}

fn count_of(name: &'static str, slug: &str, export: Export) -> Counter {
    metrics::counter!(name, "slug" => slug.to_owned(), "export" => export.name())
}

fn times_of(name: &'static str, slug: &str, export: Export) -> Histogram {
    metrics::histogram!(name, "slug" => slug.to_owned(), "export" => export.name())
}

impl Recorder for MetricsRecorder {
    fn callback(&self, game: &GameLabel, export: Export, took: Duration) {
        self.handles(game).of(export).seconds.record(took);
    }

    fn callback_deadline(&self, game: &GameLabel, export: Export) {
        self.handles(game).of(export).deadlines.increment(1);
    }

    fn stolen(&self, game: &GameLabel, export: Export, stolen: Duration) {
        let seconds = &self.handles(game).of(export).stolen_seconds;
        seconds
            .get_or_init(|| times_of(CALLBACK_STOLEN_SECONDS, game.slug(), export))
            .record(stolen);
    }

    fn excused(&self, game: &GameLabel, export: Export) {
        self.handles(game).of(export).excused.increment(1);
    }

    fn host_io_deadline(&self, game: &GameLabel, export: Export) {
        self.handles(game).of(export).host_io_deadlines.increment(1);
    }

    fn host_fault(&self, game: &GameLabel) {
        self.handles(game).host_faults.increment(1);
    }

    fn fault(&self, game: &GameLabel) {
        self.handles(game).guest_faults.increment(1);
    }

    fn frame_bytes_out(&self, game: &GameLabel, bytes: u64) {
        self.handles(game).frame_bytes.increment(bytes);
    }

    fn input_bytes_in(&self, game: &GameLabel, bytes: u64) {
        self.handles(game).input_bytes.increment(bytes);
    }

    fn store_error(&self, game: &GameLabel, op: StoreOp) {
        self.handles(game).store_errors[op as usize].increment(1);
    }

    fn store_panicked(&self, game: &GameLabel, op: StoreOp) {
        self.handles(game).store_panics[op as usize].increment(1);
    }

    fn linear_memory(&self, game: &GameLabel, delta: i64) {
        // Exact: the memory of all rooms together stays far below 2^53 bytes.
        self.handles(game).linear_memory.increment(delta as f64);
    }

    fn rooms(&self, game: &GameLabel, delta: i64) {
        self.handles(game).rooms.increment(delta as f64);
    }

    fn wake_late(&self, game: &GameLabel, late: Duration) {
        self.handles(game).wake_late.record(late);
    }

    fn wakes_skipped(&self, game: &GameLabel, count: u64) {
        self.handles(game).wakes_skipped.increment(count);
    }

    fn room_ended(&self, game: &GameLabel, reason: &'static str) {
        let known = REASONS.iter().position(|known| *known == reason);
        let at = known.unwrap_or(REASONS.len() - 1);
        self.handles(game).rooms_ended[at].increment(1);
    }

    fn quarantined(&self, game: &GameLabel) {
        self.handles(game).quarantines.increment(1);
    }
}
