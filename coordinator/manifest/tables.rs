//! Manifests for people: TOML.

use serde_json::{Map, Value};
use toml::de::{DeTable, DeValue};

use super::build::Builder;
use super::problem::{Fault, Step};
use super::settings::ArtifactEntry;
use super::source::Source;
use super::words::did_you_mean;
use crate::names::NameHash;

/// Reads all of a TOML manifest into the builder.
pub(super) fn read(source: &Source, builder: &mut Builder) {
    let root = match DeTable::parse(&source.text) {
        Ok(root) => root,
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            return builder.problem(source.problem_at(offset, error.message().replace('\n', ", ")));
        }
    };
    let root = match json_table(root.get_ref()) {
        Ok(root) => root,
        Err(fault) => return builder.problem(source.toml_problem(&[], fault)),
    };
    for (key, value) in root {
        let prefix = [Step::Key(key.clone())];
        let fault = |fault| source.toml_problem(&prefix, fault);
        match (key.as_str(), value) {
            ("run", Value::Object(table)) => {
                if let Err(wrong) = builder.settings(&table) {
                    builder.problem(fault(wrong));
                }
            }
            ("artifacts", Value::Object(table)) => {
                for (name, entry) in table {
                    let entry = ArtifactEntry::read(&name, &entry, builder.dir());
                    if let Err(wrong) = entry.and_then(|entry| builder.artifact(entry)) {
                        builder.problem(fault(wrong.inside(&name)));
                    }
                }
            }
            ("vars", Value::Object(table)) => {
                if let Err(wrong) = builder.vars(table) {
                    builder.problem(fault(wrong));
                }
            }
            ("groups", Value::Object(table)) => {
                if let Err(wrong) = builder.groups(&table) {
                    builder.problem(fault(wrong));
                }
            }
            ("python", Value::Object(table)) => {
                if let Err(wrong) = builder.python(&table) {
                    builder.problem(fault(wrong));
                }
            }
            ("alerts", Value::Object(table)) => {
                if let Err(wrong) = builder.alerts(&table) {
                    builder.problem(fault(wrong));
                }
            }
            ("secrets", Value::Object(table)) => {
                if let Err(wrong) = builder.secrets(&table) {
                    builder.problem(fault(wrong));
                }
            }
            ("node", Value::Array(nodes)) => read_nodes(source, nodes, builder),
            ("run" | "artifacts" | "vars" | "groups" | "python" | "alerts" | "secrets", _) => {
                builder.problem(fault(Fault::new(format!("`{key}` must be a table"))))
            }
            ("node", _) => builder.problem(fault(Fault::new("nodes are written as [[node]] tables"))),
            _ => {
                let hint = did_you_mean(
                    &key,
                    ["run", "artifacts", "vars", "groups", "python", "alerts", "secrets", "node"],
                );
                builder.problem(fault(Fault::new(format!("a manifest has no key `{key}`{hint}"))));
            }
        }
    }
}

fn read_nodes(source: &Source, nodes: Vec<Value>, builder: &mut Builder) {
    for (index, node) in nodes.into_iter().enumerate() {
        let result = match node {
            Value::Object(fields) => read_node(fields, index, builder),
            _ => Err(Fault::new("a node must be a table")),
        };
        if let Err(wrong) = result {
            builder.problem(source.node_problem(index, wrong));
        }
    }
}

fn read_node(mut fields: Map<String, Value>, index: usize, builder: &mut Builder) -> Result<(), Fault> {
    let races = fields.contains_key("race");
    let mut text = |key: &str| match fields.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Fault::at(key, format!("`{key}` must be a string"))),
        None if key == "op" && races => Ok("race".into()),
        None => Err(Fault::new(format!("a node needs `{key}`, a string"))),
    };
    let (id, op) = (text("id")?, text("op")?);
    let wrong = || Fault::at("needs", "`needs` must be a list of node ids");
    let needs = match fields.remove("needs") {
        None => Vec::new(),
        Some(Value::Array(needs)) => needs
            .into_iter()
            .map(|need| match need {
                Value::String(id) => Ok(id),
                _ => Err(wrong()),
            })
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(wrong()),
    };
    let hasher = builder.hasher();
    let hashed = |id| (id, NameHash::of(id, &hasher));
    builder.node(hashed(&id), &op, needs.iter().map(|need| hashed(need)), fields, index)
}

/// A table as JSON.
///
/// # Errors
/// When a number is none of JSON.
pub(super) fn json_table(table: &DeTable) -> Result<Map<String, Value>, Fault> {
    let pairs = table.iter().map(|(key, value)| {
        let key = key.get_ref().to_string();
        let value = json_value(value.get_ref()).map_err(|fault| fault.inside(&key))?;
        Ok((key, value))
    });
    pairs.collect()
}

fn json_value(value: &DeValue) -> Result<Value, Fault> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            parsed.map_err(|_| Fault::new("this number does not fit 64 bits"))?.into()
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().parse().ok().and_then(serde_json::Number::from_f64);
            Value::Number(parsed.ok_or_else(|| Fault::new("a number must be finite"))?)
        }
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(items) => {
            let items = items.iter().enumerate();
            items.map(|(i, v)| json_value(v.get_ref()).map_err(|f| f.in_item(i))).collect::<Result<_, _>>()?
        }
        DeValue::Table(table) => Value::Object(json_table(table)?),
    })
}
