//! A whole bucket that is put back is found out only by what is kept outside it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cabinet_durability::seal::{Keyring, Sealing};
use cabinet_durability::{Floor, FloorAnswer, Floors, RoomId, Vault};

use crate::support::{Bucket, NOW, failure, head_key, key, live, pack, room, state, write};

#[derive(Default)]
struct Kept {
    floors: Mutex<HashMap<RoomId, Floor>>,
    fails: Mutex<bool>,
}

impl Kept {
    fn fail(&self, fails: bool) {
        *self.fails.lock().unwrap_or_else(PoisonError::into_inner) = fails;
    }

    fn answer(&self) -> Result<(), cabinet_durability::store::Cause> {
        match *self.fails.lock().unwrap_or_else(PoisonError::into_inner) {
            true => Err("planned".into()),
            false => Ok(()),
        }
    }
}

impl Floors for Kept {
    fn floor(&self, room: RoomId) -> FloorAnswer<'_, Floor> {
        let floors = self.floors.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = floors.get(&room).copied().unwrap_or_default();
        Box::pin(async move { self.answer().map(|()| floor) })
    }

    fn raise(&self, room: RoomId, floor: Floor) -> FloorAnswer<'_, ()> {
        Box::pin(async move {
            self.answer()?;
            let mut floors = self.floors.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = floors.entry(room).or_default();
            *kept = (*kept).max(floor);
            Ok(())
        })
    }

    fn forget(&self, room: RoomId) -> FloorAnswer<'_, ()> {
        Box::pin(async move {
            self.answer()?;
            let mut floors = self.floors.lock().unwrap_or_else(PoisonError::into_inner);
            floors.remove(&room);
            Ok(())
        })
    }
}

fn process(bucket: &Bucket, name: &str, kept: &Arc<Kept>) -> Vault {
    let sealing = Sealing::Keys(Keyring::new(key(1)));
    bucket.process_with(name, sealing, |options| options.floors = Some(kept.clone()))
}

#[tokio::test]
async fn a_bucket_that_is_put_back_whole_is_refused_with_floors_and_not_without() {
    let bucket = Bucket::new();
    let kept = Arc::new(Kept::default());
    let a = process(&bucket, "a", &kept);
    let lease = live(&a, room(1), b"one").await;
    let before = bucket.all().await;
    write(&lease, b"two").await;
    bucket.restore(&before).await;

    let b = process(&bucket, "b", &kept);
    assert_eq!(failure(b.head(room(1)).await), "rolled back");
    assert_eq!(failure(b.latest(room(1), None).await), "rolled back");
    assert_eq!(failure(b.claim(room(1), NOW).await), "rolled back");
    assert_eq!(
        failure(lease.write(&pack(&lease, b"x"), NOW).await),
        "rolled back"
    );
    let without = bucket.process("c");
    assert_eq!(state(&without, room(1)).await, b"one");

    // Nor is a head rebuilt below the floor.
    bucket.restore(&before).await;
    bucket.delete(&head_key(room(1))).await;
    assert_eq!(failure(b.head(room(1)).await), "rolled back");
    assert_eq!(failure(b.rebuild(room(1), NOW).await), "rolled back");
}

#[tokio::test]
async fn a_lost_head_is_rebuilt_at_its_floor() {
    let bucket = Bucket::new();
    let kept = Arc::new(Kept::default());
    let a = process(&bucket, "a", &kept);
    live(&a, room(1), b"one").await;
    bucket.delete(&head_key(room(1))).await;
    a.rebuild(room(1), NOW).await.expect("it rebuilds");
    assert_eq!(state(&a, room(1)).await, b"one");
}

#[tokio::test]
async fn floors_that_do_not_answer_stop_readers_and_not_the_owner() {
    let bucket = Bucket::new();
    let kept = Arc::new(Kept::default());
    let a = process(&bucket, "a", &kept);
    let lease = live(&a, room(1), b"one").await;
    kept.fail(true);
    write(&lease, b"two").await;
    assert_eq!(failure(a.head(room(1)).await), "another");
    kept.fail(false);
    assert_eq!(state(&a, room(1)).await, b"two");
}

/// Floors that are raised by a writer between a reader's look at the head and at the floor.
struct Racing {
    kept: Arc<Kept>,
    writer: Mutex<Option<cabinet_durability::Lease>>,
}

impl Floors for Racing {
    fn floor(&self, room: RoomId) -> FloorAnswer<'_, Floor> {
        Box::pin(async move {
            let writer = self
                .writer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            if let Some(lease) = writer {
                write(&lease, b"two").await;
            }
            self.kept.floor(room).await
        })
    }

    fn raise(&self, room: RoomId, floor: Floor) -> FloorAnswer<'_, ()> {
        self.kept.raise(room, floor)
    }

    fn forget(&self, room: RoomId) -> FloorAnswer<'_, ()> {
        self.kept.forget(room)
    }
}

#[tokio::test]
async fn a_reader_beside_a_writer_is_not_told_of_a_rollback() {
    let bucket = Bucket::new();
    let kept = Arc::new(Kept::default());
    let lease = live(&process(&bucket, "a", &kept), room(1), b"one").await;
    let racing = Arc::new(Racing {
        kept,
        writer: Mutex::new(Some(lease)),
    });
    let sealing = Sealing::Keys(Keyring::new(key(1)));
    let b = bucket.process_with("b", sealing, |options| options.floors = Some(racing));
    assert_eq!(state(&b, room(1)).await, b"two");
}

#[tokio::test]
async fn a_room_that_is_over_has_no_floor_and_one_that_was_deleted_has() {
    let bucket = Bucket::new();
    let kept = Arc::new(Kept::default());
    let a = process(&bucket, "a", &kept);
    let lease = live(&a, room(1), b"one").await;
    lease.end(NOW).await.expect("it ends");
    assert!(a.head(room(1)).await.expect("it is over").is_none());
    live(&a, room(2), b"one").await;
    bucket.delete(&head_key(room(2))).await;
    assert_eq!(failure(a.head(room(2)).await), "rolled back");
    // The way out, once somebody has looked into it.
    a.rebuild(room(2), NOW).await.expect("it rebuilds");
    assert_eq!(state(&a, room(2)).await, b"one");
}

#[tokio::test]
async fn a_head_that_was_put_back_is_made_anew_from_what_lies_beside_it() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"one").await;
    let old = bucket.get(&head_key(room(1))).await.expect("it is there");
    for state in [b"two", b"six"] {
        write(&lease, state).await;
    }
    assert_eq!(failure(a.rebuild(room(1), NOW).await), "head intact");
    bucket.put(&head_key(room(1)), old).await;
    assert_eq!(failure(a.claim(room(1), NOW).await), "rolled back");
    a.rebuild(room(1), NOW).await.expect("it rebuilds");
    assert_eq!(state(&a, room(1)).await, b"six");
}
