/* See float_product.h. Each function that needs AVX2 says so itself: loading this on an older processor does no harm. */
#include "float_product.h"

#if !defined(__x86_64__)
#error "these products are written for x86-64"
#endif

#include <immintrin.h>
#include <string.h>

#define FAST __attribute__((target("avx2,fma")))
#define INLINED FAST static inline __attribute__((always_inline))

/* Six rows by 16 columns fill twelve of the sixteen registers: with fewer a sum would be waited for. */
enum { TILE_ROWS = 6, GROUP_COLUMNS = 8 };

/* Of many rows so much of the depth is worked on at once: six rows of it and a panel's part stay in the caches. */
enum { PIECE_DEPTH = 512 };

/* How far ahead of their use weights are asked for where each is used once; and what is read at once. */
enum { AHEAD_BYTES = 512, LINE_BYTES = 64 };

/* One tile's place: its rows of the input and of the output, and what is asked for meanwhile. */
typedef struct {
  const float *weights, *input;
  float *output;
  int64_t depth, input_stride, output_stride;
  uintptr_t ahead, ahead_step; /* address of what is used soon, and how many bytes of it for each of the depth */
  int goes_on;                 /* whether the output holds the sum of what was before */
} Tile;

int float_product_is_wanted(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && !__builtin_cpu_supports("avx512f");
}

int float_matrix_is_valid(const FloatMatrixShape *matrix) {
  const int64_t largest = INT64_C(1) << 31;
  return matrix->depth > 0 && matrix->depth < largest && matrix->width > 0 && matrix->width < largest;
}

int64_t num_float_panels(const FloatMatrixShape *matrix) {
  return (matrix->width + FLOAT_PANEL_COLUMNS - 1) / FLOAT_PANEL_COLUMNS;
}

size_t packed_float_bytes(const FloatMatrixShape *matrix) {
  return (size_t)num_float_panels(matrix) * (size_t)matrix->depth * FLOAT_PANEL_COLUMNS * sizeof(float);
}

void pack_float_matrix(const FloatMatrixShape *matrix, const uint8_t *values, int64_t row_step, int64_t column_step,
                       float *packed) {
  for (int64_t first = 0; first < matrix->width; first += FLOAT_PANEL_COLUMNS) {
    const int64_t left = matrix->width - first;
    const int64_t columns = left < FLOAT_PANEL_COLUMNS ? left : FLOAT_PANEL_COLUMNS;
    for (int64_t k = 0; k < matrix->depth; k++, packed += FLOAT_PANEL_COLUMNS) {
      const uint8_t *source = values + k * row_step + first * column_step;
      memset(packed, 0, FLOAT_PANEL_COLUMNS * sizeof(float));
      for (int64_t lane = 0; lane < columns; lane++) memcpy(packed + lane, source + lane * column_step, sizeof(float));
    }
  }
}

/* `num_rows` rows, a constant up to TILE_ROWS, by a piece of one panel. */
INLINED void multiply_tile(const Tile *tile, int num_rows) {
  const float *weights = tile->weights, *input = tile->input;
  const int64_t depth = tile->depth, stride = tile->input_stride;
  const uintptr_t ahead = tile->ahead, step = tile->ahead_step;
  __m256 sums[TILE_ROWS][2];
#pragma GCC unroll 6
  for (int row = 0; row < num_rows; row++) {
    const float *before = tile->output + row * tile->output_stride;
    sums[row][0] = tile->goes_on ? _mm256_loadu_ps(before) : _mm256_setzero_ps();
    sums[row][1] = tile->goes_on ? _mm256_loadu_ps(before + GROUP_COLUMNS) : _mm256_setzero_ps();
    /* The next tile's output: its lines are waited for otherwise. */
    _mm_prefetch((const char *)((uintptr_t)before + (uintptr_t)(num_rows * tile->output_stride) * sizeof(float)),
                 _MM_HINT_T0);
  }
#pragma GCC unroll 4
  for (int64_t k = 0; k < depth; k++) {
    _mm_prefetch((const char *)(ahead + (uintptr_t)k * step), _MM_HINT_T0);
    const __m256 left = _mm256_loadu_ps(weights + k * FLOAT_PANEL_COLUMNS);
    const __m256 right = _mm256_loadu_ps(weights + k * FLOAT_PANEL_COLUMNS + GROUP_COLUMNS);
#pragma GCC unroll 6
    for (int row = 0; row < num_rows; row++) {
      const __m256 number = _mm256_broadcast_ss(input + row * stride + k);
      sums[row][0] = _mm256_fmadd_ps(number, left, sums[row][0]);
      sums[row][1] = _mm256_fmadd_ps(number, right, sums[row][1]);
    }
  }
#pragma GCC unroll 6
  for (int row = 0; row < num_rows; row++) {
    _mm256_storeu_ps(tile->output + row * tile->output_stride, sums[row][0]);
    _mm256_storeu_ps(tile->output + row * tile->output_stride + GROUP_COLUMNS, sums[row][1]);
  }
}

typedef void TileProduct(const Tile *);

#define TILE_PRODUCT(ROWS) \
  FAST static void multiply_##ROWS(const Tile *tile) { multiply_tile(tile, ROWS); }

TILE_PRODUCT(1)
TILE_PRODUCT(2)
TILE_PRODUCT(3)
TILE_PRODUCT(4)
TILE_PRODUCT(5)
TILE_PRODUCT(6)

static TileProduct *const TILES[TILE_ROWS] = {multiply_1, multiply_2, multiply_3, multiply_4, multiply_5, multiply_6};

/* A tile whose panel has `columns` columns only: what is behind them is another row's. */
static void multiply_narrow_tile(Tile tile, int64_t num_rows, size_t columns) {
  float sums[TILE_ROWS][FLOAT_PANEL_COLUMNS] = {{0}}, *output = tile.output;
  const int64_t stride = tile.output_stride;
  for (int64_t row = 0; row < num_rows && tile.goes_on; row++) {
    memcpy(sums[row], output + row * stride, columns * sizeof(float));
  }
  tile.output = sums[0];
  tile.output_stride = FLOAT_PANEL_COLUMNS;
  TILES[num_rows - 1](&tile);
  for (int64_t row = 0; row < num_rows; row++) memcpy(output + row * stride, sums[row], columns * sizeof(float));
}

/* All rows by a piece of one panel. While they are worked on, the weights of the next panel come: a share with each. */
static void multiply_piece(const FloatMatrixShape *matrix, const Tile *first_tile, int64_t num_rows, int64_t tiles,
                           int64_t column) {
  const int64_t left = matrix->width - column;
  const uintptr_t share = (uintptr_t)((LINE_BYTES + tiles - 1) / tiles);
  for (int64_t index = 0; index < tiles; index++) {
    const int64_t row = index * num_rows / tiles, rows = (index + 1) * num_rows / tiles - row;
    Tile tile = *first_tile;
    tile.input += row * tile.input_stride;
    tile.output += row * tile.output_stride;
    if (tiles > 1) {
      tile.ahead += (uintptr_t)index * share * (uintptr_t)tile.depth;
      tile.ahead_step = share;
    }
    if (left < FLOAT_PANEL_COLUMNS) {
      multiply_narrow_tile(tile, rows, (size_t)left);
    } else {
      TILES[rows - 1](&tile);
    }
  }
}

void multiply_float_panels(const FloatMatrixShape *matrix, const float *packed, const float *input, int64_t first_row,
                           int64_t end_row, int64_t first_panel, int64_t end_panel, float *output) {
  const int64_t num_rows = end_row - first_row, tiles = (num_rows + TILE_ROWS - 1) / TILE_ROWS;
  const int64_t piece = tiles > 1 ? PIECE_DEPTH : matrix->depth;
  const uintptr_t panel_bytes = (uintptr_t)matrix->depth * FLOAT_PANEL_COLUMNS * sizeof(float);
  for (int64_t first = 0; first < matrix->depth; first += piece) {
    const int64_t left = matrix->depth - first, depth = left < piece ? left : piece;
    for (int64_t panel = first_panel; panel < end_panel; panel++) {
      const int64_t column = panel * FLOAT_PANEL_COLUMNS;
      const float *weights = packed + (panel * matrix->depth + first) * FLOAT_PANEL_COLUMNS;
      const Tile tile = {
          .weights = weights,
          .input = input + first_row * matrix->depth + first,
          .output = output + first_row * matrix->width + column,
          .depth = depth,
          .input_stride = matrix->depth,
          .output_stride = matrix->width,
          .ahead = (uintptr_t)weights + (tiles > 1 ? panel_bytes : AHEAD_BYTES),
          .ahead_step = LINE_BYTES,
          .goes_on = first > 0,
      };
      multiply_piece(matrix, &tile, num_rows, tiles, column);
    }
  }
}
