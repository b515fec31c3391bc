//! `memory_limit` of a node, and `recycle`, the bound of what workers may keep.

use super::*;

/// A run of everything, on one worker.
fn run(space: &Space, code: i32) -> Ended {
    space.run(&["run", "m.toml", "--json", "--events", "all", "--workers", "1", "--keep-going"]).expect(code)
}

/// The error of a node that took more than 100 MB: who watches it names what it held, and the kernel, where it keeps the
/// limit, what it did.
fn expect_over_limit(error: &str) {
    if error.starts_with("it took more than its memory_limit of 95.4 MiB: ") {
        return;
    }
    assert!(
        error.starts_with("it held ") && error.ends_with(", more than its memory_limit of 95.4 MiB"),
        "{error}"
    );
    let words: Vec<&str> = error.split([' ', ',']).collect();
    assert!(words[3] == "MiB" && words[2].parse::<f64>().unwrap() > 95.4, "{error}");
}

#[test]
fn a_node_over_its_limit_fails_and_says_so() {
    let limit = "memory_limit = \"100MB\"";
    let space = Space::with(&[alloc("a", 300, 60.0, limit), alloc("b", 50, 0.1, limit)].concat());
    let ended = run(&space, 1);
    assert_eq!(ended.outcomes(), "a=failed b=ran");
    expect_over_limit(&error(&ended, "a"));
    space.expect_nothing_left();
}

#[test]
fn what_went_over_its_limit_is_retried_as_other_failures_are() {
    let script = "echo x >> tries; if [ $(wc -l < tries) -ge 3 ]; then echo enough; exit; fi; \
        exec python3 -c 'import time; held = bytearray(b\"x\") * 300_000_000; time.sleep(60)'";
    let node = shell("a", script, "memory_limit = \"100MB\"\nretry = { attempts = 3 }");
    let space = Space::with(&node);
    let ended = run(&space, 0);
    assert_eq!((ended.node("a")["attempt"].as_u64(), space.result_text("a").trim()), (Some(3), "enough"));
    let space = Space::with(&node.replace("attempts = 3", "attempts = 2"));
    expect_over_limit(&error(&run(&space, 1), "a"));
    assert_eq!(space.text("tries"), "x\nx\n");
}

#[test]
fn what_a_command_starts_counts_with_it() {
    // A shell that starts another that takes the memory.
    let script = "sh -c 'python3 -c \"import time; held = bytearray(b\\\"x\\\") * 300_000_000; time.sleep(60)\"; true'; true";
    let space = Space::with(&shell("a", script, "memory_limit = \"100MB\""));
    let ended = run(&space, 1);
    expect_over_limit(&error(&ended, "a"));
    space.expect_nothing_left();
}

#[test]
fn a_function_of_python_has_a_limit_and_so_has_what_it_starts() {
    let functions = "import subprocess, sys, time\n\
        def take(mb):\n    held = bytearray(b'x') * (mb * 1_000_000)\n    time.sleep(60 if mb > 100 else 0.1)\n    return len(held)\n\
        def start(mb):\n    code = f'import time; held = bytearray(b\"x\") * ({mb} * 1_000_000); time.sleep(60)'\n    \
        subprocess.run([sys.executable, '-c', code])\n";
    let limit = "memory_limit = \"100MB\"";
    let nodes = [
        call("small", "take", &format!("args = [20]\n{limit}")),
        call("take", "take", &format!("args = [300]\n{limit}")),
        call("start", "start", &format!("args = [300]\n{limit}")),
    ];
    let space = python_space(functions, "", &nodes.concat());
    let ended = run(&space, 1);
    assert_eq!(ended.outcomes(), "small=ran start=failed take=failed");
    expect_over_limit(&error(&ended, "take"));
    expect_over_limit(&error(&ended, "start"));
    space.expect_nothing_left();
}

const LEAK: &str = "import os, time\nkept = []\n\
    def leak(i, mb, seconds):\n    kept.append(bytearray(b'x') * int(mb * 1_000_000))\n    time.sleep(seconds)\n    \
    return [i, os.getpid()]\n\
    async def leak_beside(i, mb):\n    import asyncio\n    kept.append(bytearray(b'x') * int(mb * 1_000_000))\n    \
    await asyncio.sleep(0.02)\n    return [i, os.getpid()]\n";

/// All results are right, workers were replaced, and none of them held much more than it should.
fn expect_recycled(space: &Space, ended: &Ended, count: u64, most: u64) {
    let summary = ended.summary();
    assert_eq!((summary["ran"].as_u64(), summary["failed"].as_u64()), (Some(count + 1), Some(0)));
    let list: Vec<(u64, u64)> = serde_json::from_slice(&space.result("n")).unwrap();
    assert!(list.iter().map(|(i, _)| *i).eq(0..count), "every result in its place");
    let recycled = ended.events_named("worker_recycled");
    assert!(!recycled.is_empty(), "nobody was replaced");
    for event in &recycled {
        assert!(event["private_bytes"].as_u64().unwrap() > 30_000_000, "{event}");
    }
    assert_eq!(ended.events_named("worker_lost"), [] as [Value; 0], "no crash");
    let peak = summary["peak_private_bytes"].as_u64().unwrap();
    assert!(peak < most, "{peak} of {most}");
    let finished = ended.events_named("node_finished");
    assert!(finished.iter().all(|event| event["attempt"].as_u64() <= Some(1)), "nothing was run twice");
    space.expect_nothing_left();
}

fn leaking(function: &str, count: u64, args: &str) -> Space {
    let foreach = format!("foreach = \"{{{{ range(0, {count}) }}}}\"\nargs = [\"{{{{ item }}}}\", {args}]");
    python_space(LEAK, "[run]\nrecycle = \"30MB\"", &call("n", function, &foreach))
}

#[test]
fn workers_that_keep_too_much_are_replaced() {
    let space = leaking("leak", 60, "5, 0.02");
    let ended = run(&space, 0);
    // 60 times 5 MB, and never more than a few beyond the bound.
    expect_recycled(&space, &ended, 60, 100_000_000);
}

#[test]
fn workers_of_functions_too_quick_to_be_measured_are_replaced_too() {
    let space = leaking("leak", 6000, "0.05, 0.0005");
    let ended = run(&space, 0);
    // 6000 times 50 KB.
    expect_recycled(&space, &ended, 6000, 150_000_000);
}

#[test]
fn workers_of_coroutines_are_replaced_too() {
    let space = leaking("leak_beside", 300, "1");
    let ended = run(&space, 0);
    expect_recycled(&space, &ended, 300, 200_000_000);
}
