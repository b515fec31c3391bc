//! One door to all formats: what a file holds, learnt with `pread` alone.

use std::fs::File;
use std::io::Write;

use super::error::no_part;
use super::{ArtifactError, Format, Layout, faiss, json, jsonl, npy, safetensors, table, usearch};

/// How a file is to be read.
pub struct Reading<'a> {
    /// Its format.
    pub format: Format,
    /// The part of it that is meant: a tensor, a column, a list.
    pub part: Option<&'a str>,
    /// The field of a record that is its key.
    pub key: &'a str,
    /// How much memory what must be decoded may take.
    pub limit_bytes: u64,
}

/// What is in `file`, which is `len` bytes long. What goes along with it (an offset table, names, a decoded table) is
/// written to `beside`, if there is anything.
pub fn read(
    file: &File,
    len: u64,
    reading: &Reading,
    beside: &mut dyn Write,
) -> Result<Layout, ArtifactError> {
    let Reading { format, part, key, limit_bytes } = *reading;
    if len == 0 && format != Format::Raw {
        return Err(ArtifactError::Empty);
    }
    Ok(match format {
        Format::Raw => Layout::Raw,
        Format::Npy => Layout::Npy(npy::read_npy(file, len)?),
        Format::Faiss => {
            let (shape, metric) = faiss::read_faiss(file, len)?;
            Layout::Faiss(shape, metric)
        }
        Format::Jsonl => {
            let (table, layout) = jsonl::index_jsonl(file, len, key)?;
            beside.write_all(&table)?;
            Layout::Jsonl(layout)
        }
        Format::Json => {
            let (table, layout) = json::index_json(file, len, key, part)?;
            beside.write_all(&table)?;
            Layout::Json(layout)
        }
        Format::Safetensors => {
            let tensors = safetensors::read_safetensors(file, len)?;
            match part {
                Some(part) => {
                    let found = tensors.iter().find(|(name, _)| name == part);
                    let names = tensors.iter().map(|(name, _)| name.as_str());
                    Layout::Tensor(found.ok_or_else(|| no_part(format, part, names))?.1.clone())
                }
                None => {
                    beside.write_all(&serde_json::to_vec(&tensors).expect("names and numbers are JSON"))?;
                    Layout::Safetensors(tensors.len() as u64)
                }
            }
        }
        Format::Usearch => {
            let (table, layout) = usearch::read_usearch(file, len)?;
            beside.write_all(&table)?;
            Layout::Usearch(layout)
        }
        Format::Arrow => table::read_arrow(file, len, part, limit_bytes, beside)?,
        Format::Parquet => table::read_parquet(file, len, part, limit_bytes, beside)?,
    })
}
