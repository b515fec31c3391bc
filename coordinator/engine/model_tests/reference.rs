//! What a case must come to, worked out the slow way: node by node in the manifest's order, from what its parents came
//! to. Where timing may decide (who wins a race, what a failure that stops the run still finds waiting), what the run
//! says of a node is taken, if it is one of what may be.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::case::{Act, Case, Cond, Node, Parts, Policy, Published, Retry, Script, Term, name};
use super::double::{made_of, result_of};
use crate::store::Outcome;

/// What a run says.
pub(super) struct Facts {
    /// By name; ran and cached are one.
    pub outcomes: HashMap<String, Outcome>,
    /// The value of each node that has one of its own.
    pub values: HashMap<String, Value>,
    /// The winners of races, by name.
    pub winners: HashMap<String, String>,
    /// A signal asked it to end.
    pub interrupted: bool,
}

/// Where somebody who writes a variable stands: numbers that are compared one after the other.
type Rank = Vec<u32>;

/// What a node sees of the state: who wrote, and what.
type Seen = BTreeMap<Rank, (usize, Value)>;

/// What a node came to.
#[derive(Clone)]
struct Fate {
    outcome: Outcome,
    value: Value,
    seen: Seen,
    handed: Seen,
    items: Vec<Option<Fate>>,
    /// The nodes that it routes to, if it routes.
    chosen: Option<Vec<usize>>,
    nulls: bool,
    /// The run stopped before all its ancestors had ended: what was set by then is a matter of time.
    unsure: bool,
}

impl Fate {
    fn of(outcome: Outcome, seen: Seen) -> Fate {
        let handed = seen.clone();
        Fate {
            outcome,
            value: Value::Null,
            seen,
            handed,
            items: Vec::new(),
            chosen: None,
            nulls: false,
            unsure: false,
        }
    }

    fn is_done(&self) -> bool {
        self.outcome == Outcome::Ran
    }
}

/// What a node has from those around it.
#[derive(Clone)]
struct Place {
    rank: Rank,
    generator: Option<usize>,
    outlives: bool,
}

pub(super) struct World<'c> {
    case: &'c Case,
    facts: &'c Facts,
    fates: HashMap<usize, Fate>,
    /// A failure has stopped the run.
    draining: bool,
    told: usize,
}

/// An item or iteration.
#[derive(Clone)]
struct Item {
    index: u32,
    value: Value,
}

impl World<'_> {
    /// What is wrong with what a run says.
    pub fn judge(case: &Case, facts: &Facts) -> Result<(), String> {
        let draining = stops(case, facts);
        if case.weather.loss && (draining || facts.interrupted) {
            // Of a node whose result was lost before the run stopped, others may have seen it or not: that all are settled, and
            // what holds at every moment, is all that can be asked.
            return Ok(());
        }
        let mut world = World { case, facts, fates: HashMap::new(), draining, told: 0 };
        for (at, node) in case.nodes.iter().enumerate() {
            world.node(node, Place { rank: vec![at as u32], generator: None, outlives: false })?;
        }
        if world.told < facts.outcomes.len() {
            let known = |id: &&String| !world.knows(id);
            let stranger = facts.outcomes.keys().find(known);
            return Err(format!("there should be no node {}", stranger.cloned().unwrap_or_default()));
        }
        Ok(())
    }

    fn knows(&self, id: &str) -> bool {
        let (of, item) = id.split_once('[').map_or((id, None), |(of, item)| (of, item.strip_suffix(']')));
        let fate = of[1..].parse().ok().and_then(|of: usize| self.fates.get(&of));
        fate.is_some_and(|fate| {
            item.is_none_or(|item| {
                item.parse().is_ok_and(|item: usize| fate.items.get(item).is_some_and(Option::is_some))
            })
        })
    }

    /// What the run says of it, which must be one of these.
    fn said(&mut self, id: &str, mut allowed: Vec<Outcome>, may_be_cut: bool) -> Result<Outcome, String> {
        let Some(&said) = self.facts.outcomes.get(id) else { return Err(format!("nothing became of {id}")) };
        self.told += 1;
        if may_be_cut {
            allowed.push(Outcome::Cancelled);
        }
        if allowed.contains(&said) {
            Ok(said)
        } else {
            Err(format!("{id} is {said:?} and should be {allowed:?}"))
        }
    }

    /// A node's result, which must be what the run says.
    fn value_said(&self, id: &str, value: Value, unsure: bool) -> Result<Value, String> {
        match self.facts.values.get(id) {
            Some(said) if unsure => Ok(said.clone()),
            Some(said) if *said != value => {
                Err(format!("the result of {id} is {said} and should be {value}"))
            }
            _ => Ok(value),
        }
    }

    fn node(&mut self, node: &Node, place: Place) -> Result<(), String> {
        let mut needs = node.needs();
        needs.extend(place.generator);
        let is_race = matches!(node.parts, Parts::Race(_));
        let members = match &node.parts {
            Parts::Race(members) => members.clone(),
            _ => Vec::new(),
        };
        let outcomes = node.outcomes();
        let accepts = |need: &usize| node.after_any || outcomes.contains(need) || members.contains(need);
        let outlives = place.outlives || node.after_any || !outcomes.is_empty() || is_race;
        let may_be_cut = self.draining && !outlives || self.facts.interrupted || self.may_lose(node.id);
        let fate_of = |need: &usize| &self.fates[need];
        let leader = match node.parts {
            Parts::Each(leader) => Some(leader),
            _ => None,
        };

        let mut seen = Seen::new();
        for need in needs.iter().filter(|need| Some(**need) != leader) {
            seen.extend(fate_of(need).handed.clone());
        }
        let failed = |need: &&usize| !fate_of(need).is_done() && fate_of(need).outcome != Outcome::Skipped;
        let blocks = |need: &&usize| failed(need) && !accepts(need) && Some(**need) != leader;
        let leader_blocks = leader.filter(|leader| failed(&leader) && !accepts(leader));
        let elsewhere = |need: &usize| {
            Some(*need) != place.generator
                && fate_of(need).is_done()
                && fate_of(need).chosen.as_ref().is_some_and(|chosen| !chosen.contains(&node.id))
        };
        let skipped = |need: &usize| fate_of(need).outcome == Outcome::Skipped;
        let id = node.name();

        let blocked = needs.iter().any(|need| blocks(&need));
        let left_out =
            !is_race && (needs.iter().any(elsewhere) || !node.runs_if_skipped && needs.iter().any(skipped));
        let unsure = needs.iter().any(|need| fate_of(need).unsure);
        let when_is_false = match unsure {
            true => self.facts.outcomes.get(&id) == Some(&Outcome::Skipped),
            false => !node.when.is_none_or(|when| self.holds(when, &seen, None)),
        };
        let whole = node.when.is_some_and(|when| !matches!(when, Cond::EvenIndex | Cond::EvenItem));

        let plain = if blocked {
            Some(Outcome::Blocked)
        } else if left_out || whole && when_is_false {
            // It waits for the node whose items it would follow.
            Some(if leader_blocks.is_some() { Outcome::Blocked } else { Outcome::Skipped })
        } else {
            None
        };
        let mut fate = match (plain, &node.parts) {
            (Some(outcome), _) => {
                let mut allowed = vec![outcome];
                // In one batch with what it needs, it may have ended the worker before that was reported, and what
                // was not reported is not run again while the run stops.
                let lost = |need: &&usize| blocks(need) && fate_of(need).outcome == Outcome::Cancelled;
                if self.draining && matches!(node.parts, Parts::One) && needs.iter().any(|need| lost(&need)) {
                    let own = play(&node.scripts[0], node, self.case.max_crashes);
                    allowed.extend((own != Outcome::Ran).then_some(own));
                }
                let mut fate = Fate::of(self.said(&id, allowed, may_be_cut)?, seen);
                fate.handed
                    .extend(leader.map(|leader| self.fates[&leader].handed.clone()).unwrap_or_default());
                fate
            }
            (None, Parts::One) => {
                let mut outcome = play(&node.scripts[0], node, self.case.max_crashes);
                let value = self.value_said(&id, self.result(node, &seen, None), unsure)?;
                let is_user = |id: &usize| {
                    self.case.nodes.iter().any(|user| user.id == *id && user.needs().contains(&node.id))
                };
                if outcome == Outcome::Ran && !chosen(node, &value).unwrap_or_default().iter().all(is_user) {
                    outcome = Outcome::Failed;
                }
                let mut fate = Fate::of(self.said(&id, vec![outcome], may_be_cut)?, seen);
                if fate.is_done() {
                    fate.value = value;
                    self.write(node, &place.rank, &mut fate);
                }
                fate
            }
            (None, Parts::Race(members)) => self.race(node, members, may_be_cut)?,
            (None, Parts::Repeat(from, max)) => {
                self.repeat(node, (*from, *max), &place, seen, (may_be_cut, unsure))?
            }
            (None, _) => self.family(node, leader, leader_blocks, &place, seen, (may_be_cut, unsure))?,
        };
        if fate.is_done() {
            if let Some((var, value)) = node.publish {
                let value = match node.parts.has_items() {
                    false => self.published(value, &fate.seen, &fate.value),
                    true => fate
                        .items
                        .iter()
                        .map(|item| match item {
                            Some(item) if item.is_done() => self.published(value, &item.seen, &item.value),
                            _ => Value::Null,
                        })
                        .collect(),
                };
                let mut rank = place.rank.clone();
                if node.parts.is_family() {
                    rank.push(u32::MAX);
                }
                fate.handed.insert(rank, (var, value));
            }
            fate.chosen = chosen(node, &fate.value);
        }
        let is_done = fate.is_done();
        // Left out by a run that stops, it is settled before all that it needs is.
        let is_left_out = matches!(fate.outcome, Outcome::Cancelled | Outcome::Blocked);
        fate.unsure = unsure || is_left_out && (self.draining || self.facts.interrupted);
        fate.nulls = node.policy == Some(Policy::Null);
        self.fates.insert(node.id, fate);
        if is_done {
            for (at, made) in node.makes.iter().enumerate() {
                let rank = place.rank.iter().copied().chain([at as u32 + 1]).collect();
                self.node(made, Place { rank, generator: Some(node.id), outlives })?;
            }
        }
        Ok(())
    }

    /// Whether a race of this node came to something else, so that nobody may have waited for this one.
    fn may_lose(&self, node: usize) -> bool {
        self.races_of(node).into_iter().any(|race| match self.facts.outcomes.get(&race) {
            Some(Outcome::Ran) => self.facts.winners.get(&race).is_none_or(|winner| *winner != name(node)),
            Some(outcome) => *outcome == Outcome::Cancelled,
            None => false,
        })
    }

    fn races_of(&self, node: usize) -> Vec<String> {
        let all = self.case.nodes.iter().flat_map(|node| std::iter::once(node).chain(&node.makes));
        let races = all.filter(|race| matches!(&race.parts, Parts::Race(members) if members.contains(&node)));
        races.map(Node::name).collect()
    }

    fn race(&mut self, node: &Node, members: &[usize], may_be_cut: bool) -> Result<Fate, String> {
        let done: Vec<usize> =
            members.iter().copied().filter(|member| self.fates[member].is_done()).collect();
        let all_skipped = members.iter().all(|member| self.fates[member].outcome == Outcome::Skipped);
        let allowed = match (done.is_empty(), all_skipped) {
            (false, _) => Outcome::Ran,
            (true, true) => Outcome::Skipped,
            (true, false) => Outcome::Failed,
        };
        let outcome = self.said(&node.name(), vec![allowed], may_be_cut)?;
        let mut seen = Seen::new();
        if outcome != Outcome::Ran {
            members.iter().for_each(|member| seen.extend(self.fates[member].handed.clone()));
            return Ok(Fate::of(outcome, seen));
        }
        let winner = self.facts.winners.get(&node.name());
        let Some(winner) = done.into_iter().find(|member| Some(&name(*member)) == winner) else {
            return Err(format!("{} was won by {winner:?}, which is no member that is done", node.name()));
        };
        let mut fate = Fate::of(outcome, self.fates[&winner].handed.clone());
        fate.value = self.fates[&winner].value.clone();
        Ok(fate)
    }

    fn repeat(
        &mut self,
        node: &Node,
        (from, max): (u32, u32),
        place: &Place,
        seen: Seen,
        (may_be_cut, unsure): (bool, bool),
    ) -> Result<Fate, String> {
        let mut family = Fate::of(Outcome::Ran, seen.clone());
        let mut before = seen;
        for index in 0..max {
            let id = format!("{}[{index}]", node.name());
            if !self.facts.outcomes.contains_key(&id) && index == 0 && may_be_cut {
                break;
            }
            let allowed = vec![play(&node.scripts[index as usize % 2], node, self.case.max_crashes)];
            let outcome = self.said(&id, allowed, may_be_cut)?;
            let mut fate = Fate::of(outcome, before.clone());
            if fate.is_done() {
                fate.value = self.value_said(
                    &id,
                    self.result(node, &fate.seen, Some(&Item { index, value: Value::Null })),
                    unsure,
                )?;
                let rank = place.rank.iter().copied().chain([1 + index]).collect();
                self.write(node, &rank, &mut fate);
            }
            before = fate.handed.clone();
            family.handed.extend(fate.handed.clone());
            family.value = fate.value.clone();
            let is_last = !fate.is_done() || is_even(&fate.value) && index >= from;
            family.items.push(Some(fate));
            if is_last {
                break;
            }
        }
        let allowed = match family.items.last().cloned().flatten() {
            Some(last) if last.is_done() && is_even(&last.value) && family.items.len() as u32 > from => {
                Outcome::Ran
            }
            Some(last) if last.outcome == Outcome::Cancelled => Outcome::Cancelled,
            Some(_) => Outcome::Failed,
            None => Outcome::Cancelled,
        };
        family.outcome = self.said(&node.name(), vec![allowed], may_be_cut)?;
        Ok(family)
    }

    fn family(
        &mut self,
        node: &Node,
        leader: Option<usize>,
        leader_blocks: Option<usize>,
        place: &Place,
        seen: Seen,
        (may_be_cut, unsure): (bool, bool),
    ) -> Result<Fate, String> {
        let values: Option<Vec<Value>> = match &node.parts {
            Parts::Range(count) => Some((0..*count).map(Value::from).collect()),
            Parts::List(items) => Some(items.iter().copied().map(Value::from).collect()),
            Parts::Over(of) => self.fates[of].value.as_array().cloned(),
            Parts::Each(leader) => {
                // Those that its leader has not come to are nobody's.
                let items = &self.fates[leader].items;
                let there = items.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
                let value =
                    |item: &Option<Fate>| item.as_ref().map_or(Value::Null, |item| item.value.clone());
                Some(items[..there].iter().map(value).collect())
            }
            _ => unreachable!("it has items"),
        };
        let Some(mut values) = values else {
            return Ok(Fate::of(self.said(&node.name(), vec![Outcome::Failed], may_be_cut)?, seen));
        };
        if let Some(chunk) = node.chunk {
            values = values.chunks(chunk as usize).map(|items| Value::from(items.to_vec())).collect();
        }
        let mut family = Fate::of(Outcome::Ran, seen.clone());
        // A family that stops has one that failed, which is seen only in what the run says.
        let item_name = |index: usize| format!("{}[{index}]", node.name());
        let has_failed = (0..values.len()).any(|index| {
            matches!(self.facts.outcomes.get(&item_name(index)), Some(Outcome::Failed | Outcome::TimedOut))
        });
        let stopped = node.policy == Some(Policy::Stop) && has_failed;
        let (mut failed, mut hindered, mut cancelled) = (false, false, false);
        for (index, value) in values.into_iter().enumerate() {
            let id = item_name(index);
            let leading = leader.map(|leader| self.fates[&leader].items[index].clone());
            if matches!(leading, Some(None)) {
                family.items.push(None);
                continue;
            }
            let may_be_missing = stopped || may_be_cut || leader_blocks.is_some();
            if !self.facts.outcomes.contains_key(&id) && may_be_missing {
                cancelled = true;
                family.items.push(None);
                continue;
            }
            let mut sees = seen.clone();
            let item = Item { index: index as u32, value };
            let mut allowed = None;
            if let (Some(leading), Some(leader)) = (leading.flatten(), leader) {
                sees.extend(leading.handed.clone());
                let goes_on = self.fates[&leader].nulls || node.after_any;
                if leading.outcome == Outcome::Skipped && !node.runs_if_skipped {
                    allowed = Some(Outcome::Skipped);
                } else if !(leading.is_done() || leading.outcome == Outcome::Skipped || goes_on) {
                    allowed = Some(Outcome::Blocked);
                }
            }
            let by_item = node.when.filter(|when| matches!(when, Cond::EvenIndex | Cond::EvenItem));
            if allowed.is_none() && by_item.is_some_and(|when| !self.holds(when, &sees, Some(&item))) {
                allowed = Some(Outcome::Skipped);
            }
            let allowed =
                allowed.unwrap_or_else(|| play(&node.scripts[index % 2], node, self.case.max_crashes));
            let outcome = self.said(&id, vec![allowed], may_be_cut || stopped)?;
            let mut fate = Fate::of(outcome, sees);
            if fate.is_done() {
                fate.value = self.value_said(&id, self.result(node, &fate.seen, Some(&item)), unsure)?;
                let rank = place.rank.iter().copied().chain([1 + item.index]).collect();
                self.write(node, &rank, &mut fate);
            }
            let fails = matches!(outcome, Outcome::Failed | Outcome::TimedOut);
            failed |= fails && node.policy != Some(Policy::Null);
            hindered |= outcome == Outcome::Blocked;
            cancelled |= outcome == Outcome::Cancelled;
            family.handed.extend(fate.handed.clone());
            family.items.push(Some(fate));
        }
        if let Some(leader) = leader {
            family.handed.extend(self.fates[&leader].handed.clone());
        }
        let allowed = if failed {
            Outcome::Failed
        } else if hindered || leader_blocks.is_some() {
            Outcome::Blocked
        } else if cancelled {
            Outcome::Cancelled
        } else {
            Outcome::Ran
        };
        let is_whole = !cancelled && !hindered && leader_blocks.is_none() && !family.items.is_empty();
        let is_cut = may_be_cut && !failed && !is_whole || self.facts.interrupted;
        family.outcome = self.said(&node.name(), vec![allowed], is_cut)?;
        family.value = family
            .items
            .iter()
            .map(|item| item.as_ref().map_or(Value::Null, |item| item.value.clone()))
            .collect();
        if !family.is_done() {
            family.value = Value::Null;
        }
        Ok(family)
    }

    /// What the op writes.
    fn write(&self, node: &Node, rank: &Rank, fate: &mut Fate) {
        if let Some(var) = node.writes {
            fate.handed.insert(rank.clone(), (var, fate.value.clone()));
        }
    }

    fn published(&self, value: Published, seen: &Seen, result: &Value) -> Value {
        match value {
            Published::Result => result.clone(),
            Published::Number(number) => Value::from(number),
            Published::Var(var) => self.var(var, seen),
        }
    }

    fn var(&self, var: usize, seen: &Seen) -> Value {
        let last = seen.iter().rev().find(|(_, (of, _))| *of == var);
        last.map_or_else(|| Value::from(100 + var), |(_, (_, value))| value.clone())
    }

    /// What a node's result is, and what an expression sees of it.
    fn value_of(&self, node: usize) -> Value {
        let fate = &self.fates[&node];
        if fate.is_done() { fate.value.clone() } else { Value::Null }
    }

    fn holds(&self, when: Cond, seen: &Seen, item: Option<&Item>) -> bool {
        match when {
            Cond::Constant(is) => (self.var(0, seen) != 0) == is,
            Cond::Even(of) => is_even(&self.value_of(of)),
            Cond::Done(of) => self.fates[&of].is_done(),
            Cond::EvenIndex => item.is_none_or(|item| is_even(&Value::from(item.index))),
            Cond::EvenItem => item.is_none_or(|item| is_even(&item.value)),
            Cond::EvenVar(var) => is_even(&self.var(var, seen)),
        }
    }

    fn result(&self, node: &Node, seen: &Seen, item: Option<&Item>) -> Value {
        let term = |term: &Term| match term {
            Term::Number(number) => Value::from(*number),
            Term::Result(of) => self.value_of(*of),
            Term::Outcome(of) => Value::from(match self.fates[of].outcome {
                Outcome::Ran | Outcome::Cached => "done",
                other => other.word(),
            }),
            Term::Var(var) => self.var(*var, seen),
            Term::Item => item.map_or(Value::Null, |item| item.value.clone()),
            Term::Index => item.map_or(Value::Null, |item| Value::from(item.index)),
        };
        let terms: Value = node.terms.iter().map(term).collect();
        let whole = node.whole.map(|of| self.value_of(of));
        let value = result_of(&made_of(&Some(Value::from(node.twin)), &Some(terms), &whole));
        match node.makes.is_empty() {
            true => value,
            false => {
                let nodes: Value = node.makes.iter().map(Node::json).collect();
                serde_json::json!({ "$nodes": nodes, "x": value })
            }
        }
    }
}

/// Where a node routes to, if it does.
fn chosen(node: &Node, result: &Value) -> Option<Vec<usize>> {
    let (even, odd) = node.route.as_ref()?;
    Some(if is_even(result) { even.clone() } else { odd.clone() })
}

fn is_even(value: &Value) -> bool {
    value.as_u64().is_some_and(|number| [0, 2, 4, 6].contains(&number))
}

/// What the attempts of a node come to.
fn play(script: &Script, node: &Node, max_crashes: u32) -> Outcome {
    let once = Retry { attempts: 1, backoff_ms: 0, on_error: true, on_timeout: true };
    let retry = node.retry.unwrap_or(once);
    let (mut tries, mut crashes) = (0, 0);
    for act in &script.acts {
        match act {
            Act::Crash => {
                crashes += 1;
                if crashes >= max_crashes {
                    return Outcome::Failed;
                }
            }
            Act::Later => {}
            Act::Error => {
                tries += 1;
                if !retry.on_error || tries >= retry.attempts {
                    return Outcome::Failed;
                }
            }
            Act::Late => {
                tries += 1;
                if !retry.on_timeout || tries >= retry.attempts {
                    return Outcome::TimedOut;
                }
            }
        }
    }
    if script.never { Outcome::Failed } else { Outcome::Ran }
}

/// Whether what failed stops the run.
fn stops(case: &Case, facts: &Facts) -> bool {
    let members: Vec<usize> = case
        .nodes
        .iter()
        .flat_map(|node| match &node.parts {
            Parts::Race(members) => members.clone(),
            _ => Vec::new(),
        })
        .collect();
    let (mut nodes, mut items) = (0, 0);
    let mut count = |node: &Node, excused: bool| {
        for (id, outcome) in &facts.outcomes {
            if !matches!(outcome, Outcome::Failed | Outcome::TimedOut) {
                continue;
            }
            if *id == node.name() && !excused {
                nodes += 1;
            }
            if id.starts_with(&format!("{}[", node.name())) && node.policy != Some(Policy::Null) && !excused {
                items += 1;
            }
        }
    };
    for node in &case.nodes {
        let excused = members.contains(&node.id);
        count(node, excused);
        let inner: Vec<usize> = node
            .makes
            .iter()
            .flat_map(|made| match &made.parts {
                Parts::Race(members) => members.clone(),
                _ => Vec::new(),
            })
            .collect();
        node.makes.iter().for_each(|made| count(made, excused || inner.contains(&made.id)));
    }
    match case.max_failures {
        Some(max) => nodes + items > max,
        None => case.stops && nodes > 0,
    }
}
