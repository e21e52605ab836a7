/* The choice from one row, see choose.h. It is compiled twice: WITH_AVX2 says for which processor, CHOOSE_ROW how what
 * comes of it is called. Both compute the same numbers: additions and products are never contracted. */
#include <math.h>
#include <string.h>

#include "choose_passes.h"

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
  const float high = end < row->top ? end : row->top;
  const Edge edge = find_edge(&row->found, &row->spare, low, high, row->vocab, limit - outside);
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

/* Draw by the weights that are kept, of those up to the edge that reach `min_p`. */
static int64_t draw_from_kept(Row *row, Edge edge, float min_p, double chance) {
  double before = 0;
  const double target = chance * drop_behind(row, edge, min_p);
  const int64_t group = place_at(row->sums, row->num_groups, target, &before);
  const double rest = target - before;
  return group * GROUP + place_at(row->weights + group * GROUP, GROUP, rest, &before);
}

/* A token of a nucleus of many, which weighs `limit` of the weights that are kept: nothing is collected but what is near
 * its edge. */
static int64_t draw_from_wide_nucleus(Row *row, const RowWish *wish, float cut, double limit, double chance) {
  const float low = row->bottom > cut ? row->bottom : cut;
  return draw_from_kept(row, find_edge_of_all(row, low, limit), wish->min_p, chance);
}

/* A token of many of the highest, and of their nucleus. */
static int64_t draw_from_many(Row *row, const RowWish *wish, const Scale *scale, double chance) {
  const float low = row->bottom > scale->cut ? row->bottom : scale->cut;
  for (int64_t place = 0; place < row->num_groups * GROUP; place++) row->weights[place] = 1;
  const Edge edge = find_edge_of_all(row, low, (double)wish->top_k);
  weigh_and_keep(row, scale);
  if (!(wish->top_p < 1)) return draw_from_kept(row, edge, wish->min_p, chance);
  return draw_from_wide_nucleus(row, wish, scale->cut, wish->top_p * drop_behind(row, edge, 0), chance);
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

/* How many of the groups' highest reach what `count` tokens and some more reach, if these lie anywhere; 0 for too many.
 * Where they do not, too few tokens are found, which is seen. */
static int64_t maxima_of(const Row *row, int64_t count) {
  const double above = 1.15 * (double)count / (double)row->vocab, share = 1 - pow(1 - above, GROUP / LANES);
  return above < 0.13 ? (int64_t)(share * (double)(row->num_groups * LANES)) : 0;
}

/* A token by chance: temperature, then top-k, top-p and min-p, each of what the one before it left. */
static int64_t draw(Row *row, const RowWish *wish, double chance) {
  const float temperature = wish->temperature, cut = cut_of(row, temperature);
  const Scale scale = {row->top, 1.442695041F / temperature, cut};
  const int64_t many = row->num_groups * LANES / 4;
  const int has_limit = 0 < wish->top_k && wish->top_k < row->vocab;
  const int has_nucleus = wish->top_p < 1, has_floor = wish->min_p > 0;
  if (!has_limit && !has_nucleus && !has_floor) return draw_from_all(row, &scale, chance);
  const int64_t wanted = !has_limit || wish->top_k <= many ? wish->top_k : maxima_of(row, wish->top_k);
  if (has_limit && wanted == 0) return draw_from_many(row, wish, &scale, chance);
  float lowest = cut;
  if (has_floor && !(has_limit && has_nucleus)) { /* lower than it must be by more than rounding */
    const float least = row->top + temperature * (logf(wish->min_p) - 1e-3F) - 1e-6F * fabsf(row->top);
    lowest = least > cut ? least : cut;
  }
  const float floor = has_limit || has_nucleus ? floor_of(row, has_limit ? wanted : many, lowest) : lowest;
  Candidates *found = &row->found;
  collect(row, floor);
  if (has_limit && found->num < wish->top_k && floor > lowest) return draw_from_many(row, wish, &scale, chance);
  weigh_found(row, &scale);
  if (has_limit) keep_first(found, find_edge(found, &row->spare, floor, row->top, wish->top_k, INFINITY));
  if (has_nucleus) {
    const double weight = sum_found(row);
    const double limit = wish->top_p * (has_limit ? weight : weigh_and_keep(row, &scale) + wish->others);
    if (!has_limit && floor > lowest && weight < limit) return draw_from_wide_nucleus(row, wish, cut, limit, chance);
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
