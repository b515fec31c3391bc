//! The results of a run as a table for other programs: a row a node, in one of three formats. Values come
//! one by one, large ones in pieces, and none is kept for longer than its format needs it. Knows nothing of
//! stores being written.

mod csv;
mod jsonl;
mod parquet;
mod part_file;
mod pieces;
mod row;
mod value;

use std::io::{self, Write};

pub(crate) use jsonl::write_json;
pub(crate) use part_file::PartFile;
pub(crate) use row::{Lack, Row};

/// What a table is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// JSON Lines: an object a row.
    Jsonl,
    /// Comma-separated values as in RFC 4180, with a header.
    Csv,
    /// Apache Parquet, with typed columns.
    Parquet,
}

impl Format {
    /// Why it cannot take a value of this length.
    fn refusal(self, len: u64) -> Option<String> {
        (self == Format::Parquet && len > parquet::VALUE_MAX_BYTES)
            .then(|| format!("its value of {len} bytes is too large for Parquet; jsonl and csv take it"))
    }
}

/// Writes rows in some format.
trait RowWriter<'r> {
    fn put(&mut self, row: Row<'r>) -> io::Result<()>;

    /// Writes what is still to be written.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// Writes a table.
pub(crate) fn write<'a, 'r: 'a>(
    rows: impl Iterator<Item = Row<'r>>,
    format: Format,
    out: impl Write + Send + 'a,
) -> io::Result<()> {
    let mut writer: Box<dyn RowWriter<'r> + 'a> = match format {
        Format::Jsonl => Box::new(jsonl::Lines::new(out)),
        Format::Csv => Box::new(csv::Table::new(out)?),
        Format::Parquet => Box::new(parquet::Groups::new(out)?),
    };
    for row in rows {
        writer.put(row)?;
    }
    writer.finish()
}
