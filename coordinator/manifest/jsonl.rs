//! Manifests for machines: a node a line. Read borrowed: the usual node (`id`, `op`, `needs`) costs no
//! allocation of its own.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::build::Builder;
use super::problem::Fault;
use super::settings::ArtifactEntry;
use super::source::Source;
use super::words::did_you_mean;

/// Reads all lines into the builder.
pub(super) fn read(source: &Source, builder: &mut Builder) {
    let mut start = 0;
    for (number, line) in source.text.split_inclusive('\n').enumerate() {
        let at = start;
        start += line.len();
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        let header = if number == 0 { header(line) } else { None };
        let result = if let Some(header) = header {
            read_header(&header, builder)
        } else {
            match serde_json::from_str::<Line>(line) {
                Ok(node) => builder.node(&node.id, &node.op, node.needs.iter().map(|n| &*n.0), node.rest, at),
                Err(error) => {
                    let offset = at + error.column().saturating_sub(1);
                    let message = error.to_string();
                    let message = message.split(" at line ").next().unwrap_or_default();
                    builder.problem(source.problem_at(offset, message));
                    Ok(())
                }
            }
        };
        if let Err(fault) = result {
            builder.problem(source.node_problem(at, fault));
        }
    }
}

/// The first line, if it is a header: nodes have no key `forkyard`.
fn header(line: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(line).ok().filter(|header: &Map<String, Value>| header.contains_key("forkyard"))
}

fn read_header(header: &Map<String, Value>, builder: &mut Builder) -> Result<(), Fault> {
    for (key, value) in header {
        match (key.as_str(), value) {
            ("forkyard", version) => {
                if version.as_u64() != Some(1) {
                    let message =
                        format!("this is a manifest of version {version}; this forkyard reads version 1");
                    return Err(Fault::at(key, message));
                }
            }
            ("run", Value::Object(table)) => builder.settings(table).map_err(|f| f.inside(key))?,
            ("artifacts", Value::Object(table)) => {
                for (name, entry) in table {
                    let entry = ArtifactEntry::read(name, entry, builder.dir());
                    entry.and_then(|e| builder.artifact(e)).map_err(|f| f.inside(name).inside(key))?;
                }
            }
            ("vars", Value::Object(table)) => builder.vars(table.clone()).map_err(|f| f.inside(key))?,
            ("groups", Value::Object(table)) => builder.groups(table).map_err(|f| f.inside(key))?,
            ("python", Value::Object(table)) => builder.python(table).map_err(|f| f.inside(key))?,
            ("alerts", Value::Object(table)) => builder.alerts(table).map_err(|f| f.inside(key))?,
            ("secrets", Value::Object(table)) => builder.secrets(table).map_err(|f| f.inside(key))?,
            ("run" | "artifacts" | "vars" | "groups" | "python" | "alerts" | "secrets", _) => {
                return Err(Fault::at(key, format!("`{key}` must be an object")));
            }
            _ => {
                let hint = did_you_mean(
                    key,
                    ["forkyard", "run", "artifacts", "vars", "groups", "python", "alerts", "secrets"],
                );
                return Err(Fault::at(key, format!("the first line has no key `{key}`{hint}")));
            }
        }
    }
    Ok(())
}

/// One node, as far as possible by reference into the text.
struct Line<'a> {
    id: Cow<'a, str>,
    op: Cow<'a, str>,
    needs: Vec<Name<'a>>,
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Line<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Line<'de>, D::Error> {
        struct LineVisitor;

        impl<'de> Visitor<'de> for LineVisitor {
            type Value = Line<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a node: an object with `id` and `op`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line<'de>, A::Error> {
                let (mut id, mut op, mut needs, mut rest) = (None, None, None, Map::new());
                while let Some(Name(key)) = map.next_key()? {
                    let twice = match &*key {
                        "id" => id.replace(map.next_value::<Name>()?.0).is_some(),
                        "op" => op.replace(map.next_value::<Name>()?.0).is_some(),
                        "needs" => needs.replace(map.next_value()?).is_some(),
                        _ => rest.insert(key.to_string(), map.next_value()?).is_some(),
                    };
                    if twice {
                        return Err(A::Error::custom(format!("key `{key}` stands twice")));
                    }
                }
                Ok(Line {
                    id: id.ok_or_else(|| A::Error::custom("a node needs `id`, a string"))?,
                    op: op
                        .or_else(|| rest.contains_key("race").then(|| "race".into()))
                        .ok_or_else(|| A::Error::custom("a node needs `op`, a string"))?,
                    needs: needs.unwrap_or_default(),
                    rest,
                })
            }
        }
        deserializer.deserialize_map(LineVisitor)
    }
}
