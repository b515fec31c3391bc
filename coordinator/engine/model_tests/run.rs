//! One case, run: the engine as it is, on the double and on a store in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Instant;

use forkyard_shared::arena::ArenaWriter;
use forkyard_shared::ids::NodeId;
use forkyard_worker::params::Signature;
use forkyard_worker::{Failed, Op, Ops, Output, Task};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::case::Case;
use super::double::Double;
use super::is_told;
use super::reference::{Facts, World};
use crate::cost::Costs;
use crate::early::Early;
use crate::engine::{Contexts, Engine, Progressing, Provision};
use crate::hands::Hands;
use crate::key::Keys;
use crate::manifest::{self, OnFailure};
use crate::memory::Machine;
use crate::nodes::Nodes;
use crate::plan::Plan;
use crate::report::{EventsWanted, Report, ReportOptions};
use crate::run::{Ending, Limits, RunError, urgencies};
use crate::schedule::{Scheduler, State};
use crate::store::{DigestMemo, Layout, Memory, Outcome};

/// An op that the double plays.
struct Played {
    state: bool,
}

impl Op for Played {
    fn signature(&self) -> Signature {
        Signature { state: self.state, ..Signature::default() }
    }

    fn run(&self, _: &Task) -> Result<Output, Failed> {
        unreachable!("the double runs nothing")
    }
}

static OPS: LazyLock<Ops> = LazyLock::new(|| {
    Ops::standard().versioned("act", 1, Played { state: false }).versioned("actor", 1, Played { state: true })
});

/// Runs a case, and once more with what that has stored, if the case says so.
pub(super) fn seed(case: &Case, seed: u64) -> Result<(), String> {
    let both = || {
        let plan = plan(case)?;
        let store = Memory::default();
        once(case, seed, plan, &store)?;
        // What was stored before or after a loss is judged by who reads it.
        if case.weather.second_run || case.weather.loss {
            let mut calm = case.clone();
            calm.weather.signals = 0;
            calm.weather.loss &= case.weather.second_run && seed.is_multiple_of(2);
            once(&calm, !seed, plan, &store).map_err(|why| format!("the second run: {why}"))?;
        }
        Ok(())
    };
    catch_unwind(AssertUnwindSafe(both)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default())
    })
}

/// The plan of a case. It is never freed.
pub(super) fn plan(case: &Case) -> Result<&'static Plan, String> {
    let plan = manifest::load(Path::new("model"), Some(&case.text()), &OPS, &BTreeMap::new());
    Ok(Box::leak(Box::new(plan.map_err(|error| format!("the manifest: {error}"))?)))
}

/// Runs a plan with these hands, and hands the engine out when the run has ended.
pub(super) fn with_hands<T>(
    case: &Case,
    plan: &'static Plan,
    store: &Memory,
    hands: &mut dyn Hands,
    then: impl FnOnce(&mut Engine, Result<(), RunError>) -> T,
) -> Result<T, String> {
    let scheduler = {
        let costs = Costs::new(OPS.names(), &[], &BTreeMap::new());
        let mut scheduler =
            Scheduler::new(&plan.graph, urgencies(plan, &costs), |_| true).with_terms(plan.terms());
        plan.races().flat_map(|(_, members)| members).for_each(|member| scheduler.excuse(*member));
        scheduler
    };
    let quiet = ReportOptions { json: false, events: EventsWanted::None, quiet: true, trace: None };
    let mut report = Report::new(&quiet, Instant::now(), 0)?;
    let io = |error: std::io::Error| error.to_string();
    let journal = memfd_create(c"journal", MFdFlags::MFD_CLOEXEC).map_err(|error| error.to_string())?;
    let dir = store.dir();
    let memo = DigestMemo::open(&dir.path);
    let provision = Provision {
        workers: (case.weather.workers, case.weather.workers),
        budget: case.weather.budget.map(|mb| mb * 1_000_000),
        machine: Machine::at(Path::new("/nowhere/forkyard")),
        ..Provision::none()
    };
    let mut engine = Engine {
        nodes: Nodes::new(plan),
        ops: &OPS,
        artifacts: [].into(),
        dir: &dir,
        run: None,
        layout: Layout::Hybrid,
        limits: Limits {
            on_failure: if case.stops { OnFailure::Stop } else { OnFailure::Continue },
            max_failures: case.max_failures,
            refresh: HashSet::new(),
        },
        scheduler,
        keys: Keys::new(plan, &OPS, Vec::new(), (memo, Early::none(plan))).map_err(io)?,
        contexts: Contexts::new(plan, &OPS, ArenaWriter::new().map_err(io)?)?,
        costs: Costs::new(OPS.names(), &[], &BTreeMap::new()),
        reader: store.reader(),
        writer: store.writer(File::from(journal), case.commit_every),
        pool: hands,
        report: &mut report,
        attach: &mut |_, _| Ok(()),
        state: Progressing::new(plan, &OPS, provision),
    };
    let result = engine.run();
    if result.is_ok() {
        engine.sanity_check();
    }
    Ok(then(&mut engine, result))
}

fn once(case: &Case, seed: u64, plan: &'static Plan, store: &Memory) -> Result<(), String> {
    let stored = store.keys();
    let mut double = Double::new(case, seed, store.clone());
    let (facts, stored_before, ending) = with_hands(case, plan, store, &mut double, |engine, result| {
        result.map_err(|error| error.to_string())?;
        let facts = facts(engine, store);
        let stored_before = |node: NodeId| {
            let was_stored = engine.nodes.is_cached(node) && stored.contains(&engine.keys.of(node));
            was_stored.then(|| engine.nodes.name(node).into_owned())
        };
        let before: Vec<Option<String>> =
            (0..engine.nodes.len()).map(NodeId::new).map(stored_before).collect();
        Ok::<_, String>((facts, before, engine.state.ending.clone()))
    })??;
    if !double.interrupted && ending != Ending::Complete {
        return Err(format!("it ended so: {ending:?}"));
    }
    let mut facts = facts?;
    facts.interrupted = double.interrupted;
    if is_told() {
        let outcomes: BTreeMap<_, _> = facts.outcomes.iter().collect();
        let values: BTreeMap<_, _> =
            facts.values.iter().map(|(name, value)| (name, value.to_string())).collect();
        eprintln!("{outcomes:?}\n{values:?}");
    }
    // What is stored must not be run, unless it was lost.
    let again = double.ran.iter().find_map(|node| stored_before[node.index()].as_ref());
    if let Some(name) = again.filter(|_| !case.weather.loss) {
        return Err(format!("{name} was stored, and was run all the same"));
    }
    World::judge(case, &facts)
}

/// What a run says at its end.
fn facts(engine: &Engine, store: &Memory) -> Result<Facts, String> {
    let mut facts = Facts {
        outcomes: HashMap::new(),
        values: HashMap::new(),
        winners: HashMap::new(),
        interrupted: false,
    };
    for node in (0..engine.nodes.len()).map(NodeId::new) {
        let name = engine.nodes.name(node).into_owned();
        let State::Settled(outcome) = engine.scheduler.state(node) else {
            return Err(format!("{name} is {:?} at the end", engine.scheduler.state(node)));
        };
        let outcome = if outcome == Outcome::Cached { Outcome::Ran } else { outcome };
        let is_race = engine.nodes.flow(node).is_some_and(|flow| !flow.race.is_empty());
        if outcome.is_done() && !is_race && !engine.is_family(node) {
            let value =
                store.value(engine.keys.of(node)).ok_or(format!("{name} is done and has no result"))?;
            let value = serde_json::from_slice(&value).map_err(|error| error.to_string())?;
            facts.values.insert(name.clone(), value);
        }
        if is_race && let Some(winner) = engine.state.alias.get(&node) {
            facts.winners.insert(name.clone(), engine.nodes.name(*winner).into_owned());
        }
        facts.outcomes.insert(name, outcome);
    }
    Ok(facts)
}
