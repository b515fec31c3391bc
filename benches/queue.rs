//! The promise: handing something to the pool from any thread costs a fraction of a microsecond, also while the pool
//! works. Runs the tests of a known two-phase queue (PyLoop, phase 3.1.4: see `TESTS`) on ours and, beside it, on what
//! one would take otherwise. Every test checks that each submission ran once, and those of a thread in its order.
//!
//! `cargo bench --bench queue [-- TEST...]` prints medians of `REPEATS` repetitions, the queues taking turns.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel;
use crossbeam::queue::SegQueue;
use forkyard::bench::{Queue, Taken};
use parking_lot::{Mutex, ReentrantMutex};

const REPEATS: usize = 31;

/// Entries that the consumer works off before it looks up.
const TURN: usize = 128;

const TESTS: [(&str, fn()); 8] = [
    ("registration", registration),
    ("contention", contention),
    ("latency", latency),
    ("mixed", mixed),
    ("chain", chain),
    ("burst", burst),
    ("busy", busy),
    ("response", response),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    println!("a look at the clock takes {:.0} ns", clock_ns());
    for (name, test) in TESTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            test();
        }
    }
}

/// A submission: whose, and its number among theirs.
#[derive(Clone, Copy)]
struct Job {
    producer: u32,
    number: u32,
}

/// A queue: the consumer calls [`Inlet::drain`] with what to do for each.
trait Inlet: Default + Sync {
    const NAME: &str;
    /// What the consumer has in its hands.
    type Hand: Default;
    fn push(&self, job: Job);
    fn drain(&self, hand: &mut Self::Hand, most: usize, each: impl FnMut(Job)) -> usize;
}

#[derive(Default)]
struct Ours(Queue<Job>);

impl Inlet for Ours {
    const NAME: &str = "two-phase, sharded (ours)";
    type Hand = Taken<Job>;
    fn push(&self, job: Job) {
        black_box(self.0.push(job));
    }
    fn drain(&self, hand: &mut Taken<Job>, most: usize, each: impl FnMut(Job)) -> usize {
        self.0.drain(hand, most, each)
    }
}

/// The same with one lock for all.
#[derive(Default)]
struct OneLock(Queue<Job, 1>);

impl Inlet for OneLock {
    const NAME: &str = "two-phase, one lock";
    type Hand = Taken<Job, 1>;
    fn push(&self, job: Job) {
        black_box(self.0.push(job));
    }
    fn drain(&self, hand: &mut Taken<Job, 1>, most: usize, each: impl FnMut(Job)) -> usize {
        self.0.drain(hand, most, each)
    }
}

/// The lock is held while a turn's submissions run. (They may submit themselves.)
#[derive(Default)]
struct OnePhase(ReentrantMutex<RefCell<VecDeque<Job>>>);

impl Inlet for OnePhase {
    const NAME: &str = "one-phase";
    type Hand = ();
    fn push(&self, job: Job) {
        self.0.lock().borrow_mut().push_back(job);
    }
    fn drain(&self, (): &mut (), most: usize, mut each: impl FnMut(Job)) -> usize {
        let jobs = self.0.lock();
        let next = || jobs.borrow_mut().pop_front();
        std::iter::from_fn(next).take(most).map(&mut each).count()
    }
}

#[derive(Default)]
struct Segments(SegQueue<Job>);

impl Inlet for Segments {
    const NAME: &str = "crossbeam SegQueue";
    type Hand = ();
    fn push(&self, job: Job) {
        self.0.push(job);
    }
    fn drain(&self, (): &mut (), most: usize, each: impl FnMut(Job)) -> usize {
        std::iter::from_fn(|| self.0.pop()).take(most).map(each).count()
    }
}

struct Std(mpsc::Sender<Job>, Mutex<mpsc::Receiver<Job>>);

impl Default for Std {
    fn default() -> Std {
        let (sender, receiver) = mpsc::channel();
        Std(sender, Mutex::new(receiver))
    }
}

impl Inlet for Std {
    const NAME: &str = "std mpsc";
    type Hand = ();
    fn push(&self, job: Job) {
        self.0.send(job).expect("somebody receives");
    }
    fn drain(&self, (): &mut (), most: usize, each: impl FnMut(Job)) -> usize {
        self.1.lock().try_iter().take(most).map(each).count()
    }
}

struct Crossbeam(channel::Sender<Job>, channel::Receiver<Job>);

impl Default for Crossbeam {
    fn default() -> Crossbeam {
        let (sender, receiver) = channel::unbounded();
        Crossbeam(sender, receiver)
    }
}

impl Inlet for Crossbeam {
    const NAME: &str = "crossbeam channel";
    type Hand = ();
    fn push(&self, job: Job) {
        self.0.send(job).expect("somebody receives");
    }
    fn drain(&self, (): &mut (), most: usize, each: impl FnMut(Job)) -> usize {
        self.1.try_iter().take(most).map(each).count()
    }
}

/// Runs a test on every queue, the queues taking turns, and prints the median of each of its figures.
macro_rules! compare {
    ($title:expr, $units:expr, $test:ident $(, $arg:expr)*) => {
        compare!(@ $title, $units, $test, [$($arg),*], Ours, OneLock, OnePhase, Segments, Std, Crossbeam)
    };
    (@ $title:expr, $units:expr, $test:ident, $args:tt, $($queue:ty),+) => {{
        let names = [$(<$queue>::NAME),+];
        let mut seen: Vec<Vec<[f64; 4]>> = vec![Vec::new(); names.len()];
        for _ in 0..REPEATS {
            let mut at = 0;
            $(seen[at].push(compare!(@call $test, $queue, $args)); at += 1;)+
            assert_eq!(at, names.len());
        }
        table($title, $units, &names, &seen);
    }};
    (@call $test:ident, $queue:ty, [$($arg:expr),*]) => { $test::<$queue>($($arg),*) };
}

fn table(title: &str, units: [&str; 4], names: &[&str], seen: &[Vec<[f64; 4]>]) {
    println!("\n{title}");
    for (name, seen) in names.iter().zip(seen) {
        let figure = |at: usize| {
            let mut all: Vec<f64> = seen.iter().map(|figures| figures[at]).collect();
            all.sort_by(f64::total_cmp);
            let (median, from, to) = (all[all.len() / 2], all[all.len() / 10], all[all.len() * 9 / 10]);
            let shown =
                (!units[at].is_empty()).then(|| format!("{median:9.3} {} ({from:.3}-{to:.3})", units[at]));
            shown.unwrap_or_default()
        };
        println!("  {name:26} {}", (0..4).map(figure).collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// Checks that every submission of every producer came once and in its order.
struct Check(Vec<u32>);

impl Check {
    fn of(producers: usize) -> Check {
        Check(vec![0; producers])
    }
    fn take(&mut self, job: Job) {
        let next = &mut self.0[job.producer as usize];
        assert_eq!(job.number, *next, "a submission is lost, comes twice, or out of order");
        *next += 1;
    }
    fn is_complete(&self, each: usize) {
        assert!(self.0.iter().all(|seen| *seen as usize == each));
    }
}

/// `threads` start together and each submits so many, every one of them clocked or none; meanwhile `consume` runs on
/// this thread. The first start and the last end, and what each submission took.
fn submit<Q: Inlet>(
    queue: &Q,
    (threads, each, clocked): (usize, usize, bool),
    consume: impl FnOnce(),
) -> ((Instant, Instant), Vec<u64>) {
    let start = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let producers: Vec<_> = (0..threads as u32)
            .map(|producer| {
                let start = &start;
                scope.spawn(move || {
                    let mut took = Vec::with_capacity(if clocked { each } else { 0 });
                    start.wait();
                    let begun = Instant::now();
                    for number in 0..each as u32 {
                        if clocked {
                            let before = Instant::now();
                            queue.push(Job { producer, number });
                            took.push(before.elapsed().as_nanos() as u64);
                        } else {
                            queue.push(Job { producer, number });
                        }
                    }
                    (begun, Instant::now(), took)
                })
            })
            .collect();
        start.wait();
        consume();
        let ends: Vec<_> = producers.into_iter().map(|p| p.join().expect("a producer ends")).collect();
        let from = ends.iter().map(|(begun, ..)| *begun).min().expect("there are some");
        let to = ends.iter().map(|(_, end, _)| *end).max().expect("there are some");
        ((from, to), ends.into_iter().flat_map(|(.., took)| took).collect())
    })
}

fn drain_all<Q: Inlet>(queue: &Q, threads: usize, each: usize, mut work: impl FnMut()) -> Duration {
    let (mut hand, mut check, mut seen) = (Q::Hand::default(), Check::of(threads), 0);
    let start = Instant::now();
    while seen < threads * each {
        let now = queue.drain(&mut hand, TURN, |job| {
            check.take(job);
            work();
        });
        seen += now;
        if now == 0 {
            thread::yield_now();
        }
    }
    let took = start.elapsed();
    check.is_complete(each);
    took
}

fn millions(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64() / 1e6
}

fn register<Q: Inlet>(each: usize) -> [f64; 4] {
    let queue = Q::default();
    let ((from, to), _) = submit(&queue, (10, each, false), || ());
    drain_all(&queue, 10, each, || ());
    let queue = Q::default();
    let (_, clocked) = submit(&queue, (10, each, true), || ());
    drain_all(&queue, 10, each, || ());
    let mean = clocked.iter().sum::<u64>() as f64 / clocked.len() as f64;
    let most = *clocked.iter().max().expect("there are some") as f64;
    [millions(10 * each, to - from), mean / 1e3, most / 1e3, 0.0]
}

fn registration() {
    let units = ["M/s", "us mean", "us max", ""];
    compare!("registration: 10 threads x 1,000, nobody consumes", units, register, 1_000);
    compare!("registration: 10 threads x 5,000, nobody consumes", units, register, 5_000);
}

fn contend<Q: Inlet>() -> [f64; 4] {
    let queue = Q::default();
    let ((from, to), _) = submit(&queue, (10, 5_000, false), || ());
    let drained = drain_all(&queue, 10, 5_000, || ());
    [drained.as_secs_f64() * 1e3, millions(50_000, drained), millions(50_000, to - from), 0.0]
}

fn contention() {
    let units = ["ms", "M/s drained", "M/s registered", ""];
    compare!("high contention: the 50,000 of 10 threads are drained", units, contend);
}

fn clock<Q: Inlet>() -> [f64; 4] {
    let queue = Q::default();
    let (_, mut took) = submit(&queue, (5, 1_000, true), || ());
    drain_all(&queue, 5, 1_000, || ());
    took.sort_unstable();
    let mean = took.iter().sum::<u64>() as f64 / took.len() as f64;
    let quantile = |q: f64| took[(took.len() as f64 * q) as usize] as f64 / 1e3;
    [mean / 1e3, quantile(0.5), quantile(0.95), quantile(0.99)]
}

fn latency() {
    let units = ["us mean", "p50", "p95", "p99"];
    compare!("latency of a submission: 5 threads x 1,000, each clocked", units, clock);
}

/// From the first submission to the last callback: the threads are there already.
fn mix<Q: Inlet>() -> [f64; 4] {
    let queue = Q::default();
    let mut last = None;
    let (from, _) = submit(&queue, (10, 2_000, false), || {
        drain_all(&queue, 10, 2_000, || ());
        last = Some(Instant::now());
    });
    let took = last.expect("it was set") - from.0;
    [millions(40_000, took), took.as_secs_f64() * 1e3, 0.0, 0.0]
}

fn mixed() {
    compare!("mixed: 10 writers x 2,000 while one drains", ["M operations/s", "ms", "", ""], mix);
}

fn chain_of<Q: Inlet>(links: u32) -> [f64; 4] {
    let (queue, mut hand, mut seen) = (Q::default(), Q::Hand::default(), 0);
    let start = Instant::now();
    queue.push(Job { producer: 0, number: 0 });
    while seen < links {
        queue.drain(&mut hand, TURN, |job| {
            assert_eq!(job.number, seen);
            seen += 1;
            if seen < links {
                queue.push(Job { producer: 0, number: seen });
            }
        });
    }
    [start.elapsed().as_nanos() as f64 / f64::from(links), 0.0, 0.0, 0.0]
}

fn chain() {
    compare!("chain: 50,000 on one thread, each submits the next", ["ns each", "", "", ""], chain_of, 50_000);
}

fn burst_of<Q: Inlet>(count: usize) -> [f64; 4] {
    let queue = Q::default();
    for number in 0..count as u32 {
        queue.push(Job { producer: 0, number });
    }
    let took = drain_all(&queue, 1, count, || ());
    [took.as_nanos() as f64 / count as f64, millions(count, took), 0.0, 0.0]
}

fn burst() {
    let units = ["ns each", "M/s", "", ""];
    compare!("burst: 10,000 submitted, then drained", units, burst_of, 10_000);
    compare!("burst: 50,000 submitted, then drained", units, burst_of, 50_000);
}

fn spin(wait: Duration) {
    let start = Instant::now();
    while start.elapsed() < wait {
        std::hint::spin_loop();
    }
}

/// What two producers wait for while the consumer is busy with callbacks that take some time.
fn busy_for<Q: Inlet>(callback: Duration) -> [f64; 4] {
    const EACH: usize = 500;
    let queue = Q::default();
    let mut drained = Duration::ZERO;
    let work = || {
        if !callback.is_zero() {
            spin(callback)
        }
    };
    let (_, mut took) = submit(&queue, (2, EACH, true), || drained = drain_all(&queue, 2, EACH, work));
    took.sort_unstable();
    let quantile = |q: f64| took[(took.len() as f64 * q) as usize] as f64 / 1e3;
    [quantile(0.5), quantile(0.99), quantile(0.999), drained.as_secs_f64() * 1e3]
}

fn busy() {
    let units = ["us p50", "p99", "p99.9", "ms drained"];
    for us in [0, 1, 10] {
        let title = format!("submission by 2 threads while callbacks of {us} us run");
        compare!(&title, units, busy_for, Duration::from_micros(us));
    }
}

/// An idle consumer, woken by the first submission; beside it a thread that is only woken.
fn response() {
    const CALLBACKS: u32 = 100;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        bare.extend(responses(
            CALLBACKS,
            &AtomicBool::new(false),
            |flag, _| {
                flag.store(true, std::sync::atomic::Ordering::Release);
                true
            },
            |flag, each| {
                while !flag.swap(false, std::sync::atomic::Ordering::Acquire) {
                    thread::park();
                }
                each();
            },
        ));
        let queue = Queue::<Job>::default();
        let (mut taken, mut check) = (Taken::default(), Check::of(1));
        ours.extend(responses(
            CALLBACKS,
            &queue,
            |queue, number| queue.push(Job { producer: 0, number }),
            |queue, each| {
                loop {
                    let worked = queue.drain(&mut taken, TURN, |job| {
                        each();
                        check.take(job);
                    });
                    if worked > 0 {
                        return;
                    }
                    if queue.may_sleep() {
                        thread::park();
                        queue.is_awake();
                    }
                }
            },
        ));
        check.is_complete(CALLBACKS as usize);
    }
    println!("\nresponse of an idle consumer: from the submission to its start, 100 of them 3 ms apart");
    for (name, mut took) in [(Ours::NAME, ours), ("a bare futex", bare)] {
        took.sort_unstable();
        let at = |q: f64| took[(took.len() as f64 * q) as usize] as f64 / 1e3;
        let mean = took.iter().sum::<u64>() as f64 / took.len() as f64 / 1e3;
        let (p50, p99, min) = (at(0.5), at(0.99), at(0.0));
        println!("  {name:26} mean {mean:7.2} us  p50 {p50:7.2}  p99 {p99:7.2}  min {min:7.2}");
    }
}

/// Has a consumer of its own thread woken so many times; how long each took. `submit` says whether to wake it,
/// `consume` waits for one and calls its argument as soon as that runs.
fn responses<S: Sync>(
    count: u32,
    shared: &S,
    submit: impl Fn(&S, u32) -> bool,
    mut consume: impl FnMut(&S, &mut dyn FnMut()) + Send,
) -> Vec<u64> {
    let (origin, begun) = (Instant::now(), AtomicU64::new(0));
    let now = || origin.elapsed().as_nanos() as u64;
    thread::scope(|scope| {
        let consumer = scope.spawn(|| {
            for _ in 0..count {
                consume(shared, &mut || begun.store(now(), Relaxed));
            }
        });
        (0..count)
            .map(|number| {
                // What is measured is an idle consumer.
                thread::sleep(Duration::from_millis(3));
                begun.store(0, Relaxed);
                let before = now();
                if submit(shared, number) {
                    consumer.thread().unpark();
                }
                loop {
                    match begun.load(Relaxed) {
                        0 => thread::yield_now(),
                        at => break at - before,
                    }
                }
            })
            .collect()
    })
}

fn clock_ns() -> f64 {
    let start = Instant::now();
    for _ in 0..100_000 {
        black_box(Instant::now());
    }
    start.elapsed().as_nanos() as f64 / 1e5
}
