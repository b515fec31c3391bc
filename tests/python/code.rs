//! Which code a node calls, when it runs again, and the interpreter that imports it.

use super::*;

#[test]
fn editing_a_file_runs_again_what_calls_it_and_why_says_so() {
    let space = Space::with(&format!(
        "[python]\npath = [\"lib\"]\n{}{}{}",
        "[[node]]\nid = \"a\"\nop = \"python\"\ncall = \"one:f\"\n",
        "[[node]]\nid = \"b\"\nop = \"python\"\ncall = \"two:f\"\ncode = [\"helper\"]\n",
        "[[node]]\nid = \"c\"\nop = \"python\"\ncall = \"pkg.three:f\"\n"
    ));
    fs::create_dir_all(space.path("lib/pkg")).unwrap();
    space.write("lib/one.py", "def f(): return 1\n");
    space.write("two.py", "import helper\ndef f(): return helper.x\n");
    space.write("lib/helper.py", "x = 2\n");
    space.write("lib/pkg/__init__.py", "");
    space.write("lib/pkg/three.py", "def f(): return 3\n");
    let outcomes = || space.run_manifest(0).outcomes();
    assert_eq!(outcomes(), "a=ran b=ran c=ran");
    assert_eq!(outcomes(), "a=cached b=cached c=cached");
    // Of the same length, and within the second: bytecode of the old one would be taken for that of the new.
    space.write("lib/helper.py", "x = 9\n");
    let why = String::from_utf8(space.run(&["why", "m.toml", "b"]).expect(0).stdout).unwrap();
    assert!(why.contains("file lib/helper.py changed"), "{why}");
    assert_eq!(outcomes(), "a=cached b=ran c=cached");
    assert_eq!(space.result_text("b"), "9");
    space.write("lib/pkg/three.py", "def f(): return 8\n");
    assert_eq!(outcomes(), "a=cached b=cached c=ran");
    assert_eq!(space.result_text("c"), "8");
}

#[test]
fn code_that_changes_during_a_run_is_not_taken_for_what_ran() {
    let functions = "import os, time\ndef f():\n    open('up', 'w').close()\n    while not os.path.exists('go'): time.sleep(0.01)\n    return 1\n";
    let space = space(functions, "", &[call("a", "f", "")]);
    let run = space.start(&RUN);
    eventually("the function runs", || space.path("up").exists());
    space.write("f.py", "def f(): return 2\n");
    space.write("go", "");
    run.end().expect(0);
    assert_eq!(space.run_manifest(0).outcomes(), "a=ran");
    assert_eq!(space.result_text("a"), "2");
}

#[test]
fn python_that_cannot_start_is_told_before_anything_runs() {
    let nodes = [call("a", "f", "")];
    let cases = [
        ("[python]\ninterpreter = \"none/bin/python\"", "m.toml:2:1: there is no ./none/bin/python"),
        ("[python]\ninterpreter = \"no-such-python\"", "start no-such-python: No such file or directory"),
        (
            "[python]\npreload = [\"nonesuch\"]",
            "preload nonesuch: ModuleNotFoundError: No module named 'nonesuch'",
        ),
        ("[python]\ninterpreter = \"/bin/false\"", "/bin/false exited with status 1 before it was ready"),
    ];
    for (header, said) in cases {
        let space = space_with("def f(): return 1\n", header, &nodes);
        space.run(&RUN).expect(2).says(said);
        space.expect_nothing_left();
    }
}

#[test]
fn a_preload_that_starts_a_thread_is_named() {
    let functions = "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\ndef f(): return 1\n";
    let space = space(functions, "", &[call("a", "f", "")]);
    let ended = space.run(&["run", "m.toml"]).expect(0);
    assert!(
        ended.stderr.contains("f.py starts 1 thread(s): forking is not safe beside threads"),
        "{}",
        ended.stderr
    );
}

#[test]
fn preloads_are_imported_once() {
    let functions = "import os, time\nwith open('imported', 'a') as f: f.write('x')\ndef f():\n    time.sleep(0.1)\n    return os.getpid()\n";
    let space = space(functions, "", &[call("a", "f", "foreach = \"{{ range(0, 8) }}\"")]);
    space.run(&[&RUN[..], &["--workers", "4"]].concat()).expect(0);
    assert_eq!(space.text("imported"), "x");
    let pids = space.json("a");
    let pids: std::collections::BTreeSet<u64> =
        pids.as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    assert!(pids.len() > 1, "{pids:?}");
}

#[test]
fn an_environment_of_its_own_is_in_the_key() {
    let functions = "import os\ndef f(): return os.environ['MODEL']\n";
    let nodes = [call("a", "f", "")];
    let space = space(functions, "env = { MODEL = \"one\" }", &nodes);
    space.run_manifest(0);
    assert_eq!(space.json("a"), "one");
    let text = space.text("m.toml").replace("\"one\"", "\"two\"");
    space.write("m.toml", text);
    assert_eq!(space.run_manifest(0).outcomes(), "a=ran");
    assert_eq!(space.json("a"), "two");
}

#[test]
fn code_is_found_as_python_finds_it_or_refused() {
    let cases = [
        ("nope.py:f", "there is no file ./nope.py"),
        ("f.py:g", "./f.py defines no `g`; did you mean `f`?"),
        ("ff:f", "there is no module `ff` in ., nor does python3 know one; did you mean `f`?"),
        ("f", "`call` must be a Python function as \"module:function\" or \"file.py:function\""),
    ];
    for (call, said) in cases {
        let space = Space::with(&format!("[[node]]\nid = \"a\"\nop = \"python\"\ncall = \"{call}\"\n"));
        space.write("f.py", "def f(): return 1\n");
        let ended = space.run(&RUN).expect(2);
        assert!(ended.stderr.contains(said), "{call}: {}", ended.stderr);
        assert!(ended.stderr.contains("m.toml:4:1"), "{}", ended.stderr);
    }
    // A module of the interpreter, and one that has no file at all.
    let nodes = ["json:dumps", "math:sqrt"].map(|call| {
        format!("[[node]]\nid = \"{}\"\nop = \"python\"\ncall = \"{call}\"\nargs = [16]\n", &call[..4])
    });
    let space = Space::with(&nodes.concat());
    space.run_manifest(0);
    assert_eq!((space.result_text("json"), space.result_text("math")), ("\"16\"".into(), "4.0".into()));
}

#[test]
fn neighbours_of_the_same_name_are_each_their_own() {
    let node = |dir: &str| format!("[[node]]\nid = \"{dir}\"\nop = \"python\"\ncall = \"{dir}/main.py:f\"\n");
    let space = Space::with(&(node("a") + &node("b")));
    for dir in ["a", "b"] {
        fs::create_dir(space.path(dir)).unwrap();
        space.write(&format!("{dir}/main.py"), "import helper\ndef f(): return helper.x\n");
        space.write(&format!("{dir}/helper.py"), format!("x = '{dir}'\n"));
    }
    // Not what the interpreter's own module is.
    space.write("json.py", "x = 1\n");
    space.run_manifest(0);
    assert_eq!((space.json("a"), space.json("b")), (json!("a"), json!("b")));
}
