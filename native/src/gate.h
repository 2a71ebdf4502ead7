/* The gate: what happens around the program's calls of the driver. Every function takes the gate's mutex
 * itself, and none holds it while the program's own call or a wait is under way. */
#ifndef RAPP_GATE_H
#define RAPP_GATE_H

#include "streams.h"

/* Before a launch: wait until the quota allows it. Returns what `gate_leave` wants; NULL: not gated, because
 * there is no quota, or because the launch is being captured. */
struct stream *gate_enter(CUstream stream, bool per_thread);

/* After the launch, with the driver's answer. `entered` may be NULL. */
void gate_leave(struct stream *entered, enum kind kind, CUresult result);

/* Before the program waits for a stream, or marks a point in it: idle time from here on is not charged. */
void gate_mark(CUstream stream, bool per_thread);
void gate_mark_all(void);

/* After the program saw the device at some point: charge what is done. */
void gate_collect_all(void);

/* Before a stream is destroyed. */
void gate_stream_ends(CUstream stream);

/* Before a context is destroyed, or after its last reference was released. */
void gate_context_ends(CUcontext context);

/* A primary context was retained; one reference of it was released, or it was reset. */
void gate_primary_retained(CUdevice device, CUcontext context);
void gate_primary_released(CUdevice device);

/* A thread ended that had default streams of its own. */
void gate_thread_ended(unsigned long thread);

#endif
