//! Manifests that are refused: each with its place, its cause and the way out, before anything runs.

use crate::util::Space;

/// A file with this text is refused with exactly this message, and no store is made.
fn refused(file: &str, text: &[u8], message: &str) {
    let space = Space::new();
    space.write(file, text);
    let ended = space.run(&["run", file]).expect(2);
    assert_eq!(ended.stderr, format!("forkyard: {message}\n"), "{}", String::from_utf8_lossy(text));
    assert!(ended.stdout.is_empty());
    assert!(!space.path(".forkyard").exists(), "a store was made for nothing");
}

fn toml(text: &str, message: &str) {
    refused("m.toml", text.as_bytes(), &format!("m.toml:{message}"));
}

fn jsonl(text: &str, message: &str) {
    refused("m.jsonl", text.as_bytes(), &format!("m.jsonl:{message}"));
}

/// One node, `a`, whose op and more are the rest.
fn node(rest: &str, message: &str) {
    toml(&format!("[[node]]\nid = \"a\"\n{rest}\n"), message);
}

#[test]
fn names_that_nobody_knows() {
    node("op = \"noopp\"", "3:1: there is no op `noopp`; did you mean `noop`?");
    node("op = \"noop\"\nneeds = [\"a\", \"aa\"]", "4:15: there is no node `aa`; did you mean `a`?");
    node("op = \"noop\"\ntimeuot = \"1s\"", "4:1: a node has no key `timeuot`; did you mean `timeout`?");
    node("op = \"noop\"\nforeach = \"{{ range(3) }}\"", "4:1: a node has no key `foreach`");
    node(
        "op = \"sleep\"\nparams = { second = 1 }",
        "4:12: `sleep` has no parameter `second`; did you mean `seconds`?",
    );
    node(
        "op = \"sleep\"\nseconds = 1",
        "4:1: a node has no key `seconds`; it is a parameter of `sleep`: write it inside `params`",
    );
    node(
        "op = \"noop\"\nretry = { atempts = 2 }",
        "4:11: `retry` has no key `atempts`; did you mean `attempts`?",
    );
    node(
        "op = \"topk\"\nartifact = \"wrods\"\nparams = { k = 1, row = 0 }\n[artifacts.words]\npath = \"w.npy\"",
        "4:1: there is no artifact `wrods`; did you mean `words`?",
    );
    toml("[runn]\n", "1:2: a manifest has no key `runn`; did you mean `run`?");
    toml("[run]\nnmae = \"x\"\n", "2:1: `[run]` has no key `nmae`; did you mean `name`?");
    toml("[run]\ncommit = { evry = 3 }\n", "2:12: `commit` has no key `evry`; did you mean `every`?");
    toml(
        "[artifacts.m]\npath = \"m.npy\"\npni = true\n",
        "3:1: an artifact has no key `pni`; did you mean `pin`?",
    );
}

#[test]
fn values_of_the_wrong_type() {
    let seconds = "`seconds` must be a number of seconds from 0 to 1e9";
    node("op = \"sleep\"\nparams = { seconds = \"x\" }", &format!("4:12: {seconds}"));
    node("op = \"sleep\"\nparams = { seconds = -1 }", &format!("4:12: {seconds}"));
    // The column counts characters, not bytes.
    node("op = \"value\"\nparams = { value = { \"ü\" = 1, x = nan } }", "4:31: a number must be finite");
    node(
        "op = \"value\"\nparams = { value = 99999999999999999999 }",
        "4:12: this number does not fit 64 bits",
    );
    node("op = \"noop\"\nneeds = \"b\"", "4:1: `needs` must be a list of node ids");
    node("op = \"noop\"\nretry = { attempts = 0 }", "4:11: `attempts` must be a whole number from 1 up");
    node(
        "op = \"noop\"\ntimeout = \"5 parsecs\"",
        "4:1: `5 parsecs` is not a duration like 250ms, 30s or 1m30s",
    );
    toml(
        "[run]\ncommit = { every = 3, within = \"soon\" }\n",
        "2:23: `soon` is not a duration like 250ms, 30s or 1m30s",
    );
    toml("[[node]]\nid = 3\nop = \"noop\"\n", "2:1: `id` must be a string");
    toml("[node]\nid = \"a\"\n", "1:2: nodes are written as [[node]] tables");
    node(
        "op = \"topk\"\nartifact = \"w\"\nparams = { k = 1, row = 0, metric = \"cos\" }\n[artifacts.w]\npath = \"w.npy\"",
        "5:28: `metric` must be one of cosine, dot, l2",
    );
}

#[test]
fn words_that_are_missing() {
    toml("[[node]]\nop = \"noop\"\n", "1:1: a node needs `id`, a string");
    toml("[artifacts.m]\npin = true\n", "1:12: artifact `m` needs a `path`, a string");
    node("op = \"sleep\"", "1:1: `sleep` needs `seconds`: a number of seconds from 0 to 1e9");
    node(
        "op = \"topk\"\nparams = { k = 1, row = 0 }",
        "1:1: `topk` needs `artifact`: the name of an artifact",
    );
    node("op = \"exec\"", "1:1: `exec` needs `run`: a list of strings: the program and its arguments");
    toml("", "1:1: this manifest has no nodes");
    jsonl("{\"forkyard\":1}\n", "1:1: this manifest has no nodes");
}

#[test]
fn words_of_exec() {
    for name in ["/etc/passwd", "../x", "a/../../x", ""] {
        let expected = "must be text, json, bytes, or the name of a file in $FORKYARD_SCRATCH";
        node(
            &format!("op = \"exec\"\nrun = [\"true\"]\noutput = \"{name}\""),
            &format!("5:1: `output` {expected}"),
        );
    }
    node(
        "op = \"exec\"\nrun = [\"true\"]\nparams = { x = 1 }",
        "5:1: `exec` takes no `params`: its words stand beside `op` (cwd, env, files, inputs, output, run, shell, stdin)",
    );
    node(
        "op = \"exec\"\nrun = \"echo hi\"",
        "4:1: a command is a list of strings, because no shell takes it apart; or say `shell = true`",
    );
    node("op = \"exec\"\nrun = []", "4:1: `run` must be a list of strings: the program and its arguments");
}

#[test]
fn expressions_that_come_later() {
    let only = "the only expression so far is a whole parameter that reads {{ nodes.X.result }}";
    node(
        "op = \"value\"\nparams = { value = \"{{ vars.k }}\" }",
        &format!("4:12: `{{{{ vars.k }}}}`: {only}"),
    );
    node(
        "op = \"value\"\nparams = { value = \"x {{ nodes.a.result }}\" }",
        &format!("4:12: `x {{{{ nodes.a.result }}}}`: {only}"),
    );
    let part = "a result can only be a whole parameter, not a part of one";
    node("op = \"value\"\nparams = { value = [1, \"{{ nodes.a.result }}\"] }", &format!("4:24: {part}"));
    node("op = \"exec\"\nrun = [\"echo\", \"{{ nodes.a.result }}\"]", &format!("4:16: {part}"));
    node(
        "op = \"value\"\nparams = { value = \"{{ nodes.aa.result }}\" }",
        "4:12: there is no node `aa`; did you mean `a`?",
    );
}

#[test]
fn nodes_that_contradict_each_other() {
    toml(
        "[[node]]\nid = \"a\"\nop = \"noop\"\n[[node]]\nid = \"a\"\nop = \"noop\"\n",
        "5:1: node `a` is defined twice: it is node 1 already",
    );
    toml(
        "[[node]]\nid = \"a\"\nop = \"noop\"\nneeds = [\"c\"]\n[[node]]\nid = \"b\"\nop = \"noop\"\nneeds = [\"a\"]\n[[node]]\nid = \"c\"\nop = \"noop\"\nneeds = [\"b\"]\n",
        "4:1: these nodes need each other in a circle: a -> c -> b -> a",
    );
    node("op = \"noop\"\nneeds = [\"a\"]", "4:1: these nodes need each other in a circle: a -> a");
    jsonl(
        "{\"id\":\"a\",\"op\":\"noop\",\"needs\":[\"b\"]}\n{\"id\":\"b\",\"op\":\"noop\",\"needs\":[\"a\"]}\n",
        "1:23: these nodes need each other in a circle: a -> b -> a",
    );
}

#[test]
fn text_that_is_no_manifest() {
    toml("[[node]]\nid = \"a\nop = \"noop\"\n", "2:8: invalid basic string, expected `\"`");
    toml("[[node]]\nid = \"a\"\nid = \"b\"\n", "3:1: duplicate key");
    let utf8 = "2:1: this is not UTF-8 text";
    refused("m.toml", b"[[node]]\nid = \"\xff\"\n", &format!("m.toml:{utf8}"));
    refused("m.jsonl", b"{\"id\":\"a\",\"op\":\"noop\"}\n{\"id\":\"\xff\"}\n", &format!("m.jsonl:{utf8}"));
    jsonl("{\"id\":\"a\",\"op\":\"noop\"}\n{\"id\":\"b\",\"op\":}\n", "2:16: expected value");
    jsonl("{\"id\":\"a\",\"op\":\"noop\"\n", "1:21: EOF while parsing an object");
    jsonl(
        "{\"id\":\"a\",\"op\":\"noop\"}\n[1,2]\n",
        "2:1: invalid type: sequence, expected a node: an object with `id` and `op`",
    );
    refused("m.jsonl.gz", b"\x1f\x8bxxxx", "read m.jsonl.gz: unexpected end of file");
}

#[test]
fn json_lines() {
    jsonl("{\"id\":\"a\",\"op\":\"noopp\"}\n", "1:11: there is no op `noopp`; did you mean `noop`?");
    jsonl(
        "{\"id\":\"a\",\"op\":\"noop\",\"needs\":[\"a2\"]}\n",
        "1:32: there is no node `a2`; did you mean `a`?",
    );
    jsonl("{\"id\":\"a\",\"op\":\"noop\",\"id\":\"b\"}\n", "1:31: key `id` stands twice");
    jsonl(
        "{\"id\":\"a\",\"op\":\"noop\"}\n{\"id\":\"a\",\"op\":\"noop\"}\n",
        "2:2: node `a` is defined twice: it is node 1 already",
    );
    jsonl(
        "{\"id\":\"a\",\"op\":\"sleep\",\"params\":{\"seconds\":\"x\"}}\n",
        "1:34: `seconds` must be a number of seconds from 0 to 1e9",
    );
    jsonl(
        "{\"id\":\"a\",\"op\":\"noop\",\"need\":[\"b\"]}\n",
        "1:23: a node has no key `need`; did you mean `needs`?",
    );
    jsonl("{\"forkyard\":2}\n", "1:2: this is a manifest of version 2; this forkyard reads version 1");
    jsonl(
        "{\"forkyard\":1,\"artifact\":{}}\n",
        "1:15: the first line has no key `artifact`; did you mean `artifacts`?",
    );
    jsonl(
        "{\"forkyard\":1,\"run\":{\"on_failure\":\"stp\"}}\n",
        "1:22: `on_failure` must be \"stop\" or \"continue\"",
    );
}

#[test]
fn all_mistakes_come_at_once() {
    toml(
        "[[node]]\nid = \"a\"\nop = \"noopp\"\n[[node]]\nid = \"b\"\nop = \"slep\"\n",
        "3:1: there is no op `noopp`; did you mean `noop`?\nm.toml:6:1: there is no op `slep`; did you mean `sleep`?",
    );
}

#[test]
fn a_mistake_in_an_included_file_is_found_there() {
    let space = Space::with("[run]\ninclude = [\"more.jsonl\"]\n");
    space.write(
        "more.jsonl",
        "{\"id\":\"a\",\"op\":\"noop\"}\n{\"id\":\"b\",\"op\":\"noop\",\"needs\":[\"c\"]}\n",
    );
    space.run(&["run", "m.toml"]).expect(2).says("more.jsonl:2:32: there is no node `c`");
}

#[test]
fn an_included_file_that_is_missing_is_found_where_it_is_named() {
    toml(
        "[run]\nname = \"x\"\ninclude = [\"no.jsonl\"]\n",
        "3:12: read ./no.jsonl: No such file or directory (os error 2)",
    );
}

#[test]
fn the_command_line_is_checked_too() {
    let space = Space::with("[[node]]\nid = \"apple\"\nop = \"noop\"\n");
    space.run(&["run", "no.toml"]).expect(2).says("read no.toml: No such file or directory");
    let ended = space.run(&["run", "m.toml", "--only", "appel"]).expect(2);
    assert_eq!(ended.stderr, "forkyard: m.toml has no node `appel`; did you mean `apple`?\n");
    space.run(&["run", "m.toml", "--workers", "0"]).expect(2).says("expected auto or a number");
    space.run(&["run", "m.toml", "--max-failures", "101%"]).expect(2).says("a percentage like 5%");
    space.run(&["rnu", "m.toml"]).expect(2).says("run");
    assert!(!space.path(".forkyard").exists(), "a store was made for nothing");
    assert_eq!(space.run(&["status"]).expect(4).stdout, b"");
}
