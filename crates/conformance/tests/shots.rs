//! What a `shot` step notes of a game that shows each viewer something else.

use cabinet_conformance::{CheckOptions, Script, check};
use cabinet_host::{Host, HostOptions};

#[test]
fn a_shot_shows_each_seat_its_own_frame() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/crowd.wasm");
    let wasm = std::fs::read(path).unwrap();
    let host = Host::new(HostOptions::default()).unwrap();
    let script = "deadline 60s\nseat 0 member handle=ada\njoin 0\njoin 1\nwake +50ms\nshot both\n\
                  key 1 right\nwake +50ms\nleave 0\nshot one";
    let script = Script::parse(script).unwrap();
    let report = check(&host, &wasm, &CheckOptions::default(), Some(&script)).unwrap();
    assert!(report.ok, "{report}");
    let [both, one] = report.shots.as_slice() else {
        panic!("{report}")
    };
    let [ada, other] = both.seats.as_slice() else {
        panic!("{report}")
    };
    assert_eq!((ada.seat, other.seat), (0, 1));
    assert_ne!(ada.grid_sha256, other.grid_sha256, "{:?}", ada.rows);
    assert!(
        ada.rows.iter().any(|row| row.contains("ada")),
        "{:?}",
        ada.rows
    );
    let later = one.seats.iter().find(|shot| shot.seat == 1).unwrap();
    assert_ne!(later.grid_sha256, other.grid_sha256);
}
