//! What follows the context of `join`, `leave` and `input`.

use cabinet_wire::input::{self, Input, InputError};
use cabinet_wire::{INDEX_BYTES, INPUT_BYTES, Key};
use proptest::prelude::*;

#[test]
fn a_rune_and_a_key_have_their_layouts() {
    let mut out = Vec::new();
    input::encode(1, &Input::Rune(0xE9), &mut out);
    assert_eq!(out, [1, 0, 0, 0, 0, 0xE9, 0, 0, 0, 0]);
    out.clear();
    input::encode(0x0102, &Input::Key(Key::CtrlC), &mut out);
    assert_eq!(out, [2, 1, 0, 0, 1, 0, 0, 0, 0, 9]);
    assert_eq!(out.len(), INPUT_BYTES);
}

#[test]
fn kinds_and_keys_of_a_later_revision_are_told_apart_from_short_payloads() {
    let of = |kind, key| input::decode(&[0, 0, 0, 0, kind, 0, 0, 0, 0, key]);
    assert_eq!(of(2, 0), Err(InputError::UnknownKind(2)));
    assert_eq!(of(1, 0), Err(InputError::UnknownKey(0)));
    assert_eq!(of(1, 10), Err(InputError::UnknownKey(10)));
    assert_eq!(
        of(0, 10),
        Ok((0, Input::Rune(0))),
        "a rune's key is not looked at"
    );
}

#[test]
fn every_truncation_is_short_and_trailing_bytes_are_ignored() {
    let mut out = Vec::new();
    input::encode(7, &Input::Key(Key::Up), &mut out);
    for len in 0..INPUT_BYTES {
        assert_eq!(input::decode(&out[..len]), Err(InputError::Short));
    }
    out.push(0xFF);
    assert_eq!(input::decode(&out), Ok((7, Input::Key(Key::Up))));

    for len in 0..INDEX_BYTES {
        assert_eq!(input::decode_index(&out[..len]), Err(InputError::Short));
    }
    assert_eq!(input::decode_index(&out), Ok(7));
}

proptest! {
    #[test]
    fn an_input_survives_the_round_trip(
        player: u32,
        input in prop_oneof![
            any::<u32>().prop_map(Input::Rune),
            prop::sample::select(Key::ALL).prop_map(Input::Key),
        ],
    ) {
        let mut bytes = Vec::new();
        input::encode(player, &input, &mut bytes);
        prop_assert_eq!(input::decode(&bytes), Ok((player, input)));
        bytes.clear();
        input::encode_index(player, &mut bytes);
        prop_assert_eq!(input::decode_index(&bytes), Ok(player));
    }
}
