//! `--json`: one event a line on stdout.

use std::io::{self, BufWriter, ErrorKind, Stdout, Write};
use std::time::Instant;

use serde_json::{Map, Value};

/// Which `node_finished` events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EventsWanted {
    /// Those of all nodes.
    All,
    /// Those of nodes that did not get a result.
    Failures,
    /// None.
    None,
}

/// The version of the events' format.
const VERSION: u64 = 1;

/// Writes events.
pub(super) struct Events {
    start: Instant,
    out: BufWriter<Stdout>,
    /// The first thing that went wrong; nothing is written after it.
    failed: Option<io::Error>,
}

impl Events {
    pub fn new(start: Instant) -> Events {
        Events { start, out: BufWriter::new(io::stdout()), failed: None }
    }

    /// Writes one event; its fields follow `v`, `event` and `t`. Fields that are null are left out.
    pub fn write(&mut self, event: &str, fields: Value) {
        let mut line = Map::new();
        line.insert("v".into(), VERSION.into());
        line.insert("event".into(), event.into());
        line.insert("t".into(), round(self.start.elapsed().as_secs_f64()).into());
        if let Value::Object(fields) = fields {
            line.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
        }
        self.attempt(|out| writeln!(out, "{}", Value::Object(line)));
    }

    /// What was written so far is out. Called whenever the run is about to wait.
    pub fn flush(&mut self) {
        self.attempt(BufWriter::flush);
    }

    /// Whether all of it could be written. Whoever closed the pipe does not want to know.
    pub fn finish(&mut self) -> io::Result<()> {
        self.flush();
        match self.failed.take() {
            Some(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }

    fn attempt(&mut self, write: impl FnOnce(&mut BufWriter<Stdout>) -> io::Result<()>) {
        if self.failed.is_none() {
            self.failed = write(&mut self.out).err();
        }
    }
}

/// Seconds to the microsecond.
pub(super) fn round(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}
