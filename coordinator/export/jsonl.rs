//! JSON Lines: JSON results as they are, text as strings, bytes as `{"base64": "..."}`, arrays as
//! `{"npy": "..."}` with the bytes of their `.npy` files in base64. Every field is always there.

use std::io::{self, BufWriter, Write};

use forkyard_shared::value::Kind;
use serde::Serialize;

use super::RowWriter;
use super::pieces::Replacing;
use super::row::Row;
use super::value::Value;

pub(super) struct Lines<W: Write>(BufWriter<W>);

impl<W: Write> Lines<W> {
    pub fn new(out: W) -> Lines<W> {
        Lines(BufWriter::new(out))
    }

    fn field(&mut self, name: &str, value: impl Serialize) -> io::Result<()> {
        write!(self.0, ",\"{name}\":")?;
        Ok(serde_json::to_writer(&mut self.0, &value)?)
    }
}

/// One value as JSON.
///
/// # Errors
/// As [`Value::write_to`].
pub(crate) fn write_json(value: &Value, out: &mut impl Write) -> io::Result<()> {
    match value.kind {
        // It is stored as one document in one line.
        Kind::Json => value.write_to(out),
        Kind::Text => {
            out.write_all(b"\"")?;
            value.write_to(&mut Replacing::new(&mut *out, escape))?;
            out.write_all(b"\"")
        }
        Kind::Bytes | Kind::Array => {
            let name = if value.kind == Kind::Array { "npy" } else { "base64" };
            write!(out, "{{\"{name}\":\"")?;
            value.write_base64_to(&mut *out)?;
            out.write_all(b"\"}")
        }
    }
}

impl<W: Write> RowWriter<'_> for Lines<W> {
    fn put(&mut self, row: Row) -> io::Result<()> {
        self.0.write_all(b"{\"v\":1")?;
        self.field("node", &row.node)?;
        self.field("outcome", row.outcome)?;
        self.field("kind", row.kind.map(Kind::name))?;
        self.0.write_all(b",\"value\":")?;
        match &row.value {
            Some(value) => write_json(value, &mut self.0)?,
            None => self.0.write_all(b"null")?,
        }
        self.field("bytes", row.bytes)?;
        self.field("digest", row.digest.map(|digest| digest.to_hex()))?;
        self.field("duration_s", row.duration_s)?;
        self.field("run", row.run)?;
        self.field("error", &row.error)?;
        self.0.write_all(b"}\n")
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}

/// What stands for a byte of text in a JSON string.
fn escape(byte: u8) -> Option<&'static str> {
    /// Of the bytes below the space.
    const CONTROLS: [&str; 32] = [
        "\\u0000", "\\u0001", "\\u0002", "\\u0003", "\\u0004", "\\u0005", "\\u0006", "\\u0007", "\\b", "\\t",
        "\\n", "\\u000b", "\\f", "\\r", "\\u000e", "\\u000f", "\\u0010", "\\u0011", "\\u0012", "\\u0013",
        "\\u0014", "\\u0015", "\\u0016", "\\u0017", "\\u0018", "\\u0019", "\\u001a", "\\u001b", "\\u001c",
        "\\u001d", "\\u001e", "\\u001f",
    ];
    match byte {
        b'"' => Some("\\\""),
        b'\\' => Some("\\\\"),
        _ => CONTROLS.get(byte as usize).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_json_wants_it() {
        let all: String = (0..=0x2000).filter_map(char::from_u32).collect();
        let mut out = Vec::new();
        Replacing::new(&mut out, escape).write_all(all.as_bytes()).unwrap();
        assert_eq!(format!("\"{}\"", str::from_utf8(&out).unwrap()), serde_json::to_string(&all).unwrap());
    }
}
