//! `forkyard plan`: for people, for programs, for Graphviz.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use forkyard_shared::ids::NodeId;
use serde_json::json;

use super::args::Plan;
use super::exit::{Exit, Failure, printed};
use crate::analysis::{Forecast, Shape, Times};
use crate::crew::cores;
use crate::dry_run::{DryRun, Fate};
use crate::init::Runtime;
use crate::only::Only;
use crate::preset::Preset;
use crate::text;

pub(super) fn plan(args: &Plan, store: &Path, runtime: &Runtime) -> Result<Exit, Failure> {
    let only = Only::named(&args.only);
    let dry = DryRun::look(&args.manifest, &BTreeMap::new(), store, (&only, &[]), runtime)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    if args.dot {
        return printed(dot(&dry, &mut out).and_then(|()| out.flush()));
    }
    let times = Times::of(&dry);
    let shape = Shape::of(&dry, &times);
    let preset = args.preset.or(dry.settings().preset);
    let workers = args.workers.0.or(preset.map(|preset| preset.first(cores())));
    let forecast = shape.forecast(&dry, &times, workers.unwrap_or_else(cores));
    let analysis = Analysis {
        nodes: dry.wanted().count(),
        to_run: dry.to_run().count(),
        dry,
        times,
        shape,
        forecast,
        preset,
    };
    let printing = if args.json { analysis.json(&mut out) } else { analysis.text(&mut out) };
    printed(printing.and_then(|()| out.flush()))
}

/// Everything that is known before a run.
struct Analysis {
    dry: DryRun,
    nodes: usize,
    to_run: usize,
    times: Times,
    shape: Shape,
    forecast: Forecast,
    preset: Option<&'static Preset>,
}

/// Nodes of the critical path that people are shown.
const PATH_SHOWN_MAX: usize = 10;

impl Analysis {
    fn name(&self, node: NodeId) -> Cow<'_, str> {
        self.dry.name(node)
    }

    fn json(&self, out: &mut impl Write) -> io::Result<()> {
        let Analysis { dry, nodes, to_run, times, shape, forecast, preset } = self;
        let path: Vec<_> = shape.critical_path.iter().map(|node| self.name(*node)).collect();
        let object = json!({
            "v": 1,
            "nodes": nodes,
            "edges": shape.edges,
            "levels": shape.level_widths.len(),
            "level_widths": shape.level_widths,
            "width": shape.width(),
            "critical_path": path,
            "critical_path_s": shape.critical_time.as_secs_f64(),
            "work_s": shape.work.as_secs_f64(),
            "parallelism": shape.parallelism(),
            "guessed": times.guessed,
            "workers": forecast.workers,
            "speedup": forecast.speedup,
            "efficiency": forecast.efficiency(),
            "makespan_s": forecast.makespan.as_secs_f64(),
            "to_run": to_run,
            "cached": dry.cached(),
            "artifact_bytes": dry.artifact_bytes,
            "preset": preset.map(|preset| preset.name),
        });
        writeln!(out, "{object}")
    }

    fn text(&self, out: &mut impl Write) -> io::Result<()> {
        let Analysis { dry, nodes, to_run, times, shape, forecast, .. } = self;
        let [nodes_word, edges, levels] =
            [(*nodes, "node"), (shape.edges, "edge"), (shape.level_widths.len(), "level")]
                .map(|(count, noun)| text::plural(count, noun));
        let [work, critical, makespan] =
            [shape.work, shape.critical_time, forecast.makespan].map(text::duration);
        let width = text::count(shape.width() as u64);
        let cached = text::count(dry.cached() as u64);
        writeln!(out, "{nodes_word}, {edges}, {levels}, the widest of {width}")?;
        writeln!(out, "{} would run, {cached} cached", text::plural(*to_run, "node"))?;
        if let Some(preset) = self.preset {
            writeln!(out, "preset {}: {}", preset.name, preset.describe())?;
        }
        if dry.artifact_bytes > 0 {
            writeln!(out, "artifacts: {}", text::bytes(dry.artifact_bytes))?;
        }
        let (parallelism, efficiency) = (shape.parallelism(), 100.0 * forecast.efficiency());
        writeln!(out, "work: {work}, critical path: {critical}, parallelism: {parallelism:.1}")?;
        writeln!(
            out,
            "on {}: {makespan} for what would run; of everything, speed-up {:.1} and efficiency {efficiency:.0}%",
            text::plural(forecast.workers, "worker"),
            forecast.speedup,
        )?;
        if times.guessed > 0 {
            let guessed = text::plural(times.guessed, "node");
            writeln!(out, "{guessed} of unknown duration: a guess; say `estimate`, or run once")?;
        }
        writeln!(out, "critical path:")?;
        for node in shape.critical_path.iter().take(PATH_SHOWN_MAX) {
            writeln!(out, "{:>10}  {}", text::duration(times.get(*node)), self.name(*node))?;
        }
        match shape.critical_path.len().saturating_sub(PATH_SHOWN_MAX) {
            0 => Ok(()),
            more => writeln!(out, "{:>10}  and {} more", "...", text::count(more as u64)),
        }
    }
}

/// A graph for Graphviz, in which an edge runs from a node to one that needs it. What is stored is filled.
fn dot(dry: &DryRun, out: &mut impl Write) -> io::Result<()> {
    let quoted = |node: NodeId| {
        let id = dry.name(node).replace('\\', r"\\").replace('"', "\\\"");
        format!("\"{id}\"")
    };
    writeln!(out, "digraph {{")?;
    for node in dry.wanted() {
        let style = if matches!(dry.fate(node), Fate::Cached(_)) { " [style=filled]" } else { "" };
        writeln!(out, "  {}{style};", quoted(node))?;
    }
    for node in dry.wanted() {
        for need in dry.graph.needs(node) {
            writeln!(out, "  {} -> {};", quoted(*need), quoted(node))?;
        }
    }
    writeln!(out, "}}")
}
