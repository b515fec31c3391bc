//! `[run]` and `[artifacts]`: the parts of a manifest that are not nodes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use forkyard_shared::artifact::Format;
use serde_json::{Map, Value};

use super::problem::Fault;
use super::words::{did_you_mean, parse_duration, size};
use crate::alerts::Alerts;
use crate::preset::{CACHE_BYTES, PRESETS, Preset, SHARE};
use crate::store::Layout as StoreLayout;

/// How a run behaves.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub name: Option<String>,
    /// The loss window: at most this many results, or results of this long, are not yet durable.
    pub commit_every: usize,
    pub commit_within: Duration,
    pub on_failure: OnFailure,
    /// A node that has killed this many workers is failed.
    pub max_crashes: u32,
    /// The layout of a store that is yet to be made.
    pub layout: Option<StoreLayout>,
    /// Results that later nodes read are kept in memory up to this size.
    pub cache_bytes: Option<u64>,
    pub preset: Option<&'static Preset>,
    /// A worker that holds more private memory than this between two tasks is replaced.
    pub recycle: Option<u64>,
    pub alerts: Alerts,
    pub include: Vec<String>,
    /// Nodes that may come into being while a run goes on.
    pub max_generated: usize,
    /// The most bytes that a result may have.
    pub max_result: u64,
}

/// What a failed node means for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// Start nothing new.
    Stop,
    /// Run everything that does not depend on it.
    Continue,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            name: None,
            commit_every: 4096,
            commit_within: Duration::from_millis(200),
            on_failure: OnFailure::Stop,
            max_crashes: 3,
            layout: None,
            cache_bytes: None,
            preset: None,
            recycle: None,
            alerts: Alerts::default(),
            include: Vec::new(),
            max_generated: 100_000,
            max_result: 64 << 30,
        }
    }
}

impl Settings {
    /// Results that later nodes read are kept in memory up to this size.
    pub fn cache(&self) -> u64 {
        self.cache_bytes.or(self.preset.map(|preset| preset.cache_bytes)).unwrap_or(CACHE_BYTES)
    }

    /// The layout of a store that is yet to be made, if anybody says.
    pub fn wanted_layout(&self) -> Option<StoreLayout> {
        self.layout.or(self.preset.map(|preset| preset.layout))
    }

    /// The part of what is available that a run may take.
    pub fn share(&self) -> f64 {
        self.preset.map_or(SHARE, |preset| preset.share)
    }

    /// Takes what a `[run]` table says.
    pub(super) fn read(&mut self, table: &Map<String, Value>) -> Result<(), Fault> {
        for (key, value) in table {
            let wrong = |expected: &str| Fault::at(key, format!("`{key}` must be {expected}"));
            match key.as_str() {
                "name" => self.name = Some(value.as_str().ok_or_else(|| wrong("a string"))?.into()),
                "commit" => {
                    let table = value
                        .as_object()
                        .ok_or_else(|| wrong("a table like { every = 4096, within = \"200ms\" }"))?;
                    self.read_commit(table).map_err(|fault| fault.inside(key))?;
                }
                "on_failure" => {
                    self.on_failure = match value.as_str() {
                        Some("stop") => OnFailure::Stop,
                        Some("continue") => OnFailure::Continue,
                        _ => return Err(wrong("\"stop\" or \"continue\"")),
                    }
                }
                "max_crashes" => {
                    let count = value.as_u64().filter(|n| (1..=1000).contains(n));
                    self.max_crashes = count.ok_or_else(|| wrong("a whole number from 1 to 1000"))? as u32;
                }
                "max_generated" => {
                    let count = value.as_u64().filter(|n| *n <= 10_000_000);
                    self.max_generated =
                        count.ok_or_else(|| wrong("a whole number up to 10000000"))? as usize;
                }
                "max_result" => {
                    let most = size(value).ok().filter(|most| *most >= 1 << 20);
                    self.max_result = most.ok_or_else(|| wrong("a size from \"1MiB\" on"))?;
                }
                "layout" => {
                    let layout = value.as_str().and_then(StoreLayout::from_name);
                    let known = StoreLayout::ALL.map(|layout| format!("\"{}\"", layout.name())).join(", ");
                    self.layout = Some(layout.ok_or_else(|| wrong(&format!("one of {known}")))?);
                }
                "cache_bytes" => {
                    self.cache_bytes = Some(size(value).map_err(|why| Fault::at(key, why))?);
                }
                "preset" => {
                    let preset = value.as_str().and_then(Preset::from_name);
                    let known = PRESETS.map(|preset| format!("\"{}\"", preset.name)).join(", ");
                    self.preset = Some(preset.ok_or_else(|| wrong(&format!("one of {known}")))?);
                }
                "recycle" => self.recycle = Some(size(value).map_err(|why| Fault::at(key, why))?),
                "include" => {
                    let files =
                        value.as_array().map(|v| v.iter().map(|v| v.as_str().map(String::from)).collect());
                    self.include = files.flatten().ok_or_else(|| wrong("a list of file names"))?;
                }
                _ => {
                    let known = [
                        "name",
                        "commit",
                        "on_failure",
                        "max_crashes",
                        "max_generated",
                        "max_result",
                        "layout",
                        "cache_bytes",
                        "preset",
                        "recycle",
                        "include",
                    ];
                    let hint = did_you_mean(key, known);
                    return Err(Fault::at(key, format!("`[run]` has no key `{key}`{hint}")));
                }
            }
        }
        Ok(())
    }

    fn read_commit(&mut self, table: &Map<String, Value>) -> Result<(), Fault> {
        for (key, value) in table {
            let wrong = |expected: &str| Fault::at(key, format!("`{key}` must be {expected}"));
            match key.as_str() {
                "every" => {
                    let count = value.as_u64().filter(|n| (1..=1_000_000).contains(n));
                    self.commit_every =
                        count.ok_or_else(|| wrong("a whole number from 1 to 1000000"))? as usize;
                }
                "within" => {
                    let text = value.as_str().ok_or_else(|| wrong("a duration like \"200ms\""))?;
                    self.commit_within = parse_duration(text).map_err(|why| Fault::at(key, why))?;
                }
                _ => {
                    let hint = did_you_mean(key, ["every", "within"]);
                    return Err(Fault::at(key, format!("`commit` has no key `{key}`{hint}")));
                }
            }
        }
        Ok(())
    }
}

/// One artifact as the manifest names it.
#[derive(Clone, Debug)]
pub(crate) struct ArtifactEntry {
    pub name: String,
    pub path: PathBuf,
    /// What of the file is meant, if not all of it: a tensor, a column, a list.
    pub part: Option<String>,
    pub format: Format,
    pub pin: bool,
    /// The field of a record that is its key.
    pub key: String,
}

impl ArtifactEntry {
    /// An artifact about which nothing is said but where it is.
    pub fn of(name: &str, path: PathBuf) -> ArtifactEntry {
        let (path, part) = Format::split_part(&path);
        let format = Format::from_path(&path);
        ArtifactEntry { name: name.into(), path, part, format, pin: false, key: "id".into() }
    }

    /// What the table of an artifact says; paths are relative to `dir`.
    pub(super) fn read(name: &str, table: &Value, dir: &Path) -> Result<ArtifactEntry, Fault> {
        let table = table
            .as_object()
            .ok_or_else(|| Fault::new(format!("artifact `{name}` must be a table with a path")))?;
        let path = table.get("path").and_then(Value::as_str);
        let path = path.ok_or_else(|| Fault::new(format!("artifact `{name}` needs a `path`, a string")))?;
        let mut entry = ArtifactEntry::of(name, dir.join(path));
        for (key, value) in table {
            let wrong = |expected: &str| Fault::at(key, format!("`{key}` must be {expected}"));
            match key.as_str() {
                "path" => {}
                "format" => {
                    let format = value.as_str().and_then(Format::from_name);
                    entry.format = format.ok_or_else(|| wrong(&format!("one of {}", Format::names())))?;
                }
                "pin" => entry.pin = value.as_bool().ok_or_else(|| wrong("true or false"))?,
                "key" => entry.key = value.as_str().ok_or_else(|| wrong("the name of a field"))?.into(),
                _ => {
                    let hint = did_you_mean(key, ["path", "format", "pin", "key"]);
                    return Err(Fault::at(key, format!("an artifact has no key `{key}`{hint}")));
                }
            }
        }
        if entry.part.is_some() && entry.format.part_noun().is_none() {
            return Err(Fault::at(
                "format",
                format!("{} has no parts, and `path` names one", entry.format.name()),
            ));
        }
        Ok(entry)
    }
}
