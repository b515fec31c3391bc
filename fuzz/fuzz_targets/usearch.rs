//! The reader of usearch files.

#![no_main]

use forkyard_shared::artifact::Format;
use forkyard_shared::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::read_as(Format::Usearch, bytes));
