#define _GNU_SOURCE
#include "admission.h"

#include "bucket.h"
#include "clock.h"
#include "groups.h"

enum {
    SHORTEST_NAP_NS = 20 * NS_PER_US,
    LONGEST_NAP_NS = NS_PER_MS, /* a new quota is seen this soon */
};

static int64_t clamp_nap(double duration_ns)
{
    if (duration_ns < SHORTEST_NAP_NS)
        return SHORTEST_NAP_NS;
    return duration_ns > LONGEST_NAP_NS ? LONGEST_NAP_NS : (int64_t)duration_ns;
}

int64_t admission_delay(struct quota_block *block, struct stream *stream, bool *for_tokens)
{
    const uint64_t now = now_ns();
    double pending_ns = 0, remaining_ns = 0;
    for (unsigned int i = 0; i < stream->closed; i++)
        pending_ns += (double)stream_group(stream, i)->expected_ns;
    if (stream->busy_until_ns > now)
        remaining_ns = (double)(stream->busy_until_ns - now);
    *for_tokens = false;

    /* Half the work that `lead` groups should have is enough to be blocked: without this condition, groups
     * that a synchronisation cut short would let the device run dry. */
    unsigned int lead = atomic_load_explicit(&block->lead, memory_order_relaxed);
    lead = lead < 1 ? 1 : lead;
    bool too_many = stream->closed >= lead && pending_ns >= (double)group_target_ns(block) * lead / 2;
    if (too_many || stream->closed == MAX_GROUPS - 1) {
        double behind_first_ns = pending_ns - (double)stream_group(stream, 0)->expected_ns;
        return clamp_nap(remaining_ns - behind_first_ns);
    }

    /* The balance at the time at which the device gets to the new group: what is pending will have been paid,
     * and tokens will have come in meanwhile. At quota 100 % work in flight so pays for itself, and the next
     * group always queues behind it. */
    double rate = bucket_rate(block);
    bool idle = atomic_load_explicit(&groups_unsettled, memory_order_relaxed) == 0;
    double balance_ns = (double)bucket_balance(block, idle) + rate * remaining_ns - pending_ns;
    if (balance_ns > 0)
        return 0;
    *for_tokens = true;
    return clamp_nap(remaining_ns - balance_ns / rate);
}
