/* See stages.h. */
#include "stages.h"

#include <immintrin.h>
#include <sched.h>

/* So long a thread only spins: a task takes microseconds, unless who does it has lost its processor. */
enum { SPINS = 4096 };

/* Where the first threads begin: far from each other. */
static const int64_t HOMES[SHARDS] = {0, 4, 2, 6, 1, 5, 3, 7};

static int64_t take_tasks_of(Stage *stage, int64_t shard) {
  const int64_t first = shard * stage->num_tasks / SHARDS, size = (shard + 1) * stage->num_tasks / SHARDS - first;
  _Atomic int64_t *taken = &stage->num_taken[shard];
  int64_t num_done = 0;
  while (atomic_load_explicit(taken, memory_order_relaxed) < size) {
    const int64_t index = atomic_fetch_add_explicit(taken, 1, memory_order_relaxed);
    if (index >= size) break;
    stage->task(stage, first + index);
    num_done++;
  }
  return num_done;
}

/* A thread takes neighbours one after the other, as they lie in memory, and helps others when its own are taken. */
static void take_tasks(Stage *stage, int64_t home) {
  int64_t num_done = 0;
  for (int64_t each = 0; each < SHARDS; each++) num_done += take_tasks_of(stage, (home + each) % SHARDS);
  if (num_done > 0) atomic_fetch_add_explicit(&stage->num_done, num_done, memory_order_release);
}

static int is_done(const Stage *stage) {
  return atomic_load_explicit(&stage->num_done, memory_order_acquire) == stage->num_tasks;
}

static void wait_for(const Stage *stage) {
  for (int64_t spins = 0; !is_done(stage); spins++) {
    if (spins < SPINS) {
      _mm_pause();
    } else {
      sched_yield();
    }
  }
}

void go_through(Stages *stages) {
  Stage *all = stages->stages;
  int64_t first = atomic_load_explicit(&stages->first_open, memory_order_acquire);
  if (first == stages->num_stages) return;
  const int64_t home = HOMES[atomic_fetch_add_explicit(&stages->num_threads, 1, memory_order_relaxed) % SHARDS];
  while (first < stages->num_stages) {
    int64_t end = first;
    do take_tasks(&all[end++], home);
    while (end < stages->num_stages && all[end].is_beside);
    for (int64_t stage = first; stage < end; stage++) wait_for(&all[stage]);
    atomic_store_explicit(&stages->first_open, end, memory_order_release);
    first = end;
  }
}
