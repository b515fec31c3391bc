/* Makes system calls of a process misbehave: on one directory, or the clock. Preload it (LD_PRELOAD); it knows
 * nothing of what it is loaded into.
 *
 *   FAULT_STORE   the directory, absolute and without links; the process must name its files absolutely
 *   FAULT_KIND    what happens (below)
 *   FAULT_AT      to which call, counted from 1
 *   FAULT_STRUCK  a file outside the directory that is made when it happens; says to which call
 *   FAULT_FOR     to how many calls from that one on: 1 if it is not given, 0 for all of them
 *   FAULT_ALL     if given, calls of processes that were forked count too, in one number with the others
 *   FAULT_JUMP    by how many seconds a clock jumps
 *
 *   error     the call fails and does nothing: ENOSPC for what needs room, else EIO
 *   io        the call fails and does nothing: EIO
 *   readonly  the same: EROFS, as on a disk that takes no more changes
 *   kill      the process is killed instead of making the call
 *   short     half of a write is written, which it says; later calls go on as ever
 *   full      the same, and the next write (FAULT_FOR: so many) fails with ENOSPC; then there is room again
 *   torn      half of a write is written, then the process is killed
 *   read      a read fails with EIO
 *   clock     the time of day is another one; FAULT_FOR calls later it is right again, as often later wrong again, ...
 *   count     nothing happens, but at the end FAULT_STRUCK says how many writes, other changes and reads there were
 *
 * What is counted is every call that changes a file below the directory: for `error`, `io`, `readonly` and `kill`
 * writes, syncs and calls that make, name, cut or remove a file; for `read` reads, for `clock` questions for the time of
 * day, for the others writes alone. Calls of all threads count, those of other programs that are started do not. Half of
 * one byte is one byte: the kernel never writes none.
 *
 * For Linux with 64-bit offsets in off_t. Calls go to the kernel by syscall(2), which spares a look-up of the
 * functions that stand behind these. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) == 8, "write and its like are made for 64-bit offsets");

enum kind { NONE, ERROR, IO, READONLY, KILL, SHORT, FULL, TORN, READ, CLOCK, COUNT };
static const char *const kind_names[] = {
	"", "error", "io", "readonly", "kill", "short", "full", "torn", "read", "clock", "count",
};

enum call { A_WRITE, A_CHANGE, A_READ, CALLS };
enum fate { GOES_ON, FAILS, IS_CUT };

static enum kind kind;
static const char *store;
static const char *struck_path;
static long at, times, jump;
static pid_t process; /* what is forked has the library too, but another number */
static bool all;
static atomic_long *counts; /* shared with what is forked; that of `A_WRITE` is for all that a fault counts */

static long number_of(const char *name, long otherwise)
{
	const char *text = getenv(name);
	return text ? atol(text) : otherwise;
}

__attribute__((constructor)) static void load(void)
{
	const char *name = getenv("FAULT_KIND");
	store = getenv("FAULT_STORE");
	struck_path = getenv("FAULT_STRUCK");
	if (!name || !store || !struck_path)
		return;
	at = number_of("FAULT_AT", 0);
	times = number_of("FAULT_FOR", 1);
	jump = number_of("FAULT_JUMP", 0);
	all = getenv("FAULT_ALL") != NULL;
	process = getpid();
	counts = mmap(NULL, CALLS * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		return;
	for (int i = ERROR; i <= COUNT; i++)
		if (strcmp(name, kind_names[i]) == 0)
			kind = i;
}

static bool is_here(void)
{
	return all || getpid() == process;
}

/* The path of an open file, or of `name` in an open directory. */
static const char *path_at(int fd, const char *name, char path[PATH_MAX])
{
	char link[32];
	if (name && (name[0] == '/' || fd == AT_FDCWD))
		return name;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t len = readlink(link, path, PATH_MAX - 1);
	path[len < 0 ? 0 : len] = '\0';
	if (name && (size_t)len + strlen(name) + 2 <= PATH_MAX) {
		strcat(path, "/");
		strcat(path, name);
	}
	return path;
}

static bool is_in_store(const char *path)
{
	size_t len = strlen(store);
	return strncmp(path, store, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static void tell(const char *call, const char *path)
{
	int fd = open(struck_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	dprintf(fd, "%s of %s", call, path);
	close(fd);
}

__attribute__((destructor)) static void say_count(void)
{
	char said[3 * 24];
	if (kind != COUNT || getpid() != process)
		return;
	snprintf(said, sizeof said, "%ld %ld %ld", counts[A_WRITE], counts[A_CHANGE], counts[A_READ]);
	tell(said, store);
}

static bool counts_here(enum call call)
{
	switch (kind) {
	case NONE:
	case CLOCK:
		return false;
	case SHORT:
	case FULL:
	case TORN:
		return call == A_WRITE;
	case READ:
		return call == A_READ;
	case COUNT:
		return true;
	default:
		return call != A_READ;
	}
}

static bool is_struck(long number)
{
	return number >= at && (times == 0 || number < at + times);
}

static enum fate fate_of(const char *name, int fd, const char *file, enum call call)
{
	char buffer[PATH_MAX];
	if (!counts_here(call) || !is_here())
		return GOES_ON;
	int before = errno;
	const char *path = path_at(fd, file, buffer);
	enum fate fate = GOES_ON;
	if (is_in_store(path)) {
		long number = atomic_fetch_add(&counts[kind == COUNT ? call : A_WRITE], 1) + 1;
		if (number == at)
			tell(name, path);
		if (kind == FULL)
			fate = number == at ? IS_CUT : number > at && is_struck(number - 1) ? FAILS : GOES_ON;
		else if (kind != COUNT && is_struck(number))
			fate = kind == SHORT || kind == TORN ? IS_CUT : FAILS;
		if (fate == FAILS && kind == KILL)
			raise(SIGKILL);
	}
	errno = before;
	return fate;
}

static int fail(int error)
{
	errno = kind == IO || kind == READ ? EIO : kind == READONLY ? EROFS : error;
	return -1;
}

static size_t half(size_t len)
{
	return len - len / 2;
}

/* After the first half of a write. */
static ssize_t cut(ssize_t written)
{
	if (kind == TORN)
		raise(SIGKILL);
	return written;
}

ssize_t write(int fd, const void *bytes, size_t len)
{
	switch (fate_of("write", fd, NULL, A_WRITE)) {
	case FAILS:
		return fail(ENOSPC);
	case IS_CUT:
		return cut(syscall(SYS_write, fd, bytes, half(len)));
	default:
		return syscall(SYS_write, fd, bytes, len);
	}
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
	switch (fate_of("pwrite", fd, NULL, A_WRITE)) {
	case FAILS:
		return fail(ENOSPC);
	case IS_CUT:
		return cut(syscall(SYS_pwrite64, fd, bytes, half(len), offset));
	default:
		return syscall(SYS_pwrite64, fd, bytes, len, offset);
	}
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset) __attribute__((alias("pwrite")));

ssize_t writev(int fd, const struct iovec *parts, int parts_len)
{
	switch (fate_of("writev", fd, NULL, A_WRITE)) {
	case FAILS:
		return fail(ENOSPC);
	case IS_CUT:
		return cut(syscall(SYS_write, fd, parts[0].iov_base, half(parts[0].iov_len)));
	default:
		return syscall(SYS_writev, fd, parts, parts_len);
	}
}

/* A call that is made or fails. */
#define WHOLE(name, fd, path, error, ...) \
	(fate_of(name, fd, path, A_CHANGE) == FAILS ? fail(error) : (int)syscall(__VA_ARGS__))

int fsync(int fd)
{
	return WHOLE("fsync", fd, NULL, EIO, SYS_fsync, fd);
}

int fdatasync(int fd)
{
	return WHOLE("fdatasync", fd, NULL, EIO, SYS_fdatasync, fd);
}

int syncfs(int fd)
{
	return WHOLE("syncfs", fd, NULL, EIO, SYS_syncfs, fd);
}

int ftruncate(int fd, off_t len)
{
	return WHOLE("ftruncate", fd, NULL, EIO, SYS_ftruncate, fd, len);
}

int ftruncate64(int fd, off64_t len) __attribute__((alias("ftruncate")));

int renameat2(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
	return WHOLE("rename", to_fd, to, EIO, SYS_renameat2, from_fd, from, to_fd, to, flags);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	return renameat2(from_fd, from, to_fd, to, 0);
}

int rename(const char *from, const char *to)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
	return WHOLE("link", to_fd, to, EIO, SYS_linkat, from_fd, from, to_fd, to, flags);
}

int link(const char *from, const char *to)
{
	return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlinkat(int fd, const char *path, int flags)
{
	return WHOLE("unlink", fd, path, EIO, SYS_unlinkat, fd, path, flags);
}

int unlink(const char *path)
{
	return unlinkat(AT_FDCWD, path, 0);
}

int mkdir(const char *path, mode_t mode)
{
	return WHOLE("mkdir", AT_FDCWD, path, ENOSPC, SYS_mkdirat, AT_FDCWD, path, mode);
}

/* Only one that may make the file counts; where nothing may be changed, one that would write. */
static bool is_change(int flags)
{
	return (flags & O_CREAT) || (kind == READONLY && (flags & O_ACCMODE) != O_RDONLY);
}

int open(const char *path, int flags, ...)
{
	va_list rest;
	va_start(rest, flags);
	mode_t mode = flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)) ? va_arg(rest, mode_t) : 0;
	va_end(rest);
	if (!is_change(flags))
		return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	return WHOLE("open", AT_FDCWD, path, ENOSPC, SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

ssize_t read(int fd, void *bytes, size_t len)
{
	return fate_of("read", fd, NULL, A_READ) == FAILS ? fail(EIO) : syscall(SYS_read, fd, bytes, len);
}

ssize_t pread(int fd, void *bytes, size_t len, off_t offset)
{
	return fate_of("pread", fd, NULL, A_READ) == FAILS ? fail(EIO) : syscall(SYS_pread64, fd, bytes, len, offset);
}

ssize_t pread64(int fd, void *bytes, size_t len, off64_t offset) __attribute__((alias("pread")));

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int done = syscall(SYS_clock_gettime, clock, now);
	if (kind != CLOCK || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) || !is_here())
		return done;
	long number = atomic_fetch_add(&counts[A_WRITE], 1) + 1;
	if (number == at)
		tell("the time", "day");
	if (number >= at && (times == 0 || (number - at) / times % 2 == 0))
		now->tv_sec += jump;
	return done;
}

int gettimeofday(struct timeval *restrict day, void *restrict zone)
{
	struct timespec now;
	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &now) < 0)
		return -1;
	day->tv_sec = now.tv_sec;
	day->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *where)
{
	struct timespec now;
	if (clock_gettime(CLOCK_REALTIME, &now) < 0)
		return -1;
	if (where)
		*where = now.tv_sec;
	return now.tv_sec;
}
