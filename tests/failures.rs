//! When things fail: one test, or a few, for each row of the table of failures in `docs/design.md`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use rusqlite::Connection;

use crate::util::{Ended, RUN, Running, Space, eventually, lives, send};

/// A node of `exec` for a shell.
fn shell(id: &str, script: &str, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"exec\"\nshell = true\nrun = ['''{script}''']\n{more}\n")
}

fn noop(id: &str, more: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"noop\"\n{more}\n")
}

/// A node that kills its worker.
fn crash(id: &str, params: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"crash\"\nparams = {{ {params} }}\n")
}

/// A node that says `up`, then ends when the file `go` is there.
fn waiting(id: &str, more: &str) -> String {
    shell(id, "touch up; while [ ! -e go ]; do sleep 0.01; done; echo gone", more)
}

/// A node that says `up`, then hangs, with a child and a grandchild that left their session.
fn hanging(id: &str, more: &str) -> String {
    shell(id, "setsid sleep 1000 & (setsid sleep 1000 &); touch up; sleep 1000", more)
}

/// Results are not committed before the end of the run, but for dear ones.
const LATE: &str = "[run]\ncommit = { every = 1000, within = \"10m\" }\n";

/// A command whose output cannot be packed; another number makes another output.
fn noise(number: u32) -> String {
    format!(
        "python3 -c 'import random, sys; sys.stdout.buffer.write(random.Random({number}).randbytes(50000))'"
    )
}

impl Space {
    fn run_also(&self, args: &[&str], code: i32) -> Ended {
        self.run(&[&RUN[..], args].concat()).expect(code)
    }

    /// A run in which a node has said `up`.
    fn start_until_up(&self) -> Running {
        let run = self.start(&RUN);
        eventually("a node is up", || self.path("up").exists());
        run
    }

    fn database(&self) -> Connection {
        Connection::open(self.path(".forkyard/store.db")).unwrap()
    }

    fn wait_until_durable(&self, node: &str) {
        eventually("the result is durable", || {
            let listed = self.run(&["results", "ls", "--json"]);
            listed.code() == Some(0) && listed.events().iter().any(|line| line["node"] == node)
        });
    }
}

fn error(ended: &Ended, node: &str) -> String {
    ended.node(node)["error"].as_str().unwrap_or_default().into()
}

// ---- an op returns an error ----

#[test]
fn an_op_that_returns_an_error_fails_its_node_and_stops_the_run() {
    let nodes = [
        shell("a", "echo the reason >&2; exit 9", "priority = 1"),
        noop("b", "needs = [\"a\"]"),
        noop("c", "needs = [\"b\"]"),
        noop("d", ""),
    ];
    let space = Space::with(&nodes.concat());
    let ended = space.run_also(&["--workers", "1"], 1);
    assert_eq!(ended.outcomes(), "a=failed b=blocked c=blocked d=cancelled");
    assert_eq!(error(&ended, "a"), "/bin/sh ended with exit status: 9: the reason");
    assert_eq!(error(&ended, "c"), "it needs a, which did not succeed");
    let summary = ended.summary();
    let counts = ["ran", "failed", "blocked", "cancelled"].map(|word| summary[word].as_u64().unwrap());
    assert_eq!(counts, [0, 1, 2, 1]);
    // A failure is not remembered: it is tried again.
    space.write("m.toml", nodes.concat().replace("exit 9", "exit 8"));
    assert_eq!(
        error(&space.run_also(&["--workers", "1"], 1), "a"),
        "/bin/sh ended with exit status: 8: the reason"
    );
}

#[test]
fn keep_going_runs_everything_that_does_not_need_what_failed() {
    let nodes =
        [shell("a", "false", ""), noop("b", "needs = [\"a\"]"), noop("c", ""), noop("d", "needs = [\"c\"]")];
    let (all, expected) = (nodes.concat(), "a=failed b=blocked c=ran d=ran");
    let space = Space::with(&all);
    assert_eq!(space.run_also(&["--keep-going", "--workers", "1"], 1).outcomes(), expected);
    let space = Space::with(&format!("[run]\non_failure = \"continue\"\n{all}"));
    assert_eq!(space.run_manifest(1).outcomes(), expected);
    assert_eq!(space.run_manifest(1).outcomes(), expected.replace("ran", "cached"));
    space.run(&["results", "cat", "b"]).expect(1).says("node `b` has no result: in run 2 it was blocked");
}

#[test]
fn max_failures_is_a_number_or_a_part_of_the_nodes() {
    // Too slow for one to be sent ahead of the news of the one before.
    let fails = |n: u32| shell(&format!("n{n}"), &format!("sleep 0.05; exit {}", n + 1), "");
    let nodes: String = (0..8).map(fails).collect();
    let space = Space::with(&nodes);
    let failed = |limit: &str| {
        let summary = space.run_also(&["--workers", "1", "--max-failures", limit], 1).summary();
        (summary["failed"].as_u64().unwrap(), summary["cancelled"].as_u64().unwrap())
    };
    assert_eq!(failed("0"), (1, 7));
    assert_eq!(failed("2"), (3, 5));
    assert_eq!(failed("50%"), (5, 3));
    assert_eq!(failed("8"), (8, 0));
}

#[test]
fn retry_repeats_what_failed_so_many_times() {
    let third = "echo x >> tries; test $(wc -l < tries) -ge 3";
    let space = Space::with(&shell("a", third, "retry = { attempts = 3, backoff = \"1ms\" }"));
    let ended = space.run_manifest(0);
    assert_eq!((ended.outcomes().as_str(), &ended.node("a")["attempt"]), ("a=ran", &3.into()));

    let space = Space::with(&shell("a", third, "retry = { attempts = 2 }"));
    let ended = space.run_manifest(1);
    assert_eq!((ended.outcomes().as_str(), space.text("tries").as_str()), ("a=failed", "x\nx\n"));

    let space = Space::with(&shell("a", third, "retry = { attempts = 3, on = [\"timeout\"] }"));
    space.run_manifest(1);
    assert_eq!(space.text("tries"), "x\n");
}

#[test]
fn a_panic_is_an_error_of_its_op() {
    let space = Space::with(&crash("a", "panic = \"oh dear\""));
    let ended = space.run_manifest(1);
    assert_eq!(error(&ended, "a"), "the op panicked: oh dear");
    assert!(ended.events_named("worker_lost").is_empty());
}

// ---- a worker dies ----

#[test]
fn a_worker_that_dies_is_replaced_and_its_node_runs_again() {
    for (params, field, value) in
        [("signal = 11, times = 1", "signal", 11), ("status = 3, times = 1", "status", 3)]
    {
        let space = Space::with(&crash("a", params));
        let ended = space.run_manifest(0);
        assert_eq!((ended.outcomes().as_str(), &ended.node("a")["attempt"]), ("a=ran", &2.into()));
        let lost = ended.events_named("worker_lost");
        assert_eq!(lost.len(), 1);
        assert_eq!((&lost[0][field], &lost[0]["node"]), (&value.into(), &"a".into()));
        assert_eq!(ended.events_named("worker_started").len(), 2);
        space.expect_nothing_left();
    }
}

#[test]
fn the_rest_of_a_dead_workers_batch_is_unharmed() {
    // The first of an op goes alone, whatever it is: these are known when the rest begins, so that it goes together.
    let known = |node: String| format!("{node}priority = 2\n");
    let mut nodes = vec![known(crash("known", "times = 0")), known(noop("n", ""))];
    nodes.push(format!("{}priority = 1\n", crash("x", "signal = 9")));
    nodes.extend((0..300).map(|n| noop(&format!("n{n}"), "")));
    let space = Space::with(&nodes.concat());
    let ended = space.run_also(&["--keep-going", "--workers", "1"], 1);
    let summary = ended.summary();
    assert_eq!((&summary["ran"], &summary["failed"]), (&302.into(), &1.into()));
    let others = ended.events_named("node_finished").into_iter().filter(|event| event["node"] != "x");
    assert!(others.into_iter().all(|event| event["attempt"] == 1), "a neighbour was blamed");
}

#[test]
fn a_worker_killed_from_outside_costs_nothing_but_time() {
    let space = Space::with(&waiting("a", ""));
    let mut run = space.start_until_up();
    let worker = run.event("worker_started", |_| true)["pid"].as_i64().unwrap() as i32;
    send(worker, Signal::SIGKILL);
    assert_eq!(run.event("worker_lost", |_| true)["signal"], 9);
    space.write("go", "");
    let ended = run.end().expect(0);
    assert_eq!((ended.outcomes().as_str(), &ended.node("a")["attempt"]), ("a=ran", &2.into()));
    space.expect_nothing_left();
}

// ---- a poison node ----

#[test]
fn hundreds_of_workers_may_die_at_once() {
    let lines: Vec<String> = (0..3000)
        .map(|n| format!(r#"{{"id":"n{n}","op":"crash","params":{{"status":1,"times":1}}}}"#))
        .collect();
    let space = Space::new();
    space.write("m.jsonl", lines.join("\n"));
    let ended = space.run(&["run", "m.jsonl", "--json", "--workers", "500"]).expect(0);
    assert_eq!(ended.summary()["ran"], 3000);
    assert_eq!(ended.events_named("worker_lost").len(), 3000);
    space.expect_nothing_left();
}

#[test]
fn a_node_that_kills_worker_after_worker_is_poison() {
    let space =
        Space::with(&[crash("a", "signal = 6"), noop("b", ""), noop("c", "needs = [\"a\"]")].concat());
    let ended = space.run_also(&["--keep-going"], 1);
    assert_eq!(ended.outcomes(), "a=failed b=ran c=blocked");
    assert_eq!(ended.events_named("worker_lost").len(), 3);
    assert!(error(&ended, "a").ends_with("it has killed 3 workers"), "{}", error(&ended, "a"));

    let space = Space::with(&format!("[run]\nmax_crashes = 1\n{}", crash("a", "status = 70")));
    assert_eq!(space.run_manifest(1).events_named("worker_lost").len(), 1);
}

// ---- a task overruns ----

#[test]
fn a_task_that_overruns_is_timed_out_and_its_neighbours_are_not() {
    // What it is sent together with: how long these ops take is known by then.
    let mut nodes = String::from(
        "[[node]]\nid = \"late\"\nop = \"sleep\"\nparams = { seconds = 1000 }\ntimeout = \"200ms\"\npriority = 1\n[[node]]\nid = \"known\"\nop = \"sleep\"\nparams = { seconds = 0 }\npriority = 2\n",
    );
    nodes += &noop("n", "priority = 2");
    nodes.extend((0..50).map(|n| noop(&format!("n{n}"), "")));
    let space = Space::with(&nodes);
    let ended = space.run_also(&["--keep-going", "--workers", "1"], 1);
    assert_eq!((&ended.node("late")["outcome"], &ended.summary()["ran"]), (&"timed_out".into(), &52.into()));
    assert_eq!(error(&ended, "late"), "it ran for more than its timeout of 200 ms");
    assert_eq!(ended.summary()["timed_out"], 1);
}

#[test]
fn everything_below_a_command_that_overruns_is_killed() {
    // Two that left its session; the second attempt looks for those of the first, which must be gone when it begins.
    let script = "for p in $(cat pids); do kill -0 $p && echo $p >> left; done; setsid sleep 1000 & echo $! >> pids; (setsid sleep 1000 & echo $! >> pids); sleep 1000";
    let space = Space::with(&shell("a", script, "timeout = \"500ms\"\nretry = { attempts = 2 }"));
    space.write("pids", "");
    let ended = space.run_manifest(1);
    assert_eq!((ended.outcomes().as_str(), &ended.node("a")["attempt"]), ("a=timed_out", &2.into()));
    assert!(space.text("pids").lines().count() >= 2, "it never came to hang");
    assert_eq!(space.text("left"), "", "these lived when the next attempt began");
    assert!(space.processes().is_empty(), "left behind: {:?}", space.processes());
    // Scratch directories of killed workers are cleared by the next run.
    space.write("m.toml", noop("b", ""));
    space.run_manifest(0);
    space.expect_nothing_left();
}

// ---- Ctrl-C, kill ----

#[test]
fn one_ctrl_c_lets_what_runs_finish() {
    let space = Space::with(&[waiting("a", ""), noop("b", "needs = [\"a\"]")].concat());
    let mut run = space.start_until_up();
    run.signal(Signal::SIGINT);
    run.says("interrupted: waiting for 1 running node; once more to stop now");
    space.write("go", "");
    assert_eq!(run.end().expect(130).outcomes(), "a=ran b=cancelled");
    space.expect_nothing_left();
    assert_eq!(space.run_manifest(0).outcomes(), "a=cached b=ran");
}

#[test]
fn two_ctrl_c_stop_at_once_and_keep_what_had_arrived() {
    let nodes = [noop("a", ""), hanging("b", "needs = [\"a\"]"), noop("c", "needs = [\"b\"]")];
    let space = Space::with(&format!("{LATE}{}", nodes.concat()));
    let mut run = space.start_until_up();
    run.signal(Signal::SIGINT);
    run.says("once more to stop now");
    run.signal(Signal::SIGINT);
    assert_eq!(run.end().expect(130).outcomes(), "a=ran b=cancelled c=cancelled");
    assert!(space.processes().is_empty(), "left behind: {:?}", space.processes());
    assert_eq!(space.results()["a"].0, "ran");
    space.write("m.toml", noop("a", ""));
    assert_eq!(space.run_manifest(0).outcomes(), "a=cached");
}

#[test]
fn a_polite_kill_is_an_interrupt_with_its_own_exit_code() {
    let space = Space::with(&waiting("a", ""));
    let mut run = space.start_until_up();
    run.signal(Signal::SIGTERM);
    run.says("interrupted");
    space.write("go", "");
    assert_eq!(run.end().expect(143).outcomes(), "a=ran");
}

#[test]
fn an_interrupt_does_not_wait_for_the_next_attempt() {
    let space = Space::with(&shell("a", "touch up; false", "retry = { attempts = 2, backoff = \"1h\" }"));
    let mut run = space.start_until_up();
    run.event("worker_started", |_| true);
    run.signal(Signal::SIGINT);
    assert_eq!(run.end().expect(130).outcomes(), "a=cancelled");
}

// ---- the zygote dies ----

#[test]
fn an_interrupt_does_not_wait_for_a_digest() {
    // Reading a terabyte of nothing takes minutes.
    let space = Space::with(&format!("[artifacts.big]\npath = \"big.raw\"\n{}", noop("a", "")));
    let file = fs::File::create(space.path("big.raw")).unwrap();
    file.set_len(1 << 40).unwrap();
    let run = space.start(&RUN);
    eventually("the artifact is being read", || run.holds_open(&space.path("big.raw")));
    run.signal(Signal::SIGINT);
    run.end().expect_signal(Signal::SIGINT);
    space.expect_nothing_left();

    space.write("m.toml", shell("a", "true", "files = [\"big.raw\"]"));
    let run = space.start(&RUN);
    eventually("the file is being read", || run.holds_open(&space.path("big.raw")));
    run.signal(Signal::SIGINT);
    assert_eq!(run.end().expect(130).outcomes(), "a=cancelled");
}

#[test]
fn a_signal_that_is_ignored_from_birth_stays_so() {
    let space = Space::with(&waiting("a", ""));
    let script =
        format!("trap '' HUP; exec {} run m.toml --json --events all", env!("CARGO_BIN_EXE_forkyard"));
    let run = space.start_shell(&script);
    eventually("a node is up", || space.path("up").exists());
    run.signal(Signal::SIGHUP);
    space.write("go", "");
    assert_eq!(run.end().expect(0).outcomes(), "a=ran");
}

#[test]
fn a_zygote_that_is_stopped_does_not_keep_us() {
    let space = Space::with(&hanging("a", ""));
    let mut run = space.start_until_up();
    let zygote = run.zygote();
    send(zygote, Signal::SIGSTOP);
    run.signal(Signal::SIGINT);
    run.says("interrupted: waiting for 1 running node");
    run.signal(Signal::SIGINT);
    run.says("interrupted again: stopping now");
    run.signal(Signal::SIGINT);
    run.end().expect(130);
    space.expect_nothing_left();
}

#[test]
fn the_death_of_the_zygote_ends_the_run_in_order() {
    let nodes = [noop("a", ""), hanging("b", "needs = [\"a\"]"), noop("c", "needs = [\"b\"]")];
    let space = Space::with(&format!("{LATE}{}", nodes.concat()));
    let run = space.start_until_up();
    send(run.zygote(), Signal::SIGKILL);
    let ended = run.end().expect(70).says("the zygote, the process that forks the workers, was killed");
    assert_eq!(ended.outcomes(), "a=ran b=cancelled c=cancelled");
    assert!(space.processes().is_empty(), "left behind: {:?}", space.processes());
    space.write("m.toml", noop("a", ""));
    assert_eq!(space.run_manifest(0).outcomes(), "a=cached");
    space.expect_nothing_left();
}

#[test]
fn the_death_of_the_zygote_ends_what_hides_in_its_session() {
    // Nothing in the environment tells whose it is, nor is its group that of a command.
    let alone = "import os; os.setpgid(0, 0); open(\"up\", \"w\"); os.execve(\"/bin/sleep\", [\"sleep\", \"1000\"], {})";
    let space = Space::with(&shell("a", &format!("python3 -c '{alone}' & wait"), ""));
    let run = space.start_until_up();
    send(run.zygote(), Signal::SIGKILL);
    run.end().expect(70);
    space.expect_nothing_left();
}

// ---- the coordinator dies ----

#[test]
fn nothing_survives_the_coordinator_and_the_next_run_resumes() {
    let space = Space::with(&[noop("a", ""), hanging("b", "needs = [\"a\"]")].concat());
    let mut run = space.start_until_up();
    let worker = run.event("worker_started", |_| true)["pid"].as_i64().unwrap() as i32;
    let zygote = run.zygote();
    space.wait_until_durable("a");
    run.signal(Signal::SIGKILL);
    run.end().expect_killed();
    eventually("the pool is gone", || !lives(zygote) && !lives(worker) && space.processes().is_empty());
    let state = space.run(&["runs", "--json"]).expect(0).events()[0]["state"].clone();
    assert_eq!(state, "killed");
    space.write("m.toml", [noop("a", ""), noop("c", "")].concat());
    assert_eq!(space.run_manifest(0).outcomes(), "a=cached c=ran");
    space.expect_nothing_left();
}

#[test]
fn a_dear_result_is_durable_before_the_window_says_so() {
    // It takes longer than 10 ms; the declared window would be ten minutes.
    let dear = "[[node]]\nid = \"a\"\nop = \"spin\"\nparams = { seconds = 0.05 }\n";
    let space = Space::with(&[LATE, dear, &waiting("b", "needs = [\"a\"]")].concat());
    let run = space.start_until_up();
    space.wait_until_durable("a");
    run.signal(Signal::SIGKILL);
    run.end().expect_killed();
    space.write("go", "");
    assert_eq!(space.run_manifest(0).outcomes(), "a=cached b=ran");
}

// ---- disk full ----

/// A small disk, gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where the system does not let us mount.
    fn mount(at: PathBuf) -> Option<SmallDisk> {
        fs::create_dir(&at).unwrap();
        let mounted = mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some("size=2m,mode=700"));
        if let Err(error) = &mounted {
            eprintln!("skipped: a small disk cannot be mounted here: {error}");
        }
        mounted.is_ok().then_some(SmallDisk(at))
    }

    fn make_room(&self) {
        mount(None::<&Path>, &self.0, None::<&Path>, MsFlags::MS_REMOUNT, Some("size=64m,mode=700")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

/// A run of these nodes fills the disk; there is room later.
fn full_disk(nodes: &str, workers: &str) {
    for layout in ["sqlite", "hybrid", "filesystem"] {
        let space = Space::with(&format!("[run]\nlayout = \"{layout}\"\n{nodes}"));
        let Some(disk) = SmallDisk::mount(space.path(".forkyard")) else { return };
        space.run_also(&["--workers", workers], 4).says("make room and run again");
        assert!(space.processes().is_empty());
        let results = space.results();
        let kept =
            results.values().filter(|(outcome, digest)| outcome == "ran" && !digest.is_empty()).count();
        disk.make_room();
        let ended = space.run_manifest(0);
        let cached = ended.summary()["cached"].as_u64().unwrap();
        assert!(cached >= kept as u64, "{layout}: {kept} were said to be durable, {cached} were cached");
        assert!(cached > 0, "{layout}: nothing was kept");
        space.expect_nothing_left();
    }
}

#[test]
fn a_disk_full_of_blobs_ends_the_run_and_room_resumes_it() {
    let node = |n: u32| shell(&format!("n{n}"), &format!("{} | head -c 50000", noise(n)), "");
    full_disk(&(0..100).map(node).collect::<String>(), "auto");
}

#[test]
fn a_disk_full_of_rows_ends_the_run_and_room_resumes_it() {
    let node = |n: u32| shell(&format!("n{n}"), &format!("{} | head -c 20000", noise(n)), "");
    full_disk(&(0..200).map(node).collect::<String>(), "2");
}

#[test]
fn a_disk_that_fills_while_many_workers_have_something_to_say_ends_the_run() {
    // More than their channel takes, while the run waits for the store's last word.
    let node = |n: u32| shell(&format!("n{n}"), &format!("{} | head -c 20000", noise(n)), "");
    full_disk(&(0..200).map(node).collect::<String>(), "32");
}

// ---- damage in the store ----

/// Large values: one that is kept as it is, one that is packed.
fn large() -> [String; 2] {
    [format!("{} | head -c 50000", noise(7)), "yes | head -c 50000".into()]
}

fn flip_a_byte(blob: &Path) {
    let mut bytes = fs::read(blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(blob, Permissions::from_mode(0o600)).unwrap();
    fs::write(blob, bytes).unwrap();
}

fn reads(id: &str, producer: &str) -> String {
    shell(id, "cat", &format!("stdin = \"{{{{ nodes.{producer}.result }}}}\""))
}

#[test]
fn a_damaged_blob_is_named_and_never_handed_out() {
    for script in large() {
        let space = Space::with(&shell("a", &script, ""));
        space.run_manifest(0);
        let sound = space.result("a");
        let blob = space.only_blob();
        flip_a_byte(&blob);
        let name = blob.file_name().unwrap().to_str().unwrap();
        let ended = space.run(&["results", "cat", "a"]).expect(4).says("is damaged").says(name);
        assert!(ended.stdout.is_empty());
        assert_eq!(space.run_manifest(0).outcomes(), "a=ran");
        assert!(space.result("a") == sound);
        assert!(space.path(".forkyard/quarantine").join(name).exists());
    }
}

#[test]
fn a_damaged_blob_is_computed_again_for_who_reads_it() {
    for script in large() {
        let space = Space::with(&shell("a", &script, ""));
        space.run_manifest(0);
        let sound = space.result("a");
        flip_a_byte(&space.only_blob());
        space.write("m.toml", [shell("a", &script, ""), reads("b", "a"), reads("c", "a")].concat());
        let ended = space.run_manifest(0).says("is damaged").says("node a runs again");
        assert!(ended.outcomes().starts_with("a=ran b="), "{}", ended.outcomes());
        assert!(space.result("b") == sound && space.result("c") == sound);
        let summary = ended.summary();
        assert_eq!(summary["ran"].as_u64().unwrap() + summary["cached"].as_u64().unwrap(), 3);
    }
}

#[test]
fn a_blob_that_is_gone_or_cut_short_is_computed_again() {
    for script in large() {
        let space = Space::with(&shell("a", &script, ""));
        space.run_manifest(0);
        let sound = space.result("a");
        fs::remove_file(space.only_blob()).unwrap();
        assert_eq!(space.run_manifest(0).outcomes(), "a=ran");
        fs::set_permissions(space.only_blob(), Permissions::from_mode(0o600)).unwrap();
        fs::File::options().write(true).open(space.only_blob()).unwrap().set_len(10).unwrap();
        // Who reads it finds out.
        space.write("m.toml", [shell("a", &script, ""), reads("b", "a")].concat());
        assert_eq!(space.run_manifest(0).outcomes(), "a=ran b=ran");
        assert!(space.result("a") == sound && space.result("b") == sound);
    }
}

#[test]
fn a_damaged_row_of_the_database_is_a_miss() {
    let space = Space::with(&[noop("a", ""), noop("b", "")].concat());
    space.run_manifest(0);
    let first = "FROM log ORDER BY seq LIMIT 1";
    let mut row: Vec<u8> =
        space.database().query_row(&format!("SELECT packed {first}"), [], |row| row.get(0)).unwrap();
    *row.last_mut().unwrap() ^= 1;
    let damage = format!("UPDATE log SET packed = ?1 WHERE seq = (SELECT seq {first})");
    assert_eq!(space.database().execute(&damage, [row]).unwrap(), 1);
    let summary = space.run_manifest(0).says("is damaged or gone; it runs again").summary();
    assert_eq!((&summary["ran"], &summary["cached"]), (&1.into(), &1.into()));
    assert_eq!(space.run_manifest(0).summary()["cached"], 2);
}

#[test]
fn a_damaged_small_blob_is_named_and_computed_again_for_who_reads_it() {
    let small = &format!("{} | head -c 20000", noise(3));
    let space = Space::with(&shell("a", small, ""));
    space.run_manifest(0);
    let sound = space.result("a");
    let damaged = "UPDATE blobs SET bytes = zeroblob(20000)";
    assert_eq!(space.database().execute(damaged, []).unwrap(), 1);
    space.run(&["results", "cat", "a"]).expect(4).says("row 1 of .forkyard/store.db is damaged");
    space.write("m.toml", [shell("a", small, ""), reads("b", "a")].concat());
    assert_eq!(space.run_manifest(0).says("node a runs again").outcomes(), "a=ran b=ran");
    assert!(space.result("a") == sound && space.result("b") == sound);
}

#[test]
fn a_store_that_is_no_database_is_refused_until_it_is_verified() {
    let space = Space::with(&noop("a", ""));
    space.run_manifest(0);
    for file in ["store.db-wal", "store.db-shm"] {
        fs::remove_file(space.path(".forkyard").join(file)).ok();
    }
    space.write(".forkyard/store.db", [b'x'; 5000]);
    let said = space.run_manifest(4).says("store.db: file is not a database").stderr;
    assert!(said.trim_end().ends_with("run `forkyard store verify`"), "{said}");
    space.run(&["results", "ls"]).expect(4).says("store.db: file is not a database");
    space.run(&["store", "verify"]).expect(4);
    assert_eq!(space.run_manifest(0).outcomes(), "a=ran");
}

#[test]
fn a_store_of_a_newer_forkyard_is_refused() {
    let space = Space::with(&noop("a", ""));
    space.run_manifest(0);
    space.write(".forkyard/store.json", "{\"format\":99,\"what\":\"it brings\"}");
    for args in [
        "run m.toml",
        "run m.toml --failed",
        "plan m.toml",
        "tune m.toml",
        "why m.toml a",
        "runs",
        "status",
        "cancel",
        "pause",
        "logs a",
        "results ls",
        "results cat a",
        "results export x.jsonl --format jsonl",
        "store stat",
        "store ls",
        "store verify",
        "store gc --keep-runs 1",
        "context export",
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let refused = space.run(&args).expect(4);
        refused.says("has format 99, this forkyard knows format 1").says("use the forkyard that made it");
    }
    // Nothing in it was touched.
    space.write(".forkyard/store.json", "{\"format\":1,\"layout\":\"hybrid\"}");
    assert_eq!(space.run_manifest(0).outcomes(), "a=cached");
}

// ---- two at once ----

#[test]
fn a_store_in_use_is_refused_with_the_pid_of_its_user_and_readers_do_not_care() {
    let space = Space::with(&[noop("a", ""), waiting("b", "needs = [\"a\"]")].concat());
    let run = space.start_until_up();
    let ended = space.run_manifest(4);
    let user = format!("process {} is using this store", run.pid());
    assert!(ended.stderr.contains(&user), "{}", ended.stderr);
    space.wait_until_durable("a");
    assert_eq!(space.result_text("a"), "null");
    let status = space.run(&["status", "--json"]).expect(0).events().remove(0);
    assert_eq!((&status["state"], &status["pid"]), (&"running".into(), &run.pid().into()));
    space.write("go", "");
    assert_eq!(run.end().expect(0).outcomes(), "a=ran b=ran");
}
