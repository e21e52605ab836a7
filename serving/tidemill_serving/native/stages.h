/* Work in stages, each cut into tasks, by any number of threads that come and go as they like.
 *
 * Whoever comes goes through the stages from first to last. In each it takes tasks until none is left, and then waits
 * until those that others took are done: somebody is doing them, so nobody waits for a thread that never came. One
 * thread alone does everything, and one that comes late finds little or nothing to do.
 */
#ifndef TIDEMILL_STAGES_H
#define TIDEMILL_STAGES_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { SHARDS = 8 };

typedef struct Stage {
  void (*task)(const struct Stage *stage, int64_t index);
  const void *run, *step; /* what the task looks at */
  int64_t num_tasks;      /* may be none */
  int64_t task_panels;    /* of products */
  int is_beside;          /* it needs nothing of the stage before it: nobody waits between them */
  _Alignas(64) _Atomic int64_t num_taken[SHARDS]; /* of each part of the tasks */
  _Alignas(64) _Atomic int64_t num_done;
} Stage;

typedef struct {
  Stage *stages;
  int64_t num_stages;
  _Atomic int64_t first_open; /* those before it are done */
  _Atomic int64_t num_threads;
} Stages;

/* A thread comes. When it returns all is done. */
void go_through(Stages *stages);

#endif
