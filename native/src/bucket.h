/* The law of the quota: a token bucket of device time, shared by all processes of one control block.
 *
 * Tokens come in at the quota's rate, up to the quota of one window, and groups of launches pay with their
 * device time when it is known. A group may leave a debt; the next one begins when it is repaid.
 *
 * Not thread-safe within a process: the caller holds the gate's mutex (the shared lock knows processes only).
 */
#ifndef RAPP_BUCKET_H
#define RAPP_BUCKET_H

#include <stdbool.h>

#include "quota_block.h"

/* The quota as a share of time, in (0, 1]. */
double bucket_rate(const struct quota_block *block);

/* Device time in the bucket now, ns; below 0: debt. `idle`: this process has nothing on the device, so that
 * what exceeds the bucket is lost. */
int64_t bucket_balance(struct quota_block *block, bool idle);

/* Take device time out that was used until now, and count it as that of one group. */
void bucket_charge(struct quota_block *block, int64_t used_ns);

/* Start again with a full bucket, for when the gate is switched off. */
void bucket_forget(struct quota_block *block);

#endif
