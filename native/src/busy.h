/* When a device was busy: the union of intervals, so that work side by side on two streams is charged once.
 */
#ifndef RAPP_BUSY_H
#define RAPP_BUSY_H

#include <stdint.h>

/* Spans remembered. Older ones are forgotten: an interval that reaches back before them is charged in full.
 */
enum { BUSY_SPANS = 32 };

struct busy {
    int count;
    struct {
        int64_t start_ns, end_ns;
    } span[BUSY_SPANS]; /* disjoint, in order */
};

/* Add an interval; returns how much of it no earlier one covered, ns. */
int64_t busy_add(struct busy *busy, int64_t start_ns, int64_t end_ns);

#endif
