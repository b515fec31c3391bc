//! `forkyard stress`: loads the real pool on purpose, with an ordinary run of a manifest that is made in memory, in a store
//! of its own; what it measured, beside what the machine itself can do; and what was promised, with the evidence where
//! that was not kept.

mod check;
mod floors;
mod leaks;
mod load;
mod sampler;
mod seed;
mod site;
mod spans;

use std::path::Path;
use std::time::Duration;

use crate::crew::cores;
use crate::init::Runtime;
use crate::only::Only;
use crate::report::{EventsWanted, ReportOptions};
use crate::run::{Ending, RunError, RunOptions, RunResult};
use crate::store::{StoreDir, verify};
use crate::text;
use check::{Checked, check};
use floors::Floors;
use leaks::{Leaks, Traces};
use load::Load;
use sampler::{Sampler, Seen};
use site::Site;

/// What the pool is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// An artifact that all workers read, beside nodes that take memory
    Memory,
    /// Nodes that come one after the other
    Latency,
    /// Nodes that do nothing, as many as there can be
    Throughput,
    /// Nodes that end their worker
    Fork,
    /// Results of all sizes
    Store,
    /// Nodes that end their worker, hang or fail once
    Trouble,
    /// All of that
    Mixed,
}

impl Profile {
    pub fn word(self) -> &'static str {
        match self {
            Profile::Memory => "memory",
            Profile::Latency => "latency",
            Profile::Throughput => "throughput",
            Profile::Fork => "fork",
            Profile::Store => "store",
            Profile::Trouble => "trouble",
            Profile::Mixed => "mixed",
        }
    }
}

/// What is asked for.
pub(crate) struct Request<'a> {
    pub profile: Profile,
    pub workers: Option<usize>,
    /// Nothing new starts after this long; none: all tasks are run.
    pub limit: Option<Duration>,
    /// How many tasks; none: more than there is time for.
    pub tasks: Option<u64>,
    pub seed: u64,
    /// The store that a run would use: the stress has its own beside it.
    pub store: &'a Path,
}

/// Something measured.
pub(crate) struct Figure {
    pub name: &'static str,
    pub value: f64,
    /// What the machine itself can do, by its name, where there is such a thing.
    pub floor: Option<&'static str>,
}

/// Something promised.
pub(crate) struct Promise {
    pub promise: &'static str,
    pub kept: bool,
    pub evidence: String,
}

/// What came of it.
pub(crate) struct Stressed {
    pub workers: usize,
    pub seconds: f64,
    pub figures: Vec<Figure>,
    pub floors: Vec<(&'static str, f64)>,
    pub leaks: Leaks,
    pub promises: Vec<Promise>,
}

/// Whether something grows can be said of a run that has lasted so long, and has ended so many nodes: in its first quarter it
/// has had some of everything.
const JUDGED_FROM: (Duration, u64) = (Duration::from_secs(5), 100_000);

/// What the coordinator and the zygote may grow by, each, after the first quarter of a run.
const GROWTH_MAX: u64 = 256 << 10;

/// What a worker may have for itself, beside what its nodes take.
const WORKER_MAX: u64 = 1 << 20;

/// What the coordinator and the zygote may have for themselves where memory is looked at: the graph is small.
const OTHERS_MAX: u64 = 32 << 20;

/// Loads the pool.
///
/// # Errors
/// When nothing could be run, or the run did not come to its end.
pub(crate) fn stress(request: &Request, runtime: &Runtime) -> Result<Stressed, RunError> {
    let io = |what: &str, error: std::io::Error| RunError::Pool(format!("{what}: {error}"));
    let site = Site::make(request.store).map_err(|error| io("make a directory for the stress", error))?;
    // Before anything has threads: two of them fork.
    let floors = Floors::measure(request.profile, &site).map_err(|error| io("measure the machine", error))?;
    let workers = request.workers.unwrap_or_else(cores);
    let load = Load::make(request, workers, &site).map_err(|error| io("make what is loaded", error))?;
    let trace = matches!(request.profile, Profile::Latency).then(|| site.path("trace.json"));
    let options = RunOptions {
        manifest: format!("stress {}", request.profile.word()).into(),
        text: Some(load.text.clone()),
        given: Default::default(),
        store: site.path("store"),
        workers: request.workers,
        preset: None,
        sample: None,
        only: Only::named(&[]),
        refresh: Vec::new(),
        keep_going: true,
        max_failures: None,
        ends_after: request.limit,
        report: ReportOptions { json: false, events: EventsWanted::None, quiet: true, trace: trace.clone() },
    };
    let zygote =
        runtime.zygote_pid().ok_or(RunError::Pool("this process has had its pool already".into()))?;
    let traces = Traces::now();
    let sampler = Sampler::start(zygote, request.profile == Profile::Memory)
        .map_err(|error| io("start a thread that looks at memory", error))?;
    let result = crate::run::run(&options, runtime);
    let seen = sampler.end();
    let mut result = result?;
    if let Some(error) = result.error.take() {
        return Err(error);
    }
    match &result.ending {
        Ending::Complete => {}
        Ending::Interrupted(signal) => return Err(RunError::Interrupted(*signal)),
        Ending::ArtifactChanged(_) => {
            return Err(RunError::Pool("the artifact of the stress was changed".into()));
        }
        Ending::StoreFull(why) | Ending::StoreLoses(why) => return Err(RunError::Store(why.clone())),
    }
    let leaks = traces.compare(&result.crew.token, &options.store);
    let dir = StoreDir::new(&options.store);
    let checked = check(&dir, &result, &load).map_err(RunError::Open)?;
    let verified = verify(&dir).map_err(RunError::Open)?;
    let told = Told { request, load: &load, result: &result, seen: &seen, floors: &floors };
    let mut figures = told.figures(verified.bytes);
    if let Some(trace) = &trace {
        figures.extend(spans::latency(trace).map_err(|error| io("read the trace of the run", error))?);
    }
    let mut promises = told.promises(&checked, &leaks);
    promises.push(Promise {
        promise: "every result is stored once and has its digest",
        kept: verified.damaged.is_empty() && verified.results == result.summary.durable,
        evidence: format!(
            "{} of {} read back{}",
            text::plural(verified.results as usize, "result"),
            text::count(result.summary.durable),
            verified.damaged.iter().map(|(what, _)| format!("; {what}")).collect::<String>()
        ),
    });
    Ok(Stressed {
        workers: result.crew.workers,
        seconds: result.summary.wall_s,
        figures,
        floors: floors.list(),
        leaks,
        promises,
    })
}

/// All that is known after a run.
struct Told<'a> {
    request: &'a Request<'a>,
    load: &'a Load,
    result: &'a RunResult,
    seen: &'a Seen,
    floors: &'a Floors,
}

impl Told<'_> {
    fn figures(&self, stored_bytes: u64) -> Vec<Figure> {
        let (summary, crew) = (&self.result.summary, &self.result.crew);
        let figure = |name, value| Figure { name, value, floor: None };
        let beside = |name, value, floor| Figure { name, value, floor: Some(floor) };
        let settled = summary.ran + summary.cached + summary.failed + summary.timed_out;
        let mut figures = vec![
            figure("nodes", settled as f64),
            beside("nodes_per_s", settled as f64 / summary.wall_s, "sqlite_rows_per_s"),
            figure("coordinator_private_bytes", self.seen.coordinator_most() as f64),
            figure("zygote_private_bytes", self.seen.zygote_most() as f64),
            figure("forks", crew.forks as f64),
        ];
        if let Some(recovery) = crew.recovery_ns.summary(1e9) {
            figures.push(beside("recovery_p50_s", recovery.median, "fork_s"));
            figures.push(figure("recovery_p99_s", recovery.p99));
            figures.push(figure("recovery_max_s", recovery.max));
        }
        match self.request.profile {
            Profile::Fork => {
                figures.push(beside("forks_per_s", crew.forks as f64 / summary.wall_s, "forks_per_s"));
            }
            Profile::Store => {
                figures.push(beside(
                    "bytes_per_s",
                    stored_bytes as f64 / summary.wall_s,
                    "written_bytes_per_s",
                ));
                figures.push(figure("stored_bytes", stored_bytes as f64));
            }
            Profile::Memory => {
                let tree = &self.seen.tree;
                figures.push(beside("pss_bytes", tree.pss as f64, "artifact_bytes"));
                figures.push(figure("worker_private_bytes", tree.worker_private as f64));
                figures.push(figure("page_table_bytes", tree.page_tables as f64));
                figures.push(figure("minor_faults", tree.minor_faults as f64));
                figures.push(figure("major_faults", tree.major_faults as f64));
            }
            Profile::Latency | Profile::Throughput | Profile::Trouble | Profile::Mixed => {}
        }
        figures.retain(|figure| figure.floor.is_none_or(|floor| self.floors.get(floor).is_some()));
        figures
    }

    fn promises(&self, checked: &Checked, leaks: &Leaks) -> Vec<Promise> {
        let mut promises = vec![
            Promise {
                promise: "every node ends once, as it should, after as many attempts as it should",
                kept: checked.wrong == 0,
                evidence: checked.evidence(),
            },
            Promise { promise: "nothing is left behind", kept: leaks.is_empty(), evidence: leaks.evidence() },
        ];
        let wall = Duration::from_secs_f64(self.result.summary.wall_s);
        if wall >= JUDGED_FROM.0 && checked.ended >= JUDGED_FROM.1 {
            for (promise, growth) in [
                ("the coordinator does not grow after the first quarter", self.seen.coordinator_growth()),
                ("the zygote does not grow after the first quarter", self.seen.zygote_growth()),
            ] {
                let evidence = format!("by {}; {} at the most", text::bytes(growth), text::bytes(GROWTH_MAX));
                promises.push(Promise { promise, kept: growth <= GROWTH_MAX, evidence });
            }
            let (before, after) = self.seen.zygote_files();
            promises.push(Promise {
                promise: "the zygote does not gather descriptors",
                kept: after <= before + self.result.crew.workers,
                evidence: format!("{before} at the first quarter, {after} at the end"),
            });
        }
        if self.request.profile == Profile::Memory {
            let workers = self.result.crew.workers as u64;
            let most = self.load.artifact_bytes + workers * WORKER_MAX + self.load.alloc_bytes + OTHERS_MAX;
            let tree = &self.seen.tree;
            promises.push(Promise {
                promise: "all processes together hold the artifact once, 1 MiB a worker, and what nodes take",
                kept: tree.pss <= most,
                evidence: format!("{}; {} at the most", text::bytes(tree.pss), text::bytes(most)),
            });
            promises.push(Promise {
                promise: "nothing is swapped",
                kept: tree.swapped == 0,
                evidence: text::bytes(tree.swapped),
            });
        }
        promises
    }
}
