//! `forkyard why`: what would become of a node, what became of it, and which fields of its key make the difference.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::json;

use super::exit::{Exit, Failure, printed};
use super::runs::{outcomes, state};
use crate::fields::{Change, KeyField, KeyFields, What, changes};
use crate::init::Runtime;
use crate::store::{JournalEntry, Outcome, RunDir, StoreDir, read_fields};
use crate::text;
use crate::why::{Now, WouldRun, now};

pub(super) fn why(
    manifest: &Path,
    node: &str,
    store: &Path,
    as_json: bool,
    runtime: &Runtime,
) -> Result<Exit, Failure> {
    let now = now(manifest, store, node, runtime)?;
    let history = History::of(store, node)?;
    let answer = Answer::new(node, now, history);
    let mut out = std::io::stdout().lock();
    printed(if as_json { writeln!(out, "{}", answer.json()) } else { write!(out, "{}", answer.text()) })
}

/// What earlier runs tell of a node.
#[derive(Default)]
struct History {
    /// The newest entry of it, and its run.
    last: Option<(u64, JournalEntry)>,
    /// The run in which it ran last, with its key.
    ran: Option<(u64, JournalEntry)>,
    /// What became of the other nodes of that run.
    beside: BTreeMap<String, JournalEntry>,
    /// What its key was made of, the newest first: two at the most, of different keys.
    keys: Vec<(u64, KeyFields)>,
    /// The run that goes on and has not settled it.
    unsettled: Option<u64>,
    /// The newest run in which each node ran, as far as was looked.
    ran_in: BTreeMap<String, u64>,
}

impl History {
    fn of(store: &Path, node: &str) -> Result<History, Failure> {
        let dir = StoreDir::new(store);
        let mut history = History::default();
        for (age, run) in dir.runs()?.into_iter().rev().enumerate() {
            history.take_fields(&run, node);
            if history.ran.is_none() {
                history.take_journal(store, &run, node, age == 0);
            } else if history.keys.len() == 2 {
                break;
            }
        }
        Ok(history)
    }

    fn take_fields(&mut self, run: &RunDir, node: &str) {
        let mut newest = None;
        if self.keys.len() < 2 {
            read_fields(&run.fields_path(), |fields| {
                if fields.node == node {
                    newest = Some(fields);
                }
            });
        }
        if let Some(fields) = newest.filter(|new| self.keys.iter().all(|(_, known)| known.key != new.key)) {
            self.keys.push((run.id, fields));
        }
    }

    fn take_journal(&mut self, store: &Path, run: &RunDir, node: &str, is_newest: bool) {
        let nodes = outcomes(run);
        for entry in nodes.values().filter(|entry| entry.outcome == Outcome::Ran) {
            self.ran_in.entry(entry.node.clone()).or_insert(run.id);
        }
        let Some(entry) = nodes.get(node).cloned() else {
            let goes_on = |header| matches!(state(store, run, &header), "running" | "paused");
            if is_newest && run.header().is_some_and(goes_on) {
                self.unsettled = Some(run.id);
            }
            return;
        };
        if entry.outcome == Outcome::Ran && entry.key.is_some() {
            self.ran = Some((run.id, entry.clone()));
            self.beside = nodes;
        }
        self.last.get_or_insert((run.id, entry));
    }

    /// What the key was made of with which it ran last.
    fn key_that_ran(&self) -> Option<&KeyFields> {
        let key = self.ran.as_ref()?.1.key?;
        self.keys.iter().map(|(_, fields)| fields).find(|fields| fields.key == key)
    }
}

/// What there is to say.
struct Answer<'a> {
    node: &'a str,
    verdict: &'static str,
    /// In words.
    reason: String,
    /// What its key is made of, or was in this run.
    key: Option<(Option<u64>, KeyFields)>,
    changes: Vec<Change>,
    history: History,
}

impl<'a> Answer<'a> {
    fn new(node: &'a str, now: Now, history: History) -> Answer<'a> {
        let before_that = || match history.keys.as_slice() {
            [(_, newest), (_, other)] => changes(&other.fields, &newest.fields),
            _ => Vec::new(),
        };
        let recorded = || history.keys.first().map(|(run, fields)| (Some(*run), fields.clone()));
        let (verdict, reason, key, changes) = match now {
            Now::Cached(fields, took) => {
                let reason = format!("its result is stored; it took {}", text::duration(took));
                ("cached", reason, Some((None, fields)), Vec::new())
            }
            Now::Runs(fields, why) => {
                let (reason, changes) = would_run(&history, &fields, why);
                ("would_run", reason, Some((None, fields)), changes)
            }
            Now::Unknown(reason) => ("unknown", reason, recorded(), before_that()),
        };
        Answer { node, verdict, reason, key, changes, history }
    }

    fn json(&self) -> serde_json::Value {
        let fields = self
            .key
            .iter()
            .flat_map(|(_, key)| &key.fields)
            .map(|field| json!({ "what": field.what, "label": field.label, "value": field.preview }));
        let changes = self.changes.iter().map(|change| {
            json!({ "what": change.what, "label": change.label, "before": change.before, "after": change.after })
        });
        let last = self.history.last.as_ref().map(|(run, entry)| {
            json!({ "run": run, "outcome": entry.outcome.word(), "attempt": entry.attempt, "error": entry.error })
        });
        json!({
            "v": 1,
            "node": self.node,
            "verdict": self.verdict,
            "reason": self.reason,
            "key": self.key.as_ref().map(|(_, key)| key.key.to_hex()),
            "key_of_run": self.key.as_ref().and_then(|(run, _)| *run),
            "fields": fields.collect::<Vec<_>>(),
            "changes": changes.collect::<Vec<_>>(),
            "last": last,
            "unsettled_in": self.history.unsettled,
        })
    }

    fn text(&self) -> String {
        let verdict = match self.verdict {
            "cached" => "is cached",
            "would_run" => "would run",
            _ => "is not decided before a run",
        };
        let mut out = format!("{} {verdict}: {}\n", self.node, self.reason);
        for change in &self.changes {
            out += &format!("  {}\n", self.describe(change));
        }
        if let Some(run) = self.history.unsettled {
            out += &format!("run {run} goes on, and has not settled it: it runs, or waits\n");
        }
        if let Some((run, entry)) = &self.history.last {
            let error = entry.error.as_ref().map_or(String::new(), |error| format!(": {error}"));
            out += &format!("in run {run}: {}{error}\n", entry.outcome.word());
        }
        if let Some((run, key)) = &self.key {
            let of = run.map_or(String::new(), |run| format!(" of run {run}"));
            out += &format!("key {}{of}, made of\n", &key.key.to_hex()[..16]);
            out.extend(key.fields.iter().map(describe));
        }
        out
    }

    fn describe(&self, change: &Change) -> String {
        let Change { what, label, before, after } = change;
        let name =
            if label.is_empty() { what.word().to_string() } else { format!("{} {label}", what.word()) };
        match (what, before, after) {
            (_, None, Some(after)) => format!("{name}: new, {after}"),
            (_, Some(before), None) => format!("{name}: gone, it was {before}"),
            (What::Result | What::ArtifactResult, Some(before), Some(producer)) if before == producer => {
                let newer = self.history.ran_in.get(producer);
                let ran = self.history.ran.as_ref().map(|(run, _)| run);
                let because = newer
                    .filter(|run| Some(*run) > ran)
                    .map_or(String::new(), |run| format!(", because {producer} ran again in run {run}"));
                format!("{name}: the result of {producer} changed{because}")
            }
            (What::Result, Some(before), Some(producer)) => {
                format!("{name}: {before} -> the result of {producer}")
            }
            (What::File | What::Artifact | What::Need, ..) => format!("{name} changed"),
            (_, Some(before), Some(after)) => format!("{name}: {before} -> {after}"),
            (_, None, None) => name,
        }
    }
}

fn describe(field: &KeyField) -> String {
    let value = match field.what {
        What::Result => format!("the result of {}", field.preview),
        What::ArtifactResult => "a result".into(),
        _ => field.preview.clone(),
    };
    let gap = if field.label.is_empty() { "" } else { " " };
    format!("  {}{gap}{}: {value}\n", field.what.word(), field.label)
}

/// Why a node would run, and what makes its key another one.
fn would_run(history: &History, fields: &KeyFields, why: WouldRun) -> (String, Vec<Change>) {
    if why == WouldRun::Always {
        return ("it says `cache = false`".into(), Vec::new());
    }
    let Some((run, entry)) = &history.ran else {
        return ("no run of this store has computed its result".into(), Vec::new());
    };
    if entry.key == Some(fields.key) {
        let reason = format!("its result of run {run} is not in the store any more, or damaged");
        return (reason, Vec::new());
    }
    let reason = format!("it is not what ran in run {run}");
    match history.key_that_ran() {
        Some(before) => (reason, changes(&before.fields, &fields.fields)),
        None => (reason, changed_needs(history, fields)),
    }
}

/// Of a plain node only its needs were kept, each by itself.
fn changed_needs(history: &History, fields: &KeyFields) -> Vec<Change> {
    let needs = fields.fields.iter().filter(|field| field.what == What::Need);
    let changed = needs.filter_map(|need| {
        let before = history.beside.get(&need.label)?.key.map(|key| key.to_hex()[..16].to_string());
        (before.as_ref() != Some(&need.preview)).then(|| Change {
            what: What::Need,
            label: need.label.clone(),
            before,
            after: Some(need.preview.clone()),
        })
    });
    changed.collect()
}
