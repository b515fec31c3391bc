//! From the user's file to a checked plan. Everything that can be wrong with a manifest is found here,
//! before anything runs, with its file, line and column.

mod alerts;
mod build;
mod flow;
mod jsonl;
mod load;
mod mentions;
mod node;
mod problem;
mod python;
mod settings;
mod source;
mod tables;
mod used;
mod words;

pub(crate) use build::Outer;
pub(crate) use load::{load, load_made};
pub(crate) use node::kind_of;
pub use problem::ManifestError;
pub(crate) use python::{CONCURRENCY, PythonSettings};
pub(crate) use settings::{ArtifactEntry, OnFailure, Settings};
pub(crate) use words::{check_id, nearest, parse_duration, parse_size};
