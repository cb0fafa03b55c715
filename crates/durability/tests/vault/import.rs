//! Rooms from elsewhere: parked here once, whatever goes wrong, and never over what is there.

use cabinet_durability::{ParkedRoom, Standing, SweepPolicy, VaultError};

use crate::between::{self, kept, taken};
use crate::faults::{self, FAULTS, STOPS, persist};
use crate::support::{Bucket, GAME, NOW, failure, header, live, opened, park, room};

/// The import of room 1 by a process of that name.
async fn import(bucket: &Bucket, name: &str) -> Result<(), VaultError> {
    let people = header("chess", 5, &["ada", "bob"]);
    let vault = bucket.process(name);
    vault.import(room(1), GAME, b"imported", people, NOW).await
}

/// It is parked for its players, and noted as ours.
async fn is_imported(bucket: &Bucket, at: &str) -> ParkedRoom {
    let node = bucket.process("node");
    for account in ["ada", "bob"] {
        let found = node.parked_of(account).await.expect(at).rooms;
        assert_eq!(found.len(), 1, "{at}: {account}");
    }
    let note = bucket.get(&format!("v1/adopted/{}", room(1))).await;
    assert!(note.is_some(), "{at}");
    let parked = opened(&node, room(1)).await;
    assert_eq!(parked.checkpoint().bytes, b"imported", "{at}");
    assert!(node.audit().await.expect(at).is_clean(), "{at}");
    parked
}

#[tokio::test]
async fn an_imported_room_is_resumed_by_who_was_in_it_and_does_not_come_back() {
    let bucket = Bucket::new();
    import(&bucket, "import").await.expect("it is new");
    let parked = is_imported(&bucket, "imported").await;
    assert_eq!(parked.header(), Some(&header("chess", 5, &["ada", "bob"])));
    assert_eq!(failure(import(&bucket, "import").await), "another");
    let node = bucket.process("node");
    let lease = node.take(&parked, NOW).await.expect("it is nobody's");
    assert_eq!(failure(import(&bucket, "import").await), "another");
    lease.end(NOW).await.expect("it is over");
    // Over, swept, and never new again.
    assert!(matches!(
        import(&bucket, "import").await,
        Err(VaultError::AlreadyThere)
    ));
    let left = bucket.keys("").await;
    assert_eq!(left, [format!("v1/adopted/{}", room(1))]);
}

#[tokio::test]
async fn nothing_that_is_there_is_written_over() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    drop(live(&a, room(1), b"live").await);
    let before = bucket.all().await;
    assert!(matches!(
        import(&bucket, "import").await,
        Err(VaultError::AlreadyThere)
    ));
    // Not even one without a checkpoint, when somebody else made it.
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = a.create(room(1), NOW).await.expect("it is new");
    assert!(import(&bucket, "import").await.is_err());
    crate::support::write(&lease, b"still ours").await;
    let bucket = Bucket::new();
    park(&bucket.process("a"), room(1), header("g", 1, &["eve"])).await;
    assert!(import(&bucket, "import").await.is_err());
    let bucket = Bucket::new();
    bucket.restore(&before).await;
    bucket.delete(&crate::support::head_key(room(1))).await;
    assert_eq!(failure(import(&bucket, "import").await), "head lost");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_anything_is_written() {
    let bucket = Bucket::new();
    let vault = bucket.process_with(
        "import",
        cabinet_durability::seal::Sealing::Keys(cabinet_durability::seal::Keyring::new(
            crate::support::key(1),
        )),
        |options| options.checkpoint_bytes_max = 8,
    );
    let people = || header("g", 1, &["ada"]);
    let long = vault.import(room(1), GAME, b"123456789", people(), NOW);
    assert_eq!(failure(long.await), "too large");
    let wide = header("g", 1, &[&"a".repeat(4_097)]);
    let wide = vault.import(room(1), GAME, b"12345678", wide, NOW);
    assert_eq!(failure(wide.await), "header");
    assert_eq!(bucket.keys("").await, Vec::<String>::new());
    let fits = vault.import(room(1), GAME, b"12345678", people(), NOW);
    fits.await.expect("it fits");
}

#[tokio::test]
async fn an_import_that_is_stopped_anywhere_is_ended_by_the_next() {
    faults::everywhere(&STOPS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        bucket.0.fail(n, fault);
        let stopped = import(&bucket, "import").await;
        let failed = bucket.0.calm();
        assert!(!failed || stopped.is_err(), "{at}");
        bucket.0.settle().await;
        let node = bucket.process("node");
        match import(&bucket, "import").await {
            Ok(()) | Err(VaultError::AlreadyThere) => {}
            Err(error) => panic!("{at}: {error:?}"),
        }
        let parked = is_imported(&bucket, &at).await;
        // What the stopped one left in an index leads nowhere, and a sweep takes it away.
        node.sweep(&SweepPolicy::default(), NOW + 2 * 60 * 60 * 1_000)
            .await
            .expect(&at);
        assert_eq!(bucket.keys("v1/live/").await, Vec::<String>::new(), "{at}");
        node.take(&parked, NOW).await.expect(&at);
        failed
    })
    .await;
}

#[tokio::test]
async fn an_import_that_is_tried_again_is_done() {
    faults::everywhere(&FAULTS, async |n, fault| {
        let at = format!("request {n}, {fault:?}");
        let bucket = Bucket::new();
        bucket.0.fail(n, fault);
        let done = persist(async || import(&bucket, "import").await).await;
        let failed = bucket.0.calm();
        bucket.0.settle().await;
        match done {
            Ok(()) | Err(VaultError::AlreadyThere) => {}
            Err(error) => panic!("{at}: {error:?}"),
        }
        is_imported(&bucket, &at).await;
        failed
    })
    .await;
}

#[tokio::test]
async fn of_two_imports_at_once_one_counts_and_a_room_that_comes_first_stays() {
    between::everywhere(async |n| {
        let bucket = Bucket::new();
        let (between, other) = {
            let bucket = bucket.clone();
            kept(async move { import(&bucket, "import").await })
        };
        bucket.0.interleave(n, between);
        let first = import(&bucket, "import").await;
        if !bucket.0.has_come() {
            return false;
        }
        let done = [first.is_ok(), taken(&other).is_ok()];
        assert!(done.contains(&true), "request {n}");
        is_imported(&bucket, &format!("request {n}")).await;
        true
    })
    .await;
    between::everywhere(async |n| {
        let bucket = Bucket::new();
        let a = bucket.process("a");
        let (between, made) = kept(async move { a.create(room(1), NOW).await });
        bucket.0.interleave(n, between);
        let imported = import(&bucket, "import").await;
        if !bucket.0.has_come() {
            return false;
        }
        let made = taken(&made);
        assert!(made.is_ok() != imported.is_ok(), "request {n}");
        if let Ok(lease) = made {
            crate::support::write(&lease, b"ours").await;
            let head = bucket.process("node").head(room(1)).await;
            let head = head.expect("it reads").expect("it is there");
            assert_eq!(head.standing, Standing::Live, "request {n}");
        }
        true
    })
    .await;
}
