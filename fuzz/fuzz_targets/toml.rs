//! Manifests in TOML.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forkyard::fuzz::toml(bytes));
