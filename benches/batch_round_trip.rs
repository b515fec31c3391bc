//! The promise: sending a batch of tasks to a worker costs little more than moving its bytes. Beside
//! it stands the floor, the same bytes through a bare pair of sockets. An answer comes sooner than anyone
//! falls asleep: what a sleep costs is the `round_trip` of `floors.rs`.

mod echo;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use forkyard_shared::codec::{self, Frame};
use forkyard_shared::ids::{NodeId, OpId};
use forkyard_shared::protocol::{Batch, Task};
use forkyard_shared::sys;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::ForkResult;

use echo::Echo;

const TASKS: u32 = 64;

/// As a worker does: it must not take a core from the bench beside it.
const SPIN: Duration = Duration::from_micros(30);

fn main() -> io::Result<()> {
    // Before Criterion, which starts threads.
    let echo = Echo::fork(SPIN)?;
    let bare = bare_echo()?;

    let batch = batch();
    let bytes = codec::encode(&batch);
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("batch_round_trip");
    group.throughput(Throughput::Elements(TASKS.into()));
    group.bench_function("floor", |b| b.iter(|| bare_round_trip(&bare, &bytes)));
    group.bench_function("batch", |b| {
        b.iter(|| {
            let back = echo.round_trip(Frame(codec::encode(&batch)));
            codec::decode::<Batch>(&back.0).expect("the batch comes back as it went")
        });
    });
    group.finish();
    criterion.final_summary();
    Ok(())
}

/// What a worker gets when there are only no-ops to run.
fn batch() -> Batch {
    let task = |node| Task {
        context: 0,
        reads: Default::default(),
        artifact_results: Vec::new(),
        plain: false,
        alone: false,
        node: NodeId(node),
        op: OpId(0),
        attempt: 1,
        params: Vec::new(),
        artifacts: Vec::new(),
    };
    Batch { number: 1, slot: 0, tasks: (0..TASKS).map(task).collect() }
}

/// A process that sends every packet back, and our end of the socket to it.
fn bare_echo() -> io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    match sys::fork()? {
        ForkResult::Parent { .. } => Ok(ours),
        ForkResult::Child => {
            drop(ours);
            let mut buffer = [0; PACKET_MAX_BYTES];
            while let Ok(len @ 1..) = receive(&theirs, &mut buffer) {
                if send(theirs.as_raw_fd(), &buffer[..len], MsgFlags::empty()).is_err() {
                    break;
                }
            }
            sys::exit_now(0)
        }
    }
}

const PACKET_MAX_BYTES: usize = 4096;

fn bare_round_trip(socket: &OwnedFd, bytes: &[u8]) -> usize {
    let mut buffer = [0; PACKET_MAX_BYTES];
    send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).expect("the echo takes a packet");
    receive(socket, &mut buffer).expect("the echo answers")
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> nix::Result<usize> {
    let start = Instant::now();
    while start.elapsed() < SPIN {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN) => std::hint::spin_loop(),
            other => return other,
        }
    }
    recv(socket.as_raw_fd(), buffer, MsgFlags::empty())
}
