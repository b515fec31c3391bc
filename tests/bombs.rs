//! What never ends, or is far too much, meets a limit, and the message says which.

use crate::util::{Space, python};

/// A manifest of a command, with the smallest limit of a result.
fn command(run: &str, more: &str) -> Space {
    Space::with(&format!(
        "[run]\nmax_result = \"1MiB\"\n[[node]]\nid = \"bomb\"\nop = \"exec\"\nshell = true\nrun = '{run}'\n{more}\n"
    ))
}

fn expect_too_long(space: &Space) {
    space.run_manifest(1).says("bomb failed: ").says("longer than 1 MiB").says("max_result in [run]");
    let left: Vec<_> = std::fs::read_dir(space.path(".forkyard/tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_command_that_prints_without_end_is_ended() {
    expect_too_long(&command("yes", ""));
    expect_too_long(&command("yes", "output = \"json\""));
    // What can be packed counts as what it is.
    expect_too_long(&command("cat /dev/zero", "output = \"bytes\""));
}

#[test]
fn a_command_that_fills_its_output_file_without_end_is_ended() {
    expect_too_long(&command("exec yes > $FORKYARD_SCRATCH/out", "output = \"out\""));
    // Through a shell that lives on.
    expect_too_long(&command("yes > $FORKYARD_SCRATCH/out; exit $?", "output = \"out\""));
    // One that is as long as allowed is taken; what another command writes elsewhere is its own.
    let fits = command("head -c 1048576 /dev/zero > $FORKYARD_SCRATCH/out", "output = \"out\"");
    fits.run_manifest(0);
    assert_eq!(fits.result("bomb").len(), 1 << 20);
    command("head -c 2000000 /dev/zero > elsewhere", "").run_manifest(0);
}

#[test]
fn a_function_that_returns_too_much_has_failed() {
    let space = Space::with(&format!(
        "[run]\nmax_result = \"1MiB\"\n[python]\ninterpreter = \"{}\"\n[[node]]\nid = \"bomb\"\nop = \"python\"\ncall = \"bombs:large\"\n",
        python().display()
    ));
    space.write("bombs.py", "def large():\n    return b'x' * 3_000_000\n");
    expect_too_long(&space);
}

#[test]
fn a_log_without_end_keeps_its_ends_and_meets_the_timeout() {
    let space = command("yes first-and-last >&2", "timeout = \"1s\"");
    space.run_manifest(1).says("timeout of 1.0 s");
    let space = command("yes line | head -c 100000000 >&2; echo the-end >&2; exit 3", "");
    space.run_manifest(1).says("the-end");
    let log = space.run(&["logs", "bomb"]).expect(0).stdout;
    assert!(log.len() < 40_000 && String::from_utf8_lossy(&log).contains("the-end"), "{} bytes", log.len());
}

#[test]
fn nodes_without_end_are_not_made() {
    let print = |count: u32| {
        format!(
            "awk 'BEGIN {{ printf \"{{\\\"$nodes\\\":[\"; for (n = 0; n < {count}; n++) printf \"%s{{\\\"id\\\":\\\"x%d\\\",\\\"op\\\":\\\"noop\\\"}}\", (n ? \",\" : \"\"), n; print \"]}}\" }}'"
        )
    };
    let run = |count: u32, max: &str| {
        let node = serde_json::json!({
            "id": "bomb", "op": "exec", "shell": true, "run": print(count), "output": "json"
        });
        let space = Space::new();
        space.write("m.jsonl", format!("{{\"forkyard\": 1, \"run\": {{{max}}}}}\n{node}\n"));
        space.run(&["run", "m.jsonl"]).expect(1)
    };
    run(200, "\"max_generated\": 100").says("max_generated = 100");
    // Ten million would be a result that is not even read.
    run(400_000, "").says("longer than 8.0 MiB");
}

#[test]
fn a_manifest_without_end_is_refused() {
    let refused = |name: &str, text: String, why: &str| {
        let space = Space::new();
        space.write(name, text);
        let ended = space.run(&["run", name]).expect(2).says(why);
        assert!(ended.stderr.len() < 4000, "{name}: a message of {} bytes", ended.stderr.len());
    };
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    refused(
        "m.toml",
        format!("[[node]]\nid = \"a\"\nop = \"value\"\nparams = {{ value = {} }}\n", deep("[", "]")),
        "m.toml:4",
    );
    refused(
        "m.jsonl",
        format!("{{\"id\": \"a\", \"op\": \"value\", \"params\": {{\"value\": {}}}}}\n", deep("[", "]")),
        "recursion limit",
    );
    let nots = format!("{{{{ {}1 }}}}", "not ".repeat(100_000));
    for (expression, why) in [
        ("{{ range(10 ** 18) }}", "4,294,967,295 numbers"),
        ("{{ range(99999999) | list }}", "1,000,000 numbers"),
        (
            "{% for i in range(1000000) %}{% for j in range(1000000) %}{% endfor %}{% endfor %}",
            "10000000 steps",
        ),
        ("{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('x') }}", "no tag `macro`"),
        (&nots, "inside each other"),
    ] {
        let node = serde_json::json!({"id": "a", "op": "value", "params": {"value": expression}});
        refused("m.jsonl", format!("{node}\n"), why);
    }
}
