//! Feeds `fuzzing::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cabinet_durability::fuzzing::record(bytes));
