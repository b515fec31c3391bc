//! What becomes of functions that do more than compute.

use super::*;

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
