/* A program gets at the driver in three ways, and in each it gets the hooks: linked symbols, because this
 * library is searched first; dlsym; and cuGetProcAddress, which hands out pointers past both. */
#define _GNU_SOURCE
#include "resolve.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "block.h"
#include "cuda_abi.h"
#include "driver.h"
#include "hooks.h"

#define EXPORT __attribute__((visibility("default")))

typedef void *(*dlsym_function)(void *, const char *);

/* dlsym itself can only be found by its version. */
static dlsym_function find_dlsym(void)
{
    static _Atomic(dlsym_function) known;
    dlsym_function found = atomic_load_explicit(&known, memory_order_relaxed);
    const char *versions[] = {"GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_2.17"}; /* current; x86-64; aarch64 */
    for (unsigned int i = 0; !found && i < sizeof versions / sizeof *versions; i++)
        found = (dlsym_function)dlvsym(RTLD_NEXT, "dlsym", versions[i]);
    if (!found) {
        static const char text[] = "rapp-quota: this C library has no dlsym that can be found\n";
        ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
        (void)ignored;
        _exit(2);
    }
    atomic_store_explicit(&known, found, memory_order_relaxed);
    return found;
}

void *real_dlsym(void *handle, const char *name)
{
    return find_dlsym()(handle, name);
}

static const struct hook *hook_of_symbol(const char *symbol)
{
    for (int i = 0; i < HOOKS; i++)
        if (strcmp(hooks[i].symbol, symbol) == 0)
            return &hooks[i];
    return NULL;
}

EXPORT void *dlsym(void *handle, const char *name)
{
    const struct hook *hook = NULL;
    if (name[0] == 'c' && name[1] == 'u' && name[2] >= 'A' && name[2] <= 'Z')
        hook = hook_of_symbol(name);
    if (!hook)
        /* The last call and not one in the middle: with it in place of this one, RTLD_NEXT still means
         * "after the caller" (see the Makefile: -foptimize-sibling-calls). */
        return find_dlsym()(handle, name);
    /* Where everything is searched, this library would be found first: whether there is a driver is known
     * only from what comes after. */
    void *real = real_dlsym(handle == RTLD_DEFAULT ? RTLD_NEXT : handle, name);
    return real ? hook->function : NULL;
}

/* A symbol of the same name in a version that this library does not know. */
static bool is_unknown_version(const struct hook *hook, const void *function)
{
    static const char *const suffixes[] = {"", "_ptsz", "_ptds"};
    for (int version = 2; version < 10; version++)
        for (int i = 0; i < 3; i++) {
            char symbol[96];
            snprintf(symbol, sizeof symbol, "%s_v%d%s", hook->name, version, suffixes[i]);
            if (!hook_of_symbol(symbol) && driver_symbol(symbol) == function)
                return true;
        }
    return false;
}

/* What to hand out for `function`, which the driver gave for a name, a CUDA version and flags. */
static void *hooked(const char *name, int version, cuuint64_t flags, void *function)
{
    const bool per_thread = flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
    const struct hook *best = NULL;
    for (const struct hook *hook = hooks; hook < hooks + HOOKS; hook++) {
        if (strcmp(hook->name, name) != 0)
            continue;
        /* The surest sign is that the driver exports the same function. */
        if (driver_symbol(hook->symbol) == function)
            return hook->function;
        if (hook->since > version || (hook->per_thread && !per_thread))
            continue;
        /* The variant for the kind of default stream first, then the newest version. */
        if (!best || hook->per_thread > best->per_thread ||
            (hook->per_thread == best->per_thread && hook->since > best->since))
            best = hook;
    }
    if (!best)
        return function;
    if (is_unknown_version(best, function)) {
        if (best->is_launch)
            quota_unusable("the CUDA driver has a newer version of %s than this library knows", name);
        return function;
    }
    hook_set_real((enum hook_id)(best - hooks), function);
    return best->function;
}

EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, cuuint64_t flags,
                                    CUdriverProcAddressQueryResult *status)
{
    CUresult (*real)(const char *, void **, int, cuuint64_t, CUdriverProcAddressQueryResult *) =
        hook_real(HOOK_cuGetProcAddress_v2);
    if (!real)
        return CUDA_ERROR_NOT_FOUND;
    quota_block(); /* a missing control block shows when the program finds the driver, not in its midst */
    CUresult result = real(symbol, function, version, flags, status);
    if (result == CUDA_SUCCESS && symbol && function && *function)
        *function = hooked(symbol, version, flags, *function);
    return result;
}

EXPORT CUresult cuGetProcAddress(const char *symbol, void **function, int version, cuuint64_t flags)
{
    CUresult (*real)(const char *, void **, int, cuuint64_t) = hook_real(HOOK_cuGetProcAddress);
    if (!real)
        return CUDA_ERROR_NOT_FOUND;
    quota_block();
    CUresult result = real(symbol, function, version, flags);
    if (result == CUDA_SUCCESS && symbol && function && *function)
        *function = hooked(symbol, version, flags, *function);
    return result;
}
