//! A row: what became of a node, and its result. Knows no format.

use forkyard_shared::digest::Digest;
use forkyard_shared::value::Kind;

use crate::store::{JournalEntry, Reader};

/// What is told of one node.
pub(crate) struct Row {
    pub node: String,
    pub outcome: &'static str,
    /// How the result is to be read; `None`: there is none.
    pub kind: Option<Kind>,
    pub value: Option<Value>,
    /// Length of the result.
    pub bytes: Option<u64>,
    pub digest: Option<Digest>,
    /// How long it took to compute.
    pub duration_s: Option<f64>,
    /// The run that computed it.
    pub run: Option<u64>,
    pub error: Option<String>,
    /// Whether there should be a value and it cannot be read; `error` says why.
    pub damaged: bool,
}

/// A result, as other programs can take it.
pub(crate) enum Value {
    /// One JSON document.
    Json(String),
    Text(String),
    Bytes(Vec<u8>),
}

impl Row {
    /// Reads the result that an entry speaks of. That it is damaged is an answer too.
    pub fn of(entry: JournalEntry, reader: &Reader) -> Row {
        let record = entry.key.and_then(|key| reader.lookup(key));
        let read = match &record {
            Some(record) => {
                let bytes = reader.read(record).map_err(|error| error.to_string());
                bytes.map(|bytes| Some(Value::of(record.kind, bytes)))
            }
            None if entry.key.is_some() => Err("its result is damaged or gone from the store".into()),
            None => Ok(None),
        };
        let damaged = read.is_err();
        let (value, error) = read.map_or_else(|error| (None, Some(error)), |value| (value, entry.error));
        let record = record.as_ref();
        Row {
            node: entry.node,
            outcome: entry.outcome.word(),
            kind: value.as_ref().map(Value::kind).or(record.map(|record| record.kind)),
            value,
            bytes: record.map(|record| record.len),
            digest: record.map(|record| record.digest),
            duration_s: record.map(|record| record.duration_us as f64 / 1e6),
            run: record.map(|record| record.run),
            error,
            damaged,
        }
    }
}

impl Value {
    /// Text that is not UTF-8 counts as bytes.
    fn of(kind: Kind, bytes: Vec<u8>) -> Value {
        match (kind, String::from_utf8(bytes)) {
            (Kind::Json, Ok(text)) => Value::Json(text),
            (Kind::Text, Ok(text)) => Value::Text(text),
            (Kind::Bytes, Ok(text)) => Value::Bytes(text.into_bytes()),
            (_, Err(error)) => Value::Bytes(error.into_bytes()),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Value::Json(_) => Kind::Json,
            Value::Text(_) => Kind::Text,
            Value::Bytes(_) => Kind::Bytes,
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Value::Json(text) | Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
        }
    }

    /// As bytes, whatever it is.
    pub fn into_bytes(self) -> Vec<u8> {
        match self {
            Value::Json(text) | Value::Text(text) => text.into_bytes(),
            Value::Bytes(bytes) => bytes,
        }
    }
}
