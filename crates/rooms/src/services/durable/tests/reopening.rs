//! Failing, going on, and closing.

use super::*;

#[test]
fn a_store_that_failed_goes_on_where_it_was_once_it_is_reopened() {
    for trouble in [
        Trouble::Fails,
        Trouble::Panics,
        Trouble::ReadsFail,
        Trouble::ReadsPanic,
    ] {
        let mut disk = Disk::fresh();
        // So that every read is one of the disk.
        disk.cache_bytes = 0;
        let store = disk.store(&DurableOptions::default());
        assert_eq!(set(&store, "before", "1"), Ok(()));
        // What rooms hold.
        let services = store.services();
        disk.trouble_from(0, trouble);
        let answer = match trouble {
            Trouble::ReadsFail | Trouble::ReadsPanic => get(&store, "before").map(drop),
            _ => set(&store, "during", "1"),
        };
        let told = answer.unwrap_err().to_string();
        assert!(told.contains("has to be reopened"), "{trouble:?}: {told}");
        let failed = store.stats().failed.unwrap();
        let later = set(&store, "later", "1").unwrap_err().to_string();
        assert_eq!(
            later,
            format!("the store is unavailable: the store failed earlier: {failed}; reopen it")
        );
        if matches!(trouble, Trouble::ReadsFail | Trouble::ReadsPanic) {
            assert!(store.reopen().is_err());
            assert!(is_unavailable(&get(&store, "before")));
        }
        disk.heals();
        store.reopen().unwrap();
        assert_eq!(store.stats().failed, None);
        let kv = services.kv.unwrap();
        let value = wait_for(|reply| kv.get(at("before"), reply));
        assert_eq!(value, Ok(Some(b"1".to_vec())), "{trouble:?}");
        assert_eq!(
            wait_for(|reply| kv.set(at("later"), b"2", None, reply)),
            Ok(())
        );
        assert_eq!(get(&store, "later"), Ok(Some(b"2".to_vec())));
    }
}

#[test]
fn reopening_a_store_that_did_not_fail_changes_nothing() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions::default());
    set(&store, "k", "v").unwrap();
    let operations = disk.operations();
    store.reopen().unwrap();
    assert_eq!(disk.operations(), operations);
    assert_eq!(get(&store, "k"), Ok(Some(b"v".to_vec())));
}

#[test]
fn whatever_operation_fails_once_nothing_acknowledged_before_or_after_reopening_is_lost() {
    let disk = Disk::fresh();
    let store = disk.store(&DurableOptions::default());
    let opened = disk.operations();
    assert_eq!(workload(&store), [true; 12]);
    let total = disk.operations();
    drop(store);

    let mut reopened = 0;
    for stop in opened..total {
        let disk = Disk::fresh();
        let store = disk.store(&DurableOptions::default());
        disk.trouble_from(stop, Trouble::FailsOnce);
        let mut again = |done: &dyn Fn() -> bool| {
            if !done() {
                store.reopen().unwrap();
                reopened += 1;
                assert!(done(), "failed at {stop}");
            }
        };
        for n in 0..6 {
            again(&|| set(&store, &format!("k{n}"), &"v".repeat(2_000)).is_ok());
            again(&|| wait_for(|reply| store.post(&post(n), reply)).is_ok());
        }
        survives_power_loss(&disk, &[true; 12], &format!("failed once at {stop}"));
        drop(store);
        survives_power_loss(
            &disk,
            &[true; 12],
            &format!("failed once at {stop}, closed"),
        );
    }
    assert!(reopened > 24, "{reopened}");
}

#[test]
fn a_closed_store_refuses_everything_and_may_be_opened_elsewhere_while_rooms_hold_it() {
    let directory = tempfile::tempdir().unwrap();
    let options = DurableOptions::default();
    let store = DurableStore::open(directory.path(), &options).unwrap();
    let held = store.services();
    let write = ask(&store, "k", b"v");
    store.close();
    // No waiting: closing did.
    assert_eq!(write.try_recv().unwrap(), Ok(()));
    store.close();
    let elsewhere = DurableStore::open(directory.path(), &options).unwrap();
    assert_eq!(get(&elsewhere, "k"), Ok(Some(b"v".to_vec())));
    let kv = held.kv.as_ref().unwrap();
    assert!(is_unavailable(&wait_for(|reply| kv.get(at("k"), reply))));
    assert!(is_unavailable(&wait_for(|reply| kv.delete(at("k"), reply))));
    assert!(is_unavailable(&wait_for(
        |reply| store.int_values("g", b"k", reply)
    )));
    assert!(matches!(store.reopen(), Err(OpenError::Closed)));
    assert_eq!(get(&elsewhere, "k"), Ok(Some(b"v".to_vec())));
}

#[test]
fn a_file_that_is_gone_is_not_made_anew_by_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let options = DurableOptions::default();
    let store = DurableStore::open(directory.path(), &options).unwrap();
    set(&store, "k", "v").unwrap();
    *locked(&store.inner.shared.failed) = Some("this test says so".into());
    let path = directory.path().join("store.redb");
    let aside = directory.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    assert!(matches!(store.reopen(), Err(OpenError::Io { .. })));
    assert!(!path.exists());
    assert!(is_unavailable(&get(&store, "k")));
    // Nobody else gets in between.
    assert!(matches!(
        DurableStore::open(directory.path(), &options),
        Err(OpenError::InUse { .. })
    ));
    std::fs::rename(&aside, &path).unwrap();
    store.reopen().unwrap();
    assert_eq!(get(&store, "k"), Ok(Some(b"v".to_vec())));
}
