/* The functions of tdcompress.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plan.h"

#ifndef ARENA_ALIGNMENT /* sanitizers see the end of an arena only where nothing follows it: fuzz.sh has 1 */
#define ARENA_ALIGNMENT 4096
#endif

/* What one thread needs to run a plan. spaces: arena, inputs, outputs, constants. */
struct tdc_model {
    plan *plan;
    void *memory, *arena;
    void *spaces[MAX_SPACES];
    tdc_job job;
};

/* A handle of a plan, which becomes one of its owners only if that succeeds. */
static int make_model(plan *p, tdc_model **made) {
    if (p->arena_elements > (PTRDIFF_MAX - ARENA_ALIGNMENT) / 4) return TDC_ERROR_MEMORY; /* with addresses of 32 bits */
    tdc_model *model = calloc(1, sizeof *model);
    const size_t bytes = (size_t)p->arena_elements * 4;
    void *memory = calloc(1, bytes + ARENA_ALIGNMENT); /* as large arenas are used, the system fills them in */
    if (model == NULL || memory == NULL) {
        free(memory);
        free(model);
        return TDC_ERROR_MEMORY;
    }
    model->plan = p;
    model->memory = memory;
    model->arena = (char *)memory + (ARENA_ALIGNMENT - (uintptr_t)memory % ARENA_ALIGNMENT) % ARENA_ALIGNMENT;
    const int64_t space_count = 2 + p->input_count + p->output_count;
    model->spaces[space_count - 1] = (void *)p->constants;
    model->job = (tdc_job){
        .isa = p->isa_index,
        .op_count = p->op_count,
        .space_count = space_count,
        .threads = 1,
        .arena_bytes = (int64_t)bytes,
        .ops = p->ops,
        .spaces = model->spaces,
        .arenas = &model->arena,
    };
    *made = model;
    return TDC_OK;
}

int tdc_load_memory(const void *file, size_t bytes, tdc_model **model) {
    if (model == NULL) return TDC_ERROR_ARGUMENT;
    *model = NULL;
    plan *p;
    int status = plan_load(file, bytes, &p);
    if (status != TDC_OK) return status;
    status = make_model(p, model);
    if (status != TDC_OK) plan_release(p);
    return status;
}

/* A mapping of a whole file, and its size; NULL if there is none. */
static void *map_file(const char *path, size_t *bytes) {
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer would wait */
    if (descriptor < 0) return NULL;
    struct stat facts;
    void *file = MAP_FAILED;
    if (fstat(descriptor, &facts) == 0) {
        if (S_ISREG(facts.st_mode) && facts.st_size > PTRDIFF_MAX)
            errno = EFBIG; /* with addresses of 32 bits */
        else if (S_ISREG(facts.st_mode) && facts.st_size > 0)
            file = mmap(NULL, *bytes = (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        else
            errno = S_ISDIR(facts.st_mode) ? EISDIR : EINVAL;
    }
    const int why = errno;
    close(descriptor);
    errno = why;
    return file == MAP_FAILED ? NULL : file;
}

int tdc_load(const char *path, tdc_model **model) {
    if (model != NULL) *model = NULL;
    if (path == NULL || model == NULL) return TDC_ERROR_ARGUMENT;
    size_t bytes = 0;
    void *file = map_file(path, &bytes);
    if (file == NULL) return TDC_ERROR_FILE;
    const int status = tdc_load_memory(file, bytes, model);
    if (status == TDC_OK)
        (*model)->plan->mapped = bytes;
    else
        munmap(file, bytes);
    return status;
}

int tdc_share(const tdc_model *model, tdc_model **other) {
    if (other != NULL) *other = NULL;
    if (model == NULL || other == NULL) return TDC_ERROR_ARGUMENT;
    const int status = make_model(model->plan, other);
    if (status == TDC_OK) atomic_fetch_add(&model->plan->owners, 1);
    return status;
}

int64_t tdc_count(const tdc_model *model, int kind) {
    if (model == NULL) return 0;
    return kind == TDC_INPUT ? model->plan->input_count : kind == TDC_OUTPUT ? model->plan->output_count : 0;
}

int tdc_shape(const tdc_model *model, int kind, int64_t index, tdc_array *array) {
    if (array == NULL || index < 0 || index >= tdc_count(model, kind)) return TDC_ERROR_ARGUMENT;
    *array = model->plan->arrays[index + (kind == TDC_OUTPUT ? model->plan->input_count : 0)];
    return TDC_OK;
}

int tdc_run(tdc_model *model, const void *const *inputs, float *const *outputs, int64_t images) {
    if (model == NULL || inputs == NULL || outputs == NULL || images < 1 || images > INT32_MAX) return TDC_ERROR_ARGUMENT;
    const plan *p = model->plan;
    if (p->batch != 0 && p->batch != images) return TDC_ERROR_ARGUMENT;
    for (int64_t i = 0; i < p->input_count; i++) {
        if (inputs[i] == NULL) return TDC_ERROR_ARGUMENT;
        model->spaces[1 + i] = (void *)inputs[i];
    }
    for (int64_t i = 0; i < p->output_count; i++) {
        if (outputs[i] == NULL) return TDC_ERROR_ARGUMENT;
        model->spaces[1 + p->input_count + i] = outputs[i];
    }
    model->job.batch = images;
    return tdc_execute(&model->job, model->spaces[1]) == 0 ? TDC_OK : TDC_ERROR_INPUT;
}

void tdc_free(tdc_model *model) {
    if (model == NULL) return;
    plan_release(model->plan);
    free(model->memory);
    free(model);
}

const char *tdc_message(int status) {
    switch (status) {
    case TDC_OK: return "done";
    case TDC_ERROR_ARGUMENT: return "an argument is missing or out of range, or the model does not take this batch size";
    case TDC_ERROR_FILE: return "the file cannot be opened, read or mapped";
    case TDC_ERROR_FORMAT: return "no plan file of tdcompress compile, or one whose numbers contradict each other";
    case TDC_ERROR_VERSION: return "a plan file of another version; compile the model again";
    case TDC_ERROR_CHECKSUM: return "the plan file is damaged; compile or copy it again";
    case TDC_ERROR_ISA: return "the plan file is for an instruction set that is not here; compile it with --isa";
    case TDC_ERROR_MEMORY: return "not enough memory";
    case TDC_ERROR_INPUT: return "an input names a row that a table of the model does not have";
    case TDC_ERROR_PLATFORM: return "the processor's byte order is not handled";
    default: return "an unknown status";
    }
}

const char *tdc_best_isa(void) {
    for (int64_t i = 0; i < ISA_SLOTS; i++)
        if (tdc_isa_at(i) != NULL) return tdc_isa_at(i)->name;
    return "scalar";
}
