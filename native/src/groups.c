#define _GNU_SOURCE
#include "groups.h"

#include "block.h"
#include "bucket.h"
#include "clock.h"
#include "driver.h"

enum {
    SHORTEST_NAP_NS = 20 * NS_PER_US,
    LONGEST_NAP_NS = NS_PER_MS,  /* a new quota is seen this soon */
    SPARSE_NS = 100 * NS_PER_US, /* launches this far apart are marked one by one */
    SHORTEST_MEAN_NS = 100,      /* bounds the launches of a group when the device is too fast to time */
    REBASE_NS = NS_PER_S,        /* distances are floats of ms, exact to 60 ns at this one */
};

_Atomic unsigned int groups_unsettled;

/* The mean device times of this process, for streams that have none of their own yet. */
static int64_t latest_mean_ns[KINDS];

static struct group *closed_group(struct stream *stream, unsigned int index)
{
    return &stream->groups[(stream->first + index) % MAX_GROUPS];
}

static struct group *open_group(struct stream *stream)
{
    return closed_group(stream, stream->closed);
}

static uint64_t target_ns(const struct quota_block *block)
{
    uint64_t group_ns = atomic_load_explicit(&block->group_ns, memory_order_relaxed);
    return group_ns ? group_ns : NS_PER_MS;
}

/* A launch of an unknown kind counts as a whole group, so that no long one hides among many. */
static int64_t mean_ns(const struct quota_block *block, const struct stream *stream, enum kind kind)
{
    int64_t mean = stream->mean_ns[kind] ? stream->mean_ns[kind] : latest_mean_ns[kind];
    return mean ? mean : (int64_t)target_ns(block);
}

static int64_t clamp_nap(double duration_ns)
{
    return duration_ns < SHORTEST_NAP_NS  ? SHORTEST_NAP_NS
           : duration_ns > LONGEST_NAP_NS ? LONGEST_NAP_NS
                                          : (int64_t)duration_ns;
}

int64_t groups_delay(struct quota_block *block, struct stream *stream, bool *for_tokens)
{
    uint64_t now = now_ns();
    double pending_ns = 0, remaining_ns = 0;
    for (unsigned int i = 0; i < stream->closed; i++)
        pending_ns += (double)closed_group(stream, i)->expected_ns;
    if (stream->busy_until_ns > now)
        remaining_ns = (double)(stream->busy_until_ns - now);

    /* The lead counts whole groups: those that a synchronisation cut short would otherwise stall the device.
     */
    unsigned int lead = atomic_load_explicit(&block->lead, memory_order_relaxed);
    lead = lead < 1 ? 1 : lead;
    bool too_many = stream->closed >= lead && pending_ns >= (double)target_ns(block) * lead / 2;
    *for_tokens = false;
    if (too_many || stream->closed == MAX_GROUPS - 1) {
        double after_first_ns = pending_ns - (double)closed_group(stream, 0)->expected_ns;
        return clamp_nap(remaining_ns - after_first_ns);
    }

    /* What the balance will be when the device gets to the new group. At quota 100 % work in flight pays for
     * itself, so the next group is always let in behind it. */
    double rate = bucket_rate(block);
    bool idle = atomic_load_explicit(&groups_unsettled, memory_order_relaxed) == 0;
    double ahead_ns = (double)bucket_balance(block, idle) + rate * remaining_ns - pending_ns;
    if (ahead_ns > 0)
        return 0;
    *for_tokens = true;
    return clamp_nap(remaining_ns - ahead_ns / rate);
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
    struct group *group = open_group(stream);
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
    return open_group(stream)->expected_ns == 0;
}

void groups_cancel(struct stream *stream)
{
    if (!stream->open || stream->launching || !is_empty(stream))
        return;
    stream->open = false;
    atomic_fetch_sub(&groups_unsettled, 1);
}

void groups_mark(struct stream *stream)
{
    if (!stream->open || stream->marked || stream->launching || is_empty(stream))
        return;
    if (!streams_reachable(stream) || driver_capturing(stream->handle))
        return;
    stream->marked = record(stream, open_group(stream)->end);
}

static void close_group(struct stream *stream)
{
    stream->open = stream->marked = false;
    stream->closed++;
}

void groups_end_late(struct stream *stream)
{
    if (!stream->open || stream->marked || now_ns() - stream->launched_ns < SPARSE_NS)
        return;
    groups_mark(stream);
    if (stream->marked) {
        open_group(stream)->late = true;
        close_group(stream);
    }
}

void groups_finish(struct quota_block *block, struct stream *stream)
{
    groups_mark(stream);
    if (stream->open && stream->marked)
        close_group(stream);
    else if (stream->open) {
        stream->open = false;
        atomic_fetch_sub(&groups_unsettled, 1);
        bucket_charge(block, open_group(stream)->expected_ns);
    }
}

void groups_count(struct quota_block *block, struct stream *stream, enum kind kind)
{
    struct group *group = open_group(stream);
    uint64_t now = now_ns(), last = stream->launched_ns;
    int64_t mean = mean_ns(block, stream, kind);
    group->launches[kind]++;
    group->expected_ns += mean;
    stream->marked = false;
    stream->busy_until_ns = (stream->busy_until_ns > now ? stream->busy_until_ns : now) + (uint64_t)mean;
    stream->launched_ns = now;
    bool full = (uint64_t)group->expected_ns >= target_ns(block);
    if (full || now - last >= SPARSE_NS)
        groups_mark(stream);
    /* Without a mark, another thread is launching into the group and will close it, or the driver refused. */
    if (full && (stream->marked || !stream->launching))
        groups_finish(block, stream);
}

/* Moves the means towards what a group took: all its launches by the same factor. */
static void learn(struct stream *stream, const struct group *group, int64_t took_ns)
{
    double factor = (double)took_ns / (double)group->expected_ns;
    for (int kind = 0; kind < KINDS; kind++) {
        if (!group->launches[kind])
            continue;
        int64_t mean = stream->mean_ns[kind];
        unsigned int total = group->launches[KERNEL] + group->launches[GRAPH];
        if (!mean) /* the first time: the measurement alone */
            mean = took_ns / total;
        else
            mean = (int64_t)((double)mean * (1 + factor) / 2);
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
        left_ns += (uint64_t)closed_group(stream, i)->expected_ns;
    if (stream->busy_until_ns > now + left_ns)
        stream->busy_until_ns = now + left_ns;
}

/* Measures the first closed group, which the device has passed, and settles it. */
static CUresult measure(struct quota_block *block, struct stream *stream)
{
    struct context *context = stream->context;
    struct group *group = closed_group(stream, 0);
    int64_t since_base_ns, took_ns;
    CUresult result = driver_elapsed(context->base, group->start, &since_base_ns);
    if (result == CUDA_SUCCESS)
        result = driver_elapsed(group->start, group->end, &took_ns);
    if (result != CUDA_SUCCESS)
        return result;
    int64_t start_ns = context->base_ns + since_base_ns, end_ns = start_ns + took_ns;
    if (!group->late)
        learn(stream, group, end_ns - (start_ns > stream->last_end_ns ? start_ns : stream->last_end_ns));
    stream->last_end_ns = end_ns;
    if (end_ns - context->base_ns > REBASE_NS) {
        CUevent base = context->base;
        context->base = group->end;
        context->base_ns = end_ns;
        group->end = base;
    }
    int64_t charge_ns = busy_add(&context->busy, start_ns, end_ns);
    if (group->late && charge_ns > group->expected_ns)
        charge_ns = group->expected_ns;
    settle(block, stream, charge_ns);
    return CUDA_SUCCESS;
}

void groups_collect(struct quota_block *block, struct stream *stream)
{
    CUresult result = CUDA_SUCCESS;
    while (stream->closed && result == CUDA_SUCCESS) {
        result = driver_event_query(closed_group(stream, 0)->end);
        if (result == CUDA_SUCCESS)
            result = measure(block, stream);
    }
    if (result == CUDA_SUCCESS && stream->open && stream->marked && !stream->launching) {
        result = driver_event_query(open_group(stream)->end);
        if (result == CUDA_SUCCESS) {
            close_group(stream);
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
    if (stream->open)
        close_group(stream);
    while (stream->closed)
        settle(block, stream, closed_group(stream, 0)->expected_ns);
}
