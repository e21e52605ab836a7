/* See attention.h. Each function that needs AVX2 says so itself: loading this on an older processor does no harm. */
#include "attention.h"

#include <math.h>
#include <string.h>

#include "vectors.h"

enum { BLOCK = 64, TILE_ROWS = 3, MOST_SUMS = 12, MOST_ROWS = 32 };

/* What is known of one query after some blocks: the largest score, the sum of the weights, and the weighted values. */
typedef struct {
  float largest, sum;
  float output[LARGEST_HEAD];
} Row;

int attention_runs_here(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

int attention_is_valid(const AttentionShape *shape) {
  return shape->num_kv_heads > 0 && shape->num_heads > 0 && shape->num_heads % shape->num_kv_heads == 0 &&
         shape->num_heads / shape->num_kv_heads <= MOST_HEADS_OF_A_GROUP && shape->head_size > 0 &&
         shape->head_size % LANES == 0 && shape->head_size <= LARGEST_HEAD && shape->capacity > 0 &&
         shape->rotary_size >= 0 && shape->rotary_size % 2 == 0 && shape->rotary_size <= shape->head_size &&
         (shape->rotary_interleaved == 0 || shape->rotary_interleaved == 1);
}

FAST void turn_heads(const AttentionShape *shape, const float *cosines, const float *sines, const float *source,
                     int64_t num_heads, float *restrict target) {
  const int64_t half = shape->rotary_size / 2;
  const int64_t step = shape->rotary_interleaved ? 2 : 1, other = shape->rotary_interleaved ? 1 : half;
  for (int64_t head = 0; head < num_heads; head++) {
    const float *from = source + head * shape->head_size;
    float *to = target + head * shape->head_size;
    for (int64_t pair = 0; pair < half; pair++) {
      const float left = from[pair * step], right = from[pair * step + other];
      to[pair * step] = left * cosines[pair] - right * sines[pair];
      to[pair * step + other] = right * cosines[pair] + left * sines[pair];
    }
    memcpy(to + shape->rotary_size, from + shape->rotary_size,
           (size_t)(shape->head_size - shape->rotary_size) * sizeof *to);
  }
}

FAST void append_token(const AttentionShape *shape, const Sequence *sequence, int64_t kv_head, int64_t position,
                       const float *cosines, const float *sines, const float *key, const float *value) {
  const int64_t place = (kv_head * shape->capacity + position) * shape->head_size;
  turn_heads(shape, cosines, sines, key, 1, sequence->keys + place);
  memcpy(sequence->values + place, value, (size_t)shape->head_size * sizeof *value);
}

/* The eight sums of the lanes of eight vectors, by one tree for all. */
INLINED __m256 sums_of_lanes(const __m256 parts[LANES]) {
  const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(parts[0], parts[1]), _mm256_unpackhi_ps(parts[0], parts[1]));
  const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(parts[2], parts[3]), _mm256_unpackhi_ps(parts[2], parts[3]));
  const __m256 ef = _mm256_add_ps(_mm256_unpacklo_ps(parts[4], parts[5]), _mm256_unpackhi_ps(parts[4], parts[5]));
  const __m256 gh = _mm256_add_ps(_mm256_unpacklo_ps(parts[6], parts[7]), _mm256_unpackhi_ps(parts[6], parts[7]));
  const __m256 abcd = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
  const __m256 efgh = _mm256_add_ps(_mm256_shuffle_ps(ef, gh, 0x44), _mm256_shuffle_ps(ef, gh, 0xee));
  return _mm256_add_ps(_mm256_permute2f128_ps(abcd, efgh, 0x20), _mm256_permute2f128_ps(abcd, efgh, 0x31));
}

INLINED float largest_lane(__m256 x) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_shuffle_ps(half, half, 1)));
}

/* The scores of one query and the first `count` keys of a block; behind them up to a whole vector minus infinity. */
INLINED void score(const float *query, const float *keys, int64_t count, int64_t size, float scale, float *scores) {
  for (int64_t first = 0; first < count; first += LANES) {
    const float *rows[LANES];
    __m256 parts[LANES];
#pragma GCC unroll 8
    for (int lane = 0; lane < LANES; lane++) {
      const int64_t key = first + lane < count ? first + lane : count - 1; /* nothing is read behind the last */
      rows[lane] = keys + key * size;
      parts[lane] = _mm256_setzero_ps();
    }
    for (int64_t d = 0; d < size; d += LANES) {
      const __m256 part = _mm256_loadu_ps(query + d);
#pragma GCC unroll 8
      for (int lane = 0; lane < LANES; lane++)
        parts[lane] = _mm256_fmadd_ps(part, _mm256_loadu_ps(rows[lane] + d), parts[lane]);
    }
    __m256 found = _mm256_mul_ps(sums_of_lanes(parts), _mm256_set1_ps(scale));
    if (first + LANES > count) {
      const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
      const __m256i left = _mm256_set1_epi32((int)(count - first));
      const __m256 is_there = _mm256_castsi256_ps(_mm256_cmpgt_epi32(left, lanes));
      found = _mm256_blendv_ps(_mm256_set1_ps(-INFINITY), found, is_there);
    }
    _mm256_storeu_ps(scores + first, found);
  }
}

/* Make weights of a block's scores, and bring what the row has so far to the new largest score. */
INLINED void weigh(float *scores, int64_t count, int64_t size, Row *row) {
  __m256 most = _mm256_set1_ps(-INFINITY);
  for (int64_t first = 0; first < count; first += LANES) most = _mm256_max_ps(most, _mm256_loadu_ps(scores + first));
  const float in_block = largest_lane(most);
  const float largest = in_block > row->largest ? in_block : row->largest;
  const __m256 base = _mm256_set1_ps(largest);
  __m256 sum = _mm256_setzero_ps();
  for (int64_t first = 0; first < count; first += LANES) {
    const __m256 found = _mm256_loadu_ps(scores + first);
    const __m256 none = _mm256_cmp_ps(found, _mm256_set1_ps(-INFINITY), _CMP_EQ_OQ);
    const __m256 weights = _mm256_andnot_ps(none, exponentials(_mm256_sub_ps(found, base)));
    sum = _mm256_add_ps(sum, weights);
    _mm256_storeu_ps(scores + first, weights);
  }
  if (row->largest != largest) {
    const __m256 factor = exponentials(_mm256_set1_ps(row->largest - largest));
    row->sum *= _mm256_cvtss_f32(factor);
    for (int64_t d = 0; d < size; d += LANES)
      _mm256_storeu_ps(row->output + d, _mm256_mul_ps(_mm256_loadu_ps(row->output + d), factor));
    row->largest = largest;
  }
  row->sum += sum_of_lanes(sum);
}

/* Add a block's values by their weights: `num_rows` rows, and `num_vectors` vectors of each from `d` on. */
INLINED void add_values(const float *values, int64_t count, int64_t size, int64_t d, float weights[][BLOCK], Row *rows,
                        int num_rows, int num_vectors) {
  __m256 sums[MOST_SUMS];
#pragma GCC unroll 3
  for (int row = 0; row < num_rows; row++)
#pragma GCC unroll 8
    for (int vector = 0; vector < num_vectors; vector++)
      sums[row * num_vectors + vector] = _mm256_loadu_ps(rows[row].output + d + vector * LANES);
  for (int64_t key = 0; key < count; key++) {
    const float *source = values + key * size + d;
    __m256 weight[TILE_ROWS];
#pragma GCC unroll 3
    for (int row = 0; row < num_rows; row++) weight[row] = _mm256_broadcast_ss(&weights[row][key]);
#pragma GCC unroll 8
    for (int vector = 0; vector < num_vectors; vector++) {
      const __m256 value = _mm256_loadu_ps(source + vector * LANES);
#pragma GCC unroll 3
      for (int row = 0; row < num_rows; row++)
        sums[row * num_vectors + vector] = _mm256_fmadd_ps(weight[row], value, sums[row * num_vectors + vector]);
    }
  }
#pragma GCC unroll 3
  for (int row = 0; row < num_rows; row++)
#pragma GCC unroll 8
    for (int vector = 0; vector < num_vectors; vector++)
      _mm256_storeu_ps(rows[row].output + d + vector * LANES, sums[row * num_vectors + vector]);
}

INLINED void add_values_of_rows(const float *values, int64_t count, int64_t size, float weights[][BLOCK], Row *rows,
                                int num_rows, int num_vectors) {
  int64_t d = 0;
  for (; d + num_vectors * LANES <= size; d += num_vectors * LANES)
    add_values(values, count, size, d, weights, rows, num_rows, num_vectors);
  for (; d < size; d += LANES) add_values(values, count, size, d, weights, rows, num_rows, 1);
}

/* All heads of a group at one position, and one block of keys. */
INLINED void attend_to_block(const AttentionShape *shape, int64_t size, const float *queries, const float *keys,
                             const float *values, int64_t count, int num_rows, Row *rows) {
  float weights[MOST_HEADS_OF_A_GROUP][BLOCK];
  for (int row = 0; row < num_rows; row++) {
    score(queries + row * size, keys, count, size, shape->scale, weights[row]);
    weigh(weights[row], count, size, rows + row);
  }
  int row = 0;
  for (; row + 3 <= num_rows; row += 3) add_values_of_rows(values, count, size, weights + row, rows + row, 3, 4);
  if (num_rows - row == 2) add_values_of_rows(values, count, size, weights + row, rows + row, 2, 4);
  if (num_rows - row == 1) add_values_of_rows(values, count, size, weights + row, rows + row, 1, 8);
}

INLINED void begin_rows(Row *rows, int64_t num_rows, int64_t size) {
  for (int64_t row = 0; row < num_rows; row++) {
    rows[row].largest = -INFINITY;
    rows[row].sum = 0;
    memset(rows[row].output, 0, (size_t)size * sizeof(float));
  }
}

INLINED void write_row(const Row *row, int64_t size, float *target) {
  const __m256 sum = _mm256_set1_ps(row->sum);
  for (int64_t d = 0; d < size; d += LANES)
    _mm256_storeu_ps(target + d, _mm256_div_ps(_mm256_loadu_ps(row->output + d), sum));
}

INLINED void attend_with_heads_of(int64_t size, const AttentionShape *shape, const Sequence *sequence, int64_t kv_head,
                                  int64_t first, int64_t end, const float *queries, float *output) {
  Row rows[MOST_ROWS];
  const int64_t group = shape->num_heads / shape->num_kv_heads;
  const int64_t width = shape->num_heads * size, in_token = kv_head * group * size;
  const float *keys = sequence->keys + kv_head * shape->capacity * size;
  const float *values = sequence->values + kv_head * shape->capacity * size;
  const int64_t tile = MOST_ROWS / group; /* tokens that share a block of keys while it is in the cache */
  for (int64_t start = first; start < end; start += tile) {
    const int64_t num_tokens = end - start < tile ? end - start : tile;
    const int64_t position = sequence->first + start;
    begin_rows(rows, num_tokens * group, size);
    for (int64_t block = 0; block < position + num_tokens; block += BLOCK) {
      for (int64_t token = 0; token < num_tokens; token++) {
        const int64_t seen = position + token + 1 - block;
        if (seen <= 0) continue;
        attend_to_block(shape, size, queries + (start + token) * width + in_token, keys + block * size,
                        values + block * size, seen < BLOCK ? seen : BLOCK, (int)group, rows + token * group);
      }
    }
    for (int64_t row = 0; row < num_tokens * group; row++)
      write_row(rows + row, size, output + (start + row / group) * width + in_token + row % group * size);
  }
}

/* The usual sizes are known to the compiler, which makes other code of them: a tenth to a quarter faster. */
FAST void attend(const AttentionShape *shape, const Sequence *sequence, int64_t kv_head, int64_t first, int64_t end,
                 const float *queries, float *output) {
  switch (shape->head_size) {
    case 64:
      attend_with_heads_of(64, shape, sequence, kv_head, first, end, queries, output);
      break;
    case 128:
      attend_with_heads_of(128, shape, sequence, kv_head, first, end, queries, output);
      break;
    default:
      attend_with_heads_of(shape->head_size, shape, sequence, kv_head, first, end, queries, output);
  }
}
