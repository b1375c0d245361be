/* A stand-in for libnvidia-ml.so.1: the functions that llmctl and its tests call, answering from a script.
 *
 * The file named by NVML_STANDIN is read again at every call, so a test can change the machine while a program runs.
 * One setting per line, "key value"; lines after "gpu" belong to that GPU:
 *
 *     driver 570.86.10            error nvmlInitWithFlags DRIVER_NOT_LOADED
 *     cuda 12080                  process PID NAME
 *     gpu
 *     name NVIDIA GeForce RTX 3090
 *     uuid GPU-...                memory TOTAL USED FREE
 *     compute PID BYTES           graphics PID BYTES          (BYTES "-": not available, as under WSL2)
 *     temperature 45              limits SHUTDOWN SLOWDOWN MAX        (degrees)
 *     throttle 4                  power NOW LIMIT DEFAULT             (milliwatts)
 *     clock NOW MAX MEM MEM_MAX   utilization GPU MEMORY              (MHz of SMs and memory; percent)
 *     busy PID PERCENT            (what nvmlDeviceGetProcessUtilization tells; "busy 0 0" is that nobody worked)
 *     persistence 1               display 0
 *     mig CURRENT PENDING         ecc CORRECTED UNCORRECTED           (since the driver was loaded)
 *     capability 8 6              pcie GEN WIDTH MAX_GEN MAX_WIDTH
 *     error nvmlDeviceGetMemoryInfo GPU_IS_LOST
 *
 * A value that the script does not give is NVML_ERROR_NOT_SUPPORTED, as on a card that lacks it. Return codes and
 * structures are those of NVIDIA's public nvml.h, as nvidia-ml-py declares them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GPUS 16
#define MAX_PROCESSES 64
#define MAX_ERRORS 32

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };

typedef int status;
typedef unsigned long long u64;
typedef struct { u64 total, free, used; } memory_t;
typedef struct { unsigned version; u64 total, reserved, free, used; } memory_v2_t;
typedef struct { unsigned pid; u64 used; unsigned gpu_instance, compute_instance; } process_t;
typedef struct { unsigned pid; u64 time; unsigned sm, memory, encoder, decoder; } sample_t;
typedef struct { unsigned version; int sensor; int temperature; } temperature_v1_t;
typedef struct { int count; process_t list[MAX_PROCESSES]; } processes_t;
typedef struct { int given, count; sample_t list[MAX_PROCESSES]; } samples_t;
typedef struct { int count; unsigned pid[MAX_PROCESSES]; char name[MAX_PROCESSES][96]; } names_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { int count; char call[MAX_ERRORS][64]; status code[MAX_ERRORS]; } errors_t;

typedef struct {
    char name[96], uuid[96];
    memory_t memory;
    processes_t compute, graphics;
    samples_t samples;
    int temperature, pcie[4];
    /* -1 is what the script does not give. */
    int limits[3], power[3], clock[4], utilization[2], persistence, display, mig[2], ecc[2], capability[2];
    long throttle;
    errors_t errors;
} gpu_t;

typedef struct {
    char driver[80];
    int cuda, count;
    gpu_t gpus[MAX_GPUS];
    names_t names;
    errors_t errors;
} machine_t;

static machine_t machine;
static int initialized;

static const struct { const char *name; status code; const char *text; } CODES[] = {
    {"SUCCESS", 0, "Success"},
    {"UNINITIALIZED", 1, "Uninitialized"},
    {"INVALID_ARGUMENT", 2, "Invalid Argument"},
    {"NOT_SUPPORTED", 3, "Not Supported"},
    {"NO_PERMISSION", 4, "Insufficient Permissions"},
    {"NOT_FOUND", 6, "Not Found"},
    {"INSUFFICIENT_SIZE", 7, "Insufficient Size"},
    {"INSUFFICIENT_POWER", 8, "Insufficient External Power"},
    {"DRIVER_NOT_LOADED", 9, "Driver Not Loaded"},
    {"TIMEOUT", 10, "Timeout"},
    {"LIBRARY_NOT_FOUND", 12, "NVML Shared Library Not Found"},
    {"FUNCTION_NOT_FOUND", 13, "Function Not Found"},
    {"GPU_IS_LOST", 15, "GPU is lost"},
    {"RESET_REQUIRED", 16, "GPU requires reset"},
    {"OPERATING_SYSTEM", 17, "The operating system has blocked the request."},
    {"LIB_RM_VERSION_MISMATCH", 18, "RM has detected an NVML/RM version mismatch."},
    {"IN_USE", 19, "In use by another client"},
    {"MEMORY", 20, "Insufficient memory"},
    {"NO_DATA", 21, "No data"},
    {"UNKNOWN", 999, "Unknown Error"},
};
#define CODE_COUNT (sizeof CODES / sizeof *CODES)

static void broken_script(const char *line)
{
    fprintf(stderr, "nvml_standin: cannot read: %s\n", line);
    abort();
}

static status code_named(const char *name)
{
    for (size_t i = 0; i < CODE_COUNT; i++)
        if (strcmp(CODES[i].name, name) == 0)
            return CODES[i].code;
    broken_script(name);
    return 999;
}

static void read_error(errors_t *errors, const char *value)
{
    char name[64];
    if (errors->count == MAX_ERRORS || sscanf(value, "%63s %63s", errors->call[errors->count], name) != 2)
        broken_script(value);
    errors->code[errors->count++] = code_named(name);
}

static void read_process(processes_t *processes, const char *value)
{
    process_t *process = &processes->list[processes->count];
    char bytes[32];
    if (processes->count++ == MAX_PROCESSES || sscanf(value, "%u %31s", &process->pid, bytes) != 2)
        broken_script(value);
    process->used = strcmp(bytes, "-") == 0 ? ~0ULL : strtoull(bytes, NULL, 10);
    process->gpu_instance = process->compute_instance = 0xFFFFFFFFu;
}

static int read_sample(samples_t *samples, const char *value)
{
    sample_t *sample = &samples->list[samples->count];
    samples->given = 1;
    if (samples->count == MAX_PROCESSES || sscanf(value, "%u %u", &sample->pid, &sample->sm) != 2)
        return 0;
    samples->count += sample->pid != 0;
    return 1;
}

static void read_name(names_t *names, const char *value)
{
    int number = names->count;
    if (number == MAX_PROCESSES || sscanf(value, "%u %95[^\n]", &names->pid[number], names->name[number]) != 2)
        broken_script(value);
    names->count++;
}

/* The numbers of one line; -1 for those that are not given. */
static int read_numbers(const char *value, int *numbers, int most)
{
    int count = 0, length = 0;
    while (count < most && sscanf(value, "%d%n", &numbers[count], &length) == 1) {
        value += length;
        count++;
    }
    return count > 0 && value[strspn(value, " ")] == 0;
}

static gpu_t *new_gpu(void)
{
    if (machine.count == MAX_GPUS)
        broken_script("gpu");
    gpu_t *gpu = &machine.gpus[machine.count++];
    gpu->temperature = gpu->persistence = gpu->display = -1;
    gpu->throttle = -1;
    memset(gpu->limits, -1, sizeof gpu->limits);
    memset(gpu->power, -1, sizeof gpu->power);
    memset(gpu->clock, -1, sizeof gpu->clock);
    memset(gpu->utilization, -1, sizeof gpu->utilization);
    memset(gpu->mig, -1, sizeof gpu->mig);
    memset(gpu->ecc, -1, sizeof gpu->ecc);
    memset(gpu->capability, -1, sizeof gpu->capability);
    return gpu;
}

static int read_gpu_value(gpu_t *gpu, const char *key, const char *value)
{
    if (strcmp(key, "name") == 0) snprintf(gpu->name, sizeof gpu->name, "%s", value);
    else if (strcmp(key, "uuid") == 0) snprintf(gpu->uuid, sizeof gpu->uuid, "%s", value);
    else if (strcmp(key, "memory") == 0)
        return sscanf(value, "%llu %llu %llu", &gpu->memory.total, &gpu->memory.used, &gpu->memory.free) == 3;
    else if (strcmp(key, "compute") == 0) read_process(&gpu->compute, value);
    else if (strcmp(key, "graphics") == 0) read_process(&gpu->graphics, value);
    else if (strcmp(key, "temperature") == 0) gpu->temperature = atoi(value);
    else if (strcmp(key, "throttle") == 0) gpu->throttle = strtol(value, NULL, 0);
    else if (strcmp(key, "pcie") == 0)
        return sscanf(value, "%d %d %d %d", &gpu->pcie[0], &gpu->pcie[1], &gpu->pcie[2], &gpu->pcie[3]) == 4;
    else if (strcmp(key, "limits") == 0) return read_numbers(value, gpu->limits, 3);
    else if (strcmp(key, "power") == 0) return read_numbers(value, gpu->power, 3);
    else if (strcmp(key, "clock") == 0) return read_numbers(value, gpu->clock, 4);
    else if (strcmp(key, "busy") == 0) return read_sample(&gpu->samples, value);
    else if (strcmp(key, "utilization") == 0) return read_numbers(value, gpu->utilization, 2);
    else if (strcmp(key, "persistence") == 0) return read_numbers(value, &gpu->persistence, 1);
    else if (strcmp(key, "display") == 0) return read_numbers(value, &gpu->display, 1);
    else if (strcmp(key, "mig") == 0) return read_numbers(value, gpu->mig, 2);
    else if (strcmp(key, "ecc") == 0) return read_numbers(value, gpu->ecc, 2);
    else if (strcmp(key, "capability") == 0) return read_numbers(value, gpu->capability, 2);
    else if (strcmp(key, "error") == 0) read_error(&gpu->errors, value);
    else return 0;
    return 1;
}

static int read_machine_value(const char *key, const char *value)
{
    if (strcmp(key, "driver") == 0) snprintf(machine.driver, sizeof machine.driver, "%s", value);
    else if (strcmp(key, "cuda") == 0) machine.cuda = atoi(value);
    else if (strcmp(key, "process") == 0) read_name(&machine.names, value);
    else if (strcmp(key, "error") == 0) read_error(&machine.errors, value);
    else return 0;
    return 1;
}

static void read_script(void)
{
    memset(&machine, 0, sizeof machine);
    const char *path = getenv("NVML_STANDIN");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file)
        broken_script("the file named by NVML_STANDIN");
    char line[512];
    gpu_t *gpu = NULL;
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *value = line + strcspn(line, " ");
        if (*value) *value++ = 0;
        if (!*line) continue;
        if (strcmp(line, "gpu") == 0) gpu = new_gpu();
        else if (!(gpu ? read_gpu_value(gpu, line, value) : read_machine_value(line, value))) broken_script(line);
    }
    fclose(file);
}

static status scripted(const errors_t *errors, const char *call)
{
    for (int i = 0; i < errors->count; i++)
        if (strcmp(errors->call[i], call) == 0)
            return errors->code[i];
    return SUCCESS;
}

/* What every call but nvmlInit begins with: the script as it is now, and the failure that it asks for. */
static status begin(const char *call)
{
    read_script();
    if (!initialized)
        return UNINITIALIZED;
    return scripted(&machine.errors, call);
}

static status begin_gpu(const char *call, void *handle, gpu_t **gpu)
{
    status failed = begin(call);
    size_t number = (size_t)handle; /* a handle is the index plus one */
    if (failed) return failed;
    if (number == 0 || number > (size_t)machine.count) return INVALID_ARGUMENT;
    *gpu = &machine.gpus[number - 1];
    return scripted(&(*gpu)->errors, call);
}

static status put_text(char *target, unsigned length, const char *text)
{
    if (!*text) return NOT_SUPPORTED;
    if (strlen(text) >= length) return INSUFFICIENT_SIZE;
    strcpy(target, text);
    return SUCCESS;
}

static status put_processes(const processes_t *from, unsigned *count, process_t *list)
{
    unsigned room = *count;
    *count = (unsigned)from->count;
    if (from->count == 0) return SUCCESS;
    if (!list || room < *count) return INSUFFICIENT_SIZE;
    memcpy(list, from->list, (size_t)from->count * sizeof *list);
    return SUCCESS;
}

#define BEGIN() do { status failed = begin(__func__); if (failed) return failed; } while (0)
#define BEGIN_GPU() gpu_t *gpu = NULL; do { status failed = begin_gpu(__func__, handle, &gpu); if (failed) return failed; } while (0)

status nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    read_script();
    status failed = scripted(&machine.errors, __func__);
    if (!failed) initialized++;
    return failed;
}

status nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

status nvmlShutdown(void)
{
    if (!initialized) return UNINITIALIZED;
    initialized--;
    return SUCCESS;
}

const char *nvmlErrorString(status code)
{
    for (size_t i = 0; i < CODE_COUNT; i++)
        if (CODES[i].code == code)
            return CODES[i].text;
    return "Unknown Error";
}

status nvmlSystemGetDriverVersion(char *text, unsigned length) { BEGIN(); return put_text(text, length, machine.driver); }

status nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    BEGIN();
    *version = machine.cuda;
    return machine.cuda ? SUCCESS : NOT_SUPPORTED;
}

status nvmlDeviceGetCount_v2(unsigned *count)
{
    BEGIN();
    *count = (unsigned)machine.count;
    return SUCCESS;
}

status nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle)
{
    BEGIN();
    if (index >= (unsigned)machine.count) return INVALID_ARGUMENT;
    *handle = (void *)(size_t)(index + 1);
    return scripted(&machine.gpus[index].errors, __func__);
}

status nvmlDeviceGetName(void *handle, char *text, unsigned length) { BEGIN_GPU(); return put_text(text, length, gpu->name); }

status nvmlDeviceGetUUID(void *handle, char *text, unsigned length) { BEGIN_GPU(); return put_text(text, length, gpu->uuid); }

status nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory)
{
    BEGIN_GPU();
    *memory = gpu->memory;
    return memory->total ? SUCCESS : NOT_SUPPORTED;
}

status nvmlDeviceGetMemoryInfo_v2(void *handle, memory_v2_t *memory)
{
    BEGIN_GPU();
    memory->total = gpu->memory.total;
    memory->free = gpu->memory.free;
    memory->used = gpu->memory.used;
    memory->reserved = memory->total - memory->free - memory->used;
    return memory->total ? SUCCESS : NOT_SUPPORTED;
}

status nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_t *list)
{
    BEGIN_GPU();
    return put_processes(&gpu->compute, count, list);
}

status nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, process_t *list)
{
    BEGIN_GPU();
    return put_processes(&gpu->graphics, count, list);
}

status nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius)
{
    BEGIN_GPU();
    (void)sensor;
    *celsius = (unsigned)gpu->temperature;
    return gpu->temperature < 0 ? NOT_SUPPORTED : SUCCESS;
}

status nvmlDeviceGetTemperatureV(void *handle, temperature_v1_t *temperature)
{
    BEGIN_GPU();
    temperature->temperature = gpu->temperature;
    return gpu->temperature < 0 ? NOT_SUPPORTED : SUCCESS;
}

static status put_throttle(const gpu_t *gpu, u64 *reasons)
{
    *reasons = (u64)gpu->throttle;
    return gpu->throttle < 0 ? NOT_SUPPORTED : SUCCESS;
}

status nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, u64 *reasons) { BEGIN_GPU(); return put_throttle(gpu, reasons); }

status nvmlDeviceGetCurrentClocksEventReasons(void *handle, u64 *reasons) { BEGIN_GPU(); return put_throttle(gpu, reasons); }

static status put_link(const gpu_t *gpu, int which, unsigned *value)
{
    *value = (unsigned)gpu->pcie[which];
    return gpu->pcie[which] ? SUCCESS : NOT_SUPPORTED;
}

status nvmlDeviceGetCurrPcieLinkGeneration(void *handle, unsigned *value) { BEGIN_GPU(); return put_link(gpu, 0, value); }
status nvmlDeviceGetCurrPcieLinkWidth(void *handle, unsigned *value) { BEGIN_GPU(); return put_link(gpu, 1, value); }
status nvmlDeviceGetMaxPcieLinkGeneration(void *handle, unsigned *value) { BEGIN_GPU(); return put_link(gpu, 2, value); }
status nvmlDeviceGetMaxPcieLinkWidth(void *handle, unsigned *value) { BEGIN_GPU(); return put_link(gpu, 3, value); }

static status put_number(int number, unsigned *value)
{
    *value = (unsigned)number;
    return number < 0 ? NOT_SUPPORTED : SUCCESS;
}

status nvmlDeviceGetTemperatureThreshold(void *handle, int kind, unsigned *celsius)
{
    BEGIN_GPU();
    /* NVML_TEMPERATURE_THRESHOLD_SHUTDOWN 0, SLOWDOWN 1, MEM_MAX 2, GPU_MAX 3 */
    if (kind != 0 && kind != 1 && kind != 3) return NOT_SUPPORTED;
    return put_number(gpu->limits[kind == 3 ? 2 : kind], celsius);
}

status nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) { BEGIN_GPU(); return put_number(gpu->power[0], milliwatts); }
status nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *milliwatts) { BEGIN_GPU(); return put_number(gpu->power[1], milliwatts); }
status nvmlDeviceGetPowerManagementDefaultLimit(void *handle, unsigned *milliwatts) { BEGIN_GPU(); return put_number(gpu->power[2], milliwatts); }

/* Of the streaming multiprocessors, NVML_CLOCK_SM 1, and of the memory, NVML_CLOCK_MEM 2. */
static status put_clock(const gpu_t *gpu, int kind, int which, unsigned *mhz)
{
    return kind == 1 || kind == 2 ? put_number(gpu->clock[(kind - 1) * 2 + which], mhz) : NOT_SUPPORTED;
}

status nvmlDeviceGetClockInfo(void *handle, int kind, unsigned *mhz) { BEGIN_GPU(); return put_clock(gpu, kind, 0, mhz); }
status nvmlDeviceGetMaxClockInfo(void *handle, int kind, unsigned *mhz) { BEGIN_GPU(); return put_clock(gpu, kind, 1, mhz); }

/* As nvml.h says: the first call, without a list, tells how long it must be. */
status nvmlDeviceGetProcessUtilization(void *handle, sample_t *list, unsigned *count, u64 since)
{
    BEGIN_GPU();
    (void)since;
    unsigned room = *count;
    if (!gpu->samples.given) return NOT_SUPPORTED;
    *count = (unsigned)gpu->samples.count;
    if (gpu->samples.count == 0) return 6; /* NOT_FOUND */
    if (!list || room < *count) return INSUFFICIENT_SIZE;
    memcpy(list, gpu->samples.list, (size_t)*count * sizeof *list);
    return SUCCESS;
}

status nvmlDeviceGetUtilizationRates(void *handle, utilization_t *rates)
{
    BEGIN_GPU();
    status failed = put_number(gpu->utilization[1], &rates->memory);
    return failed ? failed : put_number(gpu->utilization[0], &rates->gpu);
}

status nvmlDeviceGetPersistenceMode(void *handle, unsigned *mode) { BEGIN_GPU(); return put_number(gpu->persistence, mode); }
status nvmlDeviceGetDisplayActive(void *handle, unsigned *active) { BEGIN_GPU(); return put_number(gpu->display, active); }

status nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending)
{
    BEGIN_GPU();
    status failed = put_number(gpu->mig[1], pending);
    return failed ? failed : put_number(gpu->mig[0], current);
}

/* NVML_MEMORY_ERROR_TYPE_CORRECTED 0 and UNCORRECTED 1; both counters are the same here. */
status nvmlDeviceGetTotalEccErrors(void *handle, int kind, int counter, u64 *count)
{
    unsigned number = 0;
    BEGIN_GPU();
    (void)counter;
    if (kind != 0 && kind != 1) return INVALID_ARGUMENT;
    status failed = put_number(gpu->ecc[kind], &number);
    *count = number;
    return failed;
}

status nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor)
{
    BEGIN_GPU();
    *major = gpu->capability[0];
    *minor = gpu->capability[1];
    return *major < 0 || *minor < 0 ? NOT_SUPPORTED : SUCCESS;
}

status nvmlSystemGetProcessName(unsigned pid, char *text, unsigned length)
{
    BEGIN();
    for (int i = 0; i < machine.names.count; i++)
        if (machine.names.pid[i] == pid)
            return put_text(text, length, machine.names.name[i]);
    return 6; /* NOT_FOUND */
}
