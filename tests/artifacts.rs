//! Files that are mapped: what is refused before anything runs, what the ops on them return, and what
//! follows when somebody changes them during a run.

use std::fs::{self, File};

use crate::util::{RUN, Space, eventually, matrix, npy};

const MATRIX: &str = "[artifacts.m]\npath = \"m.npy\"\n";

/// Refused before anything runs, by name and for this reason; `artifact info` says the same.
fn refused(bytes: &[u8], reason: &str) {
    refused_as("m.npy", bytes, reason);
}

fn refused_as(file: &str, bytes: &[u8], reason: &str) {
    let space = Space::with(&format!(
        "[artifacts.m]\npath = \"{file}\"\n[[node]]\nid = \"a\"\nop = \"exec\"\nrun = [\"touch\", \"ran\"]\n"
    ));
    space.write(file, bytes);
    let ended = space.run_manifest(3);
    let message = format!("forkyard: artifact \"m\" (./{file}): {reason}");
    assert!(ended.stderr.starts_with(&message), "{}\nnot\n{message}", ended.stderr);
    assert!(!space.path("ran").exists() && ended.stdout.is_empty(), "something ran");
    assert!(!space.path(".forkyard").exists(), "a store was made for nothing");
    space.run(&["artifact", "info", file]).expect(3).says(reason);
}

fn header(descr: &str, fortran: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}")
}

#[test]
fn a_malformed_matrix_is_refused_for_what_it_is() {
    let good = header("<f4", "False", "(2, 3)");
    let whole = npy(&good, &[0; 24]);
    refused(b"", "is empty");
    refused(b"PK\x03\x04 and so on", "not an npy file");
    refused(&whole[..9], "the npy header is cut short");
    refused(&whole[..40], "the npy header is cut short");
    refused(
        &whole[..whole.len() - 1],
        "the file is cut short: by its header it should have 152 bytes, but it has 151",
    );
    refused(
        &npy(&good, &[0; 25]),
        "the file is longer than its header says: it should have 152 bytes, but it has 153",
    );
    refused(
        &npy(&header("<f4", "False", "(4294967296, 4294967296)"), &[]),
        "the npy header describes an array larger than any file can be",
    );
    refused(&npy(&header("<f4", "False", "(0, 3)"), &[]), "the array has no rows");
    refused(&npy(&header("<f4", "False", "(2, 0)"), &[]), "the array has 2 rows, but no columns");
    refused(&npy(&header("<f4", "False", "(1, 2, 3)"), &[0; 24]), "the array has 3 dimensions");
    refused(
        &npy(&header("<f4", "True", "(2, 3)"), &[0; 24]),
        "the array is stored column by column (Fortran order)",
    );
    refused(&npy(&header(">f4", "False", "(2, 3)"), &[0; 24]), "its numbers are big-endian (>f4)");
    refused(&npy(&header("<c8", "False", "(2, 3)"), &[0; 48]), "its elements have the numpy type \"<c8\"");
    refused(&npy(&header("|O", "False", "(2, 3)"), &[0; 48]), "it holds Python objects");
    refused(
        &npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", &[0; 8]),
        "its elements have several fields",
    );
    refused(&npy("{'descr': ", &[0; 8]), "the npy header is malformed");
    refused(&[b"\x93NUMPY\x09\x00", &whole[8..]].concat(), "npy version 9.0 is unknown");
}

#[test]
fn malformed_records_are_refused_with_their_line() {
    refused_as("m.jsonl", b"", "is empty");
    refused_as("m.jsonl", b"\n\n", "the file has no records");
    refused_as("m.jsonl", b"{\"id\":\"a\"}\n{\"id\":\n", "line 2, column ");
    refused_as("m.jsonl", b"{\"id\":\"a\"}\n[1]\n", "line 2, column 1");
    refused_as(
        "m.jsonl",
        b"{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"a\"}\n",
        "lines 1 and 3 have the same \"id\", \"a\"",
    );
}

#[test]
fn what_is_no_file_is_refused() {
    let manifest = |path: &str| {
        format!(
            "[artifacts.m]\npath = \"{path}\"\n[[node]]\nid = \"a\"\nop = \"exec\"\nrun = [\"touch\", \"ran\"]\n"
        )
    };
    let space = Space::new();
    fs::create_dir(space.path("m.npy")).unwrap();
    // It is root who runs the tests in a container, and root may read everything: a loop of links he cannot.
    std::os::unix::fs::symlink("loop.npy", space.path("loop.npy")).unwrap();
    nix::unistd::mkfifo(&space.path("pipe.npy"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (path, reason) in [
        ("pipe.npy", "is not a regular file, so it cannot be mapped"),
        ("no.npy", "there is no such file"),
        ("m.npy", "is a directory, not a file"),
        ("/dev/null", "is not a regular file, so it cannot be mapped"),
        ("loop.npy", "Too many levels of symbolic links"),
    ] {
        space.write("m.toml", manifest(path));
        space.run_manifest(3).says("artifact \"m\" (").says(reason);
    }
    assert!(!space.path("ran").exists() && !space.path(".forkyard").exists());
    // Nor is it a file of a command.
    space.write("m.toml", "[[node]]\nid = \"a\"\nop = \"exec\"\nrun = [\"true\"]\nfiles = [\"pipe.npy\"]\n");
    let ended = space.run_manifest(1);
    let error = ended.node("a")["error"].as_str().unwrap().to_string();
    assert!(error.ends_with("pipe.npy: it is not a regular file"), "{error}");
}

#[test]
fn artifact_info_says_what_a_file_is() {
    let space = Space::new();
    space.write("m.npy", matrix(&[&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]]));
    space.write("r.jsonl", "{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
    let text = |args: &[&str]| String::from_utf8(space.run(args).expect(0).stdout).unwrap();
    let info = text(&["artifact", "info", "m.npy"]);
    assert!(info.starts_with("m.npy: npy, 2 rows x 3 float32, 152 B\nsha256 "), "{info}");
    let info = text(&["artifact", "info", "r.jsonl"]);
    assert!(info.starts_with("r.jsonl: jsonl, 2 records, 2 keys, "), "{info}");
    let info =
        space.run(&["artifact", "info", "m.npy", "--format", "raw", "--json"]).expect(0).events().remove(0);
    assert_eq!((&info["format"], &info["bytes"]), (&"raw".into(), &152.into()));
    space
        .run(&["artifact", "info", "m.npy", "--format", "csv"])
        .expect(2)
        .says("known are raw, npy, jsonl, json, safetensors");
}

#[test]
fn topk_finds_the_nearest_rows() {
    let space = Space::new();
    // Of (3, 4): dot products 3, 25, 4, -3; cosines 0.6, 1, 0.8, -0.6; squared distances 20, 0, 18, 32.
    space.write("m.npy", matrix(&[&[1.0, 0.0], &[3.0, 4.0], &[0.0, 1.0], &[-1.0, 0.0]]));
    let node = |id: &str, params: &str| {
        format!("[[node]]\nid = \"{id}\"\nop = \"topk\"\nartifact = \"m\"\nparams = {{ {params} }}\n")
    };
    space.write(
        "m.toml",
        [
            MATRIX,
            &node("cosine", "row = 1, k = 3"),
            &node("dot", "vector = [3, 4], k = 9, metric = \"dot\""),
            &node("l2", "row = 1, k = 2, metric = \"l2\""),
            &node("rows", "rows = [0, 2], k = 1"),
            &node("ties", "vector = [0, 5], k = 4, metric = \"dot\""),
            "[[node]]\nid = \"v\"\nop = \"value\"\nparams = { value = [3, 4] }\n",
            &node("given", "vector = \"{{ nodes.v.result }}\", k = 9, metric = \"dot\""),
            &node("short", "vector = [3], k = 1"),
            &node("far", "row = 4, k = 1"),
            &node("both", "row = 1, rows = [0, 1], k = 1"),
        ]
        .concat(),
    );
    let ended = space.run(&[&RUN[..], &["--keep-going"]].concat()).expect(1);
    let result = |node: &str| serde_json::from_slice::<serde_json::Value>(&space.result(node)).unwrap();
    assert_eq!(result("cosine")["ids"], serde_json::json!([1, 2, 0]));
    let scores: Vec<f64> = serde_json::from_value(result("cosine")["scores"].clone()).unwrap();
    assert!(scores.iter().zip([1.0, 0.8, 0.6]).all(|(a, b)| (a - b).abs() < 1e-6), "{scores:?}");
    assert_eq!(space.result_text("dot"), "{\"ids\":[1,2,0,3],\"scores\":[25.0,4.0,3.0,-3.0]}");
    assert_eq!(space.result("given"), space.result("dot"));
    assert_eq!(result("l2")["ids"], serde_json::json!([1, 2]));
    assert_eq!(result("rows")[0]["ids"], serde_json::json!([0]));
    assert_eq!(result("rows")[1]["ids"], serde_json::json!([1]));
    assert_eq!(space.result_text("ties"), "{\"ids\":[1,2,0,3],\"scores\":[20.0,5.0,0.0,0.0]}");
    let error = |node: &str| ended.node(node)["error"].as_str().unwrap().to_string();
    assert!(error("short").contains('1') && error("short").contains('2'), "{}", error("short"));
    assert!(error("far").contains("row 4"), "{}", error("far"));
    assert_eq!(error("both"), "exactly one of row, rows, vector and vectors must be given");
}

#[test]
fn lookup_and_bytes_return_parts() {
    let space = Space::new();
    space.write("r.jsonl", "{\"id\":\"a\",\"n\":1}\n\n{\"n\":2, \"id\":\"ü\"}\n{\"n\":3}\n{\"id\":7}\n");
    let node = |id: &str, params: &str| {
        format!("[[node]]\nid = \"{id}\"\nop = \"lookup\"\nartifact = \"r\"\nparams = {{ {params} }}\n")
    };
    let part = |id: &str, params: &str| {
        format!("[[node]]\nid = \"{id}\"\nop = \"bytes\"\nartifact = \"b\"\nparams = {{ {params} }}\n")
    };
    space.write("b.bin", b"0123456789");
    space.write(
        "m.toml",
        [
            "[artifacts.r]\npath = \"r.jsonl\"\n[artifacts.b]\npath = \"b.bin\"\n",
            &node("key", "key = \"ü\""),
            &node("row", "row = 2"),
            &node("number", "key = 7"),
            &node("none", "key = \"b\""),
            &node("far", "row = 4"),
            &part("part", "offset = 3, length = 4"),
            &part("end", "offset = 10, length = 0"),
            &part("over", "offset = 8, length = 3"),
        ]
        .concat(),
    );
    let ended = space.run(&[&RUN[..], &["--keep-going"]].concat()).expect(1);
    assert_eq!(space.result_text("key"), "{\"id\":\"ü\",\"n\":2}");
    assert_eq!(space.result_text("row"), "{\"n\":3}");
    assert_eq!(space.result_text("number"), "{\"id\":7}");
    assert_eq!(space.result_text("part"), "3456");
    assert_eq!(space.result_text("end"), "");
    let error = |node: &str| ended.node(node)["error"].as_str().unwrap().to_string();
    assert_eq!(error("none"), "no record has the key \"b\"");
    assert_eq!(error("far"), "there is no row 4: the artifact has 4 records");
    assert_eq!(error("over"), "bytes 8..8+3 are outside the artifact of 10 bytes");
}

#[test]
fn the_wrong_format_for_an_op_fails_its_node() {
    let space = Space::new();
    space.write("r.jsonl", "{\"id\":\"a\"}\n");
    space.write(
        "m.toml",
        "[artifacts.r]\npath = \"r.jsonl\"\n[[node]]\nid = \"a\"\nop = \"topk\"\nartifact = \"r\"\nparams = { row = 0, k = 1 }\n",
    );
    space.run_manifest(1).says("artifact \"r\" (").says("is not a matrix");
}

/// `first` and `stranger` are done when `wait` says `up`; when the file `go` is there, `read` reads the last
/// byte of the artifact that `first` named.
const CHANGED: &str = r#"
    [run]
    commit = { every = 1000, within = "10m" }
    on_failure = "continue"
    [artifacts.b]
    path = "b.bin"
    [artifacts.c]
    path = "c.bin"
    [[node]]
    id = "first"
    op = "bytes"
    artifact = "b"
    params = { offset = 0, length = 4 }
    [[node]]
    id = "stranger"
    op = "bytes"
    artifact = "c"
    params = { offset = 0, length = 4 }
    [[node]]
    id = "wait"
    op = "exec"
    run = ["touch up; while [ ! -e go ]; do sleep 0.01; done"]
    shell = true
    cache = false
    needs = ["first", "stranger"]
    [[node]]
    id = "read"
    op = "bytes"
    artifact = "b"
    params = { offset = 99999, length = 1 }
    needs = ["wait"]
"#;

fn changing(pin: bool) -> Space {
    let manifest =
        if pin { CHANGED.replace("\"b.bin\"", "\"b.bin\"\n    pin = true") } else { CHANGED.into() };
    let space = Space::with(&manifest);
    space.write("b.bin", [1; 100_000]);
    space.write("c.bin", [2; 100_000]);
    space
}

#[test]
fn a_changed_artifact_fails_its_nodes_by_name_and_discards_their_results() {
    let space = changing(false);
    let run = space.start(&RUN);
    eventually("the first nodes are done", || space.path("up").exists());
    fs::write(space.path("b.bin"), [3; 100_000]).unwrap();
    space.write("go", "");
    let ended = run.end().expect(3);
    assert_eq!(ended.outcomes(), "first=failed read=failed stranger=ran wait=ran");
    for node in ["first", "read"] {
        let error = ended.node(node)["error"].as_str().unwrap().to_string();
        assert!(error.starts_with("artifact \"b\" (") && error.contains("was changed while"), "{error}");
    }
    let results = space.results();
    assert_eq!((results["first"].1.as_str(), results["read"].1.as_str()), ("", ""));
    assert_eq!(space.run_manifest(0).outcomes(), "first=ran read=ran stranger=cached wait=ran");
    assert_eq!(space.result("first"), [3; 4]);
}

#[test]
fn a_truncated_artifact_fails_the_node_that_reads_it_and_not_the_worker() {
    let space = changing(false);
    let run = space.start(&[&RUN[..], &["--workers", "1"]].concat());
    eventually("the first nodes are done", || space.path("up").exists());
    File::options().write(true).open(space.path("b.bin")).unwrap().set_len(4096).unwrap();
    space.write("go", "");
    let ended = run.end().expect(3);
    assert!(ended.events_named("worker_lost").is_empty(), "SIGBUS took the worker");
    let error = ended.node("read")["error"].as_str().unwrap().to_string();
    assert!(error.starts_with("artifact \"b\" (") && error.contains("became unreadable"), "{error}");
}

#[test]
fn a_command_reads_the_file_that_was_hashed_whatever_its_name_means_by_now() {
    let space = Space::with(
        r#"
        [artifacts.words]
        path = "words.txt"
        [[node]]
        id = "first"
        op = "exec"
        run = ["touch up; while [ ! -e go ]; do sleep 0.01; done"]
        shell = true
        [[node]]
        id = "read"
        op = "exec"
        needs = ["first"]
        artifacts = ["words"]
        run = ["cat $FORKYARD_ARTIFACT_WORDS"]
        shell = true
        "#,
    );
    space.write("words.txt", "old");
    let run = space.start(&RUN);
    eventually("the first runs", || space.path("up").exists());
    space.write("new.txt", "new");
    fs::rename(space.path("new.txt"), space.path("words.txt")).unwrap();
    space.write("go", "");
    run.end().expect(0);
    assert_eq!(space.result_text("read"), "old");
    assert_eq!(space.run_manifest(0).outcomes(), "first=cached read=ran");
    assert_eq!(space.result_text("read"), "new");
}

#[test]
fn how_an_artifact_is_read_is_part_of_the_key() {
    let manifest = |key: &str| {
        format!(
            "[artifacts.r]\npath = \"r.jsonl\"\nkey = \"{key}\"\n[[node]]\nid = \"a\"\nop = \"lookup\"\nartifact = \"r\"\nparams = {{ key = \"x\" }}\n"
        )
    };
    let space = Space::with(&manifest("id"));
    space.write("r.jsonl", "{\"id\":\"x\",\"name\":\"y\"}\n{\"id\":\"y\",\"name\":\"x\"}\n");
    space.run_manifest(0);
    assert_eq!(space.result_text("a"), "{\"id\":\"x\",\"name\":\"y\"}");
    space.write("m.toml", manifest("name"));
    assert_eq!(space.run_manifest(0).outcomes(), "a=ran");
    assert_eq!(space.result_text("a"), "{\"id\":\"y\",\"name\":\"x\"}");
}

#[test]
fn a_pinned_artifact_is_safe_from_its_file() {
    let space = changing(true);
    let run = space.start(&RUN);
    eventually("the first nodes are done", || space.path("up").exists());
    File::options().write(true).open(space.path("b.bin")).unwrap().set_len(0).unwrap();
    space.write("go", "");
    assert_eq!(run.end().expect(0).outcomes(), "first=ran read=ran stranger=ran wait=ran");
    assert_eq!(space.result("read"), [1]);
}
