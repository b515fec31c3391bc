//! A pool inside a program: this one. Not in the integration binary, whose harness has threads: `init` must come first,
//! and a process has one pool. So each test is a process of its own, this program once more with the test's name.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use forkyard::{Failed, Node, Ops, Output, Pool, StartError, SubmitError, Task, TaskError, Ticket, Workers};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

const TESTS: [(&str, fn()); 20] = [
    ("nodes_of_many_threads_have_their_own_results", nodes_of_many_threads_have_their_own_results),
    ("a_threads_nodes_start_in_its_order", a_threads_nodes_start_in_its_order),
    ("what_goes_wrong_has_a_type", what_goes_wrong_has_a_type),
    ("what_cannot_run_is_refused_when_it_is_submitted", what_cannot_run_is_refused_when_it_is_submitted),
    ("a_node_is_tried_as_often_as_it_says", a_node_is_tried_as_often_as_it_says),
    ("a_cancelled_node_is_not_run_or_killed", a_cancelled_node_is_not_run_or_killed),
    ("who_waits_hears_of_what_others_do", who_waits_hears_of_what_others_do),
    ("who_does_not_wait_is_answered_too", who_does_not_wait_is_answered_too),
    ("a_full_pool_makes_its_callers_wait", a_full_pool_makes_its_callers_wait),
    ("a_closed_pool_has_answered_everything", a_closed_pool_has_answered_everything),
    ("a_dropped_pool_and_a_dropped_ticket_let_nodes_run", a_dropped_pool_and_a_dropped_ticket_let_nodes_run),
    ("a_stored_result_is_not_computed_again", a_stored_result_is_not_computed_again),
    ("large_results_come_back_whole", large_results_come_back_whole),
    ("ops_see_artifacts_and_variables", ops_see_artifacts_and_variables),
    ("a_pool_that_cannot_start_says_why", a_pool_that_cannot_start_says_why),
    ("the_hosts_children_and_signals_are_its_own", the_hosts_children_and_signals_are_its_own),
    ("who_kills_the_zygote_ends_the_pool", who_kills_the_zygote_ends_the_pool),
    ("an_idle_pool_takes_no_processor_time", an_idle_pool_takes_no_processor_time),
    ("a_pool_holds_what_is_under_way_and_no_more", a_pool_holds_what_is_under_way_and_no_more),
    ("the_example_prints_what_its_readme_says", the_example_prints_what_its_readme_says),
];

fn main() -> ExitCode {
    if let Some(test) = std::env::var_os("EMBEDDING_TEST") {
        forkyard::init(ops());
        let (_, test) = TESTS.iter().find(|(name, _)| **name == *test).expect("a test of this name");
        test();
        return ExitCode::SUCCESS;
    }
    let program = std::env::current_exe().expect("we are a program");
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let mut failed = Vec::new();
    for (name, _) in TESTS.iter().filter(|(name, _)| name.contains(&filter)) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(&program);
        command.env("EMBEDDING_TEST", name).env("TMPDIR", dir.path()).current_dir(dir.path());
        let output = command.output().expect("we can be started");
        // Whatever a pool without a store needs of the file system goes with it.
        let left: Vec<_> =
            fs::read_dir(dir.path()).expect("it is there").flatten().map(|e| e.path()).collect();
        let litter = left.iter().any(|path| path.to_string_lossy().contains("/forkyard-"));
        if output.status.success() && !litter {
            println!("test {name} ... ok");
        } else {
            println!("test {name} ... FAILED: {}, left {left:?}", output.status);
            println!("{}", String::from_utf8_lossy(&output.stderr));
            failed.push(name);
        }
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn ops() -> Ops {
    Ops::standard()
        .versioned("double", 1, |task: &Task| Output::json(&(2 * task.param::<u64>("x")?)))
        .versioned("fail", 1, |_: &Task| -> Result<Output, Failed> { Err(Failed::new("as it should")) })
        .versioned("panic", 1, |_: &Task| -> Result<Output, Failed> { panic!("no way out") })
        .versioned("attempt", 1, |task: &Task| match task.attempt() {
            3 => Output::json(&3),
            attempt => Err(Failed::new(format!("attempt {attempt}"))),
        })
        .versioned("fill", 1, |task: &Task| Ok(Output::bytes(vec![7; task.param("len")?])))
        .versioned("leave", 1, |task: &Task| {
            fs::write(task.param::<PathBuf>("path")?, b"here")?;
            Ok(Output::null())
        })
        .versioned("append", 1, |task: &Task| {
            use std::io::Write;
            let mut file = fs::File::options().create(true).append(true).open("order")?;
            // In one write: two workers append to the file.
            file.write_all(format!("{}\n", task.param::<u64>("x")?).as_bytes())?;
            Ok(Output::null())
        })
        .versioned("look", 1, |task: &Task| {
            let (row, factor) = (task.param("row")?, task.state().get::<u64>("factor")?);
            let record = task.records()?.row(row).ok_or_else(|| Failed::new("no such record"))?;
            let record: serde_json::Value = serde_json::from_slice(record)?;
            task.state().set("seen", &row)?;
            Output::json(&(record["n"].as_u64().unwrap_or(0) * factor.unwrap_or(1)))
        })
}

fn pool(workers: usize) -> Pool {
    Pool::builder().workers(Workers::Fixed(workers)).start().expect("a pool")
}

fn double(x: u64) -> Node {
    Node::new("double").param("x", x)
}

fn sleep(seconds: f64) -> Node {
    Node::new("sleep").param("seconds", seconds)
}

/// Waits for what comes soon, unless it never does.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never comes: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn nodes_of_many_threads_have_their_own_results() {
    let pool = pool(2);
    thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                let one_by_one: Vec<Ticket> =
                    (0..300).map(|n| pool.submit(double(thread * 1000 + n)).expect("it is open")).collect();
                let together =
                    pool.submit_many((0..300).map(|n| double(thread * 1000 + n))).expect("it is open");
                for (n, ticket) in (0..300).chain(0..300).zip(one_by_one.iter().chain(&together)) {
                    let value = ticket.wait().expect("it succeeds");
                    assert_eq!(value.json::<u64>().expect("a number"), 2 * (thread * 1000 + n));
                    assert!(value.json::<String>().is_err(), "it is no text");
                }
            });
        }
    });
    let ticket = pool.submit(double(4)).expect("it is open");
    // Anybody may wait, as often as they like.
    let values =
        [(); 3].map(|()| ticket.wait().expect("it succeeds").bytes().expect("it is here").into_owned());
    assert!(values.iter().all(|bytes| bytes == b"8"));
    assert!(ticket.try_get().is_some_and(|value| value.is_ok()));
    assert_eq!(pool.under_way(), 0);
}

fn a_threads_nodes_start_in_its_order() {
    let pool = pool(1);
    let append = |x: u64| Node::new("append").param("x", x);
    // So that there is something to wait behind.
    let first = pool.submit(sleep(0.05)).expect("it is open");
    let tickets = pool.submit_many((0..2000).map(append)).expect("it is open");
    let last = pool.submit(append(2000)).expect("it is open");
    let urgent = pool.submit(append(9999).priority(1)).expect("it is open");
    [&first, &last, &urgent].into_iter().chain(&tickets).for_each(|t| drop(t.wait().expect("it succeeds")));
    let order = fs::read_to_string("order").expect("it was written");
    let order: Vec<u64> = order.lines().map(|line| line.parse().expect("a number")).collect();
    let of_thread: Vec<u64> = order.iter().copied().filter(|x| *x != 9999).collect();
    assert_eq!(of_thread, (0..=2000).collect::<Vec<_>>());
    assert_ne!(order.last(), Some(&9999), "what is urgent does not come last");
}

fn what_goes_wrong_has_a_type() {
    let pool = pool(2);
    let error = |node: Node| pool.submit(node).expect("it is open").wait().expect_err("it goes wrong");
    assert_eq!(error(Node::new("fail")), TaskError::Failed("as it should".into()));
    assert_eq!(error(Node::new("panic")), TaskError::Failed("the op panicked: no way out".into()));
    match error(Node::new("crash").param("signal", 11)) {
        TaskError::Crashed(why) => assert!(why.contains("SIGSEGV") && why.contains("3 workers"), "{why}"),
        other => panic!("{other:?}"),
    }
    match error(sleep(60.0).timeout(Duration::from_millis(50))) {
        TaskError::TimedOut(why) => assert!(why.contains("50"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(error(Node::new("double").param("x", "text")), TaskError::Failed(why) if why.contains("parameter x"))
    );
    // All of that was theirs alone.
    assert_eq!(
        pool.submit(double(1)).expect("it is open").wait().expect("it succeeds").json::<u64>().ok(),
        Some(2)
    );
}

fn what_cannot_run_is_refused_when_it_is_submitted() {
    let pool = pool(1);
    let refusal = |node: Node| match pool.submit(node).expect_err("it cannot run") {
        SubmitError::Wrong(why) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(Node::new("doubel")), "there is no op `doubel`; did you mean `double`?");
    assert_eq!(refusal(Node::new("topk").artifact("m")), "there is no artifact `m`");
    assert!(refusal(Node::new("topk").param("row", 1)).contains("needs an artifact"));
    assert!(refusal(Node::new("sleep").param("second", 1)).contains("did you mean `seconds`?"));
    assert!(refusal(Node::new("sleep")).contains("needs `seconds`"));
    assert!(refusal(Node::new("sleep").param("seconds", "long")).contains("must be"));
    assert!(refusal(Node::new("python").param("call", "m:f")).contains("manifests"));
    let unwritable = std::collections::HashMap::from([((1, 2), 3)]);
    assert!(refusal(Node::new("double").param("x", unwritable)).contains("cannot be JSON"));
    let nodes = [double(1), Node::new("nothing")];
    assert!(matches!(pool.submit_many(nodes), Err(SubmitError::Wrong(_))));
    assert_eq!(pool.under_way(), 0, "all or none");
}

fn a_node_is_tried_as_often_as_it_says() {
    let pool = pool(1);
    let attempt = |times| Node::new("attempt").retry(times, Duration::from_millis(1));
    let value = pool.submit(attempt(3)).expect("it is open").wait().expect("the third time");
    assert_eq!(value.json::<u64>().ok(), Some(3));
    let error = pool.submit(attempt(2)).expect("it is open").wait().expect_err("twice is not enough");
    assert_eq!(error, TaskError::Failed("attempt 2".into()));
    let crashes = Node::new("crash").param("signal", 9).param("times", 2);
    pool.submit(crashes).expect("it is open").wait().expect("crashes cost no attempt");
}

fn a_cancelled_node_is_not_run_or_killed() {
    let pool = pool(1);
    let running = pool.submit(sleep(600.0)).expect("it is open");
    let waiting = pool.submit(Node::new("leave").param("path", "waiting")).expect("it is open");
    assert!(running.wait_timeout(Duration::from_millis(200)).expect("it goes on").is_none());
    waiting.cancel();
    assert_eq!(waiting.wait().expect_err("it is cancelled"), TaskError::Cancelled);
    running.cancel();
    running.cancel();
    assert_eq!(running.wait().expect_err("it is cancelled"), TaskError::Cancelled);
    // Numbers are given to others now; whatever comes back of the cancelled ones is nobody's.
    let tickets = pool.submit_many((0..500).map(double)).expect("it is open");
    for (n, ticket) in (0..).zip(&tickets) {
        assert_eq!(ticket.wait().expect("it succeeds").json::<u64>().ok(), Some(2 * n));
    }
    tickets[0].cancel();
    assert!(tickets[0].wait().is_ok(), "it has its answer");
    // From another thread than the one that submits, and at any moment.
    for n in 0..300 {
        let ticket = pool.submit(double(n)).expect("it is open");
        thread::scope(|scope| {
            scope.spawn(|| ticket.cancel());
        });
        match ticket.wait() {
            Ok(value) => assert_eq!(value.json::<u64>().ok(), Some(2 * n)),
            Err(error) => assert_eq!(error, TaskError::Cancelled),
        }
    }
    pool.close().expect("it is well");
    assert!(!Path::new("waiting").exists());
}

fn who_waits_hears_of_what_others_do() {
    let pool = pool(2);
    for pause in [0, 0, 20, 20] {
        let long = pool.submit(sleep(600.0)).expect("it is open");
        thread::scope(|scope| {
            let waits = scope.spawn(|| long.wait());
            // It may be asleep by now, or not.
            thread::sleep(Duration::from_millis(pause));
            for n in 0..20 {
                let other = pool.submit(double(n)).expect("it is open").wait().expect("it succeeds");
                assert_eq!(other.json::<u64>().ok(), Some(2 * n));
            }
            let late = pool.submit(sleep(600.0).timeout(Duration::from_millis(30))).expect("it is open");
            assert!(matches!(late.wait(), Err(TaskError::TimedOut(_))));
            long.cancel();
            let error = waits.join().expect("it does not panic").expect_err("it is cancelled");
            assert_eq!(error, TaskError::Cancelled);
        });
    }
    // One that does not wait to the end leaves the rest to others.
    let long = pool.submit(sleep(600.0)).expect("it is open");
    let short = pool.submit(sleep(0.1)).expect("it is open");
    thread::scope(|scope| {
        let waits = scope.spawn(|| short.wait());
        assert!(long.wait_timeout(Duration::from_millis(20)).expect("it goes on").is_none());
        waits.join().expect("it does not panic").expect("it succeeds");
    });
    long.cancel();
    pool.close().expect("it is well");
}

fn who_does_not_wait_is_answered_too() {
    let pool = pool(1);
    for n in 0..200 {
        pool.submit(double(n)).expect("it is open").wait().expect("it succeeds");
        let ticket = pool.submit(double(n)).expect("it is open");
        until("an answer", || ticket.try_get().is_some());
    }
    for path in ["first", "second"] {
        pool.submit(double(1)).expect("it is open").wait().expect("it succeeds");
        drop(pool.submit(Node::new("leave").param("path", path)).expect("it is open"));
        until("a file", || Path::new(path).exists());
    }
    pool.close().expect("it is well");
}

fn a_full_pool_makes_its_callers_wait() {
    let pool = Pool::builder().workers(Workers::Fixed(1)).bound(3).start().expect("a pool");
    let under_way: Vec<Ticket> =
        (0..3).map(|_| pool.try_submit(sleep(600.0)).expect("there is room")).collect();
    assert_eq!(pool.try_submit(double(1)).expect_err("there is none"), SubmitError::Full);
    thread::scope(|scope| {
        let waits = scope.spawn(|| pool.submit(double(2)).expect("there is room later").wait());
        let many = scope.spawn(|| pool.submit_many((0..50).map(double)).expect("there is room later"));
        under_way.iter().for_each(Ticket::cancel);
        assert_eq!(waits.join().expect("it ends").expect("it succeeds").json::<u64>().ok(), Some(4));
        assert!(many.join().expect("it ends").iter().all(|ticket| ticket.wait().is_ok()));
    });
}

fn a_closed_pool_has_answered_everything() {
    let pool = Arc::new(pool(2));
    let tickets = pool.submit_many((0..3000).map(double)).expect("it is open");
    let others = {
        let pool = pool.clone();
        thread::spawn(move || {
            let mut tickets = Vec::new();
            loop {
                match pool.submit(double(1)) {
                    Ok(ticket) => tickets.push(ticket),
                    Err(SubmitError::Closed(_)) => return tickets,
                    Err(other) => panic!("{other:?}"),
                }
            }
        })
    };
    pool.close().expect("it is well");
    pool.close().expect("nothing happens");
    for ticket in tickets.iter().chain(&others.join().expect("it ends")) {
        assert!(ticket.try_get().expect("it was answered before the end").is_ok());
    }
    assert!(matches!(pool.try_submit(double(1)), Err(SubmitError::Closed(why)) if why.contains("closed")));
    match Pool::builder().start() {
        Err(StartError::NoZygote(why)) => assert!(why.contains("already"), "{why}"),
        other => panic!("{:?}", other.map(drop)),
    }
}

fn a_dropped_pool_and_a_dropped_ticket_let_nodes_run() {
    let pool = pool(2);
    let path = |n: u32| format!("left-{n}");
    for n in 0..50 {
        drop(pool.submit(Node::new("leave").param("path", path(n))).expect("it is open"));
    }
    let kept = pool.submit(double(21)).expect("it is open");
    drop(pool);
    assert!((0..50).all(|n| Path::new(&path(n)).exists()));
    assert_eq!(kept.wait().expect("it was answered").json::<u64>().ok(), Some(42));
}

fn a_stored_result_is_not_computed_again() {
    let append = |x: u64| Node::new("append").param("x", x);
    // A process has one pool: the second run is another one.
    let again = Path::new("order").exists();
    let pool = Pool::builder().workers(Workers::Fixed(2)).store("kept").start().expect("a pool");
    let mut nodes: Vec<Node> = (0..20).map(append).collect();
    nodes.extend((0..5).map(append));
    nodes.push(append(0).salt("another"));
    nodes.push(append(0).cache(false));
    nodes.push(Node::new("fill").param("len", 100_000));
    let tickets = pool.submit_many(nodes).expect("it is open");
    tickets.iter().for_each(|ticket| drop(ticket.wait().expect("it succeeds")));
    assert_eq!(tickets[27].wait().expect("it did").bytes().expect("it is stored"), vec![7; 100_000]);
    pool.close().expect("it is well");
    let order = fs::read_to_string("order").expect("it was written");
    let ran: Vec<&str> = order.lines().collect();
    assert_eq!(ran.iter().collect::<BTreeSet<_>>().len(), 20);
    if again {
        assert_eq!(ran.len(), 23, "only what is not to be cached runs again");
    } else {
        assert_eq!(ran.len(), 22, "identical ones run once");
        let program = std::env::current_exe().expect("we are a program");
        assert!(Command::new(program).status().expect("we can be started").success());
    }
    // A large result can be read when the pool is gone.
    assert_eq!(tickets[27].wait().expect("it did").bytes().expect("it is stored").len(), 100_000);
}

fn large_results_come_back_whole() {
    let pool = pool(2);
    let lens = [0, 1, 32 << 10, (32 << 10) + 1, 1 << 20, 20 << 20, 1 << 20];
    let tickets = pool.submit_many(lens.map(|len| Node::new("fill").param("len", len))).expect("it is open");
    for (len, ticket) in lens.iter().zip(&tickets) {
        let value = ticket.wait().expect("it succeeds");
        let bytes = value.bytes().expect("it is here");
        assert!(bytes.len() == *len && bytes.iter().all(|byte| *byte == 7));
    }
    let files = |dir: &Path| {
        walk(dir).into_iter().filter(|path| fs::metadata(path).is_ok_and(|m| m.len() > 4096)).count()
    };
    assert_eq!(files(&std::env::temp_dir()), 0, "what has been handed over takes no room");
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn ops_see_artifacts_and_variables() {
    fs::write("a.jsonl", "{\"id\": 1, \"n\": 5}\n{\"id\": 2, \"n\": 6}\n").expect("there is room");
    fs::write("b.jsonl", "{\"id\": 1, \"n\": 70}\n").expect("there is room");
    let pool = Pool::builder()
        .artifact("a", "a.jsonl")
        .pinned("b", "b.jsonl")
        .var("factor", 10)
        .var("other", "x")
        .workers(Workers::Fixed(2))
        .start()
        .expect("a pool");
    let look = |artifact: &str, row: u64| Node::new("look").artifact(artifact).param("row", row);
    let number = |node: Node| pool.submit(node).expect("it is open").wait();
    let value = number(look("a", 1).reads("factor")).expect("it succeeds");
    assert_eq!(value.json::<u64>().ok(), Some(60));
    assert_eq!(value.written().collect::<Vec<_>>(), [("seen", Some(&b"1"[..]))]);
    assert_eq!(number(look("b", 0).reads("factor")).expect("it succeeds").json::<u64>().ok(), Some(700));
    // Whoever does not say what it reads does not get it.
    assert!(matches!(number(look("a", 1)), Err(TaskError::Failed(why)) if why.contains("factor")));
    assert!(matches!(number(look("a", 9).reads("factor")), Err(TaskError::Failed(_))));
}

fn a_pool_that_cannot_start_says_why() {
    let start = |builder: forkyard::Builder| builder.start().map(drop).expect_err("it cannot start");
    let error = start(Pool::builder().artifact("m", "nowhere.npy"));
    assert!(matches!(&error, StartError::Artifact(why) if why.contains("nowhere.npy")), "{error}");
    let error = start(Pool::builder().artifact("m", "a").artifact("m", "b"));
    assert!(matches!(&error, StartError::Settings(why) if why.contains("`m`")), "{error}");
    fs::write("file", "x").expect("there is room");
    let error = start(Pool::builder().store("file"));
    assert!(matches!(&error, StartError::Store(_)), "{error}");
    // None of that has cost the process its pool.
    assert!(pool(1).submit(double(1)).expect("it is open").wait().is_ok());
}

/// Of processes that this one has started itself.
fn the_hosts_children_and_signals_are_its_own() {
    let before = SigSet::thread_get_mask().expect("a mask");
    let handled = |line: &str| {
        let status = fs::read_to_string("/proc/self/status").expect("it is there");
        status.lines().find(|found| found.starts_with(line)).map(String::from)
    };
    // With the first thread the C library takes two signals for itself.
    thread::spawn(|| ()).join().expect("it ends");
    let signals = ["SigIgn:", "SigCgt:"].map(handled);
    let mut child = Command::new("sleep").arg("600").spawn().expect("there is such a program");
    let pool = pool(2);
    let tickets = pool.submit_many((0..100).map(double)).expect("it is open");
    tickets.iter().for_each(|ticket| drop(ticket.wait().expect("it succeeds")));
    let mut later = Command::new("sleep").arg("600").spawn().expect("there is such a program");
    let crash = Node::new("crash").param("signal", 9);
    pool.submit(crash).expect("it is open").wait().expect_err("it crashes");
    pool.close().expect("it is well");
    assert_eq!(SigSet::thread_get_mask().expect("a mask"), before);
    assert_eq!(["SigIgn:", "SigCgt:"].map(handled), signals);
    for child in [&mut child, &mut later] {
        assert!(child.try_wait().expect("it is ours").is_none(), "it was killed with the pool");
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it lives");
        let end = waitpid(Pid::from_raw(child.id() as i32), None).expect("it is ours to wait for");
        assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGINT, _)), "{end:?}");
    }
    assert!(children().is_empty(), "nothing of the pool is left");
}

fn children() -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task").expect("it is there").flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().map(|pid| pid.parse().expect("a number")).collect::<Vec<_>>()
        })
        .collect()
}

fn who_kills_the_zygote_ends_the_pool() {
    let zygote = children();
    assert_eq!(zygote.len(), 1);
    let mut own = Command::new("sleep").arg("600").spawn().expect("there is such a program");
    let pool = pool(2);
    let tickets: Vec<Ticket> = (0..10).map(|_| pool.submit(sleep(600.0)).expect("it is open")).collect();
    let below = format!("/proc/{0}/task/{0}/children", zygote[0]);
    until("a worker", || fs::read_to_string(&below).is_ok_and(|list| !list.is_empty()));
    kill(Pid::from_raw(zygote[0]), Signal::SIGKILL).expect("it lives");
    for ticket in &tickets {
        let error = ticket.wait().expect_err("its worker is gone");
        assert!(matches!(&error, TaskError::PoolEnded(why) if why.contains("zygote")), "{error:?}");
    }
    assert!(matches!(pool.submit(double(1)), Err(SubmitError::Closed(why)) if why.contains("zygote")));
    assert!(matches!(pool.close(), Err(SubmitError::Closed(_))));
    assert!(own.try_wait().expect("it is ours").is_none(), "it was killed with the pool");
    own.kill().expect("it lives");
    own.wait().expect("it is ours");
    assert!(children().is_empty(), "nothing of the pool is left");
}

fn an_idle_pool_takes_no_processor_time() {
    let pool = pool(2);
    pool.submit(double(1)).expect("it is open").wait().expect("it succeeds");
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).expect("it can be had");
        let time = usage.user_time() + usage.system_time();
        let time = Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64);
        (time, usage.voluntary_context_switches())
    };
    // What has just ended may still be looked after; and what is due each second has been done once.
    thread::sleep(Duration::from_millis(1200));
    let before = used();
    thread::sleep(Duration::from_secs(1));
    let (took, woken) = (used().0 - before.0, used().1 - before.1);
    assert!(took < Duration::from_millis(50), "{took:?} in an idle second");
    assert!(woken < 100, "woken {woken} times in an idle second");
}

fn a_pool_holds_what_is_under_way_and_no_more() {
    let pool = Pool::builder().workers(Workers::Fixed(2)).bound(2_000).start().expect("a pool");
    let resident_kb = || {
        let status = fs::read_to_string("/proc/self/status").expect("it is there");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is said");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    let go_through = |nodes: u64| {
        for from in (0..nodes).step_by(2_000) {
            let tickets = pool.submit_many((from..from + 2_000).map(double)).expect("it is open");
            tickets.iter().for_each(|ticket| drop(ticket.wait().expect("it succeeds")));
        }
    };
    go_through(20_000);
    let before = resident_kb();
    go_through(60_000);
    let grown = resident_kb().saturating_sub(before);
    // 100 bytes for each would be 6,000.
    assert!(grown < 4_000, "{grown} kB more after 60,000 nodes more");
}

/// `examples/rust-ops`, which is built with the tests.
fn the_example_prints_what_its_readme_says() {
    let tests = std::env::current_exe().expect("we are a program");
    let program = tests.ancestors().nth(2).expect("a target directory").join("examples/rust-ops");
    assert!(program.exists(), "{} is missing: cargo build --example rust-ops", program.display());
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rust-ops");
    fs::copy(example.join("stations.jsonl"), "stations.jsonl").expect("there is room");
    let readme = fs::read_to_string(example.join("README.md")).expect("it is there");
    let (_, printed) = readme.split_once("    ...\n").expect("what it prints");
    let printed: Vec<&str> = printed.lines().map_while(|line| line.strip_prefix("    ")).collect();
    assert_eq!(printed.len(), 4);
    let run = |args: &[&str]| {
        let output = Command::new(&program).args(args).output().expect("it can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let computed = String::from_utf8_lossy(&output.stderr).matches("computing").count();
        (String::from_utf8_lossy(&output.stdout).into_owned(), computed)
    };
    let (first, computed) = run(&[]);
    assert_eq!((first.lines().collect::<Vec<_>>(), computed), (printed, 6));
    assert_eq!(run(&[]), (first, 0), "nothing is computed again");
    assert_eq!(run(&["10"]).1, 6, "another baseline is another node");
}
