//! How messages become bytes: bincode 2, in this one file, so that it can be changed.

use bincode::{Decode, Encode, config};
use serde::{Deserialize, Serialize};

/// One message on an `ipc-channel`: bytes that [`encode`] made.
#[derive(Serialize, Deserialize)]
pub struct Frame(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// A message as bytes.
pub fn encode<T: Encode>(message: &T) -> Vec<u8> {
    bincode::encode_to_vec(message, config::standard()).expect("messages have no unencodable parts")
}

/// What stands at the beginning of `bytes`.
pub fn decode_first<T: Decode<()>>(bytes: &[u8]) -> Option<T> {
    bincode::decode_from_slice(bytes, config::standard().with_limit::<64>()).ok().map(|(first, _)| first)
}

/// The message that `bytes` hold, or why they hold none. Lengths are bounded by the bytes at hand.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, String> {
    match bincode::decode_from_slice(bytes, config::standard().with_limit::<{ 256 << 20 }>()) {
        Ok((message, used)) if used == bytes.len() => Ok(message),
        Ok((_, used)) => Err(format!("{} bytes after the message", bytes.len() - used)),
        Err(error) => Err(error.to_string()),
    }
}
