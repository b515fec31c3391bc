//! What is worth a word to whoever watches a run: thresholds, and whether they are passed. Does no I/O and reads no clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text;

/// `[alerts]`: what is not told is `None`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Alerts {
    /// A node took longer.
    pub node_time: Option<Duration>,
    /// More of the memory is in use, as a part of 1.
    pub memory: Option<f64>,
    /// The workers' own memory grows by more bytes an hour.
    pub growth: Option<u64>,
    /// More of the settled nodes failed, as a part of 1.
    pub errors: Option<f64>,
}

impl Default for Alerts {
    fn default() -> Alerts {
        Alerts {
            node_time: Some(Duration::from_secs(10)),
            memory: Some(0.8),
            growth: Some(1_000_000_000),
            errors: Some(0.05),
        }
    }
}

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    NodeTime,
    Memory,
    Growth,
    Errors,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::NodeTime => "node_time",
            Kind::Memory => "memory",
            Kind::Growth => "growth",
            Kind::Errors => "errors",
        }
    }
}

/// A threshold that was passed. Values are seconds, parts of 1, or bytes an hour.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Alert {
    pub kind: Kind,
    pub value: f64,
    pub threshold: f64,
    pub message: String,
}

/// All alerts of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub count: u64,
    pub threshold: f64,
    pub worst: f64,
    /// What was said the first time.
    pub message: String,
}

/// Growth is judged over this long.
const WINDOW: Duration = Duration::from_secs(300);

/// So many nodes must be settled before the part that failed means anything.
const SETTLED_MIN: usize = 20;

/// A threshold counts as passed again only after the value has been this much below it.
const BACK: f64 = 0.95;

/// Watches a run.
pub(crate) struct Watch {
    thresholds: Alerts,
    told: BTreeMap<Kind, Told>,
    /// Those that are passed now.
    high: BTreeMap<Kind, bool>,
    /// Private memory by time, over the last window.
    samples: VecDeque<(Duration, u64)>,
}

impl Watch {
    pub fn new(thresholds: Alerts) -> Watch {
        Watch { thresholds, told: BTreeMap::new(), high: BTreeMap::new(), samples: VecDeque::new() }
    }

    /// What was told so far, by the name of its kind.
    pub fn told(&self) -> BTreeMap<String, Told> {
        self.told.iter().map(|(kind, told)| (kind.word().into(), told.clone())).collect()
    }

    /// Whether a node that took so long is worth a word.
    pub fn is_long(&self, took: Duration) -> bool {
        self.thresholds.node_time.is_some_and(|most| took > most)
    }

    /// A node took so long. Of long ones the first is told; the others are counted.
    pub fn node_took(&mut self, name: &str, took: Duration) -> Option<Alert> {
        let most = self.thresholds.node_time.filter(|most| took > *most)?;
        let message =
            format!("node {name} took {}, more than {}", text::duration(took), text::duration(most));
        let alert =
            Alert { kind: Kind::NodeTime, value: took.as_secs_f64(), threshold: most.as_secs_f64(), message };
        let first = !self.told.contains_key(&Kind::NodeTime);
        self.note(&alert);
        first.then_some(alert)
    }

    /// This part of the memory is in use.
    pub fn memory_used(&mut self, used: f64, of: &str) -> Option<Alert> {
        let most = self.thresholds.memory?;
        let message = || {
            format!("{:.0}% of the memory of {of} is in use, more than {:.0}%", used * 100.0, most * 100.0)
        };
        self.passed(Kind::Memory, used, most, message)
    }

    /// So many of these nodes have failed.
    pub fn failed(&mut self, failed: usize, settled: usize) -> Option<Alert> {
        let most = self.thresholds.errors?;
        if settled < SETTLED_MIN {
            return None;
        }
        let part = failed as f64 / settled as f64;
        let message = || {
            let (part, most) = (part * 100.0, most * 100.0);
            format!("{failed} of {settled} nodes failed: {part:.1}%, more than {most:.1}%")
        };
        self.passed(Kind::Errors, part, most, message)
    }

    /// The workers hold so much private memory at this time of the run.
    pub fn holds(&mut self, now: Duration, private: u64) -> Option<Alert> {
        let most = self.thresholds.growth?;
        self.samples.push_back((now, private));
        while self.samples.front().is_some_and(|(at, _)| *at + WINDOW < now) {
            self.samples.pop_front();
        }
        let (first, _) = *self.samples.front()?;
        if now < first + WINDOW * 9 / 10 {
            return None;
        }
        // What comes and goes with the nodes is no growth: the least of each half counts.
        let half = first + (now - first) / 2;
        let least = |late: bool| {
            self.samples.iter().filter(|(at, _)| (*at >= half) == late).map(|(_, bytes)| *bytes).min()
        };
        let grown = least(true)?.saturating_sub(least(false)?);
        let hourly = grown as f64 * 3600.0 / (now - first).as_secs_f64() * 2.0;
        let message = || {
            let (hourly, most) = (text::bytes(hourly as u64), text::bytes(most));
            format!(
                "the workers' own memory grows by {hourly} an hour, more than {most}; `recycle` bounds it"
            )
        };
        self.passed(Kind::Growth, hourly, most as f64, message)
    }

    /// An alert, if the threshold was not passed before.
    fn passed(
        &mut self,
        kind: Kind,
        value: f64,
        threshold: f64,
        message: impl FnOnce() -> String,
    ) -> Option<Alert> {
        let high = self.high.entry(kind).or_default();
        if value <= threshold {
            *high &= value > threshold * BACK;
            return None;
        }
        if std::mem::replace(high, true) {
            let told = self.told.get_mut(&kind)?;
            told.worst = told.worst.max(value);
            return None;
        }
        let alert = Alert { kind, value, threshold, message: message() };
        self.note(&alert);
        Some(alert)
    }

    fn note(&mut self, alert: &Alert) {
        let told = self.told.entry(alert.kind).or_insert_with(|| Told {
            count: 0,
            threshold: alert.threshold,
            worst: alert.value,
            message: alert.message.clone(),
        });
        told.count += 1;
        told.worst = told.worst.max(alert.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn of_long_nodes_the_first_is_told_and_all_are_counted() {
        let mut watch = Watch::new(Alerts::default());
        assert_eq!(watch.node_took("a", secs(10)), None);
        assert_eq!(watch.node_took("b", secs(11)).unwrap().message, "node b took 11.0 s, more than 10.0 s");
        assert_eq!(watch.node_took("c", secs(30)), None);
        let told = &watch.told()["node_time"];
        assert_eq!((told.count, told.worst, told.threshold), (2, 30.0, 10.0));
    }

    #[test]
    fn a_threshold_is_told_again_only_after_it_was_left() {
        let mut watch = Watch::new(Alerts::default());
        let told: Vec<bool> = [0.5, 0.81, 0.9, 0.79, 0.85, 0.7, 0.95]
            .map(|used| watch.memory_used(used, "the machine").is_some())
            .to_vec();
        assert_eq!(told, [false, true, false, false, false, false, true]);
        assert_eq!((watch.told()["memory"].count, watch.told()["memory"].worst), (2, 0.95));
    }

    #[test]
    fn one_failure_of_few_is_no_trend() {
        let mut watch = Watch::new(Alerts::default());
        assert_eq!(watch.failed(1, 2), None);
        assert_eq!(watch.failed(1, 20), None);
        assert!(watch.failed(2, 20).is_some());
    }

    #[test]
    fn growth_is_what_stays() {
        let mut watch = Watch::new(Alerts::default());
        // Waves of a gigabyte that come and go.
        let waves = (0..600).filter_map(|at| watch.holds(secs(at), (at % 60) << 24)).count();
        assert_eq!(waves, 0);
        // A leak of 1 MiB a second is 3.8 GB an hour.
        let mut watch = Watch::new(Alerts::default());
        let alert = (0..600).find_map(|at| watch.holds(secs(at), at << 20)).unwrap();
        assert!((3e9..4.5e9).contains(&alert.value), "{alert:?}");
    }

    #[test]
    fn what_is_switched_off_is_not_told() {
        let none = Alerts { node_time: None, memory: None, growth: None, errors: None };
        let mut watch = Watch::new(none);
        assert_eq!(watch.node_took("a", secs(1000)), None);
        assert!(watch.memory_used(1.0, "").is_none() && watch.failed(9, 9).is_none());
    }
}
