/* Device memory: the host's, counted. Copies are made at once and take no time of the device. */
#include <stdlib.h>
#include <string.h>

#include "stub.h"

enum { HEADER = 64 }; /* bytes before an allocation: its size and device; keeps it aligned */

struct header {
    size_t bytes;
    CUdevice device;
};

STUB_API CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
    STUB_ENTER();
    CUcontext context = stub_current();
    if (!stub_is_context(context))
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&stub.lock);
    *total_bytes = stub.memory_bytes;
    *free_bytes = stub.memory_bytes - stub.used_bytes[context->device];
    pthread_mutex_unlock(&stub.lock);
    return CUDA_SUCCESS;
}

STUB_API CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t bytes)
{
    STUB_ENTER();
    CUcontext context = stub_current();
    if (!stub_is_context(context))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&stub.lock);
    uint64_t *used = &stub.used_bytes[context->device];
    CUresult result = stub_unsafe_call();
    if (result == CUDA_SUCCESS && bytes > stub.memory_bytes - *used)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    /* The pages of a fresh mapping cost nothing until they are touched. */
    char *memory = result == CUDA_SUCCESS ? malloc(HEADER + bytes) : NULL;
    if (memory) {
        *(struct header *)memory = (struct header){.bytes = bytes, .device = context->device};
        *pointer = (CUdeviceptr)(uintptr_t)(memory + HEADER);
        *used += bytes;
    } else if (result == CUDA_SUCCESS)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_unlock(&stub.lock);
    return result;
}

STUB_API CUresult cuMemFree_v2(CUdeviceptr pointer)
{
    STUB_ENTER();
    if (!pointer)
        return CUDA_SUCCESS;
    struct header *header = (struct header *)((char *)(uintptr_t)pointer - HEADER);
    pthread_mutex_lock(&stub.lock);
    stub.used_bytes[header->device] -= header->bytes;
    pthread_mutex_unlock(&stub.lock);
    free(header);
    return CUDA_SUCCESS;
}

/* A copy waits for the stream, as the driver's copies to or from pageable memory do. */
static CUresult copy(void *to, const void *from, size_t bytes, CUstream handle, bool per_thread)
{
    CUresult result = per_thread ? cuStreamSynchronize_ptsz(handle) : cuStreamSynchronize(handle);
    if (result == CUDA_SUCCESS)
        memcpy(to, from, bytes);
    return result;
}

#define HOST(pointer) ((void *)(uintptr_t)(pointer))

#define COPY(name, suffix, args, to, from)         \
    STUB_API CUresult name args                    \
    {                                              \
        STUB_ENTER();                              \
        return copy(to, from, bytes, NULL, false); \
    }                                              \
    STUB_API CUresult name##suffix args            \
    {                                              \
        STUB_ENTER();                              \
        return copy(to, from, bytes, NULL, true);  \
    }

#define COPY_ASYNC(name, args, to, from)             \
    STUB_API CUresult name args                      \
    {                                                \
        STUB_ENTER();                                \
        return copy(to, from, bytes, stream, false); \
    }                                                \
    STUB_API CUresult name##_ptsz args               \
    {                                                \
        STUB_ENTER();                                \
        return copy(to, from, bytes, stream, true);  \
    }

COPY(cuMemcpy, _ptds, (CUdeviceptr to, CUdeviceptr from, size_t bytes), HOST(to), HOST(from))
COPY(cuMemcpyHtoD_v2, _ptds, (CUdeviceptr to, const void *from, size_t bytes), HOST(to), from)
COPY(cuMemcpyDtoH_v2, _ptds, (void *to, CUdeviceptr from, size_t bytes), to, HOST(from))
COPY_ASYNC(cuMemcpyHtoDAsync_v2, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream), HOST(to),
           from)
COPY_ASYNC(cuMemcpyDtoHAsync_v2, (void *to, CUdeviceptr from, size_t bytes, CUstream stream), to, HOST(from))
