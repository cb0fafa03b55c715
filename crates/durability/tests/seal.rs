//! What a record holds against: every changed bit, cut, extension and splice.

use std::collections::HashSet;

use bytes::Bytes;
use cabinet_durability::seal::{
    HEADER_BYTES, Keyring, Kind, MasterKey, OpenError, Place, Sealer, Sealing, TAG_BYTES,
    Unverified, Wanted,
};
use cabinet_durability::{Epoch, Fence};
use cabinet_wire::ArtifactDigest;
use proptest::prelude::*;

#[path = "common/forge.rs"]
mod forge;
use forge::{key, place, room, sealer, with};

const RAW_MAX: u64 = 1 << 20;

fn seal(sealer: &Sealer, place: &Place, raw: &[u8]) -> Bytes {
    sealer.seal(place, raw).expect("it seals")
}

fn open(sealer: &Sealer, bytes: impl Into<Bytes>, place: &Place) -> Result<Vec<u8>, OpenError> {
    let opened = sealer.open(bytes.into(), &Wanted::exactly(place), RAW_MAX)?;
    assert_eq!(opened.0, *place);
    Ok(opened.1)
}

/// Opens whatever place a record claims: nothing but the seal stands in the way.
fn open_as_claimed(sealer: &Sealer, bytes: Vec<u8>) -> Result<Vec<u8>, OpenError> {
    let record = Unverified::parse(bytes.into())?;
    let wanted = Wanted::exactly(record.claimed());
    record.verify(sealer, &wanted)?.decode(RAW_MAX)
}

/// Whether that is how a record that was tampered with is refused: before anything is decoded.
fn refused(found: &Result<Vec<u8>, OpenError>) -> bool {
    matches!(
        found,
        Err(OpenError::Broken
            | OpenError::NotARecord
            | OpenError::Version { .. }
            | OpenError::UnknownKey(_)
            | OpenError::NotSealed
            | OpenError::NoKeys
            | OpenError::Misplaced(_))
    )
}

fn unsealed() -> Sealer {
    with(Sealing::UnsealedForDevelopment)
}

fn places() -> impl Strategy<Value = Place> {
    let kinds = [Kind::Checkpoint, Kind::Head, Kind::Claim, Kind::Resident];
    (
        prop::sample::select(kinds.to_vec()),
        any::<u8>(),
        any::<u64>(),
        any::<u64>(),
        any::<[u8; 32]>(),
    )
        .prop_map(|(kind, n, epoch, fence, artifact)| Place {
            kind,
            room: room(n),
            epoch: Epoch(epoch),
            fence: Fence(fence),
            artifact: ArtifactDigest(artifact),
        })
}

proptest! {
    #[test]
    fn a_record_opens_to_what_was_sealed(
        place in places(), raw in prop::collection::vec(any::<u8>(), 0..3_000), keyed: bool,
    ) {
        let sealer = if keyed { sealer(1) } else { unsealed() };
        let bytes = seal(&sealer, &place, &raw);
        prop_assert!(bytes.len() as u64 <= Sealer::bytes_max(raw.len() as u64));
        prop_assert_eq!(open(&sealer, bytes, &place), Ok(raw));
    }

    #[test]
    fn no_bit_of_a_long_record_can_be_changed(
        seed in any::<[u8; 32]>(), length in 1usize..60_000, at: prop::sample::Index, bit in 0u8..8,
    ) {
        let raw: Vec<u8> = (0..length).map(|n| seed[n % 32].wrapping_mul(n as u8)).collect();
        let sealer = sealer(1);
        let mut bytes = seal(&sealer, &place(), &raw).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(refused(&open(&sealer, bytes.clone(), &place())));
        prop_assert!(refused(&open_as_claimed(&sealer, bytes)));
    }

    #[test]
    fn bytes_that_are_no_record_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(refused(&open_as_claimed(&sealer(1), bytes)));
    }
}

#[test]
fn no_bit_of_a_short_record_can_be_changed() {
    for sealer in [sealer(1), unsealed()] {
        let bytes = seal(&sealer, &place(), b"the state of a room");
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let found = open(&sealer, changed.clone(), &place());
            assert!(refused(&found), "bit {bit}: {found:?}");
            let found = open_as_claimed(&sealer, changed);
            assert!(refused(&found), "bit {bit}, as claimed: {found:?}");
        }
    }
}

#[test]
fn a_record_cannot_be_cut_or_extended() {
    let sealer = sealer(1);
    let bytes = seal(&sealer, &place(), b"the state of a room");
    for length in 0..bytes.len() {
        let found = open(&sealer, bytes.slice(..length), &place());
        assert!(refused(&found), "{length} bytes: {found:?}");
        let found = open(&sealer, bytes.slice(bytes.len() - length..), &place());
        assert!(refused(&found), "the last {length} bytes: {found:?}");
    }
    for more in 1..=64 {
        let longer = [&bytes[..], &vec![0; more]].concat();
        assert_eq!(
            open(&sealer, longer, &place()),
            Err(OpenError::Broken),
            "{more} more"
        );
    }
    // Nor with a header that says so.
    let mut longer = [&bytes[..], &[0]].concat();
    let body = (longer.len() - HEADER_BYTES - TAG_BYTES) as u64;
    longer[84..92].copy_from_slice(&body.to_le_bytes());
    assert_eq!(open(&sealer, longer, &place()), Err(OpenError::Broken));
}

#[test]
fn a_record_opens_nowhere_but_in_its_place() {
    let sealer = sealer(1);
    let bytes = seal(&sealer, &place(), b"state");
    let here = Wanted::exactly(&place());
    let elsewhere = [
        (
            "kind",
            Wanted {
                kind: Kind::Head,
                ..here
            },
        ),
        (
            "room",
            Wanted {
                room: room(2),
                ..here
            },
        ),
        (
            "epoch",
            Wanted {
                epoch: Some(Epoch(8)),
                ..here
            },
        ),
        (
            "fence",
            Wanted {
                fence: Some(Fence(4)),
                ..here
            },
        ),
        (
            "artifact",
            Wanted {
                artifact: Some(ArtifactDigest([6; 32])),
                ..here
            },
        ),
    ];
    for (what, wanted) in elsewhere {
        let found = sealer.open(bytes.clone(), &wanted, RAW_MAX);
        assert_eq!(found.err(), Some(OpenError::Misplaced(what)));
    }
    let any = Wanted::any(Kind::Checkpoint, room(1));
    assert!(sealer.open(bytes, &any, RAW_MAX).is_ok());
}

#[test]
fn a_header_that_claims_another_place_does_not_open_there() {
    let sealer = sealer(1);
    let bytes = seal(&sealer, &place(), b"state");
    let mut elsewhere = [place(); 5];
    elsewhere[0].kind = Kind::Head;
    elsewhere[1].room = room(2);
    elsewhere[2].epoch = Epoch(8);
    elsewhere[3].fence = Fence(4);
    elsewhere[4].artifact = ArtifactDigest([6; 32]);
    for other in elsewhere {
        // The other place's header fields, from a record that is really there.
        let donor = seal(&sealer, &other, b"state");
        let mut spliced = bytes.to_vec();
        spliced[6] = donor[6];
        spliced[12..76].copy_from_slice(&donor[12..76]);
        assert_eq!(
            open(&sealer, spliced, &other),
            Err(OpenError::Broken),
            "{other:?}"
        );
    }
}

#[test]
fn parts_of_two_records_make_no_third() {
    let sealer = sealer(1);
    let one = seal(&sealer, &place(), b"one state");
    let two = seal(&sealer, &place(), b"two state");
    assert_eq!(one.len(), two.len());
    let (body, tag) = (HEADER_BYTES, one.len() - TAG_BYTES);
    for cut in [4, 8, 28, 76, 92, body, tag] {
        for (head, tail) in [(&one, &two), (&two, &one)] {
            let mixed = [&head[..cut], &tail[cut..]].concat();
            let whole = mixed == one[..] || mixed == two[..];
            let found = open(&sealer, mixed, &place());
            // Up to the salt the two begin alike.
            assert_eq!(found.is_ok(), whole, "cut at {cut}: {found:?}");
            assert!(whole || found == Err(OpenError::Broken));
        }
    }
    let swapped = [&one[..body], &two[body..tag], &one[tag..]].concat();
    assert_eq!(open(&sealer, swapped, &place()), Err(OpenError::Broken));
}

#[test]
fn another_key_opens_nothing_and_says_which_is_wanted() {
    let bytes = seal(&sealer(1), &place(), b"state");
    assert_eq!(
        open(&sealer(2), bytes.clone(), &place()),
        Err(OpenError::UnknownKey(1))
    );
    let mut other = forge::master(1);
    other[31] ^= 1;
    let other = MasterKey::new(1, other).expect("a key");
    let other = with(Sealing::Keys(Keyring::new(other)));
    assert_eq!(
        open(&other, bytes.clone(), &place()),
        Err(OpenError::Broken)
    );
    // A key that is in the ring, under a record of another.
    let both = Keyring::new(key(2)).with_older(key(1)).expect("two keys");
    let mut renamed = bytes.to_vec();
    renamed[8..12].copy_from_slice(&2u32.to_le_bytes());
    assert_eq!(
        open(&with(Sealing::Keys(both)), renamed, &place()),
        Err(OpenError::Broken)
    );
}

#[test]
fn a_rotated_key_still_opens_and_the_new_one_seals() {
    let old = seal(&sealer(1), &place(), b"old");
    let both = Keyring::new(key(2)).with_older(key(1)).expect("two keys");
    let both = with(Sealing::Keys(both));
    assert_eq!(open(&both, old, &place()), Ok(b"old".to_vec()));
    let new = seal(&both, &place(), b"new");
    assert_eq!(
        Unverified::parse(new.clone()).expect("a record").key_id(),
        2
    );
    assert_eq!(
        open(&sealer(1), new.clone(), &place()),
        Err(OpenError::UnknownKey(2))
    );
    assert_eq!(open(&sealer(2), new, &place()), Ok(b"new".to_vec()));
}

#[test]
fn a_record_without_a_seal_and_one_with_are_not_taken_for_each_other() {
    let bare = seal(&unsealed(), &place(), b"state");
    assert_eq!(
        open(&sealer(1), bare.clone(), &place()),
        Err(OpenError::NotSealed)
    );
    let kept = seal(&sealer(1), &place(), b"state");
    assert_eq!(
        open(&unsealed(), kept.clone(), &place()),
        Err(OpenError::NoKeys)
    );
    // Nor when they claim to be the other.
    let mut claims = bare.to_vec();
    claims[7] = 0;
    assert_eq!(
        open(&sealer(1), claims.clone(), &place()),
        Err(OpenError::UnknownKey(0))
    );
    claims[8] = 1;
    assert_eq!(open(&sealer(1), claims, &place()), Err(OpenError::Broken));
    let mut claims = kept.to_vec();
    claims[7] = 1;
    assert_eq!(open(&unsealed(), claims, &place()), Err(OpenError::Broken));
}

#[test]
fn no_two_records_of_the_same_bytes_share_more_than_their_place() {
    let sealer = sealer(1);
    let raw = vec![0; 300];
    let records: Vec<Bytes> = (0..200).map(|_| seal(&sealer, &place(), &raw)).collect();
    let parts = |at: std::ops::Range<usize>| {
        records
            .iter()
            .map(|record| record[at.clone()].to_vec())
            .collect::<HashSet<_>>()
            .len()
    };
    let tag = records[0].len() - TAG_BYTES;
    assert_eq!(parts(0..92), 1);
    assert_eq!(parts(92..HEADER_BYTES), 200, "salts");
    assert_eq!(parts(HEADER_BYTES..tag), 200, "bodies");
    assert_eq!(parts(tag..tag + TAG_BYTES), 200, "tags");
}

#[test]
fn a_record_of_the_most_bytes_opens_and_one_past_it_does_not() {
    for sealer in [sealer(1), unsealed()] {
        let bytes = seal(&sealer, &place(), &[7; 1_000]);
        let open = |max| sealer.open(bytes.clone(), &Wanted::exactly(&place()), max);
        assert!(open(1_000).is_ok());
        let past = OpenError::TooLarge {
            bytes: 1_000,
            max: 999,
        };
        assert_eq!(open(999).err(), Some(past));
    }
    let empty = seal(&sealer(1), &place(), b"");
    let open = sealer(1).open(empty, &Wanted::exactly(&place()), 0);
    assert_eq!(open.map(|(_, raw)| raw), Ok(Vec::new()));
}

#[test]
fn a_record_is_written_as_its_description_says() {
    let body = zstd::bulk::compress(b"the state of a room", 1).expect("it compresses");
    let bytes = forge::sealed(&place(), 19, &body);
    assert_eq!(
        open(&sealer(1), bytes, &place()),
        Ok(b"the state of a room".to_vec())
    );
}

#[test]
fn any_limit_at_all_may_be_set() {
    let bytes = seal(&sealer(1), &place(), b"state");
    assert!(
        sealer(1)
            .open(bytes, &Wanted::exactly(&place()), u64::MAX)
            .is_ok()
    );
    assert!(Sealer::bytes_max(u64::MAX) > 1 << 50);
    assert!(Sealer::bytes_max(0) >= (HEADER_BYTES + TAG_BYTES) as u64);
}

#[test]
fn nothing_secret_is_printed() {
    let sealer = sealer(1);
    let printed = format!("{sealer:?}");
    assert_eq!(printed, "Sealer { sealing: Keys([MasterKey(1)]), .. }");
}
