/* The choice of the next token from a row of logits, by the rules of docs/sampling.md.
 *
 * Work is linear in the vocabulary: one pass for the highest logit of each group of 16, one for the weights where a
 * draw counts them all; what narrows a choice looks only at the few above a floor, and orders no more than it must.
 * A row's result depends on this row, its wish and its chance alone, to the bit; so it does with and without AVX2, since
 * both are made of the same additions and products in the same order.
 */
#ifndef TIDEMILL_CHOOSE_H
#define TIDEMILL_CHOOSE_H

#include <stddef.h>
#include <stdint.h>

#include "choose_order.h"

enum { LANES = 8, GROUP = 128, GROUP_VECTORS = GROUP / LANES };

/* What is wished for one row. Tokens of a list are different ones. */
typedef struct {
  const int64_t *biased; /* tokens, */
  const float *bias;     /* and what is added to their logits, first of all */
  int64_t num_biased;
  const int64_t *penalised; /* tokens whose logits are divided by `repetition` (multiplied where negative), */
  const float *subtracted;  /* and what is taken from them then */
  int64_t num_penalised;
  int64_t top_k;     /* 0: no limit */
  int64_t num_told;  /* of the likeliest, with their log-probabilities; -1: none, nor the chosen one's */
  double top_p;      /* 1: no limit */
  double others;     /* what tokens that are not in the row weigh, the highest logit of all weighing 1; counts for top-p */
  float repetition;
  float temperature; /* 0: the highest logit is taken */
  float min_p;       /* 0: no limit */
} RowWish;

/* Where what was chosen is written. */
typedef struct {
  int64_t token;        /* -1: the row's highest logit is not a finite number */
  double logprob;       /* natural logarithms of the softmax of the row as it was given */
  int64_t *told_tokens; /* [num_told], the likeliest first, and of equal ones the lower token */
  double *told_logprobs;
} Choice;

/* A row while it is worked on. */
typedef struct {
  float *logits;
  int64_t vocab, num_groups;
  float *tail;       /* the last group where the row does not fill it: the rest is minus infinity */
  float top, bottom; /* the highest logit, and the lowest */
  float *maxima;     /* [num_groups][LANES]: the highest of each 16 that lie LANES apart */
  float *sums;       /* [num_groups]: weights */
  float *weights;    /* [num_groups][GROUP], where they are kept */
  Candidates found;
  Candidates spare;       /* of no token: room to work in */
  float *before;          /* [2 * vocab]: logits that were changed */
  uint8_t *closing;       /* [256][LANES]: where each lane of a mask goes, so that no gap stays */
} Row;

typedef void (*ChooseRow)(Row *row, const RowWish *wish, double chance, Choice *choice);

void choose_row_plain(Row *row, const RowWish *wish, double chance, Choice *choice);
void choose_row_avx2(Row *row, const RowWish *wish, double chance, Choice *choice);

/* Change a row's logits as wished, and put back what was there. */
void change_logits(Row *row, const RowWish *wish);
void restore_logits(Row *row, const RowWish *wish);

#endif
