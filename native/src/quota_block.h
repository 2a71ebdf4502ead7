/* The control block of a time quota: 128 bytes in a shared file, little-endian.
 *
 * rapp/runtime/quota_layout.py describes the same bytes: a change needs a new version there and here. A
 * scheduler writes mode, quota and window at any moment; the processes under the gate write the rest.
 */
#ifndef RAPP_QUOTA_BLOCK_H
#define RAPP_QUOTA_BLOCK_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define QUOTA_MAGIC UINT64_C(0x3130475150504152) /* the bytes "RAPPQG01" */

enum { QUOTA_VERSION = 1, QUOTA_PPM_MAX = 1000000 };

enum quota_mode {
    QUOTA_OFF = 0,      /* everything passes, and debts are forgotten */
    QUOTA_GPU_TIME = 1, /* token bucket of device time */
};

struct quota_block {
    uint64_t magic;
    uint32_t version;
    _Atomic uint32_t mode;      /* enum quota_mode */
    _Atomic uint32_t quota_ppm; /* device time allowed, in millionths of all time: 1 to 1000000 */
    _Atomic uint32_t lead;      /* groups of launches in flight at most, on each stream */
    _Atomic uint64_t window_ns; /* the bucket holds the quota of one window */
    _Atomic uint64_t group_ns;  /* device time that one group of launches should have */

    _Atomic uint32_t lock_owner; /* pid; 0: free. Guards the next two, see bucket.c */
    uint32_t reserved;
    int64_t tokens_ns;            /* device time in the bucket; below 0: debt */
    _Atomic uint64_t refilled_ns; /* CLOCK_MONOTONIC of the last refill; 0: never, the bucket is full */

    /* Statistics since the block was made. */
    _Atomic uint64_t launches;    /* launches that were gated */
    _Atomic uint64_t groups;      /* groups that were charged */
    _Atomic uint64_t used_ns;     /* device time charged */
    _Atomic uint64_t waited_ns;   /* time that launches waited for tokens, summed over threads */
    _Atomic uint64_t waits;       /* how often one had to */
    _Atomic uint64_t max_debt_ns; /* largest debt */
    uint64_t reserved_end[2];
};

_Static_assert(sizeof(struct quota_block) == 128, "layout");
_Static_assert(offsetof(struct quota_block, magic) == 0, "layout");
_Static_assert(offsetof(struct quota_block, version) == 8, "layout");
_Static_assert(offsetof(struct quota_block, mode) == 12, "layout");
_Static_assert(offsetof(struct quota_block, quota_ppm) == 16, "layout");
_Static_assert(offsetof(struct quota_block, lead) == 20, "layout");
_Static_assert(offsetof(struct quota_block, window_ns) == 24, "layout");
_Static_assert(offsetof(struct quota_block, group_ns) == 32, "layout");
_Static_assert(offsetof(struct quota_block, lock_owner) == 40, "layout");
_Static_assert(offsetof(struct quota_block, tokens_ns) == 48, "layout");
_Static_assert(offsetof(struct quota_block, refilled_ns) == 56, "layout");
_Static_assert(offsetof(struct quota_block, launches) == 64, "layout");
_Static_assert(offsetof(struct quota_block, groups) == 72, "layout");
_Static_assert(offsetof(struct quota_block, used_ns) == 80, "layout");
_Static_assert(offsetof(struct quota_block, waited_ns) == 88, "layout");
_Static_assert(offsetof(struct quota_block, waits) == 96, "layout");
_Static_assert(offsetof(struct quota_block, max_debt_ns) == 104, "layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the block is little-endian");
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2, "atomics work across processes");

#endif
