/* The hooks themselves: each has the signature of the driver's function, and calls it. */
#define _GNU_SOURCE
#include "hooks.h"

#include <stdatomic.h>

#include "driver.h"
#include "gate.h"

#define EXPORT __attribute__((visibility("default")))

static _Atomic(void *) reals[HOOKS];

const struct hook hooks[HOOKS] = {
#define X(symbol, name, since, per_thread) {#symbol, name, since, per_thread, true, (void *)symbol},
    HOOKED_LAUNCHES(X)
#undef X
#define X(symbol, name, since, per_thread) {#symbol, name, since, per_thread, false, (void *)symbol},
        HOOKED_WAITS(X) HOOKED_OTHERS(X)
#undef X
};

void *hook_real(enum hook_id id)
{
    void *function = atomic_load_explicit(&reals[id], memory_order_relaxed);
    if (!function) {
        function = driver_symbol(hooks[id].symbol);
        atomic_store_explicit(&reals[id], function, memory_order_relaxed);
    }
    return function;
}

void hook_set_real(enum hook_id id, void *function)
{
    void *none = NULL;
    if (!hook_real(id))
        atomic_compare_exchange_strong(&reals[id], &none, function);
}

/* Declares `real`, the driver's function, and returns what a driver without it would. */
#define REAL(symbol, args)                                             \
    CUresult(*real) args = (CUresult(*) args)hook_real(HOOK_##symbol); \
    if (!real) {                                                       \
        return CUDA_ERROR_NOT_FOUND;                                   \
    }

/* A launch: the gate before, the count after. */
#define LAUNCH(symbol, per_thread, kind, on, args, pass)     \
    EXPORT CUresult symbol args                              \
    {                                                        \
        REAL(symbol, args)                                   \
        struct stream *entered = gate_enter(on, per_thread); \
        CUresult result = real pass;                         \
        gate_leave(entered, kind, result);                   \
        return result;                                       \
    }

/* A call after which the program knows that the device got to some point: `mark` before, charge after. */
#define WAIT(symbol, mark, args, pass) \
    EXPORT CUresult symbol args        \
    {                                  \
        REAL(symbol, args)             \
        mark;                          \
        CUresult result = real pass;   \
        if (result == CUDA_SUCCESS)    \
            gate_collect_all();        \
        return result;                 \
    }

/* A call that returns at once and is followed by such a wait, or may be: `mark` before. */
#define MARK(symbol, mark, args, pass) \
    EXPORT CUresult symbol args        \
    {                                  \
        REAL(symbol, args)             \
        mark;                          \
        return real pass;              \
    }

LAUNCH(cuLaunchKernel, false, KERNEL, stream, (LAUNCH_ARGS), (LAUNCH_PASS))
LAUNCH(cuLaunchKernel_ptsz, true, KERNEL, stream, (LAUNCH_ARGS), (LAUNCH_PASS))
LAUNCH(cuLaunchKernelEx, false, KERNEL, config ? config->hStream : NULL, (LAUNCH_EX_ARGS), (LAUNCH_EX_PASS))
LAUNCH(cuLaunchKernelEx_ptsz, true, KERNEL, config ? config->hStream : NULL, (LAUNCH_EX_ARGS),
       (LAUNCH_EX_PASS))
LAUNCH(cuLaunchCooperativeKernel, false, KERNEL, stream, (COOPERATIVE_ARGS), (COOPERATIVE_PASS))
LAUNCH(cuLaunchCooperativeKernel_ptsz, true, KERNEL, stream, (COOPERATIVE_ARGS), (COOPERATIVE_PASS))
LAUNCH(cuGraphLaunch, false, GRAPH, stream, (CUgraphExec exec, CUstream stream), (exec, stream))
LAUNCH(cuGraphLaunch_ptsz, true, GRAPH, stream, (CUgraphExec exec, CUstream stream), (exec, stream))

/* One launch on several devices at once: each of its streams passes the gate. */
EXPORT CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *list, unsigned int count,
                                                     unsigned int flags)
{
    enum { MOST = 64 };
    struct stream *entered[MOST];
    REAL(cuLaunchCooperativeKernelMultiDevice, (CUDA_LAUNCH_PARAMS *, unsigned int, unsigned int))
    unsigned int gated = list ? (count < MOST ? count : MOST) : 0;
    for (unsigned int i = 0; i < gated; i++)
        entered[i] = gate_enter(list[i].hStream, false);
    CUresult result = real(list, count, flags);
    for (unsigned int i = 0; i < gated; i++)
        gate_leave(entered[i], KERNEL, result);
    return result;
}

WAIT(cuCtxSynchronize, gate_mark_all(), (void), ())
WAIT(cuCtxSynchronize_v2, gate_mark_all(), (CUcontext context), (context))
WAIT(cuStreamSynchronize, gate_mark(stream, false), (CUstream stream), (stream))
WAIT(cuStreamSynchronize_ptsz, gate_mark(stream, true), (CUstream stream), (stream))
WAIT(cuStreamQuery, gate_mark(stream, false), (CUstream stream), (stream))
WAIT(cuStreamQuery_ptsz, gate_mark(stream, true), (CUstream stream), (stream))
WAIT(cuEventSynchronize, gate_mark_all(), (CUevent event), (event))
WAIT(cuEventQuery, gate_mark_all(), (CUevent event), (event))
WAIT(cuMemcpy, gate_mark_all(), (CUdeviceptr to, CUdeviceptr from, size_t bytes), (to, from, bytes))
WAIT(cuMemcpy_ptds, gate_mark_all(), (CUdeviceptr to, CUdeviceptr from, size_t bytes), (to, from, bytes))
WAIT(cuMemcpyDtoH_v2, gate_mark_all(), (void *to, CUdeviceptr from, size_t bytes), (to, from, bytes))
WAIT(cuMemcpyDtoH_v2_ptds, gate_mark_all(), (void *to, CUdeviceptr from, size_t bytes), (to, from, bytes))
WAIT(cuMemcpyDtoHAsync_v2, gate_mark(stream, false),
     (void *to, CUdeviceptr from, size_t bytes, CUstream stream), (to, from, bytes, stream))
WAIT(cuMemcpyDtoHAsync_v2_ptsz, gate_mark(stream, true),
     (void *to, CUdeviceptr from, size_t bytes, CUstream stream), (to, from, bytes, stream))

MARK(cuEventRecord, gate_mark(stream, false), (CUevent event, CUstream stream), (event, stream))
MARK(cuEventRecord_ptsz, gate_mark(stream, true), (CUevent event, CUstream stream), (event, stream))
MARK(cuEventRecordWithFlags, gate_mark(stream, false), (CUevent event, CUstream stream, unsigned int flags),
     (event, stream, flags))
MARK(cuEventRecordWithFlags_ptsz, gate_mark(stream, true),
     (CUevent event, CUstream stream, unsigned int flags), (event, stream, flags))
MARK(cuLaunchHostFunc, gate_mark(stream, false), (CUstream stream, CUhostFn function, void *user_data),
     (stream, function, user_data))
MARK(cuLaunchHostFunc_ptsz, gate_mark(stream, true), (CUstream stream, CUhostFn function, void *user_data),
     (stream, function, user_data))
MARK(cuStreamBeginCapture_v2, gate_mark(stream, false), (CUstream stream, CUstreamCaptureMode mode),
     (stream, mode))
MARK(cuStreamBeginCapture_v2_ptsz, gate_mark(stream, true), (CUstream stream, CUstreamCaptureMode mode),
     (stream, mode))
MARK(cuStreamDestroy_v2, gate_stream_ends(stream), (CUstream stream), (stream))
MARK(cuCtxDestroy_v2, gate_context_ends(context), (CUcontext context), (context))

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    REAL(cuDevicePrimaryCtxRetain, (CUcontext *, CUdevice))
    CUresult result = real(context, device);
    if (result == CUDA_SUCCESS)
        gate_primary_retained(device, *context);
    return result;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    REAL(cuDevicePrimaryCtxRelease_v2, (CUdevice))
    CUresult result = real(device);
    if (result == CUDA_SUCCESS)
        gate_primary_released(device);
    return result;
}

EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    REAL(cuDevicePrimaryCtxReset_v2, (CUdevice))
    CUresult result = real(device);
    if (result == CUDA_SUCCESS)
        gate_primary_released(device);
    return result;
}
