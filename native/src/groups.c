#define _GNU_SOURCE
#include "groups.h"

#include "block.h"
#include "bucket.h"
#include "clock.h"
#include "driver.h"

enum {
    SPARSE_NS = 50 * NS_PER_US, /* launches this far apart are marked one by one */
    WATCH_EVERY = 8,            /* of groups that ended late, this one's successor is marked at each launch */
    SHORTEST_MEAN_NS = 100,     /* bounds the launches of a group when the device is too fast to time */
    /* An idle device gets to a new event within this; a guess, as it was never measured on a GPU. */
    LATE_LOOK_NS = 30 * NS_PER_US,
    REBASE_NS = NS_PER_S, /* distances are floats of ms, exact to 60 ns at this one */
};

_Atomic unsigned int groups_unsettled;

/* The mean device times of this process, for streams that have none of their own yet. */
static int64_t latest_mean_ns[KINDS];

uint64_t group_target_ns(const struct quota_block *block)
{
    uint64_t group_ns = atomic_load_explicit(&block->group_ns, memory_order_relaxed);
    return group_ns ? group_ns : NS_PER_MS;
}

/* A launch of an unknown kind counts as a whole group, so that no long one hides among many. */
static int64_t mean_ns(const struct quota_block *block, const struct stream *stream, enum kind kind)
{
    int64_t mean = stream->mean_ns[kind] ? stream->mean_ns[kind] : latest_mean_ns[kind];
    return mean ? mean : (int64_t)group_target_ns(block);
}

/* The event, made on first use. */
static bool have_event(struct stream *stream, CUevent *event)
{
    if (*event)
        return true;
    CUresult result = driver_event_create(stream->context->handle, event);
    if (result == CUDA_SUCCESS)
        return true;
    *event = NULL;
    quota_warn("no event to measure with (CUresult %d): the launch passes without a quota", (int)result);
    return false;
}

static bool record(struct stream *stream, CUevent event)
{
    CUresult result = driver_event_record(event, stream->handle);
    if (result != CUDA_SUCCESS)
        quota_warn("device time cannot be measured (CUresult %d): expected times are charged", (int)result);
    return result == CUDA_SUCCESS;
}

bool groups_open(struct stream *stream)
{
    struct context *context = stream->context;
    struct group *group = stream_open_group(stream);
    if (!have_event(stream, &group->start) || !have_event(stream, &group->end))
        return false;
    if (!context->base && (!have_event(stream, &context->base) || !record(stream, context->base)))
        return false;
    if (!record(stream, group->start))
        return false;
    group->launches[KERNEL] = group->launches[GRAPH] = 0;
    group->expected_ns = 0;
    group->late = false;
    stream->open = true;
    stream->marked = false;
    atomic_fetch_add(&groups_unsettled, 1);
    return true;
}

static bool is_empty(struct stream *stream)
{
    return stream_open_group(stream)->expected_ns == 0;
}

static void drop_open_group(struct stream *stream)
{
    stream->open = stream->marked = false;
    atomic_fetch_sub(&groups_unsettled, 1);
}

void groups_cancel(struct stream *stream)
{
    if (stream->open && !stream->launching && is_empty(stream))
        drop_open_group(stream);
}

void groups_mark(struct stream *stream)
{
    if (!stream->open || stream->marked || stream->launching || is_empty(stream))
        return;
    if (!streams_reachable(stream) || driver_capturing(stream->handle))
        return;
    stream->marked = record(stream, stream_open_group(stream)->end);
}

static void close_group(struct stream *stream)
{
    stream->open = stream->marked = false;
    stream->closed++;
}

void groups_end_late(struct stream *stream)
{
    uint64_t now = now_ns();
    if (!stream->open || stream->marked || now - stream->launched_ns < SPARSE_NS)
        return;
    groups_mark(stream);
    if (!stream->marked)
        return;
    struct group *group = stream_open_group(stream);
    CUresult result;
    do
        result = driver_event_query(group->end);
    while (result == CUDA_ERROR_NOT_READY && now_ns() - now < LATE_LOOK_NS);
    /* If the device is still busy, it has not been idle, and the group may go on. */
    if (result == CUDA_SUCCESS) {
        group->late = true;
        close_group(stream);
        stream->watched = stream->late_groups++ % WATCH_EVERY == 0;
    }
}

void groups_finish(struct quota_block *block, struct stream *stream)
{
    groups_mark(stream);
    if (stream->open && stream->marked)
        close_group(stream);
    else if (stream->open) {
        bucket_charge(block, stream_open_group(stream)->expected_ns);
        drop_open_group(stream);
    }
}

void groups_count(struct quota_block *block, struct stream *stream, enum kind kind)
{
    struct group *group = stream_open_group(stream);
    uint64_t now = now_ns(), last = stream->launched_ns;
    int64_t mean = mean_ns(block, stream, kind);
    group->launches[kind]++;
    group->expected_ns += mean;
    stream->marked = false;
    stream->busy_until_ns = (stream->busy_until_ns > now ? stream->busy_until_ns : now) + (uint64_t)mean;
    stream->launched_ns = now;
    bool full = (uint64_t)group->expected_ns >= group_target_ns(block);
    if (full || stream->watched || now - last >= SPARSE_NS)
        groups_mark(stream);
    /* Without a mark, another thread is launching into the group and will close it, or the driver refused. */
    if (full && (stream->marked || !stream->launching))
        groups_finish(block, stream);
}

/* Moves the means towards what a group took: those of all its launches by the same factor. */
static void learn(const struct quota_block *block, struct stream *stream, const struct group *group,
                  int64_t took_ns)
{
    double expected_ns = 0; /* by the means of now: those at the launch may have been a guess */
    unsigned int launches = 0;
    for (int kind = 0; kind < KINDS; kind++) {
        launches += group->launches[kind];
        expected_ns += (double)group->launches[kind] * (double)mean_ns(block, stream, (enum kind)kind);
    }
    for (int kind = 0; kind < KINDS; kind++) {
        if (!group->launches[kind])
            continue;
        /* Half of the way; all of it where nothing was known. */
        int64_t mean = stream->mean_ns[kind];
        mean = mean ? (int64_t)((double)mean * (1 + (double)took_ns / expected_ns) / 2) : took_ns / launches;
        stream->mean_ns[kind] = mean > SHORTEST_MEAN_NS ? mean : SHORTEST_MEAN_NS;
        latest_mean_ns[kind] = stream->mean_ns[kind];
    }
}

/* Takes the first closed group out, and charges `charge_ns` for it. */
static void settle(struct quota_block *block, struct stream *stream, int64_t charge_ns)
{
    stream->first = (stream->first + 1) % MAX_GROUPS;
    stream->closed--;
    atomic_fetch_sub(&groups_unsettled, 1);
    bucket_charge(block, charge_ns);

    uint64_t now = now_ns(), left_ns = 0;
    for (unsigned int i = 0; i < stream->closed + stream->open; i++)
        left_ns += (uint64_t)stream_group(stream, i)->expected_ns;
    if (stream->busy_until_ns > now + left_ns)
        stream->busy_until_ns = now + left_ns;
}

/* Measures the first closed group, which the device has passed, and settles it. */
static CUresult measure(struct quota_block *block, struct stream *stream)
{
    struct context *context = stream->context;
    struct group *group = stream_group(stream, 0);
    int64_t since_base_ns, took_ns;
    CUresult result = driver_elapsed(context->base, group->start, &since_base_ns);
    if (result == CUDA_SUCCESS)
        result = driver_elapsed(group->start, group->end, &took_ns);
    if (result != CUDA_SUCCESS)
        return result;
    if (group->late && took_ns > group->expected_ns)
        took_ns = group->expected_ns; /* then it was idle until the mark */
    int64_t start_ns = context->base_ns + since_base_ns, end_ns = start_ns + took_ns;
    if (!group->late)
        learn(block, stream, group,
              end_ns - (start_ns > stream->last_end_ns ? start_ns : stream->last_end_ns));
    stream->last_end_ns = end_ns;
    if (end_ns - context->base_ns > REBASE_NS) {
        CUevent base = context->base;
        context->base = group->end;
        context->base_ns = end_ns;
        group->end = base;
    }
    settle(block, stream, busy_add(&context->busy, start_ns, end_ns));
    return CUDA_SUCCESS;
}

void groups_collect(struct quota_block *block, struct stream *stream)
{
    CUresult result = CUDA_SUCCESS;
    while (stream->closed && result == CUDA_SUCCESS) {
        result = driver_event_query(stream_group(stream, 0)->end);
        if (result == CUDA_SUCCESS)
            result = measure(block, stream);
    }
    if (result == CUDA_SUCCESS && stream->open && stream->marked && !stream->launching) {
        result = driver_event_query(stream_open_group(stream)->end);
        if (result == CUDA_SUCCESS) {
            close_group(stream);
            stream->watched = false;
            result = measure(block, stream);
        }
    }
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_NOT_READY)
        return;
    /* The device or the context is broken, which the program learns from its own calls. */
    quota_warn("device time cannot be measured (CUresult %d): expected times are charged", (int)result);
    groups_abandon(block, stream);
}

void groups_abandon(struct quota_block *block, struct stream *stream)
{
    if (stream->open && is_empty(stream))
        drop_open_group(stream);
    else if (stream->open)
        close_group(stream);
    while (stream->closed)
        settle(block, stream, stream_group(stream, 0)->expected_ns);
}
