//! One entry for each reader of foreign bytes, for `fuzz/` and for the short run in the tests: whatever the bytes are,
//! it must not panic, hang, or take memory without bound; and what it accepts must be readable to the end.

mod run;

use std::fs::File;
use std::io::Write;

use crate::ann::Walk;
use crate::artifact::{Array, Format, Layout, Matrix, Reading, Records, Table, Usearch, read};
use crate::mapping;

pub use run::{corpus, run};

/// What a table may take once decoded.
const LIMIT_BYTES: u64 = 64 << 20;

/// Reads `bytes` as `format`, and then all that is said to be in them.
pub fn read_as(format: Format, bytes: &[u8]) {
    let mut file = mapping::unsealed("forkyard-fuzz").expect("a memory file");
    file.write_all(bytes).expect("room for the bytes");
    read_part(format, bytes, &file, None);
    if format.part_noun().is_some() {
        // One that every corpus has.
        read_part(format, bytes, &file, Some("x"));
    }
}

fn read_part(format: Format, bytes: &[u8], file: &File, part: Option<&str>) {
    let reading = Reading { format, part, key: "id", limit_bytes: LIMIT_BYTES };
    let mut beside = Vec::new();
    let Ok(layout) = read(file, bytes.len() as u64, &reading, &mut beside) else { return };
    let lies_in = |array: &Array, bytes: &[u8]| {
        let end = array.len_bytes().and_then(|len| len.checked_add(array.offset));
        assert!(end.is_some_and(|end| end <= bytes.len() as u64), "{array:?} in {} bytes", bytes.len());
    };
    match &layout {
        Layout::Raw => {}
        Layout::Npy(shape) | Layout::Faiss(shape, _) => {
            let matrix = Matrix::new(shape, bytes).expect("it was checked");
            assert!(matrix.row_bytes(shape.rows - 1).is_some());
        }
        Layout::Jsonl(_) | Layout::Json(_) => {
            let records = Records::new(bytes, &beside).expect("our own table");
            assert!((0..records.len()).all(|row| records.row(row).is_some_and(|record| !record.is_empty())));
        }
        Layout::Safetensors(_) => {
            let tensors: Vec<(String, Array)> = serde_json::from_slice(&beside).expect("our own names");
            tensors.iter().for_each(|(_, array)| lies_in(array, bytes));
        }
        Layout::Tensor(array) => lies_in(array, bytes),
        Layout::Usearch(layout) => {
            let index = Usearch::new(layout, bytes, &beside).expect("our own table");
            let vector = vec![1.0; layout.vectors.cols as usize];
            Walk::default().nearest(&index, &vector, 3, 8).expect("a vector of its length");
        }
        Layout::Column(array) => lies_in(array, &beside),
        Layout::Table { rows, .. } => {
            let table = Table::new(&beside).expect("our own table");
            for row in (0..*rows).take(100).chain(rows.checked_sub(1)) {
                assert!(table.row(row).is_some(), "row {row} of {rows}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn mutations(format: Format, rounds: u64) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
        let data = root.join("../shared/data/formats");
        let folders =
            [root.join("fuzz/corpus").join(format.name()), data.join(format.name()), data.join("arrow")];
        let corpus = run::read_all(&folders, |file| {
            Format::from_path(file) == format && !file.ends_with("expected.json")
        });
        run(format.name(), &corpus, rounds, |bytes| read_as(format, bytes));
    }

    #[test]
    fn npy() {
        mutations(Format::Npy, 200);
    }

    #[test]
    fn jsonl() {
        mutations(Format::Jsonl, 1000);
    }

    #[test]
    fn json() {
        mutations(Format::Json, 500);
    }

    #[test]
    fn safetensors() {
        mutations(Format::Safetensors, 500);
    }

    #[test]
    fn faiss() {
        mutations(Format::Faiss, 500);
    }

    #[test]
    fn usearch() {
        mutations(Format::Usearch, 500);
    }

    #[test]
    fn arrow() {
        mutations(Format::Arrow, 250);
    }

    #[test]
    fn parquet() {
        mutations(Format::Parquet, 250);
    }
}
