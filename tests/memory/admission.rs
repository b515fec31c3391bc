//! Nodes that say what they take run when there is room for them.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use super::*;

const TRACED: &str = "--trace trace.json";

/// For workers there is what is left of 80 % of the memory without the coordinator: some 750 MB of 1 GiB, of which the
/// test's own shell may have a little.
const LIMIT: u64 = 1024 * MIB;

#[test]
fn never_more_at_once_than_fit() {
    let Some(group) = Group::new(LIMIT) else { return };
    let nodes: String = (0..12).map(|n| waiting_a_little(&format!("n{n}"), "memory = \"300MB\"")).collect();
    let space = Space::with(&nodes);
    let ended = group.run(&space, &format!("--workers 8 {TRACED}")).expect(0);
    assert_eq!(ended.summary()["ran"], 12);
    assert_eq!(Spans::of(&space).at_once(), 2);
    // Without a word about memory they run all at once.
    let space = Space::with(&nodes.replace("memory = \"300MB\"", ""));
    group.run(&space, &format!("--workers 8 {TRACED}")).expect(0);
    assert!(Spans::of(&space).at_once() > 2);
}

/// A node that takes some time and no memory.
fn waiting_a_little(id: &str, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"sleep\"\nparams = {{ seconds = 0.3 }}\n{more}\n")
}

#[test]
fn a_big_node_among_many_small_ones_gets_its_turn() {
    let Some(group) = Group::new(LIMIT) else { return };
    let small: String = (0..120).map(|n| waiting_a_little(&format!("n{n}"), "memory = \"200MB\"")).collect();
    let nodes = [
        waiting_a_little("first", "memory = \"200MB\"\npriority = 2"),
        waiting_a_little("big", "memory = \"600MB\"\npriority = 1"),
        small,
    ];
    let space = Space::with(&nodes.concat());
    let ended = group.run(&space, &format!("--workers 4 {TRACED}")).expect(0);
    assert_eq!(ended.summary()["ran"], 122);
    let spans = Spans::of(&space);
    let (start, end) = spans.of_node("big");
    assert!(
        spans.0.iter().any(|(name, began, _)| name.starts_with('n') && *began < start),
        "small ones pass it"
    );
    assert!(spans.0.iter().filter(|(_, began, _)| *began > end).count() > 50, "but not for ever");
    assert_eq!(beside(&spans, start, end), 0, "not one of these fits beside it");
}

/// How many others ran while the big one did.
fn beside(spans: &Spans, start: f64, end: f64) -> usize {
    spans.0.iter().filter(|(name, began, ended)| name != "big" && *began < end && *ended > start).count()
}

#[test]
fn what_is_larger_than_the_share_and_smaller_than_all_runs_alone() {
    let Some(group) = Group::new(LIMIT) else { return };
    let small: String = (0..8).map(|n| waiting_a_little(&format!("n{n}"), "memory = \"50MB\"")).collect();
    let space = Space::with(&[waiting_a_little("big", "memory = \"900MB\""), small].concat());
    group.run(&space, &format!("--workers 4 {TRACED}")).expect(0);
    let spans = Spans::of(&space);
    let (start, end) = spans.of_node("big");
    assert_eq!(beside(&spans, start, end), 0);
}

#[test]
fn what_is_larger_than_all_is_refused_by_name_with_the_arithmetic() {
    let Some(group) = Group::new(LIMIT) else { return };
    let space =
        Space::with(&[alloc("small", 1, 0.0, ""), alloc("huge", 1, 0.0, "memory = \"2GB\"")].concat());
    let ended = group.run(&space, "").expect(5).says("node huge takes 1.9 GiB by its `memory`");
    for line in [
        "available (cgroup /",
        "of that, 80%, for this run",
        "artifacts, once for all workers",
        "coordinator",
    ] {
        assert!(ended.stderr.contains(line), "{line} in {}", ended.stderr);
    }
    assert!(ended.stdout.is_empty(), "nothing ran");
    // Who does not ask for it may run the others.
    assert_eq!(group.run(&space, "--only small").expect(0).outcomes(), "small=ran");
}

#[test]
fn artifacts_that_do_not_fit_are_refused_with_the_arithmetic() {
    let Some(group) = Group::new(256 * MIB) else { return };
    let space = Space::with("[artifacts.m]\npath = \"m.bin\"\n[[node]]\nid = \"a\"\nop = \"noop\"\n");
    // It takes no room on the disk.
    fs::File::create(space.path("m.bin")).unwrap().set_len(300 * MIB).unwrap();
    let ended = group.run(&space, "").expect(5).says("not even one worker fits");
    let lines: Vec<&str> = ended.stderr.lines().map(str::trim).collect();
    assert!(lines.contains(&"- 300.0 MiB  artifacts, once for all workers"), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("left for workers, and one takes")), "{lines:?}");
    assert!(ended.stdout.is_empty(), "nothing ran");
}

#[test]
fn ctrl_c_ends_a_run_in_which_nodes_wait_for_room() {
    let Some(group) = Group::new(LIMIT) else { return };
    let more = "memory = \"500MB\"";
    let space = Space::with(&[waiting("a", "priority = 1\nmemory = \"500MB\""), waiting("b", more)].concat());
    let mut run = group.start(&space, "--workers 4");
    eventually("a is up", || space.path("a up").exists());
    run.signal(Signal::SIGINT);
    run.says("interrupted");
    space.write("a go", "");
    let ended = run.end().expect(130);
    assert_eq!(ended.outcomes(), "a=ran b=cancelled");
    space.expect_nothing_left();
}

#[test]
fn a_failure_ends_a_run_in_which_nodes_wait_for_room() {
    let Some(group) = Group::new(LIMIT) else { return };
    let script = "touch 'a up'; while [ ! -e 'a go' ]; do sleep 0.01; done; exit 3";
    let nodes = [
        shell("a", script, "priority = 1\nmemory = \"500MB\""),
        waiting("b", "memory = \"500MB\""),
        waiting("c", "needs = [\"a\"]\nmemory = \"500MB\""),
    ];
    let space = Space::with(&nodes.concat());
    let run = group.start(&space, "--workers 4");
    eventually("a is up", || space.path("a up").exists());
    space.write("a go", "");
    let ended = run.end().expect(1);
    assert_eq!(ended.outcomes(), "a=failed b=cancelled c=blocked");
    space.expect_nothing_left();
}

#[test]
fn a_member_of_a_race_that_waits_for_room_loses_it() {
    let Some(group) = Group::new(LIMIT) else { return };
    let nodes = [
        waiting("a", "priority = 1\nmemory = \"500MB\""),
        waiting("b", "memory = \"500MB\""),
        "[[node]]\nid = \"r\"\nrace = [\"a\", \"b\"]\n".into(),
        waiting("after", "needs = [\"r\"]\nmemory = \"500MB\""),
    ];
    let space = Space::with(&nodes.concat());
    let run = group.start(&space, "--workers 4");
    eventually("a is up", || space.path("a up").exists());
    assert!(!space.path("b up").exists());
    space.write("after go", "");
    space.write("a go", "");
    let ended = run.end().expect(0);
    assert_eq!(ended.outcomes(), "a=ran after=ran b=cancelled r=ran");
    space.expect_nothing_left();
}

#[test]
fn a_pause_holds_what_waits_for_room_and_a_resume_lets_it_in() {
    let Some(group) = Group::new(LIMIT) else { return };
    let space = Space::with(
        &[waiting("a", "priority = 1\nmemory = \"500MB\""), waiting("b", "memory = \"500MB\"")].concat(),
    );
    let mut run = group.start(&space, "--workers 4");
    eventually("a is up", || space.path("a up").exists());
    space.run(&["pause"]).expect(0);
    run.event("run_paused", |_| true);
    space.write("a go", "");
    run.event("node_finished", |event| event["node"] == "a");
    assert!(!space.path("b up").exists());
    space.write("b go", "");
    space.run(&["resume"]).expect(0);
    assert_eq!(run.end().expect(0).outcomes(), "a=ran b=ran");
}

#[test]
fn coroutines_wait_for_room_too() {
    let Some(group) = Group::new(LIMIT) else { return };
    let functions = "import asyncio\nnow = most = 0\n\
        async def nap(i):\n    global now, most\n    now += 1\n    most = max(most, now)\n    \
        await asyncio.sleep(0.2)\n    now -= 1\n    return most\n";
    let nodes: String = (0..10)
        .map(|n| call(&format!("n{n}"), "nap", &format!("args = [{n}]\nmemory = \"200MB\"")))
        .collect();
    let space = python_space(functions, "", &nodes);
    let ended = group.run(&space, &format!("--workers 1 {TRACED}")).expect(0);
    assert_eq!(ended.summary()["ran"], 10);
    let most = (0..10).map(|n| space.result_text(&format!("n{n}")).trim().parse().unwrap());
    let most: BTreeSet<usize> = most.collect();
    assert!(most.iter().all(|most| *most <= 3) && most.contains(&3), "{most:?}");
}
