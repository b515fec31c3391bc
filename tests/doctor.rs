//! What a machine allows: `forkyard doctor`, and what a run says beforehand of workers that it has no room for.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, chown};

use serde_json::Value;

use crate::util::{Ended, Space};

const FORKYARD: &str = env!("CARGO_BIN_EXE_forkyard");

impl Space {
    /// `doctor --json` after a line of shell.
    fn doctor_after(&self, line: &str) -> Value {
        let ended = self.start_shell(&format!("{line}; exec {FORKYARD} doctor --json")).end().expect(0);
        let mut objects = ended.events();
        assert_eq!(objects.len(), 1, "one object");
        objects.remove(0)
    }
}

fn said(ended: &Ended) -> &str {
    str::from_utf8(&ended.stdout).unwrap()
}

fn check<'a>(doctor: &'a Value, name: &str) -> &'a Value {
    let checks = doctor["checks"].as_array().unwrap();
    checks.iter().find(|check| check["check"] == name).expect("a check of this name")
}

/// A check that is in this state, with advice that says this.
fn expect(doctor: &Value, name: &str, state: &str, advice: &str) {
    let check = check(doctor, name);
    assert_eq!(check["state"], state, "{check}");
    assert!(check["advice"].as_str().unwrap().contains(advice), "{check}");
}

#[test]
fn each_check_is_a_line_and_the_worst_come_first() {
    let ended = Space::new().run(&["doctor"]).expect(0);
    let mut lines: Vec<&str> = said(&ended).lines().collect();
    let summary = lines.pop().unwrap();
    let rank = |line: &&str| {
        let (state, rest) = line.split_once(' ').unwrap();
        let (what, meaning) = rest.trim_start().split_once(": ").expect("what: meaning");
        assert!(!what.is_empty() && !meaning.is_empty(), "{line}");
        ["warn", "note", "ok"].iter().position(|word| *word == state).expect("a known state")
    };
    let ranks: Vec<usize> = lines.iter().map(rank).collect();
    assert!(ranks.is_sorted(), "{lines:?}");
    let of = |rank| ranks.iter().filter(|one| **one == rank).count();
    assert!(summary.starts_with(&format!("{} warning", of(0))), "{summary}");
    assert!(summary.ends_with(&format!(", {} ok", of(2))), "{summary}");
    assert!(!said(&ended).contains('\x1b'), "no colours off a terminal");
    let coloured = Space::new().run(&["doctor", "--color", "always"]).expect(0);
    assert!(said(&coloured).contains("\x1b[32mok"), "{}", said(&coloured));
}

#[test]
fn programs_get_an_object_with_all_checks() {
    let doctor = Space::new().doctor_after("true");
    assert_eq!(doctor["v"], 1);
    let checks = doctor["checks"].as_array().unwrap();
    let names: BTreeSet<&str> = checks.iter().map(|check| check["check"].as_str().unwrap()).collect();
    assert_eq!(names.len(), checks.len(), "a name is used once");
    for check in checks {
        let is_ok = check["state"] == "ok";
        assert!(is_ok || ["warn", "note"].contains(&check["state"].as_str().unwrap()), "{check}");
        assert_eq!(check["advice"].is_null(), is_ok, "advice where there is something to do: {check}");
        assert!(check["meaning"].is_string() && check.get("value").is_some(), "{check}");
    }
    let number = |name: &str, field: &str| check(&doctor, name)["value"][field].as_u64().unwrap();
    assert!(number("memory", "available") > 0);
    assert!(number("open_files", "workers") > 0);
    assert!(number("cores", "usable") > 0);
    assert_eq!(check(&doctor, "memory")["value"]["levels"][0]["level"], "the machine");
    assert_eq!(check(&doctor, "memory_files")["value"], true);
}

#[test]
fn a_lowered_limit_is_warned_of_with_advice() {
    let space = Space::new();
    let files = space.doctor_after("ulimit -n 24");
    expect(&files, "open_files", "warn", "ulimit -Hn");
    assert_eq!(files["checks"][0]["state"], "warn");
    expect(&space.doctor_after("ulimit -v 8388608"), "address_space", "note", "ulimit -v unlimited");
    expect(&space.doctor_after("PATH=/nowhere"), "python", "note", "install Python");
    // The soft limit is raised by a run, and does not count.
    assert_eq!(check(&space.doctor_after("ulimit -Sn 24"), "open_files")["state"], "ok");
}

#[test]
fn workers_that_do_not_fit_are_told_of_before_they_are_started() {
    let space = Space::with("[[node]]\nid = \"a\"\nop = \"noop\"\n");
    let run = |workers| format!("ulimit -n 64; exec {FORKYARD} run m.toml --workers {workers}");
    space.start_shell(&run(50)).end().expect(0).says("50 workers are too many: RLIMIT_NOFILE (64, ");
    let fitting = space.start_shell(&run(2)).end().expect(0);
    assert!(!fitting.stderr.contains("too many"), "{}", fitting.stderr);
}

/// A user that has no process yet.
const STRANGER: u32 = 64_321;

#[test]
fn a_soft_limit_of_processes_is_raised_for_workers() {
    let space = Space::with(
        "[[node]]\nid = \"a\"\nop = \"sleep\"\nforeach = \"{{ range(0, 8) }}\"\nparams = { seconds = 0.3 }\n",
    );
    std::fs::set_permissions(space.path("."), std::fs::Permissions::from_mode(0o755)).unwrap();
    let may = chown(space.path("."), Some(STRANGER), None).is_ok();
    // A limit as prlimit takes it: `8` is soft and hard, `8:` is soft.
    let as_stranger = |limit: &str, args: &str| {
        let user = format!("prlimit --nproc={limit} setpriv --reuid {STRANGER} --clear-groups");
        space.start_shell(&format!("exec {user} {FORKYARD} {args}")).end()
    };
    if !may || as_stranger("100", "--version").code() != Some(0) {
        eprintln!("skipped: no process of another user can be started here");
        return;
    }
    let doctor = as_stranger("8", "doctor --json").expect(0).events().remove(0);
    let processes = &check(&doctor, "processes");
    assert_eq!(processes["value"]["tightest"], format!("RLIMIT_NPROC of user {STRANGER}"));
    expect(&doctor, "processes", if cores() > 3 { "warn" } else { "note" }, "ulimit -Hu");

    let refused = as_stranger("12", "run m.toml --workers 8 --store refused").expect(0);
    refused.says("8 workers are too many: RLIMIT_NPROC of user").says("going on with fewer");
    let ended = as_stranger("12:", "run m.toml --workers 8 --json").expect(0);
    assert_eq!(ended.events_named("worker_started").len(), 8, "{}", ended.stderr);
}

fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}
