//! The real command, driven from outside. One binary, so that everything is linked once; a new test
//! belongs in the module that says so.

mod agents; // examples/agent-tests: nobody is asked twice
mod artifacts; // files that are mapped: what is refused, what the ops on them return, changes during a run
mod bombs; // what never ends, or is far too much: the limit that it meets, and what is said
mod broken; // manifests that are refused: the text and what is said of it, one table
mod chaos; // killed at random moments, by scripts/chaos
mod control; // commands around a run: --failed, cancel, pause, resume
mod docs; // the examples in docs/manifest.md; the tests that docs/reliability.md names
mod doctor; // what the machine allows, and what is said when that is too little
mod export; // results as tables for other programs
mod failures; // one test named after each row of the table of failures in docs/design.md
mod faults; // every system call of a run on its store, failing or the last one
mod formats; // files of other libraries: what nodes see in them, what is refused
mod import; // artifact import: pickles and torch files, and that nothing in them is run
mod language; // every word of the workflow language, through the real command
mod manifest; // files that are no manifest, or name others; the command line
mod memory; // what nodes take: who waits for room, what is done when it is short, limits, workers, presets, alerts, figures
mod plan; // what is known before a run; traces of other programs, imported
mod python; // Python nodes, `map`, and the module as a client
mod regression; // one test named after each bug that was fixed
mod rights; // who may do what: modes and owners of a store, what a worker can write to
mod run; // what a run does when nothing goes wrong: results, keys, the store, what is printed
mod search; // topk with many vectors, filters and other types; ann on indexes that usearch wrote
mod state; // variables that nodes share, by ops of a program of its own
mod store; // layouts, reading a store while a run goes on, checking and cleaning it
mod stress; // the pool under load, and what it leaves behind
mod sweep; // examples/embedding-sweep: its README, line by line
mod util; // the directory that a test runs in
mod why; // what the key of a node is made of, and what of it changed
