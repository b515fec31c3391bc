//! Fence 2 of 2: system calls that no safe library wraps.

#![expect(unsafe_code, reason = "raw system calls are this file's purpose")]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::{ForkResult, Pid};

use crate::kernel;
use crate::protocol::End;

/// Forks this process, which must have one thread.
///
/// # Panics
/// When another thread exists: the child would inherit locks that nobody will ever release.
pub fn fork() -> io::Result<ForkResult> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    assert_eq!(threads, 1, "BUG: fork in a process of {threads} threads");
    // SAFETY: with one thread, the child's memory is consistent: no lock is held by a thread that
    // does not exist there. The standard library's and the allocator's state is that of this thread.
    Ok(unsafe { nix::unistd::fork() }?)
}

/// Ends this process at once: no destructor, no exit handler of the parent's image runs.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` never returns and touches no memory of the process.
    unsafe { libc::_exit(status) }
}

/// A descriptor of process `pid`, which becomes readable when it ends. If it is not a child of the caller that has
/// not been waited for, the number may belong to a stranger: then look at the process once you have this.
pub fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal to the process of a descriptor, and to no other: not even when its number was given away.
pub fn pidfd_send_signal(process: &OwnedFd, signal: Signal) -> io::Result<()> {
    let (fd, signal) = (process.as_raw_fd(), signal as i32);
    // SAFETY: the call takes a descriptor, which `process` keeps open, and two integers; no siginfo is passed.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets a process of this user have as many processes as it could allow itself: its soft limit becomes the hard one.
pub fn raise_process_limit(pid: Pid) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for a limit; no new one is given.
    let got = unsafe { libc::prlimit(pid.as_raw(), libc::RLIMIT_NPROC, std::ptr::null(), &mut limit) };
    Errno::result(got)?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid limit; the old one is not asked for.
    let set = unsafe { libc::prlimit(pid.as_raw(), libc::RLIMIT_NPROC, &limit, std::ptr::null_mut()) };
    Ok(Errno::result(set).map(drop)?)
}

/// Starts a program that gets these descriptors as its 3rd, 4th, ..., and that the kernel kills when this process, which
/// must have one thread, ends. It gains no privileges.
pub fn spawn_with(mut command: Command, fds: &[BorrowedFd]) -> io::Result<Child> {
    use std::os::unix::process::CommandExt;
    let (parent, count) = (nix::unistd::getpid(), fds.len() as i32);
    // Past the places where they are to go, so that none is overwritten before it is copied.
    let from = fds.iter().map(|fd| nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3 + count)));
    let from: Vec<i32> = from.collect::<nix::Result<_>>()?;
    let copies = from.clone();
    let prepare = move || {
        for (at, fd) in copies.iter().enumerate() {
            place(*fd, 3 + at as i32)?;
        }
        nix::sys::prctl::set_no_new_privs()?;
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // A parent that had ended before sends nothing any more.
        if nix::unistd::getppid() != parent {
            return Err(Errno::ESRCH.into());
        }
        Ok(())
    };
    // SAFETY: between fork and exec, the closure makes system calls that are async-signal-safe, and reads memory that
    // was allocated before.
    unsafe { command.pre_exec(prepare) };
    let child = command.spawn();
    for fd in from {
        // SAFETY: the kernel made these descriptors for us above; nobody else has them.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    child
}

/// Gives a descriptor a number, which stays over an exec.
fn place(fd: i32, number: i32) -> nix::Result<()> {
    // SAFETY: the call takes two integers. It is made in a child that is about to become another program.
    Errno::result(unsafe { libc::dup2(fd, number) }).map(drop)
}

/// Waits for a child of ours: how it ended, unless somebody has waited for it before.
pub fn wait_for(child: Pid) -> Option<End> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the status of one child.
        let pid = unsafe { libc::waitpid(child.as_raw(), &mut status, 0) };
        match pid {
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return None,
            _ => return Some(end_of(status)),
        }
    }
}

fn end_of(status: i32) -> End {
    if libc::WIFEXITED(status) {
        End::Exit(libc::WEXITSTATUS(status))
    } else {
        End::Signal(libc::WTERMSIG(status))
    }
}

/// A child that has ended and how, if there is one. (The wrapper in nix loses children that a
/// real-time signal killed.)
pub fn wait_any() -> Option<(Pid, End)> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the status of one child.
    let pid = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) };
    (pid > 0).then(|| (Pid::from_raw(pid), end_of(status)))
}

/// Asks for large pages for memory that is about to be filled, if that is so much that it pays: whoever reads here and
/// there then waits once and not twice. A hint, which the kernel may ignore.
pub fn prefer_large_pages<T>(memory: &mut [std::mem::MaybeUninit<T>]) {
    const PAYS_FROM_BYTES: usize = 8 << 20;
    const PAGE_BYTES: usize = 4096;
    let range = memory.as_mut_ptr_range();
    let (start, end) =
        (range.start.addr().next_multiple_of(PAGE_BYTES), range.end.addr() / PAGE_BYTES * PAGE_BYTES);
    if end.saturating_sub(start) >= PAYS_FROM_BYTES {
        let first = range.start.with_addr(start).cast();
        // SAFETY: the range lies within `memory`, which is ours alone; this advice changes nothing of what is in it.
        unsafe { libc::madvise(first, end - start, libc::MADV_HUGEPAGE) };
    }
}

/// Nanoseconds of CLOCK_MONOTONIC, which all processes of the machine share.
pub fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .expect("CLOCK_MONOTONIC exists on Linux");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Sends one packet with descriptors beside it.
pub fn send_packet(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd]) -> io::Result<()> {
    let raw: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let io = [IoSlice::new(bytes)];
    retry(|| sendmsg::<()>(socket.as_raw_fd(), &io, control, MsgFlags::MSG_NOSIGNAL, None))?;
    Ok(())
}

/// The longest packet that [`receive_packet`] takes.
const PACKET_MAX_BYTES: usize = 64 << 10;

/// Waits for one packet and its descriptors; `None` when the other end is closed for good.
pub fn receive_packet(socket: &OwnedFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; PACKET_MAX_BYTES];
    let mut control = nix::cmsg_space!([i32; 4]);
    let mut fds = Vec::new();
    let len = {
        let mut io = [IoSliceMut::new(&mut bytes)];
        let message = loop {
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(socket.as_raw_fd(), &mut io, Some(&mut control), flags) {
                Err(Errno::EINTR) => continue,
                other => break other?,
            }
        };
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just installed these descriptors for this message; each is
                // wrapped exactly once.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        message.bytes
    };
    if len == 0 {
        return Ok(None);
    }
    bytes.truncate(len);
    Ok(Some((bytes, fds)))
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

/// A mapping that SIGBUS may strike, because its file can shrink.
struct Guarded {
    start: usize,
    end: usize,
    struck: AtomicBool,
}

static GUARDED: OnceLock<Vec<Guarded>> = OnceLock::new();

/// From now on a SIGBUS inside `mappings` no longer kills the process: the rest of the mapping reads
/// as zeros, and [`mapping_struck`] says so. The caller must throw away what it computed.
///
/// The mappings must stay mapped for as long as the process lives.
pub fn guard_mappings(mappings: &[&'static [u8]]) -> io::Result<()> {
    let guarded = mappings.iter().map(|bytes| {
        let start = bytes.as_ptr() as usize;
        Guarded { start, end: start + bytes.len(), struck: AtomicBool::new(false) }
    });
    GUARDED.set(guarded.collect()).map_err(|_| io::Error::other("mappings are guarded already"))?;
    let action = SigAction::new(SigHandler::SigAction(on_sigbus), SaFlags::SA_SIGINFO, SigSet::empty());
    // SAFETY: the handler only reads memory set up before it was installed, stores to an atomic, and
    // makes system calls that are async-signal-safe.
    unsafe { sigaction(Signal::SIGBUS, &action) }?;
    Ok(())
}

/// Whether a part of the `index`-th guarded mapping vanished under a reader.
pub fn mapping_struck(index: usize) -> bool {
    GUARDED.get().is_some_and(|guarded| guarded[index].struck.load(Relaxed))
}

extern "C" fn on_sigbus(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    const PAGE: usize = 4096;
    // SAFETY: the kernel passes a valid siginfo to a handler installed with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    let hit = GUARDED.get().into_iter().flatten().find(|g| (g.start..g.end).contains(&address));
    if let Some(guarded) = hit {
        guarded.struck.store(true, Relaxed);
        let from = address & !(PAGE - 1);
        let len = (guarded.end - from).next_multiple_of(PAGE);
        // SAFETY: the range from the faulting page to the end of this mapping belongs to a mapping
        // that is never unmapped (see `guard_mappings`), so that replacing it takes nothing from
        // anybody else; it stays readable, as its readers expect.
        let zeros = unsafe {
            libc::mmap(
                from as *mut libc::c_void,
                len,
                libc::PROT_READ,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if zeros != libc::MAP_FAILED {
            return;
        }
    }
    // SAFETY: restores the default action; returning then repeats the access, which kills us.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}

/// Gives free memory back to the system, so that what a process holds is what it uses.
pub fn trim_heap() {
    // SAFETY: takes its own locks; it touches free memory only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Whether the processor has what `kernel::v3` is compiled for.
#[cfg(target_arch = "x86_64")]
fn is_v3() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

/// Scores rows with AVX2, FMA and F16C where the processor has them; `false` where it does not.
#[cfg(target_arch = "x86_64")]
pub(crate) fn scores_v3(query: &kernel::Query, rows: &[u8], scores: &mut [f32]) -> bool {
    let able = is_v3();
    if able {
        // SAFETY: the processor has every feature that the function is compiled for.
        unsafe { kernel::v3::scores(query, rows, scores) };
    }
    able
}

/// The same for many vectors.
#[cfg(target_arch = "x86_64")]
pub(crate) fn products_v3(
    block: &kernel::Block,
    rows: &[&[u8]],
    coming: &[&[u8]],
    tile: &mut kernel::Tile,
    scores: &mut [f32],
) -> bool {
    let able = is_v3();
    if able {
        // SAFETY: the processor has every feature that the function is compiled for.
        unsafe { kernel::v3::products(block, rows, coming, tile, scores) };
    }
    able
}

/// Asks the processor to bring bytes nearer that are needed soon.
#[inline]
pub(crate) fn bring_near(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every processor of this architecture has the instruction, which never fails and changes no memory;
        // the address is that of bytes that are there.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}
