//! A manifest's text, and the way back from a fault to its line and column. Nothing is remembered about
//! places while a manifest is read: when there is a fault, the text is walked again.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Fault, ManifestError, Problem, Step};
use super::tables;

/// The longest file of a manifest: more than 10 million nodes a line. It is held in memory.
const LIMIT_BYTES: u64 = 2 << 30;

/// All bytes that come, if they are not too many.
fn whole(from: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_long(limit)) } else { Ok(bytes) }
}

fn unpacked(bytes: Vec<u8>, limit: u64) -> io::Result<Vec<u8>> {
    match bytes.as_slice() {
        [0x1f, 0x8b, ..] => whole(flate2::read::MultiGzDecoder::new(&bytes[..]), limit),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => whole(zstd::stream::read::Decoder::new(&bytes[..])?, limit),
        _ => Ok(bytes),
    }
}

fn too_long(limit: u64) -> io::Error {
    let limit = crate::text::bytes(limit);
    io::Error::other(format!(
        "it has more than {limit}, unpacked: say what is alike with foreach, or name several files in include"
    ))
}

/// One file of a manifest.
pub(super) struct Source {
    /// As the user would name it.
    pub name: String,
    pub text: String,
    pub syntax: Syntax,
}

/// How a file is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Syntax {
    Toml,
    JsonLines,
}

impl Syntax {
    /// By the name, else by the first character: no TOML line starts with a brace.
    fn of(path: &Path, text: &str) -> Syntax {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.contains(".jsonl") || text.trim_start().starts_with('{') {
            Syntax::JsonLines
        } else {
            Syntax::Toml
        }
    }
}

impl Source {
    /// Reads a file, or standard input when `path` is `-`; gzip and zstd are recognised by content.
    pub fn read(path: &Path) -> Result<Source, ManifestError> {
        let read = || {
            if path == Path::new("-") {
                return whole(std::io::stdin().lock(), LIMIT_BYTES);
            }
            let file = File::open(path)?;
            let len = file.metadata()?.len();
            if len > LIMIT_BYTES { Err(too_long(LIMIT_BYTES)) } else { whole(file, LIMIT_BYTES) }
        };
        let bytes = read().and_then(|bytes| unpacked(bytes, LIMIT_BYTES));
        let bytes = bytes.map_err(|error| ManifestError::Unreadable { path: path.into(), error })?;
        let name = if path == Path::new("-") { "<stdin>".into() } else { path.display().to_string() };
        match String::from_utf8(bytes) {
            Ok(mut text) => {
                // Some editors on other systems start a file with a mark of its encoding.
                if text.starts_with('\u{feff}') {
                    text.drain(..'\u{feff}'.len_utf8());
                }
                Ok(Source { syntax: Syntax::of(path, &text), name, text })
            }
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let line = error.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
                let message = "this is not UTF-8 text".into();
                Err(ManifestError::Mistakes(vec![Problem { file: name, line, column: 1, message }]))
            }
        }
    }

    /// The directory that the file's own paths are relative to.
    pub fn dir(path: &Path) -> PathBuf {
        match path.parent() {
            Some(dir) if path != Path::new("-") && !dir.as_os_str().is_empty() => dir.into(),
            _ => PathBuf::from("."),
        }
    }

    /// A problem at a byte of the text.
    pub fn problem_at(&self, offset: usize, message: impl Into<String>) -> Problem {
        let offset = (0..=offset.min(self.text.len())).rev().find(|i| self.text.is_char_boundary(*i));
        let before = &self.text[..offset.unwrap_or(0)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Problem {
            file: self.name.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
        }
    }

    /// Where a fault of a node is; `at` is what the reader gave the builder: its number in TOML, its
    /// first byte in JSON Lines.
    pub fn node_problem(&self, at: usize, mut fault: Fault) -> Problem {
        if let Some(used) = fault.used.take()
            && let Some(way) = self.node(at).and_then(|node| used.find(&node))
        {
            fault.path = way;
        }
        match self.syntax {
            Syntax::Toml => self.toml_problem(&[Step::Key("node".into()), Step::Index(at)], fault),
            Syntax::JsonLines => self.json_problem(at, fault),
        }
    }

    /// The node at this place, as it is written.
    fn node(&self, at: usize) -> Option<Map<String, Value>> {
        match self.syntax {
            Syntax::Toml => {
                let root = DeTable::parse(&self.text).ok()?;
                let (_, nodes) = root.get_ref().iter().find(|(key, _)| key.get_ref() == "node")?;
                let node = nodes.get_ref().as_array()?.get(at)?.get_ref().as_table()?;
                tables::json_table(node).ok()
            }
            Syntax::JsonLines => serde_json::from_str(self.text[at..].lines().next()?).ok(),
        }
    }

    /// Where a fault is in what stands outside of nodes.
    pub fn header_problem(&self, fault: Fault) -> Problem {
        match self.syntax {
            Syntax::Toml => self.toml_problem(&[], fault),
            Syntax::JsonLines => self.json_problem(0, fault),
        }
    }

    /// Where a fault is in TOML; `prefix` leads to the table in which it was found.
    pub fn toml_problem(&self, prefix: &[Step], fault: Fault) -> Problem {
        let path: Vec<Step> = prefix.iter().cloned().chain(fault.path).collect();
        let offset =
            DeTable::parse(&self.text).map_or(0, |root| toml_offset(root.get_ref(), &path).unwrap_or(0));
        self.problem_at(offset, fault.message)
    }

    /// Where a fault is in the JSON object that starts at byte `start`.
    pub fn json_problem(&self, start: usize, fault: Fault) -> Problem {
        let line = self.text[start..].lines().next().unwrap_or_default();
        self.problem_at(start + json_offset(line, &fault.path), fault.message)
    }
}

/// The byte at which the value at the end of `path` starts, or the last key on the way that exists.
fn toml_offset(root: &DeTable, path: &[Step]) -> Option<usize> {
    let (Step::Key(first), rest) = path.split_first()? else { return None };
    let (key, mut value) = root.iter().find(|(key, _)| key.get_ref() == first)?;
    let mut offset = if rest.is_empty() { key.span().start } else { value.span().start };
    for (depth, step) in rest.iter().enumerate() {
        let last = depth + 1 == rest.len();
        let next: Option<(usize, &Spanned<DeValue>)> = match (step, value.get_ref()) {
            (Step::Key(name), DeValue::Table(table)) => {
                let found = table.iter().find(|(key, _)| key.get_ref() == name);
                found.map(|(key, value)| (if last { key.span().start } else { value.span().start }, value))
            }
            (Step::Index(index), DeValue::Array(list)) => list.get(*index).map(|v| (v.span().start, v)),
            _ => None,
        };
        let Some((start, inner)) = next else { break };
        (offset, value) = (start, inner);
    }
    Some(offset)
}

fn json_offset(line: &str, path: &[Step]) -> usize {
    let mut part = line;
    let mut offset = 0;
    for step in path {
        let start_of = |inner: &str| inner.as_ptr() as usize - line.as_ptr() as usize;
        match step {
            Step::Key(name) => {
                let Ok(fields) = serde_json::from_str::<std::collections::BTreeMap<String, &RawValue>>(part)
                else {
                    break;
                };
                let Some(value) = fields.get(name) else { break };
                part = value.get();
                // The key stands before its value: the last place where it is quoted.
                offset = line[..start_of(part)].rfind(&format!("\"{name}\"")).unwrap_or(start_of(part));
            }
            Step::Index(index) => {
                let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(part) else { break };
                let Some(value) = items.get(*index) else { break };
                part = value.get();
                offset = start_of(part);
            }
        }
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_manifest_is_endless_packed_or_not() {
        let limit = 1 << 20;
        let refused = |read: io::Result<Vec<u8>>| read.unwrap_err().to_string();
        assert!(refused(whole(io::repeat(b'x'), limit)).contains("more than 1.0 MiB"));
        assert_eq!(whole(io::repeat(b'x').take(limit), limit).unwrap().len(), 1 << 20);
        let long = vec![b'x'; 8 << 20];
        let zstd = zstd::encode_all(&long[..], 1).unwrap();
        assert!(refused(unpacked(zstd, limit)).contains("foreach"));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &long).unwrap();
        assert!(refused(unpacked(gzip.finish().unwrap(), limit)).contains("include"));
    }
}
