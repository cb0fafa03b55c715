//! What rooms tell Prometheus: installs its exporter, plays a moment, prints what a scrape reads.
//!
//! `cargo run -p cabinet-rooms --features metrics --example prometheus -- game.wasm`
//!
//! There is no web server here: answer your scrapes with [`PrometheusHandle::render`], and call
//! [`PrometheusHandle::run_upkeep`] every few seconds, or the samples of histograms pile up.
//!
//! [`PrometheusHandle::render`]: metrics_exporter_prometheus::PrometheusHandle::render
//! [`PrometheusHandle::run_upkeep`]: metrics_exporter_prometheus::PrometheusHandle::run_upkeep

use std::time::Duration;

use cabinet_host::{GameOptions, Host, HostOptions};
use cabinet_rooms::{Export, Listing, MetricsRecorder, Recorder, Registry, SECONDS_BUCKETS};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(path) = std::env::args_os().nth(1) else {
        return Err("usage: prometheus <game.wasm>".into());
    };

    // The exporter comes first: a game's metrics go to whichever was there at its first event.
    let exporter = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
        .install_recorder()?;
    let recorder = MetricsRecorder::new();

    let host = Host::new(HostOptions::default())?;
    let game = host.load(&std::fs::read(path)?, &GameOptions::default())?;
    let registry = Registry::new();
    let listed = registry.add(Listing::new(game))?;
    recorder.prepare(listed.label());

    // What a runtime given this recorder would tell about one room.
    let game = listed.label();
    recorder.rooms(game, 1);
    recorder.linear_memory(game, 1_179_648);
    recorder.callback(game, Export::Start, Duration::from_micros(310));
    for late_micros in [15, 40, 900] {
        recorder.wake_late(game, Duration::from_micros(late_micros));
        recorder.callback(game, Export::Wake, Duration::from_micros(120));
        recorder.frame_bytes_out(game, 37);
    }
    recorder.room_ended(game, "game");
    recorder.linear_memory(game, -1_179_648);
    recorder.rooms(game, -1);

    print!("{}", exporter.render());
    Ok(())
}
