//! What the model found, each as small as it could be made, with the seed of the time and its story.

use super::case::{Act, Case, Cond, Limit, Node, Parts, Policy, Reads, Retry, Script, Term, Weather};
use super::run;

/// Runs it with many times of everything, for most of these depend on who is quicker.
fn holds(nodes: Vec<Node>, change: impl Fn(&mut Case)) {
    let weather = Weather {
        workers: 2,
        budget: None,
        latency_us: 50,
        task_us: 500,
        deaths: false,
        refusals: false,
        pauses: false,
        signals: 0,
        loss: false,
        second_run: false,
    };
    let mut case = Case {
        stops: false,
        max_failures: None,
        max_crashes: 3,
        commit_every: 1,
        cache_bytes: 0,
        groups: vec![Limit { concurrency: Some(1), rate: None }],
        nodes,
        weather,
    };
    change(&mut case);
    for seed in 0..200 {
        run::seed(&case, seed).unwrap_or_else(|why| panic!("time {seed}: {why}\n{}", case.text()));
    }
}

fn node(id: usize) -> Node {
    Node { id, twin: id, ..Node::default() }
}

fn reads(id: usize, terms: &[Term]) -> Node {
    Node { terms: terms.to_vec(), ..node(id) }
}

fn failing(node: Node) -> Node {
    let never = || Script { acts: vec![Act::Error], never: true };
    Node { scripts: [never(), never()], ..node }
}

fn items(node: Node, count: u32) -> Node {
    Node { parts: Parts::Range(count), ..node }
}

/// Seed 32: it ran again because its result was lost, and failed, for the nodes that it made were there.
#[test]
fn a_generator_that_runs_again_makes_its_nodes_once() {
    let mut nodes = vec![Node { makes: vec![node(1)], ..node(0) }, node(2)];
    nodes.extend((3..8).map(|id| Node { whole: Some(0), ..reads(id, &[Term::Result(id - 1)]) }));
    holds(nodes, |case| case.weather.loss = true);
}

/// Seed 74: a node that accepts one failure needed another node that the stopping run cancelled: it was neither run,
/// nor blocked, nor told.
#[test]
fn a_node_that_outlives_a_failure_is_blocked_by_what_was_cancelled() {
    let nodes = vec![
        failing(node(0)),
        node(1),
        Node { order: vec![1], ..node(2) },
        Node { order: vec![2], terms: vec![Term::Outcome(0)], ..node(3) },
    ];
    holds(nodes, |case| case.stops = true);
}

/// Seed 19: when both members ended together, the race was skipped, because one of them routed elsewhere; when one was
/// quicker, it was won.
#[test]
fn a_member_that_routes_elsewhere_has_not_lost() {
    let elsewhere = Node { route: Some((vec![], vec![])), ..node(0) };
    let race = Node { parts: Parts::Race(vec![0, 1]), ..node(2) };
    holds(vec![elsewhere, reads(1, &[Term::Result(0)]), race], |_| {});
}

/// Seed 197: `after = "any"` was heeded if the node that failed had failed before its follower came to be, and not
/// afterwards.
#[test]
fn a_follower_that_accepts_failures_is_not_blocked_by_its_leader() {
    let leader =
        Node { scripts: [failing(node(0)).scripts[0].clone(), Script::default()], ..items(node(0), 3) };
    let follower = Node { parts: Parts::Each(0), after_any: true, ..node(1) };
    holds(vec![leader, follower], |_| {});
}

/// Seed 503: an item was cancelled because another one had failed, and an identical one, of another node, waited for it
/// for ever.
#[test]
fn whoever_waits_for_an_identical_item_that_is_cancelled_runs_itself() {
    let odd_fails = |id| {
        let script = Script { acts: vec![Act::Error, Act::Error], never: false };
        Node { twin: 0, scripts: [script, Script::default()], ..items(node(id), 3) }
    };
    let stops = Node { policy: Some(Policy::Stop), ..odd_fails(1) };
    holds(vec![odd_fails(0), stops], |case| case.weather.workers = 1);
}

/// Seeds 1144 and 1997: while an item ran again because its result was lost, others read null in its place.
#[test]
fn an_item_that_runs_again_is_waited_for() {
    let mut nodes = vec![items(node(0), 3)];
    nodes.extend((1..8).map(|id| reads(id, &[Term::Result(0)])));
    holds(nodes, |case| (case.weather.loss, case.weather.workers) = (true, 1));
}

/// Seeds 2089 and 1626: a node that had passed a gate, and then waited for a lost result, passed it twice and came back
/// once: nobody else came through any more.
#[test]
fn who_waits_for_a_lost_result_does_not_stand_in_a_gate() {
    let mut nodes = vec![node(0)];
    nodes.extend((1..8).map(|id| Node { group: Some(0), whole: Some(0), ..node(id) }));
    // Results that push others out of memory.
    nodes.push(node(8));
    nodes.extend((9..12).map(|id| reads(id, &[Term::Result(id - 1)])));
    holds(nodes, |case| {
        (case.weather.loss, case.weather.workers) = (true, 1);
        case.groups[0].concurrency = Some(3);
    });
}

/// Seed 11012: an item ran again because its result was lost, was counted twice, and was followed twice.
#[test]
fn an_item_that_runs_again_is_followed_once() {
    let follower = |id| Node { parts: Parts::Each(0), ..reads(id, &[Term::Item]) };
    let mut nodes = vec![items(node(0), 4)];
    nodes.extend((1..4).map(follower));
    holds(nodes, |case| case.weather.loss = true);
}

/// Seeds 3590 and 3997: nodes made by one that ended after the run had begun to stop: those that need the first of
/// them were never told to be cancelled.
#[test]
fn nodes_made_while_the_run_stops_are_cancelled() {
    let made = vec![node(2), reads(3, &[Term::Result(2)])];
    holds(vec![failing(node(0)), Node { makes: made, ..node(1) }], |case| case.stops = true);
}

/// Seeds 107743, 127423 and 189842: who waited for memory when the run began to stop passed its gate twice.
#[test]
fn who_waits_for_memory_stands_in_its_gate_once() {
    let big = |node: Node| Node { memory: Some(86), ..node };
    let waits = Node { after_any: true, group: Some(0), ..items(node(1), 3) };
    holds(vec![big(failing(node(0))), big(waits)], |case| {
        (case.stops, case.weather.workers, case.weather.budget) = (true, 3, Some(99));
        (case.weather.task_us, case.weather.latency_us) = (20_000, 0);
    });
}

/// Seed 157433: in a run that stops an item came into being after the node that it is one of had been settled.
#[test]
fn what_is_settled_makes_no_more_items() {
    let leader =
        Node { scripts: [failing(node(0)).scripts[0].clone(), Script::default()], ..items(node(0), 4) };
    let follower = |id, of| Node { parts: Parts::Each(of), ..node(id) };
    let last = Node { after_any: true, ..follower(2, 1) };
    holds(vec![leader, follower(1, 0), last], |case| {
        (case.max_failures, case.weather.task_us) = (Some(1), 20_000);
    });
}

/// Seed 25314: a node that follows the items of another one came when one of these ran again, because its result was
/// lost: it had no item for it.
#[test]
fn an_item_that_runs_again_has_followers_that_come_later() {
    let mut nodes = vec![items(node(0), 3)];
    nodes.extend((1..6).map(|id| reads(id, &[Term::Result(0)])));
    nodes.push(Node { parts: Parts::Each(0), order: vec![1], ..reads(6, &[Term::Item]) });
    holds(nodes, |case| case.weather.loss = true);
}

/// Seed 54464: a node that ran again because its result was lost saw the state as if nobody before it had written.
#[test]
fn a_node_that_runs_again_sees_what_it_saw() {
    let writer = Node { writes: Some(2), ..node(0) };
    let mut nodes = vec![writer, node(1), reads(2, &[Term::Result(0), Term::Var(2)])];
    nodes.extend((3..9).map(|id| Node { order: vec![id - 1], ..reads(id, &[Term::Result(2)]) }));
    holds(nodes, |case| case.weather.loss = true);
}

/// Seed 28347: a node waited for an identical one when what both need was lost; the run stopped, and let go of it.
#[test]
fn who_is_let_go_while_the_run_stops_is_cancelled() {
    let mut nodes = vec![node(0), Node { whole: Some(0), ..failing(node(1)) }];
    nodes.extend((2..8).map(|id| Node { twin: 2, order: vec![0], ..node(id) }));
    nodes.push(Node { whole: Some(0), ..failing(node(8)) });
    holds(nodes, |case| {
        (case.stops, case.weather.loss, case.weather.workers) = (true, true, 1);
    });
}

/// Seed 38366: while a node ran again because its result was lost, others saw its outcome as unknown.
#[test]
fn the_outcome_of_a_node_that_runs_again_is_known() {
    let mut nodes = vec![node(0), Node { uncached: true, ..node(1) }];
    nodes.extend((2..5).map(|id| Node { whole: Some(1), ..reads(id, &[Term::Result(0)]) }));
    nodes.extend((5..9).map(|id| items(reads(id, &[Term::Outcome(0), Term::Result(1)]), 1)));
    holds(nodes, |case| {
        (case.weather.loss, case.weather.second_run, case.weather.workers) = (true, true, 1);
    });
}

/// Seeds 64673 and 96098: a node one of whose needs was skipped, or routed elsewhere, ran all the same if the last of
/// its needs went to a worker after that: it went along in the same batch.
#[test]
fn what_is_to_be_skipped_does_not_go_along_in_a_batch() {
    let mut nodes = vec![Node { route: Some((vec![], vec![])), ..node(0) }];
    let later = Script { acts: vec![Act::Error], never: false };
    let retry = Some(Retry { attempts: 2, backoff_ms: 1, on_error: true, on_timeout: false });
    nodes.extend((1..6).map(|id| Node { scripts: [later.clone(), later.clone()], retry, ..node(id) }));
    nodes.extend((6..11).map(|id| Node { order: vec![0, id - 5], ..node(id) }));
    holds(nodes, |case| case.weather.workers = 1);
}

/// Seed 206365: a worker was refused when all others had just died, and the run ended.
#[test]
fn a_refusal_ends_a_run_only_if_nobody_can_be_asked_for() {
    let late = Script { acts: vec![Act::Late], never: false };
    let late = |id| Node { has_timeout: true, scripts: [late.clone(), late.clone()], ..node(id) };
    holds((0..6).map(late).collect(), |case| {
        (case.weather.workers, case.weather.latency_us, case.weather.refusals) = (3, 5000, true);
    });
}

/// Seed 4371: a run that stops let go who waited for an identical node that was still to run. Then that one waited for
/// them, in the gate that they had to pass.
#[test]
fn identical_nodes_that_outlive_a_failure_do_not_wait_for_each_other() {
    let same = Node { after_any: true, group: Some(0), parts: Parts::List(vec![1; 6]), ..node(0) };
    let mut nodes = vec![same];
    nodes.extend((1..4).map(|id| failing(node(id))));
    holds(nodes, |case| case.stops = true);
}

/// A load of a million: each item that waited at a gate with a rate set a timer that set itself anew, so that a run became slower
/// the longer it went on. `sanity_check` counts them.
#[test]
fn many_that_wait_at_a_gate_are_one_timer() {
    let through_a_gate = Node { group: Some(0), ..items(reads(0, &[Term::Item]), 100) };
    holds(vec![through_a_gate], |case| case.groups[0] = Limit { concurrency: None, rate: Some(20) });
}

/// Beside seed 180187: a node that was to be skipped did not wait for the end of the node whose items it would have
/// followed, so that who runs all the same might not see what that had written.
#[test]
fn what_is_skipped_waits_for_whom_it_would_have_followed() {
    let leader = Node { writes: Some(1), ..items(reads(0, &[Term::Index]), 3) };
    let skipped = Node { parts: Parts::Each(0), when: Some(Cond::Constant(false)), ..node(1) };
    let after = Node { order: vec![1], runs_if_skipped: true, ..reads(2, &[Term::Var(1)]) };
    holds(vec![leader, skipped, after], |_| {});
}

/// Seed 732777: each item that found out that a result was lost counted as a loss, and ten ended the run.
#[test]
fn a_loss_that_many_find_out_is_one() {
    let nodes = (1..4).map(|id| items(Node { whole: Some(0), ..reads(id, &[Term::Index]) }, 30));
    holds(std::iter::once(items(node(0), 2)).chain(nodes).collect(), |case| case.weather.loss = true);
}

/// Seed 737703: an item was lost and the run stopped before it had run again: null stood for it in the list that others
/// read, and what they made of it was stored.
#[test]
fn a_list_that_lacks_what_was_lost_is_not_read() {
    // It outlives the failure, for it takes what becomes of the first one.
    let read = Node { whole: Some(1), when: Some(Cond::Done(0)), ..reads(3, &[Term::Index]) };
    let read = Node { parts: Parts::Over(1), ..read };
    let odd = Node { scripts: [Script::default(), failing(node(2)).scripts[0].clone()], ..node(2) };
    let list = Node { reads: Some(Reads::All), ..items(reads(1, &[Term::Item]), 3) };
    holds(vec![node(0), list, items(odd, 3), read], |case| {
        (case.weather.loss, case.stops, case.weather.workers) = (true, true, 1);
        (case.weather.task_us, case.weather.latency_us) = (20_000, 0);
    });
}
