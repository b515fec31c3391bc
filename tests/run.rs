//! What a run does when nothing goes wrong: what its nodes return, when they are run again, what a store
//! tells afterwards.

use std::io::Write;

use crate::util::{RUN, Space, eventually, matrix, text};

/// A node of `exec` that notes in `log` that it ran, and prints its id.
fn noted(id: &str, more: &str) -> String {
    format!(
        "[[node]]\nid = \"{id}\"\nop = \"exec\"\nrun = [\"/bin/sh\", \"-c\", \"echo {id} >> log; echo {id}\"]\n{more}\n"
    )
}

#[test]
fn nodes_run_after_what_they_need_and_are_cached_the_second_time() {
    let space = Space::with(&format!(
        "{}{}[[node]]\nid = \"c\"\nop = \"noop\"\nneeds = [\"b\"]\n[[node]]\nid = \"d\"\nop = \"value\"\nparams = {{ value = [1, \"x\"] }}\n",
        noted("b", "needs = [\"a\"]"),
        noted("a", "")
    ));
    let first = space.run_manifest(0);
    assert_eq!(first.outcomes(), "a=ran b=ran c=ran d=ran");
    assert_eq!(space.text("log"), "a\nb\n");
    assert_eq!(space.result_text("a"), "a\n");
    assert_eq!(space.result_text("c"), "null");
    assert_eq!(space.result_text("d"), "[1,\"x\"]");
    let second = space.run_manifest(0);
    assert_eq!(second.outcomes(), "a=cached b=cached c=cached d=cached");
    assert!(second.events_named("worker_started").is_empty(), "there was nothing for a worker to do");
    assert_eq!(space.text("log"), "a\nb\n");
    space.expect_nothing_left();
}

#[test]
fn a_small_result_goes_by_reference_into_a_parameter_stdin_and_inputs() {
    let space = Space::with(
        r#"
        [[node]]
        id = "word"
        op = "value"
        params = { value = { b = 1, a = "ü" } }
        [[node]]
        id = "again"
        op = "value"
        params = { value = "{{ nodes.word.result }}" }
        [[node]]
        id = "read"
        op = "exec"
        run = ["/bin/sh", "-c", "cat; cat $FORKYARD_INPUT_THE_WORD; test ! -w / || stat -c %a $FORKYARD_INPUT_THE_WORD"]
        stdin = "{{ nodes.word.result }}"
        inputs = { the-word = "{{ nodes.again.result }}" }
        "#,
    );
    space.run_manifest(0);
    assert_eq!(space.result_text("again"), "{\"a\":\"ü\",\"b\":1}", "canonical, and the same");
    assert_eq!(space.result_text("read"), "{\"a\":\"ü\",\"b\":1}{\"a\":\"ü\",\"b\":1}400\n");
}

#[test]
fn a_large_result_goes_by_reference_as_a_blob() {
    let space = Space::with(
        r#"
        [[node]]
        id = "big"
        op = "exec"
        run = ["/bin/sh", "-c", "yes | head -c 100000"]
        [[node]]
        id = "read"
        op = "exec"
        run = ["/bin/sh", "-c", "wc -c; wc -c < $FORKYARD_INPUT_IT; stat -c %a $FORKYARD_INPUT_IT"]
        stdin = "{{ nodes.big.result }}"
        inputs = { it = "{{ nodes.big.result }}" }
        [[node]]
        id = "same"
        op = "value"
        params = { value = "{{ nodes.big.result }}" }
        "#,
    );
    space.run_manifest(0);
    assert_eq!(space.result_text("read"), "100000\n100000\n400\n");
    assert_eq!(space.result("big"), b"y\n".repeat(50_000));
    let results = space.results();
    assert_eq!(results["same"].1, results["big"].1);
    let blob = space.only_blob();
    assert_eq!(std::fs::read(&blob).unwrap().len(), 100_000);
    assert_eq!(blob.file_name().unwrap().to_str().unwrap(), results["big"].1);
}

#[test]
fn a_manifest_may_be_in_pieces_packed_or_on_stdin() {
    let space = Space::with(
        "[run]\ninclude = [\"more/b.jsonl.gz\", \"c.jsonl\"]\n[[node]]\nid = \"a\"\nop = \"noop\"\nneeds = [\"b\"]\n",
    );
    std::fs::create_dir(space.path("more")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // A relative path is relative to its own file.
    packed.write_all(b"{\"id\":\"b\",\"op\":\"exec\",\"run\":[\"/bin/pwd\"],\"needs\":[\"c\"]}\n").unwrap();
    space.write("more/b.jsonl.gz", packed.finish().unwrap());
    let last = b"{\"forkyard\":1,\"run\":{\"name\":\"c\"}}\n\n{\"id\":\"c\",\"op\":\"noop\"}";
    space.write("c.jsonl", zstd::encode_all(&last[..], 1).unwrap());
    assert_eq!(space.run_manifest(0).outcomes(), "a=ran b=ran c=ran");
    let dir = std::fs::canonicalize(space.path("more")).unwrap();
    assert_eq!(space.result_text("b"), format!("{}\n", dir.display()));

    let stdin = ["run", "-", "--json", "--events", "all"];
    let ended = space.run_with_stdin(&stdin, b"{\"id\":\"c\",\"op\":\"noop\"}\n").expect(0);
    assert_eq!(ended.outcomes(), "c=cached");
    let ended = space.run_with_stdin(&stdin, b"[[node]]\nid = \"c\"\nop = \"noopp\"\n").expect(2);
    assert!(ended.stderr.contains("<stdin>:3:1: there is no op `noopp`"), "{}", ended.stderr);
}

#[test]
fn only_refresh_and_dry_run() {
    let space = Space::with(&[noted("a", ""), noted("b", "needs = [\"a\"]"), noted("c", "")].concat());
    let with = |args: &[&str]| space.run(&[&RUN[..], args].concat()).expect(0);

    let dry = with(&["--dry-run"]);
    assert_eq!(String::from_utf8(dry.stdout).unwrap(), "a\nb\nc\n");
    assert!(!space.path(".forkyard").exists() && space.text("log").is_empty());

    let only = with(&["--only", "b"]);
    assert_eq!(only.outcomes(), "a=ran b=ran");
    assert_eq!(only.summary()["nodes"], 2);
    assert_eq!(String::from_utf8(with(&["--dry-run"]).stdout).unwrap(), "c\n");
    assert_eq!(with(&["--refresh", "a"]).outcomes(), "a=ran b=cached c=ran");
    let mut log: Vec<String> = space.text("log").lines().map(String::from).collect();
    log.sort();
    assert_eq!(log, ["a", "a", "b", "c"]);
}

#[test]
fn identical_nodes_run_once() {
    let twin = |id: &str| {
        let run = "[\"/bin/sh\", \"-c\", \"echo x >> log; echo x\"]";
        format!("[[node]]\nid = \"{id}\"\nop = \"exec\"\nrun = {run}\n")
    };
    let reader = "[[node]]\nid = \"r\"\nop = \"value\"\nparams = { value = \"{{ nodes.c.result }}\" }\n";
    let space = Space::with(&[twin("a"), twin("b"), twin("c"), reader.into()].concat());
    let ended = space.run_manifest(0);
    assert_eq!(space.text("log"), "x\n");
    assert_eq!((&ended.summary()["ran"], &ended.summary()["cached"]), (&2.into(), &2.into()));
    for node in ["a", "b", "c", "r"] {
        assert_eq!(space.result_text(node), "x\n");
    }
}

#[test]
fn effects_are_had_by_each_node_but_once() {
    let sleep =
        |id: &str| format!("[[node]]\nid = \"{id}\"\nop = \"sleep\"\nparams = {{ seconds = 0.001 }}\n");
    let spin = "[[node]]\nid = \"c\"\nop = \"spin\"\nparams = { seconds = 0.001 }\n";
    let alloc = "[[node]]\nid = \"d\"\nop = \"alloc\"\nparams = { bytes = 5000000, seconds = 0 }\n";
    let space = Space::with(&[&sleep("a"), &sleep("b"), spin, alloc].concat());
    assert_eq!(space.run_manifest(0).outcomes(), "a=ran b=ran c=ran d=ran");
    assert_eq!(space.run_manifest(0).outcomes(), "a=cached b=cached c=cached d=cached");
}

#[test]
fn what_is_not_cached_runs_each_time_and_salt_makes_a_sample_of_its_own() {
    let space = Space::with(&[noted("a", "cache = false"), noted("b", "needs = [\"a\"]")].concat());
    assert_eq!(space.run_manifest(0).outcomes(), "a=ran b=ran");
    assert_eq!(space.run_manifest(0).outcomes(), "a=ran b=cached");
    assert_eq!(space.text("log"), "a\nb\na\n");
    for (salt, outcome) in [("salt = 1", "b=ran"), ("salt = 2", "b=ran"), ("salt = 1", "b=cached")] {
        space.write("m.toml", noted("b", salt));
        assert_eq!(space.run_manifest(0).outcomes(), outcome, "{salt}");
    }
}

#[test]
fn a_change_of_anything_that_a_node_reads_runs_it_again() {
    let space = Space::new();
    space.write("script.sh", "cat data");
    space.write("data", "1");
    space.write("m.npy", matrix(&[&[1.0, 0.0]]));
    let manifest = |env: &str| {
        format!(
            "[artifacts.m]\npath = \"m.npy\"\n[[node]]\nid = \"a\"\nop = \"exec\"\nrun = [\"/bin/sh\", \"script.sh\"]\nfiles = [\"data\"]\nartifact = \"m\"\nenv = {{ X = \"{env}\" }}\n"
        )
    };
    let outcome = || space.run_manifest(0).outcomes();
    space.write("m.toml", manifest("1"));
    assert_eq!(outcome(), "a=ran");
    assert_eq!(outcome(), "a=cached");
    space.write("script.sh", "cat data data");
    assert_eq!(outcome(), "a=ran");
    assert_eq!(space.result_text("a"), "11");
    space.write("data", "2");
    assert_eq!(outcome(), "a=ran");
    assert_eq!(space.result_text("a"), "22");
    space.write("m.npy", matrix(&[&[0.0, 1.0]]));
    assert_eq!(outcome(), "a=ran");
    space.write("m.toml", manifest("2"));
    assert_eq!(outcome(), "a=ran");
    // What it was before is still known.
    space.write("m.toml", manifest("1"));
    space.write("data", "1");
    space.write("m.npy", matrix(&[&[1.0, 0.0]]));
    assert_eq!(outcome(), "a=cached");
    // A copy of the file is as good as the file: what counts is its bytes.
    space.write("copy", "1");
    std::fs::rename(space.path("copy"), space.path("data")).unwrap();
    assert_eq!(outcome(), "a=cached");
    std::fs::remove_file(space.path("data")).unwrap();
    space.run_manifest(1).says("`files` names ").says("No such file");
}

#[test]
fn the_environment_of_a_command_is_what_was_promised() {
    let space = Space::new();
    space.write("m.npy", matrix(&[&[1.0]]));
    space.write(
        "m.toml",
        r#"
        [artifacts.the-matrix]
        path = "m.npy"
        [artifacts.other]
        path = "m.npy"
        [[node]]
        id = "v"
        op = "value"
        params = { value = 1 }
        [[node]]
        id = "a"
        op = "exec"
        run = ["/usr/bin/env"]
        artifacts = ["the-matrix"]
        inputs = { in = "{{ nodes.v.result }}" }
        env = { DECLARED = "yes and no", LANG = "C" }
        "#,
    );
    space.run_manifest(0);
    let home = space.path("");
    let home = home.to_str().unwrap().trim_end_matches('/');
    let result = space.result_text("a");
    let mut lines: Vec<&str> = result.lines().collect();
    lines.sort_unstable();
    let (names, values): (Vec<&str>, Vec<&str>) = lines.iter().filter_map(|l| l.split_once('=')).unzip();
    let expected = [
        "DECLARED",
        "FORKYARD_ARTIFACT_THE_MATRIX",
        "FORKYARD_INPUT_IN",
        "FORKYARD_RUN",
        "FORKYARD_SCRATCH",
        "HOME",
        "LANG",
        "PATH",
    ];
    assert_eq!(names, expected);
    assert_eq!([values[0], values[5], values[6], values[7]], ["yes and no", home, "C", "/usr/bin:/bin"]);
    let tmp = format!("{home}/.forkyard/tmp/");
    assert!([1, 2, 4].iter().all(|at| values[*at].starts_with(&tmp)), "{values:?}");
    assert!(values[1].ends_with(".npy"), "programs tell a file's format by its suffix");
}

#[test]
fn a_command_finds_its_scratch_directory_empty_whatever_was_done_to_the_one_before() {
    let tricks = [
        "true",
        "touch $FORKYARD_SCRATCH/left",
        "mkdir -p $FORKYARD_SCRATCH/a/b",
        "rmdir $FORKYARD_SCRATCH",
        "chmod 500 $FORKYARD_SCRATCH",
        "cd $FORKYARD_SCRATCH && { sleep 1000 & }",
        "true",
    ];
    let nodes = tricks.iter().enumerate().map(|(at, trick)| {
        let needs = if at > 0 { format!("needs = ['n{}']", at - 1) } else { String::new() };
        let look = "ls -A $FORKYARD_SCRATCH; stat -c %a $FORKYARD_SCRATCH";
        format!("[[node]]\nid = 'n{at}'\nop = 'exec'\n{needs}\nshell = true\nrun = '{look}; {trick}'\n")
    });
    let space = Space::with(&nodes.collect::<String>());
    space.run_manifest(0);
    let seen: Vec<String> = (0..tricks.len()).map(|at| space.result_text(&format!("n{at}"))).collect();
    assert_eq!(seen[0].lines().count(), 1, "it is not empty: {}", seen[0]);
    for (at, seen_then) in seen.iter().enumerate() {
        assert_eq!(*seen_then, seen[0], "before {:?}", tricks[at]);
    }
}

#[test]
fn the_output_of_a_command_is_text_json_bytes_or_a_file() {
    let space = Space::with(
        r#"
        [[node]]
        id = "text"
        op = "exec"
        run = ["echo", "2"]
        [[node]]
        id = "json"
        op = "exec"
        run = ["echo", " { \"b\": 1, \"a\": 2 } "]
        output = "json"
        [[node]]
        id = "bytes"
        op = "exec"
        run = ['printf', '\377\000']
        output = "bytes"
        [[node]]
        id = "file"
        op = "exec"
        run = ["echo noise; echo signal > $FORKYARD_SCRATCH/out.txt"]
        shell = true
        output = "out.txt"
        [[node]]
        id = "not-json"
        op = "exec"
        run = ["echo", "{"]
        output = "json"
        [[node]]
        id = "no-file"
        op = "exec"
        run = ["true"]
        output = "out.txt"
        [[node]]
        id = "outside"
        op = "exec"
        run = ["ln -s /etc/passwd $FORKYARD_SCRATCH/out.txt"]
        shell = true
        output = "out.txt"
        [[node]]
        id = "pipe"
        op = "exec"
        run = ["mkfifo $FORKYARD_SCRATCH/out.txt"]
        shell = true
        output = "out.txt"
        [[node]]
        id = "dir"
        op = "exec"
        run = ["mkdir $FORKYARD_SCRATCH/out"]
        shell = true
        output = "out"
        "#,
    );
    let ended = space.run(&[&RUN[..], &["--keep-going"]].concat()).expect(1);
    let failed = "dir=failed file=ran json=ran no-file=failed not-json=failed outside=failed pipe=failed";
    assert_eq!(ended.outcomes(), format!("bytes=ran {failed} text=ran"));
    assert_eq!(space.result("text"), b"2\n");
    assert_eq!(space.result("json"), b"{\"a\":2,\"b\":1}");
    assert_eq!(space.result("bytes"), b"\xff\0");
    assert_eq!(space.result("file"), b"signal\n");
    let error = |node: &str| ended.node(node)["error"].as_str().unwrap().to_string();
    assert!(error("not-json").starts_with("output = \"json\", but stdout is not one JSON value"));
    assert!(error("no-file").ends_with("in $FORKYARD_SCRATCH, but the command left no such file there"));
    assert!(error("outside").ends_with("but it leads to /etc/passwd"));
    assert!(error("pipe").ends_with("but it is not a regular file"));
    assert!(error("dir").ends_with("but it is a directory"));
    space.expect_nothing_left();
}

#[test]
fn a_file_that_changes_under_a_waiting_command_is_not_taken_for_what_it_was() {
    let space = Space::with(
        r#"
        [[node]]
        id = "first"
        op = "exec"
        run = ["touch up; while [ ! -e go ]; do sleep 0.01; done"]
        shell = true
        priority = 1
        [[node]]
        id = "second"
        op = "exec"
        run = ["cat", "input"]
        [[node]]
        id = "after"
        op = "exec"
        needs = ["second"]
        run = ["true"]
        "#,
    );
    space.write("input", "old");
    let run = space.start(&[&RUN[..], &["--workers", "1"]].concat());
    eventually("the first runs", || space.path("up").exists());
    space.write("input", "new");
    space.write("go", "");
    let ended = run.end().expect(0);
    let input = space.path("input");
    let why = format!("its result is not kept: {} was changed while it waited or ran", text(&input));
    assert_eq!(ended.node("second")["error"], why);
    let ended = ended.says("node second ran, but its result is not kept");
    assert_eq!(ended.summary()["durable"], 2);
    // Neither of the old content nor of the new: it runs again, and so does what came after it.
    for content in ["old", "new"] {
        space.write("input", content);
        assert_eq!(space.run_manifest(0).outcomes(), "after=ran first=cached second=ran");
        assert_eq!(space.result_text("second"), content);
    }
    assert_eq!(space.run_manifest(0).outcomes(), "after=cached first=cached second=cached");
}

#[test]
fn what_a_key_says_of_a_directory_is_where_it_is_from_the_manifest() {
    let node =
        |id: &str| format!("[[node]]\nid = \"{id}\"\nop = \"exec\"\nrun = [\"cat\", \"-\"]\nstdin = \"x\"\n");
    let space = Space::with(&format!("[run]\ninclude = [\"one/m.toml\", \"two/m.toml\"]\n{}", node("a")));
    for dir in ["one", "two"] {
        std::fs::create_dir(space.path(dir)).unwrap();
        space.write(&format!("{dir}/m.toml"), node(dir));
    }
    // Each starts elsewhere, so that none may have the result of another.
    assert_eq!(space.run_manifest(0).outcomes(), "a=ran one=ran two=ran");
    assert_eq!(space.run_manifest(0).outcomes(), "a=cached one=cached two=cached");
    // The whole may move.
    let moved = Space::new();
    std::fs::rename(space.path(""), moved.path("new")).unwrap();
    let ended = moved.run(&["run", "new/m.toml", "--store", "new/.forkyard", "--json", "--events", "all"]);
    assert_eq!(ended.expect(0).outcomes(), "a=cached one=cached two=cached");
    std::fs::rename(moved.path("new"), space.path("")).unwrap();
}

#[test]
fn pipes_that_are_full_stop_nobody() {
    let space = Space::with(
        r#"
        [[node]]
        id = "big"
        op = "exec"
        run = ["head -c 3000000 /dev/zero"]
        shell = true
        [[node]]
        id = "all"
        op = "exec"
        run = ["head -c 2000000 /dev/zero >&2; cat; head -c 2000000 /dev/zero >&2"]
        shell = true
        stdin = "{{ nodes.big.result }}"
        [[node]]
        id = "none"
        op = "exec"
        run = ["true"]
        stdin = "{{ nodes.big.result }}"
        "#,
    );
    space.run_manifest(0);
    assert_eq!(space.result("all").len(), 3_000_000);
    assert!(space.result("none").is_empty());
}

#[test]
fn what_a_command_leaves_running_does_not_outlive_its_task() {
    let space = Space::with(
        "[[node]]\nid = \"a\"\nop = \"exec\"\nrun = [\"setsid sleep 1000 & sleep 1000 & echo done\"]\nshell = true\n",
    );
    space.run_manifest(0);
    assert_eq!(space.result_text("a"), "done\n");
    space.expect_nothing_left();
}

#[test]
fn stdout_is_data() {
    let space = Space::with("[[node]]\nid = \"a\"\nop = \"noop\"\n");
    let ended = space.run(&["run", "m.toml"]).expect(0);
    assert!(ended.stdout.is_empty());
    assert!(ended.stderr.contains("1 node: 1 ran, 0 cached"), "{}", ended.stderr);
    assert!(ended.stderr.contains("1 result new in .forkyard"), "{}", ended.stderr);
    let ended = space.run(&["run", "m.toml", "--quiet"]).expect(0);
    assert!(ended.stdout.is_empty() && ended.stderr.is_empty(), "{}", ended.stderr);
}

#[test]
fn events_tell_a_run_in_order() {
    let space = Space::new();
    space.write("m.npy", matrix(&[&[1.0, 2.0], &[3.0, 4.0]]));
    space.write(
        "m.toml",
        "[artifacts.m]\npath = \"m.npy\"\n[[node]]\nid = \"a\"\nop = \"topk\"\nartifact = \"m\"\nparams = { row = 0, k = 1 }\n",
    );
    let ended = space.run(&[&RUN[..], &["--workers", "2"]].concat()).expect(0);
    let events = ended.events();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["run_started", "artifact_mapped", "worker_started", "node_finished", "run_finished"]);
    assert!(events.iter().all(|event| event["v"] == 1));
    let times: Vec<f64> = events.iter().map(|event| event["t"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let started = &events[0];
    assert_eq!((&started["run"], &started["nodes"], &started["workers"]), (&1.into(), &1.into(), &2.into()));
    let mapped = &events[1];
    assert_eq!((&mapped["format"], &mapped["dtype"]), (&"npy".into(), &"float32".into()));
    assert_eq!(mapped["shape"], serde_json::json!([2, 2]));
    assert_eq!(mapped["bytes"], std::fs::metadata(space.path("m.npy")).unwrap().len());
    let node = &events[3];
    assert_eq!((&node["outcome"], &node["attempt"], &node["worker"]), (&"ran".into(), &1.into(), &0.into()));
    assert_eq!(node["digest"], space.results()["a"].1);
    let finished = &events[4];
    assert_eq!((&finished["ran"], &finished["durable"]), (&1.into(), &1.into()));
    assert_eq!(finished["artifact_bytes"], mapped["bytes"]);

    let failures = space.run(&["run", "m.toml", "--json"]).expect(0);
    assert!(failures.events_named("node_finished").is_empty(), "only failures are told if nothing is said");
}

#[test]
fn a_store_tells_of_its_runs() {
    let space = Space::with(&[noted("a", ""), noted("b", "needs = [\"a\"]\ncache = false")].concat());
    space.run_manifest(0);
    space.run_manifest(0);
    let json = |args: &[&str]| space.run(args).expect(0).events();
    let runs = json(&["runs", "--json"]);
    let field = |name: &str| runs.iter().map(|run| run[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("run"), [1, 2]);
    assert_eq!(field("state"), ["done", "done"]);
    assert_eq!(field("ran"), [2, 1]);
    assert_eq!(field("cached"), [0, 1]);
    let status = json(&["status", "1", "--json"]).remove(0);
    assert_eq!((&status["state"], &status["nodes"]), (&"done".into(), &2.into()));
    assert_eq!(status["counts"], serde_json::json!({ "ran": 2 }));
    assert_eq!(json(&["status", "--json"])[0]["counts"], serde_json::json!({ "cached": 1, "ran": 1 }));
    space.run(&["status", "9"]).expect(2).says("has no run 9; `forkyard runs` lists them");
    let text = |args: &[&str]| String::from_utf8(space.run(args).expect(0).stdout).unwrap();
    assert!(text(&["runs"]).contains("m.toml"));
    assert!(
        text(&["status"]).contains("run 2 is done: m.toml\n2 of 2 nodes are settled"),
        "{}",
        text(&["status"])
    );
    assert!(text(&["results", "ls"]).starts_with("cached     a "), "{}", text(&["results", "ls"]));
    space.run(&["results", "cat", "c"]).expect(2).says("has finished a node `c`");
}

#[test]
fn logs_show_what_a_command_wrote_to_stderr() {
    let space = Space::with(
        r#"
        [[node]]
        id = "a"
        op = "exec"
        run = ["echo warning >&2; echo fine"]
        shell = true
        [[node]]
        id = "b"
        op = "exec"
        run = ["echo one >&2; echo two >&2; exit 3"]
        shell = true
        needs = ["a"]
        "#,
    );
    space.run_manifest(1).says("node b failed: /bin/sh ended with exit status: 3: one\ntwo");
    space.run_manifest(1);
    let log = |args: &[&str]| String::from_utf8(space.run(args).expect(0).stdout).unwrap();
    assert_eq!(log(&["logs", "1", "a"]), "warning\n");
    assert_eq!(log(&["logs", "a"]), "warning\n", "it is cached now: the log is that of the run that ran it");
    assert_eq!(log(&["logs", "b"]), "one\ntwo\n");
    space.run(&["logs", "c"]).expect(2).says("has not finished a node `c`");
}

#[test]
fn a_trace_has_a_track_a_worker() {
    let space = Space::with(&[noted("a", ""), noted("b", "needs = [\"a\"]")].concat());
    space.run(&["run", "m.toml", "--trace", "t.json"]).expect(0);
    let trace: serde_json::Value = serde_json::from_str(&space.text("t.json")).unwrap();
    let events = trace.as_array().or_else(|| trace["traceEvents"].as_array()).expect("a list of events");
    let spans: Vec<&serde_json::Value> = events.iter().filter(|event| event["ph"] == "X").collect();
    assert_eq!(spans.iter().map(|span| span["name"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    let number = |span: usize, name: &str| spans[span][name].as_f64().unwrap();
    assert!(number(0, "ts") + number(0, "dur") <= number(1, "ts"));
}
