/* Events. */
#include <stdlib.h>

#include "stub.h"

static bool is_event(CUevent event)
{
    return event && event->magic == STUB_EVENT && stub_is_context(event->context) &&
           event->context->id == event->context_id;
}

static CUresult record(CUevent event, CUstream handle, bool per_thread)
{
    CUstream stream;
    pthread_mutex_lock(&stub.lock);
    CUresult result = stub_stream(handle, per_thread, &stream);
    if (result == CUDA_SUCCESS && (!is_event(event) || event->context != stream->context))
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS)
        result = stub_capture_conflict(stream);
    if (result == CUDA_SUCCESS) {
        uint64_t now_ns = stub_now_ns();
        event->recorded = true;
        event->at_ns = stream->free_ns > now_ns ? stream->free_ns : now_ns;
        event->capture_id = stream->capture ? stream->capture->id : 0;
        if (stream->capture)
            stub_capture_work(stream, 0);
    }
    pthread_mutex_unlock(&stub.lock);
    return result;
}

/* When an event is reached, or why that cannot be asked. */
static CUresult time_of(CUevent event, uint64_t *at_ns)
{
    pthread_mutex_lock(&stub.lock);
    CUresult result = CUDA_SUCCESS;
    if (!is_event(event))
        result = CUDA_ERROR_INVALID_HANDLE;
    else if (event->capture_id)
        result = CUDA_ERROR_CAPTURED_EVENT;
    else
        result = stub_unsafe_call();
    if (result == CUDA_SUCCESS)
        *at_ns = event->recorded ? event->at_ns : 0;
    pthread_mutex_unlock(&stub.lock);
    return result;
}

static CUresult elapsed(float *ms, CUevent start, CUevent end)
{
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&stub.lock);
    uint64_t now_ns = stub_now_ns();
    if (!is_event(start) || !is_event(end) || start->context != end->context || !start->recorded ||
        !end->recorded || ((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING))
        result = CUDA_ERROR_INVALID_HANDLE;
    else if (start->capture_id || end->capture_id)
        result = CUDA_ERROR_CAPTURED_EVENT;
    else if (now_ns < start->at_ns || now_ns < end->at_ns)
        result = CUDA_ERROR_NOT_READY;
    else
        *ms = (float)((double)(int64_t)(end->at_ns - start->at_ns) / 1e6);
    pthread_mutex_unlock(&stub.lock);
    return result;
}

static CUresult wait_event(CUstream handle, CUevent event, bool per_thread)
{
    CUstream stream;
    pthread_mutex_lock(&stub.lock);
    CUresult result = stub_stream(handle, per_thread, &stream);
    if (result == CUDA_SUCCESS && !is_event(event))
        result = CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS && event->capture_id) {
        /* The stream joins the capture in which the event was recorded. */
        struct stub_capture *capture = stub.captures;
        while (capture && capture->id != event->capture_id)
            capture = capture->next;
        if (capture)
            stream->capture = capture;
        else
            result = CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    } else if (result == CUDA_SUCCESS && event->recorded && event->at_ns > stream->free_ns)
        stream->free_ns = event->at_ns;
    pthread_mutex_unlock(&stub.lock);
    return result;
}

STUB_API CUresult cuEventCreate(CUevent *event, unsigned int flags)
{
    STUB_ENTER();
    if (!stub_is_context(stub_current()))
        return CUDA_ERROR_INVALID_CONTEXT;
    *event = calloc(1, sizeof **event);
    if (!*event)
        return CUDA_ERROR_OUT_OF_MEMORY;
    (*event)->magic = STUB_EVENT;
    (*event)->context = stub_current();
    (*event)->context_id = stub_current()->id;
    (*event)->flags = flags;
    return CUDA_SUCCESS;
}

STUB_API CUresult cuEventDestroy_v2(CUevent event)
{
    STUB_ENTER();
    pthread_mutex_lock(&stub.lock);
    CUresult result = is_event(event) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
    if (result == CUDA_SUCCESS)
        event->magic = STUB_DEAD;
    pthread_mutex_unlock(&stub.lock);
    return result;
}

STUB_API CUresult cuEventRecord(CUevent event, CUstream stream)
{
    STUB_ENTER();
    return record(event, stream, false);
}

STUB_API CUresult cuEventRecord_ptsz(CUevent event, CUstream stream)
{
    STUB_ENTER();
    return record(event, stream, true);
}

STUB_API CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned int flags)
{
    STUB_ENTER();
    (void)flags;
    return record(event, stream, false);
}

STUB_API CUresult cuEventRecordWithFlags_ptsz(CUevent event, CUstream stream, unsigned int flags)
{
    STUB_ENTER();
    (void)flags;
    return record(event, stream, true);
}

STUB_API CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags)
{
    STUB_ENTER();
    (void)flags;
    return wait_event(stream, event, false);
}

STUB_API CUresult cuStreamWaitEvent_ptsz(CUstream stream, CUevent event, unsigned int flags)
{
    STUB_ENTER();
    (void)flags;
    return wait_event(stream, event, true);
}

STUB_API CUresult cuEventQuery(CUevent event)
{
    STUB_ENTER();
    uint64_t at_ns;
    CUresult result = time_of(event, &at_ns);
    return result == CUDA_SUCCESS && stub_now_ns() < at_ns ? CUDA_ERROR_NOT_READY : result;
}

STUB_API CUresult cuEventSynchronize(CUevent event)
{
    STUB_ENTER();
    uint64_t at_ns;
    CUresult result = time_of(event, &at_ns);
    if (result == CUDA_SUCCESS)
        stub_sleep_until(at_ns);
    return result;
}

STUB_API CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end)
{
    STUB_ENTER();
    return elapsed(ms, start, end);
}

STUB_API CUresult cuEventElapsedTime_v2(float *ms, CUevent start, CUevent end)
{
    STUB_ENTER();
    return elapsed(ms, start, end);
}
