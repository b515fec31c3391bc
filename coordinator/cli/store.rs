//! `forkyard store`: what a store holds, whether it is sound, and making it smaller.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use forkyard_shared::digest::Digest;
use serde_json::json;

use super::args::{Sort, StoreCommand};
use super::exit::{Exit, Failure, printed};
use crate::store::{
    Census, FORMAT, Keep, NamedResults, Reader, Record, StoreDir, latest_summary, named_results, plan_gc,
    verify,
};
use crate::text;

pub(super) fn store(store: &Path, command: StoreCommand) -> Result<Exit, Failure> {
    let dir = StoreDir::new(store);
    match command {
        StoreCommand::Stat { json } => stat(&dir, json),
        StoreCommand::Verify { json } => check(&dir, json),
        StoreCommand::Gc { keep_runs, older_than, max_size, dry_run } => {
            if keep_runs.is_none() && older_than.is_none() && max_size.is_none() {
                let message =
                    "store gc: say what to keep: --keep-runs N, --older-than TIME or --max-size SIZE";
                return Err(Failure::new(Exit::Usage, message));
            }
            gc(&dir, &Keep { runs: keep_runs, younger_than: older_than, bytes: max_size }, dry_run)
        }
        StoreCommand::Ls { sort, json } => ls(&dir, sort, json),
    }
}

fn stat(dir: &StoreDir, as_json: bool) -> Result<Exit, Failure> {
    let layout = dir.layout()?;
    let census = Census::take(&Reader::look(dir, 0)?)?;
    let disk: Vec<(&str, u64)> = [
        (
            "database",
            ["store.db", "store.db-wal", "store.db-shm"].map(|name| size(&dir.path.join(name))).iter().sum(),
        ),
        ("results", size(&dir.results_dir())),
        ("blobs", size(&dir.blobs_dir())),
        ("runs", size(&dir.path.join("runs"))),
        ("tmp", size(&dir.tmp_dir())),
        ("quarantine", size(&dir.quarantine_dir())),
    ]
    .into_iter()
    .collect();
    let total: u64 = disk.iter().map(|(_, bytes)| bytes).sum();
    let runs = dir.runs()?.len();
    let last = latest_summary(&dir.path).unwrap_or_default();
    let (hits, misses) = (last.cache_hits, last.cache_misses);
    let mut out = std::io::stdout().lock();
    if as_json {
        let disk: serde_json::Map<_, _> =
            disk.iter().map(|(what, bytes)| (what.to_string(), (*bytes).into())).collect();
        let stat = json!({ "v": 1, "layout": layout.name(), "results": census.results.len(), "damaged": census.damaged.len(),
            "value_bytes": census.value_bytes(), "disk_bytes": total, "disk": disk, "runs": runs,
            "cache_hits": hits, "cache_misses": misses, "warning": dir.warning(layout) });
        return printed(writeln!(out, "{stat}"));
    }
    let mut lines = vec![
        format!("{}: layout {}, format {FORMAT}", dir.path.display(), layout.name()),
        format!(
            "{} of {} in all, {}",
            text::plural(census.results.len(), "result"),
            text::bytes(census.value_bytes()),
            text::plural(runs, "run")
        ),
        format!("{} on disk", text::bytes(total)),
    ];
    let used = disk.iter().filter(|(_, bytes)| *bytes > 0);
    lines.extend(used.map(|(what, bytes)| format!("  {what:<10} {:>10}", text::bytes(*bytes))));
    lines.push(format!(
        "results in memory, last run: {} found there, {} read again",
        text::count(hits),
        text::count(misses)
    ));
    if !census.damaged.is_empty() {
        let damaged = text::plural(census.damaged.len(), "damaged result");
        lines.push(format!("{damaged}: `forkyard store verify` names them"));
    }
    lines.extend(dir.warning(layout));
    printed(lines.iter().try_for_each(|line| writeln!(out, "{line}")))
}

/// What a file, or everything in a directory, takes on the disk.
fn size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own;
    }
    own + fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size(&entry.path())).sum::<u64>()
}

fn check(dir: &StoreDir, as_json: bool) -> Result<Exit, Failure> {
    dir.layout()?;
    let _lock = dir.lock()?;
    let verified = verify(dir)?;
    let mut out = std::io::stdout().lock();
    let exit = if verified.damaged.is_empty() { Exit::Ok } else { Exit::Store };
    let written = if as_json {
        let damaged: Vec<_> =
            verified.damaged.iter().map(|(what, nodes)| json!({ "what": what, "nodes": nodes })).collect();
        let report =
            json!({ "v": 1, "results": verified.results, "bytes": verified.bytes, "damaged": damaged });
        writeln!(out, "{report}")
    } else {
        let (results, bytes) =
            (text::plural(verified.results as usize, "result"), text::bytes(verified.bytes));
        let mut lines = vec![format!("read {results}, {bytes}")];
        for (what, nodes) in &verified.damaged {
            let of = if nodes.is_empty() { "no node".into() } else { nodes.join(", ") };
            lines.push(format!("{what} (of {of})"));
        }
        lines.push(match verified.damaged.len() {
            0 => "nothing is damaged".into(),
            _ => format!(
                "what is damaged is in {} now; the next run computes it again",
                dir.quarantine_dir().display()
            ),
        });
        lines.iter().try_for_each(|line| writeln!(out, "{line}"))
    };
    printed(written).map(|_| exit)
}

fn gc(dir: &StoreDir, keep: &Keep, dry_run: bool) -> Result<Exit, Failure> {
    dir.layout()?;
    let _lock = dir.lock()?;
    let plan = plan_gc(dir, keep)?;
    let what = format!(
        "{} and {} of {} that no run from {} on names",
        text::plural(plan.runs.len(), "run"),
        text::plural(plan.results.len(), "result"),
        text::bytes(plan.bytes),
        plan.first_kept()
    );
    if dry_run {
        eprintln!("would remove {what}");
        return Ok(Exit::Ok);
    }
    let before = size(&dir.path);
    let all_given_back = plan.carry_out(dir)?;
    let freed = before.saturating_sub(size(&dir.path));
    eprintln!("removed {what}; {} given back to the disk", text::bytes(freed));
    if !all_given_back {
        eprintln!("somebody reads the store at this moment: run gc again later to give the rest back");
    }
    Ok(Exit::Ok)
}

fn ls(dir: &StoreDir, sort: Sort, as_json: bool) -> Result<Exit, Failure> {
    let census = Census::take(&Reader::look(dir, 0)?)?;
    let named = named_results(dir)?;
    let mut results: Vec<_> = census.results.iter().collect();
    results.sort_by(|(a_key, a), (b_key, b)| {
        let order = match sort {
            Sort::Size => b.len.cmp(&a.len),
            Sort::Age => a.run.cmp(&b.run),
            Sort::Duration => b.duration_us.cmp(&a.duration_us),
            Sort::Node => node_of(&named, a_key).cmp(node_of(&named, b_key)),
        };
        order.then_with(|| a_key.cmp(b_key))
    });
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let line = |(key, record): (&Digest, &Record)| {
        if as_json {
            return json!({ "v": 1, "key": key.to_hex(), "node": node_of(&named, key), "kind": record.kind.name(), "bytes": record.len,
                "digest": record.digest.to_hex(), "duration_s": record.duration_us as f64 / 1e6, "run": record.run })
            .to_string();
        }
        let took = text::duration(Duration::from_micros(record.duration_us));
        let (bytes, short) = (text::bytes(record.len), &key.to_hex()[..16]);
        format!(
            "{bytes:>10}  {took:>9}  run {:<5} {:<5}  {short}  {}",
            record.run,
            record.kind.name(),
            node_of(&named, key)
        )
    };
    printed(
        results.into_iter().map(line).try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush()),
    )
}

fn node_of<'a>(named: &'a NamedResults, key: &Digest) -> &'a str {
    named.by_key.get(key).map_or("", |named| named.node.as_str())
}
