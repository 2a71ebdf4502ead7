/* Finding the control block, and what happens when the gate cannot work. */
#ifndef RAPP_BLOCK_H
#define RAPP_BLOCK_H

#include "quota_block.h"

/* The block that RAPP_QUOTA_BLOCK names, opened on first use; NULL: the program runs without a quota. */
struct quota_block *quota_block(void);

/* Say why the gate cannot work, on one line and once, and go on without it: `quota_block` is NULL from now
 * on. With RAPP_QUOTA_REQUIRED=1 the process ends instead, with status 2. */
void quota_unusable(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Say something on stderr, once in the life of the process; the gate stays. */
void quota_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
