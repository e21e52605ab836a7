/* Threads that come to the stages when they like: 0 where what they made is what one thread alone makes. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "stages.h"

enum { STAGES = 60, MOST_TASKS = 40, THREADS = 6, ROUNDS = 100, MODULUS = 1000003 };

static long made[STAGES][MOST_TASKS]; /* plain memory: the thread sanitizer sees who does not wait */
static Stage stages[STAGES];
static Stages all;

/* Reads what the stages before it made, but for those that run beside it. */
static void task(const Stage *stage, int64_t index) {
  ptrdiff_t first = stage - stages;
  long sum = 1;
  while (first > 0 && stages[first].is_beside) first--;
  if (first > 0) {
    for (int64_t each = 0; each < stages[first - 1].num_tasks; each++) sum += made[first - 1][each];
  }
  made[stage - stages][index] += sum % MODULUS;
}

static void draw_stages(unsigned int seed) {
  srand(seed);
  memset(made, 0, sizeof made);
  memset(stages, 0, sizeof stages);
  for (int each = 0; each < STAGES; each++) {
    stages[each].task = task;
    stages[each].num_tasks = rand() % 4 == 0 ? rand() % 2 : rand() % MOST_TASKS;
    stages[each].is_beside = each > 0 && rand() % 4 == 0;
  }
  all = (Stages){stages, STAGES, 0, 0};
}

static void *come(void *given) {
  for (volatile size_t wait = (size_t)given; wait > 0; wait--) continue;
  go_through(&all);
  return NULL;
}

int main(void) {
  static long alone[STAGES][MOST_TASKS];
  for (unsigned int round = 0; round < ROUNDS; round++) {
    pthread_t threads[THREADS];
    draw_stages(round);
    go_through(&all);
    memcpy(alone, made, sizeof made);
    draw_stages(round);
    for (int each = 0; each < THREADS; each++) {
      if (pthread_create(&threads[each], NULL, come, (void *)(size_t)(rand() % 20000)) != 0) return 2;
    }
    for (int each = 0; each < THREADS; each++) pthread_join(threads[each], NULL);
    if (memcmp(alone, made, sizeof made) != 0) return 1;
  }
  return 0;
}
