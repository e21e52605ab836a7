/* Rows brought to 8 bits, block by block, see product.h. */
#include <math.h>
#include <string.h>

#include "product.h"
#include "record.h"
#include "vectors.h"

size_t scratch_bytes(const MatrixShape *matrix, int64_t num_rows) {
  return (size_t)num_rows * (row_bytes(matrix) + (size_t)num_blocks(matrix) * 8);
}

QuantizedRows rows_in(void *scratch, const MatrixShape *matrix, int64_t num_rows) {
  int8_t *steps = scratch;
  float *scales = (float *)(void *)(steps + (size_t)num_rows * row_bytes(matrix));
  return (QuantizedRows){steps, scales, (int32_t *)(void *)(scales + num_rows * num_blocks(matrix))};
}

/* The largest magnitude among `count` numbers, as bits: NaN is larger than infinity, and that than all others. */
INLINED int32_t largest_bits(const float *numbers, int64_t count) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i most = _mm256_setzero_si256();
  int64_t k = 0;
  for (; k + 8 <= count; k += 8) {
    const __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)(numbers + k));
    most = _mm256_max_epi32(most, _mm256_and_si256(bits, magnitude));
  }
  int32_t lanes[8], largest = 0;
  _mm256_storeu_si256((__m256i *)(void *)lanes, most);
  for (int lane = 0; lane < 8; lane++) largest = lanes[lane] > largest ? lanes[lane] : largest;
  for (; k < count; k++) {
    int32_t bits;
    memcpy(&bits, numbers + k, 4);
    bits &= 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  return largest;
}

/* Eight numbers as steps; returns them as eight integers. */
INLINED __m256i steps_of(const float *numbers, __m256 steps_by_number) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(numbers), steps_by_number));
}

/* One block of one row: `count` numbers, then zeros up to `block`; returns the sum of the steps. */
INLINED int32_t quantize_block(const float *numbers, int64_t count, int64_t block, float steps_by_number, int wide,
                               int8_t *steps) {
  const __m256 factor = _mm256_set1_ps(steps_by_number);
  __m256i sum = _mm256_setzero_si256();
  float last[16] = {0};
  for (int64_t k = 0; k < block; k += 16) {
    const float *source = numbers + k;
    if (k + 16 > count) {
      memset(last, 0, sizeof last);
      if (k < count) memcpy(last, source, (size_t)(count - k) * 4);
      source = last;
    }
    const __m256i low = steps_of(source, factor), high = steps_of(source + 8, factor);
    sum = _mm256_add_epi32(sum, _mm256_add_epi32(low, high));
    const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8);
    if (wide) {
      _mm256_storeu_si256((__m256i *)(void *)(steps + k * 2), both);
    } else {
      const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
      _mm_storeu_si128((__m128i *)(void *)(steps + k), bytes);
    }
  }
  int32_t lanes[8], total = 0;
  _mm256_storeu_si256((__m256i *)(void *)lanes, sum);
  for (int lane = 0; lane < 8; lane++) total += lanes[lane];
  return total;
}

FAST void quantize_rows(const MatrixShape *matrix, const float *input, int64_t first_row, int64_t end_row, int64_t start,
                        int64_t end, QuantizedRows rows) {
  const int64_t blocks = num_blocks(matrix), end_block = (end + matrix->block - 1) / matrix->block;
  const int wide = matrix->bits == 8;
  for (int64_t row = first_row; row < end_row; row++) {
    for (int64_t block = start / matrix->block; block < end_block; block++) {
      const int64_t first = block * matrix->block;
      const int64_t left = matrix->depth - first, count = left < matrix->block ? left : matrix->block;
      const float *numbers = input + row * matrix->depth + first;
      const int32_t bits = largest_bits(numbers, count);
      float largest;
      memcpy(&largest, &bits, 4);
      /* Too small to be divided by: it counts as zero. NaN and infinity are told by the scale alone. */
      const int is_number = bits < 0x7f800000, is_zero = largest < 1e-30f;
      const float factor = is_number && !is_zero ? 127.0f / largest : 0.0f;
      const float scale = !is_number ? NAN : is_zero ? 0.0f : largest / 127.0f;
      int8_t *steps = rows.steps + (size_t)row * row_bytes(matrix) + (size_t)first * step_bytes(matrix);
      rows.scales[row * blocks + block] = scale;
      if (is_number) {
        rows.sums[row * blocks + block] = quantize_block(numbers, count, matrix->block, factor, wide, steps);
      } else {
        memset(steps, 0, (size_t)matrix->block * step_bytes(matrix));
        rows.sums[row * blocks + block] = 0;
      }
    }
  }
}
