//! Python nodes: what functions get and return, what becomes of those that misbehave, and when they run again.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::util::{Ended, RUN, Running, Space, eventually, lives, matrix, python, send};

/// A node that calls a function of `f.py`.
fn call(id: &str, function: &str, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"python\"\ncall = \"f.py:{function}\"\n{more}\n")
}

/// A space with these functions and nodes, and the interpreter that has numpy.
fn space(functions: &str, more: &str, nodes: &[String]) -> Space {
    space_with(functions, &format!("[python]\ninterpreter = \"{}\"\n{more}", python().display()), nodes)
}

fn space_with(functions: &str, header: &str, nodes: &[String]) -> Space {
    let space = Space::with(&format!("{header}\n{}", nodes.concat()));
    space.write("f.py", functions);
    space
}

fn error(ended: &Ended, node: &str) -> String {
    ended.node(node)["error"].as_str().unwrap_or_default().into()
}

impl Space {
    fn json(&self, node: &str) -> Value {
        serde_json::from_slice(&self.result(node)).unwrap()
    }
}

const NUMPY: &str = "import numpy as np\nimport forkyard\n";

#[test]
fn values_come_back_as_they_went() {
    let functions = NUMPY.to_owned()
        + r#"
def give(what):
    return {"json": {"b": [1, 2.5, None, True], "a": "ü\n"}, "bytes": b"\x00\xff", "text": "x",
            "small": np.arange(6, dtype="<i2").reshape(1, 2, 3), "large": np.arange(50_000.0),
            "none": None, "scalar": np.float32(0.5)}[what]
def look(value):
    if isinstance(value, np.ndarray):
        return ["array", list(value.shape), str(value.dtype), float(value.sum()), value.flags.writeable]
    return [type(value).__name__, repr(value)]
def look_at_inputs():
    return [look(forkyard.inputs["it"]), sorted(forkyard.inputs), look(forkyard.artifact("large"))]
"#;
    let kinds = ["json", "bytes", "text", "small", "large", "none", "scalar"];
    let mut nodes: Vec<String> =
        kinds.map(|kind| call(kind, "give", &format!("params = {{ what = \"{kind}\" }}"))).to_vec();
    for kind in kinds.into_iter().chain(["said"]) {
        let params = format!("params = {{ value = \"{{{{ nodes.{kind}.result }}}}\" }}");
        nodes.push(call(&format!("look-{kind}"), "look", &params));
    }
    nodes.push("[[node]]\nid = \"said\"\nop = \"exec\"\nrun = [\"echo\", \"hello\"]\n".into());
    let more = "inputs = { it = \"{{ nodes.large.result }}\" }\nartifact = \"{{ nodes.large.result }}\"";
    nodes.push(call("inputs", "look_at_inputs", more));
    let space = space(&functions, "", &nodes);
    space.run_manifest(0);
    assert_eq!(space.result_text("json"), r#"{"a":"ü\n","b":[1,2.5,null,true]}"#);
    assert_eq!(space.result("bytes"), b"\x00\xff");
    assert_eq!(space.result("small")[..6], *b"\x93NUMPY");
    let looks = [
        ("json", json!(["dict", "{'a': 'ü\\n', 'b': [1, 2.5, None, True]}"])),
        ("bytes", json!(["bytes", "b'\\x00\\xff'"])),
        ("text", json!(["str", "'x'"])),
        ("said", json!(["str", "'hello\\n'"])),
        ("none", json!(["NoneType", "None"])),
        ("scalar", json!(["float", "0.5"])),
        ("small", json!(["array", [1, 2, 3], "int16", 15.0, false])),
        ("large", json!(["array", [50_000], "float64", 1_249_975_000.0, false])),
    ];
    for (kind, look) in looks {
        assert_eq!(space.json(&format!("look-{kind}")), look, "{kind}");
    }
    let large = json!(["array", [50_000], "float64", 1_249_975_000.0, false]);
    assert_eq!(space.json("inputs"), json!([large, ["it"], large]));
    let rows = space.run(&["results", "export", "--format", "jsonl", "-"]).expect(0).events();
    let small = rows.iter().find(|row| row["node"] == "small").unwrap();
    assert_eq!((small["kind"].as_str(), small["value"]["npy"].is_string()), (Some("npy"), true));
}

#[test]
fn arrays_of_items_are_gathered_one_by_one() {
    let functions = NUMPY.to_owned()
        + "def make(n):\n    return np.full(n, n, dtype='i4')\n\
           def gather(all):\n    other = forkyard.inputs['all']\n    return [[int(a.sum()) for a in all], [a.flags.writeable for a in other]]\n";
    let nodes = [
        call("make", "make", "foreach = [2, 20000, 3]\nargs = [\"{{ item }}\"]"),
        call(
            "gather",
            "gather",
            "params = { all = \"{{ nodes.make.result }}\" }\ninputs = { all = \"{{ nodes.make.result }}\" }",
        ),
    ];
    let space = space(&functions, "", &nodes);
    space.run_manifest(0);
    assert_eq!(space.json("gather"), json!([[4, 400_000_000, 9], [false, false, false]]));
    assert_eq!(space.run_manifest(0).outcomes().matches("cached").count(), 5);
}

#[test]
fn what_is_no_value_fails_with_what_to_do() {
    let functions = NUMPY.to_owned()
        + "def give(what):\n    return {'set': {1}, 'nan': float('nan'), 'object': np.array([{}]), 'inside': [np.zeros(2)]}[what]\n";
    let functions = functions
        + "import numpy.ma\ndef masked(): return np.ma.array([1, 2], mask=[True, False])\n\
                                  def half(): forkyard.state['k'] = '\\ud800'\n";
    let kinds = ["set", "nan", "object", "inside"];
    let nodes = kinds.map(|kind| call(kind, "give", &format!("params = {{ what = \"{kind}\" }}")));
    let nodes = [&nodes[..], &[call("masked", "masked", ""), call("half", "half", "")]].concat();
    let ended = space(&functions, "[run]\non_failure = \"continue\"", &nodes).run_manifest(1);
    let says = [
        ("masked", "TypeError: a masked array has no .npy file"),
        ("half", "UnicodeEncodeError: 'utf-8' codec can't encode character '\\ud800'"),
        ("set", "TypeError: set is no value of JSON"),
        ("nan", "ValueError: Out of range float values are not JSON compliant"),
        ("object", "TypeError: an array of Python objects cannot be stored"),
        ("inside", "TypeError: an array inside another value"),
    ];
    for (node, text) in says {
        let error = error(&ended, node);
        assert!(error.starts_with(text), "{node}: {error}");
    }
}

const ARTIFACTS: &str =
    "[artifacts.m]\npath = \"m.npy\"\n[artifacts.r]\npath = \"r.jsonl\"\n[artifacts.raw]\npath = \"raw\"\n";

fn with_artifacts(space: Space) -> Space {
    space.write("m.npy", matrix(&[&[1.0, 2.0], &[3.0, 4.5]]));
    space.write("r.jsonl", "{\"id\": \"a\", \"n\": 1}\n{\"id\": 7, \"n\": 2}\n");
    space.write("raw", "some bytes");
    space
}

const SHOW: &str = r#"
def show():
    m, r = forkyard.artifact("m"), forkyard.artifact("r")
    try:
        m[0, 0] = 9
        written = True
    except (TypeError, ValueError):
        written = False
    records = [len(r), r[-1], r["a"], r.get("7"), r.get("none"), [one["n"] for one in r], "a" in r, "b" in r]
    return [type(m).__name__, list(m.shape), m[1, 1] if type(m) is memoryview else float(m[1, 1]), written, records,
            bytes(forkyard.artifact("raw")).decode()]
"#;

#[test]
fn artifacts_are_views_that_nobody_can_write() {
    for numpy in [true, false] {
        // A module that is None cannot be imported.
        let start = if numpy { "" } else { "import sys\nsys.modules['numpy'] = None\n" };
        let functions = format!("{start}import forkyard\n{SHOW}");
        let nodes = [call("show", "show", "artifacts = [\"m\", \"r\", \"raw\"]")];
        let space = with_artifacts(space(&functions, ARTIFACTS, &nodes));
        space.run_manifest(0);
        let records =
            json!([2, {"id": 7, "n": 2}, {"id": "a", "n": 1}, {"id": 7, "n": 2}, null, [1, 2], true, false]);
        let name = if numpy { "ndarray" } else { "memoryview" };
        assert_eq!(space.json("show"), json!([name, [2, 2], 4.5, false, records, "some bytes"]));
    }
}

#[test]
fn what_a_node_does_not_declare_fails_it_by_name() {
    let functions = "import forkyard\ndef peek(): return len(forkyard.artifact('raw'))\n\
                     def state(): return forkyard.state['k']\ndef inputs(): return forkyard.inputs['x']\n";
    let nodes =
        [call("peek", "peek", "artifact = \"m\""), call("state", "state", ""), call("inputs", "inputs", "")];
    let header = format!("{ARTIFACTS}[run]\non_failure = \"continue\"");
    let ended = with_artifacts(space(functions, &header, &nodes)).run_manifest(1);
    assert!(error(&ended, "peek").starts_with("the node does not name artifact 'raw' (it names m)"));
    assert!(error(&ended, "state").contains("reads the state's `k` and does not say so"));
    assert!(error(&ended, "inputs").contains("the node has no input 'x'"));
}

#[test]
fn the_state_goes_from_function_to_function() {
    let functions = "import forkyard\nstate = forkyard.state\n\
        def set_some():\n    state['a'] = {'x': 1}\n    state['b'] = 2\n    state['c'] = 3\n    return state['a']\n\
        def change():\n    state['b'] += 1\n    del state['c']\n    return ['c' in state, sorted(state.keys())]\n\
        def look():\n    return [dict(state.items()), state.get('c', 'gone')]\n";
    let nodes = [
        call("set", "set_some", "reads = [\"a\"]"),
        call("change", "change", "needs = [\"set\"]\nreads = \"state\""),
        call("look", "look", "needs = [\"change\"]\nreads = \"state\""),
    ];
    let space = space(functions, "", &nodes);
    space.run_manifest(0);
    assert_eq!(space.json("set"), json!({"x": 1}));
    assert_eq!(space.json("change"), json!([false, ["a", "b"]]));
    assert_eq!(space.json("look"), json!([{"a": {"x": 1}, "b": 3}, "gone"]));
}

#[test]
fn items_are_there_without_being_asked_for_and_are_in_the_key() {
    let functions = "import forkyard, os\ndef double(): return forkyard.item * 2\ndef sample(): return os.urandom(8).hex()\n";
    let nodes = [
        call("d", "double", "foreach = [1, 2, 3]"),
        call("e", "double", "each = \"d\""),
        call("s", "sample", "foreach = [1, 1, 1]\nsalt = \"{{ index }}\""),
        call("t", "sample", "foreach = [1, 1, 1]"),
    ];
    let space = space(functions, "", &nodes);
    space.run_manifest(0);
    assert_eq!(space.json("d"), json!([2, 4, 6]));
    assert_eq!(space.json("e"), json!([4, 8, 12]));
    let different = |node: &str| {
        let samples = space.json(node);
        samples
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one.as_str().unwrap().to_string())
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    assert_eq!((different("s"), different("t")), (3, 1));
}

#[test]
fn an_exception_names_its_type_and_the_users_own_frames() {
    let functions = "def inner(x):\n    raise ValueError(f'no {x}')\ndef outer(x):\n    try:\n        inner(x)\n    except ValueError as e:\n        raise RuntimeError('outer') from e\n";
    let space = space(functions, "", &[call("a", "outer", "args = [7]")]);
    let error = error(&space.run_manifest(1), "a");
    let file = fs::canonicalize(space.path("f.py")).unwrap();
    let file = file.display();
    assert_eq!(
        error,
        format!(
            "RuntimeError: outer\n  {file}:7 in outer: raise RuntimeError('outer') from e\n\
             caused by ValueError: no 7\n  {file}:5 in outer: inner(x)\n  {file}:2 in inner: raise ValueError(f'no {{x}}')"
        )
    );
}

#[test]
fn whatever_is_printed_is_log_and_no_protocol() {
    let functions = r#"
import os, subprocess, sys
def speak():
    print("one")
    sys.stderr.write("two\n")
    os.write(1, b"\x00\x01\x02\xff" * 1000 + b"three\n")
    subprocess.run(["echo", "four"])
    return 5
def shout():
    for _ in range(3000):
        print("x" * 1000)
        os.write(2, b"y" * 1000)
    print("the end")
    return 6
"#;
    let space = space(functions, "", &[call("speak", "speak", ""), call("shout", "shout", "")]);
    space.run_manifest(0);
    assert_eq!((space.result_text("speak"), space.result_text("shout")), ("5".into(), "6".into()));
    let log = space.run(&["logs", "speak"]).expect(0).stdout;
    let log = String::from_utf8_lossy(&log).into_owned();
    for said in ["one\ntwo\n", "three\n", "four\n"] {
        assert!(log.contains(said), "{said} is not in {log}");
    }
    let log = space.run(&["logs", "shout"]).expect(0).stdout;
    assert!(
        log.len() <= 33 << 10 && String::from_utf8_lossy(&log).contains("the end"),
        "{} bytes",
        log.len()
    );
}

#[test]
fn functions_that_leave_fail_alone() {
    let functions = r#"
import ctypes, os, sys
def leave(): sys.exit(3)
def quit(): os._exit(4)
def fault(): ctypes.string_at(0)
def fine(x): return x
"#;
    let mut nodes = vec![call("leave", "leave", ""), call("quit", "quit", ""), call("fault", "fault", "")];
    nodes.push(call("fine", "fine", "foreach = \"{{ range(0, 500) }}\"\nargs = [\"{{ item }}\"]"));
    let space = space(functions, "[run]\non_failure = \"continue\"", &nodes);
    let ended = space.run(&[&RUN[..], &["--workers", "2"]].concat()).expect(1);
    assert_eq!(error(&ended, "leave").lines().next(), Some("SystemExit: 3 (the function called sys.exit)"));
    let died = "its Python process exited with status 4; it has killed 3 Python processes";
    assert_eq!(error(&ended, "quit"), died);
    let died = "its Python process was killed by SIGSEGV; it has killed 3 Python processes";
    assert_eq!(error(&ended, "fault"), died);
    assert_eq!(space.json("fine").as_array().unwrap().len(), 500);
    // Where it was when it died.
    let log = String::from_utf8(space.run(&["logs", "fault"]).expect(0).stdout).unwrap();
    assert!(log.contains("Segmentation fault") && log.contains("in fault"), "{log}");
    space.expect_nothing_left();
}

#[test]
fn a_function_that_hangs_is_killed_with_all_that_it_started() {
    let functions = r#"
import subprocess, time
def hang():
    subprocess.Popen(["setsid", "sleep", "1000"])
    subprocess.Popen("(setsid sleep 1000 &)", shell=True)
    open("up", "w").close()
    time.sleep(1000)
"#;
    let space = space(functions, "", &[call("a", "hang", "timeout = \"1s\"")]);
    let ended = space.run_manifest(1);
    assert_eq!(ended.node("a")["outcome"], "timed_out");
    assert!(space.path("up").exists());
    space.expect_nothing_left();
}

#[test]
fn what_a_function_leaves_running_ends_with_it() {
    let functions = r#"
import subprocess, os
def start():
    one = subprocess.Popen(["sleep", "1000"])
    two = subprocess.run("setsid sleep 1000 > /dev/null 2>&1 & echo $!", shell=True, stdout=subprocess.PIPE)
    return [one.pid, int(two.stdout)]
def look(pids):
    return [os.path.exists(f"/proc/{pid}") for pid in pids]
"#;
    let params = "params = { pids = \"{{ nodes.start.result }}\" }";
    let space = space(functions, "", &[call("start", "start", ""), call("look", "look", params)]);
    space.run_manifest(0);
    assert_eq!(space.json("look"), json!([false, false]));
}

#[test]
fn a_function_that_forks_neither_speaks_twice_nor_hides_its_end() {
    let functions = r#"
import os, time
def twice():
    return [os.fork() > 0]
def leave_a_copy_and_die():
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(5)
"#;
    let nodes = [call("twice", "twice", ""), call("die", "leave_a_copy_and_die", "needs = [\"twice\"]")];
    let space = space(functions, "[run]\non_failure = \"continue\"", &nodes);
    let ended = space.run_manifest(1);
    assert_eq!(space.json("twice"), json!([true]));
    assert!(error(&ended, "die").starts_with("its Python process exited with status 5"));
    space.expect_nothing_left();
}

#[test]
fn a_large_result_goes_through() {
    let functions = "def large(n): return bytes(range(256)) * n\ndef size(b): return [len(b), b[-1]]\n";
    let nodes = [
        call("large", "large", "args = [250000]"),
        call("size", "size", "params = { b = \"{{ nodes.large.result }}\" }"),
    ];
    let space = space(functions, "", &nodes);
    space.run_manifest(0);
    assert_eq!(space.json("size"), json!([64_000_000, 255]));
}

#[test]
fn editing_a_file_runs_again_what_calls_it_and_why_says_so() {
    let space = Space::with(&format!(
        "[python]\npath = [\"lib\"]\n{}{}{}",
        "[[node]]\nid = \"a\"\nop = \"python\"\ncall = \"one:f\"\n",
        "[[node]]\nid = \"b\"\nop = \"python\"\ncall = \"two:f\"\ncode = [\"helper\"]\n",
        "[[node]]\nid = \"c\"\nop = \"python\"\ncall = \"pkg.three:f\"\n"
    ));
    fs::create_dir_all(space.path("lib/pkg")).unwrap();
    space.write("lib/one.py", "def f(): return 1\n");
    space.write("two.py", "import helper\ndef f(): return helper.x\n");
    space.write("lib/helper.py", "x = 2\n");
    space.write("lib/pkg/__init__.py", "");
    space.write("lib/pkg/three.py", "def f(): return 3\n");
    let outcomes = || space.run_manifest(0).outcomes();
    assert_eq!(outcomes(), "a=ran b=ran c=ran");
    assert_eq!(outcomes(), "a=cached b=cached c=cached");
    // Of the same length, and within the second: bytecode of the old one would be taken for that of the new.
    space.write("lib/helper.py", "x = 9\n");
    let why = String::from_utf8(space.run(&["why", "m.toml", "b"]).expect(0).stdout).unwrap();
    assert!(why.contains("file lib/helper.py changed"), "{why}");
    assert_eq!(outcomes(), "a=cached b=ran c=cached");
    assert_eq!(space.result_text("b"), "9");
    space.write("lib/pkg/three.py", "def f(): return 8\n");
    assert_eq!(outcomes(), "a=cached b=cached c=ran");
    assert_eq!(space.result_text("c"), "8");
}

#[test]
fn code_that_changes_during_a_run_is_not_taken_for_what_ran() {
    let functions = "import os, time\ndef f():\n    open('up', 'w').close()\n    while not os.path.exists('go'): time.sleep(0.01)\n    return 1\n";
    let space = space(functions, "", &[call("a", "f", "")]);
    let run = space.start(&RUN);
    eventually("the function runs", || space.path("up").exists());
    space.write("f.py", "def f(): return 2\n");
    space.write("go", "");
    run.end().expect(0);
    assert_eq!(space.run_manifest(0).outcomes(), "a=ran");
    assert_eq!(space.result_text("a"), "2");
}

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
fn a_node_that_asks_to_be_run_later_holds_no_worker() {
    let functions = r#"
import forkyard, os
def ask():
    if not os.path.exists("other"):
        raise forkyard.RetryAfter(0.05, "429")
    return forkyard.attempt
def other():
    open("other", "w").close()
def never():
    raise forkyard.RetryAfter(0)
"#;
    let nodes = [call("ask", "ask", "priority = 1"), call("other", "other", ""), call("never", "never", "")];
    let space = space(functions, "[run]\non_failure = \"continue\"", &nodes);
    let ended = space.run(&[&RUN[..], &["--workers", "1"]].concat()).expect(1);
    assert_eq!(ended.node("ask")["outcome"], "ran");
    assert!(space.json("ask").as_u64().unwrap() > 1);
    assert!(error(&ended, "never").starts_with("it asked 100 times to be run later"));
}

#[test]
fn secrets_reach_the_function_and_nothing_that_is_kept() {
    let functions = r#"
import forkyard, os
def use():
    key = os.environ["API_KEY"]
    print("my key is", key)
    return len(key)
def fail():
    raise ValueError("401 for " + os.environ["API_KEY"])
def give(): return "key=" + os.environ["API_KEY"]
def keep(): forkyard.state["k"] = os.environ["API_KEY"]
def give_much(): return b"x" * 100_000 + os.environ["API_KEY"].encode()
def others(): return os.environ.get("OTHER", "none")
"#;
    let mut nodes: Vec<String> =
        ["use", "fail", "give", "keep", "give_much", "others"].map(|name| call(name, name, "")).to_vec();
    nodes.push("[[node]]\nid = \"exec\"\nop = \"exec\"\nshell = true\nrun = ['printf %s $API_KEY | wc -c; echo $API_KEY >&2']\n".into());
    for (id, run) in [("echo", "echo $API_KEY"), ("much", "head -c 100000 /dev/zero; echo $API_KEY")] {
        nodes.push(format!("[[node]]\nid = \"{id}\"\nop = \"exec\"\nshell = true\nrun = ['{run}']\n"));
    }
    let space = space(functions, "[secrets]\nenv = [\"API_KEY\"]\n[run]\non_failure = \"continue\"", &nodes);
    let secret = "sk-48151623";
    let ended = space.run_in(&[("API_KEY", secret), ("OTHER", "seen")], &RUN).expect(1);
    assert_eq!(
        (space.result_text("use"), space.result_text("exec").trim().into()),
        ("11".into(), String::from("11"))
    );
    assert_eq!(space.result_text("others"), "\"none\"");
    assert!(error(&ended, "fail").starts_with("ValueError: 401 for [secret API_KEY]"));
    for node in ["give", "keep", "give_much", "echo", "much"] {
        assert!(
            error(&ended, node).starts_with("the result holds the value of the secret API_KEY"),
            "{node}"
        );
    }
    let log = String::from_utf8(space.run(&["logs", "use"]).expect(0).stdout).unwrap();
    assert_eq!(log, "my key is [secret API_KEY]\n");
    // Its name is in the key, its value is not.
    let again = space.run_in(&[("API_KEY", "another one")], &RUN).expect(1);
    assert_eq!(again.node("use")["outcome"], "cached");
    let told = [&ended, &again].map(|ended| ended.stderr.clone() + &String::from_utf8_lossy(&ended.stdout));
    assert!(told.iter().all(|text| !text.contains(secret)), "{told:?}");
    let mut dirs = vec![space.path(".forkyard")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false => {
                    let bytes = fs::read(entry.path()).unwrap();
                    let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                    assert!(!found, "{} holds the secret", entry.path().display());
                }
            }
        }
    }
    let unset = space.run(&RUN).expect(2);
    assert!(unset.stderr.contains("there is no environment variable API_KEY"), "{}", unset.stderr);
}

#[test]
fn python_that_cannot_start_is_told_before_anything_runs() {
    let nodes = [call("a", "f", "")];
    let cases = [
        ("[python]\ninterpreter = \"none/bin/python\"", "m.toml:2:1: there is no ./none/bin/python"),
        ("[python]\ninterpreter = \"no-such-python\"", "start no-such-python: No such file or directory"),
        (
            "[python]\npreload = [\"nonesuch\"]",
            "preload nonesuch: ModuleNotFoundError: No module named 'nonesuch'",
        ),
        ("[python]\ninterpreter = \"/bin/false\"", "/bin/false exited with status 1 before it was ready"),
    ];
    for (header, said) in cases {
        let space = space_with("def f(): return 1\n", header, &nodes);
        space.run(&RUN).expect(2).says(said);
        space.expect_nothing_left();
    }
}

#[test]
fn a_preload_that_starts_a_thread_is_named() {
    let functions = "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\ndef f(): return 1\n";
    let space = space(functions, "", &[call("a", "f", "")]);
    let ended = space.run(&["run", "m.toml"]).expect(0);
    assert!(
        ended.stderr.contains("f.py starts 1 thread(s): forking is not safe beside threads"),
        "{}",
        ended.stderr
    );
}

#[test]
fn preloads_are_imported_once() {
    let functions = "import os, time\nwith open('imported', 'a') as f: f.write('x')\ndef f():\n    time.sleep(0.1)\n    return os.getpid()\n";
    let space = space(functions, "", &[call("a", "f", "foreach = \"{{ range(0, 8) }}\"")]);
    space.run(&[&RUN[..], &["--workers", "4"]].concat()).expect(0);
    assert_eq!(space.text("imported"), "x");
    let pids = space.json("a");
    let pids: std::collections::BTreeSet<u64> =
        pids.as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    assert!(pids.len() > 1, "{pids:?}");
}

/// Python processes below a run: the one that forks first, then its children's.
fn pythons(run: &Running) -> Vec<i32> {
    let zygote = run.zygote();
    let children = fs::read_to_string(format!("/proc/{zygote}/task/{zygote}/children")).unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.filter(|pid: &i32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("python"))
    })
    .collect()
}

const WAIT: &str = "import os, time\ndef wait(i):\n    open(f'up{i}', 'w').close()\n    while not os.path.exists('go'): time.sleep(0.01)\n    return i\n";

#[test]
fn a_killed_python_process_is_replaced() {
    let space = space(WAIT, "", &[call("a", "wait", "args = [1]")]);
    let run = space.start(&RUN);
    eventually("the function runs", || space.path("up1").exists());
    let all = pythons(&run);
    assert_eq!(all.len(), 2, "the one that forks, and one child");
    fs::remove_file(space.path("up1")).unwrap();
    send(all[1], Signal::SIGKILL);
    eventually("the function runs again", || space.path("up1").exists());
    space.write("go", "");
    let ended = run.end().expect(0);
    let lost = &ended.events_named("worker_lost")[0];
    assert_eq!((lost["signal"].as_i64(), lost["node"].as_str()), (Some(9), Some("a")));
    assert_eq!(ended.node("a")["attempt"], 2);
    space.expect_nothing_left();
}

#[test]
fn without_the_process_that_forks_the_run_ends_in_order() {
    let nodes = [call("a", "wait", "args = [1]"), call("b", "wait", "args = [2]\nneeds = [\"a\"]")];
    let space = space(WAIT, "", &nodes);
    let run = space.start(&RUN);
    eventually("the function runs", || space.path("up1").exists());
    send(pythons(&run)[0], Signal::SIGKILL);
    run.end().expect(70).says("was killed by SIGKILL");
    space.expect_nothing_left();
    space.write("go", "");
    space.run_manifest(0);
}

#[test]
fn an_interpreter_that_is_killed_while_it_imports_is_no_mistake_of_the_manifest() {
    let functions = "import time\nopen('up', 'w').close()\ntime.sleep(1000)\ndef f(): return 1\n";
    let space = space(functions, "", &[call("a", "f", "")]);
    let run = space.start(&RUN);
    eventually("it imports", || space.path("up").exists());
    send(pythons(&run)[0], Signal::SIGKILL);
    run.end().expect(70).says("was killed by SIGKILL");
    space.expect_nothing_left();
}

#[test]
fn python_processes_die_with_whoever_dies_above_them() {
    for victim in ["coordinator", "zygote", "worker"] {
        // In a loop that looks at nothing: only the kernel can end it.
        let functions = "def burn():\n    open('up', 'w').close()\n    while True: pass\n";
        let space = space(functions, "[run]\nmax_crashes = 1", &[call("a", "burn", "")]);
        let run = space.start(&RUN);
        eventually("the function runs", || space.path("up").exists());
        let child = pythons(&run)[1];
        match victim {
            "coordinator" => run.signal(Signal::SIGKILL),
            "zygote" => send(run.zygote(), Signal::SIGKILL),
            _ => {
                let zygote = run.zygote();
                let children = fs::read_to_string(format!("/proc/{zygote}/task/{zygote}/children")).unwrap();
                let is_worker = |pid: &&str| {
                    fs::read_to_string(format!("/proc/{pid}/comm"))
                        .is_ok_and(|name| name.trim() == "forkyard-worker")
                };
                let worker = children.split_whitespace().find(is_worker).unwrap();
                send(worker.parse().unwrap(), Signal::SIGKILL);
            }
        }
        run.end();
        eventually("the Python process is gone", || !lives(child));
        space.expect_nothing_left();
    }
}

#[test]
fn an_artifact_that_shrinks_under_python_fails_by_its_name() {
    let functions = NUMPY.to_owned()
        + "import os, time\ndef read():\n    m = forkyard.artifact('m')\n    open('up', 'w').close()\n    while not os.path.exists('go'): time.sleep(0.01)\n    return float(m.sum())\n";
    let space =
        space(&functions, "[artifacts.m]\npath = \"m.npy\"\n", &[call("a", "read", "artifact = \"m\"")]);
    let row: Vec<f32> = vec![1.0; 100_000];
    space.write("m.npy", matrix(&[&row]));
    let run = space.start(&RUN);
    eventually("the function runs", || space.path("up").exists());
    fs::File::options().write(true).open(space.path("m.npy")).unwrap().set_len(4096).unwrap();
    space.write("go", "");
    let ended = run.end().expect(3);
    assert!(error(&ended, "a").contains("artifact \"m\""), "{}", error(&ended, "a"));
}

#[test]
fn nodes_that_come_into_being_may_be_python() {
    let functions = "def make(): return {'$nodes': [{'id': 'made', 'op': 'python', 'call': 'f.py:f', 'args': [4]}]}\ndef f(x): return x + 1\n";
    let space = space(functions, "", &[call("make", "make", ""), call("f", "f", "args = [1]")]);
    space.run_manifest(0);
    assert_eq!(space.result_text("made"), "5");
}

#[test]
fn an_environment_of_its_own_is_in_the_key() {
    let functions = "import os\ndef f(): return os.environ['MODEL']\n";
    let nodes = [call("a", "f", "")];
    let space = space(functions, "env = { MODEL = \"one\" }", &nodes);
    space.run_manifest(0);
    assert_eq!(space.json("a"), "one");
    let text = space.text("m.toml").replace("\"one\"", "\"two\"");
    space.write("m.toml", text);
    assert_eq!(space.run_manifest(0).outcomes(), "a=ran");
    assert_eq!(space.json("a"), "two");
}

#[test]
fn map_answers_in_the_order_of_the_items() {
    let functions = "import time\ndef f(x):\n    time.sleep((7 - x) / 50)\n    if x == 3: raise ValueError('three')\n    return x * x\n";
    let space = space(functions, "", &[]);
    let items = "1\n2\n4\n5\n6\n";
    let map = |items: &str| space.run_with_stdin(&["map", "f.py:f", "-", "--workers", "3"], items.as_bytes());
    assert_eq!(String::from_utf8(map(items).expect(0).stdout).unwrap(), "1\n4\n16\n25\n36\n");
    let again = map("6\n3\n1\n").expect(1);
    assert_eq!(String::from_utf8_lossy(&again.stdout), "36\nnull\n1\n");
    assert!(
        again.stderr.contains("2 cached") && again.stderr.contains("ValueError: three"),
        "{}",
        again.stderr
    );
    let wrong = map("1\nthree\n").expect(2);
    assert!(wrong.stderr.contains("-:2: this is no JSON value"), "{}", wrong.stderr);
}

#[test]
fn map_runs_commands_on_words() {
    let space = Space::new();
    space.write("a b.txt", "1\n2\n");
    space.write("{{x}}", "3\n");
    let out = |args: &[&str]| String::from_utf8(space.run(args).expect(0).stdout).unwrap();
    assert_eq!(out(&["map", "wc -l {}", "a b.txt", "{{x}}"]), "2 a b.txt\n1 {{x}}\n");
    assert_eq!(out(&["map", "cat", "{{x}}", "a b.txt"]), "3\n1\n2\n");
    assert_eq!(out(&["map", "--shell", "cat {} | tr 1 x", "a b.txt"]), "x\n2\n");
    assert_eq!(out(&["map", "printf '%s {{a}} {%% b {# c\\n'", "b"]), "b {{a}} {% b {# c\n");
    assert_eq!(out(&["map", "--shell", "x={}; echo ${#x}", "abc"]), "3\n");
    let again = space.run(&["map", "wc -l {}", "a b.txt", "{{x}}"]).expect(0);
    assert!(again.stderr.contains("0 ran, 3 cached"), "{}", again.stderr);
    // The file that a word names is a part of the key.
    space.write("{{x}}", "3\n4\n");
    assert_eq!(out(&["map", "wc -l {}", "a b.txt", "{{x}}"]), "2 a b.txt\n2 {{x}}\n");
    space.run(&["map", "wc -l {}"]).expect(2).says("there are no items");
}

#[test]
fn the_module_drives_the_command() {
    let script = r#"
import json, sys
import numpy as np
import forkyard
def score(x): return float(forkyard.artifact("m")[0, 0]) + x
def spread(x): return np.full(x, x)
def odd(x):
    if x % 2: raise KeyError(x)
    return x
if __name__ == "__main__":
    told = [forkyard.map(score, [1, 2], artifacts={"m": "m.npy"}, workers=2)]
    told.append([one.tolist() for one in forkyard.map(spread, (n for n in [2, 1]))])
    try:
        forkyard.map(odd, [4, 5])
    except forkyard.RunFailed as error:
        told.append([error.code, list(error.errors), error.results])
    told.append(forkyard.run("other.toml")["ran"])
    told.append(forkyard.results())
    try:
        forkyard.map(lambda x: x, [1])
    except forkyard.ForkyardError as error:
        told.append("lambda" in str(error))
    print(json.dumps(told))
"#;
    let space = Space::new();
    space.write("main.py", script);
    space.write("m.npy", matrix(&[&[0.5]]));
    space.write("other.toml", "[[node]]\nid = \"v\"\nop = \"value\"\nparams = { value = 7 }\n");
    space.write("forkyard.py", space.run(&["python-module"]).expect(0).stdout);
    let line = format!("FORKYARD={} {} main.py", env!("CARGO_BIN_EXE_forkyard"), python().display());
    let ended = space.start_shell(&line).end().expect(0);
    let told: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(told, json!([[1.5, 2.5], [[2, 2], [1]], [1, [1], [4, null]], 1, {"v": 7}, true]));
}

#[test]
fn code_is_found_as_python_finds_it_or_refused() {
    let cases = [
        ("nope.py:f", "there is no file ./nope.py"),
        ("f.py:g", "./f.py defines no `g`; did you mean `f`?"),
        ("ff:f", "there is no module `ff` in ., nor does python3 know one; did you mean `f`?"),
        ("f", "`call` must be a Python function as \"module:function\" or \"file.py:function\""),
    ];
    for (call, said) in cases {
        let space = Space::with(&format!("[[node]]\nid = \"a\"\nop = \"python\"\ncall = \"{call}\"\n"));
        space.write("f.py", "def f(): return 1\n");
        let ended = space.run(&RUN).expect(2);
        assert!(ended.stderr.contains(said), "{call}: {}", ended.stderr);
        assert!(ended.stderr.contains("m.toml:4:1"), "{}", ended.stderr);
    }
    // A module of the interpreter, and one that has no file at all.
    let nodes = ["json:dumps", "math:sqrt"].map(|call| {
        format!("[[node]]\nid = \"{}\"\nop = \"python\"\ncall = \"{call}\"\nargs = [16]\n", &call[..4])
    });
    let space = Space::with(&nodes.concat());
    space.run_manifest(0);
    assert_eq!((space.result_text("json"), space.result_text("math")), ("\"16\"".into(), "4.0".into()));
}

#[test]
fn an_error_that_cannot_be_told_is_an_error_all_the_same() {
    let functions = "import forkyard\nclass X(Exception):\n    def __str__(self): raise KeyError('no')\n\
        class Later(forkyard.RetryAfter):\n    def __init__(self): pass\n\
        def plain(): raise X()\ndef leave(): raise SystemExit(X())\nasync def wait(): raise Later()\nasync def leave_too(): raise SystemExit(X())\n";
    let nodes = ["plain", "leave", "wait", "leave_too"].map(|name| call(name, name, ""));
    let ended = space(functions, "[run]\non_failure = \"continue\"", &nodes).run_manifest(1);
    assert_eq!(ended.outcomes(), "leave=failed leave_too=failed plain=failed wait=failed");
    assert!(error(&ended, "plain").starts_with("f.X: "), "{}", error(&ended, "plain"));
    assert_eq!(error(&ended, "wait"), "Later, whose message cannot be made: AttributeError");
    assert_eq!(ended.events_named("worker_lost"), [] as [Value; 0]);
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

#[test]
fn threads_belong_to_the_node_that_starts_them() {
    let functions = r#"
import forkyard, os, threading, time
from concurrent.futures import ThreadPoolExecutor
pool, told = ThreadPoolExecutor(2), []
def leave():
    def write():
        while not os.path.exists("later"): time.sleep(0.01)
        try:
            forkyard.state["who"] = "thread"
        except forkyard.ForkyardError as error:
            told.append(str(error))
    threading.Thread(target=write).start()
    os.chdir("/")
def later():
    open("later", "w").close()
    while not told: time.sleep(0.01)
    return [told[0][:30], list(pool.map(lambda _: forkyard.item, range(2)))]
async def ask():
    import asyncio
    return await asyncio.get_running_loop().run_in_executor(None, lambda: forkyard.item)
"#;
    let nodes = [
        call("leave", "leave", ""),
        call("later", "later", "needs = [\"leave\"]\nforeach = [7]\nreads = \"state\""),
        call("ask", "ask", "needs = [\"later\"]\nforeach = [8]"),
    ];
    let space = space(functions, "", &nodes);
    space.run(&[&RUN[..], &["--workers", "1"]].concat()).expect(0);
    assert_eq!(space.json("later"), json!([["the node whose function starte", [7, 7]]]));
    assert_eq!(space.json("ask"), json!([8]));
}

#[test]
fn neighbours_of_the_same_name_are_each_their_own() {
    let node = |dir: &str| format!("[[node]]\nid = \"{dir}\"\nop = \"python\"\ncall = \"{dir}/main.py:f\"\n");
    let space = Space::with(&(node("a") + &node("b")));
    for dir in ["a", "b"] {
        fs::create_dir(space.path(dir)).unwrap();
        space.write(&format!("{dir}/main.py"), "import helper\ndef f(): return helper.x\n");
        space.write(&format!("{dir}/helper.py"), format!("x = '{dir}'\n"));
    }
    // Not what the interpreter's own module is.
    space.write("json.py", "x = 1\n");
    space.run_manifest(0);
    assert_eq!((space.json("a"), space.json("b")), (json!("a"), json!("b")));
}

#[test]
fn secrets_are_known_in_keys_and_inside_json() {
    let functions = "import forkyard, os\nkey = os.environ['PEM']\ndef text(): return {'it': key}\ndef state(): forkyard.state['k'] = key\n\
                     def name(): forkyard.state[key] = 1\ndef long(): raise ValueError('x' * 8180 + key)\n";
    let nodes = ["text", "state", "name", "long"].map(|name| call(name, name, ""));
    let space = space(functions, "[secrets]\nenv = [\"PEM\"]\n[run]\non_failure = \"continue\"", &nodes);
    let ended = space.run_in(&[("PEM", "line \"one\"\nline two")], &RUN).expect(1);
    for node in ["text", "state", "name"] {
        assert!(error(&ended, node).starts_with("the result holds the value of the secret PEM"), "{node}");
    }
    assert!(!error(&ended, "long").contains("line"), "{}", error(&ended, "long"));
}

#[test]
fn map_takes_items_as_they_are_or_not_at_all() {
    let space = space_with("def f(x): return x\ndef g(): return 1\n", "", &[]);
    let map = |items: &str| space.run_with_stdin(&["map", "f.py:f", "-"], items.as_bytes());
    map("1\n[\"\\\"12345678901234567890123\", -9223372036854775809]\n")
        .expect(2)
        .says("-:2: the number -9223372036854775809 does not fit 64 bits");
    assert_eq!(map("\u{feff}18446744073709551615\n").expect(0).stdout, b"18446744073709551615\n");
    space
        .run(&["map", "f.py", "a", "b"])
        .expect(2)
        .says("f.py is a file: f.py:FUNCTION names a function in it");
    assert_eq!(space.run(&["map", "echo {{}}", "a"]).expect(0).stdout, b"{a}\n");
    // A script that maps when it is imported would do so in each process again.
    space.write("s.py", "import forkyard\ndef f(x): return x\nprint(forkyard.map(f, [1]))\n");
    space.write("forkyard.py", space.run(&["python-module"]).expect(0).stdout);
    let line = format!("FORKYARD={} python3 s.py", env!("CARGO_BIN_EXE_forkyard"));
    space.start_shell(&line).end().expect(1).says("put it under `if __name__");
}
