//! The head's bytes, and what follows from what.

use proptest::prelude::*;

use super::*;
use crate::ids::RoomIds;

fn room() -> RoomId {
    RoomIds::default().next(1_700_000_000_000, [5; 8])
}

fn hand(nonce: u8) -> Hand {
    Hand {
        owner: OwnerId([1; 16]),
        nonce: [nonce; 16],
        at_ms: 1_700_000_000_000,
    }
}

fn object(epoch: u64, fence: u64) -> ObjectRef {
    let digest = [epoch as u8; 32];
    ObjectRef {
        name: ObjectName::new(Epoch(epoch), Fence(fence), 1_700_000_000_000, &digest),
        digest,
        bytes: 99,
        artifact: ArtifactDigest([8; 32]),
    }
}

fn header(members: usize) -> Header {
    Header {
        slug: "ada/chess".into(),
        at: 1_700_000_000_123_456_789,
        roster: (0..members)
            .map(|n| Member {
                account: format!("account-{n}"),
                handle: format!("h{n}"),
            })
            .collect(),
    }
}

#[test]
fn each_claim_is_above_the_last_and_keeps_the_checkpoint() {
    let first = Head::first(room(), hand(1));
    assert_eq!((first.fence, first.epoch()), (Fence(1), Epoch::NONE));
    let written = first.advanced(object(1, 1), hand(2));
    let claimed = written.claimed(hand(3));
    assert_eq!(
        (claimed.fence, claimed.epoch(), claimed.base),
        (Fence(2), Epoch(1), Epoch(1))
    );
    let parked = claimed.parked(object(2, 2), header(1), hand(4));
    assert_eq!(parked.standing, Standing::Parked);
    let resumed = parked.claimed(hand(5));
    assert_eq!(
        (resumed.standing, resumed.fence),
        (Standing::Live, Fence(3))
    );
    assert_eq!(resumed.header, None);
    // Whoever ends it takes the fence: an owner that is still writing stops.
    assert_eq!(parked.closed(Standing::Expired, hand(6)).fence, Fence(3));
    // A parking that was given up and landed all the same is undone by the next checkpoint.
    assert_eq!(
        parked.advanced(object(3, 2), hand(7)).standing,
        Standing::Live
    );
}

#[test]
fn what_is_found_in_place_of_ones_own_is_judged_by_fence_then_epoch() {
    let mine = Head::first(room(), hand(1)).advanced(object(4, 1), hand(2));
    let judged = |found: &Head| judge(OwnerId([1; 16]), Fence(1), Epoch(4), found);
    assert_eq!(judged(&mine), Verdict::Ours);
    assert_eq!(judged(&mine.advanced(object(5, 1), hand(3))), Verdict::Ours);
    assert_eq!(
        judged(&mine.claimed(hand(3))),
        Verdict::Fenced { by: Fence(2) }
    );
    let mut other = mine.clone();
    other.owner = OwnerId([9; 16]);
    assert_eq!(judged(&other), Verdict::Fenced { by: Fence(1) });
    assert_eq!(judged(&Head::first(room(), hand(1))), Verdict::RolledBack);
}

#[test]
fn an_empty_account_is_nobodys() {
    let mut header = header(2);
    header.roster.push(Member {
        account: String::new(),
        handle: "guest".into(),
    });
    assert!(header.has("account-1"));
    assert!(!header.has("account-2"));
    assert!(!header.has(""));
}

#[test]
fn a_header_takes_the_longest_text_and_the_largest_roster_and_no_more() {
    let mut long = header(1);
    long.roster[0].handle = "h".repeat(TEXT_BYTES_MAX);
    assert_eq!(long.check(), Ok(()));
    long.roster[0].handle.push('h');
    assert_eq!(long.check(), Err(HeadError::Text(TEXT_BYTES_MAX + 1)));

    let full = header(ROSTER_MAX);
    let parked = Head::first(room(), hand(1)).parked(object(1, 1), full.clone(), hand(2));
    let bytes = parked.encode().expect("it fits");
    assert!(bytes.len() as u64 <= HEAD_BYTES_MAX);
    assert_eq!(Head::decode(&parked.place(), &bytes), Ok(parked));
    let mut over = full;
    over.roster.push(over.roster[0].clone());
    assert_eq!(over.check(), Err(HeadError::Roster(ROSTER_MAX + 1)));
}

#[test]
fn a_header_that_would_make_a_head_nobody_reads_is_refused_before_it_is_written() {
    let mut wide = header(ROSTER_MAX);
    let used: usize = 12
        + 2
        + wide.slug.len()
        + wide
            .roster
            .iter()
            .map(|member| 4 + member.account.len() + member.handle.len())
            .sum::<usize>();
    let mut left = HEADER_BYTES_MAX as usize - used;
    for member in &mut wide.roster {
        let more = left.min(TEXT_BYTES_MAX - member.handle.len());
        member.handle.push_str(&"h".repeat(more));
        left -= more;
    }
    assert_eq!(wide.check(), Ok(()));
    let parked = Head::first(room(), hand(1)).parked(object(1, 1), wide.clone(), hand(2));
    let bytes = parked.encode().expect("it fits");
    assert!(bytes.len() as u64 <= HEAD_BYTES_MAX);
    wide.slug.push('x');
    assert_eq!(
        wide.check(),
        Err(HeadError::Bytes {
            bytes: HEADER_BYTES_MAX + 1
        })
    );
}

#[test]
fn a_head_that_makes_no_sense_is_not_read() {
    let head = Head::first(room(), hand(1)).advanced(object(4, 1), hand(2));
    let bytes = head.encode().expect("it fits");
    let read = |place: &Place| Head::decode(place, &bytes);
    assert_eq!(read(&head.place()).as_ref(), Ok(&head));
    let mut elsewhere = head.place();
    elsewhere.epoch = Epoch(5);
    assert!(read(&elsewhere).is_err(), "another epoch than its object's");
    let mut elsewhere = head.place();
    elsewhere.fence = Fence::NONE;
    assert!(read(&elsewhere).is_err(), "an object of a later fence");
    let mut parked = head.clone();
    parked.standing = Standing::Parked;
    let bytes = parked.encode().expect("it fits");
    assert!(
        Head::decode(&parked.place(), &bytes).is_err(),
        "parked by nobody"
    );
}

fn heads() -> impl Strategy<Value = Head> {
    (
        any::<(u8, u8, u64)>(),
        prop::option::of((1u64..u64::MAX, 0u64..50)),
        prop::option::of(prop::collection::vec((".{0,20}", ".{0,20}"), 0..8)),
        1u64..u64::MAX,
    )
        .prop_map(|((owner, nonce, at_ms), at, roster, fence)| {
            let hand = Hand {
                owner: OwnerId([owner; 16]),
                nonce: [nonce; 16],
                at_ms,
            };
            let mut head = Head::first(room(), hand);
            head.fence = Fence(fence);
            if let Some((epoch, below)) = at {
                head.object = Some(object(epoch, fence.saturating_sub(below)));
                head.base = Epoch(epoch / 2);
                head.header = roster.map(|roster| Header {
                    slug: "s".into(),
                    at: -5,
                    roster: roster
                        .into_iter()
                        .map(|(account, handle)| Member { account, handle })
                        .collect(),
                });
                if head.header.is_some() {
                    head.standing = Standing::Parked;
                }
            }
            head
        })
}

proptest! {
    #[test]
    fn a_head_reads_back_and_no_part_of_one_does(head in heads(), cut in any::<prop::sample::Index>()) {
        let bytes = head.encode().expect("it fits");
        let place = head.place();
        prop_assert_eq!(Head::decode(&place, &bytes), Ok(head));
        let cut = cut.index(bytes.len());
        prop_assert!(Head::decode(&place, &bytes[..cut]).is_err());
        let mut longer = bytes;
        longer.push(0);
        prop_assert!(Head::decode(&place, &longer).is_err());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let place = Head::first(room(), hand(1)).place();
        // Whatever it says, it says it.
        let _ = Head::decode(&place, &bytes);
        let _ = Claim::decode(&bytes);
    }

    #[test]
    fn a_claim_reads_back(epoch in prop::option::of(1u64..99)) {
        let claim = Claim { owner: OwnerId([3; 16]), base: epoch.map(|epoch| object(epoch, 1)) };
        prop_assert_eq!(Claim::decode(&claim.encode()), Some(claim));
    }
}
