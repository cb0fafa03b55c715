//! Parked rooms: who sees them, who gets them, and what that costs.

use std::sync::Arc;

use cabinet_durability::seal::{Keyring, Sealing};
use cabinet_durability::{HeadError, Header, Member, ROSTER_MAX, Standing, VaultError};

use crate::faulty::Counts;
use crate::support::{
    Bucket, GAME, NOW, failure, head_key, header, key, live, opened, pack, park, room, state, write,
};

#[tokio::test]
async fn a_parked_room_is_opened_and_taken_by_who_was_in_it() {
    let bucket = Bucket::new();
    let (a, b) = (bucket.process("a"), bucket.process("b"));
    park(&a, room(1), header("ada/chess", 7, &["ada", ""])).await;
    let open = async |account| b.open_parked(room(1), account, Some(GAME)).await;
    assert_eq!(failure(open(Some("eve")).await), "not a member");
    assert_eq!(failure(open(Some("")).await), "not a member");
    let parked = open(Some("ada")).await.expect("she was in it");
    assert_eq!(parked.room(), room(1));
    assert_eq!(parked.checkpoint().bytes, b"parked");
    assert_eq!(
        parked.header().map(|header| &header.slug[..]),
        Some("ada/chess")
    );
    // Looking takes nothing away.
    assert!(open(None).await.is_ok());

    let lease = b.take(&parked, NOW).await.expect("it is parked");
    assert_eq!(failure(open(Some("ada")).await), "already resumed");
    assert!(bucket.keys("v1/players/").await.is_empty());
    assert!(bucket.keys("v1/parked/").await.is_empty());
    write(&lease, b"on").await;
    assert_eq!(
        failure(a.open_parked(room(9), None, None).await),
        "no checkpoint"
    );
}

#[tokio::test]
async fn a_parked_room_of_another_artifact_says_so_and_stays() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    park(&a, room(1), header("g", 7, &["ada"])).await;
    let other = cabinet_wire::ArtifactDigest([9; 32]);
    let open = a.open_parked(room(1), Some("ada"), Some(other)).await;
    match open {
        Err(VaultError::ArtifactMismatch { stored, wanted }) => {
            assert_eq!((stored, wanted), (GAME, other));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(a.parked_of("ada").await.expect("it lists").rooms.len(), 1);
}

#[tokio::test]
async fn a_room_that_is_parked_again_is_another_parking() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    park(&a, room(1), header("g", 1, &["ada"])).await;
    let first = opened(&a, room(1)).await;
    let lease = a.take(&first, NOW).await.expect("it is parked");
    let packed = pack(&lease, b"again");
    lease
        .park(&packed, header("g", 2, &["bob"]), NOW)
        .await
        .expect("it parks");
    assert_eq!(
        failure(lease.park(&packed, header("g", 2, &[]), NOW).await),
        "standing"
    );
    // Who read it before is too late, in this process or another.
    let b = bucket.process("b");
    assert_eq!(failure(a.take(&first, NOW).await), "already resumed");
    assert_eq!(failure(b.take(&first, NOW).await), "already resumed");
    assert_eq!(a.parked_of("ada").await.expect("it lists").rooms.len(), 0);
    assert_eq!(a.parked_of("bob").await.expect("it lists").rooms.len(), 1);
    assert_eq!(failure(a.claim(room(1), NOW).await), "standing");
}

#[tokio::test]
async fn lists_are_newest_first_and_show_each_account_its_own() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    for (n, at, accounts) in [
        (1, 30, &["ada", "bob"][..]),
        (2, 10, &["ada"]),
        (3, 20, &["bob", ""]),
        (4, 30, &["ada"]),
    ] {
        park(&a, room(n), header("g", at, accounts)).await;
    }
    let rooms = async |account: &str| {
        let found = a.parked_of(account).await.expect("it lists");
        assert_eq!((found.damaged, found.stale), (0, 0));
        found
            .rooms
            .iter()
            .map(|entry| entry.room)
            .collect::<Vec<_>>()
    };
    assert_eq!(rooms("ada").await, [room(4), room(1), room(2)]);
    assert_eq!(rooms("bob").await, [room(1), room(3)]);
    assert_eq!(rooms("eve").await, []);
    bucket.0.settle().await;
    assert_eq!(rooms("").await, []);
    assert_eq!(
        bucket.0.counts(),
        Counts::default(),
        "an empty account is nobody's"
    );
    let all = a.parked().await.expect("it lists");
    assert_eq!(all.rooms.len(), 4);
    assert_eq!((all.rooms[0].artifact, all.rooms[0].epoch.0), (GAME, 1));
}

#[tokio::test]
async fn damaged_stale_and_foreign_entries_are_counted_and_not_shown() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    for n in 1..=4 {
        park(&a, room(n), header("g", 1, &["ada"])).await;
    }
    bucket.put(&head_key(room(1)), "damaged").await;
    bucket.delete(&head_key(room(2))).await;
    // A head of a room of somebody else's, under this name.
    park(&a, room(5), header("g", 1, &["bob"])).await;
    let theirs = bucket.get(&head_key(room(5))).await.expect("it is there");
    bucket.put(&head_key(room(3)), theirs).await;
    let players = bucket.keys("v1/players/").await;
    let mine = players
        .iter()
        .find(|key| key.contains(&room(4).to_string()))
        .expect("it");
    let folder = mine.rsplit_once('/').expect("a folder").0;
    bucket.put(&format!("{folder}/foreign"), "x").await;
    bucket
        .put(&format!("{folder}/{}.{:020}", room(5), 1), "x")
        .await;
    live(&a, room(6), b"x").await;
    bucket
        .put(&format!("{folder}/{}.{:020}", room(6), 1), "x")
        .await;

    let found = a.parked_of("ada").await.expect("it lists");
    let rooms: Vec<_> = found.rooms.iter().map(|entry| entry.room).collect();
    assert_eq!(rooms, [room(4)]);
    assert_eq!((found.damaged, found.stale), (2, 3));
    let found = a.parked().await.expect("it lists");
    assert_eq!((found.rooms.len(), found.damaged, found.stale), (2, 2, 1));
}

#[tokio::test]
async fn an_accounts_list_costs_one_listing_and_one_get_for_each_of_its_rooms() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    for n in 0..1_000 {
        let account = format!("account-{}", n % 250);
        park(
            &a,
            room(n),
            header("g", i64::from(n), &[&account, "everybody"]),
        )
        .await;
    }
    bucket.0.settle().await;
    let found = a.parked_of("account-7").await.expect("it lists");
    assert_eq!(found.rooms.len(), 4);
    let cost = Counts {
        lists: 1,
        gets: 4,
        ..Counts::default()
    };
    assert_eq!(bucket.0.counts(), cost);
    bucket.0.settle().await;
    assert!(
        a.parked_of("nobody")
            .await
            .expect("it lists")
            .rooms
            .is_empty()
    );
    assert_eq!(
        bucket.0.counts(),
        Counts {
            lists: 1,
            ..Counts::default()
        }
    );
    let found = a.parked_of("everybody").await.expect("it lists");
    assert_eq!(found.rooms.len(), 1_000);
    assert!(
        found
            .rooms
            .is_sorted_by_key(|entry| std::cmp::Reverse(entry.header.at))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_take_a_room_at_once_one_gets_it() {
    for round in 0..20 {
        let bucket = Bucket::new();
        park(&bucket.process("a"), room(1), header("g", 1, &["ada"])).await;
        let shared = bucket.process("shared");
        let parked = Arc::new(opened(&shared, room(1)).await);
        let mut ready = Vec::new();
        for n in 0..16 {
            // Half of them share what they read, half have read it themselves.
            let (vault, parked) = if n % 2 == 0 {
                (shared.clone(), parked.clone())
            } else {
                let vault = bucket.process(&format!("process {n}"));
                let parked = Arc::new(opened(&vault, room(1)).await);
                (vault, parked)
            };
            ready.push((vault, parked));
        }
        let takers: Vec<_> = ready
            .into_iter()
            .map(|(vault, parked)| tokio::spawn(async move { vault.take(&parked, NOW).await }))
            .collect();
        let mut won = Vec::new();
        for taker in takers {
            match taker.await.expect("it does not panic") {
                Ok(lease) => won.push(lease),
                refused => assert_eq!(failure(refused), "already resumed"),
            }
        }
        assert_eq!(won.len(), 1, "round {round}");
        write(&won[0], b"on").await;
        assert_eq!(state(&shared, room(1)).await, b"on");
    }
}

#[tokio::test]
async fn a_parked_room_is_discarded_for_good_and_a_live_one_is_not() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"x").await;
    assert_eq!(failure(a.discard(room(1), NOW).await), "standing");
    let packed = pack(&lease, b"parked");
    lease
        .park(&packed, header("g", 1, &["ada"]), NOW)
        .await
        .expect("it parks");
    let parked = opened(&a, room(1)).await;
    a.discard(room(1), NOW).await.expect("it is deleted");
    assert_eq!(bucket.keys("").await, Vec::<String>::new());
    a.discard(room(1), NOW)
        .await
        .expect("it is deleted already");
    assert_eq!(failure(a.take(&parked, NOW).await), "already resumed");
}

#[tokio::test]
async fn what_does_not_fit_a_header_is_refused_before_anything_is_written() {
    let bucket = Bucket::new();
    let a = bucket.process("a");
    let lease = live(&a, room(1), b"x").await;
    let packed = pack(&lease, b"parked");
    let before = bucket.all().await;
    let member = |handle: usize| Member {
        account: String::new(),
        handle: "h".repeat(handle),
    };
    let of = |roster: Vec<Member>| Header {
        slug: "g".into(),
        at: 1,
        roster,
    };
    let park = async |header| match lease.park(&packed, header, NOW).await {
        Err(VaultError::Header(error)) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(park(of(vec![member(4_097)])).await, HeadError::Text(4_097));
    let many = park(of(vec![member(1); ROSTER_MAX + 1])).await;
    assert_eq!(many, HeadError::Roster(ROSTER_MAX + 1));
    let wide = park(of(vec![member(300); ROSTER_MAX])).await;
    assert!(matches!(wide, HeadError::Bytes { .. }), "{wide:?}");
    assert_eq!(bucket.all().await, before);

    lease
        .park(&packed, of(vec![member(200); ROSTER_MAX]), NOW)
        .await
        .expect("it fits");
    let parked = opened(&a, room(1)).await;
    assert_eq!(
        parked.header().map(|header| header.roster.len()),
        Some(ROSTER_MAX)
    );
}

#[tokio::test]
async fn rooms_parked_under_an_older_key_are_found_and_taken_under_the_new_one() {
    let bucket = Bucket::new();
    park(&bucket.process("a"), room(1), header("g", 1, &["ada"])).await;
    let ring = Keyring::new(key(2)).with_older(key(1)).expect("two keys");
    let b = bucket.process_with("b", Sealing::Keys(ring), |_| {});
    park(&b, room(2), header("g", 2, &["ada"])).await;
    let found = b.parked_of("ada").await.expect("it lists");
    assert_eq!(found.rooms.len(), 2);
    let parked = opened(&b, room(1)).await;
    b.take(&parked, NOW).await.expect("it is parked");
    assert_eq!(bucket.keys("v1/players/").await.len(), 1);
    let head = b
        .head(room(1))
        .await
        .expect("it reads")
        .expect("it is there");
    assert_eq!(head.standing, Standing::Live);
}
