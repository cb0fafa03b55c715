//! Feeds `fuzzing::room_state`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cabinet_rooms::fuzzing::room_state(bytes));
