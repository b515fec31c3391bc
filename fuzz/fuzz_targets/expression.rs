//! Texts with expressions in them.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forkyard::fuzz::expression(bytes));
