/* Stream capture and graphs. A graph is the sum of what was captured; its kernels run one after another. */
#include <stdlib.h>

#include "stub.h"

static _Thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

/* A call that a capture may forbid to this thread: it then fails, and the capture with it.
 *
 * The rules are those that cuda.h gives for cuThreadExchangeStreamCaptureMode.
 */
CUresult stub_unsafe_call(void)
{
    CUresult result = CUDA_SUCCESS;
    for (struct stub_capture *capture = stub.captures; capture; capture = capture->next) {
        bool own = pthread_equal(capture->thread, pthread_self());
        bool forbidden = own ? capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED
                             : capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
                                   thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
        if (forbidden && thread_mode != CU_STREAM_CAPTURE_MODE_RELAXED) {
            capture->invalid = true;
            result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        }
    }
    return result;
}

/* Why nothing may be launched into a stream: a capture gone wrong, or the legacy stream while one that waits
 * for it is being captured. */
CUresult stub_capture_conflict(CUstream stream)
{
    if (stream->capture)
        return stream->capture->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
    if (stream != stream->context->legacy)
        return CUDA_SUCCESS;
    for (CUstream other = stream->context->streams; other; other = other->next)
        if (other->capture && !(other->flags & CU_STREAM_NON_BLOCKING)) {
            other->capture->invalid = true;
            return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
        }
    return CUDA_SUCCESS;
}

/* Adds work to the graph that a stream is being captured into. */
void stub_capture_work(CUstream stream, uint64_t duration_ns)
{
    stream->capture->graph->duration_ns += duration_ns;
    stream->capture->graph->nodes++;
}

static CUresult begin(CUstream handle, CUstreamCaptureMode mode, bool per_thread)
{
    CUstream stream;
    pthread_mutex_lock(&stub.lock);
    CUresult result = stub_stream(handle, per_thread, &stream);
    if (result == CUDA_SUCCESS && stream == stream->context->legacy)
        result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (result == CUDA_SUCCESS && stream->capture)
        result = CUDA_ERROR_ILLEGAL_STATE;
    struct stub_capture *capture = calloc(1, sizeof *capture);
    CUgraph graph = calloc(1, sizeof *graph);
    if (!capture || !graph)
        abort();
    if (result == CUDA_SUCCESS) {
        *graph = (struct CUgraph_st){.magic = STUB_GRAPH};
        *capture = (struct stub_capture){.id = stub.next_id++,
                                         .mode = mode,
                                         .thread = pthread_self(),
                                         .context = stream->context,
                                         .graph = graph,
                                         .next = stub.captures};
        stub.captures = capture;
        stream->capture = capture;
    } else {
        free(capture);
        free(graph);
    }
    pthread_mutex_unlock(&stub.lock);
    return result;
}

static CUresult end(CUstream handle, CUgraph *graph, bool per_thread)
{
    CUstream stream;
    pthread_mutex_lock(&stub.lock);
    CUresult result = stub_stream(handle, per_thread, &stream);
    if (result == CUDA_SUCCESS && !stream->capture)
        result = CUDA_ERROR_ILLEGAL_STATE;
    if (result == CUDA_SUCCESS) {
        struct stub_capture *capture = stream->capture, **link = &stub.captures;
        for (CUstream other = stream->context->streams; other; other = other->next)
            if (other->capture == capture)
                other->capture = NULL;
        while (*link != capture)
            link = &(*link)->next;
        *link = capture->next;
        *graph = capture->invalid ? NULL : capture->graph;
        result = capture->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
        if (capture->invalid)
            free(capture->graph);
        free(capture);
    }
    pthread_mutex_unlock(&stub.lock);
    return result;
}

static CUresult status_of(CUstream handle, CUstreamCaptureStatus *status, bool per_thread)
{
    CUstream stream;
    pthread_mutex_lock(&stub.lock);
    CUresult result = stub_stream(handle, per_thread, &stream);
    if (result == CUDA_SUCCESS && stream == stream->context->legacy)
        for (CUstream other = stream->context->streams; other; other = other->next)
            if (other->capture && !(other->flags & CU_STREAM_NON_BLOCKING))
                result = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT; /* and the capture goes on */
    if (result == CUDA_SUCCESS)
        *status = !stream->capture           ? CU_STREAM_CAPTURE_STATUS_NONE
                  : stream->capture->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                             : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    pthread_mutex_unlock(&stub.lock);
    return result;
}

STUB_API CUresult cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode)
{
    STUB_ENTER();
    return begin(stream, mode, false);
}

STUB_API CUresult cuStreamBeginCapture_v2_ptsz(CUstream stream, CUstreamCaptureMode mode)
{
    STUB_ENTER();
    return begin(stream, mode, true);
}

STUB_API CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    STUB_ENTER();
    return end(stream, graph, false);
}

STUB_API CUresult cuStreamEndCapture_ptsz(CUstream stream, CUgraph *graph)
{
    STUB_ENTER();
    return end(stream, graph, true);
}

STUB_API CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status)
{
    STUB_ENTER();
    return status_of(stream, status, false);
}

STUB_API CUresult cuStreamIsCapturing_ptsz(CUstream stream, CUstreamCaptureStatus *status)
{
    STUB_ENTER();
    return status_of(stream, status, true);
}

STUB_API CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    STUB_ENTER();
    CUstreamCaptureMode before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}

/* Only how many: `nodes` must be NULL. */
STUB_API CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    STUB_ENTER();
    if (!graph || graph->magic != STUB_GRAPH)
        return CUDA_ERROR_INVALID_HANDLE;
    if (nodes)
        return CUDA_ERROR_NOT_SUPPORTED;
    *count = graph->nodes;
    return CUDA_SUCCESS;
}

STUB_API CUresult cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    STUB_ENTER();
    (void)flags;
    if (!graph || graph->magic != STUB_GRAPH)
        return CUDA_ERROR_INVALID_HANDLE;
    *exec = calloc(1, sizeof **exec);
    if (!*exec)
        return CUDA_ERROR_OUT_OF_MEMORY;
    /* An empty graph takes the shortest time there is: the launch of nothing would be an error. */
    **exec = (struct CUgraphExec_st){.magic = STUB_EXEC,
                                     .duration_ns = graph->duration_ns ? graph->duration_ns : 1};
    return CUDA_SUCCESS;
}

STUB_API CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    STUB_ENTER();
    if (!exec || exec->magic != STUB_EXEC)
        return CUDA_ERROR_INVALID_HANDLE;
    exec->magic = STUB_DEAD;
    return CUDA_SUCCESS;
}

STUB_API CUresult cuGraphDestroy(CUgraph graph)
{
    STUB_ENTER();
    if (!graph || graph->magic != STUB_GRAPH)
        return CUDA_ERROR_INVALID_HANDLE;
    graph->magic = STUB_DEAD;
    return CUDA_SUCCESS;
}
