//! Bugs planted in the seal are found by asking what `tests/seal.rs` asks of every record.

use super::*;
use crate::entropy::SeededEntropy;
use crate::ids::{Epoch, Fence, RoomIds};
use crate::planted::Bug;
use crate::planted::tests::with;
use cabinet_wire::ArtifactDigest;

fn sealer() -> Sealer {
    let key = MasterKey::new(1, std::array::from_fn(|n| n as u8)).expect("a key");
    Sealer::new(
        Sealing::Keys(Keyring::new(key)),
        Arc::new(SeededEntropy::new(1)),
    )
}

fn place(n: u8) -> Place {
    Place {
        kind: Kind::Checkpoint,
        room: RoomIds::default().next(1, [n; 8]),
        epoch: Epoch(1),
        fence: Fence(1),
        artifact: ArtifactDigest([1; 32]),
    }
}

#[test]
fn a_record_of_another_room_opens_only_with_that_bug() {
    let sealer = sealer();
    let bytes = sealer.seal(&place(1), b"state").expect("it seals");
    let open = || {
        let wanted = Wanted::exactly(&place(2));
        sealer.open(bytes.clone(), &wanted, 100).map(|_| ())
    };
    assert_eq!(open(), Err(OpenError::Misplaced("room")));
    assert_eq!(with(Some(Bug::SealWithoutRoom), open), Ok(()));
}

#[test]
fn an_unproven_size_is_acted_upon_only_with_that_bug() {
    let sealer = sealer();
    let mut bytes = sealer.seal(&place(1), b"state").expect("it seals").to_vec();
    bytes[76..84].copy_from_slice(&(1u64 << 40).to_le_bytes());
    let open = || {
        let wanted = Wanted::exactly(&place(1));
        sealer.open(bytes.clone().into(), &wanted, 100).map(|_| ())
    };
    assert_eq!(open(), Err(OpenError::Broken));
    let acted = with(Some(Bug::DecodeBeforeVerify), open);
    assert!(matches!(acted, Err(OpenError::TooLarge { .. })));
}
