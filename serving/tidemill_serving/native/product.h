/* Products of float rows with matrices of 8 or 4 bits in blocks, on processors with AVX2 and FMA.
 *
 * What is computed: each row of the input is brought to 8 bits, block by block, by a scale of its own (symmetric, as
 * MatMulNBits does with accuracy_level 4). Within a block the sum of products is of integers, and exact. Over the
 * blocks, from first to last:  y = fma(float(sum), row_scale * weight_scale, y).
 * Every number of the output is made by this very sequence, whatever rows stand beside it and whoever computes it, so a
 * row's result is the same to the bit alone, in company, and in any piece of a prompt.
 */
#ifndef TIDEMILL_PRODUCT_H
#define TIDEMILL_PRODUCT_H

#include <stddef.h>
#include <stdint.h>

enum { PANEL_COLUMNS = 16, MOST_PART_ROWS = 64 };

/* A matrix of `width` columns (the output's) and `depth` rows (the input's). */
typedef struct {
  int64_t depth;
  int64_t width;
  int64_t bits;            /* 8 or 4 */
  int64_t block;           /* depth that shares a scale: a multiple of 32 up to 256 */
  int64_t has_zero_points; /* 0: each weight's zero is the middle of its range */
} MatrixShape;

/* The input's rows in 8 bits. Of a row with NaN or infinity a block's scale is NaN, and so its output. */
typedef struct {
  int8_t *steps;  /* [rows][blocks * block], each in two bytes where the weights have 8 bits */
  float *scales;  /* [rows][blocks] */
  int32_t *sums;  /* [rows][blocks]: of the steps */
} QuantizedRows;

int product_runs_here(void);
int product_is_wanted(void); /* and is faster than what ONNX Runtime has for this processor */
int matrix_is_valid(const MatrixShape *matrix);
int64_t num_blocks(const MatrixShape *matrix);
int64_t num_panels(const MatrixShape *matrix);

/* Bytes of the packed matrix; of what `num_rows` rows need while they are multiplied. */
size_t packed_bytes(const MatrixShape *matrix);
size_t scratch_bytes(const MatrixShape *matrix, int64_t num_rows);

/* From MatMulNBits' own layout: values [width, blocks, block * bits / 8], scales [width, blocks], zero points
 * [width, ceil(blocks * bits / 8)] or NULL. */
void pack_matrix(const MatrixShape *matrix, const uint8_t *values, const float *scales, const uint8_t *zero_points,
                 uint8_t *packed);

QuantizedRows rows_in(void *scratch, const MatrixShape *matrix, int64_t num_rows);

/* The rows [first_row, end_row), and of each the numbers [first, end): whole blocks, or up to the row's end. */
void quantize_rows(const MatrixShape *matrix, const float *input, int64_t first_row, int64_t end_row, int64_t first,
                   int64_t end, QuantizedRows rows);

/* Some rows, at most MOST_PART_ROWS, and some panels of the output. */
typedef struct {
  int64_t first_row, end_row, first_panel, end_panel;
} Part;

/* output = rows * packed + bias; the bias or NULL. */
void multiply_panels(const MatrixShape *matrix, const uint8_t *packed, const float *bias, QuantizedRows rows, Part part,
                     float *output);

/* The products with two matrices of one shape, one as the gate of the other, see rows.h. */
void multiply_gated_panels(const MatrixShape *matrix, const uint8_t *gate, const uint8_t *up, QuantizedRows rows,
                           Part part, float *output);

#endif
