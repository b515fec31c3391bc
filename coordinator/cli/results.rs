//! `forkyard results`: read while a run may be going on, without disturbing it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use forkyard_shared::value::Kind;
use serde_json::json;

use super::exit::{Exit, Failure, printed};
use super::runs::{find, outcomes};
use crate::export::{self, Format, Lack, PartFile, Row};
use crate::store::{JournalEntry, Outcome, Place, Reader, Record, StoreDir, StoreError};
use crate::text;

pub(super) fn ls(store: &Path, run: Option<u64>, as_json: bool) -> Result<Exit, Failure> {
    // The journal first: what it speaks of is in the store that is looked at after it.
    let nodes = outcomes(&find(store, run)?);
    let reader = Reader::look(&StoreDir::new(store), 0)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let lines = nodes.into_values().map(|entry| {
        let record = entry.key.and_then(|key| reader.lookup(key));
        if as_json { json_line(&entry, record.as_ref()) } else { text_line(&entry, record.as_ref()) }
    });
    printed(lines.into_iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush()))
}

fn json_line(entry: &JournalEntry, record: Option<&Record>) -> String {
    json!({
        "v": 1,
        "node": entry.node,
        "outcome": entry.outcome.word(),
        "bytes": record.map(|record| record.len),
        "digest": record.map(|record| record.digest.to_hex()),
        "duration_s": record.map(|record| record.duration_us as f64 / 1e6),
        "run": record.map(|record| record.run),
        "error": entry.error,
    })
    .to_string()
}

fn text_line(entry: &JournalEntry, record: Option<&Record>) -> String {
    let about = match (record, &entry.error) {
        (Some(record), _) => {
            let took = text::duration(Duration::from_micros(record.duration_us));
            format!("{:>10}  {:>9}  {}", text::bytes(record.len), took, &record.digest.to_hex()[..16])
        }
        (None, Some(error)) => error.lines().next().unwrap_or_default().into(),
        (None, None) => String::new(),
    };
    format!("{:<9}  {:<30}  {about}", entry.outcome.word(), entry.node)
}

pub(super) fn cat(store: &Path, node: &str, run: Option<u64>) -> Result<Exit, Failure> {
    let dir = StoreDir::new(store);
    dir.layout()?;
    let runs = match run {
        Some(_) => vec![find(store, run)?],
        None => dir.runs()?,
    };
    let found = runs.iter().rev().find_map(|run| {
        let mut nodes = outcomes(run);
        Some((run, nodes.remove(node)?, nodes))
    });
    let Some((run, entry, others)) = found else {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "no run of store {} has finished a node `{node}` so far; `forkyard results ls` lists what there is",
                store.display()
            ),
        ));
    };
    let Some(key) = entry.key else {
        if entry.outcome.is_done() && entry.error.is_none() {
            return cat_list(&dir, node, &others);
        }
        let error = entry.error.unwrap_or_default();
        return Err(Failure::new(
            Exit::NodesFailed,
            format!(
                "node `{node}` has no result: in run {} it {}{}{error}",
                run.id,
                became(entry.outcome),
                if error.is_empty() { "" } else { ": " }
            ),
        ));
    };
    let reader = Reader::look(&dir, 0)?;
    let record = reader.lookup(key).ok_or_else(|| gone(node))?;
    let mut out = std::io::stdout().lock();
    written(reader.write_to(&record, &mut out).map(|()| out.flush()), &dir, &record)
}

fn became(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ran | Outcome::Cached => "ran",
        Outcome::Failed => "failed",
        Outcome::TimedOut => "timed out",
        Outcome::Skipped => "was skipped",
        Outcome::Blocked => "was blocked",
        Outcome::Cancelled => "was cancelled",
    }
}

fn gone(node: &str) -> Failure {
    Failure::new(
        Exit::Store,
        format!("the result of `{node}` is not in the store any more; run its manifest again to compute it"),
    )
}

fn written(
    written: Result<std::io::Result<()>, StoreError>,
    dir: &StoreDir,
    record: &Record,
) -> Result<Exit, Failure> {
    match written {
        Err(StoreError::Output(error)) => printed(Err(error)),
        Err(error) if error.is_loss() => Err(damaged(dir, record, error)),
        Err(error) => Err(error.into()),
        Ok(flushed) => printed(flushed),
    }
}

/// The result of a node that consists of items: their results as a JSON list, one by one.
fn cat_list(dir: &StoreDir, node: &str, nodes: &BTreeMap<String, JournalEntry>) -> Result<Exit, Failure> {
    let reader = Reader::look(dir, 0)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for index in 0.. {
        let name = format!("{node}[{index}]");
        let Some(entry) = nodes.get(&name) else { break };
        if let Err(error) = out.write_all(if index == 0 { b"[" } else { b"," }) {
            return printed(Err(error));
        }
        let Some(key) = entry.key else {
            if let Err(error) = out.write_all(b"null") {
                return printed(Err(error));
            }
            continue;
        };
        let record = reader.lookup(key).ok_or_else(|| gone(&name))?;
        let item = match record.kind {
            Kind::Json => reader.write_to(&record, &mut out).map(Ok),
            Kind::Text => reader.read(&record).map(|bytes| {
                serde_json::to_writer(&mut out, &String::from_utf8_lossy(&bytes)).map_err(Into::into)
            }),
            Kind::Bytes | Kind::Array => {
                let why =
                    format!("`{name}` is bytes, which no JSON list holds: `forkyard results cat '{name}'`");
                return Err(Failure::new(Exit::Usage, why));
            }
        };
        if !matches!(item, Ok(Ok(()))) {
            return written(item, dir, &record);
        }
    }
    let end = if nodes.contains_key(&format!("{node}[0]")) { "]" } else { "[]" };
    printed(out.write_all(end.as_bytes()).and_then(|()| out.flush()))
}

/// Nobody is to read a damaged blob again: it goes into quarantine, unless a run is using the store, which
/// will do so itself.
fn damaged(dir: &StoreDir, record: &Record, error: StoreError) -> Failure {
    let moved = record.place == Place::File
        && dir.lock().is_ok_and(|_lock| {
            dir.layout().is_ok_and(|layout| dir.quarantine(layout, record.digest).is_ok())
        });
    let next = if moved {
        "it is in quarantine now; run the manifest again to compute it"
    } else {
        "run the manifest with --refresh NODE to compute it again"
    };
    Failure::new(Exit::Store, format!("{error}; {next}"))
}

pub(super) fn export(store: &Path, run: Option<u64>, format: Format, file: &Path) -> Result<Exit, Failure> {
    let to_stdout = file == Path::new("-");
    if to_stdout && format == Format::Parquet {
        return Err(Failure::new(Exit::Usage, "parquet is not written to stdout; name a file"));
    }
    // The journal first: what it speaks of is in the store that is looked at after it.
    let nodes = outcomes(&find(store, run)?);
    let reader = Reader::look(&StoreDir::new(store), 0)?;
    let (mut lacking, mut damaged, mut first) = (0, false, None);
    let rows = nodes.into_values().map(|entry| Row::of(entry, &reader, format)).inspect(|row| {
        lacking += usize::from(row.lack.is_some());
        damaged |= row.lack == Some(Lack::Damaged);
        if row.lack.is_some() && first.is_none() {
            first = Some(format!("`{}`: {}", row.node, row.error.as_deref().unwrap_or_default()));
        }
    });
    reader.at_one_moment(|| {
        if to_stdout {
            return printed(export::write(rows, format, std::io::stdout())).map(drop);
        }
        let failed = |exit| {
            move |error: std::io::Error| Failure::new(exit, format!("write {}: {error}", file.display()))
        };
        let part = PartFile::create(file).map_err(failed(Exit::Usage))?;
        export::write(rows, format, part.file()).map_err(failed(Exit::Resources))?;
        part.complete().map_err(failed(Exit::Resources))
    })?;
    let Some(first) = first else { return Ok(Exit::Ok) };
    let next =
        if damaged { "; run the manifest with --refresh NODE to compute a damaged one again" } else { "" };
    Err(Failure::new(
        Exit::Store,
        format!(
            "{} could not be exported, and `value` is null there; the first is {first}{next}",
            text::plural(lacking, "result")
        ),
    ))
}
