//! What functions get and return.

use super::*;

#[test]
fn values_come_back_as_they_went() {
    let functions = NUMPY.to_owned()
        + r#"
def give(what):
    return {"json": {"b": [1, 2.5, None, True], "a": "ü\n"}, "bytes": b"\x00\xff", "text": "x",
            "small": np.arange(6, dtype="<i2").reshape(1, 2, 3), "large": np.arange(50_000.0),
            "none": None, "scalar": np.float32(0.5)}[what]
def look(value):
    if isinstance(value, np.ndarray):
        return ["array", list(value.shape), str(value.dtype), float(value.sum()), value.flags.writeable]
    return [type(value).__name__, repr(value)]
def look_at_inputs():
    return [look(forkyard.inputs["it"]), sorted(forkyard.inputs), look(forkyard.artifact("large"))]
"#;
    let kinds = ["json", "bytes", "text", "small", "large", "none", "scalar"];
    let mut nodes: Vec<String> =
        kinds.map(|kind| call(kind, "give", &format!("params = {{ what = \"{kind}\" }}"))).to_vec();
    for kind in kinds.into_iter().chain(["said"]) {
        let params = format!("params = {{ value = \"{{{{ nodes.{kind}.result }}}}\" }}");
        nodes.push(call(&format!("look-{kind}"), "look", &params));
    }
    nodes.push("[[node]]\nid = \"said\"\nop = \"exec\"\nrun = [\"echo\", \"hello\"]\n".into());
    let more = "inputs = { it = \"{{ nodes.large.result }}\" }\nartifact = \"{{ nodes.large.result }}\"";
    nodes.push(call("inputs", "look_at_inputs", more));
    let space = space(&functions, "", &nodes);
    space.run_manifest(0);
    assert_eq!(space.result_text("json"), r#"{"a":"ü\n","b":[1,2.5,null,true]}"#);
    assert_eq!(space.result("bytes"), b"\x00\xff");
    assert_eq!(space.result("small")[..6], *b"\x93NUMPY");
    let looks = [
        ("json", json!(["dict", "{'a': 'ü\\n', 'b': [1, 2.5, None, True]}"])),
        ("bytes", json!(["bytes", "b'\\x00\\xff'"])),
        ("text", json!(["str", "'x'"])),
        ("said", json!(["str", "'hello\\n'"])),
        ("none", json!(["NoneType", "None"])),
        ("scalar", json!(["float", "0.5"])),
        ("small", json!(["array", [1, 2, 3], "int16", 15.0, false])),
        ("large", json!(["array", [50_000], "float64", 1_249_975_000.0, false])),
    ];
    for (kind, look) in looks {
        assert_eq!(space.json(&format!("look-{kind}")), look, "{kind}");
    }
    let large = json!(["array", [50_000], "float64", 1_249_975_000.0, false]);
    assert_eq!(space.json("inputs"), json!([large, ["it"], large]));
    let rows = space.run(&["results", "export", "--format", "jsonl", "-"]).expect(0).events();
    let small = rows.iter().find(|row| row["node"] == "small").unwrap();
    assert_eq!((small["kind"].as_str(), small["value"]["npy"].is_string()), (Some("npy"), true));
}

#[test]
fn arrays_of_items_are_gathered_one_by_one() {
    let functions = NUMPY.to_owned()
        + "def make(n):\n    return np.full(n, n, dtype='i4')\n\
           def gather(all):\n    other = forkyard.inputs['all']\n    return [[int(a.sum()) for a in all], [a.flags.writeable for a in other]]\n";
    let nodes = [
        call("make", "make", "foreach = [2, 20000, 3]\nargs = [\"{{ item }}\"]"),
        call(
            "gather",
            "gather",
            "params = { all = \"{{ nodes.make.result }}\" }\ninputs = { all = \"{{ nodes.make.result }}\" }",
        ),
    ];
    let space = space(&functions, "", &nodes);
    space.run_manifest(0);
    assert_eq!(space.json("gather"), json!([[4, 400_000_000, 9], [false, false, false]]));
    assert_eq!(space.run_manifest(0).outcomes().matches("cached").count(), 5);
}

#[test]
fn what_is_no_value_fails_with_what_to_do() {
    let functions = NUMPY.to_owned()
        + "def give(what):\n    return {'set': {1}, 'nan': float('nan'), 'object': np.array([{}]), 'inside': [np.zeros(2)]}[what]\n";
    let functions = functions
        + "import numpy.ma\ndef masked(): return np.ma.array([1, 2], mask=[True, False])\n\
                                  def half(): forkyard.state['k'] = '\\ud800'\n";
    let kinds = ["set", "nan", "object", "inside"];
    let nodes = kinds.map(|kind| call(kind, "give", &format!("params = {{ what = \"{kind}\" }}")));
    let nodes = [&nodes[..], &[call("masked", "masked", ""), call("half", "half", "")]].concat();
    let ended = space(&functions, "[run]\non_failure = \"continue\"", &nodes).run_manifest(1);
    let says = [
        ("masked", "TypeError: a masked array has no .npy file"),
        ("half", "UnicodeEncodeError: 'utf-8' codec can't encode character '\\ud800'"),
        ("set", "TypeError: set is no value of JSON"),
        ("nan", "ValueError: Out of range float values are not JSON compliant"),
        ("object", "TypeError: an array of Python objects cannot be stored"),
        ("inside", "TypeError: an array inside another value"),
    ];
    for (node, text) in says {
        let error = error(&ended, node);
        assert!(error.starts_with(text), "{node}: {error}");
    }
}

const ARTIFACTS: &str =
    "[artifacts.m]\npath = \"m.npy\"\n[artifacts.r]\npath = \"r.jsonl\"\n[artifacts.raw]\npath = \"raw\"\n";

fn with_artifacts(space: Space) -> Space {
    space.write("m.npy", matrix(&[&[1.0, 2.0], &[3.0, 4.5]]));
    space.write("r.jsonl", "{\"id\": \"a\", \"n\": 1}\n{\"id\": 7, \"n\": 2}\n");
    space.write("raw", "some bytes");
    space
}

const SHOW: &str = r#"
def show():
    m, r = forkyard.artifact("m"), forkyard.artifact("r")
    try:
        m[0, 0] = 9
        written = True
    except (TypeError, ValueError):
        written = False
    records = [len(r), r[-1], r["a"], r.get("7"), r.get("none"), [one["n"] for one in r], "a" in r, "b" in r]
    return [type(m).__name__, list(m.shape), m[1, 1] if type(m) is memoryview else float(m[1, 1]), written, records,
            bytes(forkyard.artifact("raw")).decode()]
"#;

#[test]
fn artifacts_are_views_that_nobody_can_write() {
    for numpy in [true, false] {
        // A module that is None cannot be imported.
        let start = if numpy { "" } else { "import sys\nsys.modules['numpy'] = None\n" };
        let functions = format!("{start}import forkyard\n{SHOW}");
        let nodes = [call("show", "show", "artifacts = [\"m\", \"r\", \"raw\"]")];
        let space = with_artifacts(space(&functions, ARTIFACTS, &nodes));
        space.run_manifest(0);
        let records =
            json!([2, {"id": 7, "n": 2}, {"id": "a", "n": 1}, {"id": 7, "n": 2}, null, [1, 2], true, false]);
        let name = if numpy { "ndarray" } else { "memoryview" };
        assert_eq!(space.json("show"), json!([name, [2, 2], 4.5, false, records, "some bytes"]));
    }
}

#[test]
fn what_a_node_does_not_declare_fails_it_by_name() {
    let functions = "import forkyard\ndef peek(): return len(forkyard.artifact('raw'))\n\
                     def state(): return forkyard.state['k']\ndef inputs(): return forkyard.inputs['x']\n";
    let nodes =
        [call("peek", "peek", "artifact = \"m\""), call("state", "state", ""), call("inputs", "inputs", "")];
    let header = format!("{ARTIFACTS}[run]\non_failure = \"continue\"");
    let ended = with_artifacts(space(functions, &header, &nodes)).run_manifest(1);
    assert!(error(&ended, "peek").starts_with("the node does not name artifact 'raw' (it names m)"));
    assert!(error(&ended, "state").contains("reads the state's `k` and does not say so"));
    assert!(error(&ended, "inputs").contains("the node has no input 'x'"));
}

#[test]
fn the_state_goes_from_function_to_function() {
    let functions = "import forkyard\nstate = forkyard.state\n\
        def set_some():\n    state['a'] = {'x': 1}\n    state['b'] = 2\n    state['c'] = 3\n    return state['a']\n\
        def change():\n    state['b'] += 1\n    del state['c']\n    return ['c' in state, sorted(state.keys())]\n\
        def look():\n    return [dict(state.items()), state.get('c', 'gone')]\n";
    let nodes = [
        call("set", "set_some", "reads = [\"a\"]"),
        call("change", "change", "needs = [\"set\"]\nreads = \"state\""),
        call("look", "look", "needs = [\"change\"]\nreads = \"state\""),
    ];
    let space = space(functions, "", &nodes);
    space.run_manifest(0);
    assert_eq!(space.json("set"), json!({"x": 1}));
    assert_eq!(space.json("change"), json!([false, ["a", "b"]]));
    assert_eq!(space.json("look"), json!([{"a": {"x": 1}, "b": 3}, "gone"]));
}

#[test]
fn items_are_there_without_being_asked_for_and_are_in_the_key() {
    let functions = "import forkyard, os\ndef double(): return forkyard.item * 2\ndef sample(): return os.urandom(8).hex()\n";
    let nodes = [
        call("d", "double", "foreach = [1, 2, 3]"),
        call("e", "double", "each = \"d\""),
        call("s", "sample", "foreach = [1, 1, 1]\nsalt = \"{{ index }}\""),
        call("t", "sample", "foreach = [1, 1, 1]"),
    ];
    let space = space(functions, "", &nodes);
    space.run_manifest(0);
    assert_eq!(space.json("d"), json!([2, 4, 6]));
    assert_eq!(space.json("e"), json!([4, 8, 12]));
    let different = |node: &str| {
        let samples = space.json(node);
        samples
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one.as_str().unwrap().to_string())
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    assert_eq!((different("s"), different("t")), (3, 1));
}

#[test]
fn a_large_result_goes_through() {
    let functions = "def large(n): return bytes(range(256)) * n\ndef size(b): return [len(b), b[-1]]\n";
    let nodes = [
        call("large", "large", "args = [250000]"),
        call("size", "size", "params = { b = \"{{ nodes.large.result }}\" }"),
    ];
    let space = space(functions, "", &nodes);
    space.run_manifest(0);
    assert_eq!(space.json("size"), json!([64_000_000, 255]));
}

#[test]
fn nodes_that_come_into_being_may_be_python() {
    let functions = "def make(): return {'$nodes': [{'id': 'made', 'op': 'python', 'call': 'f.py:f', 'args': [4]}]}\ndef f(x): return x + 1\n";
    let space = space(functions, "", &[call("make", "make", ""), call("f", "f", "args = [1]")]);
    space.run_manifest(0);
    assert_eq!(space.result_text("made"), "5");
}
