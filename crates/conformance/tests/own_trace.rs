//! One trace of our own, so that a clone alone notices when guest and host say something else to each
//! other: payloads, host calls, returned epochs, frames, memory, entropy, and what a snapshot holds.
//!
//! `CABINET_WRITE_VECTORS=1` writes `vectors/tour.jsonl` anew. It changes with `fixtures/tour.wasm`;
//! any other change is one of what games see, or of our snapshot format, and is to be reviewed.

use std::path::Path;

use cabinet_conformance::{Script, TraceOptions, trace};
use cabinet_host::{Host, HostOptions};

#[test]
fn the_trace_of_the_tour_is_as_committed() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = here.join("vectors/tour.jsonl");
    let script = std::fs::read(here.join("scripts/own/tour.script")).unwrap();
    let script = Script::from_bytes(&script).unwrap();
    let wasm = std::fs::read(here.join("../../fixtures/tour.wasm")).unwrap();
    let options = TraceOptions {
        artifact: "tour.wasm".to_owned(),
        ..TraceOptions::default()
    };
    let host = Host::new(HostOptions::default()).unwrap();
    let mut ours = Vec::new();
    trace(&host, &wasm, &options, &script, &mut ours).unwrap();
    if std::env::var_os("CABINET_WRITE_VECTORS").is_some() {
        std::fs::write(&committed, &ours).unwrap();
    }
    let ours = String::from_utf8(ours).unwrap();
    let theirs = std::fs::read_to_string(&committed).unwrap();
    for (number, (ours, theirs)) in ours.lines().zip(theirs.lines()).enumerate() {
        assert_eq!(
            ours,
            theirs,
            "line {}; after a rebuild of tour.wasm, CABINET_WRITE_VECTORS=1 writes it anew",
            number + 1
        );
    }
    assert_eq!(ours.lines().count(), theirs.lines().count());
    assert!(!ours.contains("\"err\""), "a callback died");
}
