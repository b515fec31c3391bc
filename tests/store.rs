//! What a user sees of the store: its layouts, reading it while a run goes on, checking and cleaning it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::util::{RUN, Space, eventually};

const LAYOUTS: [&str; 3] = ["sqlite", "hybrid", "filesystem"];

/// Nodes of every size of result.
fn nodes() -> String {
    let mut nodes = String::new();
    for (id, op) in [
        ("tiny", "op = \"value\"\nparams = { value = [1, 2] }"),
        ("small", "op = \"exec\"\nrun = [\"seq\", \"2000\"]"),
        ("large", "op = \"exec\"\nrun = [\"seq\", \"40000\"]"),
        (
            "noise",
            "op = \"exec\"\nrun = [\"python3\", \"-c\", \"import random, sys; sys.stdout.buffer.write(random.Random(1).randbytes(3000000))\"]\noutput = \"bytes\"",
        ),
        ("count", "op = \"exec\"\nrun = [\"wc\", \"-c\"]\nstdin = \"{{ nodes.noise.result }}\""),
        (
            "same",
            "op = \"exec\"\nshell = true\nrun = \"cat $FORKYARD_INPUT_IT\"\ninputs = { it = \"{{ nodes.large.result }}\" }",
        ),
    ] {
        nodes += &format!("[[node]]\nid = \"{id}\"\n{op}\n");
    }
    nodes
}

fn with_layout(layout: &str, nodes: &str) -> String {
    format!("[run]\nlayout = \"{layout}\"\n{nodes}")
}

fn stat(space: &Space) -> Value {
    space.run(&["store", "stat", "--json"]).expect(0).events().remove(0)
}

/// `store ls --json`, by node.
fn listed(space: &Space) -> BTreeMap<String, Value> {
    let lines = space.run(&["store", "ls", "--json"]).expect(0).events();
    lines.into_iter().map(|line| (line["node"].as_str().unwrap().to_string(), line)).collect()
}

#[test]
fn the_layouts_differ_in_nothing_but_their_files() {
    let mut seen = Vec::new();
    for layout in LAYOUTS {
        let space = Space::with(&with_layout(layout, &nodes()));
        assert_eq!(space.run_manifest(0).summary()["ran"], 6, "{layout}");
        seen.push(space.results());
        assert_eq!(space.result_text("count").trim(), "3000000");
        assert!(
            space.result("same") == space.result("large") && space.result_text("large").ends_with("40000\n")
        );
        let files = ["store.db", "results", "blobs"].map(|name| space.path(".forkyard").join(name).exists());
        let expected = match layout {
            "sqlite" => [true, false, false],
            "hybrid" => [true, false, true],
            _ => [false, true, true],
        };
        assert_eq!(files, expected, "{layout}");
        let stat = stat(&space);
        assert_eq!((&stat["layout"], &stat["results"]), (&layout.into(), &6.into()));
        space.run(&["store", "verify"]).expect(0);
        assert_eq!(space.run_manifest(0).summary()["cached"], 6, "{layout}");
        space.expect_nothing_left();
    }
    assert!(seen[0] == seen[1] && seen[1] == seen[2]);
}

#[test]
fn a_store_keeps_the_layout_that_it_was_made_with() {
    let space = Space::with(&with_layout("filesystem", &nodes()));
    space.run_manifest(0);
    space.write("m.toml", with_layout("sqlite", &nodes()));
    let ended = space.run_manifest(0).says("was made with layout filesystem and keeps it");
    assert_eq!(ended.summary()["cached"], 6);
    space.write("m.toml", nodes());
    assert_eq!(space.run_manifest(0).summary()["cached"], 6);
    space.write("m.toml", with_layout("floppy", &nodes()));
    space.run(&["run", "m.toml"]).expect(2).says("must be one of \"sqlite\", \"hybrid\", \"filesystem\"");
}

#[test]
fn a_result_that_can_be_packed_takes_little_room_and_comes_back_whole() {
    for layout in LAYOUTS {
        let yes = "[[node]]\nid = \"yes\"\nop = \"exec\"\nshell = true\nrun = \"yes | head -c 20000000\"\n";
        let space = Space::with(&with_layout(layout, yes));
        space.run_manifest(0);
        let disk = stat(&space)["disk_bytes"].as_u64().unwrap();
        assert!(disk < 3_000_000, "{layout}: {disk}");
        assert!(space.result("yes") == b"y\n".repeat(10_000_000));
        // Somebody needs it as a file.
        let file = "[[node]]\nid = \"lines\"\nop = \"exec\"\nshell = true\nrun = \"wc -l < $FORKYARD_INPUT_IT\"\ninputs = { it = \"{{ nodes.yes.result }}\" }\n";
        space.write("m.toml", with_layout(layout, &format!("{yes}{file}")));
        assert_eq!(space.run_manifest(0).outcomes(), "lines=ran yes=cached");
        assert_eq!(space.result_text("lines").trim(), "10000000");
    }
}

#[test]
fn a_result_larger_than_the_memory_of_its_worker_is_no_trouble() {
    for layout in LAYOUTS {
        let space = Space::with(&with_layout(
            layout,
            r#"
            [[node]]
            id = "large"
            op = "exec"
            run = ["head", "-c", "300000000", "/dev/zero"]
            [[node]]
            id = "file"
            op = "exec"
            shell = true
            run = "head -c 200000000 /dev/zero > $FORKYARD_SCRATCH/out"
            output = "out"
            [[node]]
            id = "count"
            op = "exec"
            run = ["wc", "-c"]
            stdin = "{{ nodes.large.result }}"
            "#,
        ));
        // Private memory of the coordinator, the zygote and each worker.
        let line = format!("ulimit -d 65536; exec {} run m.toml --workers 1", env!("CARGO_BIN_EXE_forkyard"));
        space.start_shell(&line).end().expect(0);
        assert_eq!(space.result_text("count").trim(), "300000000", "{layout}");
        let results = listed(&space);
        assert_eq!([&results["large"]["bytes"], &results["file"]["bytes"]], [300_000_000, 200_000_000]);
    }
}

#[test]
fn a_result_can_be_an_artifact_whatever_its_size() {
    let script = |rows: u32| {
        format!(
            "import struct, sys\nrows = {rows}\nhead = str(dict(descr='<f4', fortran_order=False, shape=(rows, 2))).ljust(117) + '\\n'\nout = sys.stdout.buffer\nout.write(b'\\x93NUMPY\\x01\\x00' + struct.pack('<H', 118) + head.encode())\nfor row in range(rows): out.write(struct.pack('<2f', row, 1))\n"
        )
    };
    for layout in LAYOUTS {
        for rows in [10, 100_000] {
            let space = Space::with(&with_layout(
                layout,
                &format!(
                    r#"
                    [[node]]
                    id = "matrix"
                    op = "exec"
                    run = ["python3", "make.py"]
                    output = "bytes"
                    [[node]]
                    id = "near"
                    op = "topk"
                    artifact = "{{{{ nodes.matrix.result }}}}"
                    params = {{ row = {last}, k = 2, metric = "dot" }}
                    [[node]]
                    id = "records"
                    op = "exec"
                    run = ["echo", '{{"id": "x", "n": 1}}']
                    [[node]]
                    id = "record"
                    op = "lookup"
                    artifact = "{{{{ nodes.records.result }}}}"
                    params = {{ key = "x" }}
                    [[node]]
                    id = "path"
                    op = "exec"
                    shell = true
                    run = "head -c 6 $FORKYARD_ARTIFACT_MATRIX; echo $FORKYARD_ARTIFACT_MATRIX"
                    artifacts = ["{{{{ nodes.matrix.result }}}}"]
                    output = "bytes"
                    "#,
                    last = rows - 1
                ),
            ));
            space.write("make.py", script(rows));
            space.run_manifest(0);
            let near: Value = serde_json::from_slice(&space.result("near")).unwrap();
            assert_eq!(near["ids"], serde_json::json!([rows - 1, rows - 2]), "{layout}");
            assert_eq!(space.result_text("record"), r#"{"id":"x","n":1}"#);
            let path = space.result("path");
            assert!(path.starts_with(b"\x93NUMPY") && path.ends_with(b".npy\n"), "{layout}");
            // Only what reads another content runs again.
            space.write("make.py", script(rows + 1));
            assert_eq!(
                space.run_manifest(0).outcomes(),
                "matrix=ran near=ran path=ran record=cached records=cached"
            );
        }
    }
    // Other text than records starts with a brace too.
    let space = Space::with(
        "[[node]]\nid = \"a\"\nop = \"exec\"\nrun = [\"echo\", \"{ int x; }\"]\n[[node]]\nid = \"b\"\nop = \"exec\"\nshell = true\nrun = \"cat $FORKYARD_ARTIFACT_A\"\nartifacts = [\"{{ nodes.a.result }}\"]\n",
    );
    space.run_manifest(0);
    assert_eq!(space.result_text("b"), "{ int x; }\n");
    let space = Space::with(
        "[[node]]\nid = \"a\"\nop = \"value\"\nparams = { value = 1 }\n[[node]]\nid = \"b\"\nop = \"topk\"\nartifact = \"{{ nodes.a.result }}\"\nparams = { row = 0, k = 1 }\n",
    );
    let ended = space.run_manifest(1);
    let error = ended.node("b")["error"].as_str().unwrap().to_string();
    assert!(error.contains("artifact \"a\" (result of a) is not a matrix"), "{error}");
}

#[test]
fn what_nodes_read_again_is_kept_in_bounded_memory() {
    // Ten results of 20 KB, each read twice, with room for one.
    let mut nodes = String::from("[run]\ncache_bytes = \"25KB\"\n");
    for n in 0..10 {
        nodes +=
            &format!("[[node]]\nid = \"p{n}\"\nop = \"exec\"\nrun = [\"seq\", \"{n}000\", \"{n}4000\"]\n");
        for (reader, lines) in [("a", 1), ("b", 2)] {
            nodes += &format!(
                "[[node]]\nid = \"{reader}{n}\"\nop = \"exec\"\nrun = [\"tail\", \"-n\", \"{lines}\"]\nstdin = \"{{{{ nodes.p{n}.result }}}}\"\nneeds = [{}]\n",
                (0..10).map(|n| format!("\"p{n}\"")).collect::<Vec<_>>().join(", ")
            );
        }
    }
    for layout in LAYOUTS {
        let space = Space::with(&nodes.replace("[run]", &format!("[run]\nlayout = \"{layout}\"")));
        assert_eq!(space.run_manifest(0).summary()["ran"], 30, "{layout}");
        assert_eq!(
            (space.result_text("a9").trim(), space.result_text("b3").trim()),
            ("94000", "33999\n34000")
        );
        let stat = stat(&space);
        let count = |word: &str| stat[word].as_u64().unwrap();
        assert!(count("cache_misses") >= 8, "{stat}");
        assert!(count("cache_hits") + count("cache_misses") >= 20, "{stat}");
    }
}

#[test]
fn a_store_is_read_while_a_run_goes_on_and_changed_by_nobody_else() {
    for layout in LAYOUTS {
        let wait = "[[node]]\nid = \"wait\"\nop = \"exec\"\nshell = true\nneeds = [\"same\", \"count\", \"tiny\", \"small\"]\nrun = \"touch up; while [ ! -e go ]; do sleep 0.01; done\"\n";
        let space = Space::with(&with_layout(layout, &format!("{}{wait}", nodes())));
        let run = space.start(&RUN);
        eventually("all but one are done", || space.path("up").exists());
        eventually("they are durable", || space.run(&["results", "ls", "--json"]).events().len() == 6);
        assert!(space.result_text("same").ends_with("40000\n"));
        assert_eq!(stat(&space)["results"], 6, "{layout}");
        assert_eq!(listed(&space).len(), 6);
        space.run(&["status"]).expect(0);
        let pid = run.pid().to_string();
        for refused in [&["store", "verify"][..], &["store", "gc", "--keep-runs", "1"]] {
            space.run(refused).expect(4).says(&format!("process {pid} is using this store"));
        }
        space.write("go", "");
        assert_eq!(run.end().expect(0).summary()["ran"], 7);
    }
}

#[test]
fn gc_removes_what_no_kept_run_names_and_nothing_else() {
    for layout in LAYOUTS {
        let space = Space::with(&with_layout(layout, &nodes()));
        space.run_manifest(0);
        let before = stat(&space)["disk_bytes"].as_u64().unwrap();
        // The second run names less, and something new.
        let fewer = with_layout(
            layout,
            "[[node]]\nid = \"tiny\"\nop = \"value\"\nparams = { value = [1, 2] }\n[[node]]\nid = \"new\"\nop = \"exec\"\nrun = [\"seq\", \"30000\"]\n",
        );
        space.write("m.toml", &fewer);
        assert_eq!(space.run_manifest(0).outcomes(), "new=ran tiny=cached");
        space.run(&["store", "gc"]).expect(2).says("say what to keep");
        space.run(&["store", "gc", "--keep-runs", "2"]).expect(0);
        assert_eq!(stat(&space)["results"], 7, "{layout}");
        space
            .run(&["store", "gc", "--keep-runs", "1", "--dry-run"])
            .expect(0)
            .says("would remove 1 run and 5 results");
        assert_eq!(stat(&space)["results"], 7, "{layout}");
        space.run(&["store", "gc", "--keep-runs", "1"]).expect(0).says("removed 1 run and 5 results");
        let left = listed(&space);
        assert_eq!(left.keys().collect::<Vec<_>>(), ["new", "tiny"], "{layout}");
        let after = stat(&space);
        assert!(after["disk_bytes"].as_u64().unwrap() < before / 2, "{layout}: {before}, {after}");
        space.run(&["store", "verify"]).expect(0);
        assert_eq!(space.run_manifest(0).summary()["cached"], 2);
        space.write("m.toml", with_layout(layout, &nodes()));
        assert_eq!(space.run_manifest(0).summary()["ran"], 5, "{layout}");
        // By age and by size.
        space.run(&["store", "gc", "--older-than", "1d"]).expect(0).says("removed 0 runs and 0 results");
        space.run(&["store", "gc", "--max-size", "1KB"]).expect(0);
        assert_eq!(stat(&space)["results"], 0, "{layout}");
        space.run(&["results", "ls"]).expect(2).says("has no run yet");
        assert_eq!(space.run_manifest(0).summary()["ran"], 6, "{layout}");
    }
}

#[test]
fn verify_names_what_is_damaged_and_the_next_run_computes_it() {
    for layout in LAYOUTS {
        let space = Space::with(&with_layout(layout, &nodes()));
        space.run_manifest(0);
        let victim = if layout == "sqlite" {
            let database = rusqlite::Connection::open(space.path(".forkyard/store.db")).unwrap();
            let damage = "UPDATE blobs SET bytes = zeroblob(length(bytes)) WHERE length(bytes) = 1048576";
            assert_eq!(database.execute(damage, []).unwrap(), 2);
            "row"
        } else {
            let blob = largest_blob(&space);
            let mut bytes = fs::read(&blob).unwrap();
            bytes[1_000_000] ^= 1;
            fs::remove_file(&blob).unwrap();
            fs::write(blob, bytes).unwrap();
            "blob"
        };
        let ended = space.run(&["store", "verify"]).expect(4);
        let said = String::from_utf8(ended.stdout).unwrap();
        assert!(said.contains(victim) && said.contains("(of noise)"), "{layout}: {said}");
        space.run(&["store", "verify"]).expect(0);
        assert!(fs::read_dir(space.path(".forkyard/quarantine")).unwrap().count() > 0);
        let ended = space.run_manifest(0);
        assert_eq!(
            ended.outcomes(),
            "count=cached large=cached noise=ran same=cached small=cached tiny=cached"
        );
        assert_eq!(space.result("noise").len(), 3_000_000);
    }
}

#[test]
fn a_damaged_page_of_the_database_costs_what_is_on_it() {
    const NODES: u64 = 302;
    let mut nodes: String = (0..300)
        .map(|n| format!("[[node]]\nid = \"n{n}\"\nop = \"value\"\nparams = {{ value = \"{n:0>200}\" }}\n"))
        .collect();
    for (id, count) in [("some", 5_000), ("many", 20_000)] {
        let run = format!(
            "[\"python3\", \"-c\", \"import random, sys; sys.stdout.buffer.write(random.Random(1).randbytes({count}))\"]"
        );
        nodes += &format!("[[node]]\nid = \"{id}\"\nop = \"exec\"\nrun = {run}\noutput = \"bytes\"\n");
    }
    let space = Space::with(&with_layout("sqlite", &nodes));
    space.run_manifest(0);
    // Everything is in its place in the file then, and nothing in the write-ahead log.
    space.run(&["store", "gc", "--keep-runs", "9"]).expect(0);
    let database = space.path(".forkyard/store.db");
    let sound = fs::read(&database).unwrap();
    let digests = || space.results().into_iter().map(|(node, (_, digest))| (node, digest)).collect();
    let before: BTreeMap<String, String> = digests();
    let mut costs = Vec::new();
    for page in (0..sound.len()).step_by(16_384) {
        for end in ["-wal", "-shm"] {
            fs::remove_file(format!("{}{end}", database.display())).ok();
        }
        let mut damaged = sound.clone();
        damaged[page] ^= 4;
        fs::write(&database, damaged).unwrap();
        let verified = space.run(&["store", "verify"]);
        let said = String::from_utf8_lossy(&verified.stdout).into_owned() + &verified.stderr;
        let summary = space.run_manifest(0).summary();
        let ran = summary["ran"].as_u64().unwrap();
        match verified.code() {
            Some(0) => assert_eq!(ran, 0, "byte {page}: {said}"),
            Some(4) => assert!(said.contains("the old one is in quarantine"), "byte {page}: {said}"),
            other => panic!("byte {page}: {other:?}: {said}"),
        }
        assert_eq!(summary["cached"], NODES - ran);
        // Exactly those that were lost are named.
        let lost = format!(" {ran} result");
        assert!(ran == 0 || said.contains(&lost), "byte {page}: {ran} ran anew: {said}");
        assert!(digests() == before, "byte {page}");
        space.run(&["store", "verify"]).expect(0);
        costs.push(ran);
    }
    let some = costs.iter().filter(|ran| (1..NODES / 2).contains(ran)).count();
    let all = costs.iter().filter(|ran| **ran == NODES).count();
    // The leaves of the results and the pages of the values, and the two that lead to all results.
    assert!(some >= 5 && all <= 2, "{costs:?}");
}

#[test]
fn a_new_database_gets_its_place_if_whoever_made_it_was_killed() {
    let space = Space::with(&nodes());
    space.run_manifest(0);
    space.run(&["store", "gc", "--keep-runs", "9"]).expect(0);
    let [old, new] = ["store.db", "store.db.new"].map(|name| space.path(".forkyard").join(name));
    // Killed before it was complete.
    fs::write(&new, "some of it").unwrap();
    assert_eq!(space.run_manifest(0).summary()["cached"], 6);
    assert!(!new.exists());
    // Killed after the old one was taken away, but not yet its write-ahead log.
    fs::create_dir_all(space.path(".forkyard/quarantine")).unwrap();
    fs::rename(&old, &new).unwrap();
    fs::write(space.path(".forkyard/store.db-wal"), "of the old one").unwrap();
    assert_eq!(space.run_manifest(0).summary()["cached"], 6);
    assert!(!new.exists());
    space.run(&["store", "verify"]).expect(0);
}

fn largest_blob(space: &Space) -> PathBuf {
    let dirs = fs::read_dir(space.path(".forkyard/blobs")).unwrap().flatten();
    let files = dirs.flat_map(|dir| fs::read_dir(dir.path()).unwrap().flatten()).map(|file| file.path());
    files.max_by_key(|file| file.metadata().unwrap().len()).expect("there is a blob")
}

#[test]
fn ls_sorts_by_what_is_asked() {
    let space = Space::with(&nodes());
    space.run_manifest(0);
    let order = |by: &str| {
        let lines = space.run(&["store", "ls", "--json", "--sort", by]).expect(0).events();
        lines.iter().map(|line| line["node"].as_str().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(order("size")[0], "noise");
    assert_eq!(order("node"), ["count", "large", "noise", "same", "small", "tiny"]);
    let text = String::from_utf8(space.run(&["store", "ls"]).expect(0).stdout).unwrap();
    assert!(text.lines().next().unwrap().ends_with("noise") && text.contains("2.9 MiB"), "{text}");
}

/// Stores as this version wrote them when it was new: every later one must read them.
#[test]
fn a_store_of_format_1_is_read() {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-1");
    for layout in LAYOUTS {
        let space = Space::new();
        copy_dir(&fixtures.join(layout), &space.path(".forkyard"));
        space.write("m.toml", fs::read(fixtures.join("m.toml")).unwrap());
        // The log of its runs, before another one is added.
        let status = space.run(&["status", "--json"]).expect(0).events().remove(0);
        assert_eq!((&status["state"], &status["counts"]["cached"]), (&"done".into(), &4.into()), "{layout}");
        assert_eq!(space.run(&["runs", "--json"]).expect(0).events().len(), 2, "{layout}");
        space.run(&["logs", "1", "small"]).expect(0);
        let why = String::from_utf8(space.run(&["why", "m.toml", "sum"]).expect(0).stdout).unwrap();
        assert!(why.starts_with("sum is cached"), "{layout}: {why}");
        assert!(space.run(&["plan", "m.toml"]).expect(0).stdout.starts_with(b"4 nodes"), "{layout}");
        space.run(&["store", "verify"]).expect(0);
        assert_eq!(space.result_text("tiny"), "[1,2]", "{layout}");
        assert!(space.result_text("large").ends_with("\n12000\n"), "{layout}");
        assert_eq!(space.result_text("sum").trim(), "12000");
        assert_eq!(
            space.run_manifest(0).outcomes(),
            "large=cached small=cached sum=cached tiny=cached",
            "{layout}"
        );
    }
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn identical_nodes_run_once_however_little_fits_into_memory() {
    for layout in LAYOUTS {
        let mut manifest = format!("[run]\nlayout = \"{layout}\"\ncache_bytes = \"1KiB\"\n");
        for n in 0..5 {
            manifest += &format!("[[node]]\nid = \"x{n}\"\nop = \"exec\"\nrun = [\"seq\", \"1000\"]\n");
            manifest += &format!(
                "[[node]]\nid = \"y{n}\"\nop = \"exec\"\nrun = [\"tail\", \"-n\", \"{}\"]\nstdin = \"{{{{ nodes.x{n}.result }}}}\"\n",
                n + 1
            );
        }
        let space = Space::with(&manifest);
        let ended = space.run_manifest(0);
        assert!(!ended.stderr.contains("runs again"), "{layout}: {}", ended.stderr);
        let ran = ended
            .outcomes()
            .split(' ')
            .filter(|word| word.starts_with('x') && word.ends_with("=ran"))
            .count();
        assert_eq!(ran, 1, "{layout}");
        assert_eq!(space.result_text("y4").lines().next(), Some("996"));
    }
}

#[test]
fn gc_is_careful_where_it_cannot_tell_what_a_run_names() {
    for layout in LAYOUTS {
        let space = Space::with(&with_layout(layout, &nodes()));
        for _ in 0..2 {
            space.run_manifest(0);
        }
        // A header that is gone says nothing of the run's age.
        space.write(".forkyard/runs/2/run.json", "");
        space.run(&["store", "gc", "--older-than", "1d"]).expect(4).says("run 2 is to be kept");
        fs::remove_dir_all(space.path(".forkyard/runs/2")).unwrap();
        let journal = space.path(".forkyard/runs/1/journal");
        let sound = fs::read(&journal).unwrap();
        let mut damaged = sound.clone();
        damaged[20] ^= 1;
        fs::write(&journal, damaged).unwrap();
        let said = space.run(&["store", "verify"]).expect(4).stdout;
        assert!(String::from_utf8(said).unwrap().contains("runs/1 is damaged"), "{layout}");
        space
            .run(&["store", "gc", "--keep-runs", "1"])
            .expect(4)
            .says("remove that directory to go on without it");
        fs::write(&journal, sound).unwrap();
        space.run(&["store", "verify"]).expect(0);
        // A run that was killed before it began has left only this.
        fs::create_dir(space.path(".forkyard/runs/2")).unwrap();
        space.run(&["store", "verify"]).expect(0);
        fs::remove_dir(space.path(".forkyard/runs/2")).unwrap();
        // The number of a run that is gone is not given again.
        space.run(&["store", "gc", "--keep-runs", "0"]).expect(0).says("6 results");
        space.run_manifest(0);
        assert_eq!(space.run(&["runs", "--json"]).expect(0).events()[0]["run"], 2, "{layout}");
    }
}

#[test]
fn what_a_damaged_database_has_lost_is_told_once() {
    let space = Space::with(&nodes());
    space.run_manifest(0);
    space.run(&["store", "gc", "--keep-runs", "1"]).expect(0);
    let database = rusqlite::Connection::open(space.path(".forkyard/store.db")).unwrap();
    space.run_manifest(0);
    let lost = database.execute("DELETE FROM results", []).unwrap()
        + database.execute("DELETE FROM log", []).unwrap();
    assert!(lost > 0);
    let said = String::from_utf8(space.run(&["store", "verify"]).expect(4).stdout).unwrap();
    assert!(
        said.contains("6 results that runs made durable or used: not in the store (of count, large,"),
        "{said}"
    );
    space.run(&["store", "verify"]).expect(0);
    assert_eq!(space.run_manifest(0).summary()["ran"], 6);
}

#[test]
fn a_store_without_its_description_is_not_taken_for_a_new_one() {
    for layout in LAYOUTS {
        let space = Space::with(&with_layout(layout, &nodes()));
        space.run_manifest(0);
        let description = space.text(".forkyard/store.json");
        fs::remove_file(space.path(".forkyard/store.json")).unwrap();
        space.run_manifest(4).says("store.json is missing");
        space.write(".forkyard/store.json", "{\"format\":0,\"layout\":\"hybrid\"}");
        space.run_manifest(4).says("there is no format 0");
        space.write(".forkyard/store.json", description);
        assert_eq!(space.run_manifest(0).summary()["cached"], 6, "{layout}");
    }
}
