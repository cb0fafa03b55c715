//! Feeds `fuzzing::reference_record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cabinet_durability::fuzzing::reference_record(bytes));
