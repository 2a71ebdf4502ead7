#define _GNU_SOURCE
#include "streams.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "driver.h"
#include "gate.h"

static struct stream *streams;
static struct context *contexts;

/* Numbers of threads, which unlike thread handles never come back. */
static _Thread_local unsigned long this_thread;
static unsigned long threads = 1;
static pthread_key_t thread_end;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;

static void thread_ended(void *number)
{
    gate_thread_ended((unsigned long)(uintptr_t)number);
}

static void make_key(void)
{
    pthread_key_create(&thread_end, thread_ended);
}

static unsigned long owner(CUstream handle)
{
    if (handle != CU_STREAM_PER_THREAD)
        return 0;
    if (!this_thread) {
        this_thread = threads++;
        pthread_once(&thread_once, make_key);
        pthread_setspecific(thread_end, (void *)(uintptr_t)this_thread);
    }
    return this_thread;
}

CUstream stream_handle(CUstream handle, bool per_thread)
{
    if (handle)
        return handle;
    return per_thread ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY;
}

struct stream *streams_find(CUstream handle)
{
    /* A default stream has the same handle in every context. Other handles are a stream's own while it lives,
     * and the driver is asked for the context once. */
    bool is_default = handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD;
    CUcontext context = is_default ? driver_context(handle) : NULL;
    unsigned long thread = owner(handle);
    for (struct stream *stream = streams; stream; stream = stream->next)
        if (stream->handle == handle && stream->thread == thread &&
            (!is_default || stream->context->handle == context))
            return stream;
    return NULL;
}

static struct context *context_entry(CUcontext handle)
{
    struct context *unused = NULL;
    for (struct context *context = contexts; context; context = context->next) {
        if (context->handle == handle)
            return context;
        if (!context->handle)
            unused = context;
    }
    if (!unused) {
        unused = calloc(1, sizeof *unused);
        if (!unused)
            return NULL;
        unused->next = contexts;
        contexts = unused;
    }
    unused->handle = handle;
    return unused;
}

struct stream *streams_get(CUstream handle)
{
    struct stream *stream = streams_find(handle);
    if (stream)
        return stream;
    CUcontext current = driver_context(handle);
    struct context *context = current ? context_entry(current) : NULL;
    if (!context)
        return NULL;
    for (stream = streams; stream; stream = stream->next)
        if (!stream->handle && !stream->closed && (!stream->context || stream->context == context))
            break;
    if (!stream) {
        stream = calloc(1, sizeof *stream);
        if (!stream)
            return NULL;
        stream->next = streams;
        streams = stream;
    }
    /* What the last stream taught about the program's kernels stays in `mean_ns`. */
    stream->handle = handle;
    stream->thread = owner(handle);
    stream->context = context;
    stream->open = stream->marked = stream->watched = false;
    stream->launching = stream->late_groups = 0;
    stream->launched_ns = stream->busy_until_ns = 0;
    stream->last_end_ns = INT64_MIN;
    return stream;
}

bool streams_reachable(const struct stream *stream)
{
    if (stream->handle != CU_STREAM_LEGACY && stream->handle != CU_STREAM_PER_THREAD)
        return stream->handle != NULL;
    return stream->thread == owner(stream->handle) &&
           stream->context->handle == driver_context(stream->handle);
}

struct stream *streams_all(void)
{
    return streams;
}

static void drop_stream(struct stream *stream)
{
    stream->handle = NULL;
    stream->context = NULL;
    stream->closed = stream->launching = 0;
    stream->open = stream->marked = false;
    memset(stream->groups, 0, sizeof stream->groups);
}

void streams_drop_context(CUcontext handle)
{
    for (struct context *context = contexts; context; context = context->next) {
        if (context->handle != handle)
            continue;
        for (struct stream *stream = streams; stream; stream = stream->next)
            if (stream->context == context)
                drop_stream(stream);
        context->handle = NULL;
        context->base = NULL;
        context->base_ns = 0;
        context->busy.count = 0;
    }
}

void streams_reset(void)
{
    for (struct stream *stream = streams; stream; stream = stream->next)
        drop_stream(stream);
    for (struct context *context = contexts; context; context = context->next) {
        context->handle = NULL;
        context->base = NULL;
        context->base_ns = 0;
        context->busy.count = 0;
    }
}
