//! The promises: from `submit` to the result takes microseconds while the pool is awake, little more than a wake-up when
//! it is not, and independent nodes go through by the hundred thousand. Beside it stands what a bare pipe takes.
//!
//! `cargo bench --bench pool [-- TEST...]`; a process of its own for each test, because a process has one pool.

use std::io::{Read, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use forkyard::{Node, Ops, Output, Pool, Task, Workers};
use forkyard_shared::sys;
use nix::unistd::{ForkResult, pipe};

const TESTS: [(&str, fn()); 5] = [
    ("awake", awake),
    ("without_looking", without_looking),
    ("idle", idle),
    ("one_by_one", one_by_one),
    ("batches", batches),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if let [test] = wanted.as_slice()
        && std::env::var_os("POOL_BENCH").is_some()
    {
        return TESTS.iter().find(|(name, _)| name == test).expect("a test").1();
    }
    let program = std::env::current_exe().expect("we are a program");
    for (name, _) in TESTS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name)) {
        let status = Command::new(&program).arg(name).env("POOL_BENCH", "1").status();
        assert!(status.is_ok_and(|status| status.success()), "{name} fails");
    }
}

fn init() {
    forkyard::init(Ops::standard().versioned("answer", 1, |_: &Task| Ok(Output::null())));
}

fn answer() -> Node {
    Node::new("answer")
}

/// Microseconds: the median, and what one of a hundred exceeds.
fn quantiles(mut took: Vec<Duration>) -> String {
    took.sort();
    let at = |q: f64| took[(took.len() as f64 * q) as usize].as_secs_f64() * 1e6;
    format!("p50 {:7.2} us  p99 {:7.2} us", at(0.5), at(0.99))
}

/// A process that sends every byte back; forked before there are threads.
struct Echo {
    to: std::fs::File,
    from: std::fs::File,
}

impl Echo {
    fn fork() -> Echo {
        let ((their_in, to), (from, their_out)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
        match sys::fork().expect("a process") {
            ForkResult::Parent { .. } => Echo { to: to.into(), from: from.into() },
            ForkResult::Child => {
                drop((to, from));
                let (mut from, mut to) = (std::fs::File::from(their_in), std::fs::File::from(their_out));
                let mut byte = [0];
                while from.read(&mut byte).is_ok_and(|read| read > 0) && to.write_all(&byte).is_ok() {}
                sys::exit_now(0)
            }
        }
    }

    /// Asleep until woken, both of them.
    fn round_trip(&mut self) -> Duration {
        let start = Instant::now();
        self.to.write_all(&[1]).expect("the echo lives");
        self.from.read_exact(&mut [0]).expect("the echo answers");
        start.elapsed()
    }
}

fn round_trip(pool: &Pool) -> Duration {
    let start = Instant::now();
    pool.submit(answer()).expect("the pool is open").wait().expect("the op succeeds");
    start.elapsed()
}

/// One after the other, by one thread.
fn awake() {
    init();
    in_turn("awake          ", Pool::builder());
}

/// The same where everybody sleeps at once: what looking for a moment is worth.
fn without_looking() {
    init();
    in_turn("without looking", Pool::builder().spin(Duration::ZERO));
}

fn in_turn(name: &str, builder: forkyard::Builder) {
    let mut echo = Echo::fork();
    let pool = builder.workers(Workers::Fixed(1)).start().expect("a pool");
    for _ in 0..2_000 {
        round_trip(&pool);
    }
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        ours.extend((0..2_000).map(|_| round_trip(&pool)));
        bare.extend((0..500).map(|_| echo.round_trip()));
    }
    println!("submit to result, {name}  {}", quantiles(ours));
    println!("  a bare pipe there and back       {}", quantiles(bare));
}

/// After a second in which nothing happened.
fn idle() {
    init();
    let mut echo = Echo::fork();
    let pool = Pool::builder().workers(Workers::Fixed(1)).start().expect("a pool");
    round_trip(&pool);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..12 {
        thread::sleep(Duration::from_secs(1));
        ours.push(round_trip(&pool));
        thread::sleep(Duration::from_secs(1));
        bare.push(echo.round_trip());
    }
    println!("submit to result, after a second of idleness  {}", quantiles(ours));
    println!("  a bare pipe there and back                  {}", quantiles(bare));
}

/// Nodes a second, each in a message of its own.
fn one_by_one() {
    init();
    rate("one by one", Pool::builder().batch(1), 200_000);
}

fn batches() {
    init();
    rate("in batches", Pool::builder(), 1_000_000);
}

fn rate(name: &str, builder: forkyard::Builder, nodes: usize) {
    let pool = builder.workers(Workers::Fixed(2)).bound(nodes).start().expect("a pool");
    pool.submit_many((0..1_000).map(|_| answer())).expect("open").iter().for_each(|t| drop(t.wait()));
    let mut rates = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        let tickets = pool.submit_many((0..nodes).map(|_| answer())).expect("the pool is open");
        tickets.iter().for_each(|ticket| drop(ticket.wait().expect("the op succeeds")));
        rates.push(nodes as f64 / start.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    println!("independent nodes {name}: {:.0} nodes/s ({:.0}-{:.0})", rates[2], rates[0], rates[4]);
}
