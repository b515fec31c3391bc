//! CSV: what has no value is an empty field, and bytes are base64. The column `kind` tells an empty text from
//! none, and text from base64.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use csv::{Terminator, Writer, WriterBuilder};

use super::RowWriter;
use super::row::{Row, Value};

const HEADER: [&str; 9] =
    ["node", "outcome", "kind", "value", "bytes", "digest", "duration_s", "run", "error"];

pub(super) struct Table<W: Write>(Writer<W>);

impl<W: Write> Table<W> {
    pub fn new(out: W) -> io::Result<Table<W>> {
        let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out);
        writer.write_record(HEADER).map_err(plain)?;
        Ok(Table(writer))
    }
}

impl<W: Write> RowWriter for Table<W> {
    fn put(&mut self, row: Row) -> io::Result<()> {
        let value = match row.value {
            None => String::new(),
            Some(Value::Json(text) | Value::Text(text)) => text,
            Some(Value::Bytes(bytes)) => STANDARD.encode(bytes),
        };
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        let fields: [&str; 9] = [
            &row.node,
            row.outcome,
            row.kind.map(|kind| kind.name()).unwrap_or_default(),
            &value,
            &number(row.bytes),
            &row.digest.map(|digest| digest.to_hex()).unwrap_or_default(),
            &row.duration_s.map(|seconds| seconds.to_string()).unwrap_or_default(),
            &number(row.run),
            row.error.as_deref().unwrap_or_default(),
        ];
        self.0.write_record(fields).map_err(plain)
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}

/// The error below, whose kind tells that a pipe is closed.
fn plain(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
