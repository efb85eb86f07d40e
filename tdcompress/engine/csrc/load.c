/* From the bytes of a plan file to a plan: header, checksum, inputs and outputs, then call after call. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "checksum.h"
#include "plan.h"

#define MOST_ARRAYS (MAX_SPACES - 2)
#define MOST_ELEMENTS ((int64_t)1 << 28) /* of one image of an input or output */
#define MOST_ARENA ((int64_t)1 << 29)

_Static_assert((int)TDC_UINT8 == DTYPE_U8 && (int)TDC_INT8 == DTYPE_I8 && (int)TDC_INT32 == DTYPE_I32 && (int)TDC_INT64 == DTYPE_I64
                   && (int)TDC_FLOAT64 == DTYPE_F64 && (int)TDC_FLOAT32 == DTYPE_F32,
               "the public names of element types are those of tensors");

/* Whether `bytes` at `offset` lie in the file, behind the header and aligned. */
static int section(const plan_header *header, int64_t offset, int64_t bytes) {
    return offset >= (int64_t)sizeof *header && offset % 8 == 0 && offset <= header->file_bytes && bytes >= 0
           && bytes <= header->file_bytes - offset;
}

static uint32_t checksum(const plan_header *header, const char *file) {
    tdc_crc crc;
    crc_tables(&crc);
    plan_header zeroed = *header;
    zeroed.checksum = 0;
    const uint32_t start = crc_more(&crc, 0, (const unsigned char *)&zeroed, sizeof zeroed);
    return crc_more(&crc, start, (const unsigned char *)file + sizeof zeroed, (size_t)header->file_bytes - sizeof zeroed);
}

static int read_header(plan_header *header, const char *file, size_t bytes) {
    if (bytes < sizeof *header || memcmp(file, PLAN_MAGIC, sizeof header->magic) != 0) return TDC_ERROR_FORMAT;
    memcpy(header, file, sizeof *header);
    if (header->version != TDC_PLAN_VERSION) return TDC_ERROR_VERSION;
    if (header->file_bytes != (int64_t)bytes) return TDC_ERROR_CHECKSUM; /* cut off, or longer */
    if (header->checksum != (int64_t)checksum(header, file)) return TDC_ERROR_CHECKSUM;
    const int64_t inputs = header->input_count, outputs = header->output_count;
    if (inputs < 1 || outputs < 1 || inputs > MOST_ARRAYS || outputs > MOST_ARRAYS - inputs) return TDC_ERROR_FORMAT;
    if (header->arena_elements < 1 || header->arena_elements > MOST_ARENA) return TDC_ERROR_FORMAT;
    const int sections = section(header, header->ports_offset, (inputs + outputs) * (int64_t)sizeof(plan_port))
                         && section(header, header->program_offset, header->program_bytes)
                         && section(header, header->data_offset, header->data_bytes);
    if (!sections || header->program_bytes % 8 != 0) return TDC_ERROR_FORMAT;
    return header->op_count < 0 || header->op_count > header->program_bytes / 16 ? TDC_ERROR_FORMAT : TDC_OK;
}

/* The instruction set that the file is made for. */
static int find_isa(const plan_header *header, int64_t *found) {
    for (int64_t i = 0; i < ISA_SLOTS; i++) {
        const tdc_isa *isa = tdc_isa_at(i);
        if (isa == NULL || strncmp(isa->name, header->isa, sizeof header->isa) != 0) continue;
        *found = i;
        return isa->max_block == header->max_block && isa->dense_filters == header->dense_filters && isa->linear_lanes == header->linear_lanes;
    }
    return 0;
}

/* One input or output; its space. */
static int read_array(const plan_port *port, const plan_limits *limits, int output, tdc_array *array, plan_space *space) {
    if (port->type < TDC_FLOAT32 || port->type > (output ? TDC_FLOAT32 : TDC_FLOAT64) || port->ndim < 1 || port->ndim > PORT_DIMS) return 0;
    if (port->name < 0 || port->name >= limits->data_bytes) return 0;
    if (memchr(limits->data + port->name, 0, (size_t)(limits->data_bytes - port->name)) == NULL) return 0;
    int64_t elements = 1;
    for (int64_t i = 1; i < port->ndim; i++) {
        if (port->dims[i] < 1 || port->dims[i] > MOST_ELEMENTS / elements) return 0;
        elements *= port->dims[i];
    }
    *array = (tdc_array){.name = limits->data + port->name, .type = port->type, .ndim = port->ndim, .dims = port->dims, .elements = elements};
    *space = (plan_space){.elements = elements, .dtype = port->type, .image_stride = elements, .writable = output};
    return port->dims[0] >= 0 && port->dims[0] < INT32_MAX;
}

/* Inputs, outputs, arena and constants: all that a tensor can lie in. */
static int read_spaces(plan *p, const plan_header *header, plan_limits *limits) {
    const int64_t count = p->input_count + p->output_count;
    const plan_port *ports = (const plan_port *)(p->file + header->ports_offset);
    p->batch = ports[0].dims[0];
    limits->space_count = count + 2;
    limits->spaces[0] = (plan_space){.elements = p->arena_elements, .writable = 1};
    for (int64_t i = 0; i < count; i++) {
        if (!read_array(&ports[i], limits, i >= p->input_count, &p->arrays[i], &limits->spaces[1 + i])) return 0;
        if (ports[i].dims[0] != p->batch) return 0;
    }
    if (header->constants < 0 || header->constants > limits->data_bytes || header->constants % 8 != 0) return 0;
    if (header->constant_elements < 0 || header->constant_elements > (limits->data_bytes - header->constants) / 4) return 0;
    p->constants = limits->data + header->constants;
    limits->spaces[count + 1] = (plan_space){.elements = header->constant_elements};
    return 1;
}

/* The calls, in the copy of the program: each descriptor lies behind its number, and a convolution's groups behind that. */
static int read_program(plan *p, int64_t words, const plan_limits *limits) {
    int64_t *at = p->program, *const end = at + words;
    for (int64_t i = 0; i < p->op_count; i++) {
        if (at == end) return 0;
        const int64_t kind = *at++, size = tdc_sizeof(kind) / 8;
        if (size == 0 || size > end - at) return 0;
        void *descriptor = at;
        at += size;
        if (kind == OP_CONV_SPARSE || kind == OP_CONV_DENSE) {
            tdc_conv *c = descriptor;
            const int64_t group = sizeof(tdc_group) / 8;
            if (c->group_count < 1 || c->group_count > (end - at) / group) return 0;
            c->groups = (const tdc_group *)at;
            at += c->group_count * group;
        }
        if (!plan_check(kind, descriptor, limits)) return 0;
        p->ops[i] = (tdc_op){.kind = kind, .descriptor = descriptor};
    }
    return at == end;
}

int plan_load(const char *file, size_t bytes, plan **made) {
    *made = NULL;
    if (__BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__) return TDC_ERROR_PLATFORM;
    if (file == NULL || (uintptr_t)file % 8 != 0) return TDC_ERROR_ARGUMENT;
    plan_header header;
    const int status = read_header(&header, file, bytes);
    if (status != TDC_OK) return status;
    plan *p = calloc(1, sizeof *p);
    if (p == NULL) return TDC_ERROR_MEMORY;
    atomic_init(&p->owners, 1);
    p->file = file;
    p->arena_elements = header.arena_elements;
    p->op_count = header.op_count, p->input_count = header.input_count, p->output_count = header.output_count;
    p->program = malloc((size_t)header.program_bytes + 8);
    p->ops = calloc((size_t)p->op_count + 1, sizeof *p->ops);
    p->arrays = calloc((size_t)(p->input_count + p->output_count), sizeof *p->arrays);
    if (p->program == NULL || p->ops == NULL || p->arrays == NULL) {
        plan_release(p);
        return TDC_ERROR_MEMORY;
    }
    memcpy(p->program, file + header.program_offset, (size_t)header.program_bytes);
    const int isa = find_isa(&header, &p->isa_index);
    plan_limits limits = {.data = file + header.data_offset, .data_bytes = header.data_bytes, .isa = isa ? tdc_isa_at(p->isa_index) : NULL};
    const int whole = isa && read_spaces(p, &header, &limits) && read_program(p, header.program_bytes / 8, &limits);
    if (!whole) {
        plan_release(p);
        return isa ? TDC_ERROR_FORMAT : TDC_ERROR_ISA;
    }
    *made = p;
    return TDC_OK;
}

void plan_release(plan *p) {
    if (atomic_fetch_sub(&p->owners, 1) != 1) return;
    if (p->mapped > 0) munmap((void *)p->file, p->mapped);
    free(p->arrays);
    free(p->ops);
    free(p->program);
    free(p);
}
