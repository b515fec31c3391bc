//! What is kept of a command's stderr, however much it writes.

use std::collections::VecDeque;
use std::io::{self, Write};

/// The beginning and the end of a stream: where it says what it does, and where it says why it failed.
pub struct Log {
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

/// Room for the notice that something was left out, whatever the number in it.
const NOTICE_MAX_BYTES: usize = 64;

impl Log {
    /// Keeps at most `limit` bytes, the notice included.
    pub fn new(limit: usize) -> Log {
        let half = limit.saturating_sub(NOTICE_MAX_BYTES) / 2;
        Log { half, head: Vec::new(), tail: VecDeque::new(), left_out: 0 }
    }

    /// What is kept.
    pub fn finish(self) -> Vec<u8> {
        let Log { mut head, tail, left_out, .. } = self;
        if left_out > 0 {
            head.extend_from_slice(format!("\n... {left_out} bytes left out ...\n").as_bytes());
        }
        head.extend(tail);
        head
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = (self.half - self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(self.half);
        self.tail.drain(..excess);
        self.left_out += excess as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The last `n` lines of a log, for an error message: at most some kilobytes, without blank ends, and with
/// nothing in it that a terminal would obey.
pub fn last_lines(log: &[u8], n: usize) -> String {
    const MAX_BYTES: usize = 2 << 10;
    let log = log.trim_ascii();
    let end = &log[log.len().saturating_sub(MAX_BYTES)..];
    let text = String::from_utf8_lossy(end);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let said = lines[lines.len().saturating_sub(n)..].join("\n");
    said.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endless_log_keeps_its_ends() {
        let mut log = Log::new(NOTICE_MAX_BYTES + 10);
        for part in ["start", "..", "middle", "..", "the end"] {
            log.write_all(part.as_bytes()).unwrap();
        }
        let said = log.finish();
        assert_eq!(String::from_utf8(said).unwrap(), "start\n... 12 bytes left out ...\ne end");

        let mut log = Log::new(1000);
        for _ in 0..1000 {
            log.write_all(&[b'x'; 997]).unwrap();
            assert!(log.head.len() + log.tail.len() < 1000);
        }
        assert!(log.finish().len() <= 1000);

        let mut log = Log::new(1000);
        log.write_all(&[b'x'; 900]).unwrap();
        assert_eq!(log.finish(), [b'x'; 900]);
    }

    #[test]
    fn last_lines_are_few_and_readable() {
        assert_eq!(last_lines(b"one\ntwo\r\n  three\n\n \n", 2), "two\n  three");
        assert_eq!(last_lines(b"one\xff", 5), "one\u{fffd}");
        assert_eq!(last_lines(b" \n", 5), "");
        assert!(last_lines(&[b'x'; 100_000], 5).len() <= 4 << 10);
    }
}
