//! What a seed makes: a case with every word of the language, each in some of the cases.

use super::case::{
    Act, Case, Cond, Limit, Node, Parts, Policy, Published, Reads, Retry, Rng, Script, Term, VARS, Weather,
};

impl Case {
    pub fn of_seed(seed: u64) -> Case {
        let rng = &mut Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e6c_63d0_876a_3f6b);
        let groups = (0..rng.below(3)).map(|_| limit(rng)).collect::<Vec<_>>();
        let mut maker = Maker { rng, groups: groups.len(), next: 0, may_make: true };
        let count = 1 + maker.rng.below(12) as usize;
        let mut nodes = Vec::new();
        for _ in 0..count {
            let node = maker.node(&nodes, &[]);
            nodes.push(node);
        }
        maker.routes(&mut nodes);
        let weather = Weather {
            workers: 1 + rng.below(4) as usize,
            budget: rng.one_in(4).then(|| 50 + rng.below(100)),
            latency_us: *rng.pick(&[0, 50, 5_000]).expect("there are some"),
            task_us: *rng.pick(&[50, 500, 20_000]).expect("there are some"),
            deaths: rng.one_in(3),
            refusals: rng.one_in(10),
            pauses: rng.one_in(8),
            signals: if rng.one_in(8) { 1 + rng.below(2) } else { 0 },
            loss: rng.one_in(4),
            second_run: rng.one_in(3),
        };
        Case {
            stops: rng.one_in(3),
            max_failures: rng.one_in(8).then(|| rng.below(3) as usize),
            max_crashes: 1 + rng.below(3) as u32,
            commit_every: 1 + rng.below(5) as usize,
            cache_bytes: *rng.pick(&[0, 4, 1 << 20]).expect("there are some"),
            groups,
            nodes,
            weather,
        }
    }
}

fn limit(rng: &mut Rng) -> Limit {
    Limit {
        concurrency: rng.one_in(2).then(|| 1 + rng.below(2) as u32),
        rate: rng.one_in(3).then(|| *rng.pick(&[20, 1000]).expect("there are some")),
    }
}

struct Maker<'r> {
    rng: &'r mut Rng,
    groups: usize,
    next: usize,
    may_make: bool,
}

impl Maker<'_> {
    /// A node that may need those `before` it, and `outer` ones only by their results or for order.
    fn node(&mut self, before: &[Node], outer: &[usize]) -> Node {
        let id = self.next;
        self.next += 1;
        if let Some(twin) = self.twin(before, id) {
            return twin;
        }
        let rng = &mut *self.rng;
        let ids: Vec<usize> = before.iter().map(|node| node.id).chain(outer.iter().copied()).collect();
        let by = |wanted: &dyn Fn(&Node) -> bool| -> Vec<usize> {
            before.iter().filter(|node| wanted(node)).map(|node| node.id).collect()
        };
        let lists = by(&|node| node.parts.has_items());
        let singles = by(&|node| !node.parts.is_family() && node.makes.is_empty());
        let mut node = Node { id, twin: id, ..Node::default() };
        if singles.len() > 1 && rng.one_in(8) {
            let first = *rng.pick(&singles).expect("there are two");
            let mut members = vec![first];
            while members.len() < 2 || members.len() < singles.len() && rng.one_in(3) {
                let member = *rng.pick(&singles).expect("there are two");
                if !members.contains(&member) {
                    members.push(member);
                }
            }
            node.parts = Parts::Race(members);
        } else {
            node.parts = match rng.below(14) {
                0 | 1 => Parts::Range(rng.below(5) as u32),
                2 => Parts::List((0..rng.below(4)).map(|_| rng.below(4) as u32).collect()),
                3 => rng.pick(&lists).map_or(Parts::One, |of| Parts::Over(*of)),
                4 | 5 => rng.pick(&lists).map_or(Parts::One, |of| Parts::Each(*of)),
                6 => Parts::Repeat(rng.below(3) as u32, 1 + rng.below(4) as u32),
                _ => Parts::One,
            };
        }
        let is_race = matches!(node.parts, Parts::Race(_));
        let leader = match node.parts {
            Parts::Each(leader) => Some(leader),
            _ => None,
        };
        let readable: Vec<usize> = ids.iter().copied().filter(|id| Some(*id) != leader).collect();
        if !is_race {
            for _ in 0..rng.below(3) {
                if let Some(need) = rng.pick(&ids).filter(|_| rng.one_in(2)) {
                    node.order.push(*need);
                }
            }
            node.order.sort_unstable();
            node.order.dedup();
            for _ in 0..rng.below(4) {
                let other = rng.pick(&readable).copied();
                let term = match (rng.below(10), other) {
                    (0..4, Some(other)) => Term::Result(other),
                    (4, Some(other)) => Term::Outcome(other),
                    (5, _) => Term::Var(rng.below(VARS as u64) as usize),
                    (6 | 7, _) if node.parts.has_items() => Term::Item,
                    (6..9, _) if node.parts.is_family() => Term::Index,
                    _ => Term::Number(rng.below(4) as u32),
                };
                node.terms.push(term);
            }
            node.whole = rng.pick(&readable).copied().filter(|_| rng.one_in(4));
        }
        if matches!(node.parts, Parts::Range(_) | Parts::List(_) | Parts::Over(_)) && rng.one_in(4) {
            node.chunk = Some(1 + rng.below(3) as u32);
        }
        if !is_race && rng.one_in(5) {
            let even = rng.pick(&readable).copied();
            node.when = Some(match rng.below(6) {
                0 => Cond::Constant(rng.one_in(2)),
                1 | 2 if even.is_some() => Cond::Even(even.unwrap_or_default()),
                3 if even.is_some() => Cond::Done(even.unwrap_or_default()),
                4 if node.parts.has_items() => {
                    if rng.one_in(2) {
                        Cond::EvenIndex
                    } else {
                        Cond::EvenItem
                    }
                }
                _ => Cond::EvenVar(rng.below(VARS as u64) as usize),
            });
        }
        node.runs_if_skipped = rng.one_in(4);
        node.after_any = !is_race && rng.one_in(8);
        if rng.one_in(5) {
            let value = match rng.below(3) {
                0 => Published::Number(rng.below(8) as u32),
                1 => Published::Var(rng.below(VARS as u64) as usize),
                _ => Published::Result,
            };
            node.publish = Some((rng.below(VARS as u64) as usize, value));
        }
        if is_race {
            return node;
        }
        if rng.one_in(8) && (node.publish.is_none() || node.parts.has_items()) {
            node.writes = Some(rng.below(VARS as u64) as usize);
        }
        if rng.one_in(8) {
            let var = Reads::Var(rng.below(VARS as u64) as usize);
            node.reads = Some(if rng.one_in(2) { Reads::All } else { var });
        }
        if rng.one_in(3) {
            let (on_error, on_timeout) =
                *rng.pick(&[(true, true), (true, false), (false, true)]).expect("some");
            node.retry = Some(Retry {
                attempts: 1 + rng.below(4) as u32,
                backoff_ms: *rng.pick(&[0, 1, 30]).expect("there are some"),
                on_error,
                on_timeout,
            });
        }
        node.has_timeout = rng.one_in(4);
        node.scripts = [script(rng, node.has_timeout), script(rng, node.has_timeout)];
        node.uncached = rng.one_in(8);
        if node.parts.has_items() {
            node.policy = rng
                .pick(&[None, Some(Policy::Fail), Some(Policy::Null), Some(Policy::Stop)])
                .copied()
                .flatten();
            if rng.one_in(4) {
                node.limit = limit(rng);
            }
        }
        node.group = if self.groups > 0 && rng.one_in(3) {
            Some(rng.below(self.groups as u64) as usize)
        } else {
            None
        };
        node.priority = if rng.one_in(4) { rng.below(3) as i32 - 1 } else { 0 };
        node.memory = rng.one_in(6).then(|| 10 + rng.below(100));
        if self.may_make && matches!(node.parts, Parts::One) && rng.one_in(10) {
            self.may_make = false;
            let mut made = Vec::new();
            for _ in 0..1 + self.rng.below(3) {
                let one = self.node(&made, &[id]);
                made.push(one);
            }
            node.makes = made;
            self.may_make = true;
        }
        node
    }

    /// Another node like one that is there.
    fn twin(&mut self, before: &[Node], id: usize) -> Option<Node> {
        if !self.rng.one_in(8) {
            return None;
        }
        let like = self.rng.pick(before)?;
        if !like.makes.is_empty() || like.route.is_some() || matches!(like.parts, Parts::Race(_)) {
            return None;
        }
        Some(Node { id, ..like.clone() })
    }

    /// Now that it is known who needs whom.
    fn routes(&mut self, nodes: &mut [Node]) {
        for at in 0..nodes.len() {
            let id = nodes[at].id;
            if nodes[at].parts.is_family()
                || matches!(nodes[at].parts, Parts::Race(_))
                || !nodes[at].makes.is_empty()
                || !self.rng.one_in(6)
            {
                continue;
            }
            let users: Vec<usize> =
                nodes.iter().filter(|user| user.needs().contains(&id)).map(|user| user.id).collect();
            let some = |rng: &mut Rng| users.iter().copied().filter(|_| rng.one_in(2)).collect::<Vec<_>>();
            nodes[at].route = Some((some(self.rng), some(self.rng)));
        }
    }
}

fn script(rng: &mut Rng, has_timeout: bool) -> Script {
    let mut script = Script::default();
    if rng.one_in(4) {
        for _ in 0..1 + rng.below(3) {
            script.acts.push(match rng.below(6) {
                0 | 1 => Act::Error,
                2 | 3 if has_timeout => Act::Late,
                4 => Act::Crash,
                5 => Act::Later,
                _ => Act::Error,
            });
        }
    }
    script.never = rng.one_in(12);
    script
}
