//! `forkyard why`: what the key of a node is made of, and what of it changed.

use std::fs;

use serde_json::Value;

use crate::util::{Space, eventually};

/// A node of `exec` for a shell.
fn shell(id: &str, script: &str, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"exec\"\nshell = true\nrun = ['''{script}''']\n{more}\n")
}

fn value(id: &str, value: u32, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"value\"\nparams = {{ value = {value} }}\n{more}\n")
}

fn noop(id: &str, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"noop\"\n{more}\n")
}

impl Space {
    fn why(&self, node: &str) -> String {
        String::from_utf8(self.run(&["why", "m.toml", node]).expect(0).stdout).unwrap()
    }

    fn why_json(&self, node: &str) -> Value {
        self.run(&["why", "m.toml", node, "--json"]).expect(0).events().remove(0)
    }
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|known| known.trim() == line), "no line `{line}` in:\n{text}");
}

#[test]
fn a_changed_parameter_and_a_new_salt_are_named() {
    let space = Space::with(&value("a", 3, ""));
    let first = space.why("a");
    has(&first, "a would run: no run of this store has computed its result");
    has(&first, "param value: 3");
    space.run_manifest(0);
    let cached = space.why("a");
    assert!(cached.starts_with("a is cached: its result is stored"), "{cached}");
    has(&cached, "in run 1: ran");
    space.write("m.toml", value("a", 4, "salt = \"x\""));
    let text = space.why("a");
    has(&text, "a would run: it is not what ran in run 1");
    has(&text, "param value: 3 -> 4");
    has(&text, "salt: new, x");
    let json = space.why_json("a");
    assert_eq!((&json["verdict"], &json["last"]["outcome"]), (&"would_run".into(), &"ran".into()));
    let change = serde_json::json!({ "what": "param", "label": "value", "before": "3", "after": "4" });
    assert!(json["changes"].as_array().unwrap().contains(&change), "{json}");
    space.run_manifest(0);
    assert_eq!(space.why_json("a")["key"].as_str().unwrap(), json["key"].as_str().unwrap());
}

#[test]
fn a_changed_file_is_named_and_so_is_an_artifact() {
    let manifest = "[artifacts.big]\npath = \"big.raw\"\n[[node]]\nid = \"a\"\nop = \"exec\"\nartifact = \"big\"\nrun = [\"sh\", \"score.sh\"]\n";
    let space = Space::with(manifest);
    space.write("score.sh", "echo 1");
    space.write("big.raw", "bytes");
    space.run_manifest(0);
    space.write("score.sh", "echo 22");
    let text = space.why("a");
    has(&text, "file score.sh changed");
    assert!(!text.contains("artifact big changed"), "{text}");
    space.write("big.raw", "others");
    has(&space.why("a"), "artifact big changed");
}

#[test]
fn a_result_that_changed_leads_to_the_node_that_ran_again() {
    let reader = shell("b", "cat", "stdin = \"{{ nodes.a.result }}\"");
    let space = Space::with(&[value("a", 1, ""), reader.clone()].concat());
    space.run_manifest(0);
    space.write("m.toml", [value("a", 2, ""), reader].concat());
    has(&space.why("b"), "b is not decided before a run: it reads the result of a, which would run first");
    space.run(&["run", "m.toml", "--only", "a"]).expect(0);
    has(&space.why("b"), "param stdin: the result of a changed, because a ran again in run 2");
}

#[test]
fn a_value_that_became_a_result_is_told_as_such() {
    let space = Space::with(&[value("a", 1, ""), shell("b", "cat", "stdin = \"text\"")].concat());
    space.run_manifest(0);
    space
        .write("m.toml", [value("a", 1, ""), shell("b", "cat", "stdin = \"{{ nodes.a.result }}\"")].concat());
    has(&space.why("b"), "param stdin: \"text\" -> the result of a");
}

#[test]
fn a_plain_node_names_the_need_that_changed() {
    let plain = [noop("b", "needs = [\"a\", \"c\"]"), noop("c", "")].concat();
    let space = Space::with(&[value("a", 1, ""), plain.clone()].concat());
    space.run_manifest(0);
    space.write("m.toml", [value("a", 2, ""), plain].concat());
    let text = space.why("b");
    has(&text, "need a changed");
    assert!(!text.contains("need c changed"), "{text}");
}

#[test]
fn a_node_that_did_not_succeed_says_why_it_did_not() {
    let nodes = [
        shell("bad", "echo the reason >&2; exit 9", ""),
        noop("after", "needs = [\"bad\"]"),
        noop("left", "when = \"{{ 1 == 2 }}\""),
    ];
    let space = Space::with(&nodes.concat());
    space.run(&["run", "m.toml", "--keep-going"]).expect(1);
    has(&space.why("bad"), "in run 1: failed: /bin/sh ended with exit status: 9: the reason");
    has(&space.why("after"), "in run 1: blocked: it needs bad, which did not succeed");
    let left = space.why_json("left");
    assert_eq!(left["last"]["outcome"], "skipped");
    assert!(left["last"]["error"].as_str().unwrap().contains("its condition is false"), "{left}");
    space.run(&["why", "m.toml", "baad"]).expect(2).says("did you mean `bad`?");
}

#[test]
fn an_item_is_told_by_what_it_was_made_of() {
    let items = |list: &str| {
        format!(
            "[[node]]\nid = \"a\"\nop = \"value\"\nforeach = \"{{{{ {list} }}}}\"\nparams = {{ value = \"{{{{ item }}}}\" }}\n"
        )
    };
    let space = Space::with(&items("[5, 6]"));
    space.run_manifest(0);
    has(&space.why("a[1]"), "param value: 6");
    space.write("m.toml", items("[5, 7]"));
    has(&space.why("a[1]"), "param value: 6 -> 7");
    space.run_manifest(0);
    let text = space.why("a[1]");
    has(&text, "param value: 7");
    has(&text, "in run 2: ran");
    assert!(space.why("a").contains("it consists of items"));
}

#[test]
fn a_result_that_is_gone_and_a_node_that_is_never_cached_say_so() {
    let space = Space::with(&[value("a", 1, ""), value("b", 1, "cache = false")].concat());
    space.run_manifest(0);
    has(&space.why("b"), "b would run: it says `cache = false`");
    let fields = fs::read(space.path(".forkyard/runs/1/fields")).unwrap();
    // Torn, it explains less, and nothing else.
    space.write(".forkyard/runs/1/fields", &fields[..fields.len() - 1]);
    space.write("m.toml", value("a", 2, ""));
    has(&space.why("a"), "a would run: it is not what ran in run 1");
    space.run_manifest(0);
    space.run(&["store", "gc", "--keep-runs", "1"]).expect(0);
    assert!(!space.path(".forkyard/runs/1").exists());
    space.write("m.toml", value("a", 1, ""));
    has(&space.why("a"), "param value: 2 -> 1");
}

#[test]
fn plain_nodes_leave_no_fields_and_a_run_that_goes_on_is_told() {
    let waits = shell("a", "touch up; while [ ! -e go ]; do sleep 0.01; done", "needs = [\"n\"]");
    let space = Space::with(&noop("n", ""));
    space.run_manifest(0);
    assert!(!space.path(".forkyard/runs/1/fields").exists());
    space.write("m.toml", [noop("n", ""), waits].concat());
    let run = space.start(&["run", "m.toml"]);
    eventually("a is up", || space.path("up").exists());
    has(&space.why("a"), "run 2 goes on, and has not settled it: it runs, or waits");
    space.write("go", "");
    run.end().expect(0);
    assert_eq!(space.why_json("a")["unsettled_in"], Value::Null);
}
