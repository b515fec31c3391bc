//! Bugs that were fixed, one test each, with a sentence about what broke.
