/* A disk that is full below one folder: no file there grows and none is made, as long as a shared file says so. What is there
 * can be read, overwritten, cut and removed, as on a real full disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static const char none = 0;
static const volatile char *is_full = &none;
static char folder[PATH_MAX];
static size_t folder_length;

__attribute__((constructor)) static void open_file(void)
{
    const char *switched = getenv("TEST_FULL_DISK_SWITCH"), *path = getenv("TEST_FULL_DISK_FOLDER");
    int file = switched ? open(switched, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file >= 0 ? mmap(NULL, 1, PROT_READ, MAP_SHARED, file, 0) : MAP_FAILED;
    if (file >= 0)
        close(file);
    if (page == MAP_FAILED || !path || !realpath(path, folder))
        abort(); /* a test of a full disk that has room proves nothing */
    folder_length = strlen(folder);
    is_full = page;
}

static int lies_there(const char *path)
{
    return strncmp(path, folder, folder_length) == 0 && (path[folder_length] == '/' || path[folder_length] == 0);
}

/* How many of these bytes still fit into a file that may not grow; all of them outside of the folder. */
static size_t room(int file, size_t wanted, off_t at)
{
    char link[32], path[PATH_MAX];
    struct stat found;
    if (!*is_full || fstat(file, &found) != 0 || !S_ISREG(found.st_mode))
        return wanted;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return wanted;
    path[length] = 0;
    if (!lies_there(path))
        return wanted;
    if (at < 0)
        at = fcntl(file, F_GETFL) & O_APPEND ? found.st_size : lseek(file, 0, SEEK_CUR);
    off_t left = found.st_size - at;
    return left <= 0 ? 0 : (size_t)left < wanted ? (size_t)left : wanted;
}

static int full(void)
{
    errno = ENOSPC;
    return -1;
}

#define KERNELS(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void *bytes, size_t wanted)
{
    size_t fits = room(file, wanted, -1);
    return wanted && !fits ? full() : KERNELS(write)(file, bytes, fits);
}

ssize_t pwrite64(int file, const void *bytes, size_t wanted, off64_t at)
{
    size_t fits = room(file, wanted, at);
    return wanted && !fits ? full() : KERNELS(pwrite64)(file, bytes, fits, at);
}

ssize_t pwrite(int file, const void *bytes, size_t wanted, off_t at)
{
    return pwrite64(file, bytes, wanted, at);
}

ssize_t pwritev(int file, const struct iovec *parts, int number, off_t at)
{
    size_t wanted = 0;
    for (int each = 0; each < number; each++)
        wanted += parts[each].iov_len;
    return room(file, wanted, at) < wanted ? full() : KERNELS(pwritev)(file, parts, number, at);
}

ssize_t pwritev64(int file, const struct iovec *parts, int number, off64_t at)
{
    return pwritev(file, parts, number, at);
}

int ftruncate64(int file, off64_t length)
{
    return length && !room(file, 1, length - 1) ? full() : KERNELS(ftruncate64)(file, length);
}

int ftruncate(int file, off_t length)
{
    return ftruncate64(file, length);
}

int posix_fallocate64(int file, off64_t at, off64_t length)
{
    return room(file, length, at) < (size_t)length ? ENOSPC : KERNELS(posix_fallocate64)(file, at, length);
}

int posix_fallocate(int file, off_t at, off_t length)
{
    return posix_fallocate64(file, at, length);
}

static int may_not_be_made(int folder_file, const char *path, int flags)
{
    char resolved[PATH_MAX], parent[PATH_MAX];
    if (!*is_full || !(flags & O_CREAT) || faccessat(folder_file, path, F_OK, 0) == 0)
        return 0;
    const char *slash = strrchr(path, '/');
    snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    return realpath(parent, resolved) && lies_there(resolved);
}

static int open_there(const char *name, int folder_file, const char *path, int flags, mode_t mode)
{
    int (*kernels)(int, const char *, int, ...) = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, name);
    return may_not_be_made(folder_file, path, flags) ? full() : kernels(folder_file, path, flags, mode);
}

#define OPEN(name, at)                                                 \
    int name(const char *path, int flags, ...)                         \
    {                                                                  \
        va_list rest;                                                  \
        va_start(rest, flags);                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                  \
        return open_there(at, AT_FDCWD, path, flags, mode);            \
    }

OPEN(open, "openat")
OPEN(open64, "openat64")
