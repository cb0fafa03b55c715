//! `cabinet rooms reseal` and `cabinet rooms import`: nothing is written unless it is asked for, and
//! what is written is what was there.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use cabinet_host::Sck1;
use cabinet_wire::ArtifactDigest;
use common::place::{NOW_MS, Place, SECRET, one_line, write_next};
use common::reference::{KEY, record, room, sealed, snapshot};
use common::skip::skipped;
use common::{Ran, cabinet, fixture};
use serde_json::Value;

const NEW: &str = "a41be8d2a41be8d2a41be8d2a41be8d2a41be8d2a41be8d2a41be8d2a41be8d2";

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// The operator's key files: both with the new key first, and the new key alone.
fn keys(place: &Place) {
    let folder = place.folder.path();
    fs::write(folder.join("both"), format!("2 {NEW}\n1 {SECRET}\n")).unwrap();
    fs::write(folder.join("new"), format!("2 {NEW}\n")).unwrap();
}

fn with(place: &Place, keys: &str, args: &[&str]) -> Ran {
    let all = [&["rooms", "--store", "store", "--key-file", keys], args].concat();
    let ran = cabinet(place.folder.path(), &all);
    let out = format!("{}{}", ran.stdout, ran.stderr);
    assert!(!out.contains(&NEW[..8]) && !out.contains(&SECRET[..8]));
    ran
}

#[test]
fn parked_rooms_are_sealed_under_the_new_key_and_live_ones_by_their_owner() {
    let place = Place::new();
    keys(&place);
    let before = place.files();
    let would = with(&place, "both", &["reseal"]);
    assert_eq!(would.code, 0, "{would:?}");
    let (live, parked) = (place.live.to_string(), place.parked.to_string());
    assert!(
        would
            .stdout
            .contains(&format!("would put v1/heads/{parked}")),
        "{would:?}"
    );
    // The head and the checkpoint of the parked one; three records of the live one.
    let told = "with --write: 2 records sealed under key 2, of 2 rooms looked at; 3 records left under older keys, 0 not sealed\n";
    assert!(would.stdout.ends_with(told), "{would:?}");
    assert_eq!(place.files(), before);

    let done = with(&place, "both", &["reseal", "--write"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!done.stdout.contains("would"), "{done:?}");
    assert!(done.stdout.contains(&format!("{live}: live; ")), "{done:?}");
    // Nothing on a pipe says how far it is.
    assert_eq!(done.stderr, "");
    let show = with(&place, "new", &["show", &parked]);
    assert!(show.stdout.contains("ada (Ada"), "{show:?}");
    let game = fixture("tour.wasm");
    let restored = with(&place, "new", &["restore", &parked, game.to_str().unwrap()]);
    assert_eq!(restored.code, 0, "{restored:?}");
    // The live one is not damaged, and not to be read without the older key.
    let verify = with(&place, "new", &["verify", "--json"]);
    let findings = json(&verify)["findings"].as_array().unwrap().clone();
    assert_eq!(findings.len(), 3, "{verify:?}");
    for finding in findings {
        assert!(finding["key"].as_str().unwrap().contains(&live));
    }

    // Its owner goes on, under the new key, and prunes.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let owner = place.vault(&[(2, NEW), (1, SECRET)]);
        let (lease, checkpoint) = owner.claim(place.live, NOW_MS).await.unwrap();
        let checkpoint = checkpoint.unwrap();
        write_next(&lease, checkpoint.artifact, &checkpoint.bytes).await;
        let keep = cabinet_durability::Retention {
            keep_last: 1,
            keep_younger: std::time::Duration::ZERO,
        };
        lease.prune(&keep, NOW_MS).await.unwrap();
    });
    let before = place.files();
    let again = with(&place, "both", &["reseal", "--write", "--json"]);
    assert_eq!(again.code, 0, "{again:?}");
    let told = json(&again);
    for (field, wanted) in [
        ("written", Value::from(true)),
        ("key", Value::from(2)),
        ("rooms", Value::from(2)),
        ("resealed", Value::from(0)),
        ("records", Value::from(0)),
        ("waiting", Value::from(0)),
        ("live", Value::Array(Vec::new())),
        ("problems", Value::Array(Vec::new())),
        ("would", Value::Array(Vec::new())),
    ] {
        assert_eq!(told[field], wanted, "{field}: {told}");
    }
    assert_eq!(place.files(), before);
    assert_eq!(with(&place, "new", &["verify"]).code, 0);
}

#[test]
fn a_record_that_does_not_open_is_named_and_left_and_the_exit_code_says_so() {
    let place = Place::new();
    keys(&place);
    let parked = place.parked.to_string();
    let head = place
        .files()
        .into_iter()
        .find(|(path, _)| {
            let path = path.to_string_lossy();
            path.contains("/heads+/") && path.contains(&parked)
        })
        .unwrap();
    let mut changed = head.1.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    fs::write(&head.0, &changed).unwrap();
    let ran = with(&place, "both", &["reseal", "--write"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains(&format!("{parked}: ")), "{ran:?}");
    assert!(ran.stdout.contains(", 1 not sealed"), "{ran:?}");
    assert_eq!(fs::read(&head.0).unwrap(), changed);
    // Without the older key nothing is sealed, and each room is named.
    let ran = with(&place, "new", &["reseal", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert_eq!(json(&ran)["problems"].as_array().unwrap().len(), 2);
}

#[test]
fn a_missing_checkpoint_is_named_the_others_are_sealed_and_the_exit_code_says_so() {
    let place = Place::new();
    keys(&place);
    let folder = place.folder.path();
    fs::write(folder.join("record"), record(room(1), "tour", &snapshot())).unwrap();
    let game = fixture("tour.wasm");
    let game = game.to_str().unwrap();
    let imported = place.rooms(&["import", "record", game, "--reference-unsealed", "--write"]);
    assert_eq!(imported.code, 0, "{imported:?}");
    let parked = place.parked.to_string();
    let is_checkpoint = |path: &Path| {
        let path = path.to_string_lossy();
        path.contains("/rooms+/") && path.contains(&parked) && path.contains("/e-")
    };
    let files = place.files();
    let (checkpoint, _) = files.iter().find(|(path, _)| is_checkpoint(path)).unwrap();
    fs::remove_file(checkpoint).unwrap();

    let named = format!("v1/heads/{parked}");
    for args in [&["reseal"][..], &["reseal", "--write"]] {
        let ran = with(&place, "both", args);
        assert_eq!(ran.code, 1, "{ran:?}");
        let told = format!(
            "{named}: the room's state is corrupt: the checkpoint its head names is missing\n"
        );
        assert!(ran.stdout.contains(&told), "{ran:?}");
        assert!(ran.stdout.ends_with(", 1 not sealed\n"), "{ran:?}");
    }
    let show = with(&place, "new", &["show", &room(1).to_string()]);
    assert_eq!(show.code, 0, "{show:?}");
    let again = with(&place, "both", &["reseal", "--json"]);
    assert_eq!(again.code, 1, "{again:?}");
    assert_eq!(json(&again)["records"], 0);
    assert_eq!(json(&again)["problems"][0]["key"], named);
}

/// What the reference host left: two parked rooms, one of them damaged; a checkpointed one; one of
/// another game.
fn left_behind(folder: &Path, blob: &[u8]) {
    let snapshots = folder.join("reference/snapshots");
    let put = |name: String, bytes: &[u8]| {
        let path = snapshots.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    put(room(1).to_string(), &sealed(&record(room(1), "tour", blob)));
    let mut damaged = sealed(&record(room(2), "tour", blob));
    damaged[40] ^= 1;
    put(room(2).to_string(), &damaged);
    let epoch = format!("snapshots/{}/{:020}", room(3), 7);
    put(format!("{}/{:020}", room(3), 7), &sealed(blob));
    put(format!("{}/latest", room(3)), epoch.as_bytes());
    let mut other = Sck1::decode(blob, 1 << 30).unwrap();
    other.artifact = ArtifactDigest([9; 32]);
    let other = other.encode(3).unwrap();
    put(
        room(4).to_string(),
        &sealed(&record(room(4), "chess", &other)),
    );
    fs::write(folder.join("reference-key"), [KEY, b"\n"].concat()).unwrap();
}

#[test]
fn the_references_rooms_are_parked_here_and_never_over_one_that_is_there() {
    let place = Place::new();
    left_behind(place.folder.path(), &snapshot());
    let game = fixture("tour.wasm");
    let game = game.to_str().unwrap();
    let import = |more: &[&str]| {
        let from = [
            "import",
            "reference",
            game,
            "--reference-key",
            "reference-key",
        ];
        let ran = place.rooms(&[&from, more].concat());
        assert!(!format!("{ran:?}").contains("server-side-key"));
        ran
    };
    let before = place.files();
    let would = import(&[]);
    assert_eq!(would.code, 1, "{would:?}");
    assert!(
        would
            .stdout
            .contains(&format!("would put v1/heads/{}", room(1))),
        "{would:?}"
    );
    assert!(
        would.stdout.contains(&format!(
            "{}: the reference host's record is corrupt: the seal",
            room(2)
        )),
        "{would:?}"
    );
    let told = "with --write: 2 rooms imported, 0 there already, 1 of other games, 1 refused\n";
    assert!(would.stdout.ends_with(told), "{would:?}");
    assert_eq!(place.files(), before);

    let done = import(&["--write", "--json"]);
    let told = json(&done);
    assert_eq!(told["written"], true);
    assert_eq!(told["imported"][0]["room"], room(1).to_string());
    assert_eq!(told["imported"][0]["from"], "parked");
    assert_eq!(told["imported"][0]["players"], 2);
    assert_eq!(told["imported"][1]["room"], room(3).to_string());
    assert_eq!(told["imported"][1]["from"], "checkpoint");
    // The checkpoint says who was in it.
    assert_eq!(told["imported"][1]["players"], 1);
    assert_eq!(told["others"][0], room(4).to_string());
    assert_eq!(told["refused"][0]["room"], room(2).to_string());

    let show = place.rooms(&["show", &room(1).to_string()]);
    assert!(
        show.stdout.contains("parked") && show.stdout.contains("bob (handle)"),
        "{show:?}"
    );
    for n in [1, 3] {
        let id = room(n).to_string();
        let restored = place.rooms(&["restore", &id, game, "--wakes", "2"]);
        assert_eq!(restored.code, 0, "{restored:?}");
        assert!(restored.stdout.contains("TOUR"), "{restored:?}");
    }
    assert_eq!(place.rooms(&["verify"]).code, 0);

    let before = place.files();
    let again = import(&["--write"]);
    assert!(
        again.stdout.contains("0 rooms imported, 2 there already"),
        "{again:?}"
    );
    let one = import(&["--write", "--room", &room(1).to_string()]);
    assert_eq!(one.code, 1, "{one:?}");
    assert!(one.stdout.contains("the store has that room already"));
    assert_eq!(place.files(), before);
    one_line(&import(&["--room", &place.live.to_string()]));
}

#[test]
fn a_file_without_a_seal_is_imported_when_it_is_vouched_for() {
    let place = Place::new();
    let folder = place.folder.path();
    let blob = snapshot();
    fs::write(folder.join("record"), record(room(1), "ada/tour", &blob)).unwrap();
    fs::write(folder.join("snapshot"), &blob).unwrap();
    let game = fixture("tour.wasm");
    let game = game.to_str().unwrap();
    let import = |file: &str, more: &[&str]| {
        let from = ["import", file, game, "--reference-unsealed", "--write"];
        place.rooms(&[&from, more].concat())
    };
    let done = import("record", &[]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.contains("  ada/tour  parked  2 players"));
    let other = room(6).to_string();
    let done = import("snapshot", &["--room", &other, "--slug", "bob/tour"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.stdout.contains("  bob/tour  checkpoint  1 players"));
    // A room that is live here is not touched.
    let refused = import("snapshot", &["--room", &place.live.to_string()]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stdout.contains("the store has that room already"));
    one_line(&import("record", &["--room", &other]));
}

#[test]
fn a_folder_that_a_host_without_a_key_wrote_is_imported_when_it_is_vouched_for() {
    let place = Place::new();
    let folder = place.folder.path();
    let blob = snapshot();
    let snapshots = folder.join("dev/snapshots");
    // What the host was writing when it died is left.
    fs::create_dir_all(snapshots.join(room(3).to_string())).unwrap();
    fs::write(snapshots.join(".tmp-1"), "half").unwrap();
    let put = |at: u8, bytes: &[u8]| fs::write(snapshots.join(room(at).to_string()), bytes);
    put(1, &record(room(1), "tour", &blob)).unwrap();
    put(2, &record(room(6), "tour", &blob)).unwrap();
    put(4, &sealed(b"something else")).unwrap();
    let game = fixture("tour.wasm");
    let game = game.to_str().unwrap();
    let import = |more: &[&str]| {
        let from = ["import", "dev", game, "--reference-unsealed", "--json"];
        place.rooms(&[&from, more].concat())
    };
    let before = place.files();
    assert_eq!(import(&[]).code, 1);
    assert_eq!(place.files(), before);
    let told = json(&import(&["--write"]));
    let imported = told["imported"].as_array().unwrap();
    assert_eq!(imported.len(), 1, "{told}");
    assert_eq!(imported[0]["room"], room(1).to_string());
    let refused = told["refused"].as_array().unwrap();
    let of = |n: u8| {
        let found = refused
            .iter()
            .find(|one| one["room"] == room(n).to_string());
        found.unwrap()["problem"].as_str().unwrap()
    };
    assert!(of(2).contains("another room"), "{told}");
    // A checkpoint is always sealed: it is said what to do about it.
    assert!(of(3).contains("its checkpoint is sealed: run again with --reference-key FILE"));
    assert!(!of(4).is_empty() && refused.len() == 3, "{told}");
    let id = room(1).to_string();
    let one = import(&["--room", &id]);
    assert_eq!(json(&one)["there"][0], id, "{one:?}");
    let one = import(&["--room", &room(3).to_string()]);
    assert_eq!(one.code, 1, "{one:?}");
    assert_eq!(json(&one)["refused"][0]["room"], room(3).to_string());
    one_line(&import(&["--room", &place.live.to_string()]));
    fs::create_dir(folder.join("none")).unwrap();
    one_line(&place.rooms(&["import", "none", game, "--reference-unsealed"]));
}

#[test]
fn a_snapshot_file_may_say_by_its_name_of_which_room_it_is() {
    let place = Place::new();
    let folder = place.folder.path();
    let game = fixture("tour.wasm");
    let game = game.to_str().unwrap();
    for (n, suffix) in [(1, ".snap"), (2, "")] {
        let file = format!("{}{suffix}", room(n));
        fs::write(folder.join(&file), snapshot()).unwrap();
        let ran = place.rooms(&["import", &file, game, "--reference-unsealed", "--write"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(
            ran.stdout
                .contains(&format!("{}  tour  checkpoint", room(n)))
        );
    }
    let file = format!("{}.snap", room(1));
    let import = ["import", &file, game, "--reference-unsealed", "--room"];
    let other = place.rooms(&[&import[..], &[&room(5).to_string()]].concat());
    assert!(one_line(&other).contains(&format!("named after room {}", room(1))));
    let same = place.rooms(&[&import[..], &[&room(1).to_string()]].concat());
    assert!(same.stdout.contains("has that room already"), "{same:?}");
    fs::write(folder.join("a.snap"), snapshot()).unwrap();
    let nameless = place.rooms(&["import", "a.snap", game, "--reference-unsealed"]);
    assert!(one_line(&nameless).contains("--room ROOM"));
}

#[test]
fn the_references_own_snapshots_are_imported_from_its_files_as_they_are() {
    let vectors = std::env::var_os("CABINET_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
        PathBuf::from,
    );
    let kit = std::env::var_os("CABINET_REFERENCE").map(PathBuf::from);
    let (Some(kit), true) = (kit, vectors.join("snapshots").is_dir()) else {
        skipped(
            "reference",
            "CABINET_REFERENCE or its recorded vectors are not here",
        );
        return;
    };
    let place = Place::new();
    let folder = place.folder.path();
    fs::write(folder.join("reference-key"), KEY).unwrap();
    for (n, name) in [(1, "fixture"), (2, "fixture-rs"), (3, "fixture-rs-kit")] {
        let wasm = kit.join(format!("host/gameabi/testdata/{name}/{name}.wasm"));
        let game = wasm.to_str().unwrap();
        let snap = vectors.join(format!("snapshots/trace-{name}.snap"));
        let blob = fs::read(&snap).unwrap();
        let import = |from: &str, more: &[&str]| {
            place.rooms(&[&["import", from, game, "--write"], more].concat())
        };
        // The file itself; then parked and checkpointed as the host's own store lays them out.
        let id = room(n).to_string();
        let ran = import(
            snap.to_str().unwrap(),
            &["--reference-unsealed", "--room", &id],
        );
        assert_eq!(ran.code, 0, "{name}: {ran:?}");
        let snapshots = folder.join(name).join("snapshots");
        let (parked, live) = (room(10 + n), room(20 + n));
        fs::create_dir_all(snapshots.join(live.to_string())).unwrap();
        let epoch = format!("{live}/{:020}", 3);
        let put = |at: &str, bytes: &[u8]| fs::write(snapshots.join(at), bytes).unwrap();
        put(
            &parked.to_string(),
            &sealed(&record(parked, "fixture", &blob)),
        );
        put(&epoch, &sealed(&blob));
        put(
            &format!("{live}/latest"),
            format!("snapshots/{epoch}").as_bytes(),
        );
        let ran = import(name, &["--reference-key", "reference-key"]);
        assert_eq!(ran.code, 0, "{name}: {ran:?}");
        assert!(ran.stdout.contains("2 rooms imported"), "{name}: {ran:?}");
        for room in [&id, &parked.to_string(), &live.to_string()] {
            let restored = place.rooms(&["restore", room, game, "--wakes", "2"]);
            assert_eq!(restored.code, 0, "{name}: {restored:?}");
            assert!(
                !restored.stdout.starts_with("0 screens"),
                "{name}: {restored:?}"
            );
        }
    }
    assert_eq!(place.rooms(&["verify"]).code, 0);
}

#[test]
fn hostile_bytes_are_one_line_and_nothing_is_written() {
    let place = Place::new();
    let folder = place.folder.path();
    let blob = snapshot();
    let good = record(room(1), "tour", &blob);
    let before = place.files();
    let game = fixture("tour.wasm");
    let mut hostile: Vec<Vec<u8>> = [0, 3, 4, 8, 20, 60, 100]
        .iter()
        .map(|cut| good[..*cut].to_vec())
        .collect();
    hostile.push(good[..good.len() - 1].to_vec());
    // Format, the length of the slug, the count of members.
    for (at, value) in [(4, 9), (9, 0xff), (61, 0xff)] {
        let mut changed = good.clone();
        changed[at] = value;
        hostile.push(changed);
    }
    // What expands to more than a room may have, and what is of no use.
    let mut bomb = Sck1::decode(&blob, 1 << 30).unwrap();
    bomb.memory = vec![0; 300 << 20].into();
    hostile.push(record(room(1), "tour", &bomb.encode(3).unwrap()));
    let mut dead = Sck1::decode(&blob, 1 << 30).unwrap();
    dead.dead = true;
    hostile.push(record(room(1), "tour", &dead.encode(3).unwrap()));
    let mut ended = Sck1::decode(&blob, 1 << 30).unwrap();
    ended.ended = true;
    hostile.push(record(room(1), "tour", &ended.encode(3).unwrap()));
    hostile.push(record(room(1), "not a slug", &blob));
    hostile.push(vec![0x28; 1 << 20]);
    for (number, bytes) in hostile.iter().enumerate() {
        fs::write(folder.join("hostile"), bytes).unwrap();
        let ran = place.rooms(&[
            "import",
            "hostile",
            game.to_str().unwrap(),
            "--reference-unsealed",
            "--write",
            "--room",
            &room(1).to_string(),
        ]);
        assert_eq!(ran.code, 2, "case {number}: {ran:?}");
        one_line(&ran);
    }
    assert_eq!(place.files(), before);
}
