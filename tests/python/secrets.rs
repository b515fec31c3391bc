//! What nobody is to see.

use super::*;

#[test]
fn secrets_reach_the_function_and_nothing_that_is_kept() {
    let functions = r#"
import forkyard, os
def use():
    key = os.environ["API_KEY"]
    print("my key is", key)
    return len(key)
def fail():
    raise ValueError("401 for " + os.environ["API_KEY"])
def give(): return "key=" + os.environ["API_KEY"]
def keep(): forkyard.state["k"] = os.environ["API_KEY"]
def give_much(): return b"x" * 100_000 + os.environ["API_KEY"].encode()
def others(): return os.environ.get("OTHER", "none")
"#;
    let mut nodes: Vec<String> =
        ["use", "fail", "give", "keep", "give_much", "others"].map(|name| call(name, name, "")).to_vec();
    nodes.push("[[node]]\nid = \"exec\"\nop = \"exec\"\nshell = true\nrun = ['printf %s $API_KEY | wc -c; echo $API_KEY >&2']\n".into());
    for (id, run) in [("echo", "echo $API_KEY"), ("much", "head -c 100000 /dev/zero; echo $API_KEY")] {
        nodes.push(format!("[[node]]\nid = \"{id}\"\nop = \"exec\"\nshell = true\nrun = ['{run}']\n"));
    }
    let space = space(functions, "[secrets]\nenv = [\"API_KEY\"]\n[run]\non_failure = \"continue\"", &nodes);
    let secret = "sk-48151623";
    let ended = space.run_in(&[("API_KEY", secret), ("OTHER", "seen")], &RUN).expect(1);
    assert_eq!(
        (space.result_text("use"), space.result_text("exec").trim().into()),
        ("11".into(), String::from("11"))
    );
    assert_eq!(space.result_text("others"), "\"none\"");
    assert!(error(&ended, "fail").starts_with("ValueError: 401 for [secret API_KEY]"));
    for node in ["give", "keep", "give_much", "echo", "much"] {
        assert!(
            error(&ended, node).starts_with("the result holds the value of the secret API_KEY"),
            "{node}"
        );
    }
    let log = String::from_utf8(space.run(&["logs", "use"]).expect(0).stdout).unwrap();
    assert_eq!(log, "my key is [secret API_KEY]\n");
    // Its name is in the key, its value is not.
    let again = space.run_in(&[("API_KEY", "another one")], &RUN).expect(1);
    assert_eq!(again.node("use")["outcome"], "cached");
    let told = [&ended, &again].map(|ended| ended.stderr.clone() + &String::from_utf8_lossy(&ended.stdout));
    assert!(told.iter().all(|text| !text.contains(secret)), "{told:?}");
    let mut dirs = vec![space.path(".forkyard")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false => {
                    let bytes = fs::read(entry.path()).unwrap();
                    let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                    assert!(!found, "{} holds the secret", entry.path().display());
                }
            }
        }
    }
    let unset = space.run(&RUN).expect(2);
    assert!(unset.stderr.contains("there is no environment variable API_KEY"), "{}", unset.stderr);
}

#[test]
fn secrets_are_known_in_keys_and_inside_json() {
    let functions = "import forkyard, os\nkey = os.environ['PEM']\ndef text(): return {'it': key}\ndef state(): forkyard.state['k'] = key\n\
                     def name(): forkyard.state[key] = 1\ndef long(): raise ValueError('x' * 8180 + key)\n";
    let nodes = ["text", "state", "name", "long"].map(|name| call(name, name, ""));
    let space = space(functions, "[secrets]\nenv = [\"PEM\"]\n[run]\non_failure = \"continue\"", &nodes);
    let ended = space.run_in(&[("PEM", "line \"one\"\nline two")], &RUN).expect(1);
    for node in ["text", "state", "name"] {
        assert!(error(&ended, node).starts_with("the result holds the value of the secret PEM"), "{node}");
    }
    assert!(!error(&ended, "long").contains("line"), "{}", error(&ended, "long"));
}
