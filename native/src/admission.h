/* When a stream may begin its next group of launches. Under the gate's mutex. */
#ifndef RAPP_ADMISSION_H
#define RAPP_ADMISSION_H

#include "quota_block.h"
#include "streams.h"

/* How many ns to wait before looking again; 0: the group may begin.
 *
 * A stream waits while `lead` groups are in flight, so that what the device still has to do when the tokens
 * are gone is bounded; and while the bucket would be empty when the device gets to the new group. The second
 * is what `for_tokens` tells. */
int64_t admission_delay(struct quota_block *block, struct stream *stream, bool *for_tokens);

#endif
