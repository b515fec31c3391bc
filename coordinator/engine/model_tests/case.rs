//! A random manifest, and the weather in which it runs: what the generator makes, the shrinker takes apart, and the
//! reference reads.

use serde_json::{Map, Value, json};

/// Random numbers that a seed decides (SplitMix64).
#[derive(Clone)]
pub(super) struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// Once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { from.get(self.below(from.len() as u64) as usize) }
    }
}

/// A manifest and its weather.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub stops: bool,
    pub max_failures: Option<usize>,
    pub max_crashes: u32,
    pub commit_every: usize,
    pub cache_bytes: u64,
    pub groups: Vec<Limit>,
    pub nodes: Vec<Node>,
    pub weather: Weather,
}

/// Of a group, or of a node's items.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limit {
    pub concurrency: Option<u32>,
    pub rate: Option<u32>,
}

/// What happens that no manifest says.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    pub workers: usize,
    /// What all workers may hold, in MB.
    pub budget: Option<u64>,
    /// How late messages come at the most, in us.
    pub latency_us: u64,
    /// The longest that a task takes, in us.
    pub task_us: u64,
    /// Workers die of nothing.
    pub deaths: bool,
    /// A worker is refused.
    pub refusals: bool,
    pub pauses: bool,
    /// So many signals ask the run to end.
    pub signals: u64,
    /// Stored results are lost.
    pub loss: bool,
    /// The manifest is run once more, on what the first run has stored.
    pub second_run: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub id: usize,
    /// Nodes with the same have the same text, but for their ids.
    pub twin: usize,
    pub order: Vec<usize>,
    pub terms: Vec<Term>,
    /// The node whose result it takes whole.
    pub whole: Option<usize>,
    /// What its attempts come to: of even items, of odd ones.
    pub scripts: [Script; 2],
    pub parts: Parts,
    pub chunk: Option<u32>,
    pub when: Option<Cond>,
    pub runs_if_skipped: bool,
    pub after_any: bool,
    pub route: Option<(Vec<usize>, Vec<usize>)>,
    pub publish: Option<(usize, Published)>,
    /// The variable that its op sets.
    pub writes: Option<usize>,
    pub reads: Option<Reads>,
    pub retry: Option<Retry>,
    pub has_timeout: bool,
    pub uncached: bool,
    pub policy: Option<Policy>,
    pub limit: Limit,
    pub group: Option<usize>,
    pub priority: i32,
    pub memory: Option<u64>,
    pub makes: Vec<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Reads {
    All,
    Var(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub attempts: u32,
    pub backoff_ms: u64,
    pub on_error: bool,
    pub on_timeout: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Policy {
    Fail,
    Null,
    Stop,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Parts {
    #[default]
    One,
    Race(Vec<usize>),
    Range(u32),
    List(Vec<u32>),
    /// The list of another node's results.
    Over(usize),
    Each(usize),
    /// Until the result is even and the index at least this, so often at the most.
    Repeat(u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Term {
    Number(u32),
    Result(usize),
    Outcome(usize),
    Var(usize),
    Item,
    Index,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Cond {
    Constant(bool),
    Even(usize),
    Done(usize),
    EvenIndex,
    EvenItem,
    EvenVar(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Published {
    Result,
    Number(u32),
    Var(usize),
}

/// What attempts come to, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Script {
    pub acts: Vec<Act>,
    /// It fails however often it is tried.
    pub never: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Act {
    Error,
    Late,
    Crash,
    Later,
}

/// A task that is late is so after this.
pub(super) const TIMEOUT_MS: u64 = 50;

/// Variables, all of which `[vars]` sets.
pub(super) const VARS: usize = 3;

impl Parts {
    pub fn has_items(&self) -> bool {
        matches!(self, Parts::Range(_) | Parts::List(_) | Parts::Over(_) | Parts::Each(_))
    }

    pub fn is_family(&self) -> bool {
        self.has_items() || matches!(self, Parts::Repeat(..))
    }
}

impl Node {
    pub fn name(&self) -> String {
        name(self.id)
    }

    /// Nodes whose `outcome` it names.
    pub fn outcomes(&self) -> Vec<usize> {
        let terms = self.terms.iter().filter_map(|term| match term {
            Term::Outcome(node) => Some(*node),
            _ => None,
        });
        let when = self.when.iter().filter_map(|when| match when {
            Cond::Done(node) => Some(*node),
            _ => None,
        });
        terms.chain(when).collect()
    }

    /// All nodes that it needs by what it says itself, each once.
    pub fn needs(&self) -> Vec<usize> {
        let mut needs = self.order.clone();
        needs.extend(self.whole);
        needs.extend(self.outcomes());
        needs.extend(self.terms.iter().filter_map(|term| match term {
            Term::Result(node) => Some(*node),
            _ => None,
        }));
        if let Some(Cond::Even(node)) = self.when {
            needs.push(node);
        }
        match &self.parts {
            Parts::Race(members) => needs.extend(members),
            Parts::Over(node) | Parts::Each(node) => needs.push(*node),
            Parts::One | Parts::Range(_) | Parts::List(_) | Parts::Repeat(..) => {}
        }
        needs.sort_unstable();
        needs.dedup();
        needs
    }

    /// As a line of a manifest.
    pub fn json(&self) -> Value {
        let mut node = Map::new();
        let mut say = |key: &str, value: Value| drop(node.insert(key.into(), value));
        say("id", json!(self.name()));
        let result = |of: usize| format!("nodes.{}.result", name(of));
        let in_braces = |text: String| json!(format!("{{{{ {text} }}}}"));
        if let Some(when) = self.when {
            let even = |text: String| in_braces(format!("{text} in [0, 2, 4, 6]"));
            say(
                "when",
                match when {
                    Cond::Constant(is) => in_braces(format!("vars.v0 {} 0", if is { "!=" } else { "==" })),
                    Cond::Even(of) => even(result(of)),
                    Cond::Done(of) => in_braces(format!("nodes.{}.outcome == 'done'", name(of))),
                    Cond::EvenIndex => even("index".into()),
                    Cond::EvenItem => even("item".into()),
                    Cond::EvenVar(var) => even(format!("vars.v{var}")),
                },
            );
        }
        if self.after_any && !matches!(self.parts, Parts::Race(_)) {
            say("after", json!("any"));
        }
        if self.runs_if_skipped && !matches!(self.parts, Parts::Race(_)) {
            say("when_skipped", json!("run"));
        }
        if let Some((var, value)) = self.publish {
            let value = match value {
                Published::Result => in_braces("result".into()),
                Published::Number(number) => json!(number),
                Published::Var(var) => in_braces(format!("vars.v{var}")),
            };
            say("publish", json!({ format!("v{var}"): value }));
        }
        if let Parts::Race(members) = &self.parts {
            say("race", json!(members.iter().map(|member| name(*member)).collect::<Vec<_>>()));
            return Value::Object(node);
        }
        say("op", json!(if self.writes.is_some() || self.reads.is_some() { "actor" } else { "act" }));
        if !self.order.is_empty() {
            say("needs", json!(self.order.iter().map(|need| name(*need)).collect::<Vec<_>>()));
        }
        let term = |term: &Term| match term {
            Term::Number(number) => json!(number),
            Term::Result(of) => in_braces(result(*of)),
            Term::Outcome(of) => in_braces(format!("nodes.{}.outcome", name(*of))),
            Term::Var(var) => in_braces(format!("vars.v{var}")),
            Term::Item => in_braces("item".into()),
            Term::Index => in_braces("index".into()),
        };
        let mut params = json!({ "t": self.twin, "v": self.terms.iter().map(term).collect::<Vec<_>>() });
        params["s"] = json!(self.scripts.iter().map(Script::text).collect::<Vec<_>>());
        if self.parts.is_family() {
            params["p"] = in_braces("index % 2".into());
        }
        if let Some(whole) = self.whole {
            params["w"] = in_braces(result(whole));
        }
        if let Some(var) = self.writes {
            params["set"] = json!(format!("v{var}"));
        }
        if !self.makes.is_empty() {
            // As it is: what looks like an expression in it is one of the nodes that are made.
            let made = self.makes.iter().map(Node::json).collect::<Vec<_>>();
            params["make"] = json!(hex(&Value::Array(made).to_string()));
        }
        say("params", params);
        match &self.parts {
            Parts::Range(count) => say("foreach", in_braces(format!("range({count})"))),
            Parts::List(items) => say("foreach", json!(items)),
            Parts::Over(of) => say("foreach", in_braces(result(*of))),
            Parts::Each(of) => say("each", json!(name(*of))),
            Parts::Repeat(from, max) => {
                let until = in_braces(format!("result in [0, 2, 4, 6] and index >= {from}"));
                say("repeat", json!({ "until": until, "max": max }));
            }
            Parts::One | Parts::Race(_) => {}
        }
        if let Some(chunk) = self.chunk {
            say("chunk", json!(chunk));
        }
        if let Some((even, odd)) = &self.route {
            let ids = |of: &[usize]| json!(of.iter().map(|id| name(*id)).collect::<Vec<_>>()).to_string();
            let (even, odd) = (ids(even), ids(odd));
            say("route", in_braces(format!("{even} if result in [0, 2, 4, 6] else {odd}")));
        }
        match self.reads {
            Some(Reads::All) => say("reads", json!("state")),
            Some(Reads::Var(var)) => say("reads", json!([format!("v{var}")])),
            None => {}
        }
        if let Some(Retry { attempts, backoff_ms, on_error, on_timeout }) = self.retry {
            let on = [("error", on_error), ("timeout", on_timeout)];
            let on: Vec<&str> = on.iter().filter(|(_, on)| *on).map(|(word, _)| *word).collect();
            let mut retry = json!({ "attempts": attempts, "on": on });
            if backoff_ms > 0 {
                retry["backoff"] = json!(format!("{backoff_ms}ms"));
            }
            say("retry", retry);
        }
        if self.has_timeout {
            say("timeout", json!(format!("{TIMEOUT_MS}ms")));
        }
        if self.uncached {
            say("cache", json!(false));
        }
        if let Some(policy) = self.policy {
            let word = match policy {
                Policy::Fail => "fail",
                Policy::Null => "null",
                Policy::Stop => "stop",
            };
            say("on_item_failure", json!(word));
        }
        if let Some(concurrency) = self.limit.concurrency {
            say("concurrency", json!(concurrency));
        }
        if let Some(rate) = self.limit.rate {
            say("rate", json!(format!("{rate}/s")));
        }
        if let Some(group) = self.group {
            say("group", json!(format!("g{group}")));
        }
        if self.priority != 0 {
            say("priority", json!(self.priority));
        }
        if let Some(memory) = self.memory {
            say("memory", json!(format!("{memory}MB")));
        }
        Value::Object(node)
    }
}

impl Script {
    fn text(&self) -> String {
        let act = |act: &Act| match act {
            Act::Error => 'e',
            Act::Late => 't',
            Act::Crash => 'c',
            Act::Later => 'l',
        };
        self.acts.iter().map(act).chain(self.never.then_some('E')).collect()
    }
}

/// So that no template is seen in it.
fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn name(id: usize) -> String {
    format!("n{id}")
}

impl Case {
    /// As JSON Lines.
    pub fn text(&self) -> String {
        let groups: Map<String, Value> = self
            .groups
            .iter()
            .enumerate()
            .map(|(at, limit)| {
                let mut words = json!({});
                if let Some(concurrency) = limit.concurrency {
                    words["concurrency"] = json!(concurrency);
                }
                if let Some(rate) = limit.rate {
                    words["rate"] = json!(format!("{rate}/s"));
                }
                (format!("g{at}"), words)
            })
            .collect();
        let vars: Map<String, Value> = (0..VARS).map(|var| (format!("v{var}"), json!(100 + var))).collect();
        let run = json!({
            "on_failure": if self.stops { "stop" } else { "continue" },
            "max_crashes": self.max_crashes,
            "commit": { "every": self.commit_every, "within": "1h" },
            "cache_bytes": format!("{}B", self.cache_bytes),
        });
        let head = json!({ "forkyard": 1, "run": run, "vars": vars, "groups": groups });
        let lines = std::iter::once(head).chain(self.nodes.iter().map(Node::json));
        lines.map(|line| line.to_string()).collect::<Vec<_>>().join("\n")
    }
}
