/* Products of float rows with float matrices, on processors with AVX2 and FMA.
 *
 * Every number of the output is made by one sequence: y = 0, and over the depth, from first to last,
 * y = fma(input, weight, y). Between pieces of the depth y lies in the output, which changes nothing of it. So a row's
 * result is the same to the bit alone, in company, in any piece of a prompt, and whoever computes it.
 */
#ifndef TIDEMILL_FLOAT_PRODUCT_H
#define TIDEMILL_FLOAT_PRODUCT_H

#include <stddef.h>
#include <stdint.h>

enum { FLOAT_PANEL_COLUMNS = 16 };

/* A matrix of `width` columns (the output's) and `depth` rows (the input's). */
typedef struct {
  int64_t depth;
  int64_t width;
} FloatMatrixShape;

int float_product_is_wanted(void); /* and is faster than what ONNX Runtime has for this processor */
int float_matrix_is_valid(const FloatMatrixShape *matrix);
int64_t num_float_panels(const FloatMatrixShape *matrix);
size_t packed_float_bytes(const FloatMatrixShape *matrix);

/* The weight of row k and column n lies row_step * k + column_step * n bytes behind `values`, aligned or not. Packed are
 * panels of 16 columns, one after the other; in a panel, for each of the depth, the weights of its columns, zeros behind
 * the last. */
void pack_float_matrix(const FloatMatrixShape *matrix, const uint8_t *values, int64_t row_step, int64_t column_step,
                       float *packed);

/* The output's [first_row, end_row) x columns of the panels [first_panel, end_panel). */
void multiply_float_panels(const FloatMatrixShape *matrix, const float *packed, const float *input, int64_t first_row,
                           int64_t end_row, int64_t first_panel, int64_t end_panel, float *output);

#endif
