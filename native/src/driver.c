#define _GNU_SOURCE
#include "driver.h"

#include <dlfcn.h>
#include <pthread.h>

#include "block.h"
#include "clock.h"
#include "resolve.h"

static struct {
    CUresult (*ctx_get_current)(CUcontext *);
    CUresult (*ctx_push)(CUcontext);
    CUresult (*ctx_pop)(CUcontext *);
    CUresult (*primary_state)(CUdevice, unsigned int *, int *);
    CUresult (*stream_context)(CUstream, CUcontext *);
    CUresult (*stream_capturing)(CUstream, CUstreamCaptureStatus *);
    CUresult (*exchange_mode)(CUstreamCaptureMode *);
    CUresult (*event_create)(CUevent *, unsigned int);
    CUresult (*event_record)(CUevent, CUstream);
    CUresult (*event_query)(CUevent);
    CUresult (*elapsed)(float *, CUevent, CUevent);
} real;

static bool ready;

static void *library(void)
{
    static _Atomic(void *) known;
    void *handle = atomic_load(&known);
    if (!handle) {
        handle = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
        if (!handle)
            handle = dlopen("libcuda.so.1", RTLD_LAZY);
        atomic_store(&known, handle);
    }
    return handle;
}

void *driver_symbol(const char *name)
{
    void *handle = library();
    return handle ? real_dlsym(handle, name) : NULL;
}

static void load(void)
{
    const struct {
        const char *name;
        void *slot;
    } functions[] = {
        {"cuCtxGetCurrent", &real.ctx_get_current},
        {"cuCtxPushCurrent_v2", &real.ctx_push},
        {"cuCtxPopCurrent_v2", &real.ctx_pop},
        {"cuDevicePrimaryCtxGetState", &real.primary_state},
        {"cuStreamGetCtx", &real.stream_context},
        {"cuStreamIsCapturing", &real.stream_capturing},
        {"cuThreadExchangeStreamCaptureMode", &real.exchange_mode},
        {"cuEventCreate", &real.event_create},
        {"cuEventRecord", &real.event_record},
        {"cuEventQuery", &real.event_query},
        {"cuEventElapsedTime", &real.elapsed},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *function = driver_symbol(functions[i].name);
        if (!function) {
            quota_unusable("the CUDA driver has no %s", functions[i].name);
            return;
        }
        *(void **)functions[i].slot = function;
    }
    ready = true;
}

bool driver_ready(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return ready;
}

bool driver_capturing(CUstream stream)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    /* An error is CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, or one that the launch itself is going to meet. */
    return real.stream_capturing(stream, &status) != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_NONE;
}

CUcontext driver_context(CUstream stream)
{
    CUcontext context = NULL;
    CUresult result = stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD
                          ? real.ctx_get_current(&context)
                          : real.stream_context(stream, &context);
    return result == CUDA_SUCCESS ? context : NULL;
}

/* A capture of mode "global" forbids calls such as cuEventQuery to all threads, and breaks when one makes
 * them; a thread in mode "relaxed" may. Returns the thread's own mode, for `restore`. */
static CUstreamCaptureMode relax(void)
{
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    real.exchange_mode(&mode);
    return mode;
}

static void restore(CUstreamCaptureMode mode)
{
    real.exchange_mode(&mode);
}

CUresult driver_event_create(CUcontext context, CUevent *event)
{
    CUcontext current = NULL;
    CUresult result = real.ctx_get_current(&current);
    if (result != CUDA_SUCCESS)
        return result;
    if (current != context && (result = real.ctx_push(context)) != CUDA_SUCCESS)
        return result;
    CUstreamCaptureMode mode = relax();
    result = real.event_create(event, CU_EVENT_DEFAULT);
    restore(mode);
    if (current != context)
        real.ctx_pop(&current);
    return result;
}

CUresult driver_event_record(CUevent event, CUstream stream)
{
    CUstreamCaptureMode mode = relax();
    CUresult result = real.event_record(event, stream);
    restore(mode);
    return result;
}

CUresult driver_event_query(CUevent event)
{
    CUstreamCaptureMode mode = relax();
    CUresult result = real.event_query(event);
    restore(mode);
    return result;
}

CUresult driver_elapsed(CUevent start, CUevent end, int64_t *elapsed_ns)
{
    float elapsed_ms = 0;
    CUstreamCaptureMode mode = relax();
    CUresult result = real.elapsed(&elapsed_ms, start, end);
    restore(mode);
    *elapsed_ns = (int64_t)((double)elapsed_ms * NS_PER_MS);
    return result;
}

bool driver_primary_active(CUdevice device)
{
    unsigned int flags = 0;
    int active = 0;
    return real.primary_state(device, &flags, &active) == CUDA_SUCCESS && active;
}
