//! `forkyard tune`: runs a sample of what nobody has measured yet, then says how many workers are worth having.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use forkyard_shared::sys;
use serde_json::json;

use super::args::Tune;
use super::exit::{Exit, Failure, printed};
use crate::analysis::Times;
use crate::dry_run::DryRun;
use crate::init::Runtime;
use crate::memory::{Budget, Machine};
use crate::only::Only;
use crate::store::{RunSummary, Shares, latest_summary};
use crate::text;
use crate::tune::{Kind, Row, Tuning};

pub(super) fn tune(args: &Tune, store: &Path, runtime: &Runtime) -> Result<Exit, Failure> {
    if args.manifest == Path::new("-") {
        return Err(Failure::new(Exit::Usage, "tune reads a manifest twice: give it as a file"));
    }
    let sampled = if args.no_sample { None } else { sample(args, store)? };
    let dry = DryRun::look(&args.manifest, &BTreeMap::new(), store, (&Only::All, &[]), runtime)?;
    let rooms = Machine::here().look().map_err(|why| Failure::new(Exit::Resources, why))?;
    let mut settings = dry.settings().clone();
    settings.preset = args.preset.or(settings.preset);
    let (share, cache, artifacts) = (settings.share(), settings.cache(), dry.artifact_bytes);
    let budget = Budget::new(&rooms, share, artifacts, (cache, dry.wanted().count()));
    let shares = latest_summary(store).and_then(|summary| summary.shares).unwrap_or_default();
    let times = Times::of(&dry);
    let tuning = Tuning::of(&dry, &times, budget, shares, &args.workers);
    if tuning.fits == 0 {
        return Err(Failure::new(Exit::Resources, tuning.budget.refusal(tuning.private)));
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let answer = Answer { tuning, shares, guessed: times.guessed, sampled };
    let printing = if args.json { answer.json(&mut out) } else { answer.text(&mut out) };
    printed(printing.and_then(|()| out.flush()))
}

/// Has a process of its own run a sample, for that takes a pool; what it computed is stored.
fn sample(args: &Tune, store: &Path) -> Result<Option<RunSummary>, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Resources, format!("run a sample: {error}"));
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("--store").arg(store).arg("run").arg(&args.manifest);
    command.arg("--sample").arg(format!("{}ms", args.sample.as_millis())).args(["--workers", "1", "--quiet"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = sys::spawn_with(command, &[]).map_err(failed)?;
    let mut said = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut said).map_err(failed)?;
    let status = child.wait().map_err(failed)?;
    let said = said.trim();
    match status.code() {
        Some(0) => Ok(latest_summary(store)),
        // Some nodes of the sample failed: the rest is known nevertheless.
        Some(1) => {
            eprintln!("some nodes of the sample failed: `forkyard status` tells why");
            Ok(latest_summary(store))
        }
        code => {
            let exit = match code {
                Some(2) => Exit::Usage,
                Some(3) => Exit::Artifact,
                Some(4) => Exit::Store,
                Some(5) => Exit::Resources,
                _ => Exit::Bug,
            };
            Err(Failure::new(exit, said.strip_prefix("forkyard: ").unwrap_or(said)))
        }
    }
}

/// What is printed.
struct Answer {
    tuning: Tuning,
    shares: Shares,
    guessed: usize,
    sampled: Option<RunSummary>,
}

impl Answer {
    fn json(&self, out: &mut impl Write) -> io::Result<()> {
        let Tuning { budget, kinds, private, fits, rows, recommended } = &self.tuning;
        let row = |row: &Row| {
            json!({ "workers": row.workers, "bytes": row.bytes, "naive_bytes": row.naive,
                "makespan_s": row.makespan.as_secs_f64(), "fits": row.workers <= *fits })
        };
        let kind = |kind: &Kind| {
            json!({ "op": kind.name, "nodes": kind.nodes, "mean_s": kind.time.as_secs_f64(), "cpu": kind.cpu,
                "waits": kind.waits(), "private_bytes": kind.private })
        };
        let object = json!({
            "v": 1,
            "available_bytes": budget.available,
            "limit": budget.limit,
            "share": budget.share,
            "artifact_bytes": budget.artifacts,
            "coordinator_bytes": budget.coordinator,
            "private_bytes": private,
            "idle_worker_bytes": self.shares.worker_bytes,
            "fits": fits,
            "naive_bytes": self.tuning.best().map(|row| row.naive),
            "recommended": recommended,
            "guessed": self.guessed,
            "sampled": self.sampled.as_ref().map(|sample| sample.ran),
            "ops": kinds.iter().map(kind).collect::<Vec<_>>(),
            "table": rows.iter().map(row).collect::<Vec<_>>(),
        });
        writeln!(out, "{object}")
    }

    fn text(&self, out: &mut impl Write) -> io::Result<()> {
        let Tuning { budget, kinds, private, fits, rows, recommended } = &self.tuning;
        for line in budget.lines() {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{:>10}  left for workers", text::bytes(budget.for_workers()))?;
        let greediest = kinds.iter().find(|kind| kind.private == *private).map(|kind| kind.name.as_str());
        let of = greediest.map_or(String::new(), |name| format!(", running {name}"));
        writeln!(out, "{:>10}  one worker{of}", format!("/ {}", text::bytes(*private)))?;
        writeln!(out, "{:>10}  workers fit\n", format!("= {}", text::count(*fits as u64)))?;

        let width = kinds.iter().map(|kind| kind.name.len()).max().unwrap_or(0).max("node".len());
        writeln!(out, "{:<width$}  {:>9}  {:>9}  {:>10}", "node", "count", "mean", "private")?;
        for kind in kinds {
            let does = match kind.waits() {
                Some(true) => "waits",
                Some(false) => "computes",
                None => "not measured",
            };
            let cpu = kind.cpu.map_or(String::new(), |cpu| format!(" ({:.0}% of a core)", cpu * 100.0));
            let private = if kind.private == 0 { "-".into() } else { text::bytes(kind.private) };
            let (count, mean) = (text::count(kind.nodes as u64), text::duration(kind.time));
            writeln!(out, "{:<width$}  {count:>9}  {mean:>9}  {private:>10}  {does}{cpu}", kind.name)?;
        }
        if self.guessed > 0 {
            let guessed = text::plural(self.guessed, "node");
            writeln!(out, "{guessed} of unknown duration: a guess; say `estimate`, or run once")?;
        }

        writeln!(
            out,
            "\n{:>7}  {:>9}  {:>10}  {:>19}",
            "workers", "makespan", "memory", "each its own copy"
        )?;
        for row in rows {
            let mark = match row.workers {
                workers if workers == *recommended => "  <- more gain less than 3%",
                workers if workers > *fits => "  may not fit",
                _ => "",
            };
            let [bytes, naive] = [row.bytes, row.naive].map(text::bytes);
            let makespan = text::duration(row.makespan);
            writeln!(
                out,
                "{:>7}  {makespan:>9}  {bytes:>10}  {naive:>19}{mark}",
                text::count(row.workers as u64)
            )?;
        }
        writeln!(out, "\nforkyard run --workers {recommended}, or auto, which goes by what it measures")
    }
}
