//! Whether every node ended once, as it should: from the journal of the run.

use super::load::{Family, Load};
use crate::run::RunResult;
use crate::store::{JournalEntry, Outcome, StoreDir, StoreError, read_journal};
use crate::text;

/// What was wrong is told so often; the rest is counted.
const TOLD_MAX: usize = 5;

/// How the nodes of a run ended.
pub(super) struct Checked {
    pub ended: u64,
    /// Not begun when the time was over.
    pub not_begun: u64,
    pub wrong: u64,
    told: Vec<String>,
}

impl Checked {
    fn wrong(&mut self, what: impl FnOnce() -> String) {
        self.wrong += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(what());
        }
    }

    pub fn evidence(&self) -> String {
        let mut evidence = format!(
            "{} ended, {} not begun in time",
            text::plural(self.ended as usize, "node"),
            text::count(self.not_begun)
        );
        if self.wrong > 0 {
            let shown = if self.wrong as usize > self.told.len() { ", the first" } else { "" };
            evidence += &format!(
                "; {} otherwise than it should{shown}: {}",
                text::count(self.wrong),
                self.told.join("; ")
            );
        }
        evidence
    }
}

/// Reads the journal of a run, and compares.
///
/// # Errors
/// When it cannot be read.
pub(super) fn check(dir: &StoreDir, result: &RunResult, load: &Load) -> Result<Checked, StoreError> {
    let mut checked = Checked { ended: 0, not_begun: 0, wrong: 0, told: Vec::new() };
    let mut seen: Vec<Vec<bool>> =
        load.families.iter().map(|family| vec![false; family.count as usize + 1]).collect();
    let journal = dir.path.join("runs").join(result.run.to_string()).join("journal");
    // Whether nodes were left out because the time was over.
    let ended_early = result.summary.cancelled > 0;
    let sound = read_journal(&journal, |entry| match place(&load.families, &entry.node) {
        None => checked.wrong(|| format!("{} is no node of the manifest", entry.node)),
        Some((family, index)) => {
            if std::mem::replace(&mut seen[family][index], true) {
                checked.wrong(|| format!("{} ended twice", entry.node));
            }
            checked.one(&load.families[family], index, &entry, ended_early);
        }
    });
    let sound = sound.map_err(|error| StoreError::Io(format!("read {}", journal.display()), error))?;
    if !sound {
        checked.wrong(|| format!("{} is damaged", journal.display()));
    }
    for (family, seen) in load.families.iter().zip(&seen) {
        // The last one stands for the node that has them as items.
        let expected = if family.is_items { seen.len() } else { seen.len() - 1 };
        let lost = seen[..expected].iter().filter(|seen| !**seen).count() as u64;
        if ended_early {
            checked.not_begun += lost;
        } else if lost > 0 {
            checked.wrong(|| format!("{} of {} never ended", text::count(lost), family.id));
        }
    }
    Ok(checked)
}

impl Checked {
    fn one(&mut self, family: &Family, index: usize, entry: &JournalEntry, ended_early: bool) {
        let is_whole = index == family.count as usize;
        let expected = if is_whole { (Outcome::Ran, 1) } else { family.ending(index as u64) };
        if ended_early && matches!(entry.outcome, Outcome::Cancelled | Outcome::Blocked) {
            self.not_begun += 1;
        } else if (entry.outcome, entry.attempt) == expected {
            self.ended += 1;
        } else {
            let (outcome, attempt) = expected;
            self.wrong(|| {
                format!(
                    "{} {} after {}{}, and should have {} after {attempt}",
                    entry.node,
                    entry.outcome.word(),
                    text::plural(entry.attempt as usize, "attempt"),
                    entry.error.as_ref().map_or(String::new(), |error| format!(" ({error})")),
                    outcome.word(),
                )
            });
        }
    }
}

/// The family of a node, and its number there: that of the node itself comes after those of its items.
fn place(families: &[Family], node: &str) -> Option<(usize, usize)> {
    let (id, index) = match node.strip_suffix(']').and_then(|node| node.split_once('[')) {
        Some((id, index)) => (id, Some(index)),
        None => match node.split_once('_') {
            Some((id, index)) => (id, Some(index)),
            None => (node, None),
        },
    };
    let at = families.iter().position(|family| family.id == id)?;
    let count = families[at].count as usize;
    let index = index.map_or(Some(count), |index| index.parse().ok().filter(|index| *index < count))?;
    Some((at, index))
}
