//! State wherever wasm can keep it survives: a room saved and restored after every step equals one
//! that never was.

use cabinet_conformance::{CheckOptions, Restore, Script, check};
use cabinet_host::{Host, HostOptions};

/// A guest with unexported globals of all six types and a table it grows and changes.
fn guest() -> Vec<u8> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/wat/ok-state.wat"
    );
    wat::parse_file(path).unwrap()
}

fn options(hibernate: Restore) -> CheckOptions {
    let mut options = CheckOptions {
        hibernate,
        ..CheckOptions::default()
    };
    options.game.deadline = std::time::Duration::from_secs(60);
    options
}

fn script() -> Script {
    let steps = [
        "join 0",
        "join 1",
        "input 0 'x'",
        "wake +50ms",
        "key 1 up",
        "leave 0",
        "wake",
    ];
    // Four times round: the table reaches its limit on the way.
    let round = steps.map(|step| format!("{step}\nsnapshot\n")).concat();
    let back = "leave 1\nsnapshot\n";
    Script::parse(&[round.as_str(), back].concat().repeat(4)).unwrap()
}

#[test]
fn globals_of_every_type_and_a_grown_table_survive_a_snapshot_after_every_step() {
    let wasm = guest();
    let host = Host::new(HostOptions::default()).unwrap();
    let script = script();
    assert!(script.snapshots() == 32);
    let report = check(&host, &wasm, &options(Restore::Complete), Some(&script)).unwrap();
    assert!(report.ok, "{report}");
    let verdict = report.verdict("hibernation determinism").unwrap();
    assert_eq!(verdict.measured, "same after 64 steps");
    let frames: u32 = report.steps.iter().map(|row| row.frames).sum();
    assert_eq!(
        frames, 33,
        "the guest draws its state in every callback\n{report}"
    );
}

#[test]
fn the_references_snapshot_of_it_is_refused_by_name() {
    let wasm = guest();
    let host = Host::new(HostOptions::default()).unwrap();
    let report = check(&host, &wasm, &options(Restore::Sck1), Some(&script())).unwrap();
    let verdict = report.verdict("hibernation determinism").unwrap();
    assert_eq!((verdict.ok(), verdict.step), (false, Some(2)), "{report}");
    assert!(verdict.detail.contains("globals"), "{}", verdict.detail);
}
