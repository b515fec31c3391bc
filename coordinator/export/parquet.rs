//! Apache Parquet. A row group is written column by column, so its rows wait in memory until there are enough
//! of them: that bounds what an export needs.

use std::io::{self, Write};
use std::mem::take;
use std::sync::Arc;

use forkyard_shared::value::Kind;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::RowWriter;
use super::row::Row;
use super::value::Value;

/// In the order in which [`Groups::write_group`] writes.
const SCHEMA: &str = "
    message results {
        required binary node (UTF8);
        required binary outcome (UTF8);
        optional binary kind (UTF8);
        optional binary value (UTF8);
        optional binary value_bytes;
        optional int64 bytes;
        optional binary digest (UTF8);
        optional double duration_s;
        optional int64 run;
        optional binary error (UTF8);
    }";

/// A row group ends with the row that reaches one of these.
const GROUP_ROWS: usize = 100_000;
const GROUP_VALUE_BYTES: u64 = 64 << 20;

/// The longest value. A page counts its bytes in 31 bits, and may have to hold the rest of a group beside it; who
/// reads the table needs all of it in memory, as we do here.
pub(super) const VALUE_MAX_BYTES: u64 = 1 << 30;

pub(super) struct Groups<'a, W: Write + Send> {
    file: SerializedFileWriter<W>,
    /// Without their values.
    rows: Vec<Row<'a>>,
    /// The column `value` of these rows.
    texts: Vec<Option<ByteArray>>,
    /// The column `value_bytes`.
    bytes: Vec<Option<ByteArray>>,
    /// Of all values in these.
    value_bytes: u64,
}

impl<'a, W: Write + Send> Groups<'a, W> {
    pub fn new(out: W) -> io::Result<Groups<'a, W>> {
        let schema = Arc::new(parse_message_type(SCHEMA).map_err(plain)?);
        let properties = WriterProperties::builder().set_compression(Compression::ZSTD(Default::default()));
        let file = SerializedFileWriter::new(out, schema, Arc::new(properties.build())).map_err(plain)?;
        Ok(Groups { file, rows: Vec::new(), texts: Vec::new(), bytes: Vec::new(), value_bytes: 0 })
    }

    fn write_group(&mut self) -> Result<()> {
        self.value_bytes = 0;
        let rows = take(&mut self.rows);
        let mut group = self.file.next_row_group()?;
        let text = |text: &str| ByteArray::from(text.as_bytes().to_vec());
        let number = |number: u64| number as i64;
        column::<ByteArrayType>(&mut group, rows.iter().map(|row| Some(text(&row.node))))?;
        column::<ByteArrayType>(&mut group, rows.iter().map(|row| Some(text(row.outcome))))?;
        column::<ByteArrayType>(&mut group, rows.iter().map(|row| Some(text(row.kind?.name()))))?;
        column::<ByteArrayType>(&mut group, take(&mut self.texts).into_iter())?;
        column::<ByteArrayType>(&mut group, take(&mut self.bytes).into_iter())?;
        column::<Int64Type>(&mut group, rows.iter().map(|row| row.bytes.map(number)))?;
        column::<ByteArrayType>(&mut group, rows.iter().map(|row| Some(text(&row.digest?.to_hex()))))?;
        column::<DoubleType>(&mut group, rows.iter().map(|row| row.duration_s))?;
        column::<Int64Type>(&mut group, rows.iter().map(|row| row.run.map(number)))?;
        column::<ByteArrayType>(&mut group, rows.iter().map(|row| row.error.as_deref().map(text)))?;
        group.close()?;
        Ok(())
    }
}

impl<'a, W: Write + Send> RowWriter<'a> for Groups<'a, W> {
    fn put(&mut self, mut row: Row<'a>) -> io::Result<()> {
        self.value_bytes += row.value.as_ref().map_or(0, Value::len);
        // Moved, not copied: values are what takes memory.
        let value = row.value.take().map(Value::into_bytes).transpose()?.map(ByteArray::from);
        let (text, bytes) =
            if matches!(row.kind, Some(Kind::Bytes | Kind::Array)) { (None, value) } else { (value, None) };
        self.texts.push(text);
        self.bytes.push(bytes);
        self.rows.push(row);
        let full = self.rows.len() >= GROUP_ROWS || self.value_bytes >= GROUP_VALUE_BYTES;
        if full { self.write_group().map_err(plain) } else { Ok(()) }
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        if !self.rows.is_empty() {
            self.write_group().map_err(plain)?;
        }
        self.file.finish().map_err(plain)?;
        Ok(())
    }
}

/// Writes the next column of a group; `None` is a null.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    values: impl Iterator<Item = Option<T::T>>,
) -> Result<()> {
    let (mut present, mut levels) = (Vec::new(), Vec::new());
    for value in values {
        levels.push(i16::from(value.is_some()));
        present.extend(value);
    }
    let mut column = group.next_column()?.expect("the schema has as many columns");
    column.typed::<T>().write_batch(&present, Some(&levels), None)?;
    column.close()
}

/// Without the word `External` before what the system says.
fn plain(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => io::Error::other(error),
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;

    fn row(len: usize) -> Row<'static> {
        Row {
            node: "a".into(),
            outcome: "ran",
            kind: Some(Kind::Bytes),
            value: Some(Value::held(Kind::Bytes, vec![0; len])),
            bytes: Some(len as u64),
            digest: None,
            duration_s: None,
            run: None,
            error: None,
            lack: None,
        }
    }

    /// How many rows there are in each group.
    fn groups(rows: impl Iterator<Item = Row<'static>>) -> Vec<i64> {
        let mut file = tempfile::tempfile().unwrap();
        super::super::write(rows, super::super::Format::Parquet, &file).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let reader = SerializedFileReader::<File>::new(file).unwrap();
        reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect()
    }

    #[test]
    fn a_group_is_bounded_by_rows_and_by_the_bytes_of_values() {
        assert_eq!(groups((0..GROUP_ROWS + 1).map(|_| row(0))), [100_000, 1]);
        assert_eq!(groups((0..40).map(|_| row(4 << 20))), [16, 16, 8]);
        assert_eq!(groups([row(GROUP_VALUE_BYTES as usize + 1), row(1)].into_iter()), [1, 1]);
        assert!(groups([].into_iter()).is_empty(), "no row is a table too");
    }
}
