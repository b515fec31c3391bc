//! Functions that run beside each other in one process.

use super::*;

#[test]
fn coroutines_wait_beside_each_other() {
    // Each waits for all the others: one after the other they would wait for ever.
    let functions = "import asyncio\nseen, event = set(), None\n\
        async def meet(i, n):\n    global event\n    event = event or asyncio.Event()\n    seen.add(i)\n    \
        if len(seen) == n: event.set()\n    await event.wait()\n    return [i, len(seen)]\n";
    let nodes = [call(
        "m",
        "meet",
        "foreach = \"{{ range(0, 200) }}\"\nargs = [\"{{ item }}\", 200]\ntimeout = \"60s\"",
    )];
    let space = space(functions, "concurrency = 200", &nodes);
    space.run(&[&RUN[..], &["--workers", "1"]].concat()).expect(0);
    assert_eq!(space.json("m")[199], json!([199, 200]));
    space.expect_nothing_left();
}

#[test]
fn plain_functions_beside_coroutines_may_have_loops_of_their_own() {
    let functions = "import asyncio\nasync def wait(x):\n    await asyncio.sleep(0.01)\n    return x\n\
                     def plain(x): return asyncio.run(wait(x))\ndef awaitable(x): return wait(x)\n";
    let functions_called = ["plain", "awaitable", "wait", "plain"];
    let nodes: Vec<String> =
        (0..20).map(|n| call(&format!("n{n}"), functions_called[n % 4], &format!("args = [{n}]"))).collect();
    let space = space(functions, "", &nodes);
    space.run(&[&RUN[..], &["--workers", "2"]].concat()).expect(0);
    assert_eq!((space.result_text("n0"), space.result_text("n19")), ("0".into(), "19".into()));
}

#[test]
fn a_late_coroutine_gives_up_without_harm_to_the_others() {
    let functions =
        "import asyncio, os\nasync def nap(s):\n    await asyncio.sleep(s)\n    return os.getpid()\n";
    let nodes = [
        call("late", "nap", "args = [1000]\ntimeout = \"300ms\""),
        call("a", "nap", "args = [1]"),
        call("b", "nap", "args = [1.01]"),
    ];
    let space = space(functions, "[run]\non_failure = \"continue\"", &nodes);
    let ended = space.run(&[&RUN[..], &["--workers", "1"]].concat()).expect(1);
    assert_eq!(ended.outcomes(), "a=ran b=ran late=timed_out");
    assert_eq!(error(&ended, "late"), "it ran for more than its timeout of 300 ms");
    assert_eq!(space.json("a"), space.json("b"));
    assert_eq!(ended.events_named("worker_lost"), [] as [Value; 0]);
}

#[test]
fn a_loop_that_is_blocked_is_killed_and_the_others_run_elsewhere() {
    let functions = "import asyncio, time\nasync def nap(s):\n    await asyncio.sleep(s)\n    return s\n\
                     async def block():\n    await asyncio.sleep(0.05)\n    time.sleep(1000)\n";
    let nodes = [call("block", "block", "timeout = \"200ms\""), call("a", "nap", "args = [1]")];
    let space = space(functions, "[run]\non_failure = \"continue\"", &nodes);
    let ended = space.run(&[&RUN[..], &["--workers", "1"]].concat()).expect(1);
    assert_eq!(ended.outcomes(), "a=ran block=timed_out");
    space.expect_nothing_left();
}

#[test]
fn the_loser_of_a_race_gives_up_alone() {
    let functions = "import asyncio\nasync def nap(s):\n    await asyncio.sleep(s)\n    return s\n";
    let nodes = [
        call("slow", "nap", "args = [1000]"),
        call("quick", "nap", "args = [0.2]"),
        call("beside", "nap", "args = [0.6]"),
        "[[node]]\nid = \"first\"\nrace = [\"slow\", \"quick\"]\n".into(),
    ];
    let space = space(functions, "", &nodes);
    let ended = space.run(&[&RUN[..], &["--workers", "1"]].concat()).expect(0);
    assert_eq!(ended.outcomes(), "beside=ran first=ran quick=ran slow=cancelled");
    assert_eq!(ended.events_named("worker_lost"), [] as [Value; 0]);
}

#[test]
fn of_coroutines_whose_process_died_only_the_guilty_fails() {
    let functions = "import asyncio, os\nasync def nap(s):\n    await asyncio.sleep(s)\n    return s\n\
                     async def die():\n    await asyncio.sleep(0.1)\n    os._exit(9)\n";
    let mut nodes = vec![call("die", "die", "")];
    nodes.extend((0..10).map(|n| call(&format!("n{n}"), "nap", &format!("args = [0.3{n}]"))));
    let space = space(functions, "[run]\non_failure = \"continue\"\nmax_crashes = 2", &nodes);
    let ended = space.run(&[&RUN[..], &["--workers", "1"]].concat()).expect(1);
    assert_eq!(
        error(&ended, "die"),
        "its Python process exited with status 9; it has killed 2 Python processes"
    );
    assert_eq!(ended.summary()["ran"], 10);
}

#[test]
fn one_coroutine_that_blocks_the_loop_is_told_from_those_that_it_keeps() {
    let functions = "import asyncio, time\nasync def f(i):\n    if i == 2: time.sleep(1000)\n    await asyncio.sleep(0.05)\n    return i\n";
    let nodes =
        [call("c", "f", "foreach = \"{{ range(5) }}\"\nargs = [\"{{ item }}\"]\ntimeout = \"300ms\"")];
    let space = space(functions, "", &nodes);
    let ended = space.run(&[&RUN[..], &["--workers", "1", "--keep-going"]].concat()).expect(1);
    let outcomes = ended.outcomes();
    assert!(outcomes.contains("c[0]=ran c[1]=ran c[2]=timed_out c[3]=ran c[4]=ran"), "{outcomes}");
}

#[test]
fn what_a_late_coroutine_makes_of_it_is_still_late() {
    let functions = "import asyncio\nasync def f():\n    try:\n        await asyncio.sleep(1000)\n    except BaseException:\n        raise RuntimeError('other')\n";
    let space = space(functions, "", &[call("a", "f", "timeout = \"200ms\"")]);
    assert_eq!(space.run_manifest(1).node("a")["outcome"], "timed_out");
}
