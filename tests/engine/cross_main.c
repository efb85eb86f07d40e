/* Runs a plan file of one input on a processor other than the one that planned it: cross_main IMAGES model.tdc < input > outputs */
#include <stdio.h>
#include <stdlib.h>

#include "tdcompress.h"

int main(int count, char **arguments) {
    if (count != 3) return 2;
    const int64_t images = atoll(arguments[1]);
    tdc_model *model;
    int status = tdc_load(arguments[2], &model);
    if (status != TDC_OK) {
        fprintf(stderr, "cross_main: %s\n", tdc_message(status));
        return status;
    }
    tdc_array input, output;
    if (tdc_shape(model, TDC_INPUT, 0, &input) != TDC_OK || tdc_shape(model, TDC_OUTPUT, 0, &output) != TDC_OK) return 3;
    const size_t read = (size_t)(images * input.elements), written = (size_t)(images * output.elements);
    float *x = malloc(read * sizeof *x), *y = malloc(written * sizeof *y);
    if (x == NULL || y == NULL || fread(x, sizeof *x, read, stdin) != read) return 4;
    status = tdc_run(model, (const void *const[]){x}, (float *const[]){y}, images);
    fwrite(y, sizeof *y, written, stdout);
    free(x), free(y);
    tdc_free(model);
    return status;
}
