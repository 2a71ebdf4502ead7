/* The driver's start, its settings from the environment, and its devices. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stub.h"

struct stub_state stub = {.lock = PTHREAD_MUTEX_INITIALIZER, .next_id = 1};

static const char UUID[] = "RaPP stub GPU 00"; /* 16 bytes, and the end of the string */

static long setting(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 10) : otherwise;
}

/* UUID of the device that is the `index`-th of all: the constant, with the index as its last digit. */
static void device_uuid(int index, char uuid[16])
{
    memcpy(uuid, UUID, 16);
    uuid[15] = (char)('0' + index);
}

/* Which of `count` devices an entry of CUDA_VISIBLE_DEVICES names: an index, or GPU-<uuid>; -1: none. */
static int device_named(const char *entry, int count)
{
    char *end;
    long index = strtol(entry, &end, 10);
    if (end != entry && *end == '\0')
        return index >= 0 && index < count ? (int)index : -1;
    for (int i = 0; i < count; i++) {
        char uuid[16], text[64];
        device_uuid(i, uuid);
        int length = snprintf(text, sizeof text, "GPU-");
        for (int k = 0; k < 16; k++)
            length += snprintf(text + length, sizeof text - (size_t)length, "%s%02x",
                               k == 4 || k == 6 || k == 8 || k == 10 ? "-" : "", (unsigned char)uuid[k]);
        if (strcmp(entry, text) == 0)
            return i;
    }
    return -1;
}

/* As the driver does: devices in the order named, up to the first name that is none. */
static void choose_devices(int count)
{
    const char *wanted = getenv("CUDA_VISIBLE_DEVICES");
    stub.devices = 0;
    if (!wanted) {
        for (; stub.devices < count; stub.devices++)
            stub.visible[stub.devices] = stub.devices;
        return;
    }
    char list[512], *rest = NULL;
    snprintf(list, sizeof list, "%s", wanted);
    for (char *entry = strtok_r(list, ",", &rest); entry && stub.devices < count;
         entry = strtok_r(NULL, ",", &rest)) {
        int index = device_named(entry, count);
        if (index < 0)
            return;
        stub.visible[stub.devices++] = index;
    }
}

static void read_settings(void)
{
    long count = setting("RAPP_STUB_DEVICES", 1),
         percentage = setting("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", 100);
    choose_devices((int)(count < 0 ? 0 : count > STUB_MAX_DEVICES ? STUB_MAX_DEVICES : count));
    stub.sm_count = (int)setting("RAPP_STUB_SM_COUNT", 80);
    if (setting("RAPP_STUB_MPS", 1) && percentage > 0 && percentage < 100) {
        /* MPS rounds down to a step of the hardware; 2 multiprocessors, as on Volta. */
        int part = (int)(stub.sm_count * percentage / 100) & ~1;
        stub.sm_count = part > 2 ? part : 2;
    }
    stub.memory_bytes = (uint64_t)setting("RAPP_STUB_MEMORY_MIB", 16384) << 20;
    stub.serial = setting("RAPP_STUB_SERIAL", 0) != 0;
    const char *fail = getenv("RAPP_STUB_FAIL"), *log = getenv("RAPP_STUB_LOG");
    int code = 0;
    if (fail && sscanf(fail, "%63[^=]=%d", stub.fail_name, &code) == 2)
        stub.fail_code = (CUresult)code;
    if (log && *log)
        stub_log_open(log);
}

/* Whether `function` may begin: CUDA_SUCCESS, the error wished for it, or CUDA_ERROR_NOT_INITIALIZED. */
CUresult stub_enter(const char *function)
{
    if (!stub.ready)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (stub.fail_code != CUDA_SUCCESS && strcmp(function, stub.fail_name) == 0)
        return stub.fail_code;
    return CUDA_SUCCESS;
}

static void lock(void)
{
    pthread_mutex_lock(&stub.lock);
}

static void unlock(void)
{
    pthread_mutex_unlock(&stub.lock);
}

/* A child has the memory and not the device: what was made before the fork is dead there. A real driver
 * refuses even a new cuInit; here the child may begin again. */
static void begin_again(void)
{
    for (CUcontext context = stub.contexts; context; context = context->next)
        stub_end_context(context);
    for (int i = 0; i < STUB_MAX_DEVICES; i++) {
        stub.primary[i] = NULL;
        stub.primary_count[i] = 0;
    }
    stub.captures = NULL;
    stub.ready = false;
    unlock();
}

STUB_API CUresult cuInit(unsigned int flags)
{
    if (flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&stub.lock);
    if (!stub.configured) {
        read_settings();
        pthread_atfork(lock, unlock, begin_again);
        stub.configured = true;
    }
    stub.ready = true;
    pthread_mutex_unlock(&stub.lock);
    STUB_ENTER();
    return stub.devices ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

STUB_API CUresult cuDriverGetVersion(int *version)
{
    *version = 13000;
    return CUDA_SUCCESS;
}

STUB_API CUresult cuDeviceGetCount(int *count)
{
    STUB_ENTER();
    *count = stub.devices;
    return CUDA_SUCCESS;
}

STUB_API CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    STUB_ENTER();
    if (ordinal < 0 || ordinal >= stub.devices)
        return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

STUB_API CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    STUB_ENTER();
    if (device < 0 || device >= stub.devices)
        return CUDA_ERROR_INVALID_DEVICE;
    const char *wanted = getenv("RAPP_STUB_NAME");
    snprintf(name, (size_t)length, "%s", wanted ? wanted : "RaPP stub GPU");
    return CUDA_SUCCESS;
}

STUB_API CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
    STUB_ENTER();
    if (device < 0 || device >= stub.devices)
        return CUDA_ERROR_INVALID_DEVICE;
    device_uuid(stub.visible[device], uuid->bytes);
    return CUDA_SUCCESS;
}

STUB_API CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
    STUB_ENTER();
    return cuDeviceGetUuid(uuid, device);
}

STUB_API CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    STUB_ENTER();
    if (device < 0 || device >= stub.devices)
        return CUDA_ERROR_INVALID_DEVICE;
    *bytes = stub.memory_bytes;
    return CUDA_SUCCESS;
}

STUB_API CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    STUB_ENTER();
    if (device < 0 || device >= stub.devices)
        return CUDA_ERROR_INVALID_DEVICE;
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = stub.sm_count; return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
        *value = 1380000; /* kHz; a V100's, as is the default number of multiprocessors */
        return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 7; return CUDA_SUCCESS;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; return CUDA_SUCCESS;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
}
