#include "busy.h"

#include <string.h>

int64_t busy_add(struct busy *busy, int64_t start_ns, int64_t end_ns)
{
    if (end_ns <= start_ns)
        return 0;
    int64_t fresh_ns = end_ns - start_ns;
    int first = 0, after;
    while (first < busy->count && busy->span[first].end_ns < start_ns)
        first++;
    /* Spans first to after - 1 touch the interval: they and it become one. */
    for (after = first; after < busy->count && busy->span[after].start_ns <= end_ns; after++) {
        int64_t from = busy->span[after].start_ns > start_ns ? busy->span[after].start_ns : start_ns;
        int64_t to = busy->span[after].end_ns < end_ns ? busy->span[after].end_ns : end_ns;
        fresh_ns -= to - from;
    }
    if (after > first) {
        if (busy->span[first].start_ns < start_ns)
            start_ns = busy->span[first].start_ns;
        if (busy->span[after - 1].end_ns > end_ns)
            end_ns = busy->span[after - 1].end_ns;
    } else if (busy->count == BUSY_SPANS) {
        if (first == 0)
            return fresh_ns; /* older than all that is remembered */
        memmove(&busy->span[0], &busy->span[1], sizeof busy->span[0] * (BUSY_SPANS - 1));
        busy->count--;
        after = --first;
    }
    memmove(&busy->span[first + 1], &busy->span[after], sizeof busy->span[0] * (size_t)(busy->count - after));
    busy->count += 1 - (after - first);
    busy->span[first].start_ns = start_ns;
    busy->span[first].end_ns = end_ns;
    return fresh_ns;
}
