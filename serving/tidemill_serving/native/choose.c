/* See choose.h: the changes of logits, the room to work in, and what Python calls. */
#include "choose.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "choose_share.h"

#define EXPORTED __attribute__((visibility("default")))

enum { ALIGNMENT = 64, NUM_MASKS = 1 << LANES };

/* Looks at a logit: a second thread takes some 60 microseconds to come, in which one looks ten times a nanosecond. */
enum { WORTH_SHARING = 640 * 1000 };

static int is_token(const Row *row, int64_t token) { return token >= 0 && token < row->vocab; }

static void copy_tail(const Row *row) {
  const int64_t first = row->vocab / GROUP * GROUP;
  memcpy(row->tail, row->logits + first, (size_t)(row->vocab - first) * sizeof(float));
}

void change_logits(Row *row, const RowWish *wish) {
  float *logits = row->logits, *before = row->before;
  for (int64_t i = 0; i < wish->num_biased; i++) {
    const int64_t token = wish->biased[i];
    if (!is_token(row, token)) continue;
    before[i] = logits[token];
    logits[token] += wish->bias[i];
  }
  before += wish->num_biased;
  const float factors[] = {1 / wish->repetition, wish->repetition}; /* of a branch half of the guesses would be wrong */
  for (int64_t i = 0; i < wish->num_penalised; i++) {
    const int64_t token = wish->penalised[i];
    if (!is_token(row, token)) continue;
    const float logit = logits[token];
    before[i] = logit;
    logits[token] = logit * factors[logit < 0] - wish->subtracted[i];
  }
  copy_tail(row);
}

void restore_logits(Row *row, const RowWish *wish) {
  float *logits = row->logits, *before = row->before;
  for (int64_t i = 0; i < wish->num_penalised; i++) {
    if (is_token(row, wish->penalised[i])) logits[wish->penalised[i]] = before[wish->num_biased + i];
  }
  for (int64_t i = 0; i < wish->num_biased; i++) {
    if (is_token(row, wish->biased[i])) logits[wish->biased[i]] = before[i];
  }
}

/* What the numbers of a vector that a mask marks become when they are moved together: their lanes, in order. */
static void fill_closing(uint8_t *closing) {
  memset(closing, 0, NUM_MASKS * LANES);
  for (int mask = 0; mask < NUM_MASKS; mask++) {
    int place = 0;
    for (int lane = 0; lane < LANES; lane++) {
      if (mask >> lane & 1) closing[mask * LANES + place++] = (uint8_t)lane;
    }
  }
}

/* The next piece of the room; with none it only counts. */
static void *take(uint8_t *room, size_t *used, size_t bytes) {
  void *piece = room == NULL ? NULL : room + *used;
  *used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  return piece;
}

static Candidates take_candidates(uint8_t *room, size_t *used, int64_t most) {
  Candidates taken = {0, NULL, NULL, NULL};
  taken.tokens = take(room, used, (size_t)most * sizeof(int32_t));
  taken.logits = take(room, used, (size_t)most * sizeof(float));
  taken.weights = take(room, used, (size_t)most * sizeof(float));
  return taken;
}

/* Parts of the room of one thread for rows of one length. Returns how many bytes they take. */
static size_t lay_out(uint8_t *room, int64_t vocab, Row *row) {
  size_t used = 0;
  const int64_t num_groups = (vocab + GROUP - 1) / GROUP, most = num_groups * GROUP + LANES;
  *row = (Row){.vocab = vocab, .num_groups = num_groups};
  row->closing = take(room, &used, NUM_MASKS * LANES);
  row->tail = take(room, &used, GROUP * sizeof(float));
  row->maxima = take(room, &used, (size_t)num_groups * LANES * sizeof(float));
  row->sums = take(room, &used, (size_t)num_groups * sizeof(float));
  row->weights = take(room, &used, (size_t)num_groups * GROUP * sizeof(float));
  row->before = take(room, &used, 2 * (size_t)vocab * sizeof(float));
  row->found = take_candidates(room, &used, most);
  row->spare = take_candidates(room, &used, most);
  return used;
}

/* Bytes of the room that `tidemill_choose` works in, for rows of one length. All are 0 before its first call. */
EXPORTED int64_t tidemill_choose_room(int64_t vocab) {
  Row row;
  return MOST_THREADS * (int64_t)lay_out(NULL, vocab, &row);
}

/* What is given to be chosen from, and where it is written: arrays of `num_rows`, but `most_told` times that for what is
 * told. No wish is for more, nor names a token twice in a list; chances are from 0 to below 1. */
typedef struct {
  float *logits; /* [num_rows][vocab], changed meanwhile and put back */
  int64_t num_rows, vocab;
  const RowWish *const *wishes;
  const double *chances;
  uint8_t *room;
  int64_t num_threads; /* that may choose at the same time, as many as MOST_THREADS at most */
  int64_t most_told;
  int64_t *tokens;
  double *logprobs;
  int64_t *told_tokens;
  double *told_logprobs;
} Task;

/* A task in work. */
typedef struct {
  const Task *task;
  ChooseRow choose_row;
  _Atomic int64_t num_taken; /* rows */
} Work;

static void choose_one(const Task *task, ChooseRow choose_row, Row *row, int64_t i) {
  const int64_t told = i * task->most_told;
  Choice choice = {-1, 0, task->told_tokens + told, task->told_logprobs + told};
  row->logits = task->logits + i * task->vocab;
  copy_tail(row);
  choose_row(row, task->wishes[i], task->chances[i], &choice);
  task->tokens[i] = choice.token;
  task->logprobs[i] = choice.logprob;
}

/* Take rows until none is left. Which thread takes a row makes no difference to it. */
static void take_rows(void *what, int number) {
  Work *work = what;
  const Task *task = work->task;
  Row row;
  const size_t bytes = lay_out(NULL, task->vocab, &row);
  lay_out(task->room + (size_t)number * bytes, task->vocab, &row);
  if (row.closing[NUM_MASKS * LANES - 1] == 0) fill_closing(row.closing);
  for (int place = 0; place < GROUP; place++) row.tail[place] = -INFINITY;
  for (;;) {
    const int64_t i = atomic_fetch_add_explicit(&work->num_taken, 1, memory_order_relaxed);
    if (i >= task->num_rows) return;
    choose_one(task, work->choose_row, &row, i);
  }
}

/* Passes over its logits that a row takes, about. */
static int64_t passes_of(const RowWish *wish) {
  const int64_t drawn = wish->temperature > 0 ? (wish->top_p < 1 ? 12 : 4) : 0;
  return 1 + drawn + (wish->top_k > 0 ? 2 : 0) + (wish->num_told >= 0 ? 6 : 0) + (wish->num_penalised > 0 ? 4 : 0);
}

static int is_worth_sharing(const Task *task) {
  int64_t passes = 0;
  if (task->num_threads < MOST_THREADS || task->num_rows < 2) return 0;
  for (int64_t i = 0; i < task->num_rows; i++) passes += passes_of(task->wishes[i]);
  return passes * task->vocab >= WORTH_SHARING;
}

static void choose_rows(const Task *task, ChooseRow choose_row) {
  Work work = {task, choose_row, 0};
  if (is_worth_sharing(task)) {
    do_together(take_rows, &work);
  } else {
    take_rows(&work, 0);
  }
}

EXPORTED void tidemill_choose(const Task *task) {
  choose_rows(task, __builtin_cpu_supports("avx2") ? choose_row_avx2 : choose_row_plain);
}

/* As on a processor without AVX2. */
EXPORTED void tidemill_choose_plainly(const Task *task) { choose_rows(task, choose_row_plain); }

#define WISH(name) {#name, offsetof(RowWish, name)}
#define TASK(name) {#name, offsetof(Task, name)}

/* Both records as Python must know them: the names of their fields and where they lie, and after each record its size. */
static const struct {
  const char *name;
  size_t place;
} LAYOUT[] = {
      WISH(biased), WISH(bias), WISH(num_biased), WISH(penalised), WISH(subtracted), WISH(num_penalised), WISH(top_k),
      WISH(num_told), WISH(top_p), WISH(others), WISH(repetition), WISH(temperature), WISH(min_p),
      {"", sizeof(RowWish)},
      TASK(logits), TASK(num_rows), TASK(vocab), TASK(wishes), TASK(chances), TASK(room), TASK(num_threads),
      TASK(most_told), TASK(tokens), TASK(logprobs), TASK(told_tokens), TASK(told_logprobs), {"", sizeof(Task)},
};

/* The name of an entry of the layout, and its place; NULL behind the last. */
EXPORTED const char *tidemill_choose_layout(int64_t entry, int64_t *place) {
  if (entry < 0 || entry >= (int64_t)(sizeof LAYOUT / sizeof *LAYOUT)) return NULL;
  *place = (int64_t)LAYOUT[entry].place;
  return LAYOUT[entry].name;
}
