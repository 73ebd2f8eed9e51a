/* Lets the n-th write below a folder fail, in whatever library it happens: loaded by LD_PRELOAD.

   Counted are the calls that bring something to a disk: creating a file or folder, writing, syncing, renaming, linking.
   Successive calls of write to one file count as one: a library writes a checkpoint by some thousand.
   DMP_FAULT_FOLDER names the folder; DMP_FAULT=N:ERRNO:LASTING arms it at the start, faults_arm() later. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static long at, count;
static int number, lasting, writing = -1; /* the file of the last call of write, until another call */
static char folder[PATH_MAX];

void faults_arm(long n, int error, int from_then_on) {
    at = n; number = error; lasting = from_then_on; count = 0; writing = -1;
}
long faults_count(void) { return count; }

__attribute__((constructor)) static void start(void) {
    const char *place = getenv("DMP_FAULT_FOLDER"), *spec = getenv("DMP_FAULT");
    if (place) snprintf(folder, sizeof folder, "%s", place);
    if (spec) sscanf(spec, "%ld:%d:%d", &at, &number, &lasting);
}

static int due(int fd) {
    int again = fd >= 0 && fd == __atomic_exchange_n(&writing, fd, __ATOMIC_SEQ_CST);
    long n = again ? count : __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (!number || n < at || ((n > at || again) && !lasting)) return 0;
    if (number < 0) kill(0, -number); /* a signal to the group instead */
    errno = number;
    return 1;
}

static int below(const char *path) {
    char joined[PATH_MAX];
    if (!*folder || !path) return 0;
    if (*path != '/') {
        if (!getcwd(joined, sizeof joined / 2)) return 0;
        strncat(joined, "/", 2);
        strncat(joined, path, sizeof joined / 2 - 2);
        path = joined;
    }
    return !strncmp(path, folder, strlen(folder));
}

static int below_fd(int fd) {
    char link[64], path[PATH_MAX];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = *folder ? readlink(link, path, sizeof path - 1) : -1;
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static int fails(const char *path) { return below(path) && due(-1); }
static int fails_fd(int fd) { return below_fd(fd) && due(-1); }
static int write_fails(int fd) { return below_fd(fd) && due(fd); }

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        va_list rest; va_start(rest, flags); mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; va_end(rest); \
        return flags & O_CREAT && fails(path) ? -1 : real(path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int dir, const char *path, int flags, ...) { \
        REAL(int, #name, int, const char *, int, ...); \
        va_list rest; va_start(rest, flags); mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; va_end(rest); \
        return flags & O_CREAT && fails(path) ? -1 : real(dir, path, flags, mode); \
    }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

#define CALL(type, name, refused, parameters, arguments) \
    type name parameters { \
        static type (*real) parameters; \
        if (!real) real = (type (*) parameters)dlsym(RTLD_NEXT, #name); \
        return refused ? (type)-1 : real arguments; \
    }
CALL(ssize_t, write, write_fails(fd), (int fd, const void *data, size_t size), (fd, data, size))
CALL(ssize_t, writev, write_fails(fd), (int fd, const struct iovec *data, int parts), (fd, data, parts))
CALL(ssize_t, pwrite, fails_fd(fd), (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
CALL(ssize_t, pwrite64, fails_fd(fd), (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
CALL(ssize_t, sendfile, fails_fd(to), (int to, int from, off_t *at, size_t size), (to, from, at, size))
CALL(ssize_t, sendfile64, fails_fd(to), (int to, int from, off64_t *at, size_t size), (to, from, at, size))
CALL(int, ftruncate, fails_fd(fd), (int fd, off_t size), (fd, size))
CALL(int, ftruncate64, fails_fd(fd), (int fd, off64_t size), (fd, size))
/* Nobody cuts the power: below the folder syncing costs nothing, else it would be half of the time. */
#define SYNC(name) \
    int name(int fd) { \
        REAL(int, #name, int); \
        return !below_fd(fd) ? real(fd) : due(-1) ? -1 : 0; \
    }
SYNC(fsync) SYNC(fdatasync)
/* A folder that is there is no write. */
CALL(int, mkdir, access(path, F_OK) && fails(path), (const char *path, mode_t mode), (path, mode))
CALL(int, mkdirat, faccessat(dir, path, F_OK, 0) && fails(path), (int dir, const char *path, mode_t mode), (dir, path, mode))
CALL(int, rename, fails(to), (const char *from, const char *to), (from, to))
CALL(int, renameat, fails(to), (int a, const char *from, int b, const char *to), (a, from, b, to))
CALL(int, link, fails(to), (const char *from, const char *to), (from, to))
CALL(int, symlink, fails(to), (const char *from, const char *to), (from, to))
