//! What tasks cost: processor time, and the most private memory that their process held. Knows no task: it measures from
//! one reading to the next.

use std::fs::File;
use std::os::unix::fs::FileExt;

use forkyard_shared::protocol::{Cost, Private};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// A task that took less than this is not asked for its memory: asking costs some 20 us.
const MEMORY_FROM_NS: u64 = 3_000_000;

/// Measures one process.
pub(crate) struct Meter {
    clock: Option<ClockId>,
    /// Whether what it has started and waited for is its own doing.
    counts_children: bool,
    schedule: Option<File>,
    status: Option<File>,
    peaks: Option<File>,
    /// What it had from the process that forked it: nobody pays for that twice.
    inherited: u64,
    /// Pages of files that it had mapped when it was asked before.
    files: u64,
    cpu_ns: u64,
    delayed_ns: u64,
}

impl Meter {
    /// Measures this process and what it starts.
    pub fn of_this() -> Meter {
        Meter::new(ClockId::CLOCK_PROCESS_CPUTIME_ID.into(), std::process::id(), true)
    }

    /// Measures another process, which has just been forked.
    pub fn of(pid: u32) -> Meter {
        Meter::new(clock_getcpuclockid(Pid::from_raw(pid as i32)).ok(), pid, false)
    }

    fn new(clock: Option<ClockId>, pid: u32, counts_children: bool) -> Meter {
        let schedule = File::open(format!("/proc/{pid}/schedstat")).ok();
        let status = File::open(format!("/proc/{pid}/status")).ok();
        let peaks = File::options().write(true).open(format!("/proc/{pid}/clear_refs")).ok();
        let mut meter = Meter {
            clock,
            counts_children,
            schedule,
            status,
            peaks,
            inherited: 0,
            files: 0,
            cpu_ns: 0,
            delayed_ns: 0,
        };
        meter.inherited = meter.held().map_or(0, |held| held.now);
        meter.start();
        meter
    }

    /// What comes next is measured on its own.
    pub fn start(&mut self) {
        self.cpu_ns = self.cpu_now();
        self.delayed_ns = self.delayed_now();
    }

    /// A task has ended that was too short to be asked: all of its time was the processor's.
    pub fn skip(&mut self, duration_ns: u64) {
        self.cpu_ns += duration_ns;
    }

    /// What a task cost that has ended after so long.
    pub fn read(&mut self, duration_ns: u64) -> Cost {
        let now = self.cpu_now();
        let cpu_ns = now.saturating_sub(std::mem::replace(&mut self.cpu_ns, now));
        let delayed = self.delayed_now();
        let delayed_ns = delayed.saturating_sub(std::mem::replace(&mut self.delayed_ns, delayed));
        let held = if duration_ns >= MEMORY_FROM_NS { self.held() } else { None };
        let files_before = std::mem::replace(&mut self.files, held.as_ref().map_or(0, |held| held.files));
        if held.is_some() {
            // The next peak starts from here. Without this a peak is that of all tasks so far.
            self.peaks.as_ref().and_then(|peaks| peaks.write_at(b"5", 0).ok());
        }
        let own = |bytes: u64| bytes.saturating_sub(self.inherited);
        let private = held.map(|held| {
            // Pages of files that the kernel took back meanwhile, because memory is short, are not private ones.
            let taken_back = files_before.saturating_sub(held.files);
            Private { peak: own(held.peak.saturating_sub(taken_back).max(held.now)), rest: own(held.now) }
        });
        Cost { cpu_ns, delayed_ns, private }
    }

    /// The same of a task before which nobody said that it starts: all of its time is taken for the processor's.
    pub fn guess(&mut self, duration_ns: u64) -> Cost {
        Cost { cpu_ns: duration_ns, delayed_ns: 0, ..self.read(duration_ns) }
    }

    fn cpu_now(&self) -> u64 {
        let clock = self.clock.and_then(|clock| clock_gettime(clock).ok());
        let own = clock.map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64);
        if !self.counts_children {
            return own;
        }
        let waited_for = getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |usage| {
            let [user, system] = [usage.user_time(), usage.system_time()];
            ((user.tv_sec() + system.tv_sec()) * 1_000_000 + user.tv_usec() + system.tv_usec()) as u64 * 1000
        });
        own + waited_for
    }

    /// For how long its main thread was ready to run and did not.
    fn delayed_now(&self) -> u64 {
        let mut text = [0; 128];
        let len = self.schedule.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        delayed(&String::from_utf8_lossy(&text[..len])).unwrap_or(0)
    }

    fn held(&self) -> Option<Held> {
        let mut text = [0; 4096];
        let len = self.status.as_ref()?.read_at(&mut text, 0).ok()?;
        Held::parse(&String::from_utf8_lossy(&text[..len]))
    }
}

/// Out of `/proc/PID/schedstat`: nanoseconds that it ran, that it waited for a core, and how often it got one.
fn delayed(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

/// Private memory in bytes, with page tables.
#[derive(Debug, PartialEq)]
struct Held {
    now: u64,
    peak: u64,
    /// Pages of files that it has mapped.
    files: u64,
}

impl Held {
    /// Out of `/proc/PID/status`. The kernel keeps the peak of all pages only; those of files stay mapped, so what has
    /// gone since the peak was private.
    fn parse(status: &str) -> Option<Held> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
        };
        let now = bytes("RssAnon:")? + bytes("VmPTE:")?;
        let gone = bytes("VmHWM:")?.saturating_sub(bytes("VmRSS:")?);
        let files = bytes("RssFile:")? + bytes("RssShmem:").unwrap_or(0);
        Some(Held { now, peak: now + gone, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_freed_again_counts_at_its_peak() {
        let status =
            "VmHWM:\t 900 kB\nVmRSS:\t 500 kB\nRssAnon:\t 100 kB\nRssFile:\t 400 kB\nVmPTE:\t 8 kB\n";
        assert_eq!(Held::parse(status), Some(Held { now: 108 << 10, peak: 508 << 10, files: 400 << 10 }));
        assert_eq!(Held::parse("VmRSS:\t 500 kB\n"), None, "a kernel that does not tell");
    }

    #[test]
    fn waiting_for_a_core_is_told_from_other_waiting() {
        assert_eq!(delayed("1500 250 7\n"), Some(250));
        assert_eq!(delayed(""), None, "a kernel that does not tell");
    }

    /// Alone in a process of its own: what other tests take and give back would be measured too.
    #[test]
    fn work_and_memory_are_seen_and_not_seen_twice() {
        const ALONE: &str = "FORKYARD_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let mut this = std::process::Command::new(std::env::current_exe().expect("this program"));
            let this = this.args(["--exact", "meter::tests::work_and_memory_are_seen_and_not_seen_twice"]);
            let ended = this.env(ALONE, "1").output().expect("a process of its own");
            let said = String::from_utf8_lossy(&ended.stdout);
            assert!(ended.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let mut meter = Meter::of_this();
        let mut held: Vec<u8> = Vec::with_capacity(64 << 20);
        held.resize(64 << 20, 1);
        std::hint::black_box(&held);
        drop(held);
        let cost = meter.read(MEMORY_FROM_NS);
        // The kernel counts pages in portions.
        assert!(cost.private.is_some_and(|private| private.peak >= 63 << 20), "{cost:?}");
        assert!(cost.cpu_ns > 0);
        let quick = meter.read(MEMORY_FROM_NS - 1);
        assert_eq!(quick.private, None);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let next = meter.read(MEMORY_FROM_NS);
        assert!(next.private.is_some_and(|private| private.peak < 32 << 20), "{next:?}");
    }
}
