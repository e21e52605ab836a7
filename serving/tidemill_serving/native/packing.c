/* How a matrix lies in memory: panels of 16 columns, one after the other, each a row of records, one for a block.
 *
 * A record holds the block's weights, 16 scales, and 16 zero points where the matrix has them (less the middle of the
 * range for 8 bits). Its weights stand in the order in which a product reads them:
 *   8 bits: for each 2 of the depth, for each column, these 2, less 128, as signed bytes;
 *   4 bits: for each 4 of the depth, for each of the first 8 columns, these 4 in the low halves of the bytes, and those
 *           of the column 8 further in the high halves.
 */
#include <string.h>

#include "record.h"

int matrix_is_valid(const MatrixShape *matrix) {
  const int64_t largest = INT64_C(1) << 31;
  return matrix->depth > 0 && matrix->depth < largest && matrix->width > 0 && matrix->width < largest &&
         (matrix->bits == 8 || matrix->bits == 4) && matrix->block >= 32 && matrix->block <= 256 &&
         matrix->block % 32 == 0 && (matrix->has_zero_points == 0 || matrix->has_zero_points == 1);
}

int64_t num_blocks(const MatrixShape *matrix) { return (matrix->depth + matrix->block - 1) / matrix->block; }

int64_t num_panels(const MatrixShape *matrix) { return (matrix->width + PANEL_COLUMNS - 1) / PANEL_COLUMNS; }

size_t packed_bytes(const MatrixShape *matrix) {
  return (size_t)num_panels(matrix) * (size_t)num_blocks(matrix) * record_bytes(matrix);
}

static int zero_point_at(const MatrixShape *matrix, const uint8_t *zero_points, int64_t column, int64_t block) {
  const int64_t blocks = num_blocks(matrix);
  if (matrix->bits == 8) return zero_points[column * blocks + block] - 128;
  const uint8_t byte = zero_points[column * ((blocks + 1) / 2) + block / 2];
  return block % 2 ? byte >> 4 : byte & 15;
}

/* A column's weights of one block, to their places in a record. */
static void pack_8_bits(const uint8_t *bytes, int64_t block, int64_t lane, uint8_t *weights) {
  for (int64_t k = 0; k < block; k += 2) {
    uint16_t two;
    memcpy(&two, bytes + k, 2);
    two ^= 0x8080; /* less 128 */
    memcpy(weights + k * PANEL_COLUMNS + lane * 2, &two, 2);
  }
}

static void pack_4_bits(const uint8_t *bytes, int64_t block, int64_t lane, uint8_t *weights) {
  for (int64_t k = 0; k < block; k += 4) {
    const uint32_t low = bytes[k / 2], high = bytes[k / 2 + 1];
    const uint32_t four = (low & 15) | (low >> 4) << 8 | (high & 15) << 16 | (high >> 4) << 24;
    uint8_t *place = weights + k * 8 + lane % 8 * 4;
    uint32_t packed;
    memcpy(&packed, place, 4);
    packed |= lane < 8 ? four : four << 4;
    memcpy(place, &packed, 4);
  }
}

void pack_matrix(const MatrixShape *matrix, const uint8_t *values, const float *scales, const uint8_t *zero_points,
                 uint8_t *packed) {
  const int64_t blocks = num_blocks(matrix);
  const size_t bytes = record_bytes(matrix);
  memset(packed, 0, packed_bytes(matrix));
  for (int64_t column = 0; column < matrix->width; column++) {
    for (int64_t block = 0; block < blocks; block++) {
      uint8_t *record = packed + (size_t)(column / PANEL_COLUMNS * blocks + block) * bytes;
      const int64_t lane = column % PANEL_COLUMNS;
      const uint8_t *weights = values + (column * blocks + block) * (matrix->block * matrix->bits / 8);
      (matrix->bits == 8 ? pack_8_bits : pack_4_bits)(weights, matrix->block, lane, record);
      memcpy(record + scales_at(matrix) + lane * 4, &scales[column * blocks + block], 4);
      if (matrix->has_zero_points) {
        const int16_t zero_point = (int16_t)zero_point_at(matrix, zero_points, column, block);
        memcpy(record + zero_points_at(matrix) + lane * 2, &zero_point, 2);
      }
    }
  }
}
