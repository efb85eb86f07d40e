/* Handwritten digits: digit model.tdc < pixels. An image is 64 numbers from 0 to 16, row by row; prints the digit of each. */
#include <stdio.h>
#include "tdcompress.h"

static int failed(const char *why) { return fprintf(stderr, "digit model.tdc < pixels: %s\n", why), 1; }

int main(int count, char **arguments) {
    tdc_model *model;
    int filled = 0, status = tdc_load(count == 2 ? arguments[1] : NULL, &model);
    if (status != TDC_OK) return failed(tdc_message(status));
    tdc_array pixels = {0}, logits = {0};
    tdc_shape(model, TDC_INPUT, 0, &pixels);
    tdc_shape(model, TDC_OUTPUT, 0, &logits);
    int single = tdc_count(model, TDC_INPUT) == 1 && tdc_count(model, TDC_OUTPUT) == 1; /* tdc_run takes an array for each */
    if (!single || pixels.type != TDC_FLOAT32 || pixels.elements != 64 || logits.elements != 10) return failed("the model reads no digits");
    float image[64], scores[10], *outputs[] = {scores};
    const void *inputs[] = {image};
    for (int value; scanf("%d", &value) == 1;) {
        image[filled++] = ((float)value - 4.888f) / 6.018f; /* the preprocessing that `tdcompress inspect model.onnx` tells */
        if (filled < 64) continue;
        filled = 0;
        if ((status = tdc_run(model, inputs, outputs, 1)) != TDC_OK) return failed(tdc_message(status));
        int best = 0;
        for (int digit = 1; digit < 10; digit++)
            if (scores[digit] > scores[best]) best = digit;
        printf("%d\n", best);
    }
    tdc_free(model);
    return feof(stdin) && filled == 0 ? 0 : failed("the last image is not 64 whole numbers");
}
