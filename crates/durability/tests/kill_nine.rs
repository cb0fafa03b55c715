//! A room whose processes are killed with SIGKILL, anywhere, and sometimes race for it: no
//! acknowledged checkpoint is lost, doubled or torn.
//!
//! The test starts itself as children that take the room and write it without end, and kills them.
//! `CABINET_KILLS` says how many, `CABINET_KILL_SEED` where the dice begin. No clock decides
//! anything.

#[cfg(feature = "s3")]
mod common;
mod kills;

use kills::child::{self, Errand};
use kills::parent;
use kills::place::Place;

/// Kills unless `CABINET_KILLS` says otherwise.
const DIRECTORY_KILLS: u64 = 25;
#[cfg(feature = "s3")]
const MOTO_KILLS: u64 = 10;

#[test]
fn no_kill_breaks_a_promise_over_a_directory() {
    if let Some(errand) = Errand::given() {
        return child::run(&errand);
    }
    let root = tempfile::tempdir().expect("a directory");
    parent::run(
        "no_kill_breaks_a_promise_over_a_directory",
        &Place::Directory(root.path().to_owned()),
        DIRECTORY_KILLS,
    );
}

#[cfg(feature = "s3")]
#[test]
fn no_kill_breaks_a_promise_over_a_bucket_of_moto() {
    if let Some(errand) = Errand::given() {
        return child::run(&errand);
    }
    let Some(moto) = common::moto::Moto::start_one_at_a_time() else {
        return;
    };
    parent::run(
        "no_kill_breaks_a_promise_over_a_bucket_of_moto",
        &Place::Bucket(moto.address),
        MOTO_KILLS,
    );
}
