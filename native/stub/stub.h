/* A CUDA driver without a GPU: libcuda.so.1 whose kernels do nothing but take time.
 *
 * Every stream is a line of work on the clock CLOCK_MONOTONIC: a launch appends an interval to it and
 * returns. Nothing runs when the interval comes, so the simulation needs no core; who waits, sleeps. Events
 * take the time at which the stream gets to them, exactly, however late anybody looks.
 *
 * A kernel's CUfunction is its duration in ns: cuLaunchKernel((CUfunction)50000, ...) takes 50 us.
 *
 * Environment (read once, at cuInit):
 *   RAPP_STUB_DEVICES      GPUs, default 1; CUDA_VISIBLE_DEVICES (indices or UUIDs) chooses among them
 *   RAPP_STUB_NAME         their name, default "RaPP stub GPU"
 *   RAPP_STUB_SM_COUNT     multiprocessors of each, default 80; CUDA_MPS_ACTIVE_THREAD_PERCENTAGE lowers the
 *                          number that the process sees, in steps of 2
 *   RAPP_STUB_MPS=0        there is no MPS daemon: that percentage is ignored
 *   RAPP_STUB_MEMORY_MIB   memory of each, default 16384
 *   RAPP_STUB_SERIAL=1     streams take turns on the device; by default they run side by side
 *   RAPP_STUB_LOG          file that gets the interval of every kernel and graph, see `struct stub_log`
 *   RAPP_STUB_FAIL         name=code: that function does nothing and returns that CUresult
 *
 * Not simulated: what kernels compute, the time of copies, the implicit synchronisation between the legacy
 * default stream and the others, and sharing of a device by several processes: each has one of its own.
 */
#ifndef RAPP_STUB_H
#define RAPP_STUB_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "cuda_abi.h"

#define STUB_API __attribute__((visibility("default")))

enum {
    STUB_MAX_DEVICES = 8,
    STUB_FIFO_DEPTH = 1024, /* launches that a stream takes before the next one blocks, as on real hardware */
    STUB_LOG_SIZE = 1 << 20,
};

/* First word of each object, so that a stale handle is an error and not a crash: destroyed objects stay. */
enum stub_magic {
    STUB_DEAD = 0,
    STUB_CONTEXT = 0x43545854,
    STUB_STREAM = 0x5354524d,
    STUB_EVENT = 0x45564e54,
    STUB_GRAPH = 0x47525048,
    STUB_EXEC = 0x45584543,
};

struct CUctx_st {
    enum stub_magic magic;
    CUdevice device;
    uint64_t id; /* handles come back after a destroy, ids do not */
    CUstream legacy;
    CUstream streams; /* all of this context, linked by `next` */
    CUcontext next;
};

struct stub_capture {
    uint64_t id;
    CUstreamCaptureMode mode;
    pthread_t thread;
    CUcontext context;
    bool invalid;
    CUgraph graph;
    struct stub_capture *next;
};

struct CUstream_st {
    enum stub_magic magic;
    CUcontext context;
    unsigned int flags;
    uint64_t free_ns; /* when it has done what was launched so far */
    uint64_t fifo_ns[STUB_FIFO_DEPTH];
    unsigned int fifo_at;
    struct stub_capture *capture; /* NULL: none */
    CUstream next;
};

struct CUevent_st {
    enum stub_magic magic;
    CUcontext context;
    uint64_t context_id;
    unsigned int flags;
    bool recorded;
    uint64_t at_ns;
    uint64_t capture_id; /* last recorded inside that capture; 0: outside any */
};

struct CUgraph_st {
    enum stub_magic magic;
    uint64_t duration_ns;
    uint64_t nodes;
};

struct CUgraphExec_st {
    enum stub_magic magic;
    uint64_t duration_ns;
};

/* The file named by RAPP_STUB_LOG: how many intervals there were, then the last STUB_LOG_SIZE of them. */
struct stub_log {
    uint64_t count;
    struct {
        uint64_t start_ns, end_ns;
    } interval[STUB_LOG_SIZE];
};

struct stub_state {
    pthread_mutex_t lock;          /* guards everything below and all objects */
    bool configured, ready;        /* settings read; cuInit called since the last fork */
    int devices;                   /* visible ones */
    int visible[STUB_MAX_DEVICES]; /* index of each among all */
    int sm_count;
    uint64_t memory_bytes, used_bytes[STUB_MAX_DEVICES];
    bool serial;
    uint64_t engine_free_ns[STUB_MAX_DEVICES]; /* with `serial`: when the device is free */
    CUcontext primary[STUB_MAX_DEVICES];
    int primary_count[STUB_MAX_DEVICES];
    CUcontext contexts; /* linked by `next`; none is ever freed */
    struct stub_capture *captures;
    uint64_t next_id;
    struct stub_log *log;
    char fail_name[64];
    CUresult fail_code;
};

extern struct stub_state stub;

/* device.c */
CUresult stub_enter(const char *function);

/* context.c */
CUcontext stub_current(void);
bool stub_is_context(CUcontext context);
void stub_end_context(CUcontext context);

/* stream.c; all with the lock held unless said otherwise */
CUresult stub_stream(CUstream handle, bool per_thread, CUstream *found);
CUstream stub_new_stream(CUcontext context, unsigned int flags);

/* timeline.c */
uint64_t stub_now_ns(void);
void stub_sleep_until(uint64_t time_ns); /* without the lock */
void stub_append(CUstream stream, uint64_t duration_ns);
void stub_log_open(const char *path);

/* capture.c; with the lock held */
CUresult stub_unsafe_call(void);
CUresult stub_capture_conflict(CUstream stream);
void stub_capture_work(CUstream stream, uint64_t duration_ns);

/* Starts the body of an entry point: an error of RAPP_STUB_FAIL, or a missing cuInit, ends it. */
#define STUB_ENTER()                             \
    do {                                         \
        CUresult refused = stub_enter(__func__); \
        if (refused != CUDA_SUCCESS)             \
            return refused;                      \
    } while (0)

#endif
