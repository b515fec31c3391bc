//! `forkyard stress`: figures beside floors, promises that were broken.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::args::Stress;
use super::exit::{Exit, Failure, printed};
use crate::init::Runtime;
use crate::stress::{Figure, Request, Stressed, stress};
use crate::text;

pub(super) fn run(args: &Stress, store: &Path, runtime: &Runtime) -> Result<Exit, Failure> {
    let seconds = args.seconds.unwrap_or(10.0);
    let request = Request {
        profile: args.profile,
        workers: args.workers.0,
        // So many tasks are run to their end, unless both are said.
        limit: (args.tasks.is_none() || args.seconds.is_some()).then(|| Duration::from_secs_f64(seconds)),
        tasks: args.tasks,
        seed: args.seed,
        store,
    };
    let stressed = stress(&request, runtime)?;
    let mut out = std::io::stdout().lock();
    let written = match args.json {
        true => writeln!(out, "{}", object(args, &stressed)),
        false => table(args, &stressed).iter().try_for_each(|line| writeln!(out, "{line}")),
    };
    printed(written)?;
    let broken: Vec<_> = stressed.promises.iter().filter(|promise| !promise.kept).collect();
    for promise in &broken {
        eprintln!("forkyard: broken: {}: {}", promise.promise, promise.evidence);
    }
    Ok(if broken.is_empty() { Exit::Ok } else { Exit::NodesFailed })
}

fn object(args: &Stress, stressed: &Stressed) -> Value {
    let figures: Map<_, _> =
        stressed.figures.iter().map(|figure| (figure.name.into(), figure.value.into())).collect();
    let floors: Map<_, _> =
        stressed.floors.iter().map(|(name, value)| (name.to_string(), (*value).into())).collect();
    let leaks: Map<_, _> =
        stressed.leaks.lists().into_iter().map(|(what, list)| (what.into(), list.into())).collect();
    let promises: Vec<_> = stressed
        .promises
        .iter()
        .map(|promise| json!({ "promise": promise.promise, "kept": promise.kept, "evidence": promise.evidence }))
        .collect();
    json!({ "v": 1, "profile": args.profile.word(), "seed": args.seed, "workers": stressed.workers,
        "seconds": stressed.seconds, "figures": figures, "floors": floors, "leaks": leaks, "promises": promises })
}

fn table(args: &Stress, stressed: &Stressed) -> Vec<String> {
    let mut lines = vec![
        format!(
            "{}: {}, {}, seed {}",
            args.profile.word(),
            text::plural(stressed.workers, "worker"),
            text::duration(Duration::from_secs_f64(stressed.seconds)),
            args.seed
        ),
        format!("{:<27} {:>12} {:>12} {:>8}", "figure", "value", "floor", "ratio"),
    ];
    for Figure { name, value, floor } in &stressed.figures {
        let floor = floor.and_then(|floor| stressed.floors.iter().find(|(name, _)| *name == floor));
        let beside = floor.map_or(String::new(), |(of, floor)| {
            format!(" {:>12} {:>8.2}  {of}", shown(name, *floor), value / floor)
        });
        lines.push(format!("{name:<27} {:>12}{beside}", shown(name, *value)));
    }
    for promise in &stressed.promises {
        let kept = if promise.kept { "kept" } else { "BROKEN" };
        lines.push(format!("{kept:<6}  {}: {}", promise.promise, promise.evidence));
    }
    lines
}

/// A value in the unit that its name ends with.
fn shown(name: &str, value: f64) -> String {
    if name.ends_with("bytes_per_s") {
        format!("{}/s", text::bytes(value as u64))
    } else if name.ends_with("_per_s") {
        format!("{}/s", text::count(value as u64))
    } else if name.ends_with("_bytes") {
        text::bytes(value as u64)
    } else if name.ends_with("_s") {
        text::duration(Duration::from_secs_f64(value))
    } else {
        text::count(value as u64)
    }
}
