/* See choose_order.h. */
#include "choose_order.h"

#include <math.h>
#include <string.h>

enum { NUM_BUCKETS = 512, FEW = 32 };

typedef struct {
  int64_t counts[NUM_BUCKETS];
  double weights[NUM_BUCKETS];
} Buckets;

/* How many buckets lie in one unit of logits; 0 where the range has no end. */
static double buckets_per_unit(float low, float high) {
  const double range = (double)high - (double)low;
  return range > 0 && range < 1e300 ? NUM_BUCKETS / range : 0;
}

/* Rises as logits fall. Minus infinity comes last. */
static inline int bucket_of(float logit, float high, double scale) {
  const double place = ((double)high - (double)logit) * scale;
  return place < NUM_BUCKETS - 1 ? (int)place : NUM_BUCKETS - 1;
}

/* Put few into order: it keeps that of equal ones. */
void sort_few(Candidates *found) {
  for (int64_t i = 1; i < found->num; i++) {
    const float logit = found->logits[i], weight = found->weights[i];
    const int32_t token = found->tokens[i];
    int64_t k = i;
    for (; k > 0 && found->logits[k - 1] < logit; k--) {
      found->logits[k] = found->logits[k - 1];
      found->weights[k] = found->weights[k - 1];
      found->tokens[k] = found->tokens[k - 1];
    }
    found->logits[k] = logit;
    found->weights[k] = weight;
    found->tokens[k] = token;
  }
}

/* The edge among some that are in order. */
static Edge edge_in_order(const Candidates *ordered, int64_t count, double weight) {
  double reach = 0;
  int64_t last = -1;
  while (last + 1 < ordered->num && last + 1 < count && reach < weight) reach += (double)ordered->weights[++last];
  if (last < 0) last = 0;
  return (Edge){ordered->logits[last], ordered->tokens[last]};
}

static void fill(Buckets *buckets, const Candidates *members, float high, double scale) {
  memset(buckets, 0, sizeof *buckets);
  for (int64_t i = 0; i < members->num; i++) {
    const int bucket = bucket_of(members->logits[i], high, scale);
    buckets->counts[bucket]++;
    buckets->weights[bucket] += (double)members->weights[i];
  }
}

/* The members of one bucket, and between which logits they lie. `from` and `into` may be the same. */
static void narrow(const Candidates *from, Candidates *into, int bucket, float *low, float *high, double scale) {
  const float top = *high;
  const int64_t num = from->num;
  float lowest = top, highest = *low;
  int64_t kept = 0;
  for (int64_t i = 0; i < num; i++) {
    const float logit = from->logits[i], weight = from->weights[i];
    const int32_t token = from->tokens[i];
    if (bucket_of(logit, top, scale) != bucket) continue;
    into->logits[kept] = logit;
    into->weights[kept] = weight;
    into->tokens[kept++] = token;
    if (logit < lowest) lowest = logit;
    if (logit > highest) highest = logit;
  }
  into->num = kept;
  *low = lowest;
  *high = highest;
}

Edge find_edge(const Candidates *found, Candidates *spare, float low, float high, int64_t count, double weight) {
  Buckets buckets;
  const Candidates *members = found;
  while (members->num > FEW && low < high) {
    const double scale = buckets_per_unit(low, high);
    fill(&buckets, members, high, scale);
    int bucket = 0;
    for (; bucket < NUM_BUCKETS; bucket++) {
      if (buckets.counts[bucket] >= count || buckets.weights[bucket] >= weight) break;
      count -= buckets.counts[bucket];
      weight -= buckets.weights[bucket];
    }
    if (bucket == NUM_BUCKETS) {
      if (members == found) return (Edge){-INFINITY, INT32_MAX};
      count = members->num; /* sums in another order may fall short by their rounding */
      weight = INFINITY;
      bucket = NUM_BUCKETS - 1;
    }
    narrow(members, spare, bucket, &low, &high, scale);
    members = spare;
  }
  if (members == found) {
    const size_t num = (size_t)found->num;
    spare->num = found->num;
    memcpy(spare->logits, found->logits, num * sizeof(float));
    memcpy(spare->weights, found->weights, num * sizeof(float));
    memcpy(spare->tokens, found->tokens, num * sizeof(int32_t));
  }
  if (low < high) sort_few(spare);
  return spare->num > 0 ? edge_in_order(spare, count, weight) : (Edge){-INFINITY, INT32_MAX};
}

void keep_first(Candidates *found, Edge edge) {
  int64_t kept = 0;
  for (int64_t i = 0; i < found->num; i++) {
    const float logit = found->logits[i];
    const int32_t token = found->tokens[i];
    found->logits[kept] = logit;
    found->weights[kept] = found->weights[i];
    found->tokens[kept] = token;
    kept += (logit > edge.logit) | ((logit == edge.logit) & (token <= edge.token));
  }
  found->num = kept;
}
