//! Artifacts: what their files hold, learnt with `pread` alone, and views over their mapped bytes.
//!
//! [`read`] reads a file's structure and makes a [`Layout`]; it runs in the coordinator, which never maps an artifact
//! (no SIGBUS can take it). [`Matrix`] and [`Records`] are views for workers: a layout or an offset table, and the bytes
//! of the mapping. Nothing here knows of paths, names or mappings.

mod error;
mod faiss;
mod json;
mod jsonl;
mod key;
mod layout;
mod matrix;
mod npy;
mod read;
mod records;
mod safetensors;
mod table;
mod usearch;

pub use error::ArtifactError;
pub use jsonl::index_jsonl;
pub use layout::{Array, Dtype, Format, JsonlLayout, Layout, Shape};
pub use matrix::Matrix;
pub use npy::read_npy;
pub use read::{Reading, read};
pub use records::{RECORDS_HEADER_BYTES, Records};
pub use table::{Column, Table};
pub use usearch::{Usearch, UsearchLayout};
