//! `cabinet rooms` on a bucket: every command that writes is killed at each of its writes, and
//! nothing is lost.

mod common;

use std::fs;

use common::bucket::{Between, Fate, Moto, ran, rooms, url, vault};
use common::place::{Place, SECRET, one_line};
use common::reference::{KEY, record, room, sealed, snapshot};
use common::{Ran, fixture};
use serde_json::Value;

const NEW: &str = "a41be8d2a41be8d2a41be8d2a41be8d2a41be8d2a41be8d2a41be8d2a41be8d2";
/// More writes than a command makes here.
const WRITES_MAX: usize = 40;

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// A place whose rooms are also under a prefix of the bucket.
fn fill(place: &Place, moto: &Moto, prefix: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let vault = vault(moto, prefix, &[(1, SECRET)]);
    runtime.unwrap().block_on(place.fill(&vault));
}

fn keys(place: &Place) {
    let folder = place.folder.path();
    fs::write(folder.join("both"), format!("2 {NEW}\n1 {SECRET}\n")).unwrap();
    fs::write(folder.join("new"), format!("2 {NEW}\n")).unwrap();
}

#[test]
fn a_bucket_is_listed_and_verified() {
    let Some(moto) = Moto::start() else {
        return;
    };
    let place = Place::new();
    fill(&place, &moto, "live/eu");
    let url = url("live/eu", moto.address);
    let command = |what: &str| rooms(place.folder.path(), &url, "keys", &[what]);
    let list = ran(&mut command("list"));
    assert_eq!(list.code, 0, "{list:?}");
    let live = place.live;
    assert!(list.stdout.contains(&format!("{live}  live ")), "{list:?}");
    let verify = ran(&mut command("verify"));
    assert_eq!(verify.code, 0, "{verify:?}");
    assert!(verify.stdout.contains(", 0 wrong"), "{verify:?}");
    let told = ran(command("list").env("AWS_SECRET_ACCESS_KEY", ""));
    assert!(one_line(&told).contains("AWS_SECRET_ACCESS_KEY"));

    drop(moto);
    one_line(&ran(&mut command("list")));
}

#[test]
fn a_reseal_in_a_bucket_that_stops_at_any_write_loses_nothing_and_is_gone_on_with() {
    let Some(moto) = Moto::start() else {
        return;
    };
    let place = Place::new();
    keys(&place);
    let (live, parked) = (place.live.to_string(), place.parked.to_string());
    let mut stopped = 0;
    for fate in [Fate::LostBefore, Fate::LostAfter, Fate::Refused] {
        for number in 0..WRITES_MAX {
            let prefix = format!("r{}x{number}", fate as u8);
            fill(&place, &moto, &prefix);
            let direct = url(&prefix, moto.address);
            let with = |keys: &str, args: &[&str]| {
                ran(&mut rooms(place.folder.path(), &direct, keys, args))
            };
            let between = Between::new(moto.address, number, fate);
            let through = url(&prefix, between.address);
            let args = ["reseal", "--write"];
            let first = between.run(&mut rooms(place.folder.path(), &through, "both", &args));
            let is_whole = first.as_ref().is_some_and(|ran| ran.code == 0);
            match &first {
                Some(ran) if fate == Fate::Refused && !is_whole => {
                    assert!(one_line(ran).contains("run it again, what is done is done"));
                }
                told => assert!(told.is_none() || is_whole, "{told:?}"),
            }
            stopped += usize::from(!is_whole);

            // Everything is there, and in place: the parked room is what the live one was.
            let verify = with("both", &["verify"]);
            assert_eq!(verify.code, 0, "{fate:?} {number}: {verify:?}");
            let same = with("both", &["diff", &parked, &live]);
            assert_eq!(same.code, 0, "{fate:?} {number}: {same:?}");
            let show = with("both", &["show", &parked]);
            assert!(show.stdout.contains("ada (Ada"), "{show:?}");

            let again = with("both", &["reseal", "--write", "--json"]);
            assert_eq!(again.code, 0, "{fate:?} {number}: {again:?}");
            let show = with("new", &["show", &parked]);
            assert!(show.stdout.contains("parked"), "{show:?}");
            let left = with("new", &["verify", "--json"]);
            let findings = json(&left)["findings"].as_array().unwrap().clone();
            // The live room's, until its owner writes again.
            assert_eq!(findings.len(), 3, "{fate:?} {number}: {left:?}");
            for finding in &findings {
                assert!(finding["key"].as_str().unwrap().contains(&live));
            }
            if is_whole {
                break;
            }
            assert!(number + 1 < WRITES_MAX, "{fate:?}: it never ended");
        }
    }
    assert!(stopped >= 6, "{stopped}");
}

/// What the reference host left in the bucket: a parked room and a checkpointed one.
fn left_behind(moto: &Moto, blob: &[u8]) {
    let put = |path: String, bytes: &[u8]| {
        assert!(moto.put(&format!("/rooms/reference/snapshots/{path}"), bytes));
    };
    put(room(1).to_string(), &sealed(&record(room(1), "tour", blob)));
    let epoch = format!("snapshots/{}/{:020}", room(3), 7);
    put(format!("{}/{:020}", room(3), 7), &sealed(blob));
    put(format!("{}/latest", room(3)), epoch.as_bytes());
}

#[test]
fn an_import_into_a_bucket_that_stops_at_any_write_is_gone_on_with() {
    let Some(moto) = Moto::start() else {
        return;
    };
    left_behind(&moto, &snapshot());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("keys"), format!("1 {SECRET}\n")).unwrap();
    fs::write(folder.path().join("reference-key"), KEY).unwrap();
    let game = fixture("tour.wasm");
    let game = game.to_str().unwrap();
    let reference = url("reference", moto.address);
    let import = [
        "import",
        &reference,
        game,
        "--reference-key",
        "reference-key",
        "--write",
    ];
    let mut stopped = 0;
    for fate in [Fate::LostBefore, Fate::LostAfter, Fate::Refused] {
        for number in 0..WRITES_MAX {
            let prefix = format!("i{}x{number}", fate as u8);
            let direct = url(&prefix, moto.address);
            let with = |args: &[&str]| ran(&mut rooms(folder.path(), &direct, "keys", args));
            let between = Between::new(moto.address, number, fate);
            let through = url(&prefix, between.address);
            let first = between.run(&mut rooms(folder.path(), &through, "keys", &import));
            let is_whole = first.as_ref().is_some_and(|ran| ran.code == 0);
            match &first {
                Some(ran) if fate == Fate::Refused && !is_whole => {
                    assert!(one_line(ran).contains("run it again, what is done is done"));
                }
                told => assert!(told.is_none() || is_whole, "{told:?}"),
            }
            stopped += usize::from(!is_whole);

            let again = with(&import);
            assert_eq!(again.code, 0, "{fate:?} {number}: {again:?}");
            let verify = with(&["verify"]);
            assert_eq!(verify.code, 0, "{fate:?} {number}: {verify:?}");
            let list = with(&["list", "--json"]);
            let rooms = json(&list)["rooms"].as_array().unwrap().clone();
            assert_eq!(rooms.len(), 2, "{fate:?} {number}: {list:?}");
            for (stored, players) in rooms.iter().zip([2, 1]) {
                assert_eq!(stored["standing"], "parked", "{fate:?} {number}: {list:?}");
                assert_eq!(stored["players"].as_array().unwrap().len(), players);
            }
            // One is the other: both were made of one snapshot.
            let (a, b) = (room(1).to_string(), room(3).to_string());
            let same = with(&["diff", &a, &b]);
            assert_eq!(same.code, 0, "{fate:?} {number}: {same:?}");
            if is_whole {
                let restored = with(&["restore", &a, game, "--wakes", "2"]);
                assert!(restored.stdout.contains("TOUR"), "{restored:?}");
                break;
            }
            assert!(number + 1 < WRITES_MAX, "{fate:?}: it never ended");
        }
    }
    assert!(stopped >= 6, "{stopped}");
}
