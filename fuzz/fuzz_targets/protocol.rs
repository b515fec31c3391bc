//! What workers say while a run goes on: a case of the model, and what becomes of each message in it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forkyard::fuzz::protocol(bytes));
