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
#include "vectors.h"

enum { PIECE_BYTES = 16 }; /* of a column's weights that are turned at once */

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

/* PIECE_BYTES of eight columns that lie `stride` bytes apart: of each two bytes, those of all eight. */
INLINED void turn(const uint8_t *first, size_t stride, __m128i pairs[8]) {
  __m128i of[8], two[8], four[8];
#pragma GCC unroll 8
  for (size_t column = 0; column < 8; column++) {
    of[column] = _mm_loadu_si128((const __m128i *)(first + column * stride));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) { /* columns 2i and 2i + 1, of the first four pairs and of the last */
    two[i] = _mm_unpacklo_epi16(of[2 * i], of[2 * i + 1]);
    two[i + 4] = _mm_unpackhi_epi16(of[2 * i], of[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) { /* four columns, of two pairs */
    four[2 * i] = _mm_unpacklo_epi32(two[2 * i], two[2 * i + 1]);
    four[2 * i + 1] = _mm_unpackhi_epi32(two[2 * i], two[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) { /* four[0] and four[2] are of the pairs 0 and 1, four[1] and four[3] of 2 and 3 */
    const __m128i left = four[i / 2 * 4 + i % 2], right = four[i / 2 * 4 + i % 2 + 2];
    pairs[2 * i] = _mm_unpacklo_epi64(left, right);
    pairs[2 * i + 1] = _mm_unpackhi_epi64(left, right);
  }
}

/* The weights of one block, of a panel's 16 columns that lie `stride` bytes apart: what pack_8_bits writes of each. */
FAST static void pack_8_bits_of_all(const uint8_t *bytes, size_t stride, int64_t block, uint8_t *weights) {
  const __m128i middle = _mm_set1_epi8((char)0x80);
  for (int64_t k = 0; k < block; k += PIECE_BYTES) {
    __m128i left[8], right[8];
    turn(bytes + k, stride, left);
    turn(bytes + k + 8 * stride, stride, right);
#pragma GCC unroll 8
    for (int pair = 0; pair < 8; pair++) {
      __m128i *place = (__m128i *)(weights + (k + 2 * pair) * PANEL_COLUMNS);
      _mm_storeu_si128(place, _mm_xor_si128(left[pair], middle));
      _mm_storeu_si128(place + 1, _mm_xor_si128(right[pair], middle));
    }
  }
}

/* Eight times four weights in two bytes, a weight to a byte. */
INLINED __m256i spread(__m128i fours) {
  const __m256i wide = _mm256_cvtepu16_epi32(fours);
  const __m256i bytes = _mm256_or_si256(_mm256_and_si256(wide, _mm256_set1_epi32(0xff)),
                                        _mm256_slli_epi32(_mm256_and_si256(wide, _mm256_set1_epi32(0xff00)), 8));
  const __m256i low = _mm256_set1_epi32(0x000f000f), high = _mm256_set1_epi32(0x00f000f0);
  return _mm256_or_si256(_mm256_and_si256(bytes, low), _mm256_slli_epi32(_mm256_and_si256(bytes, high), 4));
}

/* The same of pack_4_bits. */
FAST static void pack_4_bits_of_all(const uint8_t *bytes, size_t stride, int64_t block, uint8_t *weights) {
  for (int64_t k = 0; k < block; k += 2 * PIECE_BYTES) {
    __m128i left[8], right[8];
    turn(bytes + k / 2, stride, left);
    turn(bytes + k / 2 + 8 * stride, stride, right);
#pragma GCC unroll 8
    for (int four = 0; four < 8; four++) {
      const __m256i both = _mm256_or_si256(spread(left[four]), _mm256_slli_epi32(spread(right[four]), 4));
      _mm256_storeu_si256((__m256i *)(weights + (k + 4 * four) * 8), both);
    }
  }
}

/* A column's scale and zero point of one block. */
static void pack_numbers(const MatrixShape *matrix, const float *scales, const uint8_t *zero_points, int64_t column,
                         int64_t block, uint8_t *record) {
  const int64_t lane = column % PANEL_COLUMNS;
  memcpy(record + scales_at(matrix) + lane * 4, &scales[column * num_blocks(matrix) + block], 4);
  if (matrix->has_zero_points) {
    const int16_t zero_point = (int16_t)zero_point_at(matrix, zero_points, column, block);
    memcpy(record + zero_points_at(matrix) + lane * 2, &zero_point, 2);
  }
}

void pack_matrix(const MatrixShape *matrix, const uint8_t *values, const float *scales, const uint8_t *zero_points,
                 uint8_t *packed) {
  const int64_t blocks = num_blocks(matrix), block_bytes = matrix->block * matrix->bits / 8;
  const int64_t column_bytes = blocks * block_bytes;
  const int has_8_bits = matrix->bits == 8;
  uint8_t *record = packed;
  for (int64_t first = 0; first < matrix->width; first += PANEL_COLUMNS) {
    const int64_t left = matrix->width - first, columns = left < PANEL_COLUMNS ? left : PANEL_COLUMNS;
    for (int64_t block = 0; block < blocks; block++, record += record_bytes(matrix)) {
      const uint8_t *weights = values + first * column_bytes + block * block_bytes;
      if (columns == PANEL_COLUMNS) {
        (has_8_bits ? pack_8_bits_of_all : pack_4_bits_of_all)(weights, (size_t)column_bytes, matrix->block, record);
      } else {
        memset(record, 0, record_bytes(matrix));
        for (int64_t lane = 0; lane < columns; lane++) {
          (has_8_bits ? pack_8_bits : pack_4_bits)(weights + lane * column_bytes, matrix->block, lane, record);
        }
      }
      for (int64_t lane = 0; lane < columns; lane++) {
        pack_numbers(matrix, scales, zero_points, first + lane, block, record);
      }
    }
  }
}
