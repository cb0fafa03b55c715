//! The reference kit's own guests, checked with the scripts it checks them with.

use std::path::PathBuf;

use cabinet_conformance::script::BUILTIN;
use cabinet_conformance::{CheckOptions, Judgement, Report, Restore, Script, check};
use cabinet_host::{Host, HostOptions};

mod common;

const FIXTURE: &str = "fixture/fixture.wasm";
const RUST: &str = "fixture-rs/fixture-rs.wasm";
const RUST_KIT: &str = "fixture-rs-kit/fixture-rs-kit.wasm";
const SPIKE: &str = "loadspike/loadspike.wasm";
const SPIKE_CONS: &str = "loadspike/loadspike-cons.wasm";

struct Kit {
    artifacts: PathBuf,
    host: Host,
}

impl Kit {
    fn find() -> Option<Self> {
        let Some(kit) = std::env::var_os("CABINET_REFERENCE") else {
            common::skipped("reference artifacts: CABINET_REFERENCE is not set");
            return None;
        };
        let host = Host::new(HostOptions::default()).unwrap();
        Some(Self {
            artifacts: PathBuf::from(kit).join("host/gameabi/testdata"),
            host,
        })
    }

    fn check(&self, artifact: &str, script: Option<Script>, hibernate: Restore) -> Report {
        let wasm = std::fs::read(self.artifacts.join(artifact)).unwrap();
        let mut options = CheckOptions {
            hibernate,
            ..CheckOptions::default()
        };
        // Wide, so that a busy machine fails nobody; scripts with a deadline of their own keep it.
        options.game.deadline = std::time::Duration::from_secs(60);
        check(&self.host, &wasm, &options, script.as_ref()).unwrap()
    }
}

fn builtin(name: &str) -> Option<Script> {
    let found = BUILTIN.iter().find(|builtin| builtin.name == name);
    Some(found.unwrap().script())
}

fn assert_passes(report: &Report) {
    assert!(report.ok, "{report}");
    assert_eq!(report.steps.len(), report.steps_in_script + 1, "{report}");
    let judged = |name| report.verdict(name).unwrap().judgement;
    assert_eq!(judged("replay determinism"), Judgement::Pass, "{report}");
    assert_eq!(judged("compiler determinism"), Judgement::Pass, "{report}");
}

#[test]
fn all_five_pass_with_the_default_script() {
    let Some(kit) = Kit::find() else { return };
    for artifact in [FIXTURE, RUST, RUST_KIT, SPIKE, SPIKE_CONS] {
        let report = kit.check(artifact, None, Restore::Complete);
        assert_passes(&report);
        let hibernated = report.verdict("hibernation determinism").unwrap();
        assert_eq!(hibernated.judgement, Judgement::Pass, "{report}");
        assert!(report.headroom.memory_peak_bytes > 0);
    }
}

#[test]
fn the_kits_scripts_pass_with_either_kind_of_snapshot() {
    let Some(kit) = Kit::find() else { return };
    for (artifact, script) in [
        (FIXTURE, "fixture"),
        (FIXTURE, "solo-rehydrate"),
        (FIXTURE, "send-identical"),
        (FIXTURE, "mid-join"),
        (RUST, "rust-fixtures"),
        (RUST_KIT, "rust-fixtures"),
        (RUST_KIT, "solo-rehydrate"),
    ] {
        for restore in [Restore::Complete, Restore::Sck1] {
            assert_passes(&kit.check(artifact, builtin(script), restore));
        }
    }
}

#[test]
fn broadcast_and_personal_frames_are_both_seen() {
    let Some(kit) = Kit::find() else { return };
    let report = kit.check(FIXTURE, builtin("send-identical"), Restore::Complete);
    let calls = |name: &str| {
        report
            .steps
            .iter()
            .filter(|row| row.frames > 0 && row.host_calls.contains_key(name))
            .count()
    };
    assert!(calls("send") >= 2 && calls("identical") >= 2, "{report}");
}

#[test]
fn a_panic_fails_the_guest_fault_verdict_at_its_step() {
    let Some(kit) = Kit::find() else { return };
    for artifact in [FIXTURE, RUST, RUST_KIT] {
        let report = kit.check(artifact, builtin("fault-trap"), Restore::Complete);
        let fault = report.verdict("guest fault").unwrap();
        assert_eq!((fault.ok(), fault.step), (false, Some(2)), "{report}");
        assert_eq!(fault.measured, "trap, exit 1");
    }
}

#[test]
fn endless_work_is_stopped_and_fails_the_latency_verdict() {
    let Some(kit) = Kit::find() else { return };
    let mut script = builtin("fault-spin").unwrap();
    // 50 ms is for a quiet machine.
    script.setup.set("deadline 1s").unwrap();
    let report = kit.check(FIXTURE, Some(script), Restore::Complete);
    let latency = report.verdict("callback latency").unwrap();
    assert_eq!((latency.ok(), latency.step), (false, Some(2)), "{report}");
    assert_eq!(latency.limit, "under 1s");
}

#[test]
fn memory_without_end_is_refused_and_the_verdict_names_the_cap() {
    let Some(kit) = Kit::find() else { return };
    let report = kit.check(FIXTURE, builtin("fault-memory"), Restore::Complete);
    assert_eq!(
        report.verdict("linear memory").unwrap().limit,
        "under 5 MiB"
    );
    assert_eq!(report.headroom.memory_cap_bytes, 80 * 65_536);
    assert!(!report.verdict("guest fault").unwrap().ok(), "{report}");
}
