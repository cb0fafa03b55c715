//! A game that dies takes its reasons with it into the report.

use cabinet_conformance::{CheckOptions, Script, check};
use cabinet_host::{Host, HostOptions};

#[test]
fn what_a_panic_said_is_in_the_report() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures");
    let wasm = std::fs::read(format!("{fixtures}/misbehave.wasm")).unwrap();
    let script = Script::parse("join 0\ninput 0 'p'\n").unwrap();
    let host = Host::new(HostOptions::default()).unwrap();
    let report = check(&host, &wasm, &CheckOptions::default(), Some(&script)).unwrap();
    let words = &report.steps[2].last_words;
    assert!(
        words.iter().any(|words| words.contains("panicked at")),
        "{words:?}"
    );
    assert!(report.to_string().contains("logged at step 2: "));
    assert!(report.steps[1].last_words.is_empty(), "only where it died");
}
