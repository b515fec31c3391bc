//! `join(list, between)`: minijinja's own makes text of any length, and a filter costs no steps.

use std::fmt::Write;

use minijinja::{Error, ErrorKind, Value};

use super::LIMIT_BYTES;

/// The elements of a list, or the characters of a text, with something between them.
pub(super) fn join(list: Value, between: Option<String>) -> Result<String, Error> {
    let chars = list.as_str().map(|text| text.chars().map(Value::from).collect::<Value>());
    let between = between.unwrap_or_default();
    let mut text = String::new();
    for (at, item) in chars.unwrap_or(list).try_iter()?.enumerate() {
        if at > 0 {
            text += &between;
        }
        let written = write!(text, "{item}");
        if written.is_err() || text.len() > LIMIT_BYTES {
            let limit = crate::text::bytes(LIMIT_BYTES as u64);
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("it joins more than {limit} of text"),
            ));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_texts_are_joined_up_to_a_limit() {
        let list = Value::from(vec![1, 2, 3]);
        assert_eq!(join(list.clone(), Some(", ".into())).unwrap(), "1, 2, 3");
        assert_eq!(join(list.clone(), None).unwrap(), "123");
        assert_eq!(join(Value::from("äb"), Some("-".into())).unwrap(), "ä-b");
        assert!(join(list, Some("x".repeat(LIMIT_BYTES))).unwrap_err().to_string().contains("8"));
        assert!(join(Value::from(7), None).is_err());
    }
}
