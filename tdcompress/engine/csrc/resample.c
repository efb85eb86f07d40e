/* Kernels that read where a table or a computed number says: resizing along one axis, rows of a table. */
#include "kernels.h"
#include "vec.h"

static void weighted_rows(float *out, const float *in, const tdc_resample *d, int64_t i) {
    const int32_t *indices = d->indices + i * d->taps;
    const float *weights = d->weights + i * d->taps;
    memset(out, 0, (size_t)d->inner * sizeof(float));
    for (int64_t k = 0; k < d->taps; k++) {
        const float weight = weights[k];
        const float *row = in + indices[k] * d->inner;
        if (weight != 0)
            for (int64_t n = 0; n < d->inner; n++) out[n] += weight * row[n];
    }
}

void KERNEL(resample)(const void *descriptor, const tdc_context *context) {
    const tdc_resample *d = descriptor;
    const float *in = tensor_base(&d->input, context);
    float *out = tensor_base(&d->output, context);
    for (int64_t o = 0; o < d->outer; o++, in += d->size_in * d->inner) {
        for (int64_t i = 0; i < d->size_out; i++, out += d->inner) {
            if (d->weights)
                weighted_rows(out, in, d, i);
            else
                memcpy(out, in + d->indices[i] * d->inner, (size_t)d->inner * sizeof(float));
        }
    }
}

void KERNEL(lookup)(const void *descriptor, const tdc_context *context) {
    const tdc_lookup *d = descriptor;
    const float *in = tensor_base(&d->input, context);
    float *out = tensor_base(&d->output, context);
    const float rows = (float)d->rows;
    for (int64_t i = 0; i < d->count; i++, out += d->width) {
        if (!(in[i] >= -rows && in[i] < rows)) { /* NaN too */
            *context->fault = 1;
            memset(out, 0, (size_t)d->width * sizeof(float));
            continue;
        }
        const int64_t row = (int64_t)in[i];
        memcpy(out, d->table + (row < 0 ? row + d->rows : row) * d->width, (size_t)d->width * sizeof(float));
    }
}
