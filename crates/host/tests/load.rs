//! Loading: what a game tells, the cache, the compile worker, compile bombs, revision skew.

mod common;

use std::path::PathBuf;
use std::time::Duration;

use cabinet_host::{
    CacheOptions, CompileError, CompileIn, Host, HostOptions, LoadError, LoadWarning,
    NewerRevision, Tier, WorkerOptions,
};
use cabinet_wire::Text;
use cabinet_wire::meta::{self, ConfigSpec, Meta};
use common::{WIDE, guest, options, plain};

#[test]
fn what_is_no_module_is_called_so() {
    let error = common::host()
        .load(b"not a module", &options(WIDE))
        .unwrap_err();
    assert_eq!(error.to_string(), "not a wasm module");
    assert!(common::host().load(&[], &options(WIDE)).is_err());
}

#[test]
fn a_newer_revision_is_refused_or_on_request_allowed_with_a_warning_naming_both() {
    let host = common::host();
    let wasm = common::wat("refused-meta-revision-7.wat");
    let error = host.load(&wasm, &options(WIDE)).unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::NewerRevision {
                declared: 7,
                known: 6
            }
        ),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.contains('7') && text.contains('6'), "{text}");

    let mut lenient = options(WIDE);
    lenient.newer_revision = NewerRevision::Warn;
    let game = host.load(&wasm, &lenient).unwrap();
    assert_eq!(game.wire_revision(), 7);
    assert!(game.warnings().contains(&LoadWarning::NewerRevision {
        declared: 7,
        known: 6
    }));
}

#[test]
fn a_second_load_comes_from_the_cache_and_a_tampered_entry_is_compiled_anew() {
    let dir = tempfile::tempdir().unwrap();
    let cached = |key: [u8; 32]| {
        let mut host = HostOptions::default();
        host.probe_deadline = WIDE;
        host.cache = Some(CacheOptions {
            dir: dir.path().join("cache"),
            key,
        });
        Host::new(host).unwrap()
    };
    let wasm = common::fixture("tour.wasm");
    assert!(
        !cached([1; 32])
            .load(&wasm, &options(WIDE))
            .unwrap()
            .from_cache()
    );
    assert!(
        cached([1; 32])
            .load(&wasm, &options(WIDE))
            .unwrap()
            .from_cache()
    );

    // Other settings, other code.
    let mut quick = options(WIDE);
    quick.tier = Tier::Quick;
    assert!(!cached([1; 32]).load(&wasm, &quick).unwrap().from_cache());
    // Another key trusts nothing of it.
    let stranger = cached([2; 32]).load(&wasm, &options(WIDE)).unwrap();
    assert!(!stranger.from_cache());

    // Flip one byte in the middle of every entry.
    let mut entries = 0;
    for entry in std::fs::read_dir(dir.path().join("cache")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        entries += 1;
    }
    assert!(entries >= 2);
    let game = cached([2; 32]).load(&wasm, &options(WIDE)).unwrap();
    assert!(!game.from_cache());
    assert!(game.warnings().contains(&LoadWarning::CacheTampered));
    // Compiling anew replaced the entry.
    assert!(
        cached([2; 32])
            .load(&wasm, &options(WIDE))
            .unwrap()
            .from_cache()
    );
}

/// The example `compile-worker`, which `cargo test` builds beside the tests.
fn worker() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("compile-worker{}", std::env::consts::EXE_SUFFIX));
    assert!(
        path.exists(),
        "{} is not built: `cargo test -p cabinet-host` without `--test` builds it",
        path.display()
    );
    path
}

fn with_worker(timeout: Duration, address_space_bytes: u64) -> Host {
    let mut host = HostOptions::default();
    host.probe_deadline = WIDE;
    host.compile = CompileIn::Worker(WorkerOptions {
        program: worker(),
        args: Vec::new(),
        timeout,
        address_space_bytes,
    });
    Host::new(host).unwrap()
}

#[test]
fn a_worker_process_compiles_what_this_process_would() {
    let game = with_worker(WIDE, 8 << 30)
        .load(&common::fixture("tour.wasm"), &options(WIDE))
        .unwrap();
    let (mut room, _) = common::room(&game);
    assert!(room.start(common::ms(0)).report().is_some());
    assert_eq!(room.fault(), None);
}

#[test]
fn a_worker_out_of_memory_is_an_error_and_not_a_crash_of_ours() {
    let error = with_worker(WIDE, 1 << 20)
        .load(&common::fixture("tour.wasm"), &options(WIDE))
        .unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::Compile(CompileError::Worker(_) | CompileError::Refused(_))
        ),
        "{error}"
    );
}

/// A module that is fine but for one function with this body.
fn with_body(body: &str) -> Vec<u8> {
    let smallest = std::fs::read_to_string(common::fixtures().join("wat/ok-smallest.wat")).unwrap();
    let end = smallest.rfind(')').expect("a module");
    let text = format!(
        "{}(func (param i32) (result i32) {body}))",
        &smallest[..end]
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn compile_bombs_go_to_the_quick_tier_or_are_refused() {
    let host = common::host();
    // Straight-line code: what held Cranelift for half a minute when optimising.
    let line = "(local.set 0 (i32.add (i32.mul (local.get 0) (i32.const 1664525)) (i32.const 7)))";
    let game = host
        .load(
            &with_body(&(line.repeat(30_000) + "(local.get 0)")),
            &options(WIDE),
        )
        .unwrap();
    assert_eq!(game.tier(), Tier::Quick);
    assert!(matches!(
        game.warnings(),
        [.., LoadWarning::QuickTier { .. }]
    ));

    // Thousands of locals times thousands of branches.
    let locals = "(local i64)".repeat(3_000);
    let branches: String = (0..3_000)
        .map(|index| {
            format!(
                "(if (local.get 0) (then (local.set {} (i64.const 1))))",
                index + 1
            )
        })
        .collect();
    let error = host
        .load(
            &with_body(&format!("{locals}{branches}(local.get 0)")),
            &options(WIDE),
        )
        .unwrap_err();
    assert!(
        matches!(
            error,
            LoadError::TooExpensive { .. } | LoadError::Refused(_)
        ),
        "{error}"
    );
}

#[test]
fn a_meta_of_a_mebibyte_is_read_and_one_byte_more_is_not() {
    let host = common::host();
    // Config specs of 64,000 bytes of description, and one that fills up.
    let text = "d".repeat(64_000);
    let keys: Vec<_> = (0..17).map(|index| format!("k{index}")).collect();
    let load = |last: usize| {
        let specs: Vec<_> = keys
            .iter()
            .enumerate()
            .map(|(index, key)| ConfigSpec {
                key: Text::new(key),
                description: Text::new(if index == 0 { &text[..last] } else { &text }),
                ..ConfigSpec::default()
            })
            .collect();
        let meta = Meta {
            config: specs[..].into(),
            ..plain()
        };
        let mut bytes = Vec::new();
        meta::encode(&meta, &mut bytes).unwrap();
        (
            bytes.len(),
            host.load(&guest(&meta, "", ""), &options(WIDE)),
        )
    };
    let (least, loaded) = load(0);
    assert!(loaded.is_ok());
    let limit = 1 << 20;
    let (bytes, loaded) = load(limit - least);
    assert_eq!(bytes, limit);
    assert_eq!(loaded.unwrap().meta().config.len(), 17);
    let (_, refused) = load(limit - least + 1);
    assert!(
        matches!(refused, Err(LoadError::MetaOutput { bytes, max }) if bytes == limit + 1 && max == limit),
        "{refused:?}"
    );
}

#[test]
fn a_memory_cap_no_memory_can_have_is_refused_by_name() {
    let host = common::host();
    let wasm = common::fixture("tour.wasm");
    for (pages, loads) in [
        (0, false),
        (65_536, true),
        (65_537, false),
        (u32::MAX, false),
    ] {
        let mut with = options(WIDE);
        with.memory_pages_max = pages;
        match host.load(&wasm, &with) {
            Ok(_) => assert!(loads, "{pages}"),
            Err(error) => {
                assert!(!loads, "{pages}: {error}");
                assert!(error.to_string().contains("memory_pages_max"), "{error}");
                assert_eq!(error.class(), "options");
            }
        }
    }
}
