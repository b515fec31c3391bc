//! JSON Lines: JSON results as they are, text as strings, bytes as `{"base64": "..."}`.

use std::io::{self, BufWriter, Write};

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Error, SerializeMap};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::RowWriter;
use super::row::{Row, Value};

pub(super) struct Lines<W: Write>(BufWriter<W>);

impl<W: Write> Lines<W> {
    pub fn new(out: W) -> Lines<W> {
        Lines(BufWriter::new(out))
    }
}

impl<W: Write> RowWriter for Lines<W> {
    fn put(&mut self, row: Row) -> io::Result<()> {
        let line = Line {
            v: 1,
            node: &row.node,
            outcome: row.outcome,
            kind: row.kind.map(|kind| kind.name()),
            value: row.value.as_ref(),
            bytes: row.bytes,
            digest: row.digest.map(|digest| digest.to_hex()),
            duration_s: row.duration_s,
            run: row.run,
            error: row.error.as_deref(),
        };
        serde_json::to_writer(&mut self.0, &line)?;
        self.0.write_all(b"\n")
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}

/// What a line looks like. Every field is always there.
#[derive(Serialize)]
struct Line<'a> {
    v: u64,
    node: &'a str,
    outcome: &'static str,
    kind: Option<&'static str>,
    value: Option<&'a Value>,
    bytes: Option<u64>,
    digest: Option<String>,
    duration_s: Option<f64>,
    run: Option<u64>,
    error: Option<&'a str>,
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            // As it is stored, without a tree in memory that may be many times as large.
            Value::Json(text) => {
                serde_json::from_str::<&RawValue>(text).map_err(S::Error::custom)?.serialize(to)
            }
            Value::Text(text) => to.serialize_str(text),
            Value::Bytes(bytes) => {
                let mut map = to.serialize_map(Some(1))?;
                map.serialize_entry("base64", &format_args!("{}", Base64Display::new(bytes, &STANDARD)))?;
                map.end()
            }
        }
    }
}
