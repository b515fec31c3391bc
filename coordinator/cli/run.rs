//! `forkyard run`.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::args::Run;
use super::exit::{Exit, Failure, printed};
use super::failed::{Left, failed};
use crate::context_file;
use crate::dry_run::DryRun;
use crate::init::Runtime;
use crate::only::Only;
use crate::report::ReportOptions;
use crate::run::{Ending, RunError, RunOptions, RunResult};
use crate::text;

pub(super) fn run(args: &Run, store: &Path, runtime: &Runtime) -> Result<Exit, Failure> {
    let given = args.context.as_deref().map(context_file::read).transpose();
    let given = given.map_err(|why| Failure::new(Exit::Usage, why))?.unwrap_or_default();
    let only = if args.failed {
        match failed(store, &args.manifest)? {
            Left::These(names) => Only::Earlier(names),
            Left::Nothing(why) => {
                eprintln!("{why}");
                return Ok(Exit::Ok);
            }
        }
    } else {
        Only::named(&args.only)
    };
    if args.dry_run {
        let dry = DryRun::look(&args.manifest, &given, store, (&only, &args.refresh), runtime)?;
        let to_run = dry.to_run().count();
        let cached = dry.cached();
        eprintln!("{} would run, {} cached", text::plural(to_run, "node"), text::count(cached as u64));
        let mut out = std::io::stdout().lock();
        return printed(dry.to_run().try_for_each(|node| writeln!(out, "{}", dry.name(node))));
    }
    let options = RunOptions {
        given,
        text: None,
        manifest: args.manifest.clone(),
        store: store.into(),
        workers: args.workers.0,
        preset: args.preset,
        only,
        sample: args.sample,
        refresh: args.refresh.clone(),
        keep_going: args.keep_going,
        max_failures: args.max_failures,
        ends_after: None,
        report: ReportOptions {
            json: args.json,
            events: args.events,
            quiet: args.quiet,
            trace: args.trace.clone(),
        },
    };
    let result = crate::run::run(&options, runtime)?;
    if !args.quiet {
        eprintln!("{}", summary(&result, store));
    }
    if args.sample.is_some() && result.ended_well() && result.summary.failed + result.summary.timed_out == 0 {
        // That it left nodes is what it is for.
        return Ok(Exit::Ok);
    }
    exit(result)
}

pub(super) fn exit(result: RunResult) -> Result<Exit, Failure> {
    if let Some(error) = result.error {
        let full = matches!(&error, RunError::Store(_));
        return match result.ending {
            Ending::StoreFull(_) | Ending::StoreLoses(_) if !full => Ok(Exit::Store),
            _ => Err(error.into()),
        };
    }
    let summary = result.summary;
    Ok(match result.ending {
        Ending::Interrupted(signal) => Exit::Interrupted(signal),
        Ending::ArtifactChanged(_) => Exit::Artifact,
        Ending::StoreFull(why) => {
            let message = format!(
                "the store takes no more: {why}; what is committed stays; see to its disk, make room and run again to go on"
            );
            return Err(Failure::new(Exit::Store, message));
        }
        Ending::StoreLoses(why) => {
            let message = format!(
                "the store does not keep what is put into it: {why}; what is committed stays, see to its disk, run \
                 `forkyard store verify`, and run again to go on"
            );
            return Err(Failure::new(Exit::Store, message));
        }
        Ending::Complete if summary.is_complete() => Exit::Ok,
        Ending::Complete => Exit::NodesFailed,
    })
}

pub(super) fn summary(result: &RunResult, store: &Path) -> String {
    let summary = &result.summary;
    let counts = [
        ("ran", summary.ran),
        ("cached", summary.cached),
        ("skipped", summary.skipped),
        ("failed", summary.failed),
        ("timed out", summary.timed_out),
        ("blocked", summary.blocked),
        ("cancelled", summary.cancelled),
    ];
    let words: Vec<String> = counts
        .iter()
        .filter(|(word, count)| *count > 0 || *word == "ran" || *word == "cached")
        .map(|(word, count)| format!("{} {word}", text::count(*count)))
        .collect();
    let wall = Duration::from_secs_f64(summary.wall_s);
    let mut out = format!(
        "run {}: {}: {} in {}",
        result.run,
        text::plural(summary.nodes as usize, "node"),
        words.join(", "),
        text::duration(wall)
    );
    if summary.artifact_bytes > 0 && summary.peak_private_bytes > 0 {
        let (shared, private) =
            (text::bytes(summary.artifact_bytes), text::bytes(summary.peak_private_bytes));
        out += &format!(
            "\nartifacts: {shared} once for all workers; the workers' own memory: {private} at the most"
        );
    }
    out += &format!("\n{} new in {}", text::plural(summary.durable as usize, "result"), store.display());
    out
}
