//! `artifact import`: what comes out of pickles and torch files, and that nothing in them is run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use forkyard_shared::digest::Digest;
use serde_json::{Value, json};

use crate::util::{Ended, Space, python, text};

/// A tensor as a safetensors file holds it.
#[derive(Debug, PartialEq)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

impl Tensor {
    fn doubles(&self) -> Vec<f64> {
        assert_eq!(self.dtype, "F64");
        self.bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
    }

    fn row(&self, row: usize) -> &[u8] {
        let row_bytes = self.bytes.len() / self.shape[0] as usize;
        &self.bytes[row * row_bytes..][..row_bytes]
    }
}

impl Space {
    fn import_arrays(&self, from: &str, more: &[&str]) -> Ended {
        self.run(&[&["artifact", "import", from, "out.safetensors"], more].concat())
    }

    /// The tensors of `out.safetensors` by name, which fill it without a gap, and its notes.
    fn tensors(&self) -> (BTreeMap<String, Tensor>, BTreeMap<String, String>) {
        let file = fs::read(self.path("out.safetensors")).unwrap();
        let (len, rest) = file.split_first_chunk().unwrap();
        let (header, data) = rest.split_at(u64::from_le_bytes(*len) as usize);
        assert_eq!(header.len() % 8, 0);
        let mut header: serde_json::Map<String, Value> = serde_json::from_slice(header).unwrap();
        let notes = header
            .remove("__metadata__")
            .map_or(BTreeMap::new(), |notes| serde_json::from_value(notes).unwrap());
        let mut spans = Vec::new();
        let tensors = header.into_iter().map(|(name, about)| {
            let [from, to]: [usize; 2] = serde_json::from_value(about["data_offsets"].clone()).unwrap();
            spans.push((from, to));
            let dtype = about["dtype"].as_str().unwrap().to_owned();
            let shape = serde_json::from_value(about["shape"].clone()).unwrap();
            (name, Tensor { dtype, shape, bytes: data[from..to].to_vec() })
        });
        let tensors = tensors.collect();
        spans.sort_unstable();
        let end = spans.iter().fold(0, |end, (from, to)| if *from == end { *to } else { usize::MAX });
        assert_eq!(end, data.len(), "{spans:?}");
        (tensors, notes)
    }

    fn keys(&self) -> Vec<Value> {
        self.text("out.keys.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs a program of Python, with numpy, in this folder.
    fn python(&self, program: &str) {
        self.write("make.py", program);
        self.start_shell(&format!("{} make.py", python().display())).end().expect(0);
    }

    fn expect_refused(&self, from: &str, why: &str) {
        self.import_arrays(from, &[]).expect(3).says(why);
        let files = ["out.safetensors", "out.keys.jsonl", "out.safetensors.part", "out.keys.jsonl.part"];
        for file in files {
            assert!(!self.path(file).exists(), "{from}: {file}");
        }
    }
}

#[test]
fn the_pickles_of_the_shared_data_come_out_as_they_are() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data/formats/pickle"));
    let Ok(expected) = fs::read(folder.join("expected.json")) else {
        println!("skipped: ../shared/data/formats/pickle is absent");
        return;
    };
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    for (name, file) in expected["files"].as_object().unwrap() {
        let space = Space::new();
        space.import_arrays(text(&folder.join(name)), &[]).expect(0);
        let (tensors, keys) = (space.tensors().0, space.keys());
        let items = file["items"].as_array().unwrap();
        assert_eq!(keys.len(), items.len(), "{name}");
        for (key, item) in keys.iter().zip(items) {
            assert_eq!(key["id"], item["key"], "{name}");
            let tensor = &tensors[key["tensor"].as_str().unwrap_or("vectors")];
            let row = tensor.row(key["row"].as_u64().unwrap() as usize);
            assert_eq!(
                format!("<f{}", &tensor.dtype[1..]).replace("16", "2").replace("32", "4").replace("64", "8"),
                item["dtype"],
                "{name}"
            );
            assert_eq!(json!(tensor.shape[1..]), item["shape"], "{name}");
            assert_eq!(Digest::of(row).to_hex(), item["sha256"], "{name}");
        }
    }
}

/// Pickles that make a file `marker` where they are loaded with what Python has, and what is said of them here.
const ATTACKS: &[(&[u8], &str)] = &[
    (b"cos\nsystem\n(S'touch marker'\ntR.", "x.pkl: it asks for os.system: an import never runs code"),
    (b"cposix\nsystem\n(S'touch marker'\ntR.", "it asks for posix.system"),
    (b"cbuiltins\neval\n(S'__import__(\"os\").system(\"touch marker\")'\ntR.", "it asks for builtins.eval"),
    (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch marker\x85R.", "it asks for os.system"),
    (
        b"\x80\x04\x8c\x0asubprocess\x8c\x09os.system\x93\x8c\x0ctouch marker\x85R.",
        "it asks for subprocess.os.system",
    ),
    // Inside of the arguments of what is allowed.
    (b"c_codecs\nencode\n(cos\nsystem\n(S'touch marker'\ntRS'latin1'\ntR.", "it asks for os.system"),
    // INST and OBJ, which need no REDUCE.
    (b"(S'touch marker'\nios\nsystem\n.", "it asks for os.system"),
    (b"(cos\nsystem\nS'touch marker'\no.", "it asks for os.system"),
    // BUILD, with a __setstate__ that an earlier BUILD has put there.
    (
        b"ccollections\nOrderedDict\n)R}S'__setstate__'\ncos\nsystem\nsbS'touch marker'\nb.",
        "it asks for os.system",
    ),
    // An extension that the pickle registers itself.
    (
        b"\x80\x02ccopyreg\nadd_extension\n(S'os'\nS'system'\nK\x07tR0\x82\x07(S'touch marker'\ntR.",
        "it asks for copyreg.add_extension",
    ),
    (
        b"cnumpy.testing._private.utils\nrunstring\n(S'__import__(\"os\").system(\"touch marker\")'\n}tR.",
        "it asks for numpy.testing._private.utils.runstring",
    ),
];

#[test]
fn a_pickle_that_runs_something_is_refused_and_runs_nothing() {
    for (pickle, why) in ATTACKS {
        let space = Space::new();
        space.write("x.pkl", pickle);
        space.python(
            "import pickle\ntry:\n    pickle.load(open('x.pkl', 'rb'))\nexcept TypeError:\n    pass\n",
        );
        assert!(space.path("marker").exists(), "this is no attack: {}", pickle.escape_ascii());
        fs::remove_file(space.path("marker")).unwrap();
        space.expect_refused("x.pkl", why);
        assert!(!space.path("marker").exists(), "{}", pickle.escape_ascii());
    }
}

#[test]
fn names_of_the_allowed_modules_are_not_all_allowed() {
    let names = [
        ("numpy", "load"),
        ("numpy", "ndarray.tofile"),
        ("numpy.core.multiarray", "fromfile"),
        ("collections", "OrderedDict.__init__"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("builtins", "getattr"),
        ("__main__", "refuse"),
        ("copyreg", "_reconstructor"),
        ("os", "system\n"),
    ];
    for (module, name) in names {
        let space = Space::new();
        let text = |of: &str| [&[0x8c, of.len() as u8], of.as_bytes()].concat();
        space.write("x.pkl", [b"\x80\x04", &text(module)[..], &text(name), b"\x93."].concat());
        let name = name.escape_default();
        space.expect_refused("x.pkl", &format!("it asks for {module}.{name}: "));
    }
}

#[test]
fn what_is_no_whole_pickle_is_refused() {
    let space = Space::new();
    let whole: &[u8] = b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94\x8c\x01k\x94]\x94(G?\xf0\0\0\0\0\0\0es.";
    let cases: [(&[u8], &str); 13] = [
        (b"", "x.pkl: the file is empty"),
        (b"hello", "it is no pickle, or not a whole one"),
        (b"\x1f\x8b\x08\0", "gunzip it first"),
        (b"\x93NUMPY\x01\0", "can be an artifact as it is"),
        (b"PK\x03\x04what", "it is not a whole zip"),
        (b"\x82\x07.", "unregistered extension code 7"),
        (b"S'x'\nQ.", "it refers to something outside of itself (by a persistent id)"),
        (b"N.", "there is no array in it"),
        (b"]F1.0\na.]F2.0\na.", "there is more after its first object, which ends at byte 8 of 16"),
        // Claims of what is not there: 100 GiB of bytes, a memo of 34 GB, an array of more than its bytes.
        (b"\x80\x04\x8e\0\0\0\0\x19\0\0\0abc.", "it takes more memory than a file of its size can need"),
        (b"\x80\x04}r\xff\xff\xff\x7f.", "it takes more memory than a file of its size can need"),
        (
            b"cnumpy._core.multiarray\n_reconstruct\n(NNNtR(K\x01(K\x05K\x07tcnumpy\ndtype\n(S'f4'\ntRI00\nS'abcd'\ntb.",
            "an array says that it is 5 x 7 of float32, and has 4 bytes",
        ),
        // A list of itself.
        (b"]q\x00h\x00a.", "contains itself"),
    ];
    for (pickle, why) in cases {
        space.write("x.pkl", pickle);
        space.expect_refused("x.pkl", why);
    }
    for len in (1..whole.len()).step_by(3) {
        space.write("x.pkl", &whole[..len]);
        space.expect_refused("x.pkl", "it is no pickle, or not a whole one");
    }
    space.write("x.pkl", whole);
    space.import_arrays("x.pkl", &[]).expect(0);
    assert_eq!(space.tensors().0["k"].doubles(), [1.0]);
}

#[test]
fn nesting_and_repetition_without_end_are_refused() {
    let space = Space::new();
    let (lists, tuples) = (100_000, 2_000_000);
    let deep = [&b"\x80\x04"[..], &b"]".repeat(lists), &b"a".repeat(lists - 1), b"."].concat();
    // A key that Python's own recursion cannot take: the interpreter dies, and only it.
    let key = [&b"\x80\x04})"[..], &b"\x85".repeat(tuples), b"Ns."].concat();
    // Each list holds the one before twice: 2^40 lists in 300 bytes.
    let mut twice = b"\x80\x04](G?\xf0\0\0\0\0\0\0Neq\x00".to_vec();
    for at in 0..40 {
        twice.extend(b"](h.h.eq.".iter().scan(0, |dots, byte| {
            *dots += usize::from(*byte == b'.');
            Some(if *byte == b'.' { at + u8::from(*dots == 3) } else { *byte })
        }));
    }
    twice.push(b'.');
    for (pickle, why) in
        [(deep, "it is nested deeper than"), (key, "x.pkl: "), (twice, "repeats its parts without end")]
    {
        space.write("x.pkl", pickle);
        space.expect_refused("x.pkl", why);
    }
}

const OBJECTS: &str = r#"
import pickle
import numpy as np

base = np.arange(24, dtype="<f8")
things = {
    "c": base.reshape(2, 3, 4),
    "fortran": np.asfortranarray(base.reshape(4, 6)),
    "turned": base.reshape(2, 3, 4).transpose(2, 0, 1),
    "big": base.reshape(4, 6).astype(">f8"),
    "strided": base.reshape(4, 6)[::2, ::3],
    "none": np.zeros((0, 3), "<f8"),
    "half": base[:4].astype("<f2"),
    "bool": np.array([True, False]),
    "big16": base[:3].astype(">u2"),
    "deep": {"list": [base[:2], {"x": base[:3]}], ("a", 1): base[:5], 7: [1.5, 2], "ints": [1, -2]},
    "name": "small",
    "settings": {"rate": np.float64(0.5), "tags": ["a", "b"], "no": None},
    "objects": np.array([1, "a"], object),
    "text": np.array(["a"]),
    "set": {1},
}
for protocol in (4, 5):
    pickle.dump(things, open(f"{protocol}.pkl", "wb"), protocol=protocol)
del things["set"]
for protocol in (0, 2):
    written = pickle.dumps(things, protocol=protocol)
    for numpy in ("numpy._core", "numpy.core"):
        renamed = written.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", numpy.encode())
        open(f"{protocol}-{numpy}.pkl", "wb").write(renamed)
"#;

#[test]
fn arrays_of_every_layout_and_protocol_come_out_in_order_with_their_names() {
    let space = Space::new();
    space.python(OBJECTS);
    let counted = |shape: &[u64], doubles: &[f64]| (shape.to_vec(), doubles.to_vec());
    let base: Vec<f64> = (0..24).map(f64::from).collect();
    let turned: Vec<f64> = (0..24).map(|at| f64::from(at % 6 * 4 + at / 6)).collect();
    let expected = [
        ("c", counted(&[2, 3, 4], &base)),
        ("fortran", counted(&[4, 6], &base)),
        ("big", counted(&[4, 6], &base)),
        ("turned", counted(&[4, 2, 3], &turned)),
        ("strided", counted(&[2, 2], &[0.0, 3.0, 12.0, 15.0])),
        ("none", counted(&[0, 3], &[])),
        ("deep.list.0", counted(&[2], &base[..2])),
        ("deep.list.1.x", counted(&[3], &base[..3])),
        ("deep.a.1", counted(&[5], &base[..5])),
        ("deep.7", counted(&[2], &[1.5, 2.0])),
    ];
    for file in ["0-numpy.core", "0-numpy._core", "2-numpy.core", "2-numpy._core", "4", "5"] {
        let ended = space.import_arrays(&format!("{file}.pkl"), &["--force"]).expect(0);
        let ended = ended.says("left out: objects, an array of O8").says("left out: text, an array of U1");
        assert_eq!(ended.stderr.contains("left out: set, a set"), file.len() == 1, "{}", ended.stderr);
        let (tensors, notes) = space.tensors();
        for (name, (shape, doubles)) in &expected {
            assert_eq!(
                (&tensors[*name].shape, &tensors[*name].doubles()),
                (shape, doubles),
                "{file}: {name}"
            );
        }
        let other = |name: &str| (tensors[name].dtype.as_str(), tensors[name].bytes.as_slice());
        assert_eq!(other("half"), ("F16", &[0, 0, 0, 0x3c, 0, 0x40, 0, 0x42][..]));
        assert_eq!(other("bool"), ("BOOL", &[1, 0][..]));
        assert_eq!(other("big16"), ("U16", &[0, 0, 1, 0, 2, 0][..]));
        assert_eq!(other("deep.ints").0, "I64");
        assert_eq!(tensors.len(), expected.len() + 4, "{file}");
        let note = |name: &str| notes[name].as_str();
        assert_eq!((note("name"), note("settings.rate"), note("settings.no")), ("small", "0.5", "null"));
        assert_eq!((note("settings.tags"), notes.len()), (r#"["a", "b"]"#, 4));
        assert!(!space.path("out.keys.jsonl").exists());
    }
}

#[test]
fn vectors_of_one_length_make_a_matrix_with_keys() {
    let space = Space::new();
    space.python(
        "import pickle, numpy as np\n\
         a, b = np.array([1.0, 2.0]), np.array([3.0, 4.0])\n\
         for at, thing in enumerate([{'x': a, 'y': b}, {'x': [1.0, 2.0], 'y': (3.0, 4)}, {1: a[None], 2: b[None]},\n\
         \x20                           [a, b], {'model': 'm', 'cache': {'x': a, 'y': b}}, {'p': {'x': a, 'y': b}, 'q': {'x': a, 'z': b}},\n\
         \x20                           {'x': a, 'y': b[:1]}, {1: a, '1': b}, {'x': [1, 2], 'y': [3, 4]}]):\n\
         \x20   pickle.dump(thing, open(f'{at}.pkl', 'wb'))",
    );
    let import = |file: &str, more: &[&str]| {
        fs::remove_file(space.path("out.keys.jsonl")).ok();
        space.import_arrays(file, &[more, &["--force"]].concat()).expect(0);
        let (tensors, _) = space.tensors();
        let names: Vec<String> = tensors.keys().cloned().collect();
        (names.join(" "), tensors.into_values().next().unwrap(), json!(space.keys()).to_string())
    };
    for (file, name, keys) in [
        ("0.pkl", "vectors", r#"[{"id":"x","row":0},{"id":"y","row":1}]"#),
        ("1.pkl", "vectors", r#"[{"id":"x","row":0},{"id":"y","row":1}]"#),
        ("2.pkl", "vectors", r#"[{"id":"1","row":0},{"id":"2","row":1}]"#),
        ("3.pkl", "vectors", "[]"),
        ("4.pkl", "cache", r#"[{"id":"x","row":0},{"id":"y","row":1}]"#),
    ] {
        let (names, matrix, found) = import(file, &[]);
        assert_eq!((names.as_str(), found.as_str()), (name, keys), "{file}");
        assert_eq!(
            (matrix.shape.as_slice(), matrix.doubles().as_slice()),
            (&[2, 2][..], &[1.0, 2.0, 3.0, 4.0][..])
        );
    }
    let (names, _, keys) = import("5.pkl", &[]);
    assert_eq!(names, "p q");
    assert!(keys.contains(r#"{"id":"q.z","row":1,"tensor":"q"}"#), "{keys}");
    for (file, more) in [("0.pkl", &["--apart"][..]), ("6.pkl", &[]), ("8.pkl", &[])] {
        let (names, _, keys) = import(file, more);
        assert_eq!((names.as_str(), keys.as_str()), ("x y", "[]"), "{file}");
    }
    fs::remove_file(space.path("out.safetensors")).unwrap();
    space.expect_refused("7.pkl", "two keys are called 1");
}

/// A zip as torch saves it, made of opcodes: tensors of one storage, of another type, a parameter and more.
const TORCH: &str = r#"
import struct, zipfile

def name(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"

def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()

def numbers(*of):
    return b"(" + b"".join(b"J" + struct.pack("<i", n) for n in of) + b"t"

def storage(kind, key, count):
    return b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + b"J" + struct.pack("<i", count) + b"tQ"

def tensor(kind, key, count, offset, shape, strides, function="_rebuild_tensor_v2", more=b""):
    return (name("torch._utils", function) + b"(" + storage(kind, key, count) + b"J" + struct.pack("<i", offset) +
            numbers(*shape) + numbers(*strides) + b"\x89" + name("collections", "OrderedDict") + b")R" + more + b"tR")

def save(file, entries, data, how=zipfile.ZIP_STORED, order="little"):
    pickle = b"\x80\x02" + name("collections", "OrderedDict") + b")R("
    pickle += b"".join(text(key) + value for key, value in entries.items()) + b"u}" + text("_metadata") + b"}sb."
    with zipfile.ZipFile(file, "w", how) as zip:
        for entry, content in {"data.pkl": pickle, "byteorder": order, **data, "version": "3\n"}.items():
            zip.writestr("model/" + entry, content)

data = {"data/0": struct.pack("<6d", *range(6)), "data/1": b"\x80\x3f\x00\x40"}
entries = {
    "w": tensor("DoubleStorage", "0", 6, 0, (2, 3), (3, 1)),
    "turned": tensor("DoubleStorage", "0", 6, 0, (3, 2), (1, 3)),
    "tail": tensor("DoubleStorage", "0", 6, 4, (2,), (1,)),
    "same": tensor("DoubleStorage", "0", 6, 5, (2, 2), (0, 0)),
    "one": tensor("DoubleStorage", "0", 6, 2, (), ()),
    "bf": tensor("BFloat16Storage", "1", 2, 0, (2, 1), (1, 1)),
    "new": tensor("UntypedStorage", "1", 4, 0, (2, 1), (1, 1), "_rebuild_tensor_v3", name("torch", "uint16")),
    "param": name("torch._utils", "_rebuild_parameter") + b"(" + tensor("DoubleStorage", "0", 6, 0, (2, 1), (1, 1)) + b"\x88" +
             name("collections", "OrderedDict") + b")RtR",
    "epoch": b"K\x07",
    "type": name("torch", "float32"),
}
save("model.pt", entries, data)
w = {"w": entries["w"]}

def old(entries, count, data, more=b""):
    return b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}" + text("little_endian") + b"\x88s." + \
        entries + b"\x80\x02]" + text("0") + b"a." + struct.pack("<q", count) + data + more

def whole(kind, key, count):
    return b"\x80\x02" + storage(kind, key, count).replace(b"tQ", b"NtQ") + b"."

six = struct.pack("<6d", *range(6))
open("old.pt", "wb").write(old(b"\x80\x02}" + text("w") + entries["w"] + b"s.", 6, six))
pickled = old(whole("DoubleStorage", "0", 6), 6, six)
bare = name("torch.storage", "_load_from_bytes") + b"(B" + struct.pack("<I", len(pickled)) + pickled + b"tR"
bare = entries["w"].replace(storage("DoubleStorage", "0", 6), bare)
open("bare.pkl", "wb").write(b"\x80\x03}" + text("w") + bare + b"s.")
open("old-short.pt", "wb").write(open("old.pt", "rb").read()[:-1])
open("old-list.pt", "wb").write(open("old.pt", "rb").read().replace(b"]" + text("0") + b"a.", b"K\0."))
open("old-more.pt", "wb").write(open("old.pt", "rb").read() + b"\0")
attack = b"cos\nsystem\n(S'touch marker'\ntR."
open("bare-attack.pkl", "wb").write(name("torch.storage", "_load_from_bytes") + b"(B" + struct.pack("<I", len(attack)) + attack + b"tR.")
save("big.pt", w, {"data/0": struct.pack(">6d", *range(6))}, order="big")
save("packed.pt", w, data, zipfile.ZIP_DEFLATED)
save("short.pt", w, {"data/0": b"\0" * 47})
save("lost.pt", w, {})
save("attack.pt", {"w": name("os", "system") + b"(" + text("touch marker") + b"tR"}, data)
save("many.pt", {str(at): entries["same"].replace(numbers(2, 2), numbers(1 << 20, 1 << 20)) for at in range(3)}, data)
open("cut.pt", "wb").write(open("model.pt", "rb").read()[:-40])
with zipfile.ZipFile("arrays.npz", "w") as zip:
    zip.writestr("a.npy", "")
"#;

#[test]
fn tensors_of_a_torch_file_come_out_without_torch() {
    let space = Space::new();
    space.python(TORCH);
    let ended = space.import_arrays("model.pt", &[]).expect(0).says("left out: type, a float32");
    assert!(String::from_utf8_lossy(&ended.stdout).contains("out.safetensors: w, float64, 2 x 3\n"));
    let (tensors, notes) = space.tensors();
    let doubles = |name: &str| (tensors[name].shape.as_slice(), tensors[name].doubles());
    assert_eq!(doubles("w"), (&[2, 3][..], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    assert_eq!(doubles("turned"), (&[3, 2][..], vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]));
    assert_eq!(doubles("tail"), (&[2][..], vec![4.0, 5.0]));
    assert_eq!(doubles("same"), (&[2, 2][..], vec![5.0; 4]));
    assert_eq!(doubles("one"), (&[][..], vec![2.0]));
    assert_eq!(doubles("param"), (&[2, 1][..], vec![0.0, 1.0]));
    let other = |name: &str| (tensors[name].dtype.as_str(), tensors[name].bytes.as_slice());
    assert_eq!(other("bf"), ("BF16", &[0x80, 0x3f, 0, 0x40][..]));
    assert_eq!(other("new"), ("U16", &[0x80, 0x3f, 0, 0x40][..]));
    assert_eq!((tensors.len(), notes["epoch"].as_str(), notes.len()), (8, "7", 1));
    // Big-endian; as before torch 1.6; pickled without torch.save.
    for file in ["big.pt", "old.pt", "bare.pkl"] {
        space.import_arrays(file, &["--force"]).expect(0);
        assert_eq!(space.tensors().0["w"], tensors["w"], "{file}");
    }
}

#[test]
fn a_torch_file_that_lies_is_refused() {
    let space = Space::new();
    space.python(TORCH);
    for (file, why) in [
        ("packed.pt", "model/byteorder is compressed in it"),
        ("short.pt", "a tensor of 2 x 3 reaches past the end of its data"),
        ("lost.pt", "model/data/0 is missing in it"),
        ("attack.pt", "it asks for os.system"),
        ("many.pt", "its arrays would take more than 8 times the file's size"),
        ("cut.pt", "it is not a whole zip"),
        ("old-short.pt", "it ends within a storage"),
        ("old-list.pt", "its list of storages is not of those that it names"),
        ("old-more.pt", "there is more after its first object"),
        ("bare-attack.pkl", "it asks for os.system"),
        ("arrays.npz", "it is a zip that torch has not saved"),
    ] {
        space.expect_refused(file, why);
    }
    assert!(!space.path("marker").exists());
}

#[test]
fn a_mistake_in_the_command_changes_nothing() {
    let space = Space::new();
    let (pair, single): (&[u8], &[u8]) = (b"(S'x'\n(F1\nF2\nlS'y'\n(F3\nF4\nld.", b"(S'x'\n(F1\nF2\nld.");
    space.write("x.pkl", pair);
    space.write("one.pkl", single);
    let run = |args: &[&str]| space.run(&[&["artifact", "import"], args].concat());
    run(&["gone.pkl", "out.safetensors"]).expect(3).says("gone.pkl: No such file");
    run(&[".", "out.safetensors"]).expect(3).says("it is not a regular file");
    run(&["x.pkl", "out.pt"]).expect(2).says("name a file that ends in .safetensors, or in .npy");
    run(&["x.pkl", "out.npy", "--apart"]).expect(2).says("an .npy holds one array, and there are 2 (x, y)");
    run(&["x.pkl", "no/out.npy"]).expect(5).says("write no/out.keys.jsonl.part: No such file");
    run(&["x.pkl", "out.npy", "--python", "no-such-python"]).expect(2).says("start no-such-python: ");
    space.write("out.safetensors", "mine");
    run(&["x.pkl", "out.safetensors"]).expect(2).says("say --force to replace it");
    assert_eq!(space.text("out.safetensors"), "mine");
    fs::remove_file(space.path("out.safetensors")).unwrap();
    space.write("out.keys.jsonl", "mine");
    run(&["x.pkl", "out.safetensors"]).expect(2).says("out.keys.jsonl exists");
    assert_eq!(space.text("out.keys.jsonl"), "mine");
    run(&["one.pkl", "out.safetensors"]).expect(0).says("out.keys.jsonl is of another import");
    run(&["x.pkl", "out.safetensors", "--force"]).expect(0);
    assert_eq!((space.keys().len(), space.tensors().0["vectors"].shape.as_slice()), (2, &[2, 2][..]));
}

#[test]
fn a_cache_is_searched_by_its_keys() {
    let space = Space::with(
        r#"
        [artifacts.cache]
        path = "cache.npy"

        [artifacts.keys]
        path = "cache.keys.jsonl"

        [[node]]
        id = "key"
        op = "lookup"
        artifact = "keys"
        params = { key = "b" }

        [[node]]
        id = "near"
        op = "topk"
        artifact = "cache"
        params = { row = "{{ nodes.key.result.row }}", k = 2 }
        "#,
    );
    space.python(
        "import pickle, numpy as np\n\
         vectors = {'a': [1, 0, 0], 'b': [0, 1, 0], 'c': [0, 0, 1], 'd': [0, 1, 0.5]}\n\
         pickle.dump({key: np.array(vector, 'f4') for key, vector in vectors.items()}, open('cache.pkl', 'wb'))",
    );
    let hint = "forkyard artifact import cache.pkl cache.safetensors";
    space.run(&["artifact", "info", "cache.pkl"]).expect(0).says(hint);
    let ended = space.run(&["artifact", "import", "cache.pkl", "cache.npy"]).expect(0);
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert_eq!(said, "cache.npy: vectors, float32, 4 x 3\ncache.keys.jsonl: 4 keys, each with its row\n");
    space.run_manifest(0);
    let near: Value = serde_json::from_slice(&space.result("near")).unwrap();
    assert_eq!(near["ids"], json!([1, 3]));
}
