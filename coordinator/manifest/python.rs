//! Python in a manifest: `[python]` and `[secrets]`, how functions are run and what nobody else is to see, and the code
//! that nodes call.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::problem::Fault;
use super::words::did_you_mean;
use crate::code::{Finder, NotFound};
use crate::plan::{Arg, Detail};

/// How the Python of a run is started.
#[derive(Clone, Debug)]
pub(crate) struct PythonSettings {
    /// A program, or the path of one.
    pub interpreter: String,
    /// Folders in which modules are looked for.
    pub path: Vec<PathBuf>,
    /// Modules that are imported before the first fork; `None`: those that nodes call.
    pub preload: Option<Vec<String>>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// How many coroutines one process runs beside each other.
    pub concurrency: usize,
}

/// Coroutines beside each other, if the manifest does not say how many.
pub(crate) const CONCURRENCY: usize = 64;

/// More than these in one process gain nothing.
const CONCURRENCY_MAX: u64 = 1000;

impl PythonSettings {
    /// What holds where nothing is said; the manifest is in `dir`.
    pub fn new(dir: &Path) -> PythonSettings {
        PythonSettings {
            interpreter: "python3".into(),
            path: vec![dir.into()],
            preload: None,
            env: BTreeMap::new(),
            concurrency: CONCURRENCY,
        }
    }

    /// What a `[python]` table says; paths are relative to `dir`.
    pub(super) fn read(table: &Map<String, Value>, dir: &Path) -> Result<PythonSettings, Fault> {
        const KEYS: [&str; 5] = ["interpreter", "path", "preload", "env", "concurrency"];
        let mut settings = PythonSettings::new(dir);
        for (key, value) in table {
            let wrong = |expected: &str| Fault::at(key, format!("`{key}` must be {expected}"));
            match key.as_str() {
                "interpreter" => {
                    let text = value.as_str().filter(|text| !text.is_empty());
                    let text = text.ok_or_else(|| wrong("a program, like \".venv/bin/python\""))?;
                    settings.interpreter = text.into();
                    if text.contains('/') {
                        let path = dir.join(text);
                        let is_there = path.is_file();
                        settings.interpreter = path.to_string_lossy().into_owned();
                        if !is_there {
                            let next =
                                "make the environment first (python3 -m venv .venv), or name another one";
                            let why = format!("there is no {}; {next}", path.display());
                            return Err(Fault::at(key, why));
                        }
                    }
                }
                "path" => {
                    let folders = texts(value).ok_or_else(|| wrong("a list of folders"))?;
                    for (at, folder) in folders.iter().enumerate() {
                        if !dir.join(folder).is_dir() {
                            let why = format!("there is no folder {}", dir.join(folder).display());
                            return Err(Fault::new(why).in_item(at).inside(key));
                        }
                    }
                    settings.path.splice(0..0, folders.iter().map(|folder| dir.join(folder)));
                }
                "preload" => settings.preload = Some(texts(value).ok_or_else(|| wrong("a list of modules"))?),
                "env" => {
                    let table = value.as_object().map(|table| {
                        table.iter().map(|(name, value)| Some((name.clone(), value.as_str()?.into())))
                    });
                    let table = table.and_then(|pairs| pairs.collect::<Option<_>>());
                    settings.env = table.ok_or_else(|| wrong("a table of strings"))?;
                }
                "concurrency" => {
                    let count = value.as_u64().filter(|n| (1..=CONCURRENCY_MAX).contains(n));
                    let expected = format!("a whole number from 1 to {CONCURRENCY_MAX}");
                    settings.concurrency = count.ok_or_else(|| wrong(&expected))? as usize;
                }
                _ => {
                    let hint = did_you_mean(key, KEYS);
                    return Err(Fault::at(key, format!("`[python]` has no key `{key}`{hint}")));
                }
            }
        }
        Ok(settings)
    }
}

/// What a `[secrets]` table says: names of environment variables, which must be set.
pub(super) fn secrets(table: &Map<String, Value>) -> Result<Vec<String>, Fault> {
    let mut names = Vec::new();
    for (key, value) in table {
        if key != "env" {
            let hint = did_you_mean(key, ["env"]);
            return Err(Fault::at(key, format!("`[secrets]` has no key `{key}`{hint}")));
        }
        let wrong = || Fault::at(key, "`env` must be a list of names of environment variables");
        names = texts(value).ok_or_else(wrong)?;
        for (at, name) in names.iter().enumerate() {
            let why = match std::env::var_os(name) {
                Some(value) if !value.is_empty() => continue,
                Some(_) => format!("the environment variable {name} is empty"),
                None => format!("there is no environment variable {name}; set it before you run this"),
            };
            return Err(Fault::new(why).in_item(at).inside(key));
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Finds the code that a node calls.
pub(super) fn find_code(finder: &mut Finder, detail: &mut Detail) -> Result<(), Fault> {
    let constant = |name: &str| {
        let param = detail.params.iter().find(|(known, _)| known == name);
        param.and_then(|(_, arg)| if let Arg::Json(json) = arg { Some(json.as_str()) } else { None })
    };
    let call: Option<String> = constant("call").and_then(|json| serde_json::from_str(json).ok());
    let Some(call) = call else { return Ok(()) };
    let code: Option<Vec<String>> = constant("code").and_then(|json| serde_json::from_str(json).ok());
    match finder.find(&call, &code.unwrap_or_default(), &detail.dir) {
        Ok(call) => {
            detail.call = Some(call);
            Ok(())
        }
        Err(NotFound { code: None, why }) => Err(Fault::at("call", why)),
        Err(NotFound { code: Some(at), why }) => Err(Fault::new(why).in_item(at).inside("code")),
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|text| text.as_str().map(String::from)).collect()
}
