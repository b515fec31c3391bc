//! A row: what became of a node, and its result.

use forkyard_shared::digest::Digest;
use forkyard_shared::value::Kind;

use super::Format;
use super::value::Value;
use crate::store::{JournalEntry, Reader, Record};

/// What is told of one node.
pub(crate) struct Row<'a> {
    pub node: String,
    pub outcome: &'static str,
    /// How the result is to be read; `None`: there is none.
    pub kind: Option<Kind>,
    pub value: Option<Value<'a>>,
    /// Length of the result.
    pub bytes: Option<u64>,
    pub digest: Option<Digest>,
    /// How long it took to compute.
    pub duration_s: Option<f64>,
    /// The run that computed it.
    pub run: Option<u64>,
    pub error: Option<String>,
    /// Why there is no value where there should be one; `error` tells more.
    pub lack: Option<Lack>,
}

/// Why a value is not written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lack {
    /// It cannot be read.
    Damaged,
    /// The format cannot take it.
    TooLarge,
}

impl<'a> Row<'a> {
    /// Reads the result that an entry speaks of, for a table of this format. That there is no way to write it is
    /// an answer too.
    pub fn of(entry: JournalEntry, reader: &'a Reader, format: Format) -> Row<'a> {
        let record = entry.key.and_then(|key| reader.lookup(key));
        Row::with(entry, record, reader, format)
    }

    fn with(entry: JournalEntry, record: Option<Record>, reader: &'a Reader, format: Format) -> Row<'a> {
        let read = match &record {
            Some(record) => match format.refusal(record.len) {
                Some(refusal) => Err((Lack::TooLarge, refusal)),
                None => {
                    Value::of(record, reader).map(Some).map_err(|error| (Lack::Damaged, error.to_string()))
                }
            },
            None if entry.key.is_some() => {
                Err((Lack::Damaged, "its result is damaged or gone from the store".into()))
            }
            None => Ok(None),
        };
        let (value, lack, error) = match read {
            Ok(value) => (value, None, entry.error),
            Err((lack, error)) => (None, Some(lack), Some(error)),
        };
        let record = record.as_ref();
        Row {
            node: entry.node,
            outcome: entry.outcome.word(),
            kind: value.as_ref().map(|value| value.kind).or(record.map(|record| record.kind)),
            value,
            bytes: record.map(|record| record.len),
            digest: record.map(|record| record.digest),
            duration_s: record.map(|record| record.duration_us as f64 / 1e6),
            run: record.map(|record| record.run),
            error,
            lack,
        }
    }
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    use super::*;
    use crate::store::{Layout, Outcome, Place, StoreDir};

    #[test]
    fn a_value_that_parquet_cannot_take_is_null_with_its_reason() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = StoreDir::new(&temporary.path().join("store"));
        dir.prepare(Layout::Filesystem).unwrap();
        let reader = Reader::look(&dir, 0).unwrap();
        // Nobody is to look for the bytes of the large one: they are not there.
        let row = |len: u64, place: Place, format: Format| {
            let digest = Digest::of(b"a");
            let record =
                Record { kind: Kind::Text, digest, place, len, duration_us: 0, run: 1, extra: Vec::new() };
            let entry = JournalEntry {
                node: "a".into(),
                outcome: Outcome::Ran,
                attempt: 1,
                key: Some(digest),
                duration_us: 0,
                error: None,
                log: Vec::new(),
            };
            Row::with(entry, Some(record), &reader, format)
        };
        let large = 1_073_741_825;
        let rows = || {
            let small = row(1, Place::Inline(b"a".to_vec()), Format::Parquet);
            [row(large, Place::File, Format::Parquet), small].into_iter()
        };
        let lacks: Vec<_> = rows().map(|row| row.lack).collect();
        assert_eq!(lacks, [Some(Lack::TooLarge), None]);
        let not_too_large = [
            row(large - 1, Place::File, Format::Parquet),
            row(large, Place::File, Format::Jsonl),
            row(large, Place::File, Format::Csv),
        ];
        assert!(not_too_large.iter().all(|row| row.lack == Some(Lack::Damaged)));

        let file = tempfile::tempfile().unwrap();
        super::super::write(rows(), Format::Parquet, &file).unwrap();
        let table = SerializedFileReader::new(file).unwrap();
        let told: Vec<_> = table.get_row_iter(None).unwrap().map(|row| row.unwrap()).collect();
        let value = |row: &parquet::record::Row| row.get_string(3).cloned().ok();
        assert_eq!([value(&told[0]), value(&told[1])], [None, Some("a".into())]);
        let error = "its value of 1073741825 bytes is too large for Parquet; jsonl and csv take it";
        assert_eq!(told[0].get_string(9).unwrap(), error);
        assert_eq!(told[0].get_long(5).unwrap(), 1_073_741_825);
    }
}
