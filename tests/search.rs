//! Vector search as a user meets it: `topk` beyond one vector and one type, and `ann` on the files that the library
//! usearch wrote.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::util::{RUN, Space, matrix, npy};

/// A manifest with these artifacts, as names and files, and nodes.
fn manifest(artifacts: &[(&str, &str)], nodes: &[String]) -> String {
    let artifact = |(name, path): &(&str, &str)| format!("[artifacts.{name}]\npath = \"{path}\"\n");
    artifacts.iter().map(artifact).chain(nodes.iter().cloned()).collect()
}

fn node(op: &str, id: &str, artifacts: &str, params: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"{op}\"\nartifacts = [{artifacts}]\nparams = {{ {params} }}\n")
}

fn result(space: &Space, node: &str) -> Value {
    serde_json::from_slice(&space.result(node)).unwrap()
}

#[test]
fn many_vectors_have_the_answers_of_each() {
    let numbers: Vec<f32> = (0..90).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
    let rows: Vec<&[f32]> = numbers.chunks(9).collect();
    let topk = |id: &str, params: &str| node("topk", id, "\"m\"", params);
    let vectors: Vec<String> = rows[2..8].iter().map(|row| format!("{row:?}")).collect();
    let each = (2..8).map(|row| topk(&format!("row-{row}"), &format!("row = {row}, k = 4, metric = \"l2\"")));
    let nodes = [
        topk("vectors", &format!("vectors = [{}], k = 4, metric = \"l2\"", vectors.join(", "))),
        topk("rows", "rows = [2, 8], k = 4, metric = \"l2\""),
        "[[node]]\nid = \"v\"\nop = \"value\"\nparams = { value = [[1, 0, 0, 0, 0, 0, 0, 0, 0]] }\n".into(),
        topk("given", "vectors = \"{{ nodes.v.result }}\", k = 1"),
    ];
    let nodes: Vec<String> = nodes.into_iter().chain(each).collect();
    let space = Space::with(&manifest(&[("m", "m.npy")], &nodes));
    space.write("m.npy", matrix(&rows));
    space.run_manifest(0);
    let each: Vec<String> = (2..8).map(|row| space.result_text(&format!("row-{row}"))).collect();
    assert_eq!(space.result_text("vectors"), format!("[{}]", each.join(",")));
    assert_eq!(space.result("rows"), space.result("vectors"));
    assert_eq!(result(&space, "given").as_array().unwrap().len(), 1);
}

#[test]
fn a_filter_is_a_range_a_mask_or_both() {
    let topk = |id: &str, filter: &str| {
        node(
            "topk",
            id,
            "\"m\", \"mask\"",
            &format!("vector = [1], k = 9, metric = \"dot\", filter = {filter}"),
        )
    };
    let nodes = [
        topk("mask", "\"mask\""),
        topk("both", "{ rows = [1, 4], mask = \"mask\" }"),
        node("topk", "range", "\"m\"", "vector = [1], k = 9, metric = \"dot\", filter = [1, 3]"),
        node("topk", "bytes", "\"m\", \"raw\"", "vector = [1], k = 9, metric = \"dot\", filter = \"raw\""),
        node("topk", "far", "\"m\"", "vector = [1], k = 9, filter = [1, 6]"),
        node("topk", "short", "\"m\", \"short\"", "vector = [1], k = 9, filter = \"short\""),
        node("topk", "wide", "\"mask\", \"m\"", "vector = [1], k = 9, filter = \"m\""),
    ];
    let artifacts = [("m", "m.npy"), ("mask", "mask.npy"), ("raw", "raw.bin"), ("short", "short.bin")];
    let space = Space::with(&manifest(&artifacts, &nodes));
    space.write("m.npy", matrix(&[&[1.0], &[2.0], &[3.0], &[4.0], &[5.0]]));
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }";
    space.write("mask.npy", npy(header, &[1, 0, 0, 1, 1]));
    space.write("raw.bin", [0, 1, 0, 0, 2]);
    space.write("short.bin", [0, 1]);
    let ended = space.run(&[&RUN[..], &["--keep-going"]].concat()).expect(1);
    let ids = |node| result(&space, node)["ids"].clone();
    assert_eq!(ids("mask"), json!([4, 3, 0]));
    assert_eq!(ids("both"), json!([3]));
    assert_eq!(ids("range"), json!([2, 1]));
    assert_eq!(ids("bytes"), json!([4, 1]));
    let error = |node: &str| ended.node(node)["error"].as_str().unwrap().to_string();
    assert_eq!(
        error("far"),
        "the filter takes the rows from 1 up to 6, but the matrix has 5 rows, counted from 0"
    );
    assert_eq!(error("short"), "the filter has 2 bytes, the matrix has 5 rows; it needs a byte a row");
    assert!(error("wide").contains("has elements of float32"), "{}", error("wide"));
}

#[test]
fn a_filter_that_the_node_does_not_name_is_found_before_anything_runs() {
    let refused = |artifacts: &str, params: &str, why: &str| {
        let nodes = [node("topk", "a", artifacts, &format!("row = 0, k = 1, {params}"))];
        let space = Space::with(&manifest(&[("m", "m.npy"), ("n", "m.npy"), ("o", "m.npy")], &nodes));
        space.write("m.npy", matrix(&[&[1.0]]));
        space.run_manifest(2).says(why);
    };
    refused("\"m\"", "filter = \"n\"", "the node does not name the artifact `n`: list it in `artifacts` too");
    refused("\"n\"", "filter = \"n\"", "takes one artifact beside `n`");
    refused("\"m\", \"n\"", "metric = \"dot\"", "`topk` takes one artifact, and one that its `filter` names");
    refused("\"m\", \"n\", \"o\"", "filter = \"n\"", "takes one artifact beside `n`");
    refused("\"m\"", "filter = [2, 1]", "`filter` must be [from, to)");
    refused("\"m\"", "normalize = \"row\"", "`normalize` must be true, false, or one of queries, rows");
}

#[test]
fn normalize_makes_vectors_and_rows_one_long() {
    let topk = |id: &str, params: &str| node("topk", id, "\"m\"", &format!("k = 3, {params}"));
    let nodes = [
        topk("dot", "vector = [0, 10], metric = \"dot\", normalize = true"),
        topk("rows", "vector = [0, 10], metric = \"dot\", normalize = \"rows\""),
        topk("queries", "vector = [0, 10], metric = \"dot\", normalize = \"queries\""),
        topk("l2", "vector = [0, 10], metric = \"l2\", normalize = true"),
        topk("plain", "vector = [0, 10], metric = \"dot\", normalize = false"),
    ];
    let space = Space::with(&manifest(&[("m", "m.npy")], &nodes));
    space.write("m.npy", matrix(&[&[0.0, 2.0], &[4.0, 0.0], &[0.0, 0.0]]));
    space.run_manifest(0);
    assert_eq!(space.result_text("dot"), "{\"ids\":[0,1,2],\"scores\":[1.0,0.0,0.0]}");
    assert_eq!(space.result_text("rows"), "{\"ids\":[0,1,2],\"scores\":[10.0,0.0,0.0]}");
    assert_eq!(space.result_text("queries"), "{\"ids\":[0,1,2],\"scores\":[2.0,0.0,0.0]}");
    assert_eq!(space.result_text("l2"), "{\"ids\":[0,2,1],\"scores\":[0.0,1.0,2.0]}");
    assert_eq!(space.result_text("plain"), "{\"ids\":[0,1,2],\"scores\":[20.0,0.0,0.0]}");
}

#[test]
fn small_whole_numbers_are_searched_like_others() {
    let nodes = [node("topk", "a", "\"m\"", "vector = [1, -1], k = 2, metric = \"dot\"")];
    let space = Space::with(&manifest(&[("m", "m.npy")], &nodes));
    let header = "{'descr': '|i1', 'fortran_order': False, 'shape': (3, 2), }";
    space.write("m.npy", npy(header, &[1, 2, 127, 128, 3, 3]));
    space.run_manifest(0);
    assert_eq!(space.result_text("a"), "{\"ids\":[1,2],\"scores\":[255.0,0.0]}");
}

fn usearch_data(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/formats/usearch").join(name);
    if !path.exists() {
        println!("skipped: {} is absent", path.display());
    }
    path.exists().then_some(path)
}

#[test]
fn ann_finds_what_the_library_finds() {
    let (Some(expected), Some(queries)) = (usearch_data("expected.json"), usearch_data("queries.npy")) else {
        return;
    };
    let expected: Value = serde_json::from_slice(&fs::read(expected).unwrap()).unwrap();
    let queries = fs::read(queries).unwrap();
    let queries: Vec<f32> =
        queries[queries.len() - 20 * 64 * 4..].as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)).collect();
    let vectors: Vec<&[f32]> = queries.chunks(64).collect();
    let nodes = [
        node("ann", "all", "\"ix\"", &format!("vectors = {vectors:?}, k = 10, expansion = 12")),
        node("ann", "one", "\"ix\"", &format!("vector = {:?}, k = 10, expansion = 12", vectors[0])),
        node("ann", "key", "\"ix\"", "row = 10007, k = 1"),
        node("ann", "short", "\"ix\"", "vector = [1, 2], k = 1"),
        node("ann", "nobody", "\"ix\"", "row = 10001, k = 1"),
        node("topk", "topk", "\"ix\"", "row = 1, k = 1"),
    ];
    for (name, about) in expected["files"].as_object().unwrap() {
        let Some(path) = usearch_data(name) else { return };
        let space = Space::with(&manifest(&[("ix", "ix.usearch")], &nodes));
        fs::copy(path, space.path("ix.usearch")).unwrap();
        let ended = space.run(&[&RUN[..], &["--keep-going"]].concat()).expect(1);
        let all = result(&space, "all");
        for (ours, theirs) in all.as_array().unwrap().iter().zip(about["search"].as_array().unwrap()) {
            let numbers = |value: &Value| serde_json::from_value::<Vec<f64>>(value.clone()).unwrap();
            let (scores, distances) = (numbers(&ours["scores"]), numbers(&theirs["distances"]));
            assert_eq!(scores.len(), 10);
            for at in 0..10 {
                let near = |a: f64, b: f64| (a - b).abs() < 1e-5 * b.abs().max(1.0);
                assert!(near(scores[at], distances[at]), "{name}: {scores:?} {distances:?}");
                let ties = distances.iter().filter(|other| near(**other, distances[at])).count();
                assert!(ties > 1 || ours["ids"][at] == theirs["keys"][at], "{name}: {ours} {theirs}");
            }
        }
        assert_eq!(result(&space, "one"), all[0]);
        if about["metric"] != "ip" {
            assert_eq!(result(&space, "key")["ids"], json!([10007]));
        }
        let error = |node: &str| ended.node(node)["error"].as_str().unwrap().to_string();
        assert_eq!(error("short"), "the vector has 2 values, the index has 64 dimensions");
        assert_eq!(error("nobody"), "nothing in the index has the key 10001");
        assert!(error("topk").contains("is not a matrix"), "{}", error("topk"));

        let info = space.run(&["artifact", "info", "ix.usearch"]).expect(0).stdout;
        let info = String::from_utf8(info).unwrap();
        let says = format!(
            "1000 vectors x 64 float{}, metric {}, connectivity 16",
            &name[1..3],
            about["metric"].as_str().unwrap()
        );
        assert!(info.contains(&says) && info.contains("3 levels, expansion 64"), "{info}");
        let info = space.run(&["artifact", "info", "ix.usearch", "--json"]).expect(0).stdout;
        let info: Value = serde_json::from_slice(&info).unwrap();
        assert_eq!((&info["format"], &info["shape"]), (&"usearch".into(), &json!([1000, 64])));
    }
}

#[test]
fn a_damaged_index_is_refused_before_anything_runs() {
    let Some(path) = usearch_data("f32_cos.usearch") else { return };
    let good = fs::read(path).unwrap();
    let refused = |bytes: &[u8], why: &str| {
        let space = Space::with(&manifest(
            &[("ix", "ix.usearch")],
            &[node("ann", "a", "\"ix\"", "row = 10000, k = 1")],
        ));
        space.write("ix.usearch", bytes);
        space.run_manifest(3).says("artifact \"ix\" (./ix.usearch): ").says(why);
        space.run(&["artifact", "info", "ix.usearch"]).expect(3).says(why);
    };
    refused(b"", "is empty");
    refused(b"usearch", "cut short");
    refused(&[0; 200], "not a usearch index");
    refused(&good[..good.len() - 7], "cut short");
    let mut lies = good.clone();
    // The first neighbour of the first node.
    lies[8 + 1000 * 256 + 64 + 40 + 2000 + 10 + 4 + 3] = 255;
    refused(&lies, "node 0 is damaged: its neighbour");
}
