//! The formats of artifacts and what was learnt about one file: plain values that cross the process
//! boundary. Knows nothing of the files themselves.

use std::path::Path;

use super::UsearchLayout;

/// How the bytes of an artifact are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Format {
    /// Bytes as they are.
    Raw,
    /// One numpy array.
    Npy,
    /// One JSON object a line.
    Jsonl,
    /// An index of the library usearch.
    Usearch,
}

impl Format {
    /// The format that the suffix of `path` says; without a known suffix the bytes are raw.
    pub fn from_path(path: &Path) -> Format {
        match path.extension().and_then(|suffix| suffix.to_str()) {
            Some("npy") => Format::Npy,
            Some("jsonl") => Format::Jsonl,
            Some("usearch") => Format::Usearch,
            _ => Format::Raw,
        }
    }

    /// The format that a manifest calls `name`.
    pub fn from_name(name: &str) -> Option<Format> {
        [Format::Raw, Format::Npy, Format::Jsonl, Format::Usearch]
            .into_iter()
            .find(|format| format.name() == name)
    }

    /// Its name in manifests and events.
    pub fn name(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Npy => "npy",
            Format::Jsonl => "jsonl",
            Format::Usearch => "usearch",
        }
    }
}

/// The type of a matrix element; always little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum Dtype {
    F16,
    BF16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
}

impl Dtype {
    /// numpy's name for it (that of bfloat16 is of the package ml_dtypes).
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F16 => "float16",
            Dtype::BF16 => "bfloat16",
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
            Dtype::I8 | Dtype::U8 => 1,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 | Dtype::U16 => 2,
            Dtype::F32 | Dtype::I32 | Dtype::U32 => 4,
            Dtype::F64 | Dtype::I64 | Dtype::U64 => 8,
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

/// What is known of a JSON Lines file, beside its offset table.
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
    /// They are vectors and a graph of neighbours.
    Usearch(UsearchLayout),
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
