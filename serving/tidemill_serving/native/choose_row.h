/* The choice from one row, see choose.h. It is compiled twice: WITH_AVX2 says for which processor, CHOOSE_ROW how what
 * comes of it is called. Both compute the same numbers: vectors are of eight floats, which the compiler halves where the
 * processor has none so long, and additions and products are never contracted. */
#include <math.h>
#include <string.h>

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

/* A logit that at least `count` reach, and not many more: one that so many of the groups' highest reach. `cut` where
 * these are fewer. */
static float floor_of(const Row *row, int64_t count, float cut) {
  enum { NUM_STEPS = 256 };
  int32_t counts[NUM_STEPS] = {0};
  float lowest[NUM_STEPS];
  const float range = row->top - cut;
  if (!(range > 0) || count > row->num_groups * LANES) return cut;
  const float scale = NUM_STEPS / range;
  for (int step = 0; step < NUM_STEPS; step++) lowest[step] = row->top;
  for (int64_t place = 0; place < row->num_groups * LANES; place++) {
    const float highest = row->maxima[place], below = (row->top - highest) * scale;
    if (!(below < NUM_STEPS)) continue;
    const int step = (int)below;
    counts[step]++;
    if (highest < lowest[step]) lowest[step] = highest;
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

/* A token of all. */
static int64_t draw_from_all(Row *row, const Scale *scale, double chance) {
  float weights[GROUP];
  double before = 0;
  const double target = chance * weigh_all(row, scale);
  const int64_t group = place_at(row->sums, row->num_groups, target, &before);
  const double rest = target - before;
  weigh_group(scale, group_at(row, group), weights);
  return group * GROUP + place_at(weights, GROUP, rest, &before);
}

/* A token of what was found. */
static int64_t draw_from_found(Row *row, double chance) {
  const Candidates *found = &row->found;
  double before = 0;
  const double target = chance * sum_found(row);
  const int64_t first = GROUP * place_at(row->sums, (found->num + GROUP - 1) / GROUP, target, &before);
  const int64_t num = found->num - first < GROUP ? found->num - first : GROUP;
  const double rest = target - before;
  return found->tokens[first + place_at(found->weights + first, num, rest, &before)];
}

enum { NUM_FLOORS = 8, NUM_ROUNDS = 2, PIECE = 16 };

/* What all weigh that reach each of some floors, by the weights that are kept. */
static void weigh_above(const Row *row, const float *floors, double *above) {
  for (int i = 0; i < NUM_FLOORS; i++) above[i] = 0;
  for (int64_t start = 0; start < row->num_groups; start += PIECE) {
    const int64_t end = start + PIECE < row->num_groups ? start + PIECE : row->num_groups;
    Floats sums[NUM_FLOORS] = {{0}};
    for (int64_t group = start; group < end; group++) {
      const float *logits = group_at(row, group), *weights = row->weights + group * GROUP;
      for (int place = 0; place < GROUP; place += LANES) {
        const Floats values = load(logits + place);
        const Words weight = (Words)load(weights + place);
        for (int i = 0; i < NUM_FLOORS; i++) sums[i] += (Floats)((Words)(values >= floors[i]) & weight);
      }
    }
    for (int i = 0; i < NUM_FLOORS; i++) above[i] += (double)sum_of(sums[i]);
  }
}

/* The edge of those that make up `limit` of the weights that are kept, none of which is below `low`: between which
 * logits it is, by two rounds of eight; then among those in between. */
static Edge find_edge_of_all(Row *row, float low, double limit) {
  float end = INFINITY, floors[NUM_FLOORS];
  double outside = 0, above[NUM_FLOORS];
  for (int round = 0; round < NUM_ROUNDS; round++) {
    const float high = end < row->top ? end : row->top, step = (high - low) / (NUM_FLOORS + 1);
    int first = 0;
    for (int i = 0; i < NUM_FLOORS; i++) floors[i] = high - (float)(i + 1) * step;
    weigh_above(row, floors, above);
    while (first < NUM_FLOORS && above[first] < limit) first++;
    if (first < NUM_FLOORS) low = floors[first];
    if (first > 0) {
      end = floors[first - 1];
      outside = above[first - 1];
    }
  }
  collect_between(row, low, end, 1);
  const Edge edge = find_edge(&row->found, &row->spare, low, end < row->top ? end : row->top, row->vocab, limit - outside);
  return edge.logit > low ? edge : (Edge){low, edge.logit < low ? INT32_MAX : edge.token};
}

/* Of the weights that are kept leave only those up to the edge that reach `min_p`; returns what they weigh. */
static double drop_behind(Row *row, Edge edge, float min_p) {
  const Words counting = {0, 1, 2, 3, 4, 5, 6, 7};
  double total = 0;
  for (int64_t group = 0; group < row->num_groups; group++) {
    const float *logits = group_at(row, group);
    float *weights = row->weights + group * GROUP;
    Floats sum = all_of(0);
    for (int place = 0; place < GROUP; place += LANES) {
      const Floats values = load(logits + place), weight = load(weights + place);
      const Words token = counting + (uint32_t)(group * GROUP + place);
      const Words is_equal = (Words)(values == edge.logit) & (Words)(token <= (uint32_t)edge.token);
      const Words is_kept = ((Words)(values > edge.logit) | is_equal) & (Words)(weight >= min_p);
      const Floats left = (Floats)((Words)weight & is_kept);
      store(weights + place, left);
      sum += left;
    }
    row->sums[group] = sum_of(sum);
    total += (double)row->sums[group];
  }
  return total;
}

/* The same as `draw` where many tokens may be drawn: nothing is collected but what is near an edge. */
static int64_t draw_from_many(Row *row, const RowWish *wish, const Scale *scale, double chance) {
  const float low = row->bottom > scale->cut ? row->bottom : scale->cut;
  const int has_limit = 0 < wish->top_k && wish->top_k < row->vocab;
  Edge edge = {-INFINITY, INT32_MAX};
  if (has_limit) {
    for (int64_t place = 0; place < row->num_groups * GROUP; place++) row->weights[place] = 1;
    edge = find_edge_of_all(row, low, (double)wish->top_k);
  }
  double total = weigh_and_keep(row, scale), before = 0;
  if (has_limit) total = drop_behind(row, edge, 0);
  if (wish->top_p < 1) edge = find_edge_of_all(row, low, wish->top_p * (has_limit ? total : total + wish->others));
  total = drop_behind(row, edge, wish->min_p);
  const double target = chance * total;
  const int64_t group = place_at(row->sums, row->num_groups, target, &before);
  const double rest = target - before;
  return group * GROUP + place_at(row->weights + group * GROUP, GROUP, rest, &before);
}

static void drop_below(Candidates *found, float min_p) {
  int64_t kept = 0;
  for (int64_t i = 0; i < found->num; i++) {
    const float weight = found->weights[i];
    found->tokens[kept] = found->tokens[i];
    found->weights[kept] = weight;
    kept += weight >= min_p;
  }
  found->num = kept;
}

/* What a token must reach to weigh anything: all below it together weigh less than 2^-24 of the highest one. */
static float cut_of(const Row *row, float temperature) {
  return row->top - temperature * (logf((float)row->vocab) + 16.64F);
}

/* A token by chance: temperature, then top-k, top-p and min-p, each of what the one before it left. */
static int64_t draw(Row *row, const RowWish *wish, double chance) {
  const float temperature = wish->temperature, cut = cut_of(row, temperature);
  const Scale scale = {row->top, 1.442695041F / temperature, cut};
  const int64_t many = row->num_groups * LANES / 4;
  const int has_limit = 0 < wish->top_k && wish->top_k < row->vocab;
  const int has_nucleus = wish->top_p < 1, has_floor = wish->min_p > 0;
  if (!has_limit && !has_nucleus && !has_floor) return draw_from_all(row, &scale, chance);
  if (has_limit && wish->top_k > many) return draw_from_many(row, wish, &scale, chance);
  float lowest = cut;
  if (has_floor && !(has_limit && has_nucleus)) { /* lower than it must be by more than rounding */
    const float least = row->top + temperature * (logf(wish->min_p) - 1e-3F) - 1e-6F * fabsf(row->top);
    lowest = least > cut ? least : cut;
  }
  const float floor = has_limit || has_nucleus ? floor_of(row, has_limit ? wish->top_k : many, lowest) : lowest;
  Candidates *found = &row->found;
  collect(row, floor);
  weigh_found(row, &scale);
  if (has_limit) keep_first(found, find_edge(found, &row->spare, floor, row->top, wish->top_k, INFINITY));
  if (has_nucleus) {
    const double weight = sum_found(row);
    const double limit = wish->top_p * (has_limit ? weight : weigh_all(row, &scale) + wish->others);
    if (!has_limit && floor > lowest && weight < limit) return draw_from_many(row, wish, &scale, chance);
    keep_first(found, find_edge(found, &row->spare, floor, row->top, found->num, limit));
  }
  if (has_floor) drop_below(found, wish->min_p);
  return draw_from_found(row, chance);
}

/* Tell the likeliest tokens; returns the logarithm of what all weigh. */
static double tell(Row *row, const RowWish *wish, Choice *choice) {
  const float cut = cut_of(row, 1);
  const Scale scale = {row->top, 1.442695041F, cut};
  const double log_total = (double)row->top + log(weigh_all(row, &scale));
  if (wish->num_told == 0) return log_total;
  Candidates *found = &row->found;
  float floor = floor_of(row, wish->num_told, cut);
  if (!(floor > cut)) floor = -INFINITY; /* those without weight are told, too */
  collect(row, floor);
  memset(found->weights, 0, (size_t)found->num * sizeof(float));
  keep_first(found, find_edge(found, &row->spare, floor, row->top, wish->num_told, INFINITY));
  sort_few(found);
  for (int64_t place = 0; place < found->num; place++) {
    choice->told_tokens[place] = found->tokens[place];
    choice->told_logprobs[place] = (double)found->logits[place] - log_total;
  }
  return log_total;
}

void CHOOSE_ROW(Row *row, const RowWish *wish, double chance, Choice *choice) {
  const int is_changed = wish->num_biased > 0 || wish->num_penalised > 0, is_told = wish->num_told >= 0;
  choice->token = -1;
  if (!look(row)) return;
  const double log_total = is_told ? tell(row, wish, choice) : 0;
  if (is_changed) change_logits(row, wish);
  if (!is_changed || look(row)) choice->token = wish->temperature > 0 ? draw(row, wish, chance) : best(row);
  if (is_changed) restore_logits(row, wish);
  if (is_told && choice->token >= 0) choice->logprob = (double)row->logits[choice->token] - log_total;
}
