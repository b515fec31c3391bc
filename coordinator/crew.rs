//! How many workers a run starts with, how many it may come to have, and why not one more: what memory allows and what the
//! nodes gain by it.

use forkyard_shared::ids::NodeId;

use crate::artifacts::OpenArtifact;
use crate::cost::Costs;
use crate::memory::{Budget, Machine, PYTHON_BYTES, Rooms, WORKER_BYTES};
use crate::plan::Plan;
use crate::preset::{AUTO, Workers};
use crate::run::RunError;
use crate::text;

/// What the machine has for a run.
pub(crate) struct Crew {
    pub rooms: Option<Rooms>,
    pub budget: Option<Budget>,
    /// Workers at first, and at the most.
    pub workers: (usize, usize),
    /// Why there are fewer than were asked for, or may be too many.
    pub warning: Option<String>,
}

/// Nodes that are shorter are not taken to wait.
pub(crate) const SHORT_SECONDS: f64 = 1e-3;

/// The cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Crew {
    /// Works it out. A machine that does not tell its memory limits nothing.
    ///
    /// # Errors
    /// When not even one worker fits, or a node says that it takes more than there is.
    pub fn of(
        (plan, is_wanted): (&Plan, &dyn Fn(NodeId) -> bool),
        asked: Option<usize>,
        (artifacts, costs): (&[OpenArtifact], &Costs),
        machine: &Machine,
    ) -> Result<Crew, RunError> {
        let preset = plan.settings.preset;
        let rooms = machine.look().ok();
        let bytes = artifacts.iter().map(OpenArtifact::memory_bytes).sum();
        let share = plan.settings.share();
        let cache = plan.settings.cache();
        let budget = rooms.as_ref().map(|rooms| Budget::new(rooms, share, bytes, (cache, plan.len())));
        let each = if plan.calls().is_empty() { WORKER_BYTES } else { PYTHON_BYTES };
        let fits = budget.as_ref().map_or(usize::MAX, |budget| budget.fits(each));
        if let Some(budget) = &budget {
            if fits == 0 {
                return Err(RunError::Memory(budget.refusal(each)));
            }
            too_big((plan, is_wanted), budget)?;
        }
        let (mut warning, wanted) = (None, asked.map_or(preset.map_or(AUTO, |p| p.workers), Workers::Fixed));
        let workers = match wanted {
            Workers::Fixed(count) if asked.is_some() => {
                if count > fits {
                    let left = budget.as_ref().map_or(0, Budget::for_workers);
                    warning = Some(format!(
                        "{count} workers may take more memory than there is for them ({} left, {} each): nodes wait until there is room",
                        text::bytes(left),
                        text::bytes(each)
                    ));
                }
                (count, count)
            }
            Workers::Fixed(count) => (count.min(fits), count.min(fits)),
            Workers::Auto { from, to } => {
                let most = (cores() * to).min(fits);
                let first = (cores() * from).max(useful(plan, costs));
                (first.min(most), most)
            }
        };
        Ok(Crew { rooms, budget, workers, warning })
    }
}

/// How many workers keep the cores busy, by what earlier runs measured: nodes that wait leave a core to others.
fn useful(plan: &Plan, costs: &Costs) -> usize {
    let (mut time, mut busy) = (0.0, 0.0);
    for node in (0..plan.len()).map(NodeId::new) {
        let kind = costs.kind(plan.ops[node.index()], plan.label(node));
        let seconds = costs.known(kind).unwrap_or(0.0);
        time += seconds;
        // What is short has hardly been measured, and travels in batches that keep a worker busy.
        let cpu = if seconds < SHORT_SECONDS { 1.0 } else { costs.cpu(kind).unwrap_or(1.0).min(1.0) };
        busy += seconds * cpu;
    }
    if time == 0.0 { 0 } else { (cores() as f64 * time / busy.max(time / 1000.0)).round() as usize }
}

/// A node that says it takes more than there is would never run.
fn too_big((plan, is_wanted): (&Plan, &dyn Fn(NodeId) -> bool), budget: &Budget) -> Result<(), RunError> {
    let most = budget.for_one();
    let big = (0..plan.len()).map(NodeId::new).filter(|node| is_wanted(*node)).find_map(|node| {
        let memory = plan.detail(node)?.memory?;
        (memory > most).then_some((node, memory))
    });
    let Some((node, memory)) = big else { return Ok(()) };
    Err(RunError::Memory(format!(
        "node {} takes {} by its `memory`, and does not fit even alone:\n{}\n{:>10}  at the most for one node, if it has everything",
        plan.name(node),
        text::bytes(memory),
        budget.lines().join("\n"),
        text::bytes(most)
    )))
}
