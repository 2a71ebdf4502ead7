/* Time: CLOCK_MONOTONIC in ns, one clock for all processes of the machine. */
#ifndef RAPP_CLOCK_H
#define RAPP_CLOCK_H

#include <stdint.h>
#include <time.h>

enum { NS_PER_US = 1000, NS_PER_MS = 1000000, NS_PER_S = 1000000000 };

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Sleeps for less than a second; a signal may end it early. */
static inline void nap(int64_t duration_ns)
{
    struct timespec duration = {.tv_sec = 0, .tv_nsec = (long)duration_ns};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &duration, NULL);
}

#endif
