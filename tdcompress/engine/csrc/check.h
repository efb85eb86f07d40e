/* What the checks of descriptors are made of.
 *
 * Sizes are at most LARGEST, so that the product of two and the sum of a few such products are no overflow; longer products go through
 * `product`. A field that points holds an offset until `table` has made a pointer of it. */
#ifndef TDC_CHECK_H
#define TDC_CHECK_H

#include <string.h>

#include "plan.h"

#define LARGEST ((int64_t)1 << 30)

static inline int between(int64_t x, int64_t low, int64_t high) { return low <= x && x <= high; }

/* Of `count` sizes of 1 or more; -1 if one is not, or if it is too large to be the size of anything. */
static inline int64_t product(const int64_t *sizes, int64_t count) {
    int64_t total = 1;
    for (int64_t i = 0; i < count; i++) {
        if (!between(sizes[i], 1, LARGEST) || total > LARGEST / sizes[i]) return -1;
        total *= sizes[i];
    }
    return total;
}

#define PRODUCT(...) product((const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

/* Make the pointer at `field` of its offset, if `count` items of `size` bytes lie there in the data. */
static inline int table(const plan_limits *limits, void *field, int64_t count, int64_t size) {
    int64_t offset;
    memcpy(&offset, field, sizeof offset);
    if (!between(offset, 1, limits->data_bytes) || offset % 8 != 0 || !between(count, 0, (limits->data_bytes - offset) / size)) return 0;
    const char *start = limits->data + offset;
    memcpy(field, &start, sizeof start);
    return 1;
}

static inline int given(const void *field) {
    int64_t offset;
    memcpy(&offset, field, sizeof offset);
    return offset != 0;
}

/* A table that may be absent. */
static inline int optional(const plan_limits *limits, void *field, int64_t count, int64_t size) {
    return !given(field) || table(limits, field, count, size);
}

static inline int64_t elements(const tdc_tensor *t) { return PRODUCT(t->channels, t->height, t->width); }

static inline int64_t first_element(const tdc_tensor *t) { return t->offset - t->halo_top * t->row_stride; }

static inline int64_t end_element(const tdc_tensor *t) {
    return t->offset + (t->channels - 1) * t->plane_stride + (t->rows + t->halo_bottom) * t->row_stride;
}

/* A tensor inside its space, halos included; whatever its element type. */
static inline int inside(const plan_limits *limits, const tdc_tensor *t) {
    const int64_t fields[] = {t->offset, t->plane_stride, t->halo_top, t->halo_bottom};
    for (int i = 0; i < 4; i++)
        if (!between(fields[i], 0, LARGEST)) return 0;
    const int64_t sizes[] = {t->channels, t->height, t->width, t->pitch, t->segments, t->rows, t->row_stride};
    for (int i = 0; i < 7; i++)
        if (!between(sizes[i], 1, LARGEST)) return 0;
    if (!between(t->space, 0, limits->space_count - 1) || t->width > t->pitch || t->row_stride != t->pitch * t->segments) return 0;
    if (t->segments == 1 ? t->rows < t->height : t->row_stride != LANES || t->rows * t->segments < t->height) return 0;
    const plan_space *space = &limits->spaces[t->space];
    return t->dtype == space->dtype && t->image_stride == space->image_stride && first_element(t) >= 0 && end_element(t) <= space->elements;
}

static inline int readable(const plan_limits *limits, const tdc_tensor *t) { return inside(limits, t) && t->dtype == DTYPE_F32; }

static inline int writable(const plan_limits *limits, const tdc_tensor *t) { return readable(limits, t) && limits->spaces[t->space].writable; }

/* Whether two tensors that are inside share no memory. */
static inline int apart(const tdc_tensor *a, const tdc_tensor *b) {
    return a->space != b->space || end_element(a) <= first_element(b) || end_element(b) <= first_element(a);
}

/* What most calls have: an input, and an output elsewhere. */
static inline int in_out(const plan_limits *limits, const tdc_tensor *in, const tdc_tensor *out) {
    return readable(limits, in) && writable(limits, out) && apart(in, out);
}

static inline int plain(const tdc_tensor *t) {
    return t->segments == 1 && t->row_stride == t->width && (t->channels == 1 || t->plane_stride == t->height * t->width);
}

static inline int same_sizes(const tdc_tensor *a, const tdc_tensor *b) {
    return a->channels == b->channels && a->height == b->height && a->width == b->width;
}

static inline int act(const tdc_act *a) { return between(a->kind, ACT_NONE, ACT_LOG); }

/* Whether a strided walk stays among so many elements. */
static inline int walks(const int64_t *dims, const int64_t *strides, int64_t ndim, int64_t start, int64_t count) {
    int64_t low = start, high = start;
    for (int64_t i = 0; i < ndim; i++) {
        if (!between(strides[i], -LARGEST, LARGEST) || !between(dims[i], 1, LARGEST)) return 0;
        const int64_t end = (dims[i] - 1) * strides[i];
        *(end < 0 ? &low : &high) += end;
        if (low < 0 || high >= count) return 0;
    }
    return low >= 0 && high < count;
}

/* check_layers.c: the calls that walk tables. */
int check_conv_sparse(const plan_limits *limits, tdc_conv *c);
int check_conv_dense(const plan_limits *limits, tdc_conv *c);
int check_linear(const plan_limits *limits, tdc_linear *d);

#endif
