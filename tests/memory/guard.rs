//! Nodes that take more than there is: the run goes on, and says what it does.

use super::*;

const LIMIT: u64 = 1024 * MIB;

/// Pressure events: what was done, in order.
fn actions(ended: &Ended) -> Vec<String> {
    let events = ended.events_named("pressure");
    for event in &events {
        let limit = event["limit"].as_str().unwrap();
        assert!(limit.contains("/tests-of-forkyard-"), "{event}");
        assert_eq!(event["limit_bytes"], LIMIT, "{event}");
        assert!(event["available_bytes"].as_u64().unwrap() < LIMIT, "{event}");
        assert!(event["private_bytes"].is_u64() && !event["reason"].as_str().unwrap().is_empty(), "{event}");
        assert_eq!(event["node"].is_string(), event["action"] == "kill", "who was killed is named: {event}");
    }
    events.iter().map(|event| event["action"].as_str().unwrap().into()).collect()
}

#[test]
fn nodes_that_say_nothing_fit_into_what_there_is() {
    let Some(group) = Group::new(LIMIT) else { return };
    let space = Space::with(&allocs(40, 100, 0.2, "cache = false"));
    let ended = group.run(&space, "--workers auto").expect(0);
    assert_eq!(ended.summary()["ran"], 40);
    assert_eq!(group.oom_kills(), 0, "{:?}", ended.events_named("pressure"));
    // What one takes was measured, and the next run knows it from the start.
    let again = group.run(&space, "--workers auto").expect(0);
    assert_eq!((again.summary()["ran"].as_u64(), group.oom_kills()), (Some(40), 0));
    assert!(!actions(&again).contains(&"kill".into()), "{:?}", again.events_named("pressure"));
    space.expect_nothing_left();
}

#[test]
fn nodes_that_lie_all_finish_all_the_same() {
    let Some(group) = Group::new(LIMIT) else { return };
    let space = Space::with(&allocs(12, 300, 0.3, "memory = \"50MB\""));
    let ended = group.run(&space, "--workers 16").expect(0).says("memory: ");
    assert_eq!(ended.summary()["ran"], 12);
    let actions = actions(&ended);
    for action in ["stop_admitting", "kill", "resume"] {
        assert!(actions.contains(&action.into()), "{action} in {actions:?}");
    }
    let stopped = actions.iter().position(|action| action == "stop_admitting");
    assert!(stopped < actions.iter().position(|action| action == "resume"), "{actions:?}");
    let killed = ended.events_named("pressure").into_iter().find(|event| event["action"] == "kill").unwrap();
    assert!(killed["reason"].as_str().unwrap().starts_with("killed, for it held "), "{killed}");
    assert!(ended.node(killed["node"].as_str().unwrap())["attempt"].as_u64() > Some(1));
    space.expect_nothing_left();
}

#[test]
fn a_node_that_does_not_fit_even_alone_fails_with_what_was_seen() {
    let Some(group) = Group::new(LIMIT) else { return };
    let space = Space::with(&[alloc("huge", 1500, 0.0, ""), alloc("small", 10, 0.0, "")].concat());
    let ended = group.run(&space, "--workers 2 --keep-going").expect(1);
    assert_eq!(ended.outcomes(), "huge=failed small=ran");
    let error = error(&ended, "huge");
    assert!(error.starts_with("it does not fit in memory, even alone: "), "{error}");
    let seen = error.contains(" of the 1.0 GiB of cgroup /") && error.contains("its worker held ");
    assert!(seen || error.contains("the kernel killed its worker for want of memory"), "{error}");
    space.expect_nothing_left();
}

#[test]
fn a_coroutine_that_does_not_fit_even_alone_fails_too() {
    let Some(group) = Group::new(LIMIT) else { return };
    // In portions, so that it can be seen coming.
    let functions = "import asyncio\nasync def grow(mb):\n    held = []\n    for _ in range(mb // 20):\n        \
        held.append(bytearray(b'x') * 20_000_000)\n        await asyncio.sleep(0.01)\n    return len(held)\n";
    let nodes = [call("huge", "grow", "args = [1500]"), call("small", "grow", "args = [40]")];
    let space = python_space(functions, "", &nodes.concat());
    let ended = group.run(&space, "--workers 2 --keep-going").expect(1);
    assert_eq!(ended.outcomes(), "huge=failed small=ran");
    assert!(
        error(&ended, "huge").starts_with("it does not fit in memory, even alone: "),
        "{}",
        error(&ended, "huge")
    );
    space.expect_nothing_left();
}

#[test]
fn a_command_that_does_not_fit_even_alone_fails_whoever_kills_it() {
    let Some(group) = Group::new(256 * MIB) else { return };
    // In one go: it may be faster than who watches.
    let script = "exec python3 -c 'held = bytearray(2_000_000_000)'";
    let space = Space::with(&[shell("huge", script, ""), shell("fails", "exit 3", "")].concat());
    let ended = group.run(&space, "--workers 2 --keep-going").expect(1);
    assert_eq!(ended.outcomes(), "fails=failed huge=failed");
    assert!(
        error(&ended, "huge").starts_with("it does not fit in memory, even alone: "),
        "{}",
        error(&ended, "huge")
    );
    space.expect_nothing_left();
}

#[test]
fn commands_that_take_too_much_together_all_finish() {
    let Some(group) = Group::new(LIMIT) else { return };
    let script = "exec python3 -c 'import time; held = bytearray(b\"x\") * 300_000_000; time.sleep(0.3); print(len(held))'";
    let nodes: String = (0..8).map(|n| shell(&format!("n{n}"), script, "cache = false")).collect();
    let space = Space::with(&nodes);
    let ended = group.run(&space, "--workers 8").expect(0);
    assert_eq!(ended.summary()["ran"], 8);
    space.expect_nothing_left();
}
