//! A run of a target without a fuzzer that knows the code: files of its corpus, changed in a few places, by numbers that a
//! seed decides. The suite does some of each; `scripts/soak fuzz` goes on for as long as told, and looks at time and memory.
//!
//! `FORKYARD_FUZZ_SECONDS` says how long, `FORKYARD_FUZZ_SEED` from which seed, `FORKYARD_FUZZ_INPUT` that it is only this
//! file. Each input lies in a file before it is tried, so that whatever ends the process leaves it there.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};

/// An input that takes so much processor time counts as found, as does a process that has held so much memory.
const LIMIT_TIME: Duration = Duration::from_secs(1);
const LIMIT_KB: i64 = 2 << 20;

/// Files longer than this are tried less often.
const LONG_BYTES: usize = 16 << 10;

/// Gives `target` each file of the corpus and, in the suite, `rounds` changes of it.
///
/// # Panics
/// When the target does, or takes too long; it says where the input is.
pub fn run(name: &str, corpus: &[Vec<u8>], rounds: u64, target: impl Fn(&[u8])) {
    assert!(!corpus.is_empty(), "no corpus of {name}");
    let said = |name: &str| std::env::var(format!("FORKYARD_FUZZ_{name}")).ok();
    if let Some(input) = said("INPUT") {
        return target(&fs::read(&input).expect("the input's file"));
    }
    let number = |name: &str| said(name).and_then(|text| text.parse().ok());
    let (seed, seconds) = (number("SEED").unwrap_or(0), number("SECONDS"));
    let path = std::env::temp_dir().join(format!("forkyard-fuzz-{name}-{}", std::process::id()));
    let input = Input { name, file: File::create(&path).expect("room for an input"), path };
    for original in corpus {
        input.tried(original, &target);
    }
    let Some(seconds) = seconds else {
        for (at, original) in corpus.iter().enumerate() {
            let rounds = if original.len() > LONG_BYTES { rounds / 50 } else { rounds };
            for round in 0..rounds {
                let mut bytes = original.clone();
                Numbers::of(seed, (at as u64) << 32 | round).mutate(&mut bytes, corpus);
                input.tried(&bytes, &target);
            }
        }
        return;
    };
    let (start, mut tried, mut longest) = (Instant::now(), 0, Duration::ZERO);
    while start.elapsed() < Duration::from_secs(seconds) {
        let mut numbers = Numbers::of(seed, tried);
        let mut bytes = corpus[numbers.below(corpus.len())].clone();
        (0..1 + numbers.below(3)).for_each(|_| numbers.mutate(&mut bytes, corpus));
        let took = input.tried(&bytes, &target);
        longest = longest.max(took);
        tried += 1;
        if took > LIMIT_TIME {
            input.keep();
            panic!("it took {took:?}");
        }
        let held = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss());
        if held > LIMIT_KB {
            input.keep();
            panic!("after it the process has held {held} kB");
        }
    }
    let held = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss()) / 1024;
    println!(
        "{name}: {tried} inputs in {seconds} s from seed {seed}, none found; the longest took {longest:?}; at most {held} MB"
    );
}

/// The corpora that are committed: the files below `fuzz/corpus/NAME`, in their names' order.
///
/// # Panics
/// When a file cannot be read.
pub fn corpus(name: &str) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    read_all(&[root.join("fuzz/corpus").join(name)], |_| true)
}

/// The files of these folders that are wanted.
pub(super) fn read_all(folders: &[PathBuf], is_wanted: impl Fn(&Path) -> bool) -> Vec<Vec<u8>> {
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a folder's file").path()).collect();
    files.retain(|file| is_wanted(file));
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a file of the corpus")).collect()
}

/// The file that holds what is tried.
struct Input<'a> {
    name: &'a str,
    path: PathBuf,
    file: File,
}

impl Input<'_> {
    /// The processor time that it took.
    fn tried(&self, bytes: &[u8], target: &impl Fn(&[u8])) -> Duration {
        // Never cut to nothing: some file systems then write it out at once.
        let written = self.file.write_all_at(bytes, 0).and_then(|()| self.file.set_len(bytes.len() as u64));
        written.expect("room for an input");
        let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from);
        let start = now();
        target(bytes);
        now() - start
    }

    fn keep(&self) {
        let path = self.path.display();
        eprintln!("the input is {path}; again: scripts/soak fuzz --target {} --input {path}", self.name);
    }
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        } else {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    /// Those of one input.
    fn of(seed: u64, input: u64) -> Numbers {
        let mut mixed = seed.wrapping_mul(0xff51_afd7_ed55_8ccd) ^ input;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Numbers((mixed ^ mixed >> 31).max(1))
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end.max(1) as u64) as usize
    }

    /// Changes a file in a few places.
    fn mutate(&mut self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        const ODD: [&[u8]; 8] =
            [&[0xff; 8], &[0; 8], &[0xff, 0xff, 0xff, 0x7f], &[0, 0, 0, 0x40], b"9", b"\"", b"{{", b"[["];
        for _ in 0..1 + self.below(4) {
            // Headers are at the ends.
            let near = match self.below(3) {
                0 => self.below(bytes.len().min(300)),
                1 => bytes.len() - self.below(bytes.len().min(300)),
                _ => self.below(bytes.len()),
            };
            let at = near.min(bytes.len().saturating_sub(1));
            let end = (at + 1 + self.below(8)).min(bytes.len());
            match self.below(8) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.below(256) as u8,
                2 => {
                    let odd = ODD[self.below(ODD.len())];
                    let end = (at + odd.len()).min(bytes.len());
                    bytes.splice(at..end, odd.iter().copied());
                }
                3 => drop(bytes.splice(at..end, [])),
                4 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
                5 => {
                    // A piece of another file.
                    let other = &others[self.below(others.len())];
                    let from = self.below(other.len());
                    let until = (from + 1 + self.below(40)).min(other.len());
                    bytes.splice(at..at, other[from..until].iter().copied());
                }
                6 => {
                    // A piece moves, or comes twice.
                    let until = (at + 1 + self.below(60)).min(bytes.len());
                    let piece = bytes[at.min(until)..until].to_vec();
                    let to = self.below(bytes.len() + 1);
                    bytes.splice(to..to, piece);
                }
                _ if self.below(8) == 0 => bytes.truncate(at),
                _ => {}
            }
        }
    }
}
