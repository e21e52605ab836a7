/* See product.h. Each function that needs AVX2 says so itself: loading this on an older processor does no harm. */
#include "product.h"

#if !defined(__x86_64__)
#error "these products are written for x86-64"
#endif

#include <cpuid.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "record.h"

#define FAST __attribute__((target("avx2,fma")))
#define INLINED FAST static inline __attribute__((always_inline))

/* Keeps a sum in its register, and the compiler from working on all rows at once: it would run out of registers. */
#define KEEP(sums) __asm__ volatile("" : "+x"((sums)[0]), "+x"((sums)[1]))

enum { TILE_ROWS = 4, GROUPS = 2, GROUP_COLUMNS = 8 };

/* How far ahead of their use weights are asked for: the processor's own reading ahead ends at each page. */
enum { AHEAD_BYTES = 1024, LINE_BYTES = 64 };


int product_runs_here(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

/* With VNNI ONNX Runtime's own kernels are as fast. */
static int has_vnni(void) {
  unsigned int a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
  const int with_avx512 = c >> 11 & 1;
  return with_avx512 || (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1));
}

int product_is_wanted(void) { return product_runs_here() && !has_vnni(); }

/* Eight-bit weights meet steps of two bytes: vpmaddwd then adds two products without overflow. */
static size_t step_bytes(const MatrixShape *matrix) { return matrix->bits == 8 ? 2 : 1; }

static size_t row_bytes(const MatrixShape *matrix) {
  return (size_t)(num_blocks(matrix) * matrix->block) * step_bytes(matrix);
}

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

FAST void quantize_rows(const MatrixShape *matrix, const float *input, int64_t first_row, int64_t end_row,
                        QuantizedRows rows) {
  const int64_t blocks = num_blocks(matrix);
  const int wide = matrix->bits == 8;
  for (int64_t row = first_row; row < end_row; row++) {
    for (int64_t block = 0; block < blocks; block++) {
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

/* Rows of one tile: each a pointer for its steps, scales and sums. */
typedef struct {
  const int8_t *steps[TILE_ROWS];
  const float *scales[TILE_ROWS];
  const int32_t *sums[TILE_ROWS];
} TileRows;

/* Sums of products of a block of 8-bit weights: for each two of the depth one vpmaddwd. */
INLINED void sum_block_of_8_bits(const uint8_t *weights, const TileRows *tile, int num_rows, int64_t first,
                                 int64_t block, __m256i sums[TILE_ROWS][GROUPS]) {
  for (int64_t start = 0; start < block; start += 32) {
    const __m128i *source = (const __m128i *)(const void *)(weights + start * PANEL_COLUMNS);
#pragma GCC unroll 16
    for (int k = 0; k < 32; k += 2) {
      if (k * PANEL_COLUMNS % LINE_BYTES == 0) _mm_prefetch((const char *)(source + k) + AHEAD_BYTES, _MM_HINT_T0);
      const __m256i left = _mm256_cvtepi8_epi16(_mm_loadu_si128(source + k));
      const __m256i right = _mm256_cvtepi8_epi16(_mm_loadu_si128(source + k + 1));
#pragma GCC unroll 4
      for (int row = 0; row < num_rows; row++) {
        int32_t two;
        memcpy(&two, tile->steps[row] + (first + start + k) * 2, 4);
        const __m256i steps = _mm256_set1_epi32(two);
        sums[row][0] = _mm256_add_epi32(sums[row][0], _mm256_madd_epi16(steps, left));
        sums[row][1] = _mm256_add_epi32(sums[row][1], _mm256_madd_epi16(steps, right));
        KEEP(sums[row]);
      }
    }
  }
}

/* The same of 4-bit weights, 0 to 15: 16 bits hold the sum of 16 products
 * (16 * 15 * 127 = 30,480), and of 32 there are two such sums. */
INLINED void sum_block_of_4_bits(const uint8_t *weights, const TileRows *tile, int num_rows, int64_t first,
                                 int64_t block, __m256i sums[TILE_ROWS][GROUPS]) {
  const __m256i low_half = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  for (int64_t start = 0; start < block; start += 32) {
    __m256i short_sums[TILE_ROWS][GROUPS];
#pragma GCC unroll 4
    for (int row = 0; row < num_rows; row++) short_sums[row][0] = short_sums[row][1] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (int64_t k = start; k < start + 32; k += 4) {
      const uint8_t *source = weights + k * GROUP_COLUMNS;
      if (k * GROUP_COLUMNS % LINE_BYTES == 0) _mm_prefetch((const char *)source + AHEAD_BYTES, _MM_HINT_T0);
      const __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)source);
      const __m256i left = _mm256_and_si256(both, low_half);
      const __m256i right = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_half);
#pragma GCC unroll 4
      for (int row = 0; row < num_rows; row++) {
        int32_t four;
        memcpy(&four, tile->steps[row] + first + k, 4);
        const __m256i steps = _mm256_set1_epi32(four);
        short_sums[row][0] = _mm256_add_epi16(short_sums[row][0], _mm256_maddubs_epi16(left, steps));
        short_sums[row][1] = _mm256_add_epi16(short_sums[row][1], _mm256_maddubs_epi16(right, steps));
        KEEP(short_sums[row]);
      }
    }
#pragma GCC unroll 4
    for (int row = 0; row < num_rows; row++) {
      sums[row][0] = _mm256_add_epi32(sums[row][0], _mm256_madd_epi16(short_sums[row][0], ones));
      sums[row][1] = _mm256_add_epi32(sums[row][1], _mm256_madd_epi16(short_sums[row][1], ones));
    }
  }
}

/* What the zero points take away from the sums of a row: the point times the sum of the row's steps. */
INLINED void subtract_zero_points(const uint8_t *record, const MatrixShape *matrix, int has_points, int32_t sum,
                                  __m256i sums[GROUPS]) {
  if (has_points) {
    const __m128i *points = (const __m128i *)(const void *)(record + zero_points_at(matrix));
    for (int group = 0; group < GROUPS; group++) {
      const __m256i point = _mm256_cvtepi16_epi32(_mm_loadu_si128(points + group));
      sums[group] = _mm256_sub_epi32(sums[group], _mm256_mullo_epi32(point, _mm256_set1_epi32(sum)));
    }
  } else { /* 4 bits without points: 8 */
    for (int group = 0; group < GROUPS; group++) sums[group] = _mm256_sub_epi32(sums[group], _mm256_set1_epi32(sum * 8));
  }
}

/* `num_rows` rows, a constant up to TILE_ROWS, by one panel; `out` [rows][PANEL_COLUMNS]. */
INLINED void multiply_tile(const MatrixShape *matrix, const uint8_t *panel, const TileRows *tile, int num_rows, int bits,
                           int has_points, float out[TILE_ROWS][PANEL_COLUMNS]) {
  const int64_t blocks = num_blocks(matrix), block_depth = matrix->block;
  const size_t bytes = record_bytes(matrix), scales_offset = scales_at(matrix);
  __m256 results[TILE_ROWS][GROUPS];
#pragma GCC unroll 4
  for (int row = 0; row < num_rows; row++) results[row][0] = results[row][1] = _mm256_setzero_ps();
  for (int64_t block = 0; block < blocks; block++, panel += bytes) {
    __m256i sums[TILE_ROWS][GROUPS];
#pragma GCC unroll 4
    for (int row = 0; row < num_rows; row++) sums[row][0] = sums[row][1] = _mm256_setzero_si256();
    if (bits == 8) {
      sum_block_of_8_bits(panel, tile, num_rows, block * block_depth, block_depth, sums);
    } else {
      sum_block_of_4_bits(panel, tile, num_rows, block * block_depth, block_depth, sums);
    }
    const float *scales = (const float *)(const void *)(panel + scales_offset);
    const __m256 left = _mm256_loadu_ps(scales), right = _mm256_loadu_ps(scales + GROUP_COLUMNS);
#pragma GCC unroll 4
    for (int row = 0; row < num_rows; row++) {
      if (bits == 4 || has_points) subtract_zero_points(panel, matrix, has_points, tile->sums[row][block], sums[row]);
      const __m256 scale = _mm256_set1_ps(tile->scales[row][block]);
      results[row][0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[row][0]), _mm256_mul_ps(scale, left), results[row][0]);
      results[row][1] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[row][1]), _mm256_mul_ps(scale, right), results[row][1]);
    }
  }
#pragma GCC unroll 4
  for (int row = 0; row < num_rows; row++) {
    _mm256_storeu_ps(out[row], results[row][0]);
    _mm256_storeu_ps(out[row] + GROUP_COLUMNS, results[row][1]);
  }
}

typedef void TileProduct(const MatrixShape *, const uint8_t *, const TileRows *, float[TILE_ROWS][PANEL_COLUMNS]);

#define TILE_PRODUCT(BITS, POINTS, ROWS)                                                                     \
  FAST static void tile_##BITS##_##POINTS##_##ROWS(const MatrixShape *matrix, const uint8_t *panel,          \
                                                   const TileRows *tile, float out[TILE_ROWS][PANEL_COLUMNS]) { \
    multiply_tile(matrix, panel, tile, ROWS, BITS, POINTS, out);                                             \
  }
#define TILE_PRODUCTS(BITS, POINTS) \
  TILE_PRODUCT(BITS, POINTS, 1)     \
  TILE_PRODUCT(BITS, POINTS, 2)     \
  TILE_PRODUCT(BITS, POINTS, 3)     \
  TILE_PRODUCT(BITS, POINTS, 4)
#define NAMES(BITS, POINTS) \
  {tile_##BITS##_##POINTS##_1, tile_##BITS##_##POINTS##_2, tile_##BITS##_##POINTS##_3, tile_##BITS##_##POINTS##_4}

TILE_PRODUCTS(8, 0)
TILE_PRODUCTS(8, 1)
TILE_PRODUCTS(4, 0)
TILE_PRODUCTS(4, 1)

/* By whether the weights have 4 bits, whether there are zero points, and the number of rows less one. */
static TileProduct *const TILES[2][2][TILE_ROWS] = {{NAMES(8, 0), NAMES(8, 1)}, {NAMES(4, 0), NAMES(4, 1)}};

static TileRows tile_of(const MatrixShape *matrix, QuantizedRows rows, int64_t first_row, int64_t num_rows) {
  TileRows tile = {{0}, {0}, {0}};
  const int64_t blocks = num_blocks(matrix);
  for (int64_t row = 0; row < num_rows; row++) {
    tile.steps[row] = rows.steps + (size_t)(first_row + row) * row_bytes(matrix);
    tile.scales[row] = rows.scales + (first_row + row) * blocks;
    tile.sums[row] = rows.sums + (first_row + row) * blocks;
  }
  return tile;
}

void multiply_panels(const MatrixShape *matrix, const uint8_t *packed, QuantizedRows rows, int64_t first_row,
                     int64_t end_row, int64_t first_panel, int64_t end_panel, float *output) {
  const size_t panel_bytes = (size_t)num_blocks(matrix) * record_bytes(matrix);
  for (int64_t panel = first_panel; panel < end_panel; panel++) {
    const int64_t column = panel * PANEL_COLUMNS, left = matrix->width - column;
    const size_t columns = (size_t)(left < PANEL_COLUMNS ? left : PANEL_COLUMNS);
    for (int64_t row = first_row; row < end_row; row += TILE_ROWS) {
      const int64_t num_rows = end_row - row < TILE_ROWS ? end_row - row : TILE_ROWS;
      const TileRows tile = tile_of(matrix, rows, row, num_rows);
      float out[TILE_ROWS][PANEL_COLUMNS];
      TILES[matrix->bits == 4][matrix->has_zero_points][num_rows - 1](matrix, packed + (size_t)panel * panel_bytes,
                                                                       &tile, out);
      for (int64_t each = 0; each < num_rows; each++) {
        memcpy(output + (row + each) * matrix->width + column, out[each], columns * sizeof(float));
      }
    }
  }
}
