/* The clock, the work of a stream in order, and the log of what ran when. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "stub.h"

enum { NS_PER_S = 1000000000 };

/* CLOCK_MONOTONIC, ns. */
uint64_t stub_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Sleeps; never spins, so that a simulated device leaves the cores to the program under test. */
void stub_sleep_until(uint64_t time_ns)
{
    struct timespec until = {.tv_sec = (time_t)(time_ns / NS_PER_S), .tv_nsec = (long)(time_ns % NS_PER_S)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
        ;
}

/* Appends work to a stream; blocks, with the lock released, while its FIFO is full. */
void stub_append(CUstream stream, uint64_t duration_ns)
{
    uint64_t now_ns = stub_now_ns();
    while (stream->fifo_ns[stream->fifo_at] > now_ns) {
        uint64_t until_ns = stream->fifo_ns[stream->fifo_at];
        pthread_mutex_unlock(&stub.lock);
        stub_sleep_until(until_ns);
        pthread_mutex_lock(&stub.lock);
        now_ns = stub_now_ns();
    }
    uint64_t start_ns = stream->free_ns > now_ns ? stream->free_ns : now_ns;
    uint64_t *engine_ns = &stub.engine_free_ns[stream->context->device];
    if (stub.serial && *engine_ns > start_ns)
        start_ns = *engine_ns;
    uint64_t end_ns = start_ns + duration_ns;
    stream->free_ns = end_ns;
    if (stub.serial)
        *engine_ns = end_ns;
    stream->fifo_ns[stream->fifo_at] = end_ns;
    stream->fifo_at = (stream->fifo_at + 1) % STUB_FIFO_DEPTH;
    if (stub.log) {
        uint64_t at = stub.log->count % STUB_LOG_SIZE;
        stub.log->interval[at].start_ns = start_ns;
        stub.log->interval[at].end_ns = end_ns;
        /* The count last, so that a reader never sees an interval half written. */
        __atomic_store_n(&stub.log->count, stub.log->count + 1, __ATOMIC_RELEASE);
    }
}

/* Maps the log file, new and empty (sparse: it takes no space until it is written). */
void stub_log_open(const char *path)
{
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, sizeof(struct stub_log)) != 0) {
        perror(path);
        exit(2);
    }
    void *mapped = mmap(NULL, sizeof(struct stub_log), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED) {
        perror(path);
        exit(2);
    }
    stub.log = mapped;
}
