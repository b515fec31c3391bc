//! What many measurements come to: count, mean, standard deviation, extremes and quantiles, in bounded memory however
//! many there are. Quantiles are right to 2 %.

use serde::{Deserialize, Serialize};

/// So many classes to each doubling of a value.
const CLASSES: u64 = 32;

/// Measurements of one thing: whole numbers (nanoseconds, bytes).
#[derive(Clone, Default)]
pub(crate) struct Series {
    count: u64,
    mean: f64,
    /// The sum of squares of differences from the mean (Welford).
    squares: f64,
    min: u64,
    max: u64,
    /// How many measurements fell into each class of like values.
    classes: Vec<u32>,
}

/// A series in ten numbers, in whatever unit its name says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub count: u64,
    pub mean: f64,
    pub median: f64,
    pub std: f64,
    pub min: f64,
    pub max: f64,
    pub p95: f64,
    pub p99: f64,
}

impl Series {
    pub fn add(&mut self, value: u64) {
        (self.min, self.max) = match self.count {
            0 => (value, value),
            _ => (self.min.min(value), self.max.max(value)),
        };
        self.count += 1;
        let difference = value as f64 - self.mean;
        self.mean += difference / self.count as f64;
        self.squares += difference * (value as f64 - self.mean);
        let class = class_of(value);
        if self.classes.len() <= class {
            self.classes.resize(class + 1, 0);
        }
        self.classes[class] += 1;
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The value that this part of all are no larger than.
    pub fn quantile(&self, part: f64) -> u64 {
        let wanted = (part * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (class, count) in self.classes.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return middle_of(class).clamp(self.min, self.max);
            }
        }
        self.max
    }

    /// In units of this many of the series' own; nothing of a series without measurements.
    pub fn summary(&self, unit: f64) -> Option<Summary> {
        let variance = self.squares / (self.count.max(2) - 1) as f64;
        let scaled = |value: f64| value / unit;
        (self.count > 0).then(|| Summary {
            count: self.count,
            mean: scaled(self.mean),
            median: scaled(self.quantile(0.5) as f64),
            std: scaled(variance.sqrt()),
            min: scaled(self.min as f64),
            max: scaled(self.max as f64),
            p95: scaled(self.quantile(0.95) as f64),
            p99: scaled(self.quantile(0.99) as f64),
        })
    }
}

/// Small values are classes of their own; above, each doubling is cut into equal parts.
fn class_of(value: u64) -> usize {
    if value < 2 * CLASSES {
        return value as usize;
    }
    let doublings = u64::from(value.ilog2() - CLASSES.ilog2());
    (doublings * CLASSES + (value >> doublings)) as usize
}

fn middle_of(class: usize) -> u64 {
    let class = class as u64;
    if class < 2 * CLASSES {
        return class;
    }
    let doublings = class / CLASSES - 1;
    let lowest = (class - doublings * CLASSES) << doublings;
    lowest + (1 << doublings) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_two_per_cent() {
        let mut series = Series::default();
        (1..=100_000u64).for_each(|value| series.add(value * 977));
        for (part, exact) in [(0.5, 50_000.0), (0.95, 95_000.0), (0.99, 99_000.0)] {
            let found = series.quantile(part) as f64 / 977.0;
            assert!((found / exact - 1.0).abs() < 0.02, "{part}: {found}");
        }
        let summary = series.summary(977.0).unwrap();
        assert!((summary.mean - 50_000.5).abs() < 1e-6, "{summary:?}");
        assert!((summary.std - 28_867.66).abs() < 0.1, "{summary:?}");
        assert_eq!((summary.min, summary.max, summary.count), (1.0, 100_000.0, 100_000));
    }

    #[test]
    fn equal_and_small_values_are_exact() {
        let mut series = Series::default();
        assert_eq!(series.summary(1.0), None);
        [7, 7, 7].into_iter().for_each(|value| series.add(value));
        let all = series.summary(1.0).unwrap();
        assert_eq!((all.median, all.p99, all.std, all.min), (7.0, 7.0, 0.0, 7.0));
        let mut one = Series::default();
        one.add(u64::MAX / 2);
        assert_eq!(one.quantile(0.5), u64::MAX / 2);
    }

    #[test]
    fn every_value_falls_into_a_class_near_it() {
        for value in (0..63).flat_map(|bit| [1u64 << bit, (1 << bit) + 1, (1 << bit) * 2 - 1]) {
            let middle = middle_of(class_of(value));
            assert!(middle.abs_diff(value) as f64 <= value as f64 / 60.0, "{value}: {middle}");
        }
    }
}
