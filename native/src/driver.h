/* The real driver's functions that the gate calls itself, past its own hooks. */
#ifndef RAPP_DRIVER_H
#define RAPP_DRIVER_H

#include <stdbool.h>

#include "cuda_abi.h"

/* Whether the driver is there and has every function that the gate needs; if not, that is said. */
bool driver_ready(void);

/* A function that libcuda.so.1 exports; NULL: there is none, or no such library. */
void *driver_symbol(const char *name);

/* Whether launches into a stream become nodes of a graph, or cannot be made at all because of another
 * stream's capture: the gate must then leave the stream alone. */
bool driver_capturing(CUstream stream);

/* The context that a stream belongs to; for the default streams, the current one. NULL: none, or an error. */
CUcontext driver_context(CUstream stream);

/* An event with timing, in a context that need not be current. */
CUresult driver_event_create(CUcontext context, CUevent *event);

/* These may be called while another stream is being captured. */
CUresult driver_event_record(CUevent event, CUstream stream);
CUresult driver_event_query(CUevent event);

/* From one event to another, ns; below 0 if the second came first. */
CUresult driver_elapsed(CUevent start, CUevent end, int64_t *elapsed_ns);

/* Whether the primary context of a device is alive. */
bool driver_primary_active(CUdevice device);

#endif
