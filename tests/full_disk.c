/* A disk that is full after so many bytes, or is read-only, for one process and those that it forks: preloaded by
   tests.endings. Counts what is written to regular files under one folder. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static long room = LONG_MAX;
static int read_only;
static char folder[PATH_MAX];

/* Leaves `bytes` of room under `path`; nothing there can be made or changed if `fixed`. */
void full_disk(const char *path, long bytes, int fixed) {
    snprintf(folder, sizeof folder, "%s", path);
    room = bytes, read_only = fixed;
}

static int is_there(const char *path) { return *folder && !strncmp(path, folder, strlen(folder)); }

/* Returns whether `count` bytes fit; what fits in part fails, as a quota does. */
static int fits(int fd, size_t count) {
    char link[64], path[PATH_MAX];
    struct stat status;
    if (room == LONG_MAX || fstat(fd, &status) || !S_ISREG(status.st_mode)) return 1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 1;
    path[length] = 0;
    if (!is_there(path)) return 1;
    if ((long)count > room) {
        room = 0, errno = ENOSPC;
        return 0;
    }
    room -= (long)count;
    return 1;
}

static int may(const char *path) {
    if (!read_only || !is_there(path)) return 1;
    errno = EROFS;
    return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t count) { return fits(fd, count) ? REAL(write)(fd, data, count) : -1; }

ssize_t pwrite(int fd, const void *data, size_t count, off_t at) {
    return fits(fd, count) ? REAL(pwrite)(fd, data, count, at) : -1;
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at) {
    return fits(fd, count) ? REAL(pwrite64)(fd, data, count, at) : -1;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    size_t total = 0;
    for (int i = 0; i < count; i++) total += parts[i].iov_len;
    return fits(fd, total) ? REAL(writev)(fd, parts, count) : -1;
}

int mkdir(const char *path, mode_t mode) { return may(path) ? REAL(mkdir)(path, mode) : -1; }

int rename(const char *from, const char *to) { return may(to) ? REAL(rename)(from, to) : -1; }

int unlink(const char *path) { return may(path) ? REAL(unlink)(path) : -1; }

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    if ((flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC)) && !may(path)) return -1;
    return REAL(open)(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    if ((flags & (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC)) && !may(path)) return -1;
    return REAL(open64)(path, flags, mode);
}
