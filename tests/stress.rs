//! `forkyard stress`: the real pool under load, on purpose. What is promised is checked by the command itself; nothing
//! here looks at times.

use serde_json::Value;

use crate::util::Space;

/// Runs a stress, which must keep what it promises and leave nothing.
fn stress(args: &[&str]) -> Value {
    let space = Space::new();
    let ended = space.run(&[&["stress"], args, &["--json"]].concat()).expect(0);
    let report = ended.events().pop().expect("one object");
    assert_eq!(report["v"], 1);
    for promise in report["promises"].as_array().expect("a list") {
        assert_eq!(promise["kept"], true, "{promise}");
        assert!(promise["promise"].is_string() && promise["evidence"].is_string(), "{promise}");
    }
    for (what, left) in report["leaks"].as_object().expect("by kind") {
        assert_eq!(left, &Value::Array(Vec::new()), "{what}");
    }
    assert!(report["figures"]["nodes"].as_f64().is_some_and(|nodes| nodes > 0.0), "{report}");
    let own: Vec<_> = std::fs::read_dir(space.path("")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(own.is_empty(), "left behind: {own:?}");
    assert!(space.processes().is_empty());
    report
}

#[test]
fn all_of_it_keeps_what_it_promises() {
    let report = stress(&["--seconds", "60", "--seed", "7", "--workers", "3"]);
    assert_eq!(
        (&report["profile"], &report["seed"], &report["workers"]),
        (&"mixed".into(), &7.into(), &3.into())
    );
    assert!(report["figures"]["forks"].as_f64() > Some(3.0), "workers died: {report}");
    assert!(report["floors"]["fork_s"].as_f64() > Some(0.0), "{report}");
}

#[test]
fn so_many_tasks_are_run_to_their_end() {
    let report = stress(&["mixed", "--tasks", "9000", "--workers", "2"]);
    let evidence = report["promises"][0]["evidence"].as_str().expect("text");
    assert!(evidence.ends_with(" ended, 0 not begun in time"), "{evidence}");
}

#[test]
fn nodes_that_crash_hang_and_fail_once_all_end_after_exactly_so_many_attempts() {
    let report = stress(&["trouble", "--tasks", "20000", "--workers", "40"]);
    let evidence = report["promises"][0]["evidence"].as_str().expect("text");
    // The items of four nodes, and these; no other number would do.
    assert_eq!(evidence, "20,004 nodes ended, 0 not begun in time");
    // Each that crashed or hung has cost a worker.
    assert!(report["figures"]["forks"].as_f64() > Some(200.0 + 200.0), "{report}");
}

#[test]
fn each_profile_measures_its_own() {
    for (profile, tasks, figures) in [
        ("throughput", "500", &["nodes_per_s"][..]),
        ("latency", "60", &["node_to_node_p50_s", "node_to_node_p99_s", "node_to_node_max_s"]),
        ("fork", "60", &["forks_per_s", "recovery_p50_s"]),
        // A scan of all of it takes its time without optimisation.
        ("memory", "2", &["pss_bytes", "worker_private_bytes", "page_table_bytes"]),
        ("store", "60", &["bytes_per_s", "stored_bytes"]),
    ] {
        let report = stress(&[profile, "--tasks", tasks, "--workers", "2"]);
        for figure in figures {
            assert!(report["figures"][figure].as_f64() > Some(0.0), "{profile}: {figure}: {report}");
        }
    }
}

#[test]
fn a_broken_promise_is_named_with_its_evidence() {
    let space = Space::new();
    // Each process may have 50 MB of memory that it writes to: nodes that take 64 MiB fail, and are not to.
    let stress = format!(
        "ulimit -d 50000; exec {} stress memory --tasks 1 --workers 1",
        env!("CARGO_BIN_EXE_forkyard")
    );
    let ended = space.start_shell(&stress).end().expect(1);
    let ended = ended.says("forkyard: broken: every node ends once, as it should");
    assert!(ended.stderr.contains("allocate 67108864 bytes: the system has no room"), "{}", ended.stderr);
}

#[test]
fn what_a_killed_stress_left_is_cleared_by_the_next() {
    let space = Space::new();
    std::fs::create_dir(space.path(".forkyard-stress-1")).unwrap();
    space.write(".forkyard-stress-1/owner", "");
    space.run(&["stress", "throughput", "--tasks", "10", "--workers", "1"]).expect(0);
    assert!(!space.path(".forkyard-stress-1").exists());
}
