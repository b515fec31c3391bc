//! `forkyard run`, without its command line: from a manifest's path to a summary.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use forkyard_shared::arena::ArenaWriter;
use forkyard_shared::digest::Digest;
use forkyard_shared::ids::{ArtifactId, NodeId};
use forkyard_shared::protocol::{FromZygote, NoPython, PythonSetup, Setup, ToCoordinator};
use forkyard_shared::spin::SPIN;
use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::artifacts::{ArtifactProblem, OpenArtifact};
use crate::context_file;
use crate::cost::Costs;
use crate::crew::Crew;
use crate::engine::{Contexts, Engine, Progressing, Provision};
use crate::init::Runtime;
use crate::key::Keys;
use crate::limits::{self, FILES_PER_WORKER};
use crate::manifest::{self, ManifestError, OnFailure, PythonSettings, nearest};
use crate::memory::Machine;
use crate::nodes::Nodes;
use crate::only::Only;
use crate::plan::Plan;
use crate::pool::{self, Event, Pool};
use crate::preset::Preset;
use crate::report::{Report, ReportOptions};
use crate::schedule::{Scheduler, State, Urgency};
use crate::stats::Series;
use crate::store::{
    DigestMemo, Layout, Lock, Reader, RunDir, RunHeader, RunSummary, StoreDir, StoreError, Writer,
    WriterSettings, latest_summary,
};
use crate::{early, sample, text, threads};

/// What the user asks for beside the manifest.
pub(crate) struct RunOptions {
    pub manifest: PathBuf,
    /// What is in it, if it is no file.
    pub text: Option<String>,
    /// Variables in place of those of the manifest, as JSON by name.
    pub given: BTreeMap<String, String>,
    pub store: PathBuf,
    pub workers: Option<usize>,
    pub preset: Option<&'static Preset>,
    pub only: Only,
    /// Only a sample, for at most so long; in place of `only`.
    pub sample: Option<Duration>,
    pub refresh: Vec<String>,
    pub keep_going: bool,
    pub max_failures: Option<MaxFailures>,
    /// After this long nothing new is started, and what was not is cancelled.
    pub ends_after: Option<Duration>,
    pub report: ReportOptions,
}

/// How many failures a run survives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum MaxFailures {
    Count(usize),
    /// Of the nodes that the run is about.
    Percent(f64),
}

/// When a run stops, and what it looks up.
pub(crate) struct Limits {
    pub on_failure: OnFailure,
    pub max_failures: Option<usize>,
    pub refresh: HashSet<NodeId>,
}

impl Limits {
    /// Whether a node is to be run even if its result is stored.
    pub fn runs_anew(&self, nodes: &Nodes, node: NodeId) -> bool {
        self.refresh.contains(&nodes.declared(node)) || !nodes.is_cached(node)
    }
}

/// Why a run ended, where that is not because everything was done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ending {
    Complete,
    Interrupted(Signal),
    ArtifactChanged(ArtifactId),
    /// The store takes no more.
    StoreFull(String),
    /// What was read back was lost again and again.
    StoreLoses(String),
}

/// A run that could not be made, or not to its end.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// The manifest is wrong; nothing ran.
    Manifest(ManifestError),
    /// The command line names something that is not there; nothing ran.
    Usage(String),
    /// An artifact cannot be used.
    Artifact(ArtifactProblem),
    /// The store cannot be opened.
    Open(StoreError),
    /// The store took no more results.
    Store(String),
    /// It does not fit in memory; the arithmetic.
    Memory(String),
    /// The pool cannot be started or kept up.
    Pool(String),
    /// The zygote was killed.
    ZygoteDied,
    /// The process that forks Python processes was killed.
    PythonDied(String),
    /// Python cannot be started, or a module not be imported; nothing ran.
    Python(String),
    /// A signal asked for an end at once.
    Interrupted(Signal),
    /// A bug of ours.
    Internal(String),
}

impl RunError {
    /// Something that was asked of the zygote could not be asked.
    pub(crate) fn of_pool(what: &str, error: &std::io::Error) -> RunError {
        match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => RunError::ZygoteDied,
            _ if error.raw_os_error() == Some(Errno::EMFILE as i32) => RunError::Pool(format!(
                "{what}: {error}; each takes {FILES_PER_WORKER} descriptors: ask for fewer (--workers) or allow more (ulimit -Hn)"
            )),
            _ => RunError::Pool(format!("{what}: {error}")),
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            RunError::Manifest(error) => error.fmt(f),
            RunError::Usage(message) => f.write_str(message),
            RunError::Artifact(problem) => problem.fmt(f),
            RunError::Open(error) => error.fmt(f),
            RunError::Store(error) => write!(f, "the store takes no more results: {error}"),
            RunError::Memory(why) | RunError::Pool(why) => f.write_str(why),
            RunError::ZygoteDied => f.write_str("the zygote, the process that forks the workers, was killed (by hand, or for want of memory); every result that had arrived is stored, run again to go on"),
            RunError::PythonDied(end) => write!(
                f,
                "the interpreter that forks the Python processes {end}; every result that had arrived is stored, run again to go on"
            ),
            RunError::Python(why) => write!(f, "Python: {why}"),
            RunError::Interrupted(signal) => write!(f, "stopped by {signal}"),
            RunError::Internal(error) => write!(f, "a bug in forkyard, please report it: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

/// How a run went.
pub(crate) struct RunResult {
    pub run: u64,
    pub summary: RunSummary,
    pub ending: Ending,
    /// Why it stopped before its end.
    pub error: Option<RunError>,
    /// What became of its processes.
    pub crew: CrewFigures,
}

/// What became of the processes of a run.
#[derive(Default)]
pub(crate) struct CrewFigures {
    /// In the environment of every command of the run.
    pub token: String,
    /// Places for workers at the end.
    pub workers: usize,
    /// How often a worker was forked.
    pub forks: u64,
    /// Nanoseconds from the beginning of a task that ended its worker to the first result of the next one there.
    pub recovery_ns: Series,
}

impl RunResult {
    /// Whether nothing kept it from its end.
    pub fn ended_well(&self) -> bool {
        self.ending == Ending::Complete && self.error.is_none()
    }
}

/// Results of a store that is learnt before anybody knows what will be looked up ...
const LEARN_EARLY: u64 = 200_000;

/// ... or one for so many bytes of the manifest: a node is hardly shorter.
const BYTES_PER_NODE: u64 = 40;

/// Runs a manifest.
///
/// # Errors
/// When nothing could be run at all. What went wrong later is in the result.
pub(crate) fn run(options: &RunOptions, runtime: &Runtime) -> Result<RunResult, RunError> {
    let start = Instant::now();
    pool::hold_pauses().map_err(|error| RunError::Pool(format!("block signals: {error}")))?;
    let ops = runtime.ops();
    let dir = StoreDir::new(&options.store);
    // While the manifest is read: most of a run without changes is reading these two.
    let early = {
        let dir = dir.clone();
        let bytes = std::fs::metadata(&options.manifest).map_or(0, |metadata| metadata.len());
        threads::start("early look", move || Reader::look(&dir, LEARN_EARLY.max(bytes / BYTES_PER_NODE)).ok())
    };
    let early = early.map_err(|error| RunError::Pool(format!("start a thread: {error}")))?;
    let mut plan = manifest::load(&options.manifest, options.text.as_deref(), ops, &options.given)
        .map_err(RunError::Manifest)?;
    plan.settings.preset = options.preset.or(plan.settings.preset);
    // It is needed until the end of the process.
    let plan: &'static Plan = Box::leak(Box::new(plan));
    let before = latest_summary(&dir.path).unwrap_or_default();
    let sampled = options.sample.map(|_| sample::choose(plan, ops, &before.learnt));
    let only = sampled.clone().map_or_else(|| options.only.clone(), Only::These);
    let (wanted, refresh) = choose(plan, &only, &options.refresh)?;
    let artifacts = open_artifacts(plan)?;

    let wanted_layout = plan.settings.wanted_layout();
    let (lock, layout) = dir.prepare(wanted_layout.unwrap_or_default()).map_err(RunError::Open)?;
    let lock = &lock;
    let early = {
        let (dir, wanted) = (dir.clone(), wanted.clone());
        let count = (0..plan.len()).map(NodeId::new).filter(|node| wanted(*node)).count();
        let open = move || Reader::for_run(&dir, layout, count, early.join().unwrap_or(None));
        early::start(plan, ops, wanted, open)
    };
    let early = early.map_err(|error| RunError::Pool(format!("start a thread: {error}")))?;

    let costs = Costs::new(ops.names(), &plan.labels(), &before.learnt);
    let mut scheduler = Scheduler::new(&plan.graph, urgencies(plan, &costs), wanted).with_terms(plan.terms());
    plan.races().flat_map(|(_, members)| members).for_each(|member| scheduler.excuse(*member));
    let machine = Machine::here();
    let is_wanted = |node| scheduler.state(node) != State::Unwanted;
    let mut crew = Crew::of((plan, &is_wanted), options.workers, (&artifacts, &costs), &machine)?;
    // Started only as there is work for them: items and generated nodes are not counted yet.
    let (workers, workers_max) = crew.workers;

    let mut report = Report::new(&options.report, start, scheduler.wanted()).map_err(RunError::Usage)?;
    if let Some(warning) = dir.warning(layout) {
        report.say(&warning);
    }
    if let Some(wanted) = wanted_layout.filter(|wanted| *wanted != layout) {
        let (store, kept, wanted) = (dir.path.display(), layout.name(), wanted.name());
        report.say(&format!(
            "store {store} was made with layout {kept} and keeps it; for {wanted} give another --store"
        ));
    }
    if let Some(warning) = &crew.warning {
        report.say(warning);
    }
    let zygote = runtime.take_zygote().map_err(RunError::Pool)?;
    let mut pool = Pool::new(zygote, workers_max, SPIN)
        .map_err(|error| RunError::Pool(format!("start the pool: {error}")))?;
    if let Some((allowed, limit)) = limits::workers_allowed() {
        if allowed < workers {
            report.say(&format!(
                "{} are too many: {limit} leaves room for {}; ask for fewer (--workers), or see `forkyard doctor`",
                text::plural(workers, "worker"),
                text::count(allowed as u64)
            ));
        }
        crew.workers.1 = workers_max.min(allowed.max(workers));
    }

    let internal = |error: std::io::Error| RunError::Pool(format!("make shared memory: {error}"));
    let arena = ArenaWriter::new().map_err(internal)?;
    let contexts = Contexts::new(plan, ops, arena).map_err(RunError::Pool)?;
    let arena = contexts.arena().file().try_clone().map_err(internal)?;
    let mut memo = DigestMemo::open(&dir.path).stop_when(pool.interrupted());
    // A file that is read for the first time is mapped before it is hashed: its pages come in large.
    let mut mapped = false;
    if artifacts.iter().any(|artifact| !artifact.digest_is_known(&memo)) {
        attach(plan, &artifacts, (&dir, layout), (lock, contexts.arena().file()), &pool)?;
        mapped = true;
    }
    let digests =
        artifacts.iter().map(|artifact| artifact.digest(&mut memo)).collect::<Result<Vec<Digest>, _>>();
    let digests = digests.map_err(RunError::Artifact)?;
    let early = early.join();
    let (early, reader) =
        early.map_err(|_| RunError::Internal("the thread that makes keys panicked".into()))?;
    let keys = Keys::new(plan, ops, digests.clone(), (memo, early))
        .map_err(|e| RunError::Internal(format!("read our executable: {e}")))?;
    let reader = reader.map_err(RunError::Open)?;

    let header = RunHeader {
        given: options.given.clone(),
        manifest: options.manifest.display().to_string(),
        path: std::path::absolute(&options.manifest).unwrap_or_default(),
        name: plan.settings.name.clone(),
        nodes: scheduler.wanted() as u64,
        workers: workers as u64,
        pid: std::process::id(),
        started: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_secs()),
        is_sample: options.sample.is_some(),
        commit: format!(
            "every {} results or {}",
            plan.settings.commit_every,
            text::duration(plan.settings.commit_within)
        ),
    };
    let io = |error| RunError::Open(StoreError::Io("make the run's directory".into(), error));
    let run_dir = RunDir::create(&dir.path, &header).map_err(io)?;
    report.run_started(
        run_dir.id,
        &header.manifest,
        scheduler.wanted(),
        workers,
        &dir.path.display().to_string(),
    );
    pool.watch_signals().map_err(|error| RunError::Pool(format!("watch for signals: {error}")))?;
    let writer = Writer::start(&dir, layout, &run_dir, writer_settings(plan, &artifacts, &pool)?)
        .map_err(RunError::Open)?;

    let on_failure = if options.keep_going { OnFailure::Continue } else { plan.settings.on_failure };
    let max_failures = match options.max_failures {
        Some(MaxFailures::Count(count)) => Some(count),
        Some(MaxFailures::Percent(percent)) => Some((scheduler.wanted() as f64 * percent / 100.0) as usize),
        None => None,
    };
    let mut attach_late = |pool: &Pool, report: &mut Report| {
        if !mapped {
            attach(plan, &artifacts, (&dir, layout), (lock, &arena), pool)?;
        }
        start_python(plan, pool, report)?;
        tell_mapped(&artifacts, &digests, report);
        Ok(())
    };
    let provision = Provision {
        workers: crew.workers,
        budget: crew.budget.map(|budget| budget.for_workers()),
        rooms: crew.rooms,
        sample: options.sample.zip(sampled),
        machine,
        artifacts: artifacts
            .iter()
            .filter(|artifact| !artifact.entry.pin)
            .map(|artifact| artifact.bytes)
            .sum(),
    };
    let mut engine = Engine {
        nodes: Nodes::new(plan),
        ops,
        artifacts: artifacts.clone(),
        dir: &dir,
        run: Some(&run_dir),
        layout,
        limits: Limits { on_failure, max_failures, refresh },
        scheduler,
        keys,
        contexts,
        costs,
        reader,
        writer,
        pool: &mut pool,
        report: &mut report,
        attach: &mut attach_late,
        state: Progressing::new(plan, ops, provision),
    };
    if let Some(limit) = options.ends_after {
        engine.end_after(limit);
    }
    let error = engine.run().err();
    engine.keys.save().ok();
    let counts = engine.scheduler.counts();
    let (ending, peak) = (engine.state.ending.clone(), engine.state.peak_private_bytes);
    let durable = engine.writer.durable();
    let (alerts, shares) = (engine.state.watch.told(), engine.state.shares);
    let (cache_hits, cache_misses) = (engine.state.cache.hits, engine.state.cache.misses);
    let (ops_measured, learnt) = (engine.costs.stats(), engine.costs.learnt());
    let nodes = engine.scheduler.wanted();
    let crew = engine.crew_figures();
    let context = if engine.contexts.are_used() { Some(engine.contexts.at_end()) } else { None };
    drop(engine);
    drop(pool);
    dir.clear_tmp(None);
    dir.clear_copies();
    let summary = RunSummary {
        nodes: nodes as u64,
        ran: counts.ran as u64,
        cached: counts.cached as u64,
        failed: counts.failed as u64,
        skipped: counts.skipped as u64,
        excused: counts.excused as u64,
        blocked: counts.blocked as u64,
        timed_out: counts.timed_out as u64,
        cancelled: counts.cancelled as u64,
        wall_s: start.elapsed().as_secs_f64(),
        durable,
        cache_hits,
        cache_misses,
        peak_private_bytes: peak,
        artifact_bytes: artifacts.iter().map(|artifact| artifact.bytes).sum(),
        ops: ops_measured,
        alerts,
        shares: shares.or(before.shares),
        learnt: before.learnt.into_iter().chain(learnt).collect(),
    };
    let vars = || plan.vars.iter().map(|(name, json)| (name.clone(), json.clone().into_bytes())).collect();
    let context = context.unwrap_or_else(|| Ok(vars())).and_then(|vars| context_file::write(&vars));
    if let Err(why) = context.and_then(|text| run_dir.write_context(&text).map_err(|error| error.to_string()))
    {
        report.say(&format!("the context of this run is not kept: {why}"));
    }
    run_dir.mark_paused(false).ok();
    run_dir.write_summary(&summary).ok();
    report.run_finished(run_dir.id, &summary);
    report.finish();
    Ok(RunResult { run: run_dir.id, summary, ending, error, crew })
}

/// What `--only` and `--refresh` mean: whether a node is wanted, and which are to be run anew.
pub(crate) fn choose(
    plan: &Plan,
    only: &Only,
    refresh: &[String],
) -> Result<(impl Fn(NodeId) -> bool + Clone + Send + use<>, HashSet<NodeId>), RunError> {
    let only = only.nodes(plan)?;
    let refresh = nodes_named(plan, refresh)?;
    let marks = only.map(|only| plan.graph.with_needs(&only.into_iter().collect::<Vec<_>>()));
    let wanted = move |node: NodeId| marks.as_ref().is_none_or(|marks| marks[node.index()]);
    match refresh.iter().find(|node| !wanted(**node)) {
        None => Ok((wanted, refresh)),
        Some(left_out) => Err(RunError::Usage(format!(
            "--refresh {0}: --only or --failed leaves node {0} out",
            plan.name(*left_out)
        ))),
    }
}

/// Nodes by their ids in the manifest.
pub(crate) fn nodes_named(plan: &Plan, names: &[String]) -> Result<HashSet<NodeId>, RunError> {
    let find = |name: &String| {
        plan.names.find(name).map(NodeId).ok_or_else(|| {
            let hint = nearest(name, plan.names.iter())
                .map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            RunError::Usage(format!("{} has no node `{name}`{hint}", plan.path.display()))
        })
    };
    names.iter().map(find).collect()
}

/// Opens every artifact of a plan.
pub(crate) fn open_artifacts(plan: &Plan) -> Result<Arc<[OpenArtifact]>, RunError> {
    plan.artifacts.iter().map(OpenArtifact::open).collect::<Result<_, _>>().map_err(RunError::Artifact)
}

/// What the order of a plan's nodes depends on.
pub(crate) fn urgencies(plan: &Plan, costs: &Costs) -> Vec<Urgency> {
    let cost = |node: NodeId| {
        let declared = plan.detail(node).and_then(|detail| detail.estimate);
        let expected = || costs.expected(costs.kind(plan.ops[node.index()], plan.label(node))) as f32;
        declared.map_or_else(expected, |time| time.as_secs_f32())
    };
    let remaining = plan.graph.remaining(cost).into_iter().enumerate();
    let priority = |node: NodeId| plan.detail(node).map_or(0, |detail| detail.priority);
    remaining.map(|(n, remaining)| Urgency { priority: priority(NodeId::new(n)), remaining }).collect()
}

/// Has the zygote map the artifacts.
pub(crate) fn attach(
    plan: &Plan,
    artifacts: &[OpenArtifact],
    (dir, layout): (&StoreDir, Layout),
    (lock, arena): (&Lock, &File),
    pool: &Pool,
) -> Result<(), RunError> {
    let pool_error = |error: std::io::Error| RunError::of_pool("hand the artifacts to the zygote", &error);
    let absolute = |path: PathBuf| std::path::absolute(path).map(|path| path.to_string_lossy().into_owned());
    let setup = Setup {
        token: pool.token().into(),
        tmp_dir: absolute(dir.tmp_dir()).map_err(pool_error)?,
        blobs_dir: absolute(dir.worker_blobs_dir(layout)).map_err(pool_error)?,
        secrets: plan.secrets.clone(),
        max_result: plan.settings.max_result,
        spin_ns: pool.spin().as_nanos() as u64,
    };
    let setups = artifacts.iter().map(OpenArtifact::setup).collect::<Result<_, _>>().map_err(pool_error)?;
    pool.set_up(setup, (lock, arena), setups).map_err(pool_error)?;
    loop {
        match pool.next(None).map_err(RunError::Internal)? {
            Some(Event::Message(ToCoordinator::Zygote(FromZygote::Ready(Ok(()))))) => {
                // What was mapped must be what was looked at.
                return artifacts.iter().try_for_each(|artifact| match artifact.watch().map_err(pool_error)?() {
                    true => Ok(()),
                    false => Err(RunError::Artifact(ArtifactProblem::of(
                        &artifact.entry,
                        "it was changed between being opened and being mapped; run again when nobody writes it",
                    ))),
                });
            }
            Some(Event::Message(ToCoordinator::Zygote(FromZygote::Ready(Err((artifact, why)))))) => {
                let entry = &artifacts[artifact.index()].entry;
                return Err(RunError::Artifact(ArtifactProblem::of(entry, format!("map it: {why}"))));
            }
            Some(Event::ZygoteGone) => return Err(RunError::ZygoteDied),
            Some(Event::Signal(signal)) => return Err(RunError::Interrupted(signal)),
            Some(Event::Garbled(_, why)) => {
                return Err(RunError::Internal(format!("a message from the pool makes no sense: {why}")));
            }
            Some(Event::Message(_) | Event::Memory) | None => {}
        }
    }
}

/// Has the zygote start Python, if the plan calls any, and waits until that has imported what is to be shared.
fn start_python(plan: &Plan, pool: &Pool, report: &Report) -> Result<(), RunError> {
    let pool_error = |error: std::io::Error| RunError::of_pool("have Python started", &error);
    let Some(setup) = python_setup(plan).map_err(pool_error)? else { return Ok(()) };
    pool.start_python(setup).map_err(pool_error)?;
    loop {
        match pool.next(None).map_err(RunError::Internal)? {
            Some(Event::Message(ToCoordinator::Zygote(FromZygote::PythonReady(ready)))) => match ready {
                Ok(warnings) => {
                    warnings.iter().for_each(|warning| report.say(&format!("Python: {warning}")));
                    return Ok(());
                }
                Err(NoPython::Refused(why)) => return Err(RunError::Python(why)),
                Err(NoPython::Gone(end)) => return Err(RunError::PythonDied(end.to_string())),
            },
            Some(Event::ZygoteGone) => return Err(RunError::ZygoteDied),
            Some(Event::Signal(signal)) => return Err(RunError::Interrupted(signal)),
            Some(Event::Garbled(_, why)) => {
                return Err(RunError::Internal(format!("a message from the pool makes no sense: {why}")));
            }
            Some(Event::Message(_) | Event::Memory) | None => {}
        }
    }
}

/// Modules that are imported unasked, before the first fork.
const MODULES_MAX: usize = 200;

/// How Python is to be started for a plan, if that calls any.
fn python_setup(plan: &Plan) -> std::io::Result<Option<PythonSetup>> {
    let calls = plan.calls();
    if calls.is_empty() {
        return Ok(None);
    }
    let settings = plan.python.clone().unwrap_or_else(|| PythonSettings::new(&plan.dir));
    let absolute = |path: &Path| std::path::absolute(path).map(|path| path.to_string_lossy().into_owned());
    let mut modules: Vec<String> = calls.iter().map(|call| call.module().into()).collect();
    modules.sort();
    modules.dedup();
    // The others are imported where they are called.
    modules.truncate(MODULES_MAX);
    let interpreter = match settings.interpreter.contains('/') {
        true => absolute(Path::new(&settings.interpreter))?,
        false => settings.interpreter,
    };
    Ok(Some(PythonSetup {
        interpreter,
        dir: absolute(&plan.dir)?,
        env: settings.env.into_iter().collect(),
        path: settings.path.iter().map(|folder| absolute(folder)).collect::<Result<_, _>>()?,
        modules: if settings.preload.is_none() { modules } else { Vec::new() },
        preload: settings.preload.unwrap_or_default(),
        concurrent: calls.iter().any(|call| call.is_concurrent),
    }))
}

fn tell_mapped(artifacts: &[OpenArtifact], digests: &[Digest], report: &mut Report) {
    for (artifact, digest) in artifacts.iter().zip(digests) {
        let line = format!("mapped {}: {}", artifact.entry.name, artifact.describe());
        report.artifact_mapped(artifact.event(*digest), &line);
    }
}

pub(crate) fn writer_settings(
    plan: &Plan,
    artifacts: &[OpenArtifact],
    pool: &Pool,
) -> Result<WriterSettings, RunError> {
    let watches = artifacts.iter().map(OpenArtifact::watch).collect::<Result<Vec<_>, _>>();
    let watches = watches.map_err(|error| RunError::Pool(format!("watch the artifacts: {error}")))?;
    Ok(WriterSettings {
        commit_every: plan.settings.commit_every,
        commit_within: plan.settings.commit_within,
        unchanged: Box::new(move |artifact: ArtifactId| watches[artifact.index()]()),
        wake: Box::new(pool.waker()),
    })
}
