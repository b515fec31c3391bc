//! What a node says beyond `id`, `op` and `needs`: checked against its op, and made into a [`Detail`].

use std::path::Path;
use std::time::Duration;

use forkyard_worker::params::{Artifacts, ParamKind, ParamSpec, Signature};
use serde_json::{Map, Value};

use super::problem::Fault;
use super::words::{did_you_mean, parse_duration};
use crate::plan::{Arg, Detail, Retry};

/// The keys that every node may have; parameters of some ops stand beside them.
const KEYS: [&str; 12] = [
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
];

/// What was found besides the detail itself, by name: the builder knows what these names mean.
pub(super) struct Parsed {
    pub detail: Detail,
    pub artifacts: Vec<String>,
    /// Nodes whose results are its artifacts.
    pub artifact_results: Vec<String>,
    /// Parameters (by place in `detail.params`) that are results of nodes of these ids.
    pub results: Vec<(usize, String)>,
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
            dir: dir.into(),
        },
        artifacts: Vec::new(),
        artifact_results: Vec::new(),
        results: Vec::new(),
    };
    let beside = if signature.beside { signature.params.unwrap_or_default() } else { &[] };
    for (key, value) in fields {
        parsed.field(op, signature, beside, &key, value)?;
    }
    // By name, for look-ups in the worker and for the node key.
    parsed.sort();
    parsed.check_required(op, signature)?;
    Ok(parsed)
}

impl Parsed {
    fn field(
        &mut self,
        op: &str,
        signature: Signature,
        beside: &[ParamSpec],
        key: &str,
        value: Value,
    ) -> Result<(), Fault> {
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
            "params" if signature.beside => {
                let words: Vec<_> = beside.iter().map(|spec| spec.name).collect();
                return Err(Fault::at(
                    key,
                    format!("`{op}` takes no `params`: its words stand beside `op` ({})", words.join(", ")),
                ));
            }
            "params" => {
                let Value::Object(params) = value else { return Err(wrong("a table")) };
                for (name, value) in params {
                    self.param(op, signature.params, &name, value).map_err(|fault| fault.inside(key))?;
                }
            }
            "timeout" => detail.timeout = Some(duration(key, &value)?),
            "retry" => detail.retry = retry(&value).map_err(|fault| fault.inside(key))?,
            "cache" => detail.cache = value.as_bool().ok_or_else(|| wrong("true or false"))?,
            "salt" => {
                detail.salt = match value {
                    Value::String(text) if !text.contains("{{") => Some(text),
                    Value::Number(number) => Some(number.to_string()),
                    _ => return Err(wrong("a string or a number")),
                }
            }
            "priority" => {
                let number = value.as_i64().and_then(|n| i32::try_from(n).ok());
                detail.priority = number.ok_or_else(|| wrong("a whole number"))?;
            }
            "estimate" => detail.estimate = Some(duration(key, &value)?.as_secs_f32()),
            _ if beside.iter().any(|spec| spec.name == key) => {
                self.param(op, signature.params, key, value)?
            }
            _ => {
                let known = KEYS.into_iter().chain(beside.iter().map(|spec| spec.name));
                let params = signature.params.filter(|_| !signature.beside).unwrap_or_default();
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
        match result_of(name).map_err(|why| Fault::at(key, why))? {
            Some(id) => self.artifact_results.push(id),
            None => self.artifacts.push(name.into()),
        }
        Ok(())
    }

    fn param(
        &mut self,
        op: &str,
        specs: Option<&[ParamSpec]>,
        name: &str,
        value: Value,
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
                let id = value.as_str().and_then(|text| result_of(text).transpose()).ok_or_else(wrong)?;
                let id = id.map_err(|why| Fault::at(&key, why).inside(name))?;
                self.result(format!("{name}.{key}"), id);
            }
            return Ok(());
        }
        if let Value::String(text) = &value
            && let Some(id) = result_of(text).map_err(|why| Fault::at(name, why))?
        {
            if !kind.takes_result() {
                return Err(Fault::at(
                    name,
                    format!("`{name}` cannot be another node's result: it must be {}", kind.expected()),
                ));
            }
            self.result(name.into(), id);
            return Ok(());
        }
        refuse_expressions(&value).map_err(|fault| fault.inside(name))?;
        kind.check(&value).map_err(|_| wrong())?;
        self.detail.params.push((name.into(), Arg::Json(value.to_string())));
        Ok(())
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
        for spec in signature.params.unwrap_or_default() {
            if spec.required && given(spec.name).is_none() {
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
            (Artifacts::One, 0) => {
                Err(Fault::new(format!("`{op}` needs `artifact`: the name of an artifact")))
            }
            (Artifacts::One, 2..) => Err(Fault::new(format!("`{op}` takes one artifact only"))),
            _ => Ok(()),
        }
    }
}

/// The id in `{{ nodes.ID.result }}`, `None` for text without an expression.
fn result_of(text: &str) -> Result<Option<String>, String> {
    if !text.contains("{{") && !text.contains("{%") {
        return Ok(None);
    }
    let inner = text.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
    let id = inner.and_then(|inner| inner.trim().strip_prefix("nodes.")?.strip_suffix(".result"));
    match id {
        Some(id) if !id.is_empty() && !id.contains(['{', '}', ' ', '|', '(']) => Ok(Some(id.into())),
        _ => Err(format!(
            "`{text}`: the only expression so far is a whole parameter that reads {{{{ nodes.X.result }}}}"
        )),
    }
}

fn refuse_expressions(value: &Value) -> Result<(), Fault> {
    match value {
        Value::String(text) => match result_of(text) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(Fault::new("a result can only be a whole parameter, not a part of one")),
            Err(why) => Err(Fault::new(why)),
        },
        Value::Array(items) => {
            items.iter().enumerate().try_for_each(|(i, v)| refuse_expressions(v).map_err(|f| f.in_item(i)))
        }
        Value::Object(fields) => {
            fields.iter().try_for_each(|(key, v)| refuse_expressions(v).map_err(|f| f.inside(key)))
        }
        _ => Ok(()),
    }
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
                let hint = did_you_mean(key, ["attempts", "backoff", "on"]);
                return Err(Fault::at(key, format!("`retry` has no key `{key}`{hint}")));
            }
        }
    }
    Ok(retry)
}
