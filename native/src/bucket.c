#define _GNU_SOURCE
#include "bucket.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "clock.h"

/* The lock is held for well below 1 us, unless its owner is off its core, stopped or dead. */
enum {
    SPINS = 100,
    LOCK_NAP_NS = 50 * NS_PER_US,
    /* An owner this old is a dead one whose pid lives again, a zombie, or was stopped at the worst moment; in
     * the last case one charge may be counted twice or not at all. */
    PATIENCE_NS = NS_PER_S,
};

static bool is_dead(uint32_t pid)
{
    return kill((pid_t)pid, 0) != 0 && errno == ESRCH;
}

/* The owner is a process: its threads are kept apart by the gate's mutex. So a lock that is this process's
 * own was left by a dead namesake. */
static void lock(struct quota_block *block)
{
    const uint32_t self = (uint32_t)getpid();
    uint32_t owner = 0, first = 0;
    uint64_t since_ns = 0;
    for (unsigned int tries = 0; !atomic_compare_exchange_strong(&block->lock_owner, &owner, self); tries++) {
        if (tries >= SPINS) {
            uint64_t now = now_ns();
            if (owner != first) {
                first = owner;
                since_ns = now;
            }
            bool stale = owner == self || is_dead(owner) || now - since_ns > PATIENCE_NS;
            if (stale && atomic_compare_exchange_strong(&block->lock_owner, &owner, self))
                return;
            nap(LOCK_NAP_NS);
        } else if (tries % 10 == 9) {
            sched_yield();
        }
        owner = 0;
    }
}

static void unlock(struct quota_block *block)
{
    /* Whoever lost patience owns the lock by now: it is not ours to free. */
    uint32_t self = (uint32_t)getpid();
    atomic_compare_exchange_strong(&block->lock_owner, &self, 0);
}

static uint32_t quota_ppm(const struct quota_block *block)
{
    uint32_t ppm = atomic_load_explicit(&block->quota_ppm, memory_order_relaxed);
    return ppm < 1 ? 1 : ppm > QUOTA_PPM_MAX ? QUOTA_PPM_MAX : ppm;
}

double bucket_rate(const struct quota_block *block)
{
    return (double)quota_ppm(block) / QUOTA_PPM_MAX;
}

static int64_t capacity_ns(const struct quota_block *block)
{
    double window_ns = (double)atomic_load_explicit(&block->window_ns, memory_order_relaxed);
    return (int64_t)(window_ns * quota_ppm(block) / QUOTA_PPM_MAX);
}

/* Pays in what the quota earned since the last refill. */
static void refill(struct quota_block *block)
{
    /* When the quota changed since this process last looked is not known; half way is right on average. */
    static uint32_t seen_ppm;
    uint32_t ppm = quota_ppm(block);
    double rate = (double)(ppm + (seen_ppm ? seen_ppm : ppm)) / 2 / QUOTA_PPM_MAX;
    uint64_t now = now_ns(), last = atomic_load_explicit(&block->refilled_ns, memory_order_relaxed);
    if (last == 0 || last > now) /* never, or before the machine last started */
        block->tokens_ns = capacity_ns(block);
    else
        block->tokens_ns += (int64_t)((double)(now - last) * rate);
    atomic_store_explicit(&block->refilled_ns, now, memory_order_relaxed);
    seen_ppm = ppm;
}

static void spill(struct quota_block *block)
{
    int64_t capacity = capacity_ns(block);
    if (block->tokens_ns > capacity)
        block->tokens_ns = capacity;
}

int64_t bucket_balance(struct quota_block *block, bool idle)
{
    lock(block);
    refill(block);
    /* While something runs, what it will cost is still in the bucket: spilling then would lose tokens. */
    if (idle)
        spill(block);
    int64_t balance = block->tokens_ns;
    unlock(block);
    return balance;
}

void bucket_charge(struct quota_block *block, int64_t used_ns)
{
    lock(block);
    refill(block);
    block->tokens_ns -= used_ns;
    spill(block); /* after the charge: a group longer than the window keeps what came in meanwhile */
    int64_t debt_ns = -block->tokens_ns;
    atomic_fetch_add_explicit(&block->groups, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&block->used_ns, (uint64_t)used_ns, memory_order_relaxed);
    if (debt_ns > 0 && (uint64_t)debt_ns > atomic_load_explicit(&block->max_debt_ns, memory_order_relaxed))
        atomic_store_explicit(&block->max_debt_ns, (uint64_t)debt_ns, memory_order_relaxed);
    unlock(block);
}

void bucket_forget(struct quota_block *block)
{
    lock(block);
    block->tokens_ns = 0;
    atomic_store_explicit(&block->refilled_ns, 0, memory_order_relaxed);
    unlock(block);
}
