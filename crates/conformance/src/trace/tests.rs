//! What a trace says of a small guest; the reference's own traces are in `tests/`.

use super::*;
use crate::testing::{COUNT, ECHO, guest, guest_with_start, host};

fn traced(wasm: &[u8], script: &str, options: &TraceOptions) -> Result<Vec<u8>, TraceError> {
    let mut out = Vec::new();
    trace(
        &host(),
        wasm,
        options,
        &Script::parse(script).unwrap(),
        &mut out,
    )?;
    Ok(out)
}

/// Options under which a slow machine stops no callback.
fn patient() -> TraceOptions {
    let mut options = TraceOptions::default();
    options.game.deadline = std::time::Duration::from_secs(60);
    options
}

fn lines(trace: &[u8]) -> Vec<Value> {
    let lines = trace
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn a_trace_tells_header_callbacks_frames_and_both_rooms() {
    let script = "config k=v\nseat 3 guest account= handle=zoë\njoin 3\nwake +50ms\nsnapshot\n\
                  input 3 'x'\nleave 3\nwake";
    let options = TraceOptions {
        artifact: "w.wasm".to_owned(),
        ..patient()
    };
    let trace = traced(&guest(COUNT, ECHO), script, &options).unwrap();
    let lines = lines(&trace);

    let header = &lines[0];
    assert_eq!(header["artifact"], "w.wasm");
    assert_eq!(
        (&header["seed"], &header["mode"]),
        (&json!(42), &json!("private"))
    );
    assert_eq!(
        (&header["capacity"], &header["min_players"]),
        (&json!(4), &json!(1))
    );
    assert_eq!(
        (&header["config"], &header["memory_pages"]),
        (&json!({ "k": "v" }), &json!(0))
    );
    assert_eq!(
        header["clock_start_unix_nanos"],
        1_700_000_000_000_000_000_i64
    );
    assert_eq!(header["meta"]["slug"], "w");

    let wake = &lines[3];
    assert_eq!(
        (&wake["seq"], &wake["inst"], &wake["cb"]),
        (&json!(2), &json!("A"), &json!("wake"))
    );
    assert_eq!((&wake["exit"], &wake["mem_pages"]), (&json!(0), &json!(1)));
    assert_eq!(wake["host"][0]["fn"], "identical");
    assert_eq!(wake["host"][0]["in"][0]["len"], 37);
    assert_eq!(wake["host"][0]["ret"], json!([0]));
    assert_eq!(wake["frames"][0]["seat"], "all");
    assert_eq!(
        wake["frames"][0]["grid_sha256"],
        wake["broadcast_grid_sha256"]
    );

    let snapshot = &lines[4];
    assert_eq!(snapshot["note"], "snapshot");
    assert_eq!(snapshot["format"], "cabinet");
    assert!(snapshot["len"].as_u64() > Some(0) && snapshot["sha256"].is_string());
    assert!(snapshot.get("raw_len").is_none(), "{snapshot}");
    let shown: Vec<_> = lines[5..]
        .iter()
        .map(|line| {
            (
                line["inst"].clone(),
                line["cb"].clone(),
                line["note"].clone(),
            )
        })
        .collect();
    let told = |inst: &str, cb: &str| (json!(inst), json!(cb), Value::Null);
    let skipped = |inst: &str| (json!(inst), Value::Null, json!("skipped"));
    assert_eq!(
        shown,
        [
            told("A", "input"),
            told("A", "leave"),
            skipped("A"),
            told("B-restored", "input"),
            told("B-restored", "leave"),
            skipped("B-restored"),
        ]
    );
    // Our snapshots are complete: the restored room's lines are the saved one's.
    for (a, b) in [(5, 8), (6, 9)] {
        let (mut a, mut b) = (lines[a].clone(), lines[b].clone());
        for line in [&mut a, &mut b] {
            line.as_object_mut()
                .unwrap()
                .retain(|name, _| name != "seq" && name != "inst");
        }
        assert_eq!(a, b);
    }
}

#[test]
fn two_traces_of_one_script_are_the_same_bytes() {
    let wasm = guest(COUNT, ECHO);
    let script = "join 0\nwake +50ms\nsnapshot\ninput 0 'x'\nclose";
    let trace = || traced(&wasm, script, &patient()).unwrap();
    assert_eq!(trace(), trace());
}

#[test]
fn a_room_that_dies_is_told_to_its_end() {
    let trace = traced(
        &guest(COUNT, "unreachable"),
        "join 0\ninput 0 'x'\nwake",
        &patient(),
    );
    let lines = lines(&trace.unwrap());
    let [.., fault, ended] = lines.as_slice() else {
        panic!("{lines:?}")
    };
    assert_eq!((&fault["cb"], &fault["exit"]), (&json!("input"), &json!(1)));
    assert!(
        fault["err"].as_str().unwrap().starts_with("guest trap"),
        "{fault}"
    );
    assert_eq!(ended["note"], "room ended");
    assert_eq!(
        ended["result"]["Rankings"][0]["Player"]["AccountID"],
        "seat-0"
    );
    assert_eq!(ended["result"]["Rankings"][0]["Status"], "dnf");
}

#[test]
fn a_join_the_room_refused_is_no_player_of_the_result() {
    // `start` returns an error, so the room is dead when the player comes.
    let wasm = guest_with_start(COUNT, ECHO, "(i32.const 7)");
    let trace = traced(&wasm, "join 0", &patient()).unwrap();
    let ended = lines(&trace).pop().unwrap();
    assert_eq!(ended["note"], "room ended");
    assert_eq!(ended["result"]["Rankings"], json!([]), "{ended}");
    // The second player has the first one's identity and is refused as a member already.
    let script = "seat 1 member account=seat-0 handle=seat0 conn=conn-0\njoin 0\njoin 1\n\
                  input 0 'x'";
    let trace = traced(&guest(COUNT, "unreachable"), script, &patient()).unwrap();
    let lines = lines(&trace);
    assert!(lines.iter().any(|line| line["note"] == "skipped"));
    let rankings = &lines.last().unwrap()["result"]["Rankings"];
    assert_eq!(rankings.as_array().unwrap().len(), 1);
}

#[test]
fn a_blob_is_unpacked_up_to_the_limit_and_not_one_byte_more() {
    let blob = zstd::encode_all(&[7; 100][..], 1).unwrap();
    assert_eq!(unpack(&blob, 100).unwrap(), [7; 100]);
    assert!(matches!(
        unpack(&blob, 99),
        Err(TraceError::BlobTooLarge { max: 99 })
    ));
    for damaged in [&b"nonsense"[..], &blob[..blob.len() - 1]] {
        assert!(matches!(unpack(damaged, 100), Err(TraceError::Unpack(_))));
    }
}

#[test]
fn what_cannot_be_traced_is_an_error() {
    let wasm = guest(COUNT, ECHO);
    let several = traced(&wasm, "join 0\nsnapshot\nsnapshot", &patient());
    assert!(matches!(several, Err(TraceError::Snapshots(2))));
    let refused = traced(b"\0asm\x01\0\0\0", "join 0", &patient());
    assert!(matches!(refused, Err(TraceError::Load(_))));
    // The global has changed, and the reference's blob has no place for it.
    let options = TraceOptions {
        restore: Restore::Sck1,
        ..patient()
    };
    let lossy = traced(&wasm, "join 0\nwake\nsnapshot", &options);
    assert!(matches!(
        lossy,
        Err(TraceError::Hibernate(HibernateError::Save(_)))
    ));
    let options = TraceOptions {
        resume_from: Some(b"nonsense".to_vec()),
        ..patient()
    };
    let damaged = traced(&wasm, "join 0\nsnapshot", &options);
    assert!(matches!(
        damaged,
        Err(TraceError::Hibernate(HibernateError::Decode(_)))
    ));
}

/// Takes a number of writes and then fails.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_told_whichever_write_it_strikes() {
    let (wasm, host) = (guest(COUNT, ECHO), host());
    let script = Script::parse("join 0\nsnapshot\nwake").unwrap();
    let run = |out: &mut Full| trace(&host, &wasm, &patient(), &script, out);
    let mut plenty = Full(usize::MAX);
    run(&mut plenty).unwrap();
    let writes = usize::MAX - plenty.0;
    for allowed in (0..writes).step_by(writes / 40) {
        assert!(
            matches!(run(&mut Full(allowed)), Err(TraceError::Write(_))),
            "{allowed}"
        );
    }
}
