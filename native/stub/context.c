/* Contexts: primary and created, and the stack of current ones that each thread has. */
#include <stdlib.h>

#include "stub.h"

enum { STACK_SIZE = 32 };

static _Thread_local CUcontext stack[STACK_SIZE];
static _Thread_local int depth;

/* The current context of this thread; NULL: none. */
CUcontext stub_current(void)
{
    return depth ? stack[depth - 1] : NULL;
}

/* Whether a handle is that of a living context. */
bool stub_is_context(CUcontext context)
{
    return context && context->magic == STUB_CONTEXT;
}

/* Ends a context and its streams; with the lock held. */
void stub_end_context(CUcontext context)
{
    context->magic = STUB_DEAD;
    for (CUstream stream = context->streams; stream; stream = stream->next)
        stream->magic = STUB_DEAD;
}

static CUcontext create(CUdevice device)
{
    /* A destroyed one is used again, as a real driver's allocator would: its handle comes back to life. */
    CUcontext context = stub.contexts;
    while (context && context->magic == STUB_CONTEXT)
        context = context->next;
    if (!context) {
        context = calloc(1, sizeof *context);
        if (!context)
            return NULL;
        context->next = stub.contexts;
        stub.contexts = context;
    }
    context->magic = STUB_CONTEXT;
    context->device = device;
    context->id = stub.next_id++;
    context->streams = NULL;
    context->legacy = stub_new_stream(context, CU_STREAM_DEFAULT);
    return context;
}

STUB_API CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    STUB_ENTER();
    if (device < 0 || device >= stub.devices)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&stub.lock);
    if (!stub.primary[device])
        stub.primary[device] = create(device);
    stub.primary_count[device]++;
    *context = stub.primary[device];
    pthread_mutex_unlock(&stub.lock);
    return *context ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult release(CUdevice device, bool all)
{
    if (device < 0 || device >= stub.devices)
        return CUDA_ERROR_INVALID_DEVICE;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&stub.lock);
    if (stub.primary_count[device] == 0 && !all)
        result = CUDA_ERROR_INVALID_CONTEXT;
    else if (stub.primary[device] && (all || --stub.primary_count[device] == 0)) {
        stub_end_context(stub.primary[device]);
        stub.primary[device] = NULL;
        stub.primary_count[device] = 0;
    }
    pthread_mutex_unlock(&stub.lock);
    return result;
}

STUB_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    STUB_ENTER();
    return release(device, false);
}

STUB_API CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    STUB_ENTER();
    return release(device, true);
}

STUB_API CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
    STUB_ENTER();
    if (device < 0 || device >= stub.devices)
        return CUDA_ERROR_INVALID_DEVICE;
    *flags = 0;
    *active = stub.primary[device] != NULL;
    return CUDA_SUCCESS;
}

STUB_API CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device)
{
    STUB_ENTER();
    (void)flags;
    if (device < 0 || device >= stub.devices)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&stub.lock);
    *context = create(device);
    pthread_mutex_unlock(&stub.lock);
    return *context ? cuCtxPushCurrent_v2(*context) : CUDA_ERROR_OUT_OF_MEMORY;
}

STUB_API CUresult cuCtxDestroy_v2(CUcontext context)
{
    STUB_ENTER();
    if (!stub_is_context(context))
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&stub.lock);
    stub_end_context(context);
    pthread_mutex_unlock(&stub.lock);
    if (stub_current() == context)
        depth--;
    return CUDA_SUCCESS;
}

STUB_API CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    STUB_ENTER();
    if (!stub_is_context(context) || depth == STACK_SIZE)
        return CUDA_ERROR_INVALID_CONTEXT;
    stack[depth++] = context;
    return CUDA_SUCCESS;
}

STUB_API CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    STUB_ENTER();
    if (depth == 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    CUcontext popped = stack[--depth];
    if (context)
        *context = popped;
    return CUDA_SUCCESS;
}

STUB_API CUresult cuCtxSetCurrent(CUcontext context)
{
    STUB_ENTER();
    if (context && !stub_is_context(context))
        return CUDA_ERROR_INVALID_CONTEXT;
    /* Replaces the top of the stack; NULL takes it away. */
    if (depth)
        depth--;
    if (context)
        stack[depth++] = context;
    return CUDA_SUCCESS;
}

STUB_API CUresult cuCtxGetCurrent(CUcontext *context)
{
    STUB_ENTER();
    *context = stub_current();
    return CUDA_SUCCESS;
}

STUB_API CUresult cuCtxGetDevice(CUdevice *device)
{
    STUB_ENTER();
    if (!stub_is_context(stub_current()))
        return CUDA_ERROR_INVALID_CONTEXT;
    *device = stub_current()->device;
    return CUDA_SUCCESS;
}

static CUresult synchronize(CUcontext context)
{
    if (!stub_is_context(context))
        return CUDA_ERROR_INVALID_CONTEXT;
    uint64_t until_ns = 0;
    pthread_mutex_lock(&stub.lock);
    CUresult result = stub_unsafe_call();
    for (CUstream stream = context->streams; stream; stream = stream->next)
        if (stream->free_ns > until_ns)
            until_ns = stream->free_ns;
    pthread_mutex_unlock(&stub.lock);
    if (result == CUDA_SUCCESS)
        stub_sleep_until(until_ns);
    return result;
}

STUB_API CUresult cuCtxSynchronize(void)
{
    STUB_ENTER();
    return synchronize(stub_current());
}

STUB_API CUresult cuCtxSynchronize_v2(CUcontext context)
{
    STUB_ENTER();
    return synchronize(context ? context : stub_current());
}
