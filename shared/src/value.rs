//! What a node returns: JSON, text or bytes. A value's digest covers exactly its bytes; its kind is kept
//! beside it, because the text `1` and the number 1 are different results of equal bytes.

use crate::digest::Digest;

/// How the bytes of a value are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Kind {
    /// One JSON document in canonical form: no spaces, keys sorted.
    Json,
    /// Bytes as they are.
    Bytes,
    /// Text as a command printed it: bytes that a parameter takes as a string.
    Text,
    /// A numpy array, as the bytes of its `.npy` file.
    Array,
}

impl Kind {
    /// The number that stands for it in the store and in node keys.
    pub fn code(self) -> u8 {
        match self {
            Kind::Json => 0,
            Kind::Bytes => 1,
            Kind::Text => 2,
            Kind::Array => 3,
        }
    }

    /// Its name in lists and exports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Json => "json",
            Kind::Bytes => "bytes",
            Kind::Text => "text",
            Kind::Array => "npy",
        }
    }

    /// The kind that [`Kind::code`] numbered.
    pub fn from_code(code: u8) -> Option<Kind> {
        match code {
            0 => Some(Kind::Json),
            1 => Some(Kind::Bytes),
            2 => Some(Kind::Text),
            3 => Some(Kind::Array),
            _ => None,
        }
    }
}

/// Where the bytes of a value are.
#[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
pub enum Body {
    /// In the message itself.
    Inline(Vec<u8>),
    /// In a finished, read-only file in the store's `tmp/`, which the coordinator renames into place.
    File {
        /// Its name in `tmp/`.
        name: String,
        /// Length of the value in bytes.
        len: u64,
        /// Whether the file holds it packed.
        packed: bool,
    },
}

/// A value with its digest, as a worker hands it over.
#[derive(Clone, Debug, PartialEq, bincode::Encode, bincode::Decode)]
pub struct Value {
    /// How to read it.
    pub kind: Kind,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its bytes.
    pub body: Body,
}

/// Results up to this size travel inside messages and are kept in database rows; larger ones are
/// written to a file by the worker.
pub const INLINE_MAX_BYTES: usize = 32 << 10;

/// SHA-256 of `null`, the commonest result.
pub const NULL_DIGEST: Digest = Digest([
    0x74, 0x23, 0x4e, 0x98, 0xaf, 0xe7, 0x49, 0x8f, 0xb5, 0xda, 0xf1, 0xf3, 0x6a, 0xc2, 0xd7, 0x8a, 0xcc,
    0x33, 0x94, 0x64, 0xf9, 0x50, 0x70, 0x3b, 0x8c, 0x01, 0x98, 0x92, 0xf9, 0x82, 0xb9, 0x0b,
]);

impl Value {
    /// A value of bytes at hand.
    pub fn inline(kind: Kind, bytes: Vec<u8>) -> Value {
        let digest = if bytes == b"null" { NULL_DIGEST } else { Digest::of(&bytes) };
        Value { kind, digest, body: Body::Inline(bytes) }
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match &self.body {
            Body::Inline(bytes) => bytes.len() as u64,
            Body::File { len, .. } => *len,
        }
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_null_is_the_digest_of_null() {
        assert_eq!(NULL_DIGEST, Digest::of(b"null"));
    }
}
