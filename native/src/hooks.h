/* The entry points that are hooked. */
#ifndef RAPP_HOOKS_H
#define RAPP_HOOKS_H

#include <stdbool.h>

/* X(symbol that the driver exports, name for cuGetProcAddress, CUDA version that brought it, per thread)
 *
 * `per thread`: the variant for one default stream per thread. Versions are those in the names of
 * cudaTypedefs.h, such as PFN_cuLaunchKernel_v7000_ptsz. */
#define HOOKED_LAUNCHES(X)                                                                       \
    X(cuLaunchKernel, "cuLaunchKernel", 4000, false)                                             \
    X(cuLaunchKernel_ptsz, "cuLaunchKernel", 7000, true)                                         \
    X(cuLaunchKernelEx, "cuLaunchKernelEx", 11060, false)                                        \
    X(cuLaunchKernelEx_ptsz, "cuLaunchKernelEx", 11060, true)                                    \
    X(cuLaunchCooperativeKernel, "cuLaunchCooperativeKernel", 9000, false)                       \
    X(cuLaunchCooperativeKernel_ptsz, "cuLaunchCooperativeKernel", 9000, true)                   \
    X(cuLaunchCooperativeKernelMultiDevice, "cuLaunchCooperativeKernelMultiDevice", 9000, false) \
    X(cuGraphLaunch, "cuGraphLaunch", 10000, false)                                              \
    X(cuGraphLaunch_ptsz, "cuGraphLaunch", 10000, true)

/* Waits, looks and marks of the program: there the open groups end. */
#define HOOKED_WAITS(X)                                                   \
    X(cuCtxSynchronize, "cuCtxSynchronize", 2000, false)                  \
    X(cuCtxSynchronize_v2, "cuCtxSynchronize", 13000, false)              \
    X(cuStreamSynchronize, "cuStreamSynchronize", 2000, false)            \
    X(cuStreamSynchronize_ptsz, "cuStreamSynchronize", 7000, true)        \
    X(cuStreamQuery, "cuStreamQuery", 2000, false)                        \
    X(cuStreamQuery_ptsz, "cuStreamQuery", 7000, true)                    \
    X(cuEventSynchronize, "cuEventSynchronize", 2000, false)              \
    X(cuEventQuery, "cuEventQuery", 2000, false)                          \
    X(cuEventRecord, "cuEventRecord", 2000, false)                        \
    X(cuEventRecord_ptsz, "cuEventRecord", 7000, true)                    \
    X(cuEventRecordWithFlags, "cuEventRecordWithFlags", 11010, false)     \
    X(cuEventRecordWithFlags_ptsz, "cuEventRecordWithFlags", 11010, true) \
    X(cuMemcpy, "cuMemcpy", 4000, false)                                  \
    X(cuMemcpy_ptds, "cuMemcpy", 7000, true)                              \
    X(cuMemcpyDtoH_v2, "cuMemcpyDtoH", 3020, false)                       \
    X(cuMemcpyDtoH_v2_ptds, "cuMemcpyDtoH", 7000, true)                   \
    X(cuMemcpyDtoHAsync_v2, "cuMemcpyDtoHAsync", 3020, false)             \
    X(cuMemcpyDtoHAsync_v2_ptsz, "cuMemcpyDtoHAsync", 7000, true)         \
    X(cuLaunchHostFunc, "cuLaunchHostFunc", 10000, false)                 \
    X(cuLaunchHostFunc_ptsz, "cuLaunchHostFunc", 10000, true)             \
    X(cuStreamBeginCapture_v2, "cuStreamBeginCapture", 10010, false)      \
    X(cuStreamBeginCapture_v2_ptsz, "cuStreamBeginCapture", 10010, true)

/* Ends of streams and contexts, and the entry points by name. */
#define HOOKED_OTHERS(X)                                                       \
    X(cuStreamDestroy_v2, "cuStreamDestroy", 4000, false)                      \
    X(cuCtxDestroy_v2, "cuCtxDestroy", 4000, false)                            \
    X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", 7000, false)       \
    X(cuDevicePrimaryCtxRelease_v2, "cuDevicePrimaryCtxRelease", 11000, false) \
    X(cuDevicePrimaryCtxReset_v2, "cuDevicePrimaryCtxReset", 11000, false)     \
    X(cuGetProcAddress, "cuGetProcAddress", 11030, false)                      \
    X(cuGetProcAddress_v2, "cuGetProcAddress", 12000, false)

#define HOOKED(X) HOOKED_LAUNCHES(X) HOOKED_WAITS(X) HOOKED_OTHERS(X)

enum hook_id {
#define X(symbol, name, since, per_thread) HOOK_##symbol,
    HOOKED(X)
#undef X
        HOOKS
};

struct hook {
    const char *symbol, *name;
    int since;
    bool per_thread, is_launch;
    void *function;
};

extern const struct hook hooks[HOOKS];

/* The driver's own function behind a hook; NULL: the driver has none. */
void *hook_real(enum hook_id id);

/* Where `hook_real` finds it if the driver does not export it. */
void hook_set_real(enum hook_id id, void *function);

#endif
