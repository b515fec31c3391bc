//! The engine's thread: from what a pool is to consist of to its end.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant, SystemTime};

use forkyard_shared::arena::ArenaWriter;
use forkyard_shared::ids::NodeId;

use super::error::StartError;
use super::handle::Shared;
use super::wheel::Wheel;
use crate::cost::Costs;
use crate::crew::Crew;
use crate::early::Early;
use crate::engine::{Contexts, Engine, Progressing, Provision, Submissions};
use crate::graph::GraphBuilder;
use crate::init::Runtime;
use crate::key::Keys;
use crate::limits;
use crate::manifest::{ArtifactEntry, OnFailure, Settings};
use crate::memory::Machine;
use crate::names::Names;
use crate::nodes::Nodes;
use crate::plan::Plan;
use crate::pool::Pool;
use crate::report::{EventsWanted, Report, ReportOptions};
use crate::run::{Limits, RunError, attach, open_artifacts, writer_settings};
use crate::schedule::Scheduler;
use crate::store::{
    DigestMemo, Layout, Lock, Reader, RunDir, RunHeader, RunSummary, StoreDir, StoreError, Writer,
    latest_summary,
};
use crate::text;

/// What a pool is to consist of.
pub(super) struct Wanted {
    pub artifacts: Vec<ArtifactEntry>,
    pub vars: BTreeMap<String, String>,
    pub workers: Option<usize>,
    pub store: Option<PathBuf>,
    pub batch: usize,
    pub spin: Duration,
}

/// Runs a pool; `started` is told once whether it has begun.
pub(super) fn run(
    wanted: Wanted,
    runtime: &'static Runtime,
    shared: &Arc<Shared>,
    started: &SyncSender<Result<(), StartError>>,
) {
    let mut has_begun = false;
    let mut begin = || {
        has_begun = true;
        started.send(Ok(())).ok();
    };
    let end = match &wanted.store.clone() {
        Some(store) => serve(wanted, runtime, shared, (StoreDir::new(store), true), &mut begin),
        None => match Scratch::make() {
            Ok(scratch) => serve(wanted, runtime, shared, (StoreDir::new(&scratch.0), false), &mut begin),
            Err(error) => Err(RunError::Pool(format!("make a directory for large results: {error}"))),
        },
    };
    match end {
        Err(error) if !has_begun => drop(started.send(Err(error.into()))),
        _ => {}
    }
}

/// A directory of our own that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> std::io::Result<Scratch> {
        use std::os::unix::fs::DirBuilderExt;
        let unique = forkyard_shared::sys::now_ns();
        let path = std::env::temp_dir().join(format!("forkyard-{}-{unique}", std::process::id()));
        // It must be new: what lies there is read.
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Nobody is told anything but through tickets.
const QUIET: ReportOptions =
    ReportOptions { json: false, events: EventsWanted::None, quiet: true, trace: None };

/// What workers need of a store that keeps nothing.
fn prepare_scratch(dir: &StoreDir) -> Result<(Lock, Layout), StoreError> {
    fs::create_dir_all(dir.tmp_dir()).map_err(|error| StoreError::Io("make a directory".into(), error))?;
    // In this layout files are only on their way.
    Ok((dir.lock()?, Layout::Sqlite))
}

fn header(plan: &Plan, workers: usize) -> RunHeader {
    let program = std::env::current_exe().unwrap_or_default();
    RunHeader {
        given: BTreeMap::new(),
        manifest: format!("pool of {}", program.display()),
        path: PathBuf::new(),
        name: None,
        nodes: 0,
        workers: workers as u64,
        pid: std::process::id(),
        started: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_secs()),
        is_sample: false,
        commit: format!(
            "every {} results or {}",
            plan.settings.commit_every,
            text::duration(plan.settings.commit_within)
        ),
    }
}

/// A manifest without nodes.
fn plan(wanted: &Wanted) -> std::io::Result<Plan> {
    Ok(Plan {
        path: PathBuf::new(),
        dir: std::env::current_dir()?,
        settings: Settings { on_failure: OnFailure::Continue, ..Settings::default() },
        artifacts: wanted.artifacts.clone(),
        names: Names::default(),
        ops: Vec::new(),
        graph: GraphBuilder::new().build().expect("no node needs itself"),
        detail_of: Vec::new(),
        details: Vec::new(),
        vars: wanted.vars.clone(),
        uses_history: false,
        groups: Vec::new(),
        python: None,
        secrets: Vec::new(),
    })
}

fn serve(
    wanted: Wanted,
    runtime: &'static Runtime,
    shared: &Arc<Shared>,
    (dir, keeps): (StoreDir, bool),
    begin: &mut dyn FnMut(),
) -> Result<(), RunError> {
    let start = Instant::now();
    let (ops, refused) = (runtime.ops(), |error: std::io::Error| RunError::Pool(error.to_string()));
    // It is needed until the end of the process, and there is one.
    let plan: &'static Plan = Box::leak(Box::new(plan(&wanted).map_err(refused)?));
    let artifacts = open_artifacts(plan)?;
    let (lock, layout) =
        if keeps { dir.prepare(Layout::default()) } else { prepare_scratch(&dir) }.map_err(RunError::Open)?;
    let before = if keeps { latest_summary(&dir.path).unwrap_or_default() } else { RunSummary::default() };
    let mut costs = Costs::new(ops.names(), &[], &before.learnt);
    costs.limit_batches(wanted.batch);
    let machine = Machine::here();
    let mut crew = Crew::of((plan, &|_: NodeId| true), wanted.workers, (&artifacts, &costs), &machine)?;
    let (workers, workers_max) = crew.workers;

    let zygote = runtime.take_zygote().map_err(RunError::Usage)?;
    let wake = zygote.wake.clone();
    // There is one: what the engine refers to for as long as it is driven, by whatever thread, may stay.
    let pool = Box::leak(Box::new(Pool::new(zygote, workers_max, wanted.spin).map_err(refused)?));
    let (dir, inbox): (&'static StoreDir, _) = (Box::leak(Box::new(dir)), pool.inbox());
    if let Some((allowed, _)) = limits::workers_allowed() {
        crew.workers.1 = workers_max.min(allowed.max(workers));
    }
    let arena = ArenaWriter::new().map_err(refused)?;
    let mut contexts = Contexts::new(plan, ops, arena).map_err(RunError::Pool)?;
    if !plan.vars.is_empty() {
        contexts.begin(plan).map_err(RunError::Pool)?;
    }
    // Before anything is hashed: pages that come in by mapping come in large. And an artifact that cannot be mapped
    // is told at the start.
    attach(plan, &artifacts, (dir, layout), (&lock, contexts.arena().file()), pool)?;
    pool.take_requests_from(shared.queue.clone());
    let mut memo = DigestMemo::open(&dir.path).stop_when(pool.interrupted());
    let digests = match keeps {
        true => artifacts.iter().map(|artifact| artifact.digest(&mut memo)).collect::<Result<_, _>>(),
        // Nothing is looked up, so nobody needs to know.
        false => Ok(Vec::new()),
    };
    let keys = Keys::new(plan, ops, digests.map_err(RunError::Artifact)?, (memo, Early::none(plan)))
        .map_err(|error| RunError::Internal(format!("read our executable: {error}")))?;
    let report = Report::new(&QUIET, start, 0).map_err(RunError::Usage)?;
    let (reader, writer, run_dir) = match keeps {
        false => (Reader::of_nothing(dir, layout), Writer::of_nothing(), None),
        true => {
            let reader = Reader::for_run(dir, layout, 0, None).map_err(RunError::Open)?;
            let io = |error| RunError::Open(StoreError::Io("make the run's directory".into(), error));
            let run_dir = RunDir::create(&dir.path, &header(plan, workers)).map_err(io)?;
            let run_dir: &'static RunDir = Box::leak(Box::new(run_dir));
            let settings = writer_settings(plan, &artifacts, pool)?;
            let writer = Writer::start(dir, layout, run_dir, settings).map_err(RunError::Open)?;
            (reader, writer, Some(run_dir))
        }
    };
    let files = artifacts.iter().filter(|artifact| !artifact.entry.pin);
    let provision = Provision {
        workers: crew.workers,
        budget: crew.budget.as_ref().map(|budget| budget.for_workers()),
        rooms: crew.rooms,
        machine,
        artifacts: files.map(|artifact| artifact.bytes).sum(),
        sample: None,
    };
    let mut state = Progressing::new(plan, ops, provision);
    state.submissions = Some(Submissions::new(shared.clone(), keeps, dir.worker_blobs_dir(layout)));
    let engine = Engine {
        nodes: Nodes::new(plan),
        ops,
        artifacts: artifacts.clone(),
        dir,
        run: run_dir,
        layout,
        limits: Limits { on_failure: OnFailure::Continue, max_failures: None, refresh: HashSet::new() },
        scheduler: Scheduler::new(&plan.graph, Vec::new(), |_| true),
        keys,
        contexts,
        costs,
        reader,
        writer,
        pool,
        report: Box::leak(Box::new(report)),
        attach: Box::leak(Box::new(|_: &Pool, _: &mut Report| Ok(()))),
        state,
    };
    let wheel = shared.begin(Wheel::new(engine, inbox, wanted.spin), wake);
    begin();
    let (Some(mut engine), end) = wheel.keep(shared) else {
        return Err(RunError::Internal("the engine panicked".into()));
    };
    let error = engine.conclude(end).err();
    let counts = engine.scheduler.counts();
    let summary = RunSummary {
        nodes: engine.scheduler.wanted() as u64,
        ran: counts.ran as u64,
        cached: counts.cached as u64,
        failed: counts.failed as u64,
        timed_out: counts.timed_out as u64,
        cancelled: counts.cancelled as u64,
        wall_s: start.elapsed().as_secs_f64(),
        durable: engine.writer.durable(),
        peak_private_bytes: engine.state.peak_private_bytes,
        artifact_bytes: artifacts.iter().map(|artifact| artifact.bytes).sum(),
        ops: engine.costs.stats(),
        shares: engine.state.shares.or(before.shares),
        learnt: before.learnt.into_iter().chain(engine.costs.learnt()).collect(),
        ..RunSummary::default()
    };
    engine.keys.save().ok();
    engine.end_submissions(error.as_ref());
    let Engine { pool, .. } = engine;
    pool.end();
    dir.clear_tmp(None);
    dir.clear_copies();
    if let Some(run_dir) = run_dir {
        run_dir.write_summary(&summary).ok();
    }
    error.map_or(Ok(()), Err)
}
