/* The streams that the program launches into, and their contexts. All under the gate's mutex.
 *
 * Entries are never freed: one whose stream is gone is used again for another stream of the same context,
 * because its events belong to that context.
 */
#ifndef RAPP_STREAMS_H
#define RAPP_STREAMS_H

#include <stdbool.h>

#include "busy.h"
#include "cuda_abi.h"

enum { MAX_GROUPS = 64 }; /* of a stream, the open one included */

/* What is launched; each kind has its own mean device time. */
enum kind { KERNEL, GRAPH, KINDS };

/* A group of launches between two events. */
struct group {
    CUevent start, end; /* made on first use */
    unsigned int launches[KINDS];
    int64_t expected_ns; /* device time by the means at the time of launch */
    bool late;           /* its end event was recorded long after its last launch */
};

struct context {
    CUcontext handle; /* NULL: destroyed; the entry is free */
    CUevent base;     /* the origin of this context's device time, moved on from time to time */
    int64_t base_ns;  /* where it lies on that time */
    struct busy busy; /* when its groups kept the device busy */
    struct context *next;
};

struct stream {
    CUstream handle;      /* NULL: the stream is gone */
    unsigned long thread; /* of a default stream per thread: whose; else 0 */
    struct context *context;

    /* groups[first] to groups[first + closed - 1], modulo MAX_GROUPS, wait for the device; the next one is
     * open if `open`. `marked`: its end event was recorded after its last launch. */
    struct group groups[MAX_GROUPS];
    unsigned int first, closed;
    bool open, marked;
    bool watched;             /* its next end shall be measured: every launch is marked */
    unsigned int late_groups; /* groups that ended unseen, see groups_end_late */
    unsigned int launching;   /* launches of the open group that are under way */

    int64_t mean_ns[KINDS]; /* device time of a launch, by the last groups */
    uint64_t launched_ns;   /* host time of the last launch; 0: none yet */
    uint64_t busy_until_ns; /* host time at which all launched work is expected to be done */
    int64_t last_end_ns;    /* device time at which the last group that was charged ended */
    struct stream *next;
};

/* The group that is `index` places behind the first one not settled; that behind all closed ones. */
static inline struct group *stream_group(struct stream *stream, unsigned int index)
{
    return &stream->groups[(stream->first + index) % MAX_GROUPS];
}

static inline struct group *stream_open_group(struct stream *stream)
{
    return stream_group(stream, stream->closed);
}

/* The stream for a handle as given to the driver: NULL means CU_STREAM_PER_THREAD or CU_STREAM_LEGACY. */
CUstream stream_handle(CUstream handle, bool per_thread);

/* The entry of a stream; NULL: there is none yet. `handle` is one from `stream_handle`. */
struct stream *streams_find(CUstream handle);

/* The same, made if need be; NULL: no context is current, or no memory. */
struct stream *streams_get(CUstream handle);

/* Whether this thread can name the stream to the driver: a default stream per thread only its own thread can,
 * and the legacy one only while its context is current. */
bool streams_reachable(const struct stream *stream);

/* All entries, also those whose stream is gone. */
struct stream *streams_all(void);

/* Free the entries of a context, whose events are gone with it. Its groups must be settled. */
void streams_drop_context(CUcontext context);

/* Forget everything, in a forked child, where no handle is of use. */
void streams_reset(void);

#endif
