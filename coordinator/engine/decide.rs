//! What becomes of a node all of whose needs are settled: whether it is skipped, looked up, or consists of items.

use forkyard_shared::ids::NodeId;

use super::core::Engine;
use super::evaluate::Unknown;
use super::family::Source;
use crate::plan::{Flow, Over};
use crate::schedule::State;
use crate::store::Outcome;

/// What is to be done with a node.
pub(super) enum Decision {
    /// It has a key: its result may be in the store.
    LookUp,
    /// It is not run, by its own rules.
    Skip(String),
    /// It is a race that is about to be decided.
    Wait,
    /// Its items or iterations are.
    Open(Source),
}

impl Engine<'_> {
    pub(super) fn decide(&mut self, node: NodeId) -> Result<Decision, Unknown> {
        let declared = self.nodes.declared(node);
        let flow = self.nodes.flow(declared);
        if let Some(why) = self.left_out(declared, flow) {
            return Ok(Decision::Skip(why));
        }
        let Some(flow) = flow else {
            self.resolve(node)?;
            return Ok(Decision::LookUp);
        };
        let is_item = self.nodes.item(node).is_some();
        if let Some(when) = &flow.when
            && (is_item || !when.uses().names.contains("item") && !when.uses().names.contains("index"))
            && (!is_item || when.uses().names.contains("item") || when.uses().names.contains("index"))
        {
            let scope = self.scope(node, when.uses())?;
            if !when.is_true(&scope)? {
                return Ok(Decision::Skip(format!("its condition is false: {}", when.text())));
            }
        }
        if !flow.race.is_empty() {
            if self.state.decidable.iter().any(|(race, _)| *race == node) {
                return Ok(Decision::Wait);
            }
            if self.all_skipped(&flow.race) {
                return Ok(Decision::Skip("all its members were skipped".into()));
            }
            return Err(Unknown::Wrong(self.losses(&flow.race)));
        }
        if !is_item {
            if flow.repeat.is_some() {
                return Ok(Decision::Open(Source::Repeat));
            }
            if let Some(fan) = &flow.fan {
                return Ok(Decision::Open(match &fan.over {
                    Over::Each(leader) => self.follow(*leader),
                    Over::Rows(artifact) => {
                        let open = &self.artifacts[artifact.index()];
                        let rows = open.rows().and_then(|rows| u32::try_from(rows).ok());
                        let rows = rows.ok_or_else(|| {
                            let name = &open.entry.name;
                            format!(
                                "`foreach` goes over the rows of {name}, and it has none: it is {}",
                                open.describe()
                            )
                        })?;
                        Source::Rows(*artifact, rows, fan.chunk)
                    }
                    Over::Items(items) => {
                        let scope = self.scope(node, &items.uses())?;
                        let items = match items.as_expression() {
                            Some(expression) => expression.items(&scope)?,
                            None => crate::expr::Items::of_list(items.json(&scope)?)?,
                        };
                        Source::Items(items, fan.chunk)
                    }
                }));
            }
        }
        self.resolve(node)?;
        Ok(Decision::LookUp)
    }

    /// Why a node is skipped because of one that it needs.
    fn left_out(&self, node: NodeId, flow: Option<&Flow>) -> Option<String> {
        let is_race = flow.is_some_and(|flow| !flow.race.is_empty());
        // A member that routes elsewhere has succeeded all the same, and may have won.
        if self.scheduler.was_not_chosen(node) && !is_race {
            return Some("the route of a node that it needs goes elsewhere".into());
        }
        let runs = flow.is_some_and(|flow| flow.runs_if_skipped) || is_race;
        if runs || !self.scheduler.need_was_skipped(node) {
            return None;
        }
        let skipped = |need: &NodeId| self.scheduler.state(*need) == State::Settled(Outcome::Skipped);
        let need = self.nodes.needs(node).find(skipped)?;
        Some(format!("node {}, which it needs, was skipped", self.nodes.name(need)))
    }

    /// The node is not run, by its own rules.
    pub(super) fn skip(&mut self, node: NodeId, why: &str) {
        self.watch_none(node, &format!("it is skipped: {why}"));
        self.scheduler.done(node, Outcome::Skipped);
        self.tell(node, Outcome::Skipped, None, None, Some(why));
        self.after(node, Outcome::Skipped, Some(why));
    }

    /// Marks the nodes that a finished one does not route to.
    pub(super) fn route(&mut self, node: NodeId) -> Result<(), Unknown> {
        if self.nodes.item(node).is_some() {
            return Ok(());
        }
        let Some(route) = self.nodes.flow(node).and_then(|flow| flow.route.as_ref()) else { return Ok(()) };
        let mut scope = self.scope(node, route.uses())?;
        if route.uses().names.contains("result") {
            let json = self.own_result(node)?;
            scope.set("result", &json)?;
        }
        let json = route.json(&scope)?;
        let chosen: Vec<String> = match serde_json::from_str(&json).map_err(|error| error.to_string())? {
            serde_json::Value::Null => Vec::new(),
            serde_json::Value::String(id) => vec![id],
            list => serde_json::from_value(list).map_err(|_| {
                format!("`{}`: a route is an id, a list of ids or null, not {json}", route.text())
            })?,
        };
        let users: Vec<NodeId> = self.nodes.users(node).collect();
        for id in &chosen {
            let user = self.nodes.find(id);
            if user.is_none_or(|user| !users.contains(&user)) {
                let known: Vec<_> = users.iter().map(|user| self.nodes.name(*user)).collect();
                let name = self.nodes.name(node);
                return Err(Unknown::Wrong(format!(
                    "`{}`: {id} is no node that needs {name}; those are {}",
                    route.text(),
                    known.join(", ")
                )));
            }
        }
        for user in users {
            if !chosen.iter().any(|id| *id == self.nodes.name(user)) {
                self.scheduler.do_not_choose(user);
            }
        }
        Ok(())
    }

    /// The result of a node that has just finished.
    pub(super) fn own_result(&mut self, node: NodeId) -> Result<Vec<u8>, Unknown> {
        match self.state.results.contains_key(&node) {
            true => {
                // It is not settled yet, but here it is done.
                let (kind, bytes) = self.result_bytes(node)?;
                self.as_json(node, kind, bytes)
            }
            false => Err(Unknown::Wrong("BUG: a result that nobody kept".into())),
        }
    }
}
