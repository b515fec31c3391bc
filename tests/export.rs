//! `results export`: what is in each format, read back by other programs where they are the measure; a table
//! is whole or not there. DuckDB comes with `scripts/test`.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::sys::signal::Signal;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::util::{Ended, RUN, Space, eventually, python, text};

impl Space {
    fn export(&self, format: &str, file: &str) -> Ended {
        self.run(&["results", "export", "--format", format, file])
    }

    /// The rows of a table in JSON Lines, by node.
    fn exported_lines(&self) -> BTreeMap<String, Value> {
        let lines = self.export("jsonl", "-").expect(0).events();
        lines.into_iter().map(|line| (line["node"].as_str().unwrap().into(), line)).collect()
    }

    /// What DuckDB answers, a row an array.
    fn ask(&self, sql: &str) -> Vec<Value> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/query.py");
        let output = Command::new(python()).args([script, sql]).current_dir(self.path("")).output().unwrap();
        assert!(output.status.success(), "{sql}\n{}", String::from_utf8_lossy(&output.stderr));
        let answer = String::from_utf8(output.stdout).unwrap();
        answer.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Nodes of every kind, and every way to have no result.
const ALL_KINDS: &str = r#"
    [[node]]
    id = "bytes"
    op = "exec"
    run = ['printf', 'a\377\000']
    output = "bytes"
    [[node]]
    id = "empty"
    op = "exec"
    run = ["true"]
    [[node]]
    id = "failed"
    op = "exec"
    run = ["false"]
    [[node]]
    id = "json"
    op = "value"
    params = { value = { b = [1.5, "ü\n"], a = "say \"1,2\"" } }
    [[node]]
    id = "latin"
    op = "exec"
    run = ['printf', 'gr\374n']
    [[node]]
    id = "needs failed"
    op = "noop"
    needs = ["failed"]
    [[node]]
    id = "null"
    op = "noop"
    [[node]]
    id = "text"
    op = "exec"
    run = ['printf', 'one, "two"\r\nthree ü']
    "#;

fn all_kinds() -> Space {
    let space = Space::with(ALL_KINDS);
    space.run(&[&RUN[..], &["--keep-going"]].concat()).expect(1);
    space
}

/// A node of which we need the lines of a shell.
fn shell(id: &str, script: &str) -> String {
    format!("[[node]]\nid = \"{id}\"\nop = \"exec\"\nshell = true\nrun = ['''{script}''']\n")
}

#[test]
fn json_lines_hold_json_as_it_is_text_as_strings_and_bytes_as_base64() {
    let space = all_kinds();
    let ended = space.export("jsonl", "-").expect(0);
    let first = String::from_utf8(ended.stdout.clone()).unwrap();
    assert!(first.starts_with(r#"{"v":1,"node":"bytes","outcome":"ran","kind":"bytes","value":{"base64":"#));
    let nodes: Vec<String> = ended.events().iter().map(|l| l["node"].as_str().unwrap().into()).collect();
    assert_eq!(nodes, ["bytes", "empty", "failed", "json", "latin", "needs failed", "null", "text"]);
    assert!(first.contains(&format!("\"value\":{},", space.result_text("json"))), "{first}");

    let lines = space.exported_lines();
    let told = |node: &str| [&lines[node]["kind"], &lines[node]["value"], &lines[node]["bytes"]];
    assert_eq!(told("bytes"), [&json!("bytes"), &json!({"base64": "Yf8A"}), &json!(3)]);
    assert_eq!(told("empty"), [&json!("text"), &json!(""), &json!(0)]);
    let value = json!({"a": "say \"1,2\"", "b": [1.5, "ü\n"]});
    assert_eq!(told("json"), [&json!("json"), &value, &json!(value.to_string().len())]);
    assert_eq!(told("latin"), [&json!("bytes"), &json!({"base64": "Z3L8bg=="}), &json!(4)]);
    assert_eq!(told("null"), [&json!("json"), &Value::Null, &json!(4)]);
    assert_eq!(told("text"), [&json!("text"), &json!("one, \"two\"\r\nthree ü"), &json!(20)]);

    let ls = space.run(&["results", "ls", "--json"]).expect(0).events();
    for listed in ls {
        let line = &lines[listed["node"].as_str().unwrap()];
        for field in ["v", "node", "outcome", "bytes", "digest", "duration_s", "run", "error"] {
            assert_eq!(line[field], listed[field], "{line}");
        }
    }
    assert_eq!(told("failed"), [&Value::Null; 3]);
    assert_eq!(lines["needs failed"]["outcome"], "blocked");
    assert!(lines["failed"]["error"].as_str().unwrap().contains("exit status: 1"));
}

#[test]
fn csv_is_as_its_rfc_says() {
    let space = all_kinds();
    space.export("csv", "t.csv").expect(0);
    let table = space.text("t.csv");
    assert!(
        table.starts_with("node,outcome,kind,value,bytes,digest,duration_s,run,error\r\nbytes,ran,bytes,")
    );
    assert_eq!(space.export("csv", "-").expect(0).stdout, table.as_bytes());
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let rows: Vec<[String; 5]> = reader
        .records()
        .map(|row| [0, 2, 3, 4, 7].map(|column| row.as_ref().unwrap()[column].to_string()))
        .collect();
    let expected = [
        ["bytes", "bytes", "Yf8A", "3", "1"],
        ["empty", "text", "", "0", "1"],
        ["failed", "", "", "", ""],
        ["json", "json", r#"{"a":"say \"1,2\"","b":[1.5,"ü\n"]}"#, "36", "1"],
        ["latin", "bytes", "Z3L8bg==", "4", "1"],
        ["needs failed", "", "", "", ""],
        ["null", "json", "null", "4", "1"],
        ["text", "text", "one, \"two\"\r\nthree ü", "20", "1"],
    ];
    assert_eq!(rows, expected);
    assert!(
        table.contains("\r\nempty,ran,text,\"\",0,") && table.contains("\r\nfailed,failed,,,,"),
        "{table}"
    );
}

#[test]
fn parquet_has_typed_columns_and_real_nulls() {
    let space = all_kinds();
    space.export("parquet", "t.parquet").expect(0);
    let columns = space.ask("SELECT column_name, column_type FROM (DESCRIBE FROM 't.parquet')");
    let expected = [
        ["node", "VARCHAR"],
        ["outcome", "VARCHAR"],
        ["kind", "VARCHAR"],
        ["value", "VARCHAR"],
        ["value_bytes", "BLOB"],
        ["bytes", "BIGINT"],
        ["digest", "VARCHAR"],
        ["duration_s", "DOUBLE"],
        ["run", "BIGINT"],
        ["error", "VARCHAR"],
    ];
    assert_eq!(columns, expected.map(|column| json!(column)));

    let rows = space.ask("SELECT node, kind, value, value_bytes, bytes, run FROM 't.parquet'");
    let expected = [
        json!(["bytes", "bytes", null, "61ff00", 3, 1]),
        json!(["empty", "text", "", null, 0, 1]),
        json!(["failed", null, null, null, null, null]),
        json!(["json", "json", r#"{"a":"say \"1,2\"","b":[1.5,"ü\n"]}"#, null, 36, 1]),
        json!(["latin", "bytes", null, "6772fc6e", 4, 1]),
        json!(["needs failed", null, null, null, null, null]),
        json!(["null", "json", "null", null, 4, 1]),
        json!(["text", "text", "one, \"two\"\r\nthree ü", null, 20, 1]),
    ];
    assert_eq!(rows, expected);

    let rest = "SELECT node, outcome, digest, duration_s, error FROM 't.parquet'";
    let lines = space.exported_lines();
    for row in space.ask(rest) {
        let line = &lines[row[0].as_str().unwrap()];
        let told = ["node", "outcome", "digest", "duration_s", "error"].map(|field| &line[field]);
        assert_eq!(row, json!(told));
    }
    space.export("parquet", "-").expect(2).says("parquet is not written to stdout; name a file");
}

#[test]
fn a_hundred_thousand_results_in_parquet_are_what_was_computed() {
    let space = Space::new();
    let node = |n: u64| match n % 10 {
        0 => format!("{{\"id\":\"n{n:06}\",\"op\":\"noop\"}}\n"),
        _ => format!(
            "{{\"id\":\"n{n:06}\",\"op\":\"value\",\"params\":{{\"value\":{{\"n\":{n},\"of\":\"ü\"}}}}}}\n"
        ),
    };
    space.write("m.jsonl", (0..100_000).map(node).collect::<String>());
    // One row more than a row group holds.
    space.write(
        "m.toml",
        "[run]\ninclude = [\"m.jsonl\"]\n[[node]]\nid = \"x\"\nop = \"exec\"\nrun = [\"false\"]\n",
    );
    space.run(&["run", "m.toml", "--keep-going", "--quiet"]).expect(1);
    space.export("parquet", "t.parquet").expect(0);

    let ask = |sql: &str| space.ask(sql).remove(0);
    assert_eq!(
        ask("SELECT count(*), count(DISTINCT node), count(value), count(value_bytes), count(error), sum(bytes)::BIGINT
             FROM 't.parquet'"),
        // 90,000 documents of 16 bytes and their digits, 10,000 times `null`.
        json!([100_001, 100_001, 100_000, 0, 1, 90_000 * 16 + (9 + 81 * 2 + 810 * 3 + 8100 * 4 + 81_000 * 5) + 40_000])
    );
    let sum: u64 = (0..100_000).filter(|n| n % 10 != 0).sum();
    assert_eq!(
        ask("SELECT sum((value->>'n')::BIGINT)::BIGINT, count(*) FILTER (value->>'of' = 'ü'),
                    count(*) FILTER (value = 'null'), sum(run)::BIGINT, bool_and(duration_s >= 0),
                    bool_and(value IS NULL OR digest = sha256(value))
             FROM 't.parquet'"),
        json!([sum, 90_000, 10_000, 100_000, true, true])
    );
    assert_eq!(
        space.ask("SELECT node, outcome, value FROM 't.parquet' WHERE node IN ('n000000', 'n099999', 'x') ORDER BY 1"),
        [
            json!(["n000000", "ran", "null"]),
            json!(["n099999", "ran", "{\"n\":99999,\"of\":\"ü\"}"]),
            json!(["x", "failed", null])
        ]
    );
    assert_eq!(ask("SELECT max(num_row_groups) FROM parquet_file_metadata('t.parquet')"), json!([2]));
}

#[test]
fn a_run_can_be_chosen_and_says_who_computed_what() {
    let space = Space::with(&shell("a", "echo 1"));
    space.run_manifest(0);
    space.write("m.toml", [shell("a", "echo 1"), shell("b", "echo 2")].concat());
    space.run_manifest(0);
    let lines = space.exported_lines();
    assert_eq!(["outcome", "run"].map(|field| &lines["a"][field]), [&json!("cached"), &json!(1)]);
    assert_eq!(["outcome", "run"].map(|field| &lines["b"][field]), [&json!("ran"), &json!(2)]);
    let first = ["results", "export", "--format", "jsonl", "--run", "1", "-"];
    assert_eq!(space.run(&first).expect(0).events().len(), 1);
    space.run(&["results", "export", "--format", "csv", "--run", "3", "-"]).expect(2).says("has no run 3");
}

#[test]
fn a_damaged_result_is_null_with_its_reason_and_the_others_are_exported() {
    let script = |letter: &str| format!("yes {letter} | head -c 50000");
    let small = shell("small", "yes | head -c 2000");
    let space = Space::with(&[shell("a", &script("a")), small, shell("z", "echo z")].concat());
    space.run_manifest(0);
    let blob = space.only_blob();
    fs::set_permissions(&blob, Permissions::from_mode(0o600)).unwrap();
    fs::write(&blob, [b'b'; 50_000]).unwrap();
    let database = Connection::open(space.path(".forkyard/store.db")).unwrap();
    assert_eq!(database.execute("UPDATE blobs SET bytes = zeroblob(2000)", []).unwrap(), 1);

    let says = "2 results could not be exported, and `value` is null there; the first is `a`: ";
    let lines = space.export("jsonl", "-").expect(4).says(says).says("--refresh").events();
    for (line, bytes) in [(&lines[0], 50_000), (&lines[1], 2000)] {
        let told = ["kind", "value", "bytes"].map(|field| &line[field]);
        assert_eq!(told, [&json!("text"), &Value::Null, &json!(bytes)]);
        assert!(line["error"].as_str().unwrap().contains("is damaged"), "{line}");
    }
    assert_eq!(lines[2]["value"], "z\n");

    space.export("parquet", "t.parquet").expect(4).says(says);
    let rows = space.ask("SELECT node, value, error LIKE '%is damaged%' FROM 't.parquet'");
    assert_eq!(rows, [json!(["a", null, true]), json!(["small", null, true]), json!(["z", "z\n", null])]);

    fs::remove_file(&blob).unwrap();
    let lines = space.export("jsonl", "-").expect(4).events();
    assert_eq!(lines[0]["error"], "its result is damaged or gone from the store");
}

#[test]
fn an_export_works_while_the_run_goes_on() {
    let space =
        Space::with(&[shell("a", "echo a"), shell("b", "while [ ! -e go ]; do sleep 0.01; done")].concat());
    let run = space.start(&RUN);
    eventually("the first result is durable", || {
        let ended = space.export("jsonl", "-");
        ended.code() == Some(0) && ended.events().iter().any(|line| line["value"] == "a\n")
    });
    space.export("csv", "t.csv").expect(0);
    assert_eq!(space.text("t.csv").lines().count(), 3, "a header, `a` in two lines, no `b`");
    space.write("go", "");
    run.end().expect(0);
    assert_eq!(space.exported_lines().len(), 2);
}

/// A store whose table does not fit into 400 KB.
fn large() -> Space {
    let letters = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let nodes = letters.map(|letter| shell(letter, &format!("yes {letter} | head -c 100000")));
    let space = Space::with(&nodes.concat());
    space.run_manifest(0);
    space.write("t.jsonl", "what was there");
    space
}

/// An export that may write files of 400 KB only.
fn limited(space: &Space, before: &str) -> Ended {
    let forkyard = env!("CARGO_BIN_EXE_forkyard");
    let line = format!("{before} ulimit -f 800; exec {forkyard} results export --format jsonl t.jsonl");
    space.start_shell(&line).end()
}

#[test]
fn a_killed_export_leaves_what_was_there() {
    let space = large();
    limited(&space, "").expect_signal(Signal::SIGXFSZ);
    assert_eq!(space.text("t.jsonl"), "what was there");
    assert!(
        space.text("t.jsonl.part").starts_with("{\"v\":1,\"node\":\"a\""),
        "it was killed while it wrote"
    );
    space.export("jsonl", "t.jsonl").expect(0);
    assert_eq!(space.text("t.jsonl").lines().count(), 8);
    assert!(!space.path("t.jsonl.part").exists());
}

#[test]
fn an_export_that_does_not_fit_names_the_file_and_leaves_what_was_there() {
    let space = large();
    limited(&space, "trap '' XFSZ;").expect(5).says("write t.jsonl: File too large");
    assert_eq!(space.text("t.jsonl"), "what was there");
    assert!(!space.path("t.jsonl.part").exists());
}

#[test]
fn only_a_regular_file_is_replaced() {
    let space = Space::with(&shell("a", "echo a"));
    space.run_manifest(0);
    std::os::unix::fs::symlink("/dev/null", space.path("link")).unwrap();
    space.export("csv", "link").expect(2).says("write link: it exists and is not a regular file");
    space.export("csv", text(&space.path(""))).expect(2).says("is not a regular file");
    space.export("csv", "no/t.csv").expect(2).says("write no/t.csv: No such file or directory");
}

/// Fails unless each value of a table, as Python understands it, has its digest.
const DIGESTS: &str = r#"
import base64, csv, hashlib, json, sys
csv.field_size_limit(1 << 30)
table = open(sys.argv[1], newline="")
rows = csv.DictReader(table) if sys.argv[1].endswith("csv") else map(json.loads, table)
for row in rows:
    value = row["value"]
    if row["kind"] == "bytes":
        value = base64.b64decode(value if isinstance(value, str) else value["base64"])
    elif row["kind"] == "json" and "v" in row:
        value = json.dumps(value).encode()
    else:
        value = value.encode()
    assert hashlib.sha256(value).hexdigest() == row["digest"], row["node"]
    print(row["node"], row["kind"])
"#;

#[test]
fn a_value_larger_than_memory_is_no_trouble() {
    let node = |id: &str, output: &str, script: &str| {
        format!("{}output = \"{output}\"\n", shell(id, &format!("{script} | head -c 39999999")))
    };
    let nodes = [
        node("bytes", "bytes", "yes"),
        // Text but for its end, which cuts a character.
        node("cut", "text", "(printf aa; yes ü)"),
        // Buffers cut its characters.
        node("text", "text", "(printf aa; yes '\"ü')"),
        shell("json", "printf '\"'; yes '\\\"a,' | tr -d '\\n' | head -c 40000000; printf '\"'")
            + "output = \"json\"\n",
    ];
    let space = Space::with(&nodes.concat());
    space.run_manifest(0);
    for (format, file) in [("jsonl", "t.jsonl"), ("csv", "t.csv")] {
        let forkyard = env!("CARGO_BIN_EXE_forkyard");
        let export = format!("ulimit -d 32768; exec {forkyard} results export --format {format} {file}");
        space.start_shell(&export).end().expect(0);
        let python = Command::new("python3").args(["-c", DIGESTS, file]).current_dir(space.path("")).output();
        let output = python.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let kinds = "bytes bytes\ncut bytes\njson json\ntext text\n";
        assert_eq!(String::from_utf8_lossy(&output.stdout), kinds, "{format}: {said}");
    }
}
