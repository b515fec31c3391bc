//! The key of one record: checks that a line is one JSON object, and takes one field out of it
//! without building the rest. Knows nothing of files and tables.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What is wrong with a line, and at which byte of it, from 1.
#[derive(Debug)]
pub(super) struct NotARecord {
    pub(super) column: u64,
    pub(super) reason: String,
}

/// The key in `line`: its field `key_field`, if that is a string or a whole number (as decimal
/// text). Any other line that is a JSON object has no key.
pub(super) fn record_key(line: &[u8], key_field: &str) -> Result<Option<String>, NotARecord> {
    // serde_json does not look into the strings that it skips, hence this check of the whole line.
    let text = str::from_utf8(line).map_err(|error| NotARecord {
        column: error.valid_up_to() as u64 + 1,
        reason: "the text is not valid UTF-8".to_owned(),
    })?;
    let mut json = serde_json::Deserializer::from_str(text);
    let key = ObjectWith(key_field).deserialize(&mut json);
    key.and_then(|key| json.end().map(|()| key))
        .map_err(|error| NotARecord { column: error.column().max(1) as u64, reason: reason(&error) })
}

/// The message without the position, which is only that in the line.
fn reason(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.rsplit_once(" at line ").map_or(message.clone(), |(reason, _)| reason.to_owned())
}

/// Reads an object; its value is the key.
struct ObjectWith<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for ObjectWith<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Option<String>, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectWith<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<String>, A::Error> {
        let mut key = None;
        while let Some(is_key) = map.next_key_seed(Is(self.0))? {
            if is_key {
                key = key_text(map.next_value::<&RawValue>()?.get()).map_err(A::Error::custom)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(key)
    }
}

/// The key that a JSON value is, if it can be one.
fn key_text(json: &str) -> Result<Option<String>, String> {
    if json.starts_with('"') {
        return serde_json::from_str(json).map(Some).map_err(|error| reason(&error));
    }
    let digits = json.strip_prefix('-').unwrap_or(json);
    Ok(digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| json.to_owned()))
}

/// Reads a field's name; its value is whether it is this one.
struct Is<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<bool, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(line: &str) -> Option<String> {
        record_key(line.as_bytes(), "id").unwrap_or_else(|wrong| panic!("{}", wrong.reason))
    }

    fn wrong(line: &[u8]) -> (u64, String) {
        let wrong = record_key(line, "id").expect_err("a line that is no record");
        (wrong.column, wrong.reason)
    }

    #[test]
    fn strings_and_whole_numbers_are_keys() {
        assert_eq!(key(r#"{"a": [1, {"id": 2}], "id": "k\n"}"#).as_deref(), Some("k\n"));
        assert_eq!(key(r#"{"\u0069d": "escaped name"}"#).as_deref(), Some("escaped name"));
        assert_eq!(key(r#"{"id": -12}"#).as_deref(), Some("-12"));
        assert_eq!(key(r#"{"id": 99999999999999999999}"#).as_deref(), Some("99999999999999999999"));
        for none in ["{}", r#"{"id": null}"#, r#"{"id": 1.5}"#, r#"{"id": 1e3}"#, r#"{"id": [1]}"#] {
            assert_eq!(key(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_not_one_object_is_refused_with_the_place() {
        assert_eq!(wrong(b"[1]").1, "invalid type: sequence, expected a JSON object");
        assert_eq!(wrong(br#"{"a": 1,}"#), (9, "trailing comma".to_owned()));
        assert_eq!(wrong(br#"{"a": 1} {"#), (10, "trailing characters".to_owned()));
        assert_eq!(wrong(b"{\"a\": \"x\xff\"}"), (9, "the text is not valid UTF-8".to_owned()));
        assert_eq!(wrong(br#"{"a": "#), (6, "EOF while parsing a value".to_owned()));
        let surrogate = wrong(br#"{"id": "\ud800"}"#).1;
        assert!(!surrogate.contains("column"), "{surrogate}");
    }
}
