//! The formats of artifacts and what was learnt about one file: plain values that cross the process
//! boundary. Knows nothing of the files themselves.

use std::path::{Path, PathBuf};

use super::UsearchLayout;
use crate::scan::Metric;

/// How the bytes of an artifact are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Format {
    /// Bytes as they are.
    Raw,
    /// One numpy array.
    Npy,
    /// One JSON object a line.
    Jsonl,
    /// One JSON document: records in a list, or in an object by key.
    Json,
    /// Tensors by name.
    Safetensors,
    /// A flat index of FAISS.
    Faiss,
    /// Arrow IPC, a file or a stream.
    Arrow,
    /// Parquet.
    Parquet,
    /// An index of the library usearch.
    Usearch,
}

impl Format {
    /// All of them.
    pub const ALL: &[Format] = &[
        Format::Raw,
        Format::Npy,
        Format::Jsonl,
        Format::Json,
        Format::Safetensors,
        Format::Faiss,
        Format::Arrow,
        Format::Parquet,
        Format::Usearch,
    ];

    /// The format that the suffix of `path` says; without a known suffix the bytes are raw.
    pub fn from_path(path: &Path) -> Format {
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("npy") => Format::Npy,
            Some("jsonl") => Format::Jsonl,
            Some("json") => Format::Json,
            Some("safetensors") => Format::Safetensors,
            Some("faiss") => Format::Faiss,
            Some("arrow" | "arrows" | "feather" | "ipc") => Format::Arrow,
            Some("parquet") => Format::Parquet,
            Some("usearch") => Format::Usearch,
            _ => Format::Raw,
        }
    }

    /// The format that a manifest calls `name`.
    pub fn from_name(name: &str) -> Option<Format> {
        Format::ALL.iter().copied().find(|format| format.name() == name)
    }

    /// Its name in manifests and events.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Npy => "npy",
            Format::Jsonl => "jsonl",
            Format::Json => "json",
            Format::Safetensors => "safetensors",
            Format::Faiss => "faiss",
            Format::Arrow => "arrow",
            Format::Parquet => "parquet",
            Format::Usearch => "usearch",
        }
    }

    /// All names, for those who wrote another: `raw, npy, ...`.
    pub fn names() -> String {
        Format::ALL.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ")
    }

    /// What `path#part` calls a part of such a file; `None` where it has none.
    pub fn part_noun(self) -> Option<&'static str> {
        match self {
            Format::Json => Some("list"),
            Format::Safetensors => Some("tensor"),
            Format::Arrow | Format::Parquet => Some("column"),
            Format::Raw | Format::Npy | Format::Jsonl | Format::Faiss | Format::Usearch => None,
        }
    }

    /// A file and the part of it that `path` names: what comes after the first `#` that follows a suffix of a format
    /// with parts. (Any other `#` belongs to the name of the file.)
    pub fn split_part(path: &Path) -> (PathBuf, Option<String>) {
        let whole = || (path.to_path_buf(), None);
        let Some(text) = path.to_str() else { return whole() };
        let parts = text.match_indices('#').map(|(at, _)| (&text[..at], &text[at + 1..]));
        let found = parts.into_iter().find(|(file, part)| {
            !part.is_empty() && Format::from_path(Path::new(file)).part_noun().is_some()
        });
        found.map_or_else(whole, |(file, part)| (file.into(), Some(part.into())))
    }
}

/// The type of an element; always little-endian.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode, serde::Serialize, serde::Deserialize,
)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Dtype {
    #[serde(rename = "float8_e4m3fn")]
    F8E4M3,
    #[serde(rename = "float8_e5m2")]
    F8E5M2,
    #[serde(rename = "float16")]
    F16,
    #[serde(rename = "bfloat16")]
    BF16,
    #[serde(rename = "float32")]
    F32,
    #[serde(rename = "float64")]
    F64,
    #[serde(rename = "complex64")]
    C64,
    #[serde(rename = "bool")]
    Bool,
    #[serde(rename = "int8")]
    I8,
    #[serde(rename = "int16")]
    I16,
    #[serde(rename = "int32")]
    I32,
    #[serde(rename = "int64")]
    I64,
    #[serde(rename = "uint8")]
    U8,
    #[serde(rename = "uint16")]
    U16,
    #[serde(rename = "uint32")]
    U32,
    #[serde(rename = "uint64")]
    U64,
}

impl Dtype {
    /// numpy's name for it; of `bfloat16` and the small floats, that of the package ml_dtypes.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F8E4M3 => "float8_e4m3fn",
            Dtype::F8E5M2 => "float8_e5m2",
            Dtype::BF16 => "bfloat16",
            Dtype::C64 => "complex64",
            Dtype::Bool => "bool",
            Dtype::F16 => "float16",
            Dtype::F32 => "float32",
            Dtype::F64 => "float64",
            Dtype::I8 => "int8",
            Dtype::I16 => "int16",
            Dtype::I32 => "int32",
            Dtype::I64 => "int64",
            Dtype::U8 => "uint8",
            Dtype::U16 => "uint16",
            Dtype::U32 => "uint32",
            Dtype::U64 => "uint64",
        }
    }

    /// The bytes of one element.
    pub fn size_bytes(self) -> u64 {
        match self {
            Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::Bool | Dtype::I8 | Dtype::U8 => 1,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F64 | Dtype::C64 | Dtype::I64 | Dtype::U64 => 8,
        }
    }
}

/// Where a matrix lies in its file: row after row, from `offset` to the end.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Shape {
    /// The type of its elements.
    pub dtype: Dtype,
    /// How many rows; the length of a one-dimensional array.
    pub rows: u64,
    /// How many columns; 1 for a one-dimensional array.
    pub cols: u64,
    /// Whether the array has one dimension, and its column is only our way to see it.
    pub one_dimensional: bool,
    /// Where in the file the first element is. Any number: readers must not expect alignment.
    pub offset: u64,
}

impl Shape {
    /// The byte of the file after the last element; `None` when it is past all numbers.
    pub fn end(&self) -> Option<u64> {
        let elements = self.rows.checked_mul(self.cols)?;
        elements.checked_mul(self.dtype.size_bytes())?.checked_add(self.offset)
    }
}

/// An array of any number of dimensions, its last one running fastest.
#[derive(
    Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode, serde::Serialize, serde::Deserialize,
)]
pub struct Array {
    /// The type of its elements.
    pub dtype: Dtype,
    /// The length of each dimension.
    pub shape: Vec<u64>,
    /// Where its first element is. Any number, as in [`Shape`].
    pub offset: u64,
}

impl Array {
    /// How many bytes its elements take; `None` when that is past all numbers.
    pub fn len_bytes(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.dtype.size_bytes(), |bytes, &length| bytes.checked_mul(length))
    }

    /// The same as a matrix: an array of one or two dimensions that has elements.
    pub fn matrix(&self) -> Option<Shape> {
        let (rows, cols) = match self.shape[..] {
            [rows] => (rows, 1),
            [rows, cols] => (rows, cols),
            _ => return None,
        };
        let one_dimensional = self.shape.len() == 1;
        let shape = Shape { dtype: self.dtype, rows, cols, one_dimensional, offset: self.offset };
        (rows > 0 && cols > 0).then_some(shape)
    }

    /// `float32 [3, 4]`.
    pub fn describe(&self) -> String {
        format!("{} {:?}", self.dtype.name(), self.shape)
    }
}

/// What is known of the records of a JSON Lines file or a JSON document, beside their offset table.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct JsonlLayout {
    /// How many records.
    pub records: u64,
    /// How many of them have a key, so that they can be found by it.
    pub keyed: u64,
}

/// What is known of an artifact's bytes.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Layout {
    /// Nothing.
    Raw,
    /// They are a matrix behind a numpy header.
    Npy(Shape),
    /// They are records, one a line.
    Jsonl(JsonlLayout),
    /// They are records in a document.
    Json(JsonlLayout),
    /// They are a matrix behind a header of FAISS, which says how its rows are compared.
    Faiss(Shape, Metric),
    /// They are so many tensors; the second descriptor names them.
    Safetensors(u64),
    /// One tensor of them.
    Tensor(Array),
    /// The second descriptor is a table that was decoded from them: so many rows and columns.
    Table {
        /// How many rows.
        rows: u64,
        /// How many columns.
        columns: u64,
    },
    /// The second descriptor is a table of one column that is an array without gaps.
    Column(Array),
    /// They are vectors and a graph of neighbours.
    Usearch(UsearchLayout),
}

impl Layout {
    /// The matrix that the artifact is, if it is one; [`Layout::Column`]'s lies in the second descriptor.
    pub fn matrix(&self) -> Option<Shape> {
        match self {
            Layout::Npy(shape) | Layout::Faiss(shape, _) => Some(shape.clone()),
            Layout::Tensor(array) | Layout::Column(array) => array.matrix(),
            Layout::Raw
            | Layout::Jsonl(_)
            | Layout::Json(_)
            | Layout::Safetensors(_)
            | Layout::Table { .. }
            | Layout::Usearch(_) => None,
        }
    }

    /// How many rows or records it has; bytes have none.
    pub fn rows(&self) -> Option<u64> {
        match self {
            Layout::Raw | Layout::Safetensors(_) => None,
            Layout::Npy(shape) | Layout::Faiss(shape, _) => Some(shape.rows),
            Layout::Jsonl(records) | Layout::Json(records) => Some(records.records),
            Layout::Tensor(array) | Layout::Column(array) => array.shape.first().copied(),
            Layout::Table { rows, .. } => Some(*rows),
            Layout::Usearch(index) => Some(index.vectors.rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_come_from_suffixes_and_words() {
        assert_eq!(Format::from_path(Path::new("a/m.f16.npy")), Format::Npy);
        assert_eq!(Format::from_path(Path::new("tools.jsonl")), Format::Jsonl);
        assert_eq!(Format::from_path(Path::new("npy")), Format::Raw);
        assert_eq!(Format::from_name("jsonl"), Some(Format::Jsonl));
        assert_eq!(Format::from_name("numpy"), None);
        assert!(Format::ALL.iter().all(|&format| Format::from_name(format.name()) == Some(format)));
    }

    #[test]
    fn a_part_is_what_follows_a_suffix() {
        let split = |path: &str| {
            let (file, part) = Format::split_part(Path::new(path));
            (file.to_str().unwrap().to_owned(), part.unwrap_or_default())
        };
        let pair = |file: &str, part: &str| (file.to_owned(), part.to_owned());
        assert_eq!(split("d/w.safetensors#layer/1#b"), pair("d/w.safetensors", "layer/1#b"));
        assert_eq!(split("c#/t.parquet#vec"), pair("c#/t.parquet", "vec"));
        for whole in ["m.npy#1", "w.safetensors", "w.safetensors#", "a#b"] {
            assert_eq!(split(whole), pair(whole, ""));
        }
    }

    #[test]
    fn a_layout_crosses_a_process_boundary() {
        let shape = Shape { dtype: Dtype::F16, rows: 3, cols: 1, one_dimensional: true, offset: 128 };
        let sent = Layout::Npy(shape);
        let config = bincode::config::standard();
        let bytes = bincode::encode_to_vec(&sent, config).unwrap();
        let (received, _) = bincode::decode_from_slice::<Layout, _>(&bytes, config).unwrap();
        assert_eq!(received, sent);
    }
}
