//! CSV as in RFC 4180: what has no value is an empty field, text and JSON are quoted, and bytes are base64. The
//! column `kind` tells text from base64.

use std::io::{self, BufWriter, Write};

use forkyard_shared::value::Kind;

use super::RowWriter;
use super::pieces::Replacing;
use super::row::Row;
use super::value::Value;

const HEADER: &str = "node,outcome,kind,value,bytes,digest,duration_s,run,error\r\n";

pub(super) struct Table<W: Write>(BufWriter<W>);

impl<W: Write> Table<W> {
    pub fn new(out: W) -> io::Result<Table<W>> {
        let mut out = BufWriter::new(out);
        out.write_all(HEADER.as_bytes())?;
        Ok(Table(out))
    }

    /// Writes a field that may be any text.
    fn text(&mut self, text: &str) -> io::Result<()> {
        if text.contains(['"', ',', '\r', '\n']) {
            self.quoted(|out| out.write_all(text.as_bytes()))
        } else {
            self.0.write_all(text.as_bytes())
        }
    }

    fn value(&mut self, value: &Value) -> io::Result<()> {
        match value.kind {
            // Whether it needs its quotes would only be known at its end.
            Kind::Json | Kind::Text => self.quoted(|mut out| value.write_to(&mut out)),
            Kind::Bytes | Kind::Array => value.write_base64_to(&mut self.0),
        }
    }

    fn quoted(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        self.0.write_all(b"\"")?;
        write(&mut Replacing::new(&mut self.0, |byte| (byte == b'"').then_some("\"\"")))?;
        self.0.write_all(b"\"")
    }
}

impl<W: Write> RowWriter<'_> for Table<W> {
    fn put(&mut self, row: Row) -> io::Result<()> {
        self.text(&row.node)?;
        write!(self.0, ",{},{},", row.outcome, row.kind.map(Kind::name).unwrap_or_default())?;
        row.value.iter().try_for_each(|value| self.value(value))?;
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        write!(
            self.0,
            ",{},{},{},{},",
            number(row.bytes),
            row.digest.map(|digest| digest.to_hex()).unwrap_or_default(),
            row.duration_s.map(|seconds| seconds.to_string()).unwrap_or_default(),
            number(row.run),
        )?;
        self.text(row.error.as_deref().unwrap_or_default())?;
        self.0.write_all(b"\r\n")
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}
