//! `forkyard map`, and the module as a client of the command.

use super::*;

#[test]
fn map_answers_in_the_order_of_the_items() {
    let functions = "import time\ndef f(x):\n    time.sleep((7 - x) / 50)\n    if x == 3: raise ValueError('three')\n    return x * x\n";
    let space = space(functions, "", &[]);
    let items = "1\n2\n4\n5\n6\n";
    let map = |items: &str| space.run_with_stdin(&["map", "f.py:f", "-", "--workers", "3"], items.as_bytes());
    assert_eq!(String::from_utf8(map(items).expect(0).stdout).unwrap(), "1\n4\n16\n25\n36\n");
    let again = map("6\n3\n1\n").expect(1);
    assert_eq!(String::from_utf8_lossy(&again.stdout), "36\nnull\n1\n");
    assert!(
        again.stderr.contains("2 cached") && again.stderr.contains("ValueError: three"),
        "{}",
        again.stderr
    );
    let wrong = map("1\nthree\n").expect(2);
    assert!(wrong.stderr.contains("-:2: this is no JSON value"), "{}", wrong.stderr);
}

#[test]
fn map_runs_commands_on_words() {
    let space = Space::new();
    space.write("a b.txt", "1\n2\n");
    space.write("{{x}}", "3\n");
    let out = |args: &[&str]| String::from_utf8(space.run(args).expect(0).stdout).unwrap();
    assert_eq!(out(&["map", "wc -l {}", "a b.txt", "{{x}}"]), "2 a b.txt\n1 {{x}}\n");
    assert_eq!(out(&["map", "cat", "{{x}}", "a b.txt"]), "3\n1\n2\n");
    assert_eq!(out(&["map", "--shell", "cat {} | tr 1 x", "a b.txt"]), "x\n2\n");
    assert_eq!(out(&["map", "printf '%s {{a}} {%% b {# c\\n'", "b"]), "b {{a}} {% b {# c\n");
    assert_eq!(out(&["map", "--shell", "x={}; echo ${#x}", "abc"]), "3\n");
    let again = space.run(&["map", "wc -l {}", "a b.txt", "{{x}}"]).expect(0);
    assert!(again.stderr.contains("0 ran, 3 cached"), "{}", again.stderr);
    // The file that a word names is a part of the key.
    space.write("{{x}}", "3\n4\n");
    assert_eq!(out(&["map", "wc -l {}", "a b.txt", "{{x}}"]), "2 a b.txt\n2 {{x}}\n");
    space.run(&["map", "wc -l {}"]).expect(2).says("there are no items");
}

#[test]
fn the_module_drives_the_command() {
    let script = r#"
import json, sys
import numpy as np
import forkyard
def score(x): return float(forkyard.artifact("m")[0, 0]) + x
def spread(x): return np.full(x, x)
def odd(x):
    if x % 2: raise KeyError(x)
    return x
if __name__ == "__main__":
    told = [forkyard.map(score, [1, 2], artifacts={"m": "m.npy"}, workers=2)]
    told.append([one.tolist() for one in forkyard.map(spread, (n for n in [2, 1]))])
    try:
        forkyard.map(odd, [4, 5])
    except forkyard.RunFailed as error:
        told.append([error.code, list(error.errors), error.results])
    told.append(forkyard.run("other.toml")["ran"])
    told.append(forkyard.results())
    try:
        forkyard.map(lambda x: x, [1])
    except forkyard.ForkyardError as error:
        told.append("lambda" in str(error))
    print(json.dumps(told))
"#;
    let space = Space::new();
    space.write("main.py", script);
    space.write("m.npy", matrix(&[&[0.5]]));
    space.write("other.toml", "[[node]]\nid = \"v\"\nop = \"value\"\nparams = { value = 7 }\n");
    space.write("forkyard.py", space.run(&["python-module"]).expect(0).stdout);
    let line = format!("FORKYARD={} {} main.py", env!("CARGO_BIN_EXE_forkyard"), python().display());
    let ended = space.start_shell(&line).end().expect(0);
    let told: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(told, json!([[1.5, 2.5], [[2, 2], [1]], [1, [1], [4, null]], 1, {"v": 7}, true]));
}

#[test]
fn map_takes_items_as_they_are_or_not_at_all() {
    let space = space_with("def f(x): return x\ndef g(): return 1\n", "", &[]);
    let map = |items: &str| space.run_with_stdin(&["map", "f.py:f", "-"], items.as_bytes());
    map("1\n[\"\\\"12345678901234567890123\", -9223372036854775809]\n")
        .expect(2)
        .says("-:2: the number -9223372036854775809 does not fit 64 bits");
    assert_eq!(map("\u{feff}18446744073709551615\n").expect(0).stdout, b"18446744073709551615\n");
    space
        .run(&["map", "f.py", "a", "b"])
        .expect(2)
        .says("f.py is a file: f.py:FUNCTION names a function in it");
    assert_eq!(space.run(&["map", "echo {{}}", "a"]).expect(0).stdout, b"{a}\n");
    // A script that maps when it is imported would do so in each process again.
    space.write("s.py", "import forkyard\ndef f(x): return x\nprint(forkyard.map(f, [1]))\n");
    space.write("forkyard.py", space.run(&["python-module"]).expect(0).stdout);
    let line = format!("FORKYARD={} python3 s.py", env!("CARGO_BIN_EXE_forkyard"));
    space.start_shell(&line).end().expect(1).says("put it under `if __name__");
}
