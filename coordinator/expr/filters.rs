//! Filters that make more than they are given: minijinja's own make text and lists of any length, and a filter costs
//! no steps.

use std::fmt::Write;

use minijinja::value::{Kwargs, Rest, StringInput, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};

use super::LIMIT_BYTES;

/// Parts that `batch` and `slice` make at most.
const LIMIT_PARTS: usize = 1_000_000;

/// Puts them in the place of minijinja's.
pub(super) fn add_to(environment: &mut Environment) {
    environment.add_filter("join", join);
    environment.add_filter("replace", replace);
    environment.add_filter("indent", indent);
    environment.add_filter("format", format_text);
    environment.add_filter("batch", batch);
    environment.add_filter("slice", slice);
}

/// The elements of a list, or the characters of a text, with something between them.
fn join(list: Value, between: Option<String>) -> Result<String, Error> {
    let chars = list.as_str().map(|text| text.chars().map(Value::from).collect::<Value>());
    let between = between.unwrap_or_default();
    let mut text = String::new();
    for (at, item) in chars.unwrap_or(list).try_iter()?.enumerate() {
        if at > 0 {
            text += &between;
        }
        if write!(text, "{item}").is_err() {
            return Err(too_long("joins"));
        }
        bounded("joins", text.len())?;
    }
    Ok(text)
}

/// A text with one part of it exchanged wherever it is found.
fn replace(text: StringInput, from: StringInput, to: StringInput) -> Result<String, Error> {
    let (text, from, to) = (text.as_str(), from.as_str(), to.as_str());
    let new = text.matches(from).count().saturating_mul(to.len());
    bounded("makes", new.saturating_add(text.len()))?;
    Ok(text.replace(from, to))
}

/// A text with spaces before its lines.
fn indent(
    text: StringInput,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    named: Kwargs,
) -> Result<Value, Error> {
    let spaces = match width {
        Some(width) => width,
        None => named.peek::<Option<usize>>("width")?.unwrap_or_default(),
    };
    let lines = text.as_str().split('\n').count();
    bounded("makes", lines.saturating_mul(spaces).saturating_add(text.as_str().len()))?;
    filters::indent(text, width, first, blank, named)
}

/// A text with values in its places, as `printf` has them.
fn format_text(state: &mut State, text: &Value, values: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let template = text.as_str().unwrap_or_default();
    let widths = template.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let widths = widths.map(|digits| digits.parse().unwrap_or(usize::MAX));
    let places = template.matches('%').count();
    let lengths = values.iter().map(|value| {
        // Only a value that has a name can be in several places.
        let times = if value.kind() == ValueKind::Map { places } else { 1 };
        value.to_string().len().saturating_mul(times)
    });
    bounded("makes", widths.chain(lengths).fold(template.len(), usize::saturating_add))?;
    filters::format(state, text, values)
}

/// A list in parts of `count`; the last is filled up.
fn batch(state: &State, list: Value, count: usize, fill: Option<Value>) -> Result<Value, Error> {
    few(count)?;
    filters::batch(state, list, count, fill)
}

/// A list in `count` parts.
fn slice(state: &State, list: Value, count: usize, fill: Option<Value>) -> Result<Value, Error> {
    few(count)?;
    filters::slice(state, list, count, fill)
}

fn bounded(does: &str, bytes: usize) -> Result<(), Error> {
    if bytes > LIMIT_BYTES { Err(too_long(does)) } else { Ok(()) }
}

fn too_long(does: &str) -> Error {
    let limit = crate::text::bytes(LIMIT_BYTES as u64);
    Error::new(ErrorKind::InvalidOperation, format!("it {does} more than {limit} of text"))
}

fn few(count: usize) -> Result<(), Error> {
    if count <= LIMIT_PARTS {
        return Ok(());
    }
    let limit = crate::text::count(LIMIT_PARTS as u64);
    Err(Error::new(ErrorKind::InvalidOperation, format!("{count} is more than the {limit} that it takes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(expression: &str) -> Result<String, String> {
        let mut environment = Environment::new();
        add_to(&mut environment);
        let names = minijinja::context! { long => "x".repeat(LIMIT_BYTES) };
        let value = environment.compile_expression(expression).unwrap().eval(names);
        value.map(|value| value.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn lists_and_texts_are_joined_up_to_a_limit() {
        assert_eq!(value("[1, 2, 3] | join(', ')").unwrap(), "1, 2, 3");
        assert_eq!(value("[1, 2, 3] | join").unwrap(), "123");
        assert_eq!(value("'äb' | join('-')").unwrap(), "ä-b");
        assert!(value("[1, 2, 3] | join(long)").unwrap_err().contains("more than 8"));
        assert!(value("7 | join").is_err());
    }

    #[test]
    fn texts_grow_up_to_a_limit() {
        assert_eq!(value("'a-b-c' | replace('-', ' + ')").unwrap(), "a + b + c");
        assert_eq!(value("'ab' | replace('', '.')").unwrap(), ".a.b.");
        assert!(value("'a-b-c' | replace('-', long)").unwrap_err().contains("more than 8"));
        assert!(value("long | replace('x', long)").unwrap_err().contains("more than 8"));
        assert_eq!(value("'a\nb' | indent").unwrap(), "a\n    b");
        assert_eq!(value("'a\nb' | indent(1, true)").unwrap(), " a\n b");
        assert_eq!(value("'a\nb' | indent(width=2)").unwrap(), "a\n  b");
        assert!(value("'a\nb' | indent(width=9000000000)").unwrap_err().contains("more than 8"));
        assert!(value("'a\nb' | indent(9000000000)").unwrap_err().contains("more than 8"));
    }

    #[test]
    fn formatted_texts_are_of_a_limited_length() {
        assert_eq!(value("'%03d of %s' | format(7, 'ten')").unwrap(), "007 of ten");
        assert_eq!(value("'%d' | format(123456789012)").unwrap(), "123456789012");
        assert_eq!(value("'%(a)s' | format(a='b')").unwrap(), "b");
        for long in ["'%9000000000d' | format(7)", "'%(a)s%(a)s' | format(a=long)"] {
            assert!(value(long).unwrap_err().contains("more than 8"), "{long}");
        }
    }

    #[test]
    fn lists_are_parted_up_to_a_limit() {
        assert_eq!(value("[1, 2, 3] | batch(2, 0)").unwrap(), "[[1, 2], [3, 0]]");
        assert_eq!(value("[1, 2, 3] | slice(2)").unwrap(), "[[1, 2], [3]]");
        assert!(value("[1] | batch(9000000000, 0)").unwrap_err().contains("1,000,000"));
        assert!(value("[1] | slice(9000000000)").unwrap_err().contains("1,000,000"));
    }
}
