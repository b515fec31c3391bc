//! The scheduling code by the million: a seed makes a manifest and its weather, a double takes the place of the pool, and
//! what a run comes to is compared with what the reference says. After each event everything is looked at whole
//! (`sanity`). A seed that fails is made smaller as long as it still fails, and printed.
//!
//! `FORKYARD_MODEL_SEEDS` says how many seeds, `FORKYARD_MODEL_FROM` from which on (`scripts/soak model` says both),
//! `FORKYARD_MODEL_FAILURES` how many that fail are looked at. One seed alone is traced.

mod case;
mod double;
mod generate;
pub(crate) mod liar;
mod reference;
#[cfg(test)]
mod regressions;
mod run;
mod sanity;
#[cfg(test)]
mod shrink;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use case::Case;

/// Seeds in the suite.
const SEEDS: u64 = 10_000;

static TOLD: AtomicBool = AtomicBool::new(false);

/// Whether everything that happens is to be printed.
fn is_told() -> bool {
    TOLD.load(Relaxed)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn whatever_happens_a_run_comes_to_what_its_manifest_says() {
    let from = number("FORKYARD_MODEL_FROM").unwrap_or(0);
    let seeds = number("FORKYARD_MODEL_SEEDS").unwrap_or(SEEDS);
    TOLD.store(seeds == 1, Relaxed);
    let next = AtomicU64::new(from);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(seeds as usize);
    let most = number("FORKYARD_MODEL_FAILURES").unwrap_or(1) as usize;
    let mut failures = std::thread::scope(|scope| {
        let work = || {
            let mut failures = Vec::new();
            while let seed @ 0.. = next.fetch_add(1, Relaxed)
                && seed < from + seeds
            {
                if let Err(why) = run::seed(&Case::of_seed(seed), seed) {
                    failures.push((seed, why));
                    if failures.len() == most {
                        next.store(u64::MAX / 2, Relaxed);
                    }
                }
            }
            failures
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a thread of the test"))
            .collect::<Vec<_>>()
    });
    failures.sort();
    failures.truncate(most);
    for (seed, why) in &failures {
        let whole = || (Case::of_seed(*seed), why.clone());
        let (small, why) = if seeds == 1 { whole() } else { shrink::shrink(*seed, why.clone()) };
        eprintln!("seed {seed}: {why}\n{}\n{:?}\n", small.text(), small.weather);
    }
    let Some((seed, _)) = failures.first() else { return };
    panic!("seeds fail; the first as it is: FORKYARD_MODEL_SEEDS=1 FORKYARD_MODEL_FROM={seed}");
}
