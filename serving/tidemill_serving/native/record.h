/* Where the parts of a packed record lie, see packing.c; and of a row in 8 bits. */
#ifndef TIDEMILL_RECORD_H
#define TIDEMILL_RECORD_H

#include "product.h"

static inline size_t scales_at(const MatrixShape *matrix) {
  return (size_t)(matrix->block * PANEL_COLUMNS * matrix->bits / 8);
}

static inline size_t zero_points_at(const MatrixShape *matrix) { return scales_at(matrix) + PANEL_COLUMNS * 4; }

static inline size_t record_bytes(const MatrixShape *matrix) {
  return zero_points_at(matrix) + (matrix->has_zero_points ? PANEL_COLUMNS * 2 : 0);
}

/* Eight-bit weights meet steps of two bytes: vpmaddwd then adds two products without overflow. */
static inline size_t step_bytes(const MatrixShape *matrix) { return matrix->bits == 8 ? 2 : 1; }

static inline size_t row_bytes(const MatrixShape *matrix) {
  return (size_t)(num_blocks(matrix) * matrix->block) * step_bytes(matrix);
}

#endif
