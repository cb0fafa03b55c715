//! Feeds `fuzzing::room_object_name`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cabinet_durability::fuzzing::room_object_name(bytes));
