//! What a person sees while a run goes on: a bar at a terminal, else a plain line every few seconds.
//! On stderr.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::tell::Status;
use crate::text;

/// How often a plain line is written.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// The face of a run for people.
pub(super) enum Progress {
    Bar(ProgressBar),
    Plain { start: Instant, next: Instant },
    Silent,
}

impl Progress {
    pub fn new(quiet: bool, terminal: bool, nodes: usize) -> Progress {
        if quiet {
            return Progress::Silent;
        }
        if !terminal {
            let start = Instant::now();
            return Progress::Plain { start, next: start + PLAIN_EVERY };
        }
        let bar = ProgressBar::with_draw_target(Some(nodes as u64), ProgressDrawTarget::stderr_with_hz(10));
        let style = "{bar:30.cyan/dim} {pos}/{len} {msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is right"));
        Progress::Bar(bar)
    }

    /// How often it wants to be told, `None` when it does not.
    pub fn interval(&self) -> Option<Duration> {
        match self {
            Progress::Bar(_) => Some(Duration::from_millis(100)),
            Progress::Plain { .. } => Some(PLAIN_EVERY),
            Progress::Silent => None,
        }
    }

    pub fn show(&mut self, status: &Status) {
        match self {
            Progress::Bar(bar) => {
                bar.set_position(status.settled as u64);
                bar.set_message(describe(status, bar.elapsed()));
            }
            Progress::Plain { start, next } => {
                let now = Instant::now();
                if now >= *next {
                    *next = now + PLAIN_EVERY;
                    let elapsed = now - *start;
                    let line = describe(status, elapsed).replace('\n', "; ");
                    eprintln!("{}: {}/{} {line}", text::duration(elapsed), status.settled, status.wanted);
                }
            }
            Progress::Silent => {}
        }
    }

    /// A line for people that stays.
    pub fn say(&self, line: &str) {
        match self {
            Progress::Bar(bar) => bar.suspend(|| eprintln!("{line}")),
            Progress::Plain { .. } => eprintln!("{line}"),
            Progress::Silent => {}
        }
    }

    pub fn finish(&self) {
        if let Progress::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn describe(status: &Status, elapsed: Duration) -> String {
    let ran = status.settled - status.cached;
    let rate = ran as f64 / elapsed.as_secs_f64().max(1e-3);
    let mut line =
        format!("{} running, {} cached, {} failed", status.running.len(), status.cached, status.failed);
    if status.paused {
        line.insert_str(0, "paused, ");
    }
    if ran > 0 {
        line += &format!(", {}/s", if rate < 10.0 { format!("{rate:.1}") } else { text::count(rate as u64) });
    }
    if let Some(eta) = eta(status, rate) {
        line += &format!(", {} left", text::duration(eta));
    }
    for (name, since) in status.running.iter().filter(|(_, since)| *since > Duration::from_secs(1)).take(3) {
        line += &format!("\n  {name} since {}", text::duration(*since));
    }
    line
}

/// What is left at this rate, but never less than the longest chain of nodes still to be run.
fn eta(status: &Status, rate: f64) -> Option<Duration> {
    let left = (status.wanted - status.settled) as f64;
    if left == 0.0 || rate < 0.01 || status.settled == status.cached {
        return None;
    }
    Duration::try_from_secs_f64((left / rate).max(status.longest_remaining)).ok()
}
