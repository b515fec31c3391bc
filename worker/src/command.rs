//! Runs a command to its end: starts it, feeds it, drains it, and tells how it ended. Ignorant of
//! tasks, of manifests, and of what the command leaves behind: killing that is the caller's next step
//! (see [`crate::reap`]).
//!
//! One `poll` waits for three pipes and the command's end together. Threads would do too, but a worker
//! has only one; reading the pipes one after the other would stop forever at the first full one.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ExitStatus, Stdio};
use std::sync::OnceLock;

use forkyard_shared::sys;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{AccessFlags, Pid, access};

use crate::log::Log;

/// As much as a pipe holds, unless somebody made it larger.
const READ_BYTES: usize = 64 << 10;

/// What to run.
pub struct Command<'a> {
    /// The program and its arguments. A program without a slash is looked up in the PATH of `env`.
    pub argv: &'a [String],
    /// Where it starts, and what a relative program or PATH is relative to.
    pub cwd: &'a Path,
    /// Its whole environment: nothing is inherited.
    pub env: &'a [(OsString, OsString)],
    /// What it reads.
    pub stdin: Stdin,
}

/// What a command reads. It may stop reading at any time.
pub enum Stdin {
    /// Nothing.
    Empty,
    /// These bytes.
    Bytes(Vec<u8>),
    /// This file.
    File(File),
}

/// How a command ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code, or the signal that killed it.
    pub status: ExitStatus,
    /// What it wrote to stderr; the middle is left out when that is long.
    pub log: Vec<u8>,
}

/// Why a command did not start, or was not left to end by itself.
#[derive(Debug)]
pub enum CommandError {
    /// There is not even a program.
    Empty,
    /// No directory of the declared PATH has this program.
    NotInPath {
        /// The program.
        program: String,
        /// The declared PATH, if there is one.
        path: Option<OsString>,
    },
    /// There is no such file.
    NotFound {
        /// The program's file.
        file: PathBuf,
    },
    /// The file may not be executed.
    PermissionDenied {
        /// The program's file.
        file: PathBuf,
    },
    /// The file can be executed, but the system does not know how.
    UnknownFormat {
        /// The program's file.
        file: PathBuf,
    },
    /// The working directory cannot be entered.
    Directory {
        /// The directory.
        cwd: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The system refused to start it.
    Start {
        /// The program's file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its input or output could not be passed on (a limit, a full disk), so that it was killed.
    Io {
        /// The program.
        program: String,
        /// What went wrong.
        error: io::Error,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            CommandError::Empty => write!(f, "start a command: it has no words; the first names a program"),
            CommandError::NotInPath { program, path: Some(path) } => {
                let path = path.display();
                write!(f, "start {program}: no such program in PATH={path}; give its full path")
            }
            CommandError::NotInPath { program, path: None } => {
                write!(f, "start {program}: its environment has no PATH to look it up in; give its full path")
            }
            CommandError::NotFound { file } => write!(
                f,
                "start {}: no such file, or its first line (#!) names an interpreter that does not exist",
                file.display()
            ),
            CommandError::PermissionDenied { file } => {
                write!(f, "start {0}: permission denied; try chmod +x {0}", file.display())
            }
            CommandError::UnknownFormat { file } => write!(
                f,
                "start {}: neither a program for this machine nor a script whose first line names its \
                 interpreter, as #!/bin/sh does",
                file.display()
            ),
            CommandError::Directory { cwd, error } => {
                write!(f, "enter working directory {}: {error}", cwd.display())
            }
            CommandError::Start { file, error } => write!(f, "start {}: {error}", file.display()),
            CommandError::Io { program, error } => write!(f, "run {program}: {error}"),
        }
    }
}

impl std::error::Error for CommandError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            CommandError::Directory { error, .. }
            | CommandError::Start { error, .. }
            | CommandError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Runs a command until it has ended. Of stderr, at most `log_limit` bytes are kept.
///
/// What it leaves running in the background may hold its pipes open: that does not keep us waiting,
/// nor is its later output read.
pub fn run(command: Command, stdout: &mut impl Write, log_limit: usize) -> Result<Finished, CommandError> {
    let Command { argv, cwd, env, stdin } = command;
    let (program, args) = argv.split_first().ok_or(CommandError::Empty)?;
    let file = find(program, cwd, env)?;
    let (stdin, input) = match stdin {
        Stdin::Empty => (nothing().map_err(|error| refused(program, error))?, Vec::new()),
        Stdin::Bytes(bytes) => (Stdio::piped(), bytes),
        Stdin::File(file) => (file.into(), Vec::new()),
    };
    // All of this is within what posix_spawn can do, which the standard library then uses instead of
    // fork: a `pre_exec` or a program to look up in PATH would cost that.
    let mut child = process::Command::new(&file)
        .arg0(program)
        .args(args)
        .current_dir(cwd)
        .env_clear()
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| why_not_started(error, file, cwd))?;
    let mut log = Log::new(log_limit);
    match converse(&mut child, &input, stdout, &mut log).and_then(|()| child.wait()) {
        Ok(status) => Ok(Finished { status, log: log.finish() }),
        Err(error) => {
            // Its group first, while its number is surely its own; then itself, in case it left the
            // group. Neither can fail in a way that waiting does not settle.
            killpg(pid(&child), Signal::SIGKILL).ok();
            child.kill().ok();
            child.wait().ok();
            Err(refused(program, error))
        }
    }
}

/// Nothing to read. It is opened once for all commands: opening takes longer than copying the descriptor.
fn nothing() -> io::Result<Stdio> {
    static NOTHING: OnceLock<File> = OnceLock::new();
    if NOTHING.get().is_none() {
        NOTHING.set(File::open("/dev/null")?).ok();
    }
    Ok(NOTHING.get().expect("it was set above").try_clone()?.into())
}

fn refused(program: &str, error: io::Error) -> CommandError {
    CommandError::Io { program: program.into(), error }
}

/// The file to execute, as `execvp` would find it, but by the command's own PATH and directory.
fn find(program: &str, cwd: &Path, env: &[(OsString, OsString)]) -> Result<PathBuf, CommandError> {
    if program.contains('/') {
        return Ok(program.into());
    }
    let path = env.iter().rfind(|(name, _)| name == "PATH").map(|(_, path)| path);
    let mut denied = None;
    for dir in path.into_iter().flat_map(std::env::split_paths) {
        // The dot, which an absolute directory replaces, leaves a slash in every path.
        let file = Path::new(".").join(dir).join(program);
        let seen = cwd.join(&file);
        if !seen.is_file() {
            continue;
        }
        if access(&seen, AccessFlags::X_OK).is_ok() {
            return Ok(file);
        }
        denied.get_or_insert(file);
    }
    Err(match denied {
        Some(file) => CommandError::PermissionDenied { file },
        None => CommandError::NotInPath { program: program.into(), path: path.cloned() },
    })
}

fn why_not_started(error: io::Error, file: PathBuf, cwd: &Path) -> CommandError {
    // Entering the directory fails with the same codes as executing the file. The dot asks for both: that
    // it is a directory, and that it may be entered.
    if let Err(error) = fs::metadata(cwd.join(".")) {
        return CommandError::Directory { cwd: cwd.into(), error };
    }
    match (error.kind(), error.raw_os_error().map(Errno::from_raw)) {
        (ErrorKind::NotFound, _) => CommandError::NotFound { file },
        (ErrorKind::PermissionDenied, _) => CommandError::PermissionDenied { file },
        (_, Some(Errno::ENOEXEC)) => CommandError::UnknownFormat { file },
        _ => CommandError::Start { file, error },
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id() as i32)
}

/// Feeds and drains a command until it has ended, or until it has closed its end of all pipes: then there is nothing
/// left to do but to wait for it.
fn converse(child: &mut Child, mut input: &[u8], stdout: &mut impl Write, log: &mut Log) -> io::Result<()> {
    let end = sys::pidfd_open(pid(child))?;
    let mut to_stdin = child.stdin.take().map(never_waiting).transpose()?;
    let mut from_stdout = child.stdout.take().map(never_waiting).transpose()?;
    let mut from_stderr = child.stderr.take().map(never_waiting).transpose()?;
    let mut buffer = Vec::new();
    while to_stdin.is_some() || from_stdout.is_some() || from_stderr.is_some() {
        // Asked before the pipes are read: what the command wrote, it wrote before it ended, so the
        // reads that follow its end get all of it.
        let Ready { ended, outputs } = wait_for_any(&end, &to_stdin, [&from_stdout, &from_stderr])?;
        feed(&mut to_stdin, &mut input)?;
        drain(&mut from_stdout, outputs[0], stdout, &mut buffer)?;
        drain(&mut from_stderr, outputs[1], log, &mut buffer)?;
        if ended {
            break;
        }
    }
    Ok(())
}

/// What was waited for.
struct Ready {
    /// Whether the command has ended.
    ended: bool,
    /// What may be done with stdout and stderr.
    outputs: [PollFlags; 2],
}

/// Our end of a pipe, which the command's end does not notice.
fn never_waiting(end: impl Into<OwnedFd>) -> io::Result<File> {
    let end = File::from(end.into());
    fcntl(&end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(end)
}

/// Waits until an open pipe is ready or the command has ended.
fn wait_for_any(end: &OwnedFd, input: &Option<File>, outputs: [&Option<File>; 2]) -> io::Result<Ready> {
    let mut fds = vec![PollFd::new(end.as_fd(), PollFlags::POLLIN)];
    fds.extend(outputs.into_iter().flatten().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
    fds.extend(input.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
    while let Err(error) = poll(&mut fds, PollTimeout::NONE) {
        if error != Errno::EINTR {
            return Err(error.into());
        }
    }
    let mut seen = fds.iter().map(|fd| fd.revents().unwrap_or(PollFlags::POLLIN));
    let ended = seen.next().is_some_and(|end| !end.is_empty());
    let of = |pipe: &Option<File>| pipe.as_ref().and_then(|_| seen.next()).unwrap_or(PollFlags::empty());
    Ok(Ready { ended, outputs: outputs.map(of) })
}

/// Writes what the pipe takes now, and closes it when nothing is left or nobody reads.
fn feed(pipe: &mut Option<File>, input: &mut &[u8]) -> io::Result<()> {
    let Some(to) = pipe else { return Ok(()) };
    while !input.is_empty() {
        match to.write(input) {
            Ok(written) => *input = &input[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
            Err(error) => return Err(error),
        }
    }
    *pipe = None;
    Ok(())
}

/// Moves on what is in the pipe now, and closes it at its end.
fn drain(
    pipe: &mut Option<File>,
    ready: PollFlags,
    to: &mut impl Write,
    buffer: &mut Vec<u8>,
) -> io::Result<()> {
    let Some(from) = pipe else { return Ok(()) };
    if !ready.contains(PollFlags::POLLIN) {
        if !ready.is_empty() {
            // All writers have closed it, and it is empty.
            *pipe = None;
        }
        return Ok(());
    }
    buffer.resize(READ_BYTES, 0);
    // No more than the pipe holds: a writer that never stops, perhaps one that outlives the command,
    // must not keep us here.
    let mut left = fcntl(&*from, FcntlArg::F_GETPIPE_SZ)? as usize;
    while left > 0 {
        let most = left.min(buffer.len());
        match from.read(&mut buffer[..most]) {
            Ok(0) => {
                *pipe = None;
                break;
            }
            Ok(read) => {
                to.write_all(&buffer[..read])?;
                left -= read;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::os::unix::fs::symlink;
    use std::os::unix::process::ExitStatusExt;

    use nix::sys::signal::kill;

    use super::*;

    const LOG_LIMIT: usize = 1 << 20;

    fn words(argv: &[&str]) -> Vec<String> {
        argv.iter().map(|word| word.to_string()).collect()
    }

    fn path_is(path: &str) -> Vec<(OsString, OsString)> {
        vec![("PATH".into(), path.into())]
    }

    /// Runs a command in `/` with the usual PATH.
    fn run_with(stdin: Stdin, argv: &[&str]) -> (Finished, Vec<u8>) {
        let (argv, env) = (words(argv), path_is("/usr/bin:/bin"));
        let command = Command { argv: &argv, cwd: Path::new("/"), env: &env, stdin };
        let mut stdout = Vec::new();
        let finished = run(command, &mut stdout, LOG_LIMIT).unwrap();
        (finished, stdout)
    }

    fn sh(script: &str) -> (Finished, Vec<u8>) {
        run_with(Stdin::Empty, &["sh", "-c", script])
    }

    fn error_in(cwd: &Path, path: &str, program: &str) -> CommandError {
        let (argv, env) = (words(&[program]), path_is(path));
        let command = Command { argv: &argv, cwd, env: &env, stdin: Stdin::Empty };
        run(command, &mut Vec::new(), LOG_LIMIT).unwrap_err()
    }

    /// Waits until a process that is no child of ours has ended.
    fn assert_ends(pid: Pid) {
        match sys::pidfd_open(pid) {
            Ok(end) => {
                let mut fds = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
                assert_eq!(poll(&mut fds, PollTimeout::from(10_000u16)), Ok(1), "{pid} runs on");
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(Errno::ESRCH as i32)),
        }
    }

    fn parse_pid(text: &[u8]) -> Pid {
        Pid::from_raw(str::from_utf8(text).unwrap().trim().parse().unwrap())
    }

    #[test]
    fn all_of_a_long_input_comes_back() {
        let bytes: Vec<u8> = (0..10_000_000u32).map(|i| (i % 251) as u8).collect();
        let (finished, stdout) = run_with(Stdin::Bytes(bytes.clone()), &["cat"]);
        assert!(finished.status.success());
        assert!(stdout == bytes, "{} bytes came back, or others", stdout.len());
    }

    #[test]
    fn input_may_be_a_file_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("input");
        fs::write(&path, "from a file").unwrap();
        let (_, stdout) = run_with(Stdin::File(File::open(path).unwrap()), &["cat"]);
        assert_eq!(stdout, b"from a file");
        let (finished, stdout) = run_with(Stdin::Empty, &["cat"]);
        assert!(finished.status.success());
        assert_eq!(stdout, b"");
    }

    #[test]
    fn both_outputs_may_fill_at_once() {
        let (finished, stdout) = sh("head -c 700000 /dev/zero >&2 & head -c 3000000 /dev/zero; wait");
        assert!(finished.status.success());
        assert_eq!((stdout.len(), finished.log.len()), (3_000_000, 700_000));
        // Closed in the other order, and long before the end.
        let (finished, stdout) = sh("exec >&-; head -c 700000 /dev/zero >&2; exec 2>&-; exit 4");
        assert_eq!(finished.status.code(), Some(4));
        assert_eq!((stdout.len(), finished.log.len()), (0, 700_000));
    }

    #[test]
    fn a_command_need_not_read_its_input() {
        let input = || Stdin::Bytes(vec![b'x'; 10_000_000]);
        let (finished, stdout) = run_with(input(), &["sh", "-c", "exec <&-; echo done"]);
        assert!(finished.status.success());
        assert_eq!(stdout, b"done\n");
        let (finished, stdout) = run_with(input(), &["head", "-c", "3"]);
        assert!(finished.status.success());
        assert_eq!(stdout, b"xxx");
    }

    #[test]
    fn what_runs_on_in_the_background_keeps_nobody_waiting() {
        let (finished, stdout) = sh("sleep 1000 & echo $!");
        assert!(finished.status.success());
        let left = parse_pid(&stdout);
        kill(left, Signal::SIGKILL).expect("the sleeper still ran");
        assert_ends(left);
    }

    #[test]
    fn a_writer_that_is_never_slower_than_us_keeps_nobody_waiting() {
        /// Puts back into the pipe whatever is taken out.
        struct Refill(io::PipeWriter, usize);
        impl Write for Refill {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += bytes.len();
                assert!(self.1 < 10_000_000, "it is never done");
                self.0.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(&[b'x'; 1000]).unwrap();
        let capacity = fcntl(&reader, FcntlArg::F_GETPIPE_SZ).unwrap() as usize;
        let mut pipe = Some(never_waiting(reader).unwrap());
        let mut refill = Refill(writer, 0);
        drain(&mut pipe, PollFlags::POLLIN, &mut refill, &mut Vec::new()).unwrap();
        assert_eq!(refill.1, capacity);
        assert!(pipe.is_some());
    }

    #[test]
    fn the_last_words_before_the_end_are_read() {
        for _ in 0..50 {
            let (_, stdout) = sh("sleep 1000 & echo $!; head -c 60000 /dev/zero");
            let line = stdout.iter().position(|byte| *byte == b'\n').unwrap();
            kill(parse_pid(&stdout[..line]), Signal::SIGKILL).unwrap();
            assert_eq!(stdout.len() - line - 1, 60_000);
        }
    }

    #[test]
    fn exit_codes_and_signals_are_told_apart() {
        assert_eq!(sh("exit 7").0.status.code(), Some(7));
        assert_eq!(sh("kill -TERM $$").0.status.signal(), Some(15));
        assert_eq!(sh("echo why >&2; exit 1").0.log, b"why\n");
    }

    #[test]
    fn it_leads_a_group_of_its_own_and_dies_of_a_broken_pipe() {
        let (_, stdout) = sh("cut -d' ' -f5 /proc/$$/stat; echo $$");
        let numbers: Vec<Pid> = stdout.trim_ascii().split(|b| *b == b'\n').map(parse_pid).collect();
        assert_eq!(numbers[0], numbers[1]);
        assert_eq!(sh("kill -PIPE $$").0.status.signal(), Some(13));
    }

    #[test]
    fn its_environment_is_exactly_what_was_declared() {
        let env = [("PATH", "/usr/bin:/bin"), ("A", "b c"), ("EMPTY", "")];
        let env = env.map(|(name, value)| (name.into(), value.into()));
        let argv = words(&["env"]);
        let command = Command { argv: &argv, cwd: Path::new("/"), env: &env, stdin: Stdin::Empty };
        let mut stdout = Vec::new();
        run(command, &mut stdout, LOG_LIMIT).unwrap();
        let mut lines: Vec<&[u8]> = stdout.trim_ascii().split(|byte| *byte == b'\n').collect();
        lines.sort();
        assert_eq!(lines, [&b"A=b c"[..], b"EMPTY=", b"PATH=/usr/bin:/bin"]);
    }

    #[test]
    fn programs_are_found_in_the_declared_path_and_directory() {
        let dir = tempfile::tempdir().unwrap();
        let cwd = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(cwd.join("bin")).unwrap();
        symlink("/bin/sh", cwd.join("bin/forkyard-tool")).unwrap();
        let absolute = cwd.join("bin").into_os_string().into_string().unwrap();
        for (path, program) in [
            (absolute.as_str(), "forkyard-tool"),
            ("/nowhere:bin", "forkyard-tool"),
            ("/nowhere", "bin/forkyard-tool"),
        ] {
            let (argv, env) = (words(&[program, "-c", "echo $0; pwd"]), path_is(path));
            let command = Command { argv: &argv, cwd: &cwd, env: &env, stdin: Stdin::Empty };
            let mut stdout = Vec::new();
            run(command, &mut stdout, LOG_LIMIT).unwrap();
            assert_eq!(String::from_utf8(stdout).unwrap(), format!("{program}\n{}\n", cwd.display()));
        }
    }

    #[test]
    fn what_cannot_start_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let cwd = dir.path();
        // Made by another process: a file that this one had open for writing could be busy for as long
        // as a child of another test, on its way to its program, has it open too.
        let script = r#"cd "$0"; echo garbage | tee plain > garbage; chmod +x garbage"#;
        run_with(Stdin::Empty, &["sh", "-c", script, cwd.to_str().unwrap()]);
        let path = cwd.to_str().unwrap();
        let message = |program: &str| error_in(cwd, path, program).to_string();
        assert_eq!(
            message("missing"),
            format!("start missing: no such program in PATH={path}; give its full path")
        );
        assert!(message("./missing").starts_with("start ./missing: no such file"));
        let denied = format!("start {path}/plain: permission denied; try chmod +x {path}/plain");
        assert_eq!(message("plain"), denied);
        assert!(message("./plain").starts_with("start ./plain: permission denied"));
        assert!(matches!(error_in(cwd, path, ""), CommandError::NotInPath { .. }));
        assert!(matches!(error_in(cwd, path, "a\0b"), CommandError::NotInPath { .. }));
        assert!(matches!(error_in(cwd, path, "./a\0b"), CommandError::Start { .. }));
        assert!(matches!(error_in(cwd, path, "garbage"), CommandError::UnknownFormat { .. }));

        let nowhere = cwd.join("nowhere");
        let odd = error_in(&nowhere, "/bin", "sh").to_string();
        assert!(odd.starts_with(&format!("enter working directory {}: ", nowhere.display())), "{odd}");
        let file = error_in(&cwd.join("plain"), "/bin", "sh");
        assert!(matches!(file, CommandError::Directory { .. }), "{file}");
    }

    #[test]
    fn nothing_to_start_and_nowhere_to_look() {
        let run = |argv: &[&str]| {
            let argv = words(argv);
            let command = Command { argv: &argv, cwd: Path::new("/"), env: &[], stdin: Stdin::Empty };
            super::run(command, &mut Vec::new(), LOG_LIMIT).unwrap_err()
        };
        assert!(matches!(run(&[]), CommandError::Empty));
        assert!(matches!(run(&["sh"]), CommandError::NotInPath { path: None, .. }));
    }

    #[test]
    fn output_that_cannot_be_taken_kills_the_command_and_its_group() {
        /// Takes 100,000 bytes, then there is no room.
        struct Full(Vec<u8>);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                if self.0.len() > 100_000 {
                    return Err(ErrorKind::StorageFull.into());
                }
                self.0.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut stdout = Full(Vec::new());
        let (argv, env) = (words(&["sh", "-c", "sleep 1000 & echo $!; yes"]), path_is("/usr/bin:/bin"));
        let command = Command { argv: &argv, cwd: Path::new("/"), env: &env, stdin: Stdin::Empty };
        let error = run(command, &mut stdout, LOG_LIMIT).unwrap_err();
        let cause = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(cause.kind(), ErrorKind::StorageFull);
        let first_line = stdout.0.split_inclusive(|byte| *byte == b'\n').next().unwrap();
        assert_ends(parse_pid(first_line));
    }
}
