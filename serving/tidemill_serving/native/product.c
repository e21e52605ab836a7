/* See product.h. Each function that needs AVX2 says so itself: loading this on an older processor does no harm. */
#include "product.h"

#include <cpuid.h>
#include <string.h>

#include "record.h"
#include "rows.h"
#include "vectors.h"

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

/* Rows of one tile: each a pointer for its steps, scales and sums; and where their sixteen numbers go. */
typedef struct {
  const int8_t *steps[TILE_ROWS];
  const float *scales[TILE_ROWS];
  const int32_t *sums[TILE_ROWS];
  float *output; /* of the first row */
  int64_t stride, num_blocks;
} Tile;

/* Sums of products of 32 of the depth with 8-bit weights: for each two of them one vpmaddwd. */
INLINED void sum_8_bits(const uint8_t *weights, const Tile *tile, int num_rows, int64_t first, int is_first,
                        __m256i sums[TILE_ROWS][GROUPS]) {
  const __m128i *source = (const __m128i *)(const void *)weights;
#pragma GCC unroll 16
  for (int k = 0; k < 32; k += 2) {
    if (k * PANEL_COLUMNS % LINE_BYTES == 0) _mm_prefetch((const char *)(source + k) + AHEAD_BYTES, _MM_HINT_T0);
    const __m256i left = _mm256_cvtepi8_epi16(_mm_loadu_si128(source + k));
    const __m256i right = _mm256_cvtepi8_epi16(_mm_loadu_si128(source + k + 1));
#pragma GCC unroll 4
    for (int row = 0; row < num_rows; row++) {
      int32_t two;
      memcpy(&two, tile->steps[row] + (first + k) * 2, 4);
      const __m256i steps = _mm256_set1_epi32(two);
      const __m256i low = _mm256_madd_epi16(steps, left), high = _mm256_madd_epi16(steps, right);
      sums[row][0] = is_first && k == 0 ? low : _mm256_add_epi32(sums[row][0], low);
      sums[row][1] = is_first && k == 0 ? high : _mm256_add_epi32(sums[row][1], high);
      KEEP(sums[row]);
    }
  }
}

/* The same of 4-bit weights, 0 to 15: 16 bits hold the sum of 16 products
 * (16 * 15 * 127 = 30,480), and of 32 there are two such sums. */
INLINED void sum_4_bits(const uint8_t *weights, const Tile *tile, int num_rows, int64_t first, int is_first,
                        __m256i sums[TILE_ROWS][GROUPS]) {
  const __m256i low_half = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
  __m256i short_sums[TILE_ROWS][GROUPS];
#pragma GCC unroll 8
  for (int k = 0; k < 32; k += 4) {
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
      const __m256i low = _mm256_maddubs_epi16(left, steps), high = _mm256_maddubs_epi16(right, steps);
      short_sums[row][0] = k == 0 ? low : _mm256_add_epi16(short_sums[row][0], low);
      short_sums[row][1] = k == 0 ? high : _mm256_add_epi16(short_sums[row][1], high);
      KEEP(short_sums[row]);
    }
  }
#pragma GCC unroll 4
  for (int row = 0; row < num_rows; row++) {
#pragma GCC unroll 2
    for (int group = 0; group < GROUPS; group++) {
      const __m256i sum = _mm256_madd_epi16(short_sums[row][group], ones);
      sums[row][group] = is_first ? sum : _mm256_add_epi32(sums[row][group], sum);
    }
  }
}

/* Sums of products of a block. */
INLINED void sum_block(const uint8_t *weights, const Tile *tile, int num_rows, int bits, int64_t first, int64_t block,
                       __m256i sums[TILE_ROWS][GROUPS]) {
  if (bits == 8) {
    sum_8_bits(weights, tile, num_rows, first, 1, sums);
    for (int64_t start = 32; start < block; start += 32)
      sum_8_bits(weights + start * PANEL_COLUMNS, tile, num_rows, first + start, 0, sums);
  } else {
    sum_4_bits(weights, tile, num_rows, first, 1, sums);
    for (int64_t start = 32; start < block; start += 32)
      sum_4_bits(weights + start * GROUP_COLUMNS, tile, num_rows, first + start, 0, sums);
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
INLINED void multiply_tile(const MatrixShape *matrix, const uint8_t *panel, const Tile *tile, int num_rows, int bits,
                           int has_points) {
  const int64_t blocks = tile->num_blocks, block_depth = matrix->block;
  const size_t bytes = record_bytes(matrix), scales_offset = scales_at(matrix);
  __m256 results[TILE_ROWS][GROUPS];
#pragma GCC unroll 4
  for (int row = 0; row < num_rows; row++) results[row][0] = results[row][1] = _mm256_setzero_ps();
  for (int64_t block = 0; block < blocks; block++, panel += bytes) {
    __m256i sums[TILE_ROWS][GROUPS];
    sum_block(panel, tile, num_rows, bits, block * block_depth, block_depth, sums);
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
    _mm256_storeu_ps(tile->output + row * tile->stride, results[row][0]);
    _mm256_storeu_ps(tile->output + row * tile->stride + GROUP_COLUMNS, results[row][1]);
  }
}

typedef void TileProduct(const MatrixShape *, const uint8_t *, const Tile *);

#define TILE_PRODUCT(BITS, POINTS, ROWS)                                                            \
  FAST static void tile_##BITS##_##POINTS##_##ROWS(const MatrixShape *matrix, const uint8_t *panel, \
                                                   const Tile *tile) {                              \
    multiply_tile(matrix, panel, tile, ROWS, BITS, POINTS);                                         \
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

/* Some rows by one panel, in tiles as even as can be: `out` [rows][stride]. */
static void multiply_rows(const MatrixShape *matrix, const uint8_t *panel, QuantizedRows rows, int64_t first_row,
                          int64_t end_row, int64_t stride, float *out) {
  TileProduct *const *products = TILES[matrix->bits == 4][matrix->has_zero_points];
  const int64_t count = end_row - first_row, tiles = (count + TILE_ROWS - 1) / TILE_ROWS;
  Tile tile = {.stride = stride, .num_blocks = num_blocks(matrix)};
  for (int64_t index = 0; index < tiles; index++) {
    const int64_t first = index * count / tiles, num_rows = (index + 1) * count / tiles - first;
    for (int64_t each = 0; each < num_rows; each++) {
      const int64_t row = first_row + first + each;
      tile.steps[each] = rows.steps + (size_t)row * row_bytes(matrix);
      tile.scales[each] = rows.scales + row * tile.num_blocks;
      tile.sums[each] = rows.sums + row * tile.num_blocks;
    }
    tile.output = out + first * stride;
    products[num_rows - 1](matrix, panel, &tile);
  }
}

static int64_t columns_of(const MatrixShape *matrix, int64_t panel) {
  const int64_t left = matrix->width - panel * PANEL_COLUMNS;
  return left < PANEL_COLUMNS ? left : PANEL_COLUMNS;
}

/* From a panel's own rows to where they belong. */
static void write_columns(const float *from, int64_t num_rows, int64_t columns, int64_t stride, float *to) {
  for (int64_t row = 0; row < num_rows; row++)
    memcpy(to + row * stride, from + row * PANEL_COLUMNS, (size_t)columns * sizeof *to);
}

void multiply_panels(const MatrixShape *matrix, const uint8_t *packed, const float *bias, QuantizedRows rows, Part part,
                     float *output) {
  const size_t panel_bytes = (size_t)num_blocks(matrix) * record_bytes(matrix);
  const int64_t num_rows = part.end_row - part.first_row;
  for (int64_t panel = part.first_panel; panel < part.end_panel; panel++) {
    const int64_t column = panel * PANEL_COLUMNS, columns = columns_of(matrix, panel);
    const uint8_t *weights = packed + (size_t)panel * panel_bytes;
    float *target = output + part.first_row * matrix->width + column;
    if (columns == PANEL_COLUMNS) {
      multiply_rows(matrix, weights, rows, part.first_row, part.end_row, matrix->width, target);
    } else {
      float narrow[MOST_PART_ROWS * PANEL_COLUMNS];
      multiply_rows(matrix, weights, rows, part.first_row, part.end_row, PANEL_COLUMNS, narrow);
      write_columns(narrow, num_rows, columns, matrix->width, target);
    }
    for (int64_t row = 0; bias != NULL && row < num_rows; row++)
      for (int64_t lane = 0; lane < columns; lane++) target[row * matrix->width + lane] += bias[column + lane];
  }
}

void multiply_gated_panels(const MatrixShape *matrix, const uint8_t *gate, const uint8_t *up, QuantizedRows rows,
                           Part part, float *output) {
  const size_t panel_bytes = (size_t)num_blocks(matrix) * record_bytes(matrix);
  const int64_t num_rows = part.end_row - part.first_row;
  float gates[MOST_PART_ROWS * PANEL_COLUMNS], ups[MOST_PART_ROWS * PANEL_COLUMNS];
  for (int64_t panel = part.first_panel; panel < part.end_panel; panel++) {
    const size_t place = (size_t)panel * panel_bytes;
    multiply_rows(matrix, gate + place, rows, part.first_row, part.end_row, PANEL_COLUMNS, gates);
    multiply_rows(matrix, up + place, rows, part.first_row, part.end_row, PANEL_COLUMNS, ups);
    gate_numbers(gates, ups, num_rows * PANEL_COLUMNS, ups);
    write_columns(ups, num_rows, columns_of(matrix, panel), matrix->width,
                  output + part.first_row * matrix->width + panel * PANEL_COLUMNS);
  }
}
