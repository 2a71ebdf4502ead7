#define _GNU_SOURCE
#include "gate.h"

#include <pthread.h>

#include "admission.h"
#include "block.h"
#include "bucket.h"
#include "clock.h"
#include "driver.h"
#include "groups.h"

enum { MAX_DEVICES = 64 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static CUcontext primary[MAX_DEVICES];

/* A child has its parent's memory but none of its device: handles mean nothing there, and other threads,
 * which might have held the mutex, are gone. */
static void before_fork(void)
{
    pthread_mutex_lock(&mutex);
}

static void after_fork_in_parent(void)
{
    pthread_mutex_unlock(&mutex);
}

static void after_fork_in_child(void)
{
    mutex = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
    streams_reset();
    for (int i = 0; i < MAX_DEVICES; i++)
        primary[i] = NULL;
    atomic_store(&groups_unsettled, 0);
}

static void prepare_for_fork(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* The block, once the gate is ready to work with it. */
static struct quota_block *ready_block(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct quota_block *block = quota_block();
    if (!block || !driver_ready())
        return NULL;
    pthread_once(&once, prepare_for_fork);
    return block;
}

static bool is_on(struct quota_block *block)
{
    return atomic_load_explicit(&block->mode, memory_order_relaxed) == QUOTA_GPU_TIME;
}

/* Settles what was launched before the gate was switched off, and forgets the debt. */
static void wind_down(struct quota_block *block)
{
    if (!atomic_load_explicit(&groups_unsettled, memory_order_relaxed) &&
        !atomic_load_explicit(&block->refilled_ns, memory_order_relaxed))
        return;
    pthread_mutex_lock(&mutex);
    for (struct stream *stream = streams_all(); stream; stream = stream->next) {
        if (!stream->launching)
            groups_finish(block, stream);
        groups_collect(block, stream);
    }
    bucket_forget(block);
    pthread_mutex_unlock(&mutex);
}

static void mark_all(void)
{
    for (struct stream *stream = streams_all(); stream; stream = stream->next)
        groups_mark(stream);
}

/* Streams that were destroyed with groups in flight: nobody else would look at them. */
static void collect_orphans(struct quota_block *block)
{
    for (struct stream *stream = streams_all(); stream; stream = stream->next)
        if (!stream->handle && stream->closed)
            groups_collect(block, stream);
}

/* With the mutex held: makes sure that the stream has an open group, waiting for the quota if need be. The
 * mutex is released during waits. Returns NULL if the launch is to go ungated. */
static struct stream *admit(struct quota_block *block, CUstream handle)
{
    uint64_t waiting_since = 0;
    struct stream *stream;
    while (true) {
        stream = streams_get(handle);
        if (!stream || !is_on(block)) {
            stream = NULL;
            break;
        }
        groups_end_late(stream);
        if (stream->open && !stream->marked)
            break; /* the common case, in which the driver is asked nothing */
        groups_collect(block, stream);
        if (stream->open)
            break;
        collect_orphans(block);
        bool for_tokens;
        int64_t delay_ns = admission_delay(block, stream, &for_tokens);
        if (delay_ns == 0) {
            if (!groups_open(stream))
                stream = NULL;
            break;
        }
        if (for_tokens && !waiting_since) {
            waiting_since = now_ns();
            mark_all(); /* this thread launches nothing meanwhile, and its other streams may run dry */
        }
        pthread_mutex_unlock(&mutex);
        nap(delay_ns);
        pthread_mutex_lock(&mutex);
    }
    if (waiting_since) {
        if (stream)
            stream->launched_ns = now_ns(); /* it was the gate that held the launch back, not the program */
        atomic_fetch_add_explicit(&block->waits, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&block->waited_ns, now_ns() - waiting_since, memory_order_relaxed);
    }
    return stream;
}

struct stream *gate_enter(CUstream handle, bool per_thread)
{
    struct quota_block *block = ready_block();
    if (!block)
        return NULL;
    if (!is_on(block)) {
        wind_down(block);
        return NULL;
    }
    handle = stream_handle(handle, per_thread);
    if (driver_capturing(handle))
        return NULL;
    pthread_mutex_lock(&mutex);
    struct stream *stream = admit(block, handle);
    if (stream)
        stream->launching++;
    pthread_mutex_unlock(&mutex);
    return stream;
}

void gate_leave(struct stream *stream, enum kind kind, CUresult result)
{
    struct quota_block *block = quota_block();
    if (!stream || !block)
        return;
    pthread_mutex_lock(&mutex);
    if (stream->launching)
        stream->launching--;
    /* Not open: the stream or its context was destroyed meanwhile, or the device is broken. */
    if (!stream->open || result != CUDA_SUCCESS) {
        groups_cancel(stream);
    } else {
        groups_count(block, stream, kind);
        atomic_fetch_add_explicit(&block->launches, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&mutex);
}

/* Whether there is anything to mark or collect: most calls find nothing, and take no mutex. */
static struct quota_block *block_with_groups(void)
{
    return atomic_load_explicit(&groups_unsettled, memory_order_relaxed) ? quota_block() : NULL;
}

void gate_mark(CUstream handle, bool per_thread)
{
    if (!block_with_groups())
        return;
    pthread_mutex_lock(&mutex);
    struct stream *stream = streams_find(stream_handle(handle, per_thread));
    if (stream)
        groups_mark(stream);
    pthread_mutex_unlock(&mutex);
}

void gate_mark_all(void)
{
    if (!block_with_groups())
        return;
    pthread_mutex_lock(&mutex);
    mark_all();
    pthread_mutex_unlock(&mutex);
}

void gate_collect_all(void)
{
    struct quota_block *block = block_with_groups();
    if (!block)
        return;
    pthread_mutex_lock(&mutex);
    for (struct stream *stream = streams_all(); stream; stream = stream->next)
        groups_collect(block, stream);
    pthread_mutex_unlock(&mutex);
}

void gate_stream_ends(CUstream handle)
{
    struct quota_block *block = quota_block();
    if (!block || !handle)
        return;
    pthread_mutex_lock(&mutex);
    struct stream *stream = streams_find(handle);
    if (stream) {
        groups_finish(block, stream);
        stream->handle = NULL;
    }
    pthread_mutex_unlock(&mutex);
}

void gate_context_ends(CUcontext context)
{
    struct quota_block *block = quota_block();
    if (!block)
        return;
    pthread_mutex_lock(&mutex);
    for (struct stream *stream = streams_all(); stream; stream = stream->next)
        if (stream->context && stream->context->handle == context)
            groups_abandon(block, stream);
    streams_drop_context(context);
    pthread_mutex_unlock(&mutex);
}

void gate_primary_retained(CUdevice device, CUcontext context)
{
    if (!quota_block() || device < 0 || device >= MAX_DEVICES)
        return;
    pthread_mutex_lock(&mutex);
    primary[device] = context;
    pthread_mutex_unlock(&mutex);
}

void gate_primary_released(CUdevice device)
{
    if (!ready_block() || device < 0 || device >= MAX_DEVICES || driver_primary_active(device))
        return;
    pthread_mutex_lock(&mutex);
    CUcontext context = primary[device];
    primary[device] = NULL;
    pthread_mutex_unlock(&mutex);
    if (context)
        gate_context_ends(context);
}

void gate_thread_ended(unsigned long thread)
{
    struct quota_block *block = quota_block();
    if (!block)
        return;
    pthread_mutex_lock(&mutex);
    for (struct stream *stream = streams_all(); stream; stream = stream->next)
        if (stream->thread == thread && stream->handle) {
            /* The driver may have taken the thread's own streams down already. */
            groups_abandon(block, stream);
            stream->handle = NULL;
        }
    pthread_mutex_unlock(&mutex);
}
