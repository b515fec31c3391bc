//! Reads a JSON Lines file once and makes its offset table (drawn in [`super::Records`]'s file).
//! Checks that each line is a JSON object; knows nothing of what is in it but the key.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::key::{NotARecord, record_key};
use super::records::{KeyedBy, hash, hash_slots, key_of, table};
use super::{ArtifactError, JsonlLayout};

const CHUNK_BYTES: usize = 1 << 20;

/// Keeps memory bounded when a file is not JSON Lines at all.
const LINE_MAX_BYTES: u64 = 64 << 20;

/// The offset table of `file`, which is `len` bytes long, with an index from the string (or whole
/// number) in each record's `key_field` to its row. Blank lines do not count as rows; a record without
/// the field can be found by row only. Memory: some 70 bytes a record while the table is made (the
/// table itself is at most 32), and one line.
pub fn index_jsonl(file: &File, len: u64, key_field: &str) -> Result<(Vec<u8>, JsonlLayout), ArtifactError> {
    file.read_at(&mut [0], 0)?; // Fails for a directory, whatever its length.
    if len == 0 {
        return Err(ArtifactError::Empty);
    }
    let index = Index::read(file, len, key_field)?;
    let slots = hash_slots(&index.keys, |first, second| index.must_differ(file, first, second))?;
    let (records, keyed) = (index.spans.len() as u64, index.keys.len() as u64);
    Ok((table(KeyedBy::Field, &index.spans, &slots, key_field), JsonlLayout { records, keyed }))
}

struct Index<'a> {
    key_field: &'a str,
    /// Where each record is.
    spans: Vec<Range<u64>>,
    /// The hash of each key, and its row.
    keys: Vec<(u64, u64)>,
}

impl Index<'_> {
    fn read<'a>(file: &File, len: u64, key_field: &'a str) -> Result<Index<'a>, ArtifactError> {
        let mut index = Index { key_field, spans: Vec::new(), keys: Vec::new() };
        let mut reader = BufReader::with_capacity(CHUNK_BYTES, Sequential { file, at: 0 }.take(len));
        let (mut text, mut line, mut at) = (Vec::new(), 0, 0);
        loop {
            text.clear();
            let longest = LINE_MAX_BYTES + 1;
            let bytes = reader.by_ref().take(longest).read_until(b'\n', &mut text)? as u64;
            if bytes == 0 {
                break;
            }
            line += 1;
            if bytes == longest {
                return Err(ArtifactError::LineTooLong { line, max_bytes: LINE_MAX_BYTES });
            }
            if !text.trim_ascii().is_empty() {
                let key = record_key(text.trim_ascii_end(), key_field)
                    .map_err(|NotARecord { column, reason }| ArtifactError::Json { line, column, reason })?;
                index.keys.extend(key.map(|key| (hash(&key), index.spans.len() as u64)));
                let blank = text.len() - text.trim_ascii_start().len();
                index.spans.push(at + blank as u64..at + text.trim_ascii_end().len() as u64);
            }
            at += bytes;
        }
        if at < len {
            return Err(ArtifactError::Shrank);
        }
        if index.spans.is_empty() {
            return Err(ArtifactError::NoRecords);
        }
        Ok(index)
    }

    fn must_differ(&self, file: &File, first: u64, second: u64) -> Result<(), ArtifactError> {
        match self.key(file, first)? {
            Some(key) if self.key(file, second)?.as_ref() == Some(&key) => Err(ArtifactError::DuplicateKey {
                key,
                field: self.key_field.to_owned(),
                first_line: line_number(file, self.spans[first as usize].start)?,
                second_line: line_number(file, self.spans[second as usize].start)?,
            }),
            _ => Ok(()),
        }
    }

    fn key(&self, file: &File, row: u64) -> io::Result<Option<String>> {
        let span = &self.spans[row as usize];
        let mut record = vec![0; (span.end - span.start) as usize];
        file.read_exact_at(&mut record, span.start)?;
        // It was a record a moment ago. If the file changes meanwhile, the run finds out by itself.
        Ok(key_of(KeyedBy::Field, &record, self.key_field))
    }
}

/// The number, from 1, of the line that starts at byte `offset`.
fn line_number(file: &File, offset: u64) -> io::Result<u64> {
    let before = BufReader::with_capacity(CHUNK_BYTES, Sequential { file, at: 0 }.take(offset));
    before.split(b'\n').try_fold(1, |line, text| text.map(|_| line + 1))
}

/// Reads on from byte `at` with `pread`, so that nobody else's position is moved.
struct Sequential<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Sequential<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read_at(buffer, self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn index(text: &[u8]) -> Result<(Vec<u8>, JsonlLayout), ArtifactError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        index_jsonl(&file, text.len() as u64, "id")
    }

    fn refusal(text: &[u8]) -> String {
        index(text).unwrap_err().to_string()
    }

    #[test]
    fn rows_and_keys_are_counted() {
        let (_, layout) = index(b"\n{\"id\": \"a\"}\n\n{}\n{\"id\": 2}").unwrap();
        assert_eq!(layout, JsonlLayout { records: 3, keyed: 2 });
    }

    #[test]
    fn an_error_names_line_and_column() {
        assert_eq!(
            refusal(b"{}\n\n{\"a\" 1}\n"),
            "line 3, column 6: expected `:`; each line must be one JSON object"
        );
        assert!(refusal(b"{}\n[]\n").starts_with("line 2, column "));
        assert!(refusal(b"{\n}\n").starts_with("line 1, column 1: EOF"));
        assert!(refusal(b"{}\n{\"a\": \"\xff\"}").starts_with("line 2, column 8: "));
    }

    #[test]
    fn a_duplicate_key_names_both_lines() {
        assert_eq!(
            refusal(b"\n{\"id\": \"a\"}\n{}\n\n{\"id\": \"b\"}\n{\"id\": \"a\"}\n"),
            "lines 2 and 6 have the same \"id\", \"a\"; each key may occur only once"
        );
        assert!(refusal(b"{\"id\": 1}\n{\"id\": \"1\"}").starts_with("lines 1 and 2 "));
    }

    #[test]
    fn a_file_without_records_is_refused() {
        assert_eq!(refusal(b""), "the file is empty");
        assert_eq!(refusal(b"\n \r\n"), "the file has no records, only blank lines");
    }

    #[test]
    fn a_directory_and_a_file_that_shrinks_are_named() {
        let directory = File::open(std::env::temp_dir()).unwrap();
        assert!(matches!(index_jsonl(&directory, 0, "id"), Err(ArtifactError::Directory)));
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"{}\n").unwrap();
        assert!(matches!(index_jsonl(&file, 9, "id"), Err(ArtifactError::Shrank)));
    }

    #[test]
    fn lines_longer_than_a_chunk_are_read_and_endless_ones_are_not() {
        let long = format!("{{\"id\": \"{}\"}}\n{{}}\n", "x".repeat(3 * CHUNK_BYTES));
        assert_eq!(index(long.as_bytes()).unwrap().1, JsonlLayout { records: 2, keyed: 1 });
        let endless = tempfile::tempfile().unwrap();
        let len = LINE_MAX_BYTES + 2;
        endless.set_len(len).unwrap();
        let error = index_jsonl(&endless, len, "id").unwrap_err();
        assert!(matches!(error, ArtifactError::LineTooLong { line: 1, .. }), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in "([{}\",:a1 \\n\\\\]|\"id\":|\\{\"id\":1\\}\n){0,40}", tail in any::<Vec<u8>>()) {
            index(text.as_bytes()).ok();
            index(&[text.as_bytes(), &tail].concat()).ok();
        }
    }
}
