//! The promise: a worker is forked in microseconds, whatever is mapped. A process forks, its child ends at once, it waits:
//! with a file of 256 MiB mapped and populated, as artifacts are, and with none, which is the floor.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};

use criterion::Criterion;
use forkyard_shared::mapping::Mapping;
use forkyard_shared::sys;
use nix::sys::wait::waitpid;
use nix::unistd::ForkResult;

const MAPPED_BYTES: u64 = 256 << 20;

fn main() -> io::Result<()> {
    let file = tempfile::tempfile()?;
    file.set_len(MAPPED_BYTES)?;
    // Before Criterion, which starts threads.
    let (mut bare, mut mapped) = (Zygote::start(None)?, Zygote::start(Some(&file))?);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("fork");
    group.bench_function("floor", |b| b.iter(|| bare.fork().expect("it forks")));
    group.bench_function("with 256 MiB mapped", |b| b.iter(|| mapped.fork().expect("it forks")));
    group.finish();
    criterion.final_summary();
    Ok(())
}

/// A process that forks when it is told to, and says when the child has ended.
struct Zygote {
    order: PipeWriter,
    done: PipeReader,
}

impl Zygote {
    fn start(file: Option<&File>) -> io::Result<Zygote> {
        let ((mut orders, order), (done, mut say)) = (io::pipe()?, io::pipe()?);
        match sys::fork()? {
            ForkResult::Parent { .. } => Ok(Zygote { order, done }),
            ForkResult::Child => {
                // The bench's end is noticed only when ours is the last copy.
                drop((order, done));
                let mapping = file.map(Mapping::of).transpose();
                if let Ok(Some(mapping)) = &mapping {
                    mapping.populate();
                }
                let mut byte = [0];
                while matches!(orders.read(&mut byte), Ok(1))
                    && fork_and_wait().and_then(|()| say.write_all(&byte)).is_ok()
                {}
                sys::exit_now(0)
            }
        }
    }

    fn fork(&mut self) -> io::Result<()> {
        self.order.write_all(&[1])?;
        self.done.read_exact(&mut [0])
    }
}

fn fork_and_wait() -> io::Result<()> {
    match sys::fork()? {
        ForkResult::Child => sys::exit_now(0),
        ForkResult::Parent { child } => Ok(waitpid(child, None).map(drop)?),
    }
}
