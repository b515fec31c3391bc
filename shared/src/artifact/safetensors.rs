//! The header of a safetensors file: which tensors it holds and where. Reads the header alone, and trusts nothing in it:
//! every tensor lies in the file, has the size of its shape, and shares no byte with another.
//!
//! ```text
//!  0        8            8 + n                                  end of file
//! +--------+------------+--------------------------------------+
//! | n, u64 | JSON, maybe| tensors end to end, in whatever order|
//! |        | with blanks|                                      |
//! +--------+------------+--------------------------------------+
//!   {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..., "__metadata__": {"key": "text"}}
//! ```
//!
//! The crate `safetensors` reads headers too, but from bytes in memory: we would have to map the file or copy it.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::error::unreadable;
use super::{Array, ArtifactError, Dtype, Format};

/// The library's own limit.
const HEADER_MAX_BYTES: u64 = 100_000_000;

/// The tensors of `file`, which is `len` bytes long, in the order of its header.
pub fn read_safetensors(file: &File, len: u64) -> Result<Vec<(String, Array)>, ArtifactError> {
    let wrong = |reason: String| unreadable(Format::Safetensors, reason);
    let mut start = [0; 8];
    if file.read_at(&mut start, 0)? < start.len() {
        return Err(wrong(format!("it has {len} bytes, and its header alone needs more than 8")));
    }
    let header_bytes = u64::from_le_bytes(start);
    if header_bytes > HEADER_MAX_BYTES || header_bytes > len - 8 {
        return Err(wrong(format!(
            "its header claims to be {header_bytes} bytes long, but {} bytes follow, and at most {HEADER_MAX_BYTES} are read",
            len - 8
        )));
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact_at(&mut header, 8)?;
    let entries: Entries = serde_json::from_slice(&header)
        .map_err(|error| wrong(format!("its header is malformed: {error}")))?;
    let tensors = entries.0.into_iter().map(|(name, entry)| {
        let array =
            entry.array(8 + header_bytes, len).map_err(|why| wrong(format!("tensor {name:?} {why}")))?;
        Ok((name, array))
    });
    let tensors = tensors.collect::<Result<Vec<_>, ArtifactError>>()?;
    must_fill(&tensors, 8 + header_bytes, len).map_err(wrong)?;
    Ok(tensors)
}

/// The tensors lie end to end, as the library demands too: what overlaps or is left over was not written by it.
fn must_fill(tensors: &[(String, Array)], start: u64, len: u64) -> Result<(), String> {
    let span = |(name, array): &(String, Array)| Some((array.offset, array.len_bytes()?, name.clone()));
    let mut spans: Vec<_> = tensors.iter().filter_map(span).collect();
    spans.sort();
    let (mut at, mut before) = (start, None);
    for (offset, bytes, name) in spans {
        match &before {
            Some(before) if offset < at => return Err(format!("tensors {before:?} and {name:?} overlap")),
            _ if offset != at => {
                return Err(format!("bytes {at} to {offset} of the file belong to no tensor"));
            }
            _ => (at, before) = (offset + bytes, Some(name)),
        }
    }
    match at == len {
        true => Ok(()),
        false => Err(format!("bytes {at} to {len} of the file belong to no tensor")),
    }
}

#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

impl Entry {
    /// The array, in a file whose tensors start at `start`.
    fn array(self, start: u64, len: u64) -> Result<Array, String> {
        let dtype = dtype(&self.dtype)
            .ok_or_else(|| format!("has the type {}, which cannot be read; save it as F32", self.dtype))?;
        let [from, to] = self.data_offsets;
        let data_bytes = len - start;
        if from > to || to > data_bytes {
            return Err(format!(
                "claims the bytes {from} to {to} of the data, which has {data_bytes}; copy or write the file again"
            ));
        }
        let array = Array { dtype, shape: self.shape, offset: start + from };
        if array.len_bytes() != Some(to - from) {
            return Err(format!(
                "is {} and claims {} bytes, which is another size",
                array.describe(),
                to - from
            ));
        }
        Ok(array)
    }
}

fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "F8_E4M3" => Dtype::F8E4M3,
        "F8_E5M2" => Dtype::F8E5M2,
        "F16" => Dtype::F16,
        "BF16" => Dtype::BF16,
        "F32" => Dtype::F32,
        "F64" => Dtype::F64,
        "C64" => Dtype::C64,
        "BOOL" => Dtype::Bool,
        "I8" => Dtype::I8,
        "I16" => Dtype::I16,
        "I32" => Dtype::I32,
        "I64" => Dtype::I64,
        "U8" => Dtype::U8,
        "U16" => Dtype::U16,
        "U32" => Dtype::U32,
        "U64" => Dtype::U64,
        _ => return None,
    })
}

/// The entries of a header in their order, each name once.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Entries, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let (mut entries, mut names) = (Vec::new(), HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom(format!("{name:?} occurs twice")));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Entries(entries))
            }
        }
        json.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::digest::Digest;

    const GOOD: &str = r#"{"__metadata__":{"a":"b"},"x":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},"y":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}  "#;

    fn safetensors(header: &str, data_bytes: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data_bytes, 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<(String, Array)>, ArtifactError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read_safetensors(&file, bytes.len() as u64)
    }

    #[track_caller]
    fn refused(bytes: &[u8], why: &str) {
        let message = read(bytes).unwrap_err().to_string();
        assert!(message.contains(why), "{message:?} does not say {why:?}");
    }

    #[test]
    fn tensors_are_where_the_header_says() {
        let tensors = read(&safetensors(GOOD, 16)).unwrap();
        let start = 8 + GOOD.len() as u64;
        let x = Array { dtype: Dtype::BF16, shape: vec![2, 3], offset: start + 4 };
        let y = Array { dtype: Dtype::F32, shape: vec![], offset: start };
        assert_eq!(tensors, [("x".to_owned(), x), ("y".to_owned(), y)]);
    }

    #[test]
    fn a_header_that_lies_is_refused() {
        let change = |from, to, bytes| safetensors(&GOOD.replace(from, to), bytes);
        refused(&safetensors(GOOD, 15), "\"x\" claims the bytes 4 to 16 of the data, which has 15");
        refused(&safetensors(GOOD, 17), "belong to no tensor");
        refused(&change("[4,16]", "[16,4]", 16), "claims the bytes 16 to 4");
        refused(&change("[4,16]", "[0,12]", 16), "\"y\" and \"x\" overlap");
        refused(&change("[4,16]", "[5,17]", 17), "belong to no tensor");
        refused(&change("[2,3]", "[2,4]", 16), "bfloat16 [2, 4] and claims 12 bytes");
        refused(&change("[2,3]", "[4611686018427387904,4611686018427387904]", 16), "another size");
        refused(&change("BF16", "F4", 16), "the type F4");
        refused(&change("\"y\"", "\"x\"", 16), "\"x\" occurs twice");
        refused(&change("[2,3]", "[-2,3]", 16), "its header is malformed");
        refused(&change("}}  ", "}", 16), "its header is malformed");
        refused(&[0xff; 64], "its header claims to be 18446744073709551615 bytes long");
        refused(&safetensors(GOOD, 16)[..60], "claims to be");
        refused(b"", "it has 0 bytes");
    }

    #[test]
    fn files_of_the_library_are_read_as_it_reads_them() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/formats/safetensors");
        let Ok(expected) = std::fs::read(format!("{folder}/expected.json")) else {
            println!("skipped: ../shared/data/formats/safetensors is absent");
            return;
        };
        let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
        for (file, expected) in expected.as_object().unwrap() {
            let bytes = std::fs::read(format!("{folder}/{file}")).unwrap();
            let expected = expected["tensors"].as_object().unwrap();
            let tensors = read(&bytes).unwrap();
            assert_eq!(tensors.len(), expected.len(), "{file}");
            for (name, array) in tensors {
                let expected = &expected[&name];
                assert_eq!(dtype(expected["dtype"].as_str().unwrap()), Some(array.dtype), "{file} {name}");
                assert_eq!(serde_json::json!(array.shape), expected["shape"], "{file} {name}");
                let from = array.offset as usize;
                let elements = &bytes[from..from + array.len_bytes().unwrap() as usize];
                assert_eq!(expected["sha256"], Digest::of(elements).to_hex(), "{file} {name}");
            }
        }
    }
}
