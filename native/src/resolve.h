/* How programs find the driver's entry points, and how they get the hooks instead. */
#ifndef RAPP_RESOLVE_H
#define RAPP_RESOLVE_H

/* glibc's dlsym, past the one of this library. */
void *real_dlsym(void *handle, const char *name);

#endif
