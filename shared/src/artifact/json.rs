//! Reads a JSON document once and makes the offset table of its records (drawn in [`super::Records`]'s file): those of
//! a list, or of an object by key. The records stay where they are, in the file.
//!
//! The document is held in memory while that is done, because its parser can say where a value lies only in memory; what
//! is larger than some hundred MiB belongs into JSON Lines.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{no_part, unreadable};
use super::key::record_key;
use super::records::{KeyedBy, hash, hash_slots, key_of, table};
use super::{ArtifactError, Format, JsonlLayout};

const DOCUMENT_MAX_BYTES: u64 = 512 << 20;

/// The offset table of the document in `file`, which is `len` bytes long.
///
/// - A list: its elements are the records, objects whose key is their field `key_field`, as with JSON Lines.
/// - An object with `part`: what its member of this name is.
/// - Any other object: if one of its values is a list of objects and no other is a list or an object, that list (it has
///   been wrapped); else its values are the records, by their names.
pub fn index_json(
    file: &File,
    len: u64,
    key_field: &str,
    part: Option<&str>,
) -> Result<(Vec<u8>, JsonlLayout), ArtifactError> {
    if len > DOCUMENT_MAX_BYTES {
        return Err(unreadable(
            Format::Json,
            format!("a document may have {} MiB; write JSON Lines (.jsonl)", DOCUMENT_MAX_BYTES >> 20),
        ));
    }
    let mut text = vec![0; len as usize];
    file.read_exact_at(&mut text, 0)?;
    let text = str::from_utf8(&text).map_err(|error| {
        unreadable(Format::Json, format!("at byte {} the text is not valid UTF-8", error.valid_up_to()))
    })?;
    let document: &RawValue = parse(text)?;
    let found = choose(document, part)?;
    Document { text, key_field }.index(&found)
}

fn parse<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, ArtifactError> {
    serde_json::from_str(text).map_err(|error| unreadable(Format::Json, error.to_string()))
}

/// The records of a document.
enum Found<'t> {
    List(Vec<&'t RawValue>),
    ByKey(Vec<Member<'t>>),
}

/// The name of a value in an object, and the value.
type Member<'t> = (&'t RawValue, &'t RawValue);

fn choose<'t>(document: &'t RawValue, part: Option<&str>) -> Result<Found<'t>, ArtifactError> {
    if document.get().starts_with('[') && part.is_none() {
        return parse(document.get()).map(Found::List);
    }
    if !document.get().starts_with('{') {
        return Err(unreadable(
            Format::Json,
            "it must be a list of objects, or an object whose values are the records",
        ));
    }
    let Members(members) = parse(document.get())?;
    if let Some(part) = part {
        let names: Vec<String> =
            members.iter().map(|(name, _)| parse(name.get())).collect::<Result<_, _>>()?;
        let at = names.iter().position(|name| name == part);
        let at = at.ok_or_else(|| no_part(Format::Json, part, names.iter().map(String::as_str)))?;
        return choose_inner(members[at].1);
    }
    let mut nested = members.iter().filter(|(_, value)| value.get().starts_with(['{', '[']));
    if let (Some((_, only)), None) = (nested.next(), nested.next())
        && only.get().starts_with('[')
    {
        let list: Vec<&RawValue> = parse(only.get())?;
        if !list.is_empty() && list.iter().all(|record| record.get().starts_with('{')) {
            return Ok(Found::List(list));
        }
    }
    Ok(Found::ByKey(members))
}

/// The records of a value that was named: nothing is wrapped in it.
fn choose_inner(value: &RawValue) -> Result<Found<'_>, ArtifactError> {
    if value.get().starts_with('[') {
        return parse(value.get()).map(Found::List);
    }
    match value.get().starts_with('{') {
        true => parse(value.get()).map(|Members(members)| Found::ByKey(members)),
        false => Err(unreadable(Format::Json, "what was named is neither a list nor an object")),
    }
}

/// An object's members, their names and values as they are written.
struct Members<'t>(Vec<Member<'t>>);

impl<'de: 't, 't> Deserialize<'de> for Members<'t> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Members<'t>, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Vec<Member<'de>>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        json.deserialize_map(Each).map(Members)
    }
}

struct Document<'t> {
    text: &'t str,
    key_field: &'t str,
}

impl Document<'_> {
    fn index(&self, found: &Found) -> Result<(Vec<u8>, JsonlLayout), ArtifactError> {
        let (keyed_by, spans) = match found {
            Found::List(list) => {
                (KeyedBy::Field, list.iter().map(|record| self.span(record, record)).collect())
            }
            Found::ByKey(members) => {
                (KeyedBy::Member, members.iter().map(|(name, value)| self.span(name, value)).collect())
            }
        };
        let spans: Vec<Range<u64>> = spans;
        if spans.is_empty() {
            return Err(unreadable(Format::Json, "it has no records"));
        }
        let mut keys = Vec::new();
        for (row, span) in spans.iter().enumerate() {
            let key = match keyed_by {
                KeyedBy::Member => key_of(keyed_by, self.at(span), ""),
                KeyedBy::Field => record_key(self.at(span), self.key_field).map_err(|wrong| {
                    let why = format!("record {row}: {}; a list must be one of objects", wrong.reason);
                    unreadable(Format::Json, why)
                })?,
            };
            keys.extend(key.map(|key| (hash(&key), row as u64)));
        }
        let key = |row: u64| key_of(keyed_by, self.at(&spans[row as usize]), self.key_field);
        let slots = hash_slots(&keys, |first, second| match key(first) {
            Some(key_of_first) if key(second).as_ref() == Some(&key_of_first) => {
                let why = format!("records {first} and {second} have the same key, {key_of_first:?}");
                Err(unreadable(Format::Json, why))
            }
            _ => Ok(()),
        })?;
        let layout = JsonlLayout { records: spans.len() as u64, keyed: keys.len() as u64 };
        Ok((table(keyed_by, &spans, &slots, self.key_field), layout))
    }

    /// From the start of one value to the end of another.
    fn span(&self, from: &RawValue, to: &RawValue) -> Range<u64> {
        let offset = |value: &RawValue| value.get().as_ptr().addr() - self.text.as_ptr().addr();
        offset(from) as u64..(offset(to) + to.get().len()) as u64
    }

    fn at(&self, span: &Range<u64>) -> &[u8] {
        &self.text.as_bytes()[span.start as usize..span.end as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;
    use crate::artifact::Records;

    fn index(text: &[u8], key: &str, part: Option<&str>) -> Result<(Vec<u8>, JsonlLayout), ArtifactError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        index_json(&file, text.len() as u64, key, part)
    }

    fn text(record: Option<&[u8]>) -> &str {
        record.map_or("none", |record| str::from_utf8(record).unwrap())
    }

    #[track_caller]
    fn refused(document: &[u8], why: &str) {
        let message = index(document, "id", None).unwrap_err().to_string();
        assert!(message.contains(why), "{message:?} does not say {why:?}");
    }

    #[test]
    fn a_list_has_records_by_row_and_by_field() {
        let document = br#" [ {"id": "a", "x": [1, {"id": "no"}]} , {"id": 7},{"y": ","} ] "#;
        let (table, layout) = index(document, "id", None).unwrap();
        assert_eq!(layout, JsonlLayout { records: 3, keyed: 2 });
        let records = Records::new(document, &table).unwrap();
        assert_eq!(text(records.row(0)), r#"{"id": "a", "x": [1, {"id": "no"}]}"#);
        assert_eq!(text(records.row(2)), r#"{"y": ","}"#);
        assert_eq!(records.row(3), None);
        assert_eq!(records.by_key("7"), records.row(1));
        assert_eq!(records.by_key("no"), None);
    }

    #[test]
    fn an_object_has_records_by_name() {
        let document = "{\"a\\\"\\\\\" : 1, \"\\u00e9\":\n\t{\"x\": \"}\"}, \"c:\": [2]}".as_bytes();
        let (table, layout) = index(document, "id", None).unwrap();
        assert_eq!(layout, JsonlLayout { records: 3, keyed: 3 });
        let records = Records::new(document, &table).unwrap();
        assert_eq!(text(records.by_key("a\"\\")), "1");
        assert_eq!(text(records.by_key("\u{e9}")), r#"{"x": "}"}"#);
        assert_eq!(text(records.by_key("c:")), "[2]");
        assert_eq!(text(records.row(2)), "[2]");
        assert_eq!(records.by_key("x"), None);
    }

    #[test]
    fn a_list_may_be_wrapped_or_named() {
        let document = br#"{"version": 3, "tools": [{"id": "a"}], "by": "me"}"#;
        let wrapped = index(document, "id", None).unwrap();
        assert_eq!(wrapped, index(document, "id", Some("tools")).unwrap());
        assert_eq!(text(Records::new(document, &wrapped.0).unwrap().by_key("a")), r#"{"id": "a"}"#);
        let error = index(document, "id", Some("toys")).unwrap_err().to_string();
        assert_eq!(error, r#"it has no list "toys"; it has "version", "tools", "by""#);
        // Several lists: it is an object by key, unless one of them is named.
        let several = br#"{"a": [{"id": 1}], "b": {"id": 2}}"#;
        assert_eq!(index(several, "id", None).unwrap().1.records, 2);
        let named = index(several, "id", Some("b")).unwrap().0;
        assert_eq!(text(Records::new(several, &named).unwrap().by_key("id")), "2");
    }

    #[test]
    fn what_has_no_records_is_refused() {
        refused(b"", "EOF");
        refused(b"[]", "no records");
        refused(b"{}", "no records");
        refused(b"17", "must be a list of objects");
        refused(br#"[{"id": 1}, 2]"#, "record 1: invalid type: integer `2`, expected a JSON object");
        refused(br#"[{"id": 1}, {"id": "1"}]"#, "records 0 and 1 have the same key, \"1\"");
        refused(br#"{"a": 1, "\u0061": 2}"#, "records 0 and 1 have the same key, \"a\"");
        refused(br#"{"a": 1} x"#, "trailing characters at line 1 column 10");
        refused(b"[\n{\"a\": tru}]", "at line 2 column");
        refused(b"[\"\xff\"]", "at byte 2 the text is not valid UTF-8");
        refused("[".repeat(100_000).as_bytes(), "EOF");
    }

    #[test]
    fn the_registry_is_read_as_it_is() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/formats/registry");
        let Ok(plain) = std::fs::read(format!("{folder}/tools.json")) else {
            println!("skipped: ../shared/data/formats/registry is absent");
            return;
        };
        let escaped = std::fs::read(format!("{folder}/tools_ascii_escaped.json")).unwrap();
        let whole: serde_json::Value = serde_json::from_slice(&plain).unwrap();
        for document in [&plain, &escaped] {
            let (table, layout) = index(document, "name", None).unwrap();
            assert_eq!(layout, JsonlLayout { records: 120, keyed: 120 });
            let records = Records::new(document, &table).unwrap();
            for (row, tool) in whole["tools"].as_array().unwrap().iter().enumerate() {
                let found = records.by_key(tool["name"].as_str().unwrap());
                assert_eq!(found, records.row(row as u64));
                assert_eq!(&serde_json::from_slice::<serde_json::Value>(found.unwrap()).unwrap(), tool);
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in "([{}\\[\\]\",:a1 \\n\\\\]|\"id\":|\\{\"id\":1\\}){0,40}", tail in any::<Vec<u8>>()) {
            for document in [text.as_bytes(), &[text.as_bytes(), &tail].concat()] {
                if let Ok((table, layout)) = index(document, "id", None) {
                    let records = Records::new(document, &table).unwrap();
                    prop_assert!((0..layout.records).all(|row| records.row(row).is_some()));
                }
            }
        }
    }
}
