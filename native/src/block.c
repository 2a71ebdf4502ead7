#define _GNU_SOURCE
#include "block.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* As the commands of RaPP: what a user can mend ends with this status. */
enum { EXIT_EXPECTED = 2 };

static _Atomic(struct quota_block *) opened;

static bool required(void)
{
    const char *value = getenv("RAPP_QUOTA_REQUIRED");
    return value && strcmp(value, "1") == 0;
}

/* One write, so that lines of several processes do not mix; stdio may be in any state. */
static void say(const char *format, va_list arguments, const char *outcome)
{
    char text[512] = "rapp-quota: ";
    size_t length = strlen(text);
    int written = vsnprintf(text + length, sizeof text - length, format, arguments);
    if (written < 0)
        return;
    length += (size_t)written < sizeof text - length ? (size_t)written : sizeof text - length - 1;
    written = snprintf(text + length, sizeof text - length, "%s\n", outcome);
    if (written > 0)
        length += (size_t)written < sizeof text - length ? (size_t)written : sizeof text - length - 1;
    ssize_t ignored = write(STDERR_FILENO, text, length);
    (void)ignored;
}

void quota_unusable(const char *format, ...)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    va_list arguments;
    atomic_store(&opened, NULL);
    va_start(arguments, format);
    if (required()) {
        say(format, arguments, "; ends, as RAPP_QUOTA_REQUIRED=1 asks");
        _exit(EXIT_EXPECTED);
    }
    if (!atomic_flag_test_and_set(&said))
        say(format, arguments, "; this process runs without a time quota");
    va_end(arguments);
}

void quota_warn(const char *format, ...)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&said))
        return;
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments, "");
    va_end(arguments);
}

/* Why a mapped block cannot be used; NULL: it can. */
static const char *fault(const struct quota_block *block)
{
    if (block->magic != QUOTA_MAGIC)
        return "not a control block of a time quota";
    if (block->version != QUOTA_VERSION)
        return "a control block of another version";
    uint32_t ppm = atomic_load(&block->quota_ppm);
    if (atomic_load(&block->mode) > QUOTA_GPU_TIME || ppm < 1 || ppm > QUOTA_PPM_MAX ||
        atomic_load(&block->window_ns) == 0)
        return "holds a quota, window or mode that cannot be";
    return NULL;
}

static void open_block(void)
{
    const char *path = getenv("RAPP_QUOTA_BLOCK");
    if (!path || !*path) {
        quota_unusable("RAPP_QUOTA_BLOCK is not set: it names the control block of the time quota");
        return;
    }
    int file = open(path, O_RDWR | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) {
        quota_unusable("%s: %s", path, strerror(errno));
        if (file >= 0)
            close(file);
        return;
    }
    if (status.st_size < (off_t)sizeof(struct quota_block)) {
        quota_unusable("%s: too short for a control block", path);
        close(file);
        return;
    }
    void *mapped = mmap(NULL, sizeof(struct quota_block), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    int failure = errno;
    close(file);
    if (mapped == MAP_FAILED) {
        quota_unusable("%s: %s", path, strerror(failure));
        return;
    }
    struct quota_block *block = mapped;
    const char *reason = fault(block);
    if (reason) {
        quota_unusable("%s: %s", path, reason);
        munmap(mapped, sizeof *block);
        return;
    }
    atomic_store(&opened, block);
}

struct quota_block *quota_block(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_block);
    return atomic_load_explicit(&opened, memory_order_acquire);
}
