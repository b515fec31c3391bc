//! `race`: the first of many.

use super::{error, noop, shell, value, wait_for};
use crate::util::{Ended, Space, eventually, lives};

fn race(id: &str, members: &[&str]) -> String {
    let members: Vec<String> = members.iter().map(|member| format!("\"{member}\"")).collect();
    format!("[[node]]\nid = \"{id}\"\nrace = [{}]\n", members.join(", "))
}

/// A node that writes the numbers of its processes into a file, and hangs.
fn hanging(id: &str) -> String {
    shell(id, "setsid sleep 1000 & echo $! >> pids; echo $$ >> pids; touch up; sleep 1000", "")
}

/// How many nodes have this outcome.
fn count(ended: &Ended, outcome: &str) -> u64 {
    ended.summary()[outcome].as_u64().unwrap()
}

#[test]
fn the_first_success_is_the_result_and_the_loser_is_killed() {
    let space = Space::with(
        &[
            hanging("slow"),
            shell("fast", &format!("{}; echo won", wait_for("up")), ""),
            race("r", &["slow", "fast"]),
            value("after", "\"{{ nodes.r.result | trim }}\"", ""),
            value("whole", "\"{{ nodes.r.result }}\"", ""),
        ]
        .concat(),
    );
    let ended = space.run_with(&["--workers", "2"], 0);
    assert_eq!(ended.outcomes(), "after=ran fast=ran r=ran slow=cancelled whole=ran");
    assert_eq!(error(&ended, "slow"), "another member of its race has won");
    assert_eq!(space.result_text("after"), "\"won\"");
    let (results, winner) = (space.results(), "fast");
    assert_eq!(results["r"].1, results[winner].1);
    assert_eq!(results["whole"].1, results[winner].1);
    let pids: Vec<i32> = space.text("pids").lines().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    eventually("the loser and its child are gone", || pids.iter().all(|pid| !lives(*pid)));
    space.expect_nothing_left();
}

#[test]
fn a_large_result_of_a_race_goes_by_reference_to_all_who_read_it() {
    for layout in ["hybrid", "sqlite", "filesystem"] {
        let space = Space::with(
            &[
                format!("[run]\nlayout = \"{layout}\"\n"),
                shell("big", "yes | head -c 200000", ""),
                noop("never", "when = \"{{ false }}\""),
                race("r", &["never", "big"]),
                shell("a", "wc -c", "stdin = \"{{ nodes.r.result }}\""),
                shell("b", "head -n 1", "stdin = \"{{ nodes.r.result }}\"\nneeds = [\"a\"]"),
                value("c", "\"{{ nodes.r.result | length }}\"", "needs = [\"b\"]"),
            ]
            .concat(),
        );
        let ended = space.run_manifest(0);
        assert_eq!(ended.outcomes(), "a=ran b=ran big=ran c=ran never=skipped r=ran", "{layout}");
        let found = ["a", "b", "c"].map(|node| space.result_text(node));
        assert_eq!(found, ["200000\n", "y\n", "200000"], "{layout}");
        assert_eq!(space.result("r").len(), 200_000, "{layout}");
    }
}

#[test]
fn a_race_is_won_once_and_for_all() {
    let space = Space::with(
        &[
            shell("a", &format!("{}; echo a", wait_for("go")), ""),
            shell("b", "echo b", ""),
            race("r", &["a", "b"]),
            value("after", "\"{{ nodes.r.result | trim }}\"", ""),
        ]
        .concat(),
    );
    space.run_with(&["--workers", "2"], 0);
    assert_eq!(space.result_text("r"), "b\n");
    // Now the other one would be as fast.
    space.write("go", "");
    let again = space.run_with(&["--workers", "2"], 0);
    assert_eq!(again.outcomes(), "a=cancelled after=cached b=cached r=cached");
    assert_eq!(count(&again, "ran"), 0);
    // Even if its result is stored too, which makes it no slower.
    space.run_with(&["--only", "a"], 0);
    let again = space.run_with(&["--workers", "2"], 0);
    assert_eq!(
        (&again.node("after")["outcome"], &again.node("r")["outcome"]),
        (&"cached".into(), &"cached".into())
    );
    assert_eq!(space.result_text("r"), "b\n");
}

#[test]
fn a_member_that_fails_harms_nobody_if_another_wins() {
    let space = Space::with(
        &[
            shell("bad", "exit 3", ""),
            shell("good", "echo good", "when = \"{{ nodes.bad.outcome == 'failed' }}\""),
            race("r", &["bad", "good"]),
            noop("other", "needs = [\"r\"]"),
        ]
        .concat(),
    );
    let ended = space.run_with(&["--workers", "2"], 0);
    assert_eq!(ended.outcomes(), "bad=failed good=ran other=ran r=ran");
    assert_eq!(space.result_text("r"), "good\n");
}

#[test]
fn if_all_members_fail_the_race_tells_of_each() {
    let space = Space::with(
        &[
            shell("a", "echo no luck >&2; exit 3", ""),
            shell("b", "sleep 1000", "timeout = \"50ms\""),
            noop("p", "when = \"{{ 1 + 'x' }}\""),
            race("r", &["a", "b", "p"]),
            noop("c", "needs = [\"r\"]"),
        ]
        .concat(),
    );
    let ended = space.run_manifest(1);
    assert_eq!(ended.outcomes(), "a=failed b=timed_out c=blocked p=failed r=failed");
    let why = error(&ended, "r");
    assert!(why.starts_with("no member of the race succeeded: a failed: /bin/sh ended with exit status: 3: no luck; b timed_out: it ran for more than its timeout of 50"), "{why}");
    assert!(why.contains("; p failed: `{{ 1 + 'x' }}`"), "{why}");
}

#[test]
fn a_race_whose_members_are_skipped_is_skipped_and_one_that_is_left_wins() {
    let no = |id: &str| noop(id, "when = \"{{ false }}\"");
    let space =
        Space::with(&[no("a"), no("b"), race("r", &["a", "b"]), noop("c", "needs = [\"r\"]")].concat());
    assert_eq!(space.run_manifest(0).outcomes(), "a=skipped b=skipped c=skipped r=skipped");
    let space = Space::with(&[no("a"), value("b", "7", ""), race("r", &["a", "b"])].concat());
    assert_eq!(space.run_manifest(0).outcomes(), "a=skipped b=ran r=ran");
    assert_eq!(space.result_text("r"), "7");
}

#[test]
fn fifty_times_there_is_exactly_one_winner() {
    let space = Space::with(
        &[
            shell("a", "echo a", "cache = false"),
            shell("b", "echo b", "cache = false"),
            race("r", &["a", "b"]),
        ]
        .concat(),
    );
    for round in 0..50 {
        let ended = space.run_with(&["--workers", "2"], 0);
        let (winner, loser) = if ended.node("a")["outcome"] == "ran" { ("a", "b") } else { ("b", "a") };
        assert_eq!(
            (&ended.node(winner)["outcome"], &ended.node(loser)["outcome"]),
            (&"ran".into(), &"cancelled".into()),
            "round {round}"
        );
        assert_eq!(space.result_text("r"), format!("{winner}\n"), "round {round}");
    }
    space.expect_nothing_left();
}

#[test]
fn thirty_races_at_once_do_not_mix() {
    let one = |n: u32| {
        let (fast, slow, id) = (format!("fast{n}"), format!("slow{n}"), format!("r{n}"));
        let read = value(&format!("read{n}"), &format!("\"{{{{ nodes.r{n}.result | trim }}}}\""), "");
        [
            shell(&slow, &format!("sleep 1000; echo slow {n}"), ""),
            shell(&fast, &format!("echo fast {n}"), ""),
            race(&id, &[&slow, &fast]),
            read,
        ]
        .concat()
    };
    let space = Space::with(&(0..30).map(one).collect::<String>());
    // So many workers that every slow one may have begun.
    let ended = space.run_with(&["--workers", "40"], 0);
    assert_eq!((count(&ended, "ran"), count(&ended, "cancelled"), count(&ended, "failed")), (90, 30, 0));
    for n in 0..30 {
        assert_eq!(space.result_text(&format!("read{n}")), format!("\"fast {n}\""));
    }
    space.expect_nothing_left();
}

#[test]
fn races_may_follow_races() {
    let space = Space::with(
        &[
            hanging("s1"),
            shell("f1", &format!("{}; echo 1", wait_for("up")), ""),
            race("r1", &["s1", "f1"]),
            shell("s2", "sleep 1000", "needs = [\"r1\"]"),
            value("f2", "\"{{ nodes.r1.result | trim | int + 1 }}\"", ""),
            race("r2", &["f2", "s2"]),
            value("end", "\"{{ nodes.r2.result * 10 }}\"", ""),
        ]
        .concat(),
    );
    space.run_with(&["--workers", "3"], 0);
    assert_eq!(space.result_text("end"), "20");
    space.expect_nothing_left();
}

#[test]
fn a_race_that_loses_a_race_takes_its_members_along() {
    let space = Space::with(
        &[
            hanging("a"),
            shell("b", "sleep 1000", ""),
            race("inner", &["a", "b"]),
            shell("c", &format!("{}; echo c", wait_for("up")), ""),
            race("outer", &["inner", "c"]),
        ]
        .concat(),
    );
    let ended = space.run_with(&["--workers", "3"], 0);
    assert_eq!(ended.outcomes(), "a=cancelled b=cancelled c=ran inner=cancelled outer=ran");
    space.expect_nothing_left();
}

#[test]
fn a_failure_elsewhere_does_not_disturb_who_has_won() {
    let space = Space::with(
        &[
            value("a", "1", "priority = 9"),
            shell("b", "sleep 1000", ""),
            race("r", &["a", "b"]),
            shell("bad", "exit 1", "needs = [\"r\"]"),
        ]
        .concat(),
    );
    let ended = space.run_with(&["--workers", "2"], 1);
    assert_eq!(ended.outcomes(), "a=ran b=cancelled bad=failed r=ran");
}
