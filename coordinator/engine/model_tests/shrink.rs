//! Makes a case that fails smaller: takes nodes and words away, one by one, as long as it still fails.

use super::case::{Case, Cond, Limit, Node, Parts, Script, Term};
use super::run;

/// A case is tried so often, for what happens first may depend on a hash.
const TRIES: usize = 3;

/// The smallest case of a seed that was found to fail, and why it does.
pub(super) fn shrink(seed: u64, why: String) -> (Case, String) {
    let (mut case, mut why) = (Case::of_seed(seed), why);
    std::panic::set_hook(Box::new(|_| {}));
    while let Some((smaller, reason)) = smaller(&case).into_iter().find_map(|smaller| {
        let failed = (0..TRIES).find_map(|_| run::seed(&smaller, seed).err());
        failed.filter(|why| !why.starts_with("the manifest:")).map(|why| (smaller, why))
    }) {
        (case, why) = (smaller, reason);
    }
    drop(std::panic::take_hook());
    (case, why)
}

/// Cases that are smaller by one thing.
fn smaller(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    for at in (0..case.nodes.len()).rev() {
        let mut less = case.clone();
        let gone = less.nodes.remove(at).id;
        less.nodes.iter_mut().for_each(|node| forget(node, gone));
        all.push(less);
        let makes = case.nodes[at].makes.len();
        for made in (0..makes).rev() {
            let mut less = case.clone();
            let gone = less.nodes[at].makes.remove(made).id;
            less.nodes[at].makes.iter_mut().for_each(|node| forget(node, gone));
            all.push(less);
        }
    }
    let mut with = |change: &dyn Fn(&mut Case)| {
        let mut less = case.clone();
        change(&mut less);
        if format!("{less:?}") != format!("{case:?}") {
            all.push(less);
        }
    };
    with(&|case| case.weather.second_run = false);
    with(&|case| case.weather.loss = false);
    with(&|case| case.weather.signals = 0);
    with(&|case| case.weather.pauses = false);
    with(&|case| case.weather.deaths = false);
    with(&|case| case.weather.refusals = false);
    with(&|case| case.weather.budget = None);
    with(&|case| case.weather.latency_us = 0);
    with(&|case| case.weather.workers = 1);
    with(&|case| case.max_failures = None);
    with(&|case| case.stops = false);
    with(&|case| case.cache_bytes = 1 << 20);
    let words: [fn(&mut Node); 24] = [
        |node| node.order.clear(),
        |node| node.terms.clear(),
        |node| node.terms.truncate(node.terms.len().saturating_sub(1)),
        |node| node.whole = None,
        |node| node.scripts = Default::default(),
        |node| node.scripts[0] = Script::default(),
        |node| node.scripts[1] = Script::default(),
        |node| {
            node.parts = Parts::One;
            (node.policy, node.limit, node.chunk) = (None, Limit::default(), None);
            node.terms.retain(|term| !matches!(term, Term::Item | Term::Index));
            node.when = node.when.filter(|when| !matches!(when, Cond::EvenIndex | Cond::EvenItem));
        },
        |node| node.chunk = None,
        |node| node.when = None,
        |node| node.runs_if_skipped = false,
        |node| node.after_any = false,
        |node| node.route = None,
        |node| node.publish = None,
        |node| node.writes = None,
        |node| node.reads = None,
        |node| node.retry = None,
        |node| node.uncached = false,
        |node| node.policy = None,
        |node| node.limit = Limit::default(),
        |node| node.group = None,
        |node| (node.priority, node.memory) = (0, None),
        |node| node.makes.clear(),
        |node| node.twin = node.id,
    ];
    for at in 0..case.nodes.len() {
        for word in words {
            with(&|case| word(&mut case.nodes[at]));
            for made in 0..case.nodes[at].makes.len() {
                with(&|case| word(&mut case.nodes[at].makes[made]));
            }
        }
    }
    all
}

/// A node is gone: nobody names it any more.
fn forget(node: &mut Node, gone: usize) {
    node.order.retain(|need| *need != gone);
    node.terms.retain(|term| !matches!(term, Term::Result(of) | Term::Outcome(of) if *of == gone));
    node.whole = node.whole.filter(|of| *of != gone);
    if matches!(node.when, Some(Cond::Even(of) | Cond::Done(of)) if of == gone) {
        node.when = None;
    }
    if let Some((even, odd)) = &mut node.route {
        even.retain(|of| *of != gone);
        odd.retain(|of| *of != gone);
    }
    match &mut node.parts {
        Parts::Race(members) => {
            members.retain(|of| *of != gone);
            if members.len() < 2 {
                node.parts = Parts::One;
            }
        }
        Parts::Over(of) | Parts::Each(of) if *of == gone => node.parts = Parts::Range(2),
        _ => {}
    }
    node.makes.iter_mut().for_each(|made| forget(made, gone));
}
