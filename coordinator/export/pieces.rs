//! Writers that a large value goes through in pieces of any size. Knows nothing of where it comes from.

use std::io::{self, Write};

/// Writes what it is given, with something else in the place of some bytes.
pub(super) struct Replacing<W, F> {
    out: W,
    instead: F,
}

impl<W: Write, F: Fn(u8) -> Option<&'static str>> Replacing<W, F> {
    /// `instead` tells what stands for a byte; `None`: it stands for itself.
    pub fn new(out: W, instead: F) -> Replacing<W, F> {
        Replacing { out, instead }
    }
}

impl<W: Write, F: Fn(u8) -> Option<&'static str>> Write for Replacing<W, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut start = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if let Some(instead) = (self.instead)(*byte) {
                self.out.write_all(&bytes[start..at])?;
                self.out.write_all(instead.as_bytes())?;
                start = at + 1;
            }
        }
        self.out.write_all(&bytes[start..])?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Keeps nothing of what it is given but whether it is UTF-8.
#[derive(Default)]
pub(super) struct Utf8 {
    /// The beginning of a character that the next piece is to complete.
    begun: Vec<u8>,
    broken: bool,
}

impl Utf8 {
    /// Whether all of it was.
    pub fn is_valid(&self) -> bool {
        !self.broken && self.begun.is_empty()
    }
}

impl Write for Utf8 {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !self.begun.is_empty()
            && let Some((first, others)) = rest.split_first()
        {
            let mut character = std::mem::take(&mut self.begun);
            character.push(*first);
            rest = others;
            self.check(&character);
        }
        self.check(rest);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Utf8 {
    fn check(&mut self, bytes: &[u8]) {
        match str::from_utf8(bytes) {
            Ok(_) => {}
            Err(error) if error.error_len().is_none() => {
                self.begun = bytes[error.valid_up_to()..].to_vec();
            }
            Err(_) => self.broken = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_utf8_however_it_is_cut() {
        let cases: [(&[u8], bool); 8] = [
            (b"", true),
            ("aü€🦀z".as_bytes(), true),
            (b"\xff", false),
            (b"a\xc3", false),
            (b"\xf0\x9f\xa6", false),
            (b"\xc3a\xc3\xbc", false),
            (b"\xed\xa0\x80", false),
            (b"\xe2\x82\xe2\x82\xac", false),
        ];
        for (bytes, expected) in cases {
            for piece in 1..=bytes.len().max(1) {
                let mut utf8 = Utf8::default();
                bytes.chunks(piece).for_each(|piece| utf8.write_all(piece).unwrap());
                assert_eq!(utf8.is_valid(), expected, "{bytes:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn some_bytes_are_replaced_however_they_are_cut() {
        for piece in 1..8 {
            let mut out = Vec::new();
            let mut writer = Replacing::new(&mut out, |byte| (byte == b'"').then_some("\"\""));
            b"\"a\"\"bc\"".chunks(piece).for_each(|piece| writer.write_all(piece).unwrap());
            assert_eq!(out, b"\"\"a\"\"\"\"bc\"\"");
        }
    }
}
