//! Hostile bytes: arbitrary ones, valid payloads with bytes changed, every truncation. Nothing may
//! panic, and what a decoder accepts must hold together.

use cabinet_wire::ctx::{self, Roster};
use cabinet_wire::input::{self, Input};
use cabinet_wire::meta::{self, MetaOwned};
use cabinet_wire::outcome::{self, Ranking};
use cabinet_wire::{CELL_BYTES, FRAME_CELLS, Slug, Status, Text, delta, json};
use proptest::prelude::*;

use super::meta::any_meta;
use super::support::{any_head, any_member, spaces};

/// Feeds bytes to every decoder and walks all that is accepted.
fn survive(bytes: &[u8]) {
    for features in 0..4 {
        if let Ok(decoded) = ctx::decode(bytes, features) {
            let members = decoded.roster.members();
            assert_eq!(
                members.count(),
                members.len(),
                "an accepted roster is complete"
            );
            assert!(bytes.ends_with(decoded.extras));
        }
    }
    let _ = input::decode(bytes);
    let _ = input::decode_index(bytes);
    for roster_len in [0, 1, 1024] {
        if let Ok(rankings) = outcome::decode(bytes, roster_len) {
            assert_eq!(rankings.count(), rankings.len());
            assert!(
                rankings
                    .map(|r| r.player as usize)
                    .all(|player| player < roster_len)
            );
        }
    }
    if let Ok(meta) = meta::decode(bytes) {
        assert_eq!(meta.tags.iter().count(), meta.tags.len());
        assert_eq!(meta.config.iter().count(), meta.config.len());
        assert_eq!(meta.controls.iter().count(), meta.controls.len());
        if meta.validate().is_ok() {
            assert!(MetaOwned::from(&meta).slug().is_ok());
        }
        let mut again = Vec::new();
        meta::encode(&meta, &mut again).unwrap();
        assert_eq!(meta::decode(&again).unwrap(), meta);
    }
    if let Ok(container) = delta::check(bytes) {
        container.apply_to(&mut spaces());
        let cells: usize = container.runs().map(|run| run.len()).sum();
        assert!(cells <= FRAME_CELLS);
        let size = 9 + 4 * usize::from(container.run_count()) + CELL_BYTES * cells;
        assert_eq!(size, bytes.len(), "an accepted container has no slack");
    }
    let _ = json::is_well_formed(bytes);
    let _ = Slug::new(bytes);
    let text = Text(bytes);
    assert_eq!(text.to_string(), text.to_str_lossy());
    assert!(text.char_count() <= bytes.len());
}

/// A valid payload of any kind.
fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let members = prop::collection::vec(any_member(), 0..4);
    let context = (
        any_head(),
        members,
        0u32..4,
        any::<Option<u32>>(),
        any::<bool>(),
    )
        .prop_map(|(head, members, features, epoch, settled)| {
            let members: Vec<_> = members.iter().map(|m| m.borrow(true)).collect();
            let members = &members[..];
            let roster = match epoch {
                None => Roster::Legacy(members),
                Some(epoch) => Roster::Full { epoch, members },
            };
            let mut bytes = Vec::new();
            ctx::encode(&head, &roster, features, settled, &mut bytes).unwrap();
            input::encode(1, &Input::Rune(65), &mut bytes);
            bytes
        });
    let rankings = prop::collection::vec((0u32..4, any::<i64>()), 0..6).prop_map(|rankings| {
        let ranking = |(player, metric)| Ranking::new(player, metric, 1, Status::Finished);
        let rankings: Vec<_> = rankings.into_iter().map(ranking).collect();
        let mut bytes = Vec::new();
        outcome::encode(&rankings, &mut bytes).unwrap();
        bytes
    });
    let cells = prop::collection::vec(0..FRAME_CELLS, 0..8).prop_map(|cells| {
        let base = spaces();
        let mut next = base.clone();
        for cell in cells {
            next[cell * CELL_BYTES] = b'x';
        }
        let mut bytes = Vec::new();
        delta::encode(&base, &next, 9, &mut bytes);
        bytes
    });
    prop_oneof![
        context,
        any_meta().prop_map(|meta| meta.encoded()),
        rankings,
        cells
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        survive(&bytes);
    }

    #[test]
    fn mostly_zero_bytes_never_panic(
        len in 0usize..200, set in prop::collection::vec((0usize..200, 0u8..4), 0..20),
    ) {
        // Small values in a sea of zeros get far deeper into a decoder than noise does.
        let mut bytes = vec![0; len];
        for (at, value) in set {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        survive(&bytes);
    }

    #[test]
    fn mutated_payloads_never_panic(
        mut bytes in any_payload(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        extra in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        for (at, value) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        bytes.extend(extra);
        survive(&bytes);
    }

    #[test]
    fn no_truncation_of_a_valid_payload_panics(bytes in any_payload()) {
        // Past the first half a kilobyte the fields repeat.
        for len in (0..=bytes.len()).rev().take(512) {
            survive(&bytes[..len]);
        }
    }
}
