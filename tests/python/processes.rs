//! Processes that are killed, and files that change under them.

use super::*;

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

/// The one child of the process that forks. Its first parent ends soon after it has begun.
fn only_child(run: &Running) -> i32 {
    let mut all = Vec::new();
    eventually("the one that forks, and one child", || {
        all = pythons(run);
        all.len() == 2
    });
    all[1]
}

const WAIT: &str = "import os, time\ndef wait(i):\n    open(f'up{i}', 'w').close()\n    while not os.path.exists('go'): time.sleep(0.01)\n    return i\n";

#[test]
fn a_killed_python_process_is_replaced() {
    let space = space(WAIT, "", &[call("a", "wait", "args = [1]")]);
    let run = space.start(&RUN);
    eventually("the function runs", || space.path("up1").exists());
    let child = only_child(&run);
    fs::remove_file(space.path("up1")).unwrap();
    send(child, Signal::SIGKILL);
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
        let child = only_child(&run);
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
