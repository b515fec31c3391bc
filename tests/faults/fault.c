/* Makes one system call of one process on one directory misbehave. Preload it (LD_PRELOAD); it knows nothing
 * of what it is loaded into.
 *
 *   FAULT_STORE   the directory, absolute and without links; the process must name its files absolutely
 *   FAULT_KIND    what happens (below)
 *   FAULT_AT      to which call, counted from 1
 *   FAULT_STRUCK  a file outside the directory that is made when it happens; says to which call
 *
 *   error   the call fails and does nothing: ENOSPC for what needs room, else EIO
 *   kill    the process is killed instead of making the call
 *   short   half of a write is written, which it says; later calls go on as ever
 *   full    the same, and the next write fails with ENOSPC; then there is room again
 *   torn    half of a write is written, then the process is killed
 *
 * What is counted is every call that changes a file below the directory: for `error` and `kill` writes, syncs
 * and calls that make, name, cut or remove a file, for the others writes alone. Calls of all threads count,
 * those of child processes do not. Half of one byte is one byte: the kernel never writes none.
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
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

_Static_assert(sizeof(off_t) == 8, "write and its like are made for 64-bit offsets");

enum kind { NONE, ERROR, KILL, SHORT, FULL, TORN };
static const char *const kind_names[] = { "", "error", "kill", "short", "full", "torn" };

enum fate { GOES_ON, FAILS, IS_CUT };

static enum kind kind;
static const char *store;
static const char *struck_path;
static long at;
static pid_t process; /* children have the library too, but another number */
static atomic_long count;

__attribute__((constructor)) static void load(void)
{
	const char *name = getenv("FAULT_KIND"), *number = getenv("FAULT_AT");
	store = getenv("FAULT_STORE");
	struck_path = getenv("FAULT_STRUCK");
	if (!name || !number || !store || !struck_path)
		return;
	at = atol(number);
	process = getpid();
	for (int i = ERROR; i <= TORN; i++)
		if (strcmp(name, kind_names[i]) == 0)
			kind = i;
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

static enum fate fate_of(const char *call, int fd, const char *name, bool is_write)
{
	char buffer[PATH_MAX];
	if (kind == NONE || getpid() != process || (!is_write && kind >= SHORT))
		return GOES_ON;
	int before = errno;
	const char *path = path_at(fd, name, buffer);
	enum fate fate = GOES_ON;
	if (is_in_store(path)) {
		long number = atomic_fetch_add(&count, 1) + 1;
		if (number == at) {
			tell(call, path);
			if (kind == KILL)
				raise(SIGKILL);
			fate = kind == ERROR ? FAILS : IS_CUT;
		} else if (kind == FULL && number == at + 1) {
			fate = FAILS;
		}
	}
	errno = before;
	return fate;
}

static int fail(int error)
{
	errno = error;
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
	switch (fate_of("write", fd, NULL, true)) {
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
	switch (fate_of("pwrite", fd, NULL, true)) {
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
	switch (fate_of("writev", fd, NULL, true)) {
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
	(fate_of(name, fd, path, false) == FAILS ? fail(error) : (int)syscall(__VA_ARGS__))

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

/* Only one that may make the file counts. */
int open(const char *path, int flags, ...)
{
	va_list rest;
	va_start(rest, flags);
	mode_t mode = flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)) ? va_arg(rest, mode_t) : 0;
	va_end(rest);
	if ((flags & O_CREAT) == 0)
		return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	return WHOLE("open", AT_FDCWD, path, ENOSPC, SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));
