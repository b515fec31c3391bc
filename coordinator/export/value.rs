//! A result as a table takes it: a small one is in memory, a large one stays in the store and is read when it
//! is written, piece by piece. Knows no format.

use std::io::{self, Write};

use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use forkyard_shared::value::Kind;

use super::pieces::Utf8;
use crate::store::{Reader, Record, StoreError};

/// A value up to this size is read once and held; a larger one is read anew each time it is needed.
const HELD_MAX_BYTES: u64 = 1 << 20;

/// A result that was read once and found whole.
pub(crate) struct Value<'a> {
    /// As what it is to be written.
    pub kind: Kind,
    bytes: Bytes<'a>,
}

enum Bytes<'a> {
    Held(Vec<u8>),
    Stored(&'a Reader, Record),
}

impl<'a> Value<'a> {
    /// The value of a result. Text that is not UTF-8 counts as bytes.
    ///
    /// # Errors
    /// When it is gone or damaged.
    pub fn of(record: &Record, reader: &'a Reader) -> Result<Value<'a>, StoreError> {
        let bytes = if record.len <= HELD_MAX_BYTES {
            Bytes::Held(reader.read(record)?)
        } else {
            Bytes::Stored(reader, record.clone())
        };
        let is_text = match (record.kind, &bytes) {
            (Kind::Bytes | Kind::Array, Bytes::Held(_)) => false,
            (Kind::Bytes | Kind::Array, Bytes::Stored(..)) => {
                reader.check(record)?;
                false
            }
            (_, Bytes::Held(bytes)) => str::from_utf8(bytes).is_ok(),
            (_, Bytes::Stored(..)) => {
                let mut utf8 = Utf8::default();
                reader.write_to(record, &mut utf8)?;
                utf8.is_valid()
            }
        };
        let kind = if is_text || record.kind == Kind::Array { record.kind } else { Kind::Bytes };
        Ok(Value { kind, bytes })
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match &self.bytes {
            Bytes::Held(bytes) => bytes.len() as u64,
            Bytes::Stored(_, record) => record.len,
        }
    }

    /// Writes its bytes in pieces.
    ///
    /// # Errors
    /// When `out` does not take them, or it was damaged since it was found whole.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        match &self.bytes {
            Bytes::Held(bytes) => out.write_all(bytes),
            Bytes::Stored(reader, record) => reader.write_to(record, out).map_err(|error| match error {
                StoreError::Output(error) => error,
                other => io::Error::other(other),
            }),
        }
    }

    /// Writes it as base64, in pieces.
    ///
    /// # Errors
    /// As [`Value::write_to`].
    pub fn write_base64_to(&self, out: impl Write) -> io::Result<()> {
        let mut base64 = EncoderWriter::new(out, &STANDARD);
        self.write_to(&mut base64)?;
        base64.finish().map(drop)
    }

    /// All its bytes, in a buffer that is not larger.
    ///
    /// # Errors
    /// As [`Value::write_to`].
    pub fn into_bytes(self) -> io::Result<Vec<u8>> {
        if let Bytes::Held(bytes) = self.bytes {
            return Ok(bytes);
        }
        let mut bytes = Vec::with_capacity(self.len() as usize);
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
impl Value<'static> {
    /// A value at hand.
    pub fn held(kind: Kind, bytes: Vec<u8>) -> Value<'static> {
        Value { kind, bytes: Bytes::Held(bytes) }
    }
}
