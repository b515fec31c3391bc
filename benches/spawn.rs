//! The promise: starting a command, keeping its outputs and looking for what it left costs little more than the kernel
//! takes to start it. Beside it stands the floor, a bare `posix_spawn` with two pipes. What a whole run makes of it on all
//! cores is the row `exec` of `scripts/compare`.

mod bare_spawn;

use std::fs::File;
use std::io;

use criterion::Criterion;
use forkyard_worker::bench;

const PROGRAM: &str = "/bin/true";

fn main() -> io::Result<()> {
    let nothing = File::open("/dev/null")?;
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("spawn");
    group.bench_function("floor", |b| {
        b.iter(|| bare_spawn::run(c"/bin/true", &nothing).expect("it starts"));
    });
    group.bench_function("command", |b| {
        b.iter(|| assert!(bench::run_command(PROGRAM).expect("it starts"), "{PROGRAM} fails"));
    });
    group.finish();
    criterion.final_summary();
    Ok(())
}
