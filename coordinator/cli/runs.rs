//! `forkyard runs` and `forkyard status`: read from the run's directory, without a lock, while it may be going
//! on.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::exit::{Exit, Failure, printed};
use crate::cost::OpStats;
use crate::stats::Summary;
use crate::store::{JournalEntry, Outcome, RunDir, RunHeader, StoreDir, holder, read_journal};
use crate::text;

/// What became of each node of a run, by id; the last entry of a node counts.
pub(super) fn outcomes(run: &RunDir) -> BTreeMap<String, JournalEntry> {
    let mut nodes = BTreeMap::new();
    // A run that was killed before its first commit has no journal.
    read_journal(&run.journal_path(), |entry| drop(nodes.insert(entry.node.clone(), entry))).ok();
    nodes
}

/// The run of this number, or the newest.
pub(super) fn find(store: &Path, run: Option<u64>) -> Result<RunDir, Failure> {
    let dir = StoreDir::new(store);
    // A store of a newer forkyard may mean something else by its runs.
    dir.layout()?;
    let mut runs = dir.runs()?;
    if runs.is_empty() {
        return Err(Failure::new(Exit::Usage, format!("store {} has no run yet", store.display())));
    }
    match run {
        None => Ok(runs.pop().expect("there is one")),
        Some(id) => runs.into_iter().find(|run| run.id == id).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                format!("store {} has no run {id}; `forkyard runs` lists them", store.display()),
            )
        }),
    }
}

pub(super) fn state(store: &Path, run: &RunDir, header: &RunHeader) -> &'static str {
    let alive = || {
        let holds = holder(&StoreDir::new(store).lock_path()) == Some(header.pid);
        holds && Path::new("/proc").join(header.pid.to_string()).exists()
    };
    match run.summary() {
        Some(summary) if summary.is_complete() => "done",
        Some(summary) if summary.cancelled > 0 && summary.failed + summary.timed_out == 0 => "stopped",
        Some(_) => "failed",
        None if alive() && run.is_paused() => "paused",
        None if alive() => "running",
        None => "killed",
    }
}

pub(super) fn list(store: &Path, as_json: bool) -> Result<Exit, Failure> {
    find(store, None)?;
    let mut out = std::io::stdout().lock();
    let mut lines = Vec::new();
    for run in StoreDir::new(store).runs()? {
        let Some(header) = run.header() else { continue };
        let summary = run.summary().unwrap_or_default();
        let state = state(store, &run, &header);
        lines.push(if as_json {
            json!({ "v": 1, "run": run.id, "manifest": header.manifest, "name": header.name, "state": state,
                "started": header.started, "nodes": header.nodes, "ran": summary.ran, "cached": summary.cached,
                "failed": summary.failed + summary.timed_out, "durable": summary.durable, "wall_s": summary.wall_s })
            .to_string()
        } else {
            format!(
                "{:>5}  {:<8}  {:>9} nodes  {:>9} ran  {:>9} cached  {:>7} failed  {:>9} new  {}",
                run.id, state, text::count(header.nodes), text::count(summary.ran), text::count(summary.cached),
                text::count(summary.failed + summary.timed_out), text::count(summary.durable), header.manifest
            )
        });
    }
    printed(lines.iter().try_for_each(|line| writeln!(out, "{line}")))
}

pub(super) fn status(store: &Path, run: Option<u64>, as_json: bool) -> Result<Exit, Failure> {
    let run = find(store, run)?;
    let header = run
        .header()
        .ok_or_else(|| Failure::new(Exit::Store, format!("{} is damaged", run.path.display())))?;
    let nodes = outcomes(&run);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in nodes.values() {
        *counts.entry(entry.outcome.word()).or_default() += 1;
    }
    let failures: Vec<&JournalEntry> =
        nodes.values().filter(|entry| matches!(entry.outcome, Outcome::Failed | Outcome::TimedOut)).collect();
    // The header was written before anybody knew of items.
    let known = header.nodes.max(nodes.len() as u64);
    let state = state(store, &run, &header);
    let (ops, alerts) = run.summary().map(|summary| (summary.ops, summary.alerts)).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    if as_json {
        let failures: Vec<_> = failures.iter().map(|e| json!({ "node": e.node, "outcome": e.outcome.word(), "attempt": e.attempt, "error": e.error })).collect();
        let status = json!({ "v": 1, "run": run.id, "state": state, "manifest": header.manifest, "nodes": known,
            "workers": header.workers, "pid": header.pid, "started": header.started, "commit": header.commit,
            "counts": counts, "failures": failures, "ops": ops, "alerts": alerts });
        return printed(writeln!(out, "{status}"));
    }
    let mut lines = vec![
        format!("run {} is {state}: {}", run.id, header.manifest),
        format!(
            "{} of {} are settled",
            text::count(nodes.len() as u64),
            text::plural(known as usize, "node")
        ),
        format!("durable: {}", header.commit),
    ];
    lines.extend(counts.iter().map(|(word, count)| format!("  {word:<10} {}", text::count(*count))));
    lines.extend(op_lines(&ops));
    for (name, told) in &alerts {
        let times =
            if told.count > 1 { format!(" ({} times)", text::count(told.count)) } else { String::new() };
        lines.push(format!("alert {name}{times}: {}", told.message));
    }
    for entry in failures {
        let took = text::duration(Duration::from_micros(entry.duration_us));
        let error = entry.error.as_deref().unwrap_or_default();
        lines.push(format!(
            "{} {} in attempt {} after {took}: {error}",
            entry.node,
            entry.outcome.word(),
            entry.attempt
        ));
    }
    printed(lines.iter().try_for_each(|line| writeln!(out, "{line}")))
}

/// What each op or function took: a line for its time, for its processor time and for its private memory.
fn op_lines(ops: &BTreeMap<String, OpStats>) -> Vec<String> {
    let seconds = |value: f64| text::duration(Duration::from_secs_f64(value.max(0.0)));
    let bytes = |value: f64| text::bytes(value as u64);
    let width = ops.keys().map(String::len).max().unwrap_or(0).max("node".len());
    let line = |name: &str, what: &str, of: &Summary, show: &dyn Fn(f64) -> String| {
        let [mean, median, std, min, max, p95, p99] =
            [of.mean, of.median, of.std, of.min, of.max, of.p95, of.p99].map(show);
        let count = text::count(of.count);
        format!(
            "  {name:<width$}  {what:<7}  {count:>9}  {mean:>9}  {median:>9}  {std:>9}  {min:>9}  {max:>9}  {p95:>9}  {p99:>9}"
        )
    };
    let mut lines = Vec::new();
    if !ops.is_empty() {
        lines.push(format!(
            "  {:<width$}  {:<7}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}  {:>9}",
            "node", "", "count", "mean", "median", "std", "min", "max", "p95", "p99"
        ));
    }
    for (name, stats) in ops {
        lines.push(line(name, "time", &stats.seconds, &seconds));
        lines.extend(stats.cpu_seconds.iter().map(|cpu| line("", "cpu", cpu, &seconds)));
        lines.extend(stats.private_bytes.iter().map(|held| line("", "memory", held, &bytes)));
    }
    lines
}
