/* Attention of new tokens to a cache of keys and values in float32, on processors with AVX2 and FMA.
 *
 * What is computed is what GroupQueryAttention computes with past and present in one buffer: the new tokens' queries and
 * keys are turned by their positions, keys and values are written into the cache, and each new token attends to all
 * before it and to itself. Keys are taken in blocks of 64 that begin at multiples of 64, from first to last, each with
 * what is left of it; within a block each number is made by one sequence of operations. So a token's output is the same
 * to the bit alone, in a batch, in any piece of a prompt, and as the next token of an answer.
 */
#ifndef TIDEMILL_ATTENTION_H
#define TIDEMILL_ATTENTION_H

#include <stdint.h>

enum { LARGEST_HEAD = 512, MOST_HEADS_OF_A_GROUP = 16 };

typedef struct {
  int64_t num_heads;
  int64_t num_kv_heads;       /* a divisor of num_heads */
  int64_t head_size;          /* a multiple of 8, at most LARGEST_HEAD */
  int64_t capacity;           /* positions of one sequence's cache */
  int64_t rotary_size;        /* numbers of a head that are turned, an even number; 0: none */
  int64_t rotary_interleaved; /* 1: neighbours are turned together; 0: halves */
  float scale;                /* of the scores */
} AttentionShape;

/* One sequence of a batch. */
typedef struct {
  float *keys;   /* [num_kv_heads][capacity][head_size] */
  float *values; /* the same */
  int64_t first; /* the position of its first new token */
  int64_t count; /* its new tokens */
} Sequence;

int attention_runs_here(void);
int attention_is_valid(const AttentionShape *shape);

/* Turn some heads of one token. cosines, sines: [rotary_size / 2] of its position. */
void turn_heads(const AttentionShape *shape, const float *cosines, const float *sines, const float *source,
                int64_t num_heads, float *restrict target);

/* Turn the key of one head of a token, and write it and its value at a position. */
void append_token(const AttentionShape *shape, const Sequence *sequence, int64_t kv_head, int64_t position,
                  const float *cosines, const float *sines, const float *key, const float *value);

/* The new tokens [first, end) of a sequence, counted from its first new one, and the heads of one group: all that share
 * the keys of `kv_head`. Their keys are in the cache already. queries, output: [count][num_heads][head_size]. */
void attend(const AttentionShape *shape, const Sequence *sequence, int64_t kv_head, int64_t first, int64_t end,
            const float *queries, float *output);

#endif
