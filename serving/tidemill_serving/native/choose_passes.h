/* Passes over a row, see choose_row.h, with which this is compiled twice. Vectors are of eight floats, which the compiler
 * halves where the processor has none so long. */
#ifndef TIDEMILL_CHOOSE_PASSES_H
#define TIDEMILL_CHOOSE_PASSES_H

#include <math.h>

#if WITH_AVX2
#include <immintrin.h>
#endif

#include "choose.h"

#define INLINED static inline __attribute__((always_inline))

/* Vectors are passed between functions that are inlined only. */
#pragma GCC diagnostic ignored "-Wpsabi"

typedef float Floats __attribute__((vector_size(32)));
typedef uint32_t Words __attribute__((vector_size(32)));
typedef float LooseFloats __attribute__((vector_size(32), aligned(4), may_alias));

INLINED Floats load(const float *from) { return *(const LooseFloats *)(const void *)from; }
INLINED void store(float *to, Floats values) { *(LooseFloats *)(void *)to = values; }
INLINED Floats all_of(float value) {
  return (Floats){value, value, value, value, value, value, value, value};
}

#if WITH_AVX2
INLINED Floats higher(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
INLINED Floats lower(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)a, (__m256)b); }
INLINED int mask_of(Words truths) { return _mm256_movemask_ps((__m256)truths); }
#else
INLINED Floats higher(Floats a, Floats b) {
  const Words is_higher = (Words)(a > b);
  return (Floats)((is_higher & (Words)a) | (~is_higher & (Words)b));
}
INLINED Floats lower(Floats a, Floats b) {
  const Words is_lower = (Words)(a < b);
  return (Floats)((is_lower & (Words)a) | (~is_lower & (Words)b));
}
INLINED int mask_of(Words truths) {
  int mask = 0;
  for (int lane = 0; lane < LANES; lane++) mask |= (int)(truths[lane] >> 31) << lane;
  return mask;
}
#endif

INLINED float sum_of(Floats v) {
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

INLINED const float *group_at(const Row *row, int64_t group) {
  return (group + 1) * GROUP <= row->vocab ? row->logits + group * GROUP : row->tail;
}

/* Find the groups' highest logits and the row's. 0 where that is not a finite number, or any is not a number. */
static int look(Row *row) {
  Floats top = all_of(-INFINITY), bottom = all_of(INFINITY);
  Words is_wrong = {0};
  for (int64_t group = 0; group < row->num_groups; group++) {
    const float *logits = group_at(row, group);
    Floats highest = all_of(-INFINITY);
    for (int vector = 0; vector < GROUP_VECTORS; vector += 2) {
      const Floats one = load(logits + vector * LANES), other = load(logits + (vector + 1) * LANES);
      is_wrong |= (Words)(one != one) | (Words)(other != other);
      highest = higher(highest, higher(one, other));
      bottom = lower(bottom, lower(one, other));
    }
    store(row->maxima + group * LANES, highest);
    top = higher(top, highest);
  }
  row->top = top[0];
  row->bottom = bottom[0];
  for (int lane = 1; lane < LANES; lane++) {
    if (top[lane] > row->top) row->top = top[lane];
    if (bottom[lane] < row->bottom) row->bottom = bottom[lane];
  }
  return mask_of(is_wrong) == 0 && row->top < INFINITY && row->top > -INFINITY;
}

/* The token of the highest logit; of equal ones the lowest. */
static int64_t best(const Row *row) {
  int64_t group = 0;
  while (mask_of((Words)(load(row->maxima + group * LANES) == row->top)) == 0) group++;
  int64_t token = group * GROUP;
  while (!(row->logits[token] == row->top)) token++;
  return token;
}

/* How logits become weights: the highest, the logarithm's base and temperature, and what weighs nothing. */
typedef struct {
  float top, factor, cut;
} Scale;

/* Two to the power of (logit - top) * factor, with an error of 2e-6 of it, and exactly 1 for the highest; 0 below cut. */
INLINED Floats weights_of(const Scale *scale, Floats logits) {
  const Floats rounder = all_of(12582912.0F); /* 1.5 * 2^23: what is added to it is rounded to a whole number */
  const Floats power = (logits - scale->top) * scale->factor, shifted = power + rounder;
  const Floats rest = power - (shifted - rounder), square = rest * rest;
  const Floats low = all_of(1.0F) + rest * 0x1.62e42ap-1F, middle = all_of(0x1.ebf9bcp-3F) + rest * 0x1.c6b752p-5F;
  const Floats high = all_of(0x1.3cea90p-7F) + rest * 0x1.5bba24p-10F;
  const Floats found = low + square * (middle + square * high);
  return (Floats)(((Words)found + ((Words)shifted << 23)) & (Words)(logits >= scale->cut));
}

/* Weigh a group into `weights` (NULL: nowhere); returns the sum. */
INLINED float weigh_group(const Scale *scale, const float *logits, float *weights) {
  Floats sum = all_of(0), other_sum = all_of(0);
  for (int place = 0; place < GROUP; place += 2 * LANES) {
    const Floats one = weights_of(scale, load(logits + place));
    const Floats other = weights_of(scale, load(logits + place + LANES));
    if (weights != NULL) {
      store(weights + place, one);
      store(weights + place + LANES, other);
    }
    sum += one;
    other_sum += other;
  }
  return sum_of(sum + other_sum);
}

/* The weight of all tokens, and of each group of them in `sums`. */
static double weigh_all(Row *row, const Scale *scale) {
  double total = 0;
  for (int64_t group = 0; group < row->num_groups; group++) {
    row->sums[group] = weigh_group(scale, group_at(row, group), NULL);
    total += (double)row->sums[group];
  }
  return total;
}

/* The same; each weight is kept. */
static double weigh_and_keep(Row *row, const Scale *scale) {
  double total = 0;
  for (int64_t group = 0; group < row->num_groups; group++) {
    row->sums[group] = weigh_group(scale, group_at(row, group), row->weights + group * GROUP);
    total += (double)row->sums[group];
  }
  return total;
}

/* Weigh what was found. */
static void weigh_found(Row *row, const Scale *scale) {
  const Candidates *found = &row->found;
  for (int64_t first = 0; first < found->num; first += LANES) {
    for (int64_t place = found->num; place < first + LANES; place++) found->logits[place] = -INFINITY;
    store(found->weights + first, weights_of(scale, load(found->logits + first)));
  }
}

/* Move the numbers that a mask marks together. */
INLINED void close_up(const Row *row, int mask, Floats values, float *target) {
  const uint8_t *lanes = row->closing + mask * LANES;
#if WITH_AVX2
  const __m256i order = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)lanes));
  store(target, (Floats)_mm256_permutevar8x32_ps((__m256)values, order));
#else
  for (int place = 0; place < LANES; place++) target[place] = values[lanes[place]];
#endif
}

INLINED void close_up_tokens(const Row *row, int mask, int first, int32_t *target) {
  const uint8_t *lanes = row->closing + mask * LANES;
#if WITH_AVX2
  const __m256i order = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)lanes));
  _mm256_storeu_si256((__m256i *)(void *)target, _mm256_add_epi32(order, _mm256_set1_epi32(first)));
#else
  for (int place = 0; place < LANES; place++) target[place] = first + lanes[place];
#endif
}

/* Collect all tokens whose logits reach `floor` and are below `end`, with the weights that are kept if `has_weights`. */
INLINED void collect_between(Row *row, float floor, float end, int has_weights) {
  Candidates *found = &row->found;
  int64_t num = 0;
  for (int64_t group = 0; group < row->num_groups; group++) {
    if (mask_of((Words)(load(row->maxima + group * LANES) >= floor)) == 0) continue;
    const float *logits = group_at(row, group);
    for (int vector = 0; vector < GROUP_VECTORS; vector++) {
      const Floats values = load(logits + vector * LANES);
      const int mask = mask_of((Words)(values >= floor) & (Words)(values < end));
      const int first = (int)(group * GROUP) + vector * LANES;
      if (mask == 0) continue;
      close_up(row, mask, values, found->logits + num);
      close_up_tokens(row, mask, first, found->tokens + num);
      if (has_weights) close_up(row, mask, load(row->weights + first), found->weights + num);
      num += __builtin_popcount((unsigned)mask);
    }
  }
  while (num > 0 && found->tokens[num - 1] >= row->vocab) num--; /* of the tail's rest, where all is collected */
  found->num = num;
}

static void collect(Row *row, float floor) { collect_between(row, floor, INFINITY, 0); }

/* A logit that at least `count` reach, and not many more: one that so many of the highest of groups reach, which are
 * taken together until twice as many are left. `cut` where too few do. */
static float floor_of(const Row *row, int64_t count, float cut) {
  enum { NUM_STEPS = 256 };
  int32_t counts[NUM_STEPS] = {0};
  float lowest[NUM_STEPS];
  const float range = row->top - cut;
  const int64_t enough = row->num_groups * LANES / (2 * count), together = enough > 1 ? enough : 1;
  if (!(range > 0)) return cut;
  const float scale = NUM_STEPS / range;
  for (int step = 0; step < NUM_STEPS; step++) lowest[step] = row->top;
  for (int64_t first = 0; first < row->num_groups; first += together) {
    Floats highest = load(row->maxima + first * LANES);
    for (int64_t group = first + 1; group < first + together && group < row->num_groups; group++) {
      highest = higher(highest, load(row->maxima + group * LANES));
    }
    for (int lane = 0; lane < LANES; lane++) {
      const float below = (row->top - highest[lane]) * scale;
      if (!(below < NUM_STEPS)) continue;
      const int step = (int)below;
      counts[step]++;
      if (highest[lane] < lowest[step]) lowest[step] = highest[lane];
    }
  }
  for (int step = 0; step < NUM_STEPS; step++) {
    count -= counts[step];
    if (count <= 0) return lowest[step] > cut ? lowest[step] : cut;
  }
  return cut;
}

/* The place at which running sums of `weights` first exceed `target`; never one without weight. */
static int64_t place_at(const float *weights, int64_t num, double target, double *before) {
  double reach = 0;
  int64_t last = 0;
  *before = 0;
  for (int64_t place = 0; place < num; place++) {
    if (!(weights[place] > 0)) continue;
    *before = reach;
    reach += (double)weights[place];
    last = place;
    if (reach > target) break;
  }
  return last;
}

/* The weight of all that was found, and of each group of it in `sums`. */
static double sum_found(Row *row) {
  const Candidates *found = &row->found;
  double total = 0;
  int64_t group = 0;
  for (int64_t first = 0; first < found->num; first += GROUP, group++) {
    for (int64_t place = found->num; place < first + GROUP; place++) found->weights[place] = 0;
    Floats sum = all_of(0);
    for (int vector = 0; vector < GROUP_VECTORS; vector++) sum += load(found->weights + first + vector * LANES);
    row->sums[group] = sum_of(sum);
    total += (double)row->sums[group];
  }
  return total;
}

#endif
