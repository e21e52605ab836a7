/* Which of some tokens come first, the highest logit first, and of equal ones the lower token. Never a sort of many. */
#ifndef TIDEMILL_CHOOSE_ORDER_H
#define TIDEMILL_CHOOSE_ORDER_H

#include <stdint.h>

/* Tokens in rising order, with room for a few more than a vocabulary. */
typedef struct {
  int64_t num;
  int32_t *tokens;
  float *logits;
  float *weights;
} Candidates;

/* The last of those that come first: all with a higher logit do, and of equal ones those up to its token. */
typedef struct {
  float logit;
  int32_t token;
} Edge;

/* The edge of as many as make up `count`, or `weight` where fewer do; of all where both are more. All logits are within
 * [low, high]; `spare` is overwritten. */
Edge find_edge(const Candidates *found, Candidates *spare, float low, float high, int64_t count, double weight);

/* Leave only those up to the edge. */
void keep_first(Candidates *found, Edge edge);

/* Put few candidates into the order of their logits. */
void sort_few(Candidates *found);

#endif
