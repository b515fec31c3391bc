//! Parquet, read a column at a time by the crate `parquet`, with `pread`.
//!
//! What the file's writer says of Arrow types is not asked: by Parquet's own types no value takes more than 2 GiB in a
//! batch, whatever a hostile dictionary holds. (So categories are texts here, and lists of one length are found out.)

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::ColumnDescriptor;

use super::column::Column;
use super::contain::contained;
use super::ipc::{finish_column, finish_table};
use super::write::Writer;
use crate::artifact::error::{no_part, unreadable};
use crate::artifact::{ArtifactError, Format, Layout};

/// Rows that are decoded at once.
const BATCH_ROWS: usize = 1024;

/// The table in `file`, or the column `part` of it, written to `beside`.
pub fn read_parquet(
    file: &File,
    len: u64,
    part: Option<&str>,
    limit_bytes: u64,
    beside: &mut dyn Write,
) -> Result<Layout, ArtifactError> {
    contained(Format::Parquet, || columns(file, len, part, Writer::new(beside, limit_bytes)))
}

fn columns(file: &File, len: u64, part: Option<&str>, mut out: Writer) -> Result<Layout, ArtifactError> {
    let wrong = |error: &dyn std::fmt::Display| unreadable(Format::Parquet, error.to_string());
    let source = Source { file: Arc::new(file.try_clone()?), len };
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(&source, options).map_err(|error| wrong(&error))?;
    let schema = metadata.schema().clone();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    let wanted = match part {
        Some(part) => {
            let at = names.clone().position(|name| name == part);
            let at = at.ok_or_else(|| no_part(Format::Parquet, part, names))?;
            at..at + 1
        }
        None => 0..schema.fields().len(),
    };
    let about = metadata.metadata().file_metadata();
    // What is certain is refused at once.
    let rows = u64::try_from(about.num_rows()).unwrap_or(u64::MAX);
    let leaves = about.schema_descr().columns().iter().enumerate();
    let leaves = leaves.filter(|(at, _)| wanted.contains(&about.schema_descr().get_column_root_idx(*at)));
    out.must_fit(
        leaves.map(|(_, leaf)| rows.saturating_mul(least_bytes(leaf))).fold(0, u64::saturating_add),
    )?;
    let mut columns = Vec::new();
    for at in wanted {
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(source.clone(), metadata.clone())
            .with_projection(ProjectionMask::roots(about.schema_descr(), [at]))
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|error| wrong(&error))?;
        let (mut arrays, mut held_bytes): (Vec<ArrayRef>, u64) = (Vec::new(), 0);
        for batch in reader {
            let array = batch.map_err(|error| wrong(&error))?.column(0).clone();
            held_bytes += array.get_array_memory_size() as u64;
            out.must_fit(held_bytes)?;
            arrays.push(array);
        }
        let field = schema.field(at);
        columns.push(out.column(field.name(), field.data_type(), &arrays)?);
    }
    match (part, columns.pop()) {
        (Some(_), Some(column)) => finish_column(out, column),
        (_, last) => {
            columns.extend(last);
            must_agree(&columns)?;
            finish_table(out, &columns)
        }
    }
}

fn must_agree(columns: &[Column]) -> Result<(), ArtifactError> {
    match columns.windows(2).find(|pair| pair[0].rows != pair[1].rows) {
        Some([one, other]) => Err(unreadable(
            Format::Parquet,
            format!("column {:?} has {} rows, and {:?} has {}", one.name, one.rows, other.name, other.rows),
        )),
        _ => Ok(()),
    }
}

/// What a row of a column takes at least.
fn least_bytes(leaf: &ColumnDescriptor) -> u64 {
    match leaf.physical_type() {
        _ if leaf.max_rep_level() > 0 => 0,
        Type::BOOLEAN => 1,
        Type::INT32 | Type::FLOAT => 1,
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 | Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => 8,
    }
}

/// A file that is read without a position, and never past its end.
#[derive(Clone)]
struct Source {
    file: Arc<File>,
    len: u64,
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for Source {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> ParquetResult<BufReader<From>> {
        // Headers are read byte by byte.
        Ok(BufReader::new(From { file: self.file.clone(), at: start, end: self.len }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<bytes::Bytes> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} of a file of {}", self.len)));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// Reads on from a byte.
struct From {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 && !buffer.is_empty() {
            // Who skips what is not there would go on for as long as a header says.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = self.file.read_at(&mut buffer[..room], self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_cannot_be_skipped() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 10], 0).unwrap();
        let source = Source { file: Arc::new(file), len: 10 };
        let skip = |bytes| io::copy(&mut source.get_read(4).unwrap().take(bytes), &mut io::sink());
        assert_eq!(skip(6).unwrap(), 6);
        assert_eq!(skip(7).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
