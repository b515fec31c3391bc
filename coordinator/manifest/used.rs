//! Where in a node a name is used: what it names is known before the place is, which is looked for only when
//! something is wrong with it. Knows values and expressions, not what names mean.

use serde_json::{Map, Value};

use super::problem::Step;
use crate::expr::{Expression, has_expression};

/// Something that a node names somewhere.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Used {
    /// `{{ vars.this }}`
    Var(String),
    /// `{{ item }}` and the like.
    Word(&'static str),
    /// The node of this id, in an expression or in a list of ids.
    Node(String),
    /// The artifact of this name.
    Artifact(String),
}

impl Used {
    /// The way from a node to the first value that names it.
    pub fn find(&self, node: &Map<String, Value>) -> Option<Vec<Step>> {
        node.iter().filter(|(key, _)| *key != "id" && *key != "op").find_map(|(key, value)| {
            let is_list = match self {
                Used::Node(_) => ["needs", "race", "each"].contains(&key.as_str()),
                Used::Artifact(_) => ["artifact", "artifacts"].contains(&key.as_str()),
                Used::Var(_) | Used::Word(_) => false,
            };
            let mut way = self.find_in(value, is_list)?;
            way.insert(0, Step::Key(key.clone()));
            Some(way)
        })
    }

    fn find_in(&self, value: &Value, is_list: bool) -> Option<Vec<Step>> {
        let with = |step: Step, value: &Value| {
            let mut way = self.find_in(value, is_list)?;
            way.insert(0, step);
            Some(way)
        };
        match value {
            Value::String(text) => (is_list && self.is_named(text) || self.is_in(text)).then(Vec::new),
            Value::Array(items) => {
                items.iter().enumerate().find_map(|(at, item)| with(Step::Index(at), item))
            }
            Value::Object(fields) => {
                fields.iter().find_map(|(key, field)| with(Step::Key(key.clone()), field))
            }
            _ => None,
        }
    }

    fn is_named(&self, text: &str) -> bool {
        matches!(self, Used::Node(name) | Used::Artifact(name) if name == text)
    }

    fn is_in(&self, text: &str) -> bool {
        if !has_expression(text) {
            return false;
        }
        if let (Used::Node(id), Some(whole)) = (self, Expression::whole_result(text)) {
            return *id == whole;
        }
        let Ok(expression) = Expression::compile(text) else { return false };
        let uses = expression.uses();
        match self {
            Used::Var(name) => uses.vars.contains(name),
            Used::Word(word) => uses.names.contains(word),
            Used::Node(id) => uses.results.contains(id) || uses.outcomes.contains(id),
            Used::Artifact(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_is_found_where_it_is_used() {
        let node = json!({
            "id": "b", "op": "value", "needs": ["x", "b"], "each": "c",
            "params": { "value": ["{{ vars.k }}", { "deep": "x {{ nodes.d.result.y }} {{ item }}" }, "b"] },
            "artifacts": ["m", "n"],
        });
        let node = node.as_object().unwrap();
        let way = |used: Used| {
            let steps = used.find(node)?.into_iter().map(|step| match step {
                Step::Key(key) => key,
                Step::Index(index) => index.to_string(),
            });
            Some(steps.collect::<Vec<_>>().join("."))
        };
        let node = |id: &str| way(Used::Node(id.into()));
        assert_eq!(node("b").as_deref(), Some("needs.1"));
        assert_eq!(node("c").as_deref(), Some("each"));
        assert_eq!(node("d").as_deref(), Some("params.value.1.deep"));
        assert_eq!(way(Used::Var("k".into())).as_deref(), Some("params.value.0"));
        assert_eq!(way(Used::Word("item")).as_deref(), Some("params.value.1.deep"));
        assert_eq!(way(Used::Artifact("n".into())).as_deref(), Some("artifacts.1"));
        assert_eq!(node("e"), None);
    }
}
