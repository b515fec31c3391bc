//! What is known before a run, and graphs recorded by other programs: imported, then planned.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::util::{Ended, Space, text};

impl Space {
    fn plan(&self, args: &[&str]) -> Value {
        let mut lines = self.run(&[&["plan", "m.toml", "--json"], args].concat()).expect(0).events();
        assert_eq!(lines.len(), 1, "one object");
        lines.remove(0)
    }

    fn import(&self, args: &[&str]) -> Ended {
        self.run(&[&["import", "wfformat"], args].concat())
    }

    /// Imports a trace in place of `m.toml`.
    fn take(&self, args: &[&str]) {
        self.write("m.toml", self.import(args).expect(0).stdout);
    }
}

fn said(ended: &Ended) -> String {
    String::from_utf8(ended.stdout.clone()).unwrap()
}

/// A diamond with a tail, and a node beside it: 0.5 + 2 + 1 + 0.25 s along `a b d "e"`.
const DIAMOND: &str = r#"
    [[node]]
    id = "a"
    op = "value"
    params = { value = 1 }
    estimate = "500ms"
    [[node]]
    id = "b"
    op = "value"
    params = { value = "{{ nodes.a.result }}" }
    estimate = "2s"
    [[node]]
    id = "c"
    op = "value"
    params = { value = "{{ nodes.a.result }}" }
    salt = "c"
    estimate = "1s"
    [[node]]
    id = "d"
    op = "value"
    params = { value = 4 }
    needs = ["b", "c"]
    estimate = "1s"
    [[node]]
    id = 'say "e\n"'
    op = "noop"
    needs = ["d"]
    estimate = "250ms"
    [[node]]
    id = "beside"
    op = "noop"
    estimate = "1.25s"
"#;

#[test]
fn a_plan_counts_and_adds_up() {
    let space = Space::with(DIAMOND);
    let expected = json!({
        "v": 1, "nodes": 6, "edges": 5, "levels": 4, "level_widths": [2, 2, 1, 1], "width": 2,
        "critical_path": ["a", "b", "d", "say \"e\\n\""], "critical_path_s": 3.75, "work_s": 6.0,
        "parallelism": 1.6, "guessed": 0, "workers": 2, "speedup": 1.6, "efficiency": 0.8, "makespan_s": 3.75,
        "to_run": 6, "cached": 0, "artifact_bytes": 0, "preset": null,
    });
    assert_eq!(space.plan(&["--workers", "2"]), expected);
    let alone = space.plan(&["--workers", "1"]);
    assert_eq!([&alone["makespan_s"], &alone["speedup"], &alone["efficiency"]], [6.0, 1.0, 1.0]);
    let only = space.plan(&["--workers", "1", "--only", "c"]);
    assert_eq!([&only["nodes"], &only["edges"], &only["levels"]], [2, 1, 2]);
    assert_eq!([&only["work_s"], &only["critical_path_s"]], [1.5, 1.5]);
    assert!(!space.path(".forkyard").exists(), "to plan is to look");
}

#[test]
fn a_plan_knows_what_is_stored_and_how_long_it_took() {
    let space = Space::with(DIAMOND);
    space.run(&["run", "m.toml", "--only", "b"]).expect(0);
    let plan = space.plan(&["--workers", "2"]);
    assert_eq!([&plan["to_run"], &plan["cached"]], [4, 2]);
    // What ran took some microseconds, whatever its estimate said; the rest is as long as it was.
    let work_s = plan["work_s"].as_f64().unwrap();
    assert!((3.5..5.0).contains(&work_s), "{work_s}");
    assert_eq!(plan["makespan_s"], 2.25, "c and d and e, of which nothing waits for b");

    space.run_manifest(0);
    let plan = space.plan(&[]);
    assert_eq!([&plan["to_run"], &plan["makespan_s"]], [&json!(0), &json!(0.0)]);
    assert!(plan["work_s"].as_f64().unwrap() > 0.0, "{plan}");
}

#[test]
fn what_nobody_has_said_is_measured_or_guessed() {
    let space = Space::with("[[node]]\nid = \"a\"\nop = \"sleep\"\nparams = { seconds = 0.05 }\n");
    let plan = space.plan(&[]);
    assert_eq!([&plan["guessed"], &plan["work_s"]], [&json!(1), &json!(0.001)]);
    assert!(said(&space.run(&["plan", "m.toml"]).expect(0)).contains("1 node of unknown duration"));
    space.run_manifest(0);
    space.write("m.toml", "[[node]]\nid = \"other\"\nop = \"sleep\"\nparams = { seconds = 0.06 }\n");
    let plan = space.plan(&[]);
    assert_eq!([&plan["guessed"], &plan["to_run"]], [0, 1]);
    assert!(plan["work_s"].as_f64().unwrap() >= 0.05, "the mean of its op: {plan}");
}

#[test]
fn people_read_the_plan() {
    let space = Space::with(DIAMOND);
    space.run(&["run", "m.toml", "--only", "beside"]).expect(0);
    let text = said(&space.run(&["plan", "m.toml", "--workers", "1"]).expect(0));
    for line in
        ["6 nodes, 5 edges, 4 levels, the widest of 2", "5 nodes would run, 1 cached", "     2.0 s  b"]
    {
        assert!(text.lines().any(|said| said == line), "no line {line:?} in\n{text}");
    }
    let forecast = "on 1 worker: 4.8 s for what would run; of everything, speed-up 1.0 and efficiency 100%";
    assert!(text.contains("critical path: 3.8 s") && text.contains(forecast), "{text}");
}

#[test]
fn graphviz_reads_the_plan() {
    let space = Space::with(DIAMOND);
    space.run(&["run", "m.toml", "--only", "beside"]).expect(0);
    let dot = said(&space.run(&["plan", "m.toml", "--dot", "--only", "d", "beside"]).expect(0));
    let mut lines: Vec<&str> = dot.lines().map(str::trim).collect();
    assert_eq!((lines.remove(0), lines.pop()), ("digraph {", Some("}")));
    lines.sort_unstable();
    let expected = [
        r#""a" -> "b";"#,
        r#""a" -> "c";"#,
        r#""a";"#,
        r#""b" -> "d";"#,
        r#""b";"#,
        r#""beside" [style=filled];"#,
        r#""c" -> "d";"#,
        r#""c";"#,
        r#""d";"#,
    ];
    assert_eq!(lines, expected);
    let whole = said(&space.run(&["plan", "m.toml", "--dot"]).expect(0));
    assert!(whole.contains(r#""d" -> "say \"e\\n\"";"#), "{whole}");
    space.run(&["plan", "m.toml", "--dot", "--json"]).expect(2);
}

#[test]
fn a_plan_of_a_wrong_manifest_is_a_mistake() {
    let space = Space::with("[[node]]\nid = \"a\"\nop = \"noopp\"\n");
    space.run(&["plan", "m.toml"]).expect(2).says("there is no op `noopp`");
    space.write("m.toml", "[[node]]\nid = \"a\"\nop = \"noop\"\n");
    space.run(&["plan", "m.toml", "--only", "b"]).expect(2).says("has no node `b`");
}

/// A trace of these tasks and seconds.
fn trace(tasks: Value, seconds: &[(&str, Value)]) -> String {
    let ran: Vec<Value> =
        seconds.iter().map(|(id, s)| json!({ "id": id, "runtimeInSeconds": s, "coreCount": 1 })).collect();
    let workflow = json!({ "specification": { "tasks": tasks, "files": [] }, "execution": { "tasks": ran } });
    json!({ "name": "hand-made", "schemaVersion": "1.5", "workflow": workflow }).to_string()
}

#[test]
fn a_trace_becomes_a_manifest() {
    let space = Space::new();
    // One edge is said twice, one by the parent only, one by the child only.
    let tasks = json!([
        { "id": "split", "name": "x", "parents": [], "children": ["left", "right"] },
        { "id": "left", "parents": ["split"], "children": [] },
        { "id": "right", "parents": [], "children": [] },
        { "id": "join", "parents": ["left", "right"] },
    ]);
    let seconds = [("split", json!(0.001)), ("left", json!(3e-5)), ("right", json!(2)), ("join", json!(0.5))];
    space.write("t.json", trace(tasks, &seconds));
    space.take(&["t.json"]);
    let lines = space.text("m.toml");
    let nodes: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(nodes[0], json!({ "forkyard": 1, "run": { "name": "hand-made" } }));
    let left = json!({
        "id": "left", "op": "sleep", "needs": ["split"], "params": { "seconds": 3e-5 }, "estimate": "0.00003s",
    });
    assert_eq!(nodes[2], left);
    let plan = space.plan(&["--workers", "2"]);
    assert_eq!([&plan["nodes"], &plan["edges"], &plan["levels"], &plan["width"]], [4, 4, 3, 2]);
    assert_eq!(plan["critical_path"], json!(["split", "right", "join"]));
    assert_eq!([&plan["critical_path_s"], &plan["work_s"]], [2.501, 2.50103]);

    space.take(&["t.json", "--time-scale", "0.0001", "--op", "spin"]);
    let node: Value = serde_json::from_str(space.text("m.toml").lines().nth(2).unwrap()).unwrap();
    assert_eq!(node["op"], "spin");
    let plan = space.plan(&[]);
    assert_eq!(plan["work_s"], 0.000250103, "nanoseconds are not lost");
    assert_eq!(space.run_manifest(0).outcomes(), "join=ran left=ran right=ran split=ran");
}

#[test]
fn what_no_manifest_can_say_is_refused_with_its_task() {
    let space = Space::new();
    let second = |id: &'static str| (id, json!(1));
    let alone = |id: &str| json!([{ "id": id, "parents": [], "children": [] }]);
    let circle = json!([{ "id": "a", "parents": ["b"] }, { "id": "b", "parents": ["a"] }]);
    let cases = [
        ("{\"name\": ".to_string(), "is no WfFormat 1.5 trace: EOF"),
        ("{\"name\": \"x\", \"workflow\": {\"tasks\": []}}".into(), "missing field `specification`"),
        (trace(json!([]), &[]), "has no tasks"),
        (trace(alone("a"), &[]), "task `a`: workflow.execution has no runtimeInSeconds of it"),
        (trace(alone("a"), &[("a", Value::Null)]), "task `a`: workflow.execution has no runtimeInSeconds"),
        (trace(alone("a"), &[("a", json!(-1))]), "task `a`: runtimeInSeconds: `-1s` is not a duration"),
        (trace(alone("a"), &[("a", json!(1e300))]), "is longer than 10 years"),
        (trace(alone("a\nb"), &[second("a\nb")]), "task `a\\nb`: an id is 1 to 1024 bytes"),
        (trace(json!([{ "id": "a" }, { "id": "a" }]), &[second("a")]), "task `a` is there twice"),
        (trace(json!([{ "id": "a", "parents": ["z"] }]), &[second("a")]), "task `a` has the parent `z`"),
        (trace(json!([{ "id": "a", "children": ["z"] }]), &[second("a")]), "task `a` has the child `z`"),
        (trace(circle, &[second("a"), second("b")]), "in a circle: a -> b -> a"),
    ];
    for (trace, message) in cases {
        space.write("t.json", trace);
        let ended = space.import(&["t.json"]).expect(2).says(message).says("t.json: ");
        assert!(ended.stdout.is_empty(), "half a manifest for {message}");
    }
    space.import(&["none.json"]).expect(2).says("none.json: No such file");
    space.write("t.json", trace(alone("a"), &[second("a")]));
    for scale in ["-1", "inf", "x"] {
        space.import(&["t.json", "--time-scale", scale]).expect(2);
    }
}

#[test]
fn recorded_workflows_have_the_shape_that_was_counted_by_others() {
    let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/workflows"));
    if !dir.exists() {
        eprintln!("skipped: {} is not there", dir.display());
        return;
    }
    let expected = std::fs::read(dir.join("expected.json")).unwrap();
    let expected: BTreeMap<String, Value> = serde_json::from_slice(&expected).unwrap();
    assert_eq!(expected.len(), 8);
    let space = Space::new();
    for (file, expected) in expected {
        space.take(&[text(&dir.join(&file))]);
        let plan = space.plan(&["--workers", "4"]);
        let names = [
            ("nodes", "tasks"),
            ("edges", "edges"),
            ("levels", "levels"),
            ("level_widths", "level_widths"),
            ("width", "max_level_width"),
            ("critical_path", "critical_path_tasks"),
        ];
        for (ours, theirs) in names {
            assert_eq!(plan[ours], expected[theirs], "{ours} of {file}");
        }
        let seconds = |value: &Value| value.as_f64().expect("a number of seconds");
        for (ours, theirs) in [("critical_path_s", "critical_path_seconds"), ("work_s", "total_work_seconds")]
        {
            let (ours_s, theirs_s) = (seconds(&plan[ours]), seconds(&expected[theirs]));
            assert!(
                (ours_s - theirs_s).abs() <= 1e-9 * theirs_s,
                "{ours} of {file}: {ours_s}, not {theirs_s}"
            );
        }
        // No schedule beats these bounds, and none that leaves no worker idle is worse than both together.
        let bounds = [seconds(&plan["critical_path_s"]), seconds(&plan["work_s"]) / 4.0];
        let makespan = seconds(&plan["makespan_s"]);
        let least = bounds[0].max(bounds[1]);
        assert!((least * (1.0 - 1e-9)..bounds[0] + bounds[1]).contains(&makespan), "{file}: {makespan}");
    }
}
