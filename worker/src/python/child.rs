//! A worker's Python process as the worker has it: descriptors, and waiting for them. Nothing here waits while there is
//! something to be read, so that neither side ever waits for the other to read first.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use forkyard_shared::sys;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;

use super::wire::{HEADER_BYTES, Header, Status};

/// How long a worker looks for an answer before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// How much is read at a time.
const READ_BYTES: usize = 256 << 10;

/// A Python process that serves this worker.
pub(super) struct Child {
    tasks: UnixStream,
    asks: UnixStream,
    /// What it prints past Python: to its descriptors 1 and 2.
    printed: File,
    /// When this closes, the kernel kills the child.
    _alive: OwnedFd,
    /// Where it is read to.
    buffer: Vec<u8>,
    /// What was read and not used.
    held: Vec<u8>,
    used: usize,
    /// What is to be written.
    unsent: Vec<u8>,
    pub pid: u32,
}

/// Why a worker has no Python process.
pub(crate) enum NoChild {
    /// It was there and has ended, or who would fork it has.
    Gone,
    /// The system refuses it, for this reason.
    Refused(String),
}

/// What is there after a wait.
#[derive(Default)]
pub(super) struct Ready {
    /// Answers may be there, or the child's end.
    pub answers: bool,
    /// It asks something.
    pub asks: bool,
    /// The other descriptor.
    pub other: bool,
}

impl Child {
    /// Asks the Python zygote for a child and waits for its greeting.
    ///
    /// # Errors
    /// When there is none, or no more.
    pub fn ask_for(control: &OwnedFd) -> Result<Child, NoChild> {
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => NoChild::Gone,
            _ => NoChild::Refused(format!("ask for a Python process: {error}")),
        };
        let (tasks, their_tasks) = UnixStream::pair().map_err(failed)?;
        let (asks, their_asks) = UnixStream::pair().map_err(failed)?;
        let pipe = || pipe2(OFlag::O_CLOEXEC).map_err(|error| failed(error.into()));
        let ((their_life, alive), (printed, their_output)) = (pipe()?, pipe()?);
        let fds = [their_tasks.as_fd(), their_asks.as_fd(), their_life.as_fd(), their_output.as_fd()];
        let me = std::process::id().to_string();
        sys::send_packet(control, me.as_bytes(), &fds).map_err(failed)?;
        drop((their_tasks, their_asks, their_life, their_output));
        fcntl(&printed, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|error| failed(error.into()))?;
        let mut child = Child {
            tasks,
            asks,
            printed: printed.into(),
            _alive: alive,
            buffer: vec![0; READ_BYTES],
            held: Vec::new(),
            used: 0,
            unsent: Vec::new(),
            pid: 0,
        };
        child.fill(HEADER_BYTES).map_err(failed)?;
        let greeting = child.header().ok_or(NoChild::Gone)?;
        if greeting.status == Status::Broken {
            let why = child.take(greeting.value_len as usize).map_err(failed)?;
            return Err(NoChild::Refused(String::from_utf8_lossy(&why).into_owned()));
        }
        child.pid = greeting.node;
        child.tasks.set_nonblocking(true).map_err(failed)?;
        Ok(child)
    }

    /// Has a frame sent as soon as the child reads.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.unsent.extend_from_slice(frame);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        let done = loop {
            if sent == self.unsent.len() {
                break Ok(());
            }
            match self.tasks.write(&self.unsent[sent..]) {
                Ok(some) => sent += some,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        self.unsent.drain(..sent);
        done
    }

    /// Waits until something is there, in the child or at `other`. What was printed goes to `log`.
    pub fn wait(&mut self, other: Option<BorrowedFd>, log: &mut impl Write) -> io::Result<Ready> {
        let to_child = if self.unsent.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
        let mut fds = vec![
            PollFd::new(self.tasks.as_fd(), PollFlags::POLLIN | to_child),
            PollFd::new(self.asks.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.printed.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(other.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let there = |at: usize| fds.get(at).and_then(|fd| fd.revents()).unwrap_or(PollFlags::empty());
        let readable = PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR;
        let ready = Ready {
            answers: there(0).intersects(readable),
            asks: there(1).intersects(PollFlags::POLLIN),
            other: there(3).intersects(readable),
        };
        let (writable, printed) = (there(0).contains(PollFlags::POLLOUT), there(2).intersects(readable));
        drop(fds);
        if writable {
            // A child that has ended is found out by reading.
            self.flush().ok();
        }
        if printed {
            self.drain(log);
        }
        Ok(ready)
    }

    /// Waits a moment for an answer without sleeping: waking up takes longer than most functions do.
    pub fn look_out(&self) {
        let start = Instant::now();
        let mut fds = [PollFd::new(self.tasks.as_fd(), PollFlags::POLLIN)];
        while start.elapsed() < SPIN && poll(&mut fds, PollTimeout::ZERO) == Ok(0) {
            std::thread::yield_now();
        }
    }

    /// What was printed so far.
    pub fn drain(&mut self, log: &mut impl Write) {
        let mut buffer = [0; 64 << 10];
        // No more than the pipe holds: a writer that never stops must not keep us here.
        if let Ok(read @ 1..) = self.printed.read(&mut buffer) {
            log.write_all(&buffer[..read]).ok();
        }
    }

    /// Reads what is there; false at its end.
    pub fn read_more(&mut self) -> io::Result<bool> {
        if self.used > 0 {
            self.held.drain(..self.used);
            self.used = 0;
        }
        loop {
            return match self.tasks.read(&mut self.buffer) {
                Ok(0) => Ok(false),
                Ok(read) => {
                    self.held.extend_from_slice(&self.buffer[..read]);
                    Ok(true)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
                Err(error) => Err(error),
            };
        }
    }

    /// The next header, if all of it was read.
    pub fn header(&mut self) -> Option<Header> {
        let bytes = self.held[self.used..].first_chunk()?;
        let header = Header::parse(bytes)?;
        self.used += HEADER_BYTES;
        Some(header)
    }

    /// The next `len` bytes, however long that takes: the child is writing them.
    ///
    /// # Errors
    /// When it ends before.
    pub fn take(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len.min(1 << 20));
        self.pass(len as u64, |part| bytes.extend_from_slice(part))?;
        Ok(bytes)
    }

    /// The same, in parts.
    pub fn pass(&mut self, len: u64, mut to: impl FnMut(&[u8])) -> io::Result<()> {
        let mut left = len;
        loop {
            let part = (self.held.len() - self.used).min(usize::try_from(left).unwrap_or(usize::MAX));
            to(&self.held[self.used..self.used + part]);
            self.used += part;
            left -= part as u64;
            if left == 0 {
                return Ok(());
            }
            self.fill(1)?;
        }
    }

    /// Reads until so many unused bytes are held.
    fn fill(&mut self, len: usize) -> io::Result<()> {
        while self.held.len() - self.used < len {
            let mut fds = [PollFd::new(self.tasks.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if !self.read_more()? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// What it asks: what, of which node, and which key.
    pub fn question(&mut self) -> io::Result<(u8, u32, String)> {
        let mut len = [0; 4];
        self.asks.read_exact(&mut len)?;
        let mut asked = vec![0; u32::from_le_bytes(len) as usize];
        self.asks.read_exact(&mut asked)?;
        let (head, key) = asked.split_at_checked(5).ok_or(ErrorKind::InvalidData)?;
        let node = u32::from_le_bytes(head[1..].try_into().expect("four bytes"));
        Ok((head[0], node, String::from_utf8_lossy(key).into_owned()))
    }

    /// Answers it.
    pub fn tell(&mut self, status: u8, json: &[u8]) -> io::Result<()> {
        let head = [&[status], &(json.len() as u32).to_le_bytes()[..]].concat();
        self.asks.write_all(&[&head, json].concat())
    }
}
