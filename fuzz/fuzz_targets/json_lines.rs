//! Manifests of a node a line.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| forkyard::fuzz::json_lines(bytes));
