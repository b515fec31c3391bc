//! `--trace FILE`: a Chrome trace (chrome://tracing, Perfetto), one track a worker, one span a task.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use forkyard_shared::ids::WorkerId;

/// Writes spans as they end. The format allows the closing bracket to be missing, so that the trace of
/// a killed run can be read.
pub(super) struct Trace {
    out: BufWriter<File>,
    start_ns: u64,
    named: Vec<bool>,
}

impl Trace {
    pub fn create(path: &Path, start_ns: u64) -> io::Result<Trace> {
        let mut out = BufWriter::new(File::create(path)?);
        out.write_all(b"[\n")?;
        Ok(Trace { out, start_ns, named: Vec::new() })
    }

    pub fn span(
        &mut self,
        worker: WorkerId,
        name: &str,
        op: &str,
        outcome: &str,
        started_ns: u64,
        duration_ns: u64,
    ) {
        let track = worker.0;
        if self.named.len() <= worker.index() {
            self.named.resize(worker.index() + 1, false);
        }
        if !std::mem::replace(&mut self.named[worker.index()], true) {
            let line = format!(
                r#"{{"ph":"M","pid":1,"tid":{track},"name":"thread_name","args":{{"name":"worker {track}"}}}},"#
            );
            writeln!(self.out, "{line}").ok();
        }
        let (ts, dur) = (started_ns.saturating_sub(self.start_ns) as f64 / 1e3, duration_ns as f64 / 1e3);
        let (name, op) = (serde_json::Value::from(name), serde_json::Value::from(op));
        writeln!(
            self.out,
            r#"{{"ph":"X","pid":1,"tid":{track},"ts":{ts},"dur":{dur},"name":{name},"cat":{op},"args":{{"outcome":"{outcome}"}}}},"#
        )
        .ok();
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.out.write_all(
            b"{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{\"name\":\"forkyard\"}}\n]\n",
        )?;
        self.out.flush()
    }
}
