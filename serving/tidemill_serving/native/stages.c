/* See stages.h. */
#include "stages.h"

#include <immintrin.h>
#include <sched.h>

/* So long a thread only spins: a task takes microseconds, unless who does it has lost its processor. */
enum { SPINS = 4096 };

static void take_tasks(Stage *stage) {
  int64_t num_done = 0;
  for (;;) {
    const int64_t index = atomic_fetch_add_explicit(&stage->num_taken, 1, memory_order_relaxed);
    if (index >= stage->num_tasks) break;
    stage->task(stage, index);
    num_done++;
  }
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
  while (first < stages->num_stages) {
    int64_t end = first;
    do take_tasks(&all[end++]);
    while (end < stages->num_stages && all[end].is_beside);
    for (int64_t stage = first; stage < end; stage++) wait_for(&all[stage]);
    atomic_store_explicit(&stages->first_open, end, memory_order_release);
    first = end;
  }
}
