//! After a game's first event, and the first stolen time of each export, the `metrics` adapter
//! allocates nothing, whichever event it is.
//!
//! Counted on the test's own thread: the test runner's threads allocate as they please.

#[path = "../../host/tests/common/counting.rs"]
mod counting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cabinet_rooms::{Export, GameLabel, MetricsRecorder, Recorder, StoreOp};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata,
    SharedString, Unit,
};
use metrics_exporter_prometheus::PrometheusBuilder;

fn allocations(of: impl FnOnce()) -> u64 {
    let before = counting::allocations();
    of();
    counting::allocations() - before
}

/// An exporter that only counts how often it is told something.
#[derive(Clone, Default)]
struct Atomic(Arc<Told>);

#[derive(Default)]
struct Told(AtomicU64);

impl Told {
    fn once(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl CounterFn for Told {
    fn increment(&self, _: u64) {
        self.once();
    }
    fn absolute(&self, _: u64) {
        self.once();
    }
}

impl GaugeFn for Told {
    fn increment(&self, _: f64) {
        self.once();
    }
    fn decrement(&self, _: f64) {
        self.once();
    }
    fn set(&self, _: f64) {
        self.once();
    }
}

impl HistogramFn for Told {
    fn record(&self, _: f64) {
        self.once();
    }
}

impl metrics::Recorder for Atomic {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::clone(&self.0))
    }
    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::clone(&self.0))
    }
    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::clone(&self.0))
    }
}

const REASONS: [&str; 7] = [
    "game",
    "abandoned",
    "closed",
    "fault",
    "host",
    "hibernated",
    "unheard of",
];

/// Every event that is no time, with every label; says how many.
fn all_counts(recorder: &MetricsRecorder, game: &GameLabel) -> u64 {
    for export in Export::ALL {
        recorder.callback_deadline(game, export);
        recorder.excused(game, export);
        recorder.host_io_deadline(game, export);
    }
    for op in StoreOp::ALL {
        recorder.store_error(game, op);
        recorder.store_panicked(game, op);
    }
    for reason in REASONS {
        recorder.room_ended(game, reason);
    }
    recorder.host_fault(game);
    recorder.fault(game);
    recorder.frame_bytes_out(game, 1);
    recorder.input_bytes_in(game, 10);
    recorder.linear_memory(game, 65_536);
    recorder.rooms(game, -1);
    recorder.wakes_skipped(game, 2);
    recorder.quarantined(game);
    (3 * Export::ALL.len() + 2 * StoreOp::ALL.len() + REASONS.len() + 8) as u64
}

/// Every event that is a time, with every label; says how many.
fn all_times(recorder: &MetricsRecorder, game: &GameLabel) -> u64 {
    let took = Duration::from_micros(120);
    for export in Export::ALL {
        recorder.callback(game, export, took);
        recorder.stolen(game, export, took);
    }
    recorder.wake_late(game, took);
    (2 * Export::ALL.len() + 1) as u64
}

#[test]
fn no_event_after_the_first_of_its_kind_allocates() {
    let exporter = Atomic::default();
    let game = GameLabel::other();
    metrics::with_local_recorder(&exporter, || {
        let recorder = MetricsRecorder::new();
        assert!(
            allocations(|| recorder.prepare(&game)) > 0,
            "counting works"
        );
        let mut told = 0;
        for export in Export::ALL {
            recorder.stolen(&game, export, Duration::ZERO);
            told += 1;
        }
        let during = allocations(|| {
            for _ in 0..1_000 {
                told += all_counts(&recorder, &game) + all_times(&recorder, &game);
            }
        });
        assert_eq!(during, 0);
        assert_eq!(exporter.0.0.load(Ordering::Relaxed), told);
    });
}

/// What an operator pays in the end: Prometheus' counters and gauges allocate nothing either; its
/// histograms keep samples in blocks of 64 until they are scraped.
#[test]
fn prometheus_counts_allocate_nothing_and_times_once_in_many() {
    let exporter = PrometheusBuilder::new()
        .set_buckets(&cabinet_rooms::SECONDS_BUCKETS)
        .unwrap()
        .build_recorder();
    let game = GameLabel::other();
    metrics::with_local_recorder(&exporter, || {
        let recorder = MetricsRecorder::new();
        recorder.prepare(&game);
        let counting = allocations(|| {
            for _ in 0..100 {
                all_counts(&recorder, &game);
            }
        });
        assert_eq!(counting, 0);
        all_times(&recorder, &game);
        let mut told = 0;
        let timing = allocations(|| {
            for _ in 0..640 {
                told += all_times(&recorder, &game);
            }
        });
        assert!(timing <= told / 32, "{timing} allocations for {told} times");
    });
}
