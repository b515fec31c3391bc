//! The state that nodes share, through a program with ops of its own (`examples/state_ops.rs`): who sees what, what
//! is in keys, and that nothing depends on timing.

use serde_json::{Value, json};

use crate::util::Space;

/// A space with this manifest, whose nodes are one JSON object each.
fn space(nodes: &[Value]) -> Space {
    let space = Space::new();
    write(&space, nodes);
    space
}

fn write(space: &Space, nodes: &[Value]) {
    let lines: Vec<String> = nodes.iter().map(Value::to_string).collect();
    space.write("m.jsonl", lines.join("\n"));
}

fn run(space: &Space, more: &[&str], code: i32) -> String {
    let args = [&["run", "m.jsonl", "--json", "--events", "all"][..], more].concat();
    space.run_ops(&args).expect(code).outcomes()
}

fn result(space: &Space, node: &str) -> Value {
    serde_json::from_str(&space.result_text(node)).unwrap()
}

fn set(id: &str, values: Value, needs: &[&str]) -> Value {
    json!({"id": id, "op": "set", "needs": needs, "params": {"set": values}})
}

fn get(id: &str, keys: &[&str], needs: &[&str]) -> Value {
    json!({"id": id, "op": "get", "needs": needs, "params": {"keys": keys}, "reads": keys})
}

#[test]
fn a_node_sees_what_its_ancestors_wrote_and_nothing_else() {
    let space = space(&[
        set("a", json!({"x": 1, "only_a": true}), &[]),
        set("b", json!({"x": 2}), &["a"]),
        set("stranger", json!({"x": 3}), &[]),
        get("after_a", &["x", "only_a"], &["a"]),
        get("after_b", &["x", "only_a"], &["b"]),
        get("after_nothing", &["x", "only_a"], &[]),
        // Of strangers the later one in the manifest wins, and a descendant over its ancestor.
        get("after_all", &["x"], &["stranger", "a", "b"]),
    ]);
    run(&space, &["--workers", "3"], 0);
    assert_eq!(result(&space, "after_a"), json!({"x": 1, "only_a": true}));
    assert_eq!(result(&space, "after_b"), json!({"x": 2, "only_a": true}));
    assert_eq!(result(&space, "after_nothing"), json!({"x": null, "only_a": null}));
    assert_eq!(result(&space, "after_all"), json!({"x": 3}));
}

#[test]
fn items_do_not_see_each_other_until_they_are_joined() {
    let mut items = set("items", json!({"x": "{{ item }}", "own_{{ index }}": 1}), &["a"]);
    items["foreach"] = json!("{{ range(0, 40) }}");
    items["params"]["set"] = json!({"x": "{{ item }}"});
    let mut each = get("each", &["x"], &[]);
    each["each"] = json!("items");
    let mut siblings = get("siblings", &["x"], &["a"]);
    siblings["foreach"] = json!([1, 2, 3]);
    let space = space(&[
        set("a", json!({"x": -1}), &[]),
        items,
        each,
        siblings,
        get("beside", &["x"], &["a"]),
        get("joined", &["x"], &["items"]),
    ]);
    run(&space, &["--workers", "4"], 0);
    let seen: Vec<Value> = (0..40).map(|item| json!({"x": item})).collect();
    assert_eq!(result(&space, "each"), json!(seen), "each follower sees its own item's write");
    assert_eq!(result(&space, "siblings"), json!([{"x": -1}, {"x": -1}, {"x": -1}]));
    assert_eq!(result(&space, "beside"), json!({"x": -1}), "the parent's state is as it was");
    assert_eq!(result(&space, "joined"), json!({"x": 39}), "joined, the last item counts");
}

#[test]
fn a_removed_key_is_not_set() {
    let mut remove = set("remove", json!({}), &["a"]);
    remove["params"]["remove"] = json!(["x"]);
    let mut all = get("all", &[], &["remove"]);
    (all["params"], all["reads"]) = (json!({}), json!("state"));
    let space =
        space(&[set("a", json!({"x": 1, "y": 2}), &[]), remove, get("one", &["x"], &["remove"]), all]);
    run(&space, &[], 0);
    assert_eq!(result(&space, "one"), json!({"x": null}));
    assert_eq!(result(&space, "all"), json!({"y": 2}));
}

#[test]
fn a_read_that_is_not_declared_fails_by_name() {
    let mut undeclared = get("g", &["x"], &["a"]);
    undeclared["reads"] = json!(["y"]);
    let space = space(&[set("a", json!({"x": 1}), &[]), undeclared]);
    let ended = space.run_ops(&["run", "m.jsonl"]).expect(1);
    assert!(
        ended.stderr.contains("the node reads the state's `x` and does not say so: reads = [\"x\"]"),
        "{}",
        ended.stderr
    );
}

#[test]
fn what_a_failed_attempt_wrote_is_gone() {
    let mut flaky = set("a", json!({"x": "{{ 'from attempt' }}"}), &[]);
    flaky["params"]["fails"] = json!(1);
    flaky["retry"] = json!({"attempts": 2});
    let mut broken = set("broken", json!({"y": 1}), &[]);
    broken["params"]["fails"] = json!(9);
    let mut after = get("after", &["x", "y"], &["a", "broken"]);
    after["after"] = json!("any");
    let space = space(&[flaky, broken, after]);
    run(&space, &["--keep-going"], 1);
    assert_eq!(result(&space, "after"), json!({"x": "from attempt", "y": null}));
}

#[test]
fn a_stored_result_brings_its_writes_back() {
    let nodes = |extra: i32| {
        let mut after = get("after", &["x"], &["a"]);
        after["salt"] = json!(extra);
        [set("a", json!({"x": {"deep": [1, 2]}}), &[]), after]
    };
    for layout in ["hybrid", "sqlite", "filesystem"] {
        let space = Space::new();
        let header = json!({"forkyard": 1, "run": {"layout": layout}});
        for (salt, outcomes) in
            [(1, "a=ran after=ran"), (2, "a=cached after=ran"), (2, "a=cached after=cached")]
        {
            let [a, after] = nodes(salt);
            write(&space, &[header.clone(), a, after]);
            assert_eq!(run(&space, &[], 0), outcomes, "{layout}");
            assert_eq!(result(&space, "after"), json!({"x": {"deep": [1, 2]}}));
        }
    }
}

#[test]
fn only_what_is_read_is_in_the_key() {
    let nodes = |x: i32, y: i32| {
        let mut all = get("all", &[], &["a"]);
        (all["params"], all["reads"]) = (json!({}), json!("state"));
        // A node between, so that the key of `a` itself is in none of theirs.
        [set("a", json!({"x": x, "y": y}), &[]), get("reads_x", &["x"], &["a"]), all]
    };
    let space = space(&nodes(1, 1));
    run(&space, &[], 0);
    // `a` is needed for its order too, so its key counts; what tells them apart is what they read on top.
    write(&space, &nodes(1, 1));
    assert_eq!(run(&space, &[], 0), "a=cached all=cached reads_x=cached");

    let by_variable = |y: i32| {
        let header = json!({"forkyard": 1, "vars": {"x": 1, "y": y}});
        let mut all = get("all", &[], &[]);
        (all["params"], all["reads"]) = (json!({}), json!("state"));
        [header, get("reads_x", &["x"], &[]), all]
    };
    let space = Space::new();
    for (y, outcomes) in [(1, "all=ran reads_x=ran"), (2, "all=ran reads_x=cached")] {
        write(&space, &by_variable(y));
        assert_eq!(run(&space, &[], 0), outcomes);
    }
}

#[test]
fn too_much_for_one_node_is_refused() {
    let space = space(&[set("a", json!({"x": "y".repeat(70_000)}), &[])]);
    let ended = space.run_ops(&["run", "m.jsonl"]).expect(1);
    assert!(
        ended.stderr.contains("bytes of state") && ended.stderr.contains("into its result"),
        "{}",
        ended.stderr
    );
}

#[test]
fn the_outcome_is_the_same_for_any_number_of_workers() {
    let mut nodes = Vec::new();
    let mut random = 12345u32;
    let mut next = |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % below
    };
    for number in 0..120u32 {
        let needs: Vec<String> =
            (0..next(4)).filter(|_| number > 0).map(|_| format!("n{}", next(number))).collect();
        let mut node =
            json!({"id": format!("n{number}"), "op": "cells", "needs": needs, "params": {"seed": number}});
        node["reads"] = json!((0..100).map(|key| format!("k{key}")).collect::<Vec<_>>());
        nodes.push(node);
    }
    let results = ["1", "2", "16"].map(|workers| {
        let space = space(&nodes);
        run(&space, &["--workers", workers], 0);
        let ended = space.run_ops(&["context", "export"]).expect(0);
        (space.results(), ended.stdout)
    });
    assert_eq!(results[0].0.len(), 120);
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

#[test]
fn a_context_goes_round() {
    let space =
        space(&[set("a", json!({"x": [1, {"y": "z"}], "n": null}), &[]), set("b", json!({"x": 2}), &["a"])]);
    run(&space, &[], 0);
    let exported = space.run_ops(&["context", "export"]).expect(0).stdout;
    assert_eq!(
        serde_json::from_slice::<Value>(&exported).unwrap(),
        json!({"v": 1, "vars": {"n": null, "x": 2}})
    );
    let after_a = space.run_ops(&["context", "export", "a"]).expect(0).stdout;
    assert_eq!(
        serde_json::from_slice::<Value>(&after_a).unwrap(),
        json!({"v": 1, "vars": {"n": null, "x": [1, {"y": "z"}]}})
    );
    space.write("state.json", &after_a);
    write(&space, &[get("g", &["x"], &[])]);
    run(&space, &["--context", "state.json"], 0);
    assert_eq!(result(&space, "g"), json!({"x": [1, {"y": "z"}]}));
    assert_eq!(space.run_ops(&["context", "export"]).expect(0).stdout, after_a);
}

#[test]
fn a_follower_sees_its_own_item_however_late_it_starts() {
    let mut items = set("items", json!({"x": "{{ item }}"}), &[]);
    items["foreach"] = json!([1, 2, 3, 4]);
    let mut late = get("late", &["x"], &["wait"]);
    late["each"] = json!("items");
    let mut last = json!({"id": "last", "op": "value", "params": {"value": "{{ last_output }}"}});
    last["each"] = json!("items");
    let space = space(&[items, json!({"id": "wait", "op": "sleep", "params": {"seconds": 0.2}}), late, last]);
    for _ in 0..2 {
        run(&space, &["--workers", "2"], 0);
        assert_eq!(result(&space, "late"), json!([{"x": 1}, {"x": 2}, {"x": 3}, {"x": 4}]));
        assert_eq!(result(&space, "last"), json!([{"x": 1}, {"x": 2}, {"x": 3}, {"x": 4}]));
    }
}

#[test]
fn iterations_see_what_the_ones_before_wrote() {
    let mut node = set("r", json!({"k": "{{ (vars.k | default(0)) + 1 }}"}), &[]);
    node["salt"] = json!("{{ index }}");
    node["repeat"] = json!({"until": "{{ result.k == 3 }}", "max": 5});
    let space = space(&[node, get("after", &["k"], &["r"])]);
    run(&space, &[], 0);
    assert_eq!(result(&space, "after"), json!({"k": 3}));
}

#[test]
fn of_a_race_only_the_winner_is_seen() {
    let mut loser = set("b", json!({"x": 2, "z": 1}), &[]);
    loser["params"]["fails"] = json!(99);
    let members = [set("a", json!({"x": 1}), &[]), loser];
    let all = json!({"id": "g", "op": "get", "needs": ["r"], "reads": "state"});
    let space = space(&[members[0].clone(), members[1].clone(), json!({"id": "r", "race": ["a", "b"]}), all]);
    run(&space, &[], 0);
    assert_eq!(result(&space, "g"), json!({"x": 1}));
}
