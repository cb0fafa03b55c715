//! The call context in its three roster forms, with and without characters.

use cabinet_wire::ctx::{
    self, Character, CtxError, DecodedRoster, Head, Member, Roster, RosterForm,
};
use cabinet_wire::{
    CTX_FEATURE_CHARACTER, CTX_FEATURE_ROSTER_EPOCH, CTX_HEAD_BYTES, Kind, Mode, Text, input,
};
use proptest::prelude::*;

use super::support::{ADA, GUEST, any_head, any_member, unhex};

const HEAD: Head = Head {
    now_unix_nanos: 1_700_000_000_000_000_000,
    seed: 42,
    seed_set: true,
    mode: Mode::Quick,
    capacity: 2,
    min_players: 1,
};

const ANA: Member<'_> = Member {
    character: Character {
        glyph: Text::new("λ"),
        ink: [0x39, 0xff, 0x14],
        bg: [0x2d, 0x1b, 0x4e],
        ascii_fallback: b'L',
    },
    ..ADA
};

type WithText = fn(Text<'_>) -> Member<'_>;

fn encoded(roster: Roster<'_>, features: u32, settled: bool) -> Vec<u8> {
    let mut out = Vec::new();
    ctx::encode(&HEAD, &roster, features, settled, &mut out).unwrap();
    out
}

#[test]
fn a_legacy_context_reads_back_and_ends_where_the_extras_begin() {
    let mut bytes = encoded(Roster::Legacy(&[ADA, GUEST]), 0, true);
    bytes.extend_from_slice(&7u32.to_le_bytes());
    let decoded = ctx::decode(&bytes, 0).unwrap();
    assert_eq!(decoded.head, HEAD);
    assert!(matches!(decoded.roster, DecodedRoster::Legacy(_)));
    assert!(decoded.roster.members().eq([ADA, GUEST]));
    assert!(decoded.settled);
    assert_eq!(decoded.extras, 7u32.to_le_bytes());
}

#[test]
fn a_legacy_context_has_the_layout_it_always_had() {
    // The join of a room of two, as the reference host sends it.
    let member = Member {
        handle: Text::new("ada"),
        account: Text::new("a1"),
        conn: Text::new("c1"),
        ..ADA
    };
    let mut bytes = encoded(Roster::Legacy(&[member]), 0, false);
    input::encode_index(0, &mut bytes);
    let by_hand = "00002a36fe9c9717 2a00000000000000 01 00 0200 0100 0100 \
                   0300616461 02006131 02006331 01 00 00000000";
    assert_eq!(bytes, unhex(by_hand));
}

#[test]
fn a_full_roster_carries_epoch_and_members() {
    let roster = Roster::Full {
        epoch: 42,
        members: &[ADA, GUEST],
    };
    let mut bytes = encoded(roster, CTX_FEATURE_ROSTER_EPOCH, false);
    bytes.push(9);
    let decoded = ctx::decode(&bytes, CTX_FEATURE_ROSTER_EPOCH).unwrap();
    let DecodedRoster::Full { epoch, members } = decoded.roster else {
        panic!("{decoded:?}");
    };
    assert_eq!(epoch, 42);
    assert_eq!(members.len(), 2);
    assert!(members.eq([ADA, GUEST]));
    assert_eq!(decoded.extras, [9]);
}

#[test]
fn an_unchanged_roster_costs_the_same_whatever_the_room_holds() {
    let bytes = encoded(Roster::Unchanged { epoch: 43 }, 3, true);
    assert_eq!(bytes.len(), 29);
    let decoded = ctx::decode(&bytes, 3).unwrap();
    assert!(matches!(
        decoded.roster,
        DecodedRoster::Unchanged { epoch: 43 }
    ));
    assert_eq!(decoded.roster.members().len(), 0);
    assert!(decoded.settled && decoded.extras.is_empty());

    let mut around = Vec::new();
    let form = RosterForm::Unchanged { epoch: 43 };
    ctx::encode_with_members(&HEAD, form, 1000, &[1; 100], true, &mut around).unwrap();
    assert_eq!(around, bytes);
}

#[test]
fn an_empty_room_is_25_31_or_29_bytes() {
    assert_eq!(encoded(Roster::Legacy(&[]), 0, false).len(), 25);
    let full = Roster::Full {
        epoch: 1,
        members: &[],
    };
    assert_eq!(encoded(full, 0, false).len(), 31);
    assert_eq!(encoded(Roster::Unchanged { epoch: 1 }, 0, false).len(), 29);
}

#[test]
fn characters_are_not_sent_to_a_guest_that_did_not_declare_them() {
    let plain = encoded(Roster::Legacy(&[ADA]), 0, false);
    assert_eq!(encoded(Roster::Legacy(&[ANA]), 0, false), plain);
    let epochs_only = CTX_FEATURE_ROSTER_EPOCH;
    assert_eq!(encoded(Roster::Legacy(&[ANA]), epochs_only, false), plain);
}

#[test]
fn unknown_feature_bits_change_nothing() {
    let unknown = 1 << 30;
    let plain = encoded(Roster::Legacy(&[ANA]), 0, false);
    assert_eq!(encoded(Roster::Legacy(&[ANA]), unknown, false), plain);
    assert_eq!(
        ctx::decode(&plain, unknown)
            .unwrap()
            .roster
            .members()
            .next(),
        Some(ADA)
    );
}

#[test]
fn characters_survive_both_forms_that_carry_members() {
    let members = [ANA, GUEST];
    let full = Roster::Full {
        epoch: 7,
        members: &members,
    };
    for roster in [Roster::Legacy(&members), full] {
        let mut bytes = encoded(roster, 3, true);
        bytes.push(5);
        let decoded = ctx::decode(&bytes, 3).unwrap();
        assert!(decoded.roster.members().eq(members));
        assert_eq!(decoded.extras, [5]);
    }
    assert_eq!(encoded(Roster::Unchanged { epoch: 7 }, 3, true).len(), 29);
}

#[test]
fn a_context_read_with_characters_that_were_not_sent_is_short() {
    let bytes = encoded(Roster::Legacy(&[ADA, GUEST]), 0, true);
    let read = ctx::decode(&bytes, CTX_FEATURE_CHARACTER);
    assert_eq!(read.unwrap_err(), CtxError::Short);
}

#[test]
fn codes_of_a_later_revision_read_as_the_plainest_one() {
    let mut bytes = encoded(Roster::Legacy(&[ADA]), 0, true);
    let settled = bytes.len() - 1;
    (bytes[16], bytes[17]) = (2, 9);
    (bytes[settled - 1], bytes[settled]) = (2, 2);
    let decoded = ctx::decode(&bytes, 0).unwrap();
    assert_eq!(decoded.head.mode, Mode::Quick);
    assert!(!decoded.head.seed_set && !decoded.settled);
    assert_eq!(decoded.roster.members().next().unwrap().kind, Kind::Guest);
}

#[test]
fn every_truncation_of_a_context_is_short() {
    let full = Roster::Full {
        epoch: 7,
        members: &[ANA, GUEST],
    };
    for roster in [Roster::Legacy(&[ANA]), full, Roster::Unchanged { epoch: 1 }] {
        let bytes = encoded(roster, 3, true);
        for len in 0..bytes.len() {
            let read = ctx::decode(&bytes[..len], 3).map(|decoded| decoded.extras);
            assert_eq!(read, Err(CtxError::Short), "first {len} bytes");
        }
    }
}

#[test]
fn a_count_without_members_behind_it_is_short() {
    for count in [1u16, 1000, 0xFFFD] {
        let mut bytes = encoded(Roster::Legacy(&[]), 0, false);
        bytes[CTX_HEAD_BYTES..][..2].copy_from_slice(&count.to_le_bytes());
        assert_eq!(ctx::decode(&bytes, 0).unwrap_err(), CtxError::Short);
    }
}

#[test]
fn a_string_of_65535_bytes_is_sent_whole_and_one_more_is_refused() {
    let long = [b'x'; 65536];
    let fields: [(&str, WithText); 4] = [
        ("handle", |handle| Member { handle, ..ADA }),
        ("account", |account| Member { account, ..ADA }),
        ("conn", |conn| Member { conn, ..ADA }),
        ("glyph", |glyph| Member {
            character: Character {
                glyph,
                ..Character::default()
            },
            ..ADA
        }),
    ];
    for (field, member) in fields {
        let fits = member(Text(&long[..65535]));
        let bytes = encoded(Roster::Legacy(&[fits]), 3, false);
        assert!(ctx::decode(&bytes, 3).unwrap().roster.members().eq([fits]));

        let mut out = vec![1, 2, 3];
        let roster = [ADA, member(Text(&long))];
        let result = ctx::encode(&HEAD, &Roster::Legacy(&roster), 3, false, &mut out);
        let bytes = 65536;
        assert_eq!(result, Err(CtxError::TextTooLong { field, bytes }));
        assert_eq!(out, [1, 2, 3], "the buffer is as it was");
    }
}

#[test]
fn a_legacy_roster_stops_in_front_of_the_sentinels() {
    let members = vec![Member::default(); 0xFFFE];
    let bytes = encoded(Roster::Legacy(&members[..0xFFFD]), 0, false);
    assert_eq!(
        ctx::decode(&bytes, 0).unwrap().roster.members().count(),
        0xFFFD
    );

    let mut out = vec![9];
    let refused = CtxError::TooManyMembers {
        count: 0xFFFE,
        max: 0xFFFD,
    };
    let result = ctx::encode(&HEAD, &Roster::Legacy(&members), 0, false, &mut out);
    assert_eq!(result, Err(refused));
    let form = RosterForm::Legacy;
    let result = ctx::encode_with_members(&HEAD, form, 0xFFFE, &[], false, &mut out);
    assert_eq!(result, Err(refused));
    assert_eq!(out, [9], "the buffer is as it was");
}

#[test]
fn a_full_roster_holds_65535_members_and_no_more() {
    let members = vec![Member::default(); 0x1_0000];
    let epoch = 1;
    let most = Roster::Full {
        epoch,
        members: &members[..0xFFFF],
    };
    let bytes = encoded(most, 0, false);
    assert_eq!(
        ctx::decode(&bytes, 0).unwrap().roster.members().count(),
        0xFFFF
    );

    let refused = CtxError::TooManyMembers {
        count: 0x1_0000,
        max: 0xFFFF,
    };
    let mut out = Vec::new();
    let all = Roster::Full {
        epoch,
        members: &members,
    };
    assert_eq!(ctx::encode(&HEAD, &all, 0, false, &mut out), Err(refused));
    assert_eq!(
        ctx::encode_members(members.into_iter(), 0, &mut out),
        Err(refused)
    );
    assert!(out.is_empty());
}

proptest! {
    #[test]
    fn a_context_survives_the_round_trip(
        head in any_head(),
        members in prop::collection::vec(any_member(), 0..6),
        features in 0u32..4,
        form in 0..3,
        epoch: u32,
        settled: bool,
        extras in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let with_character = features & CTX_FEATURE_CHARACTER != 0;
        let members: Vec<_> = members.iter().map(|m| m.borrow(with_character)).collect();
        let (roster, form) = match form {
            0 => (Roster::Legacy(&members), RosterForm::Legacy),
            1 => (Roster::Full { epoch, members: &members }, RosterForm::Full { epoch }),
            _ => (Roster::Unchanged { epoch }, RosterForm::Unchanged { epoch }),
        };
        let mut bytes = Vec::new();
        ctx::encode(&head, &roster, features, settled, &mut bytes).unwrap();

        let mut section = Vec::new();
        ctx::encode_members(members.iter().copied(), features, &mut section).unwrap();
        let mut around = Vec::new();
        let count = members.len() as u16;
        ctx::encode_with_members(&head, form, count, &section, settled, &mut around).unwrap();
        prop_assert_eq!(&around, &bytes, "cached members encode as the whole does");

        bytes.extend_from_slice(&extras);
        let decoded = ctx::decode(&bytes, features).unwrap();
        prop_assert_eq!(decoded.head, head);
        prop_assert_eq!(decoded.settled, settled);
        prop_assert_eq!(decoded.extras, &extras[..]);
        let read: Vec<_> = decoded.roster.members().collect();
        let again = match decoded.roster {
            DecodedRoster::Legacy(_) => Roster::Legacy(&read),
            DecodedRoster::Full { epoch, .. } => Roster::Full { epoch, members: &read },
            DecodedRoster::Unchanged { epoch } => Roster::Unchanged { epoch },
        };
        prop_assert_eq!(again, roster);
        if form != (RosterForm::Unchanged { epoch }) {
            prop_assert_eq!(decoded.roster.members().as_bytes(), &section[..]);
        }
    }

    // Three members of short lower-case names: no misaligned length can fit what is left, so the
    // misreading must run short. (Arbitrary bytes can be made to fit; nothing in the payload tells.)
    #[test]
    fn a_small_roster_read_with_characters_that_were_not_sent_is_short(
        names in prop::collection::vec(["[a-z]{1,10}", "[a-z]{1,10}", "[a-z]{1,10}"], 1..4),
        kind in prop::sample::select(Kind::ALL),
        settled: bool,
    ) {
        let members: Vec<_> = names.iter().map(|[handle, account, conn]| Member {
            handle: Text::new(handle),
            account: Text::new(account),
            conn: Text::new(conn),
            kind,
            ..Member::default()
        }).collect();
        let bytes = encoded(Roster::Legacy(&members), 0, settled);
        let read = ctx::decode(&bytes, CTX_FEATURE_CHARACTER);
        prop_assert_eq!(read.unwrap_err(), CtxError::Short);
    }
}
