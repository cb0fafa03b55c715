//! The `metrics` adapter, read as Prometheus reads it: names, labels, buckets and sums, line by
//! line.

use std::time::Duration;

use cabinet_host::Game;
use cabinet_rooms::{
    Export, GameLabel, Listing, MetricsRecorder, Recorder, Registry, SECONDS_BUCKETS, StoreOp,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

#[path = "../../host/tests/common/mod.rs"]
mod common;

/// What a scrape reads after `events`, told of a game listed as `ada/chess`.
fn scraped(events: impl FnOnce(&MetricsRecorder, &GameLabel)) -> Vec<String> {
    let exporter = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)
        .unwrap()
        .build_recorder();
    let game: Game = common::game(&common::guest(&common::plain(), "", ""));
    let listing = Listing::new(game).with_slug("ada/chess".parse().unwrap());
    let listed = Registry::new().add(listing).unwrap();
    metrics::with_local_recorder(&exporter, || {
        events(&MetricsRecorder::new(), listed.label());
    });
    let rendered = exporter.handle().render();
    rendered.lines().map(str::to_owned).collect()
}

/// Each of `wanted` is a line of what was scraped.
fn assert_lines(scraped: &[String], wanted: &[&str]) {
    for line in wanted {
        let found = scraped.iter().any(|it| it == line);
        assert!(found, "no line {line}\nin\n{}", scraped.join("\n"));
    }
}

#[test]
fn every_event_moves_the_metric_of_its_name_and_labels() {
    let lines = scraped(|recorder, game| {
        recorder.callback_deadline(game, Export::Wake);
        recorder.excused(game, Export::Join);
        recorder.host_io_deadline(game, Export::Input);
        recorder.host_fault(game);
        recorder.fault(game);
        recorder.fault(game);
        recorder.frame_bytes_out(game, 46_093);
        recorder.frame_bytes_out(game, 37);
        recorder.input_bytes_in(game, 10);
        recorder.store_error(game, StoreOp::KvSet);
        recorder.store_panicked(game, StoreOp::Post);
        recorder.linear_memory(game, 131_072);
        recorder.linear_memory(game, -65_536);
        recorder.rooms(game, 1);
        recorder.rooms(game, 1);
        recorder.rooms(game, -1);
        recorder.wakes_skipped(game, 3);
        recorder.room_ended(game, "abandoned");
        recorder.room_ended(game, "a reason of later days");
        recorder.quarantined(game);
    });
    assert_lines(
        &lines,
        &[
            r#"cabinet_callback_deadlines_total{slug="ada/chess",export="wake"} 1"#,
            r#"cabinet_callback_deadlines_total{slug="ada/chess",export="start"} 0"#,
            r#"cabinet_callbacks_excused_total{slug="ada/chess",export="join"} 1"#,
            r#"cabinet_host_io_deadlines_total{slug="ada/chess",export="input"} 1"#,
            r#"cabinet_host_faults_total{slug="ada/chess"} 1"#,
            r#"cabinet_guest_faults_total{slug="ada/chess"} 2"#,
            r#"cabinet_frame_bytes_total{slug="ada/chess"} 46130"#,
            r#"cabinet_input_bytes_total{slug="ada/chess"} 10"#,
            r#"cabinet_store_errors_total{slug="ada/chess",op="kv_set"} 1"#,
            r#"cabinet_store_errors_total{slug="ada/chess",op="post"} 0"#,
            r#"cabinet_store_panics_total{slug="ada/chess",op="post"} 1"#,
            r#"cabinet_linear_memory_bytes{slug="ada/chess"} 65536"#,
            r#"cabinet_rooms{slug="ada/chess"} 1"#,
            r#"cabinet_wakes_skipped_total{slug="ada/chess"} 3"#,
            r#"cabinet_rooms_ended_total{slug="ada/chess",reason="abandoned"} 1"#,
            r#"cabinet_rooms_ended_total{slug="ada/chess",reason="other"} 1"#,
            r#"cabinet_rooms_ended_total{slug="ada/chess",reason="fault"} 0"#,
            r#"cabinet_quarantines_total{slug="ada/chess"} 1"#,
        ],
    );
}

#[test]
fn times_fall_into_the_published_buckets() {
    let lines = scraped(|recorder, game| {
        for micros in [10, 11, 250, 2_000_000, 9_000_000] {
            recorder.callback(game, Export::Wake, Duration::from_micros(micros));
        }
        recorder.wake_late(game, Duration::from_millis(3));
        recorder.stolen(game, Export::Wake, Duration::from_millis(40));
    });
    let callbacks: Vec<&str> = lines
        .iter()
        .filter_map(|line| {
            line.strip_prefix(
                r#"cabinet_callback_seconds_bucket{slug="ada/chess",export="wake",le=""#,
            )
        })
        .collect();
    assert_eq!(
        callbacks,
        [
            r#"0.00001"} 1"#,
            r#"0.00002"} 2"#,
            r#"0.00005"} 2"#,
            r#"0.0001"} 2"#,
            r#"0.0002"} 2"#,
            r#"0.0005"} 3"#,
            r#"0.001"} 3"#,
            r#"0.002"} 3"#,
            r#"0.005"} 3"#,
            r#"0.01"} 3"#,
            r#"0.02"} 3"#,
            r#"0.05"} 3"#,
            r#"0.1"} 3"#,
            r#"0.2"} 3"#,
            r#"0.5"} 3"#,
            r#"1"} 3"#,
            r#"2"} 4"#,
            r#"+Inf"} 5"#,
        ]
    );
    assert_lines(
        &lines,
        &[
            "# TYPE cabinet_callback_seconds histogram",
            r#"cabinet_callback_seconds_count{slug="ada/chess",export="wake"} 5"#,
            r#"cabinet_wake_late_seconds_bucket{slug="ada/chess",le="0.002"} 0"#,
            r#"cabinet_wake_late_seconds_bucket{slug="ada/chess",le="0.005"} 1"#,
            r#"cabinet_wake_late_seconds_sum{slug="ada/chess"} 0.003"#,
            r#"cabinet_callback_stolen_seconds_sum{slug="ada/chess",export="wake"} 0.04"#,
        ],
    );
}

#[test]
fn every_metric_is_described_and_typed() {
    let lines = scraped(|recorder, game| {
        recorder.callback(game, Export::Start, Duration::ZERO);
        recorder.stolen(game, Export::Start, Duration::ZERO);
        recorder.wake_late(game, Duration::ZERO);
    });
    let typed: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .collect();
    assert_eq!(typed.len(), 17);
    for (name, kind) in typed.iter().map(|line| line.split_once(' ').unwrap()) {
        assert!(name.starts_with("cabinet_"), "{name}");
        let expected = match name {
            _ if name.ends_with("_total") => "counter",
            _ if name.ends_with("_seconds") => "histogram",
            _ => "gauge",
        };
        assert_eq!(kind, expected, "{name}");
        let help = format!("# HELP {name} ");
        assert!(lines.iter().any(|line| line.starts_with(&help)), "{name}");
    }
}

#[test]
fn a_game_that_lost_no_time_is_not_told_with_zeros() {
    let lines = scraped(|recorder, game| {
        recorder.prepare(game);
        recorder.stolen(game, Export::Wake, Duration::from_millis(40));
    });
    let stolen = |line: &&String| line.starts_with("cabinet_callback_stolen_seconds_count");
    let stolen: Vec<&String> = lines.iter().filter(stolen).collect();
    assert_eq!(
        stolen,
        [r#"cabinet_callback_stolen_seconds_count{slug="ada/chess",export="wake"} 1"#]
    );
}

#[test]
fn games_are_told_apart_and_the_overflow_has_a_name() {
    let lines = scraped(|recorder, game| {
        recorder.fault(game);
        recorder.fault(&GameLabel::other());
        recorder.fault(&GameLabel::other());
    });
    let other = GameLabel::other();
    let overflow = format!(r#"cabinet_guest_faults_total{{slug="{}"}} 2"#, other.slug());
    assert_lines(
        &lines,
        &[
            r#"cabinet_guest_faults_total{slug="ada/chess"} 1"#,
            &overflow,
        ],
    );
}

#[test]
fn without_an_exporter_events_go_nowhere() {
    let recorder = MetricsRecorder::new();
    let other = GameLabel::other();
    recorder.fault(&other);
    assert_eq!(format!("{recorder:?}"), "MetricsRecorder { games: 1, .. }");
}

#[test]
fn games_of_two_registries_are_not_told_under_each_others_name() {
    let lines = scraped(|recorder, chess| {
        let game: Game = common::game(&common::guest(&common::plain(), "", ""));
        let listing = Listing::new(game).with_slug("bob/poker".parse().unwrap());
        let poker = Registry::new().add(listing).unwrap();
        assert_eq!(poker.label().index(), chess.index());
        recorder.fault(chess);
        recorder.fault(poker.label());
        recorder.fault(poker.label());
    });
    assert_lines(
        &lines,
        &[
            r#"cabinet_guest_faults_total{slug="ada/chess"} 1"#,
            r#"cabinet_guest_faults_total{slug="_other"} 2"#,
        ],
    );
}
