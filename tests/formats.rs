//! Files in the formats of other libraries: what nodes see in them is what their own libraries read, or they are refused
//! by name before anything runs. The files are those of `../shared/data/formats`, where they are.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::util::{RUN, Space, python};

/// The folder of a format, and what its library reads in its files.
fn formats(format: &str) -> Option<(PathBuf, Value)> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/formats")).join(format);
    let Ok(expected) = std::fs::read(folder.join("expected.json")) else {
        println!("skipped: ../shared/data/formats/{format} is absent");
        return None;
    };
    Some((folder.canonicalize().unwrap(), serde_json::from_slice(&expected).unwrap()))
}

fn artifact(name: &str, path: &str, more: &str) -> String {
    format!("[artifacts.{name}]\npath = {}\n{more}\n", json!(path))
}

fn node(id: &str, op: &str, artifact: &str, params: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"{op}\"\nartifact = \"{artifact}\"\nparams = {{ {params} }}\n")
}

impl Space {
    fn result_json(&self, node: &str) -> Value {
        serde_json::from_slice(&self.result(node)).unwrap()
    }
}

/// A function that says what it sees of an artifact, in an interpreter that has numpy.
const SEE: &str = r#"
import hashlib
import forkyard
import numpy as np

def array(a):
    assert not a.flags.writeable and not a.flags.owndata or not a.size
    return [str(a.dtype), list(a.shape), hashlib.sha256(a.tobytes()).hexdigest()]

def arrays(name):
    seen = forkyard.artifact(name)
    return {key: array(a) for key, a in seen.items()} if isinstance(seen, dict) else array(seen)

def value(x):
    if isinstance(x, bytes):
        return x.hex()
    if isinstance(x, np.ndarray) or isinstance(x, forkyard.Column):
        return [value(one) for one in x]
    if isinstance(x, np.datetime64):
        return int(x.astype("i8"))
    if isinstance(x, dict):
        return {key: value(one) for key, one in x.items()}
    if x is np.ma.masked:
        return None
    return x.item() if isinstance(x, np.generic) else x

def row(name, at):
    return {key: value(column[at]) for key, column in forkyard.artifact(name).items() if key != "score"}

def score(name, at):
    found = forkyard.artifact(name)["score"][at]
    return None if found is np.ma.masked else found.tobytes()[::-1].hex()

def records(name):
    seen = forkyard.artifact(name)
    return [len(seen), seen.keys()[:2], seen[-1], seen.get("no"), seen[seen.keys()[0]], "no" in seen]
"#;

fn call(id: &str, function: &str, artifact: &str, args: &str) -> String {
    format!(
        "[[node]]\nid = \"{id}\"\nop = \"python\"\ncall = \"see.py:{function}\"\nartifact = \"{artifact}\"\nargs = [{args}]\n"
    )
}

fn space(text: &[String]) -> Space {
    let interpreter = format!("[python]\ninterpreter = {}\n", json!(python()));
    let space = Space::with(&(interpreter + &text.concat()));
    space.write("see.py", SEE);
    space
}

/// numpy's name of a safetensors type; without ml_dtypes those that it lacks are bits.
fn numpy_name(dtype: &Value) -> &str {
    match dtype.as_str().unwrap() {
        "F16" => "float16",
        "F32" => "float32",
        "F64" => "float64",
        "BF16" => "uint16",
        "BOOL" => "bool",
        "I8" => "int8",
        "U8" => "uint8",
        "I32" => "int32",
        "I64" => "int64",
        other => panic!("{other}"),
    }
}

#[test]
fn tensors_are_arrays_and_one_of_them_is_a_matrix() {
    let Some((folder, expected)) = formats("safetensors") else { return };
    let mut text = Vec::new();
    let path = |file: &str| folder.join(file).to_str().unwrap().to_owned();
    for (index, file) in expected.as_object().unwrap().keys().enumerate() {
        let name = format!("a{index}");
        text.push(artifact(&name, &path(file), ""));
        text.push(call(&format!("see{index}"), "arrays", &name, &json!(name).to_string()));
    }
    text.push(artifact("half", &(path("several.safetensors") + "#half"), ""));
    text.push(artifact("odd", &(path("several.safetensors") + "#näme with spaces/∂"), ""));
    text.push(node("near", "topk", "half", "row = 5, k = 1"));
    text.push(call("one", "arrays", "odd", "\"odd\""));
    text.push(node("whole", "topk", "a0", "row = 0, k = 1"));
    let space = space(&text);
    let ended = space.run(&[&RUN[..], &["--keep-going"]].concat()).expect(1);
    for (index, (file, expected)) in expected.as_object().unwrap().iter().enumerate() {
        let seen = space.result_json(&format!("see{index}"));
        let tensors = expected["tensors"].as_object().unwrap();
        let known: Value = tensors
            .iter()
            .map(|(name, tensor)| {
                (name.clone(), json!([numpy_name(&tensor["dtype"]), tensor["shape"], tensor["sha256"]]))
            })
            .collect::<serde_json::Map<_, _>>()
            .into();
        assert_eq!(seen, known, "{file}");
    }
    assert_eq!(space.result_json("near")["ids"], json!([5]));
    let odd = &expected["several.safetensors"]["tensors"]["näme with spaces/∂"];
    assert_eq!(space.result_json("one"), json!(["float32", odd["shape"], odd["sha256"]]));
    let error = ended.node("whole")["error"].as_str().unwrap().to_owned();
    assert!(error.ends_with("is not a matrix; name one of its tensors: path = \"file#tensor\""), "{error}");

    let info = |args: &[&str]| String::from_utf8(space.run(args).expect(0).stdout).unwrap();
    let several = path("several.safetensors");
    let told = info(&["artifact", "info", &several]);
    assert!(
        told.contains(": safetensors, 12 tensors, ") && told.contains("\n  codes.u8: uint8 [3, 4, 5]\n"),
        "{told}"
    );
    let told = info(&["artifact", "info", &format!("{several}#half")]);
    assert!(told.contains(": safetensors, tensor \"half\", float16 [37, 19], "), "{told}");
    let ended = space.run(&["artifact", "info", &format!("{several}#holf")]).expect(3);
    ended.says("it has no tensor \"holf\"; it has ");
}

#[test]
fn a_flat_index_is_searched_by_its_own_metric() {
    let Some((folder, expected)) = formats("faiss") else { return };
    let path = |file: &str| folder.join(file).to_str().unwrap().to_owned();
    let queries = std::fs::read(folder.join("queries.npy")).unwrap();
    let queries: Vec<f32> =
        queries[128..].as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect();
    let mut text = Vec::new();
    for name in ["flat_ip", "flat_l2"] {
        text.push(artifact(name, &path(&format!("{name}.faiss")), ""));
        text.push(call(&format!("see_{name}"), "arrays", name, &json!(name).to_string()));
        for (index, query) in queries.chunks(64).enumerate() {
            let params = format!("k = 10, vector = {}", json!(query));
            text.push(node(&format!("{name}{index}"), "topk", name, &params));
        }
    }
    let space = space(&text);
    space.run_manifest(0);
    let results = space.run(&["results", "export", "--format", "jsonl", "-"]).expect(0).events();
    for name in ["flat_ip", "flat_l2"] {
        let expected = &expected["files"][format!("{name}.faiss")];
        let seen = space.result_json(&format!("see_{name}"));
        assert_eq!(seen, json!(["float32", [1000, 64], expected["vectors_sha256"]]));
        for (index, expected) in expected["search"].as_array().unwrap().iter().enumerate() {
            let node = format!("{name}{index}");
            let found = &results.iter().find(|row| row["node"] == *node).unwrap()["value"];
            assert_eq!(found["ids"], expected["ids"], "{node}");
            let scores = |list: &Value| -> Vec<f64> { serde_json::from_value(list.clone()).unwrap() };
            let pairs = scores(&found["scores"]).into_iter().zip(scores(&expected["distances"]));
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-5), "{node}: {found}");
        }
    }
    let ended = space.run(&["artifact", "info", &path("ivf_flat_ip.faiss")]).expect(3);
    ended.says("not usable as faiss: it is an IVF flat index (IwFl), and only flat ones");
    space.run(&["artifact", "info", &path("hnsw_flat_l2.faiss")]).expect(3).says("an HNSW flat index (IHNf)");
}

#[test]
fn tables_have_columns_and_rows() {
    let Some((folder, _)) = formats("arrow") else { return };
    let rows = std::fs::read_to_string(folder.join("rows.jsonl")).unwrap();
    let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    let files = [
        "table.arrow",
        "table_lz4.arrow",
        "table_stream.arrows",
        "table_plain.parquet",
        "table_snappy.parquet",
        "table_zstd_v2.parquet",
    ];
    let sample = [0, 4, 7, 9, 29, 437, 999];
    let mut text = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let path = folder.join(file).to_str().unwrap().to_owned();
        text.push(artifact(&format!("t{index}"), &path, ""));
        text.push(artifact(&format!("v{index}"), &format!("{path}#vec"), ""));
        text.push(node(&format!("near{index}"), "topk", &format!("v{index}"), "row = 999, k = 2"));
        text.push(call(&format!("vec{index}"), "arrays", &format!("v{index}"), &format!("\"v{index}\"")));
        for at in sample {
            let name = format!("t{index}");
            text.push(call(&format!("row{index}_{at}"), "row", &name, &format!("\"{name}\", {at}")));
            text.push(call(&format!("score{index}_{at}"), "score", &name, &format!("\"{name}\", {at}")));
            text.push(node(&format!("lookup{index}_{at}"), "lookup", &name, &format!("row = {at}")));
        }
    }
    text.push(node("far", "lookup", "t0", "row = 1000"));
    text.push(node("key", "lookup", "t0", "key = \"n00253773\""));
    let space = space(&text);
    let ended = space.run(&[&RUN[..], &["--keep-going"]].concat()).expect(1);
    let error = |node: &str| ended.node(node)["error"].as_str().unwrap().to_owned();
    assert_eq!(error("far"), "there is no row 1000: the artifact has 1000 rows");
    assert_eq!(error("key"), "lookup in a table takes a row");
    let results = space.run(&["results", "export", "--format", "jsonl", "-"]).expect(0).events();
    let result = |node: String| results.iter().find(|row| row["node"] == *node).unwrap()["value"].clone();
    for (index, file) in files.iter().enumerate() {
        for at in sample {
            let mut expected = rows[at].as_object().unwrap().clone();
            let score = expected.remove("score").unwrap();
            same(&result(format!("row{index}_{at}")), &expected.clone().into(), file);
            assert_eq!(result(format!("score{index}_{at}")), score, "{file} {at}");
            let mut found = result(format!("lookup{index}_{at}"));
            let found_score = found.as_object_mut().unwrap().remove("score").unwrap();
            same(&found, &expected.into(), file);
            let score = score.as_str().map(|bits| f64::from_bits(u64::from_str_radix(bits, 16).unwrap()));
            assert_eq!(found_score, json!(score.filter(|score| score.is_finite())), "{file} {at}");
        }
        assert_eq!(result(format!("near{index}"))["ids"][0], 999, "{file}");
        let vectors = result(format!("vec{index}"));
        assert_eq!((&vectors[0], &vectors[1]), (&json!("float32"), &json!([1000, 8])), "{file}");
        assert_eq!(vectors, result("vec0".into()), "{file}");
    }
    let info = space.run(&["artifact", "info", folder.join(files[3]).to_str().unwrap()]).expect(0).stdout;
    let info = String::from_utf8(info).unwrap();
    assert!(info.contains(": parquet, 1,000 rows, 13 columns, 217.2 KiB, "), "{info}");
    for line in [
        "score: float64, with gaps",
        "vec: float32 x 8",
        "when: datetime64[us]",
        "lemmas: lists of text, with gaps",
    ] {
        assert!(
            info.contains(&format!(
                "
  {line}
"
            )),
            "{info}"
        );
    }
    let ended = space.run(&["artifact", "info", &(folder.join(files[0]).display().to_string() + "#text")]);
    ended.expect(3).says("column \"text\" is not made of numbers");
}

/// Equal but for the last bit of floats: the parser of the tests may miss it.
fn same(found: &Value, expected: &Value, file: &str) {
    match (found, expected) {
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{file}: {found} {expected}");
            a.iter().for_each(|(key, a)| same(a, &b[key], file));
        }
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len(), "{file}: {found} {expected}");
            a.iter().zip(b).for_each(|(a, b)| same(a, b, file));
        }
        (a, b) if a.is_f64() && b.is_f64() => {
            assert_eq!(a.as_f64().unwrap() as f32, b.as_f64().unwrap() as f32, "{file}");
        }
        (a, b) => assert_eq!(a, b, "{file}"),
    }
}

#[test]
fn a_registry_is_looked_up_by_key() {
    let space = space(&[
        artifact("tools", "tools.json", "key = \"name\""),
        artifact("named", "tools.json#tools", "key = \"name\""),
        artifact("by", "by.json", ""),
        node("key", "lookup", "tools", "key = \"b\""),
        node("row", "lookup", "named", "row = 0"),
        node("member", "lookup", "by", "key = \"x y\""),
        node("none", "lookup", "by", "key = \"id\""),
        call("see", "records", "tools", "\"tools\""),
        call("see-by", "records", "by", "\"by\""),
        "[[node]]\nid = \"each\"\nop = \"value\"\nforeach = { artifact = \"by\" }\nparams = { value = \"{{ item }}\" }\n".into(),
    ]);
    space.write("tools.json", r#"{"version": 1, "tools": [{"name": "a", "n": [1]}, {"n": 2, "name": "b"}]}"#);
    space.write("by.json", "{\"x y\": {\"b\": 1, \"a\": \"}\"},\n \"\\u00e9\": [2, 3]}");
    let ended = space.run(&[&RUN[..], &["--keep-going"]].concat()).expect(1);
    assert_eq!(space.result_text("key"), r#"{"n":2,"name":"b"}"#);
    assert_eq!(space.result_text("row"), r#"{"n":[1],"name":"a"}"#);
    assert_eq!(space.result_text("member"), r#"{"a":"}","b":1}"#);
    assert_eq!(ended.node("none")["error"], "no record has the key \"id\"");
    let [a, b] = [json!({ "name": "a", "n": [1] }), json!({ "name": "b", "n": 2 })];
    assert_eq!(space.result_json("see"), json!([2, ["a", "b"], b, null, a, false]));
    let first = json!({ "a": "}", "b": 1 });
    assert_eq!(space.result_json("see-by"), json!([2, ["x y", "é"], [2, 3], null, first, false]));
    assert_eq!(space.result_json("each"), json!([first, [2, 3]]));
    let info = String::from_utf8(space.run(&["artifact", "info", "tools.json"]).expect(0).stdout).unwrap();
    assert!(info.starts_with("tools.json: json, 2 records, 0 keys, "), "{info}");

    let Some((folder, expected)) = formats("registry") else { return };
    for file in ["tools.json", "tools_ascii_escaped.json"] {
        let info = space.run(&["artifact", "info", folder.join(file).to_str().unwrap(), "--json"]);
        assert_eq!(info.expect(0).events()[0]["shape"], json!([expected["tools"]]), "{file}");
    }
}

#[test]
fn arrays_of_numpy_are_seen_or_refused_by_name() {
    let Some((folder, expected)) = formats("npy") else { return };
    let expected = expected["files"].as_object().unwrap();
    let (mut text, mut read) = (Vec::new(), Vec::new());
    for (index, (file, expected)) in expected.iter().enumerate() {
        let path = folder.join(file).to_str().unwrap().to_owned();
        let dimensions = expected["shape"].as_array().unwrap();
        let refusal = match expected["descr"].as_str().unwrap() {
            descr if descr.starts_with('>') => Some("its numbers are big-endian"),
            _ if !(1..=2).contains(&dimensions.len()) => Some("dimensions"),
            _ if expected["fortran_order"] == true => Some("Fortran order"),
            _ if dimensions.contains(&json!(0)) => Some("no rows"),
            _ => None,
        };
        match refusal {
            Some(why) => drop(Space::new().run(&["artifact", "info", &path]).expect(3).says(why)),
            None => {
                text.push(artifact(&format!("a{index}"), &path, ""));
                text.push(call(
                    &format!("see{index}"),
                    "arrays",
                    &format!("a{index}"),
                    &format!("\"a{index}\""),
                ));
                read.push((index, expected));
            }
        }
    }
    assert!(read.len() > 10);
    let space = space(&text);
    space.run_manifest(0);
    for (index, expected) in read {
        let seen = space.result_json(&format!("see{index}"));
        assert_eq!((&seen[1], &seen[2]), (&expected["shape"], &expected["c_order_le_sha256"]));
    }
}

/// Refused before anything runs, by name, with exit code 3 and this reason.
fn refused(file: &str, bytes: &[u8], reason: &str) {
    let space = Space::with(
        &(artifact("m", file, "") + "[[node]]\nid = \"a\"\nop = \"exec\"\nrun = [\"touch\", \"ran\"]\n"),
    );
    space.write(file, bytes);
    let ended = space.run_manifest(3);
    let said = &ended.stderr;
    assert!(
        said.starts_with(&format!("forkyard: artifact \"m\" (./{file}): ")) && said.contains(reason),
        "{said}"
    );
    assert!(!space.path("ran").exists() && !space.path(".forkyard").exists(), "something ran");
}

/// A Parquet file of two MiB that holds 256 GiB, and says so: one row group of the same number over and over, sixteen
/// thousand times.
fn bomb() -> Vec<u8> {
    use parquet::data_type::Int64Type;
    use parquet::file::metadata::{FileMetaData, ParquetMetaDataBuilder, ParquetMetaDataWriter};
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::file::writer::SerializedFileWriter;

    const ROWS: usize = 1 << 21;
    const GROUPS: usize = 1 << 14;
    let schema = parquet::schema::parser::parse_message_type("message m { required int64 x; }").unwrap();
    let file = tempfile::tempfile().unwrap();
    let mut writer =
        SerializedFileWriter::new(file.try_clone().unwrap(), schema.into(), Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&vec![7; ROWS], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();

    let one = SerializedFileReader::new(file.try_clone().unwrap()).unwrap().metadata().clone();
    let rows = (ROWS * GROUPS) as i64;
    let about = FileMetaData::new(1, rows, None, None, one.file_metadata().schema_descr_ptr(), None);
    let many =
        ParquetMetaDataBuilder::new(about).set_row_groups(vec![one.row_group(0).clone(); GROUPS]).build();
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    ParquetMetaDataWriter::new(&mut bytes, &many).finish().unwrap();
    bytes
}

#[test]
fn hostile_files_are_refused() {
    let safetensors = |header: &str, data_bytes: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data_bytes, 0);
        bytes
    };
    let tensor = |shape: &str, to: u64| {
        format!(r#"{{"x":{{"dtype":"F32","shape":{shape},"data_offsets":[0,{to}]}}}}"#)
    };
    refused("w.safetensors", b"", "is empty");
    refused("w.safetensors", &[0xff; 32], "its header claims to be 18446744073709551615 bytes long");
    refused(
        "w.safetensors",
        &safetensors(&tensor("[4]", 16), 8),
        "claims the bytes 0 to 16 of the data, which has 8",
    );
    refused("w.safetensors", &safetensors(&tensor("[1099511627776,4]", 16), 16), "which is another size");
    refused("i.faiss", b"", "is empty");
    refused("i.faiss", b"IwFl", "it is an IVF flat index (IwFl)");
    refused("t.parquet", b"", "is empty");
    refused("t.parquet", b"PAR1", "not usable as parquet");
    let bomb = bomb();
    assert!(bomb.len() < 4 << 20, "a small file: {}", bomb.len());
    refused("t.parquet", &bomb, "once decoded it would take more than ");
    refused("t.arrow", b"", "is empty");
    refused("t.arrow", &[7; 100], "not usable as arrow");
    refused("r.json", b"[1, 2]", "record 0: invalid type");
    refused("r.json", b"{\"a\": ", "not usable as json: EOF");
}
