/* Damages plan files and runs what is still accepted: fuzz_plan RUNS|SECONDSs FILE..., e.g. fuzz_plan 20000 a.tdc or fuzz_plan 300s a.tdc
 *
 * Most damaged files get a right checksum, or nothing behind it would be tried. A load must give a status, and a plan that loads must run
 * inside its memory: the sanitizers of fuzz.sh, or valgrind, see what does not. Prints how often each status came. */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "checksum.h"
#include "plan.h"

enum { STATUSES = TDC_ERROR_PLATFORM + 1, MOST_BYTES = 1 << 26, MILLISECONDS = 300 };

static uint64_t state = 88172645463325252u;

static uint64_t draw(uint64_t below) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state % below;
}

static int64_t word(const unsigned char *file, size_t at) {
    int64_t value;
    memcpy(&value, file + at, sizeof value);
    return value;
}

static void set(unsigned char *file, size_t at, int64_t value) { memcpy(file + at, &value, sizeof value); }

/* Somewhere in the file: mostly in the header, the ports and the program, whose words mean most. */
static size_t place(size_t data, size_t bytes, size_t unit) {
    const size_t end = draw(8) == 0 ? sizeof(plan_header) : draw(4) > 0 ? data : bytes;
    return draw(end / unit) * unit;
}

static int64_t number(const unsigned char *file, size_t bytes, int64_t before) {
    static const int64_t special[] = {0, 1, -1, 2, 3, 7, 8, 15, 16, 17, 64, 255, 1 << 16, 1 << 28, 1 << 30, INT32_MAX, INT64_MAX, INT64_MIN, (int64_t)1 << 60};
    switch (draw(4)) {
    case 0: return special[draw(sizeof special / sizeof *special)];
    case 1: return (int64_t)((uint64_t)before + draw(33) - 16);
    case 2: return before ^ ((int64_t)1 << draw(40));
    default: return word(file, draw(bytes / 8) * 8);
    }
}

/* One to four changes; returns the new size. */
static size_t damage(unsigned char *file, size_t bytes) {
    const size_t data = (size_t)word(file, offsetof(plan_header, data_offset));
    for (uint64_t changes = 1 + draw(4); changes > 0; changes--) {
        const size_t at = place(data, bytes, 8);
        switch (draw(8)) {
        case 0: file[place(data, bytes, 1)] ^= 1 << draw(8); break;
        case 1: file[place(data, bytes, 1)] = (unsigned char)draw(256); break;
        case 2: {
            const size_t from = draw(bytes / 8) * 8, most = bytes - (from > at ? from : at);
            memmove(file + at, file + from, draw(most < 256 ? most : 256));
            break;
        }
        case 3: {
            const size_t half = draw(bytes / 4) * 4; /* a table's number */
            int32_t value = (int32_t)number(file, bytes, 4 * (int64_t)draw(1000));
            memcpy(file + half, &value, sizeof value);
            break;
        }
        default: set(file, at, number(file, bytes, word(file, at)));
        }
    }
    return draw(32) == 0 ? sizeof(plan_header) + draw(bytes - sizeof(plan_header)) : bytes;
}

static tdc_crc crc;

static void mend_checksum(unsigned char *file, size_t bytes) {
    set(file, offsetof(plan_header, file_bytes), (int64_t)bytes);
    set(file, offsetof(plan_header, checksum), 0);
    set(file, offsetof(plan_header, checksum), crc_more(&crc, 0, file, bytes));
}

static sigjmp_buf late;
static void alarmed(int signal_number) {
    (void)signal_number;
    siglongjmp(late, 1);
}

/* Memory of exactly the size of an input or output, filled with small numbers. */
static void *memory(const tdc_model *model, int kind, int64_t index, int64_t images) {
    static const size_t widths[] = {4, 1, 1, 4, 8, 8};
    tdc_array array;
    if (tdc_shape(model, kind, index, &array) != TDC_OK || array.ndim < 1 || strlen(array.name) > MOST_BYTES) abort();
    const size_t bytes = (size_t)(images * array.elements) * widths[array.type];
    unsigned char *made = bytes > MOST_BYTES ? NULL : malloc(bytes);
    for (size_t i = 0; made != NULL && i < bytes; i++) made[i] = (unsigned char)(i % 3);
    return made;
}

/* Whether it ran to the end: what asks for much memory, or takes long, is left. */
static int run(tdc_model *model, int64_t images) {
    const int64_t inputs = tdc_count(model, TDC_INPUT), outputs = tdc_count(model, TDC_OUTPUT);
    void *arrays[64] = {NULL};
    int ready = 1;
    volatile int status = -1;
    for (int64_t i = 0; i < inputs + outputs && ready; i++)
        ready = (arrays[i] = memory(model, i < inputs ? TDC_INPUT : TDC_OUTPUT, i < inputs ? i : i - inputs, images)) != NULL;
    if (ready && sigsetjmp(late, 1) == 0) {
        setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {.tv_usec = MILLISECONDS * 1000}}, NULL);
        status = tdc_run(model, (const void *const *)arrays, (float *const *)(arrays + inputs), images);
    }
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {0}}, NULL);
    for (int64_t i = 0; i < inputs + outputs; i++) free(arrays[i]);
    return status == TDC_OK || status == TDC_ERROR_INPUT;
}

int main(int count, char **arguments) {
    if (count < 3) return 2;
    char *unit;
    const long amount = strtol(arguments[1], &unit, 10);
    const time_t end = *unit == 's' ? time(NULL) + amount : 0;
    signal(SIGALRM, alarmed);
    crc_tables(&crc);
    long statuses[STATUSES] = {0}, ran = 0, runs = 0;
    for (; end > 0 ? time(NULL) < end : runs < amount; runs++) {
        FILE *source = fopen(arguments[2 + draw((uint64_t)count - 2)], "rb");
        if (source == NULL || fseek(source, 0, SEEK_END) != 0) return 3;
        size_t bytes = (size_t)ftell(source);
        rewind(source);
        unsigned char *file = malloc(bytes);
        if (file == NULL || fread(file, 1, bytes, source) != bytes) return 4;
        fclose(source);
        if (runs >= count - 2) bytes = damage(file, bytes);
        if (draw(16) > 0) mend_checksum(file, bytes);
        file = realloc(file, bytes);
        const uint32_t before = crc_more(&crc, 0, file, bytes);
        tdc_model *model = (tdc_model *)file, *other;
        const int status = tdc_load_memory(file, bytes, &model);
        if (status < 0 || status >= STATUSES || (model == NULL) == (status == TDC_OK)) return 5;
        statuses[status]++;
        if (status == TDC_OK && word(file, offsetof(plan_header, arena_elements)) < MOST_BYTES / 4) {
            ran += run(model, 2) || run(model, 1);
            if (tdc_share(model, &other) != TDC_OK) return 6;
            tdc_free(other);
        }
        tdc_free(model);
        if (crc_more(&crc, 0, file, bytes) != before) return 7; /* a mapping would have been written to */
        free(file);
    }
    printf("%ld files, %ld ran", runs, ran);
    for (int i = 0; i < STATUSES; i++) printf("; %d: %ld", i, statuses[i]);
    printf("\n");
    return 0;
}
