//! The words that say whether, when and how often a node runs: conditions, fan-out, races, routes,
//! repetition. What they name is collected, and gets its meaning from the builder.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::problem::Fault;
use super::used::Used;
use super::words::{did_you_mean, parse_rate};
use crate::expr::{Expression, Template, Uses};
use crate::plan::{Fan, Flow, GroupLimits, OnItemFailure, Over, Repeat};

/// The keys that are read here.
pub(super) const KEYS: [&str; 14] = [
    "when",
    "when_skipped",
    "after",
    "foreach",
    "each",
    "chunk",
    "concurrency",
    "rate",
    "on_item_failure",
    "group",
    "publish",
    "route",
    "race",
    "repeat",
];

/// What these words said about one node, with names where the plan has numbers.
#[derive(Default)]
pub(super) struct ParsedFlow {
    pub flow: Flow,
    foreach: Option<Template>,
    /// The artifact whose rows are the items.
    pub rows: Option<String>,
    pub each: Option<String>,
    chunk: Option<u32>,
    limits: GroupLimits,
    on_item_failure: Option<OnItemFailure>,
    pub race: Vec<String>,
    pub group: Option<String>,
    /// What the expressions name that decide whether the node runs and what follows.
    pub uses: Uses,
    /// What the items are made of.
    pub items: Uses,
}

impl ParsedFlow {
    /// Reads one of [`KEYS`].
    pub fn word(&mut self, key: &str, value: &Value) -> Result<(), Fault> {
        let wrong = |expected: &str| Fault::at(key, format!("`{key}` must be {expected}"));
        let count = |most: u64| value.as_u64().filter(|n| (1..=most).contains(n)).map(|n| n as u32);
        match key {
            "when" => {
                let when = expression(key, value)?;
                names_only(key, &when, &["item", "index", "history", "last_output"])?;
                self.uses.add(when.uses());
                self.flow.when = Some(when);
            }
            "when_skipped" => {
                self.flow.runs_if_skipped = match value.as_str() {
                    Some("run") => true,
                    Some("skip") => false,
                    _ => return Err(wrong("\"skip\" or \"run\"")),
                }
            }
            "after" => {
                self.flow.terms.after_any = match value.as_str() {
                    Some("any") => true,
                    Some("success") => false,
                    _ => return Err(wrong("\"success\" or \"any\"")),
                }
            }
            "foreach"
                if value.get("list").is_some_and(Value::is_array)
                    && value.as_object().is_some_and(|v| v.len() == 1) =>
            {
                // As it is: what looks like an expression is none.
                self.foreach = Some(Template::Json(value["list"].to_string()));
            }
            "foreach" if value.is_object() => {
                let name = value.get("artifact").and_then(Value::as_str);
                let alone = value.as_object().is_some_and(|fields| fields.len() == 1);
                let name = name.filter(|_| alone);
                self.rows = Some(
                    name.ok_or_else(|| {
                        wrong("{ artifact = \"name\" } for the rows of an artifact, or { list = [...] }")
                    })?
                    .into(),
                );
            }
            "foreach" => {
                let items = template(key, value)?;
                let keeps_type = items.as_expression().is_some_and(Expression::keeps_type);
                if !matches!(value, Value::Array(_)) && !keeps_type {
                    return Err(wrong("a list, or an expression like \"{{ range(0, 100) }}\""));
                }
                let uses = items.uses();
                if let Some(name) = uses.names.iter().find(|name| !["history", "last_output"].contains(*name))
                {
                    return Err(Fault::at(key, format!("there is no `{name}` before there are items")));
                }
                self.items.add(&uses);
                self.foreach = Some(items);
            }
            "each" => self.each = Some(value.as_str().ok_or_else(|| wrong("the id of a node"))?.into()),
            "chunk" => {
                self.chunk = Some(count(1_000_000).ok_or_else(|| wrong("a whole number from 1 to 1000000"))?);
            }
            "concurrency" | "rate" => limit(&mut self.limits, key, value)?,
            "on_item_failure" => {
                self.on_item_failure = Some(match value.as_str() {
                    Some("fail") => OnItemFailure::Fail,
                    Some("null") => OnItemFailure::Null,
                    Some("stop") => OnItemFailure::Stop,
                    _ => return Err(wrong("\"fail\", \"null\" or \"stop\"")),
                });
            }
            "group" => self.group = Some(value.as_str().ok_or_else(|| wrong("the name of a group"))?.into()),
            "publish" => {
                let Value::Object(fields) = value else { return Err(wrong("a table of values")) };
                for (name, value) in fields {
                    let value = Template::compile(value)
                        .map_err(|fault| Fault::new(fault.why).inside(name).inside(key))?;
                    self.uses.add(&value.uses());
                    self.flow.publish.push((name.clone(), value));
                }
            }
            "route" => {
                let route = expression(key, value)?;
                names_only(key, &route, &["result", "history", "last_output"])?;
                self.uses.add(route.uses());
                self.flow.route = Some(route);
            }
            "race" => {
                let members = value.as_array().filter(|members| members.len() > 1);
                let ids = members.and_then(|v| v.iter().map(|id| Some(id.as_str()?.to_string())).collect());
                self.race = ids.ok_or_else(|| wrong("a list of the ids of two nodes or more"))?;
                let twice = self.race.iter().enumerate().find(|(at, id)| self.race[..*at].contains(id));
                if let Some((at, id)) = twice {
                    return Err(Fault::new(format!("`race` names `{id}` twice")).in_item(at).inside(key));
                }
            }
            "repeat" => {
                let Value::Object(fields) = value else {
                    return Err(wrong("a table like { until = \"{{ result.ok }}\", max = 10 }"));
                };
                let repeat = repeat(fields).map_err(|fault| fault.inside(key))?;
                self.uses.add(repeat.until.uses());
                self.flow.repeat = Some(repeat);
            }
            _ => unreachable!("BUG: {key} is none of these words"),
        }
        Ok(())
    }

    /// All that was said, checked against itself. `names` are those that parameters use.
    pub fn finish(mut self, op: &str, parameters: &Uses) -> Result<ParsedFlow, Fault> {
        match (op == "race", self.race.is_empty()) {
            (true, true) => return Err(Fault::new("a race needs `race`: a list of the ids of its members")),
            (false, false) => {
                return Err(Fault::at(
                    "race",
                    format!("a race is decided by its members and has no op `{op}`"),
                ));
            }
            _ => {}
        }
        let has_list = self.foreach.is_some() || self.rows.is_some();
        let has_items = self.has_items();
        if has_list && self.each.is_some() {
            return Err(Fault::at("each", "a node has `foreach` or `each`, not both"));
        }
        let has_parts = has_items || self.flow.repeat.is_some();
        if self.flow.repeat.is_some() && has_items {
            return Err(Fault::at("repeat", "a node has items or iterations, not both"));
        }
        let stray = [
            ("chunk", self.chunk.is_some() && !has_list, "`foreach`"),
            ("on_item_failure", self.on_item_failure.is_some() && !has_items, "`foreach` or `each`"),
            ("concurrency", self.limits.concurrency.is_some() && !has_items, "`foreach` or `each`"),
            ("rate", self.limits.rate.is_some() && !has_items, "`foreach` or `each`"),
        ];
        if let Some((key, _, needed)) = stray.iter().find(|(_, is_stray, _)| *is_stray) {
            let is_limit = ["concurrency", "rate"].contains(key);
            let next = if is_limit { "; for a limit across nodes there is `group`" } else { "" };
            let why = format!("`{key}` goes with {needed}{next}");
            return Err(Fault::at(key, why));
        }
        if self.flow.route.is_some() && has_parts {
            return Err(Fault::at("route", "a node with items or iterations does not route"));
        }
        let names = parameters.names.iter().chain(&self.uses.names);
        for name in names {
            let missing = match *name {
                "item" if !has_items => "`item` goes with `foreach` or `each`",
                "index" if !has_items && self.flow.repeat.is_none() => {
                    "`index` goes with `foreach`, `each` or `repeat`"
                }
                "result" if parameters.names.contains("result") => {
                    "`result` is what this node returns: it is known in `publish`, `route` and `repeat` only"
                }
                _ => continue,
            };
            return Err(Fault::using(Used::Word(name), missing));
        }
        let over = match (self.foreach.take(), &self.each) {
            (Some(items), _) => Some(Over::Items(items)),
            // The builder puts the node's number here.
            (None, Some(_)) => Some(Over::Each(forkyard_shared::ids::NodeId(0))),
            (None, None) => self.rows.as_ref().map(|_| Over::Rows(forkyard_shared::ids::ArtifactId(0))),
        };
        self.flow.fan = over.map(|over| Fan {
            over,
            chunk: self.chunk,
            limits: self.limits,
            on_item_failure: self.on_item_failure.unwrap_or_default(),
            reads_item: parameters.names.contains("item"),
        });
        Ok(self)
    }

    /// Whether the node consists of items.
    pub fn has_items(&self) -> bool {
        self.foreach.is_some() || self.rows.is_some() || self.each.is_some()
    }

    /// Whether anything was said.
    pub fn says_nothing(&self) -> bool {
        let flow = &self.flow;
        flow.when.is_none()
            && !flow.runs_if_skipped
            && !flow.terms.after_any
            && flow.fan.is_none()
            && flow.route.is_none()
            && self.race.is_empty()
            && flow.repeat.is_none()
            && flow.publish.is_empty()
            && self.group.is_none()
            && self.uses.outcomes.is_empty()
    }
}

/// What a table of `[groups]` says.
pub(super) fn group(table: &Value) -> Result<GroupLimits, Fault> {
    let mut limits = GroupLimits::default();
    let table = table.as_object().ok_or_else(|| Fault::new("a group is a table like { concurrency = 4 }"))?;
    for (key, value) in table {
        if !["concurrency", "rate"].contains(&key.as_str()) {
            let hint = did_you_mean(key, ["concurrency", "rate"]);
            return Err(Fault::at(key, format!("a group has no key `{key}`{hint}")));
        }
        limit(&mut limits, key, value)?;
    }
    Ok(limits)
}

fn limit(limits: &mut GroupLimits, key: &str, value: &Value) -> Result<(), Fault> {
    if key == "concurrency" {
        let count = value.as_u64().filter(|n| (1..=1_000_000).contains(n));
        let expected = || Fault::at(key, "`concurrency` must be a whole number from 1 to 1000000");
        limits.concurrency = Some(count.ok_or_else(expected)? as u32);
    } else {
        let text = value.as_str().map_or_else(|| value.to_string(), String::from);
        limits.rate = Some(parse_rate(&text).map_err(|why| Fault::at(key, why))?);
    }
    Ok(())
}

fn repeat(fields: &Map<String, Value>) -> Result<Repeat, Fault> {
    let (mut until, mut max) = (None, None);
    for (key, value) in fields {
        match key.as_str() {
            "until" => {
                let expression = expression(key, value)?;
                names_only(key, &expression, &["result", "index", "history", "last_output"])?;
                until = Some(expression);
            }
            "max" => {
                let count = value.as_u64().filter(|n| (1..=1_000_000).contains(n));
                let expected = || Fault::at(key, "`max` must be a whole number from 1 to 1000000");
                max = Some(count.ok_or_else(expected)? as u32);
            }
            _ => {
                let hint = did_you_mean(key, ["until", "max"]);
                return Err(Fault::at(key, format!("`repeat` has no key `{key}`{hint}")));
            }
        }
    }
    match (until, max) {
        (Some(until), Some(max)) => Ok(Repeat { until, max }),
        _ => Err(Fault::new("`repeat` needs `until`, an expression, and `max`, a number of iterations")),
    }
}

/// A value that is an expression.
fn expression(key: &str, value: &Value) -> Result<Arc<Expression>, Fault> {
    let example = match key {
        "route" => "'a' if result > 3 else 'b'",
        "until" => "result > 3",
        _ => "vars.k > 3",
    };
    let wrong = || Fault::at(key, format!("`{key}` must be an expression like \"{{{{ {example} }}}}\""));
    let text = value.as_str().filter(|text| crate::expr::has_expression(text)).ok_or_else(wrong)?;
    let expression = Expression::compile(text).map_err(|why| Fault::at(key, why))?;
    if !expression.keeps_type() {
        let why =
            format!("`{text}`: write the whole of `{key}` inside one pair of braces, {{{{ like this }}}}");
        return Err(Fault::at(key, why));
    }
    Ok(expression)
}

fn template(key: &str, value: &Value) -> Result<Template, Fault> {
    Template::compile(value).map_err(|fault| Fault::at(key, fault.why))
}

fn names_only(key: &str, expression: &Expression, known: &[&str]) -> Result<(), Fault> {
    match expression.uses().names.iter().find(|name| !known.contains(*name)) {
        None => Ok(()),
        Some(name) => {
            let (text, known) = (expression.text(), known.join(", "));
            let why = format!("`{text}`: there is no `{name}` in `{key}`; it knows vars, nodes, {known}");
            Err(Fault::at(key, why))
        }
    }
}
