/* Convolutions and fully connected layers of a plan file: their tables say where the kernels read. */
#include "check.h"

#define MASKS 16 /* that a block may read from the last vector of a row on */

/* The tensors of an epilogue, and what belongs to each filter. */
static int epilogue(const plan_limits *limits, tdc_conv *c) {
    tdc_epilogue *e = &c->epilogue;
    const int64_t has[] = {e->has_residual, e->has_output, e->has_output2};
    const tdc_tensor *tensors[] = {&e->residual, &e->output, &e->output2};
    for (int i = 0; i < 3; i++) {
        const tdc_tensor *t = tensors[i];
        if (!between(has[i], 0, 1)) return 0;
        if (!has[i]) continue;
        if (!(i == 0 ? readable : writable)(limits, t)) return 0;
        if (t->channels != c->filters || c->vectors * LANES > t->rows * t->row_stride) return 0;
        if (i > 0 && !apart(t, &c->input)) return 0;
        /* An output may take its residual's place, and then has the very same layout. */
        if (i > 0 && e->has_residual && !apart(t, &e->residual) && (i == 2 || memcmp(t, &e->residual, sizeof *t) != 0)) return 0;
        if (i == 2 && e->has_output && !apart(t, &e->output)) return 0;
    }
    if (e->has_output2 && !(table(limits, &e->scale2, c->filters, 4) && table(limits, &e->shift2, c->filters, 4))) return 0;
    return table(limits, &e->bias, c->filters, 4) && act(&e->act) && act(&e->act2);
}

/* Whether a block of input rows at a table's offset lies in the arena, for the first output vector and for the last. */
static int reaches(const plan_limits *limits, const tdc_conv *c, int64_t offset) {
    const int64_t start = 4 * c->input.offset + offset;
    return offset % 4 == 0 && start >= 0 && start + c->vectors * LANES * 4 <= 4 * limits->spaces[0].elements;
}

static int conv(const plan_limits *limits, tdc_conv *c) {
    if (!readable(limits, &c->input) || c->input.space != 0) return 0;
    if (!between(c->filters, 1, LARGEST) || !between(c->vectors, 1, LARGEST / LANES) || !between(c->row_vectors, 1, LARGEST / LANES)) return 0;
    if (!epilogue(limits, c)) return 0;
    tdc_group *groups = (tdc_group *)c->groups; /* ours: they lie behind the descriptor */
    for (int64_t g = 0; g < c->group_count; g++) {
        const int64_t masks = c->row_vectors + MASKS;
        if (!between(groups[g].shift, 1 - LANES, LANES - 1) || given(&groups[g].bits) != given(&groups[g].lanes)) return 0;
        if (!optional(limits, &groups[g].bits, masks, 2) || !optional(limits, &groups[g].lanes, masks, 4 * LANES)) return 0;
    }
    return 1;
}

int check_conv_sparse(const plan_limits *limits, tdc_conv *c) {
    int64_t offset;
    memcpy(&offset, &c->pairs, sizeof offset);
    if (!conv(limits, c) || !table(limits, &c->pairs, 0, sizeof(tdc_pair)) || !table(limits, &c->rows, c->filters * (1 + c->group_count), 4))
        return 0;
    int64_t left = (limits->data_bytes - offset) / (int64_t)sizeof(tdc_pair);
    const tdc_pair *pair = c->pairs;
    const uint32_t *row = c->rows;
    for (int64_t f = 0; f < c->filters; f++) {
        if (*row++ >= c->filters) return 0;
        for (int64_t g = 0; g < c->group_count; g++) {
            const int64_t count = *row++, pairs = (count + 1) / 2;
            if (pairs > left) return 0;
            for (int64_t i = 0; i < count; i++)
                if (!reaches(limits, c, pair[i / 2].offset[i % 2])) return 0;
            left -= pairs, pair += pairs;
        }
    }
    return 1;
}

int check_conv_dense(const plan_limits *limits, tdc_conv *c) {
    const int64_t block = limits->isa->dense_filters;
    if (!conv(limits, c) || !between(c->taps, 0, LARGEST) || !between(c->sets, 1, LARGEST) || !between(c->filters_per_set, 1, LARGEST)) return 0;
    if (c->sets * c->filters_per_set != c->filters || c->blocks_per_set != (c->filters_per_set + block - 1) / block) return 0;
    const int64_t weights = c->taps == 0 ? 0 : PRODUCT(c->sets, c->blocks_per_set, c->taps, block);
    if (!table(limits, &c->weights, weights, 4) || !table(limits, &c->offsets, c->sets * c->taps, 4)) return 0;
    if (!table(limits, &c->group_counts, c->sets * c->group_count, 4)) return 0;
    for (int64_t set = 0; set < c->sets; set++) {
        int64_t taps = 0;
        for (int64_t g = 0; g < c->group_count; g++) taps += c->group_counts[set * c->group_count + g];
        if (taps != c->taps) return 0;
    }
    for (int64_t k = 0; k < c->sets * c->taps; k++)
        if (!reaches(limits, c, c->offsets[k])) return 0;
    return 1;
}

/* The columns of compressed rows. */
static int linear_rows(const plan_limits *limits, tdc_linear *d) {
    if (!table(limits, &d->row_starts, d->outputs + 1, 4) || d->row_starts[0] != 0) return 0;
    for (int64_t n = 0; n < d->outputs; n++)
        if (d->row_starts[n] > d->row_starts[n + 1]) return 0;
    const int64_t kept = d->row_starts[d->outputs];
    if (!table(limits, &d->weights, kept, 4) || given(&d->columns16) == given(&d->columns32)) return 0;
    if (!optional(limits, &d->columns16, kept, 2) || !optional(limits, &d->columns32, kept, 4)) return 0;
    for (int64_t i = 0; i < kept; i++)
        if ((d->columns16 != NULL ? d->columns16[i] : d->columns32[i]) >= d->features) return 0;
    return 1;
}

/* The steps of the kernel that keeps outputs in its lanes. */
static int linear_lanes(const plan_limits *limits, tdc_linear *d) {
    const int64_t cells = PRODUCT((d->outputs + LANES - 1) / LANES, (d->features + 2 * LANES - 1) / (2 * LANES));
    if (!limits->isa->linear_lanes || !table(limits, &d->step_counts, cells, 1)) return 0;
    int64_t steps = 0;
    for (int64_t i = 0; i < cells; i++) steps += d->step_counts[i];
    return table(limits, &d->weights, steps * LANES, 4) && table(limits, &d->positions, steps * LANES, 1);
}

int check_linear(const plan_limits *limits, tdc_linear *d) {
    if (!in_out(limits, &d->input, &d->output) || !plain(&d->input) || !plain(&d->output)) return 0;
    if (elements(&d->input) < 0 || elements(&d->input) != PRODUCT(d->tokens, d->features)) return 0;
    if (elements(&d->output) != PRODUCT(d->tokens, d->outputs) || !table(limits, &d->bias, d->outputs, 4) || !act(&d->act)) return 0;
    switch (d->kind) {
    case LINEAR_DENSE:
    case LINEAR_TOKENS: return table(limits, &d->weights, PRODUCT(d->features, d->outputs), 4);
    case LINEAR_ROWS: return linear_rows(limits, d);
    case LINEAR_LANES: return linear_lanes(limits, d);
    default: return 0;
    }
}
