//! Makes a manifest of a recorded workflow in WfFormat 1.5 (<https://wfcommons.org>): the same ids and
//! edges, and nodes that wait or compute for as long as the tasks took. Knows text only, no files.

use std::collections::HashMap;

use forkyard_shared::ids::NodeId;
use serde::Deserialize;
use serde_json::json;

use crate::graph::GraphBuilder;
use crate::manifest::{check_id, parse_duration};
use crate::names::Names;

#[derive(Deserialize)]
struct Trace {
    name: String,
    workflow: Workflow,
}

#[derive(Deserialize)]
struct Workflow {
    specification: Specification,
    execution: Execution,
}

#[derive(Deserialize)]
struct Specification {
    tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct Task {
    id: String,
    #[serde(default)]
    parents: Vec<String>,
    #[serde(default)]
    children: Vec<String>,
}

#[derive(Deserialize)]
struct Execution {
    tasks: Vec<Executed>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Executed {
    id: String,
    runtime_in_seconds: Option<f64>,
}

/// A manifest in JSON Lines whose nodes are of `op` and take `scale` times as long as the tasks of this trace did.
///
/// # Errors
/// What the trace has that no manifest can say, and of which task.
pub(crate) fn manifest_of(trace: &str, op: &str, scale: f64) -> Result<String, String> {
    let Trace { name, workflow } =
        serde_json::from_str(trace).map_err(|error| format!("is no WfFormat 1.5 trace: {error}"))?;
    let tasks = workflow.specification.tasks;
    if tasks.is_empty() {
        return Err("has no tasks in workflow.specification".into());
    }
    let ran: HashMap<&str, Option<f64>> =
        workflow.execution.tasks.iter().map(|task| (&*task.id, task.runtime_in_seconds)).collect();
    let needs = needs(&tasks)?;
    let mut lines = json!({ "forkyard": 1, "run": { "name": name } }).to_string();
    for (task, needs) in tasks.iter().zip(needs) {
        let of_task = |why: &str| format!("task `{}`: {why}", task.id);
        let seconds = ran.get(&*task.id).copied().flatten();
        let seconds =
            scale * seconds.ok_or_else(|| of_task("workflow.execution has no runtimeInSeconds of it"))?;
        // As decimals, never with an exponent: so it is a duration for a manifest, however short.
        let estimate = format!("{seconds}s");
        parse_duration(&estimate).map_err(|why| of_task(&format!("runtimeInSeconds: {why}")))?;
        let needs: Vec<&str> = needs.iter().map(|need| &*tasks[need.index()].id).collect();
        let params = json!({ "seconds": seconds });
        let node = json!({ "id": task.id, "op": op, "needs": needs, "params": params, "estimate": estimate });
        lines += &format!("\n{node}");
    }
    Ok(lines + "\n")
}

/// The tasks that each task comes after. An edge may be said by the parent, by the child or by both.
fn needs(tasks: &[Task]) -> Result<Vec<Vec<NodeId>>, String> {
    let mut ids = Names::default();
    for task in tasks {
        check_id(&task.id).map_err(|why| format!("task `{}`: {why}", task.id.escape_debug()))?;
        ids.insert(&task.id).map_err(|_| format!("task `{}` is there twice", task.id))?;
    }
    let mut needs = vec![Vec::new(); tasks.len()];
    for (index, task) in tasks.iter().enumerate() {
        let find = |what: &str, id: &String| {
            let unknown = || format!("task `{}` has the {what} `{id}`, but there is no such task", task.id);
            ids.find(id).map(NodeId).ok_or_else(unknown)
        };
        for parent in &task.parents {
            needs[index].push(find("parent", parent)?);
        }
        for child in &task.children {
            needs[find("child", child)?.index()].push(NodeId::new(index));
        }
    }
    let mut graph = GraphBuilder::new();
    for needs in &mut needs {
        needs.sort_unstable();
        needs.dedup();
        graph.push(needs.iter().copied());
    }
    graph.build().map_err(|cycle| {
        let way: Vec<&str> = cycle.iter().map(|node| &*tasks[node.index()].id).collect();
        format!("these tasks are each other's parents in a circle: {}", way.join(" -> "))
    })?;
    Ok(needs)
}
