/* y (M, N) = a (M, K) times b (K, N), all row-major: blocks of 4 rows by a few registers of columns, whose sums stay in registers. */
#ifndef TDC_GEMM_H
#define TDC_GEMM_H

#include "vec.h"

#define GEMM_ROWS 4
#define GEMM_VECTORS (VL == 16 ? 4 : 2)

INLINE void gemm_block(const float *a, const float *b, float *y, int64_t inner, int64_t columns, const int rows, const int vectors) {
    vf sum[GEMM_ROWS][4];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = (vf){0};
    for (int64_t k = 0; k < inner; k++) {
        const float *line = b + k * columns;
        UNROLL for (int v = 0; v < vectors; v++) {
            const vf x = v_load(line + v * VL);
            UNROLL for (int r = 0; r < rows; r++) sum[r][v] += a[r * inner + k] * x;
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < vectors; v++) v_store(y + r * columns + v * VL, sum[r][v]);
}

/* All rows of `vectors` registers of columns. */
INLINE void gemm_columns(const float *a, const float *b, float *y, int64_t rows, int64_t inner, int64_t columns, const int vectors) {
    int64_t m = 0;
    for (; m + GEMM_ROWS <= rows; m += GEMM_ROWS) gemm_block(a + m * inner, b, y + m * columns, inner, columns, GEMM_ROWS, vectors);
    for (; m < rows; m++) gemm_block(a + m * inner, b, y + m * columns, inner, columns, 1, vectors);
}

static void gemm(const float *a, const float *b, float *y, int64_t rows, int64_t inner, int64_t columns) {
    int64_t n = 0;
    for (; n + GEMM_VECTORS * VL <= columns; n += GEMM_VECTORS * VL) gemm_columns(a, b + n, y + n, rows, inner, columns, GEMM_VECTORS);
    for (; n + VL <= columns; n += VL) gemm_columns(a, b + n, y + n, rows, inner, columns, 1);
    for (int64_t m = 0; n < columns && m < rows; m++) {
        float *row = y + m * columns;
        memset(row + n, 0, (size_t)(columns - n) * sizeof(float));
        for (int64_t k = 0; k < inner; k++)
            for (int64_t j = n; j < columns; j++) row[j] += a[m * inner + k] * b[k * columns + j];
    }
}

#endif
