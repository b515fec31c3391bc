//! A context as a file: `{"v": 1, "vars": {...}}`, which `context export` writes and `run --context` reads.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Variables with their JSON texts, by name.
pub(crate) type Vars = Vec<(String, Vec<u8>)>;

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    v: u32,
    vars: BTreeMap<String, Box<RawValue>>,
}

/// The text of a context; values are JSON.
///
/// # Errors
/// When a value is no JSON.
pub(crate) fn write(vars: &[(String, Vec<u8>)]) -> Result<Vec<u8>, String> {
    let var = |(name, json): &(String, Vec<u8>)| {
        let text = String::from_utf8(json.clone()).map_err(|error| format!("variable {name}: {error}"))?;
        let json = RawValue::from_string(text).map_err(|error| format!("variable {name}: {error}"))?;
        Ok((name.clone(), json))
    };
    let file = File { v: VERSION, vars: vars.iter().map(var).collect::<Result<_, String>>()? };
    let mut text = serde_json::to_vec(&file).map_err(|error| error.to_string())?;
    text.push(b'\n');
    Ok(text)
}

/// The variables of a context, as canonical JSON by name.
///
/// # Errors
/// What is wrong with the file, and its name.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let wrong = |why: String| {
        format!("--context {}: {why}; `forkyard context export` writes such a file", path.display())
    };
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let file: File = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if file.v != VERSION {
        return Err(wrong(format!("it has version {}, and this forkyard reads version {VERSION}", file.v)));
    }
    let canonical = |(name, json): (String, Box<RawValue>)| {
        let value: serde_json::Value =
            serde_json::from_str(json.get()).map_err(|error| wrong(error.to_string()))?;
        Ok((name, value.to_string()))
    };
    file.vars.into_iter().map(canonical).collect()
}
