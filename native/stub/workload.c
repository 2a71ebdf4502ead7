/* A CUDA program for tests and benchmarks: launches kernels or graphs in runs, and says when each run was.
 *
 *   workload --kernels 160 --ns 50000 --seconds 1 --resolve proc
 *
 * One line a run: thread, start, all launched, end; ns of CLOCK_MONOTONIC. An error of the driver ends it
 * with that CUresult as exit status. It fits the stub only: a CUfunction here is a duration.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cuda_abi.h"

enum { MAX_STREAMS = 16, MAX_THREADS = 16, MAX_RUNS = 1 << 20 };

static struct {
    const char *resolve, *api, *sync;
    int kernels, streams, threads, version;
    long ns, host_ns, idle_us;
    double seconds;
    int runs, fork;
} want = {.resolve = "link",
          .api = "kernel",
          .sync = "ctx",
          .kernels = 1,
          .streams = 1,
          .threads = 1,
          .version = 12000,
          .ns = 50000,
          .seconds = 1,
          .runs = MAX_RUNS};

/* The functions whose way into the program is under test; the others are linked. */
static struct {
    CUresult (*launch)(LAUNCH_ARGS);
    CUresult (*launch_ex)(LAUNCH_EX_ARGS);
    CUresult (*cooperative)(COOPERATIVE_ARGS);
    CUresult (*graph)(CUgraphExec, CUstream);
    CUresult (*ctx_sync)(void);
    CUresult (*stream_sync)(CUstream);
} cu;

static CUcontext context;
static uint64_t end_ns;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void check(CUresult result, const char *what)
{
    if (result == CUDA_SUCCESS)
        return;
    fprintf(stderr, "workload: %s: CUresult %d\n", what, (int)result);
    fflush(stdout);
    _exit((int)result & 0xff);
}

static void *library(void)
{
    void *handle = dlopen("libcuda.so.1", RTLD_NOW);
    if (!handle) {
        fprintf(stderr, "workload: %s\n", dlerror());
        exit(3);
    }
    return handle;
}

/* A driver function in the way that --resolve names. */
static void *found(const char *name, const char *per_thread_name)
{
    void *function = NULL;
    int version = want.version;
    cuuint64_t flags = 0;
    CUdriverProcAddressQueryResult status;
    if (strcmp(want.resolve, "dlsym") == 0)
        return dlsym(library(), name);
    if (strcmp(want.resolve, "dlsym-ptsz") == 0)
        return dlsym(library(), per_thread_name);
    CUresult (*v1)(const char *, void **, int, cuuint64_t) = NULL;
    CUresult (*v2)(const char *, void **, int, cuuint64_t, CUdriverProcAddressQueryResult *) = NULL;
    *(void **)&v1 = dlsym(library(), "cuGetProcAddress");
    *(void **)&v2 = dlsym(library(), "cuGetProcAddress_v2");
    if (strcmp(want.resolve, "proc-v1") == 0) {
        check(v1(name, &function, version, flags), name);
        return function;
    }
    if (strcmp(want.resolve, "nested") == 0)
        check(v2("cuGetProcAddress", (void **)&v2, version, 0, &status), "cuGetProcAddress");
    if (strcmp(want.resolve, "nested-v1") == 0) { /* the oldest version of itself, which has no status */
        check(v1("cuGetProcAddress", (void **)&v1, 11030, 0), "cuGetProcAddress");
        check(v1(name, &function, version, flags), name);
        return function;
    }
    if (strcmp(want.resolve, "proc-ptsz") == 0)
        flags = CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
    check(v2(name, &function, version, flags, &status), name);
    return function;
}

static void resolve(void)
{
    if (strcmp(want.resolve, "link") == 0) {
        cu.launch = cuLaunchKernel;
        cu.launch_ex = cuLaunchKernelEx;
        cu.cooperative = cuLaunchCooperativeKernel;
        cu.graph = cuGraphLaunch;
        cu.ctx_sync = cuCtxSynchronize;
        cu.stream_sync = cuStreamSynchronize;
        return;
    }
    *(void **)&cu.launch = found("cuLaunchKernel", "cuLaunchKernel_ptsz");
    *(void **)&cu.launch_ex = found("cuLaunchKernelEx", "cuLaunchKernelEx_ptsz");
    *(void **)&cu.cooperative = found("cuLaunchCooperativeKernel", "cuLaunchCooperativeKernel_ptsz");
    *(void **)&cu.graph = found("cuGraphLaunch", "cuGraphLaunch_ptsz");
    *(void **)&cu.ctx_sync = found("cuCtxSynchronize", "cuCtxSynchronize");
    *(void **)&cu.stream_sync = found("cuStreamSynchronize", "cuStreamSynchronize_ptsz");
}

static void launch(CUstream stream, CUgraphExec exec)
{
    CUfunction kernel = (CUfunction)(uintptr_t)want.ns;
    if (want.host_ns) {
        uint64_t until_ns = now_ns() + (uint64_t)want.host_ns;
        while (now_ns() < until_ns)
            ;
    }
    if (exec)
        check(cu.graph(exec, stream), "cuGraphLaunch");
    else if (strcmp(want.api, "ex") == 0) {
        CUlaunchConfig config = {.gridDimX = 1, .blockDimX = 1, .hStream = stream};
        check(cu.launch_ex(&config, kernel, NULL, NULL), "cuLaunchKernelEx");
    } else if (strcmp(want.api, "cooperative") == 0)
        check(cu.cooperative(kernel, 1, 1, 1, 1, 1, 1, 0, stream, NULL), "cuLaunchCooperativeKernel");
    else if (strcmp(want.api, "multi") == 0) {
        CUDA_LAUNCH_PARAMS params = {.function = kernel, .hStream = stream};
        check(cuLaunchCooperativeKernelMultiDevice(&params, 1, 0), "cuLaunchCooperativeKernelMultiDevice");
    } else
        check(cu.launch(kernel, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), "cuLaunchKernel");
}

static void synchronize(const CUstream *streams, CUevent event, CUdeviceptr memory)
{
    char byte;
    for (int i = 0; i < want.streams; i++) {
        if (strcmp(want.sync, "stream") == 0)
            check(cu.stream_sync(streams[i]), "cuStreamSynchronize");
        else if (strcmp(want.sync, "event") == 0 || strcmp(want.sync, "poll") == 0) {
            check(cuEventRecord(event, streams[i]), "cuEventRecord");
            while (strcmp(want.sync, "poll") == 0 && cuEventQuery(event) == CUDA_ERROR_NOT_READY)
                usleep(100);
            check(cuEventSynchronize(event), "cuEventSynchronize");
        } else if (strcmp(want.sync, "copy") == 0)
            check(cuMemcpyDtoHAsync_v2(&byte, memory, 1, streams[i]), "cuMemcpyDtoHAsync");
        else if (strcmp(want.sync, "ctx") == 0)
            check(cu.ctx_sync(), "cuCtxSynchronize");
    }
}

/* A graph of --kernels kernels, captured from a stream of its own. */
static CUgraphExec captured(CUstream stream)
{
    CUgraph graph;
    CUgraphExec exec;
    CUfunction kernel = (CUfunction)(uintptr_t)want.ns;
    check(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), "cuStreamBeginCapture");
    for (int i = 0; i < want.kernels; i++)
        check(cu.launch(kernel, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), "cuLaunchKernel");
    check(cuStreamEndCapture(stream, &graph), "cuStreamEndCapture");
    check(cuGraphInstantiateWithFlags(&exec, graph, 0), "cuGraphInstantiate");
    check(cuGraphDestroy(graph), "cuGraphDestroy");
    return exec;
}

static void *run_all(void *argument)
{
    const long thread = (long)(intptr_t)argument;
    const int graph = strcmp(want.api, "graph") == 0, launches = graph ? 1 : want.kernels;
    CUstream streams[MAX_STREAMS] = {NULL};
    CUgraphExec exec = NULL;
    CUevent event;
    CUdeviceptr memory;
    check(cuCtxSetCurrent(context), "cuCtxSetCurrent");
    /* The default stream, if one stream and one thread are asked for; else streams of each thread's own. */
    if (want.streams > 1 || want.threads > 1 || graph)
        for (int i = 0; i < want.streams; i++)
            check(cuStreamCreate(&streams[i], CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    check(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING), "cuEventCreate");
    check(cuMemAlloc_v2(&memory, 16), "cuMemAlloc");
    if (graph)
        exec = captured(streams[0]);
    for (int run = 0; run < want.runs && now_ns() < end_ns; run++) {
        uint64_t start_ns = now_ns();
        for (int i = 0; i < launches; i++)
            launch(streams[i % want.streams], exec);
        uint64_t launched_ns = now_ns();
        synchronize(streams, event, memory);
        printf("%ld %llu %llu %llu\n", thread, (unsigned long long)start_ns, (unsigned long long)launched_ns,
               (unsigned long long)now_ns());
        if (want.idle_us)
            usleep((useconds_t)want.idle_us);
    }
    check(cuMemFree_v2(memory), "cuMemFree");
    check(cuEventDestroy_v2(event), "cuEventDestroy");
    if (exec)
        check(cuGraphExecDestroy(exec), "cuGraphExecDestroy");
    for (int i = 0; i < want.streams; i++)
        if (streams[i])
            check(cuStreamDestroy_v2(streams[i]), "cuStreamDestroy");
    return NULL;
}

static void read_arguments(int count, char **arguments)
{
    static const struct option OPTIONS[] = {
        {"resolve", 1, NULL, 'r'}, /* link dlsym dlsym-ptsz proc proc-v1 proc-ptsz nested nested-v1 */
        {"version", 1, NULL, 'v'}, /* CUDA version asked of cuGetProcAddress */
        {"api", 1, NULL, 'a'},     /* kernel ex cooperative multi graph */
        {"sync", 1, NULL, 's'},    /* ctx stream event poll copy none */
        {"kernels", 1, NULL, 'k'}, /* a run; of a graph: its nodes */
        {"ns", 1, NULL, 'n'},      /* device time of a kernel */
        {"host-ns", 1, NULL, 'h'}, /* busy host time before a launch */
        {"idle-us", 1, NULL, 'i'}, /* pause after a run */
        {"seconds", 1, NULL, 't'}, /* how long */
        {"runs", 1, NULL, 'R'},    /* at most */
        {"streams", 1, NULL, 'S'}, /* kernels go to them in turn */
        {"threads", 1, NULL, 'T'}, /* each with streams of its own */
        {"fork", 0, NULL, 'f'},    /* do it all in a child process */
        {NULL, 0, NULL, 0},
    };
    for (int option; (option = getopt_long(count, arguments, "", OPTIONS, NULL)) != -1;)
        switch (option) {
        case 'r': want.resolve = optarg; break;
        case 'v': want.version = atoi(optarg); break;
        case 'a': want.api = optarg; break;
        case 's': want.sync = optarg; break;
        case 'k': want.kernels = atoi(optarg); break;
        case 'n': want.ns = atol(optarg); break;
        case 'h': want.host_ns = atol(optarg); break;
        case 'i': want.idle_us = atol(optarg); break;
        case 't': want.seconds = atof(optarg); break;
        case 'R': want.runs = atoi(optarg); break;
        case 'S': want.streams = atoi(optarg); break;
        case 'T': want.threads = atoi(optarg); break;
        case 'f': want.fork = 1; break;
        default: exit(3);
        }
    if (want.streams < 1 || want.streams > MAX_STREAMS || want.threads < 1 || want.threads > MAX_THREADS)
        exit(3);
}

int main(int count, char **arguments)
{
    pthread_t threads[MAX_THREADS];
    int status = 0;
    read_arguments(count, arguments);
    resolve();
    if (want.fork && fork() != 0)
        return wait(&status) < 0 || !WIFEXITED(status) ? 4 : WEXITSTATUS(status);
    check(cuInit(0), "cuInit");
    check(cuDevicePrimaryCtxRetain(&context, 0), "cuDevicePrimaryCtxRetain");
    end_ns = now_ns() + (uint64_t)(want.seconds * 1e9);
    for (long i = 1; i < want.threads; i++)
        if (pthread_create(&threads[i], NULL, run_all, (void *)(intptr_t)i) != 0)
            return 4;
    run_all(NULL);
    for (int i = 1; i < want.threads; i++)
        pthread_join(threads[i], NULL);
    check(cuDevicePrimaryCtxRelease_v2(0), "cuDevicePrimaryCtxRelease");
    return 0;
}
