//! Databases of stores; `tests/fixtures/store-1` has a corpus.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forkyard::fuzz::database(bytes));
