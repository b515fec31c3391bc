//! The header of a flat FAISS index (`faiss.write_index`), whose vectors lie in it as they are. Reads the header alone;
//! every other kind of index is refused by its name.
//!
//! ```text
//!  0      4       8          16              32        33        37       45
//! +------+-------+----------+---------------+---------+---------+--------+---------------------+
//! | kind | d, u32| rows, u64| 2 unused u64  | trained | metric, | d*rows,| vectors, f32,       |
//! |      |       |          |               | u8      | i32     | u64    | row after row       |
//! +------+-------+----------+---------------+---------+---------+--------+---------------------+
//!   IxFI, IxF2 (IxFl: by its metric)                   0: inner product, 1: squared L2
//! ```

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::error::unreadable;
use super::{ArtifactError, Dtype, Format, Shape};
use crate::scan::Metric;

const HEADER_BYTES: u64 = 45;

/// The vectors of the flat index in `file`, which is `len` bytes long, and how it compares them.
pub fn read_faiss(file: &File, len: u64) -> Result<(Shape, Metric), ArtifactError> {
    let wrong = |reason: String| Err(unreadable(Format::Faiss, reason));
    let mut header = [0; HEADER_BYTES as usize];
    let read = file.read_at(&mut header, 0)?;
    let kind = &header[..4.min(read)];
    if !matches!(kind, b"IxFI" | b"IxF2" | b"IxFl") {
        let (code, what) = (String::from_utf8_lossy(kind), kind_name(kind));
        return match what {
            Some(what) => wrong(format!(
                "it is {what} ({code}), and only flat ones (IndexFlatIP, IndexFlatL2) can be searched in place; \
                 write its vectors into one, or into a usearch index"
            )),
            None => wrong(format!("it does not start as an index does, but with {code:?}")),
        };
    }
    if (read as u64) < HEADER_BYTES {
        return wrong(format!("its header is cut short: it has {read} bytes of {HEADER_BYTES}"));
    }
    let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let (cols, rows, elements) = (u64::from(word(4)), number(8), number(37));
    let metric = match word(33) {
        0 => Metric::Dot,
        1 => Metric::L2,
        other => {
            return wrong(format!("its metric is number {other}; only inner product and L2 can be read"));
        }
    };
    if rows == 0 || cols == 0 {
        return Err(ArtifactError::NoElements { rows, cols });
    }
    let shape = Shape { dtype: Dtype::F32, rows, cols, one_dimensional: false, offset: HEADER_BYTES };
    let Some(promised_bytes) = shape.end() else { return Err(ArtifactError::Overflow) };
    // Newer versions count bytes in units of four, older ones elements: the same number.
    if rows.checked_mul(cols) != Some(elements) {
        return wrong(format!(
            "its header says {rows} vectors of {cols} numbers, and then {elements} numbers"
        ));
    }
    if promised_bytes != len {
        return wrong(format!(
            "by its header it should have {promised_bytes} bytes, but it has {len}; write it again"
        ));
    }
    Ok((shape, metric))
}

/// What FAISS calls an index that starts with these four letters.
fn kind_name(kind: &[u8]) -> Option<&'static str> {
    Some(match kind {
        b"IwFl" | b"IvFl" | b"IvFL" => "an IVF flat index",
        b"IwSq" | b"IvSQ" | b"IwSQ" => "an IVF index with a scalar quantizer",
        b"IwPQ" | b"IvPQ" | b"IwQR" | b"IvQR" | b"IwPf" => "an IVF index with a product quantizer",
        b"IwSh" => "an IVF spectral hash index",
        b"IwRf" | b"IxRF" | b"IxRq" => "a refined index",
        b"IHNf" => "an HNSW flat index",
        b"IHNp" => "an HNSW index with a product quantizer",
        b"IHNs" => "an HNSW index with a scalar quantizer",
        b"IHN2" => "an HNSW index over a two-level quantizer",
        b"INSf" | b"INSp" | b"INSs" => "an NSG index",
        b"INNf" => "an NN-descent index",
        b"IxPQ" | b"IxPo" | b"IxPq" => "a product quantizer index",
        b"IxSQ" | b"IxSq" => "a scalar quantizer index",
        b"IxHE" | b"IxHe" => "an LSH index",
        b"IxPT" => "an index with a transform before it",
        b"IxMp" | b"IxM2" => "an index with ids of its own (IndexIDMap)",
        b"IBxF" | b"IBwF" | b"IBHf" | b"IBMp" | b"IBM2" | b"IBHh" | b"IBFf" => "an index of binary vectors",
        [b'I', ..] if kind.len() == 4 && kind.iter().all(u8::is_ascii_alphanumeric) => {
            "an index of another kind"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::digest::Digest;

    fn index(kind: &[u8; 4], metric: i32, rows: u64, cols: u32, floats: usize) -> Vec<u8> {
        let mut bytes = [&kind[..], &cols.to_le_bytes(), &rows.to_le_bytes(), &[0; 16], &[1]].concat();
        bytes.extend(metric.to_le_bytes());
        bytes.extend((rows.wrapping_mul(u64::from(cols))).to_le_bytes());
        bytes.resize(bytes.len() + 4 * floats, 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<(Shape, Metric), ArtifactError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read_faiss(&file, bytes.len() as u64)
    }

    #[track_caller]
    fn refused(bytes: &[u8], why: &str) {
        let message = read(bytes).unwrap_err().to_string();
        assert!(message.contains(why), "{message:?} does not say {why:?}");
    }

    #[test]
    fn a_flat_index_is_a_matrix_with_a_metric() {
        let (shape, metric) = read(&index(b"IxFI", 0, 3, 2, 6)).unwrap();
        assert_eq!((shape.rows, shape.cols, shape.offset, metric), (3, 2, 45, Metric::Dot));
        assert_eq!(read(&index(b"IxF2", 1, 3, 2, 6)).unwrap().1, Metric::L2);
        assert_eq!(read(&index(b"IxFl", 1, 3, 2, 6)).unwrap().1, Metric::L2);
    }

    #[test]
    fn other_kinds_and_lies_are_refused() {
        refused(&index(b"IwFl", 0, 3, 2, 6), "an IVF flat index (IwFl)");
        refused(&index(b"IHNf", 0, 3, 2, 6), "an HNSW flat index (IHNf)");
        refused(&index(b"IZZZ", 0, 3, 2, 6), "an index of another kind (IZZZ)");
        refused(b"PK\x03\x04", "does not start as an index does");
        refused(b"", "does not start as an index does");
        refused(&index(b"IxFI", 3, 3, 2, 6), "its metric is number 3");
        refused(&index(b"IxFI", 0, 3, 2, 5), "should have 69 bytes, but it has 65");
        refused(&index(b"IxFI", 0, 3, 2, 7), "should have 69 bytes, but it has 73");
        refused(&index(b"IxFI", 0, 0, 2, 0), "no rows");
        refused(&index(b"IxFI", 0, u64::MAX, 2, 0), "larger than any file");
        refused(&index(b"IxFI", 0, 3, 2, 6)[..44], "its header is cut short");
        let mut lying = index(b"IxFI", 0, 3, 2, 6);
        lying[37] = 5;
        refused(&lying, "3 vectors of 2 numbers, and then 5 numbers");
    }

    #[test]
    fn files_of_the_library_are_read_or_refused_for_what_they_are() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/formats/faiss");
        let Ok(expected) = std::fs::read(format!("{folder}/expected.json")) else {
            println!("skipped: ../shared/data/formats/faiss is absent");
            return;
        };
        let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
        for (name, expected) in expected["files"].as_object().unwrap() {
            let bytes = std::fs::read(format!("{folder}/{name}")).unwrap();
            if !name.starts_with("flat") {
                refused(&bytes, expected["fourcc"].as_str().unwrap());
                continue;
            }
            let (shape, metric) = read(&bytes).unwrap();
            assert_eq!((shape.rows, shape.cols), (1000, 64), "{name}");
            assert_eq!(metric, [Metric::Dot, Metric::L2][expected["metric_type"].as_u64().unwrap() as usize]);
            let vectors = &bytes[shape.offset as usize..shape.end().unwrap() as usize];
            assert_eq!(expected["vectors_sha256"], Digest::of(vectors).to_hex(), "{name}");
        }
    }
}
