//! `[alerts]`: thresholds, in the manifest, in events, in the summary and in words.

use super::*;

fn run(alerts: &str, nodes: &str, code: i32) -> (Space, Ended) {
    let space = Space::with(&format!("[alerts]\n{alerts}\n{nodes}"));
    let ended = space.run(&["run", "m.toml", "--json", "--keep-going", "--workers", "2"]).expect(code);
    (space, ended)
}

/// Alerts by kind, in the order in which they were told.
fn told(ended: &Ended) -> Vec<String> {
    ended.events_named("alert").iter().map(|event| event["alert"].as_str().unwrap().into()).collect()
}

fn kept(space: &Space) -> Value {
    let summary: Value = serde_json::from_str(&space.text(".forkyard/runs/1/summary.json")).unwrap();
    summary["alerts"].clone()
}

fn sleeps(count: u32, seconds: f64) -> String {
    format!(
        "[[node]]\nid = \"s\"\nop = \"sleep\"\nforeach = \"{{{{ range(0, {count}) }}}}\"\nparams = {{ seconds = {seconds} }}\n"
    )
}

/// So many nodes of which so many fail.
fn failing(count: u32, failures: u32) -> String {
    (0..count).map(|n| shell(&format!("n{n}"), if n < failures { "exit 1" } else { "true" }, "")).collect()
}

#[test]
fn a_node_that_takes_long_is_told_of_once_and_counted() {
    let (space, ended) = run("node_time = \"10ms\"", &sleeps(4, 0.05), 0);
    assert_eq!(told(&ended), ["node_time"]);
    let event = &ended.events_named("alert")[0];
    assert!(event["node"].as_str().unwrap().starts_with("s["), "{event}");
    assert!(event["value"].as_f64() >= Some(0.05) && event["threshold"] == 0.01, "{event}");
    let message = event["message"].as_str().unwrap();
    assert!(message.starts_with("node s[") && message.ends_with(", more than 10 ms"), "{message}");
    assert!(ended.stderr.contains(&format!("alert: {message}")), "{}", ended.stderr);
    let kept = kept(&space);
    assert_eq!((&kept["node_time"]["count"], &kept["node_time"]["message"]), (&4.into(), &message.into()));
    assert!(kept["node_time"]["worst"].as_f64() >= event["value"].as_f64());
    let status = space.run(&["status"]).expect(0);
    assert!(String::from_utf8_lossy(&status.stdout).contains("node_time"), "status tells of it too");
}

#[test]
fn memory_in_use_is_told_of() {
    let Some(group) = Group::new(512 * MIB) else { return };
    let manifest = |alerts: &str| format!("[alerts]\n{alerts}\n{}", alloc("a", 200, 0.3, ""));
    let space = Space::with(&manifest("memory = \"30%\""));
    let ended = group.run(&space, "").expect(0);
    assert_eq!(told(&ended), ["memory"]);
    let event = &ended.events_named("alert")[0];
    assert!(event["value"].as_f64() > Some(0.3) && event["threshold"] == 0.3, "{event}");
    assert!(event["message"].as_str().unwrap().contains("% of the memory of cgroup /"), "{event}");
    assert!(event["node"].is_null(), "{event}");
    // Above what is used, and switched off.
    for alerts in ["memory = \"99%\"", "memory = false"] {
        let space = Space::with(&manifest(alerts));
        assert!(told(&group.run(&space, "").expect(0)).is_empty(), "{alerts}");
    }
}

#[test]
fn many_failures_are_told_of() {
    let (space, ended) = run("errors = \"10%\"", &failing(40, 20), 1);
    assert_eq!(told(&ended), ["errors"]);
    let event = &ended.events_named("alert")[0];
    assert!(event["value"].as_f64() > Some(0.1) && event["threshold"] == 0.1, "{event}");
    assert_eq!(kept(&space)["errors"]["count"], 1);
    assert!(kept(&space)["errors"]["worst"].as_f64() >= Some(0.5));
    let (space, ended) = run("errors = \"60%\"", &failing(40, 20), 1);
    assert!(told(&ended).is_empty() && kept(&space).is_null(), "fewer than that");
}

#[test]
fn what_is_switched_off_is_not_told_and_the_defaults_are_the_seeds() {
    let (space, ended) = run("errors = false\nnode_time = false\ngrowth = false", &failing(40, 20), 1);
    assert!(told(&ended).is_empty() && kept(&space).is_null());
    // 5 % by default.
    let (_, ended) = run("", &failing(40, 20), 1);
    assert_eq!(told(&ended), ["errors"]);
    assert_eq!(ended.events_named("alert")[0]["threshold"], 0.05);
}

#[test]
fn wrong_thresholds_are_errors_with_their_line() {
    for (line, why) in [
        ("node_time = 10", "`node_time` must be a duration like \"10s\", or false"),
        ("node_time = true", "`node_time` must be a duration like \"10s\", or false"),
        ("memory = 0.8", "`memory` must be a percentage like \"80%\", or false"),
        ("memory = \"180%\"", "`memory` must be a percentage like \"80%\", or false"),
        ("growth = \"1GB\"", "`growth` must be a size an hour like \"1000MB/h\", or false"),
        ("errors = \"many\"", "`errors` must be a percentage like \"5%\", or false"),
        ("error = \"5%\"", "`[alerts]` has no key `error`; did you mean `errors`?"),
    ] {
        let space = Space::with(&format!("[run]\nname = \"x\"\n[alerts]\n{line}\n{}", sleeps(1, 0.0)));
        let ended = space.run(&["run", "m.toml"]).expect(2).says(why);
        assert!(ended.stderr.contains("m.toml:4:"), "{line}: {}", ended.stderr);
    }
    let good = "node_time = \"1m\"\nmemory = \"80%\"\ngrowth = \"1000MB/h\"\nerrors = \"5%\"";
    let space = Space::with(&format!("[alerts]\n{good}\n{}", sleeps(1, 0.0)));
    space.run(&["run", "m.toml"]).expect(0);
}
