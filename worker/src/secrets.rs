//! Values that nobody is to see: taken out of logs and errors, and kept out of results.

use std::io::{self, Write};

use forkyard_shared::sink::{Body, Sink};

use crate::op::Failed;

/// The secrets of a run: their names and values.
#[derive(Default)]
pub(crate) struct Secrets(Vec<(String, Vec<u8>)>);

/// Shorter values stand in many texts by chance.
const MIN_BYTES: usize = 6;

impl Secrets {
    /// The variables of these names, as far as they are set to something that can be recognised.
    pub fn of(names: &[String]) -> Secrets {
        let value = |name: &String| Some((name.clone(), std::env::var_os(name)?.into_encoded_bytes()));
        let values = names.iter().filter_map(value).filter(|(_, value)| value.len() >= MIN_BYTES);
        // As it stands inside of JSON, too.
        let in_json = |name: &str, value: &[u8]| {
            let quoted = serde_json::Value::from(String::from_utf8_lossy(value)).to_string();
            let inside = quoted.as_bytes()[1..quoted.len() - 1].to_vec();
            (inside != value).then(|| (name.to_string(), inside))
        };
        Secrets(
            values
                .flat_map(|(name, value)| in_json(&name, &value).into_iter().chain([(name, value)]))
                .collect(),
        )
    }

    /// The text with names in place of values.
    pub fn hide(&self, text: &mut Vec<u8>) {
        for (name, value) in &self.0 {
            let Some(mut at) = find(text, value) else { continue };
            let (mut hidden, mut rest) = (Vec::with_capacity(text.len()), &text[..]);
            loop {
                hidden.extend(&rest[..at]);
                hidden.extend(format!("[secret {name}]").as_bytes());
                rest = &rest[at + value.len()..];
                match find(rest, value) {
                    Some(next) => at = next,
                    None => break,
                }
            }
            hidden.extend(rest);
            *text = hidden;
        }
    }

    /// The name of a secret whose value is in these bytes.
    pub fn name_in(&self, bytes: &[u8]) -> Option<&str> {
        self.0.iter().find(|(_, value)| find(bytes, value).is_some()).map(|(name, _)| name.as_str())
    }

    /// Refuses bytes that are to be stored and hold a value.
    ///
    /// # Errors
    /// When they do.
    pub fn check(&self, bytes: &[u8]) -> Result<(), Failed> {
        self.name_in(bytes).map_or(Ok(()), |name| Err(refusal(name)))
    }

    /// How many bytes of a stream must be kept so that no value is missed between two parts of it.
    fn overlap(&self) -> usize {
        self.0.iter().map(|(_, value)| value.len() - 1).max().unwrap_or(0)
    }
}

fn refusal(name: &str) -> Failed {
    Failed::new(format!("the result holds the value of the secret {name}, which is not to be stored"))
}

/// A sink that finds out whether a value goes through it.
pub(crate) struct Guarded<'a> {
    sink: Sink,
    secrets: &'a Secrets,
    /// What went through last.
    end: Vec<u8>,
    found: Option<&'a str>,
}

impl<'a> Guarded<'a> {
    pub fn new(sink: Sink, secrets: &'a Secrets) -> Guarded<'a> {
        Guarded { sink, secrets, end: Vec::new(), found: None }
    }

    /// What was written.
    ///
    /// # Errors
    /// When a value went through, or it cannot be finished.
    pub fn finish(self) -> Result<Body, Failed> {
        match self.found {
            Some(name) => Err(refusal(name)),
            None => Ok(self.sink.finish()?),
        }
    }
}

impl Write for Guarded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(bytes)?;
        let overlap = self.secrets.overlap();
        if overlap > 0 && self.found.is_none() {
            self.end.extend_from_slice(&bytes[..written]);
            self.found = self.secrets.name_in(&self.end);
            let keep = self.end.len().saturating_sub(overlap);
            self.end.drain(..keep);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let (first, rest) = wanted.split_first()?;
    let mut from = 0;
    loop {
        let at = from + bytes[from..].iter().position(|byte| byte == first)?;
        if bytes[at + 1..].starts_with(rest) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_hidden_wherever_they_stand() {
        let secrets = Secrets(vec![("KEY".into(), b"abcabd".to_vec())]);
        let mut text = b"abcabcabd and abcabd.".to_vec();
        assert_eq!(secrets.name_in(&text), Some("KEY"));
        secrets.hide(&mut text);
        assert_eq!(String::from_utf8_lossy(&text), "abc[secret KEY] and [secret KEY].");
        assert_eq!(secrets.name_in(&text), None);
    }
}
