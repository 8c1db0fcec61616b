/* A fake libnvidia-ml.so.1 under the real pynvml: what the harness asks, answered as the environment says.
 *
 * FAKE_GPUS      how many there are
 * FAKE_NAMES     their models, separated by semicolons
 * FAKE_SM        their compute capabilities, as 90;70
 * FAKE_DENY, FAKE_LOST, FAKE_NO_MEMORY, FAKE_MIG   numbers of those that are not permitted, lost, say no memory, are
 *                split into two MIG instances, as ,0,2,
 * FAKE_INIT      what initialisation answers
 * FAKE_OTHERS    bytes that other processes hold
 * FAKE_CONTEXTS  a file with a line for each context that the fake torch made, of 520 MiB
 * FAKE_REASONS   bits of throttling
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

typedef unsigned long long Bytes;
typedef long Device; /* 1 + number, and 100 for each MIG instance */

static long number_of(const char *name, long usual) {
    const char *value = getenv(name);
    return value ? atol(value) : usual;
}

static int is_listed(const char *name, long number) {
    char word[32];
    const char *value = getenv(name);
    snprintf(word, sizeof word, ",%ld,", number);
    return value && strstr(value, word) != NULL;
}

static void part_of(const char *name, long number, const char *usual, char *part, unsigned size) {
    const char *value = getenv(name);
    for (; value && number > 0; number--) {
        value = strchr(value, ';');
        if (value) value++;
    }
    snprintf(part, size, "%s", value ? value : usual);
    part[strcspn(part, ";")] = 0;
}

int nvmlInitWithFlags(unsigned flags) { return (int)number_of("FAKE_INIT", 0); }
int nvmlInit_v2(void) { return (int)number_of("FAKE_INIT", 0); }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) {
    return code == 4 ? "Insufficient Permissions" : code == 15 ? "GPU is lost" : code == 18
        ? "Driver/library version mismatch" : "Not Supported";
}
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "580.159.04"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)number_of("FAKE_GPUS", 1); return 0; }

int nvmlDeviceGetHandleByIndex_v2(unsigned number, Device *device) {
    if (is_listed("FAKE_DENY", number)) return 4;
    if (is_listed("FAKE_LOST", number)) return 15;
    *device = number + 1;
    return 0;
}
int nvmlDeviceGetUUID(Device device, char *text, unsigned size) {
    char letter = (char)('a' + device % 100 - 1);
    if (device < 100) snprintf(text, size, "GPU-%c0000000-0000-0000-0000-000000000000", letter);
    else snprintf(text, size, "MIG-%c%ld000000-0000-0000-0000-000000000000", letter, device / 100 - 1);
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, Device *device) {
    long number = uuid[4] - 'a';
    if (number < 0 || number >= number_of("FAKE_GPUS", 1)) return 6;
    *device = number + 1 + (strncmp(uuid, "MIG-", 4) ? 0 : 100 * (uuid[5] - '0' + 1));
    return 0;
}
int nvmlDeviceGetName(Device device, char *text, unsigned size) {
    part_of("FAKE_NAMES", device % 100 - 1, "NVIDIA H100 80GB HBM3", text, size);
    if (device >= 100) strncat(text, " MIG 1g.10gb", size - strlen(text) - 1);
    return 0;
}
int nvmlDeviceGetCudaComputeCapability(Device device, int *major, int *minor) {
    char text[16];
    part_of("FAKE_SM", device - 1, "90", text, sizeof text);
    *major = atoi(text) / 10;
    *minor = atoi(text) % 10;
    return 0;
}
int nvmlDeviceGetMigMode(Device device, unsigned *now, unsigned *later) {
    *now = *later = is_listed("FAKE_MIG", device - 1);
    return 0;
}
int nvmlDeviceGetMaxMigDeviceCount(Device device, unsigned *count) { *count = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(Device device, unsigned number, Device *instance) {
    if (number > 1) return 6;
    *instance = device + 100 * (number + 1);
    return 0;
}

typedef struct { Bytes total, free, used; } Memory;
int nvmlDeviceGetMemoryInfo(Device device, Memory *memory) {
    char line[64];
    Bytes contexts = 0;
    FILE *file = getenv("FAKE_CONTEXTS") ? fopen(getenv("FAKE_CONTEXTS"), "r") : NULL;
    if (is_listed("FAKE_NO_MEMORY", device - 1)) return 3;
    while (file && fgets(line, sizeof line, file)) contexts += line[4] == 'a' + device % 100 - 1;
    if (file) fclose(file);
    memory->total = device < 100 ? 85520809984ULL : 10200547328ULL;
    memory->used = (600ULL << 20) + (Bytes)number_of("FAKE_OTHERS", 0) + contexts * (520ULL << 20);
    memory->free = memory->total - memory->used;
    return 0;
}
int nvmlDeviceGetPowerUsage(Device device, unsigned *milliwatts) { *milliwatts = 650000; return 0; }
int nvmlDeviceGetClockInfo(Device device, unsigned which, unsigned *clock) { *clock = which == 2 ? 2619 : 1755; return 0; }
int nvmlDeviceGetTemperature(Device device, unsigned sensor, unsigned *degrees) { *degrees = 55; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(Device device, Bytes *reasons) {
    *reasons = (Bytes)number_of("FAKE_REASONS", 0);
    return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(Device device, Bytes *millijoules) {
    struct timeval now;
    gettimeofday(&now, NULL);
    *millijoules = (Bytes)(now.tv_sec % 1000000 * 10 + now.tv_usec / 100000) * 65000; /* ten steps a second */
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(Device device, unsigned *count, void *processes) { *count = 0; return 0; }
