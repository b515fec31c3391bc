//! Artifacts: what their files hold, learnt with `pread` alone, and views over their mapped bytes.
//!
//! [`read_npy`] and [`index_jsonl`] read a file's structure and make a [`Layout`]; they run in the
//! coordinator, which never maps an artifact (no SIGBUS can take it). [`Matrix`] and [`Records`] are
//! views for workers: a layout or an offset table, and the bytes of the mapping. Nothing here knows
//! of paths, names or mappings.

mod error;
mod jsonl;
mod key;
mod layout;
mod matrix;
mod npy;
mod records;
mod usearch;

pub use error::ArtifactError;
pub use jsonl::index_jsonl;
pub use layout::{Dtype, Format, JsonlLayout, Layout, Shape};
pub use matrix::Matrix;
pub use npy::read_npy;
pub use records::Records;
pub use usearch::{Usearch, UsearchLayout, read_usearch};
