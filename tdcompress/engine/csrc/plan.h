/* A compiled model's file, and what is made of it when it is loaded. engine/planfile.py writes such files.
 *
 * All numbers are little-endian, and 8 bytes wide outside of tables. The file is a header; a port per input and per output; the program: per
 * call its OP_* number and its descriptor as tdc.h has it, and after a convolution's its groups; the data: names, tables, constants. Where a
 * descriptor has a pointer the file has an offset into the data, 0 for NULL. Sections and tables start at multiples of 64 bytes, so that in a
 * mapping they lie on cache lines. The program is copied, since its pointers have to be filled in; the data stay where they are. */
#ifndef TDC_PLAN_H
#define TDC_PLAN_H

#include <stdatomic.h>

#include "tdc.h"
#include "tdcompress.h"

_Static_assert(sizeof(tdc_group) == 3 * 8 && sizeof(tdc_conv) == 82 * 8 && sizeof(tdc_linear) == 42 * 8 && sizeof(tdc_map) == 33 * 8
                   && sizeof(tdc_binary) == 73 * 8 && sizeof(tdc_resample) == 35 * 8 && sizeof(tdc_lookup) == 32 * 8,
               "plan files hold these structures: they are the same on every processor");

#define PLAN_MAGIC "TDCPLAN\n"
#define PORT_DIMS 15

/* checksum: CRC-32 of the file, with this field taken as 0. Offsets are from the start of the file; constants: in the data. */
typedef struct {
    char magic[8];
    int64_t version, file_bytes, checksum;
    char isa[16];
    int64_t max_block, dense_filters, linear_lanes; /* what tables are made for: as in tdc_isa */
    int64_t arena_elements, op_count, input_count, output_count;
    int64_t ports_offset, program_offset, program_bytes, data_offset, data_bytes;
    int64_t constants, constant_elements;
    int64_t reserved[4];
} plan_header;

/* As tdc_array; name: offset in the data. */
typedef struct {
    int64_t name, type, ndim, dims[PORT_DIMS];
} plan_port;

/* What tensors of one space may be: elements of one image. */
typedef struct {
    int64_t elements, dtype, image_stride, writable;
} plan_space;

/* What descriptors are checked against. */
typedef struct {
    const char *data;
    int64_t data_bytes;
    const tdc_isa *isa;
    int64_t space_count;
    plan_space spaces[MAX_SPACES];
} plan_limits;

/* A loaded plan; nothing in it changes but the number of its owners. */
typedef struct {
    atomic_llong owners;
    const char *file;
    size_t mapped; /* bytes to unmap; 0: the caller's memory */
    int64_t isa_index, arena_elements, op_count, input_count, output_count, batch;
    const char *constants;
    int64_t *program;
    tdc_op *ops;
    tdc_array *arrays; /* inputs, then outputs */
} plan;

/* load.c: check a file of so many bytes and make a plan with one owner of it, which leaves `mapped` 0. *made is NULL unless TDC_OK is given. */
int plan_load(const char *file, size_t bytes, plan **made);

/* load.c: one owner less; the last one frees it. */
void plan_release(plan *p);

/* check.c: whether a descriptor touches nothing but its tensors, and reads nothing but its tables; its offsets become pointers. The groups
 * of a convolution have been found. */
int plan_check(int64_t kind, void *descriptor, const plan_limits *limits);

#endif
