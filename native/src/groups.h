/* Groups of launches: a pair of events around several, so that measuring costs little. Under the gate's
 * mutex.
 *
 * A group is open while launches join it, closed when its end event is recorded, and settled when the device
 * has passed that event: then its device time is charged.
 */
#ifndef RAPP_GROUPS_H
#define RAPP_GROUPS_H

#include "quota_block.h"
#include "streams.h"

/* Groups of this process that are not settled; 0 lets hooks pass without taking the mutex. */
extern _Atomic unsigned int groups_unsettled;

/* Device time that a group should have, ns. */
uint64_t group_target_ns(const struct quota_block *block);

/* Begin a group. Returns false if the driver gives no events: the launch goes ungated. */
bool groups_open(struct stream *stream);

/* Count a launch that was made into the open group, and close the group when that is long enough. */
void groups_count(struct quota_block *block, struct stream *stream, enum kind kind);

/* Take the open group back if nothing was launched into it. */
void groups_cancel(struct stream *stream);

/* Record the end of the open group behind all that was launched so far. The group stays open, but ends here
 * if the device gets here before the next launch: idle time is not charged. */
void groups_mark(struct stream *stream);

/* End the open group if its last launch was long ago, nobody marked it then, and the device is idle: the
 * program waited in a way that the hooks do not see. At most what was expected is charged. */
void groups_end_late(struct stream *stream);

/* End the open group, because nothing more will be launched into it. */
void groups_finish(struct quota_block *block, struct stream *stream);

/* Settle what the device has passed, a marked group included. */
void groups_collect(struct quota_block *block, struct stream *stream);

/* Settle everything by the expected device times, without asking the driver. */
void groups_abandon(struct quota_block *block, struct stream *stream);

#endif
