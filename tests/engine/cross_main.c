/* Runs one plan that cross.py wrote, on a processor other than the one that planned it: cross_main plan.bin > outputs.
 *
 * The file: 64-bit numbers (block count, op count, arena elements, batch, inputs, outputs, then bytes of each input and output), the inputs,
 * and per block its size, its bytes, and triples (place, block, place there) of words that are to become addresses. The last block is the
 * list of calls. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tdc.h"

int64_t tdc_run(const tdc_job *job, void *first_input);
int64_t tdc_sizeof(int64_t kind);

static void take(void *to, size_t bytes, FILE *file) {
    if (bytes > 0 && fread(to, 1, bytes, file) != bytes) exit(2);
}

static int64_t number(FILE *file) {
    int64_t value;
    take(&value, sizeof value, file);
    return value;
}

static void *memory(size_t bytes) {
    void *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (p == NULL) exit(3);
    memset(p, 0, (bytes + 127) / 64 * 64);
    return p;
}

int main(int count, char **arguments) {
    FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
    if (file == NULL) return 1;
    const int64_t blocks = number(file), op_count = number(file), arena = number(file), batch = number(file);
    const int64_t inputs = number(file), outputs = number(file);
    void *spaces[65] = {0};
    size_t bytes[65] = {0};
    for (int64_t i = 1; i <= inputs + outputs; i++) spaces[i] = memory(bytes[i] = (size_t)number(file));
    for (int64_t i = 1; i <= inputs; i++) take(spaces[i], bytes[i], file);
    char **block = memory((size_t)blocks * sizeof *block);
    int64_t **fixes = memory((size_t)blocks * sizeof *fixes), *fix_count = memory((size_t)blocks * sizeof *fix_count);
    for (int64_t b = 0; b < blocks; b++) {
        const size_t size = (size_t)number(file);
        take(block[b] = memory(size), size, file);
        fix_count[b] = number(file);
        fixes[b] = memory((size_t)fix_count[b] * 24);
        take(fixes[b], (size_t)fix_count[b] * 24, file);
    }
    for (int64_t b = 0; b < blocks; b++) {
        for (const int64_t *fix = fixes[b]; fix < fixes[b] + 3 * fix_count[b]; fix += 3) {
            const char *address = block[fix[1]] + fix[2];
            memcpy(block[b] + fix[0], &address, sizeof address);
        }
    }
    void *arenas[1] = {memory((size_t)arena * 4)};
    const tdc_job job = {.isa = 0, .op_count = op_count, .space_count = 1 + inputs + outputs, .threads = 1, .batch = batch, .arena_bytes = arena * 4,
                         .ops = (const tdc_op *)block[blocks - 1], .spaces = spaces, .arenas = arenas};
    if (tdc_run(&job, spaces[1]) != 0) return 4;
    for (int64_t i = inputs + 1; i <= inputs + outputs; i++) fwrite(spaces[i], 1, bytes[i], stdout);
    return 0;
}
