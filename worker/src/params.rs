//! What an op says of its parameters, so that a manifest is checked before anything runs.

use std::path::{Component, Path};

/// What an op takes.
#[derive(Clone, Copy, Default)]
pub struct Signature {
    /// The parameters it knows, which stand in `params`; `None`: it takes any.
    pub params: Option<&'static [ParamSpec]>,
    /// Words of its own, which stand beside `op`. An op that has some and takes any parameters gets those with
    /// `params.` before their names.
    pub beside: &'static [ParamSpec],
    /// How many artifacts it names.
    pub artifacts: Artifacts,
    /// Whether its only point is its effect on the machine: then each node is run, and the node's id
    /// is part of its key.
    pub effect: bool,
    /// Whether it reads or writes the state.
    pub state: bool,
}

impl Signature {
    /// Whether it runs a command: then the files that its command line names are part of its key.
    pub fn runs_command(&self) -> bool {
        self.beside.iter().any(|spec| spec.kind == ParamKind::Command)
    }

    /// Whether it calls a Python function: then the source of that is part of its key.
    pub fn calls_python(&self) -> bool {
        self.beside.iter().any(|spec| spec.kind == ParamKind::Call)
    }

    /// What comes before the name of a parameter that it takes.
    pub fn prefix(&self) -> &'static str {
        if self.params.is_none() && !self.beside.is_empty() { "params." } else { "" }
    }

    /// What it says of a parameter or a word of its own.
    pub fn spec(&self, name: &str) -> Option<&'static ParamSpec> {
        self.beside.iter().chain(self.params.unwrap_or_default()).find(|spec| spec.name == name)
    }

    /// Everything that a node must give.
    pub fn required(&self) -> impl Iterator<Item = &'static ParamSpec> + use<> {
        self.beside.iter().chain(self.params.unwrap_or_default()).filter(|spec| spec.required)
    }
}

/// How many artifacts an op names.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Artifacts {
    /// Any number.
    #[default]
    Any,
    /// None at all.
    None,
    /// Exactly one.
    One,
    /// One, and beside it those that its parameters name (`filter`).
    OneAndNamed,
}

/// A parameter that an op knows.
#[derive(Clone, Copy)]
pub struct ParamSpec {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub kind: ParamKind,
    /// Whether a node must give it.
    pub required: bool,
}

impl ParamSpec {
    /// A parameter that may be left out.
    pub const fn optional(name: &'static str, kind: ParamKind) -> ParamSpec {
        ParamSpec { name, kind, required: false }
    }

    /// A parameter that must be given.
    pub const fn required(name: &'static str, kind: ParamKind) -> ParamSpec {
        ParamSpec { name, kind, required: true }
    }
}

/// What a parameter may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// Any value, or another node's result.
    Any,
    /// True or false.
    Flag,
    /// A whole number from 0 up.
    Count,
    /// A number from 0 up.
    Seconds,
    /// A string.
    Text,
    /// A string or another node's result.
    Stream,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Two whole numbers: from, and up to but not with.
    Range,
    /// A list of numbers, or another node's result.
    Vector,
    /// A list of lists of numbers, or another node's result.
    Vectors,
    /// A range of rows, the name of an artifact, or a table of both.
    Filter,
    /// True, false, or one of these words.
    FlagOr(&'static [&'static str]),
    /// `text`, `json`, `bytes`, or the name of a file in a directory that is known only later.
    Output,
    /// A list of strings.
    Texts,
    /// A program and its arguments, or one line for a shell.
    Command,
    /// A table of strings.
    TextTable,
    /// A table of other nodes' results.
    Results,
    /// A list of anything.
    List,
    /// A Python function: `module:function` or `file.py:function`. A constant.
    Call,
    /// A list of Python modules or files. A constant.
    Modules,
}

impl ParamKind {
    /// Whether it must be known before anything runs.
    pub fn is_constant(self) -> bool {
        matches!(self, ParamKind::Call | ParamKind::Modules)
    }

    /// Whether another node's result may stand there.
    pub fn takes_result(self) -> bool {
        matches!(self, ParamKind::Any | ParamKind::Stream | ParamKind::Vector | ParamKind::Vectors)
    }

    /// A value worked out by an expression, made to fit: where text is wanted, numbers become text.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn fit(self, json: String) -> Result<String, String> {
        use serde_json::Value::*;
        if self == ParamKind::Any {
            return Ok(json);
        }
        let text = |value: &mut serde_json::Value| {
            if matches!(value, Number(_) | Bool(_)) {
                *value = String(value.to_string());
            }
        };
        let mut value: serde_json::Value = serde_json::from_str(&json).map_err(|error| error.to_string())?;
        match (self, &mut value) {
            (ParamKind::Text | ParamKind::Output, value) => text(value),
            (ParamKind::Stream, value) if !value.is_string() => *value = String(value.to_string()),
            (ParamKind::Texts | ParamKind::Command, Array(words)) => words.iter_mut().for_each(text),
            (ParamKind::TextTable, Object(fields)) => fields.values_mut().for_each(text),
            _ => {}
        }
        self.check(&value).map_err(|expected| format!("it must be {expected}, not {json}"))?;
        Ok(value.to_string())
    }

    /// Whether `value` fits, else what was expected.
    pub fn check(self, value: &serde_json::Value) -> Result<(), String> {
        use serde_json::Value::*;
        let text = |v: &serde_json::Value| v.is_string();
        let fits = match self {
            ParamKind::Any => true,
            ParamKind::Flag => value.is_boolean(),
            ParamKind::Count => value.is_u64(),
            ParamKind::Seconds => value.as_f64().is_some_and(|s| (0.0..=1e9).contains(&s)),
            ParamKind::Text | ParamKind::Stream => value.is_string(),
            ParamKind::Choice(words) => value.as_str().is_some_and(|w| words.contains(&w)),
            ParamKind::Range => is_range(value),
            ParamKind::Vector => is_vector(value),
            ParamKind::Vectors => matches!(value, Array(v) if v.iter().all(is_vector)),
            ParamKind::Filter => match value {
                Object(parts) => parts.iter().all(|(name, part)| match name.as_str() {
                    "rows" => is_range(part),
                    "mask" => part.is_string(),
                    _ => false,
                }),
                other => other.is_string() || is_range(other),
            },
            ParamKind::FlagOr(words) => {
                value.is_boolean() || value.as_str().is_some_and(|w| words.contains(&w))
            }
            ParamKind::Output => value.as_str().is_some_and(|name| {
                let mut parts = Path::new(name).components();
                !name.is_empty() && parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
            }),
            ParamKind::Texts | ParamKind::Modules => matches!(value, Array(v) if v.iter().all(text)),
            ParamKind::List => value.is_array(),
            ParamKind::Call => {
                value.as_str().and_then(|call| call.rsplit_once(':')).is_some_and(|(module, name)| {
                    let word = |part: &str| {
                        !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || c == '_')
                    };
                    name.split('.').all(word) && (module.ends_with(".py") || module.split('.').all(word))
                })
            }
            ParamKind::Command => match value {
                Array(words) => !words.is_empty() && words.iter().all(text),
                line => line.is_string(),
            },
            ParamKind::TextTable => matches!(value, Object(t) if t.values().all(text)),
            ParamKind::Results => false,
        };
        if fits { Ok(()) } else { Err(self.expected()) }
    }

    /// What a value of this kind looks like.
    pub fn expected(self) -> String {
        match self {
            ParamKind::Any => "any value".into(),
            ParamKind::Flag => "true or false".into(),
            ParamKind::Count => "a whole number from 0 up".into(),
            ParamKind::Seconds => "a number of seconds from 0 to 1e9".into(),
            ParamKind::Text => "a string".into(),
            ParamKind::Stream => r#"a string or "{{ nodes.X.result }}""#.into(),
            ParamKind::Choice(words) => format!("one of {}", words.join(", ")),
            ParamKind::Range => "[from, to) as two whole numbers, from <= to".into(),
            ParamKind::Vector => r#"a list of numbers or "{{ nodes.X.result }}""#.into(),
            ParamKind::Vectors => r#"a list of lists of numbers or "{{ nodes.X.result }}""#.into(),
            ParamKind::Filter => {
                "[from, to) as two whole numbers, from <= to, or the name of an artifact, or { rows = [from, to), mask = name }".into()
            }
            ParamKind::FlagOr(words) => format!("true, false, or one of {}", words.join(", ")),
            ParamKind::Output => "text, json, bytes, or the name of a file in $FORKYARD_SCRATCH".into(),
            ParamKind::Texts => "a list of strings".into(),
            ParamKind::Command => "a list of strings: the program and its arguments".into(),
            ParamKind::TextTable => "a table of strings".into(),
            ParamKind::Results => r#"a table of "{{ nodes.X.result }}""#.into(),
            ParamKind::List => "a list".into(),
            ParamKind::Call => r#"a Python function as "module:function" or "file.py:function""#.into(),
            ParamKind::Modules => "a list of Python modules or files".into(),
        }
    }
}

fn is_range(value: &serde_json::Value) -> bool {
    let ends = value.as_array().map(|ends| ends.iter().map(serde_json::Value::as_u64).collect::<Vec<_>>());
    matches!(ends.as_deref(), Some([Some(from), Some(to)]) if from <= to)
}

fn is_vector(value: &serde_json::Value) -> bool {
    value.as_array().is_some_and(|numbers| numbers.iter().all(serde_json::Value::is_number))
}

/// The artifact that a filter names.
pub fn mask_of(filter: &serde_json::Value) -> Option<&str> {
    filter.as_str().or_else(|| filter.get("mask")?.as_str())
}
