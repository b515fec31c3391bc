//! What was typed. Touches no file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::export::Format;
use crate::manifest::{parse_duration, parse_size};
use crate::preset::{PRESETS, Preset};
use crate::report::EventsWanted;
use crate::run::MaxFailures;
use crate::stress::Profile;

const EXIT_CODES: &str = "\
Exit codes:
  0         every node is done: it ran, its result was in the store, or it need not run
  1         some nodes failed, timed out or are blocked
  2         the command line or the manifest is wrong; nothing ran
  3         an artifact is missing, malformed or changed
  4         the store is unusable: disk full, damaged, or locked by a live run
  5         it does not fit: memory (with the arithmetic), processes refused, or stdout takes no more
  70        a bug in forkyard, or its zygote was killed
  129, 130, 143  interrupted by SIGHUP, Ctrl-C, SIGTERM";

/// Map large files once, fork workers onto them, run a DAG of nodes, keep every result.
#[derive(Parser)]
#[command(name = "forkyard", version, after_help = EXIT_CODES)]
pub(super) struct Args {
    /// Where results are kept
    #[arg(long, global = true, value_name = "DIR", default_value = ".forkyard")]
    pub store: PathBuf,

    /// When to use colours (NO_COLOR is respected)
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Run what is not in the store yet
    Run(Run),
    /// Run a Python function or a command on each of many items; results in the items' order on stdout
    Map(Map),
    /// What would run and what is stored; levels, critical path, what these workers make of it
    Plan(Plan),
    /// How many workers this machine and this DAG are good for: the arithmetic, and the makespan with each number
    Tune(Tune),
    /// Why a node would run, is cached, failed or was skipped: what its key is made of, and what of it changed
    Why {
        /// The manifest, as for `run`
        manifest: PathBuf,
        /// A node, or one of its items: `id[index]`
        node: String,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Load the pool on purpose: what it does beside what the machine can do, what it holds, what it leaves behind
    Stress(Stress),
    /// List the runs of a store, newest last
    Runs {
        /// As JSON, one run a line
        #[arg(long)]
        json: bool,
    },
    /// How a run stands: counts, failures, loss window
    Status {
        /// The run's number (default: the newest)
        run: Option<u64>,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Stop the run that goes on, as Ctrl-C does: what runs ends, and is kept
    Cancel {
        /// The run's number (default: the one that goes on)
        run: Option<u64>,
    },
    /// Have the run that goes on start nothing new; what runs goes on to its end
    Pause {
        /// The run's number (default: the one that goes on)
        run: Option<u64>,
    },
    /// Have a paused run go on
    Resume {
        /// The run's number (default: the one that goes on)
        run: Option<u64>,
    },
    /// What a node's command wrote to stderr
    Logs {
        /// The run's number, or the node
        #[arg(value_name = "[RUN] NODE")]
        run_or_node: String,
        #[arg(hide = true)]
        node: Option<String>,
    },
    /// List and read results
    Results {
        #[command(subcommand)]
        command: ResultsCommand,
    },
    /// What a store holds, whether it is sound, making it smaller
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Variables as nodes leave them, as a file for `run --context`
    Context {
        #[command(subcommand)]
        command: ContextCommand,
    },
    /// Look at files that can be artifacts
    Artifact {
        #[command(subcommand)]
        command: ArtifactCommand,
    },
    /// Make a manifest of what other programs have recorded
    Import {
        #[command(subcommand)]
        command: ImportCommand,
    },
    /// Limits of this machine that will bite, and what to do about each
    Doctor {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write the Python module `forkyard`: `forkyard python-module > forkyard.py`
    PythonModule,
    /// Write a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Write the manual page
    Man,
}

#[derive(clap::Args)]
pub(super) struct Run {
    /// The manifest: TOML or JSON Lines, plain, gzip or zstd; `-` is standard input
    pub manifest: PathBuf,
    /// How many worker processes; auto: one a core, and more while they only wait and memory allows
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = workers)]
    pub workers: WorkerCount,
    /// Settings that go together: cpu, io, memory or large-data
    #[arg(long, value_name = "NAME", value_parser = preset)]
    pub preset: Option<&'static Preset>,
    /// Only these nodes and what they need
    #[arg(long, value_name = "NODE", num_args = 1..)]
    pub only: Vec<String>,
    /// Only what failed, timed out, was blocked or cancelled in the newest run of this manifest, and what it needs
    #[arg(long, conflicts_with = "only")]
    pub failed: bool,
    /// Only a few nodes of each kind that no earlier run has measured, for at most so long, as `tune` does
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with_all = ["only", "failed"])]
    pub sample: Option<Duration>,
    /// Run these nodes even if their results are stored
    #[arg(long, value_name = "NODE", num_args = 1..)]
    pub refresh: Vec<String>,
    /// Variables in place of those of the manifest, as `context export` writes them
    #[arg(long, value_name = "FILE")]
    pub context: Option<PathBuf>,
    /// When a node fails, run on with everything that does not need it
    #[arg(long)]
    pub keep_going: bool,
    /// Keep going until more than so many nodes, or per cent of them, have failed
    #[arg(long, value_name = "N|P%", value_parser = max_failures)]
    pub max_failures: Option<MaxFailures>,
    /// List what would run, one node a line, and run nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Events as JSON on stdout, one a line
    #[arg(long)]
    pub json: bool,
    /// Which node_finished events --json writes
    #[arg(long, value_name = "WHICH", default_value = "failures")]
    pub events: EventsWanted,
    /// No progress and no summary
    #[arg(long, short)]
    pub quiet: bool,
    /// Write a Chrome trace (chrome://tracing, Perfetto): a track a worker
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(super) struct Map {
    /// A function, `file.py:function` or `module:function`, or a command in which {} stands for the item
    pub call: String,
    /// The items: words; for a function also one .jsonl or .txt file, or `-` for standard input: an item a line
    pub items: Vec<String>,
    /// A file of items, one a line, for commands too
    #[arg(long, value_name = "FILE")]
    pub items_from: Option<PathBuf>,
    /// Lines are text, and not JSON
    #[arg(long)]
    pub lines: bool,
    /// A file that all workers share, as forkyard.artifact("NAME") or $FORKYARD_ARTIFACT_NAME
    #[arg(short = 'a', long = "artifact", value_name = "NAME=FILE")]
    pub artifacts: Vec<String>,
    /// How many worker processes; auto: one a core, and more while they only wait and memory allows
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = workers)]
    pub workers: WorkerCount,
    /// The Python interpreter (default: python3)
    #[arg(long, value_name = "PROGRAM")]
    pub python: Option<String>,
    /// More folders with Python modules
    #[arg(long, value_name = "DIR")]
    pub path: Vec<String>,
    /// Python modules to import once for all workers (default: that of the function)
    #[arg(long, value_name = "MODULE")]
    pub preload: Vec<String>,
    /// More Python modules whose change makes the items run again
    #[arg(long, value_name = "MODULE")]
    pub code: Vec<String>,
    /// How many coroutines run beside each other in one process
    #[arg(long, value_name = "N")]
    pub concurrency: Option<u64>,
    /// An environment variable that reaches the function or command, and nothing that is kept
    #[arg(long = "secret", value_name = "NAME")]
    pub secrets: Vec<String>,
    /// The longest that one item may take (30s, 1m30s)
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// How often an item that fails is tried
    #[arg(long, value_name = "N")]
    pub attempts: Option<u64>,
    /// How many items may start (10/s, 100/m)
    #[arg(long, value_name = "RATE")]
    pub rate: Option<String>,
    /// Another text makes other results: for repeated samples
    #[arg(long, value_name = "TEXT")]
    pub salt: Option<String>,
    /// The command is a line of shell
    #[arg(long)]
    pub shell: bool,
    /// Results as `results export --format jsonl` writes them: an object an item, with its outcome and error
    #[arg(long)]
    pub json: bool,
    /// No progress and no summary
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(clap::Args)]
pub(super) struct Plan {
    /// The manifest, as for `run`
    pub manifest: PathBuf,
    /// For how many workers; auto: one a core
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = workers)]
    pub workers: WorkerCount,
    /// Settings that go together: cpu, io, memory or large-data
    #[arg(long, value_name = "NAME", value_parser = preset)]
    pub preset: Option<&'static Preset>,
    /// Only these nodes and what they need
    #[arg(long, value_name = "NODE", num_args = 1..)]
    pub only: Vec<String>,
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
    /// As a graph for Graphviz; what is stored is filled
    #[arg(long, conflicts_with = "json")]
    pub dot: bool,
}

#[derive(clap::Args)]
pub(super) struct Tune {
    /// The manifest, as for `run`
    pub manifest: PathBuf,
    /// Look at these numbers of workers (default: some that make sense)
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = worker_number)]
    pub workers: Vec<usize>,
    /// Settings that go together: cpu, io, memory or large-data
    #[arg(long, value_name = "NAME", value_parser = preset)]
    pub preset: Option<&'static Preset>,
    /// The longest that the sample may take
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    pub sample: Duration,
    /// Run nothing: go by earlier runs and what the manifest says
    #[arg(long)]
    pub no_sample: bool,
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(clap::Args)]
pub(super) struct Stress {
    /// What it is loaded with
    #[arg(value_enum, default_value = "mixed")]
    pub profile: Profile,
    /// How many worker processes; auto: one a core
    #[arg(long, value_name = "N|auto", default_value = "auto", value_parser = workers)]
    pub workers: WorkerCount,
    /// Start nothing new after this long (default: 10, or when all --tasks are done)
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub seconds: Option<f64>,
    /// So many tasks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub tasks: Option<u64>,
    /// Another number makes another load of the same kind
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
    /// As one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub(super) enum ImportCommand {
    /// A workflow of WfCommons (WfFormat 1.5), as a manifest in JSON Lines on stdout
    Wfformat {
        file: PathBuf,
        /// Nodes take so many times as long as the tasks did
        #[arg(long, value_name = "X", default_value = "1", value_parser = time_scale)]
        time_scale: f64,
        /// What the nodes do for that time
        #[arg(long, default_value = "sleep")]
        op: ImportedOp,
    },
}

/// What stands for a recorded task.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum ImportedOp {
    /// Wait
    Sleep,
    /// Burn a core
    Spin,
}

#[derive(Subcommand)]
pub(super) enum ResultsCommand {
    /// List nodes with their results: outcome, size, digest
    Ls {
        /// The run's number (default: the newest)
        #[arg(long)]
        run: Option<u64>,
        /// As JSON, one node a line
        #[arg(long)]
        json: bool,
    },
    /// Write a node's result to stdout
    Cat {
        node: String,
        /// The run's number (default: the newest that has the node)
        #[arg(long)]
        run: Option<u64>,
    },
    /// Write all results of a run as a table, a row a node
    Export {
        #[arg(long)]
        format: Format,
        /// The run's number (default: the newest)
        #[arg(long)]
        run: Option<u64>,
        /// Replaced when the table is complete; `-` is stdout, for jsonl and csv
        file: PathBuf,
    },
}

#[derive(Subcommand)]
pub(super) enum StoreCommand {
    /// What is in the store and what it takes on the disk; also while a run goes on
    Stat {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Read everything; what is damaged is named, put into quarantine, and computed again by the next run
    Verify {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Forget old runs, the results that no other run names, and what is in quarantine
    Gc {
        /// Keep so many of the newest runs
        #[arg(long, value_name = "N")]
        keep_runs: Option<usize>,
        /// Forget runs that started longer ago than this (12h, 30d)
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        older_than: Option<Duration>,
        /// Keep the newest runs whose values fit this size (500MB, 10GiB)
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        max_size: Option<u64>,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
    /// List all results
    Ls {
        #[arg(long, value_name = "BY", default_value = "size")]
        sort: Sort,
        /// As JSON, one result a line
        #[arg(long)]
        json: bool,
    },
}

/// The order of results in a list.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Sort {
    /// Largest first
    Size,
    /// Oldest first
    Age,
    /// Slowest first
    Duration,
    /// By the node's id
    Node,
}

#[derive(Subcommand)]
pub(super) enum ContextCommand {
    /// Write what is set at the end of a run, or after a node, as JSON
    Export {
        /// The run's number, or the node (default: the newest run)
        #[arg(value_name = "RUN|NODE")]
        of: Option<String>,
    },
}

#[derive(Subcommand)]
pub(super) enum ArtifactCommand {
    /// What a file is: format, shape, size, digest
    Info {
        file: PathBuf,
        /// raw, npy or jsonl (default: by the suffix)
        #[arg(long)]
        format: Option<String>,
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Make a file that can be mapped of the arrays in a pickle or a torch file; nothing in it is run
    #[command(after_help = IMPORT)]
    Import {
        /// A pickle with dicts, lists and numpy arrays, or what torch.save has written
        from: PathBuf,
        /// The file to make: .safetensors, or .npy for a single array
        to: PathBuf,
        /// A tensor each, even for vectors of one length, which make one matrix otherwise
        #[arg(long)]
        apart: bool,
        /// Replace TO if it exists
        #[arg(long)]
        force: bool,
        /// The Python interpreter; no package of it is needed
        #[arg(long, value_name = "PROGRAM", default_value = "python3")]
        python: String,
    },
}

const IMPORT: &str = "\
A dict of vectors of one length, like a cache of embeddings, becomes the matrix `vectors`, a row a key. Beside
OUT.safetensors is OUT.keys.jsonl then, where `lookup` finds the row of a key. Other arrays keep their keys as names,
with dots between. Text and single numbers go into the header. Exit code 3: the file asks for what is not
allowed, or is no whole pickle.";

/// When to use colours.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

impl Color {
    /// Tells whoever prints in colours; otherwise that decides by terminal and NO_COLOR.
    pub fn apply(self) {
        let wanted = match self {
            Color::Auto => return,
            Color::Always => true,
            Color::Never => false,
        };
        console::set_colors_enabled(wanted);
        console::set_colors_enabled_stderr(wanted);
    }
}

/// `None`: as many as there are cores.
#[derive(Clone, Copy)]
pub(super) struct WorkerCount(pub Option<usize>);

fn workers(text: &str) -> Result<WorkerCount, String> {
    if text == "auto" {
        return Ok(WorkerCount(None));
    }
    let count = worker_number(text).map(|count| WorkerCount(Some(count)));
    count.map_err(|_| "expected auto or a number from 1 to 10000".into())
}

fn worker_number(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|n| (1..=10_000).contains(n));
    count.ok_or_else(|| "expected a number from 1 to 10000".into())
}

fn preset(name: &str) -> Result<&'static Preset, String> {
    let known = PRESETS.map(|preset| preset.name).join(", ");
    Preset::from_name(name).ok_or_else(|| format!("expected one of {known}"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=1e6).contains(seconds));
    seconds.ok_or_else(|| "expected seconds, from 0.1 up".into())
}

fn time_scale(text: &str) -> Result<f64, String> {
    let scale = text.parse().ok().filter(|scale: &f64| scale.is_finite() && *scale >= 0.0);
    scale.ok_or_else(|| "expected a number from 0 up, like 0.01".into())
}

fn max_failures(text: &str) -> Result<MaxFailures, String> {
    let wrong = || "expected a number like 10 or a percentage like 5%".to_string();
    match text.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.parse().ok().filter(|p| (0.0..=100.0).contains(p));
            percent.map(MaxFailures::Percent).ok_or_else(wrong)
        }
        None => text.parse().map(MaxFailures::Count).map_err(|_| wrong()),
    }
}
