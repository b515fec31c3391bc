//! What starting a command costs by itself: `posix_spawn`, two pipes that are read to their ends, and the wait. No limit of
//! what is kept, no directory, no group, no look for what it left running.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::wait::{WaitStatus, waitpid};

/// Runs a program without arguments, which reads `input`, to its end, and fails if it does.
pub fn run(program: &CStr, input: &File) -> io::Result<()> {
    let mut actions = PosixSpawnFileActions::init()?;
    let ((stdout, stdout_end), (stderr, stderr_end)) = (io::pipe()?, io::pipe()?);
    actions.add_dup2(input.as_raw_fd(), 0)?;
    actions.add_dup2(stdout_end.as_raw_fd(), 1)?;
    actions.add_dup2(stderr_end.as_raw_fd(), 2)?;
    let child =
        posix_spawn(program, &actions, &PosixSpawnAttr::init()?, &[program], &[c"PATH=/usr/bin:/bin"])?;
    drop((stdout_end, stderr_end));
    drain(stdout, stderr)?;
    match waitpid(child, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        other => Err(io::Error::other(format!("{program:?} ended with {other:?}"))),
    }
}

fn drain(stdout: PipeReader, stderr: PipeReader) -> io::Result<()> {
    let (mut open, mut buffer) = (vec![stdout, stderr], [0; 4096]);
    while !open.is_empty() {
        let mut fds: Vec<PollFd> =
            open.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::NONE)?;
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        for at in (0..open.len()).rev().filter(|at| ready[*at]) {
            if open[at].read(&mut buffer)? == 0 {
                open.remove(at);
            }
        }
    }
    Ok(())
}
