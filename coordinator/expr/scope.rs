//! What an expression sees. Values come in as JSON text; only what the expression names needs to be there.

use std::collections::BTreeMap;

use minijinja::Value;

/// The names of one evaluation.
#[derive(Default)]
pub(crate) struct Scope {
    names: BTreeMap<&'static str, Value>,
    vars: BTreeMap<String, Value>,
    nodes: BTreeMap<String, BTreeMap<&'static str, Value>>,
}

impl Scope {
    /// A name: `item`, `index`, `result`, `history`, `last_output`.
    ///
    /// # Errors
    /// When `json` is none.
    pub fn set(&mut self, name: &'static str, json: &[u8]) -> Result<(), String> {
        self.names.insert(name, value(json)?);
        Ok(())
    }

    /// The position of an item or iteration.
    pub fn index(&mut self, index: u32) {
        self.names.insert("index", index.into());
    }

    /// `vars.name`.
    ///
    /// # Errors
    /// When `json` is none.
    pub fn var(&mut self, name: &str, json: &[u8]) -> Result<(), String> {
        self.vars.insert(name.into(), value(json)?);
        Ok(())
    }

    /// `nodes.id.result`.
    ///
    /// # Errors
    /// When `json` is none.
    pub fn result(&mut self, id: &str, json: &[u8]) -> Result<(), String> {
        self.nodes.entry(id.into()).or_default().insert("result", value(json)?);
        Ok(())
    }

    /// `nodes.id.outcome`.
    pub fn outcome(&mut self, id: &str, outcome: &str) {
        self.nodes.entry(id.into()).or_default().insert("outcome", outcome.into());
    }

    /// All names; those of quoted ids under the names that stand for them.
    pub(super) fn root(&self, ids: &[String]) -> Value {
        let mut root: BTreeMap<String, Value> =
            self.names.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        let mut nodes: BTreeMap<String, Value> = BTreeMap::new();
        for (id, fields) in &self.nodes {
            let fields: BTreeMap<String, Value> =
                fields.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
            let fields = Value::from(fields);
            for (alias, _) in ids.iter().enumerate().filter(|(_, known)| *known == id) {
                nodes.insert(format!("id__{alias}"), fields.clone());
            }
            nodes.insert(id.clone(), fields);
        }
        root.insert("nodes".into(), nodes.into());
        root.insert("vars".into(), self.vars.clone().into());
        Value::from(root)
    }
}

fn value(json: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(json).map_err(|error| format!("this is not JSON: {error}"))
}
