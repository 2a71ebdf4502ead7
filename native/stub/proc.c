/* Entry points by name, version and kind of default stream; names of errors. */
#include <string.h>

#include "stub.h"

/* A version of a function: the CUDA version that brought it, and its twin for per-thread default streams. */
struct entry {
    const char *name;
    int since;
    void *function, *per_thread;
};

#define PLAIN(name, since) {#name, since, (void *)name, NULL}
#define NEWER(name, suffix, since) {#name, since, (void *)name##suffix, NULL}
#define PTSZ(name, since) {#name, since, (void *)name, (void *)name##_ptsz}
#define NEWER_PTSZ(name, suffix, since) {#name, since, (void *)name##suffix, (void *)name##suffix##_ptsz}
#define NEWER_PTDS(name, suffix, since) {#name, since, (void *)name##suffix, (void *)name##suffix##_ptds}

/* `since` as in the names of cudaTypedefs.h: PFN_cuLaunchKernelEx_v11060, PFN_cuLaunchKernel_v7000_ptsz. */
static const struct entry ENTRIES[] = {
    PLAIN(cuInit, 2000),
    PLAIN(cuDriverGetVersion, 2020),
    PLAIN(cuGetErrorName, 6000),
    PLAIN(cuGetErrorString, 6000),
    PLAIN(cuDeviceGetCount, 2000),
    PLAIN(cuDeviceGet, 2000),
    PLAIN(cuDeviceGetName, 2000),
    PLAIN(cuDeviceGetUuid, 9020),
    NEWER(cuDeviceGetUuid, _v2, 11040),
    PLAIN(cuDeviceGetAttribute, 2000),
    NEWER(cuDeviceTotalMem, _v2, 3020),
    PLAIN(cuDevicePrimaryCtxRetain, 7000),
    NEWER(cuDevicePrimaryCtxRelease, _v2, 11000),
    NEWER(cuDevicePrimaryCtxReset, _v2, 11000),
    PLAIN(cuDevicePrimaryCtxGetState, 7000),
    NEWER(cuCtxCreate, _v2, 3020),
    NEWER(cuCtxDestroy, _v2, 4000),
    NEWER(cuCtxPushCurrent, _v2, 4000),
    NEWER(cuCtxPopCurrent, _v2, 4000),
    PLAIN(cuCtxSetCurrent, 4000),
    PLAIN(cuCtxGetCurrent, 4000),
    PLAIN(cuCtxGetDevice, 2000),
    PLAIN(cuCtxSynchronize, 2000),
    NEWER(cuCtxSynchronize, _v2, 13000),
    NEWER(cuMemGetInfo, _v2, 3020),
    NEWER(cuMemAlloc, _v2, 3020),
    NEWER(cuMemFree, _v2, 3020),
    {"cuMemcpy", 4000, (void *)cuMemcpy, (void *)cuMemcpy_ptds},
    NEWER_PTDS(cuMemcpyHtoD, _v2, 3020),
    NEWER_PTDS(cuMemcpyDtoH, _v2, 3020),
    NEWER_PTSZ(cuMemcpyHtoDAsync, _v2, 3020),
    NEWER_PTSZ(cuMemcpyDtoHAsync, _v2, 3020),
    PLAIN(cuStreamCreate, 2000),
    NEWER(cuStreamDestroy, _v2, 4000),
    PTSZ(cuStreamSynchronize, 2000),
    PTSZ(cuStreamQuery, 2000),
    PTSZ(cuStreamWaitEvent, 3020),
    PTSZ(cuStreamGetCtx, 9020),
    NEWER_PTSZ(cuStreamBeginCapture, _v2, 10010),
    PTSZ(cuStreamEndCapture, 10000),
    PTSZ(cuStreamIsCapturing, 10000),
    PLAIN(cuThreadExchangeStreamCaptureMode, 10010),
    PLAIN(cuGraphGetNodes, 10000),
    PLAIN(cuGraphInstantiateWithFlags, 11040),
    PLAIN(cuGraphExecDestroy, 10000),
    PLAIN(cuGraphDestroy, 10000),
    PTSZ(cuGraphLaunch, 10000),
    PLAIN(cuEventCreate, 2000),
    NEWER(cuEventDestroy, _v2, 4000),
    PTSZ(cuEventRecord, 2000),
    PTSZ(cuEventRecordWithFlags, 11010),
    PLAIN(cuEventQuery, 2000),
    PLAIN(cuEventSynchronize, 2000),
    PLAIN(cuEventElapsedTime, 2000),
    NEWER(cuEventElapsedTime, _v2, 12080),
    PTSZ(cuLaunchKernel, 4000),
    PTSZ(cuLaunchKernelEx, 11060),
    PTSZ(cuLaunchCooperativeKernel, 9000),
    PLAIN(cuLaunchCooperativeKernelMultiDevice, 9000),
    PTSZ(cuLaunchHostFunc, 10000),
    PLAIN(cuGetProcAddress, 11030),
    NEWER(cuGetProcAddress, _v2, 12000),
};

STUB_API CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, cuuint64_t flags,
                                      CUdriverProcAddressQueryResult *status)
{
    const struct entry *best = NULL;
    bool known = false;
    for (size_t i = 0; i < sizeof ENTRIES / sizeof *ENTRIES; i++) {
        const struct entry *entry = &ENTRIES[i];
        if (strcmp(entry->name, symbol) != 0)
            continue;
        known = true;
        if (entry->since <= version && (!best || entry->since > best->since))
            best = entry;
    }
    bool per_thread = flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
    *function = !best ? NULL : per_thread && best->per_thread ? best->per_thread : best->function;
    if (status)
        *status = best    ? CU_GET_PROC_ADDRESS_SUCCESS
                  : known ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                          : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return best ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

STUB_API CUresult cuGetProcAddress(const char *symbol, void **function, int version, cuuint64_t flags)
{
    return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}

static const struct {
    CUresult code;
    const char *name;
} ERRORS[] = {
#define ERROR(name) {name, #name}
    ERROR(CUDA_SUCCESS),
    ERROR(CUDA_ERROR_INVALID_VALUE),
    ERROR(CUDA_ERROR_OUT_OF_MEMORY),
    ERROR(CUDA_ERROR_NOT_INITIALIZED),
    ERROR(CUDA_ERROR_NO_DEVICE),
    ERROR(CUDA_ERROR_INVALID_DEVICE),
    ERROR(CUDA_ERROR_INVALID_CONTEXT),
    ERROR(CUDA_ERROR_INVALID_HANDLE),
    ERROR(CUDA_ERROR_ILLEGAL_STATE),
    ERROR(CUDA_ERROR_NOT_FOUND),
    ERROR(CUDA_ERROR_NOT_READY),
    ERROR(CUDA_ERROR_LAUNCH_FAILED),
    ERROR(CUDA_ERROR_NOT_SUPPORTED),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT),
    ERROR(CUDA_ERROR_CAPTURED_EVENT),
#undef ERROR
};

STUB_API CUresult cuGetErrorName(CUresult error, const char **name)
{
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        if (ERRORS[i].code == error) {
            *name = ERRORS[i].name;
            return CUDA_SUCCESS;
        }
    *name = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

STUB_API CUresult cuGetErrorString(CUresult error, const char **text)
{
    return cuGetErrorName(error, text);
}
