/* Streams, and the launches into them. */
#include <stdlib.h>

#include "stub.h"

/* Default streams of this thread, one for each context it has used; the id tells a context's namesakes apart.
 */
static _Thread_local struct {
    uint64_t context_id;
    CUstream stream;
} mine[8];

/* A new stream of a context; NULL: no memory. */
CUstream stub_new_stream(CUcontext context, unsigned int flags)
{
    CUstream stream = calloc(1, sizeof *stream);
    if (!stream)
        return NULL;
    stream->magic = STUB_STREAM;
    stream->context = context;
    stream->flags = flags;
    stream->next = context->streams;
    context->streams = stream;
    return stream;
}

static CUstream default_of_thread(CUcontext context)
{
    unsigned int slot = (unsigned int)(context->id % (sizeof mine / sizeof *mine));
    if (mine[slot].context_id != context->id) {
        mine[slot].stream = stub_new_stream(context, CU_STREAM_DEFAULT);
        mine[slot].context_id = context->id;
    }
    return mine[slot].stream;
}

/* The stream that a handle means.
 *
 * per_thread: the call is of the kind whose default stream is one per thread.
 * Returns CUDA_ERROR_INVALID_CONTEXT or CUDA_ERROR_INVALID_HANDLE.
 */
CUresult stub_stream(CUstream handle, bool per_thread, CUstream *found)
{
    if (!handle)
        handle = per_thread ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY;
    if (handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
        CUcontext context = stub_current();
        if (!stub_is_context(context))
            return CUDA_ERROR_INVALID_CONTEXT;
        *found = handle == CU_STREAM_LEGACY ? context->legacy : default_of_thread(context);
        return *found ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    }
    *found = handle;
    return handle->magic == STUB_STREAM ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult launch(CUstream handle, bool per_thread, uint64_t duration_ns)
{
    CUstream stream;
    if (duration_ns == 0) /* a function that is NULL */
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&stub.lock);
    CUresult result = stub_stream(handle, per_thread, &stream);
    if (result == CUDA_SUCCESS)
        result = stub_capture_conflict(stream);
    if (result == CUDA_SUCCESS && stream->capture)
        stub_capture_work(stream, duration_ns);
    else if (result == CUDA_SUCCESS)
        stub_append(stream, duration_ns);
    pthread_mutex_unlock(&stub.lock);
    return result;
}

static CUresult wait(CUstream handle, bool per_thread, bool query)
{
    CUstream stream;
    uint64_t until_ns = 0;
    pthread_mutex_lock(&stub.lock);
    CUresult result = stub_stream(handle, per_thread, &stream);
    if (result == CUDA_SUCCESS)
        result = stub_unsafe_call();
    if (result == CUDA_SUCCESS)
        until_ns = stream->free_ns;
    pthread_mutex_unlock(&stub.lock);
    if (result != CUDA_SUCCESS)
        return result;
    if (query)
        return stub_now_ns() >= until_ns ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
    stub_sleep_until(until_ns);
    return CUDA_SUCCESS;
}

STUB_API CUresult cuStreamCreate(CUstream *stream, unsigned int flags)
{
    STUB_ENTER();
    CUcontext context = stub_current();
    if (!stub_is_context(context))
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&stub.lock);
    *stream = stub_new_stream(context, flags);
    pthread_mutex_unlock(&stub.lock);
    return *stream ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

STUB_API CUresult cuStreamDestroy_v2(CUstream stream)
{
    STUB_ENTER();
    pthread_mutex_lock(&stub.lock);
    CUresult result = stub_stream(stream, false, &stream);
    if (result == CUDA_SUCCESS)
        stream->magic = STUB_DEAD;
    pthread_mutex_unlock(&stub.lock);
    return result;
}

static CUresult context_of(CUstream handle, bool per_thread, CUcontext *context)
{
    CUstream stream;
    pthread_mutex_lock(&stub.lock);
    CUresult result = stub_stream(handle, per_thread, &stream);
    if (result == CUDA_SUCCESS)
        *context = stream->context;
    pthread_mutex_unlock(&stub.lock);
    return result;
}

/* Each entry point with its twin for one default stream per thread. `per_thread` is known in the body. */
#define PTSZ(name, args, body)         \
    STUB_API CUresult name args        \
    {                                  \
        const bool per_thread = false; \
        STUB_ENTER();                  \
        body;                          \
    }                                  \
    STUB_API CUresult name##_ptsz args \
    {                                  \
        const bool per_thread = true;  \
        STUB_ENTER();                  \
        body;                          \
    }

#define UNUSED_LAUNCH (void)gx, (void)gy, (void)gz, (void)bx, (void)by, (void)bz, (void)shared, (void)params

PTSZ(cuStreamGetCtx, (CUstream stream, CUcontext *context), return context_of(stream, per_thread, context))
PTSZ(cuStreamSynchronize, (CUstream stream), return wait(stream, per_thread, false))
PTSZ(cuStreamQuery, (CUstream stream), return wait(stream, per_thread, true))
PTSZ(cuLaunchKernel, (LAUNCH_ARGS), UNUSED_LAUNCH; (void)extra;
     return launch(stream, per_thread, (uintptr_t)f))
PTSZ(cuLaunchKernelEx, (LAUNCH_EX_ARGS), (void)params; (void)extra;
     return config ? launch(config->hStream, per_thread, (uintptr_t)f) : CUDA_ERROR_INVALID_VALUE)
PTSZ(cuLaunchCooperativeKernel, (COOPERATIVE_ARGS), UNUSED_LAUNCH;
     return launch(stream, per_thread, (uintptr_t)f))
PTSZ(cuGraphLaunch, (CUgraphExec exec, CUstream stream),
     if (!exec || exec->magic != STUB_EXEC) return CUDA_ERROR_INVALID_HANDLE;
     return launch(stream, per_thread, exec->duration_ns))

/* The function is called at once: the stub has no thread that could call it when the stream gets there. */
PTSZ(cuLaunchHostFunc, (CUstream stream, CUhostFn function, void *user_data), CUcontext context;
     CUresult result = context_of(stream, per_thread, &context);
     if (result == CUDA_SUCCESS) function(user_data); return result)

STUB_API CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *list, unsigned int count,
                                                       unsigned int flags)
{
    STUB_ENTER();
    (void)flags;
    CUresult result = CUDA_SUCCESS;
    for (unsigned int i = 0; i < count && result == CUDA_SUCCESS; i++)
        result = launch(list[i].hStream, false, (uintptr_t)list[i].function);
    return result;
}
