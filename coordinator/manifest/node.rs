//! What a node says beyond `id`, `op` and `needs`: checked against its op, and made into a [`Detail`].

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forkyard_shared::protocol::Reads;
use forkyard_worker::params::{Artifacts, ParamKind, ParamSpec, Signature, mask_of};
use serde_json::{Map, Value};

use super::flow::{self, ParsedFlow};
use super::problem::Fault;
use super::words::{did_you_mean, parse_duration, size};
use crate::expr::{Expression, Template, Uses};
use crate::plan::{Arg, Detail, Retry};

/// The keys that every node may have; parameters of some ops stand beside them.
const KEYS: [&str; 15] = [
    "id",
    "op",
    "needs",
    "artifact",
    "artifacts",
    "params",
    "timeout",
    "retry",
    "cache",
    "salt",
    "priority",
    "estimate",
    "memory",
    "memory_limit",
    "reads",
];

/// What was found besides the detail itself, by name: the builder knows what these names mean.
pub(super) struct Parsed {
    pub detail: Detail,
    pub artifacts: Vec<String>,
    /// Nodes whose results are its artifacts.
    pub artifact_results: Vec<String>,
    /// Parameters (by place in `detail.params`) that are results of nodes of these ids.
    pub results: Vec<(usize, String)>,
    /// What expressions in its parameters name.
    pub uses: Uses,
    pub flow: Option<Box<ParsedFlow>>,
}

/// Checks the fields of one node.
pub(super) fn parse(
    op: &str,
    signature: Signature,
    fields: Map<String, Value>,
    dir: &Path,
) -> Result<Parsed, Fault> {
    let mut parsed = Parsed {
        detail: Detail {
            params: Vec::new(),
            artifacts: Vec::new(),
            artifact_results: Vec::new(),
            timeout: None,
            retry: Retry::default(),
            cache: true,
            salt: None,
            priority: 0,
            estimate: None,
            memory: None,
            memory_limit: None,
            dir: dir.into(),
            state: Reads::Nothing,
            reads: Vec::new(),
            flow: None,
            call: None,
            program: None,
        },
        artifacts: Vec::new(),
        artifact_results: Vec::new(),
        results: Vec::new(),
        uses: Uses::default(),
        flow: None,
    };
    if op == "race"
        && let Some(key) =
            fields.keys().find(|key| !["race", "publish", "priority", "estimate"].contains(&key.as_str()))
        && (KEYS.contains(&key.as_str()) || flow::KEYS.contains(&key.as_str()))
    {
        return Err(Fault::at(key, format!("a race has no `{key}`: say it of its members")));
    }
    for (key, value) in fields {
        parsed.field(op, signature, &key, value)?;
    }
    if signature.calls_python() && parsed.flow.as_ref().is_some_and(|flow| flow.has_items()) {
        // Its function may look at the item, whatever its parameters are.
        let item = Template::compile(&Value::from("{{ item }}")).map_err(|fault| Fault::new(fault.why))?;
        parsed.uses.add(&item.uses());
        parsed.detail.params.push(("item".into(), Arg::Template(item)));
    }
    if let (Some(memory), Some(limit)) = (parsed.detail.memory, parsed.detail.memory_limit)
        && memory > limit
    {
        return Err(Fault::at("memory", "`memory` is more than `memory_limit`: it would always be killed"));
    }
    // By name, for look-ups in the worker and for the node key.
    parsed.sort();
    parsed.check_required(op, signature)?;
    // Most nodes say nothing of the kind, and there may be millions.
    if parsed.flow.is_some() || !parsed.uses.names.is_empty() || op == "race" {
        let flow = parsed.flow.take().unwrap_or_default();
        parsed.flow = Some(Box::new(flow.finish(op, &parsed.uses)?));
    }
    parsed.mark_each_results();
    Ok(parsed)
}

impl Parsed {
    fn field(&mut self, op: &str, signature: Signature, key: &str, value: Value) -> Result<(), Fault> {
        let beside = signature.beside;
        let wrong = |expected: &str| Fault::at(key, format!("`{key}` must be {expected}"));
        let detail = &mut self.detail;
        match key {
            "artifact" => {
                let expected = r#"the name of an artifact, or "{{ nodes.X.result }}""#;
                self.artifact(key, value.as_str().ok_or_else(|| wrong(expected))?)?;
            }
            "artifacts" => {
                let names =
                    value.as_array().and_then(|v| v.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
                for name in names.ok_or_else(|| wrong("a list of names of artifacts"))? {
                    self.artifact(key, name)?;
                }
            }
            "params" if !beside.is_empty() && signature.params.is_some() => {
                let words: Vec<_> = beside.iter().map(|spec| spec.name).collect();
                return Err(Fault::at(
                    key,
                    format!("`{op}` takes no `params`: its words stand beside `op` ({})", words.join(", ")),
                ));
            }
            "params" => {
                let Value::Object(params) = value else { return Err(wrong("a table")) };
                for (name, value) in params {
                    self.param(op, signature.params, signature.prefix(), (&name, value))
                        .map_err(|fault| fault.inside(key))?;
                }
            }
            "timeout" => detail.timeout = Some(duration(key, &value)?),
            "retry" => detail.retry = retry(&value).map_err(|fault| fault.inside(key))?,
            "cache" => detail.cache = value.as_bool().ok_or_else(|| wrong("true or false"))?,
            "salt" => {
                if !value.is_string() && !value.is_number() {
                    return Err(wrong("a string or a number"));
                }
                let salt = Template::compile(&value).map_err(|fault| Fault::at(key, fault.why))?;
                self.uses.add(&salt.uses());
                detail.salt = Some(match (salt, value) {
                    (Template::Json(_), Value::String(text)) => Arg::Json(text),
                    (Template::Json(number), _) => Arg::Json(number),
                    (salt, _) => Arg::Template(salt),
                });
            }
            "priority" => {
                let number = value.as_i64().and_then(|n| i32::try_from(n).ok());
                detail.priority = number.ok_or_else(|| wrong("a whole number"))?;
            }
            "estimate" => detail.estimate = Some(duration(key, &value)?),
            "memory" => detail.memory = Some(size(&value).map_err(|why| Fault::at(key, why))?),
            "memory_limit" => {
                let limit = size(&value).map_err(|why| Fault::at(key, why))?;
                detail.memory_limit = Some(limit).filter(|limit| *limit > 0);
            }
            _ if beside.iter().any(|spec| spec.name == key) => {
                self.param(op, Some(beside), "", (key, value))?
            }
            "reads" if !signature.state => {
                return Err(Fault::at(
                    key,
                    format!("`{op}` does not read the state; expressions do, with vars.NAME"),
                ));
            }
            "reads" => detail.state = reads(&value).ok_or_else(|| wrong("\"state\", or a list of keys"))?,
            _ if flow::KEYS.contains(&key) => self.flow.get_or_insert_default().word(key, &value)?,
            _ => {
                let known = KEYS.into_iter().chain(flow::KEYS).chain(beside.iter().map(|spec| spec.name));
                let params = signature.params.unwrap_or_default();
                let hint = if params.iter().any(|spec| spec.name == key) {
                    format!("; it is a parameter of `{op}`: write it inside `params`")
                } else {
                    did_you_mean(key, known)
                };
                return Err(Fault::at(key, format!("a node has no key `{key}`{hint}")));
            }
        }
        Ok(())
    }

    fn artifact(&mut self, key: &str, name: &str) -> Result<(), Fault> {
        match Expression::whole_result(name) {
            Some(id) => self.artifact_results.push(id),
            None if crate::expr::has_expression(name) => {
                let why = format!("`{key}` is a name, or a whole result: {{{{ nodes.X.result }}}}");
                return Err(Fault::at(key, why));
            }
            None => self.artifacts.push(name.into()),
        }
        Ok(())
    }

    fn param(
        &mut self,
        op: &str,
        specs: Option<&[ParamSpec]>,
        prefix: &str,
        (name, value): (&str, Value),
    ) -> Result<(), Fault> {
        let kind = match specs {
            None => ParamKind::Any,
            Some(specs) => {
                let spec = specs.iter().find(|spec| spec.name == name).ok_or_else(|| {
                    let hint = did_you_mean(name, specs.iter().map(|spec| spec.name));
                    Fault::at(name, format!("`{op}` has no parameter `{name}`{hint}"))
                })?;
                spec.kind
            }
        };
        let wrong = || Fault::at(name, format!("`{name}` must be {}", kind.expected()));
        if kind == ParamKind::Results {
            let Value::Object(results) = value else { return Err(wrong()) };
            for (key, value) in results {
                let text = value.as_str().ok_or_else(wrong)?;
                if is_item(text) {
                    let param = (format!("{name}.{key}"), Arg::EachResult);
                    self.detail.params.push(param);
                    self.uses.names.insert("item");
                    continue;
                }
                self.result(format!("{name}.{key}"), Expression::whole_result(text).ok_or_else(wrong)?);
            }
            return Ok(());
        }
        if let Value::String(text) = &value
            && let Some(id) = Expression::whole_result(text)
            && kind.takes_result()
        {
            self.result(format!("{prefix}{name}"), id);
            return Ok(());
        }
        if kind == ParamKind::Command {
            self.detail.program = program(&value);
        }
        let template = Template::compile(&value).map_err(|fault| {
            let way = fault.path.iter().rev();
            way.fold(Fault::new(fault.why), |fault, key| fault.inside_any(key)).inside(name)
        })?;
        let full = format!("{prefix}{name}");
        if let Template::Json(text) = template {
            kind.check(&value).map_err(|_| wrong())?;
            self.detail.params.push((full, Arg::Json(text)));
        } else if kind.is_constant() {
            let why = format!("`{name}` must be a constant: which code a node runs is known before it runs");
            return Err(Fault::at(name, why));
        } else {
            self.uses.add(&template.uses());
            self.detail.params.push((full, Arg::Template(template)));
        }
        Ok(())
    }

    /// Where items follow items, a whole item is passed by reference.
    fn mark_each_results(&mut self) {
        let follows = self.flow.as_ref().is_some_and(|flow| flow.each.is_some());
        for (_, arg) in &mut self.detail.params {
            let whole = matches!(arg, Arg::Template(template)
                if template.as_expression().is_some_and(|expression| is_item(expression.text())));
            if whole && follows {
                *arg = Arg::EachResult;
            }
        }
    }

    fn result(&mut self, name: String, id: String) {
        self.results.push((self.detail.params.len(), id));
        // The builder puts the node's number here.
        self.detail.params.push((name, Arg::Json(String::new())));
    }

    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.detail.params.len()).collect();
        order.sort_by(|a, b| self.detail.params[*a].0.cmp(&self.detail.params[*b].0));
        for (at, _) in &mut self.results {
            *at = order.iter().position(|from| from == at).expect("it is in there");
        }
        self.detail.params.sort_by(|a, b| a.0.cmp(&b.0));
    }

    fn check_required(&self, op: &str, signature: Signature) -> Result<(), Fault> {
        let given =
            |name: &str| self.detail.params.iter().find(|(given, _)| given == name).map(|(_, arg)| arg);
        for spec in signature.required() {
            if given(spec.name).is_none() {
                return Err(Fault::new(format!("`{op}` needs `{}`: {}", spec.name, spec.kind.expected())));
            }
            if spec.kind == ParamKind::Command
                && let Some(Arg::Json(text)) = given(spec.name)
                && text.starts_with('"')
                && !matches!(given("shell"), Some(Arg::Json(flag)) if flag == "true")
            {
                let message =
                    "a command is a list of strings, because no shell takes it apart; or say `shell = true`";
                return Err(Fault::at(spec.name, message));
            }
        }
        match (signature.artifacts, self.artifacts.len() + self.artifact_results.len()) {
            (Artifacts::None, 1..) => Err(Fault::new(format!("`{op}` takes no artifact"))),
            (Artifacts::One | Artifacts::OneAndNamed, 0) => {
                Err(Fault::new(format!("`{op}` needs `artifact`: the name of an artifact")))
            }
            (Artifacts::OneAndNamed, count) => self.check_named(op, count, given("filter")),
            (Artifacts::One, 2..) => Err(Fault::new(format!("`{op}` takes one artifact only"))),
            _ => Ok(()),
        }
    }

    /// Whether one of the artifacts is left when that of the filter is taken away. A filter that is worked out later is
    /// looked at then.
    fn check_named(&self, op: &str, count: usize, filter: Option<&Arg>) -> Result<(), Fault> {
        let filter = match filter {
            Some(Arg::Json(text)) => serde_json::from_str(text).unwrap_or_default(),
            Some(_) => return Ok(()),
            None => Value::Null,
        };
        match (mask_of(&filter), count) {
            (None, 1) => Ok(()),
            (None, _) => {
                Err(Fault::new(format!("`{op}` takes one artifact, and one that its `filter` names")))
            }
            (Some(name), _) if !self.names_artifact(name) => {
                let why = format!("the node does not name the artifact `{name}`: list it in `artifacts` too");
                Err(Fault::at("filter", why))
            }
            (Some(_), 2) => Ok(()),
            (Some(name), _) => {
                Err(Fault::new(format!("`{op}` takes one artifact beside `{name}`, that of its filter")))
            }
        }
    }

    fn names_artifact(&self, name: &str) -> bool {
        self.artifacts.iter().any(|known| known == name) || self.artifact_results.iter().any(|id| id == name)
    }
}

/// The program of a command: its first word; of an interpreter the script. What is computed is not known yet.
fn program(command: &Value) -> Option<Arc<str>> {
    let name =
        |word: &str| (!word.contains("{{")).then(|| word.rsplit('/').next().unwrap_or(word).to_string());
    let words: Vec<&str> = match command {
        Value::String(line) => line.split_whitespace().collect(),
        Value::Array(words) => words.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let first = name(words.first()?)?;
    let script = words[1..].iter().find(|word| !word.starts_with('-')).and_then(|word| name(word));
    let is_script = |script: &String| SCRIPTS.iter().any(|end| script.ends_with(end));
    Some(match script.filter(is_script) {
        Some(script) => format!("{first} {script}").into(),
        None => first.into(),
    })
}

/// How the names of scripts end that interpreters run.
const SCRIPTS: [&str; 7] = [".py", ".sh", ".R", ".r", ".js", ".pl", ".rb"];

/// Whether a text is an item and nothing else.
fn is_item(text: &str) -> bool {
    let inner = text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    inner.is_some_and(|inner| inner.trim() == "item")
}

fn reads(value: &Value) -> Option<Reads> {
    match value {
        Value::String(word) if word == "state" => Some(Reads::All),
        Value::Array(keys) => {
            let mut keys: Vec<String> =
                keys.iter().map(|key| key.as_str().map(String::from)).collect::<Option<_>>()?;
            keys.sort();
            keys.dedup();
            Some(if keys.is_empty() { Reads::Nothing } else { Reads::Keys(keys) })
        }
        _ => None,
    }
}

/// What a parameter of this name may be.
pub(crate) fn kind_of(signature: Signature, name: &str) -> ParamKind {
    signature.spec(name).map_or(ParamKind::Any, |spec| spec.kind)
}

fn duration(key: &str, value: &Value) -> Result<Duration, Fault> {
    let text =
        value.as_str().ok_or_else(|| Fault::at(key, format!("`{key}` must be a duration like \"30s\"")))?;
    parse_duration(text).map_err(|why| Fault::at(key, why))
}

fn retry(value: &Value) -> Result<Retry, Fault> {
    let table = value
        .as_object()
        .ok_or_else(|| Fault::new("`retry` must be a table like { attempts = 3, backoff = \"100ms\" }"))?;
    let mut retry = Retry::default();
    for (key, value) in table {
        let wrong = |expected: &str| Fault::at(key, format!("`{key}` must be {expected}"));
        match key.as_str() {
            "attempts" => {
                let count = value.as_u64().filter(|n| (1..=1_000_000).contains(n));
                retry.attempts = count.ok_or_else(|| wrong("a whole number from 1 up"))? as u32;
            }
            "backoff" => retry.backoff = duration(key, value)?,
            "jitter" => {
                let part = value.as_f64().filter(|part| (0.0..=1.0).contains(part));
                retry.jitter = part.ok_or_else(|| wrong("a number from 0 to 1"))?;
            }
            "on" => {
                let expected =
                    "a list of \"error\" and \"timeout\" (a crash of the worker is always retried)";
                (retry.on_error, retry.on_timeout) = (false, false);
                for word in value.as_array().ok_or_else(|| wrong(expected))? {
                    match word.as_str() {
                        Some("error") => retry.on_error = true,
                        Some("timeout") => retry.on_timeout = true,
                        _ => return Err(wrong(expected)),
                    }
                }
            }
            _ => {
                let hint = did_you_mean(key, ["attempts", "backoff", "jitter", "on"]);
                return Err(Fault::at(key, format!("`retry` has no key `{key}`{hint}")));
            }
        }
    }
    Ok(retry)
}
