//! Where in a text the expressions are. Knows quotes and brackets, not what expressions mean.

/// A piece of a text.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'a> {
    /// Stands as it is.
    Text(&'a str),
    /// `{{ this }}`, without the braces.
    Value(&'a str),
    /// `{% this %}` or a comment, with its brackets.
    Other(&'a str),
}

/// Whether there is anything in a text but the text.
pub(crate) fn has_expression(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// Takes a text apart. What is not closed is the rest of the text: the compiler will say so.
pub(super) fn pieces(mut text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    while let Some(start) = next_open(text) {
        if start > 0 {
            found.push(Piece::Text(&text[..start]));
        }
        let (close, is_value) = match &text[start..start + 2] {
            "{{" => ("}}", true),
            "{%" => ("%}", false),
            _ => ("#}", false),
        };
        let Some(end) = find_close(&text[start + 2..], close).map(|at| start + 2 + at) else {
            found.push(Piece::Other(&text[start..]));
            return found;
        };
        let inner = &text[start + 2..end];
        found.push(if is_value { Piece::Value(inner) } else { Piece::Other(&text[start..end + 2]) });
        text = &text[end + 2..];
        if !is_value && inner.trim_matches(['-', '+', ' ']) == "raw" {
            let raw_end = text.find("{%").map_or(text.len(), |_| end_of_raw(text));
            found.push(Piece::Text(&text[..raw_end]));
            text = &text[raw_end..];
        }
    }
    if !text.is_empty() {
        found.push(Piece::Text(text));
    }
    found
}

fn next_open(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    bytes.windows(2).position(|two| two[0] == b'{' && matches!(two[1], b'{' | b'%' | b'#'))
}

/// How deep the operations in a piece of code are inside each other, at the most: `a + b + c` is two deep, and what
/// stands beside it behind a comma does not count.
pub(super) fn depth(code: &str) -> usize {
    const WORDS: [&str; 7] = ["not", "and", "or", "if", "else", "is", "in"];
    let (mut deep, mut deepest, mut outer) = (0, 0, Vec::new());
    let (mut quote, mut escaped, mut word) = (None, false, 0);
    for (at, c) in code.char_indices().chain([(code.len(), ' ')]) {
        let is_word = c.is_alphanumeric() || c == '_';
        if !is_word && word < at && WORDS.contains(&&code[word..at]) {
            deep += 1;
        }
        if !is_word {
            word = at + c.len_utf8();
        }
        match quote {
            _ if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None => match c {
                '"' | '\'' => quote = Some(c),
                '(' | '[' | '{' => {
                    deep += 1;
                    outer.push(deep);
                }
                ')' | ']' | '}' => deep = outer.pop().unwrap_or(deep),
                ',' => deep = outer.last().copied().unwrap_or(0),
                '+' | '-' | '~' | '*' | '/' | '%' | '|' | '.' | '<' | '>' | '=' | '!' => deep += 1,
                _ => {}
            },
        }
        deepest = deepest.max(deep);
    }
    deepest
}

/// The first `close` that is not inside quotes.
fn find_close(text: &str, close: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            _ if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if text[at..].starts_with(close) => return Some(at),
            None if (c == '"' || c == '\'') && close != "#}" => quote = Some(c),
            None => {}
        }
    }
    None
}

fn end_of_raw(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%").map(|at| from + at) {
        if text[at + 2..].trim_start_matches(['-', '+', ' ']).starts_with("endraw") {
            return at;
        }
        from = at + 2;
    }
    text.len()
}

/// Node ids in brackets, `nodes["id"]`, get names that need no quotes: `nodes.id__0`. The ids are pushed to `ids`.
pub(super) fn name_ids(code: &str, ids: &mut Vec<String>) -> String {
    let (mut out, mut rest) = (String::with_capacity(code.len()), code);
    while let Some(at) = rest.find("nodes") {
        let (before, found) = rest.split_at(at);
        out.push_str(before);
        let is_word = !out.ends_with(|c: char| c.is_alphanumeric() || "_.\"'".contains(c));
        let after = &found["nodes".len()..];
        match quoted_index(after).filter(|_| is_word) {
            Some((id, len)) => {
                out += &format!("nodes.id__{}", ids.len());
                ids.push(id.into());
                rest = &after[len..];
            }
            None => {
                out.push_str("nodes");
                rest = after;
            }
        }
    }
    out + rest
}

/// The id in `["id"]` at the start of a text, and the length of all that.
fn quoted_index(text: &str) -> Option<(&str, usize)> {
    let inner = text.trim_start().strip_prefix('[')?.trim_start();
    let quote = inner.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    let (id, rest) = inner[1..].split_once(quote)?;
    let rest = rest.trim_start().strip_prefix(']')?;
    Some((id, text.len() - rest.len()))
}

#[cfg(test)]
mod tests {
    use super::Piece::{Other, Text, Value};
    use super::*;

    #[test]
    fn texts_come_apart() {
        assert_eq!(pieces("a {{ b }} c"), [Text("a "), Value(" b "), Text(" c")]);
        assert_eq!(pieces("{{ '}}' }}"), [Value(" '}}' ")]);
        assert_eq!(pieces("{% if a %}{{ b }}{# c #}"), [Other("{% if a %}"), Value(" b "), Other("{# c #}")]);
        assert_eq!(pieces("a {{ b"), [Text("a "), Other("{{ b")]);
        let raw = pieces("{% raw %}{{ a }}{% endraw %}b");
        assert_eq!(raw, [Other("{% raw %}"), Text("{{ a }}"), Other("{% endraw %}"), Text("b")]);
    }

    #[test]
    fn quoted_ids_get_names() {
        let mut ids = Vec::new();
        let code =
            name_ids(r#"nodes["a b"].result + nodes.c.result + nodes[ 'd-1' ].result[nodes_x]"#, &mut ids);
        assert_eq!(code, "nodes.id__0.result + nodes.c.result + nodes.id__1.result[nodes_x]");
        assert_eq!(ids, ["a b", "d-1"]);
    }
}
